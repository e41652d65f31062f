"""The receiving side of calls: a ROUTER that reads messages, hands requests to a service, and batches the replies.

Owns: envelopes, decoding, the replies of a turn. Must not know: what operations mean, who reads (``backlog.py``).
A turn serves calls for twice ``TURN_MS`` at most: a loop that is busy with one peer's message for long seems to hang.
Keeps law 7: whatever a peer sends, it gets an error where a reply is possible, else one counted log line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from todomq.errors import UNKNOWN, DeadlineExceeded, InvalidRequest, Overloaded, ProtocolError, TodoMQError
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.protocol.messages import TARGET
from todomq.runtime import sockets
from todomq.runtime.backlog import BACKLOG_BYTES, Backlog
from todomq.runtime.call_queue import CallQueue
from todomq.runtime.curve import Curve
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import Loop

if TYPE_CHECKING:
    import zmq

DRAIN_BYTES = 32 * limits.KIB
"""A turn reads messages until they have this many bytes; the one that reaches the limit is read whole. With more, one
peer's full batches would hold up the others. A service that only queues what it is given may take more
(``Service.drain_bytes``)."""
TURN_MS = 20
"""How long the calls that a turn brings may take, and then those that had waited; what is left waits on."""
LOOK_AT_CLOCK = 16
"""The clock is looked at after this many calls."""
DEFAULT_DEADLINE_MS = 5_000

LATER = object()
"""What an operation returns when it will answer or refuse its call itself."""


class Call:
    """One request that a daemon has received, to be answered or refused once."""

    __slots__ = ("_server", "arguments", "deadline_ms", "id", "number", "peer", "sender", "target")

    def __init__(self, server: CallServer, peer: bytes, sender: bytes, request: messages.Request):
        self._server = server
        self.peer = peer
        self.sender = sender
        self.id = request.id
        self.target = request.target
        self.deadline_ms = request.deadline_ms
        self.number = request.number
        self.arguments: list[Any] = []

    def only_argument(self) -> Any:
        """Return the one argument that the operation takes.

        Raises:
            InvalidRequest: there are none, or several.
        """
        messages.check_count(self.arguments, 1, 1)
        return self.arguments[0]

    def answer(self, value: Any) -> None:
        """Reply with the value; for a cast, nothing is sent."""
        self.answer_packed(pack(value))

    def answer_packed(self, value: bytes) -> None:
        """Reply with a value that is packed already, for several who asked the same."""
        if len(value) > limits.REQUEST_BYTES:  # nobody would take it for a reply
            text = f"the answer takes {len(value)} bytes, where {limits.REQUEST_BYTES} fit"
            self.refuse(TodoMQError(text, outcome=UNKNOWN))
            return
        self._server.reply(self.peer, self.id, messages.OK, value)

    def backlog_bytes(self) -> int:
        """Return how many bytes of earlier answers the caller has not read yet."""
        return self._server.backlog_bytes(self.peer)

    def unread_bytes(self) -> int:
        """Return the same, with what this turn has answered so far."""
        return self._server.unread_bytes(self.peer)

    def refuse(self, error: TodoMQError) -> None:
        """Reply with the error; for a cast, the drop is counted."""
        if self.id is None:
            self._server.counts["casts_dropped"] += 1
        self._server.reply(self.peer, self.id, messages.ERROR, messages.error_value(error))


Operation = Callable[[Call], Any]
Replies = list[tuple[int | None, int, bytes]]
"""Replies to one peer, ``(id, status, packed value)``."""


class OwnPeer(bytes):
    """A peer that asks a service without this server's socket, and takes the replies itself. Equal to itself only.

    It is ``bytes`` because all peers are: those that come by the socket are routing ids.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def take_replies(self, items: Replies) -> None:
        """Take a turn's replies."""
        raise NotImplementedError

    def backlog_bytes(self) -> int:
        """Return how many bytes wait for it because it does not read."""
        return 0


class Service:
    """What a daemon does with requests. Subclasses fill ``operations`` and may take whole messages instead.

    An operation gets the call and returns the value to answer with, or ``LATER``; a raised ``TodoMQError`` refuses it.
    """

    also_at = ""
    """A second address to listen at, besides the daemon's own; empty for none."""
    pipe_messages = sockets.PIPE_MESSAGES
    """How many messages of answers libzmq holds for a peer that does not read them: it does not look at their size."""
    backlog_most_bytes = BACKLOG_BYTES
    """How many bytes of answers wait for such a peer beside them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Shown in ``stats``; the server's counts of the same names are added."""
        self.operations: dict[str, Operation] = {"ping": lambda call: "pong"}

    def on_call(self, server: CallServer, peer: bytes, sender: bytes, requests: list[Any]) -> None:
        """Take the requests of one call message, none of them checked yet."""
        server.serve(self, peer, sender, requests)

    def on_message(self, server: CallServer, peer: bytes, kind: str, fields: messages.Fields) -> None:
        """Take a message of another kind.

        Raises:
            ProtocolError: this daemon takes no such messages.
        """
        raise ProtocolError(f"a {kind[:20]!r} message is not for this daemon")

    def drain_bytes(self) -> int:
        """Return how many bytes of messages a turn may take in, 0 for none; the one that reaches it is taken whole."""
        return DRAIN_BYTES

    def stats(self) -> dict[str, Any]:
        """Return counters and depths of queues, for the probe."""
        return {}

    def finish(self, done: Callable[[], None]) -> None:
        """Bring what is under way to an end, then call ``done``: the daemon was asked to stop."""
        done()


class CallServer:
    """One ROUTER socket at one address."""

    def __init__(
        self, loop: Loop, address: str, service: Service, opened: zmq.Socket[bytes] | None = None
    ) -> None:
        """Bind a ROUTER at the address, unless it is given as ``opened``."""
        self.address = address
        self.counts: Counter[str] = Counter()
        self._name = address.rsplit("/", 1)[-1]
        self._loop = loop
        self._service = service
        self._socket = sockets.router(address, service.pipe_messages) if opened is None else opened
        if service.also_at:
            sockets.listen(self._socket, service.also_at)
        self._replies: dict[bytes, Replies] = {}
        self._backlog = Backlog(loop, self._socket, self._name, service.backlog_most_bytes, self.counts)
        self._waiting = CallQueue()
        self._turn_ends_ms: int | None = None
        loop.watch(self._socket, self._drain)

    def listen_in_stack(self, address: str, curve: Curve) -> None:
        """Listen at a TCP address as well, for daemons of the stack only.

        Raises:
            Unavailable: it cannot be bound.
        """
        sockets.listen_in_stack(self._socket, address, curve)

    def restore(self) -> None:
        """Bind again if the socket's file was removed."""
        if sockets.restore(self._socket, self.address):
            self._loop.look_again(self._socket)

    def reply(self, peer: bytes, identifier: int | None, status: int, value: bytes) -> None:
        """Queue one reply for the end of the turn; a cast (``identifier`` None) gets none."""
        if identifier is not None:
            self.replies_to(peer).append((identifier, status, value))

    def replies_to(self, peer: bytes) -> Replies:
        """Return the replies ``(id, status, value)`` to a peer that leave at the end of the turn, to be added to."""
        return self._replies.setdefault(peer, [])

    def serve(self, service: Service, peer: bytes, sender: bytes, requests: Sequence[Any]) -> None:
        """Serve requests in order, as far as this turn has time; the others wait for the next, or are refused."""
        left: Sequence[Any] = requests
        if not self._waiting:
            for place, request in enumerate(requests):
                if place % LOOK_AT_CLOCK == 0 and self._is_turn_over():
                    left = requests[place:]
                    break
                read = self._read(peer, request)
                if read is not None:
                    self._dispatch(service, peer, sender, read)
            else:
                return
        good = [read for request in left if (read := self._read(peer, request)) is not None]
        self._refuse_all(peer, self._waiting.add(peer, good, (service, sender)))

    def serve_all_waiting(self) -> None:
        """Serve all that waits, however long it takes, since the daemon is to stop."""
        while self._waiting:
            self._serve_next()

    @property
    def has_backlog(self) -> bool:
        """Whether anything waits for a peer that does not read its replies."""
        return bool(self._backlog)

    def backlog_bytes(self, peer: bytes) -> int:
        """Return how much waits for a peer that does not read its replies, here or where it takes them."""
        return peer.backlog_bytes() if isinstance(peer, OwnPeer) else self.backlog_at_socket(peer)

    def unread_bytes(self, peer: bytes) -> int:
        """Return the same, and what this turn has for the peer so far."""
        return self.backlog_bytes(peer) + sum(len(value) for _, _, value in self._replies.get(peer, ()))

    def backlog_at_socket(self, peer: bytes) -> int:
        """Return how much waits here for a peer."""
        return self._backlog.bytes_for(peer)

    def _serve_waiting(self) -> None:
        while self._waiting and not self._is_turn_over():
            for _ in range(LOOK_AT_CLOCK):
                if self._waiting:
                    self._serve_next()
        self._loop.wake()  # for what waits still, and for what the service does at the end of a turn

    def _serve_next(self) -> None:
        peer, (request, (service, sender)) = self._waiting.take()
        self._dispatch(service, peer, sender, request)

    def _is_turn_over(self) -> bool:
        """Tell whether this turn, from the first of its calls on, has taken as long as others may have to wait."""
        now_ms = self._loop.steady_ms()
        if self._turn_ends_ms is None:
            self._turn_ends_ms = now_ms + TURN_MS
        return now_ms >= self._turn_ends_ms

    def _refuse_all(self, peer: bytes, requests: Sequence[messages.Request]) -> None:
        if not requests:
            return
        value = messages.error_value(Overloaded("too many requests of this connection wait"))
        told = [(request.id, messages.ERROR, value) for request in requests if request.id is not None]
        self.counts["casts_dropped"] += len(requests) - len(told)
        self.replies_to(peer).extend(told)

    def _read(self, peer: bytes, request: Any) -> messages.Request | None:
        """Return one request of a call, checked; None if it is malformed, which its sender is told.

        Of its target only a key is kept: no operation reads any other, and a waiting request should not hold it.
        """
        if not messages.is_request(request):
            why = messages.why_no_request(request)
        elif type(request[TARGET]) is bytes and len(request[TARGET]) > limits.KEY_BYTES:
            why = f"a target that is a key has at most {limits.KEY_BYTES} bytes"
        else:
            identifier, target, *others = request
            return messages.Request(identifier, target if type(target) is bytes else None, *others)
        self.refuse_malformed(peer, request, ProtocolError(why))
        return None

    def refuse_malformed(self, peer: bytes, request: Any, error: ProtocolError) -> None:
        """Tell a sender that its request is malformed; if it was a cast, by a reply without an id."""
        self.counts["malformed"] += 1
        self._send_error(peer, messages.request_id(request), error)

    def _dispatch(self, service: Service, peer: bytes, sender: bytes, request: messages.Request) -> None:
        """Find the operation of a request, answer with what it returns or raises."""
        call = Call(self, peer, sender, request)
        try:
            operation, call.arguments = messages.read_body(request.body)
            now_ms = self._loop.now_ms()
            if not call.deadline_ms:
                call.deadline_ms = now_ms + DEFAULT_DEADLINE_MS
            elif call.deadline_ms < now_ms:
                raise DeadlineExceeded("the deadline had passed when the request arrived")
            handler = service.operations.get(operation)
            if handler is None:
                raise InvalidRequest(f"unknown operation {operation[:50]!r}")
            value = handler(call)
            if value is not LATER:
                call.answer(value)
        except TodoMQError as error:
            call.refuse(error)
        except Exception as error:
            # A fault of ours in one request: its sender hears of it, everyone else is served on.
            log("operation_failed", error=repr(error))
            call.refuse(TodoMQError(f"internal error: {type(error).__name__}", outcome=UNKNOWN))

    def _send_error(self, peer: bytes, identifier: int | None, error: TodoMQError) -> None:
        # An id of nil in a reply: what is wrong is the message, not one request of it.
        self.replies_to(peer).append((identifier, messages.ERROR, messages.error_value(error)))

    def _drain(self) -> None:
        left_bytes = self._service.drain_bytes()
        for _ in range(sockets.DRAIN_MESSAGES):
            if left_bytes <= 0:
                break
            frames = sockets.receive(self._socket)
            if frames is None:
                return
            if frames:
                self._take(frames)
                left_bytes -= len(frames[-1])
            if not sockets.has_more(self._socket):
                return
        self._loop.look_again(self._socket)

    def _take(self, frames: list[bytes]) -> None:
        peer = frames[0]
        self.counts["messages"] += 1
        try:
            if len(frames) != 3 or frames[1]:
                raise ProtocolError("a message is an empty frame and one msgpack frame (what a REQ socket sends)")
            kind, fields = messages.read(frames[2])
            if kind == "call":
                sender, requests = messages.read_call(fields)
                self._service.on_call(self, peer, sender, requests)
            else:
                self._service.on_message(self, peer, kind, fields)
        except ProtocolError as error:
            self.counts["malformed"] += 1
            log_counted("malformed_message", at=self._name, why=error.text)
            self._send_error(peer, None, error)

    def flush(self) -> None:
        """End the turn: serve what waits, send the replies, one message per peer (more where they are over a batch)."""
        self._turn_ends_ms = None
        if self._waiting:
            self._serve_waiting()
            self._turn_ends_ms = None
        if self._backlog:
            self._backlog.send_waiting()
            self._loop.look_again(self._socket)
        if not self._replies:
            return
        replies, self._replies = self._replies, {}
        for peer, items in replies.items():
            if isinstance(peer, OwnPeer):
                peer.take_replies(items)
            else:
                self.send_replies(peer, items)

    def send_replies(self, peer: bytes, items: Replies) -> None:
        """Send replies to one peer, or let them wait for it."""
        self._loop.look_again(self._socket)
        for batch in batches_of(items):
            self._backlog.send(peer, messages.reply(batch))


def batches_of(items: Replies) -> list[Replies]:
    """Split replies so that none but a single large one makes a message over ``BATCH_BYTES``."""
    total = sum(len(item[2]) for item in items) + 16 * len(items)
    if total <= limits.BATCH_BYTES:
        return [items]
    batches: list[Replies] = [[]]
    size = 0
    for item in items:
        size += len(item[2]) + 16
        if size > limits.BATCH_BYTES and batches[-1]:
            batches.append([])
            size = len(item[2]) + 16
        batches[-1].append(item)
    return batches
