"""How much work a request is, in counts that noise can't disturb: messages, batches, commits, syncs. Never times.

Batches are the protocol: a thousand requests in flight travel in few messages at every hop. A hop that sends a message
for each request, or a commit for each change, costs most of the throughput and changes no answer; it shows here.
(Frames follow from messages: any other number of frames is refused, and counted as malformed.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stacks import RunningStack, wait_until

from todomq import Client
from todomq.protocol.messages import FIRST_EPOCH
from todomq.protocol.partitions import partition_of

LISTS = 200
REQUESTS = 5_000
SINGLE_REQUESTS = 100
PIPELINED_MOST = 100.0
"""Per thousand requests in flight; a hop that has lost its batches is at a thousand, or above it."""

BACKGROUND_MOST = 5.0
"""Per thousand reads: a list server now and then sweeps what was deleted before, which a read never waits for."""

Stats = dict[str, dict[str, Any]]


class Counts(dict[str, float]):
    """What was counted, per thousand requests."""

    def __init__(self, before: Stats, after: Stats, requests: int) -> None:
        def grown(part: str, count: str) -> float:
            names = [name for name in after if name.startswith(part)]
            grown_by = sum(after[name].get(count, 0) - before[name].get(count, 0) for name in names)
            return float(grown_by * 1000 / requests)

        super().__init__(
            {
                "messages client -> router": grown("router", "messages"),
                "messages router -> list servers": grown("list_server", "messages"),
                "batches list servers -> workers": grown("database_worker", "batches"),
                "commits": grown("database_worker", "commits"),
                "syncs": grown("database_worker", "syncs"),
                "messages list servers -> router": grown("list_server", "messages_sent"),
                "messages router -> client": grown("router", "messages_sent"),
                "malformed": sum(grown(part, "malformed") for part in ("router", "list_server", "database_worker")),
            }
        )

    def above(self, most: float) -> dict[str, float]:
        """Return the counts that are too high."""
        return {name: count for name, count in self.items() if count > most}


@pytest.fixture(scope="module")
def todo(shared_stack: RunningStack) -> Iterator[Client]:
    """Return a client, with every list loaded that is used here."""
    with Client(shared_stack.endpoint, deadline_s=30.0) as client:
        with client.pipeline() as pipeline:
            for number in range(LISTS):
                pipeline.todo_list(f"counts {number}").add_entry("first")
        yield client


def counted(stack: RunningStack, requests: int, load: Callable[[], None]) -> Counts:
    """Run a load of so many requests and return the counts of it."""
    before = settled_stats(stack)
    load()
    counts = Counts(before, settled_stats(stack), requests)
    print("per thousand requests:", {name: round(count, 1) for name, count in counts.items()})
    return counts


def settled_stats(stack: RunningStack) -> Stats:
    """Return the stats of every daemon that requests go through, once nothing waits in any of them."""
    names = [name for name in stack.daemons if name.startswith(("router", "list_server", "database_worker"))]

    def settled() -> Stats | None:
        stats = {name: stack.ask(name, "stats") for name in names}
        return None if any(each.get("waiting") or each.get("uncommitted_batches") for each in stats.values()) else stats

    return wait_until(settled, 10.0, "every daemon is at rest") or {}


def test_a_thousand_adds_in_flight_are_few_messages_batches_and_syncs(shared_stack: RunningStack, todo: Client) -> None:
    def load() -> None:
        with todo.pipeline() as pipeline:
            for number in range(REQUESTS):
                pipeline.todo_list(f"counts {number % LISTS}").add_entry("dentist")

    counts = counted(shared_stack, REQUESTS, load)
    assert counts.above(PIPELINED_MOST) == {}
    assert 0 < counts["syncs"] <= counts["commits"]
    assert counts["malformed"] == 0


def test_lists_of_a_new_stack_are_not_looked_for_before_they_are_made(shared_stack: RunningStack) -> None:
    servers = [name for name in shared_stack.daemons if name.startswith("list_server")]

    def loads() -> int:
        return sum(shared_stack.ask(name, "stats")["loads"] for name in servers)

    owned = {partition: epoch for name in servers for partition, epoch, _ in shared_stack.ask(name, "owned")}
    names = [f"new {number}" for number in range(LISTS)]
    later = [name for name in names if owned[partition_of(name.encode())] > FIRST_EPOCH]
    before = loads()
    with Client(shared_stack.endpoint) as todo, todo.pipeline() as pipeline:
        for name in names:
            pipeline.todo_list(name).add_entry("milk")
    assert loads() - before == len(later)
    assert len(later) < LISTS / 2, "most partitions of a new stack have their first owner"


def test_a_thousand_reads_in_flight_are_few_messages_without_a_commit(shared_stack: RunningStack, todo: Client) -> None:
    def load() -> None:
        with todo.pipeline() as pipeline:
            for number in range(REQUESTS):
                pipeline.todo_list(f"counts {number % LISTS}").size()

    counts = counted(shared_stack, REQUESTS, load)
    assert counts.above(PIPELINED_MOST) == {}
    assert counts["batches list servers -> workers"] <= BACKGROUND_MOST
    assert counts["syncs"] <= counts["commits"] <= BACKGROUND_MOST


def test_an_add_alone_is_one_message_at_each_hop_one_commit_and_one_sync(
    shared_stack: RunningStack, todo: Client
) -> None:
    """The counters count: what has lost its batches looks like this."""

    def load() -> None:
        for number in range(SINGLE_REQUESTS):
            todo.todo_list(f"counts {number % LISTS}").add_entry("dentist")

    counts = counted(shared_stack, SINGLE_REQUESTS, load)
    assert counts.pop("malformed") == 0
    assert min(counts.values()) >= 1_000
    assert counts.above(1_500) == {}
