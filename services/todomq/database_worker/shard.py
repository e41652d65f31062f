"""One shard at work: its queue (``commit.py``) and its storage, joined by two lanes off the loop.

Owns: the storage, the commit in flight, opening storage again after a failure, reads, the sweep of once-records.
Must not know: sockets, requests, which engine is used. Used by ``service.py``.

Law 1: whatever is answered after a change was on disk before. Law 5: neither a commit nor a read holds up the loop.
Law 6: reads that wait are bounded, as changes and batches are in ``commit.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from todomq.database_worker import records
from todomq.database_worker.commit import Commits
from todomq.database_worker.group import Ask, commit_group
from todomq.database_worker.storage import Storage, StorageFailed
from todomq.errors import NOT_APPLIED, CorruptRecord, Overloaded, TodoMQError
from todomq.protocol.messages import Committed
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import Loop

COMMITS = "commits"  # the lanes, a thread each
READS = "reads"
WAITING_READS = 4_096
REOPEN_S = 0.5
SWEEP_S = 1.0


class Shard:
    """The storage of one worker and what goes into it."""

    def __init__(
        self, loop: Loop, incarnation: bytes, partitions: Container[int], open_storage: Callable[[], Storage]
    ) -> None:
        """Open storage.

        Raises:
            CorruptRecord: it cannot be read. StorageFailed: it cannot be opened at the moment.
        """
        self._loop = loop
        self._open_storage = open_storage
        self._storage = open_storage()
        self.is_open = True
        self._reads_waiting = 0
        self._swept_to: bytes | None = None
        self._storage_stats = self._storage.stats()
        self.commits = Commits(incarnation, partitions, records.read_epochs(self._storage))
        loop.every(SWEEP_S, self._sweep)

    def check_open(self) -> None:
        """Raise StorageFailed while storage is not open."""
        if not self.is_open:
            raise StorageFailed("storage failed and is being opened again", outcome=NOT_APPLIED)

    def end_turn(self) -> list[Committed]:
        """Begin the next commit, answer the changes that are settled, return the words for senders."""
        if self.is_open:
            group = self.commits.next_group()
            if group:
                self._loop.offload(lambda: commit_group(group, self._storage), self._committed, COMMITS)
        words, answers = self.commits.drain()
        for ask, outcome in answers:
            ask(outcome)
        return words

    def read(self, read: Callable[[Storage], Any], ask: Ask) -> None:
        """Run ``read`` off the loop; ``ask`` gets what it returns, or the error."""
        if self._reads_waiting >= WAITING_READS:
            ask(Overloaded("too many reads wait for this database worker"))
            return
        self._reads_waiting += 1
        storage = self._storage

        def done(value: Any, error: BaseException | None) -> None:
            self._reads_waiting -= 1
            if error is not None and not isinstance(error, TodoMQError):
                log("read_failed", why=repr(error))
                error = TodoMQError(f"internal error: {type(error).__name__}")
            ask(value if error is None else error)

        self._loop.offload(lambda: read(storage), done, READS)

    def read_after_changes(self, read: Callable[[Storage], Any], ask: Ask) -> None:
        """Run ``read`` once every change that came before is on disk.

        Raises:
            Overloaded: too many changes wait.
        """
        self.commits.take_change(
            [], None, lambda outcome: ask(outcome) if isinstance(outcome, TodoMQError) else self.read(read, ask), None
        )

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way that could still succeed."""
        return not self._reads_waiting and (self.commits.is_idle or not self.is_open)

    def close(self, done: Callable[[], None]) -> None:
        """Close storage, then call ``done``."""
        self.is_open = False
        self._loop.offload(self._storage.close, lambda result, error: done(), COMMITS)

    def stats(self) -> dict[str, Any]:
        """Return counters, depths of queues, and what storage said of itself a second ago at most."""
        return {
            **self.commits.counts,
            **self.commits.depths(),
            **self._storage_stats,
            "syncs": self._storage.syncs,
            "reads_waiting": self._reads_waiting,
            "storage_open": self.is_open,
        }

    def _committed(self, outcomes: list[Any] | None, error: BaseException | None) -> None:
        if outcomes is not None:
            self.commits.committed(outcomes)
            return
        log("commit_failed", why=error)
        self.is_open = False
        self.commits.failed(error if isinstance(error, TodoMQError) else StorageFailed(repr(error)))
        self._reopen()

    def _reopen(self) -> None:
        broken = self._storage

        def reopen() -> tuple[Storage, dict[int, int]]:
            broken.close()
            storage = self._open_storage()
            return storage, records.read_epochs(storage)

        self._loop.offload(reopen, self._reopened, COMMITS)

    def _reopened(self, opened: tuple[Storage, dict[int, int]] | None, error: BaseException | None) -> None:
        if opened is not None:
            self._storage, epochs = opened
            self.is_open = True
            self.commits.reopened(epochs)
            log("storage_opened_again")
        elif isinstance(error, CorruptRecord):
            raise error  # nothing that this process could do: it ends, and says why
        else:
            log_counted("storage_not_opened", why=error)
            self._loop.after(REOPEN_S, self._reopen)

    def _sweep(self) -> None:
        """Look through one page of once-records for those whose time is over."""
        if self.is_open:
            now_ms, after = self._loop.now_ms(), self._swept_to
            self.read(
                lambda storage: (records.expired_once_records(storage, after, now_ms), storage.stats()), self._swept
            )

    def _swept(self, outcome: Any) -> None:
        if isinstance(outcome, TodoMQError):
            log_counted("sweep_failed", why=outcome)
            return
        (deletes, self._swept_to), self._storage_stats = outcome
        if deletes and self.is_open:
            try:
                self.commits.take_change(deletes, None, None, None)
            except Overloaded:
                self._swept_to = None  # their turn comes again, when there is room
