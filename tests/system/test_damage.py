"""One flipped byte in a stack's files: the damage is told where it is, and stays there (laws 5 and 8).

So is what is no damage: that a shard can't be opened at the moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stacks import POLL_S, RunningStack, wait_until

from todomq import Client, errors
from todomq.database_worker.storage import small_files
from todomq.protocol.codec import canonical
from todomq.protocol.partitions import partition_of, worker_of

LISTS = {worker: [name for n in range(40) if worker_of(partition_of((name := f"list {n}").encode()), 3) == worker]
         for worker in (1, 2, 3)}  # fmt: skip
HEALTHY = [name for worker in (1, 3) for name in LISTS[worker]]
KEY = next(n for n in range(100) if worker_of(partition_of(canonical(n)), 3) == 2)


def flip(path: Path, at: int) -> bytes:
    """Flip a bit; return the file as it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    return whole


@pytest.fixture
def filled(make_stack: Callable[..., RunningStack]) -> RunningStack:
    """Return a running stack that has an entry in each list."""
    stack = make_stack()
    stack.start()
    with Client(stack.endpoint) as todo:
        for names in LISTS.values():
            for name in names:
                todo.todo_list(name).add_entry("before")
        todo.database.store(KEY, "value")
    return stack


def crash(stack: RunningStack, daemon: str) -> None:
    """End a stack so that the daemon has no chance to leave in good order."""
    manager, pid = stack.manager_pid(), stack.kill(daemon, signal.SIGSTOP)
    os.kill(manager, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not stack.living(), 20.0, "all processes have left")
    stack.stop()


def start(stack: RunningStack) -> None:
    """Start a stack of which part is damaged: it will not be healthy."""
    stack.control.start()
    wait_until(lambda: all(stack.ask(name, timeout_s=0.2) for name in stack.daemons), 20.0, "all daemons answer")


def log_of(stack: RunningStack, worker: int) -> Path:
    files = (stack.home / "data" / f"worker-{worker}" / "rocksdb").glob("*.log")
    return max(files, key=lambda path: path.stat().st_size)


def check_the_others_go_on(todo: Client, lists: list[str], round_: int) -> None:
    for name in lists:
        assert len(todo.todo_list(name).entries()) == round_
        todo.todo_list(name).add_entry("after")


def test_a_byte_flipped_in_a_log_is_told_by_that_shard_and_the_other_shards_go_on(filled: RunningStack) -> None:
    stack = filled
    crash(stack, "database_worker-2")
    log = log_of(stack, 2)
    whole = flip(log, log.stat().st_size // 2)
    start(stack)
    with Client(stack.endpoint, deadline_s=10.0) as todo:
        check_the_others_go_on(todo, HEALTHY, 1)
        questions: list[Callable[[], object]] = [
            lambda: todo.database.get(KEY), lambda: todo.database.store(KEY, "w"), todo.list_names,
            lambda: todo.cache.server_process(LISTS[2][0]),
            *(lambda name=name: todo.todo_list(name).entries() for name in LISTS[2]),
            *(lambda name=name: todo.todo_list(name).add_entry("x") for name in LISTS[2]),
        ]  # fmt: skip
        for ask in questions:
            with pytest.raises(errors.CorruptRecord) as refusal:
                ask()
            assert log.name in refusal.value.text and "todomq restore" in refusal.value.text
            assert not refusal.value.retryable and refusal.value.outcome == "not applied"
        for daemon in ("list_server-1", "database_worker-2", "cache", "router"):
            stack.wait_restarted(daemon, stack.kill(daemon))
        check_the_others_go_on(todo, HEALTHY, 2)
        with pytest.raises(errors.CorruptRecord):
            todo.todo_list(LISTS[2][0]).entries()
        health = stack.run("todomq.cli", "probe", "health", "--wait", "600", "--json")  # ends at once
        assert health.returncode == 1 and json.loads(health.stdout)["at_fault"] == [["database_worker", 2]]
        assert log.name in health.stdout
        assert "storage damaged" in stack.run("todomq.cli", "probe", "tree").stdout
        verified = stack.run("todomq.cli", "verify", "--json")
        assert verified.returncode == 1
        assert [bool(shard["problems"]) for shard in json.loads(verified.stdout)["shards"]] == [False, True, False]
        assert log.name in verified.stdout
        backup = stack.run("todomq.cli", "backup", str(stack.home / "backup"))
        assert backup.returncode == 1 and log.name in backup.stderr
        assert not (stack.home / "backup" / "catalogue").exists()
        assert stack.control.failure() is None
        # The file is put right, and the worker begins another life.
        log.write_bytes(whole)
        stack.kill("database_worker-2")
        wait_until(lambda: stack.ask("database_worker-2", "stats", 0.2) is not None, 10.0, "the worker is back")
        stack.wait_healthy()
        check_the_others_go_on(todo, LISTS[2], 1)
        assert todo.database.get(KEY) == "value"


def test_a_byte_flipped_in_a_table_is_told_by_the_lists_in_it_and_all_else_goes_on(filled: RunningStack) -> None:
    stack = filled
    big, small = LISTS[2][:2]
    with Client(stack.endpoint) as todo:
        for n in range(200):
            todo.todo_list(big).add_entry(f"{n} " + "x" * 200)
    stack.stop()
    table = max((stack.home / "data" / "worker-2" / "rocksdb").glob("*.sst"), key=lambda path: path.stat().st_size)
    whole = table.read_bytes()
    flip(table, whole.index(b"100 xxx") if b"100 xxx" in whole else len(whole) // 2)
    start(stack)
    with Client(stack.endpoint, deadline_s=10.0) as todo:
        with pytest.raises(errors.CorruptRecord, match=table.name):
            todo.todo_list(big).entries()
        with pytest.raises(errors.CorruptRecord, match=table.name):
            todo.todo_list(big).add_entry("x")
        assert [entry.title for entry in todo.todo_list(small).entries()] == ["before"]
        todo.todo_list(small).add_entry("after")
        check_the_others_go_on(todo, HEALTHY, 1)
    found = stack.run("todomq.cli", "verify")
    assert found.returncode == 1 and str(table) in found.stdout and "checkpoints" not in found.stdout
    stack.stop()
    found = stack.run("todomq.cli", "verify", "--json")
    assert found.returncode == 1
    (problem, *_) = json.loads(found.stdout)["shards"][1]["problems"]
    assert table.name in problem["text"] and "entries and sessions" in problem["kind"]


def test_data_of_a_newer_version_is_refused_and_make_up_says_so(
    make_stack: Callable[..., RunningStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, known = make_stack(), small_files.FORMAT
    (stack.home / "data").mkdir()
    with monkeypatch.context() as newer:
        newer.setattr(small_files, "FORMAT", known + 1)
        small_files.write_file(stack.home / "data" / "manifest", {"pool_size": "what this version can't know"})
    for command in (["todomq", "up"], ["todomq", "verify"]):
        done = stack.run(*command)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert f"has format {known + 1} and this version of TodoMQ reads formats 1 to {known}" in said
        assert "run the version that wrote it" in said


def locked_out(stack: RunningStack, worker: str, path: Path) -> int:
    """Kill a worker and lock a file as RocksDB does before its next life can; return what holds the lock."""
    descriptor = os.open(path, os.O_RDWR)
    for _ in range(10):  # where the machine is busy, the next life may be first
        killed = stack.kill(worker)
        give_up = time.monotonic() + 1.0
        while time.monotonic() < give_up:
            with suppress(BlockingIOError):
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stack.wait_restarted(worker, killed)
                return descriptor
            time.sleep(POLL_S)
        stack.wait_restarted(worker, killed)
    os.close(descriptor)
    pytest.fail(f"{path} was locked by every next life of {worker}")


def are_told_of_the_lock(todo: Client) -> bool:
    """Ask for all kinds of things that need the shard of worker 2; tell whether each is told why not."""
    with suppress(ExceptionGroup), todo.pipeline() as pipeline:
        asked: list[Future[Any]] = [
            pipeline.list_names(deadline_s=1.0),
            pipeline.cache.server_process(LISTS[2][0], deadline_s=1.0),
            *(pipeline.todo_list(name).entries(deadline_s=1.0) for name in LISTS[2]),
            *(pipeline.todo_list(name).add_entry("x", deadline_s=1.0) for name in LISTS[2]),
        ]
    refusals = [future.exception() for future in asked]
    assert all(isinstance(refusal, errors.TodoMQError) for refusal in refusals), refusals
    return all("LOCK" in str(refusal) for refusal in refusals)


def test_law_5_why_a_shard_cannot_be_opened_is_told_at_once_whoever_is_killed_and_nothing_else_waits_for_it(
    filled: RunningStack,
) -> None:
    stack, data = filled, filled.home / "data"
    held = locked_out(stack, "database_worker-2", data / "worker-2" / "rocksdb" / "LOCK")
    try:
        wait_until(lambda: "LOCK" in stack.ask("database_worker-2", "stats")["trouble"], 5.0, "the worker tells why")
        assert stack.ask("database_worker-2", "stats")["storage"] == "closed"
        for daemon in ("list_server-1", "list_server-2"):
            stack.wait_restarted(daemon, stack.kill(daemon))
        with Client(stack.endpoint, deadline_s=10.0) as todo:
            check_the_others_go_on(todo, HEALTHY, 1)
            # The partitions may be moving yet: they come to those that were killed once these are back.
            wait_until(lambda: are_told_of_the_lock(todo), 20.0, "whoever needs the shard hears soon why not")
            why = partial(stack.run, "todomq.cli", "probe", "why", LISTS[2][0])
            wait_until(lambda: "LOCK" in why().stdout, 20.0, "the worker answers in the time that probe why gives it")
            verified = stack.run("todomq.cli", "verify", timeout_s=20.0)
            assert verified.returncode == 3 and "LOCK" in verified.stdout
            backup = stack.run("todomq.cli", "backup", str(stack.home / "backup"), timeout_s=20.0)
            assert backup.returncode == 3 and "database_worker 2: " in backup.stderr and "LOCK" in backup.stderr
            pids = stack.pids()
            os.close(held)
            held = -1
            check_the_others_go_on(todo, LISTS[2], 1)
            assert stack.pids() == pids
    finally:
        if held >= 0:
            os.close(held)


def test_law_8_data_that_vanishes_under_a_running_stack_is_missed_and_none_is_begun_anew(filled: RunningStack) -> None:
    data = filled.home / "data"
    with Client(filled.endpoint) as todo:
        before = {name: todo.todo_list(name).entries() for name in todo.list_names()}
        away = data.rename(filled.home / "away")
        with suppress(ExceptionGroup), todo.pipeline() as pipeline:
            added = [pipeline.todo_list(name).add_entry("into nothing", deadline_s=0.5) for name in before]
        assert all(isinstance(future.exception(), errors.TodoMQError) for future in added)
        with pytest.raises(errors.TodoMQError):
            todo.list_names(deadline_s=0.5)
    said = filled.run("todomq.cli", "probe", "health").stdout
    assert f"{data} has no data" in said and "is a disk not mounted?" in said
    filled.stop()
    refused = filled.run("todomq", "up")
    assert refused.returncode != 0 and f"{data} has no data" in refused.stderr
    filled.stop()
    assert [path.name for path in data.iterdir()] == ["manifest.lock"]
    (data / "manifest.lock").unlink()
    data.rmdir()
    away.rename(data)
    filled.start()
    with Client(filled.endpoint) as todo:
        for name, entries in before.items():
            found = todo.todo_list(name).entries()
            assert found[: len(entries)] == entries
