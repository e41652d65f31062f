"""A simulated stack with a stranger in it, who sends what bytes say, and a neighbour, who must not notice.

Owns: the real daemons in one process (``topology``), the stranger's sockets, what must hold after each input: no daemon
died of an exception, nobody got a reply to what another asked, all daemons answer. Must not know: how bytes are chosen.

Who sits inside the 0700 directory may end a daemon with right requests (a name with a lease that is not renewed): that
is no fault, the daemon is started again. Dying of an exception is one.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fuzzing import shapes
from todomq.daemons import socket_name
from todomq.protocol import messages
from todomq.runtime import sockets
from todomq.settings import Settings
from topology.clock import MS_US, SECOND_US
from topology.network import DEALER, ROUTER, Frames, Socket
from topology.substitutes import in_world
from topology.world import World

SETTLE_US = 4 * SECOND_US
STEP_US = 3 * MS_US
ANSWER_US = 5 * SECOND_US
LOOK_EVERY = 25
INPUTS = 2_000
"""How many inputs a stack gets before a fresh one takes its place: what strangers register and claim adds up."""

GREETING, PAGE, LISTING = 1, 2, 3
"""What an input for ``answer`` may begin with, besides 0."""

NEIGHBOUR_ID = 7_000_001
TABLES_MOST = 4_096
"""More replies or requests than this waiting anywhere after a few thousand inputs is growth."""


class Breach(AssertionError):
    """Law 7 is broken."""


class FuzzedWorld:
    """A stack that runs until it is closed; one at a time in a process."""

    def __init__(self) -> None:
        home = Path("/sim")
        settings = Settings(home, Settings(home, "").address("router"), list_servers=2, database_workers=1)
        self.world = World(1, settings)
        self.inputs = 0
        self._tampering: bytes | None = None
        self._victim = ""
        self._hooks = ExitStack()
        self._hooks.enter_context(in_world(self.world))
        self._receive = self.world.network.receive
        self._tamper_with_answers()
        self.world.start_all()
        self._run(SETTLE_US)
        for number in (1, 2):  # their heirs look for each list in storage, as a partition's first owner does not
            self.world.running[f"list_server-{number}"].process.die()
        self._run(SETTLE_US)
        self._stranger = self.world.new_process("stranger")
        self._neighbour = self.world.new_process("neighbour")
        self._open: dict[tuple[str, str], Socket] = {}
        self._asked = NEIGHBOUR_ID

    def close(self) -> None:
        """Put the real sockets and clocks back."""
        self._hooks.close()

    def send(self, kind: str, daemon: str, frames: list[bytes]) -> None:
        """Let the stranger send a message (``kind`` DEALER or PUSH), then look whether all is well."""
        self.world.processes.run_as(self._stranger, lambda: self._send(kind, daemon, frames))
        self._run(STEP_US)
        self._look()

    def answer(self, data: bytes) -> None:
        """Put an answer made of ``data`` in the place of one that a daemon gets from another.

        The first byte decides whose: the next that anybody gets, or what comes of a broken connection to the database
        worker (a greeting), of a list's load (a page), of a listing of names.
        """
        provoked, self._tampering = (data[0] if data else 0) % 4, data[1:]
        self._victim = "list_server" if provoked else ""
        if provoked == GREETING:
            self._break_links_to_worker()
        elif provoked in (PAGE, LISTING):
            self.world.processes.run_as(self._neighbour, lambda: self._read_something(provoked == LISTING))
        self._run(20 * STEP_US)
        self._tampering = None
        self._look()

    def _break_links_to_worker(self) -> None:
        for connection in list(self.world.network.connections):
            asker, asked = connection.connecting.process.name, connection.bound
            if asker.startswith("list_server") and asked.kind == ROUTER and asked.process.name.startswith("database"):
                self.world.network.break_connection(connection)

    def _read_something(self, names: bool) -> None:
        network = self.world.network
        router = self._open.get(("reader", "router"))
        if router is None:
            router = self._open["reader", "router"] = network.dealer(self.world.settings.address("router"))[0]
        while network.receive(router) is not None:
            pass  # answers to what was read before
        self._asked += 1
        body = messages.body("list_names", "", None) if names else messages.body("size")
        name = "" if names else f"list {self._asked}"
        network.send(router, [b"", messages.call(b"reader", [[self._asked, name, 0, body, 1, 1]])])

    def _send(self, kind: str, daemon: str, frames: list[bytes]) -> None:
        network = self.world.network
        address = self.world.settings.address(daemon)
        opened = self._open.get((kind, daemon))
        if opened is None:
            opened = self._open[kind, daemon] = network.dealer(address)[0] if kind == DEALER else network.push(address)
            self.world.clock.after(0, lambda: None)
        while network.receive(opened) is not None:
            pass  # what the stranger asked before
        network.send(opened, frames)

    def _look(self) -> None:
        self.inputs += 1
        if not self.world.supervisord.is_alive:
            self.world.start_again()
        faults = self.world.processes.faults
        if faults:
            raise Breach(faults[0])
        if self.inputs % LOOK_EVERY == 0:
            self._ask_every_daemon()
            self._look_for_growth()
            if faults:
                raise Breach(faults[0])

    def _ask_every_daemon(self) -> None:
        """Each daemon answers the neighbour, with the answer to what it asked and nothing else."""
        self._run(ANSWER_US // 5)
        clock, running = self.world.clock, self.world.running
        for name in map(socket_name, self.world.settings.daemon_names()):
            clock.run_until(clock.now_us + ANSWER_US, lambda name=name: name in running)  # type: ignore[misc]
            self._asked += 1
            heard: Frames | None = None
            for _ in range(3):  # a daemon that was ended meanwhile loses what it was asked
                heard = self._ask(name)
                if heard is not None:
                    break
            if heard is None:
                raise Breach(f"{name} does not answer")
            _, fields = messages.read(heard[-1])
            ids = [reply[0] for reply in messages.read_replies(fields)]
            if ids != [self._asked]:
                raise Breach(f"{name} answered {ids} to one who asked {self._asked}")

    def _ask(self, name: str) -> Frames | None:
        network = self.world.network
        key = "neighbour", name
        opened: Socket | None = self._open.get(key)

        def ask() -> None:
            nonlocal opened
            if opened is None:
                opened = self._open[key] = network.dealer(self.world.settings.address(name))[0]
            ping = messages.call(b"neighbour", [[self._asked, None, 0, messages.body("ping")]])
            network.send(opened, [b"", ping])

        self.world.processes.run_as(self._neighbour, ask)
        assert opened is not None
        self.world.clock.run_until(self.world.clock.now_us + ANSWER_US, lambda: bool(opened.inbox))
        return self._receive(opened)

    def _look_for_growth(self) -> None:
        for name, running in self.world.running.items():
            daemon: Any = running.daemon
            waiting = sum(len(each.messages) for each in daemon.server._backlog._waiting.values())
            calls = sum(len(peer._calls) for peer in daemon._connections)
            service: Any = running.service
            flights = len(service.in_flight.flights) if hasattr(service, "in_flight") else 0
            if waiting + calls + flights > TABLES_MOST or len(daemon._connections) > TABLES_MOST:
                grown = f"{waiting} replies, {calls} calls, {flights} in flight, {len(daemon._connections)} peers"
                raise Breach(f"{name} has grown: {grown}")

    def _tamper_with_answers(self) -> None:
        receive = self._receive

        def tampered(socket: Socket, max_frames: int = 4) -> Frames | None:
            frames = receive(socket, max_frames)
            data = self._tampering
            name = socket.process.name
            is_daemon = socket.kind == DEALER and name in self.world.running and name.startswith(self._victim)
            if frames is None or data is None or not is_daemon:
                return frames
            self._tampering = None
            return [b"", shapes.answer(data, _ids(frames[-1]))]

        self.world.network.receive = tampered  # type: ignore[method-assign]
        self._hooks.enter_context(patch.object(sockets, "receive", tampered))

    def _run(self, us: int) -> None:
        self.world.clock.run_until(self.world.clock.now_us + us)


def _ids(message: bytes) -> list[int]:
    kind, fields = messages.read(message)
    return [reply[0] for reply in messages.read_replies(fields) if reply[0] is not None] if kind == "reply" else []
