"""How many casts of one connection may be in flight, though nobody answers a cast.

Owns: which casts are sent as calls, so that their answers tell of those before them, and whether the router has read
all. Must not know: what a cast is for, sessions, messages. The session counts here what it sends.
"""

from __future__ import annotations

FORGOTTEN_MS = 5_000
"""For how long casts keep their place in the window while no answer tells of them."""


class Casts:
    """The casts of one session.

    Attributes:
        forgotten_ms: when those that no answer has told of count as done.
    """

    def __init__(self) -> None:
        self.forgotten_ms = 0
        self._untold = 0
        self._told: dict[int, int] = {}
        """By id, for each cast sent as a call and not answered: how many went before it, since the last such one."""
        self._sent = self._sent_before_hello = self._read = 0

    @property
    def in_flight(self) -> int:
        """How many may be in flight, not counting those that are sent as calls."""
        return self._untold + sum(self._told.values())

    def send(self, window: int, identifier: int, now_ms: int) -> bool:
        """Count a cast that is sent now; return whether it is to be a call, under this id.

        One is after each quarter of the window, and every one if the window is very small.
        """
        self._sent += 1
        self.forgotten_ms = now_ms + FORGOTTEN_MS
        if 4 * self._untold < window - 4:
            self._untold += 1
            return False
        self._told[identifier] = self._untold
        self._untold = 0
        return True

    def ended(self, identifier: int) -> None:
        """Note the end of a cast that was sent as a call: those before it are done, or nearly so."""
        self._told.pop(identifier, None)

    def forget(self) -> None:
        """Count all as done: they were lost with the connection, or nobody will tell."""
        self._untold = 0
        self._told.clear()

    def hello_sent(self) -> None:
        """Note that a hello follows what was sent so far: its answer will say that the router has read all that."""
        self._sent_before_hello = self._sent

    def greeted(self) -> None:
        """Take the answer to the hello."""
        self._read = self._sent_before_hello

    @property
    def are_read(self) -> bool:
        """Whether the router is known to have read every cast."""
        return self._read == self._sent
