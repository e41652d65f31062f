"""The router on a TCP port of this machine, by setting."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from conftest import RunningStack

from todomq import Client
from todomq.settings import SettingsError, read_settings


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_clients_reach_the_router_over_tcp_and_over_ipc(make_stack: Callable[..., RunningStack]) -> None:
    address = f"tcp://127.0.0.1:{_free_port()}"
    stack = make_stack(TODOMQ_TCP=address)
    stack.start()
    with Client(address) as far, Client(stack.endpoint) as near:
        entry = far.todo_list("shared").add_entry("milk")
        assert near.todo_list("shared").entries() == [entry]


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "tcp://127.0.0.1", "ipc:///tmp/x", "tcp://127.0.0.1:70000"])
def test_what_is_no_tcp_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(SettingsError, match="TODOMQ_TCP"):
        read_settings({"TODOMQ_TCP": address})
