"""Copies of a shard as it was at one moment, for a backup to take away: hard links beside it, made in no time.

Owns: the directory ``checkpoints`` of a shard's directory. Must not know: what is backed up, sockets. Whoever asked for
a checkpoint removes it; what was forgotten for an hour is removed when the next one is made.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from todomq.database_worker.storage import Storage, StorageFailed
from todomq.database_worker.storage.manifest import IDENTITY
from todomq.errors import NOT_APPLIED, InvalidRequest

CHECKPOINTS = "checkpoints"
FORGOTTEN_S = 3_600
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
        StorageFailed, CorruptRecord: as the storage does; there is one of this name.
    """
    directory = shard / CHECKPOINTS / name
    try:
        _remove_forgotten(directory.parent)
        storage.checkpoint(directory)
        (directory / IDENTITY).write_bytes((shard / IDENTITY).read_bytes())
    except OSError as error:
        raise StorageFailed(f"no checkpoint was made in {directory}: {error}", outcome=NOT_APPLIED) from None
    return str(directory)


def _remove_forgotten(checkpoints: Path) -> None:
    if not checkpoints.is_dir():
        return
    import shutil  # here only: a worker's restart need not wait for it

    for found in checkpoints.iterdir():
        if time.time() - found.stat().st_mtime > FORGOTTEN_S:
            shutil.rmtree(found, ignore_errors=True)
