"""TodoMQ: named to-do lists, each with one owner, found by name, backed by durable storage.

The public face: ``Client``, ``AsyncClient``, ``Entry``, ``Via``, ``ServerRef``, ``Registration``, ``errors``.
They are loaded on first use, so that a daemon that imports a part of this package does not pay for the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from todomq import errors
    from todomq.client import AsyncClient, Client, Entry, Registration, ServerRef, Via

__all__ = ["AsyncClient", "Client", "Entry", "Registration", "ServerRef", "Via", "errors"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'todomq' has no attribute {name!r}")
    import importlib

    module = importlib.import_module("todomq.errors" if name == "errors" else "todomq.client")
    value = module if name == "errors" else getattr(module, name)
    globals()[name] = value
    return value
