"""Long reads in progress: the entries that a reader is taking page by page, as they were when it began.

Owns: a bounded number of them, the oldest given up first. Must not know: pages, sockets.
Entries are never changed in place, so a snapshot costs a reference for each entry and no copy.
"""

from __future__ import annotations

from itertools import count

from todomq.list_server.todo_list import Entry

SNAPSHOTS = 64


class Snapshots:
    """The long reads of one list server."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._kept: dict[int, tuple[object, list[Entry]]] = {}

    def keep(self, entries: list[Entry], actor: object) -> int:
        """Keep what a read began with; return the number that its next page names."""
        if len(self._kept) >= SNAPSHOTS:
            del self._kept[next(iter(self._kept))]
        number = next(self._ids)
        self._kept[number] = (actor, entries)
        return number

    def get(self, number: int, actor: object) -> list[Entry] | None:
        """Return what the read of this actor began with, or None if it has been given up."""
        kept = self._kept.get(number)
        if kept is None or kept[0] is not actor:
            return None
        del self._kept[number]
        self._kept[number] = kept  # the newest again
        return kept[1]
