"""What goes to disk together: the items of a group commit, and the commit itself.

Owns: the shape of what ``commit.py`` queues, and its translation into one atomic write. Must not know: how it was
queued. Law 3: a change whose once-record is stored already, or comes earlier in the group, writes nothing. Law 1: with
the batches of a sender goes its mark, the number of the last one, and what is on disk by its mark is not written again.
Writing all of them again would be harmless, but some of them without those behind them would make a state that never
was.

While there is no room, whatever would write is refused and is known not to be applied. Claims are let through: they
take a few bytes, and reads depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from todomq.database_worker.records import mark_key, packed_mark
from todomq.database_worker.storage import Storage, StorageFailed, Write
from todomq.errors import NOT_APPLIED, UNKNOWN, TodoMQError
from todomq.protocol import limits

Told = Callable[[Any], None]
"""Whoever waits for an answer of the shard; called with the value, or with the ``TodoMQError`` that it failed with."""


class TakenBatch(NamedTuple):
    """One batch of a sender as it was taken."""

    size: int
    writes: list[Write]
    sender: bytes
    number: int
    refused: list[list[int]]  # [number, partition, stored epoch]: fenced, so not among the writes
    fault: str  # what makes it invalid, else empty


class Change(NamedTuple):
    """A claim, a store, a record of the worker's own; without writes, answered once all before it is on disk."""

    size: int
    writes: list[Write]
    once: bytes | None  # the key among the writes that says it has taken effect already
    done: Told | None
    value: Any
    client: bytes = b""
    is_claim: bool = False


class Get(NamedTuple):
    """A read of one of the keys that changes write: it sees its client's earlier changes and no later ones."""

    size: int
    key: bytes
    done: Told  # called with the value, None where there is none
    client: bytes = b""
    until_ms: float = inf


Item = TakenBatch | Change | Get

FOUND_BYTES = limits.MIB
"""What the gets of one commit may find: they are answered all at once, and each may find a megabyte."""


class Answered(NamedTuple):
    """The end of a change or a get: ``done`` is to be called with ``outcome``."""

    done: Told
    outcome: Any


def commit_group(
    group: Sequence[Item], storage: Storage, marks: Mapping[bytes, int], now_ms: int, refusal: str = ""
) -> list[Any]:
    """Write a group as one atomic durable commit; runs off the loop.

    Args:
        group: the items.
        storage: where to.
        marks: of each sender the last batch that is on disk.
        now_ms: the time, for what becomes of the marks.
        refusal: why nothing may be written, if nothing may.

    Returns:
        for each item what is to be answered: a change's value, what a get has found (or the error it met); for a batch
        why none of it was written, else None. There are fewer than items where gets have found much: those behind them
        are left for another commit.

    Raises:
        StorageFailed, CorruptRecord: the outcome is unknown.
    """
    refusal = refusal or storage.lack_of_room()
    writes: list[Write] = []
    changed: dict[bytes, bytes | None] = {}
    refused: set[bytes] = set()
    marked: dict[bytes, int] = {}
    outcomes: list[Any] = []
    found_bytes = 0
    for item in group:
        if isinstance(item, Get):
            if found_bytes >= FOUND_BYTES:
                break
            found = _found(item.key, changed, storage)
            if isinstance(found, bytes):
                found_bytes += len(found)
            outcomes.append(found)
        elif isinstance(item, TakenBatch):
            if item.number <= marked.get(item.sender, marks.get(item.sender, 0)):
                outcomes.append(None)  # it was sent again
            elif refusal and (item.writes or item.sender in refused):
                refused.add(item.sender)  # what it sent after this rests on it
                outcomes.append(refusal)
            else:
                outcomes.append(None)
                writes.extend(item.writes)
                if item.writes:
                    marked[item.sender] = item.number
        elif item.once is not None and (known := _found(item.once, changed, storage)) is not None:
            outcomes.append(_whether_known(known) if isinstance(known, TodoMQError) else item.value)
        elif refusal and item.writes and not item.is_claim:
            outcomes.append(StorageFailed(refusal, outcome=NOT_APPLIED))
        else:
            outcomes.append(item.value)
            changed.update(item.writes)
            writes.extend(item.writes)
    writes += [(mark_key(sender), packed_mark(number, now_ms)) for sender, number in marked.items()]
    storage.apply(writes)
    return outcomes


def _whether_known(error: TodoMQError) -> TodoMQError:
    """Mark an error that leaves open whether the change took effect before; return it."""
    error.outcome = UNKNOWN
    return error


def _found(key: bytes, changed: Mapping[bytes, bytes | None], storage: Storage) -> bytes | TodoMQError | None:
    """Return what is under a key once the group so far is written, or why that can't be read."""
    if key in changed:
        return changed[key]
    try:
        return storage.get(key)
    except TodoMQError as error:  # one damaged record is the matter of whoever asked for it
        return error
