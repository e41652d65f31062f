"""How much of the router's room the requests for one daemon take: one that hangs must leave room for the others.

Owns: what is in flight for each list server and database worker, counted only while the router is half full: until then
none can have too much. Must not know: who asks, what a request means, which daemons there are.
Laws 5 and 6: a list server or a worker that answers nothing holds up what is for it, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

Place = int | bytes
"""A partition, or the canonical name of a daemon."""
DaemonsOf = Callable[[Place], tuple[Hashable, ...]]


class DaemonShares:
    """What is in flight for each daemon.

    Args:
        most_requests, most_bytes: all that the router takes.
        daemons_of: the daemons without which a place's requests are not answered.
    """

    def __init__(self, most_requests: int, most_bytes: int, daemons_of: DaemonsOf) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._daemons_of = daemons_of
        self._of_partitions: dict[int, tuple[Hashable, ...]] = {}
        self._counts: dict[Hashable, list[int]] | None = None

    @property
    def are_counted(self) -> bool:
        """Whether shares are counted: the router is, or was a moment ago, full enough for them to matter."""
        return self._counts is not None

    def review(self, flights: Iterable[Any], requests: int, size: int) -> None:
        """Begin or stop to count, by how much is in flight in all: ``flights`` are those that are."""
        if self._counts is None:
            if requests * 2 >= self._most_requests or size * 2 >= self._most_bytes:
                self._counts = {}
                for flight in flights:
                    self.add(flight.place, flight.size)
        elif requests * 4 < self._most_requests and size * 4 < self._most_bytes:
            self._counts = None

    def forget(self) -> None:
        """Count afresh from the next review on: places need other daemons now."""
        self._of_partitions.clear()
        self._counts = None

    def add(self, place: Place, size: int) -> None:
        """Count a request that is taken in."""
        if self._counts is not None:
            for daemon in self._daemons(place):
                share = self._counts.setdefault(daemon, [0, 0])
                share[0] += 1
                share[1] += size

    def remove(self, place: Place, size: int) -> None:
        """Count a request that has ended."""
        if self._counts is not None:
            for daemon in self._daemons(place):
                share = self._counts[daemon]
                share[0] -= 1
                share[1] -= size
                if not share[0]:
                    del self._counts[daemon]

    def is_full(self, place: Place) -> bool:
        """Tell whether a daemon that a place needs has three quarters of the room."""
        if self._counts is None:
            return False
        shares = [self._counts[daemon] for daemon in self._daemons(place) if daemon in self._counts]
        most_requests, most_bytes = self._most_requests * 3 // 4, self._most_bytes * 3 // 4
        return any(requests >= most_requests or size >= most_bytes for requests, size in shares)

    def _daemons(self, place: Place) -> tuple[Hashable, ...]:
        if not isinstance(place, int):  # a name: there may be any number of them, so none is kept
            return self._daemons_of(place)
        daemons = self._of_partitions.get(place)
        if daemons is None:
            daemons = self._of_partitions[place] = self._daemons_of(place)
        return daemons
