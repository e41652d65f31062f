"""Whether the router is there: how it greets on a connection, and for how long nothing was heard from it.

Owns: when ``hello`` is due and what its answer says, when a silent connection is asked and when it counts as lost. Must
not know: requests, the session. The session asks, and tells what was sent and heard; times are by its clock.
"""

from __future__ import annotations

from typing import NamedTuple

from todomq.errors import ProtocolError, TodoMQError
from todomq.protocol import messages
from todomq.protocol.codec import unpack

WINDOW_REQUESTS = 2_048
"""Requests in flight at most, where the router's greeting names no window of its own."""
SILENCE_MS = 1_000
SILENCE_MOST_MS = 5_000
CLOCK_REFRESH_MS = 30_000
CLOCK_SLACK_MS = 50


class Greeted(NamedTuple):
    """What the router has said: how far its clock is ahead, in milliseconds, and how many requests may be in flight."""

    ahead_ms: int
    window: int


class Greeting:
    """The greeting of one connection.

    Attributes:
        is_due: whether hello is to be sent next.
        is_waiting: whether it was sent and is not answered.
        is_done: whether the router has greeted.
        refusal: why the router has not greeted, if it has said so.
    """

    def __init__(self) -> None:
        self.is_due = self.is_waiting = self.is_done = False
        self.refusal: TodoMQError | None = None
        self._sent_ms = self._done_ms = 0
        self._is_clock_doubted = False

    def connected(self) -> None:
        """Begin on a new connection."""
        self.is_due = True
        self.is_waiting = self.is_done = self._is_clock_doubted = False
        self.refusal = None

    def is_old(self, now_ms: int) -> bool:
        """Tell whether it is time to ask (again): clocks drift apart."""
        return not self.is_done or now_ms - self._done_ms >= CLOCK_REFRESH_MS

    def sent(self, now_ms: int) -> None:
        """Note that hello is sent."""
        self.is_due = False
        self.is_waiting = True
        self._sent_ms = now_ms

    def refused(self, error: TodoMQError) -> None:
        """Take an error in place of the greeting; after one that is not retryable, the greeting is not waited for."""
        self.refusal = error
        self.is_waiting = error.retryable

    def answered(self, value: bytes, now_ms: int) -> Greeted:
        """Take the answer.

        Raises:
            ProtocolError: it is no greeting of this version.
        """
        self.is_waiting = False
        try:
            version, router_ms, _, *more = unpack(value)
            window = more[0] if more else WINDOW_REQUESTS
            if version != messages.VERSION or type(router_ms) is not int or type(window) is not int or window < 1:
                raise ValueError
            if not 0 <= router_ms < messages.LIMIT // 2:  # or deadlines would be too large for the protocol
                raise ValueError
        except (ProtocolError, ValueError, TypeError):
            raise ProtocolError(f"the router's greeting is not one of version {messages.VERSION}") from None
        self.is_done = True
        self.refusal = None
        self._done_ms = now_ms
        # The router's time may be older than now by as long as the answer took; all deadlines sent would then be too
        # early by that much. If it took long, the router is asked once more.
        self._is_clock_doubted = not self._is_clock_doubted and now_ms - self._sent_ms > CLOCK_SLACK_MS
        self.is_due = self._is_clock_doubted
        return Greeted(router_ms - now_ms, window)


class Silence:
    """For how long nothing was heard while an answer was due; patience grows after connections that stayed silent."""

    def __init__(self) -> None:
        self._since_ms = 0
        self._patience_ms = SILENCE_MS
        self._was_heard = True
        self._is_probed = False

    def connected(self, now_ms: int) -> None:
        """Begin on a new connection."""
        if not self._was_heard:
            self._patience_ms = min(2 * self._patience_ms, SILENCE_MOST_MS)
        self._was_heard = self._is_probed = False
        self._since_ms = now_ms

    def begin(self, now_ms: int) -> None:
        """Note that an answer is due from now on."""
        self._since_ms = now_ms

    def heard(self, now_ms: int) -> None:
        """Note that something was heard."""
        self._since_ms = now_ms
        self._patience_ms = SILENCE_MS
        self._is_probed = False
        self._was_heard = True

    def must_probe(self, now_ms: int) -> bool:
        """Tell whether it is time to ask whether the router is there; once in each silence."""
        if self._is_probed or now_ms - self._since_ms < self._patience_ms // 2:
            return False
        self._is_probed = True
        return True

    def is_over(self, now_ms: int) -> bool:
        """Tell whether the connection is to be taken for lost."""
        return now_ms - self._since_ms >= self._patience_ms

    @property
    def next_ms(self) -> int:
        """When there is something to do, if nothing is heard."""
        return self._since_ms + (self._patience_ms if self._is_probed else self._patience_ms // 2)
