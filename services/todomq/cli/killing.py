"""Killing a daemon by its registered name, to see what the stack does about it.

Owns: the way from a name to a process. Must not know: what follows.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from todomq.cli.show import name_of
from todomq.cli.stack_parts import is_here
from todomq.errors import InvalidRequest, NameNotFound
from todomq.runtime.local_process import has_ended, kill

if TYPE_CHECKING:
    from todomq.client import Client

NOT_RUNNING = "is not running: nobody is registered under this name"


def kill_daemon(todo: Client, name: list[str | int]) -> int:
    """Kill a daemon of this machine and return its pid.

    Raises:
        NameNotFound: it is not running. InvalidRequest: it is a process of another machine, or not a daemon.
    """
    registration = todo.registry.whereis_name(name)
    if registration is None:
        raise NameNotFound(f"{name_of(name)} {NOT_RUNNING}")
    if registration.pid is None:
        raise InvalidRequest(f"{name_of(name)} runs on another machine: it can be killed there only")
    try:
        _kill(registration.pid, name, todo.endpoint)
    except (ProcessLookupError, FileNotFoundError):
        raise NameNotFound(f"{name_of(name)} is not running any more on this machine") from None
    return registration.pid


def _kill(pid: int, name: list[str | int], endpoint: str) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        if has_ended(pidfd):
            raise ProcessLookupError  # and nobody has taken note of that yet
        if not is_here(pid, tuple(name), endpoint):
            raise InvalidRequest(f"pid {pid} of this machine is not {name_of(name)}; it runs on another one")
        kill(pidfd)
    finally:
        os.close(pidfd)
