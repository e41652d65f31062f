"""Simulated processes: alive, paused, dead; their turns; their parents; their deaths as the registry sees them.

Owns: pids, who runs at the moment, when a process gets its turn. Must not know: what a turn does, the network.
A paused process (SIGSTOP) gets no turns and its lanes stand still; all that happened meanwhile is there when it wakes.
A process whose parent dies dies with it if it has asked for that (``PR_SET_PDEATHSIG``), and else goes on.
"""

from __future__ import annotations

import signal
import traceback
from random import Random

from todomq.errors import InvalidRequest
from todomq.registry.journal import Journal
from todomq.registry.registrations import Process as Life
from todomq.registry.registrations import Remember
from todomq.runtime.parent import PR_SET_PDEATHSIG
from topology.clock import Action, Clock, Event

TURN_US = (5, 80)
"""How long a process that has something to do waits for its turn."""

FIRST_PID = 100
INIT_PID = 1
"""Of the process that is the parent of those whose own is gone."""


class Process:
    """One life of one process, a daemon's or a client's."""

    def __init__(self, processes: Processes, name: str, pid: int, parent: Process | None) -> None:
        self.name = name
        self.pid = pid
        self.parent = parent
        self.dies_with_parent = False
        self.is_alive = True
        self.is_paused = False
        self.turn: Action = lambda: None
        self.on_death: list[Action] = []
        self._processes = processes
        self._held: list[Action] = []
        self._is_due = False
        self._event: Event | None = None

    def __repr__(self) -> str:
        return f"{self.name}/{self.pid}"

    @property
    def is_orphan(self) -> bool:
        """Whether it lives on though its parent is gone."""
        return self.is_alive and self.parent is not None and not self.parent.is_alive

    def wake(self) -> None:
        """See that a turn comes soon."""
        if self.is_alive and not self._is_due:
            self._is_due = True
            self._plan_turn()

    def run(self, action: Action) -> None:
        """Do something of this process's own now, or when it is woken; never once it is dead."""
        if self.is_paused:
            self._held.append(action)
        elif self.is_alive:
            self._processes.run_as(self, action)

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True
        if self._event is not None:
            self._event.cancel()

    def resume(self) -> None:
        """SIGCONT."""
        if not self.is_paused:
            return
        self.is_paused = False
        held, self._held = self._held, []
        for action in held:
            self.run(action)
        if self._is_due:
            self._plan_turn()

    def die(self) -> None:
        """SIGKILL."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.is_paused = False
        for action in self.on_death:
            action()

    def _plan_turn(self) -> None:
        if not self.is_paused:
            self._event = self._processes.plan_turn(self._take_turn)

    def _take_turn(self) -> None:
        if self.is_alive and not self.is_paused:
            self._is_due = False
            self._processes.run_as(self, self.turn)


class Processes:
    """All processes of one simulation."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self.current: Process | None = None
        self.faults: list[str] = []
        """What a real process would have died of, though nobody killed it: each is a bug."""
        self.living: dict[int, Process] = {}
        self._clock = clock
        self._random = random
        self._next_pid = FIRST_PID

    def start(self, name: str, parent: Process | None = None) -> Process:
        """Begin a process that does nothing yet."""
        process = self.living[self._next_pid] = Process(self, name, self._next_pid, parent)
        self._next_pid += 1
        process.on_death.append(lambda: self._forget(process))
        return process

    def run_as(self, process: Process, action: Action) -> None:
        """Do something as this process. What it raises ends the process, as it would in the real one."""
        before, self.current = self.current, process
        try:
            action()
        except Exception as error:
            self.faults.append(f"{process!r} died of {_described(error)}")
            process.die()
        finally:
            self.current = before

    def _forget(self, process: Process) -> None:
        del self.living[process.pid]
        for child in [each for each in self.living.values() if each.parent is process and each.dies_with_parent]:
            child.die()

    def plan_turn(self, action: Action) -> Event:
        """Plan a turn for soon."""
        return self._clock.after(self._random.randint(*TURN_US), action)

    def pid(self) -> int:
        """Return the pid of whoever runs now."""
        assert self.current is not None
        return self.current.pid

    def parent_pid(self) -> int:
        """Return the pid of the parent of whoever runs now."""
        assert self.current is not None
        parent = self.current.parent
        return parent.pid if parent is not None and parent.is_alive else INIT_PID

    def prctl(self, option: int, argument: int) -> None:
        """In the place of ``parent.prctl``: whoever runs now is to get a signal when its parent dies."""
        assert self.current is not None
        if option == PR_SET_PDEATHSIG:
            self.current.dies_with_parent = argument == signal.SIGKILL


def _described(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


class WatchedProcesses:
    """In the place of the registry's pidfds; see ``todomq.registry.processes.LocalProcesses``."""

    def __init__(self, processes: Processes) -> None:
        assert processes.current is not None
        self._processes = processes
        self._own = processes.current
        self._watched: dict[int, Life] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def fileno(self) -> WatchedProcesses:
        """Return what the loop watches: this."""
        return self

    @property
    def is_readable(self) -> bool:
        """Whether a watched process is dead."""
        return bool(self.dead())

    def watch(self, pid: int) -> Life:
        """Watch a process until it is released."""
        process = self._processes.living.get(pid)
        if process is None:
            raise InvalidRequest(f"there is no process {pid}")
        if pid not in self._watched:
            self._watched[pid] = Life(pid, 1)
            process.on_death.append(self._own.wake)
        return self._watched[pid]

    def dead(self) -> list[Life]:
        """Return watched processes that have ended."""
        return [life for pid, life in self._watched.items() if pid not in self._processes.living]

    def kill(self, life: Life) -> None:
        """End a watched process."""
        process = self._processes.living.get(life.pid)
        if process is not None and life.pid in self._watched:
            process.die()

    def release(self, life: Life) -> None:
        """Watch it no longer."""
        self._watched.pop(life.pid, None)


class KeptJournal(Journal):
    """In the place of the registry's journal: a dict that outlives the registry."""

    def __init__(self, kept: dict[bytes, Remember]) -> None:
        self.lost = ""
        self.size = 0
        self._kept = kept

    def remembered(self) -> list[Remember]:
        return list(self._kept.values())

    def remember(self, kept: Remember) -> None:
        self._kept[kept.key] = kept

    def forget(self, key: bytes) -> None:
        self._kept.pop(key, None)

    def look(self) -> bool:
        return False
