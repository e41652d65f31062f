"""Many actors in one list server: what one does is no other's business, and nothing acknowledged is ever lost.

Laws 1, 2, 3, 5 and 6; examples first, then any interleaving of changes, kills, drops, failed commits and new owners.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from copy import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from workbench import START_MS, Bench, Client, Disk

from todomq.errors import (
    NOT_APPLIED,
    UNKNOWN,
    CorruptRecord,
    DeadlineExceeded,
    EntryNotFound,
    OutOfOrder,
    Overloaded,
    ProtocolError,
    Unavailable,
)
from todomq.list_server import gate, operations, records
from todomq.list_server.actor import ListActor
from todomq.list_server.gate import Batch
from todomq.list_server.todo_list import TodoList
from todomq.list_server.weight import ENTRY_IN_MEMORY_BYTES, LIST_BYTES, SESSION_BYTES
from todomq.protocol import limits, messages
from todomq.protocol.messages import FIRST_EPOCH
from todomq.protocol.partitions import PARTITIONS, partition_of

HOUR_MS = 3_600_000
PARTITION = partition_of(b"a")
SAME_PARTITION = next(name for name in map(str, range(10_000)) if partition_of(name.encode()) == PARTITION)


def raises(*_: object) -> None:
    raise RuntimeError


def status(bench: Bench, identifier: int) -> int:
    return bench.replies[identifier].status


# -- loading, killing, dropping ----------------------------------------------------------------------------------------


def test_requests_that_come_while_a_list_loads_are_served_in_order_and_the_load_is_asked_for_once() -> None:
    bench = Bench()
    asked = [bench.send("a", "add_entry", "milk", number=number) for number in (1, 2, 3)]
    bench.turn()
    assert len(bench.reads) == 1
    bench.settle()
    assert [bench.answer(identifier) for identifier in asked] == [1, 2, 3]
    assert bench.hosting.loads == 1


def test_reads_past_what_a_turn_packs_of_long_answers_are_left_for_another() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entries", [[f"entry {n:08} {'x' * 90}"] for n in range(5_000)])
    bench.hosting.snapshots.begin_turn()
    epoch = bench.partition("a").epoch
    requests = [[n, "a", bench.now_ms + 1_000, messages.body("entries"), 1, 1, epoch] for n in range(9)]
    left = bench.hosting.take(b"router", b"reader", requests, bench.now_ms)
    assert 0 < len(left) < 9 and left == requests[9 - len(left) :]
    assert bench.hosting.take(b"router", b"another", requests[:1], bench.now_ms) == []
    bench.hosting.ready(bench.now_ms)
    assert len(bench.hosting.take(b"router", b"reader", left, bench.now_ms)) < len(left)


def test_a_list_that_loads_slowly_holds_up_no_other() -> None:
    bench = Bench()
    slow = bench.send("a", "size")
    bench.turn()
    held_back = bench.reads.popleft()
    assert bench.ask(SAME_PARTITION, "add_entry", "milk") == 1
    assert slow not in bench.replies
    bench.reads.append(held_back)
    bench.settle()
    assert bench.answer(slow) == 0


def test_a_killed_list_is_found_again_under_another_activation_with_the_same_entries_and_ids() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entries", [["milk"], ["bread"]])
    client.change(bench, "a", "delete_entry", 2)
    client.change(bench, "b", "add_entry", "other")
    first, other = bench.actor("a").activation, bench.actor("b").activation
    bench.hosting.kill(bench.actor("a"))
    assert "a" not in bench.partition("a").actors
    assert client.entries(bench, "a") == [[1, "milk", None, False, {}]]
    assert client.change(bench, "a", "add_entry", "eggs") == 3
    assert bench.actor("a").activation != first
    assert bench.actor("b").activation == other


def test_a_killed_list_ends_only_when_its_writes_are_on_disk_and_what_comes_meanwhile_is_served_by_the_next() -> None:
    bench = Bench()
    bench.ask("a", "size")
    before = bench.actor("a")
    added = bench.send("a", "add_entry", "milk")
    bench.hosting.kill(before)
    read = bench.send("a", "size", number=2)
    bench.turn()
    assert bench.actor("a") is before
    assert not bench.reads
    bench.settle()
    assert bench.answer(added) == 1
    assert bench.answer(read) == 1
    assert bench.actor("a") is not before


def test_a_list_that_is_killed_twice_while_its_writes_are_uncommitted_is_loaded_once() -> None:
    bench = Bench()
    bench.ask("a", "size")
    bench.send("a", "add_entry", "milk")
    actor = bench.actor("a")
    bench.hosting.kill(actor)
    bench.hosting.kill(actor)
    assert bench.ask("a", "size", number=2) == 1
    assert bench.hosting.loads == 2
    assert bench.hosting.drops == 1


def test_a_killed_list_whose_client_waits_for_a_missing_change_keeps_it_waiting() -> None:
    bench = Bench()
    bench.ask("a", "size")
    second = bench.send("a", "add_entry", "second", number=2)
    bench.hosting.kill(bench.actor("a"))
    bench.settle()
    first = bench.send("a", "add_entry", "first", number=1)
    bench.settle()
    assert (bench.answer(first), bench.answer(second)) == (1, 2)


def test_a_killed_list_whose_client_waits_in_vain_tells_it_so() -> None:
    bench = Bench()
    bench.ask("a", "size")
    second = bench.send("a", "add_entry", "second", number=2)
    bench.hosting.kill(bench.actor("a"))
    bench.settle()
    bench.tick(300)
    assert isinstance(bench.error(second), OutOfOrder)


@pytest.mark.parametrize("operation", ["add_entry", "size"])
def test_law_7_a_floor_above_the_requests_own_number_is_refused_and_gives_up_nothing(operation: str) -> None:
    bench = Bench()
    wrong = bench.send("a", operation, *["milk"][: operation == "add_entry"], number=1, floor=5)
    bench.settle()
    assert isinstance(bench.error(wrong), ProtocolError)
    assert bench.ask("a", "add_entry", "bread", number=1) == 1


def test_of_a_change_whose_answer_was_given_up_it_is_not_said_that_it_did_not_happen() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk", number=1)
    bench.ask("a", "size", number=2, floor=2)
    again = bench.send("a", "add_entry", "milk", number=1)
    bench.settle()
    assert isinstance(bench.error(again), ProtocolError)
    assert bench.error(again).outcome == UNKNOWN


def test_a_list_that_is_killed_while_it_loads_begins_anew_under_another_activation_with_what_waited() -> None:
    bench = Bench()
    asked = bench.send("a", "size")
    bench.turn()
    before = bench.actor("a").activation
    bench.hosting.kill(bench.actor("a"))
    bench.hosting.kill(bench.actor("a"))
    assert bench.actor("a").activation != before
    bench.settle()  # what was read for the first one is not taken for the last one
    assert bench.answer(asked) == 0


def test_law_6_what_waits_for_a_list_that_loads_goes_when_its_deadline_has_passed() -> None:
    bench = Bench()
    late = bench.send("a", "add_entry", "late", number=1, deadline_ms=bench.now_ms + 100)
    in_time = bench.send("a", "size", client=b"another", number=1)
    bench.tick(200)
    assert isinstance(bench.error(late), DeadlineExceeded)
    assert [asked[2][0] for asked in bench.actor("a").queue or ()] == [in_time]
    bench.hosting.kill(bench.actor("a"))  # as well in the next activation
    bench.tick(10_000)
    assert isinstance(bench.error(in_time), DeadlineExceeded)
    assert not bench.partition("a").waiting and not bench.hosting.lists
    bench.settle()  # the pages that were wanted come to nobody
    assert bench.ask("a", "size") == 0


def test_a_list_of_which_a_page_was_asked_for_is_loaded_though_nobody_waits_for_it_any_more() -> None:
    bench = Bench(page=1)
    Client().change(bench, "a", "add_entries", [["milk"], ["bread"]])
    bench.hosting.kill(bench.actor("a"))
    bench.settle()
    late = bench.send("a", "size", deadline_ms=bench.now_ms + 100)
    bench.turn()
    bench.actor("a").is_being_read = True
    bench.tick(200)
    assert isinstance(bench.error(late), DeadlineExceeded)
    bench.settle()
    assert bench.actor("a").is_at_rest and bench.hosting.lists == 1


def test_law_6_lists_that_cannot_be_read_at_the_moment_leave_with_whoever_asked_for_them() -> None:
    bench = Bench()
    asked = [bench.send(f"list {number}", "size") for number in range(100)]
    bench.turn()
    reads = list(bench.reads)
    bench.reads.clear()
    assert all(bench.hosting.read_failed(read, Unavailable("Permission denied")) for read in reads)
    bench.turn()
    assert {bench.error(each).text for each in asked} == {"Permission denied"}
    for read in reads:
        bench.hosting.ask_page_again(read, bench.now_ms)
    bench.turn()
    assert not bench.hosting.lists and not bench.reads and bench.hosting.drops == 100


def test_law_6_lists_that_are_damaged_leave_memory_where_the_budget_asks_for_it() -> None:
    damaged = CorruptRecord("not a record")
    for memory_bytes, kept in ((1 << 30, range(100, 101)), (50 * LIST_BYTES, range(51))):
        bench = Bench(memory_bytes=memory_bytes)
        for number in range(100):
            bench.send(f"list {number}", "size")
        bench.turn()
        while bench.reads:
            assert not bench.hosting.read_failed(bench.reads.popleft(), damaged)
        assert len(bench.hosting.quarantined) == 100
        for _ in range(100):
            bench.tick(1_000)
        assert len(bench.hosting.quarantined) in kept


def test_law_6_answers_that_wait_for_a_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "x" * 1_000)
    monkeypatch.setattr(gate, "HELD_BYTES", 3_000)
    change = bench.send("a", "add_entry", "milk", number=2, floor=2)
    asked = [bench.send("a", "entries", client=bytes([reader]), number=1) for reader in range(1, 5)]
    bench.turn()
    refused = [each for each in asked if each in bench.replies]
    assert refused == asked[2:] and isinstance(bench.error(refused[0]), Overloaded)
    another = bench.send("a", "add_entry", "bread", number=3, floor=2)
    bench.settle()
    assert (bench.answer(change), bench.answer(another)) == (2, 3)
    assert all(bench.answer(each) for each in asked[:2])
    again = bench.send("a", "entries", client=b"again", number=1)
    bench.settle()
    assert len(bench.answer(again)[0]) == 3


def test_an_idle_list_is_dropped_and_loaded_again_unnoticed() -> None:
    bench, client = Bench(idle_ms=1_000), Client()
    client.change(bench, "a", "add_entry", "milk")
    bench.settle_with_ticks(lambda: bench.hosting.lists == 0, 500)
    assert client.entries(bench, "a") == [[1, "milk", None, False, {}]]
    assert client.change(bench, "a", "add_entry", "bread") == 2


def test_a_list_with_an_uncommitted_write_or_a_waiting_request_is_not_dropped_for_being_idle() -> None:
    bench = Bench(idle_ms=100)
    bench.ask("a", "size")
    bench.send("a", "add_entry", "milk")
    for _ in range(5):
        bench.tick(100)
    assert bench.hosting.lists == 1
    bench.settle()
    bench.send("a", "add_entry", "ahead", number=3)
    bench.tick(149)
    bench.tick(50)
    assert bench.hosting.lists == 1


def test_an_idle_list_is_dropped_though_the_clock_was_set_back() -> None:
    bench = Bench(idle_ms=1_000)
    bench.ask("a", "size")
    bench.tick()
    bench.now_ms -= HOUR_MS
    for _ in range(10):
        bench.tick(500)
    assert bench.hosting.lists == 0


# -- lists of which nothing can be stored ------------------------------------------------------------------------------


def test_a_partitions_first_owner_takes_a_list_for_new_and_does_not_look_for_it() -> None:
    bench, client = Bench(Disk.new()), Client(b"reader")
    first = bench.send("a", "add_entry", "milk")
    bench.turn()
    assert not bench.reads and first not in bench.replies, "it is promised no sooner than others"
    bench.commit()
    assert bench.answer(first) == 1
    assert client.entries(bench, "a") == [[1, "milk", None, False, {}]]
    assert bench.ask(SAME_PARTITION, "size") == 0
    assert bench.hosting.loads == 0
    later = Bench(bench.disk)
    assert client.entries(later, "a") == [[1, "milk", None, False, {}]]
    assert later.ask(SAME_PARTITION, "add_entry", "milk") == 1
    assert later.hosting.loads == 2


@pytest.mark.parametrize("how", ["idle", "killed", "failed", "failed on disk", "crashed", "deleted"])
def test_law_8_what_the_first_owner_has_dropped_is_looked_for(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    bench, client = Bench(Disk.new(), idle_ms=1_000), Client()
    client.change(bench, "a", "add_entry", "milk")
    if how == "idle":
        bench.settle_with_ticks(lambda: bench.hosting.lists == 0, 500)
    elif how in ("killed", "deleted"):
        if how == "deleted":
            client.change(bench, "a", "delete")
        bench.hosting.kill(bench.actor("a"))
    elif how == "crashed":
        with monkeypatch.context() as spoiled:
            spoiled.setattr(ListActor, "_change", raises)
            with pytest.raises(Unavailable, match="crashed"):
                bench.ask("a", "clear", number=2, floor=2)
    else:
        bench.send("a", "add_entry", "bread", number=2, floor=2)
        bench.turn()
        bench.fail(on_disk=how == "failed on disk")
    kept = {"failed on disk": ["milk", "bread"], "deleted": []}.get(how, ["milk"])
    assert [entry[1] for entry in Client(b"reader").entries(bench, "a")] == kept
    assert bench.hosting.loads == 1


def test_law_6_past_a_number_of_dropped_lists_the_first_owner_looks_for_every_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("todomq.list_server.partition.NAMES_KEPT", 1)
    bench = Bench(Disk.new())
    for loads, name in enumerate(["a", SAME_PARTITION]):
        bench.ask(name, "add_entry", "milk")
        bench.hosting.kill(bench.actor(name))
        assert bench.hosting.loads == 0
        assert bench.partition("a").is_to_be_looked_for("never seen") is bool(loads)
    assert bench.ask("a", "size") == 1


def test_what_was_only_read_is_not_remembered_when_it_is_dropped() -> None:
    bench = Bench(Disk.new())
    bench.ask("a", "size")
    bench.hosting.kill(bench.actor("a"))
    assert bench.hosting.lists == 0 and not bench.partition("a").is_to_be_looked_for("a")


def test_law_8_while_a_worker_refuses_to_write_lists_are_looked_for_so_that_its_trouble_shows() -> None:
    bench = Bench(Disk.new())
    bench.ask("a", "add_entry", "milk")
    bench.send("a", "add_entry", "bread", number=2)
    bench.turn()
    bench.refuse()
    bench.send(SAME_PARTITION, "size")
    bench.turn()
    assert [read.actor.name for read in bench.reads] == [SAME_PARTITION]


def test_law_8_of_a_damaged_partition_nothing_is_taken_for_new() -> None:
    bench = Bench(Disk.new())
    bench.hosting.own_unclaimed(PARTITION, FIRST_EPOCH, CorruptRecord("damaged"))
    assert bench.partition("a").is_to_be_looked_for("a")


# -- the memory budget -------------------------------------------------------------------------------------------------


def over_budget(bench: Bench, names: list[str]) -> None:
    """Check that lists are dropped long before they are idle for long, and that nothing of them is missing then."""
    bench.settle_with_ticks(lambda: bench.hosting.lists < len(names) // 2)
    assert bench.now_ms < START_MS + 60_000
    for name in names:
        assert bench.ask(name, "size", client=b"reader") == 1


def test_lists_over_the_memory_budget_are_dropped_long_before_they_are_idle_for_long() -> None:
    names = [str(number) for number in range(40)]
    bench = Bench(memory_bytes=len(names) * (LIST_BYTES + ENTRY_IN_MEMORY_BYTES + SESSION_BYTES) // 4)
    for name in names:
        bench.ask(name, "add_entry", "milk")
    over_budget(bench, names)


@pytest.mark.parametrize(
    ("title", "extra"), [("m" * 9_000, None), ("milk", {"note": "m" * 9_000})], ids=["titles", "open fields"]
)
def test_law_6_what_entries_hold_counts_towards_the_memory_budget(title: str, extra: dict[str, str] | None) -> None:
    names = [str(number) for number in range(20)]
    bench = Bench(memory_bytes=80_000)
    for name in names:
        bench.ask(name, "add_entry", title, None, extra)
    over_budget(bench, names)


def test_law_6_what_has_come_since_a_round_of_housekeeping_counts_before_the_next_one() -> None:
    names = [str(number) for number in range(20)]
    bench = Bench(memory_bytes=80_000)
    for name in names:
        bench.ask(name, "add_entry", "milk")
    bench.settle_with_ticks(lambda: bench.hosting.housekeeping.is_between_rounds)
    for name in names:
        bench.ask(name, "add_entry", "m" * 9_000, number=2)
    bench.settle_with_ticks(lambda: bench.hosting.lists < len(names) // 2)
    assert bench.now_ms < START_MS + 60_000


def test_law_6_what_was_loaded_since_a_round_of_housekeeping_counts_before_the_next_one() -> None:
    names = [str(number) for number in range(20)]
    before = Bench()
    for name in names:
        before.ask(name, "add_entry", "m" * 9_000)
    bench = Bench(before.disk, memory_bytes=80_000)
    bench.settle_with_ticks(lambda: bench.hosting.housekeeping.is_between_rounds)
    for name in names:
        assert bench.ask(name, "size") == 1
    bench.settle_with_ticks(lambda: bench.hosting.lists < len(names) // 2)
    assert bench.now_ms < START_MS + 60_000


def test_many_changes_of_one_entry_drop_no_idle_list() -> None:
    names = [str(number) for number in range(20)]
    bench = Bench(memory_bytes=2 * len(names) * (LIST_BYTES + ENTRY_IN_MEMORY_BYTES + SESSION_BYTES))
    for name in names:
        bench.ask(name, "add_entry", "milk")
    for number in range(1_000):
        bench.ask("hot", "update_entry" if number else "add_entry", *([1, {}] if number else ["milk"]),
                  number=number + 1, floor=number + 1)  # fmt: skip
        bench.tick()
    assert bench.hosting.lists == len(names) + 1


def test_law_6_lists_that_are_always_written_to_count_towards_the_memory_budget() -> None:
    bench = Bench(memory_bytes=40_000)
    for name in ("busy", "also busy"):
        bench.ask(name, "add_entry", "m" * 9_000)
        bench.ask(name, "add_entry", "m" * 9_000, number=2)
    bench.ask("idle", "add_entry", "milk")
    for number in range(3, 3_000):
        if "idle" not in bench.hosting.partitions[partition_of(b"idle")].actors:  # type: ignore[union-attr]
            return
        for name in ("busy", "also busy"):
            bench.send(name, "update_entry", 1, {}, number=number, floor=number)
        bench.tick()
        bench.commit()
    raise AssertionError("the idle list is still there")


def test_after_all_partitions_were_given_up_the_budget_is_free() -> None:
    bench = Bench(memory_bytes=40_000)
    for name in ("a", "b"):
        bench.ask(name, "add_entry", "m" * 9_000)
        bench.ask(name, "add_entry", "m" * 9_000, number=2)
    bench.settle_with_ticks(lambda: bench.hosting.housekeeping.memory > 36_000)
    for partition in range(PARTITIONS):
        bench.hosting.disown(partition)
    bench.settle_with_ticks(lambda: bench.hosting.housekeeping.memory == 0, 500)


def test_law_6_what_is_remembered_of_many_clients_counts_towards_the_memory_budget() -> None:
    names = [str(number) for number in range(20)]
    bench = Bench(memory_bytes=len(names) * 20 * SESSION_BYTES // 2)
    for name in names:
        for client in range(20):
            bench.ask(name, "update_entry" if client else "add_entry", *([1, {}] if client else ["milk"]),
                      client=b"%d" % client)  # fmt: skip
    over_budget(bench, names)


def test_a_session_is_forgotten_after_its_time_in_memory_and_on_disk() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk")
    bench.ask("a", "update_entry", 1, {"done": True}, number=2)
    key = records.session_key(records.prefix("a"), b"client")
    bench.tick(limits.REMEMBERED_MS - 100)
    bench.ask("a", "size", client=b"other")
    bench.settle()
    assert key in bench.disk.records
    bench.settle_with_ticks(lambda: key not in bench.disk.records, 500)
    assert b"client" not in bench.actor("a").sessions


def test_what_stands_beside_an_entry_is_forgotten_after_its_time() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk")
    bench.tick(limits.REMEMBERED_MS - 100)
    bench.ask("a", "size", client=b"other")
    assert bench.actor("a").in_entries == (b"client",)
    bench.settle_with_ticks(lambda: not bench.actor("a").sessions, 500)
    assert bench.actor("a").in_entries == ()
    fresh = Bench(bench.disk)
    fresh.now_ms = bench.now_ms
    fresh.ask("a", "size", client=b"other")
    assert not fresh.actor("a").sessions


def test_a_session_that_expired_while_its_list_was_not_loaded_goes_with_the_next_load() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk")
    bench.ask("a", "update_entry", 1, {"done": True}, number=2)
    fresh = Bench(bench.disk)
    fresh.now_ms += limits.REMEMBERED_MS + 1
    assert fresh.ask("a", "size", client=b"other") == 1
    assert records.session_key(records.prefix("a"), b"client") not in bench.disk.records


@pytest.mark.parametrize("when", ["visited", "loaded"])
def test_law_6_sessions_that_are_forgotten_together_go_in_batches_that_fit_into_a_message(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    name = "x" * limits.LIST_NAME_BYTES
    bench = Bench()
    for client in range(4_000):
        bench.send(name, "add_entry", "milk", client=b"%d" % client)
    bench.settle()
    sizes = []
    apply = Disk.apply

    def applied(disk: Disk, batch: Batch) -> list[list[int]]:
        sizes.append(len(messages.writes(batch.as_sent(b"list server", b"worker"))))
        return apply(disk, batch)

    monkeypatch.setattr(Disk, "apply", applied)
    if when == "loaded":
        bench = Bench(bench.disk, page=1_000)
        bench.now_ms += limits.REMEMBERED_MS + 1
        assert bench.ask(name, "size") == 4_000
    else:
        bench.tick(limits.REMEMBERED_MS + 1)
        bench.settle()
    assert not bench.actor(name).sessions
    assert sum(sizes) > 2 * limits.BATCH_BYTES and max(sizes) < 1.1 * limits.BATCH_BYTES


def test_law_6_of_very_many_sessions_some_are_forgotten_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("todomq.list_server.recording.FORGOTTEN_MOST", 2)
    bench = Bench()
    for client in range(5):
        bench.ask("a", "add_entry", "milk", client=b"%d" % client)
    bench.now_ms += limits.REMEMBERED_MS + 1
    for left in (3, 1, 0):
        bench.actor("a").forget_expired(bench.now_ms)
        assert len(bench.actor("a").sessions) == left


@pytest.mark.parametrize("idle_ms", [1, 2 * HOUR_MS], ids=["loaded again", "in memory"])
@pytest.mark.parametrize("change", [("add_entry", "bread"), ("delete_entry", 1)], ids=["add", "delete"])
def test_law_3_a_change_is_known_again_though_the_clock_was_set_forward(change: tuple[Any, ...], idle_ms: int) -> None:
    bench = Bench(idle_ms=idle_ms)
    bench.tick()
    bench.ask("a", "add_entry", "milk", client=b"other")
    answer = bench.ask("a", *change)
    size = bench.ask("a", "size")
    bench.now_ms += HOUR_MS
    for _ in range(9 * 60):
        bench.tick(1_000)
        bench.settle()
    assert bench.ask("a", *change) == answer
    assert bench.ask("a", "size") == size
    assert (bench.hosting.drops > 0) == (idle_ms == 1)
    for _ in range(2 * 60):
        bench.tick(10_000)
        bench.settle()
    bench.ask("a", "size", client=b"other")
    assert b"client" not in bench.actor("a").sessions
    assert records.session_key(records.prefix("a"), b"client") not in bench.disk.records


# -- a failure stays where it is ---------------------------------------------------------------------------------------


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make adding the title "poison" a fault of ours that leaves the list half changed."""
    add_entry = operations.add_entry

    def poisoned(todo: TodoList, arguments: list[Any], touched: operations.Touched) -> int:
        identifier = add_entry(todo, arguments, touched)
        if arguments[0] == "poison":
            raise ZeroDivisionError
        return identifier

    monkeypatch.setitem(operations.CHANGES, "add_entry", poisoned)


@pytest.mark.usefixtures("poison")
def test_a_poisoned_list_hurts_itself_only_and_comes_back_without_the_poison() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "milk")
    client.change(bench, SAME_PARTITION, "add_entry", "other")
    other = bench.actor(SAME_PARTITION)
    crashed = bench.send("a", "add_entry", "poison", number=2)
    bench.settle()
    error = bench.error(crashed)
    assert isinstance(error, Unavailable)
    assert error.outcome == "unknown"
    assert client.entries(bench, "a") == [[1, "milk", None, False, {}]]
    assert bench.ask("a", "add_entry", "bread", number=2) == 2
    assert bench.actor(SAME_PARTITION) is other
    assert bench.hosting.crashes == 1


@pytest.mark.parametrize("is_noted_first", [False, True])
def test_law_3_of_a_change_whose_records_cannot_all_be_made_none_is_written(
    monkeypatch: pytest.MonkeyPatch, is_noted_first: bool
) -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "milk")
    client.change(bench, "a", "update_entry", 1, {"title": "tea"})
    kept = bench.send("a", "add_entry", "bread", client=b"other")
    note = ListActor._note_changed

    def fails(self: ListActor, prefix: bytes, sender: bytes, *session: Any) -> None:
        if is_noted_first or sender == b"other":
            note(self, prefix, sender, *session)
        if sender != b"other":
            raise RuntimeError("a fault")

    with monkeypatch.context() as broken:
        broken.setattr(ListActor, "_note_changed", fails)
        crashed = bench.send("a", "update_entry", 1, {"title": "salt"}, number=3)
    bench.settle()
    assert bench.answer(kept) == 2
    assert isinstance(bench.error(crashed), Unavailable)
    assert [entry[1] for entry in client.entries(bench, "a")] == ["tea", "bread"]
    assert bench.gate.bytes == bench.gate.open.bytes == 0
    again = bench.send("a", "update_entry", 1, {"title": "salt"}, number=3)
    bench.settle()
    assert bench.answer(again)[1] == "salt"
    titles = [entry[1] for entry in Client(b"reader").entries(bench, "a")]
    assert titles == ["salt", "bread"], "it is not only answered as if it were done"


@pytest.mark.usefixtures("poison")
def test_a_crash_among_what_came_while_the_list_loaded_loses_no_other_request() -> None:
    bench = Bench()
    before = bench.send("a", "add_entry", "milk", number=1)
    crashed = bench.send("a", "add_entry", "poison", number=2)
    other = bench.send("a", "add_entry", "bread", client=b"other")
    read = bench.send("a", "size", client=b"third")
    bench.settle()
    assert bench.answer(before) == 1
    assert isinstance(bench.error(crashed), Unavailable)
    assert bench.answer(other) == 2
    assert bench.answer(read) == 2


@pytest.mark.usefixtures("poison")
def test_a_crash_of_what_had_waited_for_its_turn_is_told_to_the_one_who_sent_it() -> None:
    bench = Bench()
    bench.ask("a", "size")
    crashed = bench.send("a", "add_entry", "poison", number=2)
    first = bench.send("a", "add_entry", "milk", number=1)
    bench.settle()
    assert bench.answer(first) == 1
    assert isinstance(bench.error(crashed), Unavailable)


# -- owners ------------------------------------------------------------------------------------------------------------


def test_a_request_for_a_partition_that_is_not_owned_under_its_epoch_is_sent_back() -> None:
    bench = Bench(owned=range(PARTITION, PARTITION + 1))
    elsewhere = bench.send("b", "size", epoch=1)
    old = bench.send("a", "size", epoch=99)
    bench.turn()
    assert status(bench, elsewhere) == messages.MOVED
    assert status(bench, old) == messages.MOVED
    assert bench.hosting.lists == 0


def test_an_owner_whose_epoch_is_old_drops_the_partition_and_answers_nothing_about_it() -> None:
    bench = Bench()
    bench.ask("a", "size")
    bench.ask("b", "size")
    added = bench.send("a", "add_entry", "milk")
    other = bench.send("b", "add_entry", "milk")
    bench.turn()
    successor = Bench(bench.disk, owned=range(PARTITION, PARTITION + 1))
    assert bench.commit() == {PARTITION}
    bench.settle()
    assert added not in bench.replies
    assert bench.answer(other) == 1
    assert bench.hosting.partitions[PARTITION] is None
    assert successor.ask("a", "size") == 0


def test_a_refusal_of_an_earlier_epochs_batch_does_not_take_away_what_is_owned_again() -> None:
    bench = Bench()
    bench.ask("a", "size")
    lost = bench.send("a", "add_entry", "milk")
    bench.turn()
    batch = bench.sent.popleft()
    sent = copy(batch)
    bench.own(PARTITION)
    bench.sent.append(sent)  # it had left before the partition was claimed again
    assert bench.commit() == set()
    assert lost not in bench.replies
    assert bench.ask("a", "add_entry", "milk") == 1


def test_a_batch_that_left_under_an_earlier_epoch_is_refused_and_what_is_owned_again_stays() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk")
    bench.send("a", "add_entry", "bread", number=2)
    bench.turn()
    number = bench.sent[0].number
    epoch = bench.own(PARTITION)
    assert bench.hosting.committed(1, number, [[number, PARTITION, epoch]]) == set()
    assert bench.partition("a").epoch == epoch


def test_a_partition_is_released_once_its_writes_are_on_disk_and_everything_waiting_is_sent_back() -> None:
    bench = Bench()
    bench.ask("a", "size")
    epoch = bench.partition("a").epoch
    added = bench.send("a", "add_entry", "milk")
    ahead = bench.send("a", "add_entry", "ahead", number=3)
    loading = bench.send(SAME_PARTITION, "size")
    assert not bench.hosting.stop_serving(PARTITION, epoch)
    meanwhile = bench.send("a", "size", number=2)
    bench.turn()
    assert status(bench, meanwhile) == messages.MOVED
    assert not bench.hosting.stop_serving(PARTITION, epoch)
    bench.commit()
    assert bench.answer(added) == 1
    assert bench.hosting.stop_serving(PARTITION, epoch)
    bench.turn()
    assert status(bench, ahead) == messages.MOVED
    assert status(bench, loading) == messages.MOVED
    assert bench.hosting.stop_serving(PARTITION, epoch), "asked again, it is gone"
    assert (PARTITION, epoch) not in bench.hosting.owned()


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Leave memory to the counts of references alone, as daemons leave what has stayed for long."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_lists_of_a_partition_that_went_leave_memory_with_it(without_collector: None) -> None:
    bench, client = Bench(), Client()
    for name in ("a", SAME_PARTITION, "b"):
        client.change(bench, name, "add_entry", "milk")
    bench.hosting.disown(PARTITION)
    bench.settle()
    bench.tick(50)
    assert sorted(thing.name for thing in gc.get_objects() if isinstance(thing, ListActor)) == ["b"]


def test_what_is_asked_and_what_is_refused_leave_nothing_that_only_the_collector_finds(without_collector: None) -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entries", [["milk"], ["bread"]])
    client.change(bench, "a", "update_entry", 1, {"done": True})
    client.change(bench, "a", "delete_entry", 2)
    client.entries(bench, "a")
    refused = [
        bench.send("a", "update_entry", 99, {}, client=b"other"),
        bench.send("a", "no such operation"),
        bench.send("a", "size", deadline_ms=bench.now_ms - 1),
        bench.send("a", "add_entry", "ahead", number=2, client=b"ahead"),
    ]
    bench.tick(300)
    bench.settle()
    assert [status(bench, identifier) for identifier in refused] == [messages.ERROR] * 4
    bench.hosting.kill(bench.actor("a"))
    bench.settle()
    client.change(bench, "a", "clear")
    assert gc.collect() == 0


def test_law_6_changes_that_had_waited_for_their_turn_go_in_batches_that_fit_into_a_message() -> None:
    bench = Bench()
    bench.ask("a", "size")
    large = [["x" * 5_000]] * 190
    early = [bench.send("a", "add_entries", large, number=number) for number in range(2, 12)]
    first = bench.send("a", "add_entry", "the one that was missing", number=1)
    bench.turn()
    assert max(batch.bytes for batch in bench.sent) < limits.TRANSPORT_BYTES
    bench.settle()
    assert bench.answer(first) == 1
    assert [len(bench.answer(identifier)) for identifier in early] == [190] * 10


def test_law_5_a_change_that_comes_very_often_before_its_turn_harms_nobody() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "another's", client=b"other")
    activation = bench.actor("a").activation
    early = [bench.send("a", "add_entry", "second", number=2) for _ in range(2_000)]
    first = bench.send("a", "add_entry", "first", number=1)
    bench.settle()
    assert bench.answer(first) == 2
    assert [bench.answer(identifier) for identifier in early] == [3] * 2_000
    assert bench.hosting.crashes == 0 and bench.actor("a").activation == activation


def test_a_page_that_comes_after_its_partition_went_is_ignored() -> None:
    bench = Bench()
    bench.send("a", "size")
    bench.turn()
    bench.hosting.disown(PARTITION)
    bench.read()
    assert bench.every_reply == []


def test_a_partition_that_is_dropped_in_the_turn_of_a_change_leaves_nothing_of_it_in_the_batch() -> None:
    bench = Bench()
    bench.ask("a", "size")
    bench.ask("b", "size")
    bench.send("a", "add_entry", "milk")
    bench.send("b", "add_entry", "milk")
    bench.hosting.disown(PARTITION)
    bench.turn()
    assert list(bench.sent[0].epochs) == [partition_of(b"b")]
    bench.settle()


# -- failed commits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [0, 1, 2])
def test_after_a_failed_commit_the_outcome_is_unknown_and_the_same_request_again_takes_effect_once(
    on_disk: int,
) -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk", number=1)
    bench.ask("b", "add_entry", "other")
    untouched = bench.actor("b")
    changes = []
    for number in (2, 3):
        changes.append(bench.send("a", "add_entry", "bread", number=number))
        bench.turn()
    waiting = bench.send("a", "size", number=4)
    bench.fail(on_disk)
    for identifier in [*changes, waiting]:
        error = bench.error(identifier)
        assert isinstance(error, Unavailable)
        assert error.outcome == "unknown"
    assert [bench.ask("a", "add_entry", "bread", number=number) for number in (2, 3)] == [2, 3]
    assert bench.ask("a", "size", number=4) == 3
    assert bench.actor("b") is untouched


# -- a full disk -------------------------------------------------------------------------------------------------------


def test_a_change_that_the_worker_refuses_is_told_as_not_applied_and_is_not_seen_by_a_read() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk", number=1)
    refused = bench.send("a", "add_entry", "bread", number=2)
    bench.turn()
    bench.refuse()
    error = bench.error(refused)
    assert (error.code, error.retryable, error.outcome, error.text) == (
        "unavailable", True, "not applied", "the disk is full"
    )  # fmt: skip
    assert bench.ask("a", "size", number=2) == 1
    bench.tick(gate.TRY_AGAIN_MS)
    assert bench.ask("a", "add_entry", "bread", number=2) == 2


def test_while_there_is_no_room_changes_are_refused_before_they_touch_a_list_and_one_is_tried_now_and_then() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "milk", number=1)
    bench.send("a", "add_entry", "bread", number=2)
    bench.turn()
    bench.refuse()
    bench.ask("a", "size", number=2)
    loads = bench.hosting.loads
    for _ in range(10):
        with pytest.raises(Unavailable, match="full"):
            bench.ask("a", "add_entry", "bread", number=2)
    assert not bench.sent and bench.hosting.loads == loads
    bench.tick(gate.TRY_AGAIN_MS)
    bench.send("a", "add_entry", "bread", number=2)
    bench.turn()
    assert len(bench.sent) == 1


def test_while_there_is_no_room_one_change_at_a_time_is_tried_and_all_go_on_once_one_is_on_disk() -> None:
    bench, clients = Bench(), map(b"%d".__mod__, range(100))
    bench.send("a", "add_entry", "milk")
    bench.settle_reads()
    bench.refuse()

    def tried(client: bytes) -> list[str]:
        """Change each of three lists; return those whose change was not refused at once."""
        asked = {name: bench.send(name, "add_entry", "milk", client=client) for name in ("b", "c", "d")}
        bench.settle_reads()
        return [name for name, identifier in asked.items() if identifier not in bench.replies]

    for _ in range(3):
        bench.tick(gate.TRY_AGAIN_MS)
        assert tried(next(clients)) == ["b"]
        assert tried(next(clients)) == []
        bench.tick(gate.TRY_AGAIN_MS // 2)
        assert tried(next(clients)) == []
        bench.tick(gate.TRY_AGAIN_MS)  # the worker has said nothing yet
        assert tried(next(clients)) == ["b"]
        bench.refuse()
        assert tried(next(clients)) == []
    bench.tick(gate.TRY_AGAIN_MS)
    assert tried(next(clients)) == ["b"]
    bench.commit()
    assert tried(next(clients)) == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [("update_entry", (77, {"title": "x"}), "entry_not_found"), ("add_entry", ("",), "invalid_request"),
     ("within", (True, 0, b"\xc1"), "protocol_error")],
)  # fmt: skip
def test_a_change_that_is_wrong_by_itself_does_not_take_the_try_of_those_that_could_be_written(
    operation: str, arguments: tuple[object, ...], code: str
) -> None:
    bench = Bench()
    bench.send("a", "add_entry", "milk")
    bench.settle_reads()
    bench.refuse()
    bench.tick(gate.TRY_AGAIN_MS)
    wrong = bench.send("a", operation, *arguments, client=b"wrong")
    bench.settle_reads()
    assert bench.error(wrong).code == code
    assert bench.ask("a", "add_entry", "milk", client=b"other") == 1  # there is room again


def test_a_change_is_tried_again_in_a_quarter_of_a_second_though_the_clock_was_set_back() -> None:
    bench = Bench()
    bench.send("a", "add_entry", "milk")
    bench.settle_reads()
    bench.refuse()
    bench.now_ms -= HOUR_MS
    bench.tick(gate.TRY_AGAIN_MS)
    assert bench.ask("a", "add_entry", "milk") == 1


def test_reads_of_lists_not_in_memory_go_on_while_there_is_no_room_though_old_sessions_wait_to_be_deleted() -> None:
    old = Bench()
    old.ask("a", "add_entry", "milk")
    bench = Bench(old.disk)
    bench.now_ms += limits.REMEMBERED_MS + 1
    bench.send("b", "add_entry", "bread")
    bench.settle_reads()
    bench.refuse()
    bench.tick(gate.TRY_AGAIN_MS)
    assert bench.ask("a", "size", client=b"other") == 1
    assert not bench.actor("a").uncommitted
    assert bench.ask("b", "add_entry", "bread") == 1  # there is room again
    assert bench.gate.why_refused == ""


# -- a damaged shard ---------------------------------------------------------------------------------------------------


def test_law_8_everything_asked_of_a_damaged_partition_is_refused_with_what_is_damaged_and_nothing_is_read() -> None:
    bench = Bench(owned=[number for number in range(256) if number != PARTITION])
    bench.hosting.own_unclaimed(PARTITION, 7, CorruptRecord("000012.log is damaged"))
    for operation, arguments in (("add_entry", ["milk"]), ("size", []), ("entries", [])):
        with pytest.raises(CorruptRecord, match=r"000012\.log is damaged"):
            bench.ask("a", operation, *arguments)
    assert not bench.reads and not bench.sent and bench.hosting.lists == 0
    other = next(name for name in map(str, range(100)) if partition_of(name.encode()) != PARTITION)
    assert bench.ask(other, "add_entry", "milk") == 1
    bench.hosting.check_epochs()
    bench.hosting.doubt_epochs()
    bench.settle()
    assert (PARTITION, 7) in bench.hosting.owned(), "an epoch that is not stored must not be asked about"


def test_what_is_asked_of_an_unclaimed_partition_is_not_applied_whatever_became_of_the_claim() -> None:
    bench = Bench(owned=())
    bench.hosting.own_unclaimed(PARTITION, 7, CorruptRecord("000012.sst is damaged", outcome=UNKNOWN))
    with pytest.raises(CorruptRecord) as refusal:
        bench.ask("a", "add_entry", "milk")
    assert refusal.value.outcome == NOT_APPLIED


def test_what_cannot_be_claimed_at_the_moment_is_refused_with_the_reason_until_it_is_owned() -> None:
    bench = Bench(owned=())
    bench.hosting.own_unclaimed(PARTITION, 7, Unavailable("Permission denied"))
    bench.hosting.worker_restarted(1)
    with pytest.raises(Unavailable, match="Permission denied") as refusal:
        bench.ask("a", "size")
    assert refusal.value.retryable and refusal.value.outcome == NOT_APPLIED
    assert bench.hosting.is_unclaimed(PARTITION, 7) and not bench.hosting.damaged_partitions
    bench.hosting.own(PARTITION, 7)
    assert not bench.hosting.is_unclaimed(PARTITION, 7)
    assert bench.ask("a", "size") == 0


def test_another_life_of_the_worker_is_another_chance_for_what_was_damaged() -> None:
    bench = Bench()
    bench.hosting.own_unclaimed(PARTITION, 7, CorruptRecord("damaged"))
    other = next(name for name in map(str, range(100)) if partition_of(name.encode()) != PARTITION)
    bench.disk.records[records.list_key(other)] = b"damaged"
    with pytest.raises(CorruptRecord):
        bench.ask(other, "size")
    del bench.disk.records[records.list_key(other)]
    bench.hosting.worker_restarted(1)
    bench.settle()
    assert PARTITION not in dict(bench.hosting.owned()), "it is claimed anew, properly"
    assert bench.ask(other, "size") == 0


def test_a_change_of_the_turn_in_which_a_commit_failed_is_not_written_half() -> None:
    bench = Bench()
    bench.ask("a", "size")
    change = bench.send("a", "add_entry", "milk")
    bench.fail()
    assert not bench.sent
    assert isinstance(bench.error(change), Unavailable)
    assert bench.ask("a", "add_entry", "milk") == 1


def test_a_large_batch_that_was_closed_in_the_turn_of_a_failure_is_not_sent() -> None:
    bench = Bench()
    bench.ask("a", "size")
    for number in range(1, 101):
        bench.send("a", "add_entry", "x" * 10_000, number=number)
    bench.fail()
    assert not bench.sent
    assert bench.ask("a", "size") == 0


def test_a_killed_list_whose_commit_fails_is_loaded_again_for_those_who_wait() -> None:
    bench = Bench()
    bench.ask("a", "size")
    bench.send("a", "add_entry", "milk")
    bench.turn()
    bench.hosting.kill(bench.actor("a"))
    waiting = bench.send("a", "size", client=b"other")
    bench.fail()
    bench.settle()
    assert bench.answer(waiting) == 0


def test_a_load_whose_read_failed_begins_again() -> None:
    bench = Bench()
    asked = bench.send("a", "size")
    bench.turn()
    read = bench.reads.popleft()
    assert bench.hosting.read_failed(read, Unavailable("the worker is gone", outcome=UNKNOWN))
    bench.hosting.ask_page_again(read, bench.now_ms)
    bench.settle()
    assert bench.answer(asked) == 0


def test_whoever_waits_for_a_load_that_the_worker_refuses_for_now_hears_why_and_it_begins_again() -> None:
    bench = Bench()
    asked = bench.send("a", "size")
    bench.turn()
    read = bench.reads.popleft()
    assert bench.hosting.read_failed(read, Unavailable("Permission denied"))
    later = bench.send("a", "size")
    bench.turn()
    assert [bench.error(each).text for each in (asked, later)] == ["Permission denied"] * 2
    bench.hosting.ask_page_again(read, bench.now_ms)
    bench.settle()
    assert bench.ask("a", "size") == 0


def test_a_load_whose_read_failed_does_not_begin_again_for_a_list_that_went_meanwhile() -> None:
    bench = Bench()
    bench.send("a", "size")
    bench.turn()
    read = bench.reads.popleft()
    assert bench.hosting.read_failed(read, Unavailable("the worker is gone"))
    bench.own(PARTITION)
    loads = bench.hosting.loads
    bench.hosting.ask_page_again(read, bench.now_ms)
    bench.turn()
    assert (list(bench.reads), bench.hosting.loads) == ([], loads)


# -- any interleaving --------------------------------------------------------------------------------------------------

NAMES = ["a", SAME_PARTITION, "b/../c"]
OWNED = {partition_of(name.encode()) for name in NAMES}
LISTS = st.sampled_from(NAMES)
CLIENTS = st.sampled_from([b"one", b"two"])
TITLES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


class Model:
    """The naive to-do list that every reader must see."""

    def __init__(self) -> None:
        self.entries: dict[int, str] = {}
        self.next = 1
        self.is_listed = False

    def add(self, titles: list[str]) -> list[int]:
        ids = [self.next + place for place in range(len(titles))]
        self.entries.update(zip(ids, titles, strict=True))
        self.next += len(titles)
        self.is_listed = True
        return ids

    def clear(self) -> None:
        self.entries = {}
        self.next = 1


class Hostings(RuleBasedStateMachine):
    """Two clients, one owner at a time; what it was promised is there, whatever else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.gone = Bench(owned=())
        self.models: dict[str, Model] = {}
        self.next: dict[tuple[bytes, str], int] = {}
        self.last_effect: dict[tuple[bytes, str], tuple[int, Any]] = {}

    @initialize(is_new=st.booleans())
    def begin(self, is_new: bool) -> None:
        disk = Disk.new() if is_new else Disk()
        self.bench = self.gone = Bench(disk, idle_ms=10_000, page=2, owned=OWNED)

    def model(self, name: str) -> Model:
        return self.models.setdefault(name, Model())

    def change(self, client: bytes, name: str, how: str, operation: str, *arguments: Any) -> Any:
        """Make one change, with something going wrong in the middle of it, and return its answer."""
        number = self.next.get((client, name), 1)
        self.next[client, name] = number + 1
        envelope: dict[str, Any] = {"number": number, "floor": number, "client": client}
        if how != "plainly":
            self.bench.ask(name, "size", client=b"somebody")
            lost = self.bench.send(name, operation, *arguments, **envelope)
            self.bench.turn()
            if how.startswith("failing"):
                self.bench.fail(on_disk=how == "failing on disk")
            elif how == "killed":
                self.bench.hosting.kill(self.bench.actor(name))
            else:
                self.crash(commit=how == "crashing on disk")
                reply = self.gone.replies.get(lost)
                assert reply is None or reply.status == messages.ERROR, "an old owner promises nothing"
        try:
            answer = self.bench.ask(name, operation, *arguments, **envelope)
        except EntryNotFound:
            return None
        self.last_effect[client, name] = number, answer
        return answer

    HOW = st.sampled_from(["plainly"] * 4 + ["failing", "failing on disk", "killed", "crashing", "crashing on disk"])

    @rule(client=CLIENTS, name=LISTS, how=HOW, title=TITLES)
    def add(self, client: bytes, name: str, how: str, title: str) -> None:
        answer = self.change(client, name, how, "add_entry", title)
        assert [answer] == self.model(name).add([title])

    @rule(client=CLIENTS, name=LISTS, how=HOW, titles=st.lists(TITLES, min_size=1, max_size=5))
    def add_several(self, client: bytes, name: str, how: str, titles: list[str]) -> None:
        answer = self.change(client, name, how, "add_entries", [[title] for title in titles])
        assert answer == self.model(name).add(titles)

    @rule(client=CLIENTS, name=LISTS, how=HOW, identifier=st.integers(1, 8), title=TITLES)
    def update(self, client: bytes, name: str, how: str, identifier: int, title: str) -> None:
        answer = self.change(client, name, how, "update_entry", identifier, {"title": title})
        if identifier in self.model(name).entries:
            assert answer[:2] == [identifier, title]
            self.model(name).entries[identifier] = title
        else:
            assert answer is None

    @rule(client=CLIENTS, name=LISTS, how=HOW, identifier=st.integers(1, 8))
    def delete_entry(self, client: bytes, name: str, how: str, identifier: int) -> None:
        answer = self.change(client, name, how, "delete_entry", identifier)
        assert answer == (self.model(name).entries.pop(identifier, None) is not None)

    @rule(client=CLIENTS, name=LISTS, how=HOW)
    def clear(self, client: bytes, name: str, how: str) -> None:
        self.change(client, name, how, "clear")
        self.model(name).clear()

    @rule(client=CLIENTS, name=LISTS, how=HOW)
    def delete(self, client: bytes, name: str, how: str) -> None:
        self.change(client, name, how, "delete")
        self.model(name).clear()
        self.model(name).is_listed = False

    @rule(client=CLIENTS, name=LISTS)
    def the_last_change_again(self, client: bytes, name: str) -> None:
        number, answer = self.last_effect.get((client, name), (0, None))
        if number and number + 1 == self.next[client, name]:
            # The number alone says that it is the same: the operation is another, so that an effect would show.
            again = self.bench.ask(name, "add_entry", "again", number=number, floor=number, client=client)
            assert again == answer

    @rule(name=LISTS)
    def kill_list(self, name: str) -> None:
        actor = self.bench.partition(name).actors.get(name)
        if actor is not None:
            self.bench.hosting.kill(actor)

    @rule(pass_ms=st.sampled_from([50, 300, 20_000]))
    def time_passes(self, pass_ms: int) -> None:
        for _ in range(3):
            self.bench.tick(pass_ms)
            self.bench.settle()

    @rule()
    def ticks_without_an_answer_of_the_worker(self) -> None:
        for _ in range(3):
            self.bench.tick()

    @rule()
    def crash_between_changes(self) -> None:
        self.crash(commit=False)

    def crash(self, *, commit: bool) -> None:
        """Another list server takes over; what was under way is on disk or is not; the old one wakes once more."""
        old = self.bench
        if commit:
            for batch in old.sent:
                old.disk.apply(batch)
        self.bench = Bench(old.disk, idle_ms=10_000, page=2, owned=OWNED)
        self.bench.now_ms = old.now_ms
        before = dict(old.disk.records)
        lost = old.commit()
        assert old.disk.records == before, "an old owner writes nothing"
        assert all(old.hosting.partitions[partition] is None for partition in lost)
        self.gone = old

    @rule(name=LISTS)
    def read(self, name: str) -> None:
        entries, cursor = self.bench.ask(name, "entries", client=b"somebody")
        assert cursor is None
        seen = {entry[0]: entry[1] for entry in entries}
        assert list(seen.items()) == list(self.model(name).entries.items())

    @invariant()
    def nothing_is_left_over(self) -> None:
        for partition in self.bench.hosting.partitions:
            if partition is not None:
                assert all(partition.actors.get(name) is actor for name, actor in partition.waiting.items())
                assert all(partition.actors.get(name) is actor for name, actor in partition.to_sweep.items())

    def teardown(self) -> None:
        self.bench.settle()
        fresh = Bench(self.bench.disk, owned=OWNED)
        for name, model in self.models.items():
            entries = Client(b"reader").entries(fresh, name)
            assert {entry[0]: entry[1] for entry in entries} == model.entries
            record = self.bench.disk.records.get(records.list_key(name))
            is_listed = record is not None and not records.read_list(name, record).deleted
            assert is_listed == model.is_listed
        self.pass_without_requests()

    def pass_without_requests(self) -> None:
        """Nobody asks for anything any more; yet another list server clears away what is of no list."""
        heir = Bench(self.bench.disk, idle_ms=10_000, page=2, owned=OWNED)
        heir.now_ms = self.bench.now_ms
        for _ in range(30):
            heir.tick(30_000)
            heir.settle()
        unlisted = [name for name, model in self.models.items() if not model.is_listed]
        left = [key for key in heir.disk.records if key.startswith((b"r", *map(records.prefix, unlisted)))]
        assert left == []


TestHostings = Hostings.TestCase
TestHostings.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
