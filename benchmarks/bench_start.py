"""How long commands take that compute nothing, in times of `python -c "import click, pydantic"`; pages, and what looks at a finished run.

Usage: python benchmarks/bench_start.py [--run runs/demo --config configs/demo.toml] [--rounds 5] [--set TABLE.KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import cost, print_table

BASE = [sys.executable, "-c", "import click, pydantic"]
PAGES = (["--help"], ["--version"], ["extract", "--help"], ["submit", "--help"], ["methods"], ["settings"])
LOOKS = ("status", "plan", "verify", "index", "extract", "cam", "stats", "render", "report", "run")


def main() -> None:
    """Measure all commands in turn, round by round, so that what else the machine does meets all alike."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--run", type=Path, help="of a finished run; without it, pages alone")
    options.add_argument("--config", type=Path, default=Path("configs/demo.toml"))
    options.add_argument("--set", dest="assignments", action="append", default=[])
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    commands = {"import click, pydantic": BASE, **{f"atlas {' '.join(page)}": _atlas(page) for page in PAGES}}
    if chosen.run is not None:
        own = (f"dataset.root={chosen.run / 'scenes'}", f"extract.checkpoints=['{chosen.run / 'checkpoints' / 'net_*.pth'}']")
        sets = [part for assignment in (*own, *chosen.assignments) for part in ("--set", assignment)]
        commands |= {f"atlas {name}": _atlas([name, "--config", str(chosen.config), "--run", str(chosen.run), *sets]) for name in LOOKS}
    found = {name: [cost(command)[:3]] for name, command in commands.items()}  # the first round also warms the page cache
    for name in list(found) * chosen.rounds:
        found[name].append(cost(commands[name])[:3])
    costs = {name: tuple(median(column) for column in zip(*rounds[1:], strict=True)) for name, rounds in found.items()}
    base_cpu, base_wall, _ = costs["import click, pydantic"]
    rows = [
        [name, f"{cpu:.2f}", f"{cpu / base_cpu:.1f}", f"{wall:.2f}", f"{wall / base_wall:.1f}", f"{peak:.0f}"]
        for name, (cpu, wall, peak) in costs.items()
    ]
    print_table("Starting", ("", "CPU, s", "ratio", "wall, s", "ratio", "peak memory, MB"), rows)


def _atlas(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pipeline", *arguments]


if __name__ == "__main__":
    main()
