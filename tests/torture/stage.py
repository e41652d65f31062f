"""What provocations have in hand: a running stack, its processes by name, lists by owner and worker, its records.

Owns: how a process is paused and goes on whatever happens, how a partition is made to move away from an owner that
lives, how a record is written past every check. Must not know: what is provoked, what must be true then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import zmq
from stacks import RunningStack

from todomq import Client
from todomq.cache.directory import first_homes
from todomq.errors import TodoMQError, Unavailable
from todomq.list_server import records
from todomq.protocol import messages
from todomq.protocol.codec import canonical, unpack
from todomq.protocol.partitions import PARTITIONS, partition_of, worker_of
from torture.raw import Raw
from torture.writer import Writer

T = TypeVar("T")

NAMES_MOST = 20_000
POLL_S = 0.002
SETTLED_S = 30.0
ANSWERED_S = 5.0
WRITTEN = bytes(500_000)
WRITES = 15
"""As many as a worker lets wait of one sender; it commits two of them at once."""
WRITERS = 4
WRITES_WAITING_BYTES = 20_000_000
WRITES_TRIED = 5
WRITTEN_S = 15.0


class Place(NamedTuple):
    """Where a list is: its partition under its epoch, its list server (None: none) and database worker."""

    partition: int
    epoch: int
    server: int | None
    worker: int


class Paused:
    """A process that stands still when told to, and goes on at the end in any case."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self) -> Paused:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.go_on()

    def stop(self) -> None:
        """Stand still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Go on, where it stands still."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End, standing still."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it was ended meanwhile
            os.kill(self.pid, number)


class Stage:
    """A running stack, and one client of the library beside those who ask all the time."""

    def __init__(self, stack: RunningStack, todo: Client, random: Random) -> None:
        self.stack = stack
        self.todo = todo
        self.random = random
        self.servers = stack.control.settings.list_servers
        self.workers = stack.control.settings.database_workers
        self._mark = os.urandom(3).hex()
        self._names = count(1)

    # Asking.

    def raw(self, daemon: str = "router") -> Raw:
        """Return a raw connection to a daemon."""
        return Raw(f"ipc://{self.stack.home}/run/{daemon}")

    def call(self, daemon: str, operation: str, *arguments: Any, timeout_s: float = ANSWERED_S) -> Any:
        """Ask a daemon itself, at its own socket.

        Raises:
            TodoMQError: it refused, or did not answer in time.
        """
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.connect(f"ipc://{self.stack.home}/run/{daemon}")
            socket.send(messages.call(b"", [[1, None, 0, messages.body(operation, *arguments)]]))
            if not socket.poll(int(timeout_s * 1000)):
                raise Unavailable(f"{daemon} does not answer {operation} within {timeout_s:g} s")
            ((_, status, value),) = messages.read_replies(messages.read(socket.recv())[1])
        finally:
            socket.close()
        if status != messages.OK:
            raise messages.read_error(value)
        return unpack(value)

    def wait(self, condition: Callable[[], T], what: str, within_s: float = SETTLED_S) -> T:
        """Wait until something holds, errors of the service meanwhile being that it does not; return it.

        Raises:
            Unavailable: it does not in time.
        """
        give_up = time.monotonic() + within_s
        while True:
            with contextlib.suppress(TodoMQError):
                if value := condition():
                    return value
            if time.monotonic() > give_up:
                raise Unavailable(f"not within {within_s:g} s: {what}")
            time.sleep(POLL_S)

    def settle(self) -> None:
        """Wait until every daemon answers and every partition is where it belongs."""
        for daemon in self.stack.daemons:
            self.wait(lambda daemon=daemon: self.call(daemon, "ping", timeout_s=0.5), f"{daemon} answers")  # type: ignore[misc]
        self.wait(self._is_at_home, "every daemon is known, every partition with its list server")

    def _is_at_home(self) -> bool:
        owned: dict[int, int] = self.call("cache", "stats")["partitions"]
        moving: int = self.call("router", "stats")["moving_partitions"]
        registry = self.call("registry", "stats")
        is_known = registry["settled"] and registry["names"] >= len(self.stack.daemons)
        return bool(sum(owned.values()) == PARTITIONS and len(owned) == self.servers and not moving and is_known)

    # Lists.

    def fresh(self, server: int | None = None, worker: int | None = None, partition: int | None = None) -> str:
        """Return the name of a list that is not there, with its partition where it is wanted (None: anywhere)."""
        for number in islice(self._names, NAMES_MOST):
            name = f"provoked {self._mark} {number}"
            place = partition_of(name.encode())
            if partition not in (None, place) or worker not in (None, worker_of(place, self.workers)):
                continue
            if server is None or self.place(name).server == server:
                return name
        raise AssertionError(f"no list has its place with server {server}, worker {worker}, partition {partition}")

    def key(self, worker: int) -> str:
        """Return a database key that nobody has stored, of this worker."""
        keys = (f"key {self._mark} {number}" for number in self._names)
        return next(key for key in keys if worker_of(partition_of(canonical(key)), self.workers) == worker)

    def place(self, name: str) -> Place:
        """Return where a list is, by the cache."""
        return Place(*self.call("cache", "whereis_list", name))

    def described(self, name: str) -> dict[str, Any]:
        """Return what its list server says of a list."""
        described: dict[str, Any] = self.call("cache", "describe_list", name)
        return described

    def titles(self, name: str, deadline_s: float = 10.0) -> list[str]:
        """Return the titles of a list."""
        return [entry.title for entry in self.todo.todo_list(name).entries(deadline_s=deadline_s)]

    def reload(self, name: str) -> None:
        """End a list's activation: what is asked next begins another, which reads what is on the disk."""
        self.wait(lambda: self.call("cache", "server_process", name), f"{name} is loaded")  # else it is not ended
        self.wait(lambda: self.call("cache", "kill_list", name) is not None, f"the actor of {name} ends")

    # Processes.

    def some_server(self) -> int:
        """Return the number of a list server."""
        return self.random.randint(1, self.servers)

    def workers_of(self, server: int) -> list[int]:
        """Return the numbers of the workers that a list server writes to, where all list servers live."""
        homes = enumerate(first_homes(self.servers, self.workers))
        return sorted({worker_of(partition, self.workers) for partition, home in homes if home == server})

    def some_pair(self) -> tuple[int, int]:
        """Return the numbers of a list server and of a worker that it writes to."""
        server = self.some_server()
        return server, self.random.choice(self.workers_of(server))

    def pid(self, daemon: str) -> int:
        """Return the pid of a daemon that answers."""
        pid: int = self.wait(lambda: self.call(daemon, "stats", timeout_s=0.5)["pid"], f"{daemon} answers")
        return pid

    def kill(self, daemon: str) -> None:
        """End a daemon at once."""
        os.kill(self.pid(daemon), signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self, *daemons: str) -> Iterator[list[Paused]]:
        """Have daemons stand still for so long; those that were ended meanwhile are not missed."""
        with contextlib.ExitStack() as ends:
            yield [ends.enter_context(self.pause(daemon)) for daemon in daemons]

    def pause(self, daemon: str) -> Paused:
        """Have a daemon stand still until it is told to go on, or the block ends."""
        paused = Paused(self.pid(daemon))
        paused.stop()
        return paused

    @contextlib.contextmanager
    def paused_behind_writes(self, worker: int) -> Iterator[Paused]:
        """Have a worker stand still for so long with much to write, which comes before what it is sent meanwhile."""
        daemon = f"database_worker-{worker}"
        name = self.fresh(worker=worker)
        place = self.place(name)
        key = records.entry_key(records.prefix(name), 0, 1)  # of a list that nobody knows or asks for
        with contextlib.ExitStack() as ends:
            written: list[Writer] = []
            with Paused(self.pid(daemon)) as paused:
                for _ in range(WRITES_TRIED):
                    writers = [ends.enter_context(Writer(daemon, self.call)) for _ in range(WRITERS)]
                    for writer in writers:
                        for _ in range(WRITES):
                            writer.send(place.partition, place.epoch, [key, WRITTEN])
                    written += writers
                    if self.call(daemon, "stats")["waiting_bytes"] >= WRITES_WAITING_BYTES:
                        break
                paused.stop()
                yield paused
            for writer in written:
                with contextlib.suppress(Unavailable):  # what is behind a claim is refused
                    writer.wait(WRITTEN_S)
            self.wait(lambda: self._is_written(name, key, None), "what was written is removed")

    def take_for_dead(self, server: int) -> None:
        """Have everybody take a list server for gone: it is no longer registered, until it registers itself again.

        So its partitions move while it lives, as they do when the registry has begun anew and it stands still.
        """
        name = ["list_server", server]
        *_, incarnation = self.call("registry", "whereis_name", name)
        self.call("registry", "unregister_name", name, incarnation)

    # Disks.

    def write(self, name: str, *pairs: bytes | None) -> None:
        """Write records of a list, key, value, key, value, as its list server would; nobody looks at what they hold."""
        place = self.place(name)
        with Writer(f"database_worker-{place.worker}", self.call) as writer:
            writer.send(place.partition, place.epoch, list(pairs))
            writer.wait(ANSWERED_S)

    def _is_written(self, name: str, *pairs: bytes | None) -> bool:
        self.write(name, *pairs)
        return True
