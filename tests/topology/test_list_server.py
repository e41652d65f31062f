"""A list server in a simulated stack: a worker that is away, refuses, or is none at all; a clock that is set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from traceback import walk_tb
from typing import Any

import pytest

from memory_storage import MemoryStorage
from todomq.client import operations
from todomq.client.request import Request
from todomq.client.values import Via
from todomq.daemons import socket_name
from todomq.database_worker.records import read_epochs
from todomq.database_worker.storage import Page, StorageFailed
from todomq.errors import NOT_APPLIED, CorruptRecord, Overloaded, Unavailable
from todomq.list_server import housekeeping, list_calls, reading, records, worker_link
from todomq.list_server.service import ListServerService
from todomq.protocol import messages
from todomq.protocol.codec import pack
from todomq.protocol.partitions import partition_of
from todomq.router.service import RouterService
from todomq.runtime.callee import Answer
from todomq.runtime.calls import Call
from todomq.runtime.pipes import Push
from todomq.settings import Settings
from topology.client import Client, outcome_of
from topology.clock import SECOND_US
from topology.network import Socket
from topology.substitutes import in_world
from topology.world import World

LIST_SERVER = "list_server-1"
LIST_SERVER_NAME = ["list_server", 1]
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


def start_without_worker(world: World) -> None:
    for name in world.settings.daemon_names():
        if name != WORKER:
            world.start(name)


def service_of(world: World, name: str = LIST_SERVER) -> ListServerService:
    service = world.running[name].service
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
    return result(finished[0])


def result(request: Request[Any]) -> Any:
    value, error = outcome_of(request)
    if error is not None:
        raise error
    return value


def test_law_7_a_worker_s_name_registered_at_no_address_ends_no_list_server_and_is_taken_as_away(world: World) -> None:
    start_without_worker(world)
    client = Client(world, "client")
    register = operations.call(Via(["registry"]), "register_name", WORKER, "nonsense", client.process.pid, b"", 0)
    assert answered(world, client, register) is True
    world.clock.run_until(world.clock.now_us + SECOND_US)
    assert world.missing() == [socket_name(WORKER)]
    assert world.restarts == 0
    client.process.die()
    world.start(WORKER)
    run_until_owned(world)


# -- a worker that is away or refuses ----------------------------------------------------------------------------------


def claims_of(world: World) -> list[tuple[int, int]]:
    """Note every claim that the worker is asked for, from now on."""
    claims: list[tuple[int, int]] = []
    operations_of = world.running[socket_name(WORKER)].service.operations
    claim = operations_of["claim"]

    def noted(call: Call) -> Any:
        claims.append((call.arguments[0], call.arguments[1]))
        return claim(call)

    operations_of["claim"] = noted
    return claims


def test_law_6_a_worker_that_refuses_claims_is_asked_no_more_often_the_longer_it_does(world: World) -> None:
    world.disks[1].open_failures = 1 << 30
    world.start_all()
    world.clock.run_until(world.clock.now_us + 2 * SECOND_US)
    claims = claims_of(world)
    for _ in range(4):  # the cache asks anew every five seconds
        claims.clear()
        world.clock.run_until(world.clock.now_us + 4 * SECOND_US)
        assert 0 < len(claims) < 256 * 4 * 10
    world.disks[1].heal()
    run_until_owned(world)


def test_law_6_claims_that_nobody_waits_for_any_more_are_not_made_when_a_worker_is_back(world: World) -> None:
    start_without_worker(world)
    world.clock.run_until(world.clock.now_us + 32 * SECOND_US)
    world.start(WORKER)
    world.clock.run_until(world.clock.now_us + BOUND_US, lambda: socket_name(WORKER) in world.running)
    claims = claims_of(world)
    run_until_owned(world)
    assert len(claims) < 3 * 256  # some are made twice: storage is opened meanwhile


def test_law_6_what_is_asked_of_a_worker_that_is_away_fails_in_time(world: World) -> None:
    start_without_worker(world)
    world.clock.run_until(world.clock.now_us + SECOND_US)
    (link,) = service_of(world)._links.values()
    answers: list[Answer] = []
    world.running[LIST_SERVER].process.run(
        lambda: link.call("read", None, None, None, 1, done=answers.append, timeout_s=1.0)
    )
    assert world.clock.run_until(world.clock.now_us + 2 * SECOND_US, lambda: bool(answers))
    assert isinstance(answers[0].error, Unavailable)


def test_law_6_what_waits_for_a_worker_that_is_away_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "WAITING_CALLS", 10)
    start_without_worker(world)
    world.clock.run_until(world.clock.now_us + SECOND_US)
    answers: list[Answer] = []
    (link,) = service_of(world)._links.values()
    world.running[LIST_SERVER].process.run(lambda: link.call("read", done=answers.append))
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: bool(answers))
    assert isinstance(answers[0].error, Overloaded)
    world.start(WORKER)
    run_until_owned(world)


def test_a_list_is_loaded_when_its_worker_is_back_however_long_it_was_away(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client = Client(world, "client")
    added, sizes = list[Request[Any]](), list[Request[Any]]()
    client.submit(operations.add_entry("a", "milk"), 0.5, added.append)
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: bool(added))
    partition = service_of(world).hosting.partitions[partition_of(b"a")]
    assert partition is not None
    partition.drop(partition.actors["a"])
    world.disks[1].stalled_us = 90 * SECOND_US
    client.submit(operations.size("a"), 0.5, sizes.append)
    world.clock.run_until(world.clock.now_us + 60 * SECOND_US)
    assert sizes[0].error is not None
    world.disks[1].stalled_us = 0
    client.submit(operations.size("a"), 60.0, sizes.append)
    assert world.clock.run_until(world.clock.now_us + 99 * SECOND_US, lambda: len(sizes) == 2)
    assert result(sizes[1]) == 1


def test_a_list_of_which_somebody_asks_where_it_is_served_is_not_idle(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client, housekeeping = Client(world, "client"), service_of(world).hosting.housekeeping
    assert answered(world, client, operations.size("a")) == 0
    where_is = operations.call(Via(["cache"]), "server_process", "a")
    first = answered(world, client, where_is)
    for _ in range(5):
        world.clock.run_until(world.clock.now_us + housekeeping._idle_ms * 1_000 * 3 // 4)
        assert answered(world, client, operations.call(Via(["cache"]), "server_process", "a")) == first


@pytest.mark.parametrize("waiting_activations", [0, 10, 10_000])
def test_law_6_a_worker_that_is_away_leaves_no_list_in_memory_for_which_nobody_waits(
    world: World, monkeypatch: pytest.MonkeyPatch, waiting_activations: int
) -> None:
    """Whether somebody asks something of it (with 0 here), or where its actor is."""
    monkeypatch.setattr(list_calls, "WAITING_ACTIVATIONS", waiting_activations)
    monkeypatch.setattr(reading, "FORGET_AT", 16)
    world.start_all()
    run_until_owned(world)
    client, service = Client(world, "client"), service_of(world)
    (pages,) = service._readings.values()
    for name in ("kept", "a"):
        assert answered(world, client, operations.add_entry(name, "milk")).id == 1
    world.disks[1].stalled_us = 90 * SECOND_US
    for partition in service.hosting.partitions:
        if partition is not None:
            partition.must_look_for_all()
    under_way = reading.CALLS_UNDER_WAY * reading.PAGES_PER_CALL
    sizes = list[Request[Any]]()
    for number in range(2_000):
        where_is = operations.call(Via(["cache"]), "server_process", f"new {number}")
        client.submit(where_is if waiting_activations else operations.size(f"new {number}"), 0.5, sizes.append)
        if number % 100 == 99:
            world.clock.run_until(world.clock.now_us + SECOND_US)
    assert len(sizes) == 2_000 and all(each.error is not None for each in sizes)
    assert service.hosting.lists <= 2 + under_way and len(pages._waiting) <= 3 * 100
    world.disks[1].stalled_us = 0
    world.clock.run_until(world.clock.now_us + 99 * SECOND_US)
    assert answered(world, client, operations.size("a")) == 1 and answered(world, client, operations.size("new 0")) == 0


def test_law_5_lists_that_cannot_be_read_at_the_moment_hold_up_none_that_are_asked_for_with_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start_all()
    run_until_owned(world)
    client, hosting = Client(world, "client"), service_of(world).hosting
    held_up = [f"held up {number}" for number in range(2 * reading.CALLS_UNDER_WAY)]

    def drop(name: str) -> None:
        partition = hosting.partitions[partition_of(name.encode())]
        assert partition is not None and world.clock.run_until(
            world.clock.now_us + SECOND_US, lambda: partition.actors[name].is_at_rest
        )
        partition.drop(partition.actors[name])

    for name in (*held_up, "other"):
        assert answered(world, client, operations.add_entry(name, "milk")).id == 1
        drop(name)
    prefixes, scan = {records.prefix(name) for name in held_up}, MemoryStorage.scan

    def scanned(storage: MemoryStorage, prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
        if prefix in prefixes:
            raise StorageFailed("Permission denied", outcome=NOT_APPLIED)
        return scan(storage, prefix, after, limit_bytes)

    monkeypatch.setattr(MemoryStorage, "scan", scanned)
    sizes = list[Request[Any]]()
    for name in held_up:
        client.submit(operations.size(name), 30.0, sizes.append)
    for _ in range(5):
        assert answered(world, client, operations.size("other")) == 1
        drop("other")
        world.clock.run_until(world.clock.now_us + SECOND_US)
    assert sizes == []
    with pytest.raises(Unavailable, match="Permission denied"):
        answered(world, client, operations.size(held_up[0]))
    prefixes.clear()
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: len(sizes) == len(held_up))
    assert [result(request) for request in sizes] == [1] * len(held_up)


def test_law_6_whoever_asks_for_a_list_that_cannot_be_read_at_the_moment_hears_why(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client = Client(world, "client")
    answered(world, client, operations.add_entry("list", "before"))
    disk = world.disks[1]
    disk.failing.append("before")
    disk.is_out_of_reach = True
    with pytest.raises(Unavailable):  # the list is loaded again, which its worker can't do now
        answered(world, client, operations.add_entry("list", "lost"))
    for request in (operations.entries("list"), operations.add_entry("list", "refused")):
        with pytest.raises(Unavailable, match="out of reach") as refusal:
            answered(world, client, request)
        assert refusal.value.outcome == NOT_APPLIED
    disk.heal()
    assert answered(world, client, operations.add_entry("list", "behind")).id == 2
    assert [entry.title for entry in answered(world, client, operations.entries("list"))] == ["before", "behind"]


def close_shard(world: World, *, is_readable: bool = False) -> None:
    """Have a commit fail, and storage not be opened again, or for reading only."""
    disk = world.disks[1]
    disk.failing.append("before")
    disk.open_failures = 1 << 30
    disk.is_out_of_reach = not is_readable
    with pytest.raises(Unavailable):
        answered(world, Client(world, "stranger"), operations.store("key", "value"))


def restart(world: World, *names: str) -> None:
    """Kill daemons and wait until others have their names, and the router knows who owns all partitions."""
    before = [world.running[name].process for name in names]
    for process in before:
        process.die()

    def are_back() -> bool:
        return all(name in world.running and world.running[name].process not in before for name in names)

    assert world.clock.run_until(world.clock.now_us + BOUND_US, are_back)
    run_until_owned(world)
    router = world.running["router"].service
    assert isinstance(router, RouterService)
    routing = router.routing

    def is_routed() -> bool:
        epochs = [(partition, row.epoch) for partition, row in enumerate(routing.table) if row is not None]
        return not routing.moving and owns_all(world) and epochs == service_of(world).hosting.owned()

    assert world.clock.run_until(world.clock.now_us + BOUND_US, is_routed)


def check_refused(world: World, client: Client, deadline_s: float = 1.0) -> None:
    """Check that whoever asks for a list, or for all their names, hears what the worker says."""
    finished = list[Request[Any]]()
    for request in (
        operations.entries("list"), operations.add_entry("list", "refused"), operations.list_names(),
        operations.call(Via(["cache"]), "server_process", "list"),
        operations.call(Via(["cache"]), "describe_list", "list"),
    ):  # fmt: skip
        client.submit(request, deadline_s, finished.append)
    assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: len(finished) == 5)
    for request in finished:
        with pytest.raises(Unavailable, match="the storage") as refusal:
            result(request)
        assert refusal.value.outcome == NOT_APPLIED and refusal.value.retryable


@pytest.mark.parametrize(
    ("killed", "is_readable"), [([], False), ([], True), (["cache", "router"], False), (["database_worker-1"], False)]
)
def test_whoever_asks_for_a_list_that_cannot_be_claimed_at_the_moment_hears_why_until_it_can_be(
    world: World, killed: list[str], is_readable: bool
) -> None:
    world.start_all()
    run_until_owned(world)
    client = Client(world, "client")
    answered(world, client, operations.add_entry("list", "before"))
    restart(world, LIST_SERVER)
    close_shard(world, is_readable=is_readable)
    restart(world, LIST_SERVER, *killed)
    stored = dict(world.disks[1].records)
    check_refused(world, client)
    world.clock.run_until(world.clock.now_us + 28 * SECOND_US)
    for _ in range(20):  # while the first attempt to claim gives place to the next
        check_refused(world, client, 0.2)
    hosting, restarts = service_of(world).hosting, world.restarts
    assert world.disks[1].records == stored and not hosting.lists and not hosting.gates[1].batches
    world.disks[1].heal()
    world.clock.run_until(world.clock.now_us + 2 * SECOND_US)
    finished = list[Request[Any]]()
    client.submit(operations.add_entry("list", "behind"), 0.5, finished.append)
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: bool(finished))
    assert result(finished[0]).id == 2
    assert [entry.title for entry in answered(world, client, operations.entries("list"))] == ["before", "behind"]
    assert world.restarts == restarts
    assert dict(hosting.owned()) == read_epochs(MemoryStorage(world.disks[1].records))


def test_law_2_what_cannot_be_claimed_at_the_moment_changes_hands_and_is_claimed_by_its_last_owner() -> None:
    home = Path("/sim")
    world = World(1, Settings(home, Settings(home, "").address("router"), list_servers=2, database_workers=1))
    with in_world(world):
        world.start_all()
        servers = (LIST_SERVER, "list_server-2")

        def owned() -> dict[int, int]:
            living = [service_of(world, name) for name in servers if name in world.running]
            return dict(chain.from_iterable(service.hosting.owned() for service in living))

        assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: len(owned()) == 256)
        close_shard(world)
        for name in servers:  # while one is away, the other is asked to own what it had, then to release it
            for _ in range(3):
                world.running[name].process.die()
                world.clock.run_until(world.clock.now_us + SECOND_US)
        assert len(owned()) == 256
        world.disks[1].heal()
        assert world.clock.run_until(
            world.clock.now_us + 3 * SECOND_US, lambda: owned() == read_epochs(MemoryStorage(world.disks[1].records))
        )
        client = Client(world, "client")
        for n in range(20):
            assert answered(world, client, operations.add_entry(f"list {n}", "milk")).id == 1
        assert not any(service_of(world, name)._ownership._claims for name in servers)


def test_whoever_asks_where_a_list_is_or_for_all_names_hears_why_none_can_be_read(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client = Client(world, "client")
    answered(world, client, operations.add_entry("list", "before"))
    close_shard(world)
    answered(world, client, operations.call(Via(["cache"]), "kill_list", "list"))
    for request in (operations.call(Via(["cache"]), "server_process", "list"), operations.list_names()):
        with pytest.raises(Unavailable, match="out of reach"):
            answered(world, client, request)
    world.disks[1].heal()
    world.clock.run_until(world.clock.now_us + SECOND_US)
    assert answered(world, client, operations.call(Via(["cache"]), "server_process", "list"))[0] == LIST_SERVER_NAME


def test_whoever_wants_a_copy_of_a_shard_that_cannot_be_opened_hears_why_at_once(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    close_shard(world)
    finished = list[Request[Any]]()
    client = Client(world, "client")
    client.submit(operations.call(Via(WORKER), "checkpoint", "copy"), 60.0, finished.append)
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: bool(finished))
    with pytest.raises(Unavailable, match="out of reach") as refusal:
        result(finished[0])
    assert not refusal.value.retryable and refusal.value.outcome == NOT_APPLIED


def test_whoever_asks_for_a_list_whose_worker_dies_waits_for_the_next_one_and_is_not_refused(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client = Client(world, "client")
    answered(world, client, operations.add_entry("list", "milk"))
    answered(world, client, operations.call(Via(["cache"]), "kill_list", "list"))
    world.running[socket_name(WORKER)].process.die()
    finished = list[Request[Any]]()
    client.submit(operations.entries("list"), 5.0, finished.append)
    assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: bool(finished))
    assert [entry.title for entry in result(finished[0])] == ["milk"]
    assert not finished[0].attempts


def test_a_claim_that_takes_longer_than_the_cache_waits_is_granted_all_the_same(world: World) -> None:
    world.disks[1].syncs_stalled_us = 8 * SECOND_US
    world.start_all()
    run_until_owned(world)
    assert set(service_of(world).hosting.owned()) == {(partition, 1) for partition in range(256)}


def test_a_claim_that_is_asked_for_twice_is_made_once_and_both_who_asked_are_answered(world: World) -> None:
    start_without_worker(world)
    world.clock.run_until(world.clock.now_us + SECOND_US)
    clients = [Client(world, name) for name in ("first", "second")]
    finished = list[Request[Any]]()
    for client in clients:
        client.submit(operations.call(Via(["list_server", 1]), "own", 0, 1_000, 0), 5.0, finished.append)
    world.clock.run_until(world.clock.now_us + SECOND_US)
    assert finished == []
    world.start(WORKER)
    assert world.clock.run_until(world.clock.now_us + BOUND_US, lambda: len(finished) == 2)
    assert [result(request) for request in finished] == [[True, 1_000, 1_000]] * 2


def test_law_6_of_who_asks_for_the_server_of_a_list_that_cannot_be_read_nothing_is_kept(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client, lengths = Client(world, "client"), []
    answered(world, client, operations.add_entry("a", "milk"))
    world.disks[1].records[records.list_key("a")] = b"damaged"
    answered(world, client, operations.call(Via(["cache"]), "kill_list", "a"))
    for _ in range(3):
        with pytest.raises(CorruptRecord):
            answered(world, client, operations.call(Via(["cache"]), "server_process", "a"))
        partition = service_of(world).hosting.partitions[partition_of(b"a")]
        assert partition is not None
        error = partition.actors["a"].error
        assert error is not None
        lengths.append(len(list(walk_tb(error.__traceback__))))
    assert lengths[1] == lengths[2], "each time that an error is raised it keeps one frame more"


def test_law_6_a_release_that_nobody_waits_for_any_more_is_forgotten(world: World) -> None:
    world.start_all()
    run_until_owned(world)
    client, finished = Client(world, "client"), list[Request[Any]]()
    assert answered(world, client, operations.size("a")) == 0
    world.disks[1].syncs_stalled_us = 60 * SECOND_US
    client.submit(operations.add_entry("a", "milk"), 1.0, finished.append)
    number, service = partition_of(b"a"), service_of(world)
    partition = service.hosting.partitions[number]
    assert partition is not None
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: partition.uncommitted)
    release = operations.call(Via(["list_server", 1]), "release", number, partition.epoch)
    client.submit(release, 1.0, finished.append)
    assert world.clock.run_until(world.clock.now_us + SECOND_US, lambda: bool(service._ownership._releases))
    assert world.clock.run_until(world.clock.now_us + 2 * SECOND_US, lambda: not service._ownership._releases)
    assert service.hosting.partitions[number] is partition  # its writes are not on disk: it is not given away


# -- a worker with another shard ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [None, LIST_SERVER, "cache"])
def test_law_8_a_worker_with_another_shard_is_refused_by_whoever_remembers_and_the_right_one_serves_again(
    world: World, dies: str | None
) -> None:
    world.start_all()
    run_until_owned(world)
    client, disk = Client(world, "client"), world.disks[1]
    answered(world, client, operations.add_entry("a", "milk"))
    answered(world, client, operations.store("key", "value"))
    world.clock.run_until(world.clock.now_us + 2 * SECOND_US)
    right, disk.records = disk.records, {}
    world.running[socket_name(WORKER)].process.die()
    if dies is not None:
        world.running[dies].process.die()
    world.clock.run_until(world.clock.now_us + 5 * SECOND_US)
    for request in (
        operations.add_entry("a", "bread"), operations.size("a"), operations.add_entry("new", "x"),
        operations.list_names(""), operations.get("key"), operations.call(Via(WORKER), "check"),
    ):  # fmt: skip
        with pytest.raises(CorruptRecord, match="was granted under epoch"):
            answered(world, client, request)
    assert read_epochs(MemoryStorage(disk.records)) == {}, "it granted nothing"
    disk.records = right
    world.running[socket_name(WORKER)].process.die()
    run_until_owned(world)
    world.clock.run_until(world.clock.now_us + 3 * SECOND_US)
    assert answered(world, client, operations.size("a")) == 1
    assert answered(world, client, operations.get("key")) == "value"
    answered(world, client, operations.add_entry("a", "bread"))


# -- the wall clock is set ---------------------------------------------------------------------------------------------


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


def test_law_3_lists_and_workers_forget_nothing_when_the_clock_is_set_forward(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "ROUND_MS", 500)
    world.start_all()
    run_until_owned(world)
    client, key = Client(world, "client"), pack("key")
    dealers: list[Socket] = []
    process = world.new_process("who repeats")
    world.processes.run_as(process, lambda: dealers.append(world.network.dealer(world.settings.endpoint)[0]))
    adds = [[n, "a", 0, messages.body("add_entry", f"title {n}"), n, n] for n in (1, 2)]
    stores = [[10 + n, key, 0, messages.body("store", "key", n), n, n] for n in (1, 2)]

    def answers_to(*requests: list[Any]) -> list[Any]:
        def send() -> None:
            world.network.send(dealers[0], [b"", messages.call(b"who repeats", list(requests))])

        assert world.clock.run_until(
            world.clock.now_us + BOUND_US, lambda: dealers[0].connection is not None and dealers[0].has_room
        )
        world.processes.run_as(process, send)
        replies: list[Any] = []

        def are_all_there() -> bool:
            while (frames := world.network.receive(dealers[0])) is not None:
                replies.extend(messages.read_replies(messages.read(frames[-1])[1]))
            return len(replies) == len(requests)

        assert world.clock.run_until(world.clock.now_us + BOUND_US, are_all_there)
        return sorted(replies)

    for add, store in zip(adds, stores):
        assert [status for _, status, _ in answers_to(add, store)] == [messages.OK, messages.OK]
    world.clock.run_until(world.clock.now_us + SECOND_US)
    world.clock.set_by_us = HOUR_US
    world.clock.run_until(world.clock.now_us + 5 * SECOND_US)
    answers_to(adds[1], stores[0])
    assert answered(world, client, operations.size("a")) == 2
    assert answered(world, client, operations.get("key")) == 2
