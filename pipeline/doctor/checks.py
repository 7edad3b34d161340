"""`atlas doctor`: is this machine fit for a run? One row per check; a check that breaks is itself a finding and never stops the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType

from pipeline.disk.objects import ObjectPath
from pipeline.doctor import installation, machine, objects
from pipeline.doctor.findings import Asked, Finding, fail, one_line
from safenet.needs_network import missing_network_packages


@dataclass(frozen=True)
class Check:
    """A row of CHECKS; the slow ones are left out by --quick. `of_objects` takes the place of `examine` where the run is a URL.

    Those that need the network are left out where it is not installed, which "torch" tells.
    """

    name: str
    examine: Callable[[Asked], Finding]
    slow: bool = False
    needs_network: bool = False
    of_objects: Callable[[Asked], Finding] | None = None


def _network() -> ModuleType:
    """Import the checks that need torch when one of them is run: a fault of the import is that check's finding."""
    from pipeline.doctor import network

    return network


CHECKS: Sequence[Check] = (
    Check("python", installation.check_python),
    Check("required", installation.check_required),
    Check("optional", installation.check_optional),
    Check("torch", lambda asked: installation.missing_network() or _network().check_torch(asked)),
    Check("device", lambda asked: _network().check_device(asked), needs_network=True),
    Check("arithmetic", lambda asked: _network().check_arithmetic(asked), needs_network=True),
    Check("image packages", lambda asked: _network().check_image_packages(asked), needs_network=True),
    Check("run directory", machine.check_directory, of_objects=objects.check_directory),
    Check("disk space", machine.check_space, of_objects=objects.check_space),
    Check("write speed", machine.check_write_speed, of_objects=objects.check_write_speed),
    Check("file locks", machine.check_locks, of_objects=objects.check_locks),
    Check("clock", machine.check_clock, of_objects=objects.check_clock),
    Check("open files", machine.check_open_files),
    Check("shared memory", machine.check_shared_memory),
    Check("memory", machine.check_memory),
    Check("config", installation.check_config),
    Check("tiny run", lambda asked: _network().check_tiny_run(asked), slow=True, needs_network=True),
)


def examine(asked: Asked, rows: Sequence[Check] = CHECKS, *, quick: bool = False) -> Iterator[Finding]:
    """Yield a finding a check, in order, each as soon as it is there."""
    has_network = not missing_network_packages()
    for row in rows:
        if (quick and row.slow) or (row.needs_network and not has_network):
            continue
        try:
            check = row.of_objects if row.of_objects and isinstance(asked.directory, ObjectPath) else row.examine
            finding = check(asked)
        except Exception as error:  # noqa: BLE001  (whatever breaks a check, the others are still wanted)
            text = f"the check itself fails: {type(error).__name__}: {one_line(error)}"
            finding = fail(text, "Correct what the error names, then run `atlas doctor` again")
        yield replace(finding, name=row.name)


def doctor(asked: Asked, say: Callable[[str], None], *, quick: bool = False, as_json: bool = False) -> bool:
    """Examine everything and tell it, a line a finding or all as JSON; return whether no check fails."""
    findings = []
    for finding in examine(asked, quick=quick):
        findings.append(finding)
        if not as_json:
            say(describe(finding))
    counts = Counter(finding.status for finding in findings)
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        say(f"{len(findings)} checks: {counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail")
    return not counts["fail"]


def describe(finding: Finding) -> str:
    """Lay a finding out as one line: status, name, what was found, what to do."""
    width = max(len(row.name) for row in CHECKS)
    return f"{finding.status:<4}  {finding.name:<{width}}  {finding.text}" + (f". {finding.remedy}" if finding.remedy else "")
