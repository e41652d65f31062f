"""The asking side of calls: a DEALER to one daemon, many calls in flight, one message per turn.

Owns: ids of calls, their time limits, what waits to be sent. Must not know: what operations mean.
When the connection breaks every call in flight fails at once with an ``Unavailable`` whose outcome is unknown; the
caller decides whether to ask again. Law 6: while over ``OUTBOX_BYTES`` wait to be sent, nothing more is taken.
A call that waits past its deadline is sent all the same: the deadline goes with it, and the daemon refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import zmq

from todomq import errors
from todomq.errors import DeadlineExceeded, Overloaded, ProtocolError, TodoMQError, Unavailable
from todomq.protocol import limits, messages
from todomq.protocol.codec import unpack
from todomq.protocol.messages import BODY
from todomq.runtime import sockets
from todomq.runtime.curve import Curve
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop, Timer

DRAIN_REPLIES = 1_000
"""A turn reads one daemon's messages until they hold this many replies; the last of these messages is read whole."""
REPLY_BYTES = limits.KIB
"""A long reply counts once more for every this many bytes: it holds up the short ones behind it."""
OUTBOX_BYTES = 32 * limits.MIB
CALLS = 16_384
"""Calls in flight to one daemon at most; past it, or past the bytes, a caller is refused at once."""


class Answer(NamedTuple):
    """What came of a call: a value, or an error."""

    value: Any
    error: TodoMQError | None


OnAnswer = Callable[[Answer], None]


class Callee:
    """One daemon that is called: the connection to its address."""

    def __init__(
        self,
        loop: Loop,
        address: str,
        sender: bytes,
        on_replies: Callable[[list[Any]], None] | None = None,
        on_break: Callable[[], None] | None = None,
        on_connect: Callable[[], None] | None = None,
        on_close: Callable[[], None] | None = None,
        on_outgoing: Callable[[Callee], None] | None = None,
        curve: Curve | None = None,
    ) -> None:
        """Connect.

        Args:
            loop: the process's loop.
            address: where the daemon listens.
            sender: this process's incarnation, sent with every call.
            on_replies: gets every ``[id, status, value]`` list whole, for callers that keep ids of their own.
            on_break: runs when the connection broke, after calls in flight have failed.
            on_connect: runs when the connection is made, the first time and every time after it broke.
            on_close: runs when this side closes it.
            on_outgoing: runs when there is something for ``flush`` to send, and there was nothing before.
            curve: the pair of the stack, if the address is one of its TCP addresses.
        """
        self.address = address
        self._loop = loop
        self._sender = sender
        self._on_replies = on_replies
        self._on_break = on_break
        self._on_connect = on_connect
        self._on_close = on_close
        self._on_outgoing = on_outgoing
        self._is_outgoing = False
        self._ids = count(1)
        self._calls: dict[int, tuple[OnAnswer, int]] = {}
        self._requests: list[tuple[int, None, int, bytes]] = []
        self._outbox: list[bytes] = []
        self.outbox_bytes = 0
        self.is_connected = False
        self._socket, self._monitor = sockets.dealer(address) if curve is None else sockets.dealer(address, curve)
        loop.watch(self._socket, self._drain)
        loop.watch(self._monitor, self._on_monitor)
        self._timer: Timer | None = None
        self._looks_ms = 0
        """While there is a timer: when calls in flight are next checked for any whose time is over."""
        self._closed = False
        self._blocked = False

    def call(self, operation: str, *arguments: Any, done: OnAnswer, timeout_s: float = 5.0) -> None:
        """Ask at the end of this turn; ``done`` gets the answer, or an error after ``timeout_s`` seconds."""
        if self._closed:
            done(Answer(None, Unavailable(f"{self.address} is gone")))
            return
        if self._is_full():
            done(Answer(None, Overloaded(f"too much waits for {self.address}")))
            return
        identifier = next(self._ids)
        timeout_ms = int(timeout_s * 1000)
        until_ms = self._loop.steady_ms() + timeout_ms
        self._calls[identifier] = (done, until_ms)
        if self._timer is None or until_ms < self._looks_ms:
            self._look_at(until_ms)
        deadline_ms = self._loop.now_ms() + timeout_ms
        self._requests.append((identifier, None, deadline_ms, messages.body(operation, *arguments)))
        self._announce()

    def send(self, message: bytes) -> bool:
        """Queue a whole message of this caller's own making, sent in order with the calls.

        Returns:
            False if too much waits already, or the connection is closed; the message is not sent then.
        """
        self._pack_requests()
        if self._closed or self._is_full():
            return False
        self._outbox.append(message)
        self.outbox_bytes += len(message)
        self._announce()
        return True

    def flush(self) -> None:
        """Send what waits, as far as the connection takes it."""
        self._is_outgoing = False
        if self._closed:
            return
        self._pack_requests()
        if self._outbox and not self._blocked:
            self._send_outbox()

    def close(self) -> None:
        """Close the connection; calls in flight fail."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._socket)
        self._loop.unwatch(self._monitor)
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._requests.clear()
        self._outbox.clear()
        self.outbox_bytes = 0
        on_close, self._on_close = self._on_close, None  # it refers to this connection: a cycle
        if on_close is not None:
            on_close()
        self._fail_calls(Unavailable(f"{self.address} is gone", outcome=errors.UNKNOWN))

    def _is_full(self) -> bool:
        return self.outbox_bytes > OUTBOX_BYTES or len(self._calls) >= CALLS

    def _announce(self) -> None:
        if not self._is_outgoing:
            self._is_outgoing = True
            if self._on_outgoing is not None:
                self._on_outgoing(self)

    def _pack_requests(self) -> None:
        while self._requests:
            batch: list[tuple[int, None, int, bytes]] = []
            size = 0
            for request in self._requests:
                size += len(request[BODY]) + 32
                if batch and (size > limits.BATCH_BYTES or len(batch) >= limits.MESSAGE_REQUESTS):
                    break
                batch.append(request)
            del self._requests[: len(batch)]
            message = messages.call(self._sender, batch)
            self._outbox.append(message)
            self.outbox_bytes += len(message)

    def _send_outbox(self) -> None:
        sent = 0
        self._loop.look_again(self._socket)
        for message in self._outbox:
            if not sockets.send(self._socket, (b"", message)):
                self._blocked = True
                self._loop.after(0.002, self._unblock)
                break
            self.outbox_bytes -= len(message)
            sent += 1
        del self._outbox[:sent]

    def _unblock(self) -> None:
        self._blocked = False
        self.flush()

    def _drain(self) -> None:
        left = DRAIN_REPLIES
        for _ in range(sockets.DRAIN_MESSAGES):
            frames = sockets.receive(self._socket)
            if frames is None or self._closed:
                return
            if not frames:
                continue
            left -= len(frames[-1]) // REPLY_BYTES
            try:
                kind, fields = messages.read(frames[-1])
                if kind != "reply":
                    raise ProtocolError(f"a {kind[:20]!r} message where a reply was expected")
                replies = messages.read_replies(fields)
            except ProtocolError as error:
                log_counted("malformed_reply", at=self.address.rsplit("/", 1)[-1], why=error.text)
                continue
            left -= len(replies)
            if self._on_replies is not None:
                self._on_replies(replies)
            else:
                self._take(replies)
            if self._closed or not sockets.has_more(self._socket):
                return
            if left <= 0:
                break
        self._loop.look_again(self._socket)

    def _take(self, replies: list[Any]) -> None:
        for identifier, status, value in replies:
            call = self._calls.pop(identifier, None)
            if call is not None:
                call[0](_answer(status, value))

    def _on_monitor(self) -> None:
        while not self._closed and (event := sockets.read_event(self._monitor)) is not None:
            self.is_connected = event[0] != zmq.EVENT_DISCONNECTED
            if self.is_connected:
                if self._on_connect is not None:
                    self._on_connect()
                continue
            self._fail_calls(Unavailable(f"the connection to {self.address} broke", outcome=errors.UNKNOWN))
            if self._on_break is not None:
                self._on_break()

    def _look_at(self, until_ms: int) -> None:
        """Plan one check, for when a call's time is over: a timer that always runs would keep an idle daemon awake."""
        if self._timer is not None:
            self._timer.cancel()
        self._looks_ms = until_ms
        self._timer = self._loop.after((until_ms - self._loop.steady_ms()) / 1000, self._expire)

    def _expire(self) -> None:
        self._timer = None
        steady_ms = self._loop.steady_ms()
        for identifier in [i for i, (_, until_ms) in self._calls.items() if until_ms <= steady_ms]:
            call = self._calls.pop(identifier, None)
            if call is not None:  # otherwise an earlier one has closed this connection
                call[0](Answer(None, DeadlineExceeded(f"no answer from {self.address}", outcome=errors.UNKNOWN)))
        if self._calls and self._timer is None:
            self._look_at(min(until_ms for _, until_ms in self._calls.values()))

    def _fail_calls(self, error: TodoMQError) -> None:
        calls, self._calls = self._calls, {}
        for done, _ in calls.values():
            done(Answer(None, error))


def _answer(status: int, value: bytes) -> Answer:
    if status != messages.OK:
        return Answer(None, messages.read_error(value))
    try:
        return Answer(unpack(value), None)
    except ProtocolError as error:
        return Answer(None, error)
