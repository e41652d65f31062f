"""Local processes: found by pid, watched for their death, ended when hung. Linux: pidfd_open(2), epoll(7), proc(5).

Owns: one pidfd per watched process, all behind one epoll descriptor that a poll loop can watch. A pidfd means one life
of a process for good, so neither a death nor a kill can hit a later process of the same pid.
Must not know: names, leases. Used by ``service.py``.
"""

from __future__ import annotations

import os
import resource
import select
from pathlib import Path

from todomq.errors import InvalidRequest, Overloaded
from todomq.registry.registrations import Process
from todomq.runtime.local_process import has_ended, kill, start_time


class LocalProcesses:
    """The processes whose death this process wants to see."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._descriptors: dict[Process, int] = {}
        self._processes: dict[int, Process] = {}
        # Half of the descriptors: the rest is for the sockets of peers.
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2

    def __len__(self) -> int:
        return len(self._descriptors)

    def fileno(self) -> int:
        """Return the descriptor that is readable while a watched process is dead and not released."""
        return self._epoll.fileno()

    def watch(self, pid: int) -> Process:
        """Watch the process that has this pid now, until it is released.

        Raises:
            InvalidRequest: there is no such process, or it has ended.
            Overloaded: no descriptor is left for it.
        """
        descriptor = _open(pid)
        try:
            process = Process(pid, _start_time(pid))
            if has_ended(descriptor):  # asked after its start time was read, so that time was of this very process
                raise InvalidRequest(f"there is no process {pid}")
            if process not in self._descriptors:
                self._keep(process, descriptor)
                descriptor = -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return process

    def dead(self) -> list[Process]:
        """Return the watched processes that have ended, each of them again and again until it is released."""
        return [self._processes[descriptor] for descriptor, _ in self._epoll.poll(0)]

    def kill(self, process: Process) -> None:
        """End a watched process with SIGKILL; one that has ended already is left alone.

        Raises:
            PermissionError: it belongs to another user.
        """
        descriptor = self._descriptors.get(process)
        if descriptor is not None:
            kill(descriptor)

    def release(self, process: Process) -> None:
        """Stop watching the process; one that is not watched is ignored."""
        descriptor = self._descriptors.pop(process, None)
        if descriptor is not None:
            del self._processes[descriptor]
            os.close(descriptor)  # leaves the epoll set with it: nothing else refers to this pidfd

    def _keep(self, process: Process, descriptor: int) -> None:
        if len(self._descriptors) >= self._most:
            raise Overloaded(f"{self._most} processes are watched already, the most for this descriptor limit")
        self._epoll.register(descriptor, select.EPOLLIN)
        self._descriptors[process] = descriptor
        self._processes[descriptor] = process


def is_endable(process: Process) -> bool:
    """Tell whether this process may end the other: of the same user, and not itself."""
    try:
        owner = os.stat(f"/proc/{process.pid}").st_uid
    except FileNotFoundError:
        return False
    return owner == os.geteuid() and process.pid not in (1, os.getpid())


def boot() -> str:
    """Return what all pids of one boot (and one pid namespace) have in common, fit for a file name."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot_id}-{os.stat('/proc/self/ns/pid').st_ino}"


def _open(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if isinstance(error, ProcessLookupError) or not _is_process(pid):
            raise InvalidRequest(f"there is no process {pid}") from None
        raise Overloaded(f"process {pid} can't be watched: {error.strerror}") from None


def _is_process(pid: int) -> bool:
    # A thread's id is in /proc as well, but not as a process of its own: pidfd_open refuses it.
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return f"\nTgid:\t{pid}\n" in status


def _start_time(pid: int) -> int:
    try:
        return start_time(pid)
    except ProcessLookupError as error:
        raise InvalidRequest(str(error)) from None
