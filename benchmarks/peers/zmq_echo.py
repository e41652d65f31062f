"""Bare pyzmq: client, router, server; one message for each request, which the server sends back.

Promises nothing and stores nothing: it is what the transport costs where every request is a message of its own. The
router is a loop in Python, as one that has to look at a request to choose a server must be.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import zmq

from benchmarks.figures import Measurement, latency, rate
from benchmarks.loads import Begin, Load, in_clients, one_at_a_time
from benchmarks.plan import IN_FLIGHT, NO_WORK, TITLE, Plan
from benchmarks.processes import START_S, running_function, temporary_home, wait_until

NAME = "bare pyzmq"
PAYLOAD = f"list 17 {TITLE}".encode()
SAMPLE = 50
"""One request in so many is timed."""
STEP = 50
"""So many messages are passed on, or received, before anything else is looked at."""
ANSWER_MS = 10_000


class ZmqEcho:
    """The peer."""

    name = NAME
    workloads = frozenset(("adds", "reads", "single"))

    def missing(self) -> str | None:
        return None

    def measure(self, plan: Plan) -> Iterator[Measurement]:
        with temporary_home() as home:
            if plan.wants("adds", "reads"):
                with running_function(_serve, home), running_function(_route, home):
                    wait_until(lambda: (home / "router").exists() and (home / "server").exists(), START_S, NAME)
                    load = in_clients(_echo, [(home, plan.seconds)])
                yield rate("adds", NAME, NO_WORK, load.requests, load.seconds, load.waits_s)
            if plan.wants("single"):
                with running_function(_reply, home):
                    wait_until((home / "rep").exists, START_S, NAME)
                    load = in_clients(_ask, [(home, plan.singles)])
                yield latency("round trip", NAME, NO_WORK, load.waits_s)


def _open(kind: int, address: str = "", *, bind: bool = False) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RCVTIMEO, ANSWER_MS)
    if bind:
        socket.bind(address)
    else:
        socket.connect(address)
    return socket


def _serve(home: Path) -> None:
    socket = _open(zmq.DEALER, f"ipc://{home}/server", bind=True)
    socket.setsockopt(zmq.RCVTIMEO, -1)
    while True:
        socket.send_multipart(socket.recv_multipart())


def _route(home: Path) -> None:
    front = _open(zmq.ROUTER, f"ipc://{home}/router", bind=True)
    back = _open(zmq.DEALER, f"ipc://{home}/server")
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    while True:
        for source, _ in poller.poll():
            other = back if source is front else front
            for _ in range(STEP):
                try:
                    other.send_multipart(source.recv_multipart(zmq.NOBLOCK))
                except zmq.Again:
                    break


def _reply(home: Path) -> None:
    socket = _open(zmq.REP, f"ipc://{home}/rep", bind=True)
    socket.setsockopt(zmq.RCVTIMEO, -1)
    while True:
        socket.send(socket.recv())


def _echo(begin: Begin, home: Path, seconds: float) -> Load:
    socket = _open(zmq.DEALER, f"ipc://{home}/router")
    socket.send_multipart((b"", PAYLOAD))
    socket.recv_multipart()
    begin()
    waits_s: list[float] = []
    sent_s: dict[int, float] = {}
    sent = received = 0
    cpu_s, began_s = time.process_time(), time.perf_counter()
    while time.perf_counter() - began_s < seconds:
        while sent - received < IN_FLIGHT:
            if sent % SAMPLE == 0:
                sent_s[sent] = time.perf_counter()
            socket.send_multipart((b"", PAYLOAD))
            sent += 1
        for _ in range(STEP):  # they come in the order in which they were sent
            socket.recv_multipart()
            if received % SAMPLE == 0:
                waits_s.append(time.perf_counter() - sent_s.pop(received))
            received += 1
    while received < sent:
        socket.recv_multipart()
        received += 1
    return Load(received, time.perf_counter() - began_s, waits_s, time.process_time() - cpu_s)


def _ask(begin: Begin, home: Path, requests: int) -> Load:
    socket = _open(zmq.REQ, f"ipc://{home}/rep")

    def ask(number: int) -> None:
        socket.send(PAYLOAD)
        socket.recv()

    ask(0)
    begin()
    waits_s = one_at_a_time(ask, requests)
    return Load(requests, sum(waits_s), waits_s, 0.0)
