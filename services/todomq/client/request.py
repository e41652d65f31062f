"""A request on its way: what the caller says of it, what the session keeps with it, and the future of its answer.

Owns: the kinds of requests and what each allows. Must not know: the session's rules, sockets, what a body means.
The operations make requests, the session carries them, the faces settle finished ones. One object serves for all of
that, because a pipelined request must cost little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, TypeVar

from todomq.client.deadlines import check_deadline
from todomq.client.futures import PENDING, Answer
from todomq.client.numbers import Counter
from todomq.errors import TodoMQError

T = TypeVar("T")


class Kind(Enum):
    """What a request may do, and so how it is numbered and whether it may be sent twice."""

    SAFE = "safe"
    """Without a number; sent again as often as need be: reads."""
    REPEATABLE = "repeatable"
    """Like ``SAFE``, but it changes something; done twice, it changes no more than once."""
    LIST_READ = "list read"
    """Names the number of the next change, so that it sees the changes sent before it."""
    LIST_CHANGE = "list change"
    """Takes the list's next number."""
    KEY_CHANGE = "key change"
    """Takes the next number of the client's one counter for all database keys."""
    CALL = "call"
    """Without a number, and may do anything: never sent twice unless the caller retries it."""


# Looked up for every request: a plain name costs less than a member of an Enum.
SAFE = Kind.SAFE
REPEATABLE = Kind.REPEATABLE
LIST_READ = Kind.LIST_READ
LIST_CHANGE = Kind.LIST_CHANGE
KEY_CHANGE = Kind.KEY_CHANGE
CALL = Kind.CALL
CHANGING = frozenset((LIST_CHANGE, KEY_CHANGE, REPEATABLE, CALL))


class Pages(Protocol):
    """How a read that is answered in pages goes on. It has no state, so many requests may share one."""

    @property
    def first(self) -> bytes:
        """The body that asks for the first page."""

    def read(self, value: bytes) -> tuple[list[Any], bytes | None]:
        """Return the items of a page, and the body that asks for the next one, or None after the last.

        Raises:
            ProtocolError: not a page.
        """


class Request(Answer[T]):
    """A request on its way, and the future of its answer.

    What the caller says:
        kind, target, body (packed): as the message carries them. is_cast: nobody waits for an answer.
        pages: for a read that is answered in pages. read: makes the result of their items, or of the unpacked value.
        deadline_s: seconds from submission, None for the client's default.
        deadline_ms: absolute, by the session's clock. size: how many bytes it counts as. waiter: if the caller got
        another future than this one, that future and the client, which is so kept alive until it is settled.

    What the session says:
        value (packed, or the items of the pages so far) or error, once it is finished.
    """

    __slots__ = (
        "attempts", "body", "counter", "deadline_ms", "deadline_s", "error", "first_sent_ms", "id", "is_cast",
        "is_exposed", "kind", "number", "pages", "read", "refusal", "size", "target", "value", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        kind: Kind,
        target: Any,
        body: bytes,
        read: Callable[[Any], T],
        deadline_s: float | None = None,
        pages: Pages | None = None,
        is_cast: bool = False,
    ) -> None:
        # What ``Answer.__init__`` does, without a call for each request.
        self._state = PENDING
        self._result = self._exception = self._watch = self.driver = self.group = None
        self.kind = kind
        self.target = target
        self.body = body
        self.read = read
        self.deadline_s = deadline_s if deadline_s is None else check_deadline(deadline_s)
        self.is_cast = is_cast
        self.pages = pages
        self.size = len(body) + 128
        self.deadline_ms = 0
        self.waiter: Any = None
        self.value: Any = None
        self.error: TodoMQError | None = None
        self.id = 0
        self.number = 0
        self.counter: Counter | None = None
        self.first_sent_ms = 0
        self.attempts = 0
        self.refusal: TodoMQError | None = None
        # An attempt was sent and its answer will never come: whatever is said later, that attempt may take effect.
        self.is_exposed = False

    @property
    def is_waited_for(self) -> bool:
        """Whether its caller does nothing but wait for it: a blocking call, outside of any pipeline."""
        return self.driver is not None and self.group is None

    def begin_again(self) -> None:
        """Ask for the first page next, if it is answered in pages."""
        if self.pages is not None:
            self.body = self.pages.first
            self.value = None

    def repeated(self, again: Callable[[], Any] | None = None) -> Repetition[T]:
        """Return this request, finished with outcome ``unknown``, as one to submit again under the same number.

        Args:
            again: what asks once more, should that end unknown as well.
        """
        request = Repetition(self.kind, self.target, self.body, self.read, self.deadline_s, self.pages)
        request.number = self.number
        request.counter = self.counter
        request.first_sent_ms = self.first_sent_ms
        request.error = self.error
        request.is_exposed = True
        request.again = again
        return request


class Repetition(Request[T]):
    """A request that is asked again.

    Attributes:
        again: what asks once more; all repetitions of a request share it.
    """

    __slots__ = ("again",)

    again: Callable[[], Any] | None


def set_deadline(request: Request[Any], default_ms: int) -> None:
    """Set when a request's time is up, counted from now."""
    if request.deadline_s is not None:
        default_ms = int(request.deadline_s * 1000)
    request.deadline_ms = time.monotonic_ns() // 1_000_000 + default_ms  # ``awake_ms``, without a call for each request
