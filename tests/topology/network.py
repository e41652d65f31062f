"""The fake network: what the sockets of ``todomq.runtime.sockets`` do, as ZeroMQ does it.

Owns: connections, what is on its way, what waits in pipes. Must not know: what a message means.

- Each direction of a connection is first in, first out; connections are independent of each other.
- A message goes ``pipe -> wire -> inbox``. Pipe and wire are bounded; a full pipe takes no more (EAGAIN).
- When a connection breaks, what is on the wire is lost but for a prefix, and each end's inbox stays readable. A
  DEALER's pipe outlives the break and goes to whoever listens at the address next; a PUSH's and a ROUTER's is lost.
- A PUSH sends only over a living connection (IMMEDIATE). A ROUTER has a new identity for every connection and raises
  where the peer is gone (MANDATORY). A connecting socket tries again until it is closed.
- A process that dies takes its inboxes and pipes with it; a paused one shakes no hands.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

import zmq

from todomq.errors import Unavailable
from todomq.protocol.addresses import is_address
from topology.clock import MS_US, Clock, Event
from topology.processes import Process, Processes

PIPE_MESSAGES = 64
WIRE_MESSAGES = 96
DELAY_US = (20, 300)
HANDSHAKE_US = (100, 600)
RECONNECT_US = (10 * MS_US, 100 * MS_US)

Frames = list[bytes]
Trace = Callable[[str], None]

ROUTER, DEALER, PUSH, PULL, MONITOR = "router", "dealer", "push", "pull", "monitor"


class Socket:
    """One socket of one process."""

    def __init__(self, network: Network, kind: str, process: Process, address: str) -> None:
        self.network = network
        self.kind = kind
        self.process = process
        self.address = address
        self.is_closed = False
        self.inbox: deque[tuple[Frames, Direction | None]] = deque()
        # A ROUTER's, by the identity of the peer.
        self.peers: dict[bytes, Connection] = {}
        # A connecting socket's.
        self.connection: Connection | None = None
        self.monitor: Socket | None = None
        self.pipe: deque[Frames] = deque()
        self.reconnect_us = RECONNECT_US[0]

    @property
    def is_readable(self) -> bool:
        """Whether a message waits."""
        return bool(self.inbox)

    @property
    def has_room(self) -> bool:
        """Whether a DEALER's pipe takes another message."""
        return len(self.pipe) < PIPE_MESSAGES

    def arrive(self, frames: Frames, direction: Direction | None) -> None:
        """Put a message into the inbox."""
        if self.process.is_alive and not self.is_closed:
            self.inbox.append((frames, direction))
            self.process.wake()

    def tell(self, event: int) -> None:
        """Tell the monitor of a DEALER."""
        if self.monitor is not None:
            self.monitor.arrive([int(event).to_bytes(2, sys.byteorder) + bytes(4), self.address.encode()], None)

    def disable_monitor(self) -> None:
        """Tell nothing more."""
        self.monitor = None

    def close(self, linger_ms: int = 0) -> None:
        """Close; the connection ends."""
        self.is_closed = True
        self.pipe.clear()
        self.inbox.clear()
        if self.connection is not None:
            self.network.break_connection(self.connection)


class Direction:
    """One direction of a connection."""

    def __init__(self, connection: Connection, source: Socket, target: Socket, pipe: deque[Frames]) -> None:
        self.connection = connection
        self.source = source
        self.target = target
        self.pipe = pipe
        self.flying: deque[tuple[Event, Frames]] = deque()
        self.unread = 0
        self.last_us = 0

    def pump(self) -> None:
        """Move from the pipe onto the wire what the wire takes."""
        while self.pipe and self.unread < WIRE_MESSAGES and self.connection.is_up:
            self.unread += 1
            self.connection.network.fly(self, self.pipe.popleft())

    def land(self) -> None:
        """The first message on the wire arrives."""
        _, frames = self.flying.popleft()
        if self.target.kind == ROUTER:
            frames = [self.connection.identity, *frames]
        self.target.arrive(frames, self)

    def read(self) -> None:
        """A message was read: there is room for another one."""
        self.unread -= 1
        self.pump()


class Connection:
    """One connection, from its handshake until it breaks."""

    def __init__(self, network: Network, connecting: Socket, bound: Socket, identity: bytes) -> None:
        self.network = network
        self.connecting = connecting
        self.bound = bound
        self.identity = identity
        self.is_up = True
        self.delay_us = DELAY_US
        self.onward = Direction(self, connecting, bound, connecting.pipe)
        self.back = Direction(self, bound, connecting, deque())

    def __repr__(self) -> str:
        return f"{self.connecting.process!r}->{self.bound.process!r}:{self.bound.kind}"


class Network:
    """All sockets and connections of one simulation."""

    def __init__(self, clock: Clock, processes: Processes, random: Random, trace: Trace) -> None:
        self.connections: list[Connection] = []
        self.duplicates = 0.0
        """How likely a client's message to the router arrives twice."""
        self.doubled: list[tuple[str, Frames]] = []
        """Which did, by the name of the process that sent it."""
        self._clock = clock
        self._processes = processes
        self._random = random
        self._trace = trace
        self._bound: dict[str, Socket] = {}
        self._identities = random.randrange(1 << 31)

    # In the place of todomq.runtime.sockets.

    def router(self, address: str, pipe_messages: int) -> Socket:
        """Bind a ROUTER, with a pipe like all."""
        return self._bind(ROUTER, address)

    def pull(self, address: str) -> Socket:
        """Bind a PULL."""
        return self._bind(PULL, address)

    def push(self, address: str) -> Socket:
        """Connect a PUSH."""
        return self._connect(PUSH, address)

    def dealer(self, address: str) -> tuple[Socket, Socket]:
        """Connect a DEALER; return it and its monitor.

        Raises:
            Unavailable: not an address.
        """
        socket = self._connect(DEALER, address)
        socket.monitor = Socket(self, MONITOR, socket.process, address)
        return socket, socket.monitor

    def restore(self, socket: Socket, address: str) -> bool:
        """Bind again where the address was removed; return whether that was needed."""
        if address in self._bound:
            return False
        self._bound[address] = socket
        return True

    def receive(self, socket: Socket, max_frames: int = 4) -> Frames | None:
        """Receive one message if one is there."""
        if not socket.inbox:
            return None
        frames, direction = socket.inbox.popleft()
        if direction is not None:
            direction.read()
        return frames[:max_frames]

    def has_more(self, socket: Socket) -> bool:
        """Tell whether a message is there."""
        return bool(socket.inbox)

    def send(self, socket: Socket, frames: Sequence[bytes]) -> bool:
        """Send one message; False where the pipe is full or nobody is connected to a PUSH.

        Raises:
            ConnectionError: a ROUTER's peer is gone.
        """
        assert not socket.is_closed, "a closed socket is used"
        if socket.kind == ROUTER:
            connection = socket.peers.get(frames[0])
            if connection is None:
                raise ConnectionError("the peer is gone")
            return self._put(connection.back.pipe, connection.back, list(frames[1:]))
        if socket.kind == PUSH and socket.connection is None:
            return False
        direction = None if socket.connection is None else socket.connection.onward
        return self._put(socket.pipe, direction, list(frames))

    def bound(self) -> dict[str, str]:
        """Return the kind of the socket that is bound to each address."""
        return {address: socket.kind for address, socket in self._bound.items()}

    # What the nemesis does.

    def break_connection(self, connection: Connection) -> None:
        """End a connection as if its wire was cut."""
        if not connection.is_up:
            return
        connection.is_up = False
        self.connections.remove(connection)
        self._trace(f"broken {connection!r}")
        for direction in (connection.onward, connection.back):
            self._lose_wire(direction)
        connection.back.pipe.clear()
        connection.bound.peers.pop(connection.identity, None)
        socket = connection.connecting
        socket.connection = None
        if socket.kind == PUSH:
            socket.pipe.clear()
        if not socket.is_closed and socket.process.is_alive:
            socket.tell(zmq.EVENT_DISCONNECTED)
            socket.reconnect_us = RECONNECT_US[0]
            self._try_later(socket)

    def remove_address(self) -> None:
        """Remove the file of some socket: nobody can connect there any more, made connections go on."""
        if self._bound:
            address = self._random.choice(list(self._bound))
            self._trace(f"removed {address}")
            del self._bound[address]

    def process_died(self, process: Process) -> None:
        """Everything of a process that is dead ends."""
        self._bound = {address: socket for address, socket in self._bound.items() if socket.process is not process}
        for connection in list(self.connections):
            if process in (connection.bound.process, connection.connecting.process):
                self.break_connection(connection)

    # Inside.

    def fly(self, direction: Direction, frames: Frames) -> None:
        """Put a message on the wire."""
        connection = direction.connection
        now_us = self._clock.now_us
        direction.last_us = max(direction.last_us + 1, now_us + self._random.randint(*connection.delay_us))
        event = self._clock.after(direction.last_us - now_us, direction.land)
        direction.flying.append((event, frames))
        self._trace(f"{direction.source.process!r}->{direction.target.process!r} {sum(map(len, frames))}")
        if direction is connection.onward and self._is_to_be_doubled(connection):
            self.doubled.append((direction.source.process.name, frames))
            direction.unread += 1
            direction.last_us += self._random.randint(1, 2_000)
            again = self._clock.after(direction.last_us - now_us, direction.land)
            direction.flying.append((again, frames))

    def _is_to_be_doubled(self, connection: Connection) -> bool:
        if not self.duplicates or not connection.connecting.process.name.startswith("client"):
            return False
        return self._random.random() < self.duplicates

    def _put(self, pipe: deque[Frames], direction: Direction | None, frames: Frames) -> bool:
        if len(pipe) >= PIPE_MESSAGES:
            return False
        pipe.append(frames)
        if direction is not None:
            direction.pump()
        return True

    def _lose_wire(self, direction: Direction) -> None:
        arriving = self._random.randint(0, len(direction.flying))
        for place, (event, _) in enumerate(list(direction.flying)):
            event.cancel()
            if place < arriving:
                direction.land()
        direction.flying.clear()

    def _bind(self, kind: str, address: str) -> Socket:
        assert self._processes.current is not None
        socket = Socket(self, kind, self._processes.current, address)
        self._bound[address] = socket
        return socket

    def _connect(self, kind: str, address: str) -> Socket:
        if not is_address(address):
            raise Unavailable(f"{address!r:.200} cannot be connected to")
        assert self._processes.current is not None
        socket = Socket(self, kind, self._processes.current, address)
        self._clock.after(self._random.randint(10, 100), lambda: self._try(socket))
        return socket

    def _try(self, socket: Socket) -> None:
        if socket.is_closed or not socket.process.is_alive or socket.connection is not None:
            return
        bound = self._bound.get(socket.address)
        if bound is None or bound.process.is_paused or socket.process.is_paused:
            self._try_later(socket)
        else:
            self._clock.after(self._random.randint(*HANDSHAKE_US), lambda: self._shake_hands(socket))

    def _try_later(self, socket: Socket) -> None:
        delay_us = self._random.randint(socket.reconnect_us // 2, socket.reconnect_us)
        socket.reconnect_us = min(2 * socket.reconnect_us, RECONNECT_US[1])
        self._clock.after(delay_us, lambda: self._try(socket))

    def _shake_hands(self, socket: Socket) -> None:
        if socket.is_closed or not socket.process.is_alive or socket.connection is not None:
            return
        bound = self._bound.get(socket.address)
        if bound is None or bound.process.is_paused or not bound.process.is_alive:
            self._try_later(socket)
            return
        self._identities += 1
        identity = b"\0" + (self._identities & 0xFFFFFFFF).to_bytes(4, "big")
        connection = Connection(self, socket, bound, identity)
        socket.connection = connection
        socket.reconnect_us = RECONNECT_US[0]
        self.connections.append(connection)
        if bound.kind == ROUTER:
            bound.peers[identity] = connection
        self._trace(f"connected {connection!r}")
        socket.tell(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        connection.onward.pump()
