"""The whole stack from outside: what ``todomq up``, ``down`` and their like do.

Owns: starting supervisord with what ``supervisord.conf`` expects, waiting until a real add and read have gone through,
the stop that leaves no process and no socket. Must not know: what the daemons do.

Law 9: after ``stop`` nothing runs and the data is there; ``start`` works at once, also after supervisord was killed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from todomq.daemons import LISTENER, name_of_process
from todomq.errors import Unavailable
from todomq.keys.required import check_keys
from todomq.runtime.local_process import has_ended, is_stopped, kill
from todomq.runtime.locks import STACK_LOCK, hold, private_directory
from todomq.settings import SERVER_ADVICE, VARIABLES, SettingsError, read_settings
from todomq.supervision import records
from todomq.supervision.leftovers import remove_sockets, remove_sockets_of_daemons
from todomq.supervision.limits import LIMIT_VARIABLES, read_limits
from todomq.supervision.manager import RUNNING, Manager, Process, knock

CONFIGURATION = Path(__file__).with_name("supervisord.conf")
CONFIGURATION_NAME = os.fsencode(f"/{CONFIGURATION.name}")
HOME_IS = b"TODOMQ_HOME="
SERVER_PACKAGES = ("supervisor", "rocksdict")
KNOWN_VARIABLES = VARIABLES | LIMIT_VARIABLES | {"TODOMQ_PYTHON"}
NOT_INHERITED = frozenset(("TODOMQ_ENDPOINT", "TODOMQ_CREDENTIALS", "PYTHONINSPECT", "PYTHONWARNINGS"))
"""Whoever starts the stack is at home here, and not a client of another one, or with a key. Python would not end where
it is to be inspected, and supervisord answers nobody where a warning is an error."""
ANOTHER_COMMAND_S = 60.0
STOP_S = 60.0
KNOCK_S = 0.02
OPEN_FILES = 256
"""What supervisord must be able to have open (``minfds`` in ``supervisord.conf``)."""
SPAWN_S = 5.0
SPAWN_POLL_S = 0.01
HEALTHY_S = 30
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(512 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(1024 * 1024),
}
"""What glibc's allocator is told (mallopt(3)). As it comes, it raises its thresholds with the first large message that
is freed, and clients that vanish in mid-message then leave ever more of their buffers behind (law 6)."""


class Stack:
    """One stack, named by its settings."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Name the stack by its environment; nothing is started yet.

        Raises:
            SettingsError: a variable has no usable value.
        """
        self.settings = read_settings(environment)
        read_limits(self.settings, environment)  # what is wrong there is said before anything is started
        self.manager = Manager(self.settings.run)
        self._environment = environment
        for path in (str(self.settings.home), self.environment()["TODOMQ_PYTHON"]):
            if "%" in path:
                raise SettingsError(f"{path}: supervisord takes no path with % in it; name another one")

    def environment(self) -> dict[str, str]:
        """Return the environment in which this stack's supervisord and commands run."""
        inherited = {name: value for name, value in self._environment.items() if name not in NOT_INHERITED}
        return {
            **ALLOCATOR,
            **inherited,
            "TODOMQ_HOME": str(self.settings.home),
            "TODOMQ_DATABASE_WORKERS": str(self.settings.database_workers),
            "TODOMQ_LIST_SERVERS": str(self.settings.list_servers),
            "TODOMQ_PYTHON": _python(self._environment),
        }

    def is_running(self) -> bool:
        """Tell whether its supervisord answers."""
        try:
            self.manager.pid()
        except Unavailable:
            return False
        return True

    def settings_not_taken(self) -> list[str]:
        """Return the variables that the running stack was started with otherwise than they are now.

        What a stack runs with is what its supervisord was started with; a daemon that is restarted gets the same.

        Raises:
            Unavailable: the stack does not run.
        """
        try:
            held = Path(f"/proc/{self.manager.pid()}/environ").read_bytes().decode(errors="surrogateescape")
        except OSError:
            return []  # it has ended meanwhile
        theirs = dict(line.split("=", 1) for line in held.split("\0") if "=" in line)
        ours = self.environment()
        names = KNOWN_VARIABLES - {"TODOMQ_HOME", "TODOMQ_PYTHON"}
        return sorted(name for name in names if theirs.get(name, "") != ours.get(name, ""))

    def unknown_variables(self) -> list[str]:
        """Return the variables that are named as settings are, and are none: they change nothing."""
        return sorted(name for name in self._environment if name.startswith("TODOMQ_") and name not in KNOWN_VARIABLES)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for another command that starts or stops this stack, and keep others waiting meanwhile.

        Raises:
            Unavailable: the other one takes over a minute.
        """
        private_directory(self.settings.run)
        lock = hold(self.settings.run / STACK_LOCK, ANOTHER_COMMAND_S)
        try:
            yield
        finally:
            os.close(lock)

    def prepare(self) -> None:
        """Make the directories, and end and forget what is left of an earlier life.

        Raises:
            SettingsError: only the client is installed, the settings name another machine's registry or a Python that
                can't be run, a socket's path would be too long, an address that others can reach has no keys, or the
                data can't be written.
        """
        if self.settings.registry:
            raise SettingsError(
                "TODOMQ_REGISTRY is for daemons started by hand that join another machine's stack: unset it for a stack"
            )
        missing = [package for package in SERVER_PACKAGES if find_spec(package) is None]
        if missing:
            raise SettingsError(f"a stack needs {' and '.join(missing)}; {SERVER_ADVICE}")
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most_files != resource.RLIM_INFINITY and most_files < OPEN_FILES:
            raise SettingsError(f"a stack needs {OPEN_FILES} open files, and ulimit -n allows {most_files}: raise that")
        python = self.environment()["TODOMQ_PYTHON"]
        if shutil.which(python) is None:
            raise SettingsError(f"TODOMQ_PYTHON is {python}, which can't be run; a Python with TodoMQ is needed")
        if python != sys.executable:
            _check_python(python, self.environment())
        check_keys(self.settings)
        _check_writable(self.settings.log, self.settings.data, *sorted(self.settings.data.glob("worker-*")))
        self.settings.address(f"{self.manager.socket.name}.{1 << 22}")  # supervisord first binds it with its pid behind
        self._end_silent_manager()
        self._remove_sockets()  # of a daemon that is none any more, for example
        private_directory(self.settings.run)
        self.settings.log.mkdir(parents=True, exist_ok=True)
        records.forget(self.settings.run)

    def command(self, *more: str) -> list[str]:
        """Return the command line of its supervisord."""
        return [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(CONFIGURATION), *more]

    def start(self) -> None:
        """Start supervisord in the background, unless it runs; then start whatever of the stack is stopped.

        Raises:
            SettingsError: as ``prepare``.
            Unavailable: supervisord refused to start; the text says why.
        """
        if self.is_running():
            self._start_what_stopped()
            return
        self.prepare()
        started = subprocess.run(self.command(), env=self.environment(), capture_output=True, text=True, check=False)
        if started.returncode != 0:
            lines = (started.stdout + started.stderr).strip().splitlines() or [f"exit status {started.returncode}"]
            raise Unavailable(f"supervisord does not start: {lines[0]}")
        self._wait_for_processes()

    def wait_healthy(self, timeout_s: int = HEALTHY_S) -> None:
        """Wait until a real add and read have gone through every database worker.

        Raises:
            Unavailable: the stack has given up, or is not healthy in time; the text says why.
        """
        command = [sys.executable, "-P", "-m", "todomq.cli", "probe", "health", "--json", "--wait", str(timeout_s)]
        with (
            _Processes(self._manager_pids()) as manager,
            subprocess.Popen(
                command, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as probe,
        ):
            while True:
                try:
                    found, _ = probe.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    if self.failure() is not None:
                        probe.kill()
            if probe.returncode != 0:
                raise Unavailable(self._wait_for_failure(manager) or _what_is_at_fault(found))

    def failure(self) -> str | None:
        """Return why the stack gave up, or None if it did not."""
        return records.read_failure(self.settings.run)

    def stop(self) -> bool:
        """Stop everything in order and remove the sockets; the data stays.

        Returns:
            False where nothing ran.

        Raises:
            Unavailable: something still runs.
        """
        alive: list[int] = []
        try:
            pids = [self.manager.pid(), *(process.pid for process in self.manager.processes() if process.pid)]
            with _Processes(pids) as processes:
                processes.let_go_on()
                self.manager.shutdown()
                self._see_off(processes)
                if not processes.wait_for_all(STOP_S):
                    alive = processes.alive()
            ran = True
        except Unavailable:
            if self.is_running():
                raise
            ran = self._end_silent_manager()
        if alive:
            raise Unavailable(f"still running, though told to end: pid {', '.join(map(str, alive))}")
        self._remove_sockets()
        return ran

    def _see_off(self, processes: _Processes) -> None:
        """Wait until supervisord has ended, or kill it. That its last process has, it sees once a second by itself."""
        give_up = time.monotonic() + STOP_S
        while not processes.wait_for_first(KNOCK_S):
            if time.monotonic() > give_up:
                processes.kill_first()
                return
            knock(self.settings.run)

    def restart(self, say: Callable[[str], None]) -> None:
        """Stop and start one process after another, in the order of the tree, each gracefully.

        The caller is ``alone``: a daemon that is stopped while nobody is, the listener starts, and so it does where
        this process is killed between a stop and a start. The listener itself, which holds nothing, is killed instead:
        supervisord has it back.

        Raises:
            Unavailable: the stack does not run, or was not healthy after one of them.
        """
        self._start_what_stopped()  # else the stack would not be healthy after the first of the others
        for process in self.manager.processes():
            try:
                if process.group == LISTENER:
                    self._replace(process)
                else:
                    self.manager.stop(process, STOP_S)
                    self.manager.start(process, STOP_S)
            except BaseException:  # an interrupt among others: what was stopped must not stay so
                with suppress(Unavailable):
                    self._start_what_stopped()
                raise
            self.wait_healthy()
            say(f"{' '.join(map(str, name_of_process(process.name)))} restarted")

    def _replace(self, process: Process) -> None:
        """Kill a process and wait until supervisord has another in its place."""
        self.manager.kill(process)
        give_up = time.monotonic() + STOP_S
        while not any(
            each.name == process.name and each.state == RUNNING and each.pid != process.pid
            for each in self.manager.processes()
        ):
            if time.monotonic() > give_up:
                raise Unavailable(f"{process.name} was killed and did not come back")
            time.sleep(SPAWN_POLL_S)

    def _start_what_stopped(self) -> None:
        """Start the processes that somebody has stopped, those that are still stopping as well.

        Raises:
            Unavailable: supervisord refuses, or does not answer.
        """
        self.settings.log.mkdir(exist_ok=True)
        give_up = time.monotonic() + STOP_S
        while True:
            processes = self.manager.processes()
            for process in processes:
                if process.state in ("STOPPED", "EXITED"):
                    self.manager.start(process, STOP_S)
            if all(process.state != "STOPPING" for process in processes) or time.monotonic() > give_up:
                return
            time.sleep(SPAWN_POLL_S)

    def _wait_for_processes(self) -> None:
        """Ask until every process was started: each question turns supervisord's loop, which else waits a second."""
        give_up = time.monotonic() + SPAWN_S
        while time.monotonic() < give_up:
            try:
                states = {process.state for process in self.manager.processes()}
            except Unavailable:
                return  # it has given up already; whoever waits for health learns why
            if not states & {"STOPPED", "STARTING"}:
                return
            time.sleep(SPAWN_POLL_S)

    def _end_silent_manager(self) -> bool:
        """End a supervisord of this stack that lives and does not answer; its daemons end with it.

        One that is stopping the stack already is let do that. One that is about to begin, for an ``up`` that was
        killed, may leave another process in its place meanwhile: so it is looked for until none is found.
        """
        was_there = False
        while (pid := self.silent_manager()) is not None:
            was_there = True
            with _Processes([pid, *_children(pid)]) as processes:
                if self.manager.is_ending():
                    processes.let_go_on()
                    processes.wait_for_first(STOP_S)
                processes.kill_first()
                if not processes.wait_for_all(STOP_S):
                    break
        return was_there

    def silent_manager(self) -> int | None:
        """Return the pid of a supervisord of this stack that lives, though it does not answer; None where none does."""
        try:
            named = int((self.settings.run / "supervisord.pid").read_text())
        except (OSError, ValueError):
            named = 0
        if self._is_manager(named):
            return named
        # Somebody may have removed the run directory, with its sockets and locks, beside a stack that lives.
        seen: set[int] = set()
        while fresh := {int(process.name) for process in Path("/proc").glob("[0-9]*")} - seen:
            found = next(filter(self._is_manager, fresh), None)
            if found is not None:
                return found
            seen |= fresh  # one that ended meanwhile may have left another in its place
        return None

    def _is_manager(self, pid: int) -> bool:
        """Tell whether a process is a supervisord that was started for this stack, by what it was started with."""
        process = Path(f"/proc/{pid}")
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"supervisor.supervisord" not in words or not any(word.endswith(CONFIGURATION_NAME) for word in words):
                return False
            variables = (process / "environ").read_bytes().split(b"\0")
            home = next(each[len(HOME_IS) :] for each in variables if each.startswith(HOME_IS))
            its_home = Path(f"{process}/root{os.fsdecode(home)}")  # in a container the same path is another directory
            return (its_home if its_home.exists() else process / "cwd").samefile(self.settings.home)
        except (OSError, StopIteration):
            return False

    def _manager_pids(self) -> list[int]:
        """Return the pid of this stack's supervisord, whether it answers or not; empty where none lives."""
        try:
            return [self.manager.pid()]
        except Unavailable:
            silent = self.silent_manager()
            return [] if silent is None else [silent]

    def _wait_for_failure(self, manager: _Processes) -> str | None:
        """Return why the stack gave up, once it is down."""
        reason = self.failure()
        if reason is not None:
            # It removes its pid file and answers nothing a while before it has ended.
            manager.wait_for_all(STOP_S)
            self._remove_sockets()
        return reason

    def _remove_sockets(self) -> None:
        remove_sockets_of_daemons(self.settings.run)
        remove_sockets(self.settings.run.glob(f"{self.manager.socket.name}*"))
        (self.settings.run / "supervisord.pid").unlink(missing_ok=True)


def _python(environment: Mapping[str, str]) -> str:
    """Return what daemons are started with; supervisord looks for a path from the home on."""
    python = environment.get("TODOMQ_PYTHON") or sys.executable
    return os.path.abspath(python) if "/" in python else python


def _check_python(python: str, environment: Mapping[str, str]) -> None:
    """Refuse a Python that lacks what daemons need: none of them could say so."""
    command = [python, "-P", "-c", "import supervisor, rocksdict, todomq.supervision.service"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        why = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        raise SettingsError(f"TODOMQ_PYTHON is {python}, which does not have TodoMQ: {why}")


def _check_writable(*directories: Path) -> None:
    for path in directories:
        if path.exists() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise SettingsError(f"{path} can't be written; make it writable for the user who starts the stack")


def _what_is_at_fault(found: str) -> str:
    """Return in one line what ``probe health --json`` said of a stack that is not healthy."""
    try:
        value = json.loads(found)
    except ValueError:
        return "the stack is not healthy; see: todomq logs"  # the probe itself was ended
    if "error" in value:
        return str(value["error"]["text"])
    same: dict[tuple[str, str], list[str]] = {}  # what is wrong with all workers is said once
    for part in value["parts"]:
        if part["state"] == "failed":
            same.setdefault((part["name"][0], part["text"]), []).append("".join(map(str, part["name"][1:])))
    faults = "; ".join(f"{f'{kind} {_listed(numbers)}'.strip()}: {text}" for (kind, text), numbers in same.items())
    return f"the stack is not healthy: {faults} (what runs of it goes on; todomq down stops it)"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


class _Processes:
    """Processes held by pidfds, so that a reused pid is never taken for one of them. The first is supervisord."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._held: dict[int, int] = {}
        for pid in pids:
            try:
                self._held[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        self._first = next(iter(self._held.values()), None)

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for pidfd in self._held.values():
            os.close(pidfd)

    def alive(self) -> list[int]:
        return [pid for pid, pidfd in self._held.items() if not has_ended(pidfd)]

    def let_go_on(self) -> None:
        """End the pause of those that stand still for a signal: they could not end gracefully."""
        for pid, pidfd in self._held.items():
            if is_stopped(pid):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGCONT)

    def kill_first(self) -> None:
        if self._first is not None:
            kill(self._first)

    def wait_for_first(self, timeout_s: float) -> bool:
        return self._first is None or has_ended(self._first, timeout_s)

    def wait_for_all(self, timeout_s: float) -> bool:
        give_up = time.monotonic() + timeout_s
        return all(has_ended(pidfd, max(0.0, give_up - time.monotonic())) for pidfd in self._held.values())


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
