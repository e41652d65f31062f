"""Long reads in progress: the entries that a reader is taking page by page, as they were when it began.

Owns: a bounded number of them; how much of a turn long answers may take (laws 5 and 6: past it what follows waits for
another turn, or is refused, so that reads, however many, never hold up the others). Must not know: pages, sockets.
Past the bound a new read is refused, so that those under way can finish. A finished one, kept in case its last page
was lost or another goes on with it, makes room for a new one; so does any that nobody asks for within ``KEPT_MS``, or
within ``SHORT_MS`` where there is no room: a client that begins reads and abandons them keeps nobody else from reading.
Entries are never changed in place, so a snapshot costs a reference for each entry and no copy, and whoever reads the
same may share it. It holds no actor: a list that is dropped meanwhile is free but for these entries.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from todomq.errors import Overloaded
from todomq.list_server.todo_list import Entry
from todomq.protocol import limits

SNAPSHOTS = 64
KEPT_MS = 5_000
"""How long a reader may take to ask for its next page: as long as a request that names no deadline."""
SHORT_MS = 500
REFUSAL_BYTES = limits.PAGE_BYTES // 64
"""What a refused read counts for in its turn, if the number of entries alone showed that it would be long."""
LOOKED_AT_BYTES = limits.PAGE_BYTES // 4
"""The same, if a page of entries had to be looked at to find that out."""
TURN_ANSWER_BYTES = limits.PAGE_BYTES // 2
"""Bytes of pages after which a turn serves no more: a few milliseconds' work."""
REFUSED_BYTES = 8 * limits.MIB
"""Bytes of pages after which a turn refuses reads that had waited for their list: they are served all at once."""


class _Kept(NamedTuple):
    activation: int
    entries: tuple[Entry, ...]
    asked_ms: int


class Snapshots:
    """The long reads of one list server."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._under_way: dict[int, _Kept] = {}
        self._ended: dict[int, _Kept] = {}
        """Both by number, in the order in which they were asked for last."""
        self._turn_bytes = 0
        self._now_ms = 0

    def begin_turn(self) -> None:
        """Allow as many bytes of pages as a turn may have."""
        self._turn_bytes = 0

    def is_turn_full(self) -> bool:
        """Whether this turn is to serve no more requests."""
        return self._turn_bytes >= TURN_ANSWER_BYTES

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

    def check_place(self, refusal_bytes: int = REFUSAL_BYTES) -> None:
        """Check that another long read may begin; where it may not, that counts so much in its turn.

        Raises:
            Overloaded: as many as may be are under way.
        """
        if len(self._under_way) >= SNAPSHOTS and not self._give_up_one():
            self._turn_bytes += refusal_bytes
            raise Overloaded("too many long reads are under way")

    def keep(self, entries: tuple[Entry, ...], activation: int) -> int:
        """Keep what a read began with; return the number that its next page names.

        Raises:
            Overloaded: as many as may be are under way.
        """
        self.check_place(LOOKED_AT_BYTES)
        if len(self._under_way) + len(self._ended) >= SNAPSHOTS:
            del self._ended[next(iter(self._ended))]
        number = next(self._ids)
        self._under_way[number] = _Kept(activation, entries, self._now_ms)
        return number

    def _give_up_one(self) -> bool:
        """Give up the read that nobody has asked for longest; return False where that was just now."""
        number, kept = next(iter(self._under_way.items()))
        if kept.asked_ms + SHORT_MS >= self._now_ms:
            return False
        del self._under_way[number]
        return True

    def get(self, number: int, activation: int) -> tuple[Entry, ...] | None:
        """Return what the read of this activation began with, or None if it has been given up."""
        for reads in (self._under_way, self._ended):
            kept = reads.get(number)
            if kept is not None and kept.activation == activation:
                del reads[number]
                self._under_way[number] = kept._replace(asked_ms=self._now_ms)
                return kept.entries
        return None

    def end(self, number: int) -> None:
        """Note that a read's last page was asked for; it may be asked for again."""
        kept = self._under_way.pop(number, None)
        if kept is not None:
            self._ended[number] = kept

    def tick(self, steady_ms: int) -> None:
        """Give up what nobody has asked for in ``KEPT_MS``, by the steady clock."""
        self._now_ms = steady_ms
        for reads in (self._under_way, self._ended):
            while reads:
                number, kept = next(iter(reads.items()))
                if kept.asked_ms + KEPT_MS >= steady_ms:
                    break
                del reads[number]
