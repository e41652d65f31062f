"""The client library: needs an endpoint and nothing else of a stack; talks to the router only.

``AsyncClient`` is loaded on first use: asyncio takes longer to import than all the rest, and most programs, the command
line among them, never need it.
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
