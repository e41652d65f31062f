"""A disk that is full, for real: a small file system of its own under the stack's home.

Laws 1, 5 and 6: changes are refused, known not to be applied, and may be tried again; reads go on, first loads too; no
daemon ends of it; room again is enough to heal.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from stacks import RunningStack, wait_until

from todomq import Client, errors

LISTS = [f"list {n}" for n in range(24)]
MIB = 1 << 20


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Give the root of a file system of 128 MiB that is gone after the test."""
    root = Path(tempfile.mkdtemp(prefix="tq-", dir="/tmp"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(root)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        root.rmdir()
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
        root.rmdir()


@pytest.fixture
def full_stack(small_disk: Path, make_stack: Callable[..., RunningStack]) -> Callable[..., RunningStack]:
    """Return what starts a stack on the small disk, with an entry in each of the lists."""

    def start(**settings: str) -> RunningStack:
        stack = make_stack(TODOMQ_MAX_RESTARTS="100", **settings)
        stack.home.rmdir()
        stack.home = small_disk / "home"
        stack.environment["TODOMQ_HOME"] = str(stack.home)
        stack.start()
        with Client(stack.endpoint) as todo:
            for name in LISTS:
                todo.todo_list(name).add_entry("before")
        return stack

    return start


def fill(root: Path, left_bytes: int) -> Path:
    """Fill the disk with one file; return it."""
    found = os.statvfs(root)
    filler = root / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - left_bytes)
    return filler


def fill_what_is_left(filler: Path) -> None:
    """Fill what has become free since: with some of it a shard would be opened for changes again and again."""
    with suppress(OSError), open(filler, "ab", buffering=0) as file:
        while file.write(bytes(4_096)):
            pass


def are_refused(todo: Client, names: list[str]) -> set[str]:
    """Try to add to lists, all at once for a second; return those where that was refused as it must be.

    Where the last of many attempts was under way at the deadline, its outcome is unknown.
    """
    with suppress(ExceptionGroup), todo.pipeline() as pipeline:
        futures = {name: pipeline.todo_list(name).add_entry("x" * 9_000, deadline_s=1.0) for name in names}
    return {name for name, future in futures.items() if is_refusal(future.exception())}


def is_refusal(error: BaseException | None) -> bool:
    if not isinstance(error, errors.Unavailable) or not error.retryable or error.outcome != "not applied":
        return False
    return "the disk is full" in error.text and "free some room" in error.text


def check_refused(todo: Client) -> None:
    """Check that every list can be read, and that a change to each is refused as it must be."""
    for name in LISTS:
        assert todo.todo_list(name).entries()[0].title == "before"
    refused: set[str] = set()

    def all_refused() -> bool:
        refused.update(are_refused(todo, [name for name in LISTS if name not in refused]))
        return len(refused) == len(LISTS)

    wait_until(all_refused, 60.0, "every change is refused, and known not to be applied")


def unload(stack: RunningStack) -> None:
    """End the actors of some lists, so that the next use loads them."""
    for name in LISTS[:3]:
        assert stack.run("todomq.cli", "probe", "kill", "list", name).returncode == 0


def heal(todo: Client, filler: Path) -> float:
    """Make room and add to every list; return how many seconds that took."""
    filler.unlink()
    begun = time.monotonic()
    with todo.pipeline() as pipeline:
        for name in LISTS:
            pipeline.todo_list(name).add_entry("after")
    return time.monotonic() - begun


def test_below_the_reserve_changes_are_refused_and_all_else_goes_on_and_room_heals_it(
    small_disk: Path, full_stack: Callable[..., RunningStack]
) -> None:
    stack = full_stack()
    filler = fill(small_disk, 20 * MIB)
    with Client(stack.endpoint, deadline_s=10.0) as todo:
        check_refused(todo)
        unload(stack)
        # Even who owns a list may change: claims are let through.
        for daemon in ("list_server-1", "database_worker-2", "cache"):
            stack.wait_restarted(daemon, stack.kill(daemon))
        check_refused(todo)
        health = stack.run("todomq.cli", "probe", "health")
        assert health.returncode == 1 and "the disk is full" in health.stdout
        assert "storage full" in stack.run("todomq.cli", "probe", "tree").stdout
        assert not any(stack.ask(f"database_worker-{n}", "stats")["failed_commits"] for n in (1, 2, 3))
        print(f"below the reserve: adds to all lists {heal(todo, filler):.3f} s after there was room")
        for name in LISTS:
            assert [entry.title for entry in todo.todo_list(name).entries()] == ["before", "after"]
    stack.wait_healthy()


def test_full_to_the_last_byte_reads_go_on_whoever_is_killed_and_room_heals_it(
    small_disk: Path, full_stack: Callable[..., RunningStack]
) -> None:
    stack = full_stack(TODOMQ_RESERVE_BYTES="0")
    filler = fill(small_disk, 0)
    with Client(stack.endpoint, deadline_s=10.0) as todo:
        def is_full() -> bool:
            fill_what_is_left(filler)
            return len(are_refused(todo, LISTS)) == len(LISTS)

        # Room that files had reserved is used up first; of the write that fails it is not known what is on disk.
        wait_until(is_full, 60.0, "every change is refused")
        for daemon in ("registry", "cache", "router", "database_worker-1", "database_worker-2", "database_worker-3"):
            stack.wait_restarted(daemon, stack.kill(daemon))

        def are_read_only() -> bool:
            fill_what_is_left(filler)
            return {stack.ask(f"database_worker-{n}", "stats")["storage"] for n in (1, 2, 3)} == {"read only"}

        wait_until(are_read_only, 30.0, "every shard is open for reading only")
        check_refused(todo)
        unload(stack)
        check_refused(todo)
        assert stack.ask("router") == "pong" and stack.control.failure() is None
        print(f"full to the last byte: adds to all lists {heal(todo, filler):.3f} s after there was room")
        for name in LISTS:
            titles = [entry.title for entry in todo.todo_list(name).entries()]
            assert titles[0] == "before" and titles[-1] == "after"
    wait_until(lambda: stack.ask("database_worker-1", "stats")["storage"] == "open", 5.0, "storage is open")
    stack.wait_healthy()
