"""What is known of one sender of batches: its next number, and what became of those before.

Pure; used by ``commit.py``. After a failed commit, or one refused for lack of room, a sender is *broken*: whatever it
had under way rests on that, so it is refused until the sender has heard of it, given up all it keeps, and said hello
with its next number.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from todomq.protocol.messages import COMMITTED, FAILED

FAILURES_KEPT = 64


@dataclass(slots=True)
class Sender:
    """One incarnation of one sender."""

    next: int
    settled: int  # up to this one every number that has not failed is committed
    waiting_bytes: int = 0
    wants: bool = False  # it is to hear WANTED at the end of this turn
    starved: bool = False  # something was dropped for lack of room; it is to hear WANTED when there is some
    broken: bool = False
    failed: list[tuple[int, int]] = field(default_factory=list)  # ranges, ascending

    def greet(self, number: int) -> None:
        """Take the sender's hello: it goes on with ``number``, the lowest that it keeps, or its next if it keeps none.

        A number that was taken already means that it sends again what it keeps: nothing changes, and a sender that is
        broken stays so. A higher number than the next means that what lies between was given up.
        """
        if number >= self.next:
            if number > self.next:
                self._fail(self.next, number - 1)
            self.next = number
            self.broken = False

    def give_up(self, number: int) -> None:
        """Note that a batch, and what was lost on the way before it, is not taken; the sender is broken."""
        self._fail(self.next, number)
        self.next = number + 1
        self.broken = True

    def settle(self, number: int, *, failed: bool) -> None:
        """Note that a batch is committed, or has failed for good."""
        self.settled = max(self.settled, number)
        if failed:
            self._fail(number, number)

    def became_of(self, number: int) -> str | None:
        """Return COMMITTED or FAILED for a number below ``next``, None while it waits."""
        if any(first <= number <= last for first, last in self.failed):
            return FAILED
        return COMMITTED if number <= self.settled else None

    def _fail(self, first: int, last: int) -> None:
        if self.failed and self.failed[-1][1] == first - 1:
            self.failed[-1] = (self.failed[-1][0], last)
        else:
            insort(self.failed, (first, last))
        if len(self.failed) > FAILURES_KEPT:
            # Two ranges become one, with all between: a false FAILED makes the sender read again, but a false COMMITTED
            # would lie.
            self.failed[:2] = [(self.failed[0][0], self.failed[1][1])]
