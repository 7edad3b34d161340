"""Deletion and insertion in pixel space: altered photos, and the stage against a run of the network by hand."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from poison import poison_store

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.forgetting import forget_checkpoints
from pipeline.index.stage import index
from pipeline.look.verify import verify
from pipeline.pixels.stage import pixels
from pipeline.run.directory import MissingProductError
from safenet.checkpoint import load_checkpoint
from safenet.photos import decode_photo
from safenet.preprocess import normalise
from stages.stats.pixels import perturbed, step_counts
from stages.stats.settings import PixelSettings

MORE = ("pixels.samples=3", "pixels.steps=4", "pixels.target='match_share'", "cam.targets=['match','label','match_share']")
PHOTO = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_steps_go_from_nothing_to_all():
    assert step_counts(64, 4).tolist() == [0, 16, 32, 48, 64]
    assert step_counts(5, 2).tolist() == [0, 2, 5]


@pytest.mark.parametrize("baseline", ["blur", "mean"])
def test_the_hottest_cells_go_first_and_come_first(baseline):
    heat = np.array([[1.0, 4.0], [np.nan, 2.0]])
    gone = perturbed(PHOTO, heat, 4, baseline, insertion=False)
    come = perturbed(PHOTO, heat, 4, baseline, insertion=True)
    assert (gone[0] == PHOTO).all() and (come[-1] == PHOTO).all()
    assert (gone[-1] == come[0]).all()
    other = gone[-1]
    order = [(slice(0, 8), slice(8, 16)), (slice(8, 16), slice(8, 16)), (slice(0, 8), slice(0, 8)), (slice(8, 16), slice(0, 8))]
    expected = PHOTO.copy()
    for step, cell in enumerate(order, start=1):
        expected[cell] = other[cell]
        np.testing.assert_array_equal(gone[step], expected)
        np.testing.assert_array_equal(come[step], inverse(expected, other))
    assert (other != PHOTO).any()


def inverse(photo: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where `photo` is still PHOTO, the baseline; where it is the baseline, PHOTO."""
    return np.where((photo == PHOTO).all(axis=2, keepdims=True), other, PHOTO)


@pytest.fixture(scope="module")
def done(lab, finished, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pixels") / "run"
    shutil.copytree(finished.directory, directory)
    cam(lab.run(directory, *MORE))
    outcome = pixels(lab.run(directory, *MORE))
    return directory, outcome


def test_curves_are_what_the_network_gives_for_the_altered_photos(lab, done):
    """One image, by hand: altered, run, compared with the mean unit embedding of its true images."""
    directory, outcome = done
    assert outcome.computed == 3
    assert outcome.notes[0].startswith("net_000, match_share, 3 images, deletion / insertion: ")
    found = xr.open_zarr(directory / "pixels.zarr" / "net_000").load()
    run = lab.run(directory, *MORE)
    assert found.sizes == {"product": 2, "sample": 3, "step": 5}, "l2_norm and grad_cam at aligned"
    features = run.features("net_000")
    stored = features.read(["sample_id", "embedding", "place", "view", "split", "roles", "source_cell"])
    sample = stored["sample_id"].values.tolist().index(found["sample_id"].values[1])
    other = {"drone": "satellite", "satellite": "drone"}[stored["view"].values[sample]]
    rows = [
        index
        for index in range(15)
        if stored["place"].values[index] == stored["place"].values[sample]
        and stored["view"].values[index] == other
        and ("gallery" in stored["roles"].values[index] or stored["split"].values[index] == "train")
    ]
    unit = stored["embedding"].values / np.linalg.norm(stored["embedding"].values, axis=2, keepdims=True)
    reference = unit[rows].mean(axis=0)[:-1]
    photo = decode_photo(lab.photos / run.manifest["path"].iloc[sample], 32)
    key = "aligned/match_share/grad_cam"
    maps = run.cams("net_000").read([key])[key].values[sample]
    source = stored["source_cell"].values[sample].ravel()
    heat = np.full(64, np.nan)
    for cell in range(64):
        read = np.flatnonzero(source == cell)
        heat[cell] = maps.ravel()[read].mean() if len(read) else np.nan
    model = load_checkpoint(lab.checkpoints / "net_000.pth")
    for kind in ("deletion", "insertion"):
        photos = perturbed(photo, heat.reshape(8, 8), 4, "blur", insertion=kind == "insertion")
        with torch.inference_mode():
            embedding = model(normalise(torch.from_numpy(photos))).embedding.transpose(1, 2).numpy()[:, :-1]
        cosine = (embedding / np.linalg.norm(embedding, axis=2, keepdims=True) * reference).sum(axis=2).mean(axis=1)
        np.testing.assert_allclose(found[f"{kind}_curve"].sel(product=key)[1], cosine, atol=1e-5)
        area = ((cosine[1:] + cosine[:-1]) / 2).mean()
        assert float(found[kind].sel(product=key)[1]) == pytest.approx(area, abs=1e-5)


def test_a_second_call_computes_nothing_and_other_settings_do(lab, done):
    directory, _ = done
    assert pixels(lab.run(directory, *MORE)).computed == 0
    assert verify(lab.run(directory, *MORE)).faults == []
    changed = lab.run(directory, *MORE, "pixels.baseline='mean'", checkpoints="net_*.pth")
    assert pixels(changed).computed == 3


def test_a_class_is_that_of_the_photo_as_it_is(lab, done):
    """`predicted` must not follow the altered photo's own prediction."""
    directory, _ = done
    more = (*MORE[:2], "pixels.target='predicted'", "cam.targets=['predicted']", "cam.methods=['grad_cam']")
    cam(lab.run(directory, *more))
    pixels(lab.run(directory, *more))
    found = xr.open_zarr(directory / "pixels.zarr" / "net_001").load()
    features = lab.run(directory).features("net_001")
    stored = features.read(["sample_id", "logit"])
    for row, name in enumerate(found["sample_id"].values):
        logit = stored["logit"].values[stored["sample_id"].values.tolist().index(name), :-1].mean(axis=0)
        assert float(found["deletion_curve"][0, row, 0]) == pytest.approx(logit.max(), abs=1e-4)
        assert float(found["insertion_curve"][0, row, -1]) == pytest.approx(logit.max(), abs=1e-4)


def test_what_it_needs_is_named(lab, finished_copy, tmp_path):
    with pytest.raises(MissingProductError, match=r"its checkpoint file is not among extract\.checkpoints"):
        pixels(lab.run(finished_copy, checkpoints="net_000.pth"))
    with pytest.raises(ValueError, match=r"there are no maps of predicted at aligned; add it to cam\.targets"):
        pixels(lab.run(finished_copy, "pixels.target='predicted'"))
    with pytest.raises(ValueError, match=r"pixels\.target: 'mach' is unknown. Did you mean 'match'"):
        PixelSettings(target="mach")
    for path in lab.checkpoints.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = lab.run(finished_copy, f"extract.checkpoints=['{tmp_path}/net_*.pth']")
    extract(moved)  # notes where the files lie now
    (tmp_path / "net_001.pth").write_bytes(b"trained again")
    with pytest.raises(ValueError, match=r"net_001\.pth: not the file that .* was made with"):
        pixels(moved)


FEW = ("pixels.steps=1", "cam.positions=['aligned']", "cam.methods=['grad_cam','l2_norm']")


def poisoned(lab, directory, checkpoint, samples):
    """Put NaN into embeddings, and make the heat maps anew."""
    for sample in samples:
        poison_store(lab.run(directory), checkpoint, "embedding", np.nan, sample)
    run = lab.run(directory, *FEW, "pixels.samples=15")
    cam(run)
    return run


def test_an_image_that_is_not_finite_is_left_out_counted_and_named(lab, finished_copy):
    """The drone photos of its place have nothing to be compared with then."""
    table = lab.run(finished_copy).manifest
    alone = table.index[(table["view"] == "satellite") & (table["split"] == "train")][0]
    lost = table.index[(table["view"] == "drone") & (table["split"] == "train") & (table["place"] == table["place"][alone])]
    run = poisoned(lab, finished_copy, "net_001", [alone])
    notes = pixels(run).notes
    assert notes[0].startswith("net_000, match, 15 images, deletion / insertion: grad_cam ")
    assert notes[1].startswith("net_001, match, 12 images, deletion / insertion: grad_cam ")
    assert notes[3:] == (
        f"net_001: 1 image left out for maps that are not finite: {table['id'][alone]}",
        f"net_001: 2 images left out for lack of the target 'match': {', '.join(table['id'][lost])}",
    )
    assert pixels(run).notes == notes[3:], "what lies side by side is told again"
    used = xr.open_zarr(finished_copy / "pixels.zarr" / "net_001")["sample_id"].values.tolist()
    assert used == table["id"].drop([alone, *lost]).tolist()


def test_a_checkpoint_that_is_nowhere_finite_is_left_out_and_only_all_of_them_refused(lab, finished_copy):
    run = poisoned(lab, finished_copy, "net_001", range(15))
    outcome = pixels(run)
    assert (outcome.computed, outcome.fresh) == (2, 0)
    assert "net_001 is left out: no map of match is finite, on 15 images that have it" in outcome.notes
    alone = lab.run(finished_copy, *FEW)
    forget_checkpoints(alone, ("net_000", "net_002"))
    with pytest.raises(ValueError, match=r"net_001: no map of match is finite, on 15 images that have it; `atlas status` says what"):
        pixels(alone)


def test_a_method_that_is_nowhere_finite_takes_no_image_from_the_others(lab, tmp_path):
    """Of one place, a cosine has no rivals."""
    photos = tmp_path / "photos"
    for view in ("drone", "satellite"):
        shutil.copytree(lab.photos / "train" / view / "0000", photos / "train" / view / "0000")
    more = ("pixels.steps=1", "dataset.splits=['train']", "cam.positions=['aligned']", "cam.methods=['finer_cam','grad_cam']")
    run = lab.run(tmp_path / "run", *more, photos=photos, checkpoints="net_000.pth")
    for stage in (index, extract, cam):
        stage(run)
    said, left_out = pixels(run).notes
    count = len(run.manifest)
    assert said.startswith(f"net_000, match, {count} images, deletion / insertion: grad_cam ") and "finer_cam" not in said
    assert left_out == f"net_000: left out: finer_cam, not finite for any of its {count} images"
