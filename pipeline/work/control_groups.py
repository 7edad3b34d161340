"""The control groups of this process: through them a job, a container or a service limits all its processes together."""

from __future__ import annotations

from pathlib import Path

LISTING = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def control_groups(controller: str = "") -> list[Path]:
    """Return the folders of the groups that this process is in, each before the groups above it; empty where there are none.

    Parameters
    ----------
    controller : str
        Of version 1, such as "cpu" or "memory"; empty for version 2, which has one tree for all.

    Notes
    -----
    A folder need not be there: in a container the listing may name the host's path, of which only the root is seen.
    """
    mount = MOUNT / controller
    found: list[Path] = []
    for line in LISTING.read_text().splitlines() if LISTING.exists() else ():
        controllers, path = line.split(":", 2)[1:]
        if controller in controllers.split(","):
            group = mount / path.lstrip("/")
            groups = (group, *group.parents)
            found += groups[: groups.index(mount) + 1]
    return found
