"""From a finished request to what its caller gets: the result, or the error with a way to try again.

Owns: reading the value of an answer, attaching ``retry()``. Must not know: futures, sockets. The faces use it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from todomq.client.futures import Failure
from todomq.client.request import CHANGING, Repetition, Request
from todomq.errors import NOT_APPLIED, UNKNOWN, InvalidRequest, ProtocolError, TodoMQError
from todomq.protocol.codec import unpack_value

Resend = Callable[[Request[Any]], Any]


class AskAgain:
    """What ``retry()`` calls: it asks again until there is an answer, and returns that same answer from then on.

    Once an answer has arrived, the client has declared its number settled, so nobody can be asked for it any more. All
    errors of one request, including those of its repetitions, share one of these.

    Args:
        request: what was asked.
        resend: submits a request as the caller would have.
    """

    def __init__(self, request: Request[Any], resend: Resend) -> None:
        self._request = request
        self._resend = resend
        self._asking = threading.RLock()
        self._pid = os.getpid()
        self._answers: list[Any] = []
        self._refusal: TodoMQError | None = None

    def _lock(self) -> threading.RLock:
        """Return the lock under which one thread asks and others wait for its answer; a forked child gets a new one."""
        if self._pid != os.getpid():
            self._asking, self._pid = threading.RLock(), os.getpid()
        return self._asking

    def __call__(self) -> Any:
        """Return the answer, or raise why there is none."""
        with self._lock():
            if self._refusal is not None:
                raise self._refusal
            if not self._answers:
                try:
                    self._answers.append(self._resend(self._request.repeated(self)))
                except TodoMQError as error:
                    if error.outcome == UNKNOWN:
                        error.can_retry_with(self)
                    else:
                        self._refusal = error
                    raise
            return self._answers[0]


FAILURES_MOST = 10_000
"""How many failures a pipeline keeps; of those beyond, it keeps only the number."""


class Failures:
    """What failed in a pipeline, to be reported when its block is left."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[Failure] = []

    def add(self, failures: list[Failure]) -> None:
        """Take note of some failures: all of them are counted, and the first ``FAILURES_MOST`` are kept."""
        self._count += len(failures)
        self._first += failures[: FAILURES_MOST - len(self._first)]

    def tell(self, asked: int, error: BaseException | None) -> None:
        """Report the failures, if there are any.

        Args:
            asked: how many requests there were.
            error: what the pipeline's block itself raised, if anything: it gets a note.

        Raises:
            ExceptionGroup: the failures in the order of the calls, if the block raised nothing.
        """
        if not self._count:
            return
        self._first.sort(key=itemgetter(0))
        text = f"{self._count} of {asked} requests failed"
        if error is not None:
            error.add_note(f"In the pipeline {text}, the first of them: {self._first[0][1]}")
            return
        cut = f"; here are the first {len(self._first)}" if self._count > len(self._first) else ""
        raise ExceptionGroup(text + cut, [failure for _, failure in self._first])



def outcome(
    request: Request[Any], resend: Resend, again: Callable[[Request[Any], Resend], Callable[[], Any]] = AskAgain
) -> tuple[Any, TodoMQError | None]:
    """Return the result of a finished request, or its error.

    Args:
        request: finished by the session.
        resend: submits a request as the caller would have; ``error.retry()`` does it with the repeated request.
        again: makes the function that ``error.retry()`` calls.
    """
    error = request.error
    if error is None:
        try:
            return request.read(unpack_value(request.value) if request.pages is None else request.value), None
        except (ProtocolError, ValueError, TypeError) as unreadable:
            unknown = UNKNOWN if request.kind in CHANGING else NOT_APPLIED
            error = ProtocolError(f"an answer that cannot be read: {unreadable}", outcome=unknown)
    if error.outcome == UNKNOWN:
        error.can_retry_with(_again_of(request) or again(request, resend))
    return None, error


def refused(request: Request[Any], error: TodoMQError, resend: Resend) -> TodoMQError:
    """Return the error of a request that this client itself refused, with the outcome that is true of the request.

    If it was sent before, under the same number, it may have taken effect then.
    """
    if request.is_exposed:
        error.outcome = UNKNOWN
        error.can_retry_with(_again_of(request) or AskAgain(request, resend))
    return error


def _again_of(request: Request[Any]) -> Callable[[], Any] | None:
    return request.again if isinstance(request, Repetition) else None


def refuse_to_resend(request: Request[Any]) -> Any:
    """Stand in for ``resend`` once the client is gone.

    Raises:
        TodoMQError: the error with which the request ended.
    """
    raise request.error or InvalidRequest("the client of this request is gone")
