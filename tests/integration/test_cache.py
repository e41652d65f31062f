"""The cache on real sockets, towards the router that it tells its table."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from todomq.cache.directory import Owner, Server
from todomq.cache.service import ASK_AGAIN_S, CacheService
from todomq.errors import Unauthorized
from todomq.protocol.codec import canonical
from todomq.protocol.partitions import PARTITIONS
from todomq.protocol.registration import Registration
from todomq.runtime.calls import Call, CallServer, Service
from todomq.runtime.daemon import Daemon
from todomq.settings import Settings

BOUND_S = 15.0


class Router(Service):
    """A router that refuses the table so many times, because it has not heard of this cache."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.told_s: list[float] = []
        self.tables: list[list[Any]] = []
        self._refusals = refusals
        self.operations["table"] = self._table

    def _table(self, call: Call) -> bool:
        self.told_s.append(time.monotonic())
        if len(self.told_s) <= self._refusals:
            raise Unauthorized("the router takes its table from the cache only")
        self.tables.append(call.arguments)
        return True


@pytest.fixture
def cache() -> Iterator[Daemon]:
    home = Path(tempfile.mkdtemp(prefix="tq"))
    daemon = Daemon(["cache"], Settings(home, ""), registers=False)
    yield daemon
    for source in [each for each in daemon.loop._descriptors if isinstance(each, zmq.Socket)]:
        daemon.loop.unwatch(source)
        if source.type == zmq.DEALER:
            source.disable_monitor()
        source.close(0)
    shutil.rmtree(home)


def test_a_router_that_refuses_the_table_is_told_all_of_it_again_and_again_but_not_at_full_speed(
    cache: Daemon,
) -> None:
    refusals = 5
    service, router = CacheService(cache), Router(refusals)
    server = CallServer(cache.loop, f"ipc://{cache.settings.run}/router", router)
    cache.loop.at_turn_end(server.flush)
    cache.begin(service)
    owner = Owner(Server(1, b"life", "ipc:///nowhere"), 7)
    service.directory.owners[:] = [owner] * PARTITIONS
    cache.registrations[canonical(["router"])] = Registration(["router"], server.address, None, b"router")
    give_up = time.monotonic() + BOUND_S
    while not router.tables:
        assert time.monotonic() < give_up
        cache.loop.turn(0.02)
    assert router.tables[0][1] == [[partition, 1, 7] for partition in range(PARTITIONS)]
    assert router.told_s[-1] - router.told_s[0] >= refusals * ASK_AGAIN_S
