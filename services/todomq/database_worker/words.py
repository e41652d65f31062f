"""The way back to the senders of batches: one PUSH connection to each, and the words that wait for it.

Owns: which incarnation listens at which address. Must not know: what a word says.
A new incarnation at an address replaces the one before, so the connections are as many as the addresses.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from todomq.protocol import messages
from todomq.protocol.messages import Committed
from todomq.runtime import sockets
from todomq.runtime.loop import Loop

WAITING_WORDS = 4_096
RETRY_S = 0.005


class Words:
    """Connections to senders."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._listening: dict[str, bytes] = {}
        self._sockets: dict[bytes, Any] = {}
        self._waiting: dict[bytes, deque[bytes]] = {}
        self.dropped = 0

    def connect(self, incarnation: bytes, address: str) -> bytes | None:
        """Send what is for ``incarnation`` to ``address`` from now on.

        Returns:
            the incarnation that listened there before and is gone, or None.
        """
        before = self._listening.get(address)
        if before == incarnation:
            return None
        if before is not None:
            self._close(before)
        self._close(incarnation)
        self._listening[address] = incarnation
        self._sockets[incarnation] = sockets.push(address)
        self._waiting[incarnation] = deque()
        return before

    def add(self, word: Committed) -> None:
        """Queue a word; it is dropped where nobody listens or where too many wait (the sender will ask again)."""
        waiting = self._waiting.get(word.sender)
        if waiting is None or len(waiting) >= WAITING_WORDS:
            self.dropped += 1
        else:
            waiting.append(messages.committed(word))

    def flush(self) -> None:
        """Send what can be sent, the rest soon."""
        for incarnation, waiting in self._waiting.items():
            while waiting and sockets.send(self._sockets[incarnation], [waiting[0]]):
                waiting.popleft()
        if not self.is_empty:
            self._loop.after(RETRY_S, self._loop.wake)

    @property
    def is_empty(self) -> bool:
        """Whether no word waits."""
        return not any(self._waiting.values())

    def _close(self, incarnation: bytes) -> None:
        for address in [a for a, listener in self._listening.items() if listener == incarnation]:
            del self._listening[address]
        socket = self._sockets.pop(incarnation, None)
        if socket is not None:
            self._waiting.pop(incarnation)
            socket.close(0)
