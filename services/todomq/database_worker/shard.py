"""One shard at work: its queue (``commit.py``) and its storage, joined by lanes off the loop.

Owns: the storage, the commit in flight, opening storage again after a failure, reads, the sweep of once-records, the
forgetting of marks. Must not know: sockets, requests, which engine is used. Used by ``service.py``.

Law 1: whatever is answered after a change was on disk before. Law 5: neither a commit nor a read holds up the loop, and
a shard that can't be opened ends nothing: whoever asks hears why. Law 6: reads that wait are bounded, as changes and
batches are in ``commit.py``. Law 8: a damaged shard is neither read nor written; it names what is damaged. Nor is one
of which somebody knows that it is another one, or an older copy, than the one that granted an epoch: ``check_granted``.

    open        all is well, or full: changes are refused for lack of room and reads go on
    read only   it could be opened for reading only (a full disk); tried again until it can be written
    closed      it can't be opened at the moment; tried again
    damaged     it can't be read; nothing but another life of this process, with the files put right, helps. Or it was
                found to be another shard: for as long as those who know that go on saying so
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from todomq.database_worker import records
from todomq.database_worker.commit import Commits
from todomq.database_worker.group import Told, commit_group
from todomq.database_worker.storage import OpenStorage, Storage, StorageFailed, StorageInUse
from todomq.errors import NOT_APPLIED, CorruptRecord, Overloaded, TodoMQError, Unavailable
from todomq.protocol import limits
from todomq.protocol.forgetting_clock import ForgettingClock
from todomq.protocol.messages import Committed, Writes
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import Loop, OneTimer
from todomq.settings import SettingsError

COMMITS = "commits"  # the lanes, a thread each
READS = "reads"
COPIES = "checkpoints"
WAITING_READS = 1_024
WAITING_READ_BYTES = 16 * limits.MIB
REOPEN_S = 0.5
ANOTHER_MS = 2_000
"""How long after somebody said so a shard is taken for another one; those who know better say it more often."""
MARKS_S = 60.0
MARK_KEPT_MS = 24 * 3_600_000
"""For how long after its last batch, at least, a sender that sends it again is known by its mark."""
TEND_S = 1.0
SWEEP_ON_S = 0.02
"""When the next page is looked through where the last one had expired records: more may come than one page a second."""


class _Opened(NamedTuple):
    storage: Storage
    epochs: dict[int, int]
    marks: dict[bytes, int]
    why_read_only: str


class Shard:
    """The storage of one worker and what goes into it."""

    def __init__(
        self, loop: Loop, incarnation: bytes, directory: Path, partitions: Collection[int], open_storage: OpenStorage
    ) -> None:
        """Open storage, or know why it can't be opened.

        Args:
            loop: the process's.
            incarnation: this life of the worker.
            directory: where the shard lies, for whoever is told what is wrong with it.
            partitions: those whose records it may hold.
            open_storage: opens it.

        Raises:
            SettingsError: it is not for this process to open.
        """
        self._loop = loop
        self._directory = directory
        self._partitions = partitions
        self._open_storage = open_storage
        self._storage: Storage | None = None
        self._trouble: TodoMQError | None = None  # why nothing is written; without storage, why nothing is read either
        self._lack_of_room = ""
        self._granted: dict[int, int] = {}
        """What was granted according to those who said so while nothing was open that it could be compared with."""
        self._why_another = ""
        self._another_until_ms = 0
        self._is_opening = False
        self._is_closing = False
        self._reads_waiting = self._read_bytes_waiting = 0
        self._swept_to: bytes | None = None
        self._unreadable = 0  # places in a row from which once-records could not be read
        self._is_sweeping = False
        self._forgetting = ForgettingClock()
        self._sweep_on = OneTimer(loop, SWEEP_ON_S, self._sweep)
        self._storage_stats: dict[str, int] = {"records": 0}
        self.commits = Commits(incarnation, partitions, {})
        loop.every(TEND_S, self._tend)
        loop.every(MARKS_S, self._forget_marks)
        try:
            opened = self._open()
        except SettingsError:
            raise
        except Exception as error:  # as from a lane: whatever an engine raises
            self._opened(None, error)
        else:
            self._opened(opened, None)
            self._storage_stats = opened.storage.stats()

    @property
    def state(self) -> str:
        """Whether it is ``open``, ``full``, ``read only``, ``closed`` or ``damaged``."""
        if self._is_another:
            return "damaged"
        if self._storage is not None:
            return "read only" if self._trouble else "full" if self._lack_of_room else "open"
        return "damaged" if isinstance(self._trouble, CorruptRecord) else "closed"

    def check_readable(self) -> None:
        """Raise why storage can't be read, unless it can."""
        if self._storage is None or self._is_another:
            raise self._refusal()

    def check_writable(self) -> None:
        """Raise why storage can't be written, unless it can. A lack of room shows at the commit only."""
        if self._storage is None or self._trouble is not None or self._is_another:
            raise self._refusal()

    def check_granted(self, granted: list[list[int]]) -> None:
        """Compare ``[partition, epoch]`` pairs that were granted with what is stored, now or once it can be read.

        Raises:
            CorruptRecord: this is not the shard that granted them. For a while nobody gets anything of it.
        """
        if self._storage is None:
            for partition, epoch in granted:
                self._granted[partition] = max(epoch, self._granted.get(partition, 0))
            return
        why = self.commits.why_another(granted)
        if not why:
            return
        log_counted("another_shard", why=why)
        self._why_another = self._another(why)
        self._another_until_ms = self._loop.steady_ms() + ANOTHER_MS
        self._give_up_what_waits()
        raise self._refusal()

    def take_batch(self, batch: Writes, size: int) -> None:
        """Queue a batch; where it can't be written its sender hears why."""
        if self._is_another:
            self.commits.refuse_batch(batch, self._why_another)
        elif self._storage is not None:
            self.commits.take_batch(batch, size)
        elif not self._is_opening and not self._is_closing:
            self.commits.refuse_batch(batch, self._refusal().text)
        # Else it is dropped: the sender hears what is wanted once storage is open again, or from the next life.

    def end_turn(self) -> list[Committed]:
        """Begin the next commit, answer the changes that are settled, return the words for senders."""
        storage = self._storage
        if storage is not None:
            now_ms = self._loop.now_ms()
            group = self.commits.next_group(now_ms)
            if group:
                refusal = "" if self._trouble is None else self._trouble.text
                marks = self.commits.marks
                self._loop.offload(
                    lambda: commit_group(group, storage, marks, now_ms, refusal), self._committed, COMMITS
                )
        words, answers = self.commits.ready()
        for done, outcome in answers:
            done(outcome)
        return words

    def read(self, read: Callable[[Storage], Any], done: Told, size: int = 0) -> None:
        """Run ``read`` off the loop; ``done`` gets what it returns, or the error. It holds ``size`` bytes meanwhile."""
        self._ask_storage(read, done, READS, size)

    def beside(self, work: Callable[[Storage], Any], done: Told) -> None:
        """Run what takes long off the loop, beside commits and reads; ``done`` gets what it returns, or the error."""
        self._ask_storage(work, done, COPIES)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way that could still succeed."""
        return not self._reads_waiting and (self.commits.is_idle or self._storage is None)

    def close(self, done: Callable[[], None]) -> None:
        """Close storage, then call ``done``."""
        self._is_closing = True
        storage, self._storage = self._storage, None
        close = storage.close if storage is not None else lambda: None
        self._loop.offload(close, lambda result, error: done(), COMMITS)

    def stats(self) -> dict[str, Any]:
        """Return counters, depths of queues, and what storage said of itself a second ago at most."""
        trouble = self._lack_of_room if self._trouble is None else self._trouble.text
        if self._is_another:
            trouble = self._why_another
        return {
            **self.commits.counts,
            **self.commits.depths(),
            **self._storage_stats,
            "syncs": 0 if self._storage is None else self._storage.syncs,
            "reads_waiting": self._reads_waiting,
            "storage_open": self.state == "open",
            "storage": self.state,
            "trouble": trouble or None,
        }

    def _refusal(self) -> TodoMQError:
        """Return a new error for each caller: one that was raised keeps its traceback."""
        if self._is_another:
            return CorruptRecord(self._why_another)
        if isinstance(self._trouble, CorruptRecord):
            return CorruptRecord(self._trouble.text)
        if self._trouble is None:
            return Unavailable("storage is being opened")
        return StorageFailed(self._trouble.text, outcome=NOT_APPLIED)

    @property
    def _is_another(self) -> bool:
        """Whether somebody has said, not long ago, what shows that this is not the shard of before."""
        return self._loop.steady_ms() < self._another_until_ms

    def _another(self, why: str) -> str:
        return (
            f"{self._directory} is not the shard that this database worker had: {why}. It is another copy, or an older "
            "one: end the process that has it open, and start the database worker with the right data"
        )

    def _ask_storage(self, work: Callable[[Storage], Any], done: Told, lane: str, size: int = 0) -> None:
        storage = self._storage
        if storage is None or self._is_another:
            done(self._refusal())
            return
        if self._reads_waiting >= WAITING_READS or self._read_bytes_waiting + size > WAITING_READ_BYTES:
            done(Overloaded("too many reads wait for this database worker"))
            return
        self._reads_waiting += 1
        self._read_bytes_waiting += size

        def answered(value: Any, error: BaseException | None) -> None:
            self._reads_waiting -= 1
            self._read_bytes_waiting -= size
            if error is not None and not isinstance(error, TodoMQError):
                log("read_failed", why=repr(error))
                error = TodoMQError(f"internal error: {type(error).__name__}")
            done(value if error is None else error)

        self._loop.offload(lambda: work(storage), answered, lane)

    # -- opening -------------------------------------------------------------------------------------------------------

    def _committed(self, outcomes: list[Any] | None, error: BaseException | None) -> None:
        if outcomes is not None:
            self.commits.committed(outcomes)
            if self.state == "damaged":  # it was found out meanwhile
                self._give_up_what_waits()
            return
        log("commit_failed", why=error)
        broken, self._storage = self._storage, None
        self.commits.failed(error if isinstance(error, TodoMQError) else StorageFailed(repr(error)))
        if broken is None:
            return  # it is being closed
        if isinstance(error, CorruptRecord):
            self._trouble = error
            self._loop.offload(broken.close, lambda result, close_error: self._opened(None, error), COMMITS)
            return
        self._is_opening = True
        self._loop.offload(broken.close, _log_not_closed, COMMITS)
        self._loop.offload(self._open, self._opened, COMMITS)

    def _open(self) -> _Opened:
        """Open storage, for reading only if it can't be written; runs off the loop.

        Raises:
            CorruptRecord: it can't be read. Others: it can't be opened at the moment.
        """
        try:
            storage, why_read_only = self._open_storage(False), ""
        except StorageInUse:
            raise
        except (StorageFailed, OSError) as error:
            storage, why_read_only = self._open_storage(True), str(error)
        try:
            epochs = records.read_epochs(storage)
            self._check_place(epochs)
            marks = {sender: number for sender, (number, _) in records.read_marks(storage).items()}
        except TodoMQError:
            with suppress(StorageFailed):  # closing may fail as well, which says less than why it is closed
                storage.close()
            raise
        return _Opened(storage, epochs, marks, why_read_only)

    def _check_place(self, epochs: Iterable[int]) -> None:
        """Refuse the records of another worker's shard: in them there would be nothing of this one's lists."""
        foreign = next((partition for partition in epochs if partition not in self._partitions), None)
        if foreign is not None:
            raise CorruptRecord(
                f"{self._directory} holds records of another worker's shard (of partition {foreign}); "
                "put the directories in place"
            )

    def _opened(self, opened: _Opened | None, error: BaseException | None) -> None:
        self._is_opening = False
        if opened is not None and self._storage is None and not self._is_closing:
            self.commits.reopened(opened.epochs, opened.marks)
            why = self.commits.why_another(self._granted.items())
            if why:
                self._let_go(opened.storage)
                opened, error = None, CorruptRecord(self._another(why))
        if opened is not None:
            self._take_storage(opened)
        elif isinstance(error, CorruptRecord):
            log("storage_damaged", why=error.text)
            self._trouble = error
            if self._storage is not None:
                self._let_go(self._storage)
                self._storage = None
                self._give_up_what_waits()
        else:
            text = str(error) if isinstance(error, TodoMQError | OSError) else repr(error)
            if self._trouble is None or self._trouble.text != text:  # a full disk has no room for more lines
                log("storage_not_opened", why=text)
            self._trouble = StorageFailed(text)
            self._loop.after(REOPEN_S, self._open_again)

    def _take_storage(self, opened: _Opened) -> None:
        if self._is_closing:
            self._loop.offload(opened.storage.close, _log_not_closed, COMMITS)
            return
        if self._storage is not None:  # it is read only, so the epochs in force are those that are stored
            self._let_go(self._storage)
        self._storage = opened.storage
        self._trouble = None
        if opened.why_read_only:
            log("storage_read_only", why=opened.why_read_only)
            self._trouble = StorageFailed(opened.why_read_only, outcome=NOT_APPLIED)
            self._loop.after(REOPEN_S, self._open_again)
        else:
            log("storage_opened")

    def _give_up_what_waits(self) -> None:
        """Tell those who wait that nothing is written any more; a group that is under way ends first."""
        if not self.commits.is_in_flight and not self.commits.is_idle:
            self.commits.give_up_waiting(self._refusal())

    def _let_go(self, storage: Storage) -> None:
        """Close a storage that is being replaced, behind the reads, copies and commits begun with it."""

        def behind(lane: str, then: Callable[[], None]) -> None:
            self._loop.offload(lambda: None, lambda result, error: then(), lane)

        behind(READS, lambda: behind(COPIES, lambda: self._loop.offload(storage.close, _log_not_closed, COMMITS)))

    def _open_again(self) -> None:
        """Try to open storage for changes, or at all."""
        if self._is_closing:
            return
        if self._storage is None:
            self._loop.offload(self._open, self._opened, COMMITS)
        else:
            self._loop.offload(lambda: self._open_storage(False), self._opened_for_changes, COMMITS)

    def _opened_for_changes(self, storage: Storage | None, error: BaseException | None) -> None:
        """Take the place of what is open for reading only, or try again later."""
        if storage is not None and self._storage is None:  # what was open has failed meanwhile: it is opened anew
            self._loop.offload(storage.close, _log_not_closed, COMMITS)
        elif storage is not None:
            self._take_storage(_Opened(storage, {}, {}, ""))
        elif isinstance(error, CorruptRecord):
            self._opened(None, error)
        else:  # why was said when it was opened for reading only
            self._loop.after(REOPEN_S, self._open_again)

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Let storage do what may wait; each task by itself, since any of them may fail."""
        self._forgetting.tick(self._loop.now_ms(), self._loop.steady_ms())
        if self._storage is None or self._is_another:
            return
        self.read(lambda storage: (storage.stats(), storage.lack_of_room()), self._looked)
        self.read(lambda storage: storage.tend(), _log_not_tended)
        self._sweep()

    def _looked(self, outcome: Any) -> None:
        if isinstance(outcome, TodoMQError):
            log_counted("look_failed", why=outcome)
        else:
            self._storage_stats, self._lack_of_room = outcome

    def _sweep(self) -> None:
        """Look through one page of once-records for those whose time is over, while they can be deleted."""
        if self._storage is None or self._is_sweeping or self._trouble is not None or self._lack_of_room:
            return
        self._is_sweeping = True
        forgetting_ms, after = self._forgetting.ms(self._loop.now_ms()), self._swept_to
        self.read(lambda storage: records.expired_once_records(storage, after, forgetting_ms), self._swept)

    def _swept(self, outcome: Any) -> None:
        self._is_sweeping = False
        if isinstance(outcome, TodoMQError):
            log_counted("sweep_failed", why=outcome)
            self._swept_to = records.behind_unreadable(self._swept_to, self._unreadable)
            self._unreadable += 1
            return
        self._unreadable = 0
        deletes, self._swept_to = outcome
        if deletes and self._storage is not None:
            self._sweep_on.plan()
            try:
                self.commits.take_change(deletes, None, None, None)
            except Overloaded:
                self._swept_to = None  # their turn comes again, when there is room

    def _forget_marks(self) -> None:
        """Look for the marks of senders that are long gone, while they can be deleted."""
        if self._storage is None or self._trouble is not None or self._lack_of_room:
            return
        before_ms = self._forgetting.ms(self._loop.now_ms()) - MARK_KEPT_MS

        def gone(storage: Storage) -> list[bytes]:
            return [sender for sender, (_, ms) in records.read_marks(storage).items() if ms < before_ms]

        self.read(gone, self._found_gone)

    def _found_gone(self, outcome: Any) -> None:
        if isinstance(outcome, TodoMQError):
            log_counted("marks_not_read", why=outcome)
        elif self._storage is not None:
            with suppress(Overloaded):  # their turn comes again
                self.commits.forget_marks(outcome)


def _log_not_tended(outcome: Any) -> None:
    if isinstance(outcome, TodoMQError):
        log_counted("tend_failed", why=outcome)


def _log_not_closed(result: Any, error: BaseException | None) -> None:
    if error is not None:
        log_counted("storage_not_closed", why=error)
