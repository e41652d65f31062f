"""The command line's way to the service: one client for one command, and what it says if nobody answers.

Owns: the choice of deadlines, the words for a stack that is not there. Must not know: the commands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from todomq.errors import InvalidRequest, Unauthorized, Unavailable
from todomq.settings import SettingsError

if TYPE_CHECKING:
    from todomq.client import Client

DEADLINE_S = 5.0
CREDENTIALS, ENDPOINT = "TODOMQ_CREDENTIALS", "TODOMQ_ENDPOINT"
NOBODY_THERE_S = 0.5
"""How long to wait if not even the socket is there: long enough for a router that is being restarted."""


@contextmanager
def connect(deadline_s: float = DEADLINE_S, endpoint: str | None = None) -> Iterator[Client]:
    """Give a client of the stack that the environment names.

    Args:
        deadline_s: how long one request may take.
        endpoint: the router of the home that a command works on, whatever else the environment names.

    Raises:
        SettingsError: the environment names no usable endpoint.
        Unavailable: the router does not answer; the text says what to do.
    """
    from todomq.client.client import Client
    from todomq.client.session import RouterSilent

    try:
        client = Client(endpoint, deadline_s)
    except SettingsError:
        raise
    except InvalidRequest as error:
        raise SettingsError(error.text) from None
    is_there = _is_there(client.endpoint)
    if not is_there:
        client = Client(endpoint, min(deadline_s, NOBODY_THERE_S))
    with client:
        try:
            yield client
        except RouterSilent as error:
            variable = named_by() if endpoint is None else ""
            raise Unavailable(unreachable(client.endpoint, variable), outcome=error.outcome) from None


@contextmanager
def connect_to_look_in(deadline_s: float = DEADLINE_S) -> Iterator[Client]:
    """Give a client for questions to the parts of the stack.

    Args:
        deadline_s: how long one request may take.

    Raises:
        SettingsError, Unavailable: as ``connect``. Unauthorized: the key may not ask; the text says which may.
    """
    with connect(deadline_s) as client:
        try:
            yield client
        except Unauthorized as error:
            raise Unauthorized(f"{error.text}; looking into a stack takes a key with the right admin") from None


def unreachable(endpoint: str, variable: str) -> str:
    """Return what to tell a person if the router does not answer.

    Args:
        endpoint: its address.
        variable: the environment's variable that names this address; empty for the stack of the home.
    """
    is_there = _is_there(endpoint)
    said = f"the router does not answer at {endpoint}" if is_there else f"no stack runs at {endpoint}"
    if not variable:
        return f"{said}; todomq status says what runs" if is_there else f"{said}; start one with: todomq up"
    if not endpoint.startswith("tcp://"):
        return f"{said}, which {variable} names"
    if variable == CREDENTIALS:
        return f"{said}, which {variable} names; is one running there? If it has new keys, you need a new file"
    return f"{said}, which {variable} names; is one running there? A stack with keys answers only with {CREDENTIALS}"


def named_by() -> str:
    """Return the variable that says where the router is; empty if it is the router of this machine's stack."""
    return next((variable for variable in (CREDENTIALS, ENDPOINT) if os.environ.get(variable)), "")


def _is_there(endpoint: str) -> bool:
    return not endpoint.startswith("ipc://") or Path(endpoint.removeprefix("ipc://")).exists()
