"""One client's session with the service: what is sent under which number, sent again, given up, answered.

Owns: request ids, numbers (``numbers.py``), deadlines, retries, what goes into which message. Must not know: sockets,
threads, the clock (time is an argument: milliseconds of one clock that never goes back), what a request's body means.
Only the connection drives it. ``greeting.py`` knows whether the router is there.

It keeps the client's side of three laws.
Law 3 (once): a change keeps its number however often it is sent, and names the floor below which all is settled;
Law 4 (in order): numbers are taken in the order in which requests are handed to the socket, and what is sent again is
sent in the order of the numbers; a read keeps its number, so that the list refuses it once later changes have taken
effect, and is asked anew only if its caller does nothing but wait for it;
Law 6: the service's window bounds what is in flight; the connection bounds how much may wait. Nothing tells when a cast
is done; so if there are many, one after each quarter of a window is sent as a call. When it is answered, those before
it are done or nearly so; until then they keep their place in the window.

A request goes ``outbox -> unanswered -> finished``; if it is refused for the moment it goes ``unanswered -> delayed ->
again -> unanswered``, and when the connection is lost ``unanswered -> again``. Nothing but ``hello`` is sent on a
connection before the router has greeted, since deadlines are given by the router's clock. Casts are finished once they
are sent. A restarted router is a lost connection: the monitor in ``line.py`` tells, or ``must_reconnect`` does, after
too long a silence.

A request that may have taken effect when its deadline comes is finished with outcome ``unknown``, its number held:
``Request.repeated`` is the same request under the same number, to be submitted again (see ``numbers.py`` for how long).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain
from operator import attrgetter
from typing import Any

from todomq.client.casts import Casts
from todomq.client.greeting import CLOCK_SLACK_MS, WINDOW_REQUESTS, Greeting, Silence
from todomq.client.numbers import Counter, Counters
from todomq.client.request import (
    CALL,
    CHANGING,
    KEY_CHANGE,
    LIST_CHANGE,
    LIST_READ,
    REPEATABLE,
    Pages,
    Repetition,
    Request,
)
from todomq.errors import (
    NOT_APPLIED,
    UNKNOWN,
    DeadlineExceeded,
    InvalidRequest,
    OutOfOrder,
    Overloaded,
    ProtocolError,
    TodoMQError,
    Unavailable,
)
from todomq.protocol import limits, messages

WINDOW_BYTES = 8 * limits.MIB

BACKOFF_MS = 10
BACKOFF_MOST_MS = 250
OVERLOADED_MOST_MS = 1_000
"""Many clients that come back four times a second for room that is not there would keep everybody busy with that.

Once the deadline is near a pause is no longer than the others: up to a quarter of the time that is left.
"""
DEADLINE_MOST_MS = limits.DEADLINE_AHEAD_MS - CLOCK_SLACK_MS
EXPIRY_STEP_MS = 10
"""Deadlines are looked at no more often than this, so that a look over all requests costs little."""
REPEATABLE_MS = limits.REMEMBERED_MS - 2 * limits.DEADLINE_AHEAD_MS
"""How long after it was first sent a change may still be sent again: well within the time that it is remembered."""
FILLED_MOST = 256
"""Numbers that one message fills at most."""

HELLO_ID = 0
_HELLO = (HELLO_ID, None, 0, messages.body("hello"))
_NOTHING = messages.body("delete_entry", 1 << 62)
"""Changes no entry, since no list ever gives this id; the list remembers its number as it does for any change."""
_NEVER_MS = 1 << 62
CONNECT_MS = 20
"""A router that has never greeted is not called silent this early: it may not have had time."""
_by_id = attrgetter("id")


class RouterSilent(Unavailable):
    """The router did not greet before the deadline. The client itself says so; it is never an answer."""


class Session:
    """All requests of one client, from submission to the end.

    Args:
        client_id: 16 random bytes, never used by any other session.
        random: numbers from 0 to 1, for the jitter of retries.
        counters: the numbers of lists.
        silence: what to tell callers if the router does not answer.

    Attributes:
        unreadable: messages that were not replies of this protocol, and replies to nothing that was asked.
    """

    def __init__(
        self,
        client_id: bytes,
        random: Callable[[], float],
        counters: Counters | None = None,
        silence: str = "the router does not answer",
    ) -> None:
        self.unreadable = 0
        self._why_silent = silence
        self._client_id = client_id
        self._random = random
        self._jitter = 0.0
        self._counters = Counters() if counters is None else counters
        self._keys = Counter()
        self._last_id = HELLO_ID
        self._outbox: deque[Request[Any]] = deque()
        self._again: deque[Request[Any]] = deque()
        self._unanswered: dict[int, Request[Any]] = {}
        self._unanswered_bytes = 0
        self._delayed: list[tuple[int, int, Request[Any]]] = []
        self._finished: list[Request[Any]] = []
        self._casts = Casts()
        self._soonest_deadline_ms = _NEVER_MS
        self._window = WINDOW_REQUESTS
        self._greeting = Greeting()
        self._silence = Silence()
        self._ahead_ms = 0
        """How far the router's clock is ahead."""
        self._began_ms = 0

    # What the connection does, in the order of its turn.

    def connected(self, now_ms: int) -> None:
        """Begin on a new connection: say hello; once greeted, all that is unanswered is sent again, in order."""
        self._greeting.connected()
        self._silence.connected(now_ms)
        self._began_ms = self._began_ms or now_ms
        self._casts.forget()
        lost, self._unanswered, self._unanswered_bytes = self._unanswered, {}, 0
        for request in lost.values():
            if request.kind is CALL:
                self._finish(request, Unavailable("the connection broke before the answer came", outcome=UNKNOWN))
            else:
                request.is_exposed = True
                self._again.append(request)
        self._again = deque(sorted(self._again, key=_by_id))

    def receive(self, data: bytes, now_ms: int) -> None:
        """Take in a message of the router; one that can't be read is counted and changes nothing (law 7)."""
        try:
            kind, fields = messages.read(data)
            replies = messages.read_replies(fields) if kind == "reply" else []
        except ProtocolError:
            replies = []
        if not replies:
            self.unreadable += 1
            return
        self._silence.heard(now_ms)
        refused = []
        unanswered, finished = self._unanswered, self._finished
        for identifier, status, value in replies:
            request = unanswered.pop(identifier, None)
            if request is None:
                self._answered_otherwise(identifier, status, value, now_ms)
                continue
            self._unanswered_bytes -= request.size
            if status == messages.OK:
                if request.pages is None:
                    request.value = value
                    if request.kind is LIST_CHANGE:
                        request.counter.close(request.number)  # type: ignore[union-attr]
                    if request.is_cast:
                        self._casts.ended(identifier)
                elif not self._is_last_page(request, request.pages, value):
                    continue
                finished.append(request)
            else:
                error, is_sent_before = messages.read_refusal(value)
                if is_sent_before:
                    request.is_exposed = True
                    error.outcome = NOT_APPLIED
                refused.append((request, error))
        if refused:
            self._jitter = self._random()  # one for all: what was refused together comes again together, in order
        for request, error in sorted(refused, key=lambda item: item[0].id):
            self._refused(request, error, now_ms)

    def submit(self, requests: Sequence[Request[Any]]) -> None:
        """Take in requests, which take effect in this order."""
        self._outbox.extend(requests)
        for request in requests:
            if request.deadline_ms < self._soonest_deadline_ms:
                self._soonest_deadline_ms = request.deadline_ms

    def tick(self, now_ms: int) -> None:
        """Let time pass: retries come due, deadlines pass, a silent router is asked whether it is there."""
        if now_ms >= self._casts.forgotten_ms:
            self._casts.forget()
        if self._delayed and self._delayed[0][0] <= now_ms:
            self._end_delays(now_ms)
        if now_ms >= self._soonest_deadline_ms:
            self._expire(now_ms)
        if self._is_expecting():
            if self._silence.must_probe(now_ms):
                self._greeting.is_due = True
        elif (self._outbox or self._again) and self._greeting.is_old(now_ms):
            self._greeting.is_due = True

    def must_reconnect(self, now_ms: int) -> bool:
        """Tell whether the connection has been silent for too long while an answer was due."""
        return self._is_expecting() and self._silence.is_over(now_ms)

    @property
    def unanswered(self) -> int:
        """How many requests are on their way."""
        return len(self._unanswered)

    @property
    def is_greeted(self) -> bool:
        """Whether the router has greeted on this connection."""
        return self._greeting.is_done

    @property
    def has_message(self) -> bool:
        """Whether ``take_message`` may have something to send."""
        return self._greeting.is_due or (self._greeting.is_done and bool(self._again or self._outbox))

    def take_message(self, now_ms: int) -> bytes | None:
        """Return the next message to send, or None. What it carries counts as sent."""
        if self._greeting.is_due:
            self._expect(now_ms)
            self._greeting.sent(now_ms)
            self._casts.hello_sent()
            return messages.call(self._client_id, [_HELLO])
        if not self._greeting.is_done or not (self._again or self._outbox):
            return None
        self._expect(now_ms)
        batch = self._take_batch(now_ms)
        return messages.call(self._client_id, batch) if batch else None

    def take_finished(self) -> list[Request[Any]]:
        """Return and forget the requests that are finished: ``value`` or ``error`` is set."""
        finished, self._finished = self._finished, []
        return finished

    def has_casts_to_send(self) -> bool:
        """Tell whether a cast has not been read by the router yet; where all are sent, it is asked."""
        if any(request.is_cast for request in self._outbox):
            return True
        are_read = self._casts.are_read
        self._greeting.is_due = self._greeting.is_due or not (are_read or self._greeting.is_waiting)
        return not are_read

    def wake_at_ms(self) -> int:
        """Return when ``tick`` has something to do, if nothing else happens before."""
        at_ms = self._soonest_deadline_ms
        if self._outbox and self._casts.in_flight:
            at_ms = min(at_ms, self._casts.forgotten_ms)
        if self._delayed:
            at_ms = min(at_ms, self._delayed[0][0])
        if self._is_expecting():
            at_ms = min(at_ms, self._silence.next_ms)
        return at_ms

    def fail_all(self, make_error: Callable[[str], TodoMQError]) -> None:
        """Finish every request with an error, made from the outcome that is true of it."""
        for request in self._unanswered.values():
            request.is_exposed = True
        everything = list(self._everything())
        self._unanswered, self._unanswered_bytes = {}, 0
        self._again, self._outbox, self._delayed = deque(), deque(), []
        self._casts.forget()
        self._soonest_deadline_ms = _NEVER_MS
        for request in everything:
            if request.error is not None:
                self._finish_unsent(request)
            else:
                self._finish(request, make_error(_outcome_so_far(request)))

    # Sending.

    def _take_batch(self, now_ms: int) -> list[tuple[Any, ...]]:
        is_again = bool(self._again)
        batch = self._take_requests(now_ms)
        return batch + self._fillers(batch) if is_again else batch

    def _fillers(self, batch: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return casts that change nothing, under the closed numbers that the requests of a batch may be waiting for.

        The list takes only the next number. A cast that died with the router, or a change that was given up, leaves a
        gap between changes that are sent again: the list would wait at each, and then refuse all behind it with
        ``OutOfOrder``. A filler whose number was taken after all changes nothing.
        """
        last = {wire[1]: wire for wire in batch if wire[0] is not None and type(wire[1]) is str and wire[5]}
        fillers = []
        for identifier, target, deadline_ms, _, number, floor in last.values():
            counter = self._unanswered[identifier].counter
            for gap in counter.gaps(number) if counter else ():
                fillers.append((None, target, deadline_ms, _NOTHING, gap, floor))
        return fillers[:FILLED_MOST]

    def _take_requests(self, now_ms: int) -> list[tuple[Any, ...]]:
        """Return the requests there is room for.

        Each counts as 128 bytes or more, so there are far fewer than ``MESSAGE_REQUESTS``.
        """
        batch: list[tuple[Any, ...]] = []
        room = self._window - len(self._unanswered) - self._casts.in_flight
        room_bytes = limits.BATCH_BYTES
        if self._unanswered_bytes >= WINDOW_BYTES:
            return batch
        for queue in (self._again, self._outbox):
            while queue and len(batch) < room:
                room_bytes -= queue[0].size
                if room_bytes < 0 and batch:
                    return batch
                wire = self._stamped(queue.popleft(), now_ms)
                if wire is not None:
                    batch.append(wire)
        return batch

    def _stamped(self, request: Request[Any], now_ms: int) -> tuple[Any, ...] | None:
        """Return the request as it stands in a message, or None where it may not be sent again."""
        if request.error is not None:
            why_not = self._reopen_or_why_not(request)
            if why_not:
                text = f"whether this change took effect is not known, and can't be asked any more: {why_not}"
                request.error = type(request.error)(text, retryable=False, outcome=UNKNOWN)
                self._finish_unsent(request)
                return None
            request.error = None
        kind = request.kind
        floor = 0
        if kind is LIST_CHANGE or kind is LIST_READ:
            counter = request.counter
            if counter is None:
                counter = request.counter = self._counters[request.target]
                request.number = counter.take() if kind is LIST_CHANGE else counter.next
            floor = counter.floor
            if kind is LIST_READ and floor != counter.next:
                floor = counter.floor_to_read()
            if floor > request.number:
                floor = request.number
        elif kind is KEY_CHANGE and request.counter is None:
            request.counter = self._keys
            request.number = self._keys.take()
            self._keys.close(request.number)
        if not request.first_sent_ms:
            request.first_sent_ms = now_ms
        # The router takes no deadline further ahead by its clock, which is known here to a few milliseconds.
        deadline_ms = request.deadline_ms
        if deadline_ms > now_ms + DEADLINE_MOST_MS:
            deadline_ms = now_ms + DEADLINE_MOST_MS
        deadline_ms += self._ahead_ms
        identifier = request.id
        if not identifier:
            identifier = self._last_id + 1
            if request.is_cast and not self._casts.send(self._window, identifier, now_ms):
                # Sent once. Its number counts as given up, so that nothing waits for a cast that was lost on its way.
                self._finish(request, None)
                return None, request.target, deadline_ms, request.body, request.number, floor
            request.id = self._last_id = identifier
        self._unanswered[identifier] = request
        self._unanswered_bytes += request.size
        return identifier, request.target, deadline_ms, request.body, request.number, floor

    def _reopen_or_why_not(self, request: Request[Any]) -> str:
        """Open the number of a change whose outcome is unknown, to send it again; return why not, or an empty text."""
        if request.kind is CALL or request.kind is REPEATABLE:
            return ""
        counter = request.counter
        if counter is None or request.deadline_ms > request.first_sent_ms + REPEATABLE_MS:
            return "it was first sent too long ago for a deadline as late as this"
        if request.kind is KEY_CHANGE and counter is not self._keys:
            return "the client has begun a new session since"
        if request.kind is LIST_CHANGE and not self._counters.has(request.target, counter):
            return "the client has begun a new session since, or has sent to very many lists"
        if request.kind is LIST_CHANGE and not counter.take_again(request.number):
            return "it was asked again already, or a later change to the list was sent or retried, which gave it up"
        return ""

    # Answers.

    def _is_last_page(self, request: Request[Any], pages: Pages, value: bytes) -> bool:
        """Take in a page. If it is not the last, ask for the next; if it can't be read, finish the request."""
        try:
            items, body = pages.read(value)
        except ProtocolError as error:
            self._finish(request, error)
            return False
        if request.value is None:
            request.value = items
        else:
            request.value += items
        if body is None:
            return True
        request.body = body
        request.id = request.attempts = 0  # a new question: a late answer to the last one is not taken for this
        self._again.append(request)
        return False

    def _answered_otherwise(self, identifier: Any, status: int, value: bytes, now_ms: int) -> None:
        """Take in the greeting; any other reply, which nobody waits for any more, is only counted."""
        if type(identifier) is not int or identifier != HELLO_ID or not self._greeting.is_waiting:
            self.unreadable += 1
            return
        if status == messages.OK:
            self._greeted(value, now_ms)
            return
        error = messages.read_error(value)
        self._greeting.refused(error)
        if not error.retryable:
            self._fail_all_as(error)

    def _greeted(self, value: bytes, now_ms: int) -> None:
        try:
            self._ahead_ms, window = self._greeting.answered(value, now_ms)
        except ProtocolError as error:
            self._fail_all_as(error)
            return
        self._casts.greeted()
        if window < self._window:
            self._casts.forget()  # a smaller window might have no room beside them
        self._window = window

    def _fail_all_as(self, error: TodoMQError) -> None:
        self.fail_all(error.with_outcome)

    def _refused(self, request: Request[Any], error: TodoMQError, now_ms: int) -> None:
        if request.kind not in CHANGING:
            error.outcome = NOT_APPLIED
        if error.outcome == NOT_APPLIED:
            is_not_over = type(error) is DeadlineExceeded and now_ms + CLOCK_SLACK_MS < request.deadline_ms
            if is_not_over or (type(error) is InvalidRequest and error.text == messages.TOO_FAR_AHEAD):
                # By this clock its deadline is neither past nor too far ahead, so one of the two clocks was set. Ask
                # for the time and try again.
                self._greeting.is_due = True
                return self._retry_later(request, error, now_ms)
            if type(error) is DeadlineExceeded and now_ms < request.deadline_ms:
                self._greeting.is_due = True  # for the requests to come
            if error.retryable:
                return self._retry_later(request, error, now_ms)
            if type(error) is OutOfOrder and request.is_waited_for:
                return self._ask_anew(request)
            if request.is_exposed and type(error) not in messages.SAID_UNDER_THE_NUMBER:
                # The list did not say this under the request's number, so it says nothing of the lost attempt.
                error.outcome = _outcome_so_far(request)
            if type(error) is DeadlineExceeded and error.outcome == NOT_APPLIED and request.refusal is not None:
                error = request.refusal  # says why the attempts before the last one failed
        elif error.retryable and request.kind is REPEATABLE:
            request.is_exposed = True
            return self._retry_later(request, error, now_ms)
        self._finish(request, error)
        if type(error) is DeadlineExceeded:
            self._note_repetition_late(request, now_ms)

    def _retry_later(self, request: Request[Any], error: TodoMQError, now_ms: int) -> None:
        most_ms = BACKOFF_MOST_MS
        if isinstance(error, Overloaded):
            most_ms = max(most_ms, min(OVERLOADED_MOST_MS, (request.deadline_ms - now_ms) // 4))
        longest_ms = min(BACKOFF_MS << min(request.attempts, 8), most_ms)
        due_ms = now_ms + int(longest_ms * (1 + self._jitter) / 2)
        request.attempts += 1
        request.refusal = error
        if due_ms >= request.deadline_ms:
            error.outcome = _outcome_so_far(request)
            self._finish(request, error)
            return
        if type(error) is OutOfOrder and request.counter is not None:
            request.counter.give_up_held(request.number)
        request.begin_again()
        heappush(self._delayed, (due_ms, request.id, request))

    def _ask_anew(self, request: Request[Any]) -> None:
        """Ask a read that later changes have overtaken again, as if it were asked now.

        Its caller waits, so other threads sent those changes: to it any state between call and answer is right.
        """
        request.counter = None
        request.id = 0
        request.begin_again()
        self._outbox.append(request)

    def _finish_unsent(self, request: Request[Any]) -> None:
        """Finish a repetition that was never sent: with the error it came with, for nothing new is known."""
        self._finished.append(request)

    def _finish(self, request: Request[Any], error: TodoMQError | None) -> None:
        request.error = error
        if request.is_cast:
            self._casts.ended(request.id)
        if request.kind is LIST_CHANGE and request.counter is not None:
            if error is not None and error.outcome == UNKNOWN:
                request.counter.hold(request.number)
            else:
                request.counter.close(request.number)
        self._finished.append(request)

    # Time.

    def _is_expecting(self) -> bool:
        return self._greeting.is_waiting or bool(self._unanswered)

    def _expect(self, now_ms: int) -> None:
        if not self._is_expecting():
            self._silence.begin(now_ms)

    def _end_delays(self, now_ms: int) -> None:
        while self._delayed and self._delayed[0][0] <= now_ms:
            self._again.append(heappop(self._delayed)[2])
        self._again = deque(sorted(self._again, key=_by_id))

    def _everything(self) -> Iterable[Request[Any]]:
        delayed = (request for _, _, request in self._delayed)
        return chain(self._unanswered.values(), self._again, delayed, self._outbox)

    def _expire(self, now_ms: int) -> None:
        late = [request for request in self._everything() if request.deadline_ms <= now_ms]
        for request in late:
            if self._unanswered.pop(request.id, None) is not None:
                self._unanswered_bytes -= request.size
                request.is_exposed = True
        if late:
            self._outbox = deque(request for request in self._outbox if request.deadline_ms > now_ms)
            self._again = deque(request for request in self._again if request.deadline_ms > now_ms)
            self._delayed = [item for item in self._delayed if item[2].deadline_ms > now_ms]
            heapify(self._delayed)
        soonest_ms = min((request.deadline_ms for request in self._everything()), default=_NEVER_MS)
        self._soonest_deadline_ms = max(soonest_ms, now_ms + EXPIRY_STEP_MS)
        for request in late:
            self._finish_late(request, now_ms)

    def _finish_late(self, request: Request[Any], now_ms: int) -> None:
        if request.error is not None:
            self._finish_unsent(request)
            return
        outcome = _outcome_so_far(request)
        error: TodoMQError
        if request.refusal is not None and outcome == NOT_APPLIED:
            error = request.refusal
        elif request.first_sent_ms or self._greeting.is_done:
            before = "" if request.refusal is None else f"; the attempt before was refused: {request.refusal.text}"
            error = DeadlineExceeded(f"no answer before the deadline{before}", outcome=outcome)
        elif self._greeting.refusal is not None:
            error = self._greeting.refusal.with_outcome(outcome)
        elif now_ms - self._began_ms < CONNECT_MS:
            error = DeadlineExceeded("the deadline left no time to connect")
        else:
            error = RouterSilent(self._why_silent)
        self._finish(request, error)
        self._note_repetition_late(request, now_ms)

    def _note_repetition_late(self, request: Request[Any], now_ms: int) -> None:
        """See that a change asked again does not wait for ever for a lower number that nobody asks for any more."""
        if isinstance(request, Repetition) and request.kind is LIST_CHANGE and request.counter is not None:
            request.counter.was_late_again(request.number, now_ms)


def _outcome_so_far(request: Request[Any]) -> str:
    return UNKNOWN if request.is_exposed and request.kind in CHANGING else NOT_APPLIED
