"""What a ROUTER sends: at once if the peer reads, otherwise it waits here.

Owns: the messages that wait for each peer, in order, until libzmq takes them. Must not know: what they mean.
Law 6: the bytes that wait for one peer are bounded; past the bound its messages are dropped, counted and logged.
Nothing waits for a peer that has gone.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from todomq.protocol import limits
from todomq.runtime import sockets
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop, OneTimer

if TYPE_CHECKING:
    import zmq

BACKLOG_BYTES = 8 * limits.MIB
UNREAD_BYTES = BACKLOG_BYTES // 2
"""If more than this waits for a peer, long answers to it are better refused than made: further ones may be dropped."""
TRY_AGAIN_S = 0.005


class _Waiting:
    """What waits for one peer."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.bytes = 0


class Backlog:
    """The way out of one ROUTER socket."""

    def __init__(
        self, loop: Loop, socket: zmq.Socket[bytes], name: str, most_bytes: int, counts: Counter[str]
    ) -> None:
        """Begin with nothing waiting.

        Args:
            loop: the loop on which sending is tried again.
            socket: the ROUTER.
            name: what it is called in the log.
            most_bytes: how much may wait for one peer.
            counts: counts what is sent and dropped.
        """
        self._socket = socket
        self._name = name
        self._most_bytes = most_bytes
        self._counts = counts
        self._waiting: dict[bytes, _Waiting] = {}
        self._try_again = OneTimer(loop, TRY_AGAIN_S)

    def __len__(self) -> int:
        """Return how many peers have anything waiting."""
        return len(self._waiting)

    def bytes_for(self, peer: bytes) -> int:
        """Return how much waits for a peer."""
        waiting = self._waiting.get(peer)
        return 0 if waiting is None else waiting.bytes

    def forget(self, peer: bytes) -> None:
        """Drop what waits for a peer."""
        self._waiting.pop(peer, None)

    def send(self, peer: bytes, message: bytes) -> None:
        """Send a message, or let it wait behind what waits for the same peer."""
        waiting = self._waiting.get(peer)
        if waiting is not None and waiting.bytes + len(message) > self._most_bytes:
            self._counts["replies_dropped"] += 1
            log_counted("peer_reads_nothing", at=self._name)
            return
        if waiting is None:
            try:
                if self._is_taken(peer, message):
                    return
            except ConnectionError:
                self._counts["peers_gone"] += 1
                return
            waiting = self._waiting[peer] = _Waiting()
            self._try_again.plan()
        waiting.messages.append(message)
        waiting.bytes += len(message)

    def send_waiting(self) -> None:
        """Send as much of what waits as libzmq takes by now, a bounded number of messages to each peer."""
        for peer, waiting in list(self._waiting.items()):
            try:
                for _ in range(min(len(waiting.messages), sockets.DRAIN_MESSAGES)):
                    if not self._is_taken(peer, waiting.messages[0]):
                        break
                    waiting.bytes -= len(waiting.messages.popleft())
            except ConnectionError:
                waiting.messages.clear()
            if not waiting.messages:
                self.forget(peer)
        if self._waiting:
            self._try_again.plan()

    def _is_taken(self, peer: bytes, message: bytes) -> bool:
        """Send a message; return False if libzmq takes none at the moment."""
        if not sockets.send(self._socket, (peer, b"", message)):
            return False
        self._counts["messages_sent"] += 1
        return True
