"""View and place of photos as people lay them out, and an earlier listing of them that goes on."""

from pathlib import Path

import pytest
from made_datasets import two_trees

from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.run.manifest import read_manifest, write_manifest
from stages.extract.batch import FeatureExtractor
from stages.index.tree_places import view_and_place

SHOWN = {
    "drone/0300/x.jpg": ("drone", "0300"),
    "satellite/0300/y.jpg": ("satellite", "0300"),
    "drone/0300.jpg": ("drone", "0300"),
    "satellite/0300.jpg": ("satellite", "0300"),
    "0300/drone_01.jpg": ("drone", "0300"),
    "0300/satellite.jpg": ("satellite", "0300"),
    "0300/drone/a.jpg": ("drone", "0300"),
    "0300/SAT/b.jpg": ("satellite", "0300"),
    "Drone/0300/x.JPG": ("drone", "0300"),
    "UAV images/0300/x.jpg": ("drone", "0300"),
    "city/drone/0300/img.jpg": ("drone", "city/0300"),
    "city/satellite/0300/img.jpg": ("satellite", "city/0300"),
    "query_drone/0300/a.jpg": ("drone", "0300"),
    "gallery_satellite/0300/a.jpg": ("satellite", "0300"),
    "roofs from the drone/0300/1.jpg": ("drone", "0300"),
    "drone/drone_0300.jpg": ("drone", "0300"),
    # right in the root
    "drone_0300.jpg": ("drone", "0300"),
    "0300-sat.jpg": ("satellite", "0300"),
    "drone.jpg": ("drone", "."),
    "satellite.jpg": ("satellite", "."),
    "top.png": ("unknown", "top"),
    # words that only look like a view
    "drone/saturn/1.jpg": ("drone", "saturn"),
    "satellite/saturn/1.jpg": ("satellite", "saturn"),
    "saturn/rings.jpg": ("unknown", "saturn"),
    "satellite/guava/1.jpg": ("satellite", "guava"),
    "drone/Satellite Beach/1.jpg": ("drone", "Satellite Beach"),
    "satellite/Satellite Beach/1.jpg": ("satellite", "Satellite Beach"),
}


@pytest.mark.parametrize("path", SHOWN)
def test_view_and_place(path):
    assert view_and_place(path) == SHOWN[path]


def listed_as_before(path: Path) -> None:
    """As the version did that took the view's folder for a part of the place."""
    table = read_manifest(path)
    table["place"] = [row.path.rpartition("/")[0] for row in table.itertuples()]
    table["id"] = [f"{row.view}/{row.place}/a" for row in table.itertuples()]
    write_manifest(path, table)


def test_samples_of_an_earlier_listing_keep_their_numbers_and_are_not_extracted_again(lab, tmp_path, monkeypatch):
    def run():
        return lab.run(tmp_path / "run", "dataset.layout=folder", checkpoints="net_000.pth", photos=two_trees_at)

    two_trees_at = two_trees(tmp_path / "photos")
    index(run())
    listed_as_before(run().manifest_path)
    before = run().manifest
    assert set(before["place"]) == {"drone/0300", "drone/0301", "satellite/0300", "satellite/0301"}
    extract(run())
    outcome = index(run())
    assert "0 new, 0 changed, 0 forgotten" in str(outcome)
    after = run().manifest
    assert after["id"].tolist() == before["id"].tolist()
    assert sorted(after["place"]) == ["0300", "0300", "0301", "0301"]
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda *given: pytest.fail("an image went through the network again"))
    assert extract(run()).computed == 0
    assert run().features("net_000").read(["place"])["place"].values.tolist() == after["place"].tolist()
