"""Nothing grows without bound (law 6): whatever one client does, the daemons stay small and the others are served.

``TODOMQ_FLOOD_S`` makes the flood longer than 10 s. Bounds on times are wide, for the machine of a test is shared.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from conftest import RunningStack, wait_until

from todomq import Client
from todomq.protocol import limits, messages
from todomq.protocol.codec import unpack
from torture.report import percentile

FLOOD_S = float(os.environ.get("TODOMQ_FLOOD_S", "10"))
ALL_DAEMONS_BYTES = 1 << 30
UNFAIR = 10.0
"""Three is the aim and about four what was measured (docs/reliability.md); before turns were bounded in bytes, 14."""
LEAST_P99_S = 0.03
"""Below this a p99 is as much the machine's as ours."""
TESTS = Path(__file__).parents[1]


class Others:
    """Clients that work at a fixed rate and note how long each request took, seconds."""

    def __init__(self, endpoint: str, name: str, clients: int = 4, rate: float = 25.0) -> None:
        self.took: list[float] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(endpoint, f"{name} {n}", 1 / rate)) for n in range(clients)
        ]

    def __enter__(self) -> Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)

    def _run(self, endpoint: str, name: str, interval_s: float) -> None:
        with Client(endpoint, deadline_s=20.0) as todo:
            while not self._stop.wait(interval_s):
                begun = time.monotonic()
                todo.todo_list(name).add_entry("milk")
                self.took.append(time.monotonic() - begun)

    @property
    def p99_s(self) -> float:
        """What 99 of 100 requests did not exceed."""
        return percentile(self.took, 99)


def memory_of(stack: RunningStack) -> int:
    """Return the memory of all processes of a stack together, bytes (PSS, so that shared pages count once)."""
    return sum(memory(pid) for pid in stack.living())


def memory(pid: int) -> int:
    """Return a process's memory, bytes (PSS); 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def flood_beside(flooded: RunningStack, worked_on: RunningStack, record: Path) -> tuple[Others, int]:
    """Flood one stack while others work on one; return them, and the flooded one's memory at its peak."""
    command = [sys.executable, "-m", "torture.flood", flooded.endpoint, str(FLOOD_S), str(record)]
    flood = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)})
    peak = 0
    try:
        with Others(worked_on.endpoint, f"beside {record.name}") as others:
            while flood.poll() is None:
                peak = max(peak, memory_of(flooded))
                threading.Event().wait(0.2)  # between two looks
    finally:
        flood.kill()
        flood.wait()
    assert flood.returncode == 0
    return others, peak


def test_a_flood_is_refused_in_part_and_others_are_served(
    make_stack: Callable[..., RunningStack], tmp_path: Path
) -> None:
    ours, beside = make_stack(), make_stack()
    ours.start()
    beside.start()
    undisturbed, _ = flood_beside(beside, ours, tmp_path / "beside.json")
    beside.stop()
    disturbed, peak = flood_beside(ours, ours, tmp_path / "ours.json")

    told = json.loads((tmp_path / "ours.json").read_text())
    acknowledged = sum(map(len, told["acknowledged"].values()))
    print(f"flood of {FLOOD_S:g} s: {told['counts']}, acknowledged {acknowledged}; memory at most {peak >> 20} MiB")
    p99_ms = [round(others.p99_s * 1000) for others in (undisturbed, disturbed)]
    print(f"others' p99, ms: {p99_ms[0]} where the flood is beside, {p99_ms[1]} where it is in the same stack")
    assert told["counts"]["overloaded"] > 0 and acknowledged > 0
    assert peak < ALL_DAEMONS_BYTES
    with Client(ours.endpoint, deadline_s=60.0) as todo:
        for name, entries in told["acknowledged"].items():
            stored = {entry.id: entry.title for entry in todo.todo_list(name).entries()}
            assert all(stored.get(identifier) == title for identifier, title in entries), name
    assert disturbed.p99_s < UNFAIR * max(undisturbed.p99_s, LEAST_P99_S)


# ZMTP 3.0 (rfc.zeromq.org/spec/23): the greeting, READY of a DEALER, then the head of a long frame.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
READY = b"\x04" + bytes([len(_READY)]) + _READY
HALF_A_MESSAGE = b"\x01\x00" + b"\x02" + (1_000_000).to_bytes(8, "big") + bytes(500_000)


def vanish_200_times(path: str) -> None:
    """Connect 200 times, each sending half a message, then leave."""
    callers = []
    for _ in range(200):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        callers.append(caller)
        caller.settimeout(5.0)
        caller.connect(path)
        caller.sendall(GREETING)
        caller.sendall(READY)
        caller.setblocking(False)
        assert caller.send(HALF_A_MESSAGE) > 10
    for caller in callers:
        caller.close()


def test_clients_that_vanish_in_mid_message_leave_nothing_behind(shared_stack: RunningStack) -> None:
    router = shared_stack.pid("router")
    path = str(shared_stack.home / "run" / "router")
    vanish_200_times(path)  # what the allocator keeps for good it has then
    before = descriptors(router)
    wait_until(lambda: descriptors(router) < 100, 10.0, "the connections are closed")
    before, memory_before = descriptors(router), memory(router)
    for _ in range(3):
        vanish_200_times(path)
    wait_until(lambda: descriptors(router) <= before, 10.0, "the connections are closed")
    wait_until(lambda: memory(router) < memory_before + (32 << 20), 10.0, "their memory is given back")
    assert shared_stack.ask("router") == "pong"


def raw_call(endpoint: str, target: str | None, body: bytes, timeout_s: float = 10.0) -> list[Any] | None:
    """Ask the router from a REQ socket of its own: the reply ``[id, status, value]``, None where there is none."""
    request: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
    try:
        request.setsockopt(zmq.LINGER, 0)
        request.connect(endpoint)
        request.send(messages.call(os.urandom(16), [[1, target, 0, body, 1, 1]]))
        if not request.poll(int(timeout_s * 1000)):
            return None
        replies = messages.read_replies(messages.read(request.recv())[1])
        return list(replies[0])
    finally:
        request.close()


def test_a_title_of_a_mebibyte_is_refused_and_a_message_of_100_is_cut_off(shared_stack: RunningStack) -> None:
    endpoint, router = shared_stack.endpoint, shared_stack.pid("router")
    before = memory(router)
    with Others(endpoint, "large") as others:
        for title in ("x" * (limits.MIB - 100), "x" * (limits.MIB + 1)):
            reply = raw_call(endpoint, "large", messages.body("add_entry", title, None))
            assert reply is not None and reply[1] == messages.ERROR
            assert messages.read_error(reply[2]).code in ("invalid_request", "protocol_error")
        assert raw_call(endpoint, "large", bytes(100 * limits.MIB), 2.0) is None
        seen = len(others.took)
        wait_until(lambda: len(others.took) > seen + 20, 20.0, "the others go on")
    assert memory(router) < before + (32 << 20)
    assert max(others.took) < 2.0
    reply = raw_call(endpoint, "large", messages.body("size"))
    assert reply is not None and unpack(reply[2]) == 0


@pytest.fixture(scope="module")
def long_list(shared_stack: RunningStack) -> str:
    """Return the name of a list with 100,000 entries."""
    with Client(shared_stack.endpoint, deadline_s=60.0) as todo:
        for start in range(0, 100_000, 10_000):
            todo.todo_list("long").add_entries([(f"entry {n}", None) for n in range(start, start + 10_000)])
    return "long"


def test_who_never_reads_its_answers_costs_nobody_anything(shared_stack: RunningStack, long_list: str) -> None:
    endpoint, router = shared_stack.endpoint, shared_stack.pid("router")
    pids = shared_stack.pids()
    deaf: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    deaf.setsockopt(zmq.LINGER, 0)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.setsockopt(zmq.RCVBUF, 4096)
    deaf.connect(endpoint)
    sender = os.urandom(16)
    try:
        with Others(endpoint, "beside the deaf") as others:
            for number in range(1, 1001):  # a quarter of a GiB of answers
                body = messages.body("entries")
                deaf.send_multipart([b"", messages.call(sender, [[number, long_list, 0, body, 1, 1]])])
            seen = len(others.took)
            wait_until(lambda: len(others.took) > seen + 200, 30.0, "the others go on")
        used = memory(router)
        print(f"router with a deaf client: {used >> 20} MiB; others' slowest {max(others.took) * 1000:.0f} ms")
        assert used < 256 << 20 and max(others.took) < 5.0
        # Reads of a long list, so many that a turn of seconds would have its server taken for hung and ended.
        assert shared_stack.pids() == pids
    finally:
        deaf.close()


def test_a_list_of_100_000_entries_is_read_and_cleared_and_nobody_waits(
    shared_stack: RunningStack, long_list: str
) -> None:
    with Others(shared_stack.endpoint, "beside the long") as others, Client(shared_stack.endpoint, 60.0) as todo:
        entries = todo.todo_list(long_list).entries()
        assert [entry.id for entry in entries] == list(range(1, 100_001))
        begun = time.monotonic()
        todo.todo_list(long_list).clear()
        cleared_s = time.monotonic() - begun
        assert todo.todo_list(long_list).entries() == []
        assert todo.todo_list(long_list).add_entry("again").id == 1
        seen = len(others.took)
        wait_until(lambda: len(others.took) > seen + 50, 20.0, "the others go on")
    print(f"cleared in {cleared_s * 1000:.0f} ms; others' slowest {max(others.took) * 1000:.0f} ms")
    assert cleared_s < 2.0 and max(others.took) < 2.0
