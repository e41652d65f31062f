"""Read every record of shards that nobody writes, and say what is wrong: a stopped stack's, a backup's, checkpoints.

Owns: the way through a data directory, a shard, a backup. Must not know: a running stack. ``contents.py`` says what
records must be.

Law 8: what can't be read is named, and what is left unread because of it too. Nothing is written.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from todomq.backup import NOT_READ
from todomq.backup.catalogue import DATA, NEEDED, Advance, read_catalogue, what_is_wrong
from todomq.backup.contents import KINDS, Problem, ShardContents, problem_of
from todomq.database_worker.storage import Storage, StorageFailed
from todomq.database_worker.storage.manifest import MANIFEST, check_identity, read_manifest, shard_name, shards_in
from todomq.database_worker.storage.rocksdb import RocksDBStorage
from todomq.database_worker.storage.small_files import ADVICE, shard_advice
from todomq.errors import CorruptRecord
from todomq.protocol import limits
from todomq.protocol.partitions import PARTITIONS

ANOTHER = "use another backup"
COUNTED = ("lists", "deleted", "entries", "sessions", "values")
_BEHIND = b"\xff" * 300
_AREAS = sorted(
    (*((bytes(kind), name) for kind, name in KINDS.items() if kind != b"l"),
     *((b"l" + bytes([partition]), f"{KINDS[b'l']} of partition {partition}") for partition in range(PARTITIONS)))
)  # fmt: skip
"""Where to go on behind records that can't be read: the beginnings of keys, in order, each with what it stands for."""
_AREA_ENDS = [beginning + _BEHIND for beginning, _ in _AREAS]


class ShardReport(NamedTuple):
    """What was found in one shard: the counts of records, empty if it was not read, and the problems."""

    worker: int
    counts: dict[str, int]
    problems: list[Problem]
    problems_more: int = 0


class Report(NamedTuple):
    """What was found in all: the problems of files first, then the shards."""

    where: str
    problems: list[Problem]
    shards: list[ShardReport]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(shard.problems for shard in self.shards)


def verify_backup(backup: Path, begin: Callable[[str, int], Advance]) -> Report:
    """Verify a backup: every file against the catalogue, then every record.

    Args:
        backup: its directory.
        begin: begins a step of the work, to show its progress.

    Raises:
        CorruptRecord: it is no backup. NewerFormat: a newer version of TodoMQ made it.
        PermissionError: this user may not read all of it.
    """
    check_readable(backup)
    catalogue = read_catalogue(backup)
    advance = begin("checking files", catalogue.bytes)
    problems = [Problem(where, "", text) for where, text in what_is_wrong(backup, catalogue, advance)]
    found = verify_data(backup / DATA, begin)
    shards = [shard._replace(problems=of_backup(shard.problems)) for shard in found.shards]
    return Report(str(backup), [*problems, *of_backup(found.problems)], shards)


def of_backup(problems: list[Problem]) -> list[Problem]:
    """Return problems reworded for a backup: the advice for a stack's own data is to restore a backup."""

    def told(problem: Problem) -> str:
        text = problem.text.replace("nothing was changed; ", "")
        return text.replace(shard_advice(Path(problem.where)), ANOTHER).replace(ADVICE, ANOTHER)

    return [problem._replace(text=told(problem)) for problem in problems]


def verify_data(data: Path, begin: Callable[[str, int], Advance]) -> Report:
    """Verify the data directory of a stack that does not run.

    Raises:
        NewerFormat: a newer version of TodoMQ wrote it. PermissionError: this user may not read all of it.
    """
    check_readable(data)
    problems = []
    stack: str | None = None
    pool_size: int | None = None
    try:
        manifest = read_manifest(data)
        stack, pool_size, workers = manifest["stack"], manifest["pool_size"], manifest["made"]
    except CorruptRecord as error:
        problems.append(Problem(str(data / MANIFEST), "", error.text))
        workers = list(shards_in(data))
    shards = [verify_shard(data / shard_name(worker), worker, stack, pool_size, begin) for worker in workers]
    return Report(str(data), problems, shards)


def check_readable(directory: Path) -> None:
    """Check that this user may read all that is in a directory: a file that is closed to a user is not damaged.

    Raises:
        PermissionError: the user may not; it names the first such file or directory.
    """
    below = (Path(parent, name) for parent, *names in os.walk(directory) for name in chain(*names))
    for path in chain((directory,), below):
        with suppress(FileNotFoundError):  # the verification says what is missing
            needed = os.R_OK | os.X_OK if stat.S_ISDIR(path.stat().st_mode) else os.R_OK
            if not os.access(path, needed):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def verify_shard(
    directory: Path, worker: int, stack: str | None, pool_size: int | None, begin: Callable[[str, int], Advance]
) -> ShardReport:
    """Read every record of one shard.

    Args:
        directory: the shard.
        worker: the worker that it must belong to.
        stack: the identity of its stack, None if that is not known.
        pool_size: how many workers the stack has, None if that is not known.
        begin: begins a step of the work, to show its progress.

    Raises:
        NewerFormat: a newer version of TodoMQ wrote it.
    """
    contents = ShardContents(str(directory), worker, pool_size)
    try:
        if stack is not None:
            check_identity(directory, stack, worker)
        storage = RocksDBStorage(directory, read_only=True, untouched=True)
    except (CorruptRecord, StorageFailed, OSError) as error:
        return ShardReport(worker, {}, [problem_of(directory, error)])
    try:
        advance = begin(f"reading worker {worker}", storage.stats()["records"])
        _read_all(storage, contents, advance)
    finally:
        storage.close()
    counts = {kind: contents.counts[kind] for kind in COUNTED}
    return ShardReport(worker, counts, contents.problems, contents.problems_more)


def missing_of(directory: Path) -> list[Problem]:
    """Return which files an open shard lacks that are needed to open it again."""
    return [Problem(str(directory / name), "", "is missing") for name in NEEDED if not (directory / name).exists()]


def _read_all(storage: Storage, contents: ShardContents, advance: Advance) -> None:
    after: bytes | None = None
    limit_bytes = limits.PAGE_BYTES
    is_all_read = True
    while True:
        try:
            items, last = storage.scan(b"", after, limit_bytes)
        except StorageFailed as error:  # reading may succeed another time
            contents.report(NOT_READ, error.text)
            return
        except CorruptRecord as error:
            if limit_bytes > 1:
                limit_bytes = 1  # record by record, up to the one that can't be read
                continue
            is_all_read = False
            place = bisect_right(_AREA_ENDS, after or b"")
            if place == len(_AREAS):
                contents.report("", error.text)
                break
            contents.report(_AREAS[place][1], f"{error.text}; the rest of these was not read")
            after, limit_bytes = _AREA_ENDS[place], limits.PAGE_BYTES
            continue
        for key, value in zip(items[::2], items[1::2], strict=True):
            contents.take(key, value)
        advance(len(items) // 2)
        after = last
        if last is None:
            break
    if is_all_read:
        contents.end()


def report_value(report: Report) -> dict[str, Any]:
    """Return a report as a value for programs."""
    return {
        "where": report.where,
        "good": report.is_good,
        "problems": [problem._asdict() for problem in report.problems],
        "shards": [
            {**shard._asdict(), "problems": [problem._asdict() for problem in shard.problems]}
            for shard in report.shards
        ],
    }
