"""What a database worker asks of a storage engine: atomic durable writes, single reads, ordered pages.

Owns: the interface and its errors. Must not know: partitions, claims, senders; they are built above it, out of
ordinary records. Engines stand beside this file; nothing outside this folder knows which one is in use.

Law 1: what ``apply`` wrote is on disk when it returns, and a read never shows what a crash could still undo.
Law 8: what cannot be read raises ``CorruptRecord``; it is never taken for "nothing there".

    manifest      which shards a stack has, and whose each directory is
    rocksdb       the engine
    acknowledged  what must at least be in a shard
    live_logs     whether its logs follow on each other and on its tables
    log_files     whether a log was cut short by a crash or damaged
    room          how much of the disk is left
    small_files   files that are written whole, with a checksum
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from todomq.errors import UNKNOWN, Unavailable

Write = tuple[bytes, bytes | None]
"""An absolute put of a value under a key; value None deletes."""


class StorageFailed(Unavailable):
    """The engine could not read or write (a full disk, say). What was being written may or may not be on disk."""

    def __init__(self, text: str, *, retryable: bool | None = None, outcome: str = UNKNOWN) -> None:
        super().__init__(text, retryable=retryable, outcome=outcome)


class StorageInUse(StorageFailed):
    """Another process has the shard open: what it holds may change, so it is not to be read either."""


class Page(NamedTuple):
    """Part of an ordered scan. ``last`` is the key to go on after, None where nothing is left."""

    items: list[bytes]  # key, value, key, value, ...
    last: bytes | None


class Storage(Protocol):
    """One shard. Any thread may call; a read waits while an ``apply`` or a ``checkpoint`` is under way.

    Attributes:
        syncs: how often ``apply`` has waited for the disk so far.
    """

    syncs: int

    def apply(self, writes: Sequence[Write]) -> None:
        """Write all or nothing, in order; on disk when it returns.

        Raises:
            StorageFailed: the outcome is unknown, and every later call raises until the storage is opened anew.
            CorruptRecord: the same, for the engine has met damage; opening anew may not help.
        """

    def get(self, key: bytes) -> bytes | None:
        """Return the value under a key, None where there is none.

        Raises:
            CorruptRecord: it cannot be read.
            StorageFailed: the storage is closed or has failed.
        """

    def scan(self, prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
        """Return the records whose key begins with ``prefix``, ascending, from the first key above ``after``.

        A page ends once it holds ``limit_bytes`` of keys and values; it holds at least one record if there is one.

        Raises:
            CorruptRecord, StorageFailed: as ``get``.
        """

    def lack_of_room(self) -> str:
        """Return why no more than a few bytes may be written at the moment (a full disk); empty where there is room.

        Asked before each commit: what is refused then is known not to be applied, and the storage stays open.
        """

    def checkpoint(self, directory: Path) -> None:
        """Make a directory of this name that holds all that was applied, a shard of its own, whole and on disk.

        Raises:
            StorageFailed: it cannot be written. CorruptRecord: what is to be copied cannot be read.
        """

    def tend(self) -> None:
        """Do what may wait a while; called about once a second."""

    def stats(self) -> dict[str, int]:
        """Return a few numbers: ``records`` (estimated), perhaps ``disk_bytes`` and ``memory_bytes``."""

    def close(self) -> None:
        """Let go of the shard; again is harmless."""


OpenStorage = Callable[[bool], Storage]
"""Opens a shard: for reading only where the argument is true, which needs no room on the disk. Raises as engines do."""
