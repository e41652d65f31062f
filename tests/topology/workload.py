"""What clients ask in a run, and the record of it.

Owns: seeded choices of lists and operations, tries again where the outcome is unknown, the history for the checker.
Must not know: faults. Every title is unique; every operation is one record however often it is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from checking.history import Entry, Operation
from todomq.client import operations
from todomq.client.request import Request
from todomq.client.values import Via
from todomq.errors import UNKNOWN, EntryNotFound, ProtocolError
from todomq.protocol import messages
from topology.client import Client, outcome_of
from topology.clock import MS_US
from topology.world import World

SHARED = ["shared", "other/../shared", "Bob's list"]
DEADLINE_SLACK_MS = 2
AGAIN_MOST = 3
AGAIN = 0.8
"""How likely an operation whose outcome is unknown is tried again under its number."""

# Kind, weight.
KINDS = (
    ("add", 40), ("add_all", 6), ("update", 10), ("delete", 10), ("clear", 2), ("drop", 2), ("entries", 12),
    ("size", 8), ("cast", 8), ("server", 2), ("store", 6), ("get", 4), ("names", 1), ("kill", 1),
)  # fmt: skip


class Told:
    """What a client was told of one key, which it alone writes: the values that may be there.

    Stores of one client are not ordered, so one that was still open when another was sent may take effect behind it.
    """

    def __init__(self) -> None:
        self.possible: set[int | None] = {None}
        self._over_us: dict[int | None, int] = {None: 0}

    def asked(self, value: int) -> None:
        """A store of this value is on its way."""
        self.possible.add(value)

    def stored(self, value: int, sent_us: int, now_us: int) -> None:
        """It was acknowledged: what could take effect no more when it was sent is not there."""
        self._over_us[value] = now_us
        self.possible = {each for each in self.possible if self._over_us.get(each, now_us) >= sent_us} | {value}

    def gave_up(self, value: int, deadline_us: int) -> None:
        """It may have taken effect, or may until its deadline."""
        self._over_us[value] = deadline_us

    def refused(self, value: int) -> None:
        """It never takes effect."""
        self.possible.discard(value)


class Workload:
    """All clients of one run."""

    def __init__(self, world: World, clients: int, until_us: int, pipelining: float) -> None:
        self.history: list[Operation] = []
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.asked = 0
        self._world = world
        self._random = world.stream("workload")
        self._until_us = until_us
        self._pipelining = pipelining
        self._titles = 0
        self._twice: set[tuple[str, int]] = set()
        self.clients = [Asker(self, world, f"client-{n}") for n in range(clients)]

    def title(self) -> str:
        """Return a title that nobody had."""
        self._titles += 1
        return f"t{self._titles}"

    def came_twice(self, client: str, request: Request[Any]) -> bool:
        """Tell whether the network has brought a request twice: of the two one may be refused and the other taken."""
        doubled = self._world.network.doubled
        while doubled:
            name, frames = doubled.pop()
            _, fields = messages.read(frames[-1])
            self._twice.update((name, identifier) for identifier, *_ in messages.read_call(fields)[1])
        return (client, request.id) in self._twice

    def is_over(self) -> bool:
        """Whether nothing more is asked and everything is answered."""
        return self._world.clock.now_us >= self._until_us and all(not client.open for client in self.clients)

    def go_on(self, client: Asker) -> None:
        """Ask something, and again after a while."""
        world, random = self._world, self._random
        if world.clock.now_us >= self._until_us:
            return
        count = random.randint(2, 12) if random.random() < self._pipelining else 1
        for _ in range(count):
            kind = random.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
            client.ask(kind, random.choice([*SHARED, client.name, f"{client.name} other"]))
        world.clock.after(random.randint(1 * MS_US, 250 * MS_US), lambda: self.go_on(client))


class Asker:
    """One client of the workload."""

    def __init__(self, workload: Workload, world: World, name: str) -> None:
        self.name = name
        self.open = 0
        self.client = Client(world, name)
        self.keys: dict[str, Told] = {}
        self._workload = workload
        self._world = world
        self._random = world.stream(f"{name} asks")
        self._sequences: Counter[str] = Counter()
        self._ids: dict[str, list[int]] = {}
        self._values = 0

    def ask(self, kind: str, list_name: str) -> None:
        """Ask one thing."""
        random = self._random
        deadline_s = random.choice((0.3, 1.0, 4.0, 4.0))
        match kind:
            case "add":
                title = self._workload.title()
                self._list(kind, list_name, (title,), operations.add_entry(list_name, title), deadline_s)
            case "add_all":
                titles = tuple(self._workload.title() for _ in range(random.randint(1, 4)))
                request: Request[Any] = operations.add_entries(list_name, titles)
                self._list(kind, list_name, titles, request, deadline_s, spread=False)
            case "cast":
                title = self._workload.title()
                request = operations.cast_add_entry(list_name, title)
                self._list("add", list_name, (title,), request, deadline_s)
            case "update":
                identifier, title = self._some_id(list_name), self._workload.title()
                request = operations.update_entry(list_name, identifier, title=title)
                self._list(kind, list_name, (identifier, {"title": title}), request, deadline_s)
            case "delete":
                identifier = self._some_id(list_name)
                self._list(kind, list_name, (identifier,), operations.delete_entry(list_name, identifier), deadline_s)
            case "clear":
                self._list(kind, list_name, (), operations.clear(list_name), deadline_s)
            case "drop":
                self._list(kind, list_name, (), operations.delete(list_name), deadline_s)
            case "entries":
                self._list(kind, list_name, (), operations.entries(list_name), deadline_s)
            case "size":
                self._list(kind, list_name, (), operations.size(list_name), deadline_s)
            case "server":
                self._plain(operations.server_process(list_name, str), deadline_s)
            case "names":
                self._plain(operations.list_names(), deadline_s)
            case "kill":
                self._plain(operations.call(Via(["cache"]), "kill_list", list_name), deadline_s)
            case "store":
                self._store(f"{self.name} {random.randint(1, 3)}", deadline_s)
            case "get":
                self._get(f"{self.name} {random.randint(1, 3)}", deadline_s)

    def read_all(self, list_name: str, deadline_s: float, read: Callable[[bool], None]) -> None:
        """Read a list, record it, and tell whether it was answered."""
        self._list("entries", list_name, (), operations.entries(list_name), deadline_s, read=read)

    def get_all(self, keys: dict[str, Told], deadline_s: float) -> None:
        """Read keys that nobody writes any more."""
        for key, told in keys.items():
            self._submit(operations.get(key), deadline_s, partial(self._judge, key, told))

    # Lists.

    def _list(
        self,
        kind: Any,
        list_name: str,
        arguments: tuple[Any, ...],
        request: Request[Any],
        deadline_s: float,
        *,
        spread: bool = True,
        read: Callable[[bool], None] | None = None,
    ) -> None:
        self._sequences[list_name] += 1
        sequence = self._sequences[list_name]
        start = self._now_ns()
        if not spread:
            arguments = (arguments,)
        attempts = 0
        deadline_ns = 0
        before = self._disturbances()

        def finished(request: Request[Any]) -> None:
            nonlocal attempts, deadline_ns
            attempts += 1
            deadline_ns = max(deadline_ns, self._deadline_ns(request))
            result, error = outcome_of(request)
            is_unknown = error is not None and error.outcome == UNKNOWN
            if is_unknown and attempts <= AGAIN_MOST and self._random.random() < AGAIN:
                self._submit(request.repeated(), deadline_s, finished)
                return
            resent = bool(request.is_exposed or request.attempts or before != self._disturbances())
            # Tried again it was sent behind others, tried first before them: it keeps no order with its client's.
            name = self.name if attempts == 1 else f"{self.name} again {sequence}"
            operation = Operation(
                name, list_name, sequence, kind, arguments, start, self._now_ns(), "ok",
                deadline=deadline_ns, resent=resent and kind in ("entries", "size"),
            )  # fmt: skip
            if request.is_cast:
                operation = operation._replace(outcome="cast" if error is None else "failed")
            elif isinstance(error, EntryNotFound):
                pass
            elif error is not None:
                is_unknown = is_unknown or self._workload.came_twice(self.name, request)
                operation = operation._replace(outcome="unknown" if is_unknown else "failed")
            else:
                operation = operation._replace(result=_shown(kind, result))
                self._learn(list_name, kind, operation.result)
            if isinstance(error, ProtocolError):
                self._workload.problems.append(f"a client that keeps to the protocol is told {error}: {operation}")
            self._workload.history.append(operation)
            outcome = f"{operation.outcome}{'' if error is None else ' ' + error.code + ': ' + error.text}"
            self._world.trace(f"{list_name!r}: {operation} {outcome}")
            self._workload.counts[operation.outcome] += 1
            if read is not None:
                read(error is None)

        self._world.trace(f"{self.name} asks #{sequence} {kind} {list_name!r} {arguments}")
        self._submit(request, deadline_s, finished)

    def _some_id(self, list_name: str) -> int:
        ids = self._ids.get(list_name)
        if ids and self._random.random() < 0.8:
            return self._random.choice(ids)
        return self._random.randint(1, 12)

    def _learn(self, list_name: str, kind: str, result: Any) -> None:
        ids = self._ids.setdefault(list_name, [])
        if kind == "add":
            ids.append(result)
        elif kind == "add_all":
            ids.extend(result)
        elif kind in ("clear", "drop"):
            ids.clear()

    # Others.

    def _plain(self, request: Request[Any], deadline_s: float) -> None:
        self._submit(request, deadline_s, lambda request: self._workload.counts.update(["other"]))

    def _store(self, key: str, deadline_s: float) -> None:
        self._values += 1
        value, told = self._values, self.keys.setdefault(key, Told())

        sent_us = self._world.clock.now_us

        def finished(request: Request[Any]) -> None:
            _, error = outcome_of(request)
            if error is None:
                told.stored(value, sent_us, self._world.clock.now_us)
            elif error.outcome != UNKNOWN and not self._workload.came_twice(self.name, request):
                told.refused(value)
            elif error.outcome == UNKNOWN and self._random.random() < AGAIN:
                self._submit(request.repeated(), deadline_s, finished)
            else:
                told.gave_up(value, self._deadline_ns(request) // 1_000)

        told.asked(value)
        self._submit(operations.store(key, value), deadline_s, finished)

    def _get(self, key: str, deadline_s: float) -> None:
        self._submit(operations.get(key), deadline_s, lambda request: None)

    def _judge(self, key: str, told: Told, request: Request[Any]) -> None:
        value, error = outcome_of(request)
        if error is not None:
            self._workload.problems.append(f"key {key!r} is not answered after healing: {error}")
        elif value not in told.possible:
            self._workload.problems.append(f"key {key!r} holds {value} where {sorted(told.possible, key=str)} may be")

    def _submit(self, request: Request[Any], deadline_s: float, finished: Callable[[Request[Any]], None]) -> None:
        self.open += 1
        self._workload.asked += 1

        def closed(request: Request[Any]) -> None:
            self.open -= 1
            finished(request)

        self.client.submit(request, deadline_s, closed)

    def _now_ns(self) -> int:
        return self._world.clock.now_us * 1_000

    def _deadline_ns(self, request: Request[Any]) -> int:
        left_ms = request.deadline_ms - self.client.now_ms() + DEADLINE_SLACK_MS
        return self._now_ns() + left_ms * 1_000_000

    def _disturbances(self) -> Any:
        """Return what changes whenever the router may have sent a request a second time."""
        router = self._world.running.get("router")
        return None if router is None else (router.process.pid, router.service.stats()["sent_again"])


def _shown(kind: str, result: Any) -> Any:
    match kind:
        case "add":
            return result.id
        case "add_all":
            return tuple(entry.id for entry in result)
        case "update":
            return _entry(result)
        case "entries":
            return tuple(map(_entry, result))
    return result


def _entry(entry: Any) -> Entry:
    return Entry(entry.id, entry.title, entry.done, None if entry.date is None else entry.date.isoformat())
