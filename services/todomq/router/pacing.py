"""How much of one client's work the list servers have at a time while others ask as well; the rest waits in the router.

Owns: which clients have asked lately, what is held back, in order. Must not know: the table, what a request means.
A client is one connection here, and asks whenever it sends a call.

Laws 5 and 6: what one client has sent stands before what others ask, from here to the disk. So clients that asked
lately share ``IN_LIST_SERVERS`` equally, and one that was refused for more than its window gets ``LEAST`` only. A
client that is alone or below its share is not held back. But one that leaves so much unread that it would get only
short answers waits until it reads, alone or not.
Law 4: once something of a client is held back, so is all that it sends after that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from todomq.router.in_flight import REQUESTS_PER_CONNECTION, Flight, InFlight

IN_LIST_SERVERS = 4_096
"""Requests of all clients together, about: some tens of milliseconds of work. With fewer, batches would be small."""
LEAST = 256
"""What each client may have there in any case: requests for a shard that is down count as well."""


class Pacing:
    """The requests to lists that wait because of what their client has in the list servers."""

    def __init__(self, in_flight: InFlight, leaves_unread: Callable[[bytes], bool]) -> None:
        """Hold nothing back yet; ``leaves_unread`` tells whether a client does not read what it is answered."""
        self._in_flight = in_flight
        self._leaves_unread = leaves_unread
        self._asked: set[bytes] = set()
        self._asked_before: set[bytes] = set()
        self._over: set[bytes] = set()
        self._over_before: set[bytes] = set()
        self._held: dict[bytes, deque[int]] = {}

    def note(self, peer: bytes, requests: int) -> bool:
        """Note that a client asks; return whether so many requests of it are to be held back before they go on."""
        self._asked.add(peer)
        if peer in self._held:
            return True
        return requests + self._in_flight.to_lists(peer) > self._allowance(peer)

    def overstepped(self, peer: bytes) -> None:
        """Note that a client had more in flight than it may and was refused."""
        self._over.add(peer)

    def hold(self, peer: bytes, identifier: int) -> None:
        """Let an admitted request wait for ``released``."""
        self._in_flight.unsent.add(identifier)
        queue = self._held.get(peer)
        if queue is None:
            queue = self._held[peer] = deque()
        elif len(queue) >= 2 * REQUESTS_PER_CONNECTION:  # half of them have ended
            flights = self._in_flight.flights
            queue = self._held[peer] = deque([held for held in queue if held in flights])
        queue.append(identifier)

    def released(self) -> Iterator[tuple[int, Flight]]:
        """Give out, in each client's order, what may go on now; what has ended meanwhile is forgotten."""
        if not self._held:
            return
        flights = self._in_flight.flights
        for peer, queue in list(self._held.items()):
            room = self._allowance(peer) - self._in_flight.to_lists(peer)
            if room + len(queue) > 0:
                room += sum([identifier in flights for identifier in queue])  # the others have ended meanwhile
            while queue and room > 0:
                identifier = queue.popleft()
                flight = flights.get(identifier)
                if flight is not None:
                    room -= 1
                    yield identifier, flight
            if not queue:
                del self._held[peer]

    def tick(self) -> None:
        """A second is over: whoever has not asked since the one before counts no more."""
        self._asked_before, self._asked = self._asked, set()
        self._over_before, self._over = self._over, set()

    @property
    def held(self) -> int:
        """How many requests are held back, those included that have ended meanwhile."""
        return sum(map(len, self._held.values()))

    def _allowance(self, peer: bytes) -> int:
        if self._leaves_unread(peer):
            return 0
        clients = max(len(self._asked), len(self._asked_before))
        if clients <= 1:
            return REQUESTS_PER_CONNECTION
        if peer in self._over or peer in self._over_before:
            return LEAST
        return max(LEAST, IN_LIST_SERVERS // clients)
