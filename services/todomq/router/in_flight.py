"""Requests that are in the router and not answered yet: bounded in number and bytes, each until its deadline.

Owns: the router's own request ids, the limits, the deadlines. Must not know: where a request goes, what it means.
Keeps law 6: past a limit the sender gets ``Overloaded`` at once. The limit of one connection is a small part of the
whole, so that a flood of one leaves room for the others; what goes to daemons by name, of which nobody knows whether
they answer, has half of it at most, and what waits for one list server or worker three quarters (``daemon_shares.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from msgspec import Struct

from todomq.errors import Overloaded
from todomq.protocol import limits
from todomq.protocol.messages import BODY, DEADLINE_MS
from todomq.router.daemon_shares import DaemonShares, DaemonsOf, Place

REQUESTS = 65_536
BYTES = 96 * limits.MIB
"""Of everybody together."""
REQUESTS_PER_CONNECTION = 4_096
BYTES_PER_CONNECTION = 16 * limits.MIB
"""Of one connection. ``hello`` asks a client to keep to half of the requests (``service.WINDOW``)."""
OVERHEAD_BYTES = 64
"""What a request counts for, besides its body."""


class Crowded(Overloaded):
    """Too much waits for the daemon that a request needs, or for its kind; requests for others are still taken in."""

    def __init__(self, text: str = "too much waits for the daemon that this goes to") -> None:
        super().__init__(text)


class Flight(Struct, gc=False):
    """A request on its way. There are many, in no reference cycle once they have ended: the collector may ignore them.

    Attributes:
        order: rises with arrival and stays the same when the request is sent again.
        peer: the connection it came from.
        sender: the client's id.
        request: ``[id, target, deadline_ms, body, number, floor]`` as it came.
        place: its partition (int), or the canonical name of the daemon it goes to (bytes).
        size: bytes that it counts for.
    """

    order: int
    peer: bytes
    sender: bytes
    request: list[Any]
    place: Place
    size: int


_peer = attrgetter("peer")


class _Share(Struct, gc=False):
    """What one connection has in flight."""

    requests: int = 0
    bytes: int = 0
    to_lists: int = 0


class InFlight:
    """All requests in flight, by the id under which they were sent last.

    Args:
        daemons_of: the daemons without which the requests for a place are not answered.
    """

    def __init__(self, daemons_of: DaemonsOf = lambda place: (place,)) -> None:
        self.flights: dict[int, Flight] = {}
        self.sent_before: set[int] = set()
        """Ids of requests that were sent before, to a daemon whose answer is lost and which may have applied them."""
        self.unsent: set[int] = set()
        """Ids of requests that wait here: nobody has got them under this id."""
        self.bytes = 0
        self._to_lists = 0
        self._named_bytes = 0
        self._next_id = 1
        self._of_connection: dict[bytes, _Share] = {}
        """Of each connection that has anything in flight."""
        self.by_daemon = DaemonShares(REQUESTS, BYTES, daemons_of)
        self._none_before_ms = 0
        """No request in flight has an earlier deadline."""

    def admit(self, peer: bytes, sender: bytes, request: list[Any], place: Place) -> int:
        """Take in a request.

        Returns:
            the id to send it under.

        Raises:
            Overloaded: a limit is reached; the request went no further. Crowded: the same, but requests for other
                daemons may still be taken in.
        """
        size = len(request[BODY]) + OVERHEAD_BYTES
        reached = self._reached(peer, 1, size)
        if reached:
            raise Overloaded(reached)
        is_named = type(place) is bytes
        if is_named and self._is_named_full(size):
            raise Crowded("too many requests by name, or for keys, are not answered")
        if self.by_daemon.are_counted and self.by_daemon.is_full(place):
            raise Crowded
        self._count(peer, 1, size, 0 if is_named else 1, request[DEADLINE_MS])
        if is_named:
            self._named_bytes += size
        identifier = self._new_id()
        self.flights[identifier] = Flight(identifier, peer, sender, request, place, size)
        if self.by_daemon.are_counted:
            self.by_daemon.add(place, size)
        else:
            self.review()
        return identifier

    def admit_all(
        self, peer: bytes, sender: bytes, requests: list[Any], partitions: list[int], body_sizes: list[int]
    ) -> int | None:
        """Take in requests of one client to lists, all or none.

        Returns:
            the id to send the first one under, the others follow; None where a limit is reached or may be.
        """
        count = len(requests)
        size = sum(body_sizes) + OVERHEAD_BYTES * count
        if self._reached(peer, count, size):
            return None
        by_daemon = self.by_daemon
        if by_daemon.are_counted and any(map(by_daemon.is_full, set(partitions))):
            return None
        self._count(peer, count, size, count, min([request[DEADLINE_MS] for request in requests]))
        first = self._next_id
        self._next_id += count
        flights = self.flights
        identifiers = range(first, self._next_id)
        for identifier, request, partition, body_size in zip(identifiers, requests, partitions, body_sizes):
            flights[identifier] = Flight(identifier, peer, sender, request, partition, body_size + OVERHEAD_BYTES)
        if by_daemon.are_counted:
            for partition, body_size in zip(partitions, body_sizes):
                by_daemon.add(partition, body_size + OVERHEAD_BYTES)
        else:
            self.review()
        return first

    def review(self) -> None:
        """Begin or stop to count by daemon, as there is much in flight or little."""
        self.by_daemon.review(self.flights.values(), len(self.flights), self.bytes)

    def _reached(self, peer: bytes, requests: int, size: int) -> str:
        """Return which limit so many more requests would exceed, or an empty text."""
        if len(self.flights) + requests > REQUESTS or self.bytes + size > BYTES:
            return "the router has too much in flight"
        its_requests, its_size = self.share(peer)
        if its_requests + requests > REQUESTS_PER_CONNECTION or its_size + size > BYTES_PER_CONNECTION:
            return "this connection has too much in flight"
        return ""

    def _is_named_full(self, size: int) -> bool:
        """Tell whether requests that are not to lists have their half of the room: nobody knows who answers them."""
        return len(self.flights) - self._to_lists >= REQUESTS // 2 or self._named_bytes + size > BYTES // 2

    def _count(self, peer: bytes, requests: int, size: int, to_lists: int, earliest_ms: int) -> None:
        """Count requests that are taken in; ``earliest_ms`` is the first of their deadlines."""
        share = self._of_connection.get(peer)
        if share is None:
            share = self._of_connection[peer] = _Share()
        share.requests += requests
        share.bytes += size
        share.to_lists += to_lists
        self.bytes += size
        self._to_lists += to_lists
        if earliest_ms < self._none_before_ms or not self.flights:
            self._none_before_ms = earliest_ms

    def _new_id(self) -> int:
        identifier = self._next_id
        self._next_id += 1
        return identifier

    @property
    def last_id(self) -> int:
        """The id that was given last."""
        return self._next_id - 1

    def was_sent(self, identifier: int) -> bool:
        """Tell whether a request has been sent to anybody, under this id or another."""
        return identifier not in self.unsent or identifier in self.sent_before

    def share(self, peer: bytes) -> tuple[int, int]:
        """Return how many requests, and bytes of them, of one connection are in flight."""
        share = self._of_connection.get(peer)
        return (0, 0) if share is None else (share.requests, share.bytes)

    def renew(self, identifier: int) -> int:
        """Give a request a new id, so that an answer to the old one is not taken; return the new id."""
        flight = self.flights.pop(identifier)
        fresh = self._new_id()
        self.flights[fresh] = flight
        if identifier in self.unsent:
            self.unsent.remove(identifier)
            self.unsent.add(fresh)
            if identifier not in self.sent_before:
                return fresh
        self.sent_before.discard(identifier)
        self.sent_before.add(fresh)
        return fresh

    def end(self, identifier: int) -> Flight | None:
        """Take a request out and return it; None if it is not in flight under this id."""
        return self.end_all((identifier,))[0]

    def end_all(self, identifiers: Sequence[int]) -> list[Flight | None]:
        """Take requests out and return them in the same order; None for what is not in flight under its id."""
        take = self.flights.pop
        ended = [take(identifier, None) for identifier in identifiers]
        if self.sent_before or self.unsent:
            self.sent_before.difference_update(identifiers)
            self.unsent.difference_update(identifiers)
        for peer, group in groupby(filter(None, ended), key=_peer):
            flights = list(group)
            size = sum([flight.size for flight in flights])
            to_lists = sum([type(flight.place) is int for flight in flights])
            self.bytes -= size
            self._to_lists -= to_lists
            if to_lists < len(flights):
                self._named_bytes -= sum([flight.size for flight in flights if type(flight.place) is bytes])
            share = self._of_connection[peer]
            share.requests -= len(flights)
            share.bytes -= size
            share.to_lists -= to_lists
            if not share.requests:
                del self._of_connection[peer]
            if self.by_daemon.are_counted:
                for flight in flights:
                    self.by_daemon.remove(flight.place, flight.size)
                self.review()
        return ended

    def to_lists(self, peer: bytes) -> int:
        """Return how many requests to lists a connection has in flight."""
        share = self._of_connection.get(peer)
        return 0 if share is None else share.to_lists

    def expire(self, now_ms: int) -> list[int]:
        """Return the ids of requests whose deadline has passed; the caller ends them.

        Looks at every request in flight, but only once the earliest deadline known at the last look has passed: most
        are answered long before their deadline, so this is cheaper than keeping each deadline in order.
        """
        if now_ms < self._none_before_ms or not self.flights:
            return []
        late = [identifier for identifier, flight in self.flights.items() if flight.request[DEADLINE_MS] <= now_ms]
        deadlines_ms = (flight.request[DEADLINE_MS] for flight in self.flights.values())
        ahead = (deadline_ms for deadline_ms in deadlines_ms if deadline_ms > now_ms)
        self._none_before_ms = min(ahead, default=now_ms)
        return late
