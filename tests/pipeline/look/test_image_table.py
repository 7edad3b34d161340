"""`atlas table`: the stored figures of images, tidy, against the stores."""

import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.look.image_table import write_image_table
from pipeline.run.directory import MissingProductError
from stages.stats import means

KEY = "aligned/match/grad_cam"


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_row_for_each_image_checkpoint_and_map(lab, finished, tmp_path, ending):
    out = tmp_path / f"figures.{ending}"
    result = lab.atlas("table", finished.directory, "--out", str(out))
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out) if ending == "parquet" else pd.read_csv(out, dtype={"place": str, "image": str})
    assert result.output.strip() == f"table: {len(table):,} rows in {out}"
    opened = pipeline.open_run(finished.directory)
    assert not table.duplicated(["checkpoint", "image", "position", "target", "method"]).any()
    assert len(table) == len(opened.manifest) * len(opened.cams.data_vars) * opened.cams.sizes["checkpoint"]
    assert {"place", "view", "split", "variant", "entropy", "cosine_to_previous", "fam_change", "retrieval_rank"} <= set(table.columns)
    position, target, method = KEY.split("/")
    chosen = table[(table.position == position) & (table.target == target) & (table.method == method)]
    for name in opened.stats["checkpoint"].values:
        for group in means.tested_groups(opened.stats):
            split, view = group.split()
            rows = chosen[(chosen.checkpoint == name) & (chosen.split == split) & (chosen.view == view)]
            for figure in ("entropy", "pointing", "cosine_to_last"):
                expected = opened.stats[figure].sel(checkpoint=name, group=group, product=KEY)
                np.testing.assert_allclose(rows[figure].mean(), expected, rtol=1e-5)  # text of float32
    assert list(out.parent.iterdir()) == [out], "nothing is left beside it"


def test_the_best_ranked_image_is_named(finished, tmp_path):
    write_image_table(finished, tmp_path / "one.parquet", ["net_001"])
    table = pd.read_parquet(tmp_path / "one.parquet").drop_duplicates("image").set_index("image")
    assert set(table["checkpoint"]) == {"net_001"}
    queries = table[table.retrieval_average_precision.notna()]
    for row in queries.itertuples():
        assert table.loc[row.retrieval_best, "view"] != row.view
        assert (table.loc[row.retrieval_best, "place"] == row.place) == (row.retrieval_rank == 1)
        assert (row.retrieval_margin > 0) == (row.retrieval_rank == 1)


@pytest.mark.parametrize(
    ("name", "checkpoints", "told"),
    [
        ("figures.txt", (), r"--out .*figures\.txt: ends in '\.txt'; expected \.parquet or \.csv"),
        ("none/figures.csv", (), r"--out .*: there is no folder .*none"),
        ("figures.csv", ("net_01",), r"--checkpoint: 'net_01' is unknown\. Did you mean 'net_001'"),
    ],
)
def test_bad_input_is_told_in_a_line(finished, tmp_path, name, checkpoints, told):
    with pytest.raises((ValueError, OSError), match=told):
        write_image_table(finished, tmp_path / name, checkpoints)
    assert not (tmp_path / name).exists()


def test_stale_figures_are_refused(lab, finished, tmp_path):
    with pytest.raises(MissingProductError, match="net_000: figures of images are missing or stale; run `atlas stats` first"):
        write_image_table(lab.run(finished.directory, "stats.top_share=0.3"), tmp_path / "figures.csv")
