"""What the lists of one list server may take in memory: as set, or a share of what the machine has (law 6).

Owns: that share, and reading what the system says of memory: the machine's, or less where a control group (a
container's, say) allows less (cgroups(7), versions 1 and 2). Must not know: what lists take (``weight.py``).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from todomq.settings import Settings

MOST_BYTES = 4 << 30
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
LEAST_BYTES = 64 << 20
"""What is returned if a group allows less: nothing here could keep within so low a limit."""


def memory_budget(settings: Settings) -> int:
    """Return about how many bytes the lists of one list server may take.

    They have half of the memory. The rest is for everything else: the other daemons, requests on their way, the
    system's own caches.
    """
    return settings.list_memory_bytes or min(MOST_BYTES, memory_bytes() // 2 // settings.list_servers)


def memory_bytes(groups: Path = GROUPS, own_groups: Path = OWN_GROUPS) -> int:
    """Return how many bytes the machine has, or the smallest limit of a control group that this process is in.

    Args:
        groups: where the control groups are mounted.
        own_groups: the file that says which of them are this process's.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        for line in own_groups.read_text().splitlines():
            limits += _limits(groups, line)
    return max(LEAST_BYTES, min(limits))


def _limits(groups: Path, line: str) -> list[int]:
    """Return the limits of a group and those above it; a container sees its own group as the topmost."""
    _, controllers, path = line.split(":", 2)
    if not controllers:
        top, name = groups, "memory.max"
    elif "memory" in controllers.split(","):
        top, name = groups / "memory", "memory.limit_in_bytes"
    else:
        return []
    group = top / path.lstrip("/")
    found = []
    for directory in (group, *group.parents):
        with suppress(OSError, ValueError):  # the topmost group has no limit; "max" is none
            found.append(int((directory / name).read_text()))
        if directory == top:
            break
    return found
