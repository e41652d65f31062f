"""The fake disk of one database worker: what was committed outlives every process; the disk is slow, full or failing.

Owns: the records, how long work takes, which commit fails. Must not know: what records mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from memory_storage import MemoryStorage
from todomq.database_worker.shard import COMMITS
from todomq.database_worker.storage import StorageFailed, Write
from todomq.errors import NOT_APPLIED
from topology.clock import MS_US

QUICK_US = (50, 1_500)
SLOW_US = (20 * MS_US, 400 * MS_US)


class Disk:
    """One disk.

    Attributes:
        is_slow: work takes long.
        is_slow_to_sync: commits take long, and what is cached is read as quickly as ever.
        is_full: every commit fails, having written nothing.
        is_low: room is left for no more than claims, so changes are refused before they are written.
        failing: what becomes of the next commits: each fails ``before`` or ``after`` it has reached the disk.
        stalled_us: how much longer than else any work takes.
        syncs_stalled_us: how much longer than else a commit takes.
        open_failures: how many attempts to open storage for changes fail from now on.
        is_out_of_reach: it can't be opened for reading either.
    """

    def __init__(self, random: Random) -> None:
        self.records: dict[bytes, bytes] = {}
        self.is_slow = False
        self.is_slow_to_sync = False
        self.is_full = False
        self.is_low = False
        self.failing: list[str] = []
        self.stalled_us = 0
        self.syncs_stalled_us = 0
        self.open_failures = 0
        self.is_out_of_reach = False
        self._random = random

    def open(self, read_only: bool) -> MemoryStorage:
        """Open the storage; for reading only it can be opened whatever fails, unless it is out of reach.

        Raises:
            StorageFailed: as the nemesis asked.
        """
        if self.is_out_of_reach:
            raise StorageFailed("the storage is out of reach", outcome=NOT_APPLIED)
        if self.open_failures and not read_only:
            self.open_failures -= 1
            raise StorageFailed("the storage cannot be opened now", outcome=NOT_APPLIED)
        return _Storage(self)

    def latency_us(self, lane: str) -> int:
        """Return how long the next work of a lane takes."""
        is_commit = lane == COMMITS
        is_slow = self.is_slow or (is_commit and self.is_slow_to_sync)
        stalled_us = self.stalled_us + (self.syncs_stalled_us if is_commit else 0)
        return stalled_us + self._random.randint(*(SLOW_US if is_slow else QUICK_US))

    def fate(self) -> str | None:
        """Return where the next commit fails, if it does."""
        if self.is_full:
            return "before"
        return self.failing.pop() if self.failing else None

    def heal(self) -> None:
        """Fail no more."""
        self.is_slow = self.is_slow_to_sync = self.is_full = self.is_low = self.is_out_of_reach = False
        self.failing.clear()
        self.open_failures = 0


class _Storage(MemoryStorage):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.records)
        self._fate = disk.fate
        self._of = disk

    def lack_of_room(self) -> str:
        return "the disk is full, as the nemesis asked" if self._of.is_low else ""

    def apply(self, writes: Sequence[Write]) -> None:
        if writes:
            self.fail_next = self._fate()
        super().apply(writes)
