"""One simulated machine: time, processes, network and disks, and the daemons of one stack under a supervisor.

Owns: which daemon is to run, and starting it again when it died. Must not know: clients, what is broken when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random

from todomq.cache.service import CacheService
from todomq.database_worker.service import DatabaseWorker
from todomq.errors import TodoMQError, Unavailable
from todomq.list_server.service import ListServerService
from todomq.registry.registrations import Process as Life
from todomq.registry.registrations import Registration
from todomq.registry.service import RegistryService
from todomq.router.service import RouterService
from todomq.runtime.calls import Service
from todomq.runtime.daemon import Daemon
from todomq.settings import Settings, socket_name
from topology.clock import MS_US, Clock
from topology.disk import Disk
from topology.loop import SimulatedLoop
from topology.network import Network
from topology.processes import Process, Processes

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
        self.journal: dict[bytes, tuple[Registration, Life]] = {}
        self.running: dict[str, Running] = {}
        self.restarts = 0
        self.is_spread = is_spread
        self._show = show
        self._digest = hashlib.sha256()
        self._locks: dict[Path, Process] = {}
        self._bytes = self.stream("bytes")
        self._loops = self.stream("loops")

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
            self.clock.after(self.random.randint(0, 20 * MS_US), lambda name=name: self.start(name))  # type: ignore[misc]

    def new_process(self, name: str) -> Process:
        """Return a process whose sockets end with it."""
        process = self.processes.start(name)
        process.on_death.append(lambda: self.network.process_died(process))
        return process

    def missing(self) -> list[str]:
        """Return the daemons that do not run."""
        return [name for each in self.settings.daemon_names() if (name := socket_name(each)) not in self.running]

    def start(self, name: list[str | int]) -> None:
        """Start a daemon, now and whenever it has died."""
        process = self.new_process(socket_name(name))
        self.trace(f"start {process!r}")

        def died() -> None:
            self.trace(f"died {process!r}")
            if self.running.get(process.name, None) is not None and self.running[process.name].process is process:
                del self.running[process.name]
            self.restarts += 1
            self.clock.after(self.random.randint(*RESTART_US), lambda: self.start(name))

        process.on_death.append(died)
        self.processes.run_as(process, lambda: self._begin(process, name))

    def _begin(self, process: Process, name: list[str | int]) -> None:
        try:
            daemon = Daemon(name, self.settings, registers=name != ["registry"])
            service = self._service(daemon)
        except (TodoMQError, OSError) as error:
            self.trace(f"refused to start {process!r}: {error}")
            process.die()
            return
        self.running[process.name] = Running(process, daemon, service)
        daemon.begin(service)

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
                return DatabaseWorker(daemon, number, self.disks[number].open)
        raise ValueError(f"no daemon {daemon.name}")
