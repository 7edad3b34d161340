"""A run at a glance, from its stores alone."""

from __future__ import annotations

from pipeline.extract_run import listed_problems, quarantined
from pipeline.run import Run
from pipeline.stats_run import JOINED
from pipeline.stores import GroupStore, bytes_on_disk, checkpoint_order, group_attributes, group_names


def run_status(run: Run) -> list[dict[str, str]]:
    """Return one row a checkpoint: how many blocks of its features are done, how many maps and figures there are."""
    epochs = {name: run.features(name).attributes.get("epoch") for name in group_names(run.features_path)}
    return [_row(run, name, epochs[name]) for name in checkpoint_order(epochs)]


def bad_images(run: Run) -> dict[str, str]:
    """Return sample id -> reason, of all checkpoints and of the manifest."""
    found = listed_problems(run.manifest)
    for name in group_names(run.features_path):
        found |= quarantined(run.ledger("features", name), run.features(name).blocks)
    return found


def _row(run: Run, name: str, epoch: int | None) -> dict[str, str]:
    features, cams = run.features(name), run.cams(name)
    attributes = features.attributes
    total = len(features.blocks)
    done = total - run.missing_blocks(name, attributes)
    has_figures = bool(group_attributes(run.stats_path, name)) and name != JOINED
    return {
        "checkpoint": name,
        "epoch": "-" if epoch is None else str(epoch),
        "features": f"{done}/{total} blocks",
        "heat maps": f"{len(map_keys(cams))} kinds",
        "figures": "yes" if has_figures else "no",
        "MB": f"{bytes_on_disk(run.features_path / name) / 1e6:,.0f}",
    }


def map_keys(cams: GroupStore) -> list[str]:
    """Keys position/target/method of the arrays that are there."""
    root = cams.path / cams.name
    return sorted(path.parent.relative_to(root).as_posix() for path in root.glob("*/*/*/zarr.json"))
