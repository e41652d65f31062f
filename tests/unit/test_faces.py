"""What ``help()`` and a prompt show of a client: each method as it is called, by its own name."""

from __future__ import annotations

import inspect
import pydoc
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from todomq import AsyncClient, Client
from todomq.client import TodoList
from todomq.client.client import Database
from todomq.client.futures import Failure
from todomq.errors import Unavailable

BLOCKING = Client("ipc:///nowhere")
FUTURES = BLOCKING.pipeline()
ASYNC = AsyncClient("ipc:///nowhere")
DEADLINE = "deadline_s: 'float | None' = None"


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        (BLOCKING.list_names, f"(prefix: 'str' = '', *, {DEADLINE}) -> 'list[str]'"),
        (BLOCKING.database.store, f"(key: 'Any', value: 'Any', *, {DEADLINE}) -> 'None'"),
        (BLOCKING.todo_list("x").size, f"(*, {DEADLINE}) -> 'int'"),
        (Client.call, f"(self, /, via: 'Via', operation: 'str', *arguments: 'Any', {DEADLINE}) -> 'Any'"),
        (TodoList.delete_entry, f"(self, /, id: 'int', *, {DEADLINE}) -> 'bool'"),
        (FUTURES.registry.names, f"(*, {DEADLINE}) -> 'Future[list[Registration]]'"),
        (FUTURES.todo_list("x").delete_entry, f"(id: 'int', *, {DEADLINE}) -> 'Future[bool]'"),
        (ASYNC.registry.whereis_name, f"(name: 'Any', *, {DEADLINE}) -> 'asyncio.Future[Registration | None]'"),
        (ASYNC.todo_list("x").size, f"(*, {DEADLINE}) -> 'asyncio.Future[int]'"),
    ],
)  # fmt: skip
def test_a_method_is_shown_as_it_is_called(method: Callable[..., Any], shown: str) -> None:
    assert str(inspect.signature(method)) == shown


def test_help_says_what_a_method_does() -> None:
    shown = pydoc.render_doc(Database.get, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    assert "get(self, /, key: 'Any', *" in shown
    assert "Return the value stored under a key, or None if there is none." in shown


def test_a_client_is_shown_with_its_endpoint() -> None:
    assert repr(BLOCKING) == "Client('ipc:///nowhere')"
    assert repr(ASYNC) == "AsyncClient('ipc:///nowhere')"


def test_what_failed_is_noted_before_it_counts_as_answered() -> None:
    requests = BLOCKING.pipeline()._requests
    seen: list[int] = []

    class Failed(list[Failure]):
        def __len__(self) -> int:
            seen.append(requests.ended)
            return super().__len__()

    requests.note_settled(1, Failed([(0, Unavailable("away"))]))
    assert seen and set(seen) == {0} and requests.ended == 1


def test_the_traceback_of_a_request_that_fails_is_short() -> None:
    with Client("ipc:///nowhere", deadline_s=0.05) as todo, pytest.raises(Unavailable) as caught:
        todo.list_names()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames] == [
        "test_the_traceback_of_a_request_that_fails_is_short", "method", "ask", "result",
    ]  # fmt: skip
