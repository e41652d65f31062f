"""TodoMQ as a contender: which workload runs on which stack, and what is measured around it.

Owns: one small function for each workload. Must not know: peers, ratios. Everything goes through the public client or
the command line; stacks have their default settings, except where a workload is about one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks import client_loads
from benchmarks.figures import BYTES, CPU, FILES, Measurement, latency, rate
from benchmarks.loads import AtStart, Load, in_clients, nothing, one_at_a_time, run_together
from benchmarks.plan import DAY, DURABLE, IN_FLIGHT, TITLE, WORKLOADS, Plan
from benchmarks.stack import RunningStack, environment_of, running_stack
from todomq import Client, Via

NAME = "TodoMQ"
CLIENTS = (4, 16)
COLD_LISTS = 200
COLD_ENTRIES = 10
RECOVERY_LISTS = 64
KILLS = 3
COMMAND_S = 300.0

Measurements = Iterator[Measurement]


class TodoMQ:
    """The contender that all others are compared with."""

    name = NAME
    workloads = frozenset(WORKLOADS)

    def missing(self) -> str | None:
        return None

    def measure(self, plan: Plan) -> Measurements:
        for workloads, settings in STACKS:
            wanted = [work for name, work in workloads.items() if plan.wants(name)]
            if wanted:
                with running_stack(**settings) as stack:
                    for work in wanted:
                        yield from work(stack, plan)
        if plan.wants("scaling"):
            yield from _scaling(plan)


def _load(
    stack: RunningStack, prefix: str, plan: Plan, adds_of_ten: int, clients: int = 1, at_start: AtStart = nothing
) -> Load:
    in_flight = IN_FLIGHT // clients  # in all as many as from one
    arguments = [(stack.endpoint, f"{prefix} {n}", plan.seconds, adds_of_ten, in_flight) for n in range(clients)]
    return in_clients(client_loads.pipelined, arguments, at_start)


def _with_cpu(stack: RunningStack, workload: str, plan: Plan, adds_of_ten: int) -> Measurements:
    """Measure a load and what each process uses from its first request to its last answer."""
    before: dict[str, float] = {}
    load = _load(stack, workload, plan, adds_of_ten, at_start=lambda: before.update(stack.cpu_s()))
    after = stack.cpu_s()
    yield rate(workload, NAME, DURABLE, load.requests, load.seconds, load.waits_s)
    per_million = 1e6 / load.requests
    yield Measurement(f"CPU of {workload}", "client", "", load.cpu_s * per_million, CPU)
    for name, used_s in after.items():
        yield Measurement(f"CPU of {workload}", name, "", (used_s - before[name]) * per_million, CPU)


def _adds(stack: RunningStack, plan: Plan) -> Measurements:
    yield from _with_cpu(stack, "adds", plan, 10)


def _reads(stack: RunningStack, plan: Plan) -> Measurements:
    yield from _with_cpu(stack, "reads", plan, 0)


def _mixed(stack: RunningStack, plan: Plan) -> Measurements:
    load = _load(stack, "mixed", plan, 1)
    yield rate("mixed", NAME, DURABLE, load.requests, load.seconds, load.waits_s)


def _batches(stack: RunningStack, plan: Plan) -> Measurements:
    load = in_clients(client_loads.batches, [(stack.endpoint, plan.seconds)])
    yield rate("entries in batches", NAME, DURABLE, load.requests, load.seconds, load.waits_s)


def _single(stack: RunningStack, plan: Plan) -> Measurements:
    for workload, is_add in (("add alone", True), ("read alone", False)):
        load = in_clients(client_loads.single, [(stack.endpoint, plan.singles, is_add)])
        yield latency(workload, NAME, DURABLE, load.waits_s)


def _clients(stack: RunningStack, plan: Plan) -> Measurements:
    for clients in CLIENTS:
        for workload, adds_of_ten in (("adds", 10), ("reads", 0)):
            load = _load(stack, f"{clients} {workload}", plan, adds_of_ten, clients)
            name = f"{workload}, {clients} clients"
            yield rate(name, NAME, DURABLE, load.requests, load.seconds, load.waits_s)


def _long(stack: RunningStack, plan: Plan) -> Measurements:
    load = in_clients(client_loads.fill_long, [(stack.endpoint, plan.long_entries)])
    yield rate("adds to one growing list", NAME, DURABLE, load.requests, load.seconds)
    (short_s, long_s) = run_together(client_loads.add_to_long, [(stack.endpoint, plan.singles)])[0]
    yield latency("add to a list of 10", NAME, DURABLE, short_s)
    yield latency("add to the long list", NAME, DURABLE, long_s)
    waits_s: dict[int, list[float]] = run_together(client_loads.read_long, [(stack.endpoint, plan.singles // 10)])[0]
    for count, waits in waits_s.items():
        yield latency(f"entries(date) of {count}", NAME, DURABLE, waits)


def _cold(stack: RunningStack, plan: Plan) -> Measurements:
    names = [f"cold {number}" for number in range(COLD_LISTS)]
    with Client(stack.endpoint) as todo:
        with todo.pipeline() as pipeline:
            for name in names:
                pipeline.todo_list(name).add_entries([(TITLE, DAY)] * COLD_ENTRIES)
        for name in names:
            server = todo.call(Via(["cache"]), "whereis_list", name)[2]
            todo.call(Via(["list_server", server]), "kill_list", name)
        waits_s = one_at_a_time(lambda number: todo.todo_list(names[number]).entries(DAY), COLD_LISTS)
    yield latency("first read of a list of 10", NAME, DURABLE, waits_s)


def _import(stack: RunningStack, plan: Plan) -> Measurements:
    path = stack.home / "import.csv"
    path.write_text(f"{DAY.isoformat()},{TITLE}\n" * plan.long_entries)
    command = [sys.executable, "-m", "todomq.cli", "import", str(path), "imported"]
    began_s = time.perf_counter()
    subprocess.run(command, env=environment_of(stack.home), check=True, capture_output=True, timeout=COMMAND_S)
    yield rate("lines imported", NAME, DURABLE, plan.long_entries, time.perf_counter() - began_s)


def _create(stack: RunningStack, plan: Plan) -> Measurements:
    before = stack.resident_bytes()
    load = in_clients(client_loads.create, [(stack.endpoint, 0, plan.lists)])
    after = stack.resident_bytes()
    yield rate("create", NAME, "one entry, durable", load.requests, load.seconds, load.waits_s)
    grown = sum(after[name] - before[name] for name in after if name.startswith("list_server"))
    yield Measurement("bytes per loaded list", NAME, "one entry", grown / plan.lists, BYTES)


def _create_later(stack: RunningStack, plan: Plan) -> Measurements:
    for name in stack.names:
        if name.startswith("list_server"):
            stack.kill(name)
            stack.wait_until_back(name)
    load = in_clients(client_loads.create, [(stack.endpoint, 0, plan.lists)])
    yield rate("create, later owners", NAME, "one entry, durable", load.requests, load.seconds, load.waits_s)


def _lists(stack: RunningStack, plan: Plan) -> Measurements:
    created = plan.lists if plan.wants("create") else 0
    for lists in (1_000, plan.lists, plan.many_lists):
        if lists > created:
            in_clients(client_loads.create, [(stack.endpoint, created, lists - created)])
            created = lists
        for law in ("uniform", "Zipf") if lists else ():
            load = in_clients(client_loads.spread, [(stack.endpoint, lists, law == "Zipf", plan.seconds)])
            name = f"adds over {lists:,} lists, {law}"
            yield rate(name, NAME, DURABLE, load.requests, load.seconds, load.waits_s)
    if plan.many_lists:
        for name, held in stack.resident_bytes().items():
            yield Measurement(f"memory with {plan.many_lists:,} lists", name, "", held, BYTES)
        files = stack.files()
        yield Measurement(f"files with {plan.many_lists:,} lists", "count", "", files.number, FILES)
        yield Measurement(f"files with {plan.many_lists:,} lists", "size", "", files.size_bytes, BYTES)


def _recovery(stack: RunningStack, plan: Plan) -> Measurements:
    """Kill each daemon; the time until an add to each of 64 lists, sent at once by a new client, is answered."""
    client_loads.answers_after(stack.endpoint, RECOVERY_LISTS, 0.0)
    for name in stack.names:
        waits_s = []
        for _ in range(KILLS):
            began_s = time.perf_counter()
            stack.kill(name)
            waits_s.append(client_loads.answers_after(stack.endpoint, RECOVERY_LISTS, began_s))
            stack.wait_until_back(name)
        yield latency("answered again after kill -9", name, DURABLE, waits_s)


def _scaling(plan: Plan) -> Measurements:
    for name, settings in (
        ("2 list servers, 3 workers", {}),
        ("1 list server, 3 workers", {"TODOMQ_LIST_SERVERS": "1"}),
        ("2 list servers, 1 worker", {"TODOMQ_DATABASE_WORKERS": "1"}),
    ):
        with running_stack(**settings) as stack:
            load = _load(stack, "scaling", plan, 10)
        yield rate("adds by number of daemons", name, DURABLE, load.requests, load.seconds, load.waits_s)


Work = Callable[[RunningStack, Plan], Measurements]

# In one row: workloads that share a stack, in this order. Memory is measured on a fresh one.
STACKS: tuple[tuple[dict[str, Work], dict[str, str]], ...] = (
    ({"adds": _adds, "reads": _reads, "mixed": _mixed, "single": _single}, {}),
    ({"batches": _batches, "clients": _clients}, {}),
    ({"long": _long, "cold": _cold, "import": _import}, {}),
    ({"create": _create, "lists": _lists}, {}),
    ({"recovery": _recovery, "create later": _create_later}, {"TODOMQ_MAX_RESTARTS": "1000000"}),
)
