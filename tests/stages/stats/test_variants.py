"""Flight heights: a level of the groups, retrieval by height, and a choice that never costs an extraction."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from figures_in_memory import retrieval
from PIL import Image

import pipeline
import pipeline.run.directory
from pipeline.cam.stage import cam
from pipeline.extract import layout as feature_layout
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.look.plan import plan
from pipeline.render.captions import image_label
from pipeline.render.stage import render
from pipeline.report.stage import report
from pipeline.run.directory import MissingProductError
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from stages.extract.batch import FeatureExtractor
from stages.index.variants import chosen_samples, in_several_variants, narrowed, variants_in
from stages.report.page import report_page
from stages.schema import SAMPLE_TEXTS, feature_variables
from stages.stats.gallery import DIRECTIONS, RETRIEVAL_COUNTS, RETRIEVAL_FIGURES, Gallery, in_memory
from stages.stats.groups import Groups
from stages.stats.means import mean_of_views
from stages.stats.variants import retrieval_by_variant

PLACES = ("0001", "0002", "0003")
FIGURES = (*RETRIEVAL_FIGURES, *RETRIEVAL_COUNTS)


# ---- what is chosen


def test_the_heights_of_photos():
    assert variants_in(["300", "", "150+200", "150", "50"]) == ["50", "150", "200", "300"]
    assert chosen_samples(["150", "200", "150+200", ""], ["150"]).tolist() == [True, False, True, True]
    assert chosen_samples(["150", ""], []).tolist() == [True, True]


def test_a_choice_of_all_is_none():
    assert narrowed(["150", "200", ""], ["200", "150"]) == []
    assert narrowed(["150", "200", "300"], ["300", "150"]) == ["150", "300"]
    assert narrowed(["150", "200"], []) == []


def test_photos_that_lie_under_several_heights():
    rows = [("drone", "a", "150+200"), ("drone", "b", "150"), ("satellite", "c", "H80+H100")]
    assert in_several_variants(pd.DataFrame(rows, columns=["view", "id", "variant"])) == ["a (150+200)"]


# ---- groups


def test_a_height_is_a_level_of_the_groups():
    view = ["drone", "drone", "drone", "satellite", "drone"]
    groups = Groups.of(["test"] * 5, view, [True, True, True, True, False], ["150", "300", "150+300", "", "150"])
    assert groups.name == ("test drone 150", "test drone 150+300", "test drone 300", "test satellite")
    assert groups.index.tolist() == [0, 2, 1, 3, -1]


def test_one_height_is_no_level():
    assert Groups.of(["test"] * 2, ["drone", "satellite"], [True, True], ["150", ""]).name == ("test drone", "test satellite")
    assert Groups.of(["test"] * 3, ["drone"] * 3, [True, True, False], ["150", "150", "300"]).name == ("test drone",)


def test_views_weigh_alike_however_many_heights_they_have():
    names = ["test drone 150", "test drone 200", "test drone 250", "test satellite"]
    values = xr.DataArray([0.1, 0.2, 0.6, 0.9], dims="group", coords={"group": names})
    assert float(mean_of_views(values)) == pytest.approx(((0.1 + 0.2 + 0.6) / 3 + 0.9) / 2)
    values[2] = np.nan
    assert float(mean_of_views(values)) == pytest.approx((0.15 + 0.9) / 2)
    values[:3] = np.nan
    assert float(mean_of_views(values)) == pytest.approx(0.9)


def test_without_heights_it_is_the_mean_over_the_groups():
    values = xr.DataArray(np.random.default_rng(0).random((3, 4)), dims=("checkpoint", "group"))
    values = values.assign_coords(group=["test drone", "test satellite", "train drone", "train satellite"])
    np.testing.assert_allclose(mean_of_views(values), values.mean("group"), rtol=1e-14)  # the same sum, in another order


# ---- retrieval by height

VIEW = ["drone"] * 6 + ["satellite"] * 3
PLACE = ["1", "1", "2", "2", "3", "3", "1", "2", "3"]
VARIANT = ["150", "300"] * 3 + [""] * 3
ROLES = ["gallery+query"] * 9


def by_variant(valid, variant, chosen=()):
    return retrieval_by_variant(Gallery.of(in_memory(embeddings()), PLACE, VIEW, ROLES, valid), variant, chosen)


def embeddings(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(9, 2, 4)).astype(np.float32)


def test_a_height_is_looked_for_in_the_shared_satellite_gallery():
    """The slow twin: the figures of the drone images of that height and all satellite images, as if there were no others."""
    found = by_variant([True] * 9, VARIANT)
    assert found["variant"].values.tolist() == ["150", "300"]
    assert set(found) == {f"{name}_by_variant" for name in FIGURES}
    for height in ("150", "300"):
        rows = [row for row in range(9) if VARIANT[row] in ("", height)]
        texts = ([values[row] for row in rows] for values in (PLACE, VIEW, ROLES))
        alone = retrieval(embeddings()[rows], *texts, [True] * len(rows))
        for name in FIGURES:
            by_height = found[f"{name}_by_variant"].sel(variant=height)
            assert by_height.dims == ("direction",)
            np.testing.assert_array_equal(by_height.values, alone[name].values)


def test_a_photo_of_two_heights_counts_for_both():
    variant = ["150", "300", "150+300", "150+300", "150", "300", "", "", ""]
    found = by_variant([True] * 9, variant)
    assert found["recall_1_by_variant"].dims == ("variant", "direction")
    assert found["variant"].values.tolist() == ["150", "300"]


@pytest.mark.parametrize(
    ("variant", "valid", "chosen"),
    [
        ([""] * 9, [True] * 9, ()),
        (["150"] * 6 + [""] * 3, [True] * 9, ()),
        (VARIANT, [True] * 9, ("150",)),
        (VARIANT, [True, False] * 3 + [True] * 3, ()),
    ],
)
def test_one_height_has_no_figures_of_its_own(variant, valid, chosen):
    assert len(by_variant(valid, variant, chosen)) == 0


# ---- labels


@pytest.mark.parametrize(
    ("view", "variant", "path", "label"),
    [
        ("drone", "150", "drone_view_512/0001/150/0.jpg", "drone 150\n0"),
        ("satellite", "", "satellite-view/0001/0.png", "satellite\n0"),
        ("drone", "H80", "test/query_drone/000000/H80.JPG", "drone\nH80"),
        ("drone", "500", "drone/images/500_0001_0000025682.png", "drone\n500_0001_0000025682"),
        ("drone", "150+200", "Testing/150/query_drone/0001/0.jpg", "drone 150+200\n0"),
    ],
)
def test_labels_tell_the_height(view, variant, path, label):
    assert image_label(pd.Series({"view": view, "variant": variant, "path": path})) == label


# ---- a run of SUES-200


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-4:]).encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)


def sues200(root: Path, heights: tuple[str, ...] = ("150", "200")) -> Path:
    for place in PLACES:
        photo(root / "satellite-view" / place / "0.png")
        for height in heights:
            for shot in ("0.png", "1.png"):
                photo(root / "drone_view_512" / place / height / shot)
    return root


SETTINGS = ("cam.targets=['match']", "cam.methods=['l2_norm','grad_cam']", "stats.sanity_samples=4", "render.targets=['match']")


@pytest.fixture(scope="module")
def all_heights(lab, tmp_path_factory):
    """A finished run of two heights, and its photos; look, do not touch."""
    root = tmp_path_factory.mktemp("sues")
    run = lab.run(root / "run", *SETTINGS, checkpoints="net_00[01].pth", photos=sues200(root / "photos"))
    for stage in (index, extract, cam, stats, render, report):
        stage(run)
    return run


@pytest.fixture
def open_with(lab, all_heights, tmp_path):
    """Open a copy of that run with other settings."""
    directory = Path(shutil.copytree(all_heights.directory, tmp_path / "run"))
    photos = all_heights.settings.dataset.root
    return lambda *more: lab.run(directory, *SETTINGS, *more, checkpoints="net_00[01].pth", photos=photos)


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda *given: pytest.fail("an image went through the network again"))


CHOSEN = "dataset.variants=['150']"


def test_the_store_tells_the_heights(all_heights):
    opened = pipeline.open_run(all_heights.directory)
    assert opened.features["variant"].dims == ("sample",)
    assert opened.features["variant"].values.tolist() == all_heights.manifest["variant"].tolist() == ["150", "150", "200", "200"] * 3 + [""] * 3
    assert opened.cams["variant"].values.tolist() == opened.features["variant"].values.tolist()
    plain = xr.open_zarr(all_heights.features_path / "net_000")
    assert plain["variant"].values.tolist() == opened.features["variant"].values.tolist()


def test_figures_by_height(all_heights):
    found = open_stats(all_heights)
    assert found["group"].values.tolist() == ["test drone 150", "test drone 200", "test satellite"]
    assert found["count"].values.tolist() == [[6, 6, 3]] * 2
    by_height = found["recall_1_by_variant"]
    assert by_height.dims == ("checkpoint", "variant", "direction")
    assert by_height["direction"].values.tolist() == list(DIRECTIONS)
    mean = by_height.sel(direction="drone to satellite").mean("variant")  # as many queries at each height
    np.testing.assert_allclose(mean, found["recall_1"].sel(direction="drone to satellite"), rtol=1e-12)
    page = report_page("t", {}, found, [])
    assert "<h3>Retrieval by flight height of the drone images</h3>" in page
    assert "<th>variant</th>" in page
    assert page.count("<td>150</td>") == page.count("<td>200</td>") == 2


def test_the_report_says_which_heights(all_heights):
    assert "<dt>flight heights</dt><dd>150, 200</dd>" in all_heights.report_path.read_text()


def test_narrowing_keeps_every_image_and_extracts_nothing(open_with, no_network):
    run = open_with(CHOSEN)
    assert plan(run)[0].state == "fresh"
    outcome = index(run)
    assert "nothing to compute" in str(outcome)
    assert "0 of 9 queries have no gallery photo" in str(outcome), "what is looked at is counted"
    assert len(open_with(CHOSEN).manifest) == 15
    assert extract(open_with(CHOSEN)).computed == 0
    assert cam(open_with(CHOSEN)).computed == 0


def test_figures_and_pictures_look_at_the_chosen_heights_alone(open_with, all_heights, no_network):
    run = open_with(CHOSEN)
    rows = {(row.stage, row.what): row for row in plan(run)}
    assert (rows["stats", "net_000"].state, rows["stats", "net_000"].reason) == ("stale", "variants was [], is ['150']")
    assert stats(run).computed == 2
    found = open_stats(run)
    assert found["group"].values.tolist() == ["test drone", "test satellite"]
    assert found["count"].values.tolist() == [[6, 3]] * 2
    assert "variant" not in found.dims
    np.testing.assert_array_equal(found["recall_1"].values, open_stats(all_heights)["recall_1_by_variant"].sel(variant="150").values)
    assert render(run).computed > 0
    report(run)
    assert "<dt>flight heights</dt><dd>150 of 150, 200</dd>" in run.report_path.read_text()


def test_going_back_is_to_make_figures_again_and_says_so(open_with):
    stats(open_with(CHOSEN))
    rows = {(row.stage, row.what): row for row in plan(open_with())}
    assert rows["stats", "net_000"].reason == "variants was ['150'], is []"


def test_naming_all_heights_is_naming_none(open_with):
    assert stats(open_with("dataset.variants=['200','150']")).computed == 0


def test_widening_extracts_what_is_new_alone(lab, tmp_path, monkeypatch):
    photos, directory, computed = sues200(tmp_path / "photos", ("150", "200", "300")), tmp_path / "run", []
    original = FeatureExtractor.__call__
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda self, images, *more: computed.append(len(images)) or original(self, images, *more))

    def run(*heights: str):
        return lab.run(directory, f"dataset.variants={list(heights)}", checkpoints="net_000.pth", photos=photos)

    index(run("150"))
    extract(run("150"))
    assert (len(run().manifest), sum(computed)) == (9, 9)
    assert plan(run("150", "200"))[0].state == "stale"
    assert "6 new, 0 changed, 0 forgotten" in str(index(run("150", "200")))
    extract(run("150", "200"))
    assert sum(computed) == 15
    photo(photos / "drone_view_512/0001/200/2.png")  # of a height that the run knows and is not asked for now
    assert "0 new, 0 changed, 0 forgotten" in str(index(run("150")))
    assert plan(run("150"))[0].state == "fresh"
    assert "1 new" in str(index(run("200")))


def test_a_store_of_an_earlier_version_is_read_and_brought_up_to_date(lab, all_heights, tmp_path, monkeypatch):
    """It does not tell the heights of its images."""

    def run(*more: str):
        return lab.run(tmp_path / "run", *SETTINGS, *more, checkpoints="net_000.pth", photos=all_heights.settings.dataset.root)

    with monkeypatch.context() as patch:
        texts = {name: column for name, column in SAMPLE_TEXTS.items() if name != "variant"}
        for module in (pipeline.run.directory, feature_layout):
            patch.setattr(module, "SAMPLE_TEXTS", texts)
        patch.setattr(feature_layout, "feature_variables", lambda wanted: tuple(v for v in feature_variables(wanted) if v.name != "variant"))
        index(run())
        extract(run())
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda *given: pytest.fail("an image went through the network again"))
    assert not run().features("net_000").has("variant")
    cam(run())
    stats(run(CHOSEN))
    assert open_stats(run(CHOSEN))["group"].values.tolist() == ["test drone", "test satellite"]
    stats(run())
    before = open_stats(run())
    assert before["group"].values.tolist() == ["test drone 150", "test drone 200", "test satellite"], "the manifest tells them"
    assert "variant" not in pipeline.open_run(run().directory).features.coords
    assert plan(run())[1].state == "fresh"
    assert extract(run()).computed == 0
    assert run().features("net_000").read(["variant"])["variant"].values.tolist() == run().manifest["variant"].tolist()
    assert cam(run()).computed == 0
    stats(run())
    xr.testing.assert_equal(open_stats(run()), before)


def test_images_that_are_gone_are_told_though_their_height_is_not_chosen(open_with, lab, tmp_path):
    photos = Path(shutil.copytree(open_with().settings.dataset.root, tmp_path / "photos"))
    shutil.rmtree(photos / "drone_view_512/0001/200")
    with pytest.raises(ValueError, match=r"2 images that it lists are no longer in the dataset \(drone/0001/200/0, drone/0001/200/1\)"):
        index(open_with(CHOSEN, f"dataset.root='{photos}'"))


def test_a_height_that_the_run_lacks_is_one_line(open_with):
    said = r"net_000: dataset\.variants asks for \[300\], but its images have \[150, 200\]\. Name some of these, or run `atlas index`"
    with pytest.raises(MissingProductError, match=said):
        stats(open_with("dataset.variants=['300']"))
    with pytest.raises(MissingProductError, match=r"manifest\.parquet: dataset\.variants asks for \[300\], but its images have"):
        render(open_with("dataset.variants=['300']"))


def test_all_heights_in_every_folder_are_told(lab, tmp_path):
    """As the split script of SUES-200 once made them."""
    for height in ("150", "200"):
        for role in ("query", "gallery"):
            photo(tmp_path / "raw" / "0.png")
            for view in ("drone", "satellite"):
                folder = tmp_path / "photos/Testing" / height / f"{role}_{view}" / "0001"
                folder.mkdir(parents=True)
                shutil.copy(tmp_path / "raw/0.png", folder / "0.png")
    said = str(index(lab.run(tmp_path / "run", photos=tmp_path / "photos")))
    assert "warning: 1 drone photos belong to several flight heights, for instance drone/0001/150+200/0 (150+200)" in said
    assert "split again" in said
