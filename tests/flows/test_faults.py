"""Kill it, stop it, fill the disk at any step of any stage: the next call goes on, and the end is the same to the bit."""

import shutil
from pathlib import Path

import pytest
from faults import Scenario, run_trials, spread_steps

ONE = "net_000.pth"
FEW = ("cam.positions=['aligned']", "cam.targets=['match']", "render.mosaics=['paper']")  # of each kind of file some


@pytest.fixture(scope="module")
def command(lab):
    """The command line of `atlas run` (or another command) on a directory."""

    def arguments(command="run", *options, photos=None, more=()):
        sets = [part for assignment in (*lab.assignments(ONE, photos), *FEW, *more) for part in ("--set", assignment)]
        return lambda directory: [command, "--config", str(lab.config), "--run", str(directory), "--quiet", *sets, *options]

    return arguments


@pytest.fixture(scope="module")
def grown_photos(lab, tmp_path_factory):
    """The lab's photos and three more."""
    photos = Path(shutil.copytree(lab.photos, tmp_path_factory.mktemp("grown") / "photos"))
    shutil.copytree(photos / "train" / "drone" / "0000", photos / "train" / "drone" / "0009")
    shutil.copytree(photos / "train" / "satellite" / "0000", photos / "train" / "satellite" / "0009")
    return photos


@pytest.fixture(scope="module")
def scenarios(lab, server, command, grown_photos, tmp_path_factory):
    """Name -> Scenario: from nothing to the report; a dataset that has grown; features that are replaced."""
    folder = tmp_path_factory.mktemp("scenarios")
    (folder / "empty").mkdir()
    done = folder / "done" / "run"
    assert server.run(command()(done)) == 0, server.said
    more = ("extract.map_dtype=float32",)
    return {
        "first": Scenario.of(server, folder / "empty", folder / "first", command()),
        "grown": Scenario.of(server, done, folder / "grown", command(photos=grown_photos)),
        "replaced": Scenario.of(server, done, folder / "replaced", command("extract", "--replace", more=more)),
    }


def test_a_trial_would_notice(lab, server, scenarios, tmp_path):
    """See the harness fail: a scenario whose expectation is one byte off."""
    wrong = {**scenarios["replaced"].expected}
    name = next(name for name in wrong if name.endswith("c.0.0.0.0"))
    wrong[name] = wrong[name][:-1] + b"?"
    with pytest.raises(AssertionError, match=name):
        run_trials(server, Scenario(**{**vars(scenarios["replaced"]), "expected": wrong}), tmp_path, lab, [{"fault": "kill", "at": 40}])


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("first", ["kill", "term", "kill", "full", "kill"]),
        ("grown", ["kill", "error", "kill", "int"]),
        ("replaced", ["kill", "full", "term", "kill"]),
    ],
)
def test_a_fault_at_any_step_loses_nothing(lab, server, scenarios, tmp_path, name, kinds):
    """Thirteen faults; `make test-faults` tries hundreds."""
    scenario = scenarios[name]
    faults = [{"fault": kind, "at": at} for kind, at in zip(kinds, spread_steps(scenario.steps, len(kinds), seed=len(name)), strict=True)]
    counts = run_trials(server, scenario, tmp_path, lab, faults)
    assert (counts.survived, counts.lost_blocks, counts.bad_pixels) == (len(kinds), 0, 0)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["first", "grown", "replaced"])
@pytest.mark.parametrize(("kind", "count"), [("kill", 40), ("term", 10), ("int", 10), ("full", 10), ("error", 10)])
def test_hundreds_of_faults(lab, server, scenarios, tmp_path, name, kind, count, capsys):
    scenario = scenarios[name]
    faults = [{"fault": kind, "at": at} for at in spread_steps(scenario.steps, count, seed=count)]
    counts = run_trials(server, scenario, tmp_path, lab, faults)
    with capsys.disabled():
        print(f"\n{name}, {kind}: {counts}")  # noqa: T201  (the counts are what this is run for)
    assert (counts.survived, counts.lost_blocks, counts.bad_pixels) == (count, 0, 0)


@pytest.mark.faults
def test_kills_at_random_times(lab, server, scenarios, tmp_path, capsys):
    """Between the steps, too: in the middle of a forward pass, of an import, of a picture."""
    faults = [{"fault": kind, "delay_s": 0.05 + 3 * share / 30} for share in range(30) for kind in ("kill", "term")]
    counts = run_trials(server, scenarios["first"], tmp_path, lab, faults)
    with capsys.disabled():
        print(f"\nfirst, at random times: {counts}")  # noqa: T201
    assert (counts.survived, counts.lost_blocks, counts.bad_pixels) == (len(faults), 0, 0)
