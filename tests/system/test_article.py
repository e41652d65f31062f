"""What the article's tests say of the original, said of this one, against a real stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import pytest
from stacks import RunningStack, wait_until

from todomq import Client, Entry, Via, errors


@pytest.fixture(scope="module")
def todo(shared_stack: RunningStack) -> Iterator[Client]:
    with Client(shared_stack.endpoint) as client:
        yield client


def test_the_same_list_has_the_same_server_twice(todo: Client) -> None:
    assert todo.cache.server_process("Bob's list") == todo.cache.server_process("Bob's list")


def test_two_lists_have_two_servers(todo: Client) -> None:
    assert todo.cache.server_process("Bob's list") != todo.cache.server_process("Alice's list")


def test_a_server_from_the_cache_keeps_entries(todo: Client) -> None:
    bob = todo.cache.server_process("kept entries").todo_list
    entry = bob.add_entry("dentist", date=date(2016, 10, 1))
    assert entry == Entry(id=1, title="dentist", date=date(2016, 10, 1), done=False, extra={})
    assert bob.entries(date(2016, 10, 1)) == [entry]
    assert bob.entries(date(2016, 10, 2)) == []


def test_a_value_is_stored_and_got(todo: Client) -> None:
    todo.database.store("my key", {"this_is": "anything"})
    assert todo.database.get("my key") == {"this_is": "anything"}
    assert todo.database.get("another key") is None


@pytest.mark.parametrize("key", ["a/b", "../etc", "", b"bytes", ["an", ["array", 1]], {"a": 1}, 0, -1, None, 1.5, True])
def test_any_value_is_a_key(todo: Client, key: object) -> None:
    todo.database.store(key, [key, "value"])
    assert todo.database.get(key) == [key, "value"]


def test_entries_outlive_the_actor_of_their_list(todo: Client) -> None:
    name = "outlived"
    entry = todo.todo_list(name).add_entry("Elixir Meetup", date=date(2016, 9, 22))
    before = todo.cache.server_process(name)
    other = todo.cache.server_process("another list")
    assert todo.call(Via(["cache"]), "kill_list", name) is True
    after = todo.cache.server_process(name)
    assert after != before
    assert after.todo_list.entries(date(2016, 9, 22)) == [entry]
    assert after.todo_list.add_entry("next").id == 2
    assert todo.cache.server_process("another list") == other


def test_a_registered_process_is_found(todo: Client) -> None:
    name = ["database_worker", "of a test"]
    assert todo.registry.register_name(name, "tcp://127.0.0.1:5000", pid=os.getpid()) is True
    found = todo.registry.whereis_name(name)
    assert found is not None
    assert (found.address, found.pid) == ("tcp://127.0.0.1:5000", os.getpid())
    assert todo.registry.register_name(name, "tcp://127.0.0.1:5001", pid=os.getppid()) is False
    assert todo.registry.unregister_name(name)
    assert todo.registry.whereis_name(name) is None


def test_a_dead_process_is_removed(todo: Client) -> None:
    name = ["dead man walking"]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        todo.registry.register_name(name, "ipc:///nowhere", pid=process.pid)
        assert todo.registry.whereis_name(name) is not None
    finally:
        process.kill()
        process.communicate()
    assert todo.registry.whereis_name(name) is None


def test_a_worker_is_used_by_name_before_and_after_its_restart(shared_stack: RunningStack, todo: Client) -> None:
    worker = Via(["database_worker", 1])
    assert todo.call(worker, "ping") == "pong"
    todo.call(worker, "store", "some key", "some data")
    before = todo.registry.whereis_name(["database_worker", 1])
    old = shared_stack.kill("database_worker-1")
    shared_stack.wait_restarted("database_worker-1", old)
    assert wait_until(lambda: _answer(todo, worker, "ping"), 5.0, "the worker is found again") == "pong"
    assert todo.call(worker, "get", "some key") == "some data"
    assert todo.registry.whereis_name(["database_worker", 1]) != before


def _answer(todo: Client, via: Via, operation: str) -> object:
    try:
        return todo.call(via, operation)
    except errors.Unavailable:
        return None


def test_nobody_under_a_name_is_said_at_once(todo: Client) -> None:
    with pytest.raises(errors.NameNotFound):
        todo.call(Via(["nobody"]), "ping")


def test_killing_the_cache_again_and_again_keeps_processes_entries_and_servers(
    shared_stack: RunningStack, todo: Client
) -> None:
    names = [f"stable {number}" for number in range(20)]
    for name in names:
        todo.todo_list(name).add_entry("milk")
    before = {name: todo.cache.server_process(name) for name in names}
    count = len(shared_stack.living())
    for _ in range(20):
        old = shared_stack.kill("cache")
        for name in names[:3]:  # requests to routed lists go on while the cache is away
            assert [entry.title for entry in todo.todo_list(name).entries()] == ["milk"]
        shared_stack.wait_restarted("cache", old)
    assert {name: todo.cache.server_process(name) for name in names} == before
    assert len(shared_stack.living()) == count


def test_the_cache_is_untouched_by_the_death_of_a_database_worker(shared_stack: RunningStack, todo: Client) -> None:
    pids = shared_stack.pids()
    old = shared_stack.kill("database_worker-2", signal.SIGKILL)
    shared_stack.wait_restarted("database_worker-2", old)
    after = shared_stack.pids()
    assert {name for name in pids if pids[name] != after[name]} == {"database_worker-2"}
