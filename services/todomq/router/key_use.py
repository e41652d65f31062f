"""What one key uses of the service, against what it may: requests per second and in flight, handshakes, stored lists.

Owns: the limits of each key and its part of them. Must not know: sockets, where a request goes. Time is an argument.

Law 6 for each key alone: past a limit its requests are refused at once, and nobody else's. Stored lists are those
that the key's patterns cover. Their names are counted from what is stored; a name for which the key has sent an add
counts at once, and for at least ``UNCERTAIN_MS``, which is longer than any request can be under way. So within one life
of the router no timing gives the key more lists than its quota, though it may be refused one for about a minute after
it has deleted another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from todomq.errors import Overloaded
from todomq.keys.store import ClientKey
from todomq.protocol import limits

Share = Callable[[bytes], tuple[int, int]]
"""Given a connection, returns how many requests of it are in flight, and their bytes."""

HANDSHAKES_PER_S = 32
HANDSHAKES_AT_ONCE = 128
UNCERTAIN_MS = limits.DEADLINE_AHEAD_MS + 1_000
COUNT_AGAIN_MS = 1_000


class Rate:
    """So many per second, and as many saved up as ``most``."""

    def __init__(self, per_s: float, most: float, now_ms: int) -> None:
        self.per_s = per_s
        self.most = most
        self._saved = most
        self._at_ms = now_ms

    def take(self, now_ms: int) -> bool:
        """Take one if there is one."""
        self._saved = min(self.most, self._saved + max(0, now_ms - self._at_ms) * self.per_s / 1000)
        self._at_ms = now_ms
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class StoredLists:
    """The names of the stored lists that count for one key; its times are of the steady clock."""

    def __init__(self) -> None:
        self.is_counted = False
        self._touched_ms: dict[str, int] = {}
        self._counting_since_ms: int | None = None
        self._counted_ms = 0

    def __len__(self) -> int:
        return len(self._touched_ms)

    def count_if_room(self, name: str, most: int, steady_ms: int) -> bool:
        """Count a list of this name from now on; return False where there is no room for it."""
        if name not in self._touched_ms and len(self._touched_ms) >= most:
            return False
        self._touched_ms[name] = steady_ms
        return True

    def begin_count_if_due(self, steady_ms: int) -> bool:
        """Begin to count the stored lists where it is time; return whether it was."""
        if self._counting_since_ms is not None and steady_ms - self._counting_since_ms < UNCERTAIN_MS:
            return False
        if self.is_counted and steady_ms - self._counted_ms < COUNT_AGAIN_MS:
            return False
        self._counting_since_ms = steady_ms
        return True

    def counted(self, names: Iterable[str], steady_ms: int) -> None:
        """Take what the count found.

        Names for which an add was sent during the count, or shortly before it, are kept: such a list may have been
        stored after the count had passed its place.
        """
        since_ms = steady_ms if self._counting_since_ms is None else self._counting_since_ms
        found = dict.fromkeys(names, 0)
        for name, touched_ms in self._touched_ms.items():
            if touched_ms >= since_ms - UNCERTAIN_MS:
                found[name] = touched_ms
        self._touched_ms = found
        self.is_counted = True
        self.count_ended(steady_ms)

    def count_ended(self, steady_ms: int) -> None:
        """The count is over, whether it found anything or not."""
        self._counting_since_ms = None
        self._counted_ms = steady_ms


class KeyUse:
    """One key and what it uses.

    Attributes:
        client: its name, rights and quota; another object where these were changed.
        connections: those of its connections that have requests in flight or may send some.
        counts: requests, and those refused, by reason.
    """

    def __init__(self, client: ClientKey, now_ms: int) -> None:
        self.counts: Counter[str] = Counter()
        self.connections: set[bytes] = set()
        self.lists = StoredLists()
        self._handshakes = Rate(HANDSHAKES_PER_S, HANDSHAKES_AT_ONCE, now_ms)
        self._requests: Rate | None = None
        self.client = client
        self.learn(client, now_ms)

    def learn(self, client: ClientKey, now_ms: int) -> None:
        """Go by these rights and this quota from now on."""
        per_s = client.quota.requests_per_s
        if not per_s:
            self._requests = None
        elif self._requests is None or self._requests.per_s != per_s:
            self._requests = Rate(per_s, per_s, now_ms)
        before, self.client = self.client, client
        if (before.rights.patterns, before.quota.lists) != (client.rights.patterns, client.quota.lists):
            self.lists = StoredLists()  # other lists count, or none were counted

    def take_handshake(self, now_ms: int) -> bool:
        """Take one handshake; False where there were too many lately."""
        return self._handshakes.take(now_ms)

    def join(self, connection: bytes, share: Share, is_over: Callable[[bytes], bool]) -> None:
        """Count a connection as one of the key's.

        Raises:
            Overloaded: it has too many.
        """
        if connection in self.connections:
            return
        most = self.client.quota.connections
        self.connections = {each for each in self.connections if not is_over(each) or share(each)[0]}
        if most and len(self.connections) >= most:
            raise Overloaded(f"this key has {most} connections, which is the most")
        self.connections.add(connection)

    def room(self, share: Share) -> Room:
        """Return what may still be added to what is in flight over all connections."""
        requests = size = 0
        for connection in self.connections:
            its_requests, its_size = share(connection)
            requests += its_requests
            size += its_size
        return Room(self.client.quota.requests_in_flight, requests, self.client.quota.bytes_in_flight, size)

    def take_request(self, now_ms: int) -> None:
        """Take one of the requests of this second.

        Raises:
            Overloaded: there were as many as the key may send.
        """
        if self._requests is not None and not self._requests.take(now_ms):
            raise Overloaded(f"this key may send {self.client.quota.requests_per_s} requests a second")


class Room:
    """How much more of one key may be in flight."""

    __slots__ = ("_bytes", "_most_bytes", "_most_requests", "_requests")

    def __init__(self, most_requests: int, requests: int, most_bytes: int, size: int) -> None:
        self._most_requests = most_requests
        self._requests = requests
        self._most_bytes = most_bytes
        self._bytes = size

    def take(self, size: int) -> None:
        """Count one more request of so many bytes.

        Raises:
            Overloaded: there is no room for it.
        """
        if self._most_requests and self._requests >= self._most_requests:
            raise Overloaded(f"this key has {self._requests} requests in flight, which is the most")
        if self._most_bytes and self._bytes + size > self._most_bytes:
            raise Overloaded("this key has too many bytes in flight")
        self._requests += 1
        self._bytes += size
