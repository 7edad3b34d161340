"""A call is killed and called again while a worker of the first is still writing: the second neither believes nor suffers it."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from disk_content import content
from distributed import Client, LocalCluster

from pipeline.cam.spans import CamBlocks, CamWork
from pipeline.cam.stage import cam
from pipeline.extract.extractor import SpanExtractor
from pipeline.extract.stage import ExtractStage, extract
from pipeline.look.verify import verify
from pipeline.render.stage import PictureWork, render
from pipeline.run.directory import MissingProductError
from pipeline.stats.figures import FiguresWork
from pipeline.stats.stage import stats
from pipeline.store.blocks import Ledger
from pipeline.store.group_store import GroupStore

ONE = "net_000.pth"


@pytest.fixture
def given_out(lab, fresh, monkeypatch):
    """A block that the first call gave out before it was killed."""
    taken = []

    def killed(self, span):
        taken.append(span)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SpanExtractor, "__call__", killed)
        extract(lab.run(fresh, checkpoints=ONE))
    return replace(taken[0], blocks=taken[0].blocks[:1])


class LateWorker(threading.Thread):
    """Does what the first call gave out; held up between the last rename of a block and its mark."""

    def __init__(self, run, span, patch):
        super().__init__(daemon=True)
        self.run_of_first, self.span, self.error = run, span, None
        self.renamed, self.goes_on = threading.Event(), threading.Event()
        mark = Ledger.mark

        def held_up(ledger, *arguments, **notes):
            patch.setattr(Ledger, "mark", mark)
            self.renamed.set()
            self.goes_on.wait(60)
            return mark(ledger, *arguments, **notes)

        patch.setattr(Ledger, "mark", held_up)

    def run(self):
        try:
            SpanExtractor(self.run_of_first, lambda images: None)(self.span)
        except OSError as error:
            self.error = error


def test_a_worker_that_marks_after_the_second_call_has_swept_is_not_believed(lab, fresh, extracted, given_out, monkeypatch):
    worker, sweep = LateWorker(lab.run(fresh, checkpoints=ONE), given_out, monkeypatch), GroupStore.sweep_unmarked

    def sweep_and_let_it_go_on(*arguments):
        sweep(*arguments)
        worker.goes_on.set()
        worker.join(60)

    worker.start()
    assert worker.renamed.wait(60)
    monkeypatch.setattr(GroupStore, "sweep_unmarked", sweep_and_let_it_go_on)
    extract(lab.run(fresh, checkpoints=ONE))
    assert not worker.is_alive()
    assert "another call has begun to write this since this work was given out" in str(worker.error)
    assert content(fresh) == content(extracted)
    assert verify(lab.run(fresh, checkpoints=ONE)).faults == []


def blocks_of(run):
    """Bytes of every file of the features that is no metadata: these tell of the processes, too."""
    return {str(path.relative_to(run)): path.read_bytes() for path in (run / "features.zarr").rglob("c*") if path.is_file()}


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(path)


@pytest.mark.faults
def test_a_client_is_killed_and_its_worker_goes_on(lab, fresh, extracted, tmp_path, monkeypatch):
    """The same with processes: a Dask worker outlives the `atlas extract` that gave it work, and marks its block in the midst of the next one."""
    renamed, goes_on, ended = (tmp_path / name for name in ("renamed", "goes_on", "ended"))

    def hold_up():
        import time

        from pipeline.store.blocks import Ledger

        mark = Ledger.mark

        def held_up(ledger, *arguments, **notes):
            Ledger.mark = mark
            renamed.touch()
            while not goes_on.exists():
                time.sleep(0.05)
            try:
                return mark(ledger, *arguments, **notes)
            except OSError as error:
                ended.with_suffix(".partial").write_text(str(error))
                raise
            finally:
                ended.with_suffix(".partial").touch()
                ended.with_suffix(".partial").replace(ended)

        Ledger.mark = held_up

    sweep = GroupStore.sweep_unmarked

    def sweep_and_let_it_go_on(*arguments):
        sweep(*arguments)
        goes_on.touch()
        wait_for(ended)

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as helper,
    ):
        helper.run(hold_up)
        where = ("compute.executor='scheduler'", f"compute.address='{cluster.scheduler_address}'", "extract.precision='float32'")
        sets = [part for assignment in (*lab.assignments(ONE), *where) for part in ("--set", assignment)]
        command = [sys.executable, "-m", "pipeline", "extract", "--config", str(lab.config), "--run", str(fresh), *sets]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(renamed)
        client.send_signal(signal.SIGKILL)
        client.wait()
        monkeypatch.setattr(GroupStore, "sweep_unmarked", sweep_and_let_it_go_on)
        extract(lab.run(fresh, checkpoints=ONE))
    assert "another call has begun to write this since this work was given out" in ended.read_text()
    assert blocks_of(fresh) == blocks_of(extracted)
    assert verify(lab.run(fresh, checkpoints=ONE)).faults == []


def test_what_is_gone_when_all_is_marked_is_not_noted_as_whole(lab, fresh, extracted, monkeypatch):
    finish = ExtractStage.finish

    def gone_meanwhile(stage, subject):
        (fresh / "features.zarr/net_000/theta/c.1.0.0").unlink()
        finish(stage, subject)

    with monkeypatch.context() as patch:
        patch.setattr(ExtractStage, "finish", gone_meanwhile)
        with pytest.raises(MissingProductError, match=r"net_000: 1 blocks that were written are gone, or another call wrote over them; call again"):
            extract(lab.run(fresh, checkpoints=ONE))
    extract(lab.run(fresh, checkpoints=ONE))
    assert content(fresh) == content(extracted)


def test_maps_that_are_gone_when_all_is_marked_are_not_noted_as_whole(lab, extracted_copy, monkeypatch):
    cam_block = CamBlocks.__call__

    def gone_meanwhile(self, span):
        cam_block(self, span)
        (self._run.cams_path / "net_000/aligned/match/grad_cam/c.1.0.0").unlink(missing_ok=True)

    run = lab.run(extracted_copy, "cam.positions=['aligned']", "cam.targets=['match']", "compute.executor='serial'", checkpoints=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(CamBlocks, "__call__", gone_meanwhile)
        with pytest.raises(MissingProductError, match=r"cams\.zarr/net_000: 1 blocks that were written are gone, or another call wrote over"):
            cam(run)
    cam(run)
    assert verify(run).faults == []


@pytest.mark.parametrize(
    ("stage", "work", "change"),
    [
        (cam, CamWork, "cam.methods=['l2_norm','max']"),
        (stats, FiguresWork, "stats.low_contrast_below=0.02"),
        (render, PictureWork, "render.alpha=0.3"),
    ],
)
def test_work_of_an_earlier_call_is_refused_in_every_stage(lab, finished_copy, monkeypatch, stage, work, change):
    """Each piece carries the fence of its call, and a later call raises it where there is something to do."""
    given_out, opened = [], work.open

    def killed(self, tell):
        do = opened(self, tell)

        def stop(item):
            given_out.append((do, item))
            raise KeyboardInterrupt

        return stop

    run = lab.run(finished_copy, change, "compute.executor='serial'")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work, "open", killed)
        stage(run)
    stage(run)
    before = content(finished_copy)
    do, item = given_out[0]
    with pytest.raises(OSError, match="another call has begun to write this since this work was given out"):
        do(item)
    assert content(finished_copy) == before
    assert stage(run).computed == 0
