"""The way back to the senders of batches: one PUSH connection to each, and the words that wait for it.

A word is a ``committed`` message: what a worker says of a sender's batches, whatever became of them.
Owns: which incarnation listens at which address. Must not know: what a word says.
A new incarnation at an address replaces the one before, so the connections are as many as the addresses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from todomq.protocol import messages
from todomq.protocol.messages import Committed
from todomq.runtime.loop import Loop, OneTimer
from todomq.runtime.pipes import Push

WAITING_WORDS = 4_096
RETRY_S = 0.005
GONE_MS = 30_000


class Words:
    """Connections to senders."""

    def __init__(self, loop: Loop, connect: Callable[[str], Push]) -> None:
        """Make no connection yet.

        Args:
            loop: tells the time.
            connect: returns a PUSH connected to an address.
        """
        self._loop = loop
        self._connect = connect
        self._listening: dict[str, bytes] = {}
        self._pushes: dict[bytes, Push] = {}
        self._waiting: dict[bytes, deque[bytes]] = {}
        self._blocked_since_ms: dict[bytes, int] = {}
        self._flush_again = OneTimer(loop, RETRY_S)
        self.dropped = 0

    def connect(self, incarnation: bytes, address: str) -> bytes | None:
        """Send what is for ``incarnation`` to ``address`` from now on.

        Returns:
            the incarnation that listened there before and is gone, or None.

        Raises:
            Unavailable: it cannot be connected to; nothing is changed.
        """
        before = self._listening.get(address)
        if before == incarnation:
            return None
        push = self._connect(address)
        if before is not None:
            self.disconnect(before)
        self.disconnect(incarnation)
        self._listening[address] = incarnation
        self._pushes[incarnation] = push
        self._waiting[incarnation] = deque()
        return before

    def add(self, word: Committed) -> None:
        """Queue a word; it is dropped where nobody listens or where too many wait (the sender will ask again)."""
        waiting = self._waiting.get(word.sender)
        if waiting is None or len(waiting) >= WAITING_WORDS:
            self.dropped += 1
        else:
            waiting.append(messages.committed(word))

    def flush(self) -> list[bytes]:
        """Send what can be sent, the rest soon.

        Returns:
            the incarnations that have taken no word for ``GONE_MS``; they are disconnected.
        """
        for incarnation, waiting in self._waiting.items():
            while waiting and self._pushes[incarnation].send(waiting[0]):
                waiting.popleft()
                self._blocked_since_ms.pop(incarnation, None)
            if waiting:
                self._blocked_since_ms.setdefault(incarnation, self._loop.steady_ms())
        if not self._blocked_since_ms:
            return []
        self._flush_again.plan()
        steady_ms = self._loop.steady_ms()
        gone = [sender for sender, since_ms in self._blocked_since_ms.items() if steady_ms - since_ms > GONE_MS]
        for incarnation in gone:
            self.disconnect(incarnation)
        return gone

    def look(self) -> None:
        """Let each connection take in what happened to it, which libzmq keeps until somebody looks."""
        for push in self._pushes.values():
            push.look()

    def disconnect(self, incarnation: bytes) -> None:
        """Say nothing to this incarnation any more; what waits for it is dropped and counted."""
        for address in [a for a, listener in self._listening.items() if listener == incarnation]:
            del self._listening[address]
        push = self._pushes.pop(incarnation, None)
        if push is not None:
            self.dropped += len(self._waiting.pop(incarnation))
            self._blocked_since_ms.pop(incarnation, None)
            push.close()
