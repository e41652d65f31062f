"""The pages of names that one list server is asked for: a few at a time, the others wait in order.

Owns: which listings wait, which are under way. Must not know: which names a listing shows, sockets (the links call, the
server replies).
Law 5: however many are asked for, the workers read for only a few at a time, so nobody's load or claim waits for them
all; and pages that continue a listing come before first pages, or none of many begun at once would ever end. Law 6:
what waits is bounded; past that, requests are refused at once. A listing keeps its place until every worker has
answered, even if its own deadline has passed: what a worker that is away was asked is still waiting there. It gives up
its place at once if a worker says why it can't read: that is said only after a while, so there are never many that the
other workers are still asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from todomq.errors import DeadlineExceeded, Overloaded, TodoMQError, Unavailable, is_refusal_for_now
from todomq.list_server.listing import Listing, listing_of
from todomq.list_server.reading import AskWorker, is_page
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.protocol.messages import BODY, DEADLINE_MS, ID
from todomq.runtime.callee import Answer

UNDER_WAY = 4
WAITING = 256
"""So many of each kind take a few seconds, which is what their clients wait."""
WAITING_BYTES = limits.MIB

SendReply = Callable[[bytes, int | None, int, bytes], None]


class _Asked:
    """One request for a page of names, until every worker has answered it."""

    __slots__ = ("bytes", "deadline_ms", "id", "is_answered", "listing", "missing", "peer")

    def __init__(self, peer: bytes, request: Any, listing: Listing, workers: int) -> None:
        self.peer = peer
        self.id: int | None = request[ID]
        self.deadline_ms: int = request[DEADLINE_MS]
        self.bytes = len(request[BODY])
        self.listing = listing
        self.missing = workers
        self.is_answered = False


class _Queue:
    """Requests that wait for their turn, in order."""

    def __init__(self) -> None:
        self.asked: deque[_Asked] = deque()
        self._bytes = 0

    def check_room(self) -> None:
        if len(self.asked) >= WAITING or self._bytes >= WAITING_BYTES:
            raise Overloaded("too many listings of names wait")

    def add(self, asked: _Asked) -> None:
        self.asked.append(asked)
        self._bytes += asked.bytes

    def take(self) -> _Asked:
        asked = self.asked.popleft()
        self._bytes -= asked.bytes
        return asked


class ListingQueue:
    """The listings of one list server."""

    def __init__(self, calls: Sequence[AskWorker], reply: SendReply) -> None:
        """Begin none yet.

        Args:
            calls: the call of each worker's link.
            reply: takes the router's connection, the request's id, the status and the packed value.
        """
        self._calls = calls
        self._reply = reply
        self._going_on = _Queue()
        self._new = _Queue()
        self._under_way: list[_Asked] = []

    def __len__(self) -> int:
        """Return how many wait or are under way."""
        return len(self._going_on.asked) + len(self._new.asked) + len(self._under_way)

    def add(self, peer: bytes, request: Any) -> None:
        """Queue a forwarded request, or refuse it; ``begin`` asks the workers."""
        try:
            operation, arguments = messages.read_body(request[BODY])
            listing = listing_of(operation, arguments, len(self._calls))
            if listing is None:
                self._reply(peer, request[ID], messages.OK, pack(([], None)))
                return
            queue = self._going_on if listing.goes_on else self._new
            queue.check_room()
        except TodoMQError as error:
            self._reply(peer, request[ID], messages.ERROR, messages.error_value(error))
            return
        queue.add(_Asked(peer, request, listing, len(self._calls)))

    def begin(self, now_ms: int) -> None:
        """Ask for what waits, as far as places are free; what came too late is refused."""
        for queue in (self._going_on, self._new):
            while queue.asked and len(self._under_way) < UNDER_WAY:
                asked = queue.take()
                if asked.deadline_ms < now_ms:
                    self._refuse_late(asked)
                else:
                    self._ask(asked)

    def tick(self, now_ms: int) -> None:
        """Refuse what has waited past its deadline, for its turn or for a worker."""
        for asked in self._under_way:
            if asked.deadline_ms < now_ms and not asked.is_answered:
                self._refuse(asked, DeadlineExceeded("a database worker did not answer before the deadline"))
        for queue in (self._going_on, self._new):
            for _ in range(len(queue.asked)):
                asked = queue.take()
                if asked.deadline_ms < now_ms:
                    self._refuse_late(asked)
                else:
                    queue.add(asked)

    def _ask(self, asked: _Asked) -> None:
        self._under_way.append(asked)
        listing = asked.listing
        for call in self._calls:
            done = partial(self._answered, asked)
            refused = partial(self._refused, asked)
            call("read", None, listing.prefix, listing.after, listing.bytes_each, done=done, refused=refused)

    def _refused(self, asked: _Asked, error: TodoMQError) -> None:
        if is_refusal_for_now(error) and not asked.is_answered:
            self._refuse(asked, error)
            self._under_way.remove(asked)

    def _answered(self, asked: _Asked, answer: Answer) -> None:
        asked.missing -= 1
        if not asked.missing and asked in self._under_way:
            self._under_way.remove(asked)
        if asked.is_answered:
            return
        try:
            if answer.error is not None:
                raise answer.error
            if not is_page(answer.value):
                raise Unavailable("the database worker's answer to read is malformed")
            if asked.listing.take(answer.value[1], answer.value[2]):
                asked.is_answered = True
                self._reply(asked.peer, asked.id, messages.OK, pack(asked.listing.page()))
        except TodoMQError as error:
            self._refuse(asked, error)

    def _refuse_late(self, asked: _Asked) -> None:
        self._refuse(asked, DeadlineExceeded("the deadline had passed before the listing's turn came"))

    def _refuse(self, asked: _Asked, error: TodoMQError) -> None:
        asked.is_answered = True
        self._reply(asked.peer, asked.id, messages.ERROR, messages.error_value(error))
