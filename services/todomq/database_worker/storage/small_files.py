"""Small files of ours: JSON with a format version and a checksum, replaced as a whole.

Owns: how such a file is read, checked and written durably. Must not know: what stands in it.

Law 8: a flipped byte, another file in its place or half a file is an error that names the file. A file of a newer
format is refused with both versions named; those of format 1, which had no checksum, are still read.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from todomq.errors import CorruptRecord
from todomq.settings import SettingsError

FORMAT = 2
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What is raised where a file is gone. Whatever else the system says may pass, so it is no damage."""
ADVICE = "restore it from a backup (todomq restore BACKUP)"
"""What a person is told to do where the data can't be used."""
_SHARD = re.compile(r"worker-([0-9]+)(\..*)?")


def shard_advice(path: Path) -> str:
    """Return what to tell a person if a shard can't be used; ``path`` is its directory, or a file in it."""
    number = ["N", *(match[1] for match in map(_SHARD.fullmatch, path.parts) if match)][-1]
    return f"restore this worker's shard from a backup (todomq restore BACKUP --worker {number})"


def unchanged_advice(path: Path) -> str:
    """Return the same, where nothing was written."""
    return f"nothing was changed; {shard_advice(path)}"


class NewerFormat(SettingsError):
    """The data was written by a newer version of TodoMQ than this one."""


def read_file(path: Path, fields: dict[str, type], advice: str = ADVICE) -> dict[str, Any]:
    """Read a file and check its checksum, its format and the types of its fields.

    Args:
        path: the file.
        fields: the fields that it must have, with their types.
        advice: what a person is told to do about a damaged one.

    Raises:
        CorruptRecord: it is missing or damaged; the text names it.
        NewerFormat: a newer version of TodoMQ wrote it.
        OSError: it cannot be read at the moment, or by this user.
    """
    try:
        value = json.loads(path.read_bytes())
    except MISSING as error:
        raise CorruptRecord(f"{path} cannot be read: {error.strerror}; {advice}") from None
    except ValueError:
        raise CorruptRecord(f"{path} is not JSON, or damaged; {advice}") from None
    if type(value) is not dict or type(value.get("format")) is not int:
        raise CorruptRecord(f"{path} is not a file of TodoMQ; {advice}")
    checksum = value.pop("checksum", None)
    is_old = checksum is None and value["format"] == 1
    if not is_old and checksum != _checksum(value):
        raise CorruptRecord(f"{path} is damaged: its checksum is wrong; {advice}")
    if value["format"] > FORMAT:
        raise NewerFormat(
            f"{path} has format {value['format']} and this version of TodoMQ reads formats 1 to {FORMAT}: "
            "run the version that wrote it, or a newer one"
        )
    if any(type(value.get(name)) is not kind for name, kind in fields.items()):
        raise CorruptRecord(f"{path} is damaged; {advice}")
    return value


def write_file(path: Path, value: dict[str, Any]) -> None:
    """Replace a file so that after a crash it is either the old or the new one, whole.

    Raises:
        OSError: it cannot be written. The old one is there, or, if only the directory can't be synced, the new one.
    """
    value = {**value, "format": FORMAT}
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with open(unfinished, "w") as file:
            json.dump({**value, "checksum": _checksum(value)}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: it cannot be synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
