"""What goes to disk together: the items of a group commit, and the commit itself.

Owns: the shape of what ``commit.py`` queues, and its translation into one atomic write. Must not know: how it was
queued. Law 3: a change whose once-record is stored already, or comes earlier in the group, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from todomq.database_worker.storage import Storage, Write

Ask = Callable[[Any], None]
"""Whoever waits for a change; called with the value, or with the ``TodoMQError`` that it failed with."""


class Batch(NamedTuple):
    """One batch of a sender as it was taken."""

    size: int
    writes: list[Write]
    sender: bytes
    number: int
    refused: list[list[int]]  # [number, partition, stored epoch]: fenced, so not among the writes
    fault: str  # what makes it invalid, else empty


class Change(NamedTuple):
    """A claim, a store, a record of the worker's own; without writes, a mark passed once all before it is on disk."""

    size: int
    writes: list[Write]
    once: bytes | None  # the key among the writes that says it has taken effect already
    ask: Ask | None
    value: Any


Item = Batch | Change


class Answered(NamedTuple):
    """The end of a change: ``ask`` is to be called with ``outcome``."""

    ask: Ask
    outcome: Any


def commit_group(group: Sequence[Item], storage: Storage) -> None:
    """Write a group as one atomic durable commit; runs off the loop.

    Raises:
        StorageFailed: the outcome is unknown. CorruptRecord: a once-record cannot be read.
    """
    writes: list[Write] = []
    done: set[bytes] = set()
    for item in group:
        if isinstance(item, Change) and item.once is not None:
            if item.once in done or storage.get(item.once) is not None:
                continue
            done.add(item.once)
        writes.extend(item.writes)
    storage.apply(writes)
