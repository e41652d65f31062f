"""Which parts the stack should have, and what its process manager and the kernel say of their processes.

Owns: the names of daemons as a person writes them; the joining of supervisord's word, the settings and /proc. Must not
know: clients, requests.
If supervisord does not answer (a stack started by hand, or on another machine) the settings say what should be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from todomq.cli.show import safe
from todomq.daemons import KINDS, LISTENER, is_daemon_name, is_number, name_of_process
from todomq.errors import Unavailable
from todomq.runtime.local_process import age_ms, processor_s
from todomq.settings import Settings, is_loopback

if TYPE_CHECKING:
    from todomq.supervision.manager import Process

Name = tuple[str | int, ...]
"""A daemon's registered name, as a key: ``("list_server", 1)``."""


def supervised(settings: Settings, endpoint: str) -> list[Process] | None:
    """Return the stack's processes as supervisord sees them.

    Args:
        settings: those of this home.
        endpoint: the router that is asked.

    Returns:
        None where supervisord does not answer, or where the endpoint is not one of this home's settings: of the
        processes of another stack this home's supervisord knows nothing.
    """
    from todomq.supervision.manager import Manager

    if endpoint not in (settings.address("router"), settings.tcp):
        return None
    try:
        return Manager(settings).processes()
    except (Unavailable, PermissionError):
        return None


def is_here(pid: int, name: Name, endpoint: str) -> bool:
    """Tell whether a process of this machine is the daemon of this name that a stack's registry knows by its pid.

    Args:
        pid: what the registry says.
        name: the daemon's.
        endpoint: the stack's router; if that is on another machine, so is the process, whatever has its pid here.
    """
    if not endpoint.startswith("ipc://") and not is_loopback(endpoint):
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    command = [f"todomq.{name[0]}", *map(str, name[1:])]
    return any(words[at : at + len(command)] == command for at in range(len(words)))


def read_daemon_name(words: list[str]) -> list[str | int]:
    """Return the registered name of ``list_server 1``, ``list_server-1`` or ``cache``, whether quoted or not."""
    parts: Sequence[str | int] = name_of_process(words[0]) if len(words) == 1 else ()
    if len(parts) < 2:
        parts = " ".join(words).split() or ("",)
    name = [parts[0], *(int(part) if is_number(str(part)) else part for part in parts[1:])]
    if not is_daemon_name(name):
        known = ", ".join(f"{name} N" if each.is_pooled else name for name, each in KINDS.items())
        raise typer.BadParameter(f"{safe(' '.join(words))!r} is no daemon; there are {known}")
    return name


def next_words(settings: Settings, before: list[str]) -> list[str]:
    """Return the words that may follow these in the name of a daemon of the stack, for the shell's completion."""
    names = [[str(part) for part in name] for name in settings.daemon_names()]
    at = len(before)
    return list(dict.fromkeys(name[at] for name in names if name[:at] == before and len(name) > at))


def expected_daemons(
    settings: Settings, processes: list[Process] | None, registered: Iterable[Name] | None = None
) -> list[Name]:
    """Return the names of the daemons that should be there, in the order of the supervision tree.

    Args:
        settings: the stack's.
        processes: what ``supervised`` returns.
        registered: the names that the registry knows; None where it did not say. Other machines may add list servers;
            of a stack that is not supervised here they tell whether it has more daemons than the settings say.
    """
    if processes is None:
        expected = [tuple(name) for name in settings.daemon_names()]
    else:
        expected = [name_of_process(process.name) for process in processes if process.group != LISTENER]
    for name in sorted(name for name in registered or () if is_daemon_name(list(name)) and name not in expected):
        if name[0] == "list_server" or processes is None:
            before = [place for place, each in enumerate(expected) if each[0] == name[0]]
            expected.insert(before[-1] + 1 if before else len(expected), name)
    return expected


STANDS_STILL = "stands still, stopped by a signal"
"""What is said of a process that ``is_stopped``."""


def resident_bytes(pid: int) -> tuple[int, int] | None:
    """Return what a process of this machine holds in memory, or None where that can't be seen.

    Returns:
        ``(pss, rss)``: its share of the pages it holds, and all of them.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in rollup.splitlines()[1:] if ":" in line}
    return fields.get("Pss", 0), fields.get("Rss", 0)


def uptime_s(pid: int) -> int | None:
    """Return how many seconds ago a process of this machine began, or None where that can't be seen."""
    try:
        return age_ms(pid) // 1000
    except ProcessLookupError:
        return None


def processor_seconds(pid: int) -> float | None:
    """Return how much processor time a process of this machine has used, or None if that can't be seen."""
    try:
        return processor_s(pid)
    except ProcessLookupError:
        return None
