"""Connections to the daemons that are called by name, and lookups of names in the registry.

Owns: connections, made when somebody calls and closed when another life has the name; names that are looked up. Must
not know: lists, what a request means. What waits for a name is kept by ``named.py``; who asked gets its answer from
``answers.py``. Anybody may register a name: an answer counts only for what its sender was asked.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import Any

from todomq.daemons import is_daemon_name
from todomq.errors import NOT_APPLIED, DeadlineExceeded, NameNotFound, Unavailable
from todomq.protocol import messages
from todomq.protocol.addresses import is_address
from todomq.protocol.codec import canonical, unpack
from todomq.protocol.messages import DEADLINE_MS, TARGET
from todomq.protocol.registration import Registration, is_same
from todomq.router.answers import Answers
from todomq.router.in_flight import Crowded, Flight, InFlight
from todomq.router.named import NamedBatch, NamedRouting
from todomq.runtime.callee import Answer, Callee
from todomq.runtime.daemon import Daemon
from todomq.runtime.loop import OneTimer

CONNECTIONS = 256
"""Connections at a time; there are more only while none of them is idle."""
LOOK_UP_AGAIN_S = 0.1
"""How soon a name is looked up again where the registry did not answer."""
_NOBODY = "nobody is registered under the name {!r:.200}"


class NamedLinks:
    """All links of one router. Names are canonical here."""

    def __init__(self, in_flight: InFlight, answers: Answers, daemon: Daemon) -> None:
        self.routing = NamedRouting(in_flight)
        self._in_flight = in_flight
        self._answers = answers
        self._daemon = daemon
        self._callees: dict[bytes, tuple[Registration, Callee]] = {}
        self._looked_up: set[bytes] = set()
        """Names that the registry has been asked about and has not answered for yet."""
        self._own_daemons = {canonical(name) for name in daemon.settings.daemon_names()}
        self._look_up_again = OneTimer(daemon.loop, LOOK_UP_AGAIN_S, self._look_for_all)
        daemon.on_registry_change.append(self._registry_changed)

    def forward(self, identifier: int, name: bytes) -> None:
        """Send an admitted request to whoever has the name, at the end of this turn or once somebody has it."""
        is_known = name in self._daemon.registrations
        self.routing.forward(identifier, name, is_known)
        if not is_known:
            self._look_up(name)

    def flush(self) -> None:
        """Send what goes out this turn."""
        for name, batches in self.routing.ready().items():
            self._send(name, batches)

    def _send(self, name: bytes, batches: list[NamedBatch]) -> None:
        try:
            callee = self._callee(name)
        except Unavailable as error:
            self._answers.end_unsent((identifier for identifier, _ in chain.from_iterable(batches)), error)
            return
        if callee is None or not callee.is_connected:
            for identifier, _ in chain.from_iterable(batches):
                self.routing.forward(identifier, name, present=False)
            return
        for batch in batches:
            if not callee.send(messages.call(batch[0][1].sender, [_for_daemon(*item) for item in batch])):
                self._answers.end_unsent((identifier for identifier, _ in batch), Crowded())

    def _answered(self, name: bytes, replies: list[Any]) -> None:
        """Take a daemon's answers, but only to what it was asked itself: anybody may have registered the name."""
        flights = self._in_flight.flights
        own = [
            reply
            for reply in replies
            if reply[1] != messages.MOVED and (flight := flights.get(reply[0])) is not None and flight.place == name
        ]
        self._answers.counts["replies_without_taker"] += len(replies) - len(own)
        self._answers.hand_over(own)

    # -- who has a name ------------------------------------------------------------------------------------------------

    def _registry_changed(self) -> None:
        registrations = self._daemon.registrations
        for name, (registration, callee) in list(self._callees.items()):
            if not is_same(registrations.get(name), registration):
                del self._callees[name]
                callee.close()
                self._lost(name)
        self._look_for_all()

    def _look_for_all(self) -> None:
        for name in self.routing.names_waited_for():
            if name in self._daemon.registrations:
                self.routing.found(name)
            else:
                self._look_up(name)

    def _look_up(self, name: bytes) -> None:
        """Ask the registry who has a name that is not known here: it may have been registered just now.

        It is not asked about the stack's own daemons, which come or come back; nor while it does not know itself who is
        there.
        """
        if not self._daemon.settled or name in self._own_daemons or name in self._looked_up:
            return
        self._looked_up.add(name)
        last = self._in_flight.last_id

        def answered(answer: Answer) -> None:
            self._looked_up.discard(name)
            self._found_out(name, last, answer)

        self._daemon.ask_registry("whereis_name", unpack(name), done=answered)

    def _found_out(self, name: bytes, last: int, answer: Answer) -> None:
        """Take what the registry says of a name; requests with ids above ``last`` came after it was asked."""
        if name in self._daemon.registrations or (answer.error is None and answer.value is not None):
            return  # they go on with the registry's news
        if isinstance(answer.error, Unavailable | DeadlineExceeded):  # the registry itself comes back
            self._look_up_again.plan()
            return
        error = None if answer.error is None else answer.error.with_outcome(NOT_APPLIED)  # it was sent to nobody
        for identifier in self.routing.give_up(name, last):
            flight = self._in_flight.flights.get(identifier)
            if flight is not None:
                self._answers.end(identifier, error or NameNotFound(_NOBODY.format(flight.request[TARGET][0])))
        if self.routing.is_waited_for(name):
            self._look_up(name)

    def _lost(self, name: bytes) -> None:
        for identifier, error in self.routing.lost(name, comes_back=name in self._own_daemons):
            self._answers.end(identifier, error)
        if name in self._daemon.registrations:
            self.routing.found(name)

    # -- connections ---------------------------------------------------------------------------------------------------

    def _callee(self, name: bytes) -> Callee | None:
        """Return the connection to whoever has the name now; None where nobody has it.

        Raises:
            Unavailable: it can't be connected to.
        """
        known = self._callees.get(name)
        if known is not None:
            return known[1]
        registration = self._daemon.registrations.get(name)
        if registration is None:
            return None
        if not is_address(registration.address):
            raise Unavailable("what is registered under this name is no address to connect to", retryable=False)
        if len(self._callees) >= CONNECTIONS:
            self._close_idle_callee()
        callee = self._daemon.connect(
            registration.address,
            on_replies=partial(self._answered, name),
            on_break=lambda: self._lost(name),
            on_connect=lambda: self.routing.found(name),
            is_daemon=is_daemon_name(registration.name),
        )
        self._callees[name] = (registration, callee)
        return callee

    def _close_idle_callee(self) -> None:
        busy = {flight.place for flight in self._in_flight.flights.values()} | self._own_daemons
        for name in self._callees:
            if name not in busy:
                self._callees.pop(name)[1].close()
                return


def _for_daemon(identifier: int, flight: Flight) -> list[Any]:
    target = flight.request[TARGET]
    return [identifier, target if type(target) is bytes else None, *flight.request[DEADLINE_MS:]]
