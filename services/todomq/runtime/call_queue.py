"""Calls that wait for their turn: one message may bring more of them than a turn of the loop has time for.

Owns: what was read and is not served yet, by peer, in order. Must not know: what a call means, sockets, the clock.
The peers take turns, so one that asks little does not wait for all that another has sent. Law 6: what waits is bounded
for each peer and in all; the caller of ``add`` refuses the surplus.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

from todomq.protocol import limits
from todomq.protocol.messages import Request

PEER_REQUESTS = limits.MESSAGE_REQUESTS
PEER_BYTES = limits.TRANSPORT_BYTES
WAITING_BYTES = 16 * limits.TRANSPORT_BYTES
REQUEST_OVERHEAD_BYTES = 64
"""How many bytes a request counts as, besides its body and its key."""


Waiting = tuple[Request, Any]
"""A request and whatever its server keeps with it."""


class _Peer:
    """What one peer has waiting."""

    __slots__ = ("bytes", "calls")

    def __init__(self) -> None:
        self.calls: deque[tuple[Waiting, int]] = deque()
        self.bytes = 0


class CallQueue:
    """The calls that wait at one socket."""

    def __init__(self) -> None:
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._peers)

    def add(self, peer: bytes, requests: Sequence[Request], kept: Any) -> Sequence[Request]:
        """Let requests wait, behind those of the same peer that do; return those for which there is no room.

        Args:
            peer: the peer that sent them.
            requests: in their order.
            kept: returned with each of them when its turn has come.
        """
        waiting = self._peers.get(peer) or _Peer()
        for place, request in enumerate(requests):
            size = REQUEST_OVERHEAD_BYTES + len(request.body) + len(request.target or b"")
            is_full = len(waiting.calls) >= PEER_REQUESTS or waiting.bytes + size > PEER_BYTES
            if is_full or self._bytes + size > WAITING_BYTES:
                return requests[place:]
            waiting.calls.append(((request, kept), size))
            waiting.bytes += size
            self._bytes += size
            self._peers[peer] = waiting
        return ()

    def take(self) -> tuple[bytes, Waiting]:
        """Return and forget the first call of the peer whose turn it is."""
        peer, waiting = self._peers.popitem(last=False)
        call, size = waiting.calls.popleft()
        waiting.bytes -= size
        self._bytes -= size
        if waiting.calls:
            self._peers[peer] = waiting
        return peer, call
