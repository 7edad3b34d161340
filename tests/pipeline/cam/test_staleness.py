"""A new version makes those maps again whose numbers changed, and no others."""

import pytest

import pipeline
from pipeline.cam.stage import cam
from pipeline.cam.staleness import VERSION, map_stamps, version_of
from stages.cam.compute import needed_features
from stages.cam.map_keys import MapKey


@pytest.mark.parametrize(
    ("key", "sampling", "version"),
    [
        ("patch/match/grad_cam", "bilinear", 4),
        ("aligned/none/l2_norm_source", "bilinear", 4),
        ("patch/match/grad_cam", "nearest", 3),
        ("aligned/none/l2_norm_source", "nearest", 3),
        ("patch/none/l2_norm", "bilinear", 3),
        ("aligned/match/hires_cam", "bilinear", 3),
        ("part/match/grad_cam", "bilinear", 3),
        ("block_0/predicted/grad_cam", "bilinear", 3),
    ],
)
def test_version_4_changed_what_passes_bilinear_sampling(key, sampling, version):
    map_key = MapKey.parse(key)
    assert version_of(map_key, sampling) == version
    assert ("theta" in needed_features([map_key])) == (version_of(map_key, "bilinear") == 4), "what reads the warp is what is sampled"
    assert [version_of(map_key, sampling, earlier) for earlier in (1, 2, 3, VERSION + 1)] == [1, 2, 3, VERSION + 1]


def test_a_run_of_version_3_keeps_every_other_map(lab, finished_copy, monkeypatch):
    """Of three checkpoints the last one samples bilinearly; until `cam` is called its old maps can be read."""
    run = lab.run(finished_copy)
    for name in ("net_000", "net_001", "net_002"):
        run.cams(name).clear()
    with monkeypatch.context() as earlier:
        earlier.setattr(map_stamps, "__defaults__", (3,))
        made = cam(run).computed
    before = {path: path.stat().st_mtime_ns for path in (finished_copy / "cams.zarr").rglob("c.*")}
    assert len(pipeline.open_run(finished_copy).cams) == made / 3
    assert cam(run).computed == 2
    again = {path.relative_to(finished_copy / "cams.zarr").parts[-4:-1] for path, moment in before.items() if path.stat().st_mtime_ns != moment}
    assert again == {("patch", target, "grad_cam") for target in ("label", "match")}
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items() if "net_002" not in path.parts)
    assert cam(run).computed == 0
