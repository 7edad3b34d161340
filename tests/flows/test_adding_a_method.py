"""docs/adding-a-method.md, done: its two blocks put into a copy of the package, and `atlas run` on a finished run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import pipeline
from pipeline.run.directory import Run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()


def test_one_function_one_row_and_its_name_are_enough(lab, finished_copy, tmp_path):
    function, row, method_name = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    package = tmp_path / "package"
    for name in ("stages", "pipeline", "safenet"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    source = package / "stages" / "cam" / "methods.py"
    text = source.read_text()
    text = text.replace("\n\n@dataclass(frozen=True)\nclass CamMethod:", f"\n\n{function}\n\n@dataclass(frozen=True)\nclass CamMethod:")
    table = "METHODS: Mapping[str, CamMethod] = MappingProxyType(\n    {"
    text = text.replace(table, f"{table}{row},")
    source.write_text(text)
    names = package / "stages" / "cam" / "names.py"
    names.write_text(names.read_text().replace("METHOD_NAMES = (", f"METHOD_NAMES = ({method_name.strip()},"))
    before = {path: path.stat().st_mtime_ns for path in (finished_copy / "cams.zarr").rglob("c.*")}
    settings = [*lab.assignments(checkpoints="net_000.pth"), "cam.methods=['l2_norm','grad_cam','evidence']", "render.methods=['evidence']"]
    sets = [part for assignment in settings for part in ("--set", assignment)]
    command = [sys.executable, "-m", "pipeline", "run", "--config", str(lab.config), "--run", str(finished_copy), *sets]
    done = subprocess.run(command, check=False, cwd=package, env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "18 maps" in done.stdout, "3 checkpoints x 3 positions x 2 targets, and no other map"
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert list((finished_copy / "mosaics" / "epochs").glob("*-evidence-match.png"))
    assert "evidence" in (finished_copy / "report" / "index.html").read_text()

    run = Run(finished_copy, lab.settings(), progress=False)
    maps = run.cams("net_000").read(["aligned/label/evidence"])["aligned/label/evidence"].values
    opened = pipeline.open_run(lab.run(finished_copy).directory, partial=True).explain
    parts = opened.maps("net_000", ["aligned/label/hires_cam", "aligned/label/element_wise"])
    expected = 2 * parts["aligned/label/element_wise"] - parts["aligned/label/hires_cam"]  # |x| = 2 (x)+ - x
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
