"""The blocking face: each method waits for its answer. ``pipeline`` gives the face of futures.

Owns: ``Client`` and its handles. Must not know: messages, numbers. The operations, with their arguments and
results, are defined in ``operations.py``; here they become methods.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from todomq.client import operations
from todomq.client.connection import Connection
from todomq.client.deadlines import check_deadline
from todomq.client.endpoint import choose
from todomq.client.futures import settle
from todomq.client.outcomes import outcome, refuse_to_resend, refused
from todomq.client.pipeline import Pipeline
from todomq.client.request import Request, set_deadline
from todomq.client.values import ServerRef
from todomq.errors import TodoMQError
from todomq.protocol.entries import check_list_name

if TYPE_CHECKING:
    from todomq.keys.credentials import Credentials

P = ParamSpec("P")
T = TypeVar("T")


class _Part:
    """A part of a client's face."""

    def __init__(self, client: Client) -> None:
        self._client = client


def _ask(build: Callable[P, Request[T]]) -> Callable[Concatenate[_Part, P], T]:
    """Offer an operation as a method that waits for the answer; a cast has none to wait for."""

    @operations.shown_as(build)
    def method(self: _Part, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client.ask(build(*args, **kwargs))

    return method


def _ask_list(build: Callable[Concatenate[str, P], Request[T]]) -> Callable[Concatenate[TodoList, P], T]:
    """Offer an operation on one list as a method of its handle."""

    @operations.shown_as(build, is_of_list=True)
    def method(self: TodoList, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client.ask(build(self.name, *args, **kwargs))

    return method


class TodoList(_Part):
    """The handle of one list. Making it sends nothing.

    Attributes:
        name: the list's name.
    """

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client)
        self.name = check_list_name(name)

    def __repr__(self) -> str:
        return f"TodoList({self.name!r})"

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


class Cache(_Part):
    """Who serves which list."""

    def server_process(self, list_name: str, *, deadline_s: float | None = None) -> ServerRef[TodoList]:
        """Return where the list's actor lives; if it is not active, it is activated first."""
        return self._client.ask(
            operations.server_process(list_name, self._client.todo_list, deadline_s=deadline_s)
        )


class Registry(_Part):
    """Who is registered under which name."""

    register_name = _ask(operations.register_name)
    unregister_name = _ask(operations.unregister_name)
    whereis_name = _ask(operations.whereis_name)
    names = _ask(operations.names)
    send = _ask(operations.send_to_name)


class Database(_Part):
    """Any value under any key, apart from the lists."""

    store = _ask(operations.store)
    get = _ask(operations.get)
    cast_store = _ask(operations.cast_store)


class Client(_Part):
    """A client of one stack; usable from any thread, and in a forked child under an identity of its own.

    The first request makes the connection, which is kept up from then on. Requests are sent again for as long as their
    deadline allows, and still a change takes effect only once.

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
        super().__init__(self)
        self.endpoint, credentials = choose(endpoint, credentials)
        self._deadline_ms = int(check_deadline(deadline_s) * 1000)
        # The connection's thread must not keep a client alive that nobody else refers to any more.
        self._connection = Connection(self.endpoint, _completion(weakref.ref(self)), credentials)
        self._closing = weakref.finalize(self, self._connection.close)
        self.cache = Cache(self)
        self.registry = Registry(self)
        self.database = Database(self)

    def __repr__(self) -> str:
        return f"Client({self.endpoint!r})"

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

    list_names = _ask(operations.list_names)
    call = _ask(operations.call)
    send = _ask(operations.send)

    def todo_list(self, name: str) -> TodoList:
        """Return the handle of a list; nothing is sent.

        Raises:
            InvalidRequest: not a list's name.
        """
        return TodoList(self, name)

    def pipeline(self) -> Pipeline:
        """Return a context in which each call returns a future at once, with many requests in flight."""
        return Pipeline(self.submit, self._connection)

    def close(self) -> None:
        """End the connection. Unanswered requests fail with ``Unavailable``; closing again does nothing."""
        self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: Request[T]) -> T:
        """Submit a request and wait for its result.

        Raises:
            TodoMQError: the request failed. InvalidRequest: called from a future's callback, which must not wait.
        """
        self.submit(request, is_waited_for=True)
        return request.result()

    def submit(self, request: Request[T], *, is_waited_for: bool = False) -> None:
        """Hand a request over; it is settled once it is finished, a cast immediately.

        Args:
            request: the request.
            is_waited_for: the caller waits for its result next.

        Raises:
            Overloaded: too many requests are waiting or in flight, and there was no room before the deadline.
            InvalidRequest: it would be waited for in a future's callback.
        """
        set_deadline(request, self._deadline_ms)
        if request.is_cast:
            self._connection.submit(request, may_wait=False)
            settle([request])
            return
        request.driver = self._connection
        try:
            self._connection.submit(request, may_wait=True, is_waited_for=is_waited_for)
        except TodoMQError as error:
            raise refused(request, error, self.ask) from None


def _completion(client_ref: weakref.ref[Client]) -> Callable[[list[Request[Any]]], list[Callable[[], None]]]:
    """Return the function that settles finished requests."""

    def complete(finished: list[Request[Any]]) -> list[Callable[[], None]]:
        client = client_ref()
        resend = refuse_to_resend if client is None else client.ask
        asked = [request for request in finished if not request.is_cast]  # a cast was settled when it was handed over
        for request in asked:
            value, error = outcome(request, resend)
            request.set_outcome(value, error)
        return settle(asked)

    return complete
