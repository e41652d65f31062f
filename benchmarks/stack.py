"""A whole stack of TodoMQ for a measurement, in a temporary home, and what its processes use.

Owns: start and stop, CPU and memory by daemon, kill -9. Must not know: workloads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import Files, files_in, resident_bytes, temporary_home, wait_until
from todomq import Client, Via, errors
from todomq.cli.health import wait_healthy
from todomq.daemons import socket_name
from todomq.runtime.local_process import processor_s
from todomq.supervision.stack import Stack

BACK_S = 20.0
LOADED = {"TODOMQ_IDLE_S": "100000"}
"""Lists stay in memory over a measurement."""


class RunningStack:
    """One running stack. Daemons are named by their sockets, such as ``list_server-1``."""

    def __init__(self, control: Stack) -> None:
        self._control = control
        self.endpoint = control.settings.endpoint
        self.home = control.settings.home
        self.names = {socket_name(name): name for name in control.settings.daemon_names()}
        self.pids = self._current_pids()

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each daemon has used so far."""
        return {name: processor_s(pid) for name, pid in self.pids.items()}

    def resident_bytes(self) -> dict[str, int]:
        """Return how many bytes of each daemon are in memory."""
        return {name: resident_bytes(pid) for name, pid in self.pids.items()}

    def files(self) -> Files:
        """Return what lies in the directory of the durable storage."""
        return files_in(self._control.settings.data)

    def kill(self, name: str) -> None:
        """End a daemon by SIGKILL."""
        os.kill(self.pids[name], signal.SIGKILL)

    def wait_until_back(self, name: str) -> None:
        """Wait until a process that was killed is replaced by one that answers."""
        before = self.pids[name]
        with Client(self.endpoint, deadline_s=5.0) as todo:
            wait_until(lambda: _pid(todo, self.names[name]) not in (0, before), BACK_S, name)
        self.pids = self._current_pids()

    def _current_pids(self) -> dict[str, int]:
        processes = self._control.manager.processes()
        return {process.name: process.pid for process in processes if process.name in self.names}


@contextmanager
def running_stack(**settings: str) -> Iterator[RunningStack]:
    """Run a stack of its own while the block runs; ``settings`` are ``TODOMQ_...`` variables."""
    with temporary_home() as home:
        control = Stack({**environment_of(home), **LOADED, **settings})
        try:
            control.start()
            wait_healthy(control)
            yield RunningStack(control)
        finally:
            control.stop()


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment in which a command talks to the stack of a home."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TODOMQ_")}
    return {**inherited, "TODOMQ_HOME": str(home)}


def _pid(todo: Client, name: list[Any]) -> int:
    try:
        return int(todo.call(Via(name), "stats", deadline_s=1.0)["pid"])
    except errors.TodoMQError:
        return 0
