"""A list server in a simulated stack: what becomes of it when a worker is away, refuses, or is none at all."""

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
from todomq.settings import Settings, socket_name
from topology.client import Client
from topology.clock import SECOND_US
from topology.substitutes import in_world
from topology.world import World

LIST_SERVER = "list_server-1"
WORKER: list[str | int] = ["database_worker", 1]
BOUND_US = 20 * SECOND_US


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
