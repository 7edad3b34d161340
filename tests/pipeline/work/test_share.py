"""`--part K/N`: parts share a stage's work without talking to each other, at the same time or one after the other, and again."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.cam.stage import cam
from pipeline.disk.leases import LockedError
from pipeline.extract.stage import extract
from pipeline.look.verify import verify
from pipeline.run.directory import MissingProductError
from pipeline.run.preparing import preparing
from pipeline.stages import STAGES
from pipeline.stats.stage import stats
from pipeline.work.share import Share
from pipeline.work.stops import EXIT_STOPPED
from stages.extract.halving import HalvingExtractor

ROOT = Path(__file__).parents[3]
PARTED = [stage for stage in STAGES if stage.has_parts]


def blocks(directory):
    """Bytes of every block of features, maps and figures."""
    paths = [path for name in ("features", "cams", "stats") for path in (directory / f"{name}.zarr").rglob("c*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_parts_share_out_everything_once_and_in_order(count):
    items = list(range(17))
    assert [item for number in range(1, count + 1) for item in Share(number, count).of(items)] == items
    sizes = [len(Share(number, count).of(items)) for number in range(1, count + 1)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_a_part_that_is_none_is_refused(lab, fresh, text):
    result = lab.atlas("extract", fresh, "--part", text)
    assert result.exit_code == 2
    assert f"--part {text}: " in result.stderr
    assert "expected K/N" in result.stderr


@pytest.mark.parametrize("order", [(3, 1, 2), pytest.param((1, 2, 3), marks=pytest.mark.faults)])
def test_parts_one_after_the_other_make_what_one_process_makes(lab, finished, fresh, order):
    run = lab.run(fresh)
    computed = dict.fromkeys((stage.name for stage in PARTED), 0)
    for stage in PARTED:
        for number in order:
            computed[stage.name] += stage.bring_up_to_date(replace(run, share=Share(number, 3))).computed
    assert computed["extract"] == 12
    assert computed["stats"] == 3
    STAGES[-1].bring_up_to_date(run)
    assert blocks(fresh) == blocks(finished.directory)
    assert verify(run).faults == []
    assert [stage.bring_up_to_date(run).computed for stage in STAGES] == [0] * len(STAGES)


def test_a_part_does_its_share_and_no_other(lab, fresh):
    run = lab.run(fresh)
    extract(replace(run, share=Share(2, 3)))
    assert [len(run.features(f"net_00{number}").ledger.indices()) for number in range(3)] == [0, 4, 0]
    extract(replace(run, share=Share(2, 4)))  # blocks 3 to 5 of 12: one of net_000, the others are done
    assert [run.features(f"net_00{number}").ledger.indices() for number in range(2)] == [[3], [0, 1, 2, 3]]
    assert run.features("net_001").ledger.whole() and not run.features("net_000").ledger.whole()


def test_a_part_without_a_share_has_nothing_to_do(lab, finished, fresh):
    """More parts than there are blocks: array jobs are counted before the images are."""
    run = lab.run(fresh)
    for stage in PARTED:
        assert stage.bring_up_to_date(replace(run, share=Share(1, 40))).computed == 0
        stage.bring_up_to_date(run)
    assert blocks(fresh) == blocks(finished.directory)


def test_a_part_counts_what_is_its_own(lab, fresh):
    outcome = extract(replace(lab.run(fresh), share=Share(2, 5)))  # blocks 2 and 3 of 12
    assert (outcome.computed, outcome.fresh) == (2, 0)


def test_parts_at_the_same_time_make_what_one_process_makes(server, lab, finished, fresh):
    sets = [word for assignment in lab.assignments() for word in ("--set", assignment)]
    for stage in PARTED[:2]:
        begun = [server.start([stage.name, "--config", lab.config, "--run", fresh, *sets, "--part", f"{number}/3"]) for number in range(1, 4)]
        said = [command.wait(240) for command in begun]
        assert [command.returncode for command in begun] == [0] * 3, said
    expected = {name: content for name, content in blocks(finished.directory).items() if not name.startswith("stats")}
    assert blocks(fresh) == expected
    run = lab.run(fresh)
    assert [stage.bring_up_to_date(run).computed for stage in PARTED[:2]] == [0, 0]
    assert len(list((fresh / "logs").glob("*.log"))) == 6


def test_the_same_part_twice_is_refused_and_another_is_not(lab, fresh):
    run = lab.run(fresh, checkpoints="net_000.pth")  # which both have blocks of
    first, second = replace(run, share=Share(1, 2)), replace(run, share=Share(2, 2))
    extract(first)
    with preparing(first, "features", ["features/net_000"]) as preparation:
        preparation.let_in()
        with pytest.raises(LockedError, match=r"features\.part-1-of-2: another process writes it: host .*, pid "):
            extract(first)
        assert extract(second).computed == 2


def test_maps_are_not_noted_as_whole_before_the_last_part(lab, fresh):
    run = lab.run(fresh, checkpoints="net_000.pth")
    extract(run)
    cam(replace(run, share=Share(1, 2)))
    assert set(run.cams("net_000").ledger.whole()["products"]) == set()
    with pytest.raises(MissingProductError, match="2 of 4 blocks lack heat maps that the settings ask for; run `atlas cam` first"):
        stats(run)
    cam(replace(run, share=Share(2, 2)))
    assert len(run.cams("net_000").ledger.whole()["products"]) == 9


def test_a_whole_run_and_a_part_exclude_each_other(lab, fresh):
    run = lab.run(fresh)
    part = replace(run, share=Share(1, 2))
    with preparing(part, "features", ["features/net_000"]) as preparation:
        preparation.let_in()
        with pytest.raises(LockedError, match="features/net_000: another process writes it"):
            extract(run)
    with preparing(run, "features", ["features/net_000"]), pytest.raises(LockedError, match="features/net_000: another process writes it"):
        extract(part)


def test_a_part_leaves_alone_what_another_is_writing(lab, fresh):
    """What looks like a leftover is the other's open file."""
    run = lab.run(fresh, checkpoints="net_000.pth")
    extract(replace(run, share=Share(1, 2)))
    opened = run.features("net_000").root / "theta" / "c.3.0.0.host-1.partial"
    opened.write_bytes(b"half")
    with preparing(replace(run, share=Share(1, 2)), "features", ["features/net_000"]) as preparation:
        preparation.let_in()
        extract(replace(run, share=Share(2, 2)))
        assert opened.exists()
    extract(run)
    assert not opened.exists()  # alone, it is swept


def test_a_part_of_another_list_of_images_waits_for_those_at_work(lab, fresh):
    run = lab.run(fresh, checkpoints="net_000.pth")
    extract(replace(run, share=Share(1, 2)))
    store = run.features("net_000")
    store.seal.open()  # as if it were laid out anew
    with preparing(replace(run, share=Share(1, 2)), "features", ["features/net_000"]) as preparation:
        preparation.let_in()
        with pytest.raises(LockedError, match=r"other parts write it, of other images or in another layout .* Wait for them and call again"):
            extract(replace(run, share=Share(2, 2)))


def test_replacing_is_not_for_parts(lab, fresh):
    result = lab.atlas("extract", fresh, "--part", "1/2", "--replace")
    assert result.exit_code == 1
    found = logging.getLogger("safenet_atlas.work").handlers  # pytest adds its own
    assert not [
        handler for handler in found if isinstance(handler, logging.FileHandler) and str(fresh) in handler.baseFilename
    ]  # whoever calls the command from Python keeps no log of it
    assert "--replace and --part 1/2: features are replaced by one process for all parts" in result.stderr


def test_a_lifetime_stops_as_a_signal_does(lab, fresh):
    sets = [word for assignment in lab.assignments() for word in ("--set", assignment)]
    command = [sys.executable, "-m", "pipeline", "extract", "--config", lab.config, "--run", fresh, *sets, "--set", "extract.block_samples=1"]
    ended = subprocess.run([*command, "--lifetime", "1s"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode:  # it may have been faster
        assert ended.returncode == EXIT_STOPPED, ended.stderr
        assert "stopped by SIGUSR1" in ended.stderr
    refused = lab.atlas("extract", fresh, "--lifetime", "soon")
    assert (refused.exit_code, "--lifetime = 'soon': expected a time, such as 3h55m" in refused.stderr) == (2, True)


# ---- a device that is too small


class Small:
    """Has room for `room` images."""

    device = torch.device("cpu")
    architecture = "the network's"

    def __init__(self, room):
        self.room, self.sizes = room, []

    def __call__(self, photos, class_index):
        self.sizes.append(len(photos))
        if len(photos) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"double": 2 * photos, "class": class_index}


def test_a_batch_that_does_not_fit_is_halved_once_and_for_all():
    small, told = Small(3), []
    extractor = HalvingExtractor(small, told.append)
    for size in (8, 8, 5, 2):
        photos = torch.arange(size)
        found = extractor(photos, photos + 1)
        assert torch.equal(found["double"], 2 * photos) and torch.equal(found["class"], photos + 1)
    assert small.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2]
    assert told == [
        "cpu runs out of memory with 8 images at once; continuing with 4",
        "cpu runs out of memory with 4 images at once; continuing with 2",
    ]


def test_a_device_without_room_for_one_image_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        HalvingExtractor(Small(0))(torch.arange(4), torch.arange(4))


def test_a_batch_that_fits_is_not_copied():
    photos = torch.arange(4)
    assert HalvingExtractor(Small(9))(photos, photos)["class"] is not None
    assert HalvingExtractor(Small(9)).architecture == "the network's"
