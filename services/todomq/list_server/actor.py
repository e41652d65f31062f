"""The list actor: the one owner of one list.

Owns: the order in which requests take effect, what each of them does to the list, what waits for it. Must not know:
other lists, sockets, which records a change writes (``recording.py``). Its hosting gives it requests and takes its
replies.
Keeps law 3 (once), law 4 (in order; a read that comes again when it is too late is refused), and its part of law 1:
what it answers goes through the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from todomq.errors import (
    DeadlineExceeded,
    EntryNotFound,
    InvalidRequest,
    OutOfOrder,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    TodoMQError,
    Unavailable,
)
from todomq.list_server.gate import RECORD_OVERHEAD_BYTES, Reply
from todomq.list_server.operations import (
    PAGED,
    READS,
    WITHIN,
    Change,
    Paged,
    Question,
    Touched,
    asks_on,
    read_operation,
    read_within,
)
from todomq.list_server.pages import FIT_NEVER, end_of_page, read_cursor
from todomq.list_server.recording import RecordedList
from todomq.list_server.records import ENTRY_TAIL_BYTES
from todomq.list_server.sessions import IN_MEMORY, SESSIONS, Session
from todomq.list_server.todo_list import Entry
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.protocol.messages import BODY, DEADLINE_MS, FLOOR, ID, NUMBER

if TYPE_CHECKING:
    from todomq.list_server.loading import Loading
    from todomq.list_server.partition import Partition

LOADING = "loading"
READY = "ready"
STOPPING = "stopping"
QUARANTINED = "quarantined"

LAST_PAGE_BYTES = 1_024
"""The last question and its page are kept where both have no more bytes: most lists are read again before a change."""

LATE = "the deadline had passed before the list could take the request"
FLOOR_ABOVE = "a request's floor lies above its own number"
OVERTAKEN = "changes that this client sent after this read have taken effect; ask again for the list as it is now"

Asked = tuple[bytes, bytes, Any]
"""One request: the router's connection, the client, the forwarded request."""


class Crashed(Exception):
    """A fault of ours while a list served a request; its cause is the exception itself."""

    def __init__(self, asked: Asked) -> None:
        super().__init__("a list's actor crashed")
        self.asked = asked


class ListActor(RecordedList):
    """One activation of one list.

    Attributes:
        state: LOADING, READY, STOPPING (ends when its writes are committed) or QUARANTINED.
        error: why it answers nothing: it is quarantined, or what is stored of it can't be read at the moment.
        queue: what came while the list could not answer, in order; None when empty.
        last_page: the last question that one short page answered, and the page; None once the list has changed.
        long_read: the last question that takes several pages, and the number of its snapshot; None likewise.
        early: by client, the sessions that have requests waiting for their turn; None when there are none.
        is_being_read: whether its worker was asked for a page of it.
    """

    __slots__ = (
        "activation", "early", "error", "is_being_read", "last_page", "long_read", "queue", "since_ms", "state",
        "used_ms",
    )  # fmt: skip

    def __init__(self, name: str, partition: Partition, activation: int, now_ms: int) -> None:
        super().__init__(name, partition)
        self.activation = activation
        self.state = LOADING
        self.since_ms = self.used_ms = now_ms
        self.queue: list[Asked] | None = None
        self.error: TodoMQError | None = None
        self.last_page: tuple[bytes, bytes] | None = None
        self.long_read: tuple[bytes, int] | None = None
        self.early: dict[bytes, Session] | None = None
        self.is_being_read = False

    @property
    def is_at_rest(self) -> bool:
        """Whether it answers and all that was changed is on disk, so that a read finds it."""
        return self.state is READY and not self.uncommitted and self.sessions_to_write is None

    def everything_waiting(self) -> list[Asked]:
        """Return the requests that wait, in order."""
        # What waits for its turn came before what is queued: requests are queued only once the actor has stopped.
        early = self.early.values() if self.early is not None else ()
        waiting = [request for session in early for _, _, request in session.waiting or ()]
        return [*waiting, *(self.queue or ())]

    def begin_new(self) -> None:
        """Answer from now on, as a list of which nothing is stored."""
        self.take_nothing_stored()
        self.state = READY

    def loaded(self, loading: Loading, now_ms: int) -> list[Asked]:
        """Begin to answer; return what came meanwhile, in order, to be taken now."""
        self.take_stored(loading)
        self.state = READY
        self.error = None
        self.since_ms = now_ms
        queue, self.queue = self.queue or [], None
        return queue

    def quarantine(self, error: TodoMQError) -> None:
        """Answer everything with the error, for as long as the actor is there: what is stored cannot be read."""
        self.state = QUARANTINED
        self.refuse_all(error)

    def refuse_all(self, error: TodoMQError) -> None:
        """Refuse what is queued and what comes, until it is loaded."""
        self.error = error
        queue, self.queue = self.queue or [], None
        for peer, _, request in queue:
            self.refuse(peer, request[ID], error)

    def take(self, asked: Asked, now_ms: int) -> None:
        """Serve a request, or let it wait for its turn, and then whatever had waited for it.

        Raises:
            Crashed: a fault of ours in one of them, which it names; the actor's state may be half changed.
        """
        self.used_ms = now_ms
        if self.state is not READY:
            self._take_later(asked)
            return
        self._serve(asked, now_ms)
        _, sender, _ = asked
        session = self.sessions.get(sender)
        if session is not None:
            if session.waiting is not None:
                self._serve_waiting(session, None, now_ms)
            self._forget_if_unused(sender, session)

    def refuse(self, peer: bytes, identifier: int, error: TodoMQError) -> None:
        """Answer with an error that depends on nothing stored."""
        value = messages.error_value(error)
        self.partition.replies.append(Reply(peer, identifier, messages.ERROR, value, self.partition.number))

    def refuse_overdue(self, now_ms: int) -> None:
        """Refuse queued requests whose deadline has passed: nobody waits for them, and the queue must not grow."""
        queue, self.queue = self.queue or [], []
        for asked in queue:
            peer, _, request = asked
            if request[DEADLINE_MS] < now_ms:
                self.refuse(peer, request[ID], DeadlineExceeded(LATE))
            else:
                self.queue.append(asked)
        self.queue = self.queue or None

    def refuse_too_early(self, now_ms: int) -> None:
        """Refuse what has waited for too long for what comes before it."""
        if self.early is None:
            return
        for sender, session in list(self.early.items()):
            for peer, _, request in session.waited_too_long(now_ms):
                self.refuse(peer, request[ID], OutOfOrder("an earlier change of this client to this list is missing"))
            if session.waiting is None:
                del self.early[sender]
                self._forget_if_unused(sender, session)
        self.early = self.early or None

    def _forget_if_unused(self, sender: bytes, session: Session) -> None:
        """Forget a session that has taken no change and of which nothing waits.

        It would count as remembered: a client that may only read, or is refused, could make a list remember any number
        of them.
        """
        if not session.used_ms and session.waiting is None and self.sessions.get(sender) is session:
            del self.sessions[sender]

    def _take_later(self, asked: Asked) -> None:
        if self.error is not None:
            peer, _, request = asked
            self.refuse(peer, request[ID], self.error)
        elif self.queue is None:
            self.queue = [asked]
            self.partition.waiting[self.name] = self
        else:
            self.queue.append(asked)

    def _serve_waiting(self, session: Session, up_to: int | None, now_ms: int) -> None:
        while (waiting := session.next_in_order(up_to)) is not None:
            self._serve(waiting, now_ms)
            self.partition.close_batch_if_full(now_ms)

    def _serve(self, asked: Asked, now_ms: int) -> None:
        peer, sender, request = asked
        body = request[BODY]
        try:
            if request[DEADLINE_MS] < now_ms:
                raise DeadlineExceeded(LATE)
            question = read_operation(body)
            operation, arguments, change = question
            if change is not None or operation == WITHIN:
                self._change(asked, question, now_ms)
            elif self._is_in_order(sender, request, asked, now_ms):
                self._answer(peer, request[ID], self._read(body, operation, arguments))
        except TodoMQError as error:
            self.refuse(peer, request[ID], error)
        except Crashed:
            self._take_later(asked)  # one that its floor set free crashed: the next activation serves this one
            raise
        except Exception as error:
            raise Crashed(asked) from error

    def _change(self, asked: Asked, question: Question, now_ms: int) -> None:
        operation, arguments, change = question
        peer, sender, (identifier, _, _, body, number, floor, _) = asked
        if floor > number:
            raise ProtocolError(FLOOR_ABOVE)
        session = self.sessions.get(sender)
        if session is None:
            session = self._new_session(sender, floor)
        elif session.waiting is None:
            session.declare(floor)
        else:
            self._declare(session, floor, number, now_ms)
        if number != session.next:
            self._change_out_of_order(session, asked, now_ms)
            return
        if self.partition.gate.is_full():
            raise Overloaded("too many changes wait for the database worker")
        session.check_room()
        self.partition.gate.check_may_try()
        touched: Touched = {}
        try:
            if change is None:
                operation, arguments, change = self._within(arguments)
            if operation == "add_entries":
                self._check_size(arguments, len(body))
            self.last_page = self.long_read = None
            value = pack(change(self.todo, arguments, touched))  # type: ignore[arg-type]
        except (InvalidRequest, EntryNotFound, QuotaExceeded) as error:
            # Refused for good: the number is taken, in memory only, so that what is behind it need not wait.
            value = messages.error_value(error)
            session.took(number, messages.ERROR, value, now_ms)
            session.kept = IN_MEMORY
            self._reply(peer, identifier, messages.ERROR, value)
            return
        self.partition.gate.take_try()
        self.record_change(operation, touched, sender, session, number, value, now_ms)
        self._reply(peer, identifier, messages.OK, value)

    def _change_out_of_order(self, session: Session, asked: Asked, now_ms: int) -> None:
        """Answer a change that has taken effect as it was answered then; keep one that came too early."""
        peer, _, (identifier, _, _, _, number, _, _) = asked
        if number > session.next:
            self._wait(session, number, asked, now_ms)
        else:
            self._reply(peer, identifier, *session.answered(number))

    def _declare(self, session: Session, floor: int, sent_before: int, now_ms: int) -> None:
        """Take a request's floor, and serve now what that sets free of what was sent before: up to ``sent_before``."""
        next_before = session.next
        session.declare(floor)
        if session.next > next_before and session.waiting is not None:
            self._serve_waiting(session, sent_before, now_ms)

    def _within(self, arguments: list[Any]) -> tuple[str, list[Any], Change]:
        """Return the add that stands in the request, if it keeps within what the client's key may store.

        Raises:
            QuotaExceeded: it does not. InvalidRequest: what stands in it adds nothing.
        """
        may_create, most, operation, inner, change = read_within(arguments)
        if not may_create and (self.record is None or self.record.deleted):
            raise QuotaExceeded("this key may not have more lists")
        added = len(inner[0]) if operation == "add_entries" and inner and type(inner[0]) is list else 1
        if most and len(self.todo) + added > most:  # type: ignore[arg-type]
            raise QuotaExceeded(f"this key may have {most} entries in a list")
        return operation, inner, change

    def _check_size(self, arguments: list[Any], body_bytes: int) -> None:
        if not arguments or type(arguments[0]) is not list:
            return
        each = len(self.prefix) + ENTRY_TAIL_BYTES + RECORD_OVERHEAD_BYTES
        if body_bytes + each * len(arguments[0]) > limits.CHANGE_BYTES:
            count = len(arguments[0])
            raise InvalidRequest(f"add_entries: {count} entries take over {limits.CHANGE_BYTES} bytes of records")

    def _is_in_order(self, sender: bytes, request: Any, asked: Asked, now_ms: int) -> bool:
        """Tell whether a read is to be answered now; if not, it waits, or hears that it comes too late.

        With floor 0 it waits for nothing, and with number 0 it is never too late.
        """
        number, floor = request[NUMBER], request[FLOOR]
        if floor > number:
            raise ProtocolError(FLOOR_ABOVE)
        session = self.sessions.get(sender)
        if session is None:
            if number <= floor or not floor:
                return True
            session = self._new_session(sender, floor)
        self._declare(session, floor, number - 1, now_ms)
        if number > session.next and floor:
            self._wait(session, number, asked, now_ms)
            return False
        if number and session.has_taken(number) and not asks_on(request[BODY]):
            peer, _, _ = asked
            error = OutOfOrder(OVERTAKEN, retryable=False)
            self._answer(peer, request[ID], messages.error_value(error), messages.ERROR)
            return False
        return True

    def _new_session(self, sender: bytes, floor: int) -> Session:
        if len(self.sessions) >= SESSIONS:
            raise Overloaded(f"{SESSIONS} clients have changed this list lately, and all are remembered")
        first = max(floor, 1)
        session = self.sessions[sender] = Session(first, 0, passed_over=(1, first))
        return session

    def _wait(self, session: Session, number: int, asked: Asked, now_ms: int) -> None:
        session.wait(number, now_ms, asked)
        _, sender, _ = asked
        if self.early is None:
            self.early = {}
        self.early[sender] = session
        self.partition.waiting[self.name] = self

    def _read(self, body: bytes, operation: str, arguments: list[Any]) -> bytes:
        """Return the answer to a read; keep a short page for whoever asks the same thing next (``read_again``)."""
        assert self.todo is not None
        if operation in READS:
            return pack(READS[operation](self.todo, arguments))
        if operation not in PAGED:
            raise InvalidRequest(f"unknown operation {operation[:50]!r}")
        snapshots = self.partition.snapshots
        snapshots.check_room()
        page = self._page(PAGED[operation], body, arguments)
        if len(body) + len(page) <= LAST_PAGE_BYTES:
            self.last_page = body, page
        snapshots.packed(len(page))
        return page

    def _page(self, paged: Paged, body: bytes, arguments: list[Any]) -> bytes:
        cursor = arguments.pop() if len(arguments) == paged.arguments + 1 else None
        if cursor is None:
            return self._first_page(paged, body, arguments)
        number, start, epoch = read_cursor(cursor)
        entries = self.partition.snapshots.get(number, self.activation)
        if epoch != self.partition.epoch:  # of another life of this list server, which gave the same numbers
            entries = None
        if entries is None or not 0 <= start < len(entries):
            raise Unavailable("the rest of this read is gone; read again from the first page")
        return self._page_of_kept(number, entries, start, end_of_page(entries, start))

    def _first_page(self, paged: Paged, body: bytes, arguments: list[Any]) -> bytes:
        """Return the first page; what is kept for the next ones all share who ask the same before the list changes."""
        assert self.todo is not None
        snapshots = self.partition.snapshots
        if self.long_read is not None and self.long_read[0] == body:
            number = self.long_read[1]
            kept = snapshots.get(number, self.activation)
            if kept is not None:
                return self._page_of_kept(number, kept, 0, end_of_page(kept, 0))
        if len(self.todo) > FIT_NEVER and paged.size(self.todo, arguments) > FIT_NEVER:
            snapshots.check_place()  # before all that would be read is looked at
        entries = paged.read(self.todo, arguments)
        end = end_of_page(entries, 0)
        if end == len(entries):
            return pack((entries, None))
        number = snapshots.keep(entries, self.activation)
        self.long_read = body, number
        return self._page_of_kept(number, entries, 0, end)

    def _page_of_kept(self, number: int, entries: tuple[Entry, ...], start: int, end: int) -> bytes:
        if end == len(entries):
            self.partition.snapshots.end(number)
            return pack((entries[start:], None))
        return pack((entries[start:end], (number, end, self.partition.epoch)))

    def _answer(self, peer: bytes, identifier: int, value: bytes, status: int = messages.OK) -> None:
        """Answer a read."""
        partition = self.partition
        reply = Reply(peer, identifier, status, value, partition.number)
        if self.last_batch > partition.gate.committed:
            partition.gate.hold_answer(self.last_batch, reply)
        else:
            partition.replies.append(reply)

    def _reply(self, peer: bytes, identifier: int, status: int, value: bytes) -> None:
        """Say what became of a change."""
        partition = self.partition
        reply = Reply(peer, identifier, status, value, partition.number)
        if self.last_batch > partition.gate.committed:
            partition.gate.hold(self.last_batch, reply)
        else:
            partition.replies.append(reply)
