"""The registry's requests: names registered, taken away, looked up, watched; effects of the registrations carried out.

Owns: the shape of requests, the watchers that wait for a change, the order "written to the journal, then answered".
Must not know: what the names mean. Every daemon talks to it, and clients do so through the router.

Deaths are taken in before each request is looked at, so a name is never said to be held by a process that has ended.
Leases run by the steady clock: setting the machine's clock ends nobody.

Law 5: news holds all registrations, and every daemon reads it. So the more there are, the longer the news of the next
change is held back: somebody who registers thousands of names costs the others little.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from todomq.errors import NOT_APPLIED, UNKNOWN, InvalidRequest, Overloaded, Unavailable
from todomq.protocol import limits, messages
from todomq.protocol.codec import canonical, pack
from todomq.registry.journal import Journal
from todomq.registry.processes import LocalProcesses, boot, is_endable
from todomq.registry.registrations import Forget, Kill, Process, Registrations, Release, Remember
from todomq.runtime.calls import LATER, Call, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import OneTimer

LOOK_S = 0.5
"""How often the registry checks whether the journal is whole."""
WATCHERS = 1024
WATCHES_PER_CONNECTION = 64
"""A daemon has one; all those of clients come through the router's one connection."""
ANSWER_EARLY_MS = 150
"""How long before its deadline a watch is answered although nothing has changed."""
NEWS_UNREAD_BYTES = limits.MIB
"""How much may wait for a connection, including one more answer with all names: a full registry's fit in once."""
NEWS_BYTES_PER_MS = 512
"""How fast each watcher is told registrations at most: those of the stack alone take two milliseconds."""


class _Watcher(NamedTuple):
    call: Call
    until_ms: int


class RegistryService(Service):
    """One registry, on the loop of its daemon."""

    pipe_messages = 1  # each may be as long as an answer with all names
    backlog_most_bytes = 2 * limits.MIB

    def __init__(self, daemon: Daemon) -> None:
        """Read the journal and watch the processes that it names.

        Raises:
            OSError: the run directory can't be written.
        """
        super().__init__()
        self.operations |= {
            "register_name": self._register_name,
            "unregister_name": self._unregister_name,
            "whereis_name": self._whereis_name,
            "names": self._names,
            "watch": self._watch,
        }
        self._loop = daemon.loop
        self._own_key = canonical(daemon.name)
        self._processes = LocalProcesses()
        self._journal = Journal(daemon.settings.run, boot())
        if self._journal.lost:
            log("names_lost", why=self._journal.lost)
        # Versions begin at the time (in 1/1024 ms), so that those of an earlier registry are lower.
        first_version = self._loop.now_ms() << 10
        lease_ms = daemon.settings.lease_ms
        self._registrations = Registrations(lease_ms, self._loop.awake_ms(), first_version, self._journal.lost)
        self._watchers: list[_Watcher] = []
        self._first_version = self._told_version = first_version
        self._told_ms = 0
        self._is_someone_behind = False
        self._news_again = OneTimer(self._loop, 0.0)
        self._killed = 0
        own = self._processes.watch(os.getpid())
        self._registrations.register(daemon.name, daemon.reached_at, own, daemon.incarnation, 0, self._loop.awake_ms())
        self._restore()
        self._carry_out()
        self._loop.watch(self._processes.fileno(), self._take_in_deaths)
        self._loop.every(min(0.1, lease_ms / 8000), self._tick)
        self._loop.every(LOOK_S, self._look_at_journal)
        self._loop.at_turn_end(self._tell_watchers)

    def stats(self) -> dict[str, Any]:
        """Return how many names, processes and watchers there are, and what is known of the journal."""
        return {
            "names": len(self._registrations),
            "processes": len(self._processes),
            "watchers": len(self._watchers),
            "settled": self._registrations.settled,
            "killed": self._killed,
            "journal_bytes": self._journal.size,
            "names_lost": self._journal.lost,
        }

    def _register_name(self, call: Call) -> bool:
        name, address, pid, incarnation, lease_ms = _read_registration(call.arguments)
        self._take_in_deaths()
        was_held = self._registrations.is_held(name)  # by the caller, if this request is accepted
        process = None if pid is None else self._processes.watch(pid)
        try:
            if process is not None and lease_ms and not is_endable(process):
                raise InvalidRequest(f"a lease needs a process that may be ended when it hangs, and {pid} may not")
            now_ms = self._loop.awake_ms()
            is_accepted = self._registrations.register(name, address, process, incarnation, lease_ms, now_ms)
        finally:
            self._release(process)
        unwritten = self._carry_out()
        # It comes back to the next registry, as daemons do: a full disk must not keep them out.
        comes_back = lease_ms and incarnation and not was_held
        if unwritten is not None and not comes_back:
            if not was_held:
                self._registrations.unregister(name, incarnation, self._loop.awake_ms())
                self._carry_out()
            why = f"the name can't be written to the registry's journal: {unwritten.strerror}"
            raise Unavailable(why, outcome=UNKNOWN if was_held else NOT_APPLIED)
        return is_accepted

    def _unregister_name(self, call: Call) -> bool:
        name, incarnation = _padded(call.arguments, least=1, most=2)
        if incarnation is not None and type(incarnation) is not bytes:
            raise InvalidRequest("incarnation: bytes or nil")
        if canonical(name) == self._own_key:
            raise InvalidRequest("this is the registry's own name")
        self._take_in_deaths()
        is_freed = self._registrations.unregister(name, incarnation, self._loop.awake_ms())
        unwritten = self._carry_out()
        if unwritten is not None:
            raise Unavailable(
                "the name is free now and may come back with the registry's next start, since its journal can't be "
                f"written: {unwritten.strerror}", outcome=UNKNOWN,
            )  # fmt: skip
        return is_freed

    def _whereis_name(self, call: Call) -> Any:
        name = call.only_argument()
        self._take_in_deaths()
        return self._registrations.whereis(name, self._loop.awake_ms())

    def _names(self, call: Call) -> Any:
        messages.check_count(call.arguments, 0, 0)
        self._take_in_deaths()
        self._check_unread(call)
        return self._registrations.names()

    def _watch(self, call: Call) -> Any:
        version = call.only_argument()
        if type(version) is not int:
            raise InvalidRequest("version: an integer, 0 for whoever has seen none")
        self._take_in_deaths()
        current = self._registrations.version
        if version != current and not self._first_version <= version < current:
            self._check_unread(call)
            return self._news()
        if len(self._watchers) >= WATCHERS:
            raise Overloaded(f"{WATCHERS} watchers wait already")
        if sum(watcher.call.peer == call.peer for watcher in self._watchers) >= WATCHES_PER_CONNECTION:
            raise Overloaded(f"{WATCHES_PER_CONNECTION} watchers of this connection wait already")
        self._is_someone_behind = self._is_someone_behind or version != current
        until_ms = min(call.deadline_ms, self._loop.now_ms() + limits.DEADLINE_AHEAD_MS) - ANSWER_EARLY_MS
        self._watchers.append(_Watcher(call, until_ms))
        return LATER

    def _news(self) -> list[Any]:
        return [self._registrations.version, self._registrations.settled, self._registrations.names()]

    def _tell_watchers(self) -> None:
        is_news = self._is_someone_behind or self._registrations.version != self._told_version
        if not is_news:
            return
        early_ms = self._told_ms + self._registrations.bytes // NEWS_BYTES_PER_MS - self._loop.awake_ms()
        if early_ms > 0:
            self._news_again.plan(early_ms / 1000)
            return
        self._told_version = self._registrations.version
        self._told_ms = self._loop.awake_ms()
        self._is_someone_behind = False
        self._answer(self._watchers)
        self._watchers = []

    def _answer(self, watchers: list[_Watcher]) -> None:
        news = pack(self._news())
        for watcher in watchers:
            try:
                self._check_unread(watcher.call)
            except Overloaded as error:
                watcher.call.refuse(error)
            else:
                watcher.call.answer_packed(news)

    def _check_unread(self, call: Call) -> None:
        """Check that the caller reads what it is told.

        Raises:
            Overloaded: with all names again, too much would wait for it.
        """
        if call.unread_bytes() + self._registrations.bytes > NEWS_UNREAD_BYTES:
            raise Overloaded("answers with all names wait for this connection already; ask again once they are read")

    def _tick(self) -> None:
        self._take_in_deaths()
        self._registrations.tick(self._loop.awake_ms())
        self._carry_out()
        now_ms = self._loop.now_ms()
        ending = [watcher for watcher in self._watchers if watcher.until_ms <= now_ms]
        if ending:
            self._watchers = [watcher for watcher in self._watchers if watcher.until_ms > now_ms]
            self._answer(ending)

    def _take_in_deaths(self) -> None:
        dead = self._processes.dead()
        for process in dead:
            self._registrations.process_died(process)
            self._processes.release(process)
        if dead:
            self._carry_out()

    def _restore(self) -> None:
        for key, registration, process, lease_ms in self._journal.remembered():
            try:
                is_alive = process is None or self._is_alive(process)
            except Overloaded as error:  # no descriptor is left: it stays in the journal
                log("name_not_restored", why=error.text)
                self._registrations.lose(error.text)
                continue
            if is_alive:
                self._registrations.restore(key, registration, process, lease_ms, self._loop.awake_ms())
            else:
                self._write(Forget(key))

    def _is_alive(self, process: Process) -> bool:
        try:
            found = self._processes.watch(process.pid)
        except InvalidRequest:
            return False
        if found != process:
            self._release(found)
        return found == process

    def _carry_out(self) -> OSError | None:
        """Carry out what the registrations ask for; return why the journal could not be written, if it could not."""
        unwritten = None
        for effect in self._registrations.effects():
            if isinstance(effect, Kill):
                self._kill(effect.process)
            elif isinstance(effect, Release):
                self._release(effect.process)
            else:
                unwritten = self._write(effect) or unwritten
        return unwritten

    def _write(self, effect: Remember | Forget) -> OSError | None:
        try:
            if isinstance(effect, Forget):
                self._journal.forget(effect.key)
            else:
                self._journal.remember(effect)
        except OSError as error:
            log("journal_not_written", why=error.strerror)
            return error
        return None

    def _look_at_journal(self) -> None:
        try:
            if self._journal.look():
                log("journal_restored")
        except OSError as error:
            log_counted("journal_not_restored", why=error.strerror)

    def _kill(self, process: Process) -> None:
        try:
            self._processes.kill(process)
        except PermissionError:
            log("hung_process_not_killed", pid=process.pid)
            return
        self._killed += 1
        log("hung_process_killed", pid=process.pid)

    def _release(self, process: Process | None) -> None:
        if process is not None and not self._registrations.holds_any(process):
            self._processes.release(process)


def _read_registration(arguments: list[Any]) -> tuple[Any, str, int | None, bytes, int]:
    name, address, pid, incarnation, lease_ms = _padded(arguments, least=2, most=5)
    if type(address) is not str or not 1 <= len(address.encode()) <= limits.ADDRESS_BYTES:
        came = len(address.encode()) if type(address) is str else type(address).__name__
        raise InvalidRequest(f"address: a text of 1 to {limits.ADDRESS_BYTES} bytes is needed, not {came}")
    if pid is not None and (type(pid) is not int or not 1 <= pid < 1 << 31):
        raise InvalidRequest("pid: an integer from 1 to 2^31 - 1, or nil for a process of another machine")
    if incarnation is not None and (type(incarnation) is not bytes or len(incarnation) > limits.SENDER_BYTES):
        raise InvalidRequest(f"incarnation: up to {limits.SENDER_BYTES} bytes, or nil")
    if lease_ms is not None and (type(lease_ms) is not int or not 0 <= lease_ms <= limits.LEASE_MOST_MS):
        raise InvalidRequest(f"lease_ms: 0 to {limits.LEASE_MOST_MS}, or nil; 0 and nil are no lease")
    return name, address, pid, incarnation or b"", lease_ms or 0


def _padded(arguments: list[Any], least: int, most: int) -> list[Any]:
    messages.check_count(arguments, least, most)
    return arguments + [None] * (most - len(arguments))
