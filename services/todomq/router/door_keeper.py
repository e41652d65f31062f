"""Whether the router listens over TCP, and to whom: as the keys are when it starts, and whenever they change.

Owns: when the door is opened, why it is closed, when the router restarts for its sake: a socket that is open can't be
closed to some clients only, nor can its key be changed. Must not know: what a key allows (``keyed_clients.py``).
Clients on this machine are served whatever becomes of the keys.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from todomq.errors import InvalidRequest, TodoMQError, Unavailable
from todomq.keys.required import KeysUnusable, door_pair
from todomq.keys.store import KeyPair, KeyStore, Stamp
from todomq.router.answers import Answers
from todomq.router.in_flight import InFlight
from todomq.router.keyed_clients import KeyedClients, LetThrough
from todomq.runtime.daemon import Daemon
from todomq.runtime.log import log
from todomq.settings import SettingsError

LOOK_S = 0.5
"""How often keys are looked for where there are none, or none that can be used."""


class DoorKeeper:
    """The door of one router.

    Attributes:
        open_to_all: the address where everybody on this machine is let in; empty for none.
    """

    def __init__(self, daemon: Daemon, in_flight: InFlight, answers: Answers, let_through: LetThrough) -> None:
        """Open the door, or know why it is closed.

        Args:
            daemon: the router's.
            in_flight, answers, let_through: as ``KeyedClients`` takes them.

        Raises:
            SettingsError: others could reach the address, and no keys were ever made.
            Unavailable: the address can't be bound.
        """
        self.open_to_all = ""
        self._daemon = daemon
        self._behind_it = in_flight, answers, let_through
        self._keyed: KeyedClients | None = None
        self._trouble = ""
        self._pair: KeyPair | None = None
        self._pair_stamp: Stamp | None = None
        self._store = KeyStore(daemon.settings.keys)
        try:
            self._open(door_pair(daemon.settings))
        except KeysUnusable as error:
            self._stay_closed(error)

    def window_of(self, peer: bytes, most: int) -> int:
        """Return how many requests a connection is asked to keep to: ``most``, or fewer if its key allows fewer."""
        return most if self._keyed is None else self._keyed.window_of(peer, most)

    def stats(self) -> dict[str, Any]:
        """Return what the door counts, or why it is closed."""
        closed = {"door_closed": self._trouble} if self._trouble else {}
        return closed if self._keyed is None else {"door": self._keyed.stats(), **closed}

    def _open(self, pair: KeyPair | None) -> None:
        if pair is None:
            self.open_to_all = self._daemon.settings.tcp
            self._daemon.loop.every(LOOK_S, self._look_for_keys)
            return
        self._pair = pair
        self._pair_stamp = self._store.stamp_of_pair()
        self._keyed = KeyedClients(self._daemon, pair, *self._behind_it)
        self._daemon.loop.every(LOOK_S, self._look_at_pair)

    def _stay_closed(self, error: TodoMQError) -> None:
        if error.text != self._trouble:
            log("door_closed", why=error.text)
        self._trouble = error.text
        self._daemon.loop.after(LOOK_S, self._open_late)

    def _open_late(self) -> None:
        try:
            pair = door_pair(self._daemon.settings)
            if pair is not None:
                self._open(pair)
        except (SettingsError, Unavailable) as error:
            self._stay_closed(error)
            return
        self._trouble = ""
        if pair is None:
            self._begin_anew("there are to be no keys any more")

    def _look_for_keys(self) -> None:
        if self._store.exists():
            self._begin_anew("keys were made")

    def _look_at_pair(self) -> None:
        stamp = self._store.stamp_of_pair()
        if stamp is None or stamp == self._pair_stamp:
            return
        try:
            pair = self._store.server()
        except InvalidRequest:
            return  # it is being written, or damaged: the pair in use stays valid
        self._pair_stamp = stamp
        if pair != self._pair and self._daemon.settings.stack_tcp:  # with the new pair no daemon would talk to this one
            self._trouble = "the stack's own keys are others, by which its daemons meet: todomq down; todomq up"
            log("pair_not_taken", why=self._trouble)
        elif pair != self._pair:
            self._begin_anew("the stack's own keys are others")
        else:
            self._trouble = ""

    def _begin_anew(self, why: str) -> None:
        """Shut down in order; the next life opens the door as it should be."""
        log("begins_anew", why=why)
        os.kill(os.getpid(), signal.SIGTERM)
