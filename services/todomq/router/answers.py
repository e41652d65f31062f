"""What the router tells whoever asked: answers of daemons, and its own refusals.

Owns: the end of every request that it took in. Must not know: where a request goes, how it is sent. Law 3: of a request
that was sent before, a refusal says nothing about that time. Law 6: who does not read is sent short answers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from todomq.errors import NOT_APPLIED, UNKNOWN, DeadlineExceeded, Overloaded, TodoMQError, Unauthorized
from todomq.protocol import limits, messages
from todomq.protocol.messages import ID, TARGET
from todomq.router.in_flight import Flight, InFlight
from todomq.runtime.backlog import UNREAD_BYTES
from todomq.runtime.daemon import Daemon

SHORT_BYTES = limits.KIB
"""Answers up to this size are sent even to a client that does not read: a refusal would hardly be shorter."""


class Answers:
    """The answers to one router's requests.

    Args:
        in_flight: the requests.
        daemon: by whose sockets they are answered.
        counts: the router's, for what ends here.
    """

    def __init__(self, in_flight: InFlight, daemon: Daemon, counts: dict[str, int]) -> None:
        self.counts = counts
        self._in_flight = in_flight
        self._daemon = daemon

    def hand_over(self, replies: list[Any]) -> None:
        """Hand answers of daemons, by the router's ids, to the clients that asked."""
        identifiers = [identifier for identifier, _, _ in replies]
        sent_before = self._in_flight.sent_before.intersection(identifiers)
        answered: object = None
        server, has_backlog = self._daemon.server, self._daemon.has_backlog
        for flight, (identifier, status, value) in zip(self._in_flight.end_all(identifiers), replies):
            if flight is None:
                self.counts["replies_without_taker"] += 1
                continue
            asked = flight.request[ID]
            if has_backlog and len(value) > SHORT_BYTES and self.are_unread(flight.peer):
                status, value = messages.ERROR, _not_read(flight)
                self.counts["answers_not_read"] += 1
            elif status == messages.ERROR:
                if asked is None:
                    self.counts["casts_dropped"] += 1
                elif identifier in sent_before:
                    value = messages.not_this_time(value)
            if asked is None:
                continue
            if flight.peer is not answered:
                answered, queue = flight.peer, server.replies_to(flight.peer)
            queue.append((asked, status, value))

    def are_unread(self, peer: bytes) -> bool:
        """Tell whether so much waits for a client to read it that it is sent short answers only."""
        return self._daemon.has_backlog and self._daemon.server.backlog_bytes(peer) > UNREAD_BYTES

    def refuse(self, peer: bytes, identifier: int | None, error: TodoMQError) -> None:
        """Answer a request that was not taken in with an error."""
        if type(error) is Unauthorized:
            self.counts["unauthorized"] += 1
        self.refuse_with(peer, identifier, messages.error_value(error))

    def refuse_with(self, peer: bytes, identifier: int | None, error_value: bytes) -> None:
        """Do the same with an error that is packed already."""
        self.counts["refused"] += 1
        if identifier is None:
            self.counts["casts_dropped"] += 1
        self._daemon.server.reply(peer, identifier, messages.ERROR, error_value)

    def end(self, identifier: int, error: TodoMQError) -> None:
        """Answer a request in flight with an error; one that has ended already is left alone."""
        flight = self._in_flight.end(identifier)
        if flight is not None:
            self.refuse(flight.peer, flight.request[ID], error)

    def end_unsent(self, identifiers: Iterable[int], error: TodoMQError) -> None:
        """End requests that can't be sent on; of one sent before, that says nothing about the earlier sending."""
        value = messages.error_value(error)
        for identifier in identifiers:
            is_again = identifier in self._in_flight.sent_before
            flight = self._in_flight.end(identifier)
            if flight is not None:
                said = messages.not_this_time(value) if is_again else value
                self.refuse_with(flight.peer, flight.request[ID], said)

    def end_late(self, now_ms: int) -> None:
        """End the requests whose deadline has passed."""
        for identifier in self._in_flight.expire(now_ms):
            outcome = UNKNOWN if self._in_flight.was_sent(identifier) else NOT_APPLIED
            self.end(identifier, DeadlineExceeded("no answer before the deadline", outcome=outcome))

    def drop(self, is_gone: Callable[[bytes], bool]) -> None:
        """Forget the requests of connections that are gone for good; what waits here is not sent on any more."""
        flights = self._in_flight.flights.items()
        self._in_flight.end_all([identifier for identifier, flight in flights if is_gone(flight.peer)])


def _not_read(flight: Flight) -> bytes:
    """Return the error sent in place of a long answer to a client that has not read the answers before it.

    A change may have taken effect: sent again under its number, it gets the same answer. A call by name has no number.
    """
    text = "the answers before this one have not been read"
    if type(flight.request[TARGET]) is list:
        return messages.error_value(Overloaded(text, outcome=UNKNOWN))
    return messages.not_this_time(messages.error_value(Overloaded(text)))
