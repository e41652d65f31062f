"""Does harm to a running stack, one fault after another, and notes how soon each was over.

Owns: the kinds of faults, their seeded choice, their end (what was paused goes on, what was stopped is started again).
Must not know: what clients ask. ``further`` takes faults that others bring, such as a full disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from random import Random
from typing import NamedTuple

from stacks import RunningStack, is_gone

from todomq.errors import Unavailable
from torture.disk import Disk
from torture.orphans import kill_manager
from torture.probe import Probe

ENDED_S = 40.0
"""A hung daemon is ended by its lease (3 s), a leaving one within its drain (5 s): later than that is a failure. A
young one that hangs as registry and listener are killed has ten leases from its start."""
POLL_S = 0.005
ASK_S = 0.02
"""How long the probe rests while a deed goes on throughout which all is to be served."""
PAUSE_MOST_S = 2.0
"""Less than a lease."""
STALLED_S = (0.05, 0.5)
CLAIMED_S = (0.0, 1.0)
WORKER_TOO = 0.5
LISTENER = "supervision"
MANAGER = "supervisord"
ALL = "all"


class Hit(NamedTuple):
    """What a deed did."""

    target: str
    finish: Callable[[], None] = lambda: None
    """Waits until what must end has ended; called once the stack was asked whether it serves."""
    since: float | None = None
    """From when it counts how soon all is served again, where that is not when the deed began."""
    slowest_s: float = 0.0
    """How long an add to every part took while the deed went on, where all is to be served throughout."""


Harm = Callable[[RunningStack, Random], Hit]
"""Does a fault of another kind."""


class Fault(NamedTuple):
    """What was done, and how soon it was over."""

    kind: str
    target: str
    served_s: float | None
    """From the fault until every pair of list server and database worker had answered; None where one did not. Of a
    restart, which is to hold up nobody: how long the slowest asking took while it went on."""
    trouble: str | None = None
    """What did not end as it must."""


FULL_S = (0.3, 3.0)


def filling(disk: Disk) -> Harm:
    """Return the fault that leaves the stack's disk without room for a while; it counts from when there is room."""

    def fill(stack: RunningStack, random: Random) -> Hit:
        if not disk.fill():
            raise Unavailable("the disk could not be filled")
        time.sleep(random.uniform(*FULL_S))
        disk.free()
        return Hit("home", since=time.monotonic())

    return fill


class Nemesis:
    """The harm of one run."""

    def __init__(
        self, stack: RunningStack, probe: Probe, random: Random, further: Mapping[str, tuple[float, Harm]] | None = None
    ) -> None:
        """Choose by ``random``; ``further`` gives weight and deed of more kinds of faults."""
        self.faults: list[Fault] = []
        self._stack = stack
        self._probe = probe
        self._random = random
        self._deeds: dict[str, tuple[float, Callable[[], Hit]]] = {
            "kill": (40, self._kill),
            "two killed": (10, self._kill_two),
            "killed when stalled": (8, self._kill_when_stalled),
            "short pause": (14, self._pause_shortly),
            "hang": (8, self._hang),
            "SIGTERM": (12, self._terminate),
            "socket removed": (8, self._remove_socket),
            "restart": (3, self._restart_all),
            "supervisord killed": (5, self._kill_manager),
        }
        for kind, (weight, harm) in (further or {}).items():
            self._deeds[kind] = (weight, lambda harm=harm: harm(stack, random))  # type: ignore[misc]
        self._first = random.sample(list(self._deeds), len(self._deeds))

    def strike(self, kind: str | None = None) -> Fault:
        """Do one fault (of this kind), wait until it is over and all is served again; return and keep the note of it.

        Each kind strikes once before any is chosen by its weight, so that a short run has seen all of them.
        """
        kinds = list(self._deeds)
        if kind is None and self._first:
            kind = self._first.pop()
        elif kind is None:
            (kind,) = self._random.choices(kinds, [self._deeds[each][0] for each in kinds])
        since = time.monotonic()
        target, served_s, trouble = "", None, None
        try:
            hit = self._deeds[kind][1]()
            target = hit.target
            served_s = self._probe.served_s(hit.since or since)
            if served_s is not None:
                served_s = max(served_s, hit.slowest_s)
            hit.finish()
        except Unavailable as error:
            trouble = error.text
        self.faults.append(Fault(kind, target, served_s, trouble))
        return self.faults[-1]

    def rest_s(self) -> float:
        """Return how long to leave the stack alone now, seconds; often not at all."""
        return self._random.choice((0.0, 0.05, 0.3, 1.0, self._random.uniform(0.0, 4.0)))

    def _kill(self) -> Hit:
        target = self._random.choice([*self._stack.daemons, LISTENER])
        os.kill(self._pid(target), signal.SIGKILL)
        return Hit(target)

    def _kill_two(self) -> Hit:
        targets = self._random.sample(self._stack.daemons, 2)
        pids = [self._pid(target) for target in targets]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return Hit(" + ".join(sorted(targets)))

    def _kill_when_stalled(self) -> Hit:
        """Kill the list servers while a worker stands still with what they have sent; the worker too, or it goes on.

        Whatever was acknowledged of it before it was on disk is lost; whatever they wrote must not undo what the next
        owners, who load as soon as the worker goes on, acknowledge.
        """
        worker = self._random.choice([name for name in self._stack.daemons if name.startswith("database_worker")])
        owners = [name for name in self._stack.daemons if name.startswith("list_server")]
        pid, owner_pids = self._pid(worker), [self._pid(name) for name in owners]
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(*STALLED_S))
            for owner in owner_pids:
                os.kill(owner, signal.SIGKILL)
            if self._random.random() < WORKER_TOO:
                os.kill(pid, signal.SIGKILL)
            else:
                time.sleep(self._random.uniform(*CLAIMED_S))  # the next owners' claims wait beside what is theirs
        finally:
            _go_on(pid)
        return Hit(worker)

    def _pause_shortly(self) -> Hit:
        target = self._random.choice([*self._stack.daemons, LISTENER, MANAGER])
        pid = self._stack.manager_pid() if target == MANAGER else self._pid(target)
        resume = threading.Timer(self._random.uniform(0.02, PAUSE_MOST_S), lambda: _go_on(pid))
        os.kill(pid, signal.SIGSTOP)
        resume.start()
        return Hit(target, resume.join)

    def _hang(self) -> Hit:
        target = self._random.choice(self._stack.daemons)
        pid = self._pid(target)
        os.kill(pid, signal.SIGSTOP)

        def finish() -> None:
            try:
                self._wait(lambda: is_gone(pid), f"{target}, which hangs, is ended")
            finally:
                _go_on(pid)

        return Hit(target, finish)

    def _terminate(self) -> Hit:
        target = self._random.choice(self._stack.daemons)
        pid = self._pid(target)
        os.kill(pid, signal.SIGTERM)
        return Hit(target, lambda: self._wait(lambda: is_gone(pid), f"{target} leaves after SIGTERM"))

    def _remove_socket(self) -> Hit:
        target = self._random.choice(self._stack.daemons)
        path = self._stack.home / "run" / target
        path.unlink(missing_ok=True)
        return Hit(target, lambda: self._wait(path.exists, f"the socket of {target} is there again"))

    def _restart_all(self) -> Hit:
        """Restart one process after the other; it counts how long adds take meanwhile, not how long all of it takes."""
        slowest_s, control = 0.0, self._stack.control
        with control.alone(), ThreadPoolExecutor(1) as executor:
            restart = executor.submit(control.restart, self._stack.wait_healthy, lambda line: None)
            while not wait([restart], ASK_S).done:
                served_s = self._probe.served_s(time.monotonic())
                if served_s is None:
                    raise Unavailable("an add was not answered while the stack was restarted")
                slowest_s = max(slowest_s, served_s)
        restart.result()
        return Hit(ALL, since=time.monotonic(), slowest_s=slowest_s)

    def _kill_manager(self) -> Hit:
        if stayed := kill_manager(self._stack):
            raise Unavailable(stayed)
        return Hit(MANAGER)

    def _pid(self, target: str) -> int:
        """Return a daemon's pid; the daemon itself is asked first, for asking supervisord hurries it."""
        if target != LISTENER:
            stats = self._stack.ask(target, "stats", 0.2)
            if stats is not None:
                pid: int = stats["pid"]
                return pid
        self._wait(lambda: self._stack.pid(target), f"{target} runs")
        return self._stack.pid(target)

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        give_up = time.monotonic() + ENDED_S
        while not condition():
            if time.monotonic() > give_up:
                raise Unavailable(f"not within {ENDED_S:g} s: {what}")
            time.sleep(POLL_S)


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
