"""The client's one connection: a DEALER to the router, and the thread that drives the session.

Owns: the socket and its options, the thread, what waits for the thread, the bound of all that waits or is in flight.
Must not know: what a request means, what becomes of a finished one (``complete`` is told). Talks to the router only.

Keeps law 6: past the bound a caller waits for room until its deadline, or is refused with ``Overloaded`` at once; and
law 3 over forks: the child starts with a client id, a context, a socket and a thread of its own, at its first request.
Whoever waits is answered, whatever ends the thread.

Callers only append to a list under the lock; the thread sleeps in ``poll`` and is woken through a pipe only then.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from todomq.client.request import Request
from todomq.client.session import Session
from todomq.errors import InvalidRequest, Overloaded, TodoMQError, Unauthorized, Unavailable
from todomq.protocol import limits

if TYPE_CHECKING:
    from todomq.keys.credentials import Credentials

OUTBOX_REQUESTS = 65_536
WAIT_REQUESTS = 8_192
"""Above this a caller that can wait does: what waits in the outbox grows older, and its deadline runs."""
OUTBOX_BYTES = 64 * limits.MIB

DRAIN_MESSAGES = 64
PIPE_MESSAGES = 64
CONNECT_AGAIN_MS = 5
CONNECT_AGAIN_MOST_MS = 100
CONNECT_PAUSE_MOST_MS = 1_000
SLEEP_MOST_MS = 60_000
CLOSE_LINGER_MS = 500
CLOSE_STEP_MS = 5
CLOSE_WAIT_S = 2.0
NOT_LET_IN = 400
"""The status with which a handshake is refused for good (https://rfc.zeromq.org/spec/27/)."""

_EVENT = struct.Struct("=HI")


def now_ms() -> int:
    """Return the milliseconds of the clock that sessions and deadlines run by; it never goes back."""
    return time.monotonic_ns() // 1_000_000


class Connection:
    """A connection that starts with its first request and lasts until ``close``.

    Args:
        endpoint: the router's address.
        complete: told, on the connection's thread, which requests are finished. It must not raise.
        credentials: the keys to connect with, None for an endpoint that asks for none.
    """

    def __init__(
        self,
        endpoint: str,
        complete: Callable[[list[Request[Any]]], None],
        credentials: Credentials | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._complete = complete
        self._is_closed = False
        self._begin()
        _connections.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting_for_room = 0
        self._arrived: list[Request[Any]] = []
        self._requests = 0
        self._bytes = 0
        self._is_asleep = False
        self._thread: threading.Thread | None = None
        self._pipe: tuple[int, int] | None = None

    def submit(self, request: Request[Any], *, may_wait: bool) -> None:
        """Hand a request to the thread; its ``deadline_ms`` and ``waiter`` are set.

        Args:
            request: the request.
            may_wait: wait for room until the deadline, where the bound is reached.

        Raises:
            Overloaded: no room. Unavailable: the client is closed. Nothing was sent then.
        """
        with self._lock:
            most = WAIT_REQUESTS if may_wait else OUTBOX_REQUESTS
            if self._requests >= most or self._bytes >= OUTBOX_BYTES:
                self._wait_for_room(request.deadline_ms, may_wait, most)
            if self._is_closed:
                raise Unavailable("this client is closed", retryable=False)
            self._requests += 1
            self._bytes += request.size
            self._arrived.append(request)
            if self._is_asleep:
                self._wake()
            elif self._thread is None:
                self._start()

    def is_own_thread(self) -> bool:
        """Tell whether the caller runs on the connection's thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """End what is unanswered with ``Unavailable`` and the thread; casts handed over before are sent first."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._room.notify_all()
            if self._is_asleep:
                self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_WAIT_S)

    def forget_parent(self) -> None:
        """Begin anew in a forked child: locks, thread, sockets and requests are the parent's."""
        pipe = self._pipe
        self._begin()
        if pipe is not None:
            os.close(pipe[0])
            os.close(pipe[1])

    # On the caller's thread, under the lock.

    def _wait_for_room(self, deadline_ms: int, may_wait: bool, most: int) -> None:
        may_wait = may_wait and not self.is_own_thread()
        while self._requests >= most or self._bytes >= OUTBOX_BYTES:
            left_ms = deadline_ms - now_ms()
            if not may_wait or left_ms <= 0:
                raise Overloaded(f"{self._requests} requests of this client are waiting or in flight")
            if self._is_closed:
                return
            self._waiting_for_room += 1
            self._room.wait(left_ms / 1000)
            self._waiting_for_room -= 1

    def _wake(self) -> None:
        self._is_asleep = False
        if self._pipe is not None:
            os.write(self._pipe[1], b"w")

    def _start(self) -> None:
        self._pipe = os.pipe()
        self._thread = threading.Thread(target=self._run, args=(self._pipe[0],), name="todomq-client", daemon=True)
        self._thread.start()

    # On the connection's thread.

    def _run(self, wake_fd: int) -> None:
        session = Session(os.urandom(16), random.random)
        line = _Line(self._endpoint, wake_fd, self._credentials)
        failure: TodoMQError = Unavailable("this client is closed", retryable=False)
        try:
            self._drive(session, line)
        except TodoMQError as error:
            failure = error
        except BaseException as error:
            failure = Unavailable(f"the client's connection failed: {error!r}")
            raise
        finally:
            line.close()
            self._end(session, failure)

    def _drive(self, session: Session, line: _Line) -> None:
        self._connect(session, line, now_ms())
        has_more = False
        close_by_ms = 0
        while True:
            line.poll(0 if has_more else self._nap_ms(session))
            now = now_ms()
            arrived, is_closed = self._take_arrived()
            has_more = line.receive(session, now)
            if arrived:
                session.submit(arrived, now)
            session.tick(now)
            if line.is_broken(now) or session.must_reconnect(now):
                self._connect(session, line, now)
            line.send(session, now)
            finished = session.take_finished()
            if finished:
                self._finished(finished)
            if is_closed:
                close_by_ms = close_by_ms or now + CLOSE_LINGER_MS
                if now >= close_by_ms or not session.has_casts_to_send():
                    return

    def _connect(self, session: Session, line: _Line, now: int) -> None:
        line.connect(now)
        session.connected(now)

    def _nap_ms(self, session: Session) -> int:
        """Return how long to sleep, and note that the thread has to be woken."""
        with self._lock:
            if self._arrived:
                return 0
            if self._is_closed:
                return CLOSE_STEP_MS
            self._is_asleep = True
        return max(0, min(session.wake_at_ms() - now_ms(), SLEEP_MOST_MS))

    def _take_arrived(self) -> tuple[list[Request[Any]], bool]:
        with self._lock:
            self._is_asleep = False
            arrived, self._arrived = self._arrived, []
            return arrived, self._is_closed

    def _finished(self, finished: list[Request[Any]]) -> None:
        with self._lock:
            self._requests -= len(finished)
            self._bytes -= sum([request.size for request in finished])
            if self._waiting_for_room:
                self._room.notify_all()
        self._complete(finished)

    def _end(self, session: Session, failure: TodoMQError) -> None:
        """Answer whoever waits; a request that comes later starts a new thread, unless the client is closed."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
            self._thread = None
            self._is_asleep = False
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe[0])
            os.close(pipe[1])
        session.submit(arrived, 0)
        session.fail_all(
            lambda outcome: type(failure)(failure.text, retryable=failure.retryable, outcome=outcome)
        )
        finished = session.take_finished()
        if finished:
            self._finished(finished)


class _Line:
    """The sockets of one connection. All their options stand here."""

    def __init__(self, endpoint: str, wake_fd: int, credentials: Credentials | None = None) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._wake_fd = wake_fd
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = self._monitor = self._context.socket(zmq.PAIR)
        self._poller = zmq.Poller()
        self._was_heard = True
        self._is_disconnected = False
        self._connect_again_ms = 0
        self._pause_ms = 0

    def connect(self, now: int) -> None:
        """Replace the socket by a new one, which has a new identity: late answers to the old one go nowhere.

        Raises:
            InvalidRequest: the endpoint is not an address.
        """
        self._close_sockets(linger_ms=0)
        dealer = self._dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.SNDHWM, PIPE_MESSAGES)
        dealer.setsockopt(zmq.RCVHWM, PIPE_MESSAGES)
        dealer.setsockopt(zmq.MAXMSGSIZE, limits.TRANSPORT_BYTES)
        dealer.setsockopt(zmq.RECONNECT_IVL, CONNECT_AGAIN_MS)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, CONNECT_AGAIN_MOST_MS)
        if self._credentials is not None:
            dealer.setsockopt_string(zmq.CURVE_SERVERKEY, self._credentials.server_public_key)
            dealer.setsockopt_string(zmq.CURVE_PUBLICKEY, self._credentials.public_key)
            dealer.setsockopt_string(zmq.CURVE_SECRETKEY, self._credentials.secret_key)
        self._monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self._poller = zmq.Poller()
        for source in (dealer, self._monitor, self._wake_fd):
            self._poller.register(source, zmq.POLLIN)
        # A connection on which a word was heard is replaced at once when it breaks; one that breaks before, ever later.
        self._pause_ms = 0 if self._was_heard else min(max(2 * self._pause_ms, CONNECT_AGAIN_MS), CONNECT_PAUSE_MOST_MS)
        self._connect_again_ms = now + self._pause_ms
        self._was_heard = self._is_disconnected = False
        try:
            dealer.connect(self._endpoint)
        except zmq.ZMQError as error:
            raise InvalidRequest(f"endpoint {self._endpoint!r}: {error.strerror}") from None

    def poll(self, timeout_ms: int) -> None:
        """Sleep until something arrives, somebody wakes the thread, or the time is up.

        Raises:
            Unauthorized: the router does not let the key in.
        """
        if self._is_disconnected:
            timeout_ms = min(timeout_ms, CONNECT_AGAIN_MS)
        for source, _ in self._poller.poll(timeout_ms):
            if source == self._wake_fd:
                os.read(self._wake_fd, 4096)
            elif source is self._monitor:
                self._take_event(self._monitor.recv_multipart(zmq.NOBLOCK)[0])

    def _take_event(self, event: bytes) -> None:
        # A monitor's first frame: event (16 bits, native order), value (32 bits); zmq_socket_monitor(3).
        number, value = _EVENT.unpack_from(event)
        if number == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == NOT_LET_IN:
            raise Unauthorized("the router does not let this key in: it does not know it, or it was revoked")
        self._is_disconnected = True

    def is_broken(self, now: int) -> bool:
        """Tell whether the router's end is gone and it is time to connect anew."""
        return self._is_disconnected and (self._was_heard or now >= self._connect_again_ms)

    def receive(self, session: Session, now: int) -> bool:
        """Give what has arrived to the session; return whether more may be there."""
        for _ in range(DRAIN_MESSAGES):
            try:
                frames = self._dealer.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._was_heard = True
            session.receive(frames[-1], now)
        return True

    def send(self, session: Session, now: int) -> None:
        """Send the session's messages while there is room in the pipe."""
        while not self._is_disconnected and self._has_room():
            message = session.take_message(now)
            if message is None:
                return
            try:
                self._dealer.send_multipart((b"", message), zmq.NOBLOCK)
            except zmq.Again:  # the handshake was refused meanwhile, and the pipe is gone
                self._is_disconnected = True

    def close(self) -> None:
        """Close the sockets; what the last messages carry gets a moment to leave."""
        self._close_sockets(linger_ms=CLOSE_LINGER_MS if self._was_heard else 0)
        self._context.term()

    def _has_room(self) -> bool:
        return bool(int(self._dealer.get(zmq.EVENTS)) & zmq.POLLOUT)

    def _close_sockets(self, linger_ms: int) -> None:
        if self._monitor is not self._dealer:
            self._dealer.disable_monitor()
            self._monitor.close(0)
        self._dealer.close(linger_ms)


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _begin_anew_in_child() -> None:
    for connection in list(_connections):
        connection.forget_parent()


os.register_at_fork(after_in_child=_begin_anew_in_child)
