"""The figures of images as one tidy table: a row for each image, checkpoint and map, written some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from pipeline.features.finished import finished_checkpoints
from pipeline.features.variants import stored_variants
from pipeline.run.directory import MissingProductError, Run
from pipeline.stats.staleness import FigureInputs, all_inputs
from pipeline.stats.state import RETRIEVAL, lacks_retrieval, pending_figures
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.work.stops import check_stop
from stages.cam.map_keys import MapKey
from stages.naming import known
from stages.stats.figures import DRIFT_FIGURES
from stages.stats.images import IMAGES, MAPS
from stages.stats.trust import STATUS_NAMES

FORMATS = (".parquet", ".csv")
_TEXTS = ("sample_id", "place", "view", "split", "roles")
_Write = Callable[[pd.DataFrame], None]


def write_image_table(run: Run, out: Path, names: Sequence[str] = ()) -> int:
    """Write the figures of every image, checkpoint and map; return the number of rows.

    Parameters
    ----------
    run : Run
    out : Path
        Ends in .parquet or .csv. It appears when it is whole.
    names : sequence of str
        Checkpoints; none: all.

    Raises
    ------
    ValueError
        If the run has no checkpoint of a name, or the file has another ending.
    MissingProductError
        If figures are missing or stale.
    """
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: ends in {out.suffix!r}; expected {' or '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}")
    inputs = all_inputs(run, finished_checkpoints(run, partial=True))
    there = [one.name for one in inputs]
    chosen = {known(name, there, f"{run.directory}: --checkpoint") for name in names or there}
    tables = [_Figures(run, one) for one in inputs if one.name in chosen]
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    rows = 0
    with _opened(out) as write:
        for table in tables:
            for part in table.parts():
                check_stop()
                write(part.reindex(columns=columns))
                rows += len(part)
    return rows


class _Figures:
    """The stored figures of a checkpoint's images."""

    def __init__(self, run: Run, one: FigureInputs) -> None:
        if pending_figures(run, one) or lacks_retrieval(run, one):
            raise MissingProductError(f"{run.figures(one.name)}: figures of images are missing or stale; run `atlas stats` first")
        features = run.features(one.name)
        self._one, self._figures, self._drifts = one, run.figures(one.name), run.settings.stats.drift
        texts = features.arrays(_TEXTS)
        self._texts = pd.DataFrame({"image": texts["sample_id"], **{name: texts[name] for name in _TEXTS[1:]}})
        self._texts["variant"] = stored_variants(run, features)
        self._looked_at = one.groups.index >= 0

    @property
    def columns(self) -> list[str]:
        """Names of the columns, from no rows."""
        map_keys = self._one.map_keys[:1]
        return [str(name) for map_key in map_keys for name in self._part(Block(0, 0, 0), map_key).columns]

    def parts(self) -> Iterator[pd.DataFrame]:
        """Rows of one block and map at a time; images that are bad, or of other flight heights, have none."""
        for block in self._figures.blocks:
            for map_key in self._one.map_keys:
                yield self._part(block, map_key)

    def _part(self, block: Block, map_key: MapKey) -> pd.DataFrame:
        one, figures = self._one, self._figures
        about = {"checkpoint": one.name, "epoch": np.nan if one.epoch is None else float(one.epoch), "series": one.series}
        what = {"position": map_key.position, "target": map_key.target, "method": map_key.method}
        parts = [_columns(figures, f"{MAPS}/{map_key.key}", block.rows)]
        parts[0]["status"] = np.array(STATUS_NAMES, dtype=object)[parts[0]["status"].to_numpy(int)]
        parts += [self._drift(kind, block, map_key) for kind in self._drifts]
        parts += [_columns(figures, IMAGES, block.rows), self._queries(block)]
        frame = pd.concat([self._texts.iloc[block.rows].reset_index(drop=True), *parts], axis=1)
        for number, (name, value) in enumerate({**about, **what}.items()):
            frame.insert(number, name, np.full(len(frame), value))
        return frame[self._looked_at[block.rows]]

    def _drift(self, kind: str, block: Block, map_key: MapKey) -> pd.DataFrame:
        """NaN where there is no checkpoint to compare with."""
        if kind in self._one.others:
            found = _columns(self._figures, f"{kind}/{map_key.key}", block.rows)
        else:
            found = pd.DataFrame(np.full((len(block), len(DRIFT_FIGURES)), np.float32(np.nan)), columns=list(DRIFT_FIGURES))
        return found.add_suffix(f"_to_{kind}")

    def _queries(self, block: Block) -> pd.DataFrame:
        """Figures of the images as queries; the number of the image that ranks best becomes its id."""
        found = _columns(self._figures, RETRIEVAL, block.rows)
        best = found["best"].fillna(-1).astype(int)
        ids = self._texts["image"].to_numpy(dtype=object)
        found["best"] = np.where(best >= 0, ids[best.to_numpy()], "")
        return found.add_prefix("retrieval_")


def _columns(figures: GroupStore, key: str, rows: slice) -> pd.DataFrame:
    return pd.DataFrame(figures.values(key, rows), columns=figures.array_attributes(key)["figures"])


@contextmanager
def _opened(out: Path) -> Iterator[_Write]:
    """Write beside the file; it takes its name when all is written."""
    beside = out.with_name(f"{out.name}.partial")
    try:
        with beside.open("wb") as file:
            writer: list[parquet.ParquetWriter] = []

            def write_parquet(frame: pd.DataFrame) -> None:
                table = pa.Table.from_pandas(frame, preserve_index=False)
                if not writer:
                    writer.append(parquet.ParquetWriter(file, table.schema.remove_metadata()))
                writer[0].write_table(table.cast(writer[0].schema))

            def write_csv(frame: pd.DataFrame) -> None:
                frame.to_csv(file, index=False, header=file.tell() == 0, encoding="utf-8")

            yield write_parquet if out.suffix == ".parquet" else write_csv
            for one in writer:
                one.close()
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
