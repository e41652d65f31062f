"""One simulated machine: time, processes, network and disks, and the daemons of one stack under a supervisor.

Owns: which daemon is to run, and starting it again when it died. Must not know: clients, what is broken when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from todomq.cache.service import CacheService
from todomq.daemons import socket_name
from todomq.database_worker.service import DatabaseWorkerService
from todomq.errors import TodoMQError, Unavailable
from todomq.list_server.service import ListServerService
from todomq.registry.registrations import Process as Life
from todomq.registry.registrations import Remember
from todomq.registry.service import RegistryService
from todomq.router.service import RouterService
from todomq.runtime.calls import Service
from todomq.runtime.daemon import Daemon, start
from todomq.settings import Settings
from topology.clock import MS_US, Clock
from topology.disk import Disk
from topology.loop import SimulatedLoop
from topology.network import Network
from topology.processes import Process, Processes

SUPERVISORD = "supervisord"
RESTART_US = (50 * MS_US, 150 * MS_US)
WORK_US = (10, 200)


class Running:
    """One life of a daemon."""

    def __init__(self, process: Process, daemon: Daemon, service: Service) -> None:
        self.process = process
        self.daemon = daemon
        self.service = service


class World:
    """Everything but clients and nemesis."""

    def __init__(
        self, seed: int, settings: Settings, show: Callable[[str], None] | None = None, *, is_spread: bool = False
    ) -> None:
        """Begin with nothing running.

        Args:
            seed: decides everything.
            settings: of the stack.
            show: is given every line of the trace.
            is_spread: each daemon is on a machine of its own, so that the registry can kill none.
        """
        self.seed = seed
        self.settings = settings
        self.clock = Clock()
        self.random = self.stream("world")
        self.processes = Processes(self.clock, self.stream("turns"))
        self.network = Network(self.clock, self.processes, self.stream("network"), self.trace)
        self.disks = {n: Disk(self.stream(f"disk {n}")) for n in range(1, settings.database_workers + 1)}
        self.journal: dict[bytes, Remember] = {}
        self.running: dict[str, Running] = {}
        self.refusals: dict[str, str] = {}
        """Why a daemon could not start when that was tried last."""
        self.restarts = 0
        self.is_spread = is_spread
        self._show = show
        self._digest = hashlib.sha256()
        self._locks: dict[Path, Process] = {}
        self._bytes = self.stream("bytes")
        self._loops = self.stream("loops")
        self.supervisord = self.new_process(SUPERVISORD)

    def stream(self, name: str) -> Random:
        """Return random numbers of the seed that no other use of it disturbs."""
        return Random(f"{self.seed} {name}")

    def trace(self, text: str) -> None:
        """Note what happens."""
        line = f"{self.clock.now_us} {text}\n"
        self._digest.update(line.encode())
        if self._show is not None:
            self._show(line)

    def digest(self) -> str:
        """Return what tells this trace from any other."""
        return self._digest.hexdigest()

    # In the place of the operating system.

    def make_loop(self) -> SimulatedLoop:
        """Return the loop of the process that runs now."""
        assert self.processes.current is not None
        return SimulatedLoop(self.processes.current, self.clock, self._loops, self._latency_us)

    def random_bytes(self, length: int) -> bytes:
        """In the place of ``os.urandom``."""
        return self._bytes.randbytes(length)

    def hold(self, path: Path, wait_s: float = 5.0) -> int:
        """In the place of ``locks.hold``: whoever is refused is started again."""
        process = self.processes.current
        assert process is not None
        holder = self._locks.get(path)
        if holder is not None and holder.is_alive:
            raise Unavailable(f"{path.name} is held by process {holder.pid}")
        self._locks[path] = process
        return 0

    def is_endable(self, life: Life) -> bool:
        """In the place of the registry's look at the owner of a process."""
        return life.pid in self.processes.living and life.pid != self.processes.pid()

    def is_supervisord(self, pid: int) -> bool:
        """In the place of a daemon's look at its parent."""
        process = self.processes.living.get(pid)
        return process is not None and process.name == SUPERVISORD

    def _latency_us(self, process: Process, lane: str) -> int:
        kind, _, number = process.name.partition("-")
        if kind == "database_worker":
            return self.disks[int(number)].latency_us(lane)
        return self._loops.randint(*WORK_US)

    # The supervisor.

    def start_all(self) -> None:
        """Start every daemon, in an order that the seed decides."""
        names = self.settings.daemon_names()
        self.random.shuffle(names)
        for name in names:
            self.clock.after(self.random.randint(0, 20 * MS_US), partial(self._start, name, self.supervisord))

    def start_again(self) -> None:
        """Start a supervisord in the place of one that is gone, and every daemon."""
        self.supervisord = self.new_process(SUPERVISORD)
        self.trace(f"start {self.supervisord!r}")
        self.start_all()

    def new_process(self, name: str, parent: Process | None = None) -> Process:
        """Return a process whose sockets end with it."""
        process = self.processes.start(name, parent)
        process.on_death.append(lambda: self.network.process_died(process))
        return process

    def missing(self) -> list[str]:
        """Return the daemons that do not run under the supervisord that is there."""
        ours = {name for name, each in self.running.items() if each.process.parent is self.supervisord}
        return [name for each in self.settings.daemon_names() if (name := socket_name(each)) not in ours]

    def orphans(self) -> list[Process]:
        """Return the daemons that still run though the supervisord that started them is gone."""
        return [process for process in self.processes.living.values() if process.is_orphan]

    def start(self, name: list[str | int]) -> None:
        """Start a daemon, now and whenever it has died for as long as this supervisord lives."""
        self._start(name, self.supervisord)

    def _start(self, name: list[str | int], supervisord: Process) -> None:
        """Let a daemon begin, which supervisord has forked before: it may be gone by now."""
        process = self.new_process(socket_name(name), supervisord)
        self.trace(f"start {process!r}")

        def died() -> None:
            self.trace(f"died {process!r}")
            if self.running.get(process.name, None) is not None and self.running[process.name].process is process:
                del self.running[process.name]
            if supervisord.is_alive:
                self.restarts += 1
                self.clock.after(self.random.randint(*RESTART_US), lambda: self._start(name, supervisord))

        process.on_death.append(died)
        self.processes.run_as(process, lambda: self._begin(process, name))

    def _begin(self, process: Process, name: list[str | int]) -> None:
        try:
            daemon, service = start(name, self.settings, self._service, registers=name != ["registry"])
        except (TodoMQError, OSError, SystemExit) as error:
            self.refusals[process.name] = str(error)
            self.trace(f"refused to start {process!r}: {error}")
            process.die()
            return
        self.running[process.name] = Running(process, daemon, service)

    def _service(self, daemon: Daemon) -> Service:
        match daemon.name:
            case ["registry"]:
                return RegistryService(daemon)
            case ["cache"]:
                return CacheService(daemon)
            case ["router"]:
                return RouterService(daemon)
            case ["list_server", _]:
                return ListServerService(daemon)
            case ["database_worker", number]:
                return DatabaseWorkerService(daemon, number, self.disks[number].open)
        raise ValueError(f"no daemon {daemon.name}")
