"""Whose requests are served in a turn, where more wait than one turn takes: the clients take turns.

Owns: what was read and is not served yet, by client, in order. Must not know: lists, what a request means, sockets.
Law 4: one client's requests stay in order. Law 6: what waits here is bounded by what the service reads, which asks
``room_bytes`` before; and whoever asks little waits for one turn, however much somebody else has sent before, and
however long the answers to it are.

This is deficit round robin (Shreedhar and Varghese, 1995): a client's requests are taken until they are over its
allowance of bytes, and the excess is deducted from its next one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from todomq.protocol import limits
from todomq.protocol.messages import BODY

TURN_REQUEST_BYTES = 64 * limits.KIB
"""A turn serves requests until they have this many bytes: some hundred plain changes, a few milliseconds."""
ALLOWANCE_BYTES = 4 * limits.KIB
"""What one client has served before the next one's turn comes."""
WAITING_BYTES = 8 * limits.MIB
REQUEST_OVERHEAD_BYTES = 64
"""What a request costs besides its body: a batch of small ones is work as well."""

Group = tuple[bytes, bytes, list[Any]]
"""The router's connection, the client, and requests of its in order."""


class Turns:
    """Requests that wait to be served."""

    def __init__(self) -> None:
        self.bytes = 0
        self._waiting: OrderedDict[bytes, deque[tuple[bytes, Any]]] = OrderedDict()
        """By client, in the order of their turns."""
        self._debts: dict[bytes, int] = {}
        self._left_bytes = TURN_REQUEST_BYTES

    def room_bytes(self) -> int:
        """Return how many more bytes may wait; 0 or less for none."""
        return WAITING_BYTES - self.bytes

    def serve_or_queue(self, peer: bytes, sender: bytes, requests: list[Any]) -> bool:
        """Return True if one client's requests are to be served at once; else they wait, behind its earlier ones.

        Serving while more arrives makes one batch of it all, as long as a turn has room.
        """
        size = _size(requests)
        if size <= self._left_bytes and not self._waiting:
            self._left_bytes -= size
            return True
        self.bytes += size
        queue = self._waiting.get(sender)
        if queue is None:
            queue = self._waiting[sender] = deque()
        queue.extend([(peer, request) for request in requests])
        return False

    def stop(self, peer: bytes, sender: bytes, left: list[Any]) -> None:
        """Serve no more in this turn: what is ``left`` of the client's requests waits, ahead of its later ones."""
        self._left_bytes = 0
        if left:
            self.bytes += _size(left)
            self._waiting.setdefault(sender, deque()).extendleft([(peer, request) for request in reversed(left)])

    def end(self) -> Iterator[Group]:
        """End the turn: yield and forget what it still takes of what waits, each client's share of it.

        It ends early where ``stop`` is called meanwhile.
        """
        while self._left_bytes > 0 and self._waiting:
            group = self._take_of_next()
            if group[2]:
                yield group
        self._left_bytes = TURN_REQUEST_BYTES

    def _take_of_next(self) -> Group:
        """Take what the next client is allowed of what came by one connection, and put it behind the others."""
        sender, queue = self._waiting.popitem(last=False)
        allowed = ALLOWANCE_BYTES - self._debts.pop(sender, 0)
        peer, requests, size = queue[0][0] if queue else b"", [], 0
        while queue and size < allowed and queue[0][0] == peer:
            request = queue.popleft()[1]
            size += len(request[BODY]) + REQUEST_OVERHEAD_BYTES
            requests.append(request)
        if queue:
            self._waiting[sender] = queue
            if size > allowed:
                self._debts[sender] = size - allowed
        self.bytes -= size
        self._left_bytes -= size
        return peer, sender, requests


def _size(requests: list[Any]) -> int:
    return sum([len(request[BODY]) for request in requests]) + REQUEST_OVERHEAD_BYTES * len(requests)
