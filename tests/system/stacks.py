"""Real stacks for tests: each under its own supervisord in its own temporary home, of which nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from todomq.cli.health import wait_healthy
from todomq.daemons import socket_name
from todomq.errors import TodoMQError
from todomq.protocol import messages
from todomq.protocol.codec import unpack
from todomq.supervision.manager import Process
from todomq.supervision.stack import Stack

T = TypeVar("T")

POLL_S = 0.005
NO_SETTINGS: Mapping[str, str] = {}

Finished = subprocess.CompletedProcess[str]


def wait_until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Wait for the condition to hold and return its value; fail the test after ``timeout_s`` seconds."""
    give_up = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > give_up:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)
    return value


def is_gone(pid: int) -> bool:
    """Tell whether no process of this pid runs; one that nobody has reaped yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


class RunningStack:
    """One stack of the test's own. Daemons are named by their sockets, such as ``list_server-1``."""

    def __init__(self, **settings: str) -> None:
        """Make a home. ``settings`` are further ``TODOMQ_...`` variables."""
        self.home = Path(tempfile.mkdtemp(prefix="tq-", dir="/tmp"))  # short: socket paths have 107 bytes
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TODOMQ_")}
        self.environment = {**inherited, "TODOMQ_HOME": str(self.home), **settings}

    @property
    def control(self) -> Stack:
        """What ``todomq up`` and its like use."""
        return Stack(self.environment)

    @property
    def endpoint(self) -> str:
        """Where clients reach the stack."""
        return self.control.settings.endpoint

    @property
    def daemons(self) -> list[str]:
        """The names of all daemons."""
        return [socket_name(name) for name in self.control.settings.daemon_names()]

    def start(self, **settings: str) -> None:
        """Start it and wait until it is healthy; ``settings`` replace variables of the environment."""
        self.environment.update(settings)
        self.control.start()
        self.wait_healthy()

    def stop(self) -> None:
        """Stop it as ``todomq down`` does."""
        self.control.stop()

    def wait_healthy(self, timeout_s: float = 30.0) -> None:
        """Wait until a real add and read have gone through every database worker, as ``todomq up`` does."""
        wait_healthy(self.control, timeout_s)

    def run(self, *command: str, timeout_s: float = 60.0, settings: Mapping[str, str] = NO_SETTINGS) -> Finished:
        """Run ``python -m <command>`` against this stack to its end, with further variables for this run only."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            env={**self.environment, **settings}, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def run_bound_by_permissions(self, *command: str) -> Finished:
        """Run ``python -m <command>`` as ``run`` does; permissions of files bind it, though root runs the tests."""
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        return subprocess.run(
            [*bound, sys.executable, "-m", *command],
            env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def manager_pid(self) -> int:
        """Return supervisord's pid."""
        return self.control.manager.pid()

    def processes(self) -> dict[str, Process]:
        """Return what supervisord says of every process, by name; asking also wakes it."""
        return {process.name: process for process in self.control.manager.processes()}

    def pid(self, name: str) -> int:
        """Return the pid of the daemon (or of ``supervision``); wait for it where it does not run just now."""
        return wait_until(lambda: self.processes()[name].pid, 20.0, f"{name} runs") or 0

    def pids(self) -> dict[str, int]:
        """Return the pid of every process under supervisord, by name."""
        return {name: process.pid for name, process in self.processes().items()}

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send the daemon a signal and return the pid that got it."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def ask(self, name: str, operation: str = "ping", timeout_s: float = 5.0) -> Any:
        """Call the daemon itself from a plain REQ socket; None where nobody answers in time."""
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.connect(f"ipc://{self.home}/run/{name}")
            socket.send(messages.call(b"", [[1, None, 0, messages.body(operation)]]))
            if not socket.poll(int(timeout_s * 1000)):
                return None
            _, fields = messages.read(socket.recv())
            return unpack(messages.read_replies(fields)[0][2])
        finally:
            socket.close()

    def wait_restarted(self, name: str, old_pid: int, timeout_s: float = 20.0) -> int:
        """Wait until another process than ``old_pid`` runs under the name and answers; return its pid."""

        def answering_pid() -> int | None:
            stats = self.ask(name, "stats", 0.1)
            return stats["pid"] if stats is not None and stats["pid"] != old_pid else None

        return wait_until(answering_pid, timeout_s, f"{name} is back") or 0

    def living(self) -> dict[int, str]:
        """Return the command line of every living process that belongs to this home, by pid."""
        mark = f"TODOMQ_HOME={self.home}".encode()
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (directory / "environ").read_bytes().split(b"\0"):
                    found[int(directory.name)] = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended meanwhile
        return found

    def sockets(self) -> list[str]:
        """Return the names of the sockets in the run directory."""
        return [path.name for path in (self.home / "run").iterdir() if path.is_socket()]

    def discard(self) -> dict[int, str]:
        """Stop it, kill whatever is left and remove the home; return what was left."""
        try:
            self.stop()
        except TodoMQError as error:
            sys.stderr.write(f"{error}\n")
        left = self.living()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)
        return left


S = TypeVar("S", bound=RunningStack)


def kept_running(stack: S) -> Iterator[S]:
    """Start a stack, yield it, and see at the end that it leaves nothing behind: what a fixture yields from."""
    try:
        stack.start()
        yield stack
    finally:
        left = stack.discard()
    assert not left, f"left behind: {left}"
