"""The pages that lists wait for from one database worker: batched into calls, a few calls at a time.

Owns: which pages wait, which are under way. Must not know: what a page holds, sockets (the link calls).
Law 5: a list that takes many pages goes to the end of the queue after each; if one can't be read, the worker says so in
place of its page. Law 6: what waits is bounded by the requests that wait for it, since the hosting lets go of
lists for which nobody waits, and their pages are forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf
from typing import Any

from todomq.errors import ProtocolError, TodoMQError
from todomq.list_server.hosting import Read
from todomq.protocol import limits, messages
from todomq.runtime.callee import Answer

FORGET_AT = 1_024
"""Pages that wait before it is looked which of them are still wanted."""
PAGES_PER_CALL = 128
CALLS_UNDER_WAY = 4
BYTES = frozenset((bytes,))

AskWorker = Callable[..., None]


class Reading:
    """The pages of one worker."""

    def __init__(
        self,
        call: AskWorker,
        is_current: Callable[[Read], bool],
        on_page: Callable[[Read, Any, Any, Any], None],
        on_error: Callable[[Read, TodoMQError], None],
        on_refusal: Callable[[Read, TodoMQError], None],
    ) -> None:
        """Read nothing yet.

        Args:
            call: the link's call.
            is_current: tells whether anybody still wants a page.
            on_page: takes a read and its value, pairs and last key.
            on_error: takes a read that failed.
            on_refusal: takes a read that has had no answer for a while, and why; the worker goes on being asked.
        """
        self._call = call
        self._is_current = is_current
        self._on_page = on_page
        self._on_error = on_error
        self._on_refusal = on_refusal
        self._waiting: deque[Read] = deque()
        self._forget_at = FORGET_AT
        self._under_way = 0

    def add(self, read: Read) -> None:
        """Queue a page; ``begin`` asks for it."""
        if len(self._waiting) >= self._forget_at:
            self._waiting = deque(filter(self._is_current, self._waiting))
            self._forget_at = max(FORGET_AT, 2 * len(self._waiting))
        self._waiting.append(read)

    def begin(self) -> None:
        """Ask for what waits, as far as calls are free."""
        while self._under_way < CALLS_UNDER_WAY and self._waiting:
            reads = list(islice(self._wanted(), PAGES_PER_CALL))
            if reads:
                self._ask(reads)

    def _wanted(self) -> Iterator[Read]:
        """Take the pages that wait and are still wanted, in order."""
        while self._waiting:
            read = self._waiting.popleft()
            if self._is_current(read):
                read.actor.is_being_read = True
                yield read

    def _ask(self, reads: list[Read]) -> None:
        self._under_way += 1
        pages = [read.wanted for read in reads]

        def done(answer: Answer) -> None:
            self._answered(reads, answer)

        def refused(error: TodoMQError) -> None:
            for read in reads:
                self._on_refusal(read, error)

        # For as long as it takes: some list always waits for its page, and it is the hosting that knows which does.
        self._call("read_many", pages, limits.PAGE_BYTES, done=done, refused=refused, timeout_s=inf)

    def _answered(self, reads: list[Read], answer: Answer) -> None:
        self._under_way -= 1
        error = answer.error
        if error is None and not _are_pages(answer.value, len(reads)):
            error = ProtocolError("the database worker's answer to read_many is malformed")
        if error is not None:
            for read in reads:
                self._on_error(read, error)
        else:
            for read, page in zip(reads, answer.value):
                if type(page) is bytes:
                    self._on_error(read, messages.read_error(page))
                else:
                    self._on_page(read, *page)
            # What did not fit into the answer is asked for again, before what came later.
            self._waiting.extendleft(reversed(reads[len(answer.value) :]))
        self.begin()


def _are_pages(value: Any, most: int) -> bool:
    """Tell whether a worker answered with ``[[value or nil, [key, value, ...], last key or nil] or error, ...]``."""
    if type(value) is not list or not 1 <= len(value) <= most:
        return False
    return all(type(page) is bytes or is_page(page) for page in value)


def is_page(page: Any) -> bool:
    """Tell whether what a worker answered is one page."""
    if type(page) is not list or [type(part) for part in page[1:]] not in ([list, bytes], [list, type(None)]):
        return False
    return isinstance(page[0], bytes | None) and len(page[1]) % 2 == 0 and BYTES.issuperset(map(type, page[1]))
