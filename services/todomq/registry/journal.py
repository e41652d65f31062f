"""The journal: the names that are held, by whom and under which lease, kept for the registry's next life.

Owns: one append-only file of checked records, rewritten when most of it is out of date. Must not know: whether the
processes live; the operating system is asked that when the registry starts. Used by ``service.py``. Renewing a lease
writes nothing.

It need not outlive the machine, since the processes do not. So nothing is synced (what is written survives the
registry's own death in the page cache), and the file is named after the boot it belongs to; others are removed. A
second file names the boot for which there must be a journal.

A record is ``length, CRC-32 of the length's bytes, CRC-32 of the payload`` (big-endian, 32 bits each) and the payload:
``[lost]`` first (why names are missing, empty text if none are), then ``[key, name, address, pid, start time,
incarnation, lease in ms]`` or ``[key]`` for a key that is forgotten. Pid and start time are nil for a process of
another machine; a record without a lease is of an earlier version.

Law 8: a torn last record is what a death in the middle of a write leaves, and is dropped. Any other damage is an error
that names the file and the place, and so is a file that is gone. A damaged file is put aside; the new one says for as
long as it exists that names were lost.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from todomq.errors import CorruptRecord, TodoMQError
from todomq.protocol.codec import pack, unpack
from todomq.protocol.registration import Registration
from todomq.registry.registrations import Process, Remember

SLACK_BYTES = 64 * 1024
"""How much more than twice its living records the file may hold before it is rewritten."""

_HEADER = struct.Struct(">III")


class Journal:
    """The journal file of one registry.

    Attributes:
        lost: why names of an earlier registry may be missing; empty if none are.
        size: bytes in the file.
    """

    def __init__(self, directory: Path, boot: str) -> None:
        """Read the journal of this boot, or begin one.

        Raises:
            OSError: the directory can't be read or written, for another reason than a full disk.
        """
        self._path = directory / f"registry-{boot}.journal"
        self._boot = boot
        self._begun = directory / "registry.begun"
        self._records: dict[bytes, bytes] = {}
        self._living_bytes = 0
        self._descriptor = -1
        self._is_torn = True
        self.lost = ""
        self.size = 0
        self._remove_others()
        aside = self._path.with_suffix(".damaged")
        if self._path.exists():
            self._read_or_put_aside(aside)
        elif aside.exists():  # the disk was full, and the one in its place could not be written
            self.lost = f"{self._path} was damaged; the file is kept as {aside.name}"
        elif self._begun.exists() and self._begun.read_bytes() == boot.encode():
            self.lost = f"{self._path} is gone"
        try:
            self._rewrite()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full disk must not keep the registry from starting; ``look`` writes the file anew.

    def remembered(self) -> list[Remember]:
        """Return what is kept; the processes may have ended since."""
        return [_remembered(record) for record in self._records.values()]

    def remember(self, kept: Remember) -> None:
        """Keep a registration; it outlives this process when this returns.

        Raises:
            OSError: it can't be written.
        """
        key, (name, address, _, incarnation), process, lease_ms = kept
        pid, start_time = process or (None, None)
        record = _framed([key, name, address, pid, start_time, incarnation, lease_ms])
        if self._records.get(key) != record:
            self._drop(key)
            self._keep(key, record)
            self._append(record)

    def forget(self, key: bytes) -> None:
        """Keep the registration of this key no longer; an unknown key is ignored.

        Raises:
            OSError: it can't be written; ``look`` and the next change write it as well.
        """
        if key in self._records:
            self._drop(key)
            self._append(_framed([key]))

    def look(self) -> bool:
        """Write the file anew if somebody removed it or not all could be written; return whether that was needed.

        Raises:
            OSError: it can't be written.
        """
        is_needed = self._is_torn or os.fstat(self._descriptor).st_nlink == 0
        if is_needed:
            self._rewrite()
        return is_needed

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _keep(self, key: bytes, record: bytes) -> None:
        self._records[key] = record
        self._living_bytes += len(record)

    def _drop(self, key: bytes) -> None:
        self._living_bytes -= len(self._records.pop(key, b""))

    def _append(self, record: bytes) -> None:
        if self._is_torn or self.size > 2 * self._living_bytes + SLACK_BYTES:
            self._is_torn = True  # until it is written, or the next change would be appended without this one
            self._rewrite()
            return
        try:
            _write(self._descriptor, record)
        except OSError:
            self._is_torn = True  # nothing may follow half a record: the file is written anew
            raise
        self.size += len(record)

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        content = b"".join((_framed([self.lost]), *self._records.values()))
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(descriptor, content)
            fresh.replace(self._path)
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        self.close()
        self._descriptor, self.size, self._is_torn = descriptor, len(content), False
        with suppress(OSError):  # the journal is as good without it, but would not be missed
            self._begun.write_bytes(self._boot.encode())

    def _read_or_put_aside(self, aside: Path) -> None:
        try:
            self._read(self._path.read_bytes())
        except CorruptRecord as error:
            self._path.replace(aside)
            self._records.clear()
            self._living_bytes = 0
            self.lost = f"{error.text}; the file is kept as {aside.name}"

    def _read(self, data: bytes) -> None:
        for at, end, fields in _read_records(data, str(self._path)):
            match fields:
                case [str(lost)] if at == 0:
                    self.lost = lost
                case [bytes(key), _, str(), int() | None, int() | None, bytes()] if at:
                    self._drop(key)
                    self._keep(key, data[at:end])
                case [bytes(key), _, str(), int() | None, int() | None, bytes(), int()] if at:
                    self._drop(key)
                    self._keep(key, data[at:end])
                case [bytes(key)] if at:
                    self._drop(key)
                case _:
                    raise CorruptRecord(f"{self._path}: the record at byte {at} is none of a journal's")

    def _remove_others(self) -> None:
        for path in self._path.parent.glob("registry-*"):
            if path.suffix in (".journal", ".damaged", ".new") and path.stem != self._path.stem:
                path.unlink(missing_ok=True)


def _framed(fields: list[Any]) -> bytes:
    payload: bytes = pack(fields)
    length = len(payload).to_bytes(4, "big")
    return _HEADER.pack(len(payload), crc32(length), crc32(payload)) + payload


def _remembered(record: bytes) -> Remember:
    key, name, address, pid, start_time, incarnation, *lease_ms = unpack(record[_HEADER.size :])
    process = None if pid is None else Process(pid, start_time)
    return Remember(key, Registration(name, address, pid, incarnation), process, lease_ms[0] if lease_ms else 0)


def _read_records(data: bytes, path: str) -> Iterator[tuple[int, int, Any]]:
    """Yield ``(start, end, fields)`` of each whole record; stop at a torn tail.

    Raises:
        CorruptRecord: anything else that can't be read.
    """
    at = 0
    while at < len(data) or at == 0:
        try:
            end, payload = _record_at(data, at)
            if payload is None and at > 0:
                return
            yield at, end, unpack(payload or b"")  # the first record was put in place whole: it can't be torn
        except (ValueError, TodoMQError):
            raise CorruptRecord(f"{path}: the record at byte {at} is damaged") from None
        at = end


def _record_at(data: bytes, at: int) -> tuple[int, bytes | None]:
    begin = at + _HEADER.size
    if begin > len(data):
        return begin, None
    length, length_check, check = _HEADER.unpack_from(data, at)
    if crc32(data[at : at + 4]) != length_check:
        raise ValueError("damaged length")
    end = begin + length
    if end > len(data):
        return end, None
    if crc32(data[begin:end]) != check:
        raise ValueError("damaged payload")
    return end, data[begin:end]


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
