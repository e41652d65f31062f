"""A connection to the router that keeps to no rule of the client library: any number, any body, any bytes.

Owns: one DEALER socket, the answers that came to it. Must not know: what is provoked with it.
"""

from __future__ import annotations

import os
import time
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple

import zmq

from todomq.errors import TodoMQError
from todomq.protocol import messages
from todomq.protocol.codec import unpack

MESSAGE_BYTES = 512 * 1024
BULK_BYTES = 60_000
"""Nearly as large as an entry may be."""
INSISTING_S = 20.0
AGAIN_S = 0.02


class Answer(NamedTuple):
    """What came of a request: a value, or an error."""

    value: Any
    error: TodoMQError | None


class Raw:
    """One connection, of one client id; to be used by one thread."""

    def __init__(self, endpoint: str) -> None:
        self.sender = os.urandom(16)
        self.answers: dict[int, Answer] = {}
        self._ids = count(1)
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(endpoint)

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(
        self, target: Any, *body: Any, number: int = 1, floor: int = 1, deadline_s: float = 10.0, times: int = 1,
    ) -> list[int]:  # fmt: skip
        """Send a request as it is, so many times in as few messages as hold it; return the ids to wait for."""
        deadline_ms = time.time_ns() // 1_000_000 + int(deadline_s * 1000)
        packed = messages.body(*body)
        rest = [] if target is None or type(target) is list else [number, floor]
        requests = [[next(self._ids), target, deadline_ms, packed, *rest] for _ in range(times)]
        at_once = max(1, MESSAGE_BYTES // (len(packed) + 64))
        for start in range(0, times, at_once):
            self.send_frame(messages.call(self.sender, requests[start : start + at_once]))
        return [request[0] for request in requests]

    def send_bulk(self, name: str, size: int, deadline_s: float) -> list[int]:
        """Add entries that are about ``size`` bytes in all, giving up each number for the next; return the ids."""
        filling = {"filling": "x" * BULK_BYTES}
        return [
            self.send(name, "add_entry", f"bulk {n}", None, filling, number=n, floor=n, deadline_s=deadline_s)[0]
            for n in range(1, size // BULK_BYTES + 2)
        ]

    def send_frame(self, frame: bytes) -> None:
        """Send bytes as they are."""
        self._socket.send_multipart([b"", frame])

    def wait(self, identifiers: list[int], timeout_s: float = 15.0) -> list[Answer | None]:
        """Wait for the answers to all of these; None for each that has not come in time."""
        give_up = time.monotonic() + timeout_s
        missing = set(identifiers) - self.answers.keys()
        while missing and (left_s := give_up - time.monotonic()) > 0:
            if self._socket.poll(int(left_s * 1000) + 1):
                missing -= set(self._take())
        return [self.answers.get(identifier) for identifier in identifiers]

    def ask(self, target: Any, *body: Any, number: int = 1, floor: int = 1, deadline_s: float = 10.0) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            TimeoutError: none came, not even past the deadline.
        """
        sent = self.send(target, *body, number=number, floor=floor, deadline_s=deadline_s)
        (answer,) = self.wait(sent, deadline_s + 5)
        if answer is None:
            raise TimeoutError(f"{body[0]} was not answered {deadline_s + 5:g} s after it was asked")
        return answer

    def insist(self, target: Any, *body: Any, number: int = 1, floor: int = 1) -> Any:
        """Ask as long as the answer is that it may be asked again; return the value.

        Raises:
            TodoMQError: another refusal. TimeoutError: no answer.
        """
        give_up = time.monotonic() + INSISTING_S
        while (answer := self.ask(target, *body, number=number, floor=floor)).error is not None:
            if not answer.error.retryable or time.monotonic() > give_up:
                raise answer.error
            time.sleep(AGAIN_S)
        return answer.value

    def arrive(self) -> None:
        """Wait until the router has taken, and sent on, all that was sent here before."""
        self.ask(None, "ping")

    def drain(self) -> list[Answer]:
        """Take whatever has come; return all answers that ever came."""
        while self._socket.poll(0):
            self._take()
        return list(self.answers.values())

    def _take(self) -> list[int]:
        frames = self._socket.recv_multipart()
        came = []
        for identifier, status, value in messages.read_replies(messages.read(frames[-1])[1]):
            is_error = status != messages.OK
            error = messages.read_error(value) if is_error else None
            self.answers[identifier] = Answer(None if is_error else unpack(value), error)
            came.append(identifier)
        return came
