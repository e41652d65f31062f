"""How a list's changes go to disk: which records each of them writes.

Owns: the list in memory and what is stored of it: its record, the records of its entries, its clients' sessions.
Must not know: requests, who asks, sockets; what a record looks like (``records.py``) and how batches leave (the gate).

Law 1 and 3: what a change did and what was answered for it go into one batch. An add's answer stands beside its entries
(``in entries``), so that it is one record; whatever could take that away writes the session in the same batch.

Law 6: a change that leaves what nobody may ever ask for again (cleared entries, sessions of a list that is not stored)
leaves a note with it, by which that is cleared away later, by whoever owns the list then (``remains.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from todomq.list_server import records
from todomq.list_server.gate import RECORD_OVERHEAD_BYTES
from todomq.list_server.operations import ADDS, EMPTYING, Touched
from todomq.list_server.records import AddedBy, ListRecord
from todomq.list_server.runs import Runs
from todomq.list_server.sessions import IN_ENTRIES, IN_MEMORY, RECORDED, Session
from todomq.list_server.todo_list import TodoList
from todomq.protocol import limits, messages

if TYPE_CHECKING:
    from todomq.list_server.loading import Loading
    from todomq.list_server.partition import Partition

NEW_LIST = ListRecord()
_NEW_LIST_PACKED = records.pack_list(NEW_LIST)

ANSWERS_IN_ENTRIES = 64
ANSWERS_IN_ENTRIES_BYTES = 1_024
SESSIONS_IN_ENTRIES = 16
"""Up to these limits an add's answer stands in its entry's record alone. Past them the session's record is written with
it, because the next change that is not an add writes the records of all sessions that stand in entries only, and these
must fit into one batch.
"""
FORGOTTEN_MOST = 8_000
"""Sessions that one look at a list forgets, some 15 ms; looks come every two minutes."""


class RecordedList:
    """One list and what is stored of it.

    Attributes:
        prefix: what the keys of its records begin with, once it is loaded.
        record: the list's record as it is stored or about to be; None where the list is not stored.
        last_batch: the number of the last batch that writes of this list, or that asks, in doubt, about its partition.
        sessions_to_write: clients whose session's record this turn is to write, with its key; None when none is.
        in_entries: clients with an add that only an entry's record tells of, and not yet their session's record.
        runs: which entries lie in one record; None where each has its own.
    """

    __slots__ = (
        "in_entries", "last_batch", "name", "partition", "prefix", "record", "runs", "sessions", "sessions_to_write",
        "todo",
    )  # fmt: skip

    def __init__(self, name: str, partition: Partition) -> None:
        self.name = name
        self.prefix = b""
        self.partition = partition
        self.todo: TodoList | None = None
        self.record: ListRecord | None = None
        self.sessions: dict[bytes, Session] = {}
        self.last_batch = 0
        self.sessions_to_write: dict[bytes, bytes] | None = None
        self.in_entries: tuple[bytes, ...] = ()
        self.runs: Runs | None = None

    @property
    def uncommitted(self) -> bool:
        """Whether a write of this list is not on disk yet."""
        return self.last_batch > self.partition.gate.committed

    @property
    def is_to_be_swept(self) -> bool:
        """Whether entries of older generations, or a deleted list's record, are still stored."""
        record = self.record
        return record is not None and (record.deleted or record.swept_generation < record.generation)

    @property
    def has_remains(self) -> bool:
        """Whether something is stored that may be left for ever, since nobody need ask for this list again."""
        return self.is_to_be_swept or (self.record is None and bool(self.sessions))

    def take_nothing_stored(self) -> None:
        """Begin as a list of which nothing is stored."""
        self.prefix = records.prefix(self.name)
        self.todo = TodoList()
        self.last_batch = self.partition.doubted

    def take_stored(self, loading: Loading) -> None:
        """Begin with what a load has read."""
        self.prefix = loading.prefix
        self.todo = loading.todo_list()
        self.record = NEW_LIST if loading.record == NEW_LIST else loading.record
        self.sessions = loading.sessions
        self.in_entries = tuple([sender for sender, session in self.sessions.items() if session.kept is IN_ENTRIES])
        self.runs = loading.runs

    def record_change(
        self, operation: str, touched: Touched, sender: bytes, session: Session, number: int, value: bytes, now_ms: int
    ) -> None:
        """Put a change that was made, and its answer, into the open batch: all of it or, if something fails, nothing.

        Args:
            operation: what changed the list.
            touched: the entries that it added or changed, None for those that it deleted.
            sender, session: the client's.
            number: the change's.
            value: the packed answer.
            now_ms: the time.
        """
        gate = self.partition.gate
        adds = operation in ADDS and touched
        if not adds and len(self.in_entries) > SESSIONS_IN_ENTRIES:
            self._record_surplus(now_ms)
        size = gate.open.bytes
        try:
            prefix = self.prefix
            added: AddedBy | None = None
            if adds:
                if self._can_tell_beside_entries(sender, session, len(value)):
                    # The floor as the list knows it, which other requests may have declared: a load keeps no more.
                    added = (sender, number, session.answers[0][0] if session.answers else number, now_ms)
                    if operation == "add_entries":
                        added = (*added, len(touched))
                self._write_added(prefix, touched, added)
            else:
                self._write_changed(prefix, touched, operation == "delete")
                if touched or operation in EMPTYING:
                    for other in self.in_entries:  # what stands beside an entry goes with its record
                        self._note_changed(prefix, other, self.sessions[other], 0)
            if added is None:
                self._note_changed(prefix, sender, session, len(value))
            elif session.kept is RECORDED:
                session.kept = IN_ENTRIES
                self.in_entries += (sender,)
            session.took(number, messages.OK, value, now_ms)  # last: a session that is noted is written in any case
        except Exception:
            gate.take_back(size)
            raise

    def write_sessions(self) -> None:
        """Put the records of the sessions that this turn changed into the batch that carries the changes."""
        if self.sessions_to_write is None:
            return
        partition = self.partition
        number, epoch, write = partition.number, partition.epoch, partition.gate.write
        for sender, key in self.sessions_to_write.items():
            session = self.sessions[sender]
            self.last_batch = write(
                number, epoch, key, records.pack_session(session.next, session.used_ms, session.answers)
            )
            session.kept = RECORDED
        if self.in_entries:
            self.in_entries = tuple([sender for sender in self.in_entries if sender not in self.sessions_to_write])
        if self.has_remains:
            self._note_remains(max([self.sessions[sender].used_ms for sender in self.sessions_to_write]))
        self.sessions_to_write = None

    def forget_expired(self, now_ms: int) -> None:
        """Forget the clients' sessions whose time is over, and delete their records; ``FORGOTTEN_MOST`` at once.

        It may close the batch, so it must not be called between a change and its sessions.
        """
        expired = dict.fromkeys(islice(self._expired(now_ms), FORGOTTEN_MOST))
        if expired and self.in_entries:
            self.in_entries = tuple([sender for sender in self.in_entries if sender not in expired])
        for sender in expired:
            self._forget(sender)
            self.partition.close_batch_if_full(now_ms)

    def _expired(self, now_ms: int) -> Iterator[bytes]:
        forgetting_ms = self.partition.forgetting.ms(now_ms)
        for sender, session in self.sessions.items():
            if session.used_ms + limits.REMEMBERED_MS < forgetting_ms:
                if session.waiting is None:
                    yield sender
            elif session.used_ms > now_ms:  # the clock was set back
                session.used_ms = now_ms

    def _record_surplus(self, now_ms: int) -> None:
        """Write the records of sessions that stand in entries only, past ``SESSIONS_IN_ENTRIES``, ahead of a change.

        A load may find more of them after the clock was set back, which makes forgotten ones look young. This may close
        the batch.
        """
        for sender in self.in_entries[SESSIONS_IN_ENTRIES:]:
            self._note_changed(self.prefix, sender, self.sessions[sender], 0)
            self.partition.close_batch_if_full(now_ms)

    def _forget(self, sender: bytes) -> None:
        session = self.sessions.pop(sender)
        if not session.used_ms:  # nothing of it is stored
            return
        key = records.session_key(self.prefix, sender)
        self.last_batch = self.partition.gate.write(self.partition.number, self.partition.epoch, key, None)

    def end_note(self, key: bytes, now_ms: int) -> None:
        """Delete a note of remains whose time has come; where something remains even now, a later one follows."""
        self.forget_expired(now_ms)
        # Both in one batch: what remains is never without a note.
        self.last_batch = self.partition.gate.write(self.partition.number, self.partition.epoch, key, None)
        if self.has_remains:
            self._note_remains(max([session.used_ms for session in self.sessions.values()], default=now_ms))

    def _note_remains(self, used_ms: int) -> None:
        """Note that the list is to be looked at when a session that was last used at this time is over."""
        key = records.remains_key(self.name, used_ms + limits.REMEMBERED_MS)
        self.last_batch = self.partition.gate.write(self.partition.number, self.partition.epoch, key, b"")

    def _can_tell_beside_entries(self, sender: bytes, session: Session, answer_bytes: int) -> bool:
        """Tell whether what a client is to be answered about an add may stand in the record of the entry only."""
        if session.kept is RECORDED:
            if len(self.in_entries) >= SESSIONS_IN_ENTRIES:
                return False
        elif session.kept is IN_MEMORY:
            return False
        if self.sessions_to_write is not None and sender in self.sessions_to_write:
            return False
        is_small = session.answer_bytes + answer_bytes <= ANSWERS_IN_ENTRIES_BYTES
        return is_small and len(session.answers) < ANSWERS_IN_ENTRIES

    def _write_added(self, prefix: bytes, touched: Touched, added: AddedBy | None) -> None:
        """Put entries that are new, of consecutive ids, into the batch, and the list's record where that is new too."""
        partition, todo = self.partition, self.todo
        assert todo is not None
        number, epoch, generation = partition.number, partition.epoch, todo.generation
        if len(touched) == 1:
            identifier, entry = next(iter(touched.items()))
            assert entry is not None
            value = records.pack_entry(entry, added)
            partition.gate.write(number, epoch, records.entry_key(prefix, generation, identifier), value)
        else:
            for first, last, run in records.pack_run(next(iter(touched)), list(touched.values()), added):
                partition.gate.write(number, epoch, records.entry_key(prefix, generation, first), run)
                self._note_run(first, last)
        if is_to_be_written(self.record):
            self.write_list_record(todo, False)
        self.last_batch = partition.gate.open.number

    def _write_changed(self, prefix: bytes, touched: Touched, deleted: bool) -> None:
        """Put the records of entries that were changed or deleted into the batch, and the list's where that changed."""
        partition, todo, record = self.partition, self.todo, self.record
        assert todo is not None
        for identifier in touched:
            self._write_record_of(prefix, todo, identifier)
        if record is not None and record.generation != todo.generation:
            self.runs = None
        # Where no list is stored, there is nothing to clear.
        if record is not None and not record.deleted and (
            deleted
            or record.generation != todo.generation
            or record.lowest_next_id != todo.lowest_next_id
            or record.version != records.VERSION
        ):
            self.write_list_record(todo, deleted)
        self.last_batch = partition.gate.open.number

    def _write_record_of(self, prefix: bytes, todo: TodoList, identifier: int) -> None:
        """Put the record that an entry is in into the batch, with the others that are in it.

        It no longer tells of an add: the session is written in the same batch. Where it is split, it is the first part
        that takes the place of what is stored.
        """
        partition = self.partition
        first = last = identifier
        if self.runs is not None:
            first, last = self.runs.of(identifier)
            self.runs.forget(first)
        for start, end, value in records.pack_run(first, [todo.entries.get(each) for each in range(first, last + 1)]):
            if value is not None or start == first:
                key = records.entry_key(prefix, todo.generation, start)
                partition.gate.write(partition.number, partition.epoch, key, value)
                if value is not None:
                    self._note_run(start, end)

    def _note_run(self, first: int, last: int) -> None:
        if last > first:
            self.runs = self.runs or Runs()
            self.runs.add(first, last)

    def _note_changed(self, prefix: bytes, sender: bytes, session: Session, answer_bytes: int) -> None:
        """See that the session's record goes into the same batch, once for all its changes in it."""
        partition = self.partition
        if self.sessions_to_write is None or sender not in self.sessions_to_write:
            key = records.session_key(prefix, sender)  # first: a list that is noted has something to write
            if self.sessions_to_write is None:
                self.sessions_to_write = {}
                partition.lists_to_write.append(self)
            self.sessions_to_write[sender] = key
            kept_bytes = session.answer_bytes + RECORD_OVERHEAD_BYTES * len(session.answers)
            note_bytes = RECORD_OVERHEAD_BYTES + len(prefix)
            partition.gate.expect(kept_bytes + answer_bytes + RECORD_OVERHEAD_BYTES + note_bytes)
        else:
            partition.gate.expect(answer_bytes + RECORD_OVERHEAD_BYTES)

    def write_list_record(self, todo: TodoList, deleted: bool) -> None:
        """Write what the list's record says by now; a list that is to be swept comes up for that."""
        partition = self.partition
        swept = self.record.swept_generation if self.record is not None else todo.generation
        record = ListRecord(todo.generation, todo.lowest_next_id, deleted, swept)
        is_new = record == NEW_LIST
        self.record = NEW_LIST if is_new else record
        packed = _NEW_LIST_PACKED if is_new else records.pack_list(record)
        partition.gate.write(partition.number, partition.epoch, records.list_key(self.name), packed)
        if not is_new and self.is_to_be_swept:
            partition.to_sweep[self.name] = self


def is_to_be_written(record: ListRecord | None) -> bool:
    """Tell whether an add writes the list's record: it is not stored, says that the list is deleted, or is old."""
    return record is not NEW_LIST and (record is None or record.deleted or record.version != records.VERSION)
