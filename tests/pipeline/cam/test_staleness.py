"""A new version makes those maps again whose numbers changed, and no others."""

from dataclasses import replace

import pytest

import pipeline
from pipeline.cam.stage import cam
from pipeline.cam.staleness import VERSION, map_stamps, version_of
from safenet.architecture import PRESETS
from stages.cam.compute import needed_features
from stages.cam.map_keys import MapKey


@pytest.mark.parametrize(
    ("key", "of_bilinear", "of_others"),
    [
        ("patch/match/grad_cam", 4, 4),
        ("aligned/none/l2_norm_source", 4, 3),
        ("patch/none/l2_norm", 3, 3),
        ("aligned/match/hires_cam", 3, 4),
        ("part/match/grad_cam", 3, 4),
        ("block_0/predicted/grad_cam", 3, 3),
    ],
)
def test_version_4_changed_what_passes_bilinear_sampling_or_has_no_closed_form(key, of_bilinear, of_others):
    map_key, published = MapKey.parse(key), PRESETS["upstream"]
    assert version_of(map_key, published, 4) == 3, "nearest sampling, affine heads, mean pooling"
    assert version_of(map_key, replace(published, sampling="bilinear"), 4) == of_bilinear
    assert ("theta" in needed_features([map_key])) == (of_bilinear == 4), "what reads the warp is what is sampled"
    for kind in ({"head_activation": "leaky_relu"}, {"pooling": "max"}):
        network = replace(published, **kind)
        assert version_of(map_key, network, 4) == of_others
        assert [version_of(map_key, network, other) for other in (1, 2, 3, VERSION + 1)] == [1, 2, 3, VERSION + 1]


@pytest.mark.parametrize(
    ("key", "version"), [("patch/none/eigen_cam", 5), ("block_1/none/eigen_cam", 5), ("part/match/eigen_grad_cam", 5), ("part/match/mean", 3)]
)
def test_version_5_changed_principal_components(key, version):
    published, map_key = PRESETS["upstream"], MapKey.parse(key)
    assert version_of(map_key, published, 5) == version
    assert [version_of(map_key, replace(published, pooling="max"), other) for other in (3, 4)] == [3, 4 if "match" in key else 3]


@pytest.mark.parametrize(
    ("key", "version"),
    [
        ("patch/none/mean", 6), ("aligned/match/hires_cam", 6), ("part/match/grad_cam", 6), ("patch/none/max", 3), ("aligned/none/l2_norm_source", 3),
        ("part/match/eigen_grad_cam", 5), ("block_1/none/mean", 3), ("block_0/predicted/grad_cam", 3), ("block_1/none/rollout", 3),
    ],
)  # fmt: skip
def test_version_6_changed_what_multiplies_a_matrix_of_cells(key, version):
    assert version_of(MapKey.parse(key), PRESETS["upstream"]) == version


def test_a_run_of_version_3_keeps_every_other_map(lab, finished_copy, monkeypatch):
    """Of three checkpoints the last one samples bilinearly; its old maps can be read before. Version 6 changes most: left out."""
    run = lab.run(finished_copy)
    for name in ("net_000", "net_001", "net_002"):
        run.cams(name).clear()
    with monkeypatch.context() as earlier:
        earlier.setattr(map_stamps, "__defaults__", (3,))
        made = cam(run).computed
    monkeypatch.setattr(map_stamps, "__defaults__", (5,))
    before = {path: path.stat().st_mtime_ns for path in (finished_copy / "cams.zarr").rglob("c.*")}
    assert len(pipeline.open_run(finished_copy).cams) == made / 3
    assert cam(run).computed == 2
    again = {path.relative_to(finished_copy / "cams.zarr").parts[-4:-1] for path, moment in before.items() if path.stat().st_mtime_ns != moment}
    assert again == {("patch", target, "grad_cam") for target in ("label", "match")}
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items() if "net_002" not in path.parts)
    assert cam(run).computed == 0


def test_a_run_of_version_5_makes_again_what_multiplies_cells(lab, finished_copy, monkeypatch):
    """And copies nothing else: every other file is the one that it was."""
    methods = "cam.methods=['l2_norm','max','mean','hires_cam','eigen_cam']"
    run = lab.run(finished_copy, methods, "cam.targets=['match']")
    with monkeypatch.context() as earlier:
        earlier.setattr(map_stamps, "__defaults__", (5,))
        cam(run)
    before = {path: path.stat().st_mtime_ns for path in (finished_copy / "cams.zarr").rglob("c.*") if "facts" not in path.parts}
    assert cam(run).computed > 0
    changed = {path.parts[-2] for path, moment in before.items() if path.stat().st_mtime_ns != moment}
    assert changed == {"mean", "hires_cam"}
    kept = {path.parts[-2] for path, moment in before.items() if path.stat().st_mtime_ns == moment}
    assert {"l2_norm", "max", "eigen_cam"} <= kept and not changed & kept
