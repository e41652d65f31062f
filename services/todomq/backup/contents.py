"""Whether the records of one shard are what they must be: each by itself, and entries with their list's record.

Owns: the checks, what is counted. Pure: it is given keys and values in ascending order. The forms themselves are
defined where they are made, in ``list_server/records.py`` and ``database_worker/records.py``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from todomq.backup import NOT_READ
from todomq.database_worker.records import PROBE_KEY, read_mark
from todomq.errors import CorruptRecord, ProtocolError
from todomq.list_server import records
from todomq.protocol.codec import unpack
from todomq.protocol.partitions import partition_of, worker_of

KINDS = {
    b"d": "once-records", b"h": "the probe's record", b"k": "stored values", b"l": "entries and sessions",
    b"n": "list records", b"p": "epochs", b"q": "marks of senders", b"r": "notes of remains",
}  # fmt: skip
PROBLEMS_MOST = 100
_NUMBER_BYTES = 8


class Problem(NamedTuple):
    """One thing that is wrong: in which file or directory, in which kind of records (empty if in none), and what."""

    where: str
    kind: str
    text: str


def problem_of(where: Path, error: Exception) -> Problem:
    """Return why a shard is not read: it is damaged only if the error says so; any other error may pass."""
    return Problem(str(where), "" if isinstance(error, CorruptRecord) else NOT_READ, str(error))


class ShardContents:
    """The check of one shard.

    Attributes:
        counts: records seen, by kind; ``deleted`` counts lists whose entries are still to be swept.
        problems: what is wrong with them, the first ``PROBLEMS_MOST``.
        problems_more: how many more there are.
    """

    def __init__(self, where: str, worker: int, pool_size: int | None) -> None:
        """Begin with nothing seen; if ``pool_size`` is None, it is not known which partitions the shard has."""
        self.counts: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.problems_more = 0
        self._where = where
        self._worker = worker
        self._pool_size = pool_size
        self._newest: dict[str, int] = {}  # list -> generation of its newest entries, until its record comes
        self._name, self._prefix = "", b"l"
        self._last = (-1, 0)  # generation of the entries of this list that came last, and the id of the last one

    def take(self, key: bytes, value: bytes) -> None:
        """Check one record."""
        try:
            self._check(key, value)
        except (CorruptRecord, ProtocolError) as error:
            self.report(KINDS.get(key[:1], "records of no known kind"), error.text)

    def end(self) -> None:
        """Check what can be told only after every record was seen."""
        for name in self._newest:
            self.report(KINDS[b"n"], f"list {name!r} has entries and no list record")

    def report(self, kind: str, text: str) -> None:
        """Note a problem."""
        if len(self.problems) < PROBLEMS_MOST:
            self.problems.append(Problem(self._where, kind, text))
        else:
            self.problems_more += 1

    def _check(self, key: bytes, value: bytes) -> None:
        match key[:1]:
            case b"l":
                self._check_of_list(key, value)
            case b"n":
                self._check_list(records.name_of(key), value)
            case b"k":
                self.counts["values"] += 1
                unpack(key[1:])
                unpack(value)
            case b"p":
                self.counts["epochs"] += 1
                _check_number(value)
                if len(key) != 2:
                    raise CorruptRecord(f"a key of {len(key)} bytes where 2 are needed")
                self._check_place(key[1])
            case b"r":
                self._check_place(partition_of(records.read_remains_key(key)[1].encode()))
                if value:
                    raise CorruptRecord(f"a value of {len(value)} bytes where none is needed")
            case b"q":
                read_mark(value)
            case b"d":
                self.counts["once"] += 1
                _check_number(value)
            case _ if key == PROBE_KEY:
                _check_number(value)
            case _:
                raise CorruptRecord(f"a key of {len(key)} bytes begins like none of TodoMQ's")

    def _check_of_list(self, key: bytes, value: bytes) -> None:
        if not key.startswith(self._prefix) or not self._name:
            self._name = records.list_of(key)
            self._prefix = records.prefix(self._name)
            self._last = (-1, 0)
            self._check_place(partition_of(self._name.encode()))
        name = self._name
        if records.is_session_key(self._prefix, key):
            self.counts["sessions"] += 1
            records.read_session(name, records.read_session_key(name, key), value)
        else:
            generation, first = records.read_entry_key(name, key)
            self._newest.setdefault(name, generation)  # the newest generation comes first
            _, entries = records.read_run(name, first, value)
            self.counts["entries"] += sum(entry is not None for entry in entries)
            if generation == self._last[0] and first <= self._last[1]:
                raise CorruptRecord(f"list {name!r}: entry {first} is in two records")
            self._last = (generation, first + len(entries) - 1)

    def _check_list(self, name: str, value: bytes) -> None:
        newest = self._newest.pop(name, 0)
        self._check_place(partition_of(name.encode()))
        record = records.read_list(name, value)
        self.counts["deleted" if record.deleted else "lists"] += 1
        if newest > record.generation:
            raise CorruptRecord(f"list {name!r} has entries that are newer than its record")

    def _check_place(self, partition: int) -> None:
        if self._pool_size is not None and worker_of(partition, self._pool_size) != self._worker:
            raise CorruptRecord(f"partition {partition} belongs to worker {worker_of(partition, self._pool_size)}")


def _check_number(value: bytes) -> None:
    if len(value) != _NUMBER_BYTES:
        raise CorruptRecord(f"a value of {len(value)} bytes where a number of {_NUMBER_BYTES} is needed")
