"""What is left in the run directory when nothing runs any more: the sockets of daemons, which none of them removes.

Owns: telling them from other files. The listener, stopped last, removes them; ``stack.py`` where it could not.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable
from pathlib import Path

from todomq.daemons import is_daemon_name, name_of_process


def remove_sockets_of_daemons(run: Path) -> None:
    """Remove the sockets of daemons from the run directory, if that is there."""
    remove_sockets(path for path in run.glob("*") if is_daemon_name([*name_of_process(path.name.partition(".")[0])]))


def remove_sockets(paths: Iterable[Path]) -> None:
    """Remove those of some files that are sockets."""
    for path in paths:
        if stat.S_ISSOCK(path.lstat().st_mode):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file; if the file system has become read-only it stays, since it is in nobody's way."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
