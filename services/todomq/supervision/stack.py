"""The whole stack from outside: what ``todomq up``, ``down`` and their like do.

Owns: starting supervisord with what ``supervisord.conf`` expects, the stop that leaves no process and no socket. Must
not know: what the daemons do, or how to see that they do it (``cli/health.py``).

Law 9: after ``stop`` nothing runs and the data is there; ``start`` works at once, also after supervisord was killed.
"""

from __future__ import annotations

import os
import pwd
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
from todomq.supervision import run_files
from todomq.supervision.leftovers import remove, remove_sockets, remove_sockets_of_daemons
from todomq.supervision.limits import LIMIT_VARIABLES, read_limits
from todomq.supervision.manager import (
    ANSWERS,
    CONFIGURATION,
    ENDING,
    EXITED,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    Manager,
    Process,
    knock,
)

SERVER_PACKAGES = ("supervisor", "rocksdict")
KNOWN_VARIABLES = VARIABLES | LIMIT_VARIABLES | {"TODOMQ_PYTHON"}
NOT_INHERITED = frozenset(("TODOMQ_ENDPOINT", "TODOMQ_CREDENTIALS", "PYTHONINSPECT", "PYTHONWARNINGS"))
"""Variables that are left out: a command that starts the stack is at home here, and no client of another one or with a
key. With PYTHONINSPECT Python would not end, and supervisord answers nobody if warnings are errors."""
ANOTHER_COMMAND_S = 60.0
STOP_S = 60.0
KNOCK_S = 0.02
OPEN_FILES = 256
"""How many files supervisord must be able to have open (``minfds`` in ``supervisord.conf``)."""
SPAWN_S = 5.0
SPAWN_POLL_S = 0.01
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
        read_limits(self.settings, environment)  # what is wrong with them is said before anything is started
        self.manager = Manager(self.settings)
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

    def settings_not_taken(self) -> list[str]:
        """Return the variables whose values now differ from those that the running stack was started with.

        A stack runs with the variables that its supervisord was started with; a restarted daemon gets the same ones.

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
        """Return the variables that are named like settings but are none: they change nothing."""
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

    def prepare(self, state: str) -> None:
        """Make the directories, and end and forget what is left of an earlier life.

        Args:
            state: what ``manager.state`` returned, which is not ANSWERS.

        Raises:
            SettingsError: only the client is installed, the settings name another machine's registry or a Python that
                can't be run, a socket's path would be too long, an address that others can reach has no keys, or the
                data can't be written.
            Unavailable: something of the earlier life still runs.
        """
        from todomq.database_worker.storage.manifest import opened_in  # a running stack needs no look at its data

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
        data, log = self.settings.data, self.settings.log
        _check_writable(log, data, *opened_in(data), *sorted(log.glob("*.log")), self.settings.note_of_data)
        self.settings.address(f"{self.manager.socket.name}.{1 << 22}")  # supervisord first binds it with its pid behind
        self._end_silent_manager(state)
        self._remove_sockets()  # such as one of a daemon that the stack no longer has
        private_directory(self.settings.run)
        self.settings.log.mkdir(parents=True, exist_ok=True)
        run_files.forget(self.settings.run)

    def command(self, *more: str) -> list[str]:
        """Return the command line of its supervisord."""
        user = ["-u", "root"] if os.geteuid() == 0 and _is_known("root") else []  # or it warns that root runs it
        return [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(CONFIGURATION), *user, *more]

    def start(self) -> bool:
        """Start supervisord in the background, unless it runs; then start every process of the stack that is stopped.

        Returns:
            False where it ran already.

        Raises:
            SettingsError: as ``prepare``.
            Unavailable: supervisord refused to start; the text says why.
        """
        state = self.manager.state()
        if state == ANSWERS:
            self._start_what_stopped()
            return False
        self.prepare(state)
        started = subprocess.run(self.command(), env=self.environment(), capture_output=True, text=True, check=False)
        if started.returncode != 0:
            lines = (started.stdout + started.stderr).strip().splitlines() or [f"exit status {started.returncode}"]
            why = next((line for line in lines if line.startswith("Error: ")), lines[-1])
            raise Unavailable(f"supervisord does not start: {why}")
        self._wait_for_processes()
        return True

    def failure(self) -> str | None:
        """Return why the stack gave up, or None if it did not."""
        return run_files.read_failure(self.settings.run)

    def wait_for_failure(self) -> str | None:
        """Return why the stack gave up, once it is down, or None if it did not."""
        reason = self.failure()
        if reason is not None:
            # It removes its pid file and stops answering a while before it has ended.
            pid = self.manager.living_pid()
            with _Processes([] if pid is None else [pid]) as manager:
                manager.wait_for_all(STOP_S)
            self._remove_sockets()
        return reason

    def stop(self) -> bool:
        """Stop everything in order and remove the sockets; the data stays.

        Returns:
            False where nothing ran.

        Raises:
            Unavailable: something still runs.
        """
        state, ran = self.manager.state(), True
        if state == ANSWERS:
            try:
                alive = self._shut_down()
            except Unavailable:
                state = self.manager.state()  # it may have given up meanwhile
                if state == ANSWERS:
                    raise
            else:
                if alive:
                    raise _still_running(alive)
        if state != ANSWERS:
            ran = self._end_silent_manager(state)
        self._remove_sockets()
        return ran

    def _shut_down(self) -> list[int]:
        """Have supervisord stop everything and end; return the pids of processes that live on all the same."""
        pids = [self.manager.pid(), *(process.pid for process in self.manager.processes() if process.pid)]
        with _Processes(pids) as processes:
            processes.let_go_on()
            self.manager.shutdown()
            self._see_off(processes)
            return [] if processes.wait_for_all(STOP_S) else processes.alive()

    def _see_off(self, processes: _Processes) -> None:
        """Wait until supervisord has ended, or kill it. Unless woken, it looks for ended processes once a second."""
        give_up = time.monotonic() + STOP_S
        while not processes.wait_for_first(KNOCK_S):
            if time.monotonic() > give_up:
                processes.kill_first()
                return
            knock(self.settings.run)

    def restart(self, wait_healthy: Callable[[], None], say: Callable[[str], None]) -> None:
        """Stop and start one process after another, in the order of the tree, each gracefully.

        The caller is ``alone``: a daemon that is stopped while nobody is, the listener starts, and so it does where
        this process is killed between a stop and a start. The listener itself, which holds nothing, is killed instead:
        supervisord has it back.

        Args:
            wait_healthy: returns when the stack does its work, or raises; called after each process.
            say: is told of each process.

        Raises:
            Unavailable: the stack does not run.
        """
        self._start_what_stopped()  # or the stack would not be healthy after the first restart
        for process in self.manager.processes():
            try:
                if process.group == LISTENER:
                    self._replace(process)
                else:
                    self.manager.stop(process, STOP_S)
                    self.manager.start(process, STOP_S)
            except BaseException:  # even an interrupt: what was stopped must not stay so
                with suppress(Unavailable):
                    self._start_what_stopped()
                raise
            wait_healthy()
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
        """Start the processes that somebody has stopped, including those that are still stopping.

        Raises:
            Unavailable: supervisord refuses, or does not answer.
        """
        self.settings.log.mkdir(exist_ok=True)
        give_up = time.monotonic() + STOP_S
        while True:
            processes = self.manager.processes()
            for process in processes:
                if process.state in (STOPPED, EXITED):
                    self.manager.start(process, STOP_S)
            if all(process.state != STOPPING for process in processes) or time.monotonic() > give_up:
                return
            time.sleep(SPAWN_POLL_S)

    def _wait_for_processes(self) -> None:
        """Ask until every process was started: each question wakes supervisord's loop, which would wait a second."""
        give_up = time.monotonic() + SPAWN_S
        while time.monotonic() < give_up:
            try:
                states = {process.state for process in self.manager.processes()}
            except Unavailable:
                return  # it has given up already; the wait for health will tell why
            if not states & {STOPPED, STARTING}:
                return
            time.sleep(SPAWN_POLL_S)

    def _end_silent_manager(self, state: str) -> bool:
        """End a supervisord of this stack that lives and does not answer; its daemons end with it.

        One that is stopping the stack already is let do that. One that is about to begin, for an ``up`` that was
        killed, may leave another process in its place meanwhile: so it is looked for until none is found.

        Args:
            state: what ``manager.state`` said.
        """
        was_there = False
        while (pid := self.manager.living_pid()) is not None:
            was_there = True
            with _Processes([pid, *_children(pid)]) as processes:
                if state == ENDING:
                    processes.let_go_on()
                    processes.wait_for_first(STOP_S)
                processes.kill_first()
                if not processes.wait_for_all(STOP_S):
                    raise _still_running(processes.alive())
            state = self.manager.state()
        return was_there

    def _remove_sockets(self) -> None:
        remove_sockets_of_daemons(self.settings.run)
        remove_sockets(self.settings.run.glob(f"{self.manager.socket.name}*"))
        remove(self.settings.run / "supervisord.pid")


def _python(environment: Mapping[str, str]) -> str:
    """Return the Python that daemons are started with; supervisord would take a relative path from the home on."""
    python = environment.get("TODOMQ_PYTHON") or sys.executable
    return os.path.abspath(python) if "/" in python else python


def _check_python(python: str, environment: Mapping[str, str]) -> None:
    """Refuse a Python that lacks what daemons need: none of them could say so."""
    command = [python, "-P", "-c", "import supervisor, rocksdict, todomq.supervision.service"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        why = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        raise SettingsError(f"TODOMQ_PYTHON is {python}, which does not have TodoMQ: {why}")


def _is_known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _check_writable(*paths: Path) -> None:
    for path in paths:
        needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
        if path.exists() and not os.access(path, needed):
            raise SettingsError(f"{path} can't be written; make it writable for the user who starts the stack")


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
        """Let those go on that a signal has stopped: they could not end gracefully otherwise."""
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


def _still_running(pids: list[int]) -> Unavailable:
    return Unavailable(f"still running, though told to end: pid {', '.join(map(str, pids))}")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
