"""What a ROUTER sends: at once where the peer reads, and what waits where it does not.

Owns: the messages that wait for each peer, in order, until libzmq takes them. Must not know: what they mean.
Law 6: of one peer so many bytes wait at most; past that its messages are dropped, counted and logged. A peer that has
gone has nothing waiting.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from todomq.protocol import limits
from todomq.runtime import sockets
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop, Once

if TYPE_CHECKING:
    import zmq

BACKLOG_BYTES = 8 * limits.MIB
UNREAD_BYTES = BACKLOG_BYTES // 2
"""Of what waits for a peer: above, long answers to it are better refused than made, for further ones are dropped."""
TRY_AGAIN_S = 0.005


class Backlog:
    """The way out of one ROUTER socket."""

    def __init__(
        self, loop: Loop, socket: zmq.Socket[bytes], name: str, most_bytes: int, counts: Counter[str]
    ) -> None:
        """Begin with nothing waiting.

        Args:
            loop: where it is tried again.
            socket: the ROUTER.
            name: what it is called in the log.
            most_bytes: what waits for one peer at most.
            counts: where what is sent and dropped is counted.
        """
        self._socket = socket
        self._name = name
        self._most_bytes = most_bytes
        self._counts = counts
        self._waiting: dict[bytes, list[bytes]] = {}
        self._try_again = Once(loop, TRY_AGAIN_S)

    def __len__(self) -> int:
        """Return for how many peers anything waits."""
        return len(self._waiting)

    def bytes_for(self, peer: bytes) -> int:
        """Return how much waits for a peer."""
        return sum(map(len, self._waiting.get(peer, ())))

    def forget(self, peer: bytes) -> None:
        """Drop what waits for a peer."""
        self._waiting.pop(peer, None)

    def send(self, peer: bytes, message: bytes) -> None:
        """Send a message, or let it wait behind what waits for the same peer."""
        waiting = self._waiting.get(peer)
        if waiting is not None:
            if self.bytes_for(peer) + len(message) > self._most_bytes:
                self._counts["replies_dropped"] += 1
                log_counted("peer_reads_nothing", at=self._name)
            else:
                waiting.append(message)
            return
        try:
            if sockets.send(self._socket, (peer, b"", message)):
                self._counts["messages_sent"] += 1
            else:
                self._waiting[peer] = [message]
                self._try_again.plan()
        except ConnectionError:
            self._counts["peers_gone"] += 1

    def send_waiting(self) -> None:
        """Send what libzmq takes by now of all that waits."""
        for peer in list(self._waiting):
            waiting = self._waiting[peer]
            try:
                while waiting and sockets.send(self._socket, (peer, b"", waiting[0])):
                    self._counts["messages_sent"] += 1
                    waiting.pop(0)
            except ConnectionError:
                waiting.clear()
            if not waiting:
                del self._waiting[peer]
        if self._waiting:
            self._try_again.plan()
