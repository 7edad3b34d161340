"""Work on other processes: the same bits as here, whoever does it and whoever is lost; and no more in flight than the workers hold."""

import shutil
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from distributed import Client, LocalCluster
from farm_works import Deadly, DeadlyAtFirst, Faulty, Opened, Spreading, Who

from pipeline.extract.stage import extract
from pipeline.features.bad_images import TooManyBadImagesError, bad_images
from pipeline.look.verify import verify
from pipeline.look.writers import at_work
from pipeline.run.directory import Run
from pipeline.settings.compute import ComputeSettings
from pipeline.settings.durations import seconds_of
from pipeline.settings.executor_names import EXECUTOR_MEANINGS
from pipeline.settings.jobs import StageJob, read_job_settings
from pipeline.stages import STAGES
from pipeline.work import clusters
from pipeline.work import farm as dispatch
from pipeline.work.executors import EXECUTORS, run_batches
from pipeline.work.farm_worker import Order
from pipeline.work.pieces import Batch
from pipeline.work.stops import Stopped

ELSEWHERE = ("local", "scheduler")
TWO = "net_00[02].pth"
SOME = ("extract.block_samples=2", "cam.positions=['aligned']", "cam.targets=['match']", "render.mosaics=['epochs']")


@pytest.fixture(scope="module")
def address():
    """A scheduler with two workers that somebody else started."""
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def farm(lab, tmp_path, address):
    """A run that works there."""
    return lab.run(tmp_path / "run", *at(address))


def at(address: str) -> tuple[str, ...]:
    """Settings; on other machines a precision has to be named."""
    return "compute.executor='scheduler'", f"compute.address='{address}'", "extract.precision='float32'"


def spread(run: Run, work, groups, **more):
    """Run pieces where a run's settings say."""
    return run_batches(run.settings.compute, work, groups, directory=run.directory, say=run.say, **more)


def contents(run: Run) -> dict[str, bytes]:
    """Bytes of every block of features and maps, and of every figure."""
    return {
        path.relative_to(run.directory).as_posix(): path.read_bytes()
        for name in ("features.zarr", "cams.zarr", "stats.zarr")
        for path in (run.directory / name).rglob("c*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def by_one(lab, tmp_path_factory):
    """What one process makes, one block after the other."""
    run = lab.run(tmp_path_factory.mktemp("serial") / "run", "compute.executor='serial'", *SOME, checkpoints=TWO)
    for stage in STAGES:
        stage.bring_up_to_date(run)
    return contents(run)


@pytest.mark.parametrize("executor", ["threads", *ELSEWHERE])
def test_every_executor_gives_the_same_bits(lab, tmp_path, address, by_one, executor):
    where = (
        f"compute.executor='{executor}'",
        "compute.workers=2",
        "compute.span_samples=4",
        f"compute.address='{address}'",
        "extract.precision='float32'",
    )
    run = lab.run(tmp_path / "run", *SOME, *where, checkpoints=TWO)
    stages = STAGES[:3] if executor == "local" else STAGES  # whose processes are started anew by each stage, and import for seconds
    for stage in stages:
        stage.bring_up_to_date(run)
    assert contents(run) == {name: made for name, made in by_one.items() if len(stages) == len(STAGES) or not name.startswith("stats")}
    assert verify(run).faults == []
    assert [stage.bring_up_to_date(run).computed for stage in stages] == [0] * len(stages)


def test_every_executor_is_tried_here_or_needs_what_is_not_here():
    not_here = {"cuda", "slurm", "pbs", "lsf", "sge"}  # those are in tests/cluster, or their job scripts below
    assert set(EXECUTORS) == {"serial", "threads", *ELSEWHERE} | not_here == set(EXECUTOR_MEANINGS)


def test_workers_keep_a_log_with_host_and_block(lab, tmp_path, address):
    run = lab.run(tmp_path / "run", *at(address), checkpoints="net_000.pth")
    for stage in STAGES[:2]:
        stage.bring_up_to_date(run)
    lines = [line for path in (run.directory / "logs").glob("*.log") for line in path.read_text().splitlines()]
    assert sorted(line.split(" ", 4)[4] for line in lines) == [
        f"features.zarr/net_000 block {block} ({4 * block}-{min(4 * block + 3, 14)}): {min(4, 15 - 4 * block)} images written" for block in range(4)
    ]
    assert {line.split()[2] for line in lines} == {row["at work"].split()[0] for row in at_work(run)}


def test_bad_photos_are_told_by_the_workers_and_too_many_end_the_work(lab, tmp_path, address):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    broken = photos / "train" / "drone" / "0000" / "image-01.jpeg"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    run = lab.run(tmp_path / "run", *at(address), "extract.max_bad_share=0.1", photos=photos, checkpoints="net_000.pth")
    for stage in STAGES[:2]:
        stage.bring_up_to_date(run)
    assert [*bad_images(run)] == ["drone/0000/image-01"]
    strict = lab.run(tmp_path / "strict", *at(address), "extract.max_bad_share=0", photos=photos, checkpoints="net_000.pth")
    STAGES[0].bring_up_to_date(strict)
    with pytest.raises(TooManyBadImagesError, match=r"1 of 15 images are bad \(for instance drone/0000/image-01: cannot be decoded"):
        extract(strict)


def test_status_tells_from_the_marks_who_is_at_work(lab, finished_copy):
    run = lab.run(finished_copy)
    rows = at_work(run)
    assert [row["stage"] for row in rows] == ["cam", "extract", "stats"]
    assert {row["blocks"] for row in rows} == {"12"}
    assert at_work(run, recent_s=-10) == []
    assert "in the last 15 minutes:" in lab.atlas("status", finished_copy).stdout


def test_a_worker_stays_with_its_group_until_there_is_none_left(farm):
    groups = [Batch(name, list(range(12))) for name in "ab"]
    did = defaultdict(set)
    for done in spread(farm, Who(), groups):
        did[done.batch].add(done.result[1])
    assert [len(pids) for pids in did.values()].count(1) >= 1  # the last pieces may go to whoever is free
    assert len(set.union(*did.values())) == 2


def test_a_single_group_is_shared(farm):
    assert len({done.result[1] for done in spread(farm, Who(), [Batch("a", list(range(12)))])}) == 2


def test_a_worker_runs_its_blocks_on_its_own_threads(farm):
    """Two workers of one thread: all cores of the machine would be twice too many, or more."""
    done = spread(farm, Spreading(farm.settings.compute), [Batch("a", [1, 2]), Batch("b", [3, 4])])
    assert {one.result for one in done} == {1}


def test_pieces_of_a_worker_share_its_threads(lab, tmp_path):
    """Two threads take two pieces at a time, each of which runs its blocks on threads: on the two that there are."""
    run = lab.run(tmp_path / "run", "compute.executor='local'", "compute.workers=1", "compute.threads=2")
    done = spread(run, Spreading(run.settings.compute), [Batch("a", list(range(6)))])
    assert max(one.result for one in done) == 2


def test_work_is_opened_once_in_each_process(farm, tmp_path):
    folder = tmp_path / "opened"
    folder.mkdir()
    assert sorted(done.item for done in spread(farm, Opened(folder), [Batch("a", list(range(20)))])) == list(range(20))
    pids = [path.name.partition("-")[0] for path in folder.iterdir()]
    assert len(pids) == len(set(pids)) == 2


def test_the_scheduler_never_holds_more_than_the_workers_take(farm, address):
    """10,000 pieces are no more to the scheduler than 10."""
    most = 0
    groups = [Batch(f"{number}", [number]) for number in range(600)]
    with Client(address) as client:
        for count, _ in enumerate(spread(farm, Who(seconds=0), groups)):
            if count % 60 == 0:
                most = max(most, client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
    assert count == 599
    assert 0 < most <= 4 * (1 + dispatch.AHEAD)  # two workers of one thread; the scheduler forgets a little later


def test_groups_are_opened_when_there_is_a_worker_for_them(farm):
    opened = []

    def groups():
        for number in range(40):
            opened.append(number)
            yield Batch(f"{number}", [number])

    done = spread(farm, Who(), groups())
    next(done)
    assert len(opened) < 12
    assert len(list(done)) == 39


def test_what_a_lost_worker_had_is_done_elsewhere(lab, tmp_path):
    folder = tmp_path / "deaths"
    folder.mkdir()
    run = lab.run(tmp_path / "run", "compute.executor='local'", "compute.workers=2")
    assert sorted(done.result for done in spread(run, Deadly(folder, 1), [Batch("a", list(range(8)))])) == list(range(8))
    assert len(list(folder.iterdir())) == 1


def test_the_loss_of_the_only_worker_is_mended(lab, tmp_path):
    folder = tmp_path / "deaths"
    folder.mkdir()
    run = lab.run(tmp_path / "run", "compute.executor='local'", "compute.workers=1")
    assert sorted(done.result for done in spread(run, Deadly(folder, 1), [Batch("a", list(range(5)))])) == list(range(5))


def test_a_piece_that_costs_every_worker_its_life_is_told(lab, tmp_path, monkeypatch):
    folder = tmp_path / "deaths"
    folder.mkdir()
    run = lab.run(tmp_path / "run", "compute.executor='local'", "compute.workers=2")
    monkeypatch.setattr(dispatch, "MOST_LOSSES", 1)
    with pytest.raises(dispatch.LostWorkersError, match=r"lost with each of 2 workers, often because memory ran out\. What is done is kept; see "):
        list(spread(run, Deadly(folder, 100), [Batch("a", list(range(8)))]))
    assert len(list(folder.iterdir())) == 2


def test_a_piece_that_waited_at_a_lost_worker_is_charged_no_loss(lab, tmp_path, monkeypatch):
    """Item 0 kills the only worker while item 1 waits there; then item 1 kills one. Each has cost one."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    run = lab.run(tmp_path / "run", "compute.executor='local'", "compute.workers=1", "compute.threads=1")
    monkeypatch.setattr(dispatch, "MOST_LOSSES", 1)
    assert sorted(done.result for done in spread(run, DeadlyAtFirst(folder), [Batch("a", list(range(4)))])) == list(range(4))
    assert len(list(folder.iterdir())) == 2


class FakeClient:
    """A client whose workers, and what becomes of the futures, a test decides."""

    def __init__(self, **workers):
        self.workers, self.futures, self.cancelled = workers, {}, []
        self.scheduler, self.dashboard_link = SimpleNamespace(address="tcp://here"), "http://here"

    def scheduler_info(self, n_workers):
        return {"workers": {address: {"nthreads": threads} for address, threads in self.workers.items()}}

    def submit(self, function, order, *, key, workers, **more):
        future = SimpleNamespace(key=key, item=order.item, worker=workers[0], status="pending", add_done_callback=lambda call: None)
        self.futures[key] = future
        return future

    def cancel(self, futures, force):
        self.cancelled += [future.item for future in futures]

    def at(self, worker):
        return [future for future in self.futures.values() if future.worker == worker]


@pytest.mark.parametrize(
    ("threads", "statuses", "charged"),
    [
        (1, ["pending", "pending"], [0]),
        (1, ["finished", "pending"], [1]),  # the first was done, and its result was lost
        (1, ["lost", "pending"], [1]),
        (1, ["error", "error"], [0]),  # Dask tried them on other workers, all of which were lost
        (2, ["pending", "pending", "pending"], [0, 1]),
        (2, ["pending", "finished", "pending"], [0, 2]),
        (1, ["finished", "finished"], [0]),  # for nothing that can be known: but somebody pays, or it would go on for ever
    ],
)
def test_those_that_were_at_work_are_charged(threads, statuses, charged):
    client = FakeClient(gone=threads)
    waiting = dispatch.Queue(iter([Batch("a", list(range(len(statuses))))]))
    dispatcher = dispatch._Dispatcher(client, Order("token", None, None, "run", "cpu"), waiting, print)
    dispatcher._look()
    dispatcher._send()
    for future, status in zip(client.at("gone"), statuses, strict=True):
        future.status = status
    client.workers = {"new": 1}
    dispatcher._look()
    assert client.cancelled == list(range(len(statuses)))
    assert [(piece.item, piece.losses) for piece in waiting.open["a"]] == [(item, int(item in charged)) for item in range(len(statuses))]


def test_a_piece_that_ran_out_of_time_is_not_taken_for_a_lost_worker(farm):
    with pytest.raises(TimeoutError, match="the store did not answer"):
        list(spread(farm, Faulty(TimeoutError("the store did not answer")), [Batch("a", list(range(8)))]))


def test_the_fault_of_a_piece_is_the_one_that_was_raised(farm):
    with pytest.raises(ValueError, match=r"^block 3 is damaged$"):
        list(spread(farm, Faulty(ValueError("block 3 is damaged")), [Batch("a", list(range(8)))]))
    assert "failed: ValueError: block 3 is damaged" in "".join(path.read_text() for path in (farm.directory / "logs").glob("*.log"))


def test_a_stop_takes_back_what_waits(farm, address, monkeypatch):
    done = spread(farm, Who(), [Batch("a", list(range(100)))])
    next(done)

    def stop():
        raise Stopped("SIGTERM")

    monkeypatch.setattr(dispatch, "check_stop", stop)
    with pytest.raises(Stopped):
        list(done)
    with Client(address) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) <= 2  # those that run


def test_nothing_to_do_starts_no_cluster(lab, finished_copy, monkeypatch):
    monkeypatch.setattr(clusters, "LocalCluster", None, raising=False)
    run = lab.run(finished_copy, "compute.executor='slurm'", "extract.precision='float32'")  # whose settings would be refused
    assert [stage.bring_up_to_date(run).computed for stage in STAGES] == [0] * len(STAGES)


def test_dask_reports_on_a_stage_where_that_is_asked_for(lab, tmp_path, address):
    run = lab.run(tmp_path / "run", *at(address), "compute.performance_report=true")
    list(spread(run, Who(), [Batch("a", [1, 2])]))
    page = (run.directory / "logs" / "Who-performance.html").read_text()
    assert "bokeh" in page and "Who-a-" in page


def test_scheduler_and_dashboard_are_named_and_lie_at_loopback(farm, capsys):
    list(spread(farm, Who(), [Batch("a", [1])]))
    assert capsys.readouterr().out.startswith("dask: scheduler tcp://127.0.0.1:")


def test_with_certificates_dask_speaks_tls_alone(lab, tmp_path, capsys):
    certificate, key = self_signed(tmp_path)
    named = (f"compute.tls_ca='{certificate}'", f"compute.tls_cert='{certificate}'", f"compute.tls_key='{key}'")
    run = lab.run(tmp_path / "run", "compute.executor='local'", "compute.workers=1", *named)
    assert [done.result[0] for done in spread(run, Who(), [Batch("a", [1])])] == [1]
    assert "dask: scheduler tls://127.0.0.1:" in capsys.readouterr().out
    assert clusters.job_keywords(run.settings.compute, StageJob(), "gpu", tmp_path, "account")["security"].require_encryption


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "atlas test")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
    signed = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"executor": "scheduler"}, "compute.address is not set; expected the scheduler's, such as tcp://"),
        ({"executor": "slurm"}, "compute.executor = 'slurm': compute.jobs is not set; name the job file, such as configs/slurm.toml"),
        ({"executor": "local", "tls_ca": "ca.pem"}, "compute.tls_ca, tls_cert and tls_key: only some are set; expected all three, or none"),
        ({"executor": "cuda"}, "compute.executor = 'cuda'"),
    ],
)
def test_an_executor_that_cannot_be_had_is_refused_in_a_line(lab, tmp_path, settings, said):
    run = lab.run(tmp_path / "run", *(f"compute.{key}='{value}'" for key, value in settings.items()))
    with pytest.raises(clusters.MissingClusterError, match="compute") as caught:
        list(spread(run, Who(), [Batch("a", [1])], needs="gpu"))
    assert said in str(caught.value)


def test_a_scheduler_that_does_not_answer_is_told(lab, tmp_path, monkeypatch):
    run = lab.run(tmp_path / "run", "compute.executor='scheduler'", "compute.address='tcp://127.0.0.1:9'")
    monkeypatch.setattr(clusters, "ANSWER_S", 1)
    with pytest.raises(clusters.MissingClusterError, match=r"'tcp://127\.0\.0\.1:9': no scheduler answers there: "):
        list(spread(run, Who(), [Batch("a", [1])]))


def test_a_precision_that_depends_on_the_device_is_refused_where_the_devices_are_elsewhere(lab, fresh, address):
    run = lab.run(fresh, "compute.executor='scheduler'", f"compute.address='{address}'", "extract.precision='auto'")
    with pytest.raises(ValueError, match=r"extract\.precision = 'auto' with compute\.executor = 'scheduler': .* Set 'bfloat16'"):
        extract(run)


def test_an_unknown_executor_is_refused_with_the_nearest(lab, fresh):
    assert "compute.executor" in lab.atlas("cam", fresh, more=("compute.executor='slrum'",)).stderr
    refused = lab.atlas("cam", fresh, "--on", "slrum")
    assert refused.exit_code == 2
    assert "--on: 'slrum' is unknown. Did you mean 'slurm'?" in refused.stderr


@pytest.mark.parametrize(("text", "seconds"), [("3h55m", 14100), ("55m", 3300), ("90s", 90), ("1h", 3600)])
def test_times_are_read(text, seconds):
    assert seconds_of(text, "--lifetime") == seconds
    assert ComputeSettings(lifetime=text).lifetime == text


@pytest.mark.parametrize("text", ["", "h", "55", "5m3h", "-1s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"^--lifetime = '.*': expected a time, such as 3h55m, 55m or 90s$"):
        seconds_of(text, "--lifetime")


JOBS = """
[common]
partition = "long"
account = "p42"
time = "02:00:00"
cores = 3
memory = "6G"
modules = ["cuda/12"]
prologue = ["export SITE='a b'"]
directives = ["--exclusive"]
"""


@pytest.mark.parametrize(
    ("executor", "lines"),
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A p42", "#SBATCH --cpus-per-task=3", "#SBATCH -t 02:00:00", "#SBATCH --exclusive"]),
        ("pbs", ["#PBS -q long", "#PBS -A p42", "#PBS -l walltime=02:00:00"]),
        ("lsf", ["#BSUB -q long", '#BSUB -P "p42"', "#BSUB -W 02:00"]),
        ("sge", ["#$ -q long", "#$ -P p42", "#$ -l h_rt=02:00:00"]),
    ],
)
def test_jobs_of_workers_ask_for_what_the_job_file_says(tmp_path, executor, lines):
    import dask_jobqueue

    (tmp_path / "jobs.toml").write_text(JOBS)
    settings = ComputeSettings(executor=executor, jobs=tmp_path / "jobs.toml", lifetime="1h50m")
    job = read_job_settings(settings.jobs).of("extract")
    kind, account = {"slurm": ("SLURM", "account"), "pbs": ("PBS", "account"), "lsf": ("LSF", "project"), "sge": ("SGE", "project")}[executor]
    keywords = clusters.job_keywords(settings, job, "gpu", tmp_path, account)
    with getattr(dask_jobqueue, f"{kind}Cluster")(**keywords) as cluster:
        script = cluster.job_script()
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
    for line in (*lines, "module load cuda/12", "export SITE='a b'", "export OMP_NUM_THREADS=3"):
        assert line in script
    assert "--lifetime 1h50m --lifetime-stagger 1m" in script
    assert "--nthreads 1 " in script
