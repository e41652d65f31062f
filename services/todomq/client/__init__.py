"""The client library: needs an endpoint and nothing else of a stack; talks to the router only.

``AsyncClient`` is loaded on first use: asyncio takes longer to import than all the rest, and most programs, the command
line among them, never need it.

What a caller has in hand:

    client        the blocking face
    pipeline      the face of futures
    async_client  the face of asyncio
    values        entries, names, where things are

The path of a request:

    operations    every operation: what is sent, what is made of the answer
    request       a request on its way
    session       under which number it is sent, sent again, given up, answered
    numbers       the numbers of one list
    casts         which casts may be in flight
    greeting      whether the router is there, and by which clock
    connection    who drives the session
    line          the sockets
    endpoint      where the router is
    deadlines     how long a request may take, by which clock
    outcomes      from an answer to a result or an error
    futures       futures that cost little
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from todomq.client.client import Client, TodoList
from todomq.client.pipeline import Pipeline, PipelinedTodoList
from todomq.client.values import Entry, Registration, ServerRef, Via

if TYPE_CHECKING:
    from todomq.client.async_client import AsyncClient, AsyncTodoList

__all__ = [
    "AsyncClient",
    "AsyncTodoList",
    "Client",
    "Entry",
    "Pipeline",
    "PipelinedTodoList",
    "Registration",
    "ServerRef",
    "TodoList",
    "Via",
]


def __getattr__(name: str) -> Any:
    if name not in ("AsyncClient", "AsyncTodoList"):
        raise AttributeError(f"module 'todomq.client' has no attribute {name!r}")
    from todomq.client import async_client

    return getattr(async_client, name)
