"""A backup taken while clients add: consistent, verified, restored; and what each command refuses."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from load import Load
from stacks import RunningStack, kept_running, wait_until

from todomq import Client, Via
from todomq.backup.catalogue import write_catalogue
from todomq.backup.restore import restore_all
from todomq.backup.take import take_backup
from todomq.database_worker.checkpoints import hold_checkpoint
from todomq.settings import read_settings

Make = Callable[..., RunningStack]
ENTRIES = int(os.environ.get("TODOMQ_BACKUP_ENTRIES", "5000"))


@pytest.fixture
def backup(tmp_path: Path) -> Iterator[Path]:
    """Return where a backup is to be made."""
    yield tmp_path / "backup"
    shutil.rmtree(tmp_path / "backup", ignore_errors=True)


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[RunningStack]:
    """Return a running stack that ends nothing because it hangs; every test leaves it healthy."""
    yield from kept_running(RunningStack(TODOMQ_LEASE_MS="600000", TODOMQ_MAX_RESTARTS="1000000"))


@pytest.fixture(scope="module")
def stopped_stack() -> Iterator[RunningStack]:
    """Return a stopped stack with a list and, in its home, a backup; every test leaves both as they were."""
    for running in kept_running(RunningStack()):
        todomq(running, "add", "Bob's list", "milk")
        todomq(running, "backup", str(backup_of(running)))
        running.stop()
        yield running


def backup_of(stopped_stack: RunningStack) -> Path:
    """Return where the backup of the stopped stack is."""
    return stopped_stack.home / "backup"


@contextmanager
def without_data(stopped_stack: RunningStack) -> Iterator[Path]:
    """Move the data away and give where they were; put them back in the place of what is there then."""
    data = stopped_stack.home / "data"
    aside = data.rename(stopped_stack.home / "aside")
    try:
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)
        aside.rename(data)


def files_in(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each file was changed and what it holds, by path."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def watched_by_nobody(step: str, size: int) -> Callable[[int], None]:
    return lambda done: None


def todomq(stack: RunningStack, *arguments: str, code: int = 0) -> str:
    """Run a command and return all that it said."""
    done = stack.run("todomq.cli", *arguments)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_backup_under_load_holds_all_that_was_acknowledged_before_and_each_list_as_it_was_at_one_moment(
    shared_stack: RunningStack, make_stack: Make, backup: Path
) -> None:
    stack, other = shared_stack, make_stack(TODOMQ_LIST_SERVERS="1")
    with Client(stack.endpoint, deadline_s=30.0) as todo, todo.pipeline() as pipeline:
        for number in range(ENTRIES):
            pipeline.todo_list(f"filled {number % 1_000}").add_entry("x" * 100)
    with Load(stack.endpoint, "backed up") as load:
        quiet_s = max(end - begun for begun, end in load.answered)
        before = {name: list(titles) for name, titles in load.acknowledged.items()}
        since = time.monotonic()
        taken = json.loads(todomq(stack, "backup", str(backup), "--json"))
        took_s, slowest_s, seen = time.monotonic() - since, load.slowest_s(since), len(load.answered)
        todomq(stack, "verify")  # of the running stack, under load as well
    print(f"{ENTRIES} entries backed up in {took_s:.1f} s; the slowest add meanwhile {slowest_s * 1000:.0f} ms, before "
          f"{quiet_s * 1000:.0f} ms")  # fmt: skip
    assert not load.failures and len(load.answered) > seen
    assert taken["shards"] == 3 and taken["bytes"] > 0
    assert not list((stack.home / "data").glob("worker-*/checkpoints/*")), "nothing is left in the stack"
    todomq(stack, "verify", str(backup))
    todomq(other, "restore", str(backup))
    todomq(other, "verify")
    other.start()
    with Client(other.endpoint) as todo:
        restored = todo.list_names("backed up")
        assert set(restored) >= set(before)
        for name in restored:
            entries = todo.todo_list(name).entries()
            titles = [entry.title for entry in entries]
            assert [entry.id for entry in entries] == list(range(1, len(entries) + 1))
            assert titles[: len(before.get(name, []))] == before.get(name, []), "acknowledged before, so it is there"
            sent = load.acknowledged[name]
            assert titles == sent[: len(titles)], "no gap: the list is as it was at one moment"
        todo.todo_list("backed up 0 0").add_entry("goes on")
    load.check(stack.endpoint)


def test_what_backup_restore_and_verify_refuse_of_a_running_stack_changes_nothing_and_says_what_to_do(
    shared_stack: RunningStack, backup: Path
) -> None:
    stack = shared_stack
    with Client(stack.endpoint) as todo:
        todo.todo_list("Bob's list").add_entry("milk")
        assert "is no backup" in todomq(stack, "verify", str(stack.home), code=1)
        assert "no directory" in todomq(stack, "verify", str(backup), code=2)
        todomq(stack, "backup", str(backup))
        before = files_in(backup)
        assert "not empty" in todomq(stack, "backup", str(backup), code=1)
        assert "stop it first: todomq down" in todomq(stack, "restore", str(backup), code=1)
        assert "stop it first: todomq down" in todomq(stack, "restore", str(backup), "--worker", "1", code=1)
        assert files_in(backup) == before
        todo.todo_list("Bob's list").add_entry("bread")
        assert [entry.title for entry in todo.todo_list("Bob's list").entries()] == ["milk", "bread"]


def test_what_backup_restore_and_verify_refuse_of_a_stopped_stack_changes_nothing_and_says_what_to_do(
    stopped_stack: RunningStack, make_stack: Make, backup: Path
) -> None:
    before = files_in(stopped_stack.home / "data")
    assert "move it away first" in todomq(stopped_stack, "restore", str(backup_of(stopped_stack)), code=1)
    assert files_in(stopped_stack.home / "data") == before
    other = make_stack(TODOMQ_DATABASE_WORKERS="2")
    assert "start one with: todomq up" in todomq(other, "backup", str(backup), code=3)
    assert not backup.exists()
    assert "does not exist" in todomq(other, "verify", code=1)
    assert "set TODOMQ_DATABASE_WORKERS=3" in todomq(other, "restore", str(backup_of(stopped_stack)))


def test_a_backup_with_a_damaged_table_is_told_by_verify_and_not_restored(
    stopped_stack: RunningStack, make_stack: Make, backup: Path
) -> None:
    shutil.copytree(backup_of(stopped_stack), backup)
    table = next((backup / "data").glob("worker-*/rocksdb/*.sst"))
    whole = table.read_bytes()
    table.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    assert table.name in todomq(stopped_stack, "verify", str(backup), code=1)
    fresh = make_stack()
    assert f"{table.name} is damaged" in todomq(fresh, "restore", str(backup), code=1)
    assert not (fresh.home / "data").exists() and not list(fresh.home.glob("*.restoring"))


def test_a_backup_that_fails_at_its_very_end_leaves_nothing_of_its_own(
    shared_stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("todomq.backup.take.sync_tree", lambda _: monkeypatch.setattr(json, "dump", full))
    with Client(shared_stack.endpoint) as todo, pytest.raises(OSError, match="No space left"):
        take_backup(todo, shared_stack.home / "data", tmp_path / "new" / "deep" / "backup", watched_by_nobody)
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_interrupted_once_its_catalogue_is_there_leaves_nothing_of_its_own(
    shared_stack: RunningStack, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*written: Any) -> None:
        write_catalogue(*written)
        raise KeyboardInterrupt

    monkeypatch.setattr("todomq.backup.take.write_catalogue", interrupted)
    with Client(shared_stack.endpoint) as todo, pytest.raises(KeyboardInterrupt):
        take_backup(todo, shared_stack.home / "data", backup, watched_by_nobody)
    assert not backup.exists()


@pytest.mark.parametrize("what", ["backup", "data"])
def test_verify_changes_no_file_and_needs_to_write_none(stopped_stack: RunningStack, what: str) -> None:
    directory = stopped_stack.home / what
    words = ["verify", *([str(directory)] if what == "backup" else [])]
    before = files_in(directory)
    todomq(stopped_stack, *words)
    assert files_in(directory) == before
    with read_only(directory):
        done = stopped_stack.run_bound_by_permissions("todomq.cli", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files_in(directory) == before


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Let nobody write a directory, nor what is in it."""
    modes = {path: path.stat().st_mode for path in (directory, *directory.rglob("*"))}
    try:
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_law_8_verify_of_a_stopped_stack_misses_data_that_are_gone_or_of_another(
    stopped_stack: RunningStack, shared_stack: RunningStack, backup: Path
) -> None:
    todomq(shared_stack, "backup", str(backup))
    with without_data(stopped_stack) as data:
        assert f"by {stopped_stack.home}/stack there was some" in todomq(stopped_stack, "verify", code=1)
        shutil.copytree(backup / "data", data)
        assert "is of another stack than the one whose data was there" in todomq(stopped_stack, "verify", code=1)
    todomq(stopped_stack, "verify")


def test_a_shard_that_is_a_link_to_another_disk_is_backed_up_and_verified(
    stopped_stack: RunningStack, backup: Path, tmp_path: Path
) -> None:
    shard = stopped_stack.home / "data" / "worker-2"
    elsewhere = shard.rename(tmp_path / "another disk")
    shard.symlink_to(elsewhere)
    try:
        stopped_stack.start()
        todomq(stopped_stack, "backup", str(backup))
        todomq(stopped_stack, "verify", str(backup))
        todomq(stopped_stack, "verify")
    finally:
        stopped_stack.stop()
        shard.unlink()
        elsewhere.rename(shard)


def test_a_backup_is_not_taken_into_the_data_itself_nor_into_a_file(
    shared_stack: RunningStack, tmp_path: Path
) -> None:
    stack = shared_stack
    (tmp_path / "file").write_text("kept")
    assert f"{tmp_path / 'file'} is no directory" in todomq(stack, "backup", str(tmp_path / "file"), code=1)
    assert "/dev/null is no directory" in todomq(stack, "backup", "/dev/null", code=1)
    assert "name a directory elsewhere" in todomq(stack, "backup", str(stack.home / "data" / "mine"), code=1)
    assert not (stack.home / "data" / "mine").exists()


def test_law_8_where_a_restore_fails_what_was_noted_of_the_data_before_is_noted_still(
    stopped_stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings({**os.environ, "TODOMQ_HOME": str(stopped_stack.home)})
    before = settings.note_of_data.read_bytes()
    noted: list[bytes] = []

    def fails(path: Path, target: Path) -> None:
        noted.append(settings.note_of_data.read_bytes())
        raise OSError(errno.EIO, "Input/output error")

    with without_data(stopped_stack):
        with monkeypatch.context() as broken:
            broken.setattr(Path, "rename", fails)
            with pytest.raises(OSError, match="Input/output"):
                restore_all(backup_of(stopped_stack), settings, watched_by_nobody)
        assert settings.note_of_data.read_bytes() == before and len(noted) == 1 and noted[0]
        restore_all(backup_of(stopped_stack), settings, watched_by_nobody)
        todomq(stopped_stack, "verify")


@pytest.mark.parametrize("kept", ["data", "data/manifest", "data/worker-1", "data/worker-2/identity"])
def test_law_8_what_a_user_may_not_read_is_not_told_as_damage(stopped_stack: RunningStack, kept: str) -> None:
    path = stopped_stack.home / kept
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        done = stopped_stack.run_bound_by_permissions("todomq.cli", "verify")
    finally:
        path.chmod(mode)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: Permission denied; run this as the stack's user" in done.stderr
    assert "restore" not in done.stderr and len(done.stderr.splitlines()) == 1
    todomq(stopped_stack, "verify")


def test_the_command_that_a_backup_prints_can_be_typed_as_it_is(shared_stack: RunningStack, tmp_path: Path) -> None:
    elsewhere = {"TODOMQ_ENDPOINT": "tcp://127.0.0.1:1"}  # whose data would be saved as this home's
    done = shared_stack.run("todomq.cli", "backup", str(tmp_path / "of $HOME and 'more'"), settings=elsewhere)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    typed = said.strip().partition("Check it with: todomq ")[2]
    todomq(shared_stack, *shlex.split(typed))


def test_a_directory_of_data_that_is_a_link_to_another_disk_is_restored_into_and_emptied(
    stopped_stack: RunningStack, make_stack: Make, tmp_path: Path
) -> None:
    other, disk = make_stack(), tmp_path / "disk"
    disk.mkdir()
    (other.home / "data").symlink_to(disk)
    todomq(other, "restore", str(backup_of(stopped_stack)))
    todomq(other, "verify")
    assert (disk / "manifest").exists() and not list(tmp_path.glob("*.restoring"))
    left = other.home / "data.restoring"  # by a restore that was killed
    left.mkdir()
    todomq(other, "down", "--remove-data", "--yes")
    assert (other.home / "data").is_symlink() and not list(disk.iterdir()) and not left.exists()


def test_one_shard_that_is_damaged_or_gone_is_restored_and_the_lists_of_the_others_stay_as_they_are(
    stack: RunningStack, backup: Path
) -> None:
    names = [f"list {n}" for n in range(30)]
    with Client(stack.endpoint) as todo:
        for name in names:
            todo.todo_list(name).add_entry("before")
        todomq(stack, "backup", str(backup))
        for name in names:
            todo.todo_list(name).add_entry("after")
    stack.stop()
    (stack.home / "data" / "worker-2" / "rocksdb" / "CURRENT").write_bytes(b"nonsense")
    assert "CURRENT" in todomq(stack, "verify", code=1)
    restored = json.loads(todomq(stack, "restore", str(backup), "--worker", "2", "--json"))
    assert (Path(restored["replaced"]) / "rocksdb" / "CURRENT").read_bytes() == b"nonsense"
    shard = stack.home / "data" / "worker-2"
    shutil.rmtree(shard)
    shard.symlink_to("a disk that is gone")
    restored = json.loads(todomq(stack, "restore", str(backup), "--worker", "2", "--json"))
    assert Path(restored["replaced"]).is_symlink() and not shard.is_symlink()
    stack.start()
    with Client(stack.endpoint) as todo:
        found = {name: [entry.title for entry in todo.todo_list(name).entries()] for name in names}
    assert {tuple(titles) for titles in found.values()} == {("before",), ("before", "after")}
    assert sum(titles == ["before"] for titles in found.values()) < len(names) / 2


def test_what_others_put_into_the_directory_meanwhile_stays_where_a_backup_fails(
    shared_stack: RunningStack, backup: Path
) -> None:
    stack = shared_stack
    command = [sys.executable, "-m", "todomq.cli", "backup", str(backup)]
    worker = stack.kill("database_worker-3", signal.SIGSTOP)
    try:
        with subprocess.Popen(command, env=stack.environment) as first:
            checkpoints = list_when(lambda: list((stack.home / "data").glob("worker-*/checkpoints/*")))
            (backup / "somebody else's").write_text("kept")
            assert "not empty" in todomq(stack, "backup", str(backup), code=1)
            first.send_signal(signal.SIGTERM)
            assert first.wait(30) == 128 + signal.SIGTERM
        assert not any(path.exists() for path in checkpoints), "a command that is ended removes what it had made"
    finally:
        os.kill(worker, signal.SIGCONT)
    assert [path.name for path in backup.iterdir()] == ["somebody else's"]
    stack.wait_healthy()


def test_checkpoints_of_a_command_that_was_killed_go_with_the_workers_next_life_and_held_ones_stay(
    shared_stack: RunningStack,
) -> None:
    with Client(shared_stack.endpoint) as todo:
        held, forgotten, new = (
            Path(todo.call(Via(["database_worker", 1]), "checkpoint", name)) for name in ("held", "forgotten", "new")
        )
    hour_ago_s = time.time() - 3_600
    for path in (held, forgotten):
        os.utime(path, (hour_ago_s, hour_ago_s))
    lock = hold_checkpoint(held)
    try:
        shared_stack.wait_restarted("database_worker-1", shared_stack.kill("database_worker-1"))
        wait_until(lambda: not forgotten.exists(), 10, "what nobody holds is removed")
        assert held.exists() and new.exists()
    finally:
        os.close(lock)
        for path in (held, new):
            shutil.rmtree(path)


def test_verify_of_a_running_stack_tells_of_what_the_next_start_would_refuse(shared_stack: RunningStack) -> None:
    shard, aside = shared_stack.home / "data" / "worker-2", shared_stack.home / "aside"
    for file in ("acknowledged", "identity"):
        (shard / file).rename(aside)
        try:
            assert str(shard / file) in todomq(shared_stack, "verify", code=1)
        finally:
            aside.rename(shard / file)  # the file itself: the worker has it open
    todomq(shared_stack, "verify")
    shared_stack.wait_healthy()


@pytest.fixture
def data_on_a_disk_of_its_own(make_stack: Make) -> Iterator[RunningStack]:
    """Return a stack that never ran, where a file system of its own is mounted for its data."""
    stack = make_stack()
    data = stack.home / "data"
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(data)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting needs root: {mounted.stderr.strip()}")
    try:
        yield stack
    finally:
        if data.is_mount():
            subprocess.run(["umount", "--lazy", str(data)], check=True)


def test_a_disk_of_its_own_for_the_data_is_restored_into(
    data_on_a_disk_of_its_own: RunningStack, stopped_stack: RunningStack
) -> None:
    stack, data = data_on_a_disk_of_its_own, data_on_a_disk_of_its_own.home / "data"
    todomq(stack, "restore", str(backup_of(stopped_stack)))
    assert not (data / "data.restoring").exists()
    stack.start()
    assert "milk" in todomq(stack, "ls", "Bob's list")
    todomq(stack, "down", "--remove-data", "--yes")
    assert not list(data.iterdir()), "the disk stays, empty"
    stack.start()
    assert "milk" not in todomq(stack, "ls", "Bob's list")
    stack.stop()
    subprocess.run(["umount", "--lazy", str(data)], check=True)
    assert "no data" in todomq(stack, "up", code=1), "the disk is away, which is not a new stack"
    todomq(stack, "down", "--remove-data", "--yes")
    stack.start()


def list_when(found: Callable[[], list[Path]]) -> list[Path]:
    """Wait until something is found and return it."""
    return wait_until(found, 30, "something is there")
