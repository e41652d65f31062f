"""One local process: when it began, whether it stands still or has ended, its end. Linux: proc(5), pidfd_open(2).

Owns: reading ``/proc/<pid>/stat``, asking a pidfd, killing by one. Must not know: whose process it is.
Times count from the boot, so no change of the clock matters. A pidfd means one life of a process for good; to be sure
that a pid was not given to another process meanwhile, a caller holds a pidfd opened before.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

# Counted from the one after the command in parentheses.
_STATE, _PARENT, _USER_TIME, _SYSTEM_TIME, _START_TIME = 3 - 3, 4 - 3, 14 - 3, 15 - 3, 22 - 3
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def start_time(pid: int) -> int:
    """Return when the process began, in clock ticks since the boot.

    Raises:
        ProcessLookupError: there is none.
    """
    return int(_stat(pid)[_START_TIME])


def parent_of(pid: int) -> int:
    """Return the pid of the process that this one is a child of; 0 if there is none."""
    try:
        return int(_stat(pid)[_PARENT])
    except ProcessLookupError:
        return 0


def age_ms(pid: int) -> int:
    """Return for how long the process has been there, in milliseconds.

    Raises:
        ProcessLookupError: there is none.
    """
    began_ms = start_time(pid) * 1000 // _TICKS_PER_S
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 - began_ms)


def processor_s(pid: int) -> float:
    """Return how much processor time the process has used, in seconds.

    Raises:
        ProcessLookupError: there is none.
    """
    fields = _stat(pid)
    return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / _TICKS_PER_S


def is_stopped(pid: int) -> bool:
    """Tell whether the process is stopped by a signal (SIGSTOP) or a debugger; False if there is no such process."""
    try:
        return _stat(pid)[_STATE] in (b"T", b"t")
    except ProcessLookupError:
        return False


def has_ended(pidfd: int, timeout_s: float = 0.0) -> bool:
    """Tell whether the process has ended, or ends within this many seconds."""
    poller = select.poll()  # select(2) takes no descriptor from 1,024 on
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def kill(pidfd: int) -> None:
    """End the process with SIGKILL; one that has ended already is left alone.

    Raises:
        PermissionError: it belongs to another user.
    """
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _stat(pid: int) -> list[bytes]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    return stat[stat.rindex(b")") + 2 :].split()
