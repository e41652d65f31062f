"""Where a list's requests go: the router's copy of the table partition -> (list server, epoch), and what waits for it.

Owns: the table, which requests wait because their partition is moving, what goes to which list server this turn.
Must not know: what a request means (it never looks into a body), where the table comes from.

Keeps laws 2 and 4 on the way: a request that goes to a new owner gets a new id, so an old owner's answer finds no
taker; requests of a moving partition wait here and leave in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from todomq.protocol import limits
from todomq.protocol.messages import BODY
from todomq.protocol.partitions import PARTITIONS
from todomq.router.in_flight import OVERHEAD_BYTES, InFlight


class Row(NamedTuple):
    """Who owns a partition: list server number, its incarnation, the epoch it has claimed."""

    server: int
    incarnation: bytes
    epoch: int


class Forward:
    """What goes to one list server in one message: requests grouped by their sender, in order."""

    __slots__ = ("bytes", "groups")

    def __init__(self) -> None:
        self.groups: dict[bytes, list[Any]] = {}
        self.bytes = 0


class Routing:
    """The table and the requests between clients and list servers."""

    def __init__(self, in_flight: InFlight) -> None:
        self.table: list[Row | None] = [None] * PARTITIONS
        self.moving: set[int] = set(range(PARTITIONS))
        self.sent_again = 0
        self._in_flight = in_flight
        self._forwards: dict[int, list[Forward]] = {}
        self._open: dict[int, Forward] = {}

    def forward(self, identifier: int, sender: bytes, request: list[Any], partition: int) -> None:
        """Send an admitted request to its list server this turn; one of a moving partition waits in flight."""
        row = self.table[partition]
        if row is None or partition in self.moving:
            self._in_flight.unsent.add(identifier)
            return
        if self._in_flight.unsent:
            self._in_flight.unsent.discard(identifier)
        groups = self._room_for(row.server, len(request[BODY]) + OVERHEAD_BYTES)
        _, target, deadline_ms, body, number, floor = request
        groups.setdefault(sender, []).append((identifier, target, deadline_ms, body, number, floor, row.epoch))

    def forward_all(
        self, first: int, sender: bytes, requests: list[Any], partitions: list[int], body_sizes: list[int]
    ) -> None:
        """Send requests of one client, admitted under ``first`` and the ids that follow, as ``forward`` does one."""
        size = sum(body_sizes) + OVERHEAD_BYTES * len(requests)
        identifier = first
        if size > limits.BATCH_BYTES or not self.moving.isdisjoint(partitions):
            for request, partition in zip(requests, partitions):
                self.forward(identifier, sender, request, partition)
                identifier += 1
            return
        table = cast(list[Row], self.table)  # where there is no row the partition is moving
        groups: dict[int, list[Any]] = {}
        for request, partition in zip(requests, partitions):
            server, _, epoch = table[partition]
            group = groups.get(server)
            if group is None:
                group = groups[server] = self._room_for(server, size).setdefault(sender, [])
            _, target, deadline_ms, body, number, floor = request
            group.append((identifier, target, deadline_ms, body, number, floor, epoch))
            identifier += 1

    def _room_for(self, server: int, size: int) -> dict[bytes, list[Any]]:
        """Return the groups of a message to a list server that has room for so many bytes, and take that room."""
        forward = self._open.get(server)
        if forward is None or forward.bytes + size > limits.BATCH_BYTES:
            forward = self._open[server] = Forward()
            self._forwards.setdefault(server, []).append(forward)
        forward.bytes += size
        return forward.groups

    def not_taken(self, identifier: int) -> None:
        """A list server says that it does not own the request's partition: it waits for a newer row of the table."""
        flight = self._in_flight.flights.get(identifier)
        if flight is not None and isinstance(flight.place, int):
            self.moving.add(flight.place)

    def learn(self, rows: Iterable[tuple[int, Row]]) -> list[tuple[int, int]]:
        """Take newer rows of the table; whatever is in flight to an older owner goes to the new one, in order.

        Returns:
            ``(partition, known epoch)`` of each row that was not taken: another one is known, under that epoch.
        """
        changed = set()
        refused = []
        for partition, row in rows:
            known = self.table[partition]
            if known is None or row.epoch > known.epoch:
                self.table[partition] = row
                changed.add(partition)
            elif row != known:
                refused.append((partition, known.epoch))
        self._send_again(changed)
        return refused

    def server_lost(self, server: int) -> None:
        """The connection to a list server broke: what is in flight to it waits for the table or for its return."""
        self.moving.update(
            partition for partition, row in enumerate(self.table) if row is not None and row.server == server
        )

    def server_found(self, server: int, incarnation: bytes) -> None:
        """A list server is connected again: if it is still the same life, what waits for it is sent there again."""
        self._send_again(
            {
                partition
                for partition in self.moving
                if (row := self.table[partition]) is not None and row[:2] == (server, incarnation)
            }
        )

    def ready(self) -> dict[int, list[Forward]]:
        """Return and forget what goes out this turn, by list server."""
        forwards, self._forwards = self._forwards, {}
        self._open.clear()
        return forwards

    def _send_again(self, partitions: set[int]) -> None:
        if not partitions:
            return
        self.moving -= partitions
        flights = self._in_flight.flights
        again = sorted(
            (flight.order, identifier)
            for identifier, flight in flights.items()
            if type(flight.place) is int and flight.place in partitions
        )
        for _, identifier in again:
            fresh = self._in_flight.renew(identifier)
            flight = flights[fresh]
            self.forward(fresh, flight.sender, flight.request, cast(int, flight.place))
        self.sent_again += len(again)
