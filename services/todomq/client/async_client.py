"""The face of asyncio: the same names as ``Client``; each call returns an ``asyncio.Future`` of the running loop.

Owns: ``AsyncClient``, its handles and its pipeline. Must not know: messages, numbers. A request is on its way as
soon as the method is called, awaited or not, so requests take effect in the order of the calls; a read overtaken by
changes called after it fails with ``OutOfOrder``, as in a pipeline (law 4). A call never waits for room, since that
would stop the loop: at the client's bound its future fails with ``Overloaded`` (law 6).
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from todomq.client import operations
from todomq.client.connection import Connection
from todomq.client.deadlines import awake_ms, check_deadline
from todomq.client.endpoint import choose
from todomq.client.outcomes import AskAgain, Failures, outcome, refuse_to_resend, refused
from todomq.client.request import Repetition, Request, set_deadline
from todomq.client.values import ServerRef
from todomq.errors import UNKNOWN, InvalidRequest, TodoMQError, Unavailable
from todomq.protocol.entries import check_list_name

if TYPE_CHECKING:
    from todomq.keys.credentials import Credentials

OTHER_LOOP_S = 0.02
"""How often a pipeline checks whether its requests on another event loop are answered."""
LATE_MS = 1_000
"""For how long after a request's deadline a loop that is not running may still take its answer."""

P = ParamSpec("P")
T = TypeVar("T")

_Outcome = tuple["asyncio.Future[Any]", Any, TodoMQError | None]


class _Part:
    """A part of the face: of a client, or of its pipeline."""

    def __init__(self, face: _Face) -> None:
        self._face = face


def _ask(build: Callable[P, Request[T]]) -> Callable[Concatenate[_Part, P], asyncio.Future[T]]:
    """Offer an operation as a method to await."""

    @operations.shown_as(build, "asyncio.Future[{}]")
    def method(self: _Part, /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return self._face.begin(build, *args, **kwargs)

    return method


def _ask_list(
    build: Callable[Concatenate[str, P], Request[T]],
) -> Callable[Concatenate[AsyncTodoList, P], asyncio.Future[T]]:
    """Offer an operation on one list as a method of its handle."""

    @operations.shown_as(build, "asyncio.Future[{}]", is_of_list=True)
    def method(self: AsyncTodoList, /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return self._face.begin(build, self.name, *args, **kwargs)

    return method


class AsyncTodoList(_Part):
    """The handle of one list. Making it sends nothing.

    Attributes:
        name: the list's name.
    """

    def __init__(self, face: _Face, name: str) -> None:
        super().__init__(face)
        self.name = check_list_name(name)

    def __repr__(self) -> str:
        return f"AsyncTodoList({self.name!r})"

    add_entry = _ask_list(operations.add_entry)
    add_entries = _ask_list(operations.add_entries)
    entries = _ask_list(operations.entries)
    undated_entries = _ask_list(operations.undated_entries)
    update_entry = _ask_list(operations.update_entry)
    delete_entry = _ask_list(operations.delete_entry)
    clear = _ask_list(operations.clear)
    delete = _ask_list(operations.delete)
    size = _ask_list(operations.size)
    cast_add_entry = _ask_list(operations.cast_add_entry)


class AsyncCache(_Part):
    """Who serves which list."""

    def server_process(
        self, list_name: str, *, deadline_s: float | None = None
    ) -> asyncio.Future[ServerRef[AsyncTodoList]]:
        """Return where the list's actor lives; if it is not active, it is activated first."""
        return self._ask_server_process(list_name, self._face.todo_list, deadline_s=deadline_s)

    _ask_server_process = _ask(operations.server_process)


class AsyncRegistry(_Part):
    """Who is registered under which name."""

    register_name = _ask(operations.register_name)
    unregister_name = _ask(operations.unregister_name)
    whereis_name = _ask(operations.whereis_name)
    names = _ask(operations.names)
    send = _ask(operations.send_to_name)


class AsyncDatabase(_Part):
    """Any value under any key, apart from the lists."""

    store = _ask(operations.store)
    get = _ask(operations.get)
    cast_store = _ask(operations.cast_store)


class _Face(_Part):
    """What a client and its pipeline have in common."""

    def __init__(self) -> None:
        super().__init__(self)
        self.cache = AsyncCache(self)
        self.registry = AsyncRegistry(self)
        self.database = AsyncDatabase(self)

    list_names = _ask(operations.list_names)
    call = _ask(operations.call)
    send = _ask(operations.send)

    def todo_list(self, name: str) -> AsyncTodoList:
        """Return the handle of a list; nothing is sent.

        Raises:
            InvalidRequest: not a list's name.
        """
        return AsyncTodoList(self, name)

    def ask(self, request: Request[T]) -> asyncio.Future[T]:
        """Submit a request; return the future of its result."""
        raise NotImplementedError

    def begin(self, build: Callable[P, Request[T]], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Submit the request that an operation builds; if the arguments break a rule, its future has failed already."""
        try:
            request = build(*args, **kwargs)
        except InvalidRequest as error:
            return self.failed(error)
        return self.ask(request)

    def failed(self, error: InvalidRequest) -> asyncio.Future[Any]:
        """Return a future that has failed already: no request could be built from the arguments."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future


class AsyncClient(_Face):
    """A client of one stack for asyncio, see ``Client``. It may be used from the loops of several threads.

    Args:
        endpoint: the router's address. None takes it from ``credentials``, else from the file that
            ``TODOMQ_CREDENTIALS`` names, else from ``TODOMQ_ENDPOINT``, else connects to this machine's stack.
        deadline_s: how many seconds a request may take if it is given no deadline of its own; at most 60.
        credentials: what a credentials file holds, as ``from_file`` reads it.

    Raises:
        InvalidRequest: the endpoint, the deadline or the file can't be used.
    """

    def __init__(
        self, endpoint: str | None = None, deadline_s: float = 5.0, *, credentials: Credentials | None = None
    ) -> None:
        super().__init__()
        self.endpoint, credentials = choose(endpoint, credentials)
        self._deadline_ms = int(check_deadline(deadline_s) * 1000)
        self._connection = Connection(self.endpoint, _completion(weakref.ref(self)), credentials, is_kept=True)
        self._closing = weakref.finalize(self, self._connection.close)

    def __repr__(self) -> str:
        return f"AsyncClient({self.endpoint!r})"

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], deadline_s: float = 5.0, *, endpoint: str | None = None
    ) -> Self:
        """Return a client that connects with the credentials in a file made by ``todomq keys new``.

        Args:
            path: the file.
            deadline_s: as for the class.
            endpoint: the router's address if it is not reached where the file says, but through a tunnel, for example.

        Raises:
            InvalidRequest: the file can't be read, other users may read it, or it holds no credentials; or as for the
                class.
        """
        from todomq.keys.credentials import read_credentials

        return cls(endpoint, deadline_s, credentials=read_credentials(path))

    def pipeline(self) -> AsyncPipeline:
        """Return a context that waits for every request begun in it."""
        return AsyncPipeline(self)

    async def close(self) -> None:
        """End the connection. Unanswered requests fail with ``Unavailable``; closing again does nothing."""
        await asyncio.get_running_loop().run_in_executor(None, self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def ask(self, request: Request[T]) -> asyncio.Future[T]:
        """Submit a request; return the future of its result, which for a cast is settled already."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        set_deadline(request, self._deadline_ms)
        try:
            if not request.is_cast:
                request.waiter = future, self  # keeps the client from being closed once nobody else refers to it
            self._connection.submit(request, may_wait=False)
        except TodoMQError as error:
            future.set_exception(refused(request, error, self.ask))
        else:
            if request.is_cast:
                future.set_result(None)
        return future


class AsyncPipeline(_Face):
    """A client's face that waits for all of its answers, used with ``async with``.

    Leaving the block waits for every answer. If requests failed, it then raises an ``ExceptionGroup`` of the failures
    (the first 10,000), in the order of the calls; if the block itself raises, its error gets a note of them instead.
    Calls made before the block, or between two blocks, count for the next one.
    """

    def __init__(self, client: AsyncClient) -> None:
        super().__init__()
        self._client = client
        self._waited_for: dict[asyncio.Future[Any], tuple[int, int]] = {}
        """By future: the request's place in the order of the calls, and its deadline."""
        self._begun = 0
        self._failures = Failures()

    def ask(self, request: Request[T]) -> asyncio.Future[T]:
        """Submit a request; return the future of its result."""
        future = self._client.ask(request)
        return self._counted(future, request.deadline_ms)

    def failed(self, error: InvalidRequest) -> asyncio.Future[Any]:
        """Return a future that has failed already: no request could be built. It counts as a request that was begun."""
        return self._counted(super().failed(error), 0)

    def _counted(self, future: asyncio.Future[T], deadline_ms: int) -> asyncio.Future[T]:
        self._waited_for[future] = self._begun, deadline_ms
        future.add_done_callback(self._note)
        self._begun += 1
        return future

    def _note(self, future: asyncio.Future[Any]) -> None:
        place, _ = self._waited_for.pop(future, (-1, 0))
        error = None if future.cancelled() else future.exception()
        if place >= 0 and isinstance(error, Exception):  # otherwise its block has been left already
            self._failures.add([(place, error)])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while waited_for := [future for future, (_, ms) in list(self._waited_for.items()) if _may_end(future, ms)]:
            own = [each for each in waited_for if each.get_loop() is asyncio.get_running_loop()]
            await (asyncio.wait(own) if own else asyncio.sleep(OTHER_LOOP_S))
        lost, self._waited_for = self._waited_for, {}
        text = "the loop that was to take this answer does not run any more"
        self._failures.add([(place, Unavailable(text, outcome=UNKNOWN)) for place, _ in lost.values()])
        failures, self._failures = self._failures, Failures()
        begun, self._begun = self._begun, 0
        failures.tell(begun, error)


def _may_end(future: asyncio.Future[Any], deadline_ms: int) -> bool:
    """Tell whether a future may still be settled: if its loop is not running, only until soon after its deadline."""
    loop = future.get_loop()
    return loop.is_running() or (not loop.is_closed() and awake_ms() < deadline_ms + LATE_MS)


class _AskAgain(AskAgain):
    """The same for asyncio: each caller gets a future of its own loop, so that cancelling it loses no answer."""

    def __call__(self) -> asyncio.Future[Any]:
        """Return a future of the answer."""
        loop = asyncio.get_running_loop()
        is_parents = self._pid != os.getpid()  # then its answer goes to the parent
        with self._lock():
            asked = self._answers[0] if self._answers else None
            if asked is None or _is_lost(asked) or (is_parents and not asked.done()):
                asked = Future[Any]()
                self._answers = [asked]
                try:
                    sent = self._resend(self._request.repeated(self))
                except BaseException:
                    self._answers = []
                    raise
                sent.add_done_callback(_ignore)  # ``take`` gets the answer, whatever becomes of the loop
                if sent.done() and sent.exception() is not None:  # refused by this client itself
                    self.take(None, sent.exception())
        told: asyncio.Future[Any] = loop.create_future()
        asked.add_done_callback(partial(_tell, told))
        return told

    def take(self, value: Any, error: BaseException | None) -> None:
        """Take the answer to what was asked last, on any thread."""
        (asked,) = self._answers
        if asked.done():
            return
        if error is None:
            asked.set_result(value)
        else:
            asked.set_exception(error)


def _ignore(sent: asyncio.Future[Any]) -> None:
    if not sent.cancelled():
        sent.exception()


def _tell(told: asyncio.Future[Any], asked: Future[Any]) -> None:
    error: Any = asked.exception()
    value = asked.result() if error is None else None
    with suppress(RuntimeError):  # this loop is closed: nobody is left to await
        told.get_loop().call_soon_threadsafe(_settle, [(told, value, error)])


def _is_lost(asked: Future[Any]) -> bool:
    """Tell whether the last repetition ended with an unknown outcome, so that it must be asked once more."""
    if not asked.done():
        return False
    error = asked.exception()
    return isinstance(error, TodoMQError) and error.outcome == UNKNOWN


def _completion(client_ref: weakref.ref[AsyncClient]) -> Callable[[list[Request[Any]]], list[Callable[[], None]]]:
    """Return the function that settles the futures of finished requests, each on its own loop, in one call per loop."""

    def complete(finished: list[Request[Any]]) -> list[Callable[[], None]]:
        client = client_ref()
        resend = refuse_to_resend if client is None else client.ask
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Outcome]] = defaultdict(list)
        for request in finished:
            if request.waiter is not None:
                future, _ = request.waiter
                value, error = outcome(request, resend, _AskAgain)
                if isinstance(request, Repetition) and isinstance(request.again, _AskAgain):
                    request.again.take(value, error)
                by_loop[future.get_loop()].append((future, value, error))
        for loop, outcomes in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, outcomes)
            except RuntimeError:
                continue  # this loop is closed: nobody is left to await
        return []

    return complete


def _settle(outcomes: list[_Outcome]) -> None:
    for future, value, error in outcomes:
        if future.done():
            continue  # cancelled by its caller
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
