"""How much room the disk of a shard has, and what is told where it is not enough.

Owns: the looks at the file system, the words of a full disk. Must not know: the engine. Used by ``rocksdb.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

from todomq.database_worker.storage import StorageFailed
from todomq.errors import NOT_APPLIED

_OPENING_BYTES = 1 << 20  # what opening writes besides what the logs hold: a MANIFEST, OPTIONS


def lack_of_room(directory: Path, reserve_bytes: int) -> str:
    """Return why there is no room for changes: less is left than the reserve. Empty where there is."""
    free_bytes = _free_bytes(directory)
    if free_bytes >= reserve_bytes:
        return ""
    return (
        f"the disk is full: {_mebibytes(free_bytes)} are left at {directory} and "
        f"{_mebibytes(reserve_bytes)} are kept in reserve (TODOMQ_RESERVE_BYTES); free some room"
    )


def check_room_to_open(directory: Path, log_bytes: int) -> None:
    """Refuse at once what would fail after much work: opening writes all that the logs hold to tables.

    Raises:
        StorageFailed: there is too little room.
    """
    _check_room(directory, log_bytes, "to take changes again", retryable=True)


def check_room_to_flush(directory: Path, memory_bytes: int) -> None:
    """Refuse to write a shard's memory to a table if there is no room: the engine would then fail for good.

    Raises:
        StorageFailed: there is too little room.
    """
    _check_room(directory, memory_bytes, "to copy the shard", retryable=False)


def _check_room(directory: Path, written_bytes: int, what_for: str, *, retryable: bool) -> None:
    needed_bytes, free_bytes = _OPENING_BYTES + written_bytes, _free_bytes(directory)
    if free_bytes < needed_bytes:
        raise StorageFailed(
            f"the disk is full: {_mebibytes(free_bytes)} are left at {directory} and {_mebibytes(needed_bytes)} are "
            f"needed {what_for}; free some room",
            retryable=retryable,
            outcome=NOT_APPLIED,
        )


def _free_bytes(directory: Path) -> int:
    try:
        found = os.statvfs(directory)
    except OSError as error:
        raise StorageFailed(f"{directory}: {error.strerror}", outcome=NOT_APPLIED) from None
    return found.f_bavail * found.f_frsize


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
