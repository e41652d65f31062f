"""Every socket of a daemon and its options, in one place.

Owns: high-water marks, sizes, timeouts; receiving and sending without blocking. Must not know: messages.
Law 6 on the wire: bounded pipes, no buffering to nobody (PUSH with IMMEDIATE), a frame over the limit cuts.
"""

from __future__ import annotations

import errno
import os
import struct
import weakref
from collections.abc import Sequence

import zmq

from todomq.errors import Unavailable
from todomq.protocol import limits
from todomq.protocol.addresses import is_ipv6
from todomq.runtime import curve
from todomq.runtime.curve import Curve
from todomq.runtime.log import log_counted

PIPE_MESSAGES = 64
CLIENT_PIPE_MESSAGES = 8
"""Between the router and a client, which may read nothing: libzmq counts messages, and one may be a megabyte."""
DRAIN_MESSAGES = 64
"""How many messages a turn reads from one socket at most; a reader that leaves some says so (``Loop.look_again``)."""
# Plain numbers: arithmetic with members of an Enum costs more than asking or sending does.
_READABLE = int(zmq.POLLIN)
_LAST = int(zmq.NOBLOCK)
_NOT_LAST = int(zmq.NOBLOCK | zmq.SNDMORE)
OWN_THREAD = 1
DOOR_THREAD = 2
"""The I/O threads, as bits: strangers' handshakes cost processor time, and nobody else should have to wait for it."""

BACKLOG_CONNECTIONS = 1024
CONNECT_AGAIN_MS = 10
CONNECT_AGAIN_MOST_MS = 20
"""How soon a daemon tries again to reach one that is away. A try costs microseconds, and most are back within a tenth
of a second: backing off further would make others wait half as long again."""

CONNECT_MS = 2_000
PROBES = 3
UNHEARD_MS = 4_000
DOOR_UNHEARD_MS = 30_000
"""How long after the last sign of life from the other machine a connection over TCP ends: between daemons, which then
make it anew; at the door, where it counts towards a key's quota. A network may lose one without a word, for instance
when a firewall is restarted, and TCP alone would wait for a quarter of an hour. It is the system that asks for signs of
life: libzmq's own heartbeats (RFC 37) would take a long message on a slow link for silence. A peer that takes in
nothing for this long is cut as well."""

DROPPED_FRAMES = 256
"""How many frames of a message that has too many are dropped in one ``receive``."""

_EVENT = struct.Struct("=HI")
_too_long: weakref.WeakSet[zmq.Socket[bytes]] = weakref.WeakSet()
"""The sockets that are in the middle of a message of too many frames."""

_context: zmq.Context[zmq.Socket[bytes]] | None = None


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the process's one context."""
    global _context
    if _context is None:
        _context = zmq.Context()
        _context.set(zmq.MAX_SOCKETS, 4096)
        _context.set(zmq.IO_THREADS, 2)
    return _context


def _open(kind: int) -> zmq.Socket[bytes]:
    try:
        socket = context().socket(kind)
    except zmq.ZMQError as error:
        raise _no_more(error) from None
    socket.setsockopt(zmq.AFFINITY, OWN_THREAD)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, PIPE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, PIPE_MESSAGES)
    socket.setsockopt(zmq.SNDTIMEO, 0)
    socket.setsockopt(zmq.RCVTIMEO, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.TRANSPORT_BYTES)
    socket.setsockopt(zmq.BACKLOG, BACKLOG_CONNECTIONS)
    socket.setsockopt(zmq.RECONNECT_IVL, CONNECT_AGAIN_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, CONNECT_AGAIN_MOST_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    return socket


def _monitor(socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """Open the socket that tells what happens to another one; if there can be none, close that other one."""
    try:
        monitor: zmq.Socket[bytes] = socket.get_monitor_socket(events)
    except zmq.ZMQError as error:
        socket.close(0)
        raise _no_more(error) from None
    return monitor


def _no_more(error: zmq.ZMQError) -> Unavailable:
    return Unavailable(f"no socket can be opened: {error.strerror}")


def router(address: str, pipe_messages: int = PIPE_MESSAGES) -> zmq.Socket[bytes]:
    """Bind a ROUTER; sending to a peer that is gone raises EHOSTUNREACH, to one with a full pipe EAGAIN."""
    socket = _open(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, pipe_messages)
    _bind(socket, address)
    return socket


def door(address: str, secret: str) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Bind a ROUTER for clients that come with a key; return it and the socket that tells who comes and goes.

    The ZAP handler must exist already. The monitor is there before the first connection, so that it misses nothing.

    Raises:
        Unavailable: it cannot be bound.
    """
    socket = _open(zmq.ROUTER)
    socket.setsockopt(zmq.AFFINITY, DOOR_THREAD)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, CLIENT_PIPE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, CLIENT_PIPE_MESSAGES)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.DOOR_BYTES)
    _end_unheard(socket, DOOR_UNHEARD_MS)
    curve.guard(socket, secret, curve.DOOR)
    monitor = _monitor(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    monitor.setsockopt(zmq.RCVHWM, 0)
    try:
        listen(socket, address)
    except Unavailable:
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)
        raise
    return socket, monitor


def listen_in_stack(socket: zmq.Socket[bytes], address: str, own: Curve) -> None:
    """Bind a ROUTER to a TCP address as well, for daemons of the stack only. What it is bound to already stays open.

    Raises:
        Unavailable: it cannot be bound.
    """
    curve.guard(socket, own.secret, curve.STACK)
    _end_unheard(socket, UNHEARD_MS)
    listen(socket, address)
    curve.unguard(socket)  # what is bound again later is ipc


def zap() -> zmq.Socket[bytes]:
    """Bind where libzmq asks whom to let in (https://rfc.zeromq.org/spec/27/)."""
    socket = _open(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.bind("inproc://zeromq.zap.01")
    return socket


_LISTEN_ADVICE = {
    errno.EADDRINUSE: "; another process listens there",
    errno.EADDRNOTAVAIL: "; it takes an address of this machine",
}


def listen(socket: zmq.Socket[bytes], address: str) -> None:
    """Bind a socket to an address, besides those that it is bound to already.

    Raises:
        Unavailable: it cannot be bound.
    """
    _allow(socket, address)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        number = error.errno or 0
        why = f"{zmq.strerror(number)}{_LISTEN_ADVICE.get(number, '')}"  # its own text names the address as well
        raise Unavailable(f"cannot listen at {address}: {why}") from None


def pull(address: str, own: Curve | None = None) -> zmq.Socket[bytes]:
    """Bind a PULL; with the stack's pair, to daemons of the stack only."""
    socket = _open(zmq.PULL)
    if own is not None:
        curve.guard(socket, own.secret, curve.STACK)
        _end_unheard(socket, UNHEARD_MS)
    _bind(socket, address)
    return socket


def push(address: str, own: Curve | None = None) -> zmq.Socket[bytes]:
    """Connect a PUSH that sends over a living connection or not at all.

    Raises:
        Unavailable: not an address.
    """
    socket = _open(zmq.PUSH)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    if own is not None:
        curve.present(socket, own.public, own.public, own.secret)
        _end_unheard(socket, UNHEARD_MS)
    _connect(socket, address)
    return socket


def dealer(address: str, own: Curve | None = None) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Connect a DEALER; return it and the socket that tells when it is connected and when that broke.

    The monitor is there before the connection, so that it misses nothing.

    Raises:
        Unavailable: not an address, or there are too many sockets.
    """
    socket = _open(zmq.DEALER)
    monitor = _monitor(socket, zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    if own is not None:
        curve.present(socket, own.public, own.public, own.secret)
        _end_unheard(socket, UNHEARD_MS)
    _connect(socket, address)
    return socket, monitor


def _end_unheard(socket: zmq.Socket[bytes], unheard_ms: int) -> None:
    """Have TCP connections made from now on end if the other machine gives no sign of life for this long."""
    idle_s = max(1, unheard_ms // 1000 // (PROBES + 1))
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, idle_s)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, idle_s)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, PROBES)
    socket.setsockopt(zmq.TCP_MAXRT, unheard_ms)  # tcp(7): TCP_USER_TIMEOUT
    socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_MS)


def _allow(socket: zmq.Socket[bytes], address: str) -> None:
    """Have libzmq accept an address of IPv6, which it does not do by default."""
    if is_ipv6(address):
        socket.setsockopt(zmq.IPV6, 1)


def _connect(socket: zmq.Socket[bytes], address: str) -> None:
    _allow(socket, address)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise Unavailable(f"{address!r:.200} cannot be connected to: {error.strerror}") from None


def _bind(socket: zmq.Socket[bytes], address: str) -> None:
    if address.startswith("ipc://") and os.path.lexists(address[6:]):
        os.unlink(address[6:])  # a dead process's: the caller holds the lock on the name
    try:
        listen(socket, address)
    except Unavailable:
        socket.close(0)
        raise


def restore(socket: zmq.Socket[bytes], address: str) -> bool:
    """Bind an ipc address again if somebody removed its file, so that peers can connect; old connections go on.

    The old binding stays as well: ending it would end the connections made through it.

    Returns:
        whether that was needed and could be done; if its directory is gone as well, the connections still go on.
    """
    if not address.startswith("ipc://") or os.path.lexists(address[6:]):
        return False
    name = address.rsplit("/", 1)[-1]
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        log_counted("socket_not_restored", at=name, why=error.strerror)
        return False
    log_counted("socket_restored", at=name)
    return True


def receive_frames(
    socket: zmq.Socket[bytes], max_frames: int = limits.MESSAGE_FRAMES + 1
) -> list[zmq.Frame] | None:
    """Receive as ``receive`` does, with what libzmq knows of the connection on each frame."""
    if _too_long and socket in _too_long:
        return _drop_frames(socket)
    try:
        # A Frame knows whether more follow; asking the socket costs more than receiving does.
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames = [frame]
    while frame.more:
        if len(frames) == max_frames:
            _too_long.add(socket)
            break
        frame = socket.recv(copy=False)
        frames.append(frame)
    return frames


def is_in_long_message(socket: zmq.Socket[bytes]) -> bool:
    """Tell whether what was received last is the beginning of a message of more frames than are kept."""
    return socket in _too_long


def _drop_frames(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """Drop some of the remaining frames of a message that has too many; a million at once would take a second."""
    for _ in range(DROPPED_FRAMES):
        if not socket.recv(copy=False).more:  # libzmq hands over whole messages, so it is there
            _too_long.discard(socket)
            break
    return []


def receive(socket: zmq.Socket[bytes], max_frames: int = limits.MESSAGE_FRAMES + 1) -> list[bytes] | None:
    """Receive one message if one is there.

    Returns:
        its frames, ``max_frames`` of them at most; an empty list if frames from the rest of a longer message were
        dropped; None if nothing waits.
    """
    frames = receive_frames(socket, max_frames)
    return None if frames is None else [frame.bytes for frame in frames]


def read_event(monitor: zmq.Socket[bytes]) -> tuple[int, int] | None:
    """Receive the number and the value of an event of a socket; None if there was none. zmq_socket_monitor(3)."""
    frames = receive(monitor)
    return _EVENT.unpack_from(frames[0]) if frames else None


def has_more(socket: zmq.Socket[bytes]) -> bool:
    """Tell whether a message is there; if none is, this is cheaper than trying to receive one."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _READABLE)


def send(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> bool:
    """Send one message without blocking.

    Returns:
        False if the pipe is full or, for PUSH, nobody is connected.

    Raises:
        ConnectionError: a ROUTER's peer is gone.
    """
    try:
        for frame in frames[:-1]:
            socket.send(frame, _NOT_LAST)
        socket.send(frames[-1], _LAST)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            raise ConnectionError("the peer is gone") from None
        raise
    return True
