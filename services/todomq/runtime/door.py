"""The door: a ROUTER on TCP for clients that come with a key, and each of its connections.

Owns: whose connection is whose, what is cut and when. Must not know: what a key allows (its service does), what
operations mean. Frames here carry what libzmq's handshake proved: the user of the connection, and its descriptor.

libzmq has no call that ends one connection of a ROUTER. But a connection's descriptor is known from its first
message, so cutting it is ``shutdown`` on a duplicate of the descriptor, which libzmq takes as the peer's hanging up.
The address at the other end shows whether the descriptor still is this connection. From then on nothing of the
connection is served or answered.

Law 6: libzmq counts whole messages, so a message of endless frames would fill the memory of this process: a
connection that has sent more than ``UNFINISHED_BYTES`` since it last completed a message is cut, and so is one whose
message has more than three frames, or that has not completed its first message ``SILENT_S`` after it was made.
Connections take up to half of the process's descriptors.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar

import zmq

from todomq.protocol import limits
from todomq.runtime import sockets
from todomq.runtime.calls import DRAIN_BYTES, CallServer, OwnPeer, Replies, Service
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop

T = TypeVar("T")

UNFINISHED_BYTES = 32 * limits.MIB
"""More than can lie unread between the network and this process: in libzmq's pipe (``CLIENT_PIPE_MESSAGES`` of
``DOOR_BYTES``) and in the kernel."""

SILENT_S = 60.0
WATCH_S = 0.25

_RECEIVED = struct.Struct("=Q")
_RECEIVED_OFFSET = 128
"""Where ``struct tcp_info`` has tcpi_bytes_received (linux/tcp.h)."""


class Guest(OwnPeer):
    """One connection through the door: its routing id, and what is known of it.

    Attributes:
        user: its public key, Z85.
        key: what the service keeps for this key.
        is_cut: nothing more is served or answered.
    """

    user: str
    key: Any
    is_cut: bool
    door: Door

    def __new__(cls, routing_id: bytes, user: str, door: Door) -> Guest:
        """Let a connection in; the service says what is kept for its key."""
        made = super().__new__(cls, routing_id)
        made.user, made.door = user, door
        made.key, made.is_cut = None, False
        return made

    def take_replies(self, items: Replies) -> None:
        """Send a turn's replies through the door."""
        self.door.deliver(self, items)

    def backlog_bytes(self) -> int:
        """Return how much waits at the door for this connection."""
        return self.door.backlog_at_socket(self)


class Accepted:
    """One accepted TCP connection, as the kernel knows it."""

    __slots__ = ("base", "far_end", "guest", "is_ended", "is_heard", "since_s")

    def __init__(self, far_end: Any, since_s: float) -> None:
        self.far_end = far_end
        self.since_s = since_s
        self.base = 0
        self.is_heard = False
        self.is_ended = False
        self.guest: Guest | None = None


class Door(CallServer):
    """One ROUTER socket with CURVE at one TCP address."""

    def __init__(self, loop: Loop, address: str, service: Service, secret: str, who: Callable[[str], Any]) -> None:
        """Bind. The ZAP handler must be there.

        Args:
            loop: the process's.
            address: where to listen.
            service: takes the requests; their ``peer`` is a ``Guest``.
            secret: the server's secret key, Z85.
            who: given a public key, returns what the service keeps for it; None if it is not let in (any more).

        Raises:
            Unavailable: it cannot be bound.
        """
        opened, self._monitor = sockets.door(address, secret)
        super().__init__(loop, address, service, opened)
        self._who = who
        self._guests: dict[bytes, Guest] = {}
        self._accepted: dict[int, Accepted] = {}
        # The other half of the descriptors is for this machine: libzmq aborts a process that has none left for ipc.
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        loop.watch(self._monitor, self._on_monitor)
        loop.every(WATCH_S, self._watch_accepted)

    @property
    def connections(self) -> int:
        """How many connections there are, including those in their handshake."""
        return len(self._accepted)

    def look_again(self) -> None:
        """Cut every connection whose key is not let in any more."""
        for guest in list(self._guests.values()):
            if self._who(guest.user) is None:
                self.cut(guest, "revoked")

    def cut(self, guest: Guest, why: str) -> None:
        """End a connection: nothing more of it is served, nothing more is sent to it."""
        if guest.is_cut:
            return
        self._end(guest)
        self.counts["cut"] += 1
        log_counted("cut", why=why, key=guest.user[:8])
        for descriptor, accepted in self._accepted.items():
            if accepted.guest is guest:
                _hang_up(descriptor, accepted)

    def deliver(self, guest: Guest, items: Replies) -> None:
        """Send a turn's replies to one connection, unless it is cut."""
        if guest.is_cut:
            self.counts["replies_dropped"] += 1
        else:
            self.send_replies(guest, items)

    def _end(self, guest: Guest) -> None:
        guest.is_cut = True
        self._backlog.forget(guest)
        if self._guests.get(bytes(guest)) is guest:
            del self._guests[bytes(guest)]

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        taken = 0
        for _ in range(sockets.DRAIN_MESSAGES):
            frames = sockets.receive_frames(self._socket)
            if frames is None:
                return
            if not frames:
                continue
            guest = self._guest(frames)
            if guest is not None and sockets.is_in_long_message(self._socket):
                self.counts["flooded"] += 1
                self.cut(guest, "sends very many frames")
            elif guest is not None:
                self._take([guest, *(frame.bytes for frame in frames[1:])])
            taken += len(frames[-1])
            if taken >= DRAIN_BYTES:
                break
        self._loop.look_again(self._socket)

    def _guest(self, frames: list[zmq.Frame]) -> Guest | None:
        """Return whose message this is; None if it is not to be served."""
        last = frames[-1]
        user = _property(last, "User-Id")
        accepted = self._accepted_of(last)
        guest = self._guests.get(frames[0].bytes)
        if guest is None or guest.user != user or (accepted is not None and accepted.guest is not guest):
            guest = self._newcomer(frames[0].bytes, user, accepted)
        guest.key = self._who(user)
        if accepted is None or guest.key is None:
            self.cut(guest, "revoked" if guest.key is None else "gone already")
        elif _property(last, "Identity"):
            # A client that names its routing id could take another's, and with it the answers to that one.
            self.cut(guest, "names a routing id")
        else:
            accepted.is_heard = True
        return None if guest.is_cut else guest

    def _accepted_of(self, frame: zmq.Frame) -> Accepted | None:
        descriptor = frame.get(zmq.SRCFD)
        accepted = self._accepted.get(descriptor)
        if accepted is None:
            self._on_monitor()  # it was accepted in this very turn
            accepted = self._accepted.get(descriptor)
        return accepted

    def _newcomer(self, routing_id: bytes, user: str, accepted: Accepted | None) -> Guest:
        guest = Guest(routing_id, user, self)
        for before in (self._guests.get(routing_id), None if accepted is None else accepted.guest):
            if before is not None:
                self._end(before)
        self._guests[routing_id] = guest
        if accepted is not None:
            accepted.guest = guest
        return guest

    # -- connections ---------------------------------------------------------------------------------------------------

    def _on_monitor(self) -> None:
        while (event := sockets.read_event(self._monitor)) is not None:
            number, descriptor = event
            accepted = self._accepted.pop(descriptor, None)
            if accepted is not None and accepted.guest is not None:
                self._end(accepted.guest)
            if number == zmq.EVENT_ACCEPTED:
                far_end = _ask_kernel(descriptor, _far_end)
                if far_end is not None:
                    accepted = self._accepted[descriptor] = Accepted(far_end, time.monotonic())
                    if len(self._accepted) > self._most:
                        self.counts["too_many"] += 1
                        accepted.is_ended = True
                        _hang_up(descriptor, accepted)

    def _watch_accepted(self) -> None:
        now_s = time.monotonic()
        for descriptor, accepted in list(self._accepted.items()):
            if accepted.is_ended:
                continue  # libzmq has yet to see it
            if accepted.guest is None and now_s - accepted.since_s > SILENT_S:
                self.counts["silent"] += 1
                accepted.is_ended = True
                _hang_up(descriptor, accepted)
                continue
            received = _ask_kernel(descriptor, _received) or 0
            if accepted.is_heard:
                accepted.is_heard = False
                accepted.base = received
            elif received - accepted.base > UNFINISHED_BYTES:
                self.counts["flooded"] += 1
                accepted.is_ended = True
                if accepted.guest is not None:
                    self.cut(accepted.guest, "sends without end")
                else:
                    log_counted("cut", why="sends without end", key="")
                    _hang_up(descriptor, accepted)


def _property(frame: zmq.Frame, name: str) -> str:
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
    except UnicodeDecodeError:
        return "not text"


def _ask_kernel(descriptor: int, question: Callable[[socket.socket], T]) -> T | None:
    """Ask about a descriptor of libzmq's, which its I/O thread may close at any moment; None if it is closed.

    The family given here only says how long an address may be; the kernel knows the true one.
    """
    try:
        borrowed = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=descriptor)
    except OSError:
        return None
    try:
        return question(borrowed)
    except OSError:
        return None
    finally:
        borrowed.detach()  # it is not ours to close


def _far_end(connection: socket.socket) -> Any:
    return connection.getpeername()


def _received(connection: socket.socket) -> int:
    """Return how many bytes have come over a connection; 0 if an old kernel does not say."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_OFFSET + _RECEIVED.size)
    if len(info) < _RECEIVED_OFFSET + _RECEIVED.size:
        return 0
    received: int = _RECEIVED.unpack_from(info, _RECEIVED_OFFSET)[0]
    return received


def _hang_up(descriptor: int, accepted: Accepted) -> None:
    """Shut a connection down, if the descriptor still is its own: the duplicate can't become another's meanwhile."""
    try:
        ours = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=os.dup(descriptor))
    except OSError:
        return
    with ours:
        try:
            if ours.getpeername() == accepted.far_end:
                ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself
