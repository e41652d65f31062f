"""A storage in memory, for tests and for the simulated topology.

The ``disk`` is given by the caller and outlives the storage: what was applied is in it, what was not is forgotten, as
after a crash. ``fail_next`` makes the next ``apply`` fail, having written nothing or everything; ``full`` is the text
of a disk that is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from todomq.database_worker.storage import Page, StorageFailed, Write
from todomq.errors import NOT_APPLIED


class MemoryStorage:
    """One shard kept in ``disk``; see ``Storage``."""

    def __init__(self, disk: dict[bytes, bytes]) -> None:
        self._disk: dict[bytes, bytes] | None = disk
        self.syncs = 0
        self.fail_next: str | None = None  # "before" or "after" the write has reached the disk
        self.full = ""

    def apply(self, writes: Sequence[Write]) -> None:
        disk = self._open()
        self.syncs += 1
        fails, self.fail_next = self.fail_next, None
        if fails != "before":
            for key, value in writes:
                if value is None:
                    disk.pop(key, None)
                else:
                    disk[key] = value
        if fails:
            self.close()
            raise StorageFailed("the disk fails, as the test asked")

    def get(self, key: bytes) -> bytes | None:
        return self._open().get(key)

    def scan(self, prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
        disk = self._open()
        items: list[bytes] = []
        size = 0
        for key in sorted(k for k in disk if k.startswith(prefix) and (after is None or k > after)):
            if size >= limit_bytes and items:
                return Page(items, items[-2])
            items += (key, disk[key])
            size += len(key) + len(disk[key])
        return Page(items, None)

    def lack_of_room(self) -> str:
        return self.full

    def checkpoint(self, directory: Path) -> None:
        raise StorageFailed("a storage in memory has no files to copy", retryable=False, outcome=NOT_APPLIED)

    def tend(self) -> None:
        return

    def stats(self) -> dict[str, int]:
        return {"records": len(self._open())}

    def close(self) -> None:
        self._disk = None

    @property
    def is_closed(self) -> bool:
        """Whether it can neither be read nor written any more."""
        return self._disk is None

    def _open(self) -> dict[bytes, bytes]:
        if self._disk is None:
            raise StorageFailed("the storage is closed after a failure", outcome=NOT_APPLIED)
        return self._disk
