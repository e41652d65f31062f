"""What must at least be in a shard: the file ``acknowledged`` beside RocksDB's directory.

Owns: the file and its copy, their form and their syncs. Used by ``rocksdb.py``, under its lock.

It holds RocksDB's sequence number behind the last acknowledged write, and the number and size of the MANIFEST then.
It is written in place after every sync of the log, and synced itself about once a second: it survives every death of
the process, and may lag after a power cut. Law 8: a missing or damaged one is an error that names it.

What was synced is copied to a file outside of the shard's directory, ``acknowledged.worker-N``: an older copy of a
whole directory, put back by hand, is not taken for all there was. Without that file there is nothing to compare with.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from todomq.database_worker.storage import StorageFailed
from todomq.database_worker.storage.small_files import MISSING, unchanged_advice
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
        self._copy = copy_outside(directory)
        self._is_synced = True
        self._copy_descriptors: list[int] = []  # none, or one
        try:
            self._descriptor = os.open(self._path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except MISSING as error:
            raise CorruptRecord(f"{self._path}: {error.strerror}; {unchanged_advice(self._path)}") from None
        if not read_only:
            # It is opened now, so that it is written where it is: ``data`` may be moved away, or no longer mounted.
            with suppress(OSError):  # without room for it a net is missing, and nothing else
                self._copy_descriptors.append(os.open(self._copy, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

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
            CorruptRecord: it is damaged, or says less than it said once.
        """
        mark = _unpacked(os.pread(self._descriptor, _BYTES + 1, 0))
        if mark is None:
            raise CorruptRecord(f"{self._path} is damaged; {unchanged_advice(self._path)}")
        self._check_is_newest(mark)
        return mark

    def write(self, mark: Mark) -> None:
        """Write it in place, without a sync."""
        os.pwrite(self._descriptor, mark.packed(), 0)
        self._is_synced = False

    def to_sync(self) -> list[int]:
        """Return the descriptors for ``sync``; none where nothing is new since the last."""
        if self._is_synced:
            return []
        descriptors: list[int] = []
        try:
            for descriptor in (self._descriptor, *self._copy_descriptors):
                descriptors.append(os.dup(descriptor))
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self._is_synced = True
        return descriptors

    @staticmethod
    def sync(descriptors: list[int]) -> None:
        """Sync the file, then copy what is synced for certain; needs no lock, and it may be closed meanwhile.

        Raises:
            OSError: it can't be synced.
        """
        if not descriptors:
            return
        acknowledged, *copies = descriptors
        try:
            packed = os.pread(acknowledged, _BYTES, 0)
            os.fdatasync(acknowledged)
            if _unpacked(packed) is not None:  # else it was read while it was written; the next time is soon
                with suppress(OSError):  # as when it was opened
                    for copy in copies:
                        os.pwrite(copy, packed, 0)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def check_in_place(self) -> None:
        """Check that the shard's directory is the one that was opened.

        Raises:
            StorageFailed: it was moved away, and another one is in its place. OSError: none is.
        """
        ours, there = os.fstat(self._descriptor), os.stat(self._path)
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise StorageFailed(f"{self._path.parent} was replaced while it was open")

    def close(self) -> None:
        """Close the files."""
        for descriptor in (self._descriptor, *self._copy_descriptors):
            os.close(descriptor)

    def _check_is_newest(self, mark: Mark) -> None:
        with suppress(FileNotFoundError):
            found = self._copy.read_bytes()
            if not found:
                return  # a power cut came before its first bytes
            newest = _unpacked(found)
            if newest is None:
                raise CorruptRecord(f"{self._copy} is damaged; where {self._path.parent} is whole, remove it")
            if mark.sequence < newest.sequence:
                raise CorruptRecord(
                    f"{self._path.parent} is an older copy: it ends at write {mark.sequence} though {newest.sequence} "
                    f"were acknowledged, by {self._copy}; put back what was there, or remove that file if this is meant"
                )


def copy_outside(directory: Path) -> Path:
    """Return where the copy for a shard's directory lies, which goes where another one is put there on purpose."""
    return directory.with_name(f"{ACKNOWLEDGED}.{directory.name}")


def _unpacked(found: bytes) -> Mark | None:
    """Return what a file says, or None where it is damaged."""
    fields = found[: _FIELDS.size]
    if len(found) != _BYTES or zlib.crc32(fields).to_bytes(4, "big") != found[_FIELDS.size :]:
        return None
    return Mark(*_FIELDS.unpack(fields))
