"""How many casts of one connection may be in flight, though nobody answers a cast.

Owns: which casts are sent as calls, so that their answers tell of those before them, and whether the router has read
all. Must not know: what a cast is for, sessions, messages. The session counts here what it sends.
"""

from __future__ import annotations

FORGOTTEN_MS = 5_000
"""How long casts that no answer tells of have a place in the window."""


class Casts:
    """The casts of one session.

    Attributes:
        forgotten_ms: when those that no answer has told of count as done.
    """

    def __init__(self) -> None:
        self.forgotten_ms = 0
        self._untold = 0
        self._told: dict[int, int] = {}
        """By the id of each that is a call and not answered: how many went before it, since the one before."""
        self._sent = self._sent_before_hello = self._read = 0

    @property
    def in_flight(self) -> int:
        """How many may be in flight, those that are calls left out."""
        return self._untold + sum(self._told.values())

    def send(self, window: int, identifier: int, now_ms: int) -> bool:
        """Count a cast that is sent now; return whether it is to be a call, under this id.

        It is one after each quarter of the window, and always where the window is very small.
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
        """Take the end of one that was a call: those before it are done, about."""
        self._told.pop(identifier, None)

    def forget(self) -> None:
        """Count all as done: they were lost with the connection, or nobody will tell."""
        self._untold = 0
        self._told.clear()

    def hello_sent(self) -> None:
        """Note that what was sent so far is before a hello; its answer says that the router has read it."""
        self._sent_before_hello = self._sent

    def greeted(self) -> None:
        """Take the answer to the hello."""
        self._read = self._sent_before_hello

    @property
    def are_read(self) -> bool:
        """Whether the router is known to have read every cast."""
        return self._read == self._sent
