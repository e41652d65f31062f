"""Futures for answers, made so that a hundred thousand a second cost little.

Owns: ``Answer``, a ``concurrent.futures.Future``. Must not know: what is asked, sessions, sockets.

A plain Future makes a condition variable when it is created (1.6 us with its lists, out of about 5 us for a whole
pipelined request here), yet most answers are there before anybody looks. An ``Answer`` makes its condition when one is
first asked for: by a waiter, a callback or ``concurrent.futures.wait``. Making it, and settling an answer without one,
happen under one lock, taken once per batch of answers, so no waiter is missed. (Properties do this, for in a class with
a ``__getattr__`` the interpreter reads every attribute the slow way.)

A request is its own answer (``request.py``), so one object goes from the call to the result.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from todomq.errors import UNKNOWN, Unavailable

T = TypeVar("T")

PENDING = "PENDING"  # the states of concurrent.futures, by their documented meaning
_FINISHED = "FINISHED"

# Reentrant: the garbage collector may run while this is held and close a client that nobody refers to any more, which
# settles answers on this thread.
_making = threading.RLock()
_losing = threading.Lock()


def _make_locks_in_child() -> None:
    """Replace the locks: at the fork another thread, which the child does not have, may have held them."""
    global _making, _losing
    _making = threading.RLock()
    _losing = threading.Lock()


os.register_at_fork(after_in_child=_make_locks_in_child)


_group = attrgetter("group")

Failure = tuple[int, Exception]
"""The place of a request in its group, in the order of the calls, and its error."""


class Group(Protocol):
    """Counts the answers of several requests."""

    def note_settled(self, count: int, failures: list[Failure]) -> None:
        """Take note of answers that are settled, and of the failures among them."""


class Driver(Protocol):
    """Brings the answer."""

    def wait(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something is done; return whether it is."""


class _Watch:
    """What an answer needs only once somebody waits for it: parts of a Future, under the names that they have there."""

    __slots__ = ("condition", "done_callbacks", "waiters")

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waiters: list[Any] = []
        self.done_callbacks: list[Any] = []


class Answer(Future[T]):
    """The future of a request. It can't be cancelled: what was sent may take effect.

    Attributes:
        driver: what brings this answer, once the request is handed over.
        group: what counts this answer, or None.
        place: its place in the group.
    """

    __slots__ = ("_exception", "_result", "_state", "_watch", "driver", "group", "place")

    place: int

    def __init__(self) -> None:
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._watch: _Watch | None = None
        self.driver: Driver | None = None
        self.group: Group | None = None

    # concurrent.futures sets these in its own ``__init__`` only.

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._watched().condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._watched().waiters

    @property
    def _done_callbacks(self) -> list[Any]:
        return self._watched().done_callbacks

    def _watched(self) -> _Watch:
        """Return the parts that only waiting needs, made on the first call (see the module's text)."""
        with _making:
            if self._watch is None:
                self._watch = _Watch()
            return self._watch

    def set_outcome(self, value: T | None, error: Exception | None) -> None:
        """Set the result or the error, which nobody sees before ``settle``."""
        self._result = value
        self._exception = error

    def cancel(self) -> bool:
        """Return False: a request that was handed over can't be withdrawn."""
        return False

    def is_settled(self) -> bool:
        """Tell whether the result or the error is there."""
        return self._state == _FINISHED

    def result(self, timeout: float | None = None) -> T:
        """Return the result, waiting up to ``timeout`` seconds; if the request failed, raise its error."""
        if self._state != _FINISHED:
            self._wait(timeout)
        if self._exception is None:
            value: T = self._result
            return value
        try:
            raise self._exception
        finally:
            del self  # or the error would lead back to it, through its traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None; wait for it up to ``timeout`` seconds."""
        if self._state != _FINISHED:
            self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        began_s = time.monotonic()
        if self.driver is None or self.driver.wait(self.is_settled, timeout) or self._state == _FINISHED:
            return
        if timeout is not None and time.monotonic() - began_s >= timeout:
            raise TimeoutError
        callbacks: list[Callable[[], None]] = []
        with _losing:  # two threads may wait for one answer
            if self._state != _FINISHED:
                self.set_outcome(None, interrupted())
                callbacks = settle([self])
        for callback in callbacks:
            callback()

    def _invoke_callbacks(self) -> None:
        """Do nothing: ``settle`` runs on a thread that others wait for, so it returns what is to be called."""

    def run_callbacks(self) -> None:
        """Call the callbacks that were added before the answer was there."""
        super()._invoke_callbacks()  # type: ignore[misc]  # of concurrent.futures, which has no public door to it


def interrupted() -> Unavailable:
    """Return the error of a request whose answer was lost.

    Either a signal interrupted the thread that took the answer in, or this is a forked child: what the parent asked is
    answered in the parent.
    """
    text = "the answer is lost: the thread that took it in was interrupted, or it went to this forked process's parent"
    return Unavailable(text, outcome=UNKNOWN)


def settle(answers: Sequence[Answer[Any]]) -> list[Callable[[], None]]:
    """Settle answers whose outcome is set; groups are told afterwards: of an answer with callbacks, once they have run.

    Returns:
        functions that run these callbacks.
    """
    watched = []
    with _making:
        for answer in answers:
            if answer._watch is not None:
                watched.append(answer)
            else:
                answer._state = _FINISHED
    if not watched:
        _tell_groups(answers)
        return []
    for answer in watched:
        if answer._exception is None:
            answer.set_result(answer._result)
        else:
            answer.set_exception(answer._exception)
    called_back = {id(answer): answer for answer in watched if answer._done_callbacks}
    _tell_groups([answer for answer in answers if id(answer) not in called_back])
    return [partial(_call_back, answer) for answer in called_back.values()]


def _call_back(answer: Answer[Any]) -> None:
    try:
        answer.run_callbacks()
    finally:
        _tell_groups([answer])


def _tell_groups(answers: Sequence[Answer[Any]]) -> None:
    for group, members in groupby(answers, key=_group):
        if group is not None:
            counted = list(members)
            failed = [each for each in counted if each._exception is not None]
            failures = [(each.place, error) for each in failed if isinstance(error := each._exception, Exception)]
            group.note_settled(len(counted), failures)
