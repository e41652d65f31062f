"""The catalogue of a backup: which files it has, with their sizes and checksums. Written last, so it says "whole".

Owns: the file ``catalogue`` of a backup's directory, the copying of files with checksums. Must not know: stacks, the
engine, what files hold. The backup's files lie in ``data``, as in a stack's home.

Law 8: a backup without a catalogue was not finished; a file that is missing, damaged or does not belong is named.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from todomq.database_worker.storage.manifest import IDENTITY, MANIFEST, shard_name
from todomq.database_worker.storage.rocksdb import FILES, LOGS
from todomq.database_worker.storage.small_files import read_file, sync_directory, write_file
from todomq.errors import CorruptRecord

CATALOGUE = "catalogue"
DATA = "data"
CHUNK_BYTES = 1 << 20
NEEDED = (IDENTITY, *FILES)
"""Files of every shard."""

Advance = Callable[[int], None]


class Catalogue(NamedTuple):
    """What a backup says of itself. ``files`` is ``{path below data: (bytes, SHA-256)}``."""

    stack: str
    pool_size: int
    made_at: str
    files: dict[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(size for size, _ in self.files.values())

    def of_worker(self, worker: int) -> dict[str, tuple[int, str]]:
        """Return the files of one worker's shard."""
        return {name: held for name, held in self.files.items() if name.startswith(f"{shard_name(worker)}/")}


def write_catalogue(backup: Path, catalogue: Catalogue) -> None:
    """Finish a backup.

    Raises:
        OSError: it can't be written.
    """
    write_file(backup / CATALOGUE, catalogue._asdict())


def remove_catalogue(backup: Path) -> None:
    """Undo ``write_catalogue``, however far it got."""
    with suppress(OSError):
        (backup / CATALOGUE).unlink(missing_ok=True)


def read_catalogue(backup: Path) -> Catalogue:
    """Read what a backup says of itself.

    Raises:
        CorruptRecord: there is no catalogue, so the backup was not finished, or it is damaged.
        NewerFormat: a newer version of TodoMQ made it.
    """
    path = backup / CATALOGUE
    if not path.exists():
        raise CorruptRecord(f"{backup} is no backup, or one that was not finished: it has no file {CATALOGUE}")
    fields = {"stack": str, "pool_size": int, "made_at": str, "files": dict}
    value = read_file(path, fields, "use another backup")
    if not all(_is_file(name, held) for name, held in value["files"].items()):
        raise CorruptRecord(f"{path} is damaged: it names files that cannot be; use another backup")
    files = {name: (size, digest) for name, (size, digest) in value["files"].items()}
    catalogue = Catalogue(value["stack"], value["pool_size"], value["made_at"], files)
    check_whole(catalogue, backup / DATA)
    return catalogue


def check_whole(catalogue: Catalogue, data: Path) -> None:
    """Check that a backup has, for every shard, the files that no shard can be without.

    Raises:
        CorruptRecord: one is missing; the text names the first.
    """
    shards = [shard_name(worker) for worker in range(1, catalogue.pool_size + 1)]
    for name in [MANIFEST, *(f"{shard}/{file}" for shard in shards for file in NEEDED)]:
        if name not in catalogue.files:
            raise CorruptRecord(f"{data / name} is not in the backup, which is not whole")


def _is_file(name: str, held: Any) -> bool:
    """Tell whether a name is that of a file below a directory, and is recorded with a size and a digest."""
    parts = PurePosixPath(name).parts
    is_below = bool(parts) and ".." not in parts and not name.startswith("/")
    return is_below and type(held) is list and [type(part) for part in held] == [int, str]


def copy_file(source: Path, target: Path, advance: Advance) -> tuple[int, str]:
    """Copy a file; it is on disk when this returns.

    Returns:
        how many bytes it has, and their SHA-256 as text.

    Raises:
        OSError: it can't be read or written; it names the file.
    """
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with open(target, "xb") as file:
            for chunk in _chunks(source):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(target)  # the system names none if writing fails
        raise
    return size, digest.hexdigest()


def measure_file(path: Path, advance: Advance = lambda size: None) -> tuple[int, str]:
    """Return how many bytes a file has, and their SHA-256 as text.

    Raises:
        OSError: it can't be read.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        digest.update(chunk)
        size += len(chunk)
        advance(len(chunk))
    return size, digest.hexdigest()


def sync_tree(directory: Path) -> None:
    """Make the names in a directory and in all below it durable.

    Raises:
        OSError: one can't be synced.
    """
    for path, _, _ in os.walk(directory):
        sync_directory(Path(path))


def what_is_wrong(backup: Path, catalogue: Catalogue, advance: Advance) -> Iterator[tuple[str, str]]:
    """Yield ``(path, what is wrong)`` for each file of a backup that differs from its record in the catalogue."""
    data = backup / DATA
    for name, (size, digest) in catalogue.files.items():
        try:
            found_size, found = measure_file(data / name, advance)
        except OSError as error:
            yield str(data / name), f"cannot be read: {error.strerror}"
            continue
        if found_size != size:
            yield str(data / name), f"has {found_size} bytes and was backed up with {size}"
        elif found != digest:
            yield str(data / name), "is damaged: its checksum is not the one that it was backed up with"
    for path in sorted(data.rglob("*")):
        name = str(path.relative_to(data))
        if path.is_file() and name not in catalogue.files and not path.name.startswith(LOGS):
            yield str(path), "is not part of the backup"


def _chunks(path: Path) -> Iterator[Any]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
