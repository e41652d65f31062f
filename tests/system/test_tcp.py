"""The router on a TCP port of this machine, by setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from keyed import free_port
from stacks import RunningStack

from todomq import Client, errors
from todomq.settings import SettingsError, read_settings


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "tcp://127.0.0.1", "ipc:///tmp/x", "tcp://127.0.0.1:70000"])
def test_what_is_no_tcp_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(SettingsError, match="TODOMQ_TCP"):
        read_settings({"TODOMQ_TCP": address})


def test_clients_reach_the_router_over_tcp_and_over_ipc_until_keys_are_made_and_end_what_was_open(
    make_stack: Callable[..., RunningStack], tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    stack = make_stack(TODOMQ_TCP=address, TODOMQ_LIST_SERVERS="1", TODOMQ_DATABASE_WORKERS="1")
    stack.start()
    with Client(address) as anybody, Client(stack.endpoint) as near:
        entry = anybody.todo_list("open").add_entry("milk")
        assert near.todo_list("open").entries() == [entry]
    before = stack.pid("router")
    for command in (["init"], ["new", "alice", "--lists", "open", "--out", str(tmp_path / "alice")]):
        done = stack.run("todomq.cli", "keys", *command)
        assert done.returncode == 0, done.stderr
    stack.wait_restarted("router", before, 20)
    with Client(address, deadline_s=1.0) as anybody, pytest.raises(errors.Unavailable):
        anybody.list_names()
    with Client.from_file(tmp_path / "alice", deadline_s=20.0) as alice:
        assert [entry.title for entry in alice.todo_list("open").entries()] == ["milk"]
