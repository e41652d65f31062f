"""Rare courses of a list's life, each of which went wrong once: a clock that is set, a commit that fails late, a reader
who never changes anything, a list that is killed.
"""

from __future__ import annotations

import pytest
from workbench import START_MS, Bench, Client, Disk

from todomq.errors import OutOfOrder, ProtocolError, Unavailable
from todomq.list_server.gate import TRY_AGAIN_MS, Gate
from todomq.list_server.recording import SESSIONS_IN_ENTRIES
from todomq.protocol import limits

DAY_MS = 86_400_000


@pytest.mark.parametrize("operation", ["size", "clear"])
def test_law_6_whoever_never_changes_a_list_is_not_remembered_by_it(operation: str) -> None:
    bench = Bench()
    bench.ask("L", "add_entry", "milk", client=b"writer")
    early = [bench.send("L", operation, client=b"%d" % number, number=2) for number in range(100)]
    bench.settle_with_ticks(lambda: early[-1] in bench.replies)
    assert {type(bench.error(each)) for each in early} == {OutOfOrder}
    assert list(bench.actor("L").sessions) == [b"writer"]
    assert bench.ask("L", "add_entry", "tea", client=b"1") == 2


def test_law_6_whoever_is_refused_for_lack_of_room_is_not_remembered_by_the_list() -> None:
    bench = Bench()
    bench.ask("L", "add_entry", "milk", client=b"writer")
    bench.send("L", "add_entry", "bread", client=b"writer", number=2)
    bench.turn()
    bench.refuse()
    bench.ask("L", "size")
    refused = [bench.send("L", "update_entry", 1, {}, client=b"%d" % number, number=3, floor=3) for number in range(99)]
    bench.settle()
    assert {type(bench.error(each)) for each in refused} == {Unavailable}
    assert list(bench.actor("L").sessions) == [b"writer"]
    bench.tick(TRY_AGAIN_MS)
    assert bench.ask("L", "update_entry", 1, {"done": True}, client=b"0", number=3, floor=3)


def test_a_change_that_gives_up_one_that_waits_is_remembered() -> None:
    bench = Bench()
    early = bench.send("L", "update_entry", 1, {"done": True}, number=2)
    change = bench.send("L", "add_entries", [["milk"]], number=3, floor=3)
    bench.settle()
    assert type(bench.error(early)) is ProtocolError and bench.answer(change) == [1]
    assert bench.ask("L", "add_entries", [["milk"]], number=3, floor=3) == [1]


def test_a_change_that_waits_for_its_turn_and_gets_it_is_remembered() -> None:
    bench = Bench()
    second = bench.send("L", "add_entry", "second", number=2)
    first = bench.send("L", "add_entry", "first", number=1)
    bench.settle_with_ticks(lambda: bench.actor("L").early is None and second in bench.replies)
    assert (bench.answer(first), bench.answer(second)) == (1, 2)
    assert bench.ask("L", "add_entry", "second", number=2) == 2


def test_what_waits_for_a_list_that_is_killed_is_served_though_the_list_could_be_taken_for_new() -> None:
    bench = Bench(Disk.new())
    size = bench.send("L", "size")
    bench.turn()
    bench.hosting.kill(bench.actor("L"))
    first = bench.send("L", "add_entry", "first", client=b"A")
    bench.settle()
    assert bench.ask("L", "add_entry", "second", client=b"B") == 2
    assert (bench.answer(size), bench.answer(first)) == (0, 1)


@pytest.mark.parametrize("has_room", [True, False], ids=["with room", "loaded while the disk is full"])
def test_law_6_a_clock_that_is_set_back_leaves_no_more_sessions_to_entries_than_one_batch_holds(
    has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    bench = Bench(disk)
    for number in range(300):
        bench.ask("L", "add_entry", "milk", client=b"%d" % number)
        if number % 10 == 9:  # what stands in entries only is recorded with it
            bench.ask("L", "update_entry", 1, {"done": True}, client=b"u%d" % number)
    bench.tick(limits.REMEMBERED_MS + 1)
    bench.settle()
    assert not bench.actor("L").sessions
    heir = Bench(disk)
    heir.now_ms = START_MS - DAY_MS
    if not has_room:
        heir.send("other", "add_entry", "milk")
        heir.settle_reads()
        heir.refuse()
    assert heir.ask("L", "size") == 300
    heir.tick(TRY_AGAIN_MS)
    monkeypatch.setattr(limits, "BATCH_BYTES", 4 * limits.KIB)
    updated = heir.send("L", "update_entry", 1, {"done": False}, client=b"last")
    heir.turn()
    assert max(batch.bytes for batch in heir.sent) < 2 * limits.BATCH_BYTES
    heir.settle()
    assert heir.answer(updated)
    assert len(heir.actor("L").in_entries) <= SESSIONS_IN_ENTRIES
    for number in range(7, 300, 7):  # and none is forgotten that may be young
        assert heir.ask("L", "add_entry", "milk", client=b"%d" % number) == number + 1


def test_law_6_sessions_that_were_used_while_the_clock_was_ahead_are_forgotten_once_it_is_right() -> None:
    bench = Bench()
    bench.now_ms += 365 * DAY_MS
    for number in range(20):
        bench.ask("L", "add_entry", "milk", client=b"%d" % number)
    bench.now_ms = START_MS
    bench.settle_with_ticks(lambda: not bench.actor("L").sessions, 10_000)
    bench.settle()
    assert bench.now_ms - START_MS < 2 * limits.REMEMBERED_MS


def test_law_8_entries_that_were_deleted_stay_so_though_the_last_commit_of_their_sweep_fails_late() -> None:
    bench = Bench(Disk.new(), page=100, idle_ms=DAY_MS)
    client = Client()
    for title in ("old 1", "old 2", "old 3"):
        client.change(bench, "L", "add_entry", title)
    client.change(bench, "L", "delete")
    bench.tick()
    assert bench.reads, "the sweep has asked for its page"
    held = bench.reads.popleft()
    for _ in range(14):  # until the session is over
        bench.tick(60_000)
        bench.commit()
        bench.looks.clear()
    assert not bench.actor("L").sessions
    bench.reads.append(held)
    bench.read()
    bench.fail()
    new = Client(b"new")
    new.change(bench, "L", "add_entry", "new")
    assert [entry[1] for entry in new.entries(bench, "L")] == ["new"]
    assert [entry[1] for entry in Client(b"later").entries(Bench(bench.disk), "L")] == ["new"]


def test_law_2_a_gate_whose_question_was_about_partitions_that_went_asks_again() -> None:
    gate = Gate()
    gate.ask(5, 1)
    gate.forget(5)
    assert not gate.is_asking
    gate.ask(6, 1)
    assert gate.is_asking and gate.close(0) is not None


def test_law_5_a_fault_in_the_key_of_a_session_ends_that_list_only(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.ask("L", "add_entry", "milk")
    bench.ask("L", "clear", number=2)

    def broken(*_: object) -> bytes:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr("todomq.list_server.records.session_key", broken)
        bench.send("L", "clear", number=3)
        bench.settle()
    assert bench.ask("other", "add_entry", "milk") == 1
