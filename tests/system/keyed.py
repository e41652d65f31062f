"""A stack whose router listens over TCP for those who have a key, and raw connections to it, honest or not."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from stacks import RunningStack, wait_until

from todomq import Client
from todomq.errors import TodoMQError
from todomq.keys.credentials import Credentials, read_credentials
from todomq.protocol import messages
from todomq.protocol.codec import pack, unpack

BOUND_MS = 10_000
SILENCE_MS = 400
"""How long nothing must come for it to count as refused; what is let in is answered within a few milliseconds."""

PORTS = range(16_000, 32_000)
"""Below those that the system gives to connections: one to a free port among these may come from that very port, and
then whoever connects meets himself."""


def free_port(count: int = 1) -> int:
    """Return the first of ``count`` free ports in a row."""
    while True:
        port = random.choice(PORTS[:-count])
        try:
            for number in range(port, port + count):
                with socket.socket() as each:
                    each.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port


class KeyedStack(RunningStack):
    """A stack with keys; ``start`` begins with none but its own."""

    def __init__(self, **settings: str) -> None:
        self.tcp = f"tcp://127.0.0.1:{free_port()}"
        super().__init__(TODOMQ_TCP=self.tcp, TODOMQ_MAX_RESTARTS="1000000", **settings)
        self.keys("init")

    def keys(self, *arguments: str) -> Any:
        """Run ``todomq keys`` and return its value."""
        done = self.run("todomq.cli", "keys", *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def new_key(self, name: str, *arguments: str) -> Path:
        """Make a key that is let in by the time this returns; return its file."""
        path = self.home / f"{name}.credentials"
        self.keys("new", name, *arguments, "--out", str(path))
        wait_until(lambda: name in self.door_stats()["keys"], 5, f"{name} is let in")
        return path

    def door_stats(self) -> dict[str, Any]:
        """Return what the router says of its door."""
        return dict(self.ask("router", "stats")["door"])

    def router_memory_bytes(self) -> int:
        """Return how much memory the router has resident."""
        pages = int(Path(f"/proc/{self.pid('router')}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Raw:
    """A socket that sends what it is told to: DEALER, by a key or without."""

    def __init__(self, endpoint: str, credentials: Credentials | None, routing_id: bytes = b"") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDTIMEO, BOUND_MS)
        self.socket.setsockopt(zmq.IPV6, endpoint.startswith("tcp://["))
        if routing_id:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        if credentials is not None:
            self.socket.setsockopt_string(zmq.CURVE_SERVERKEY, credentials.server_public_key)
            self.socket.setsockopt_string(zmq.CURVE_PUBLICKEY, credentials.public_key)
            self.socket.setsockopt_string(zmq.CURVE_SECRETKEY, credentials.secret_key)
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_ALL)
        self.socket.connect(endpoint)

    def send(self, *requests: list[Any], sender: bytes = b"raw") -> None:
        """Send one call."""
        self.socket.send_multipart([b"", messages.call(sender, list(requests))])

    def receive(self, timeout_ms: int = BOUND_MS) -> dict[Any, Any]:
        """Return the next message's answers by id, errors as errors; nothing where none comes in time."""
        if not self.socket.poll(timeout_ms):
            return {}
        kind, fields = messages.read(self.socket.recv_multipart()[-1])
        assert kind == "reply"
        return {
            identifier: unpack(value) if status == messages.OK else messages.read_error(value)
            for identifier, status, value in messages.read_replies(fields)
        }

    def receive_all(self, count: int) -> dict[Any, Any]:
        """Return so many answers, in however many messages they come."""
        answers: dict[Any, Any] = {}
        while len(answers) < count and (more := self.receive()):
            answers |= more
        return answers

    def ask(self, target: Any, *body: Any, number: int = 0, sender: bytes = b"raw", timeout_ms: int = BOUND_MS) -> Any:
        """Send one request and return its value, or its error as a value; ``None`` where nothing comes."""
        self.send([1, target, 0, pack(list(body)), number, number], sender=sender)
        return self.receive(timeout_ms).get(1)

    def events(self) -> list[int]:
        """Return what the socket's monitor has told."""
        told = []
        while self._monitor.poll(0):
            told.append(int.from_bytes(self._monitor.recv_multipart()[0][:2], sys.byteorder))
        return told

    def wait_event(self, event: int, timeout_s: float) -> None:
        """Wait until the monitor tells of an event."""
        wait_until(lambda: event in self.events(), timeout_s, f"monitor event {event}")

    def close(self) -> None:
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.context.destroy(0)


@contextmanager
def raw(endpoint: str, credentials: Path | Credentials | None, routing_id: bytes = b"") -> Iterator[Raw]:
    """Give a raw connection by a key, or without one."""
    known = read_credentials(credentials) if isinstance(credentials, Path) else credentials
    opened = Raw(endpoint, known, routing_id)
    try:
        yield opened
    finally:
        opened.close()


def refusal(todo: Client, list_name: str, operation: str) -> TodoMQError | None:
    """Call a method of a list's handle and return what it is refused with, None where it is not."""
    try:
        getattr(todo.todo_list(list_name), operation)()
    except TodoMQError as error:
        return error
    return None
