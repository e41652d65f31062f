"""What a list remembers of one client: which number it takes next, what it answered, what waits for its turn.

Owns: law 3 (once) and law 4 (in order) for one client and one list. Must not know: entries, storage, sockets. It is
remembered for ``limits.REMEMBERED_MS``; ``recording.py`` forgets it then.
The model is RIFL (Lee et al., "Implementing Linearizability at Large Scale and Low Latency", SOSP 2015): the record of
a change is made durable with the change, and the client says which answers it no longer needs.
"""

from __future__ import annotations

from bisect import insort
from operator import itemgetter
from typing import Any

from msgspec import Struct

from todomq.errors import UNKNOWN, Overloaded, ProtocolError
from todomq.protocol import limits

# Where the newest part of a session is stored.
RECORDED = "recorded"  # all of it in its own record
IN_ENTRIES = "in entries"  # its last adds in the records of their entries only
IN_MEMORY = "in memory"  # its last answer nowhere: the next change writes its record

ANSWERS = 4_096
ANSWERS_BYTES = 256 * 1024
"""Answers kept for one client of one list; past either, changes are refused until the client declares some received.

They are one stored record, and a record over the limits of the codec could never be read again.
"""

SESSIONS = 32_768
"""Clients that one list remembers; past it, changes of others are refused until those before are forgotten (law 6)."""

WAITING_REQUESTS = 4_096

Answer = tuple[int, int, bytes]

_number = itemgetter(0)


class Session(Struct, gc=False):
    """One client's session with one list. There are many, in no cycle: the collector need not look at them.

    Attributes:
        next: the number of the next change that is taken.
        used_ms: when the client's last change was taken, by the wall clock; 0 where none was.
        answers: ``(number, status, value)`` of changes from the floor on, ascending.
        answer_bytes: how long their values are in all.
        kept: RECORDED, IN_ENTRIES or IN_MEMORY.
        waiting: what came before its turn: ``(number, since_ms, request)`` in the order of its turn; None when empty.
        passed_over: the last range skipped only because the client raised its floor: ``(first, one past the last)``.
    """

    next: int
    used_ms: int
    answers: list[Answer] = []  # msgspec gives each session one of its own
    answer_bytes: int = 0
    kept: str = RECORDED
    waiting: list[tuple[int, int, Any]] | None = None
    passed_over: tuple[int, int] = (0, 0)

    @classmethod
    def stored(cls, next_number: int, used_ms: int, answers: list[Answer]) -> Session:
        """Return the session that a record tells of."""
        return cls(next_number, used_ms, answers, sum([len(value) for _, _, value in answers]))

    def declare(self, floor: int) -> None:
        """Take the client's word that every number below ``floor`` is answered or given up."""
        if floor > self.next:
            self.passed_over = (self._first_not_taken, floor)
            self.next = floor
        answers = self.answers
        if answers and answers[-1][0] < floor:
            answers.clear()
            self.answer_bytes = 0
        elif answers and answers[0][0] < floor:
            passed = 0
            for number, _, value in answers:
                if number >= floor:
                    break
                self.answer_bytes -= len(value)
                passed += 1
            del answers[:passed]

    @property
    def _first_not_taken(self) -> int:
        """The number behind that of the last change that was taken."""
        first, behind = self.passed_over
        return first if behind == self.next else self.next

    def has_taken(self, number: int) -> bool:
        """Tell whether a change of this number, or of one above it, has been taken.

        Of changes that the client gave up before they came none has, though ``next`` is past them: a read that waited
        in front of them is not late.
        """
        return number < self._first_not_taken

    def answered(self, number: int) -> tuple[int, bytes]:
        """Return status and value that the change of this number, which is below ``next``, was answered with.

        Raises:
            ProtocolError: the client had declared that it no longer needs this answer, or it was too old for a load.
        """
        for known, status, value in self.answers:
            if known == number:
                return status, value
        text = f"change {number} lies below what this client declared answered or given up, or is over ten minutes old"
        raise ProtocolError(text, outcome=UNKNOWN)

    def check_room(self) -> None:
        """Check that one more answer can be kept.

        Raises:
            Overloaded: the client has too many answers that it has not declared received.
        """
        if self.answer_bytes > ANSWERS_BYTES or len(self.answers) >= ANSWERS:
            raise Overloaded("too many answers to this list are waiting to be received; raise the floor")

    def took(self, number: int, status: int, value: bytes, now_ms: int) -> None:
        """Note that the change of this number was answered, and go on to the next number."""
        self.answers.append((number, status, value))
        self.answer_bytes += len(value)
        self.next = number + 1
        self.used_ms = now_ms

    def wait(self, number: int, now_ms: int, request: Any) -> None:
        """Keep a request until its turn.

        Raises:
            Overloaded: too many wait already.
        """
        if self.waiting is None:
            self.waiting = []
        if len(self.waiting) >= WAITING_REQUESTS:
            raise Overloaded("too many requests wait for an earlier change of this client")
        insort(self.waiting, (number, now_ms, request), key=_number)

    def next_in_order(self, up_to: int | None = None) -> Any | None:
        """Take out and return the earliest waiting request whose turn has come, or None.

        Args:
            up_to: the highest number that it may name, where not everything whose turn has come is wanted.

        Of those that name the same number, reads came before the change that takes it, in the order of arrival.
        """
        if not self.waiting:
            self.waiting = None
            return None
        if self.waiting[0][0] > (self.next if up_to is None else min(up_to, self.next)):
            return None
        return self.waiting.pop(0)[2]

    def waited_too_long(self, now_ms: int) -> list[Any]:
        """Take out and return the requests that have waited longer than ``limits.GAP_MS``."""
        if not self.waiting:
            return []
        # What came later than now came before the clock was set back, nobody knows how long ago.
        late = [request for _, since_ms, request in self.waiting if not 0 <= now_ms - since_ms < limits.GAP_MS]
        self.waiting = [item for item in self.waiting if 0 <= now_ms - item[1] < limits.GAP_MS] or None
        return late
