"""Files with keys in them: JSON, mode 0600, written whole or not at all.

Owns: how such a file is read and written. Must not know: what it holds. A damaged file is an error that names it,
never taken for an empty one (law 8), and its content is never part of an error's text.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from todomq.errors import InvalidRequest
from todomq.settings import SettingsError

FILE_BYTES = 64 << 20


def read_private(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a file of the given kind.

    Returns:
        its fields, including ``format`` and ``version``.

    Raises:
        InvalidRequest: it can't be read, others may read or write it, or it is not such a file.
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(FILE_BYTES)
        fields = json.loads(content)
    except OSError as error:
        raise _refusal(error)(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{path} is not JSON, or damaged") from None
    if type(fields) is not dict or fields.get("format") != kind:
        raise InvalidRequest(f"{path} is not a file of the format {kind!r}")
    if mode & 0o077:
        raise InvalidRequest(f"{path} is open to others (mode {mode:o}); close it: chmod 600 {path}")
    if fields.get("version") != version:
        raise InvalidRequest(f"{path} has version {fields.get('version')!r:.20} where {version} is known")
    return fields


def write_private(path: Path, kind: str, version: int, fields: dict[str, Any], *, replace: bool) -> None:
    """Write a file, mode 0600, on disk when this returns.

    Args:
        path: where.
        kind, version: what ``read_private`` will ask for.
        fields: what it is to hold.
        replace: whether a file that is there may be replaced; readers see the old one or the new one.

    Raises:
        InvalidRequest: it is there and may not be replaced, or can't be written.
    """
    text = json.dumps({"format": kind, "version": version, **fields}, indent=2) + "\n"
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)  # of a process that died while it wrote
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(fresh, path)
        else:
            os.link(fresh, path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise InvalidRequest(f"{path} is there already; nothing was written") from None
    except OSError as error:
        raise _refusal(error)(f"{path} can't be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            fresh.unlink()


def _refusal(error: OSError) -> type[InvalidRequest]:
    """Return the kind of error for a file that can't be used; one closed to this user is told like a closed home."""
    return SettingsError if isinstance(error, PermissionError) else InvalidRequest
