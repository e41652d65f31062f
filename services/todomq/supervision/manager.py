"""The process manager, asked over its own socket: supervisord's XML-RPC through HTTP on ``<home>/run/supervisor.sock``.

Owns: the connection, its time limit, the shape of the answers, which process it is. Must not know: why anyone asks.
Used by the listener (off its loop), by ``stack.py`` and by the probe. Methods: http://supervisord.org/api.html
"""

from __future__ import annotations

import http.client
import os
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

from todomq.daemons import GROUPS
from todomq.errors import Unavailable
from todomq.settings import Settings

RUNNING, STARTING, STOPPING, STOPPED = "RUNNING", "STARTING", "STOPPING", "STOPPED"
EXITED, BACKOFF, FATAL = "EXITED", "BACKOFF", "FATAL"
"""States of a process, in supervisord's words (http://supervisord.org/subprocess.html)."""
CONFIGURATION = Path(__file__).with_name("supervisord.conf")
_CONFIGURATION_NAME = os.fsencode(f"/{CONFIGURATION.name}")
_HOME_IS = b"TODOMQ_HOME="
_SHUTDOWN_STATE = 6
ANSWERS, ENDING, SILENT = "answers", "ending", "silent"
"""What a supervisord does: it answers; it is stopping everything, as it was told; it says nothing, if there is one."""


class Ending(Unavailable):
    """supervisord is stopping everything and will then end; until then it answers no other question."""


class Process(NamedTuple):
    """One process as supervisord sees it; ``pid`` is 0 if it does not run, ``uptime_s`` counts from its start."""

    group: str
    name: str
    state: str
    pid: int
    uptime_s: int
    trouble: str


class Manager:
    """One stack's supervisord. Every question is a ``PermissionError`` for a user who may not reach its socket."""

    def __init__(self, settings: Settings) -> None:
        """Name the stack by its settings; nothing is asked yet."""
        self.socket = settings.run / "supervisor.sock"
        self._settings = settings

    def pid(self) -> int:
        """Return supervisord's process id."""
        return int(self._call("supervisor.getPID"))

    def state(self) -> str:
        """Return ANSWERS, ENDING or SILENT. If supervisord stands still, this waits two seconds for it."""
        try:
            self.pid()
        except Ending:
            return ENDING
        except Unavailable:
            return SILENT
        return ANSWERS

    def living_pid(self) -> int | None:
        """Return supervisord's process id as ``/proc`` has it, whether it answers or not; None if none lives."""
        try:
            named = int((self._settings.run / "supervisord.pid").read_text())
        except (OSError, ValueError):
            named = 0
        if self._is_it(named):
            return named
        # Somebody may have removed the run directory, with its sockets and locks, beside a stack that lives.
        seen: set[int] = set()
        while fresh := {int(process.name) for process in Path("/proc").glob("[0-9]*")} - seen:
            found = next(filter(self._is_it, fresh), None)
            if found is not None:
                return found
            seen |= fresh  # one that has ended may have started another in its place
        return None

    def processes(self) -> list[Process]:
        """Return all processes, in the order of their start: the listener, then the groups of the tree."""
        processes = [
            Process(
                info["group"], info["name"], info["statename"], info["pid"],
                info["now"] - info["start"] if info["pid"] else 0, info["spawnerr"],
            )
            for info in self._call("supervisor.getAllProcessInfo")
        ]  # fmt: skip
        return sorted(processes, key=lambda process: (_place(process.group), process.name))

    def stop(self, process: Process, timeout_s: float) -> None:
        """Stop one process gracefully and wait until it has ended."""
        self._call("supervisor.stopProcess", f"{process.group}:{process.name}", True, timeout_s=timeout_s)

    def start(self, process: Process, timeout_s: float) -> None:
        """Start one process that was stopped."""
        self._call("supervisor.startProcess", f"{process.group}:{process.name}", True, timeout_s=timeout_s)

    def kill(self, process: Process) -> None:
        """End one process at once; supervisord starts it again, as any that dies."""
        self._call("supervisor.signalProcess", f"{process.group}:{process.name}", "KILL")

    def shutdown(self) -> None:
        """Begin to stop everything, in reverse order of the start, then supervisord itself."""
        self._call("supervisor.shutdown")

    def _is_it(self, pid: int) -> bool:
        """Tell whether a process is a supervisord that was started for this stack, by what it was started with."""
        process = Path(f"/proc/{pid}")
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"supervisor.supervisord" not in words or not any(word.endswith(_CONFIGURATION_NAME) for word in words):
                return False
            variables = (process / "environ").read_bytes().split(b"\0")
            home = next(each[len(_HOME_IS) :] for each in variables if each.startswith(_HOME_IS))
            its_home = Path(f"{process}/root{os.fsdecode(home)}")  # in a container the same path is another directory
            if not self._settings.home.exists():  # somebody has removed it beside a stack that lives
                return home == os.fsencode(self._settings.home) and not its_home.exists()
            return (its_home if its_home.exists() else process / "cwd").samefile(self._settings.home)
        except (OSError, StopIteration):
            return False

    def _call(self, method: str, *arguments: Any, timeout_s: float = 2.0) -> Any:
        connection = _UnixConnection(self.socket, timeout_s)
        try:
            connection.request("POST", "/RPC2", xmlrpc.client.dumps(arguments, method), {"Content-Type": "text/xml"})
            response = connection.getresponse()
            (value,), _ = xmlrpc.client.loads(response.read())
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _SHUTDOWN_STATE:
                raise Ending("supervisord is stopping the stack") from None
            raise Unavailable(f"supervisord refused {method}: {fault.faultString}") from None
        except PermissionError as error:
            raise PermissionError(error.errno, error.strerror, str(self.socket)) from None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ExpatError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            raise Unavailable(f"supervisord does not answer at {self.socket}: {why}") from None
        finally:
            connection.close()
        return value


def knock(run: Path) -> None:
    """Wake supervisord's poll loop by a connection that says nothing; if nobody listens, nothing happens.

    supervisord looks for dead children and for processes to start only when its poll returns, which otherwise takes up
    to a second.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        caller.connect_ex(str(run / "supervisor.sock"))


def _place(group: str) -> int:
    return GROUPS.index(group) if group in GROUPS else -1


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
