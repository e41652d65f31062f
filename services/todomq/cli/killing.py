"""The end of a daemon, by its registered name, for whoever wants to see what the stack does about it.

Owns: which daemons there are by kind, the way from a name to a process. Must not know: what follows.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import typer

from todomq.cli.show import name_of, safe
from todomq.errors import InvalidRequest, NameNotFound

if TYPE_CHECKING:
    from todomq.client import Client

SINGLE = ("registry", "cache", "router")
POOLED = ("list_server", "database_worker")


def read_daemon_name(words: list[str]) -> list[str | int]:
    """Return the registered name of ``list_server 1``, ``list_server-1`` or ``cache``, whether quoted or not."""
    named = words[0] if len(words) == 1 else ""
    parts = named.rpartition("-")[::2] if "-" in named and named[-1:].isdigit() else tuple(" ".join(words).split())
    kind, *numbers = parts or ("",)
    is_pooled = kind in POOLED
    if kind not in SINGLE + POOLED or len(numbers) != is_pooled or not all(number.isdecimal() for number in numbers):
        known = ", ".join([*SINGLE, *(f"{pool} N" for pool in POOLED)])
        raise typer.BadParameter(f"{safe(' '.join(words))!r} is no daemon; there are {known}")
    return [kind, *map(int, numbers)]


def kill_daemon(todo: Client, name: list[str | int]) -> int:
    """Kill a daemon of this machine and return its pid.

    Raises:
        NameNotFound: it is not running. InvalidRequest: it is a process of another machine, or not a daemon.
    """
    registration = todo.registry.whereis_name(name)
    if registration is None or registration.pid is None:
        raise NameNotFound(f"{name_of(name)} is not running: nobody is registered under this name")
    try:
        _kill(registration.pid, name)
    except (ProcessLookupError, FileNotFoundError):
        raise NameNotFound(f"{name_of(name)} is not running any more on this machine") from None
    return registration.pid


def _kill(pid: int, name: list[str | int]) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if f"todomq.{name[0]}".encode() not in file.read():
                raise InvalidRequest(f"pid {pid} of this machine is not {name_of(name)}; it runs on another one")
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
