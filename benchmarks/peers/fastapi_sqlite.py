"""FastAPI, uvicorn (httptools, uvloop), SQLite with WAL and synchronous FULL: what a Python developer would build.

Durable: each add is committed, with an fsync, before its answer. The client writes ready-made HTTP/1.1 requests to a
few connections and only looks for the ends of the answers, so nearly all of the time is the service's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Measurement, latency, rate
from benchmarks.loads import Begin, Load, in_clients, in_rounds, one_at_a_time
from benchmarks.plan import DAY, DURABLE, IN_FLIGHT, LISTS, TITLE, Plan
from benchmarks.processes import listens, running, temporary_home

NAME = "FastAPI+SQLite"
CONNECTIONS = 20
NEEDED = ("fastapi", "uvicorn", "httptools", "uvloop")
ROOT = Path(__file__).parents[2]


class FastAPISQLite:
    """The peer."""

    name = NAME
    workloads = frozenset(("adds", "reads", "mixed", "single"))

    def missing(self) -> str | None:
        absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} (pip install {' '.join(absent)})" if absent else None

    def measure(self, plan: Plan) -> Iterator[Measurement]:
        with temporary_home() as home:
            environment = {**os.environ, "BENCH_DATABASE": str(home / "lists.sqlite"), "PYTHONPATH": str(ROOT)}
            command = [
                sys.executable, "-m", "uvicorn", "benchmarks.peers.fastapi_app:app", "--uds", str(home / "http"),
                "--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools",
            ]  # fmt: skip
            with running(command, home, lambda: listens(home / "http"), environment):
                for workload, adds_of_ten in (("adds", 10), ("reads", 0), ("mixed", 1)):
                    if plan.wants(workload):
                        load = in_clients(_pipelined, [(home, plan.seconds, adds_of_ten)])
                        yield rate(workload, NAME, DURABLE, load.requests, load.seconds, load.waits_s)
                if plan.wants("single"):
                    load = in_clients(_single, [(home, plan.singles, True)])
                    yield latency("add alone", NAME, DURABLE, load.waits_s)
                    load = in_clients(_single, [(home, plan.singles, False)])
                    yield latency("read alone", NAME, DURABLE, load.waits_s)


class _Connection:
    """One connection to the service, with as many requests in flight as its user sends before it reads."""

    def __init__(self, home: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30.0)
        self._socket.connect(str(home / "http"))
        self._rest = b""

    def send(self, requests: bytes) -> None:
        self._socket.sendall(requests)

    def receive(self, answers: int) -> None:
        """Read so many answers; all must be good ones."""
        while answers:
            head, found, body = self._rest.partition(b"\r\n\r\n")
            length = _length(head) if found else 0
            if not found or len(body) < length:
                received = self._socket.recv(1 << 18)
                if not received:
                    raise RuntimeError("the service closed the connection")
                self._rest += received
                continue
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"refused: {head[:100]!r} {body[:200]!r}")
            self._rest = body[length:]
            answers -= 1


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])


def _add(name: str) -> bytes:
    body = json.dumps({"title": TITLE, "date": DAY.isoformat()})
    return (
        f"POST /lists/{name}/entries HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _read(name: str) -> bytes:
    return f"GET /lists/{name}/entries?date={DAY.isoformat()} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def _pipelined(begin: Begin, home: Path, seconds: float, adds_of_ten: int) -> Load:
    """Send a thousand requests over a few connections, of each ten so many adds, and read the answers."""
    _fill(home)
    connections = [_Connection(home) for _ in range(CONNECTIONS)]
    share = IN_FLIGHT // CONNECTIONS
    packets = [
        b"".join(
            _add(f"add-{number % LISTS}") if number % 10 < adds_of_ten else _read(f"read-{number % LISTS}")
            for number in range(place * share, (place + 1) * share)
        )
        for place in range(CONNECTIONS)
    ]

    def exchange() -> int:
        for connection, packet in zip(connections, packets):
            connection.send(packet)
        for connection in connections:
            connection.receive(share)
        return IN_FLIGHT

    begin()
    return in_rounds(exchange, seconds)


def _single(begin: Begin, home: Path, requests: int, is_add: bool) -> Load:
    _fill(home)
    connection = _Connection(home)

    def ask(number: int) -> None:
        connection.send(_add(f"single-{number % LISTS}") if is_add else _read(f"read-{number % LISTS}"))
        connection.receive(1)

    one_at_a_time(ask, 50)
    begin()
    waits_s = one_at_a_time(ask, requests)
    return Load(requests, sum(waits_s), waits_s, 0.0)


def _fill(home: Path) -> None:
    """Give each list that is read its one entry, past the service."""
    import sqlite3

    with sqlite3.connect(home / "lists.sqlite", timeout=30.0) as database:
        database.executemany(
            "INSERT OR IGNORE INTO entry VALUES (?, 1, ?, ?)",
            [(f"read-{number}", TITLE, DAY.isoformat()) for number in range(LISTS)],
        )
    database.close()
