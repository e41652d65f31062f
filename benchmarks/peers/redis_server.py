"""Redis with ``appendfsync always``: through redis-py's pipelines, and through redis-benchmark as the native limit.

An add is an RPUSH of a packed entry on the list of that name (the answer, its new length, is the entry's id); a read is
an LRANGE of a list of one entry. Durable: Redis answers what it drained in a turn after one fsync. A Unix socket, as
TodoMQ's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack

from benchmarks.figures import Measurement, latency, rate
from benchmarks.loads import Begin, Load, in_clients, in_rounds, one_at_a_time
from benchmarks.plan import DAY, DURABLE, IN_FLIGHT, LISTS, TITLE, Plan
from benchmarks.processes import listens, running, temporary_home

PIPELINED = "redis-py"
NATIVE = "redis-benchmark"
ENTRY = msgpack.packb([TITLE, DAY.isoformat()])
NATIVE_ENTRY = f"{TITLE}  {DAY.isoformat()}"
"""As long as ``ENTRY``; redis-benchmark takes text."""
NATIVE_MOST_S = 120.0
NATIVE_PER_S = 300_000
"""How many requests redis-benchmark is given for each second that a load should last."""


class RedisServer:
    """The peer."""

    name = "Redis"
    workloads = frozenset(("adds", "batches", "reads", "mixed", "single"))

    def missing(self) -> str | None:
        if shutil.which("redis-server") is None or shutil.which("redis-benchmark") is None:
            return "redis-server and redis-benchmark (apt-get install redis-server)"
        try:
            import redis  # noqa: F401
        except ImportError:
            return "redis-py (pip install redis)"
        return None

    def measure(self, plan: Plan) -> Iterator[Measurement]:
        with temporary_home() as home, running(_command(home), home, lambda: listens(home / "redis")):
            if plan.wants("adds", "batches"):
                load = in_clients(_pipelined, [(home, plan.seconds, 10)])
                yield rate("adds", PIPELINED, DURABLE, load.requests, load.seconds, load.waits_s)
                pushed = _native(home, plan, "rpush", "native __rand_int__", NATIVE_ENTRY)
                yield rate("adds", NATIVE, DURABLE, *pushed)
            if plan.wants("reads"):
                load = in_clients(_pipelined, [(home, plan.seconds, 0)])
                yield rate("reads", PIPELINED, DURABLE, load.requests, load.seconds, load.waits_s)
                yield rate("reads", NATIVE, DURABLE, *_native(home, plan, "lrange", "read __rand_int__", "0", "0"))
            if plan.wants("mixed"):
                load = in_clients(_pipelined, [(home, plan.seconds, 1)])
                yield rate("mixed", PIPELINED, DURABLE, load.requests, load.seconds, load.waits_s)
            if plan.wants("single"):
                load = in_clients(_single, [(home, plan.singles, True)])
                yield latency("add alone", PIPELINED, DURABLE, load.waits_s)
                load = in_clients(_single, [(home, plan.singles, False)])
                yield latency("read alone", PIPELINED, DURABLE, load.waits_s)


def _command(home: Path) -> list[str]:
    return [
        "redis-server", "--port", "0", "--unixsocket", str(home / "redis"), "--dir", str(home), "--save", "",
        "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0",
    ]  # fmt: skip


def _connect(home: Path) -> Any:
    import redis

    return redis.Redis(unix_socket_path=str(home / "redis"))


def _pipelined(begin: Begin, home: Path, seconds: float, adds_of_ten: int) -> Load:
    """Send a thousand requests at once, of each ten so many adds, the others reads."""
    client = _connect(home)
    lists = _filled_lists(client)
    added = [f"add {number}" for number in range(LISTS)]

    def exchange() -> int:
        pipeline = client.pipeline(transaction=False)
        for number in range(IN_FLIGHT):
            if number % 10 < adds_of_ten:
                pipeline.rpush(added[number % LISTS], ENTRY)
            else:
                pipeline.lrange(lists[number % LISTS], 0, 0)
        return len(pipeline.execute())

    exchange()
    begin()
    return in_rounds(exchange, seconds)


def _single(begin: Begin, home: Path, requests: int, is_add: bool) -> Load:
    client = _connect(home)
    lists = _filled_lists(client)
    ask: Callable[[int], Any]
    if is_add:
        ask = lambda number: client.rpush(f"single {number % LISTS}", ENTRY)  # noqa: E731
    else:
        ask = lambda number: client.lrange(lists[number % LISTS], 0, 0)  # noqa: E731
    one_at_a_time(ask, 50)
    begin()
    waits_s = one_at_a_time(ask, requests)
    return Load(requests, sum(waits_s), waits_s, 0.0)


def _filled_lists(client: Any) -> list[str]:
    """Give each list one entry, under the names that redis-benchmark makes as well (twelve digits)."""
    names = [f"read {number:012}" for number in range(LISTS)]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.delete(name).rpush(name, ENTRY)
    pipeline.execute()
    return names


def _native(home: Path, plan: Plan, *command: str) -> tuple[int, float]:
    """Run redis-benchmark with one client of a thousand requests in flight; return requests and seconds."""
    requests = int(plan.seconds * NATIVE_PER_S)
    said = subprocess.run(
        ["redis-benchmark", "-s", str(home / "redis"), "-c", "1", "-P", str(IN_FLIGHT), "-r", str(LISTS),
         "-n", str(requests), "--csv", *command],
        capture_output=True, text=True, check=True, timeout=NATIVE_MOST_S, env={**os.environ, "LC_ALL": "C"},
    ).stdout  # fmt: skip
    # The last line: "the command","requests per second",...
    per_second = float(said.strip().splitlines()[-1].split('","')[1].strip('"'))
    return requests, requests / per_second
