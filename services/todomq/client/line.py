"""The sockets of a client's connection: a DEALER to the router, and a monitor that tells when it broke.

Owns: their options, what is received and sent in a turn, how soon a broken connection is replaced. Must not know:
threads, what a message means. The connection uses it, one thread at a time.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import zmq

from todomq.client.session import Session
from todomq.errors import InvalidRequest, TodoMQError, Unauthorized, Unavailable
from todomq.protocol import limits
from todomq.protocol.addresses import is_ipv6

if TYPE_CHECKING:
    from todomq.keys.credentials import Credentials

DRAIN_MESSAGES = 64
PIPE_MESSAGES = 64
CONNECT_AGAIN_MS = 5
CONNECT_AGAIN_MOST_MS = 40
CONNECT_PAUSE_MOST_MS = 1_000
CLOSE_LINGER_MS = 500
DESCRIPTORS = 16
"""What a context, its two threads, the sockets and their connection take, and some more."""


class Failed(Exception):
    """A line can't be used, for a reason that can be told."""

    def __init__(self, error: TodoMQError) -> None:
        super().__init__(error.text)
        self.error = error


LINE_ERRORS = (Failed, zmq.ZMQError)
"""What the methods of a line raise; the second if the sockets fail, for instance because no descriptor is left."""

NOT_LET_IN = 400
"""The status with which a handshake is refused for good (https://rfc.zeromq.org/spec/27/)."""

_EVENT = struct.Struct("=HI")

# Plain numbers: arithmetic with members of an Enum costs more than asking or sending does.
_READABLE = int(zmq.POLLIN)
_WRITABLE = int(zmq.POLLOUT)
_LAST = int(zmq.NOBLOCK)
_NOT_LAST = int(zmq.NOBLOCK | zmq.SNDMORE)


_of_parents: list[tuple[object, ...]] = []
"""Sockets that a forked child inherited and may not close; they are kept, since pyzmq warns of any that is dropped."""


class Line:
    """The sockets of one connection. All their options are set here.

    Attributes:
        has_more: whether more may have arrived than was received.
    """

    _is_closed = True

    def __init__(self, endpoint: str, credentials: Credentials | None = None) -> None:
        self.has_more = False
        self._endpoint = endpoint
        self._credentials = credentials
        try:
            self._wake_fd, self._wake_writer = os.pipe()
        except OSError as error:
            raise Failed(Unavailable(f"no connection can be opened: {error.strerror}")) from None
        try:
            self._check_descriptors()
            self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            self._dealer = self._monitor = self._context.socket(zmq.PAIR)
        except BaseException:  # an interrupt, too
            self._close_pipe()
            raise
        self._poller = zmq.Poller()
        self._was_heard = True
        self._is_disconnected = False
        self._is_full = False
        self._connect_again_ms = 0
        self._pause_ms = 0
        self._is_closed = False

    def _check_descriptors(self) -> None:
        """Check that there are descriptors for what libzmq opens: if it finds none left, it aborts the process.

        Raises:
            Failed: there are too few.
        """
        spare: list[int] = []
        try:
            while len(spare) < DESCRIPTORS:
                spare.append(os.dup(self._wake_fd))
        except OSError as error:
            raise Failed(Unavailable(f"no connection can be opened: {error.strerror}")) from None
        finally:
            for descriptor in spare:
                os.close(descriptor)

    def __del__(self) -> None:
        """Close a line that an interrupt lost before its owner, who would have closed it, held a reference to it."""
        if not self._is_closed:
            self.close()

    def connect(self, now: int) -> None:
        """Replace the socket with a new one, which has a new identity: late answers to the old one go nowhere.

        Raises:
            Failed: the endpoint is not an address.
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
        # A connection on which something was heard is replaced at once when it breaks; one that breaks before that is
        # replaced after longer and longer pauses.
        self._pause_ms = 0 if self._was_heard else min(max(2 * self._pause_ms, CONNECT_AGAIN_MS), CONNECT_PAUSE_MOST_MS)
        self._connect_again_ms = now + self._pause_ms
        self._was_heard = self._is_disconnected = self._is_full = self.has_more = False
        if is_ipv6(self._endpoint):
            dealer.setsockopt(zmq.IPV6, 1)
        try:
            dealer.connect(self._endpoint)
        except zmq.ZMQError as error:
            raise Failed(InvalidRequest(f"endpoint {self._endpoint!r}: {error.strerror}")) from None

    def poll(self, timeout_ms: int) -> None:
        """Sleep until something arrives, ``wake`` is called, or the time is up; with 0 only look at the connection.

        Where the last ``send`` found the pipe full, room in it ends the sleep as well.

        Raises:
            Failed: the router does not let the key in.
        """
        if not timeout_ms:
            if int(self._monitor.getsockopt(zmq.EVENTS)) & _READABLE:
                self._take_event()
            self.has_more = bool(self._events() & _READABLE)
            return
        if self._is_disconnected:
            timeout_ms = min(timeout_ms, CONNECT_AGAIN_MS)
        self._poller.modify(self._dealer, _READABLE | _WRITABLE if self._is_full else _READABLE)
        for source, events in self._poller.poll(timeout_ms):
            if source is self._dealer:
                self.has_more = bool(events & _READABLE)
            elif source is self._monitor:
                self._take_event()
            else:
                os.read(self._wake_fd, 4096)

    def wake(self) -> None:
        """End the sleep of the thread that polls; from any thread."""
        os.write(self._wake_writer, b"w")

    def _take_event(self) -> None:
        # A monitor's first frame: event (16 bits, native order), value (32 bits); zmq_socket_monitor(3).
        number, value = _EVENT.unpack_from(self._monitor.recv_multipart(zmq.NOBLOCK)[0])
        if number == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == NOT_LET_IN:
            raise Failed(Unauthorized("the router does not let this key in: it does not know it, or it was revoked"))
        self._is_disconnected = True

    def is_broken(self, now: int) -> bool:
        """Tell whether the router's end is gone and it is time to connect anew."""
        return self._is_disconnected and (self._was_heard or now >= self._connect_again_ms)

    def receive(self, session: Session, now: int) -> None:
        """Give what has arrived to the session; ``has_more`` says afterwards whether that was not all."""
        for _ in range(DRAIN_MESSAGES):
            if not self.has_more:
                return
            frame = self._dealer.recv(zmq.NOBLOCK, copy=False)
            while frame.more:
                frame = self._dealer.recv(zmq.NOBLOCK, copy=False)
            self._was_heard = True
            session.receive(frame.bytes, now)
            self.has_more = bool(self._events() & _READABLE)

    def send(self, session: Session, now: int) -> None:
        """Send the session's messages while there is room in the pipe."""
        self._is_full = False
        while session.has_message and not self._is_disconnected:
            if not self._events() & _WRITABLE:
                self._is_full = True
                return
            message = session.take_message(now)
            if message is None:
                return
            try:
                self._dealer.send(b"", _NOT_LAST)
                self._dealer.send(message, _LAST)
            except zmq.Again:  # the handshake was refused meanwhile, and the pipe is gone
                self._is_disconnected = True

    def close(self) -> None:
        """Close the sockets; what the last messages carry gets a moment to leave."""
        self._close_sockets(linger_ms=CLOSE_LINGER_MS if self._was_heard else 0)
        self._context.destroy(0)  # with any socket that an interrupt has left open
        self._close_pipe()
        self._is_closed = True  # last: if an interrupt comes before this, it is closed again

    def forget_parent(self) -> None:
        """Leave the sockets to the parent, in a forked child."""
        _of_parents.append((self._context, self._dealer, self._monitor))
        self._is_closed = True
        self._close_pipe()

    def _close_pipe(self) -> None:
        for name in ("_wake_fd", "_wake_writer"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    def _events(self) -> int:
        return int(self._dealer.getsockopt(zmq.EVENTS))

    def _close_sockets(self, linger_ms: int) -> None:
        # Some of them may be closed: an interrupt ends a connection wherever it was.
        if not self._dealer.closed and self._monitor is not self._dealer:
            self._dealer.disable_monitor()
        self._monitor.close(0)
        self._dealer.close(linger_ms)
