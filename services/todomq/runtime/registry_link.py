"""A daemon's link to the registry: its own name, kept by a lease, and the news of everybody's names.

Owns: the connection; that the lease is renewed from the loop, so that a hanging loop is noticed; that there is always
one watch. Must not know: what becomes of the news. While the registry is away, what it said last is taken for true.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from todomq.daemons import socket_name
from todomq.errors import InvalidRequest
from todomq.protocol.codec import canonical
from todomq.protocol.registration import Registration
from todomq.runtime.callee import Answer
from todomq.runtime.log import log, log_counted

if TYPE_CHECKING:
    from todomq.runtime.daemon import Daemon

RENEW_S = 0.5
"""How often the lease is renewed, at the least; a registry that comes back hears of everybody once connected."""

WATCH_S = 2.0
WATCH_AGAIN_S = 0.02
ASK_S = 1.0
LEAVE_S = 0.5
AWAY_MS = 5_000
"""After how long without an answer from the registry the log says so; a restart takes less."""


class RegistryLink:
    """The link of one daemon, which is registered from the next turn on."""

    def __init__(self, daemon: Daemon, learned: Callable[[bool, list[Registration]], None]) -> None:
        """Register and watch.

        Args:
            daemon: whose name it is.
            learned: gets the news: whether what is not registered is absent, and all registrations.
        """
        self._daemon = daemon
        self._loop = daemon.loop
        self._learned = learned
        self._version = 0
        self._is_watching = True
        self._is_leaving = False
        self._heard_ms = daemon.loop.steady_ms()
        self._callee = daemon.connect(daemon.settings.registry_at, on_connect=self._renew)
        self._renew()
        self._watch()
        self._loop.every(min(RENEW_S, daemon.settings.lease_ms / 4000), self._renew)

    def ask(self, *body: Any, done: Callable[[Answer], None]) -> None:
        """Ask the registry itself."""
        self._callee.call(*body, done=done, timeout_s=ASK_S)

    def stop_watching(self) -> None:
        """Take no more news than what has been asked for; the name is kept."""
        self._is_watching = False

    def leave(self, done: Callable[[], None]) -> None:
        """Take the name away; ``done`` runs when that is so, or the registry does not answer."""
        self._is_leaving = True
        name, incarnation = self._daemon.name, self._daemon.incarnation
        self._callee.call("unregister_name", name, incarnation, done=lambda answer: done(), timeout_s=LEAVE_S)

    def _renew(self) -> None:
        if self._is_leaving:  # not before: who takes longer than a lease to finish must not seem to hang
            return
        daemon = self._daemon
        self._callee.call(
            "register_name", daemon.name, daemon.reached_at, self._pid(), daemon.incarnation, daemon.settings.lease_ms,
            done=self._renewed, timeout_s=1.0,
        )  # fmt: skip

    def _pid(self) -> int | None:
        """Return the pid to register; a registry on another machine can hold no pidfd for it and goes by the lease."""
        return None if self._daemon.settings.registry else os.getpid()

    def _renewed(self, answer: Answer) -> None:
        steady_ms = self._loop.steady_ms()
        if answer.error is None:
            self._heard_ms = steady_ms
        elif steady_ms - self._heard_ms > AWAY_MS:
            log_counted("registry_away", address=self._daemon.settings.registry_at, why=answer.error.text)
        if answer.value is False:
            log("name_taken", name=socket_name(self._daemon.name))

    def _watch(self) -> None:
        if self._is_watching:
            self._callee.call("watch", self._version, done=self._watched, timeout_s=WATCH_S)

    def _watched(self, answer: Answer) -> None:
        if answer.error is None and _version_of(answer.value) == self._version:  # nothing new, so nothing to look at
            self._watch()
            return
        if answer.error is not None or not _is_news(answer.value):
            self._version = 0
            self._loop.after(WATCH_AGAIN_S, self._watch)
            return
        version, settled, registrations = answer.value
        self._version = version
        self._learned(settled, [Registration(*fields) for fields in registrations])
        self._watch()


def _version_of(value: Any) -> Any:
    return value[0] if type(value) is list and value else None


def _is_news(value: Any) -> bool:
    """Tell whether a registry answered ``[version, settled, [[name, address, pid or nil, incarnation], ...]]``."""
    if type(value) is not list or [type(item) for item in value] != [int, bool, list]:
        return False
    return all(type(fields) is list and len(fields) == 4 and _is_registration(*fields) for fields in value[2])


def _is_registration(name: Any, address: Any, pid: Any, incarnation: Any) -> bool:
    if type(address) is not str or not isinstance(pid, int | None) or type(incarnation) is not bytes:
        return False
    try:
        canonical(name)
    except InvalidRequest:
        return False
    return True
