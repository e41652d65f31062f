"""The client's one connection: who drives its session, and what waits to be sent.

Owns: whose turn it is to drive, the bound of all that waits or is in flight, the keeper's thread. Must not know: what a
request means, what becomes of a finished one (``complete`` is told). Talks to the router only, through ``line.py``.

**One thread drives at a time**: it takes in what callers have left, sends, sleeps until something arrives, and finishes
what is answered. A caller that waits for an answer drives if nobody else does, so that a request costs no switch of
threads; a caller that sends many takes a turn after every ``TURN_REQUESTS`` of them. When a driver leaves, one of the
waiting callers takes over. The keeper, a thread of the connection's own, drives when requests are out and nobody has
driven for ``NAP_S``; callbacks of futures run there and nowhere else, so a caller that holds a lock never meets its own
callback.

Keeps law 6: past the bound a caller waits for room until its deadline, or is refused with ``Overloaded`` at once; and
law 3 across forks: at its first request the child starts with a client id, a context, a socket and a thread of its own.
Every waiting caller is answered, whatever ends the driver's turn; if an interrupt lost the answer, or a fork left it to
the parent, as soon as nothing else is under way.

Most requests of a pipeline are **left** without the lock, which would cost more than everything else done for one here:
they are appended behind others that arrived under the lock. A thread that drains the list, or stops looking at it,
clears ``_may_leave`` first; a caller that appends without the lock checks ``_may_leave`` again afterwards. One of the
two always notices, since the interpreter's lock keeps the order. Nothing is moved before the driver's turn, so an
interrupt, or a signal handler that hands a request over as well, finds the list whole.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, NoReturn

from todomq.client.deadlines import awake_ms
from todomq.client.endpoint import silence_at
from todomq.client.line import CLOSE_LINGER_MS, LINE_ERRORS, Failed, Line
from todomq.client.request import Request
from todomq.client.session import Session
from todomq.errors import InvalidRequest, Overloaded, TodoMQError, Unavailable
from todomq.protocol import limits

if TYPE_CHECKING:
    from todomq.keys.credentials import Credentials

OUTBOX_REQUESTS = 65_536
WAIT_REQUESTS = 8_192
"""Above this a caller that can wait does so: while a request waits in the outbox its deadline runs."""
OUTBOX_BYTES = 64 * limits.MIB
SMALL_BYTES = limits.KIB
"""Requests up to this size are bounded by ``OUTBOX_REQUESTS`` alone, to ``OUTBOX_BYTES`` in all; a larger one is not
left without the lock."""
CAST_PAUSE_S = 0.002
"""How long a cast waits above ``WAIT_REQUESTS``, so that a loop of casts runs about as fast as they are taken in."""

TURN_REQUESTS = 300
GATHER_MS = 1
"""If ``TURN_REQUESTS`` or more are unanswered and fewer wait to be sent, a driver first looks for answers this long: by
then there may be more to put into one message."""
CALLED_STEP = 64
"""After this many callbacks, callers that wait for room look again."""
NAP_S = 0.002
SLEEP_MOST_MS = 60_000
CLOSE_STEP_MS = 5
CLOSE_CASTS_MS = 1_500
"""How long a router that has greeted may take to read the casts before the end."""
CLOSE_WAIT_S = 2.0
Action = Callable[[], None]


class _Follower:
    """A caller that waits while another thread drives; released when its wait is over, or to drive itself."""

    __slots__ = ("is_done", "turnstile")

    def __init__(self, is_done: Callable[[], bool]) -> None:
        self.is_done = is_done
        self.turnstile = threading.Lock()
        self.turnstile.acquire()


class Connection:
    """A connection that starts with its first request and lasts until ``close``.

    Args:
        endpoint: the router's address.
        complete: told which requests are finished; returns what is to run on the keeper's thread. It must not raise.
        credentials: the keys to connect with, None for an endpoint that asks for none.
        is_kept: callers never wait (asyncio), so the keeper drives as soon as something is submitted.
    """

    def __init__(
        self,
        endpoint: str,
        complete: Callable[[list[Request[Any]]], list[Action]],
        credentials: Credentials | None = None,
        *,
        is_kept: bool = False,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._complete = complete
        self._is_kept = is_kept
        self._is_closed = False
        self._begin()
        _connections.add(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client can't be pickled or deep-copied, nor can what holds one: a handle, a ServerRef")

    def _begin(self) -> None:
        # Reentrant: the garbage collector may close a forgotten client on a thread that holds this lock already.
        self._lock = threading.RLock()
        # Appended to under the lock, or without it where that is allowed. The driver takes requests out; a caller takes
        # out only its own, if that is refused after all.
        self._arrived: list[Request[Any]] = []
        self._may_leave = False
        # Under the lock: how many were taken out and are not finished, their bytes, and the bytes of those in
        # ``_arrived``; the bytes of small ones are not counted.
        self._requests = self._bytes = self._arrived_bytes = 0
        self._driver: int | None = None
        self._is_asleep = False
        self._is_keeper_asked_to_leave = False
        self._followers: list[_Follower] = []
        self._callbacks: list[Action] = []
        self._uncalled = 0
        self._is_calling = False
        self._turns = 0
        self._keeper: threading.Thread | None = None
        self._keeper_wakes = threading.Condition(self._lock)
        self._is_keeper_idle = False
        # The driver's:
        self._session: Session | None = None
        self._line: Line | None = None
        self._close_by_ms = 0

    # What callers do.

    def submit(self, request: Request[Any], *, may_wait: bool, is_waited_for: bool = False) -> None:
        """Hand a request over; its ``deadline_ms`` and ``waiter`` are set.

        Args:
            request: the request.
            may_wait: at the bound, wait for room until the deadline. A cast may not; above ``WAIT_REQUESTS`` it waits
                for ``CAST_PAUSE_S`` at most.
            is_waited_for: the caller calls ``wait`` next, so nobody else need see to it.

        Raises:
            Overloaded: no room. Unavailable: the client is closed. InvalidRequest: it would be waited for on the thread
                that is to bring the answer. In each case nothing was sent.
        """
        if is_waited_for:
            self._check_may_wait()
        is_left = self._may_leave and not is_waited_for and not request.is_cast and request.size <= SMALL_BYTES
        if is_left:
            self._arrived.append(request)
            if self._may_leave and len(self._arrived) < TURN_REQUESTS:
                return
        most = WAIT_REQUESTS if may_wait else OUTBOX_REQUESTS
        try:
            if request.is_cast and self._out() >= WAIT_REQUESTS:
                self._pause_cast()
            while (drives := self._add(request, most, is_left, is_waited_for)) is None:
                most = self._wait_for_room(request.deadline_ms, may_wait, most)
            if drives:
                self._take_turn()
        except BaseException:
            self._leave_if_interrupted()
            raise

    def wait(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the driver of this connection has got something done, and drive it if nobody else does.

        Args:
            is_done: tells whether it is done; must be cheap, since it is called under the connection's lock.
            timeout_s: how long at most.

        Returns:
            whether it is done; False also if nothing that could do it is under way any more.

        Raises:
            InvalidRequest: called by a callback of a future, on the thread that would have to do it.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not is_done():
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                self._pass_on()
                return False
            self._check_may_wait()
            try:
                with self._lock:
                    if is_done():
                        return True
                    if not (self._out() or self._is_calling or self._callbacks):
                        return False
                    follower = self._follow_or_drive(is_done)
                if follower is None:
                    self._drive(is_done, end_s)
                else:
                    self._follow(follower, left_s)
            except BaseException:
                self._leave_if_interrupted()
                raise
        return True

    def close(self) -> None:
        """End what is unanswered with ``Unavailable``; casts handed over before are sent first."""
        with self._lock:
            self._is_closed = True
            self._may_leave = False
            self._keeper_wakes.notify()
            keeper = self._keeper
            drives = keeper is None and self._driver is None and self._session is not None
            if drives:
                self._driver = threading.get_ident()
            elif self._is_asleep:
                self._wake()
        if drives:
            try:
                self._drive(lambda: self._session is None, None)
            except BaseException:
                self._leave_if_interrupted()
                raise
        elif keeper is not None and self._may_wait_here():
            keeper.join(CLOSE_WAIT_S)

    def forget_parent(self) -> None:
        """Begin anew in a forked child: locks, thread, sockets and requests are the parent's."""
        line = self._line
        self._begin()
        if line is not None:
            line.forget_parent()

    # On a caller's thread.

    def _out(self) -> int:
        """Return how many requests wait or are in flight."""
        return self._requests + len(self._arrived)

    def _is_callback(self) -> bool:
        """Tell whether a future's callback is asking: callbacks run on the keeper's thread."""
        return threading.current_thread() is self._keeper

    def _may_wait_here(self) -> bool:
        """Tell whether this thread may wait: it is not the one that is to bring the answer, nor in its way."""
        return not self._is_callback() and self._driver != threading.get_ident() and not self._is_in_here()

    def _check_may_wait(self) -> None:
        """Refuse to wait on the thread that is to bring the answer."""
        if self._is_callback():
            raise InvalidRequest("a callback of a future must not wait for another request")
        if self._driver == threading.get_ident() or self._is_in_here():
            raise InvalidRequest("a signal handler must not wait for a request while its thread takes in answers")

    def _is_in_here(self) -> bool:
        """Tell whether this thread holds the lock: a signal handler or the garbage collector interrupted it in here."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def _wait_for_room(self, deadline_ms: int, may_wait: bool, most: int) -> int:
        """Wait until there may be room; return the bound to use: the higher one for a callback, which can't wait.

        Requests whose callbacks have not run yet count as well.
        """
        if may_wait and most < OUTBOX_REQUESTS and self._is_callback():
            return OUTBOX_REQUESTS
        left_s = (deadline_ms - awake_ms()) / 1000
        if not may_wait or left_s <= 0 or not self._may_wait_here():
            much = self._bytes + self._arrived_bytes
            what = f"requests of {much:,} bytes" if much >= OUTBOX_BYTES else f"{self._out():,} requests"
            raise Overloaded(f"{what} of this client are waiting or in flight")

        def has_room() -> bool:
            return self._is_closed or self._has_room(most)

        self.wait(has_room, left_s)
        return most

    def _pause_cast(self) -> None:
        if not self._is_kept and self._may_wait_here():
            self.wait(lambda: self._out() < WAIT_REQUESTS, CAST_PAUSE_S)

    def _add(self, request: Request[Any], most: int, is_left: bool, is_waited_for: bool) -> bool | None:
        """Take in a request, unless it was left and is in the list already, and see that somebody attends to it.

        Returns:
            whether the caller is to take a turn; None if there are ``most`` requests already, or too many bytes.

        Raises:
            Unavailable: the client is closed, or no thread can be started.
        """
        with self._lock:
            if self._is_closed:
                if is_left and request not in self._arrived:
                    return False  # it was taken in before, and is answered as all are
                if is_left:
                    self._arrived.remove(request)
                raise Unavailable("this client is closed", retryable=False)
            if not is_left:
                if not self._has_room(most):
                    return None
                size = _bytes_of([request])
                self._arrived_bytes += size  # without a call between, as in ``_take_arrived``
                self._arrived.append(request)
            drives = False
            if self._driver is not None:
                if self._is_asleep:
                    self._wake()
            elif not is_waited_for and (
                len(self._arrived) >= TURN_REQUESTS
                or request.is_cast
                or self._is_keeper_idle
                or self._keeper is None
            ):
                drives = self._see_to_it(request)
            self._may_leave = self._may_leave_now()
            return drives

    # On a caller's thread, under the lock.

    def _has_room(self, most: int) -> bool:
        """Tell whether fewer than ``most`` requests wait, are in flight or await callbacks, and not too many bytes."""
        return self._out() + self._uncalled < most and self._bytes + self._arrived_bytes < OUTBOX_BYTES

    def _may_leave_now(self) -> bool:
        """Tell whether requests may be left: there is room, and somebody who is awake will take in what has arrived."""
        if not 0 < len(self._arrived) < TURN_REQUESTS or not self._has_room(WAIT_REQUESTS - 2 * TURN_REQUESTS):
            return False
        return self._driver is not None or (self._keeper is not None and not self._is_keeper_idle)

    def _see_to_it(self, request: Request[Any]) -> bool:
        """See that what was submitted is sent, though nobody drives; return whether the caller is to take a turn."""
        is_enough = request.is_cast or len(self._arrived) >= TURN_REQUESTS
        if is_enough and not self._is_kept and not self._is_callback():
            self._driver = threading.get_ident()
            return True
        if not self._call_keeper() and request in self._arrived:
            size = _bytes_of([request])
            self._arrived.remove(request)
            self._arrived_bytes -= size
            raise Unavailable("no thread can be started to take in the answer")
        return False

    def _follow_or_drive(self, is_done: Callable[[], bool]) -> _Follower | None:
        if self._driver is None and self._out():
            self._driver = threading.get_ident()
            return None
        follower = _Follower(is_done)  # of the driver, or of the keeper that calls back
        self._followers.append(follower)
        self._is_keeper_asked_to_leave = True
        if self._is_asleep:
            self._wake()
        return follower

    def _call_keeper(self) -> bool:
        """Have the keeper look; return False where there is none and its thread cannot be started."""
        if self._keeper is None and not self._start_keeper():
            return False
        if self._is_keeper_idle:
            self._keeper_wakes.notify()
            self._is_keeper_idle = False  # last: an interrupt may come before
        return True

    def _start_keeper(self) -> bool:
        """Start the keeper's thread; return False if the system gives no more threads."""
        keeper = threading.Thread(target=self._keep, name="todomq-client", daemon=True)
        if self._keeper is not None:  # a signal handler has started one in between
            return True
        self._keeper = keeper  # without a call between
        try:
            keeper.start()
        except BaseException as error:
            if not keeper.is_alive():
                self._keeper = None
                if isinstance(error, RuntimeError):
                    return False
            raise
        return True

    def _wake(self) -> None:
        if self._line is not None:
            self._line.wake()
        self._is_asleep = False

    # On a caller's thread.

    def _follow(self, follower: _Follower, left_s: float | None) -> None:
        """Wait to be released by the driver; a caller that was to drive, and need not any more, passes that on."""
        is_told = False
        try:
            is_told = follower.turnstile.acquire(timeout=-1 if left_s is None else left_s)
        finally:
            with self._lock:
                if follower in self._followers:
                    self._followers.remove(follower)
            if not is_told or follower.is_done():
                self._pass_on()

    def _pass_on(self) -> None:
        """See that somebody else drives instead of this caller, which may have been told to."""
        with self._lock:
            if self._driver is None:
                self._hand_over()

    # On the driver's thread.

    def _drive(self, is_done: Callable[[], bool], end_s: float | None) -> None:
        try:
            while not is_done() and self._is_under_way():
                left_ms = SLEEP_MOST_MS if end_s is None else int((end_s - time.monotonic()) * 1000) + 1
                if left_ms <= 0:
                    return
                self._turn(left_ms)
        finally:
            self._leave()

    def _take_turn(self) -> None:
        try:
            self._turn(0)
        finally:
            self._leave()

    def _is_under_way(self) -> bool:
        return self._out() > 0 or (self._is_closed and self._session is not None)

    def _leave(self) -> None:
        """Stop driving: one of the waiting callers takes over, or the keeper sees to what is out."""
        with self._lock:
            self._turns += 1
            self._may_leave = False
            self._hand_over()
            self._driver = None  # last: a thread interrupted before this leaves again

    def _leave_if_interrupted(self) -> None:
        """Stop driving if an interrupt came after this thread was noted as the driver, before that could be undone."""
        if self._driver == threading.get_ident():
            self._leave()

    def _hand_over(self) -> None:
        if self._callbacks:  # an interrupt may have come before the keeper was called
            self._call_keeper()
        if self._followers:
            self._followers.pop(0).turnstile.release()
        elif self._is_under_way() or (self._is_closed and self._keeper is not None):
            self._call_keeper()

    def _turn(self, most_ms: int) -> None:
        """Take in, receive, send, finish; sleep before that, for ``most_ms`` milliseconds at most."""
        session, line = self._session, self._line
        if session is not None and line is not None:
            try:
                line.poll(min(most_ms, self._nap_ms(session)) if most_ms else 0)
            except LINE_ERRORS as error:
                self._end(_failure(error))
                return  # an interrupt of this sleep is not caught: it loses nothing, and somebody else goes on
        try:
            if session is None or line is None:
                session, line = self._open()
            now = awake_ms()
            with self._lock:
                self._is_asleep = False
                arrived = self._take_arrived()
                is_closed = self._is_closed
            if arrived:
                session.submit(arrived)  # before anything that may end the turn
            line.receive(session, now)
            session.tick(now)
            if line.is_broken(now) or session.must_reconnect(now):
                line.connect(now)
                session.connected(now)
            line.send(session, now)
            finished = session.take_finished()
            if finished:
                self._finish(finished)
            if is_closed:
                self._end_if_sent(session, now)
        except LINE_ERRORS as error:
            self._end(_failure(error))
        except BaseException as error:  # a signal's handler raised it: nobody knows how far this turn had come
            clear_frames(error.__traceback__)  # a half-made socket would keep the context from ending
            self._end(_failure(error))
            raise

    def _open(self) -> tuple[Session, Line]:
        session = self._session = Session(os.urandom(16), random.random, silence=silence_at(self._endpoint))
        line = self._line = Line(self._endpoint, self._credentials)
        now = awake_ms()
        line.connect(now)
        session.connected(now)
        return session, line

    def _take_arrived(self) -> list[Request[Any]]:
        """Return and forget what callers have handed over, under the lock."""
        self._may_leave = False
        count = len(self._arrived)
        taken = self._arrived[:count]
        size = _bytes_of(taken)
        # Without a call between: a signal's handler may hand over as well.
        self._requests += count
        self._bytes += size
        self._arrived_bytes -= size
        del self._arrived[:count]
        return taken

    def _nap_ms(self, session: Session) -> int:
        """Return how long to sleep, and note that the driver has to be woken."""
        with self._lock:
            if self._arrived:
                is_few = len(self._arrived) < TURN_REQUESTS <= session.unanswered
                return GATHER_MS if is_few else 0
            if self._line is None or self._line.has_more:
                return 0
            if self._is_closed:
                return CLOSE_STEP_MS
            self._is_asleep = True
        return max(0, min(session.wake_at_ms() - awake_ms(), SLEEP_MOST_MS))

    def _finish(self, finished: list[Request[Any]]) -> None:
        callbacks = self._complete(finished)
        with self._lock:
            size = _bytes_of(finished)
            self._requests -= len(finished)
            self._bytes -= size
            if self._followers:
                self._release([follower for follower in self._followers if follower.is_done()])
            if callbacks:
                self._callbacks += callbacks
                self._uncalled += len(callbacks)
                self._call_keeper()

    def _release(self, followers: list[_Follower]) -> None:
        for follower in followers:
            self._followers.remove(follower)
            follower.turnstile.release()

    def _end_if_sent(self, session: Session, now: int) -> None:
        self._close_by_ms = self._close_by_ms or now + (CLOSE_CASTS_MS if session.is_greeted else CLOSE_LINGER_MS)
        if now >= self._close_by_ms or not session.has_casts_to_send():
            self._end(Unavailable("this client is closed", retryable=False))

    def _end(self, failure: TodoMQError) -> None:
        """Answer whoever waits; a request that comes later begins a new session, unless the client is closed."""
        session, line = self._session, self._line
        try:
            with self._lock:
                arrived = self._take_arrived()
                self._is_asleep = False
            if session is not None:
                session.submit(arrived)
                session.fail_all(failure.with_outcome)
                self._finish(session.take_finished())
        finally:  # whatever interrupts this as well
            self._session = self._line = None
            with self._lock:
                # What an interrupt has lost is never finished: see ``wait``.
                self._requests = self._bytes = 0
                self._release(self._followers[:])
            if line is not None:
                line.close()

    # On the keeper's thread.

    def _keep(self) -> None:
        try:
            self._keep_driving()
        finally:  # a callback may end its thread
            with self._lock:
                if self._keeper is threading.current_thread():
                    self._keeper = None
                    self._may_leave = False
                    if self._callbacks or self._is_under_way():
                        self._call_keeper()

    def _keep_driving(self) -> None:
        seen_turns = -1
        while True:
            with self._lock:
                if self._keeper is not threading.current_thread():  # an interrupt came as it was started
                    return
                callbacks, self._callbacks = self._callbacks, []
                self._is_calling = bool(callbacks)
                if not callbacks:
                    if self._is_closed and self._driver is None and not self._is_under_way():
                        return
                    if not self._must_keeper_drive(seen_turns):
                        seen_turns = self._turns
                        continue
                    self._driver = threading.get_ident()
                    self._is_keeper_asked_to_leave = False
            if callbacks:
                self._call_back(callbacks)
                seen_turns = self._turns
            else:
                self._drive(lambda: self._is_keeper_asked_to_leave or bool(self._callbacks), None)

    def _call_back(self, callbacks: list[Action]) -> None:
        """Run callbacks, never while driving: one may wait for a thread that itself waits to be served."""
        called = noted = 0
        try:
            for callback in callbacks:
                called += 1
                callback()
                if called - noted == CALLED_STEP:
                    self._note_called(CALLED_STEP)
                    noted = called
        finally:
            self._called(callbacks[called:], called - noted)

    def _note_called(self, count: int) -> None:
        """Note that this many more callbacks have run: there may be room for requests."""
        with self._lock:
            self._uncalled -= count
            self._release([follower for follower in self._followers if follower.is_done()])

    def _called(self, left: list[Action], count: int) -> None:
        """Go on after this many more callbacks; ``left`` are those behind a callback that ended this thread."""
        with self._lock:
            self._uncalled -= count
            self._callbacks[:0] = left
            self._is_calling = False
            is_over = not (self._out() or self._callbacks)
            self._release([follower for follower in self._followers if is_over or follower.is_done()])

    def _must_keeper_drive(self, seen_turns: int) -> bool:
        """Tell whether the keeper must drive: at once, or if nobody has taken a turn in the meantime."""
        if self._driver is None and self._is_under_way():
            if self._is_kept or self._is_closed or self._turns == seen_turns:
                return True
            self._keeper_wakes.wait(NAP_S)
        else:
            self._is_keeper_idle = True
            self._keeper_wakes.wait()
            self._is_keeper_idle = False
        return False


def _bytes_of(requests: list[Request[Any]]) -> int:
    """Return the bytes that count towards ``OUTBOX_BYTES``."""
    return sum([request.size for request in requests if request.size > SMALL_BYTES])


def _failure(error: BaseException) -> TodoMQError:
    """Return what ended a connection as one of our errors."""
    if isinstance(error, Failed):
        return error.error
    return Unavailable(f"the client's connection failed: {error if isinstance(error, LINE_ERRORS) else repr(error)}")


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _begin_anew_in_child() -> None:
    for connection in list(_connections):
        connection.forget_parent()


os.register_at_fork(after_in_child=_begin_anew_in_child)
