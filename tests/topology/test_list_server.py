"""A list server in a simulated stack: a worker that is away, refuses, or is none at all; a clock that is set back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from todomq.client import operations
from todomq.client.request import Request
from todomq.client.values import Via
from todomq.list_server.service import ListServerService
from todomq.protocol.codec import unpack
from todomq.runtime.pipes import Push
from todomq.settings import Settings, socket_name
from topology.client import Client
from topology.clock import SECOND_US
from topology.substitutes import in_world
from topology.world import World

LIST_SERVER = "list_server-1"
WORKER: list[str | int] = ["database_worker", 1]
BOUND_US = 20 * SECOND_US
HOUR_US = 3_600 * SECOND_US


@pytest.fixture
def world() -> Iterator[World]:
    """A stack of one list server and one worker, nothing of it started."""
    home = Path("/sim")
    world = World(1, Settings(home, Settings(home, "").address("router"), list_servers=1, database_workers=1))
    with in_world(world):
        yield world


def service_of(world: World) -> ListServerService:
    service = world.running[LIST_SERVER].service
    assert isinstance(service, ListServerService)
    return service


def owns_all(world: World) -> bool:
    return LIST_SERVER in world.running and len(service_of(world).hosting.owned()) == 256


def run_until_owned(world: World) -> None:
    assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: owns_all(world))


def answered(world: World, client: Client, request: Request[Any]) -> Any:
    finished = list[Request[Any]]()
    client.submit(request, 5.0, finished.append)
    assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: bool(finished))
    if finished[0].error is not None:
        raise finished[0].error
    assert finished[0].value is not None
    return finished[0].read(unpack(finished[0].value))


def test_law_7_a_worker_s_name_registered_at_no_address_ends_no_list_server_and_is_taken_as_away(world: World) -> None:
    for name in world.settings.daemon_names():
        if name != WORKER:
            world.start(name)
    client = Client(world, "client")
    register = operations.call(Via(["registry"]), "register_name", WORKER, "nonsense", client.process.pid, b"", 0)
    assert answered(world, client, register) is True
    world.clock.run_until(world.clock.now_us + SECOND_US)
    assert world.missing() == [socket_name(WORKER)]
    assert world.restarts == 0
    client.process.die()
    world.start(WORKER)
    run_until_owned(world)


# -- the wall clock is set back ----------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """Count from now on how often a method is called."""
    calls: list[int] = []
    method = getattr(owner, name)

    def called(*arguments: Any) -> Any:
        calls.append(1)
        return method(*arguments)

    monkeypatch.setattr(owner, name, called)
    return calls


def test_law_2_a_pause_is_seen_though_the_clock_was_set_back_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start_all()
    run_until_owned(world)
    doubts = counted(monkeypatch, service_of(world).hosting, "doubt_epochs")
    world.running[LIST_SERVER].process.pause()
    world.clock.run_until(world.clock.now_us + world.settings.lease_ms * 900)
    world.clock.set_by_us = -HOUR_US
    world.running[LIST_SERVER].process.resume()
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: bool(doubts))
    assert world.restarts == 0


def test_law_2_workers_are_asked_every_second_who_owns_what_though_the_clock_was_set_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start_all()
    run_until_owned(world)
    checks = counted(monkeypatch, service_of(world).hosting, "check_epochs")
    world.clock.set_by_us = -HOUR_US
    assert world.clock.run_until(world.clock.now_us + 3 * SECOND_US, lambda: len(checks) >= 2)


def test_a_batch_that_was_lost_is_sent_again_though_the_clock_was_set_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start_all()
    run_until_owned(world)
    hosting = service_of(world).hosting
    world.clock.run_until(world.clock.now_us + SECOND_US, lambda: not hosting.gates[1].batches)
    with monkeypatch.context() as lossy:
        lossy.setattr(Push, "send", lambda push, message: True)
        world.clock.run_until(world.clock.now_us + 2 * SECOND_US, lambda: bool(hosting.gates[1].batches))
    lost = max(hosting.gates[1].batches)
    world.clock.set_by_us = -HOUR_US
    assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: hosting.gates[1].committed >= lost)
