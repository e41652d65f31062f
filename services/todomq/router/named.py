"""Requests for a daemon by name: which wait for it, which go to it this turn, which fail when it dies.

They wait here, in flight until their deadline, while nobody has the name or nobody listens where it is registered.

Owns: nothing but this bookkeeping. Must not know: lists, what a request means, sockets.
Law 3: a request for a database key is safe to send again (its number is kept beside the value), so it outlives its
worker; a request for a daemon by name is not: once it was sent it fails with ``Unavailable`` whose outcome is unknown.
"""

from __future__ import annotations

from todomq.errors import UNKNOWN, Unavailable
from todomq.protocol import limits
from todomq.protocol.messages import TARGET
from todomq.router.in_flight import REQUESTS, Flight, InFlight

NamedBatch = list[tuple[int, Flight]]
"""Requests of one sender under the router's ids. Each counts for ``OVERHEAD_BYTES`` at least, so that a batch is far
from ``MESSAGE_REQUESTS``."""


class NamedRouting:
    """Requests between clients and daemons that are called by name."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._waiting: dict[bytes, list[int]] = {}
        self._outgoing: dict[bytes, list[int]] = {}

    def forward(self, identifier: int, name: bytes, present: bool) -> None:
        """Send an admitted request to the daemon this turn, or let it wait until the daemon is there."""
        if present:
            self._outgoing.setdefault(name, []).append(identifier)
            return
        self._in_flight.unsent.add(identifier)
        waiting = self._waiting.setdefault(name, [])
        waiting.append(identifier)
        if len(waiting) > 2 * REQUESTS:  # most of them have reached their deadline
            waiting[:] = [each for each in waiting if each in self._in_flight.flights]

    def found(self, name: bytes) -> None:
        """The daemon may be there: what waited for it goes out, before what has come in this turn."""
        waiting = self._waiting.pop(name, None)
        if waiting:
            self._in_flight.unsent.difference_update(waiting)
            self._outgoing[name] = waiting + self._outgoing.get(name, [])

    def lost(self, name: bytes, comes_back: bool) -> list[tuple[int, Unavailable]]:
        """The daemon died, or is out of reach: requests for keys wait for the next one, others are returned to fail.

        If another is certain to come, requests that were never sent to this one wait for it as well.
        """
        unsent = self._in_flight.unsent
        unsent.update(each for each in self._outgoing.pop(name, ()) if each in self._in_flight.flights)
        waiting: list[int] = []
        failed: list[tuple[int, Unavailable]] = []
        for identifier, flight in sorted(self._in_flight.flights.items(), key=lambda item: item[1].order):
            if flight.place != name:
                continue
            if type(flight.request[TARGET]) is bytes or (comes_back and identifier in unsent):
                waiting.append(identifier)
            elif identifier in unsent:
                failed.append((identifier, Unavailable("the daemon was gone before it was asked")))
            else:
                failed.append((identifier, Unavailable("the daemon was lost before it answered", outcome=UNKNOWN)))
        self._waiting.pop(name, None)
        if waiting:
            self._waiting[name] = [self._in_flight.renew(identifier) for identifier in waiting]
            self._in_flight.unsent.update(self._waiting[name])
        return failed

    def give_up(self, name: bytes, last: int) -> list[int]:
        """Return and forget the requests up to the id ``last`` that wait for a name: nobody has it."""
        waiting = self._waiting.pop(name, [])
        later = [identifier for identifier in waiting if identifier > last]
        if later:
            self._waiting[name] = later
        return [identifier for identifier in waiting if identifier <= last]

    def is_waited_for(self, name: bytes) -> bool:
        """Tell whether requests in flight wait for a name."""
        return any(each in self._in_flight.flights for each in self._waiting.get(name, ()))

    def names_waited_for(self) -> list[bytes]:
        """Return the canonical names that requests in flight wait for; others are forgotten."""
        flights = self._in_flight.flights
        self._waiting = {
            name: waiting for name, waiting in self._waiting.items() if any(each in flights for each in waiting)
        }
        return list(self._waiting)

    def ready(self) -> dict[bytes, list[NamedBatch]]:
        """Return and forget what goes out this turn, by canonical name: a message for each batch."""
        outgoing, self._outgoing = self._outgoing, {}
        flights = self._in_flight.flights
        return {
            name: _batches([(identifier, flights[identifier]) for identifier in identifiers if identifier in flights])
            for name, identifiers in outgoing.items()
        }


def _batches(flights: list[tuple[int, Flight]]) -> list[NamedBatch]:
    """Cut requests into batches of one sender each, in order, none over ``BATCH_BYTES`` but a large one alone."""
    batches: list[NamedBatch] = []
    left_bytes = 0
    for identifier, flight in flights:
        key = flight.request[TARGET]
        size = flight.size + (len(key) if type(key) is bytes else 0)
        if not batches or size > left_bytes or flight.sender != batches[-1][0][1].sender:
            batches.append([])
            left_bytes = limits.BATCH_BYTES
        batches[-1].append((identifier, flight))
        left_bytes -= size
    return batches
