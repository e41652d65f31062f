"""Law 3 at its edge: a change is recognised for as long as is promised, and its sender does not rely on more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from todomq.client import operations
from todomq.client.request import Request
from todomq.client.session import REPEATABLE_MS
from todomq.database_worker.shard import MARK_KEPT_MS
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.settings import Settings
from topology.client import Client, outcome_of
from topology.clock import MS_US, SECOND_US
from topology.network import Socket
from topology.substitutes import in_world
from topology.world import World

SENDER = b"who repeats"


def result_of(world: World, client: Client, request: Request[Any]) -> Any:
    finished = list[Request[Any]]()
    client.submit(request, 8.0, finished.append)
    assert world.clock.run_until(world.clock.now_us + 10 * SECOND_US, lambda: bool(finished))
    value, error = outcome_of(finished[0])
    assert error is None
    return value


def test_law_3_a_change_that_comes_again_just_before_it_may_be_forgotten_takes_effect_once() -> None:
    home = Path("/sim")
    world = World(1, Settings(home, Settings(home, "").address("router"), list_servers=1, database_workers=1))
    requests: list[list[Any]] = [
        *([n, pack("key"), 0, messages.body("store", "key", n), n, 1] for n in (1, 2)),
        *([n + 2, "a list", 0, messages.body("add_entry", f"title {n}"), n, n] for n in (1, 2)),
    ]
    with in_world(world):
        world.start_all()
        world.clock.run_until(world.clock.now_us + 2 * SECOND_US)
        process, opened = world.new_process("stranger"), list[Socket]()
        address = world.settings.address("router")
        world.processes.run_as(process, lambda: opened.append(world.network.dealer(address)[0]))
        world.clock.run_until(world.clock.now_us + SECOND_US, lambda: opened[0].connection is not None)

        def send(each: list[Any]) -> None:
            def act() -> None:
                world.network.send(opened[0], [b"", messages.call(SENDER, [each])])

            world.processes.run_as(process, act)

        since_us = world.clock.now_us
        for each in requests:
            send(each)
            world.clock.run_until(world.clock.now_us + 100 * MS_US)
        world.clock.run_until(since_us + limits.REMEMBERED_MS * MS_US - 20 * MS_US)
        for each in (requests[0], requests[2]):
            send(each)
        world.clock.run_until(world.clock.now_us + SECOND_US)
        client = Client(world, "client")
        assert result_of(world, client, operations.get("key")) == 2
        entries = result_of(world, client, operations.entries("a list"))
        assert [entry.title for entry in entries] == ["title 1", "title 2"]


def test_nobody_repeats_what_may_be_forgotten_by_the_time_it_arrives() -> None:
    assert REPEATABLE_MS + limits.DEADLINE_AHEAD_MS < limits.REMEMBERED_MS < MARK_KEPT_MS
