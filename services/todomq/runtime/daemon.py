"""What every daemon has in common: its lock, its socket, its place in the registry, its stop.

Owns: start (lock, bind, register, then wait for what it depends on, in any order), the copy of the registry's names,
every connection to other processes, SIGTERM. Must not know: what the daemon does.

A service sees the world only through it: a service that is given another ``Daemon`` runs in another world.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from todomq.daemons import REFUSED_TO_START, socket_name
from todomq.errors import TodoMQError, Unavailable
from todomq.protocol.codec import canonical
from todomq.protocol.registration import Registration, is_same
from todomq.runtime import locks
from todomq.runtime.callee import Answer, Callee
from todomq.runtime.calls import CallServer, Service
from todomq.runtime.curve import DOOR, STACK, Curve
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import Loop
from todomq.runtime.parent import die_with_parent
from todomq.runtime.pipes import Pull, Push
from todomq.runtime.registry_link import RegistryLink
from todomq.settings import Settings, read_settings

if TYPE_CHECKING:
    from todomq.runtime.door import Door
    from todomq.runtime.zap import Judge, ZapHandler

Name = list[Any]

RESTORE_S = 0.5
FINISH_S = 5.0
COLLECT = (10_000, 1_000_000)
"""When the interpreter looks for cycles (gc.set_threshold): among young objects, and never again among those that stay.

Requests make no reference cycles, and what is dropped for good (a partition's lists, a connection) breaks its own. A
full collection would find nothing, and stop a list server with many lists for 0.2 s.
"""
FAILED = 1


class Daemon:
    """One life of one daemon process."""

    def __init__(self, name: Name, settings: Settings, *, registers: bool = True) -> None:
        """Take the lock on the name.

        Raises:
            Unavailable: a living process holds it.
            SettingsError: the socket's path would be too long.
        """
        self.name = name
        self.settings = settings
        self.incarnation = os.urandom(16)
        self.loop = Loop()
        self.address = settings.address(socket_name(name))
        self.reached_at = settings.reached_at(socket_name(name))
        self.curve = stack_curve(settings)
        self.registrations: dict[bytes, Registration] = {}
        self.settled = False
        self.on_registry_change: list[Callable[[], None]] = []
        self._registers = registers
        self._registry: RegistryLink | None = None
        self._callees: dict[bytes, tuple[Registration, Callee]] = {}
        self._connections: list[Callee] = []
        self._outgoing: list[Callee] = []
        self._pulls: list[Pull] = []
        self._doors: list[Door] = []
        self._zap_handler: ZapHandler | None = None
        self._stopping = False
        locks.private_directory(settings.run)
        self._lock = locks.hold(settings.run / f"{socket_name(name)}.lock")

    def begin(self, service: Service) -> None:
        """Bind and register: from the next turn on the service is asked."""
        self.server = CallServer(self.loop, self.address, service)
        if self.curve is not None:
            self._let_the_stack_in(self.curve)
            self.server.listen_in_stack(self.reached_at, self.curve)
        service.operations.setdefault("stats", lambda call: self._stats(service))
        self.loop.at_turn_end(self._flush)
        self.loop.every(RESTORE_S, self._restore_sockets)
        if self._registers:
            self._registry = RegistryLink(self, self._learn)
        log("started", name=socket_name(self.name), pid=os.getpid(), incarnation=self.incarnation)

    def run(self, service: Service) -> None:
        """Serve, once begun, until SIGTERM; then let the service finish, for at most ``FINISH_S`` seconds."""
        signal.set_wakeup_fd(self.loop.wake_descriptor, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.loop.post(lambda: self._stop(service)))
        self.loop.run()
        log("stopped", name=socket_name(self.name), pid=os.getpid())

    def connect(
        self,
        address: str,
        on_replies: Callable[[list[Any]], None] | None = None,
        on_break: Callable[[], None] | None = None,
        on_connect: Callable[[], None] | None = None,
        *,
        is_daemon: bool = True,
    ) -> Callee:
        """Return a connection for calls to an address; what it has to send leaves at the end of each turn.

        If daemons listen at TCP addresses, it presents the stack's key, unless the peer is no daemon.
        """

        def closed() -> None:
            self._connections.remove(callee)

        curve = self._curve_for(address, is_daemon)
        callee = Callee(
            self.loop, address, self.incarnation, on_replies, on_break, on_connect, closed, self._outgoing.append, curve
        )
        self._connections.append(callee)
        return callee

    def pull(self, address: str, take: Callable[[bytes], None]) -> Pull:
        """Bind a PULL and give each message of one frame to ``take``; others are counted and dropped."""
        curve = self._curve_for(address, True)
        if curve is not None:
            self._let_the_stack_in(curve)
        pull = Pull(self.loop, address, take, curve)
        self._pulls.append(pull)
        return pull

    def push(self, address: str) -> Push:
        """Connect a PUSH."""
        return Push(address, self._curve_for(address, True))

    def open_door(
        self, address: str, service: Service, secret: str, who: Callable[[str], Any], judge: Judge
    ) -> Door:
        """Listen at a TCP address for clients that come with a key; ``Door`` and ``ZapHandler`` say how.

        Raises:
            Unavailable: it cannot be bound.
        """
        from todomq.runtime.door import Door  # not loaded where there is no door: a daemon restarts quickly

        self.zap_handler.judge(DOOR, judge)
        door = Door(self.loop, address, service, secret, who)
        self._doors.append(door)
        return door

    @property
    def zap_handler(self) -> ZapHandler:
        """The process's one ZAP handler, made before anything that it guards."""
        if self._zap_handler is None:
            from todomq.runtime.zap import ZapHandler

            self._zap_handler = ZapHandler(self.loop)
        return self._zap_handler

    def _let_the_stack_in(self, curve: Curve) -> None:
        from todomq.runtime.zap import NO, YES

        self.zap_handler.judge(STACK, lambda public: YES if public == curve.public else NO)

    def _curve_for(self, address: str, is_daemon: bool) -> Curve | None:
        return self.curve if is_daemon and address.startswith("tcp://") else None

    @property
    def has_backlog(self) -> bool:
        """Whether replies wait for any peer that does not read them."""
        return self.server.has_backlog or any(door.has_backlog for door in self._doors)

    def whereis(self, name: Name) -> Registration | None:
        """Return the registration of a name in this process's copy of the registry, or None."""
        return self.registrations.get(canonical(name))

    def callee(self, name: Name) -> Callee | None:
        """Return the connection to the daemon that is registered under the name now, or None.

        A restarted daemon gets a new connection; calls in flight on the old one fail.
        """
        key = canonical(name)
        known = self._callees.get(key)
        if known is None:
            registration = self.registrations.get(key)
            if registration is None:
                return None
            try:
                known = (registration, self.connect(registration.address))
            except Unavailable as error:
                log_counted("registered_nowhere", name=name, why=error.text)
                return None
            self._callees[key] = known
        return known[1]

    def _stats(self, service: Service) -> dict[str, Any]:
        return {
            "name": self.name,
            "pid": os.getpid(),
            "incarnation": self.incarnation,
            "turns": self.loop.turns,
            "unsent_bytes": sum(callee.outbox_bytes for callee in self._connections),
            **service.stats(),
            **(self.server.counts + service.counts),
        }

    def _flush(self) -> None:
        self.server.flush()
        for door in self._doors:
            door.flush()
        if self._outgoing:
            outgoing, self._outgoing[:] = self._outgoing[:], ()
            for callee in outgoing:
                callee.flush()

    def _restore_sockets(self) -> None:
        self.server.restore()
        for pull in self._pulls:
            pull.restore()

    def ask_registry(self, *body: Any, done: Callable[[Answer], None]) -> None:
        """Ask the registry itself, not this process's copy of it; if it is away, ``done`` is told so."""
        if self._registry is None:
            self.loop.after(0, partial(done, Answer(None, Unavailable("the registry is away"))))
        else:
            self._registry.ask(*body, done=done)

    def _learn(self, settled: bool, registrations: list[Registration]) -> None:
        self.settled = settled
        fresh = {canonical(registration.name): registration for registration in registrations}
        self.registrations = fresh if settled else {**self.registrations, **fresh}
        for key, (registration, callee) in list(self._callees.items()):
            if not is_same(self.registrations.get(key), registration):
                self._callees.pop(key, None)
                callee.close()
        for action in self.on_registry_change:
            action()

    def _stop(self, service: Service) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._registry is not None:
            self._registry.stop_watching()
        log("stopping", name=socket_name(self.name))
        self.loop.after(FINISH_S, self.loop.stop)
        for server in (self.server, *self._doors):
            server.serve_all_waiting()
        service.finish(self._leave)

    def _leave(self) -> None:
        if self._registry is None:
            self.loop.stop()
        else:
            self._registry.leave(self.loop.stop)


def stack_curve(settings: Settings) -> Curve | None:
    """Return the stack's own pair if its daemons listen at TCP addresses, else None.

    Raises:
        SettingsError: there are no keys, or they can't be used.
    """
    if not settings.stack_tcp:
        return None
    from todomq.keys.required import stack_pair

    pair = stack_pair(settings)
    return None if pair is None else Curve(pair.public, pair.secret)


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors as far as the system allows: the one inherited from a shell is often 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def start(
    name: Name, settings: Settings, make_service: Callable[[Daemon], Service], *, registers: bool = True
) -> tuple[Daemon, Service]:
    """Begin the life of a daemon, which is that of this process and ends with the supervisord that started it (law 9).

    Raises:
        SystemExit: that supervisord is gone already.
        SettingsError: the settings can't be used.
        TodoMQError: the name is taken, or what the service needs can't be had.
        OSError: the system refused something.
    """
    die_with_parent()
    daemon = Daemon(name, settings, registers=registers)
    service = make_service(daemon)
    daemon.begin(service)
    return daemon, service


def main(name: Name, make_service: Callable[[Daemon], Service], *, registers: bool = True) -> NoReturn:
    """Run a daemon as a process, with settings from the environment.

    Its exit status is 0 after SIGTERM, 78 if it can't start, 1 if anything fails after that.
    """
    _raise_descriptor_limit()
    gc.set_threshold(*COLLECT)
    try:
        daemon, service = start(name, read_settings(), make_service, registers=registers)
    except (TodoMQError, OSError) as error:
        log("refused_to_start", name=socket_name(name), why=str(error))
        sys.exit(REFUSED_TO_START)
    try:
        daemon.run(service)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        log("failed", name=socket_name(name), error=repr(error))
        os._exit(FAILED)
    # Nothing is left to be done, and freeing memory piece by piece takes seconds with 500,000 lists.
    os._exit(0)
