"""One image that is not finite: whatever the variable, it changes no bit of any other image's products; it is counted, named and drawn as such."""

import itertools
import re
import shutil
from functools import cache

import numpy as np
import pytest
from feature_blocks import context_of, feature_block, random_net
from figures_in_memory import figures_of_images, reduced, retrieval
from PIL import Image
from poison import poison_store

from pipeline.cam.explain import Explainer
from pipeline.cam.wanted import wanted_map_keys
from pipeline.look.open_run import open_run
from pipeline.look.status import run_status
from pipeline.render.opened_run import OpenedRun
from pipeline.render.views import read_view, why_no_pair
from pipeline.stages import STAGES
from stages.cam.compute import compute_cams
from stages.cam.facts import FACTS, STATUS
from stages.cam.map_keys import FACTS_PREFIX, map_keys_of
from stages.cam.settings import CamSettings
from stages.stats.groups import Groups
from stages.stats.settings import StatsSettings
from stages.targets.names import NO_TARGET, parse_target
from stages.targets.references import reference_name

NOT_FINITE = next(code for code, row in STATUS.items() if row.name == "not finite")
POISONS = (np.nan, np.inf, -np.inf)
FLOATS = ("patch_map", "aligned_map", "theta", "fam_change", "saliency", "part_feature", "global_feature", "embedding", "flip_embedding", "logit")
TARGETS = ("label", "predicted.softmax", "match", "match_share.flip", "best")
METHODS = ("l2_norm", "l2_norm_source", "max", "mean", "eigen_cam", "grad_cam", "hires_cam", "xgrad_cam", "finer_cam")
PRODUCTS = map_keys_of(CamSettings(methods=METHODS, targets=TARGETS))
COUNTED = map_keys_of(CamSettings(methods=("l2_norm", "l2_norm_source", "hires_cam", "xgrad_cam"), targets=("match_share.flip", "label")))
SAMPLES, POISONED = 9, 4  # not the last: others of its few follow it


@pytest.fixture(scope="module", params=["nearest", "bilinear"])
def block(request):
    """Features with maps in float16 and masks, as a store holds them, the context of their maps, and what is made of them when all is finite."""
    model = random_net(request.param, 2, seed=3)
    features = feature_block(model, SAMPLES, map_keys=PRODUCTS)
    rng = np.random.default_rng(0)
    features = features.assign({name: features[name].astype(np.float16) for name in ("patch_map", "aligned_map")})
    features["mask_share"] = (("sample", "y", "x"), rng.random((SAMPLES, 8, 8)).astype(np.float32))
    features["mask_centre"] = (("sample", "y", "x"), rng.integers(0, 2, (SAMPLES, 8, 8)).astype(np.int8))
    context = context_of(model)
    whole = compute_cams(features, PRODUCTS, context)
    return features, context, model.architecture, whole, counted(whole, whole, features, model.architecture)


def counted(cams, before, features, network):
    chosen = cams[[key for p in COUNTED for key in (p.key, p.facts_key)]]
    return figures_of_images(chosen, features, network, StatsSettings(), {"previous": before[[p.key for p in COUNTED]]})


def poisoned(features, name, value, cell=0):
    found = features.copy(deep=True)
    found[name].values[POISONED].reshape(-1)[cell] = value
    return found


def others(values):
    return np.delete(np.asarray(values), POISONED, axis=0)


@pytest.mark.parametrize(("name", "value"), list(itertools.product(FLOATS, POISONS)))
def test_no_bit_of_any_other_map_or_figure_changes(block, name, value):
    features, context, network, whole, summary = block
    spoilt = poisoned(features, name, value)
    bad = compute_cams(spoilt, PRODUCTS, context)
    for map_key in PRODUCTS:
        for key in (map_key.key, map_key.facts_key):
            np.testing.assert_array_equal(others(bad[key]), others(whole[key]), err_msg=key)
        own, facts = bad[map_key.key].values[POISONED], dict(zip(FACTS, bad[map_key.facts_key].values[POISONED].tolist(), strict=True))
        if facts["status"] == NOT_FINITE:
            assert np.isnan(own).all() and np.isnan([facts[key] for key in ("low", "high", "score", "constant", "rounding")]).all()
        else:
            np.testing.assert_array_equal(own, whole[map_key.key].values[POISONED], err_msg=f"{map_key.key} does not read {name}")
    made = counted(bad, whole, spoilt, network)
    for figure in made:
        np.testing.assert_array_equal(others(made[figure]), others(summary[figure]), err_msg=figure)
    groups = Groups(("test drone", "test satellite"), (np.arange(SAMPLES) % 2).astype(np.int64))
    stats = reduced([made], bad[[p.key for p in COUNTED]], groups, network, kinds=["previous"])
    assert all(np.isfinite(stats[figure]).any() for figure in ("map_mean", "entropy", "warp_mean", "fam_change")), "the others' means are there"
    assert not any(np.isinf(stats[figure].values.astype(float)).any() for figure in stats)


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("patch_map", {"patch/none/l2_norm", "patch/match/grad_cam", "aligned/none/l2_norm_source"}),
        ("aligned_map", {"aligned/none/l2_norm", "aligned/match/grad_cam"}),
        ("part_feature", {"part/none/max", "part/match/hires_cam", "aligned/label/hires_cam"}),
        ("embedding", {"aligned/match/grad_cam", "patch/best/hires_cam"}),
        ("logit", {"aligned/label/grad_cam", "part/predicted.softmax/hires_cam"}),
        ("flip_embedding", {"aligned/match_share.flip/grad_cam"}),
    ],
)
def test_what_is_made_of_it_is_not_finite_and_the_rest_is(block, name, spoilt):
    features, context, *_ = block
    found = compute_cams(poisoned(features, name, np.inf), PRODUCTS, context)
    status = {p.key: int(found[p.facts_key].values[POISONED, 0]) for p in PRODUCTS}
    assert {key for key in spoilt if status[key] != NOT_FINITE} == set()
    assert NOT_FINITE not in {code for key, code in status.items() if key not in spoilt and not _reads(key, name)}


def _reads(key, name):
    position, target, method = key.split("/")
    if name in ("patch_map", "aligned_map"):
        return position == name.removesuffix("_map") or (name == "patch_map" and method == "l2_norm_source")
    if target == NO_TARGET:
        return name == "part_feature" and position == "part"
    kind = parse_target(target).row.kind
    return {"part_feature": True, "logit": kind == "class", "embedding": kind == "similarity", "flip_embedding": target.endswith("flip")}[name]


def test_a_reference_that_is_not_there_is_absent_and_not_infinite(block):
    features, context, *_ = block
    name = reference_name(parse_target("match"), "own")
    alone = features.assign({name: features[name].copy(deep=True)})
    alone[name][POISONED] = np.nan
    found = compute_cams(alone, PRODUCTS, context)
    assert STATUS[int(found[f"{FACTS_PREFIX}aligned/match/grad_cam"][POISONED, 0])].name == "absent"
    both = poisoned(alone, "embedding", np.nan)
    both[reference_name(parse_target("best"), "own")].values[POISONED] = np.nan
    found = compute_cams(both, PRODUCTS, context)
    for target in ("match", "best"):
        assert STATUS[int(found[f"{FACTS_PREFIX}aligned/{target}/grad_cam"][POISONED, 0])].name == "not finite", "the remedy is for itself"


def test_a_target_without_rivals_is_absent_for_finer_cam_and_keeps_its_score(block):
    features, context, _, whole, _ = block
    name = reference_name(parse_target("match"), "rivals")
    alone = features.assign({name: features[name].copy(deep=True)})
    alone[name][POISONED] = np.nan
    found = compute_cams(alone, PRODUCTS, context)
    facts = dict(zip(FACTS, found[f"{FACTS_PREFIX}aligned/match/finer_cam"].values[POISONED].tolist(), strict=True))
    assert STATUS[int(facts["status"])].name == "absent"
    assert facts["score"] == float(whole[f"{FACTS_PREFIX}aligned/match/finer_cam"].values[POISONED, FACTS.index("score")])
    np.testing.assert_array_equal(others(found["aligned/match/finer_cam"]), others(whole["aligned/match/finer_cam"]))
    np.testing.assert_array_equal(found["aligned/match/grad_cam"], whole["aligned/match/grad_cam"])


@pytest.mark.filterwarnings("error")
def test_a_network_of_one_class_has_no_rivals():
    model = random_net("nearest", 2, seed=3, classes=1)
    map_keys = map_keys_of(CamSettings(methods=("finer_cam", "grad_cam"), targets=("predicted",), positions=("aligned",)))
    found = compute_cams(feature_block(model, 3, map_keys=map_keys), map_keys, context_of(model))
    status = {p.method: {STATUS[int(code)].name for code in found[p.facts_key].values[:, 0]} for p in map_keys}
    assert status["finer_cam"] == {"absent"} and "absent" not in status["grad_cam"]


@pytest.mark.parametrize("value", POISONS)
def test_as_a_query_it_is_a_miss_and_it_is_absent_from_the_gallery(value):
    rng = np.random.default_rng(1)
    places = np.repeat(np.arange(6), 2).astype(str)
    embedding = (np.repeat(rng.standard_normal((6, 3, 8)), 2, axis=0) + 0.1 * rng.standard_normal((12, 3, 8))).astype(np.float32)
    view, roles, valid = np.tile(["drone", "satellite"], 6), ["query+gallery"] * 12, np.ones(12, bool)
    bad, void = embedding.copy(), valid.copy()
    bad[2, 1, 3], void[2] = value, False  # a drone image of place 1
    whole, found, without = (
        retrieval(embedding, places, view, roles, valid),
        retrieval(bad, places, view, roles, valid),
        retrieval(embedding, places, view, roles, void),
    )
    there, back = "drone to satellite", "satellite to drone"
    assert whole["recall_1"].values.tolist() == [1, 1]
    assert float(found["recall_1"].sel(direction=there)) == pytest.approx(5 / 6) and float(found["average_precision"].sel(direction=there)) < 1
    for name in ("recall_1", "recall_5", "average_precision"):
        assert float(found[name].sel(direction=back)) == float(without[name].sel(direction=back)), "as if it were not in the gallery"
    assert [int(found[name].sel(direction=there)) for name in ("queries", "queries_not_finite", "gallery_not_finite")] == [6, 1, 0]
    assert [int(found[name].sel(direction=back)) for name in ("queries_unmatched", "queries_not_finite", "gallery_not_finite")] == [0, 0, 1]


# ---- the whole pipeline


CASES = [  # nearest and bilinear; every variable alone is the test above
    ("net_000", "patch_map", np.inf),
    pytest.param("net_000", "embedding", np.nan, marks=pytest.mark.faults),
    ("net_002", "theta", np.nan),
    pytest.param("net_002", "aligned_map", -np.inf, marks=pytest.mark.faults),
    ("net_002", "embedding", np.inf),
]


def brought_up(lab, directory, checkpoints):
    run = lab.run(
        directory,
        "cam.methods=['l2_norm', 'grad_cam', 'hires_cam']",
        "cam.targets=['match', 'best_contrast', 'label']",
        "render.targets=['match']",
        "render.methods=['l2_norm', 'hires_cam']",
        "render.place_count=2",
        "render.mosaics=['positions', 'epochs', 'paper', 'methods', 'pair']",
        checkpoints=checkpoints,
    )
    for stage in STAGES[2:]:
        stage.bring_up_to_date(run)
    return run


@pytest.fixture(scope="module")
def intact(lab, indexed, tmp_path_factory):
    """Of a checkpoint: the directory of a run with its features alone, and the same run finished."""

    @cache
    def made(checkpoint):
        bare, done = (tmp_path_factory.mktemp(name) / "run" for name in ("bare", "done"))
        shutil.copytree(indexed, bare)
        STAGES[1].bring_up_to_date(lab.run(bare, checkpoints=f"{checkpoint}.pth"))
        shutil.copytree(bare, done)
        return bare, brought_up(lab, done, f"{checkpoint}.pth")

    return made


def sample_of(run, split, view):
    rows = run.manifest[(run.manifest["split"] == split) & (run.manifest["view"] == view)]
    return int(rows["sample"].iloc[0])


@pytest.mark.parametrize(("checkpoint", "name", "value"), CASES)
def test_one_poisoned_image_leaves_all_others_as_they_are(lab, intact, tmp_path, checkpoint, name, value):
    """Maps, facts and pictures. An embedding is part of what others are compared with: they come out as without this image."""
    bare, reference = intact(checkpoint)
    directory = tmp_path / "run"
    shutil.copytree(bare, directory)
    sample = sample_of(reference, "test", "drone")
    if name == "embedding":
        without = tmp_path / "without"
        shutil.copytree(bare, without)
        poison_store(lab.run(without), checkpoint, "valid", False, sample)
        reference = brought_up(lab, without, f"{checkpoint}.pth")
    poison_store(lab.run(directory), checkpoint, name, value, sample)
    run = brought_up(lab, directory, f"{checkpoint}.pth")
    rest = [number for number in range(len(run.manifest)) if number != sample]
    map_keys = wanted_map_keys(run, checkpoint)
    maps, expected = (one.cams(checkpoint).read([key for p in map_keys for key in (p.key, p.facts_key)]) for one in (run, reference))
    for key in maps:
        np.testing.assert_array_equal(maps[key].values[rest], expected[key].values[rest], err_msg=str(key))
    of_match = [p for p in map_keys if p.method == "hires_cam" and p.target == "match"]
    opened = [OpenedRun.of(each) for each in (run, reference)]
    for row in (run.manifest.iloc[number] for number in rest):
        one, other = (read_view(each, row, checkpoint, of_match, "match") for each in opened)
        assert one.reasons == other.reasons and one.rounding == other.rounding and one.label == other.label
        for position in one.maps:
            np.testing.assert_array_equal(one.maps[position], other.maps[position])
    place = run.manifest["place"].iloc[sample]
    pictures = [path for path in run.mosaics_path.rglob("*.png") if place not in path.name]
    assert pictures, "nothing was drawn of the other places"
    for path in pictures:
        if "best" not in path.name:  # where it names the image that ranks first, that may be the one which is left out
            pair = [np.asarray(Image.open(base / path.relative_to(run.mosaics_path))) for base in (run.mosaics_path, reference.mosaics_path)]
            np.testing.assert_array_equal(*pair, err_msg=str(path))
    (row,) = run_status(run)
    assert row["not finite"] == "1"
    assert "nan" not in _text(run.report_path.read_text()).lower().split()


def _text(page):
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style).*?</\1>", " ", page, flags=re.DOTALL))


def test_a_poisoned_image_is_named_in_status_report_and_panels(lab, intact, tmp_path):
    checkpoint = "net_002"
    bare, _ = intact(checkpoint)
    directory = tmp_path / "run"
    shutil.copytree(bare, directory)
    run = lab.run(directory)
    sample = sample_of(run, "test", "satellite")
    identity = run.manifest["id"].iloc[sample]
    poison_store(run, checkpoint, "embedding", np.nan, sample)
    run = brought_up(lab, directory, f"{checkpoint}.pth")
    result = lab.atlas("status", directory, "--bad", checkpoints=f"{checkpoint}.pth")
    assert f"{checkpoint}: 1 value in 1 image is not finite, first in embedding of {identity}, head part1; " in result.output
    assert f"{identity} (" in result.output and f"not finite in {checkpoint}: embedding; " in result.output
    page = _text(run.report_path.read_text())
    assert f"{checkpoint}: 1 value in 1 image is not finite, first in embedding of {identity}, head part1; " in page
    assert "1 gallery image left out for the same reason" in page
    map_keys = [p for p in wanted_map_keys(run, checkpoint) if p.method == "hires_cam" and p.target == "match"]
    seen = OpenedRun.of(run)
    own, other = (read_view(seen, run.manifest.iloc[number], checkpoint, map_keys) for number in (sample, _drone_of(run, run.manifest.iloc[sample])))
    assert own.reasons["aligned"].startswith("not finite: embedding; the network's own values overflow")
    assert other.reasons["aligned"] == "no map: the images of this place in the other view are void or not finite"
    (norm,) = [p for p in wanted_map_keys(run, checkpoint) if p.key == "patch/none/l2_norm"]
    assert read_view(seen, run.manifest.iloc[sample], checkpoint, [norm]).reasons == {}, "it is not made of the embedding"
    partner = run.manifest.iloc[_drone_of(run, run.manifest.iloc[sample])]
    assert why_no_pair(seen, partner, run.manifest.iloc[sample], checkpoint).startswith("the other image is not finite: embedding; the network's")
    assert why_no_pair(seen, run.manifest.iloc[sample], partner, checkpoint).startswith("not finite: embedding; the network's")
    opened = open_run(directory)
    facts = opened.facts["aligned/match/hires_cam"].isel(checkpoint=0, sample=sample)
    assert STATUS[int(facts.sel(fact="status"))].name == "not finite"


def _drone_of(run, row):
    same = run.manifest[(run.manifest["place"] == row["place"]) & (run.manifest["view"] == "drone")]
    return int(same["sample"].iloc[0])


def test_what_is_made_when_it_is_asked_for_leaves_it_out(lab, intact, tmp_path):
    """Maps of all classes, mean maps, curves and pairs: NaN for this image, and as without it for all."""
    checkpoint = "net_002"
    bare, reference = intact(checkpoint)
    directory = tmp_path / "run"
    shutil.copytree(bare, directory)
    run = lab.run(directory)
    sample = sample_of(run, "test", "drone")
    other = _satellite_of(run, run.manifest.iloc[sample])
    poison_store(run, checkpoint, "aligned_map", np.inf, sample)
    explain, intact_one = Explainer(lab.run(directory)), Explainer(reference)
    maps = explain.class_maps(checkpoint, [sample, other])
    assert np.isnan(maps[0]).all()
    np.testing.assert_array_equal(maps[1], intact_one.class_maps(checkpoint, [sample, other])[1])
    rest = [number for number in range(len(run.manifest)) if number != sample]
    expected = intact_one.mean_class_maps(checkpoint, rest)
    np.testing.assert_allclose(explain.mean_class_maps(checkpoint), expected, atol=1e-12 * np.abs(expected).max())  # float64, in another order
    curves = explain.curves(checkpoint, "aligned/predicted/hires_cam", [sample, other])
    assert np.isnan(curves["deletion"][0]).all() and np.isfinite(curves["deletion"][1]).all()
    pair = explain.pair(checkpoint, sample, other)
    assert np.isnan(pair["first_map"]).all() and np.isnan(pair["second_like_first"]).all() and np.isfinite(pair["second_map"]).any()
    with pytest.raises(ValueError, match="none of the samples has an image whose map is finite"):
        explain.mean_class_maps(checkpoint, [sample])


def _satellite_of(run, row):
    same = run.manifest[(run.manifest["place"] == row["place"]) & (run.manifest["view"] == "satellite")]
    return int(same["sample"].iloc[0])
