"""Maps and figures made when they are asked for: each against its definition, on a finished run."""

import gc
import weakref

import numpy as np
import pytest
import torch
import xarray as xr

import pipeline
from pipeline.cam.references import References
from safenet.head_arrays import fold_head
from safenet.heads import build_head
from safenet.partition import pool_rings
from stages.cam.facts import FACTS
from stages.cam.frames import to_photo_frame
from stages.stats.deletion import area_under

NAMES = ("w1", "b1", "bn_weight", "bn_bias", "bn_mean", "bn_var", "w2", "b2")


@pytest.fixture(scope="module")
def run(finished):
    return pipeline.open_run(finished.directory)


def features_of(run, checkpoint) -> xr.Dataset:
    return run.features.sel(checkpoint=checkpoint).load()


def heads_of(run, checkpoint) -> list[dict]:
    features = features_of(run, checkpoint)
    return [{name: features[f"head_{name}"].values[part] for name in NAMES} for part in range(features.sizes["head"])]


def test_stored_maps_are_made_again_to_the_bit(run):
    keys = [key for key in run.cams if "/none/" not in str(key)][:4]
    found = run.explain.maps("net_001", keys)
    for key in keys:
        np.testing.assert_array_equal(found[key], run.cams[key].sel(checkpoint="net_001"))
    assert found["sample_id"].values.tolist() == run.manifest["id"].tolist()


def test_of_the_checkpoints_asked_about_two_are_kept_each_with_two_heads(finished, monkeypatch):
    """With the targets `best` each keeps the embeddings of all images."""
    opened, alive = [], weakref.WeakSet()
    original = References.__init__

    def counted(self, *arguments):
        original(self, *arguments)
        opened.append(self._features.name)
        alive.add(self)

    monkeypatch.setattr(References, "__init__", counted)
    explain, names = pipeline.open_run(finished.directory).explain, ("net_000", "net_001", "net_002")
    for features in names:
        for heads in names:
            explain._of(features, heads)
            gc.collect()
            assert len(alive) <= 4
    assert len(opened) == 9
    for heads in names[1:]:
        explain._of("net_002", heads)
    assert len(opened) == 9, "what was asked last is not made again"
    gc.collect()
    assert len(alive) == 4


def test_facts_lie_beside_the_maps(run):
    assert set(run.facts) == set(run.cams)
    assert run.facts["aligned/match/grad_cam"].dims == ("checkpoint", "sample", "fact")
    maps = run.cams["aligned/match/grad_cam"].sel(checkpoint="net_000").values
    facts = run.facts["aligned/match/grad_cam"].sel(checkpoint="net_000")
    np.testing.assert_array_equal(facts.sel(fact="low"), maps.min(axis=(1, 2)))
    np.testing.assert_array_equal(facts.sel(fact="status") == 5, np.isnan(maps).all(axis=(1, 2)))


def test_samples_come_in_the_order_asked_for(run):
    ids = run.manifest["id"].tolist()
    chosen = [ids[9], ids[2], ids[3], ids[9]]
    found = run.explain.maps("net_000", ["aligned/match/grad_cam"], chosen)
    assert found["sample_id"].values.tolist() == chosen
    stored = run.cams["aligned/match/grad_cam"].sel(checkpoint="net_000").values
    np.testing.assert_array_equal(found["aligned/match/grad_cam"], stored[[9, 2, 3, 9]])


def test_a_map_that_was_never_stored(run):
    key = "aligned/class_0001.part_1/hires_cam"
    found = run.explain.maps("net_000", [key])
    facts = dict(zip(FACTS, found[f"facts/{key}"].values.T, strict=True))
    np.testing.assert_allclose(found[key].sum(("y", "x")), facts["score"] - facts["constant"], rtol=1e-2, atol=2e-3)  # float16 maps
    np.testing.assert_allclose(facts["score"], features_of(run, "net_000")["logit"].values[:, 0, 1], rtol=1e-5)


def test_heads_of_another_checkpoint(run):
    """The cells add up to what those heads give for these features, less their constant."""
    key = "aligned/class_0002/hires_cam"
    found = run.explain.maps("net_000", [key], heads_of="net_001")
    part = features_of(run, "net_000")["part_feature"].values.astype(np.float64)
    folded = [fold_head(arrays) for arrays in heads_of(run, "net_001")[:-1]]
    expected = np.mean([part[:, index] @ head.matrix[2] for index, head in enumerate(folded)], axis=0)
    np.testing.assert_allclose(found[key].sum(("y", "x")), expected, rtol=1e-2, atol=2e-3)  # float16 maps
    facts = dict(zip(FACTS, found[f"facts/{key}"].values.T, strict=True))
    np.testing.assert_allclose(facts["score"] - facts["constant"], expected, rtol=1e-4, atol=1e-5)
    own = run.explain.maps("net_000", [key])[key].values
    assert np.abs(own - found[key].values).max() > 0.01 * np.abs(own).max(), "other heads, another map"


def test_similarities_under_other_heads_compare_with_what_those_heads_give(run):
    key = "aligned/match_share/hires_cam"
    found = run.explain.maps("net_000", [key], heads_of="net_001")
    features, arrays = features_of(run, "net_000"), heads_of(run, "net_001")
    folded = [fold_head(one) for one in arrays[:-1]]
    part = features["part_feature"].values.astype(np.float64)
    embedding = np.stack([part[:, i] @ h.embed_matrix.T + h.embed_const for i, h in enumerate(folded)], axis=1)
    unit = embedding / np.linalg.norm(embedding, axis=2, keepdims=True)
    rows = run.manifest.reset_index(drop=True)
    checked = 0
    for sample, row in rows[(rows["view"] == "drone") & (rows["split"] == "test")].iterrows():
        other = rows[(rows["place"] == row["place"]) & (rows["view"] == "satellite") & rows["roles"].str.contains("gallery")].index
        reference = unit[other].mean(axis=0)
        value = np.mean([(unit[sample, p] * reference[p]).sum() for p in range(len(folded))])
        facts = dict(zip(FACTS, found[f"facts/{key}"].values[sample], strict=True))
        np.testing.assert_allclose(facts["score"], value, rtol=1e-5)
        checked += 1
    assert checked


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
@pytest.mark.parametrize("position", ["patch", "aligned"])
def test_maps_of_all_classes_are_those_of_each_class(run, method, position):
    for checkpoint in ("net_000", "net_002"):  # nearest and bilinear sampling
        found = run.explain.class_maps(checkpoint, [3, 7], position=position, method=method)
        assert found.dims == ("sample", "class", "y", "x")
        for name in found["class"].values:
            key = f"{position}/class_{name}/{method}"
            single = run.explain.maps(checkpoint, [key], [3, 7])[key]
            np.testing.assert_allclose(found.sel({"class": name}), single, rtol=0, atol=1e-5 * float(np.abs(single).max()))
    some = run.explain.class_maps("net_000", [3], classes=["0002", "0000"], position=position, method=method)
    every = run.explain.class_maps("net_000", [3], position=position, method=method)
    np.testing.assert_allclose(some, every.sel({"class": ["0002", "0000"]}), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_mean_maps_of_all_classes_come_from_one_mean_map(run, method):
    samples = [0, 4, 5, 11]
    found = run.explain.mean_class_maps("net_002", samples, method=method)
    each = run.explain.class_maps("net_002", samples, method=method).mean("sample")
    np.testing.assert_allclose(found, each, rtol=0, atol=1e-5 * float(np.abs(each).max()))  # float32 products against float64


def test_the_change_between_checkpoints_is_split_exactly(run):
    key = "aligned/class_0001/hires_cam"
    found = run.explain.split_change("net_000", "net_001", key)
    stored = [run.explain.maps(name, [key])[key] for name in ("net_000", "net_001")]
    np.testing.assert_array_equal(found["before"], stored[0])
    np.testing.assert_array_equal(found["after"], stored[1])
    total = found["features"] + found["head"] + found["interaction"]
    np.testing.assert_allclose(total, found["after"] - found["before"], atol=1e-6 * float(np.abs(found["after"]).max()))
    same = run.explain.split_change("net_000", "net_000", key)
    assert not any(np.abs(same[name]).any() for name in ("features", "head", "interaction"))
    head = run.explain.maps("net_000", [key], heads_of="net_001")[key] - stored[0]
    np.testing.assert_array_equal(found["head"], head)


@pytest.mark.parametrize("target", ["predicted", "match", "class_0000.part_2.softmax"])
def test_curves_are_what_the_heads_give_for_what_is_left(run, target):
    """Cell after cell set to zero, pooled and run through the heads, one by one in float64."""
    sample, key = 8, "aligned/none/l2_norm"
    found = run.explain.curves("net_000", key, [sample], target=target)
    features = features_of(run, "net_000").isel(sample=slice(sample, sample + 1))
    order = np.argsort(-run.cams[key].sel(checkpoint="net_000").values[sample].ravel(), kind="stable")
    aligned = torch.from_numpy(features["aligned_map"].values.astype(np.float64)).permute(0, 3, 1, 2)
    boundary = torch.from_numpy(features["boundary"].values.astype(np.int64))
    heads = [build_head(arrays, dtype=torch.float64) for arrays in heads_of(run, "net_000")[:-1]]
    fixed = reference_of(run, sample)
    expected = []
    for step in range(len(order) + 1):
        cells = aligned.flatten(2).clone()
        cells[:, :, order[:step].copy()] = 0
        part = pool_rings(cells.view_as(aligned), boundary)
        pairs = [head(value) for head, value in zip(heads, part.unbind(2), strict=True)]
        if target == "match":
            expected.append(np.mean([float(e[0] @ q / e[0].norm()) for (e, _), q in zip(pairs, fixed, strict=True)]))
        elif target == "predicted":
            number = features["logit"].values[0, :-1].mean(axis=0).argmax()
            expected.append(np.mean([float(logit[0, number]) for _, logit in pairs]))
        else:
            expected.append(float(pairs[1][1].softmax(dim=1)[0, 0]))
    # the stored logits are those of float32 maps, the curve starts from them
    np.testing.assert_allclose(found["deletion"][0], expected, rtol=2e-3, atol=2e-3)
    assert found["deletion"].sizes["step"] == 65
    np.testing.assert_allclose(found["insertion"][0, -1], found["deletion"][0, 0], rtol=1e-6)
    np.testing.assert_allclose(found["insertion"][0, 0], found["deletion"][0, -1], atol=2e-3)


def reference_of(run, sample) -> list[torch.Tensor]:
    row = run.manifest.iloc[sample]
    other = {"drone": "satellite", "satellite": "drone"}[row["view"]]
    chosen = (run.manifest["place"] == row["place"]) & (run.manifest["view"] == other)
    serves = run.manifest["roles"].str.contains("gallery") | (run.manifest["split"] == "train")
    embedding = features_of(run, "net_000")["embedding"].values[(chosen & serves).to_numpy()]
    unit = embedding / np.linalg.norm(embedding, axis=2, keepdims=True)
    return list(torch.from_numpy(unit.mean(axis=0)[:-1]).double())


def test_hires_cam_has_the_steepest_deletion_curve(run):
    """For an affine score no order of the cells removes more, sooner."""
    areas = {}
    for method in ("hires_cam", "grad_cam", "layer_cam"):
        curves = run.explain.curves("net_000", f"aligned/predicted/{method}")
        areas[method] = area_under(curves["deletion"].values)
        assert (np.diff(curves["deletion"].values[:, [0, -1]], axis=1) != 0).all()
    for other in ("grad_cam", "layer_cam"):
        assert (areas["hires_cam"] <= areas[other] + 1e-9).all()


def test_maps_are_carried_to_the_photo_as_the_network_read_it(run, finished):
    for checkpoint, sampling in (("net_000", "nearest"), ("net_002", "bilinear")):
        maps = run.cams["aligned/match/hires_cam" if "aligned/match/hires_cam" in run.cams else "aligned/match/grad_cam"]
        found = run.explain.image_frame(maps.sel(checkpoint=checkpoint), checkpoint)
        features = features_of(run, checkpoint)
        expected = to_photo_frame(maps.sel(checkpoint=checkpoint).values, features["theta"].values, features["source_cell"].values, sampling, False)
        np.testing.assert_array_equal(found, expected)
        assert found.attrs["frame"] == "patch"
    patch = run.cams["patch/none/l2_norm"].sel(checkpoint="net_000")
    np.testing.assert_array_equal(run.explain.image_frame(patch, "net_000"), patch)


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda e: e.maps("net_9", ["aligned/none/max"]), "checkpoint: 'net_9' is unknown. Did you mean 'net_0"),
        (lambda e: e.maps("net_000", ["aligned/max"]), "'aligned/max' is no heat map; expected position/target/method"),
        (lambda e: e.maps("net_000", ["aligned/none/grad_cam"]), "aligned/none/grad_cam: grad_cam needs a target"),
        (lambda e: e.maps("net_000", ["aligned/match/max"]), "aligned/match/max: max has no target; write 'none'"),
        (lambda e: e.maps("net_000", ["aligned/match/grad_cm"]), "method: 'grad_cm' is unknown. Did you mean 'grad_cam'"),
        (lambda e: e.maps("net_000", ["aligned/none/max"], ["nobody"]), "there is no sample 'nobody'; expected an id of the manifest, or a number"),
        (lambda e: e.maps("net_000", ["aligned/label.global/grad_cam"]), "the global head reads CLS alone"),
        (lambda e: e.maps("net_000", ["aligned/match.flip/grad_cam"]), "needs flip_embedding, which was not stored"),
        (lambda e: e.maps("net_000", ["aligned/pair_nobody/grad_cam"]), "no image has the id 'nobody'"),
        (lambda e: e.class_maps("net_000", [0], ["0009"]), "classes: '0009' is unknown"),
        (lambda e: e.class_maps("net_000", [0], method="layer_cam"), "method: 'layer_cam' is unknown"),
        (lambda e: e.class_maps("net_000", [0], position="part"), "position: 'part' is unknown"),
        (lambda e: e.split_change("net_000", "net_001", "aligned/match/hires_cam"), "expected a target of one class"),
        (lambda e: e.curves("net_000", "aligned/none/max"), "a class-free map has no score of its own"),
        (lambda e: e.curves("net_000", "part/match/grad_cam"), "part: expected patch or aligned"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(run, ask, text):
    with pytest.raises(ValueError, match=text) as caught:
        ask(run.explain)
    assert "\n" not in str(caught.value)
