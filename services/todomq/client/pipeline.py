"""The face of futures: many requests in flight from one thread.

Owns: ``Pipeline`` and its handles; counting what is out, collecting what failed. Must not know: the connection,
messages. Law 6: of an answered request a pipeline keeps nothing but its error; how much may be in flight is bounded by
the connection, where a call waits for room.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from todomq.client import operations
from todomq.client.futures import Answer, Driver, Failure, interrupted, settle
from todomq.client.outcomes import Failures
from todomq.client.request import Request
from todomq.client.values import ServerRef
from todomq.errors import InvalidRequest, TodoMQError
from todomq.protocol.entries import check_list_name

P = ParamSpec("P")
T = TypeVar("T")


class Submit(Protocol):
    """Hands a request over and settles it when it is finished."""

    def __call__(self, request: Request[T]) -> None: ...


class _Part:
    """A part of a pipeline's face."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline


def _begin(build: Callable[P, Request[T]]) -> Callable[Concatenate[_Part, P], Future[T]]:
    """Offer an operation as a method that returns a future."""

    @operations.shown_as(build, "Future[{}]")
    def method(self: _Part, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        try:
            request = build(*args, **kwargs)
        except InvalidRequest as error:
            return self._pipeline.failed(error)
        return self._pipeline.begin(request)

    return method


def _begin_list(
    build: Callable[Concatenate[str, P], Request[T]],
) -> Callable[Concatenate[PipelinedTodoList, P], Future[T]]:
    """Offer an operation on one list as a method of its handle."""

    @operations.shown_as(build, "Future[{}]", is_of_list=True)
    def method(self: PipelinedTodoList, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        try:
            if len(args) == 1 and not kwargs:  # most calls: unpacking one argument costs as much as a call
                request = build(self.name, args[0])  # type: ignore[arg-type, call-arg]
            else:
                request = build(self.name, *args, **kwargs)
        except InvalidRequest as error:
            return self._pipeline.failed(error)
        return self._pipeline.begin(request)

    return method


class _Requests:
    """The requests of one pipeline in one process: how many were begun and have ended, and what failed.

    Attributes:
        begun: counts without a lock, from any thread.
        ended: how many have an answer.
    """

    def __init__(self) -> None:
        self.begun = count()
        self.ended = 0
        self._begun_before = 0
        self._failures = Failures()
        self._counting = threading.RLock()  # a signal's handler may call on the pipeline in there

    def note_settled(self, count: int, failures: list[Failure]) -> None:
        """Take note of answers that are settled, and of the failures among them."""
        with self._counting:
            self._failures.add(failures)
            self.ended += count  # last: the thread that leaves the block reads it without the lock

    def look(self) -> int:
        """Return how many were begun; the look itself counts as one that was begun and has ended."""
        begun = next(self.begun)
        self.note_settled(1, [])
        return begun

    def take_failures(self, begun: int, looks: int) -> tuple[Failures, int]:
        """Return and forget the failures since the last time, and say how many requests were begun since.

        Args:
            begun: what the last look returned.
            looks: how many looks there were since the last time.
        """
        with self._counting:
            failures, self._failures = self._failures, Failures()
        asked = begun + 1 - looks - self._begun_before
        self._begun_before = begun + 1
        return failures, asked


class PipelinedTodoList(_Part):
    """The handle of one list in a pipeline: its methods return futures.

    Attributes:
        name: the list's name.
    """

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self._pipeline = pipeline
        self.name = check_list_name(name)

    def __repr__(self) -> str:
        return f"PipelinedTodoList({self.name!r})"

    add_entry = _begin_list(operations.add_entry)
    add_entries = _begin_list(operations.add_entries)
    entries = _begin_list(operations.entries)
    undated_entries = _begin_list(operations.undated_entries)
    update_entry = _begin_list(operations.update_entry)
    delete_entry = _begin_list(operations.delete_entry)
    clear = _begin_list(operations.clear)
    delete = _begin_list(operations.delete)
    size = _begin_list(operations.size)
    cast_add_entry = _begin_list(operations.cast_add_entry)


class PipelinedCache(_Part):
    """Who serves which list, by futures."""

    def server_process(
        self, list_name: str, *, deadline_s: float | None = None
    ) -> Future[ServerRef[PipelinedTodoList]]:
        """Return where the list's actor lives; if it is not active, it is activated first."""
        return self._begin_server_process(list_name, self._pipeline.todo_list, deadline_s=deadline_s)

    _begin_server_process = _begin(operations.server_process)


class PipelinedRegistry(_Part):
    """Who is registered under which name, by futures."""

    register_name = _begin(operations.register_name)
    unregister_name = _begin(operations.unregister_name)
    whereis_name = _begin(operations.whereis_name)
    names = _begin(operations.names)
    send = _begin(operations.send_to_name)


class PipelinedDatabase(_Part):
    """Any value under any key, by futures. Unlike a list's changes, stores in flight together have no order."""

    store = _begin(operations.store)
    get = _begin(operations.get)
    cast_store = _begin(operations.cast_store)


class Pipeline(_Part):
    """A client's face of futures, used with ``with``.

    Each call returns a ``concurrent.futures.Future`` at once, or after waiting for room; if the arguments break a rule,
    the future has failed already, with ``InvalidRequest``. Leaving the block waits for every answer, and for those of
    requests that callbacks begin meanwhile. If requests failed, it then raises an ``ExceptionGroup`` of the failures
    (the first 10,000), in the order of the calls; if the block itself raises, its error gets a note of them instead. A
    pipeline may be used again; calls made between two blocks count for the second. Threads may share it, if they have
    made their calls before the block is left.

    Callbacks of futures must not block: the thread that runs them also takes in the answers that nobody waits for with
    ``result()``.

    Changes take effect in the order of the calls; a read shows the changes called before it and none called after it. A
    read is asked again if its answer is lost, with the connection or with a list server, or if it is refused for the
    moment. If changes called after it have taken effect by then, it ends with ``OutOfOrder``.
    """

    def __init__(self, submit: Submit, driver: Driver) -> None:
        super().__init__(self)
        self._submit = submit
        self._driver = driver
        self._requests = _Requests()
        _pipelines.add(self)
        self.cache = PipelinedCache(self)
        self.registry = PipelinedRegistry(self)
        self.database = PipelinedDatabase(self)

    list_names = _begin(operations.list_names)
    call = _begin(operations.call)
    send = _begin(operations.send)

    def todo_list(self, name: str) -> PipelinedTodoList:
        """Return the handle of a list; nothing is sent."""
        return PipelinedTodoList(self, name)

    def begin(self, request: Request[T]) -> Future[T]:
        """Submit a request; return it as the future of its result."""
        if request.is_cast:
            self._submit(request)
            return request
        requests = request.group = self._requests
        request.place = next(requests.begun)
        try:
            self._submit(request)
        except TodoMQError:  # refused; one that was interrupted may have been taken in
            requests.note_settled(1, [])
            raise
        return request

    def failed(self, error: InvalidRequest) -> Future[Any]:
        """Return a future that has failed already: no request could be built. It counts as a request that was begun."""
        answer: Answer[Any] = Answer()
        requests = answer.group = self._requests
        answer.place = next(requests.begun)
        answer.set_outcome(None, error)
        settle([answer])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        requests = self._requests
        begun, looks = requests.look(), 1
        while self._driver.wait(lambda: requests.ended > begun):  # noqa: B023
            before, begun = begun, requests.look()
            looks += 1
            if begun == before + 1:
                break  # nothing was begun since the look before (by a callback, say), so all that was begun has ended
        else:
            requests.note_settled(begun + 1 - requests.ended, [(begun, interrupted())])
        failures, asked = requests.take_failures(begun, looks)
        failures.tell(asked, error)


_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()


def _count_anew_in_child() -> None:
    """In a forked child, forget what the parent asked: the answers go to the parent."""
    for pipeline in list(_pipelines):
        pipeline._requests = _Requests()


os.register_at_fork(after_in_child=_count_anew_in_child)
