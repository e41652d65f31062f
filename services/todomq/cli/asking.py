"""Many questions at once: each gets its answer or its error, and how long that took.

Owns: the words for why a daemon did not answer. Must not know: what is asked. The probe uses it: to the probe an error
is an answer too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from todomq.cli.stack_parts import STANDS_STILL
from todomq.errors import UNKNOWN, DeadlineExceeded, TodoMQError, Unauthorized
from todomq.runtime.local_process import is_stopped

if TYPE_CHECKING:
    from todomq.cli.stack_parts import Name
    from todomq.client import Client, Pipeline

K = TypeVar("K")


class Answer(NamedTuple):
    """What became of one question: ``value``, or ``error``; ``took_s`` is the time from question to answer."""

    value: Any
    error: TodoMQError | None
    took_s: float


def ask_all(todo: Client, questions: Mapping[K, Callable[[Pipeline], Future[Any]]]) -> dict[K, Answer]:
    """Ask all questions at once and wait for every answer.

    Args:
        todo: the client.
        questions: the function that begins each of them, by any key.

    Returns:
        the answers by the same keys.

    Raises:
        Unauthorized: this client may not ask one of them, which says nothing about the daemon that was asked.
    """
    began: dict[K, float] = {}
    ended: dict[K, float] = {}
    futures: dict[K, Future[Any]] = {}
    try:
        with todo.pipeline() as pipeline:
            for key, begin in questions.items():
                began[key] = time.monotonic()
                futures[key] = begin(pipeline)
                futures[key].add_done_callback(_clock(ended, key))
    except* TodoMQError:
        pass  # each future says it of its own question
    return {key: _answer(future, ended.get(key, time.monotonic()) - began[key]) for key, future in futures.items()}


def ask_names(todo: Client, deadline_s: float) -> Answer:
    """Ask the registry for all registrations."""
    return ask_all(todo, {"names": lambda pipeline: pipeline.registry.names(deadline_s=deadline_s)})["names"]


def calling(
    name: Sequence[str | int], operation: str, *arguments: Any, deadline_s: float
) -> Callable[[Pipeline], Future[Any]]:
    """Return a function that asks a daemon by its registered name."""
    from todomq.client.values import Via

    return lambda pipeline: pipeline.call(Via(list(name)), operation, *arguments, deadline_s=deadline_s)


def registered_in(names: Answer) -> dict[Name, int | None] | None:
    """Return the pid (or None) of each daemon in the registry's answer to ``names``; None if it did not answer."""
    if names.error is not None:
        return None
    return {tuple(each.name): each.pid for each in names.value if isinstance(each.name, list) and _is_key(each.name)}


def why_no_answer(name: Name, error: TodoMQError, registered: Mapping[Name, int | None] | None) -> str:
    """Return why a daemon gave an error or no answer, as the rest of a sentence that begins with its name.

    Args:
        registered: what ``registered_in`` returns.
    """
    if registered is not None and name not in registered:
        return "is not running"
    if not isinstance(error, DeadlineExceeded):
        return f"gave no answer: {error}" if error.outcome == UNKNOWN else f"answers: {error}"
    pid = None if registered is None else registered[name]
    if pid is None:
        return "does not answer"
    return f"{STANDS_STILL}, pid {pid}" if is_stopped(pid) else f"does not answer, pid {pid}"


def first_failure(failures: BaseExceptionGroup[TodoMQError]) -> TodoMQError:
    """Return the first error among a pipeline's failures, however deep it is nested."""
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, TodoMQError)
    return first


def _is_key(name: Sequence[object]) -> bool:
    return all(isinstance(part, str | int) for part in name)


def _clock(ended: dict[K, float], key: K) -> Callable[[Future[Any]], None]:
    def note(_: Future[Any]) -> None:
        ended[key] = time.monotonic()

    return note


def _answer(future: Future[Any], took_s: float) -> Answer:
    error = future.exception()
    if error is None:
        return Answer(future.result(), None, took_s)
    if isinstance(error, TodoMQError) and not isinstance(error, Unauthorized):
        return Answer(None, error, took_s)
    raise error
