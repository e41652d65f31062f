"""What the logs say of a process that ended: supervisord tells its listeners that it did, but not how.

Owns: reading the ends of log files. Must not know: what follows from it.
"""

from __future__ import annotations

import errno
import os
from datetime import datetime, timedelta
from pathlib import Path

from todomq.daemons import REFUSED_TO_START
from todomq.supervision.restart_intensity import REFUSES

TAIL_BYTES = 32 * 1024
KILLED = "terminated by SIGKILL"
_NO_DESCRIPTOR = os.strerror(errno.EMFILE)
"""What libzmq says before it ends a process that has no descriptor left for another connection."""


def how_it_ended(log: Path, process: str) -> str:
    """Say how the process ended last, and its last words.

    Args:
        log: the stack's log directory.
        process: its name.

    Returns:
        such as ``exit status 1; its last line: ...``, or ``refuses to start: ...`` with the reason that the process
        itself logged; anything that can't be found out is left out.
    """
    marks = (f"exited: {process} (", f"spawnerr: {process}")
    endings = [line for line in _tail(log / "supervisord.log") if any(mark in line for mark in marks)]
    how = endings[-1].partition(" (")[2].partition(";")[0].strip(" )") if endings else "it ended"
    if how == KILLED:
        how += " (the system does so too where memory runs out)"
    words = [line for line in _tail(log / f"{process}.log") if line.strip()]
    if not words:
        return how
    _, refused, why = words[-1].strip().partition(" refused_to_start ")
    if refused and how == f"exit status {REFUSED_TO_START}":
        return REFUSES + why.partition("why=")[2]
    advice = "; raise ulimit -n" if _NO_DESCRIPTOR in words[-1] else ""
    return f"{how}; its last line: {words[-1].strip()}{advice}"


def ended_ms_ago(log: Path, process: str, pid: int | None, now: datetime) -> int:
    """Return how many milliseconds ago this life of the process ended, by supervisord's log; 0 where that says nothing.

    If the tail does not reach back to this life's start, the death counts as old as the tail's first line.
    Overestimating its age may allow one restart too many; underestimating it may stop the stack.

    Args:
        log: the stack's log directory.
        process: its name.
        pid: of that life.
        now: the time of this machine, as supervisord writes it.
    """
    spawned, exited = f"spawned: '{process}' with pid {pid}", f"exited: {process} ("
    has_begun = False
    path = log / "supervisord.log"
    lines = _tail(path)
    for line in lines:
        if line.endswith(spawned):
            has_begun = True
        elif has_begun and exited in line:
            return _age_ms(line, now) or 0
    if has_begun or not lines or path.stat().st_size <= TAIL_BYTES:
        return 0
    return next((age_ms for line in lines if (age_ms := _age_ms(line, now)) is not None), 0)


def _age_ms(line: str, now: datetime) -> int | None:
    try:
        return max(0, (now - datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")) // timedelta(milliseconds=1))
    except ValueError:
        return None


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
