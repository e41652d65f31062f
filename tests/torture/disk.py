"""A disk of the stack's own that can be filled: a tmpfs, where this user may mount one.

Owns: the mount and its size. Must not know: what lies on it. Filling makes it as small as what it holds, so it costs no
memory and happens at once; freeing gives it its size back.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

SIZE_MIB = 4_096
FULL_WITHIN_S = 2.0


class Disk:
    """A tmpfs at a directory, once it is mounted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def mount(self) -> str:
        """Mount it if this user may; return why it could not be done, the empty text where it was."""
        return _mount("-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0700", "todomq-torture", str(self._directory))

    def fill(self) -> bool:
        """Leave no room; return False where the stack wrote faster than that could be done."""
        give_up = time.monotonic() + FULL_WITHIN_S
        while time.monotonic() < give_up:
            held = os.statvfs(self._directory)
            used = (held.f_blocks - held.f_bfree) * held.f_frsize
            if not self._resize(f"{used}"):
                return True
        return False

    def free(self) -> None:
        """Give it room again."""
        self._resize(f"{SIZE_MIB}m")

    def end(self) -> None:
        """Unmount it and remove the directory, where it is mounted."""
        if os.path.ismount(self._directory):
            subprocess.run(["umount", "--lazy", str(self._directory)], check=False)
            with contextlib.suppress(FileNotFoundError):
                self._directory.rmdir()

    def _resize(self, size: str) -> str:
        return _mount("-o", f"remount,size={size}", str(self._directory))


def _mount(*arguments: str) -> str:
    """Mount; return why it could not be done, the empty text where it was."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no program to mount with"
    return "" if done.returncode == 0 else done.stderr.strip() or "it was refused"
