"""Tells a log file that a crash cut short from one that was damaged, which RocksDB by itself does not.

Owns: a look at the framing of RocksDB's log files (write-ahead logs and MANIFEST), before RocksDB opens them.
Used by ``rocksdb.py``. Law 8: never fewer records without a word.

Every byte flipped in a log record was tried against RocksDB 9.8.4 under ``tolerate_corrupted_tail_records``: all are
refused (checksum mismatch) but those in a record's length and type. A length that points past the end of the file is
taken for a write that a crash cut short, and the acknowledged records from there to the end are dropped in silence; so
is the rest of a 32 KiB block behind a stretch of zeroes. ``absolute_consistency`` refuses both, and also every true
crash; ``track_and_verify_wals_in_manifest`` cannot be set through rocksdict and sees only missing files. And the
record types of recycled logs, one bit away from those that are written here, send RocksDB into an endless loop.

So this file walks the framing. Within the last record the length is told from the checksum, which does not cover it:
where a shorter length makes the checksum right, the record is whole and its length was damaged. Zeroes up to the end of
the file are what a power cut leaves of a write on some file systems; they and a torn record are harmless only behind
what was acknowledged, which the caller knows (``acknowledged_bytes``; for a write-ahead log, by counting its writes).

Format: https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

BLOCK_BYTES = 32_768
_HEADER = struct.Struct("<IHB")  # checksum, length, type; records never cross a block
_MASK_DELTA = 0xA282EAD8
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
"""The types that are written here. There are others, of logs that are used again or compressed."""


def damage_in(path: Path, acknowledged_bytes: int = 0) -> str | None:
    """Return what is wrong with a log file's framing, or None: it is whole, or a crash cut its last write short.

    Args:
        path: the file.
        acknowledged_bytes: how much of it must be whole.

    Raises:
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    size = len(data)
    for at, checksum, kind, after, end in _frames(data):
        if kind > _LAST:
            return f"a record of no known kind, at byte {at}"
        if kind == 0:
            is_tail = at >= acknowledged_bytes and not data[at:].strip(b"\0")
            return None if is_tail else f"zeroes where a record begins, at byte {at}"
        if after > end:
            is_tail = at >= acknowledged_bytes and end == size and size % BLOCK_BYTES > 0
            is_torn = is_tail and not _is_whole(data[at + 6 : end], checksum)
            return None if is_torn else f"a record is cut short or its length is damaged, at byte {at}"
    return None


def _frames(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield ``(at, checksum, kind, after, end)`` of each record, and where the block ends that must hold it.

    Behind one that is none (``kind`` 0) or does not end within its block it goes on with the next block.
    """
    unpack = _HEADER.unpack_from
    for block in range(0, len(data), BLOCK_BYTES):
        end = min(block + BLOCK_BYTES, len(data))
        at = block
        while end - at >= _HEADER.size:
            checksum, length, kind = unpack(data, at)
            after = at + _HEADER.size + length
            yield at, checksum, kind, after, end
            if kind == 0 or after > end:
                break
            at = after


def records_of(path: Path) -> Iterator[bytes]:
    """Yield what the whole records of a log file hold, up to where its framing ends; no more is read than is asked for.

    Raises:
        OSError: it cannot be read.
    """
    parts: list[bytes] = []
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            for at, _, kind, after, end in _frames(block):
                if kind == 0 or after > end:
                    return
                if kind in (_FULL, _FIRST):
                    parts = []
                if kind in (_FULL, _FIRST, _MIDDLE, _LAST):
                    parts.append(block[at + _HEADER.size : after])
                if kind in (_FULL, _LAST):
                    yield b"".join(parts)


def _is_whole(typed: bytes, checksum: int) -> bool:
    """Tell whether some beginning of a record's type and payload has the record's checksum."""
    return any(masked == checksum for masked in _checksums(typed))


def first_wrong_checksum(path: Path) -> int | None:
    """Return at which byte the first record of a log file begins whose checksum is wrong, None where there is none.

    Slow (some MB/s): for a file that is known to be damaged, or that is only being checked.

    Raises:
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    for at, checksum, kind, after, end in _frames(data):
        if kind == 0 or after > end:
            continue  # damage_in judges these
        masked = 0
        for masked in _checksums(data[at + 6 : after]):  # noqa: B007  # the last one counts
            pass
        if masked != checksum:
            return at
    return None


def _checksums(typed: bytes) -> Iterator[int]:
    """Yield the checksum, as records hold it, of each beginning of a record's type and payload."""
    table = _crc32c_table()
    crc = 0xFFFFFFFF
    for byte in typed:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        plain = crc ^ 0xFFFFFFFF
        yield (((plain >> 15) | (plain << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@cache
def _crc32c_table() -> list[int]:
    """Return the table of CRC-32C (Castagnoli, RFC 3720 appendix B.4)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table
