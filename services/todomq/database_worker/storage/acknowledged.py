"""What must at least be in a shard: the file ``acknowledged`` beside RocksDB's directory.

Owns: the file, its form and its syncs. Used by ``rocksdb.py``, under its lock.

It holds RocksDB's sequence number behind the last acknowledged write, and the number and size of the MANIFEST then.
It is written in place after every sync of the log, and synced itself about once a second: it survives every death of
the process, and may lag after a power cut. Law 8: a missing or damaged one is an error that names it.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from todomq.database_worker.storage import StorageFailed
from todomq.database_worker.storage.small_files import MISSING, SHARD_ADVICE
from todomq.errors import CorruptRecord

ACKNOWLEDGED = "acknowledged"
_FIELDS = Struct(">QQQ")  # a CRC-32 of them follows
_BYTES = _FIELDS.size + 4


class Mark(NamedTuple):
    """What was acknowledged: RocksDB's sequence number, MANIFEST's number, MANIFEST's bytes."""

    sequence: int
    manifest: int
    manifest_bytes: int

    def packed(self) -> bytes:
        """Return the mark as it stands in the file."""
        fields = _FIELDS.pack(*self)
        return fields + zlib.crc32(fields).to_bytes(4, "big")


NOTHING = Mark(0, 0, 0)


class Acknowledged:
    """The file of one shard, open."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        """Open it.

        Raises:
            CorruptRecord: it is missing. OSError: it cannot be opened at the moment, or by this user.
        """
        self._path = directory / ACKNOWLEDGED
        self._is_synced = True
        try:
            self._descriptor = os.open(self._path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except MISSING as error:
            raise CorruptRecord(f"{self._path}: {error.strerror}; nothing was changed; {SHARD_ADVICE}") from None

    @staticmethod
    def create(directory: Path, mark: Mark) -> None:
        """Make the file; it is on disk when this returns, but for its name."""
        descriptor = os.open(directory / ACKNOWLEDGED, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, mark.packed(), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> Mark:
        """Return what it says.

        Raises:
            CorruptRecord: it is damaged.
        """
        found = os.pread(self._descriptor, _BYTES + 1, 0)
        fields = found[: _FIELDS.size]
        if len(found) != _BYTES or zlib.crc32(fields).to_bytes(4, "big") != found[_FIELDS.size :]:
            raise CorruptRecord(f"{self._path} is damaged; nothing was changed; {SHARD_ADVICE}")
        return Mark(*_FIELDS.unpack(fields))

    def write(self, mark: Mark) -> None:
        """Write it in place, without a sync."""
        os.pwrite(self._descriptor, mark.packed(), 0)
        self._is_synced = False

    def to_sync(self) -> int | None:
        """Return a descriptor to sync and to close, of the caller's own; None where nothing is new since the last."""
        if self._is_synced:
            return None
        self._is_synced = True
        return os.dup(self._descriptor)

    def check_in_place(self) -> None:
        """Check that the shard's directory is the one that was opened.

        Raises:
            StorageFailed: it was moved away, and another one is in its place. OSError: none is.
        """
        ours, there = os.fstat(self._descriptor), os.stat(self._path)
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise StorageFailed(f"{self._path.parent} was replaced while it was open")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
