"""Which directories the shards of a stack live in, and whether this worker may open its own.

Owns: the file ``manifest`` in the data directory, the directories ``worker-1`` to ``worker-n``, and the file
``identity`` in each. Must not know: the engine, which fills a new directory through ``fill``.

Law 8: a directory that must be there and is not, or is not ours, is an error that names it; it is never made anew in
its place. The manifest says which directories have been made. A directory is filled under another name, synced,
renamed, and only then noted, so a crash at any point leaves either nothing or a directory whose identity is right.
That there is data at all is noted outside of it, in the file ``stack`` of the home: where the data directory is gone,
or is a mount point of which the disk is away, that is not taken for a new stack.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from todomq.database_worker.storage.acknowledged import copy_outside
from todomq.database_worker.storage.small_files import ADVICE, read_file, shard_advice, sync_directory, write_file
from todomq.errors import CorruptRecord, InvalidRequest
from todomq.settings import SettingsError

MANIFEST = "manifest"
LOCK = "manifest.lock"
IDENTITY = "identity"
LOST_AND_FOUND = "lost+found"
"""The file system's own, where the data is a disk of its own."""
RESTORING = "data.restoring"
"""What a restore copies into, before it takes its place."""

_SHARD = re.compile(r"worker-([0-9]+)")
_OURS = re.compile(r"(manifest|(acknowledged\.)?worker-[0-9]+)(\..*)?|data\.restoring|lost\+found")


def shard_name(worker: int) -> str:
    """Return the name that the shard of this worker has in the data directory."""
    return f"worker-{worker}"


def shards_in(data: Path) -> dict[int, Path]:
    """Return the shards that lie in a data directory, by worker, whether the manifest knows of them or not."""
    found = {child: _SHARD.fullmatch(child.name) for child in data.glob("worker-*")}
    return dict(sorted((int(match[1]), child) for child, match in found.items() if match))


def opened_in(data: Path) -> list[Path]:
    """Return what workers open in a data directory, whether it is there or not; what else is there does not count."""
    shards = [*shards_in(data).values()]
    return [data / MANIFEST, data / LOCK, *shards, *map(copy_outside, shards)]


def shard_directory(data: Path, worker: int, pool_size: int, fill: Callable[[Path], None], note: Path) -> Path:
    """Return this worker's directory, made and filled on its very first start.

    Args:
        data: the stack's data directory, made if need be.
        worker: the worker's number, from 1.
        pool_size: how many workers the settings ask for.
        fill: makes an empty shard in the directory it is given.
        note: the file outside that says which stack has its data there, written if need be.

    Raises:
        SettingsError: the data was made for another pool size, or by a newer version of TodoMQ.
        CorruptRecord: the data, its manifest, the directory or its identity is missing, damaged or foreign.
        OSError: the directory cannot be read or written.
    """
    if data.is_symlink() and not data.exists():
        raise CorruptRecord(f"{data} is a link to {data.readlink()}, and nothing is there; {ADVICE}")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _open_lock(data / LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a new stack all start at once
        manifest = _read_or_make_manifest(data, pool_size, note)
        if manifest["pool_size"] != pool_size:
            raise SettingsError(
                f"{data} holds the data of {manifest['pool_size']} database workers, not {pool_size}: "
                f"set TODOMQ_DATABASE_WORKERS={manifest['pool_size']}, or export, start on empty data and import"
            )
        directory = data / shard_name(worker)
        if worker not in manifest["made"]:
            if not directory.exists():
                _make(directory, {"stack": manifest["stack"], "worker": worker}, fill)
            check_identity(directory, manifest["stack"], worker)
            manifest["made"] = sorted([*manifest["made"], worker])
            write_file(data / MANIFEST, manifest)
        else:
            check_identity(directory, manifest["stack"], worker)
        return directory
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC, errno.EACCES):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # what can't be written may be read all the same


def write_note(note: Path, stack: str) -> None:
    """Note, outside of its data, that a stack has data.

    Raises:
        OSError: it cannot be written.
    """
    write_file(note, {"stack": stack})


def read_manifest(data: Path) -> dict[str, Any]:
    """Return what the manifest of a data directory says: ``stack``, ``pool_size``, ``made`` (workers).

    Raises:
        CorruptRecord, NewerFormat: it cannot be read.
    """
    return read_file(data / MANIFEST, {"stack": str, "pool_size": int, "made": list})


def check_is_ours(data: Path) -> None:
    """Check that a data directory holds nothing but what belongs to a stack.

    Raises:
        InvalidRequest: it holds something else; the text names it.
        OSError: it cannot be read.
    """
    others = sorted(path.name for path in data.iterdir() if not _OURS.fullmatch(path.name)) if data.exists() else []
    if others:
        raise InvalidRequest(
            f"{data} holds {others[0]}{' and more' if others[1:] else ''} that TodoMQ did not make; remove it by hand"
        )


def remove_data_in(data: Path) -> None:
    """Remove every stored list; where the directory is a disk of its own, or a link to one, that stays, empty.

    Raises:
        OSError: something cannot be removed.
    """
    import shutil  # see ``_make``

    directory = data.resolve()
    if not data.is_symlink() and not directory.is_mount():
        shutil.rmtree(directory)
        return
    for path in directory.iterdir():
        if path.name == LOST_AND_FOUND:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _read_or_make_manifest(data: Path, pool_size: int, note: Path) -> dict[str, Any]:
    path = data / MANIFEST
    noted = _noted(data, note)
    if path.exists():
        manifest = read_manifest(data)
        if noted is None:
            with suppress(OSError):  # on a full disk another start will do it
                write_note(note, manifest["stack"])
        elif noted != manifest["stack"]:
            raise _foreign(data, note)
        return manifest
    if (data / RESTORING).exists():
        raise CorruptRecord(f"{data} was being restored, and that was interrupted; empty it, and restore again")
    found = [child.name for child in shards_in(data).values()]
    if found:
        raise CorruptRecord(f"{path} is missing though {', '.join(found)} exist; {ADVICE}")
    if noted is not None:
        raise _lost(data, note)
    manifest = {"stack": os.urandom(16).hex(), "pool_size": pool_size, "made": []}
    write_file(path, manifest)
    write_note(note, manifest["stack"])
    return manifest


def check_noted(data: Path, note: Path) -> None:
    """Check that a data directory is what the note beside it tells of: there, and of the same stack.

    Raises:
        CorruptRecord, NewerFormat: it is not, or a file cannot be read.
    """
    noted = _noted(data, note)
    if noted is None:
        return
    if not data.exists() or all(path.name in (LOCK, LOST_AND_FOUND) for path in data.iterdir()):
        raise _lost(data, note)
    if read_manifest(data)["stack"] != noted:
        raise _foreign(data, note)


def _noted(data: Path, note: Path) -> str | None:
    """Return whose data is there, by the note outside of it: which stack's; None where there is no note."""
    if not note.exists():
        return None
    noted: str = read_file(note, {"stack": str}, f"where {data} is whole, remove it")["stack"]
    return noted


def _lost(data: Path, note: Path) -> CorruptRecord:
    return CorruptRecord(
        f"{data} has no data, and by {note} there was some; is a disk not mounted? Put it back, {ADVICE}, "
        "or begin anew: todomq down --remove-data"
    )


def _foreign(data: Path, note: Path) -> CorruptRecord:
    return CorruptRecord(
        f"{data} is of another stack than the one whose data was there, by {note}; "
        "put that back, or remove this file if the change is meant"
    )


def check_identity(directory: Path, stack: str, worker: int) -> None:
    """Check that a directory is the shard of this stack's worker.

    Raises:
        CorruptRecord, NewerFormat: it is not, or cannot be read.
    """
    if not directory.is_dir():
        raise CorruptRecord(f"{directory} is missing though it holds a shard of this stack; {shard_advice(directory)}")
    path = directory / IDENTITY
    if not path.exists():
        raise CorruptRecord(f"{path} is missing, so {directory} is not known to be ours; {shard_advice(directory)}")
    identity = read_file(path, {"stack": str, "worker": int}, shard_advice(directory))
    if identity["stack"] != stack:
        raise CorruptRecord(f"{directory} belongs to another stack; put this stack's own directory there")
    if identity["worker"] != worker:
        raise CorruptRecord(f"{directory} is the shard of worker {identity['worker']}; put the directories in place")


def _make(directory: Path, identity: dict[str, Any], fill: Callable[[Path], None]) -> None:
    import shutil  # of the first start only; it costs every other start some milliseconds

    unfinished = directory.with_name(directory.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a first start that a crash ended; nothing was ever stored in it
    unfinished.mkdir(mode=0o700)
    fill(unfinished)
    write_file(unfinished / IDENTITY, identity)
    unfinished.rename(directory)
    sync_directory(directory.parent)
