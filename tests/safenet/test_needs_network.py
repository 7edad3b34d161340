"""Without the network's packages, what needs them says so in one line, and what does not goes on."""

import subprocess
import sys

import pytest

from safenet import needs_network
from safenet.needs_network import NETWORK_PACKAGES, NetworkNotInstalledError, missing_network_packages, require_network

BLOCKED = f"""
import importlib.abc, sys
class Refusal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {NETWORK_PACKAGES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refusal())
"""
USE = """
from safenet import PRESETS, Architecture
assert PRESETS["upstream"] == Architecture()
try:
    from safenet import SafeNet
except ImportError as error:
    print(error)
"""


def test_sizes_are_read_without_the_network_and_the_network_names_the_remedy():
    found = subprocess.run([sys.executable, "-c", BLOCKED + USE], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == (
        "safenet.SafeNet needs torch, timm, torchvision, which are not installed. Run pip install 'safenet-atlas[network]'"
    )


def test_nothing_is_missing_where_all_is_installed():
    assert missing_network_packages() == ()
    require_network("extract")


def test_one_package_is_named_alone(monkeypatch):
    monkeypatch.setattr(needs_network, "_is_installed", lambda name: name != "timm")
    with pytest.raises(NetworkNotInstalledError, match=r"^extract needs timm, which is not installed\. Run pip install 'safenet-atlas\[network\]'$"):
        require_network("extract")


def test_the_package_has_no_other_names():
    import safenet

    with pytest.raises(AttributeError, match=r"module 'safenet' has no attribute 'SafeNett'"):
        _ = safenet.SafeNett
    assert all(getattr(safenet, name) is not None for name in safenet.__all__)
