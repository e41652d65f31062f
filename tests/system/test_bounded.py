"""Nothing grows without bound (law 6): whatever one client does, the daemons stay small and the others are served.

``TODOMQ_FLOOD_S`` makes the flood longer than 15 s in all. Bounds on single times are wide: a test shares its machine.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
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
from test_recovery import DAEMONS

from todomq import Client
from todomq.protocol import limits, messages
from todomq.protocol.codec import unpack
from torture.report import percentile

FLOOD_S = float(os.environ.get("TODOMQ_FLOOD_S", "15"))
ALL_DAEMONS_BYTES = 1 << 30
ROUNDS = 3
UNFAIR = 4.0
"""By how much the others' p99 may grow, in the median round. Three is the aim, and 0.8 to 1.1 what it is on a machine
that does nothing else; with ten processes for each core that wanted to run it was 3.3 (docs/reliability.md)."""
SPARE_DESCRIPTORS = 8
"""Files of the storage engine, connections of other daemons: they come and go."""
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


def flood_beside(
    flooded: RunningStack, worked_on: RunningStack, seconds: float, record: Path
) -> tuple[list[float], int]:
    """Flood one stack while others work on one; return how long their requests took, and the flooded one's memory."""

    def run(*command: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        return subprocess.Popen([sys.executable, "-m", *map(str, command)], env=environment)

    took = record.with_suffix(".others")
    # The others begin once the flood runs and end before it does.
    flood = run("torture.flood", flooded.endpoint, seconds + 2.0, record)
    children = [flood]
    peak = 0
    try:
        wait_until(lambda: flooded.ask("router", "stats", 1.0)["requests"] > 0, 20.0, "the flood runs")
        children.append(run("torture.others", worked_on.endpoint, seconds, f"beside {record.name}", took))
        while flood.poll() is None:
            peak = max(peak, memory_of(flooded))
            threading.Event().wait(1.0)  # between two looks: to add up a process's memory holds it up
    finally:
        for child in children:
            child.kill() if child.poll() is None and child is flood else child.wait(60.0)
            child.wait()
    assert [child.returncode for child in children] == [0, 0]
    return list(json.loads(took.read_text())), peak


def compare(endpoint: str, told: dict[str, Any]) -> int:
    """Read every list of a flood whole and find every acknowledged entry; return how many there were."""
    with Client(endpoint, deadline_s=60.0) as todo:
        for name, entries in told["acknowledged"].items():
            stored = {entry.id: entry.title for entry in todo.todo_list(name).entries()}
            missing = [(identifier, title) for identifier, title in entries if stored.get(identifier) != title]
            assert not missing, f"{len(missing)} of {len(entries)} acknowledged entries of {name}: {missing[:5]}"
            assert len({identifier for identifier, _ in entries}) == len(entries), f"{name}: an id was given twice"
    return sum(map(len, told["acknowledged"].values()))


def test_a_flood_is_refused_in_part_and_others_are_served(
    make_stack: Callable[..., RunningStack], tmp_path: Path
) -> None:
    """Rounds with the flood in another stack and in theirs alternate, so that the machine is as busy in both."""
    ours, beside = make_stack(), make_stack()
    ours.start()
    beside.start()
    ratios, acknowledged, overloaded, peak = [], 0, 0, 0
    for number in range(ROUNDS):
        undisturbed, _ = flood_beside(beside, ours, FLOOD_S / ROUNDS, tmp_path / f"beside {number}.json")
        disturbed, most = flood_beside(ours, ours, FLOOD_S / ROUNDS, tmp_path / f"ours {number}.json")
        told = json.loads((tmp_path / f"ours {number}.json").read_text())
        acknowledged += compare(ours.endpoint, told)
        overloaded += told["counts"]["overloaded"]
        peak = max(peak, most)
        p50s, p99s = ([percentile(took, part) for took in (undisturbed, disturbed)] for part in (50, 99))
        ratios.append(p99s[1] / max(p99s[0], LEAST_P99_S))
        print(
            f"flood of {FLOOD_S / ROUNDS:g} s: {told['counts']}; others' p50 and p99, ms: beside it"
            f" {p50s[0] * 1000:.0f}, {p99s[0] * 1000:.0f}; in it {p50s[1] * 1000:.0f}, {p99s[1] * 1000:.0f}"
        )
    print(
        f"acknowledged and there afterwards: {acknowledged}; Overloaded: {overloaded}; memory at most {peak >> 20} MiB;"
        f" p99 in it / beside it: median {statistics.median(ratios):.1f} of {[round(ratio, 1) for ratio in ratios]}"
    )
    assert overloaded > 0 and acknowledged > 0
    assert peak < ALL_DAEMONS_BYTES
    assert statistics.median(ratios) < UNFAIR


# ZMTP 3.0 (rfc.zeromq.org/spec/23): the greeting, READY of a DEALER or a PUSH, then the head of a long frame.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def ready(kind: bytes) -> bytes:
    """Return the READY of a socket of this kind."""
    command = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind + b"\x08Identity" + bytes(4)
    return b"\x04" + bytes([len(command)]) + command


HALF_A_MESSAGE = b"\x01\x00" + b"\x02" + (1_000_000).to_bytes(8, "big") + bytes(500_000)


def vanish_200_times(path: str) -> None:
    """Connect 200 times, each sending half a message, then leave. Where a PULL listens the path has a suffix."""
    callers = []
    for _ in range(200):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        callers.append(caller)
        caller.settimeout(5.0)
        caller.connect(path)
        caller.sendall(GREETING)
        caller.sendall(ready(b"DEALER" if "." not in path.rsplit("/", 1)[1] else b"PUSH"))
        caller.setblocking(False)
        assert caller.send(HALF_A_MESSAGE) > 10
    for caller in callers:
        caller.close()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_clients_that_vanish_in_mid_message_leave_nothing_behind(shared_stack: RunningStack, daemon: str) -> None:
    """Every socket of the daemon: what it is asked at, and where batches of writes or words about them come in."""
    pid, run = shared_stack.pid(daemon), shared_stack.home / "run"
    paths = [str(run / name) for name in shared_stack.sockets() if name == daemon or name.startswith(f"{daemon}.")]
    assert str(run / daemon) in paths
    idle = descriptors(pid)
    for path in paths:
        vanish_200_times(path)  # what the allocator keeps for good it has then
    wait_until(lambda: descriptors(pid) <= idle + SPARE_DESCRIPTORS, 10.0, "the connections are closed")
    memory_before = memory(pid)
    for _ in range(3):
        for path in paths:
            vanish_200_times(path)
    wait_until(lambda: descriptors(pid) <= idle + SPARE_DESCRIPTORS, 10.0, "the connections are closed")
    wait_until(lambda: memory(pid) < memory_before + (32 << 20), 10.0, "their memory is given back")
    assert shared_stack.ask(daemon) == "pong" and shared_stack.pid(daemon) == pid


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
