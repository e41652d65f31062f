"""Whether the write-ahead logs of a shard follow on each other, and on its tables: RocksDB does not ask.

Owns: which logs are still needed, as the MANIFEST says, and where each begins and ends, by the sequence numbers of the
writes. Used by ``rocksdb.py`` before RocksDB opens the shard. Law 8: never fewer records without a word.

While a memtable is being written to a table there are two logs or more. RocksDB 9.8.4 opens a shard of which an earlier
one was deleted, emptied or cut: it takes what is there, and the last sequence number is right all the same.
``acknowledged`` tells of what is missing at the end, this file of what is missing before it.

Formats: https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format and /MANIFEST; a batch in a log begins
with its first sequence number and how many it has (``db/write_batch.cc``), an edit of the MANIFEST is a row of tags
(``db/version_edit.cc``).
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import NamedTuple

from todomq.database_worker.storage.log_files import records_of

_BATCH = Struct("<QI")

# Tags of an edit, by what follows them. Whatever else there may be stands behind these.
_LOG_NUMBER, _NEXT_FILE, _LAST_SEQUENCE = 2, 3, 4
_NUMBERS = frozenset((_LOG_NUMBER, _NEXT_FILE, _LAST_SEQUENCE, 9, 10, 203))
_COMPARATOR, _IGNORABLE = 1, 1 << 13  # and all from there on: a length, and so many bytes
_CURSOR = 5  # level, key
_DELETED_FILE = 6  # level, number
_NEW_FILE = 103  # level, number, size, first and last key, least and highest sequence number, fields by tag
_NO_MORE_FIELDS = 1


class _Needed(NamedTuple):
    """From which number on logs are needed, and the last sequence number of what is in tables without them."""

    log: int
    sequence: int


def gap_in(manifest: Path) -> str | None:
    """Return which log beside a MANIFEST lacks something, and what, or None.

    Raises:
        OSError: a file cannot be read. ValueError: the MANIFEST, or a log, is not of the form that it should have.
    """
    needed = _needed(manifest)
    logs = sorted((int(path.stem), path) for path in manifest.parent.glob("*.log") if path.stem.isdecimal())
    live = [path for number, path in logs if number >= needed.log]
    first = {path: begins for path in live if (begins := _first_write(path)) is not None}
    if not first:
        return None  # whether there should be any, the mark of what was acknowledged tells
    if int(live[0].stem) != needed.log:  # it begins with the life that made it, when all before was in tables
        end, before = needed.sequence + 1, f"the tables that {manifest.name} names"
    elif live[0] in first:
        end, before = first[live[0]], ""
    else:
        return f"{live[0].name} is empty, though later logs are not"
    for place, (path, begins) in enumerate(first.items(), start=1):
        if begins > end:
            return f"{path.name} begins at write {begins}, and {before} ends before write {end}"
        if place < len(first):
            end, before = _end(path), f"the whole part of {path.name}"
    return None


def _first_write(log: Path) -> int | None:
    """Return the first sequence number of a log, None where it holds no write."""
    record = next(records_of(log), None)
    return None if record is None else _sequences(log, record)[0]


def _end(log: Path) -> int:
    """Return the sequence number behind the last write of a log that holds some."""
    record = b""
    for record in records_of(log):  # noqa: B007  # the last one counts
        pass
    return sum(_sequences(log, record))


def _sequences(log: Path, record: bytes) -> tuple[int, int]:
    """Return the sequence number of the first write in a record, and how many there are."""
    if len(record) < _BATCH.size:
        raise ValueError(f"{log.name} has a record that is no write")
    sequence, count = _BATCH.unpack_from(record)
    return sequence, count


def _needed(manifest: Path) -> _Needed:
    needed = _Needed(0, 0)
    try:
        for edit in records_of(manifest):
            numbers = _numbers(edit)
            if _LOG_NUMBER not in numbers:
                continue
            tabled = numbers.get(_LAST_SEQUENCE, 0)
            if _NEXT_FILE in numbers:  # of a flush, which may end long after its log did; else of all tables there are
                tabled = numbers.get(_NEW_FILE, tabled)
            needed = _Needed(numbers[_LOG_NUMBER], tabled)
    except IndexError:
        raise ValueError(f"{manifest.name} has an edit that ends too early") from None
    return needed


def _numbers(edit: bytes) -> dict[int, int]:
    """Return the numbers that an edit says, by their tags; of new files the highest sequence number in any of them."""
    numbers: dict[int, int] = {}
    at = 0
    while at < len(edit):
        tag, at = _varint(edit, at)
        if tag in _NUMBERS:
            numbers[tag], at = _varint(edit, at)
        elif tag == _COMPARATOR or tag >= _IGNORABLE:
            at = _behind_bytes(edit, at)
        elif tag == _CURSOR:
            at = _behind_bytes(edit, _behind_numbers(edit, at, 1))
        elif tag == _DELETED_FILE:
            at = _behind_numbers(edit, at, 2)
        elif tag == _NEW_FILE:
            sequence, at = _new_file(edit, at)
            numbers[_NEW_FILE] = max(sequence, numbers.get(_NEW_FILE, 0))
        else:
            break
    return numbers


def _new_file(edit: bytes, at: int) -> tuple[int, int]:
    """Return the highest sequence number in a new file, and where what is said of it ends."""
    at = _behind_bytes(edit, _behind_bytes(edit, _behind_numbers(edit, at, 3)))
    sequence, at = _varint(edit, _behind_numbers(edit, at, 1))
    while True:
        field, at = _varint(edit, at)
        if field == _NO_MORE_FIELDS:
            return sequence, at
        at = _behind_bytes(edit, at)


def _behind_numbers(data: bytes, at: int, count: int) -> int:
    for _ in range(count):
        _, at = _varint(data, at)
    return at


def _behind_bytes(data: bytes, at: int) -> int:
    length, at = _varint(data, at)
    return at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
