"""The whole flow once: every store is there, describes itself, is readable without our code, and holds what the network says."""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from PIL import Image

import pipeline
from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.features.reading import read_features
from pipeline.render.png_files import png_settings
from pipeline.stages import STAGES
from pipeline.stats.staleness import open_stats
from safenet.checkpoint import load_checkpoint
from safenet.preprocess import load_image
from stages.cam.map_keys import map_keys_of
from stages.schema import FEATURES, HEAD_PREFIX, MASKS, dim_sizes, feature_variables

NAMES = ["net_000", "net_001", "net_002"]
TINY_SIZES = {  # by hand, from the preset and configs/tiny.toml: 15 photos, 8 x 8 cells, 3 heads (2 parts, global)
    "patch_map": (15, 8, 8, 16), "aligned_map": (15, 8, 8, 16), "theta": (15, 2, 3), "source_cell": (15, 8, 8), "saliency": (15, 4),
    "boundary": (15, 2), "part_feature": (15, 2, 16), "global_feature": (15, 16), "embedding": (15, 3, 8), "logit": (15, 3, 3),
    "head_w1": (3, 8, 16), "head_w2": (3, 3, 8),
    "image": (15, 32, 32, 3), "mask_share": (15, 8, 8), "valid": (15,), "fam_change": (15,),
}  # fmt: skip
EXACT = ("source_cell", "boundary", "image", "mask_centre", "valid", "sample_id", "place", "view", "split", "roles")


def open_plainly(directory, name="net_000", store="features.zarr"):
    """As a reader would who has never heard of us."""
    return xr.open_zarr(directory / store, group=name, consolidated=False)


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_as_the_schema_says(finished, name):
    group = zarr.open_group(finished.features_path, path=name, mode="r")
    wanted = feature_variables(finished.settings.extract.requested | set(MASKS))
    assert sorted(group.array_keys()) == sorted(variable.name for variable in wanted)
    sizes = dim_sizes(load_checkpoint(finished.settings.extract.checkpoints[0].replace("*", "000")).architecture, 15, 0)
    for variable in wanted:
        array = group[variable.name]
        assert array.metadata.dimension_names == variable.dims
        assert array.shape == tuple(sizes[dim] for dim in variable.dims)
        dtype = {"map": "float16"}.get(variable.dtype, variable.dtype)
        assert array.dtype == (dtype if dtype != "str" else np.dtypes.StringDType()) or dtype == "str"
        assert array.attrs["long_name"] == variable.long_name
        assert array.attrs["units"] == variable.units
        assert array.attrs.get("frame", "") == variable.frame


def test_sizes_are_those_counted_by_hand(finished):
    found = open_plainly(finished.directory)
    assert {name: found[name].shape for name in TINY_SIZES} == TINY_SIZES
    assert found["patch_map"].dtype == np.float16
    assert found["embedding"].dtype == np.float32


def test_a_file_holds_one_block_of_samples(finished):
    files = sorted(path.name for path in (finished.features_path / "net_000" / "patch_map").glob("c*"))
    assert files == [f"c.{block}.0.0.0" for block in range(4)]
    assert open_plainly(finished.directory)["patch_map"].encoding["chunks"] == (4, 8, 8, 16)


@pytest.mark.parametrize(("name", "epoch", "sampling"), [("net_000", 0, "nearest"), ("net_002", 2, "bilinear")])
def test_a_store_says_what_it_was_made_of(finished, name, epoch, sampling):
    attributes = open_plainly(finished.directory, name).attrs
    assert attributes["checkpoint_file"] == f"{name}.pth"
    assert attributes["epoch"] == epoch
    assert attributes["metrics"] == {"loss": 1 / (epoch + 1)}
    assert attributes["class_names"] == ["0000", "0001", "0002"]
    assert attributes["head_names"] == ["part1", "part2", "global"]
    assert attributes["architecture"]["sampling"] == sampling
    assert attributes["config"]["extract"]["block_samples"] == 4
    assert attributes["config"]["dataset"]["root"] == str(finished.settings.dataset.root)
    assert attributes["manifest"] == finished.manifest_digest
    assert attributes["precision"] == "float32"
    assert {"torch", "zarr", "numpy"} <= set(attributes["libraries"])
    assert {"stamp", "schema_version", "device", "host", "platform", "created", "finished", "device_name"} <= set(attributes)
    (writer,) = attributes["made_by"]
    assert (writer["device"], writer["blocks"]) == ("cpu", "0-3")
    assert re.fullmatch("[0-9a-f]{32}", attributes["made_with"]["checkpoint"])


def test_a_store_says_which_process_made_it(extracted):
    """`finished` may come from a neighbour of pytest-xdist; `extracted` is of this process."""
    (writer,) = open_plainly(extracted, "net_000").attrs["made_by"]
    assert writer["pid"] == os.getpid()


@pytest.fixture(scope="module")
def direct(finished):
    """What the network says of every photo, one at a time: no batches, no blocks, no store."""
    outputs = {}
    for name in NAMES:
        model = load_checkpoint(next(path for path in _files(finished) if path.stem == name))
        rows = []
        for path in finished.manifest["path"]:
            with torch.inference_mode():
                output = model(load_image(f"{finished.manifest.attrs['root']}/{path}", 32)[None])
            rows.append({
                "patch_map": output.patch_map[0].permute(1, 2, 0), "aligned_map": output.aligned_map[0].permute(1, 2, 0), "theta": output.theta[0],
                "source_cell": output.source_cell[0], "saliency": output.saliency[0], "boundary": output.boundary[0],
                "part_feature": output.part_feature[0].T, "global_feature": output.global_feature[0], "embedding": output.embedding[0].T,
                "logit": output.logit[0].T, "fam_change": (output.aligned_map - output.patch_map).norm() / output.patch_map.norm(),
            })  # fmt: skip
        outputs[name] = {key: np.stack([row[key].numpy() for row in rows]) for key in rows[0]}
    return outputs


def _files(run):
    pattern = Path(run.settings.extract.checkpoints[0])
    return sorted(pattern.parent.glob(pattern.name))


def assert_is_what_the_network_says(stored, expected):
    for key, values in expected.items():
        if key in EXACT:
            np.testing.assert_array_equal(stored[key], values, err_msg=key)
        elif stored[key].dtype == np.float16:
            # half an ulp of float16 at |value| < 8 is 2**-9 / 2; batches sum in another order, which is far less
            np.testing.assert_allclose(stored[key].astype(np.float32), values, rtol=2**-11, atol=1e-4, err_msg=key)
        else:
            np.testing.assert_allclose(stored[key], values, rtol=1e-5, atol=1e-5, err_msg=key)  # float32 sums in another order


@pytest.mark.parametrize("name", NAMES)
def test_stored_values_are_what_the_network_says(finished, direct, name):
    assert_is_what_the_network_says(open_plainly(finished.directory, name).load(), direct[name])


def test_the_networks_of_the_tests_are_not_trivial(direct):
    """Else half of these tests would pass on constant arrays."""
    assert (direct["net_000"]["source_cell"] != np.arange(64).reshape(8, 8)).any(axis=(1, 2)).all()
    assert len(np.unique(direct["net_000"]["theta"].round(4), axis=0)) > 1
    assert direct["net_000"]["logit"].std(axis=0).min() > 1e-3
    assert len({outputs["embedding"].tobytes() for outputs in direct.values()}) == 3


@pytest.mark.parametrize(
    "layout",
    [
        ("extract.batch_size=1", "extract.block_samples=15"),
        ("extract.batch_size=32", "extract.block_samples=1"),
        ("extract.batch_size=5", "extract.block_samples=6", "extract.chunk_samples=2"),
        ("extract.batch_size=2", "extract.block_samples=100", "extract.map_dtype=float32"),
    ],
    ids=" ".join,
)
def test_batches_blocks_and_chunks_do_not_change_the_numbers(lab, fresh, finished, direct, layout):
    run = lab.run(fresh, *layout, checkpoints="net_000.pth")
    extract(run)
    stored = open_plainly(fresh).load()
    assert_is_what_the_network_says(stored, direct["net_000"])
    reference = open_plainly(finished.directory).load()
    for key in EXACT:
        np.testing.assert_array_equal(stored[key], reference[key], err_msg=key)


def test_a_decoding_process_gives_the_same_bytes(lab, fresh, finished):
    extract(lab.run(fresh, "extract.workers=1", checkpoints="net_00[01].pth"))  # the second checkpoint reuses the process
    for name in ("net_000", "net_001"):
        assert open_plainly(fresh, name).load().drop_attrs().identical(open_plainly(finished.directory, name).load().drop_attrs())


def test_texts_masks_and_photos_come_from_the_manifest(finished):
    table, stored = finished.manifest, open_plainly(finished.directory).load()
    for name, column in (("sample_id", "id"), ("place", "place"), ("view", "view"), ("split", "split"), ("roles", "roles"), ("variant", "variant")):
        assert stored[name].values.tolist() == table[column].tolist()
    assert stored["valid"].values.all()
    assert set(stored["mask_centre"].values.ravel().tolist()) == {0, 1}
    with Image.open(f"{table.attrs['root']}/{table['path'][7]}") as photo:
        expected = np.asarray(photo.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(stored["image"][7], expected)


def test_the_heads_are_stored_parts_first(finished):
    stored = open_plainly(finished.directory)
    model = load_checkpoint(_files(finished)[0])
    for name in (variable.name for variable in FEATURES.values() if variable.name.startswith(HEAD_PREFIX)):
        expected = np.stack([head.arrays()[name.removeprefix(HEAD_PREFIX)] for head in model.heads])
        np.testing.assert_array_equal(stored[name], expected)


def test_the_stored_heads_give_the_stored_embeddings_and_logits(finished):
    """No checkpoint file is needed downstream."""
    stored = open_plainly(finished.directory).load()
    features = np.concatenate([stored["part_feature"], stored["global_feature"].values[:, None]], axis=1).astype(np.float64)
    hidden = np.einsum("hec,shc->she", stored["head_w1"], features) + stored["head_b1"].values
    scale = stored["head_bn_weight"].values / np.sqrt(stored["head_bn_var"].values + 1e-5)
    embedding = (hidden - stored["head_bn_mean"].values) * scale + stored["head_bn_bias"].values
    np.testing.assert_allclose(embedding, stored["embedding"], rtol=1e-4, atol=1e-5)  # the network works in float32
    logit = np.einsum("hke,she->shk", stored["head_w2"], embedding) + stored["head_b2"].values
    np.testing.assert_allclose(logit, stored["logit"], rtol=1e-4, atol=1e-5)


# ---- heat maps


@pytest.mark.parametrize("name", NAMES)
def test_heat_maps_are_arrays_that_describe_themselves(finished, name):
    map_keys = map_keys_of(finished.settings.cam)
    assert sorted(map_key.key for map_key in map_keys) == sorted(
        f"{position}/{rest}" for position in ("patch", "aligned", "part") for rest in ("none/l2_norm", "match/grad_cam", "label/grad_cam")
    )
    for map_key in map_keys:
        found = open_plainly(finished.directory, f"{name}/{map_key.position}/{map_key.target}", "cams.zarr")[map_key.method]
        assert found.dims == ("sample", "y", "x")
        assert found.shape == (15, 8, 8)
        assert found.dtype == np.float32
        assert found.attrs["frame"] == ("patch" if map_key.position == "patch" else "aligned")
        assert map_key.method in found.attrs["long_name"]
        assert {"units", "kind", "additive", "source", "stamp"} <= set(found.attrs)


def test_a_class_free_map_is_defined_for_every_valid_photo_and_label_for_trained_places_alone(finished):
    split = finished.manifest["split"].to_numpy()
    label = open_plainly(finished.directory, "net_000/aligned/label", "cams.zarr")["grad_cam"].values
    np.testing.assert_array_equal(np.isnan(label).all(axis=(1, 2)), split == "test")
    np.testing.assert_array_equal(np.isnan(label).any(axis=(1, 2)), split == "test")
    assert np.isfinite(open_plainly(finished.directory, "net_000/patch/none", "cams.zarr")["l2_norm"]).all()


def test_a_map_is_what_the_formula_says(finished, direct):
    """l2_norm of the patch map, and Grad-CAM by automatic differentiation through the real network."""
    found = open_plainly(finished.directory, "net_000/patch/none", "cams.zarr")["l2_norm"].values
    expected = np.linalg.norm(direct["net_000"]["patch_map"].astype(np.float64), axis=3)
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # from maps stored as float16
    row = int(np.flatnonzero(finished.manifest["place"] == "0001")[0])
    model = load_checkpoint(_files(finished)[0])
    image = load_image(f"{finished.manifest.attrs['root']}/{finished.manifest['path'][row]}", 32)[None]
    output = model(image)
    (gradient,) = torch.autograd.grad(output.logit[0, 1, :-1].mean(), output.aligned_map)  # class 1 is place 0001
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * output.aligned_map).sum(dim=1)[0].detach().numpy()
    found = open_plainly(finished.directory, "net_000/aligned/label", "cams.zarr")["grad_cam"].values[row]
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())  # from maps stored as float16


SOME_MAPS = ("cam.methods=['max','grad_cam','hires_cam']", "cam.targets=['match','predicted']")


@pytest.fixture(scope="module")
def reference_maps(lab, indexed, tmp_path_factory):
    """Maps from features in blocks of 4, one after the other."""
    directory = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("reference") / "run"))
    run = lab.run(directory, "extract.batch_size=1", "compute.executor=serial", *SOME_MAPS, checkpoints="net_00[02].pth")
    extract(run)
    cam(run)
    return read_all_maps(run)


def read_all_maps(run):
    keys = [map_key.key for map_key in map_keys_of(run.settings.cam)]
    return {f"{name}/{key}": run.cams(name).read([key])[key].values for name in ("net_000", "net_002") for key in keys}


@pytest.mark.parametrize(
    "layout",
    [
        ("extract.block_samples=4", "compute.executor=threads", "compute.workers=3"),
        ("extract.block_samples=7", "extract.chunk_samples=1", "compute.executor=threads"),
        ("extract.block_samples=2", "compute.executor=serial"),
        ("extract.block_samples=50", "compute.executor=serial"),
    ],
    ids=" ".join,
)
def test_maps_are_bit_identical_across_executors_and_blocks(lab, fresh, reference_maps, layout):
    """Photos go through the network one by one, so that the features are the same bytes."""
    run = lab.run(fresh, "extract.batch_size=1", *layout, *SOME_MAPS, checkpoints="net_00[02].pth")
    extract(run)
    cam(run)
    found = read_all_maps(run)
    assert len(found) == 2 * 3 * (1 + 2 * 2)
    for key, values in reference_maps.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


# ---- figures, pictures, page


def test_figures_are_there_for_every_checkpoint(finished):
    joined = open_plainly(finished.directory, "all_checkpoints", "stats.zarr").load()
    assert joined["checkpoint"].values.tolist() == NAMES
    assert joined["epoch"].values.tolist() == [0, 1, 2]
    assert joined["group"].values.tolist() == ["test drone", "test satellite", "train drone", "train satellite"]
    assert joined["count"].sel(checkpoint="net_000").values.tolist() == [4, 2, 6, 3]
    assert joined["map_mean"].dims == ("checkpoint", "group", "product", "y", "x")
    assert joined["recall_1"].dims == ("checkpoint", "direction")
    assert ((joined["recall_1"] >= 0) & (joined["recall_1"] <= 1)).all()
    assert {"pointing", "energy", "cosine_to_previous", "spearman_to_last", "moved_cells", "warp_mean", "boundary_count"} <= set(joined)
    assert np.isnan(joined["cosine_to_previous"].sel(checkpoint="net_000")).all()
    xr.testing.assert_identical(joined.drop_attrs(), open_stats(finished).drop_attrs())


def test_a_mean_map_is_the_mean_of_the_maps(finished):
    maps = open_plainly(finished.directory, "net_001/patch/none", "cams.zarr")["l2_norm"].values.astype(np.float64)
    chosen = ((finished.manifest["split"] == "test") & (finished.manifest["view"] == "drone")).to_numpy()
    stats = open_plainly(finished.directory, "all_checkpoints", "stats.zarr").sel(
        checkpoint="net_001", group="test drone", product="patch/none/l2_norm"
    )
    np.testing.assert_allclose(stats["map_mean"], maps[chosen].mean(axis=0), rtol=1e-12)  # float64 sums
    # E[x^2] - E[x]^2 loses as many digits as the maps are flat
    np.testing.assert_allclose(stats["map_std"], maps[chosen].std(axis=0), atol=1e-6)


def test_figures_do_not_depend_on_the_executor(lab, finished, finished_copy):
    shutil.rmtree(finished_copy / "stats.zarr")
    run = lab.run(finished_copy, "compute.executor=serial")
    STAGES[3].bring_up_to_date(run)
    xr.testing.assert_identical(open_stats(run).drop_attrs(), open_stats(finished).drop_attrs())


def test_pictures_are_there_and_say_how_they_were_made(finished):
    index = json.loads((finished.mosaics_path / "index.json").read_text())
    assert {entry["kind"] for entry in index} == {"positions", "epochs", "paper"}
    assert {path.relative_to(finished.mosaics_path).as_posix() for path in finished.mosaics_path.rglob("*.png")} == {entry["path"] for entry in index}
    for entry in index:
        path = finished.mosaics_path / entry["path"]
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            assert np.asarray(picture).std() > 5
        settings = png_settings(path)
        assert settings["method"] == entry["method"]
        assert settings["checkpoints"] == ", ".join(entry["checkpoints"])
        assert json.loads(settings["settings"])["panel_px"] == 64
        assert re.fullmatch("[0-9a-f]{32}", settings["stamp"])
    assert next(entry["checkpoints"] for entry in index if entry["kind"] == "epochs") == NAMES


def test_the_page_links_pictures_that_are_there(finished):
    page = finished.report_path.read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="(\.\./mosaics/[^"]+)"', page)
    assert len(set(links)) == len(json.loads((finished.mosaics_path / "index.json").read_text()))
    assert all((finished.report_path.parent / unquote(link)).is_file() for link in links)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert all(name in page for name in NAMES)


# ---- reading back


def test_a_run_is_opened_lazily_and_has_texts_as_coordinates(finished):
    found = pipeline.open_run(finished.directory).features
    assert {"sample_id", "place", "view", "split", "roles"} <= set(found.coords)
    assert found["patch_map"].chunks is not None
    chosen = found["patch_map"].sel(sample=found["view"] == "satellite")
    assert chosen.sizes["sample"] == 5


def test_a_derived_aligned_map_is_the_stored_one_bit_for_bit(lab, finished, fresh):
    run = lab.run(fresh, "extract.aligned=derived", checkpoints="net_00[01].pth")
    extract(run)
    cam(run)
    for name in ("net_000", "net_001"):
        stored, derived = finished.features(name), run.features(name)
        assert not derived.has("aligned_map")
        for rows in (slice(None), slice(3, 9)):
            expected = stored.read(["aligned_map"], rows)["aligned_map"]
            found = read_features(derived, ["aligned_map", "valid"], rows)["aligned_map"]
            assert found.dtype == expected.dtype
            assert found.dims == expected.dims
            np.testing.assert_array_equal(found, expected)
        opened = pipeline.open_run(run.directory).features["aligned_map"].sel(checkpoint=name)
        np.testing.assert_array_equal(opened, stored.read(["aligned_map"])["aligned_map"])
        for map_key in map_keys_of(run.settings.cam):
            expected = finished.cams(name).read([map_key.key])[map_key.key]
            np.testing.assert_array_equal(run.cams(name).read([map_key.key])[map_key.key], expected)


def test_a_derived_aligned_map_is_refused_for_bilinear_sampling(lab, fresh):
    run = lab.run(fresh, "extract.aligned=derived")
    with pytest.raises(
        ValueError, match=r"net_002\.pth: extract\.aligned = 'derived' needs nearest sampling; this network's is bilinear\. Set it to"
    ):
        extract(run)


def test_the_manifest_is_a_table_that_anyone_can_read(finished):
    table = pd.read_parquet(finished.manifest_path)
    assert len(table) == 15
    assert table["id"].is_unique
