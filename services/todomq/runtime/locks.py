"""One daemon per name: an exclusive lock, taken before its socket is bound.

A second bind to an ipc path silently steals it, so a daemon takes ``<name>.lock`` before it binds. The kernel drops the
lock when its process ends, however that happens.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from todomq.errors import Unavailable
from todomq.settings import SettingsError

STACK_LOCK = "stack.lock"
"""In the run directory: held by a command that starts or stops the stack, or puts data in its place."""


def private_directory(path: Path) -> None:
    """Create the directory if need be and see that nobody else can enter it (mode 0700).

    Raises:
        SettingsError: others can enter it and it holds files that are not a stack's; closing it would shut them out.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = [each.name for each in path.iterdir()] if path.stat().st_mode & 0o077 else []
    if held and not any(name.endswith(".lock") or name == "lock" for name in held):
        raise SettingsError(f"{path} is not TodoMQ's and would be closed to others; name another home")
    if path.stat().st_mode & 0o777 != 0o700:
        path.chmod(0o700)


def hold(path: Path, wait_s: float = 5.0) -> int:
    """Take the lock at ``path``, waiting for its present holder at most ``wait_s`` seconds.

    Returns:
        the file descriptor that holds the lock; it is kept open for as long as the process lives.

    Raises:
        Unavailable: another living process holds it; the text says which. OSError: it can't be opened, or its file
            system has no locks.
    """
    descriptor = _open(path)
    give_up = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > give_up:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise Unavailable(f"{path.name} is held by process {holder}, still after {wait_s:g} s") from None
            time.sleep(0.02)
        except OSError as error:
            os.close(descriptor)
            raise OSError(error.errno, f"its file system has no locks (flock): {error.strerror}", str(path)) from None
    # Written in place, and left out if the disk is full: it is only a note for processes that find the lock held.
    with suppress(OSError):
        os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
    return descriptor


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # to hold it nothing need be written
