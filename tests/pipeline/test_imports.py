"""What each command imports, seen in a fresh process: one that computes nothing waits for nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.commands.table import COMMANDS
from safenet.needs_network import NETWORK_PACKAGES

ROOT = Path(__file__).parents[2]
DRAWING = ("matplotlib", "cv2", "jinja2")
FARM = ("dask", "distributed")
NUMBERS = ("numpy", "scipy", "pandas", "pyarrow", "xarray", "zarr", "PIL")
WATCHED = (*NETWORK_PACKAGES, *DRAWING, *FARM, *NUMBERS, "obstore", "pydantic")

LOOK = f"""
import contextlib, io, json, sys
sys.argv[0] = "atlas"
found = {{}}
def note(name):
    found[name] = [package for package in {WATCHED} if package in sys.modules]
"""
RUN_COMMANDS = """
from pipeline.commands.group import main
for name, arguments in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(arguments, standalone_mode=False)
        except SystemExit as end:
            assert not end.code, name
    note(name)
print(json.dumps(found))
"""


def loaded(script: str, given: object = None) -> dict[str, list[str]]:
    """Packages of WATCHED that are imported at each `note` of a script."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK + script], input=json.dumps(given), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def after(commands: dict[str, list[str]]) -> dict[str, list[str]]:
    """Packages that are imported after each of several commands, one after the other in one process: the last has all of theirs."""
    return loaded(RUN_COMMANDS, list(commands.items()))


def test_help_waits_for_click_alone():
    found = after({"atlas": ["--help"], "version": ["--version"], **{row.name: [row.name, "--help"] for row in COMMANDS}})
    assert found == {name: [] for name in found}
    assert set(found) == {"atlas", "version", *(row.name for row in COMMANDS)}


def test_pages_wait_for_what_they_print():
    assert after({"settings": ["settings"]}) == {"settings": ["pydantic"]}
    assert after({"methods": ["methods"]}) == {"methods": ["numpy"]}
    assert after({"figures": ["figures"]}) == {"figures": ["numpy", "pydantic"]}


@pytest.fixture(scope="module")
def nothing_to_do(lab, finished):
    """What is imported after each command on a finished run, the lightest first."""
    sets = [part for assignment in lab.assignments() for part in ("--set", assignment)]
    options = ["--config", str(lab.config), "--run", str(finished.directory), *sets]
    names = ("status", "index", "plan", "extract", "cam", "stats", "render", "report", "verify", "run")
    return after({"submit": ["submit", "--dry-run", *options, "--jobs", str(ROOT / "configs" / "slurm.toml")], **{n: [n, *options] for n in names}})


NEVER = (*NETWORK_PACKAGES, "distributed", "obstore")
FORBIDDEN = {
    "submit": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "status": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "index": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "plan": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "extract": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "cam": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "stats": (*NEVER, "matplotlib", "cv2", "scipy", "dask"),
    "render": (*NEVER, "matplotlib", "cv2"),
    "report": (*NEVER, "matplotlib", "cv2"),
    "verify": (*NEVER, "matplotlib", "cv2"),
    "run": (*NEVER, "matplotlib", "cv2"),
}


@pytest.mark.parametrize("command", FORBIDDEN)
def test_a_command_that_finds_nothing_to_do_imports_no_network(nothing_to_do, command):
    assert set(nothing_to_do[command]) & set(FORBIDDEN[command]) == set()


OPEN = """
import pipeline, safenet
from pipeline import open_run
note("import")
assert safenet.PRESETS["tiny"].width
note("sizes")
run = open_run(json.load(sys.stdin))
note("open_run")
run.features["logit"][0, 0].values
run.explain.maps("net_000", ["aligned/predicted/hires_cam"], [0])
note("explain")
print(json.dumps(found))
"""


def test_a_run_is_opened_and_explained_without_the_network(finished):
    found = loaded(OPEN, str(finished.directory))
    assert found["import"] == found["sizes"]
    for name in ("open_run", "explain"):
        assert set(found[name]) & {*NETWORK_PACKAGES, "matplotlib", "cv2"} == set()
    assert set(pipeline.__all__) == {"open_run", "OpenRun"}


DECODE = """
from pathlib import Path
from pipeline.extract.photos import PhotoFiles, PhotoReader
class Telling(PhotoFiles):
    def __getitem__(self, index):
        note("decoding")
        return found["decoding"]
if __name__ == "__main__":
    files = Telling(Path(), [""], [""], [""], [""], 16, 4)
    ((answer,),) = [batch.photos for batch in PhotoReader(files, 1).read([[0]])]
    print(json.dumps({"decoding": answer}))
"""


def test_a_decoding_process_imports_what_decodes(tmp_path):
    script = tmp_path / "decode.py"
    script.write_text(LOOK + DECODE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == {"decoding": ["numpy", "PIL"]}


WORKER = """
from pathlib import Path
from pipeline.work import farm_worker
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.cam.spans import CamWork
from pipeline.extract.work import FeatureWork
from pipeline.pixels.work import CurveWork
from pipeline.render.stage import PictureWork
from pipeline.stats.figures import FiguresWork
config, directory, assignments = json.load(sys.stdin)
run = Run(Path(directory), load_settings(Path(config), assignments), progress=False)
works = {"cam": CamWork(run), "stats": FiguresWork(run), "render": PictureWork(run, None)}
for name, work in works.items():
    work.open(lambda count: None)
    farm_worker._limit_threads(1)
    note(name)
print(json.dumps(found))
"""


def test_a_process_that_makes_maps_figures_or_pictures_imports_no_network(lab, finished):
    """What it is sent names the works of all stages, and opens its own."""
    found = loaded(WORKER, [str(lab.config), str(finished.directory), lab.assignments()])
    assert {name: set(packages) & {*NETWORK_PACKAGES, "dask", "distributed"} for name, packages in found.items()} == {
        "cam": set(), "stats": set(), "render": set(),
    }  # fmt: skip
    assert {"matplotlib", "cv2"} & {*found["cam"], *found["stats"]} == set()
