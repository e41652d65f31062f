"""RocksDB alone, in one process: batches of 100 puts, each batch synced; and one synced put at a time.

Durable. It is the limit of the storage that TodoMQ uses by default, without any message or list.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Measurement, latency, rate
from benchmarks.loads import Begin, Load, in_clients, in_rounds, one_at_a_time
from benchmarks.plan import DURABLE, LISTS, TITLE, Plan
from benchmarks.processes import temporary_home

NAME = "RocksDB alone"
BATCH = 100


class RocksDBAlone:
    """The peer."""

    name = NAME
    workloads = frozenset(("adds", "single"))

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("rocksdict") else "rocksdict (pip install rocksdict)"

    def measure(self, plan: Plan) -> Iterator[Measurement]:
        with temporary_home() as home:
            if plan.wants("adds"):
                load = in_clients(_batches, [(home / "batches", plan.seconds)])
                yield rate("adds", NAME, DURABLE, load.requests, load.seconds, load.waits_s)
            if plan.wants("single"):
                load = in_clients(_puts, [(home / "puts", plan.singles)])
                yield latency("put alone", NAME, DURABLE, load.waits_s)


def _open(path: Path) -> tuple[Any, Any]:
    from rocksdict import Options, Rdict, WriteOptions

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    synced = WriteOptions()
    synced.sync = True
    return Rdict(str(path), options), synced


def _key(number: int) -> bytes:
    return b"llist %d e%d" % (number % LISTS, number)


def _batches(begin: Begin, path: Path, seconds: float) -> Load:
    from rocksdict import WriteBatch

    db, synced = _open(path)
    value = TITLE.encode()
    number = 0

    def write() -> int:
        nonlocal number
        batch = WriteBatch(raw_mode=True)
        for _ in range(BATCH):
            batch.put(_key(number), value)
            number += 1
        db.write(batch, synced)
        return BATCH

    begin()
    load = in_rounds(write, seconds)
    db.close()
    return load


def _puts(begin: Begin, path: Path, requests: int) -> Load:
    db, synced = _open(path)
    value = TITLE.encode()
    begin()
    waits_s = one_at_a_time(lambda number: db.put(_key(number), value, write_opt=synced), requests)
    db.close()
    return Load(requests, sum(waits_s), waits_s, 0.0)
