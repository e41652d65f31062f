"""Copies of a shard as it was at one moment, for a backup to take away: hard links beside it, made in no time.

Owns: the directory ``checkpoints`` of a shard's directory. Must not know: what is backed up, sockets. Whoever asked for
a checkpoint holds a lock on its directory (flock) while it is copied, and removes it. One that nobody holds was
forgotten, by a command that was killed: the worker looks for such once a minute, and removes them.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from todomq.database_worker.storage import Storage, StorageFailed
from todomq.database_worker.storage.manifest import IDENTITY
from todomq.database_worker.storage.small_files import shard_advice
from todomq.errors import NOT_APPLIED, CorruptRecord, InvalidRequest

CHECKPOINTS = "checkpoints"
NEW_S = 60
"""Once a checkpoint is this old, whoever asked for it has taken its lock."""
_NAME = re.compile(r"[a-z0-9-]{1,64}")


def check_name(name: str) -> str:
    """Return a checkpoint's name: it becomes a directory's.

    Raises:
        InvalidRequest: it can't be one.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest("a checkpoint's name is 1 to 64 small letters, digits and dashes")
    return name


def make_checkpoint(storage: Storage, shard: Path, name: str) -> str:
    """Make the checkpoint of this name and return its directory: a shard's directory, whole and on disk.

    Raises:
        StorageFailed, CorruptRecord: as the storage does. InvalidRequest: there is one of this name.
    """
    directory = shard / CHECKPOINTS / name
    try:
        remove_forgotten(shard)
        if directory.exists():
            raise InvalidRequest(f"{directory} is there already")
        try:
            storage.checkpoint(directory)
            (directory / IDENTITY).write_bytes((shard / IDENTITY).read_bytes())
        except BaseException:
            _remove(directory)
            raise
    except FileNotFoundError as error:
        raise CorruptRecord(f"{error.filename} is missing; {shard_advice(shard)}") from None
    except OSError as error:
        raise StorageFailed(f"no checkpoint was made in {directory}: {error}", outcome=NOT_APPLIED) from None
    return str(directory)


def hold_checkpoint(directory: Path) -> int:
    """Keep a checkpoint from being removed as forgotten while the descriptor that is returned is open.

    Raises:
        OSError: it is gone.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def remove_forgotten(shard: Path) -> None:
    """Remove the checkpoints that nobody holds, but for those that were made just now."""
    checkpoints = shard / CHECKPOINTS
    for found in checkpoints.iterdir() if checkpoints.is_dir() else ():
        with suppress(OSError):  # it is held, or whoever made it removes it meanwhile
            descriptor = os.open(found, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if abs(time.time() - found.stat().st_mtime) >= NEW_S:  # the clock may have been set back
                    _remove(found)
            finally:
                os.close(descriptor)


def _remove(directory: Path) -> None:
    import shutil  # here only: a worker's restart need not wait for it

    shutil.rmtree(directory, ignore_errors=True)
