"""RocksDB as the storage of one shard, through rocksdict, in one directory.

Owns: the directory ``rocksdb`` and the file ``acknowledged`` beside it. Used through ``Storage``.

Law 1: ``apply`` writes without sync, then syncs the write-ahead log. Both steps are one to the outside: reads wait for
them, so none sees what a crash could undo (rocksdict's snapshots do not hold for iterators, hence the lock). Two steps,
because rocksdict 0.3.29 holds Python's global lock during ``write`` but not during ``flush_wal``: the fsync, which is
most of the time, leaves the poll loop free.

Law 8: three nets against silent loss. RocksDB's checksums; ``log_files.py`` for what they miss in the framing; and the
file ``acknowledged``, which holds what must at least be there: RocksDB's sequence number behind the last acknowledged
write, and the size that MANIFEST had then. It is written after every sync without a sync of its own, so it survives
every death of the process and lags only after a power cut. A torn tail holds nothing acknowledged and opens by itself.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from todomq.database_worker.storage import Page, StorageFailed, Write
from todomq.database_worker.storage.log_files import damage_in
from todomq.errors import NOT_APPLIED, CorruptRecord

ACKNOWLEDGED = "acknowledged"
_MARK = struct.Struct(">QQQ")  # sequence number, MANIFEST's number, MANIFEST's bytes; a CRC-32 of it follows
_MARK_BYTES = _MARK.size + 4
_ADVICE = "restore this directory from a backup; nothing was changed"


class RocksDBStorage:
    """One shard in a directory that ``create`` made; see ``Storage``.

    Raises:
        CorruptRecord: something in the directory is missing or damaged; the text names it.
        StorageFailed: it cannot be opened at the moment (in use, disk full).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._failed = False
        self.syncs = 0
        self._unsynced = WriteOptions()
        self._mark = _open_mark(directory)
        try:
            expected = _read_mark(directory, self._mark)
            _check_log_files(directory / "rocksdb", expected)
            self._db: Rdict | None = _open(directory / "rocksdb", _options())
            _check_nothing_is_missing(directory, self._db, expected)
            self._acknowledge(self._db)  # opening has written a MANIFEST of its own
        except BaseException:
            os.close(self._mark)
            raise

    @staticmethod
    def create(directory: Path) -> None:
        """Make an empty shard in an existing directory; the caller makes its name durable."""
        options = _options()
        options.create_if_missing(True)
        options.set_error_if_exists(True)
        _open(directory / "rocksdb", options).close()
        mark = os.open(directory / ACKNOWLEDGED, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(mark, _packed_mark(0, 0, 0), 0)
            os.fsync(mark)
        finally:
            os.close(mark)

    def apply(self, writes: Sequence[Write]) -> None:
        if not writes:
            return
        batch = WriteBatch(raw_mode=True)
        for key, value in writes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        with self._lock:
            db = self._opened()
            try:
                db.write(batch, self._unsynced)
                db.flush_wal(True)
                self.syncs += 1
                self._acknowledge(db)
            except Exception as error:  # rocksdict raises nothing narrower
                self._failed = True
                raise StorageFailed(f"{self._directory}: {_first_line(error)}") from None

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            try:
                value: bytes | None = self._opened().get(key)
            except Exception as error:
                raise _read_error(self._directory, error) from None
        return value

    def scan(self, prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
        bounds = ReadOptions()
        end = _end_of(prefix)
        if end is not None:
            # Without it a scan of nothing walks every deleted record up to the next living one, wherever that is.
            bounds.set_iterate_upper_bound(end)
        with self._lock:
            try:
                return _page(self._opened(), bounds, max(prefix, after + b"\0") if after else prefix, limit_bytes)
            except Exception as error:
                raise _read_error(self._directory, error) from None

    def stats(self) -> dict[str, int]:
        with self._lock:
            db = self._opened()
            names = {"records": "estimate-num-keys", "disk_bytes": "total-sst-files-size",
                     "memory_bytes": "cur-size-all-mem-tables"}  # fmt: skip
            return {name: db.property_int_value(f"rocksdb.{property_}") or 0 for name, property_ in names.items()}

    def close(self) -> None:
        with self._lock:
            if self._db is None:
                return
            db, self._db = self._db, None
            os.close(self._mark)
            try:
                db.close()
            except Exception as error:  # rocksdict raises nothing narrower
                # After a failure closing fails as well; all that was acknowledged is in the log, synced.
                if not self._failed:
                    raise StorageFailed(f"{self._directory} did not close: {_first_line(error)}") from None

    def _opened(self) -> Rdict:
        if self._db is None or self._failed:
            raise StorageFailed(f"{self._directory} is closed after a failure", outcome=NOT_APPLIED)
        return self._db

    def _acknowledge(self, db: Rdict) -> None:
        number, size = _manifest(self._directory / "rocksdb")
        os.pwrite(self._mark, _packed_mark(db.latest_sequence_number(), number, size), 0)


def _options() -> Options:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(32 << 20))
    tables.set_bloom_filter(10, False)
    tables.set_cache_index_and_filter_blocks(True)
    options = Options(raw_mode=True)
    options.create_if_missing(False)
    options.set_block_based_table_factory(tables)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(8 << 20)  # also bounds what a restart reads again from the log: 0.1 s
    options.set_max_write_buffer_number(4)
    options.set_max_total_wal_size(24 << 20)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(1 << 20)
    options.set_max_open_files(256)
    options.set_compression_type(DBCompressionType.lz4())
    # Cleared lists leave stretches of deletions that reads must step over: where half of 1,024 records are deletions,
    # the file is compacted soon.
    options.add_compact_on_deletion_collector_factory(1024, 512, 0.5)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _open(path: Path, options: Options) -> Rdict:
    try:
        return Rdict(str(path), options)
    except Exception as error:  # rocksdict raises nothing narrower
        text = _first_line(error)
        if re.match(r"Corruption|Invalid argument|IO error: No such file", text):
            raise CorruptRecord(f"{path}: {text}; {_ADVICE}") from None
        raise StorageFailed(f"{path} cannot be opened: {text}") from None


def _page(db: Rdict, bounds: ReadOptions, start: bytes, limit_bytes: int) -> Page:
    items: list[bytes] = []
    size = 0
    cursor = db.iter(bounds)
    cursor.seek(start)
    while cursor.valid():
        if size >= limit_bytes and items:
            return Page(items, items[-2])
        key, value = cursor.key(), cursor.value()
        items += (key, value)
        size += len(key) + len(value)
        cursor.next()
    cursor.status()  # raises where the scan ended for another reason than the end
    return Page(items, None)


def _end_of(prefix: bytes) -> bytes | None:
    """Return the first key behind all that begin with ``prefix``; None where every key is before it."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _read_error(directory: Path, error: Exception) -> Exception:
    if isinstance(error, StorageFailed):
        return error
    return CorruptRecord(f"{directory}: a record cannot be read: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()


def _manifest(path: Path) -> tuple[int, int]:
    """Return number and size of the MANIFEST that RocksDB uses.

    Raises:
        OSError, ValueError: there is none.
    """
    name = (path / "CURRENT").read_text().strip()
    return int(name.removeprefix("MANIFEST-")), (path / name).stat().st_size


def _check_log_files(path: Path, expected: tuple[int, int, int]) -> None:
    try:
        number, size = _manifest(path)
        if (number, size) < expected[1:]:
            raise CorruptRecord(f"{path}/MANIFEST-{number:06} has {size} bytes of at least {expected[2]}; {_ADVICE}")
        whole_bytes = dict.fromkeys(path.glob("*.log"), 0)
        whole_bytes[path / f"MANIFEST-{number:06}"] = expected[2] if number == expected[1] else 0
        for log, acknowledged_bytes in whole_bytes.items():
            damage = damage_in(log, acknowledged_bytes)
            if damage:
                raise CorruptRecord(f"{log}: {damage}; {_ADVICE}")
    except (OSError, ValueError) as error:
        raise CorruptRecord(f"{path}: {error}; {_ADVICE}") from None


def _check_nothing_is_missing(directory: Path, db: Rdict, expected: tuple[int, int, int]) -> None:
    found = db.latest_sequence_number()
    if found < expected[0]:
        db.close()
        raise CorruptRecord(
            f"{directory / 'rocksdb'}: its write-ahead log (*.log) ends at write {found} though {expected[0]} were "
            "acknowledged; restore this directory from a backup"
        )


def _open_mark(directory: Path) -> int:
    try:
        return os.open(directory / ACKNOWLEDGED, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CorruptRecord(f"{directory / ACKNOWLEDGED}: {error.strerror}; {_ADVICE}") from None


def _packed_mark(sequence: int, manifest: int, manifest_bytes: int) -> bytes:
    mark = _MARK.pack(sequence, manifest, manifest_bytes)
    return mark + zlib.crc32(mark).to_bytes(4, "big")


def _read_mark(directory: Path, mark: int) -> tuple[int, int, int]:
    packed = os.pread(mark, _MARK_BYTES + 1, 0)
    fields = packed[: _MARK.size]
    if len(packed) != _MARK_BYTES or zlib.crc32(fields).to_bytes(4, "big") != packed[_MARK.size :]:
        raise CorruptRecord(f"{directory / ACKNOWLEDGED} is damaged; {_ADVICE}")
    sequence, manifest, manifest_bytes = _MARK.unpack(fields)
    return sequence, manifest, manifest_bytes
