"""Take a backup of a running stack: a checkpoint of each shard, copied away with checksums.

Owns: the order of the steps. A backup is consistent list by list: every change acknowledged before it began is in it,
and each shard, so each list, is as it was at one moment. The catalogue is written last; without one there is no backup.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from todomq.backup.catalogue import (
    DATA,
    Advance,
    Catalogue,
    check_whole,
    copy_file,
    measure_file,
    remove_catalogue,
    sync_tree,
    write_catalogue,
)
from todomq.backup.checkpoints import checkpoints
from todomq.client import Client
from todomq.database_worker.storage.manifest import MANIFEST, read_manifest, shard_name
from todomq.database_worker.storage.small_files import sync_directory, write_file
from todomq.errors import InvalidRequest, TodoMQError


def take_backup(todo: Client, data: Path, backup: Path, begin: Callable[[str, int], Advance]) -> Catalogue:
    """Back up a running stack into a directory that is empty or does not exist; it is on disk when this returns.

    Args:
        todo: a client of the stack.
        data: where the stack keeps its data.
        backup: the directory.
        begin: begins a step of the work, to show its progress.

    Returns:
        what is in the backup.

    Raises:
        InvalidRequest: the directory is not empty, or within the stack's own data.
        TodoMQError, OSError: a shard or a file can't be copied; the text names it. Nothing is left of the backup.
    """
    todo.registry.names()  # if no stack answers, nothing is begun
    if backup.resolve().is_relative_to(data.resolve()):
        raise InvalidRequest(f"{backup} is within {data}, which it is to be a backup of; name a directory elsewhere")
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    copied, made_directories = _claim(backup)
    try:
        manifest = read_manifest(data)
        files: dict[str, tuple[int, str]] = {}
        with checkpoints(todo, data) as made:
            for worker, directory in made.items():
                if isinstance(directory, TodoMQError):
                    raise type(directory)(f"database_worker {worker}: {directory.text}", retryable=directory.retryable)
                files |= _copy(directory, copied, shard_name(worker), begin)
        manifest["made"] = list(range(1, manifest["pool_size"] + 1))
        write_file(copied / MANIFEST, manifest)
        files[MANIFEST] = measure_file(copied / MANIFEST)
        catalogue = Catalogue(manifest["stack"], manifest["pool_size"], made_at, files)
        check_whole(catalogue, copied)
        sync_tree(backup)
        write_catalogue(backup, catalogue)
    except BaseException:
        remove_catalogue(backup)  # an interrupt may have come after it was in place
        shutil.rmtree(copied, ignore_errors=True)
        _remove_directories(made_directories)
        raise
    return catalogue


def _claim(backup: Path) -> tuple[Path, list[Path]]:
    """Make the directory of the files inside an empty one: only one process can, so nobody else backs up there.

    Returns:
        that directory, and the directories above it that had to be made, the lowest first.

    Raises:
        InvalidRequest: the backup's directory is not empty, or is none.
    """
    not_empty = InvalidRequest(f"{backup} is not empty; name a directory that is, or that does not exist yet")
    if backup.exists() and not backup.is_dir():
        raise InvalidRequest(f"{backup} is no directory; name one that is empty, or that does not exist yet")
    made = _make_directories(backup)
    copied = backup / DATA
    try:
        copied.mkdir(mode=0o700)
    except FileExistsError:
        raise not_empty from None
    if [path for path in backup.iterdir() if path != copied]:
        copied.rmdir()
        raise not_empty
    return copied, made


def _make_directories(path: Path) -> list[Path]:
    """Make a directory and those above it that are missing; their names are on disk when this returns.

    Returns:
        those that were made, the lowest first.

    Raises:
        OSError: one cannot be made; none is left.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in missing:
            sync_directory(each.parent)
    except BaseException:
        _remove_directories(missing)
        raise
    return missing


def _remove_directories(paths: list[Path]) -> None:
    """Remove those of these directories that are empty, the lowest first."""
    for each in paths:
        with suppress(OSError):
            each.rmdir()


def _copy(source: Path, data: Path, shard: str, begin: Callable[[str, int], Advance]) -> dict[str, tuple[int, str]]:
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    advance = begin(f"copying {shard}", sum(path.stat().st_size for path in paths))
    names = {path: f"{shard}/{path.relative_to(source)}" for path in paths}
    return {name: copy_file(path, data / name, advance) for path, name in names.items()}
