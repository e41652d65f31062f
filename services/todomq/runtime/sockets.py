"""Every socket of a daemon and its options, in one place.

Owns: high-water marks, sizes, timeouts; receiving and sending without blocking. Must not know: messages.
Law 6 on the wire: bounded pipes, no buffering to nobody (PUSH with IMMEDIATE), a frame over the limit cuts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import zmq

from todomq.errors import Unavailable
from todomq.protocol import limits

PIPE_MESSAGES = 64
_READABLE = int(zmq.POLLIN)  # a plain number: arithmetic with members of an Enum costs more than asking the socket
BACKLOG_CONNECTIONS = 1024

_context: zmq.Context[zmq.Socket[bytes]] | None = None


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the process's one context."""
    global _context
    if _context is None:
        _context = zmq.Context()
        _context.set(zmq.MAX_SOCKETS, 4096)
    return _context


def _open(kind: int) -> zmq.Socket[bytes]:
    socket = context().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, PIPE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, PIPE_MESSAGES)
    socket.setsockopt(zmq.SNDTIMEO, 0)
    socket.setsockopt(zmq.RCVTIMEO, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.TRANSPORT_BYTES)
    socket.setsockopt(zmq.BACKLOG, BACKLOG_CONNECTIONS)
    socket.setsockopt(zmq.RECONNECT_IVL, 10)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    return socket


def router(address: str) -> zmq.Socket[bytes]:
    """Bind a ROUTER; sending to a peer that is gone raises EHOSTUNREACH, to a full one EAGAIN."""
    socket = _open(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    _bind(socket, address)
    return socket


def listen_also(socket: zmq.Socket[bytes], address: str) -> None:
    """Bind a ROUTER to a second address.

    Raises:
        Unavailable: it cannot be bound.
    """
    if address.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise Unavailable(f"cannot listen at {address}: {error.strerror}") from None


def pull(address: str) -> zmq.Socket[bytes]:
    """Bind a PULL."""
    socket = _open(zmq.PULL)
    _bind(socket, address)
    return socket


def push(address: str) -> zmq.Socket[bytes]:
    """Connect a PUSH that sends over a living connection or not at all.

    Raises:
        Unavailable: not an address.
    """
    socket = _open(zmq.PUSH)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    _connect(socket, address)
    return socket


def dealer(address: str) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Connect a DEALER; return it and the socket that tells when it is connected and when that broke.

    The monitor is there before the connection, so that it misses nothing.

    Raises:
        Unavailable: not an address.
    """
    socket = _open(zmq.DEALER)
    monitor: zmq.Socket[bytes] = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    _connect(socket, address)
    return socket, monitor


def _connect(socket: zmq.Socket[bytes], address: str) -> None:
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise Unavailable(f"{address!r:.200} cannot be connected to: {error.strerror}") from None


def _bind(socket: zmq.Socket[bytes], address: str) -> None:
    if address.startswith("ipc://") and os.path.lexists(address[6:]):
        os.unlink(address[6:])  # a dead process's: the caller holds the lock on the name
    socket.bind(address)


def restore(socket: zmq.Socket[bytes], address: str) -> bool:
    """Bind an ipc address again whose file somebody removed, so that peers can connect; made connections go on.

    The old binding stays as well: ending it would end the connections made through it.

    Returns:
        whether that was needed.
    """
    if not address.startswith("ipc://") or os.path.lexists(address[6:]):
        return False
    socket.bind(address)
    return True


def receive(socket: zmq.Socket[bytes], max_frames: int = limits.MESSAGE_FRAMES + 1) -> list[bytes] | None:
    """Receive one message if one is there.

    Returns:
        its frames, of which at most ``max_frames`` are kept (the rest is read and dropped); None where nothing waits.
    """
    try:
        # A Frame knows whether more follow; asking the socket costs more than receiving does.
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(copy=False)
        if len(frames) < max_frames:
            frames.append(frame.bytes)
    return frames


def has_more(socket: zmq.Socket[bytes]) -> bool:
    """Tell whether a message is there: cheaper than to receive where there is none."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _READABLE)


def send(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> bool:
    """Send one message without blocking.

    Returns:
        False where the pipe is full or, for PUSH, nobody is connected.

    Raises:
        ConnectionError: a ROUTER's peer is gone.
    """
    try:
        socket.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            raise ConnectionError("the peer is gone") from None
        raise
    return True
