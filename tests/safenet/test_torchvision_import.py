"""torchvision must import beside any torch build."""

import subprocess
import sys

BROKEN = """
import sys, types, importlib
import torch
from safenet.torchvision_import import ensure_torchvision, _declared
ensure_torchvision()
import torchvision
assert torchvision.__version__
print("declared", len(_declared))
"""

ELSEWHERE = """
import importlib.abc, sys
import torch
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            raise RuntimeError("another fault")
sys.meta_path.insert(0, Finder())
import safenet.model
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_timm_and_torchvision_import():
    found = run(BROKEN)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() in ("declared 0", "declared 1"), "the schemas are declared once, and only where they are missing"


def test_another_fault_is_not_hidden():
    found = run(ELSEWHERE)
    assert found.returncode != 0
    assert "another fault" in found.stderr
