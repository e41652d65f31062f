"""A simulated client: the real session on the fake network, driven as ``todomq.client.connection`` drives it.

Owns: one DEALER, the session, the clock that it runs by (which has another zero than the daemons').
Must not know: what is asked. Whoever asks gives a request and what is to be told when it is finished.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import zmq

from todomq.client.outcomes import outcome
from todomq.client.request import Request
from todomq.client.session import Session
from todomq.errors import TodoMQError
from topology.clock import START_US, Event
from topology.network import Socket
from topology.world import World

CONNECT_AGAIN_MS = 5
CONNECT_PAUSE_MOST_MS = 1_000
DRAIN_MESSAGES = 64

Finished = Callable[[Request[Any]], None]


def outcome_of(request: Request[Any]) -> tuple[Any, TodoMQError | None]:
    """Return the result of a finished request, or its error."""
    return (None, request.error) if request.is_cast else outcome(request, _resend)


def _resend(request: Request[Any]) -> Any:
    raise AssertionError("a request is repeated by who asked, not by the error that it failed with")


class Client:
    """One client process."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        random = world.stream(name)
        self.process = world.new_process(name)
        self.process.turn = self._turn
        self.session = Session(random.randbytes(16), random.random)
        self.waiting = 0
        self._zero_us = START_US - random.randrange(1 << 40)
        self._arrived: list[Request[Any]] = []
        self._dealer: Socket | None = None
        self._monitor: Socket | None = None
        self._was_heard = True
        self._is_disconnected = False
        self._connect_again_ms = 0
        self._pause_ms = 0
        self._alarm: Event | None = None

    def now_ms(self) -> int:
        """Return the client's own clock."""
        return (self._world.clock.now_us - self._zero_us) // 1_000

    def submit(self, request: Request[Any], deadline_s: float, finished: Finished) -> None:
        """Hand over a request."""
        request.deadline_ms = self.now_ms() + int(deadline_s * 1000)
        request.waiter = finished
        self.waiting += 1
        self._arrived.append(request)
        self.process.wake()

    def _turn(self) -> None:
        now = self.now_ms()
        session = self.session
        if self._dealer is None:
            self._connect(now)
        self._receive(now)
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            session.submit(arrived)
        session.tick(now)
        is_broken = self._is_disconnected and (self._was_heard or now >= self._connect_again_ms)
        if is_broken or session.must_reconnect(now):
            self._connect(now)
        self._send(now)
        for request in session.take_finished():
            self.waiting -= 1
            request.waiter(request)
        self._set_alarm()

    def _connect(self, now: int) -> None:
        network = self._world.network
        if self._dealer is not None:
            self._dealer.close()
        self._dealer, self._monitor = network.dealer(self._world.settings.endpoint)
        self._pause_ms = 0 if self._was_heard else min(max(2 * self._pause_ms, CONNECT_AGAIN_MS), CONNECT_PAUSE_MOST_MS)
        self._connect_again_ms = now + self._pause_ms
        self._was_heard = self._is_disconnected = False
        self.session.connected(now)

    def _receive(self, now: int) -> None:
        assert self._dealer is not None and self._monitor is not None
        network = self._world.network
        while (event := network.receive(self._monitor)) is not None:
            if int.from_bytes(event[0][:2], sys.byteorder) == zmq.EVENT_DISCONNECTED:
                self._is_disconnected = True
        for _ in range(DRAIN_MESSAGES):
            frames = network.receive(self._dealer)
            if frames is None:
                return
            self._was_heard = True
            self.session.receive(frames[-1], now)
        self.process.wake()

    def _send(self, now: int) -> None:
        assert self._dealer is not None
        while not self._is_disconnected and self._dealer.has_room:
            message = self.session.take_message(now)
            if message is None:
                return
            self._world.network.send(self._dealer, (b"", message))

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        nap_ms = self.session.wake_at_ms() - self.now_ms()
        if self._is_disconnected or not (self._dealer and self._dealer.has_room):
            nap_ms = min(nap_ms, CONNECT_AGAIN_MS)
        if nap_ms < 60_000:
            self._alarm = self._world.clock.after(max(nap_ms, 1) * 1_000, self.process.wake)
