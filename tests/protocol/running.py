"""Real daemons for the tests of this folder, without a supervisor, so that one that dies stays dead and is seen."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

import todomq
from todomq import errors
from todomq.daemons import socket_name
from todomq.protocol import messages
from todomq.protocol.codec import unpack
from todomq.settings import Settings, read_settings

BOUND_S = 20.0
POLL_S = 0.005
SOURCE = str(Path(todomq.__file__).parents[1])


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for the condition to hold and return its value; fail after ``BOUND_S`` seconds."""
    give_up = time.monotonic() + BOUND_S
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not within {BOUND_S} s: {what}"
        time.sleep(POLL_S)
    return value


class Running:
    """One process of every kind (a single list server and worker), in a home of its own."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tq-", dir="/tmp"))  # short: socket paths have 107 bytes
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TODOMQ_")}
        self.environment = {
            **inherited, "PYTHONPATH": SOURCE, "TODOMQ_HOME": str(self.home),
            "TODOMQ_LIST_SERVERS": "1", "TODOMQ_DATABASE_WORKERS": "1",
        }  # fmt: skip
        self.settings: Settings = read_settings(self.environment)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.context = zmq.Context()

    def start(self, *names: str) -> None:
        """Start daemons, named by their sockets such as ``list_server-1``; all of them if none is named."""
        for name in names or [socket_name(name) for name in self.settings.daemon_names()]:
            module, _, number = name.partition("-")
            with open(self.home / f"{name}.log", "ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", f"todomq.{module}", *number.split()], env=self.environment, stderr=log
                )

    def wait_ready(self) -> None:
        """Wait until a read has gone through the whole stack."""
        wait_until(lambda: not isinstance(self.try_list("warm", "size"), errors.TodoMQError), "a read is answered")

    def address(self, name: str) -> str:
        """Return the address of a daemon's socket."""
        return f"ipc://{self.settings.run}/{name}"

    def open(self, kind: int, name: str) -> zmq.Socket[bytes]:
        """Connect a socket to a daemon's; the caller closes it."""
        opened: zmq.Socket[bytes] = self.context.socket(kind)
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.RCVTIMEO, int(BOUND_S * 1000))
        opened.setsockopt(zmq.SNDTIMEO, int(BOUND_S * 1000))
        opened.setsockopt(zmq.RECONNECT_IVL, 5)
        if kind == zmq.PUSH:
            opened.setsockopt(zmq.IMMEDIATE, 1)
        opened.connect(self.address(name))
        return opened

    def exchange(self, name: str, frame: bytes) -> bytes:
        """Send one frame to a daemon from a REQ socket and return its reply's frame."""
        opened = self.open(zmq.REQ, name)
        try:
            opened.send(frame)
            return opened.recv()
        finally:
            opened.close()

    def request(self, name: str, request: list[Any], sender: bytes = b"tester") -> Any:
        """Make one request; return its value, or its error as a value."""
        kind, fields = messages.read(self.exchange(name, messages.call(sender, [request])))
        assert kind == "reply"
        ((identifier, status, value),) = messages.read_replies(fields)
        assert identifier == request[0] if isinstance(request[0], int) else identifier is None
        return unpack(value) if status == messages.OK else messages.read_error(value)

    def ask(self, name: str, operation: str, *arguments: Any) -> Any:
        """Call a daemon's operation directly; return its value, or its error as a value."""
        return self.request(name, [1, None, 0, messages.body(operation, *arguments)])

    def try_list(self, name: str, operation: str, *arguments: Any, number: int = 1, sender: bytes = b"tester") -> Any:
        """Send a request to a list through the router; return its value, or its error as a value."""
        return self.request("router", [1, name, 0, messages.body(operation, *arguments), number, number], sender)

    def pids(self) -> dict[str, int]:
        """Return the pid of every daemon that runs; what has ended has none."""
        return {name: process.pid for name, process in self.processes.items() if process.poll() is None}

    def log(self, name: str) -> str:
        """Return what a daemon has logged."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def connect_raw(self, name: str) -> socket.socket:
        """Connect a plain socket to a daemon's: whoever speaks no ZMTP, or only half of it."""
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.settimeout(BOUND_S)
        raw.connect(str(self.settings.run / name))
        return raw

    def descriptors(self, name: str) -> int:
        """Return how many descriptors a daemon has open."""
        return len(os.listdir(f"/proc/{self.processes[name].pid}/fd"))

    def memory_bytes(self, name: str) -> int:
        """Return how much memory a daemon has resident."""
        pages = int(Path(f"/proc/{self.processes[name].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """End every process and remove the home."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.context.destroy(0)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def running() -> Iterator[Running]:
    """Run a whole stack, ready to answer."""
    stack = Running()
    try:
        stack.start()
        stack.wait_ready()
        yield stack
    finally:
        stack.end()
