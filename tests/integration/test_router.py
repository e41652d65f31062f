"""The router on real sockets, between a client and whoever it sends to: what waits, what is refused, what arrives."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import zmq

from todomq.protocol import limits, messages
from todomq.protocol.codec import canonical
from todomq.router.service import RouterService
from todomq.runtime.calls import Call, CallServer, Service
from todomq.runtime.daemon import Daemon, Registration
from todomq.runtime.loop import Loop
from todomq.runtime.peers import Peer
from todomq.settings import Settings

BOUND_S = 15.0
WORKER = ["database_worker", 1]


class Taker(Service):
    """A daemon that takes whatever it is asked to store."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Any] = []
        self.operations["store"] = self._store

    def _store(self, call: Call) -> None:
        self.taken.append(call.arguments[0])


class Stand:
    """A router and a client of it on one loop; the registry is what the test says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.daemon = Daemon(["router"], Settings(home, "", database_workers=1), registers=False)
        self.router = RouterService(self.daemon)
        self.daemon.begin(self.router)
        self.loop = self.daemon.loop
        self.replies: list[list[Any]] = []
        self.client = Peer(self.loop, self.daemon.address, b"client", on_replies=self._replied)
        self.loop.at_turn_end(self.client.flush)
        self._ids = count(1)

    def _replied(self, replies: list[Any]) -> None:
        self.replies += map(list, replies)

    def register(self, name: list[Any], address: str, incarnation: bytes = b"life") -> None:
        self.daemon.registrations[canonical(name)] = Registration(name, address, None, incarnation)
        for action in self.daemon.on_registry_change:
            action()

    def start(self, name: str, service: Service) -> str:
        """Return the address at which the service is asked from now on."""
        server = CallServer(self.loop, f"ipc://{self.home}/{name}", service)
        self.loop.at_turn_end(server.flush)
        return server.address

    def ask(self, target: Any, *body: Any, timeout_s: float = BOUND_S) -> int:
        """Send a request in a message of its own; return its id."""
        identifier = next(self._ids)
        deadline_ms = Loop.now_ms() + int(timeout_s * 1000)
        request = [identifier, target, deadline_ms, messages.body(*body), identifier, 1]
        self.client.send(messages.call(b"client", [request]))
        return identifier

    def turn_until(self, condition: Callable[[], Any]) -> None:
        give_up = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < give_up, "the condition was not met in time"
            self.loop.turn(0.02)

    def close(self) -> None:
        for source in [each for each in self.loop._descriptors if isinstance(each, zmq.Socket)]:
            self.loop.unwatch(source)
            if source.type == zmq.DEALER:
                source.disable_monitor()
            source.close(0)


@pytest.fixture
def stand() -> Iterator[Stand]:
    home = Path(tempfile.mkdtemp(prefix="tq"))
    stand = Stand(home)
    yield stand
    stand.close()
    shutil.rmtree(home)


def test_law_6_requests_for_keys_that_waited_for_one_worker_arrive_however_large_they_are_together(
    stand: Stand,
) -> None:
    asked = [stand.ask(canonical(key), "store", key, bytes(900_000)) for key in range(6)]
    stand.turn_until(lambda: len(stand.router.in_flight.flights) == 6)
    assert stand.router.in_flight.bytes > limits.TRANSPORT_BYTES
    worker = Taker()
    stand.register(WORKER, stand.start("worker", worker))
    stand.turn_until(lambda: len(stand.replies) == 6)
    assert [(identifier, status) for identifier, status, _ in stand.replies] == [(each, messages.OK) for each in asked]
    assert worker.taken == list(range(6))
