"""Long reads in progress: the entries that a reader is taking page by page, as they were when it began.

Owns: a bounded number of them, the oldest given up first; how much of a turn long answers may take (laws 5 and 6: past
it what follows waits for another turn, or is refused, so that no number of reads makes the others wait). Must not know:
pages, sockets.
Entries are never changed in place, so a snapshot costs a reference for each entry and no copy.
"""

from __future__ import annotations

from itertools import count

from todomq.errors import Overloaded
from todomq.list_server.todo_list import Entry
from todomq.protocol import limits

SNAPSHOTS = 64
TURN_BYTES = limits.PAGE_BYTES
"""Bytes of pages after which a turn serves no more: a few milliseconds' work."""
REFUSED_BYTES = 8 * limits.MIB
"""Bytes of pages after which a turn refuses reads that had waited for their list: they are served all at once."""


class Snapshots:
    """The long reads of one list server."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._kept: dict[int, tuple[object, list[Entry]]] = {}
        self._turn_bytes = 0

    def begin_turn(self) -> None:
        """Allow as many bytes of pages as a turn may have."""
        self._turn_bytes = 0

    @property
    def is_turn_full(self) -> bool:
        """Whether this turn is to serve no more requests."""
        return self._turn_bytes >= TURN_BYTES

    def check_room(self) -> None:
        """Check that this turn may answer another read.

        Raises:
            Overloaded: it has packed enough; the next turn takes more.
        """
        if self._turn_bytes >= REFUSED_BYTES:
            raise Overloaded("too many long reads at once")

    def packed(self, size: int) -> None:
        """Note that a page of so many bytes was packed."""
        self._turn_bytes += size

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
