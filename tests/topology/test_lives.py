"""Law 2 between two lives of a list server: what one was asked for, the next one does not do in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from todomq.client import operations
from todomq.client.request import Request
from todomq.client.values import Via
from todomq.errors import Unavailable
from todomq.settings import Settings
from topology.client import Client
from topology.clock import SECOND_US
from topology.substitutes import in_world
from topology.world import World


@pytest.mark.parametrize("asked", [["own", 0, 1_000, 0], ["release", 0, 1], ["owned"]])
def test_a_list_server_refuses_what_another_life_of_it_was_asked(asked: list[Any]) -> None:
    home = Path("/sim")
    world = World(1, Settings(home, Settings(home, "").address("router"), list_servers=1, database_workers=1))
    with in_world(world):
        world.start_all()
        world.clock.run_until(world.clock.now_us + 2 * SECOND_US)
        partitions = world.running["list_server-1"].service.stats()["partitions"]
        client, finished = Client(world, "client"), list[Request[Any]]()
        request = operations.call(Via(["list_server", 1]), *asked, b"another life")
        client.submit(request, 5.0, finished.append)
        assert world.clock.run_until(world.clock.now_us + 10 * SECOND_US, lambda: bool(finished))
        assert type(finished[0].error) is Unavailable
        assert world.running["list_server-1"].service.stats()["partitions"] == partitions == 256
