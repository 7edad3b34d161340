"""What `index` says of the pairs in a dataset, counted in manifests made by hand."""

import pandas as pd
import pytest
from made_datasets import two_trees

from stages.index.pairs import count_pairs

BOTH = "gallery+query"


def manifest(*rows: tuple[str, str, str], bad: tuple[int, ...] = ()) -> pd.DataFrame:
    """Rows of (view, place, roles); the numbers of those that cannot be used."""
    table = pd.DataFrame(rows, columns=["view", "place", "roles"], dtype=object)
    table["problem"] = ["zero bytes" if number in bad else "" for number in range(len(table))]
    return table


def counts(table: pd.DataFrame) -> tuple[int, int, int, int]:
    found = count_pairs(table)
    return found.places, found.complete, found.queries, found.misses


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("drone", "1", BOTH), ("satellite", "1", BOTH)], (1, 1, 2, 0)),
        ([("drone", "1", BOTH), ("satellite", "2", BOTH)], (2, 0, 2, 2)),
        ([("drone", "1", "query"), ("satellite", "1", "gallery"), ("satellite", "2", "gallery")], (2, 1, 1, 0)),
        ([("drone", "1", "query"), ("satellite", "1", "query")], (1, 1, 2, 2)),  # both views, and neither is offered
        ([("drone", "1", "train"), ("satellite", "1", "train")], (1, 1, 0, 0)),
        ([("drone", "1", "query"), ("satellite", "1", "gallery+train")], (1, 1, 1, 0)),
        ([("drone", "1", BOTH), ("unknown", "1", BOTH), ("street", "2", BOTH)], (1, 0, 1, 1)),
        ([], (0, 0, 0, 0)),
    ],
)
def test_counts(rows, expected):
    assert counts(manifest(*rows)) == expected


def test_photos_that_cannot_be_used_pair_with_nothing():
    rows = [("drone", "1", BOTH), ("satellite", "1", BOTH)]
    assert counts(manifest(*rows, bad=(1,))) == (1, 0, 1, 1)


PLACES = "{} of {} places have both drone and satellite photos"
QUERIES = "; {} of {} queries have no gallery photo of their place in the other view"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("drone", "1", BOTH), ("satellite", "1", BOTH)], PLACES.format(1, 1) + QUERIES.format(0, 2)),
        (
            [("drone", "1", BOTH), ("drone", "2", "query"), ("satellite", "1", BOTH)],
            PLACES.format(1, 2) + QUERIES.format(1, 3) + " and count as misses",
        ),
        ([("drone", "1", "train"), ("satellite", "1", "train")], PLACES.format(1, 1)),
    ],
)
def test_in_words(rows, said):
    assert str(count_pairs(manifest(*rows))) == said


def test_index_tells_the_pairs(lab, tmp_path):
    result = lab.atlas("index", tmp_path / "run")
    assert result.exit_code == 0
    assert "5 of 5 places have both drone and satellite photos; 0 of 6 queries have no gallery photo" in result.stdout
    assert "warning" not in result.stdout


def test_index_warns_where_nothing_pairs_and_says_how_it_would(lab, tmp_path):
    root = two_trees(tmp_path / "photos")
    (root / "satellite").rename(root / "satellite_other")
    for place in ("0300", "0301"):
        (root / "satellite_other" / place).rename(root / "satellite_other" / f"s{place}")
    result = lab.atlas("index", tmp_path / "run", more=(f"dataset.root='{root}'", "dataset.layout=folder"))
    assert result.exit_code == 0
    assert "0 of 4 places have both drone and satellite photos; 4 of 4 queries have no gallery photo" in result.stdout
    assert (
        "warning: no place has both a drone and a satellite photo, so there is nothing to match. In the layout 'folder' a place is" in result.stdout
    )
    assert "drone/0300/a.jpg and satellite/0300/b.jpg" in result.stdout
