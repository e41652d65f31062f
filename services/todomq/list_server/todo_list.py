"""The to-do list itself: entries, their ids, what is due when. Pure values: no sockets, no clock, no storage.

Owns: the entries of one list and the ids given out. Must not know: who asks, how entries are stored or sent.
``operations.py`` changes and reads it, with fields that passed ``protocol/entries.py``; ``records.py`` packs what it
holds.

What it keeps:

- Ids ascend from 1 and are never given twice before the next ``clear``, whatever is deleted in between.
- ``entries`` stands in ascending id: ids only grow, and an update keeps its place in the dict.
- Whoever loads the list again gets the same ``next_id``: it is the larger of ``lowest_next_id``, which the stored list
  record holds, and the highest stored id + 1. So ``lowest_next_id`` changes only when the newest entry is deleted and
  on ``clear``, and when it or ``generation`` has changed, the list record goes into the same batch as the change.
- A list that is small or never asked for a date has no index: 100,000 lists of one entry must be cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from todomq.errors import EntryNotFound
from todomq.protocol.entries import NO_FIELDS, check_entry_size

INDEX_FROM = 32
"""Entries above which asking for a date builds the index; up to here looking at each entry is quicker."""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One entry, packed as an array of its fields.

    ``date`` is ``YYYY-MM-DD`` or None; ``extra`` are the open fields, as they were decoded, or ``NO_FIELDS``: nobody
    changes them in place, so no entry is in a cycle, and the collector need not look at it (of all that is in memory
    most are entries).
    """

    id: int
    title: str
    date: str | None = None
    done: bool = False
    extra: dict[str, Any] = field(default_factory=lambda: NO_FIELDS)


class TodoList:
    """The entries of one list under one generation."""

    __slots__ = ("_by_date", "entries", "generation", "lowest_next_id", "next_id")

    def __init__(self, generation: int = 0, lowest_next_id: int = 1, entries: Iterable[Entry] = ()) -> None:
        """Make a list, empty or as stored.

        Args:
            generation: how often the list was cleared before.
            lowest_next_id: no id below it may be given out.
            entries: the stored entries of this generation in ascending id.
        """
        self.entries: dict[int, Entry] = {entry.id: entry for entry in entries}
        self.generation = generation
        self.lowest_next_id = lowest_next_id
        self.next_id = max(lowest_next_id, next(reversed(self.entries)) + 1) if self.entries else lowest_next_id
        self._by_date: dict[str | None, dict[int, None]] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def add(
        self, title: str, date: str | None = None, extra: dict[str, Any] = NO_FIELDS, done: bool = False
    ) -> Entry:
        """Add an entry under the next id and return it."""
        identifier = self.next_id
        entry = Entry(identifier, title, date, done, extra)
        self.entries[identifier] = entry
        self.next_id = identifier + 1
        if self._by_date is not None:
            self._by_date.setdefault(date, {})[identifier] = None
        return entry

    def add_all(self, titles: Sequence[str], *others: Iterable[Any]) -> dict[int, Entry]:
        """Add several entries and return them by id, ascending.

        Args:
            titles: of each.
            others: their dates, done and extra, or none of these.
        """
        identifiers = range(self.next_id, self.next_id + len(titles))
        columns = others or (repeat(None), repeat(False), repeat(NO_FIELDS))
        added = dict(zip(identifiers, map(Entry, identifiers, titles, *columns)))
        self.entries.update(added)
        self.next_id = identifiers.stop
        if self._by_date is not None:
            for identifier, entry in added.items():
                self._by_date.setdefault(entry.date, {})[identifier] = None
        return added

    def get(self, identifier: int) -> Entry:
        """Return the entry with this id.

        Raises:
            EntryNotFound: there is none.
        """
        entry = self.entries.get(identifier)
        if entry is None:
            raise EntryNotFound(f"the list has no entry {identifier}")
        return entry

    def all(self) -> tuple[Entry, ...]:
        """Return every entry in ascending id."""
        return tuple(self.entries.values())

    def on(self, date: str | None) -> tuple[Entry, ...]:
        """Return the entries of this date, or those without one, in ascending id.

        Takes time in proportion to what it returns, but for the first call on a list of over ``INDEX_FROM`` entries.
        """
        if self._by_date is None and len(self.entries) <= INDEX_FROM:
            return tuple([entry for entry in self.entries.values() if entry.date == date])
        # A date's ids stand as they came to it: ascending but for entries moved here from another date.
        return tuple([self.entries[identifier] for identifier in sorted(self._index().get(date, ()))])

    def count_on(self, date: str | None) -> int:
        """Return how many entries ``on`` returns, as quickly however many they are, but for the first call."""
        return len(self._index().get(date, ()))

    def update(self, identifier: int, changes: dict[str, Any]) -> Entry:
        """Change fields of an entry and return it as it is then.

        Args:
            identifier: the entry's id.
            changes: new values by field name, checked by ``check_changes``; what is left out stays.

        Raises:
            EntryNotFound: there is none; nothing changed.
            InvalidRequest: the entry would be too large; nothing changed.
        """
        before = self.get(identifier)
        entry = replace(before, **changes)
        check_entry_size(entry.title, entry.date, entry.done, entry.extra)
        self.entries[identifier] = entry
        if self._by_date is not None and before.date != entry.date:
            self._drop_from_index(before)
            self._by_date.setdefault(entry.date, {})[identifier] = None
        return entry

    def delete(self, identifier: int) -> bool:
        """Delete an entry; False where there was none."""
        entry = self.entries.pop(identifier, None)
        if entry is None:
            return False
        if identifier == self.next_id - 1:
            self.lowest_next_id = self.next_id  # no entry is left to show that this id was given
        self._drop_from_index(entry)
        return True

    def clear(self) -> None:
        """Empty the list; ids start at 1 again, under the next generation."""
        self.entries = {}
        self.generation += 1
        self.next_id = self.lowest_next_id = 1
        self._by_date = None

    def _index(self) -> dict[str | None, dict[int, None]]:
        if self._by_date is None:
            self._by_date = {}
            for entry in self.entries.values():
                self._by_date.setdefault(entry.date, {})[entry.id] = None
        return self._by_date

    def _drop_from_index(self, entry: Entry) -> None:
        if self._by_date is None:
            return
        ids = self._by_date[entry.date]
        del ids[entry.id]
        if not ids:
            del self._by_date[entry.date]
