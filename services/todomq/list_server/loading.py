"""The load of one list from its stored records, page by page.

Owns: what has been read so far and what to read next. Must not know: workers, sockets.
Keeps law 8: a record that is there but unreadable, or missing where there must be one, is ``CorruptRecord``.
"""

from __future__ import annotations

from typing import NamedTuple

from todomq.errors import CorruptRecord
from todomq.list_server import records
from todomq.list_server.records import Added, ListRecord
from todomq.list_server.runs import Runs
from todomq.list_server.sessions import IN_ENTRIES, Session
from todomq.list_server.todo_list import Entry, TodoList
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack


class Wanted(NamedTuple):
    """What to read: the value of a key if there is one, and the records of a prefix after a key (None: all)."""

    key: bytes | None
    prefix: bytes
    after: bytes | None


class Loading:
    """One load, from the first page to the last."""

    def __init__(self, name: str, now_ms: int) -> None:
        self.name = name
        self.prefix = records.prefix(name)
        self.record: ListRecord | None = None
        self.entries: list[Entry] = []
        self.sessions: dict[bytes, Session] = {}
        self.runs: Runs | None = None
        self._floors: dict[bytes, int] = {}  # of the last add of each client that an entry tells of
        self._last_id = 0
        self._now_ms = now_ms
        self._first = True

    def first_page(self) -> Wanted:
        """Return what to read first: the list's record and the beginning of what is under its prefix."""
        return Wanted(records.list_key(self.name), self.prefix, None)

    def take(self, value: bytes | None, pairs: list[bytes], last: bytes | None) -> Wanted | None:
        """Take a page as it was read.

        Args:
            value: the list's record (first page only), or None where there is none.
            pairs: keys and values in turn.
            last: the last key of the page if there is more, else None.

        Returns:
            what to read next, or None when the list is complete.

        Raises:
            CorruptRecord: a record cannot be read.
        """
        if self._first:
            self._first = False
            self.record = None if value is None else records.read_list(self.name, value)
        for place in range(0, len(pairs), 2):
            key = pairs[place]
            if records.is_session_key(self.prefix, key):
                self._take_session(key, pairs[place + 1])
            elif not self._take_entry(key, pairs[place + 1]):
                # Older generations wait to be swept; what is wanted goes on behind them.
                return Wanted(None, self.prefix, records.behind_entries(self.prefix))
        return None if last is None else Wanted(None, self.prefix, last)

    def todo_list(self) -> TodoList:
        """Return the to-do list as it was stored."""
        record = self.record or ListRecord()
        return TodoList(record.generation, record.lowest_next_id, self.entries)

    def _take_entry(self, key: bytes, value: bytes) -> bool:
        generation, identifier = records.read_entry_key(self.name, key)
        if self.record is None or generation > self.record.generation:
            raise CorruptRecord(f"list {self.name!r} has entries and no list record that goes with them")
        if generation < self.record.generation:
            return False
        added, entries = records.read_run(self.name, identifier, value)
        if identifier <= self._last_id:
            raise CorruptRecord(f"list {self.name!r}: entry {identifier} is in two records")
        self._last_id = identifier + len(entries) - 1
        self.entries += filter(None, entries)
        if len(entries) > 1:
            self.runs = self.runs or Runs()
            self.runs.add(identifier, self._last_id)
        if added is not None and added.at_ms + limits.REMEMBERED_MS >= self._now_ms:
            self._take_addition(added, self._last_id)
        return True

    def _take_addition(self, added: Added, last_id: int) -> None:
        """Have the session of a client know of an add."""
        session = self.sessions.get(added.client)
        if session is None:
            session = self.sessions[added.client] = Session(added.number, added.at_ms)
            session.kept = IN_ENTRIES
        self._floors[added.client] = added.floor
        session.declare(added.floor)
        ids = last_id if added.entries is None else list(range(last_id - added.entries + 1, last_id + 1))
        session.took(added.number, messages.OK, pack(ids), added.at_ms)

    def _take_session(self, key: bytes, value: bytes) -> None:
        """Take a session's record, which comes after all entries and knows of their adds below its next number."""
        client = records.read_session_key(self.name, key)
        stored = records.read_session(self.name, client, value)
        session = Session.stored(stored.next_number, stored.last_used_ms, stored.answers)
        told = self.sessions.get(client)
        if told is not None and told.next > session.next:
            later = [answer for answer in told.answers if answer[0] >= session.next]
            session.declare(self._floors[client])
            for number, status, answer in later:
                session.took(number, status, answer, told.used_ms)
            session.kept = IN_ENTRIES
        self.sessions[client] = session
