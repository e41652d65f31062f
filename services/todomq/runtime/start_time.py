"""When a local process began, by ``/proc/<pid>/stat`` (proc(5)): which life of a pid it is, and how old.

Owns: reading it. Must not know: whose process it is. Both times count from the boot, so no change of the clock matters.
Whoever must be sure that the pid was not given to another process meanwhile holds a pidfd opened before.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_FIELD = 22 - 3  # counted from the one after the command in parentheses
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def start_time(pid: int) -> int:
    """Return when the process began, in clock ticks since the boot.

    Raises:
        ProcessLookupError: there is none.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    return int(stat[stat.rindex(b")") + 2 :].split()[_FIELD])


def age_ms(pid: int) -> int:
    """Return for how long the process has been there, in milliseconds.

    Raises:
        ProcessLookupError: there is none.
    """
    began_ms = start_time(pid) * 1000 // _TICKS_PER_S
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 - began_ms)
