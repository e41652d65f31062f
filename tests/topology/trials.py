"""What is tried once everything is healed: some things by seed that the run itself can't show.

Owns: damage to records (law 8), a fault of ours in one list and a shard that stands still (law 5), a flood (law 6),
garbage and bad requests (law 7), a daemon that hangs for good, the end of supervisord (law 9); what must be true then.
Must not know: the run before, the checker.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any
from unittest.mock import patch

from bad_frames import bad_frames
from todomq.client import operations
from todomq.client.request import LIST_CHANGE, Request
from todomq.client.values import Via
from todomq.daemons import socket_name
from todomq.errors import CorruptRecord, InvalidRequest, Overloaded, TodoMQError, Unavailable
from todomq.list_server import gate, records
from todomq.list_server.operations import CHANGES
from todomq.list_server.service import ListServerService
from todomq.protocol import messages
from todomq.protocol.codec import pack, unpack
from todomq.protocol.partitions import partition_of, worker_of
from todomq.router import in_flight
from todomq.router.service import RouterService
from topology.client import Client, outcome_of
from topology.clock import MS_US, SECOND_US
from topology.network import DEALER, DELAY_US, ROUTER, Socket
from topology.processes import Process
from topology.world import World

PATIENCE_US = 20 * SECOND_US
OTHERS_S = 1.0
"""How long others may take while one list, shard or client is in trouble."""

FLOOD = 1_200
FLOOD_LIMIT = 500
"""In flight of one client while the flood lasts; the router's own limit takes longer to reach."""
TITLE = "t" * 100
GATE_BYTES = 32 * 1024
POISON = "poison"
AT_MOST = 3
STALLED_S = 3.0
OLD_OWNER_HEARS_US = 4 * SECOND_US
"""After every lease is over and the old owner, asking once a second, has heard that it is none."""
NEW_OWNER_HEARS_US = 6 * SECOND_US
FOR_GOOD_US = 60 * SECOND_US


class Trials:
    """The trials of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.problems: list[str] = []
        self.random = world.stream("trial")
        self.client = Client(world, "client-trial")
        self._lists = count(1)
        kinds = [
            self.damage, self.crash, self.flood, self.garbage, self.late, self.repeat, self.promise, self.claim,
        ]  # fmt: skip
        if len(world.disks) > 1:
            kinds.append(self.stall)
        if not world.is_spread:
            kinds.append(self.hang)
        self.trials: list[Callable[[], None]] = self.random.sample(kinds, AT_MOST)
        if world.is_spread:  # only there is an old owner that lives on; what it was cut off from stays so
            self.trials += [self.woken, self.handover]
        else:  # one machine, one supervisord
            self.trials.append(self.orphaned)

    def go(self) -> list[str]:
        """Try them, up to the first that finds something; return what was not as it must be."""
        for trial in self.trials:
            self.world.trace(f"trial {trial.__name__}")
            trial()
            if self.problems:
                return [f"trial of {trial.__name__}: {problem}" for problem in self.problems]
        return []

    # The trials.

    def damage(self) -> None:
        """Law 8: a record that is damaged or missing is an error that names the list; the others know nothing of it."""
        for is_missing in (False, True):
            name = self._fresh_list()
            self._filled(name)
            self._good(operations.call(Via(["cache"]), "kill_list", name))
            self._run(SECOND_US)
            key, prefix = records.list_key(name), records.prefix(name)
            disk = self.world.disks[self._worker_of(name)].records
            if is_missing:
                del disk[key]
            else:
                key = self.random.choice([key, *sorted(key for key in disk if key.startswith(prefix))])
                disk[key] = b"\xc1" + disk[key][1:]
            self._look_at_damaged(name)

    def _look_at_damaged(self, name: str) -> None:
        for request in (operations.entries(name), operations.add_entry(name, "more")):
            error = self._ask(request).error
            if type(error) is not CorruptRecord or repr(name) not in error.text:
                self.problems.append(f"a list with a damaged record answers {error or 'as if it were whole'}")
        self._look_at_others(name)

    def crash(self) -> None:
        """Law 5: a fault of ours in one list ends that list's actor and nothing else."""
        name = self._fresh_list()
        self._filled(name)
        add = CHANGES["add_entries"]

        def poisoned(todo: Any, arguments: list[Any], touched: Any) -> Any:
            if arguments[0] == [[POISON]]:
                raise ZeroDivisionError
            return add(todo, arguments, touched)

        with patch.dict(CHANGES, {"add_entries": poisoned}):
            if self._ask(operations.add_entries(name, [POISON])).error is None:
                self.problems.append("a crash is answered as if nothing was")
            self._look_at_others(name)
        if self._good(operations.size(name)) != 3:
            self.problems.append("a list whose actor crashed is not as it was stored")

    def promise(self) -> None:
        """Law 1: what was answered before the disk had it is never undone, neither a change nor what a read showed."""
        name = self._fresh_list()
        self._good(operations.add_entry(name, "first"))
        owner, worker = self._owner_of(name), self._worker_of(name)
        disk = self.world.disks[worker]
        disk.syncs_stalled_us = int(STALLED_S * SECOND_US)
        adding = self._submit(operations.add_entry(name, "on its way"), STALLED_S / 6)
        reading = self._submit(operations.size(name), 5 * STALLED_S)
        again = [self._submit(operations.entries(name), 5 * STALLED_S) for _ in range(2)]  # the second as the first
        self._run(int(STALLED_S * SECOND_US / 3))
        self.world.running[f"database_worker-{worker}"].process.die()
        owner.die()
        disk.syncs_stalled_us = 0
        self.world.clock.run_until(self.world.clock.now_us + PATIENCE_US, lambda: all([adding, reading, *again]))
        stored = self._good(operations.size(name))
        if not adding or (adding[0].error is None and stored != 2):
            self.problems.append("a change that was acknowledged has been undone")
        if not reading or reading[0].error is not None or unpack(reading[0].value) != stored:
            self.problems.append(f"what a read showed has been undone: {stored} entries are stored")
        if not all(read and len(outcome_of(read[0])[0] or ()) == stored for read in again):
            self.problems.append(f"what a read in pages showed has been undone: {stored} entries are stored")

    def claim(self) -> None:
        """Law 2: nobody shows a list before the claim of its partition is on disk, and all that was written before."""
        name = self._fresh_list()
        self._good(operations.add_entry(name, "first"))
        owner, disk = self._owner_of(name), self.world.disks[self._worker_of(name)]
        disk.syncs_stalled_us = int(STALLED_S * SECOND_US)
        self._submit(operations.add_entry(name, "on its way"), STALLED_S / 6)
        self._run(int(STALLED_S * SECOND_US / 3))
        owner.die()
        shown = self._good(operations.size(name), 5 * STALLED_S)
        disk.syncs_stalled_us = 0
        self._run(int(2 * STALLED_S * SECOND_US))
        self._good(operations.call(Via(["cache"]), "kill_list", name))
        self._run(SECOND_US)
        stored = self._good(operations.size(name))
        if shown != stored:
            self.problems.append(f"a list whose partition is claimed shows {shown} entries where {stored} are stored")

    def stall(self) -> None:
        """Law 5: while one shard stands still, lists of others are loaded, changed and read."""
        workers = len(self.world.disks)
        stuck = self.random.randint(1, workers)
        self.world.disks[stuck].stalled_us = 4 * SECOND_US
        waiting = self._fresh_list(lambda name: worker_of(partition_of(name.encode()), workers) == stuck)
        self._submit(operations.size(waiting), 10.0)
        self._run(50 * MS_US)
        for _ in range(4):
            others = self._fresh_list(lambda name: worker_of(partition_of(name.encode()), workers) != stuck)
            for request in (operations.size(others), operations.add_entry(others, "t"), operations.entries(others)):
                if (error := self._ask(request, OTHERS_S).error) is not None:
                    self.problems.append(f"while worker {stuck} stands still, a list of another one answers {error}")
        self.world.disks[stuck].stalled_us = 0

    def flood(self) -> None:
        """Law 6: past a limit the sender hears Overloaded at once, and what waits stays within it."""
        for disk in self.world.disks.values():
            disk.stalled_us = 3 * SECOND_US
        name = self._fresh_list()
        self._submit(operations.size(name), 10.0)
        self._run(5 * SECOND_US)  # it is loaded: what follows waits for the disk alone
        limit = GATE_BYTES if self.random.random() < 0.5 else gate.UNCOMMITTED_BYTES
        stranger = self._stranger(DEALER, "router")
        few = patch.object(in_flight, "REQUESTS_PER_CONNECTION", FLOOD_LIMIT)
        with few, patch.object(gate, "UNCOMMITTED_BYTES", limit):
            body = messages.body("add_entry", TITLE)
            for start in range(1, FLOOD, 300):
                numbers = range(start, start + 300)
                requests = [[number, name, 0, body, number, number] for number in numbers]
                self._send(stranger, [b"", messages.call(b"a flood", requests)])
            self._run(SECOND_US)
            self._look_at_bounds(limit)
        refused = sum(type(error) is Overloaded for error in self._errors(stranger))
        if refused < FLOOD - FLOOD_LIMIT - 100:
            self.problems.append(f"{refused} of a flood of {FLOOD} requests were told Overloaded at once")
        for disk in self.world.disks.values():
            disk.stalled_us = 0
        self._run(8 * SECOND_US)
        self._look_at_others(name)

    def garbage(self) -> None:
        """Law 7: whatever is sent to a socket, the daemon lives on; a request that is bad in part changes nothing."""
        for address, bound in self.world.network.bound().items():
            stranger = self._stranger(DEALER if bound == ROUTER else "push", address.rpartition("/")[2])
            for frame in bad_frames(self.random):
                self._send(stranger, [b"", frame] if bound == ROUTER else [frame])
        name = self._fresh_list()
        self._filled(name)
        before = self._good(operations.entries(name))
        for _ in range(2):
            error = self._ask(self._bad_request(name)).error
            if type(error) is not InvalidRequest:
                self.problems.append(f"a request that is bad in part is answered with {error or 'a result'}")
            if self._good(operations.entries(name)) != before:
                self.problems.append("a request that was refused has changed the list")
        for daemon in map(socket_name, self.world.settings.daemon_names()):
            if daemon not in self.world.running:
                self.problems.append(f"{daemon} does not live on")

    def woken(self) -> None:
        """Law 2: what an owner that was taken for dead writes when it wakes reaches no disk."""
        name = self._fresh_list()
        entry = self._good(operations.add_entry(name, "t"))
        old = self._owner_of(name)
        old.pause()
        if self._good(operations.update_entry(name, entry.id, title="first"), 20.0) is None:
            return
        self._good(operations.update_entry(name, entry.id, title="second"))
        old.resume()
        self._run(SECOND_US)
        self._good(operations.call(Via(["cache"]), "kill_list", name))
        self._run(SECOND_US)
        if [each.title for each in self._good(operations.entries(name)) or ()] != ["second"]:
            self.problems.append("an owner that woke has undone what the next one had acknowledged")

    def handover(self) -> None:
        """Law 2: what the old owner of a partition says once another one owns it is not taken."""
        name = self._fresh_list()
        self._good(operations.add_entry(name, "t"))
        router: Any = self.world.running["router"].service
        table, partition = router.routing.table, partition_of(name.encode())
        old = table[partition].server
        for connection in self.world.network.connections:
            asker, asked = connection.connecting.process.name, connection.bound.process.name
            if asker == "router" and asked.startswith("list_server"):
                delay_us = OLD_OWNER_HEARS_US if asked == f"list_server-{old}" else NEW_OWNER_HEARS_US
                connection.delay_us = (delay_us, delay_us)
            elif (asker, asked) == (f"list_server-{old}", "registry"):
                connection.delay_us = (FOR_GOOD_US, FOR_GOOD_US)
        reading = self._submit(operations.size(name), 20.0)
        clock = self.world.clock
        clock.run_until(clock.now_us + OLD_OWNER_HEARS_US, lambda: table[partition].server != old)
        clock.run_until(clock.now_us + PATIENCE_US, lambda: bool(reading))
        for connection in self.world.network.connections:
            if connection.connecting.process.name == "router":
                connection.delay_us = DELAY_US
        if not reading or reading[0].error is not None or self._good(operations.size(name)) != 1:
            self.problems.append("a list whose partition has moved is not answered for")

    def late(self) -> None:
        """Law 3: a change that a list could not take before its deadline is never applied."""
        for disk in self.world.disks.values():
            disk.stalled_us = 2 * SECOND_US
        name = self._fresh_list()
        error = self._ask(operations.add_entry(name, "late"), 0.5).error
        for disk in self.world.disks.values():
            disk.stalled_us = 0
        self._run(5 * SECOND_US)
        if error is None or self._good(operations.size(name)) != 0:
            self.problems.append(f"a change that was taken after its deadline, with {error}, has been applied")

    def repeat(self) -> None:
        """Law 3: sent again behind a later change, a change gets the answer it had and does nothing."""
        name, key = self._fresh_list(), pack("trial")
        stranger = self._stranger(DEALER, "router")
        stores = [[10 + n, key, 0, messages.body("store", "trial", n), n, n] for n in (1, 2)]
        adds = [[n, name, 0, messages.body("add_entry", f"title {n}"), n, 1] for n in (1, 2)]
        requests, replies = [*adds, *stores, adds[0], stores[0]], list[Any]()
        for request in requests:
            self._send(stranger, [b"", messages.call(b"who repeats", [request])])
            self._run(100 * MS_US)

        def all_answered() -> bool:
            replies.extend(self._replies(stranger))
            return len(replies) == len(requests)

        clock = self.world.clock
        clock.run_until(clock.now_us + PATIENCE_US, all_answered)  # a disk may be slow
        if [entry.id for entry in self._good(operations.entries(name)) or ()] != [1, 2]:
            self.problems.append("a change that was repeated took effect twice")
        if self._good(operations.get("trial")) != 2:
            self.problems.append("a store that was repeated took effect twice")
        first = [(status, value) for identifier, status, value in replies if identifier == 1]
        if len(first) != 2 or first[0] != first[1] or first[0][0] != messages.OK:
            self.problems.append(f"a repeated change is not answered as at first: {replies}")

    def hang(self) -> None:
        """Law 9: a daemon that hangs for good is ended and another one is there in its place."""
        name = f"list_server-{self.random.randint(1, self.world.settings.list_servers)}"
        process = self.world.running[name].process
        process.pause()
        lease_us = self.world.settings.lease_ms * MS_US
        self.world.clock.run_until(self.world.clock.now_us + 4 * lease_us, lambda: not process.is_alive)
        if process.is_alive:
            self.problems.append(f"{name}, which hangs, still runs after four leases")
            process.die()
        self._run(SECOND_US)
        self._look_at_others("")

    def orphaned(self) -> None:
        """Law 9: with supervisord gone everything leaves by itself, and with the next one it all comes back."""
        world, clock = self.world, self.world.clock
        name = self._fresh_list()
        self._filled(name)
        starting, hanging = self.random.sample(sorted(world.running), 2)
        world.running[starting].process.die()  # its next life has been forked, and not yet asked to end with its parent
        world.running[hanging].process.pause()
        world.supervisord.die()
        self._run(SECOND_US)
        for orphan in world.orphans():
            self.problems.append(f"{orphan!r} stays though the supervisord that started it is gone")
        world.start_again()
        clock.run_until(clock.now_us + PATIENCE_US, lambda: not world.missing())
        for daemon in world.missing():
            why = world.refusals.get(daemon, "it does not start")
            self.problems.append(f"the next supervisord has no {daemon}: {why}")
        if not self.problems and len(self._good(operations.entries(name)) or ()) != 3:
            self.problems.append("a list is not as it was stored")
        self._look_at_others(name)

    # What must be true.

    def _look_at_others(self, name: str) -> None:
        """Ask a list beside, one of the same partition among them, and another of the same worker."""
        beside = [self._fresh_list() for _ in range(3)]
        if name:
            partition = partition_of(name.encode())
            beside.append(self._fresh_list(lambda other: partition_of(other.encode()) == partition))
        for other in beside:
            self._good(operations.add_entry(other, "beside"))
            if len(self._good(operations.entries(other)) or ()) != 1:
                self.problems.append(f"list {other!r} beside the one in trouble does not hold its entry")

    def _look_at_bounds(self, limit: int) -> None:
        for name, running in self.world.running.items():
            service = running.service
            if isinstance(service, RouterService) and len(service.in_flight.flights) > FLOOD_LIMIT + 100:
                self.problems.append(f"{name} has {len(service.in_flight.flights)} requests in flight")
            if isinstance(service, ListServerService):
                held = max(each.bytes for each in service.hosting.gates.values())
                if held > limit + 16 * 1024:
                    self.problems.append(f"{name} holds {held} bytes not committed where {limit} are the most")

    # Asking.

    def _filled(self, name: str) -> None:
        for title in ("a", "b", "c"):
            self._good(operations.add_entry(name, title))

    def _good(self, request: Request[Any], deadline_s: float = 8.0) -> Any:
        """Return the result of a request that must succeed."""
        request = self._ask(request, deadline_s)
        result, error = outcome_of(request)
        if error is not None:
            self.problems.append(f"{unpack(request.body)[0]} of {request.target!r} is answered with {error}")
        return result

    def _ask(self, request: Request[Any], deadline_s: float = 8.0) -> Request[Any]:
        finished = self._submit(request, deadline_s)
        self.world.clock.run_until(self.world.clock.now_us + PATIENCE_US, lambda: bool(finished))
        if not finished:
            self.problems.append("a client's session does not end its request")
            request.error = Unavailable("no end")
            return request
        return finished[0]

    def _submit(self, request: Request[Any], deadline_s: float) -> list[Request[Any]]:
        finished: list[Request[Any]] = []
        self.client.submit(request, deadline_s, finished.append)
        return finished

    def _worker_of(self, name: str) -> int:
        return worker_of(partition_of(name.encode()), len(self.world.disks))

    def _owner_of(self, name: str) -> Process:
        """Return the list server that the router sends a list's requests to."""
        router: Any = self.world.running["router"].service
        return self.world.running[f"list_server-{router.routing.table[partition_of(name.encode())].server}"].process

    def _fresh_list(self, fits: Callable[[str], bool] = lambda name: True) -> str:
        return next(name for number in self._lists if fits(name := f"trial {number}"))

    def _bad_request(self, name: str) -> Request[Any]:
        bad = self.random.choice([[""], ["t", "2026-13-01"], ["t", None, 5], [], ["t" * 10_001], "t"])
        items: list[Any] = [["good"], ["good too"], bad]
        return Request(LIST_CHANGE, name, pack(["add_entries", items]), lambda value: value)

    # Strangers.

    def _stranger(self, kind: str, name: str) -> Socket:
        opened: list[Socket] = []
        network, address = self.world.network, self.world.settings.address(name)
        process = self.world.new_process("stranger")
        self.world.processes.run_as(
            process, lambda: opened.append(network.dealer(address)[0] if kind == DEALER else network.push(address))
        )
        self.world.clock.run_until(self.world.clock.now_us + SECOND_US, lambda: opened[0].connection is not None)
        return opened[0]

    def _send(self, stranger: Socket, frames: list[bytes]) -> None:
        self.world.processes.run_as(stranger.process, lambda: _unheeded(self.world.network.send(stranger, frames)))
        self._run(MS_US)

    def _replies(self, stranger: Socket) -> list[Any]:
        replies = []
        while (frames := self.world.network.receive(stranger)) is not None:
            replies += messages.read_replies(messages.read(frames[-1])[1])
        return replies

    def _errors(self, stranger: Socket) -> list[TodoMQError]:
        return [messages.read_error(value) for _, status, value in self._replies(stranger) if status == messages.ERROR]

    def _run(self, us: int) -> None:
        self.world.clock.run_until(self.world.clock.now_us + us)


def _unheeded(result: object) -> None:
    """Whether a stranger's message was taken is not looked at."""
