"""The restart-intensity listener: sees deaths, hurries supervisord, counts restarts, gives up, ends what hangs unseen.

Owns: one pidfd per process, the event listener protocol on its standard input and output, the ping of the registry.
Must not know: what the daemons do. Talks to supervisord (events, XML-RPC, its process) and asks the registry ``ping``,
and ``whereis_name`` of every daemon. The registry ends a daemon whose lease is over; one that hung while the registry
was being restarted has no lease there, and is ended here.

Law 9: within the restart limit the same set of processes is back, soon; past it everything stops with a reason. If a
command stopped a process and was killed before it started it again, the process is started here. The listener keeps
nothing that it cannot find again: if it is killed, it is restarted and learns the processes from supervisord. So a
listener that hangs may be ended: the kernel does it after ``HANG_S``. One that a signal has stopped is not ended;
``probe health`` tells of it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from todomq.daemons import socket_name
from todomq.errors import CorruptRecord, Unavailable
from todomq.runtime.callee import Answer, Callee
from todomq.runtime.local_process import age_ms, kill, parent_of
from todomq.runtime.locks import STACK_LOCK, hold
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import Loop, Timer
from todomq.settings import Settings
from todomq.supervision import evidence, run_files
from todomq.supervision.answer_watch import AnswerWatch
from todomq.supervision.events import DONE, READY, SHUTDOWN, Event, EventReader
from todomq.supervision.leftovers import remove_sockets_of_daemons
from todomq.supervision.manager import (
    BACKOFF,
    EXITED,
    FATAL,
    RUNNING,
    STOPPED,
    STOPPING,
    Manager,
    Process,
    knock,
)
from todomq.supervision.restart_intensity import Effect, GiveUp, Limit, RestartIntensity, Wake

PING_S = 0.5
REGISTERED_LEASES = 10
REGISTERED_LEAST_MS = 10_000
"""A daemon must be registered within this many leases of its process's start, and has this long at the least: a worker
opens its shard first. A listener that takes over from one that was killed does not begin this time anew: it allows what
a healthy daemon needs to register with a restarted registry."""

HANG_S = 30.0
"""After this long without a turn of its loop, a timer of the kernel ends the listener (setitimer(2), SIGALRM)."""

RECONCILE_AGAIN_S = 0.5
STOP_AGAIN_S = 0.5
EVENTS_BYTES = 65_536
STOPPED_STATES = (STOPPING, STOPPED, FATAL, "UNKNOWN")
START_S = 10.0


class Listener:
    """One life of the listener."""

    def __init__(self, loop: Loop, settings: Settings, limits: dict[str, Limit]) -> None:
        """Take the place in the loop; ``begin`` starts to work."""
        self._loop = loop
        self._settings = settings
        self._manager = Manager(settings)
        self._manager_pid = os.getppid()
        self._intensity = RestartIntensity(limits, _restarts_before(settings, self._manager_pid).items())
        self._reader = EventReader()
        self._pidfds: dict[str, int] = {}
        self._heard_of: set[str] = set()
        self._stopped: set[str] = set()
        self._is_starting = False
        self._next_tick: Timer | None = None
        self._registry = Callee(loop, settings.address("registry"), os.urandom(16))
        self._registry_watch = AnswerWatch(settings.lease_ms, int(PING_S * 1000))
        self._names = {socket_name(name): name for name in settings.daemon_names()}
        self._watched: dict[str, tuple[int, AnswerWatch]] = {}

    def begin(self) -> None:
        """Ask for events, learn what runs already, watch the registry."""
        with suppress(OSError):  # the disk is full already: writing is tried when there is a reason
            run_files.reserve_failure(self._settings.run)
        self._loop.watch(sys.stdin.fileno(), self._read_events)
        self._loop.at_turn_end(self._registry.flush)
        self._loop.every(PING_S, self._watch)
        self._watch()
        os.write(sys.stdout.fileno(), READY)
        self._reconcile()

    def _reconcile(self) -> None:
        self._heard_of.clear()
        self._loop.offload(self._manager.processes, self._reconciled)

    def _reconciled(self, processes: list[Process] | None, error: BaseException | None) -> None:
        if processes is None:
            log("processes_unknown", why=str(error))
            self._loop.after(RECONCILE_AGAIN_S, self._reconcile)
            return
        for process in processes:
            # An event that came meanwhile is newer than this answer.
            if process.name not in self._heard_of and process.group in self._intensity.groups:
                self._take_process(process)

    def _take_process(self, process: Process) -> None:
        if process.state == RUNNING:
            self._follow(process.name, process.pid)
        elif process.state == STOPPED:
            self._stopped.add(process.name)
        elif process.state not in STOPPED_STATES:
            self._carry_out(self._intensity.vanished(process.name, self._loop.awake_ms()))

    def _read_events(self) -> None:
        data = os.read(sys.stdin.fileno(), EVENTS_BYTES)
        if not data:
            self._loop.stop()
            return
        for event in self._reader.feed(data):
            if event.state == SHUTDOWN:
                self._intensity.ending()
                signal.signal(signal.SIGTERM, lambda *_: self._loop.post(self._end))
            elif event.group in self._intensity.groups:
                self._heard_of.add(event.process)
                self._take_event(event)
            os.write(sys.stdout.fileno(), DONE + READY)

    def _end(self) -> None:
        """Stop: this is the last process of the stack to end."""
        remove_sockets_of_daemons(self._settings.run)
        self._loop.stop()

    def _take_event(self, event: Event) -> None:
        if event.state == RUNNING and event.pid:
            self._follow(event.process, event.pid)
        elif event.state == EXITED:
            how = evidence.how_it_ended(self._settings.log, event.process)
            log("exited", process=event.process, pid=event.pid, how=how)
            ago_ms = evidence.ended_ms_ago(self._settings.log, event.process, event.pid, datetime.now())
            self._unfollow(event.process)
            self._carry_out(self._intensity.exited(event.process, event.group, how, self._loop.awake_ms(), ago_ms))
            self._keep_restarts()
        elif event.state == BACKOFF:
            how = evidence.how_it_ended(self._settings.log, event.process)
            log("could_not_start", process=event.process, tries=event.tries, how=how)
            self._carry_out(self._intensity.could_not_start(event.process, event.group, event.tries, how))
        elif event.state in STOPPED_STATES:
            self._intensity.settled(event.process)
            if event.state != STOPPING:
                self._unfollow(event.process)
            elif event.pid:
                self._stop_again(event.pid)
            if event.state == STOPPED:
                self._stopped.add(event.process)

    def _stop_again(self, pid: int) -> None:
        """Ask a process to stop a second time, a while after supervisord did.

        If supervisord asks between fork(2) and execve(2), the child still has supervisord's own signal handler: that
        takes the signal, and nobody hears of it. This happens if the stack is stopped as it starts.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        if parent_of(pid) != self._manager_pid:  # it has ended, and the pid is another process's
            os.close(pidfd)
            return

        def ask() -> None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)

        self._loop.after(STOP_AGAIN_S, ask)

    def _keep_restarts(self) -> None:
        try:
            run_files.write_restarts(self._settings.run, self._manager_pid, self._intensity.restarts)
        except OSError as error:  # a full disk; the listener's next life just begins with lower counts
            log("restarts_not_kept", why=error)

    def _follow(self, process: str, pid: int) -> None:
        """Hold the running process by a pidfd, through which its death is seen at once."""
        self._unfollow(process)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._carry_out(self._intensity.vanished(process, self._loop.awake_ms()))
            return
        self._pidfds[process] = pidfd
        self._stopped.discard(process)
        self._intensity.settled(process)
        self._loop.watch(pidfd, lambda: self._on_death(process))
        if process == "registry":
            self._registry_watch.began(self._loop.awake_ms(), _age_ms(pid))
            self._ping_registry()
        elif process in self._names:
            lease_ms = self._settings.lease_ms
            watch = AnswerWatch(2 * lease_ms, int(PING_S * 1000), registered_within_ms(lease_ms))
            watch.began(self._loop.awake_ms(), _age_ms(pid))
            self._watched[process] = (pid, watch)

    def _unfollow(self, process: str) -> None:
        pidfd = self._pidfds.pop(process, None)
        if pidfd is None:
            return
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        self._watched.pop(process, None)
        if process == "registry":
            self._registry_watch.ended()

    def _on_death(self, process: str) -> None:
        self._unfollow(process)
        self._carry_out(self._intensity.vanished(process, self._loop.awake_ms()))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Wake():
                    knock(self._settings.run)
                case GiveUp(reason):
                    self._give_up(reason)
        self._plan_tick()

    def _give_up(self, reason: str) -> None:
        log("gave_up", why=reason)
        try:
            run_files.write_failure(self._settings.run, reason)
        except OSError as error:  # a full disk, say: the stack is stopped all the same, and the log has the reason
            log("reason_not_kept", why=error)
        self._loop.offload(self._manager.shutdown, self._shut_down)

    def _shut_down(self, _: None, error: BaseException | None) -> None:
        if error is None:
            return
        log("shutdown_refused", why=str(error))
        os.kill(self._manager_pid, signal.SIGTERM)

    def _plan_tick(self) -> None:
        delay_ms = self._intensity.next_tick_ms(self._loop.awake_ms())
        if delay_ms is not None and self._next_tick is None:
            self._next_tick = self._loop.after(delay_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._next_tick = None
        self._carry_out(self._intensity.tick())

    def _watch(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        with suppress(OSError):
            self._settings.log.mkdir(exist_ok=True)  # supervisord starts nothing without it
        if self._watch_registry():
            self._watch_daemons()
        if self._stopped and not self._is_starting and not self._intensity.is_ending:
            self._is_starting = True
            self._loop.offload(self._start_what_stopped, self._started)

    def _start_what_stopped(self) -> list[str]:
        """Start what is stopped, unless a command is at work; return what was stopped. Runs off the loop."""
        try:
            lock = hold(self._settings.run / STACK_LOCK, wait_s=0)
        except Unavailable:
            return []
        try:
            stopped = [process for process in self._manager.processes() if process.state == STOPPED]
            for process in stopped:
                self._manager.start(process, START_S)
        finally:
            os.close(lock)
        return [process.name for process in stopped]

    def _started(self, processes: list[str] | None, error: BaseException | None) -> None:
        self._is_starting = False
        if error is not None:
            log_counted("stopped_not_started", why=error)
        elif processes:
            log("stopped_started", processes=" ".join(processes))

    def _watch_registry(self) -> bool:
        """End the registry if it hangs, otherwise ping it; return whether it is there to be asked."""
        if self._registry_watch.tick(self._loop.awake_ms()):
            log("registry_hangs", silent_ms=self._settings.lease_ms)
            self._registry_watch.ended()
            kill(self._pidfds["registry"])
            return False
        self._ping_registry()
        return True

    def _watch_daemons(self) -> None:
        """Ask the registry for each daemon: one that runs and is not registered hangs."""
        for process in list(self._watched):
            self._registry.call(
                "whereis_name", self._names[process], done=partial(self._looked_up, process), timeout_s=PING_S
            )

    def _looked_up(self, process: str, answer: Answer) -> None:
        """Take word of which process is registered as a daemon; if the registry says nothing, nothing is known.

        A registry that has just started says nothing for a lease, and every daemon that does not hang is heard there
        within that lease: so it is part of the silence.
        """
        if process not in self._watched:
            return
        pid, watch = self._watched[process]
        if answer.error is not None and not isinstance(answer.error, CorruptRecord):
            watch.unknown(self._loop.awake_ms())
            return
        # CorruptRecord says that names were lost; a daemon that lives has registered again since, or hangs.
        if answer.error is None and _pid_of(answer.value) == pid:
            watch.answered(self._loop.awake_ms())
        if watch.tick(self._loop.awake_ms()):
            log("unregistered_process_killed", process=process, pid=pid)
            watch.ended()
            kill(self._pidfds[process])

    def _ping_registry(self) -> None:
        self._registry.call("ping", done=self._registry_answered, timeout_s=PING_S)

    def _registry_answered(self, answer: Answer) -> None:
        if answer.error is None:
            self._registry_watch.answered(self._loop.awake_ms())


def registered_within_ms(lease_ms: int) -> int:
    """Return how long after its process began a daemon may be without registration before it is ended."""
    return max(REGISTERED_LEASES * lease_ms, REGISTERED_LEAST_MS)


def _restarts_before(settings: Settings, manager_pid: int) -> dict[str, int]:
    """Return what the listener before this one has counted; nothing if that can't be read."""
    try:
        return run_files.read_restarts(settings.run, manager_pid)
    except CorruptRecord as error:
        log("restarts_unknown", why=error.text, then="they are counted anew")
        return {}


def _age_ms(pid: int) -> int:
    """Return the age of a process of which a pidfd is held; if it has ended, the pidfd will tell."""
    try:
        return age_ms(pid)
    except ProcessLookupError:
        return 0


def _pid_of(registration: Any) -> Any:
    """Return the pid of ``[name, address, pid, incarnation]``, None of anything else."""
    return registration[2] if type(registration) is list and len(registration) == 4 else None
