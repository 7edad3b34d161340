"""The benchmark for GPUs, tried on the CPU: so that it runs on the day when a GPU is at hand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PARTS = (
    "every tensor, left on the device", "every tensor, copied to the host", "decoding alone", "writer alone, every tensor",
    "extract, default variables", "extract, every tensor",
)  # fmt: skip


def bench(folder, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_gpu.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_every_part_is_measured(tmp_path):
    done = bench(tmp_path, "--device", "cpu", "--preset", "tiny", "--images", "8", "--seconds", "0.01")
    assert done.returncode == 0, done.stderr
    rates = dict(re.findall(r"^\| (.+?) \| ([\d.,]+) \| [\d.]+ \|$", done.stdout, re.MULTILINE))
    assert list(rates)[-6:] == list(PARTS)
    assert all(float(rate.replace(",", "")) > 0 for rate in rates.values())
    assert "the copy takes" in done.stdout
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_one_line_says_so(tmp_path):
    done = bench(tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert re.fullmatch(r"bench_gpu: torch \S+ finds no CUDA device: nothing was measured\. .*", line)
