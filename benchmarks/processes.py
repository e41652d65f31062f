"""Processes that are measured: started, watched, ended by pid; what the kernel says of them.

Owns: temporary homes, memory and files. Must not know: what the processes do.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.01
START_S = 20.0
END_S = 10.0


class Files(NamedTuple):
    """What lies in a directory."""

    number: int
    size_bytes: int


def resident_bytes(pid: int) -> int:
    """Return how many bytes of a process are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files_in(directory: Path) -> Files:
    """Return number and size of all files of a directory."""
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return Files(len(sizes), sum(sizes))


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Make a directory with a short path (sockets have 107 bytes) and remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="tqb-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextmanager
def running(
    command: Sequence[str], home: Path, is_ready: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the block runs; its output goes to ``home/output``.

    Raises:
        RuntimeError: it ended, or was not ready in time; the text holds its last words.
    """
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=home, stdout=output, stderr=output, env=environment)
    try:
        wait_until(lambda: process.poll() is not None or is_ready(), START_S, command[0])
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended: {(home / 'output').read_text(errors='replace')[-500:]}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: it does not within ``timeout_s`` seconds.
    """
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"{what}: not ready within {timeout_s:g} s")
        time.sleep(POLL_S)


def listens(path: Path) -> bool:
    """Tell whether somebody accepts connections at a socket in the file system."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def running_function(work: Callable[[Path], None], home: Path) -> Iterator[None]:
    """Run ``work(home)`` in a fresh process while the block runs."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(home,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
