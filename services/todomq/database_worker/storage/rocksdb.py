"""RocksDB as the storage of one shard, through rocksdict, in one directory.

Owns: the directory ``rocksdb``. Used through ``Storage``.

Law 1: ``apply`` writes without sync, then syncs the write-ahead log. Both steps are one to the outside: reads wait for
them, so none sees what a crash could undo (rocksdict's snapshots do not hold for iterators, hence the lock). Two steps,
because rocksdict 0.3.29 holds Python's global lock during ``write`` but not during ``flush_wal``: the fsync, which is
most of the time, leaves the poll loop free.

Law 8: four nets against silent loss. RocksDB's checksums; ``log_files.py`` for what they miss in the framing;
``live_logs.gap_in`` for a whole log, or the end of one, that is missing before others; and ``acknowledged.py`` for what
must at least be there. A torn tail holds nothing acknowledged and opens by itself. What the mark's lag after a power
cut leaves open is written in docs/storage.md; no flipped byte is among it.

A full disk: RocksDB can't open for writing without room for what its log holds, so a shard can be opened for reading
only, which writes nothing that is needed.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from todomq.database_worker.storage import Page, StorageFailed, StorageInUse, Write
from todomq.database_worker.storage.acknowledged import NOTHING, Acknowledged, Mark
from todomq.database_worker.storage.live_logs import gap_in
from todomq.database_worker.storage.log_files import damage_in, first_wrong_checksum
from todomq.database_worker.storage.room import check_room_to_flush, check_room_to_open, lack_of_room
from todomq.database_worker.storage.small_files import MISSING, shard_advice, sync_directory, unchanged_advice
from todomq.errors import NOT_APPLIED, UNKNOWN, CorruptRecord, TodoMQError

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

FILES = ("acknowledged", "rocksdb/CURRENT")
"""What is there whenever a shard is, below its directory."""
SETTINGS = "rocksdict-config.json"
"""A file that rocksdict writes whenever it opens a shard, and reads if nothing else says how keys are to be read."""
LOGS = ("LOG", "LOCK")
"""Prefixes of files that RocksDB writes beside the data, even when it only reads; they are left out of copies."""

_DAMAGE = re.compile(r"Corruption|Invalid argument|IO error: No such file|Not found")
_DAMAGED_LOG = re.compile(r"([^/\n]+\.log): dropping \d+ bytes; Corruption")
_UNREADABLE = re.compile(r"IO error: .*Input/output error")
_IN_USE = re.compile(r"IO error: .*(lock hold by|While lock file)")


class _Manifest:
    """The MANIFEST that RocksDB uses, looked at after every commit; what CURRENT says is read only when it is new.

    Then ``on_new`` is called as well: perhaps the whole directory is another one.
    """

    def __init__(self, path: Path, on_new: Callable[[], None]) -> None:
        self._path = path
        self._on_new = on_new
        self._current = str(path / "CURRENT")
        self._seen: tuple[int, int] | None = None
        self._number = 0
        self._name = ""

    def now(self) -> tuple[int, int]:
        """Return its number and size.

        Raises:
            OSError, ValueError: there is none.
        """
        found = os.stat(self._current)  # another file whenever it names another MANIFEST
        if self._seen != (found.st_ino, found.st_mtime_ns):
            self._on_new()
            self._number, size = _manifest(self._path)
            self._name = str(self._path / f"MANIFEST-{self._number:06}")
            self._seen = (found.st_ino, found.st_mtime_ns)
            return self._number, size
        return self._number, os.stat(self._name).st_size


class RocksDBStorage:
    """One shard in a directory that ``create`` made; see ``Storage``.

    Args:
        directory: the shard.
        reserve_bytes: of the disk; with less free, ``lack_of_room`` says so.
        read_only: write no record; works on a full disk, and beside another that is open.
        untouched: of a read-only one, leave every file as it is: what the engine writes beside the data, its settings
            and its log lines, goes to a temporary directory.

    Raises:
        CorruptRecord: something in the directory is missing or damaged; the text names it.
        StorageFailed: it cannot be opened at the moment (in use, disk full).
    """

    def __init__(
        self, directory: Path, reserve_bytes: int = 0, *, read_only: bool = False, untouched: bool = False
    ) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._read_only = read_only
        self._failed = False
        self.syncs = 0
        self._unsynced = WriteOptions()
        self._acknowledged = Acknowledged(directory, read_only=read_only)
        self._manifest = _Manifest(directory / "rocksdb", self._acknowledged.check_in_place)
        self._view: TemporaryDirectory[str] | None = None
        try:
            expected = self._acknowledged.read()
            if not read_only:  # first: without room for it, opening is tried twice a second
                log_bytes = sum(log.stat().st_size for log in (directory / "rocksdb").glob("*.log"))
                check_room_to_open(directory, log_bytes)
            _check_log_files(directory / "rocksdb", expected)
            if read_only and not untouched:
                _sync_logs(directory / "rocksdb")
            if untouched:
                self._view = _view_of(directory / "rocksdb")
            self._db: Rdict | None = self._open(_options())
            _check_nothing_is_missing(directory, self._db, expected)
            if not read_only:
                self._acknowledge(self._db)  # opening has written a MANIFEST of its own
        except BaseException:
            self._acknowledged.close()
            self._remove_view()
            raise

    @staticmethod
    def create(directory: Path) -> None:
        """Make an empty shard in an existing directory; the caller makes its name durable."""
        options = _options()
        options.create_if_missing(True)
        options.set_error_if_exists(True)
        _open(directory / "rocksdb", options).close()
        Acknowledged.create(directory, NOTHING)

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
                raise _error(self._directory, "", error, UNKNOWN) from None

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            try:
                value: bytes | None = self._opened().get(key)
            except Exception as error:
                raise _unreadable(self._directory, self._named(error)) from None
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
                raise _unreadable(self._directory, self._named(error)) from None

    def lack_of_room(self) -> str:
        return lack_of_room(self._directory, self._reserve_bytes)

    def checkpoint(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True)
            with self._lock:
                db = self._opened()
                sequence = db.latest_sequence_number()
                if self._read_only:
                    _link_files(self._directory / "rocksdb", directory / "rocksdb")
                else:
                    memory_bytes = db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
                    check_room_to_flush(self._directory, memory_bytes)
                    Checkpoint(db).create_checkpoint(str(directory / "rocksdb"))
            Acknowledged.create(directory, Mark(sequence, *_manifest(directory / "rocksdb")))
            sync_directory(directory)
            if self._read_only:  # another may have begun to write meanwhile
                RocksDBStorage(directory, read_only=True).close()
        except Exception as error:  # rocksdict raises nothing narrower
            raise _error(self._directory, f"no checkpoint was made in {directory}: ", error) from None

    def tend(self) -> None:
        """Sync the mark of what was acknowledged, for the next power cut."""
        with self._lock:
            descriptors = [] if self._db is None else self._acknowledged.to_sync()
        self._acknowledged.sync(descriptors)  # without the lock: it must hold up nobody

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
            descriptors = self._acknowledged.to_sync()
            self._acknowledged.close()
            self._remove_view()  # what is open stays readable
            with suppress(OSError):  # of a disk that fails: it is in the log, synced
                self._acknowledged.sync(descriptors)
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

    def _open(self, options: Options) -> Rdict:
        path = self._directory / "rocksdb"
        if self._view is None:
            return _open(path, options, self._read_only)
        try:
            return _open(Path(self._view.name), options, self._read_only)
        except TodoMQError as error:
            raise type(error)(self._own_names(error.text), outcome=error.outcome) from None

    def _named(self, error: Exception) -> Exception:
        """Return an error of the engine as one that names the shard's own files, not those of a view of it."""
        if self._view is None or isinstance(error, TodoMQError):
            return error
        return RuntimeError(self._own_names(str(error)))

    def _own_names(self, text: str) -> str:
        return text if self._view is None else text.replace(self._view.name, str(self._directory / "rocksdb"))

    def _remove_view(self) -> None:
        if self._view is not None:
            self._view.cleanup()

    def _acknowledge(self, db: Rdict) -> None:
        self._acknowledged.write(Mark(db.latest_sequence_number(), *self._manifest.now()))


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


def _view_of(path: Path) -> TemporaryDirectory[str]:
    """Return a directory that has the same files by links, but for those that the engine writes when it only looks."""
    from tempfile import TemporaryDirectory  # to look at a shard only; it costs every worker's start some milliseconds

    view = TemporaryDirectory(prefix="todomq-view-")
    for file in path.iterdir():
        if file.is_file() and not file.name.startswith(LOGS) and file.name != SETTINGS:
            os.symlink(file.absolute(), os.path.join(view.name, file.name))
    return view


def _open(path: Path, options: Options, read_only: bool = False) -> Rdict:
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    # With the column family named, rocksdict does not read the OPTIONS file, which no checksum protects.
    families = {"default": options} if (path / "CURRENT").exists() else None
    try:
        return Rdict(str(path), options, families, access)
    except Exception as error:  # rocksdict raises nothing narrower
        what = _damaged_log(path, read_only) if _is_damage(error) else "cannot be opened: "
        raise _error(path, what, error) from None


def _damaged_log(path: Path, read_only: bool) -> str:
    """Return which log has a record whose checksum is wrong, as a text's beginning: RocksDB's error does not name it.

    When it may write, its own log does. To search for that record could take longer than a worker is given to start.
    """
    if not read_only:
        with suppress(OSError):
            named = _DAMAGED_LOG.findall((path / "LOG").read_text(errors="replace"))
            return f"{named[-1]} is damaged: " if named else ""
    for log in (*sorted(path.glob("*.log")), *sorted(path.glob("MANIFEST-*"))):
        at = first_wrong_checksum(log)
        if at is not None:
            return f"{log.name} is damaged at byte {at}: "
    return ""


def _sync_logs(path: Path) -> None:
    """Make sure that what will be read is on disk: a write that failed may have failed in its sync."""
    try:
        for log in path.glob("*.log"):
            descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise StorageFailed(f"{path}: {error}", outcome=NOT_APPLIED) from None


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


def _is_damage(error: Exception) -> bool:
    return _DAMAGE.match(_first_line(error)) is not None


def _link_files(source: Path, target: Path) -> None:
    """Link the files of a shard that is open for reading only: RocksDB's own checkpoints lack what its logs hold."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(LOGS):
            os.link(path, target / path.name)
    sync_directory(target)


def _unreadable(path: Path, error: Exception) -> TodoMQError:
    """Return an error of the engine in a read as one of ours: what the disk can't read is as good as damaged."""
    if not isinstance(error, TodoMQError) and _UNREADABLE.match(_first_line(error)):
        return CorruptRecord(f"{path}: a record cannot be read: {_first_line(error)}; {unchanged_advice(path)}")
    return _error(path, "a record cannot be read: ", error)


def _error(path: Path, what: str, error: Exception, outcome: str = NOT_APPLIED) -> TodoMQError:
    """Return an error of the engine as one of ours: what was damaged, or what may go well another time."""
    if isinstance(error, TodoMQError):
        return error
    text = f"{path}: {what}{_first_line(error)}"
    if _is_damage(error):
        advice = unchanged_advice(path) if outcome == NOT_APPLIED else shard_advice(path)
        return CorruptRecord(f"{text}; {advice}", outcome=outcome)
    if _IN_USE.match(_first_line(error)):
        return StorageInUse(text, outcome=outcome)
    return StorageFailed(text, outcome=outcome)


def _first_line(error: Exception) -> str:
    """Return what the engine says as part of a sentence: its own messages end in dots and have doubled spaces."""
    line = (str(error).splitlines() or [type(error).__name__])[0].replace("(context removed)", "")
    return " ".join(line.split()).rstrip(".")


def _manifest(path: Path) -> tuple[int, int]:
    """Return number and size of the MANIFEST that RocksDB uses.

    Raises:
        OSError, ValueError: there is none.
    """
    name = (path / "CURRENT").read_text(errors="replace").strip()
    number = name.removeprefix("MANIFEST-")
    if not (number.isascii() and number.isdecimal()):
        raise ValueError("CURRENT is damaged: it names no MANIFEST")
    return int(number), (path / name).stat().st_size


def _check_log_files(path: Path, expected: Mark) -> None:
    try:
        number, size = _manifest(path)
        if (number, size) < (expected.manifest, expected.manifest_bytes):
            has = f"{size} bytes of at least {expected.manifest_bytes}"
            raise CorruptRecord(f"{path}/MANIFEST-{number:06} has {has}; {unchanged_advice(path)}")
        whole_bytes = dict.fromkeys(path.glob("*.log"), 0)
        whole_bytes[path / f"MANIFEST-{number:06}"] = expected.manifest_bytes if number == expected.manifest else 0
        for log, acknowledged_bytes in whole_bytes.items():
            damage = damage_in(log, acknowledged_bytes)
            if damage:
                raise CorruptRecord(f"{log}: {damage}; {unchanged_advice(path)}")
        gap = gap_in(path / f"MANIFEST-{number:06}")
        if gap:
            raise CorruptRecord(f"{path}: records are missing: {gap}; {unchanged_advice(path)}")
    except MISSING as error:
        raise CorruptRecord(f"{error.filename or path}: {error.strerror}; {unchanged_advice(path)}") from None
    except ValueError as error:
        raise CorruptRecord(f"{path}: {error}; {unchanged_advice(path)}") from None
    except OSError as error:
        raise StorageFailed(f"{error.filename or path}: {error.strerror}", outcome=NOT_APPLIED) from None


def _check_nothing_is_missing(directory: Path, db: Rdict, expected: Mark) -> None:
    found = db.latest_sequence_number()
    if found < expected.sequence:
        with suppress(Exception):  # what is damaged may not close either, which says less
            db.close()
        raise CorruptRecord(
            f"{directory / 'rocksdb'}: its write-ahead log (*.log) ends at write {found} though {expected.sequence} "
            f"were acknowledged; {unchanged_advice(directory)}"
        )
