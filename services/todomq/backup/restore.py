"""Restore a backup: a whole stack into an empty home, or one shard in the place of a damaged one.

Owns: the order of the steps; that nothing runs meanwhile. Every file is checked against the catalogue while it is
copied, and the copies are put in place at the end. For a whole stack that is one rename, so that it is restored whole
or not at all; if its data is a disk of its own, it is one rename for each shard, the manifest last. For one shard it is
two renames: if the process ends between them no shard is there, no daemon takes that for an empty one, and the same
command puts it right. No data is removed: a shard that is replaced is kept under another name.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from todomq.backup.catalogue import DATA, Advance, Catalogue, copy_file, read_catalogue, sync_tree
from todomq.daemons import socket_name
from todomq.database_worker.storage.acknowledged import copy_outside
from todomq.database_worker.storage.manifest import (
    LOCK,
    LOST_AND_FOUND,
    MANIFEST,
    RESTORING,
    read_manifest,
    shard_name,
    shards_in,
    write_note,
)
from todomq.database_worker.storage.small_files import sync_directory
from todomq.errors import CorruptRecord, InvalidRequest, Unavailable
from todomq.runtime import locks
from todomq.settings import Settings
from todomq.supervision.manager import Manager


def restore_all(backup: Path, settings: Settings, begin: Callable[[str, int], Advance]) -> Catalogue:
    """Restore a backup into the home of a stack that has no data and does not run.

    Args:
        backup: its directory.
        settings: of the stack.
        begin: begins a step of the work, to show its progress.

    Returns:
        what was restored.

    Raises:
        InvalidRequest: there is data already, or the stack runs.
        CorruptRecord, NewerFormat: the backup can't be used; nothing was restored. OSError: a file can't be copied.
    """
    catalogue = read_catalogue(backup)
    with _stopped(settings, catalogue.pool_size):
        data = settings.data.resolve()  # it may be a link to another disk
        is_disk = data.is_mount()
        beside = (LOCK, LOST_AND_FOUND, RESTORING) if is_disk else (LOCK,)
        if data.exists() and any(path.name not in beside for path in data.iterdir()):
            raise InvalidRequest(f"{data} is not empty, and restoring never replaces data; move it away first")
        unfinished = data / RESTORING if is_disk else data.with_name(RESTORING)
        with _removed_if_it_fails(unfinished):
            _copy(backup, catalogue.files, unfinished, "", begin)
            # Before there is data: if this ends in between, no daemon takes the missing data for a new stack.
            note = settings.note_of_data
            before = note.read_bytes() if note.exists() else None
            write_note(note, catalogue.stack)
            try:
                if is_disk:
                    _put_in_place(unfinished, data)
                else:
                    if data.exists():
                        (data / LOCK).unlink(missing_ok=True)
                    unfinished.rename(data)
            except BaseException:
                if before is None:
                    note.unlink()
                else:
                    note.write_bytes(before)
                raise
        sync_directory(data if is_disk else data.parent)
    return catalogue


def _put_in_place(restored: Path, data: Path) -> None:
    """Move the restored files into a directory that can't be replaced, the manifest last.

    If this ends before that, there are shards and no manifest, which no daemon takes for an empty stack.
    """
    for path in sorted(restored.iterdir(), key=lambda path: path.name == MANIFEST):
        path.rename(data / path.name)
    restored.rmdir()


def restore_worker(
    backup: Path, settings: Settings, worker: int, begin: Callable[[str, int], Advance]
) -> Path | None:
    """Put one worker's shard of a backup in the place of the stack's own, which is kept under another name.

    Its lists are as they were when the backup was made; all other shards stay as they are.

    Returns:
        where the replaced shard is kept; None if there is none.

    Raises:
        InvalidRequest: the backup is of another stack or has no such worker, the stack runs, or the shard is a disk of
            its own.
        CorruptRecord, NewerFormat, OSError: as ``restore_all``.
    """
    catalogue = read_catalogue(backup)
    files = catalogue.of_worker(worker)
    if not files:
        raise InvalidRequest(f"the backup has no database worker {worker}, only 1 to {catalogue.pool_size}")
    with _stopped(settings, catalogue.pool_size):
        if not (settings.data / MANIFEST).exists() and not shards_in(settings.data):
            raise InvalidRequest(f"{settings.data} has no data; restore all of it: todomq restore {backup}")
        manifest = read_manifest(settings.data)
        if (manifest["stack"], manifest["pool_size"]) != (catalogue.stack, catalogue.pool_size):
            raise InvalidRequest(f"the backup is of another stack than {settings.data}; restore it into an empty home")
        shard = settings.data / shard_name(worker)
        if os.path.ismount(shard):  # Path.is_mount looks through links
            raise InvalidRequest(f"{shard} is a disk of its own, which can't be replaced; unmount it first")
        unfinished = shard.with_name(shard.name + ".restoring")
        with _removed_if_it_fails(unfinished):
            _copy(backup, files, unfinished, f"{shard.name}/", begin)
            kept: Path | None
            if shard.is_symlink() or shard.exists():
                kept = shard.rename(shard.with_name(f"{shard.name}.replaced-{time.time_ns() // 1_000_000}"))
            else:  # a restore that was interrupted may have renamed it
                kept = max(settings.data.glob(f"{shard.name}.replaced-*"), default=None)
            copy_outside(shard).unlink(missing_ok=True)  # it tells of the shard that was there
            unfinished.rename(shard)
        sync_directory(settings.data)
    return kept


def _copy(
    backup: Path, files: dict[str, tuple[int, str]], target: Path, below: str, begin: Callable[[str, int], Advance]
) -> None:
    """Copy files and check them."""
    shutil.rmtree(target, ignore_errors=True)  # of a restore that was interrupted
    target.mkdir(parents=True, mode=0o700)
    advance = begin("restoring", sum(size for size, _ in files.values()))
    for name, held in files.items():
        try:
            found = copy_file(backup / DATA / name, target / name.removeprefix(below), advance)
        except FileNotFoundError as error:
            raise CorruptRecord(f"{error.filename} is missing from the backup; nothing was restored") from None
        if found != held:
            raise CorruptRecord(
                f"{backup / DATA / name} is damaged: its checksum is not the one that it was backed up with; "
                "nothing was restored"
            )
    sync_tree(target)


@contextmanager
def _removed_if_it_fails(unfinished: Path) -> Iterator[None]:
    """Remove the copies if putting them in place fails."""
    try:
        yield
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _stopped(settings: Settings, pool_size: int) -> Iterator[None]:
    """Make sure that the stack does not run and can't start meanwhile."""
    runs = InvalidRequest(f"the stack in {settings.home} runs; stop it first: todomq down")
    with suppress(Unavailable):
        Manager(settings).pid()
        raise runs
    locks.private_directory(settings.run)
    held: list[int] = []
    try:
        try:
            held.append(locks.hold(settings.run / locks.STACK_LOCK, 0.0))
            for worker in range(1, pool_size + 1):
                name = socket_name(["database_worker", worker])
                held.append(locks.hold(settings.run / f"{name}.lock", 0.0))
        except Unavailable:
            raise runs from None
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
