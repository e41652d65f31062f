"""From a finished request to what its caller gets: the result, or the error with a way to try again.

Owns: reading the value of an answer, attaching ``retry()``. Must not know: futures, sockets. The faces use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from todomq.client.connection import now_ms
from todomq.client.request import Request
from todomq.errors import UNKNOWN, InvalidRequest, ProtocolError, TodoMQError
from todomq.protocol import limits
from todomq.protocol.codec import unpack_value

Resend = Callable[[Request[Any]], Any]

FAILURES_MOST = 10_000
"""Failures that a pipeline keeps to tell of them in the end."""

DEADLINE_MOST_S = limits.DEADLINE_AHEAD_MS / 1000


def outcome(request: Request[Any], resend: Resend) -> tuple[Any, TodoMQError | None]:
    """Return the result of a finished request, or its error.

    Args:
        request: finished by the session.
        resend: submits a request as the caller would have; ``error.retry()`` does it with the repeated request.
    """
    error = request.error
    if error is None:
        try:
            read, pages = request.read, request.pages
            return read(unpack_value(request.value) if pages is None else pages.take()), None
        except (ProtocolError, ValueError, TypeError) as unreadable:
            return None, ProtocolError(f"an answer that cannot be read: {unreadable}")
    if error.outcome == UNKNOWN:
        error.can_retry_with(_asking_again(request, resend))
    return None, error


def refused(request: Request[Any], error: TodoMQError, resend: Resend) -> TodoMQError:
    """Return the error of a request that this client refused by itself, as it is true of it.

    One that was sent before, under the same number, may have taken effect then.
    """
    if request.is_exposed:
        error.outcome = UNKNOWN
        error.can_retry_with(_asking_again(request, resend))
    return error


def _asking_again(request: Request[Any], resend: Resend) -> Callable[[], Any]:
    """Return what ``retry()`` does: it asks again until that has been answered, and gives that answer from then on.

    Once the answer is here, the client has declared its number received, so nobody could be asked any more.
    """
    answers: list[Any] = []

    def again() -> Any:
        if answers and _has_failed(answers[0]):
            answers.clear()
        if not answers:
            try:
                answers.append(resend(request.repeated()))
            except TodoMQError as error:
                if error.outcome == UNKNOWN:
                    error.can_retry_with(again)
                raise
        return answers[0]

    return again


def _has_failed(answer: Any) -> bool:
    """Tell whether an answer is a future (of an ``AsyncClient``) that has ended without a result."""
    import asyncio  # takes longer than all the rest, and a second look at an answer is rare

    if not isinstance(answer, asyncio.Future) or not answer.done():
        return False
    return answer.cancelled() or answer.exception() is not None


def check_deadline(deadline_s: float) -> float:
    """Check how long a request may take: more than 0, at most 60 seconds.

    Raises:
        InvalidRequest: it is not that.
    """
    if not isinstance(deadline_s, int | float) or isinstance(deadline_s, bool) or not 0 < deadline_s <= DEADLINE_MOST_S:
        given = "an integer of very many digits" if _is_huge(deadline_s) else f"{deadline_s!r:.40}"
        raise InvalidRequest(f"deadline_s: more than 0 and at most {DEADLINE_MOST_S:g} seconds, not {given}")
    return deadline_s


def _is_huge(number: object) -> bool:
    return isinstance(number, int) and number.bit_length() > 64


def set_deadline(request: Request[Any], default_ms: int) -> None:
    """Set when a request's time is up, counted from now."""
    if request.deadline_s is not None:
        default_ms = int(check_deadline(request.deadline_s) * 1000)
    request.deadline_ms = now_ms() + default_ms
