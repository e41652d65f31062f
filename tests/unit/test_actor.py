"""One list actor: its promises, its order, its memory of clients (laws 1, 3, 4 and 7), seen through its hosting."""

from __future__ import annotations

from typing import Any

import pytest
from workbench import Bench, Client, Disk

from todomq.client.values import read_entries_page
from todomq.errors import (
    DeadlineExceeded,
    EntryNotFound,
    InvalidRequest,
    OutOfOrder,
    Overloaded,
    ProtocolError,
    Unavailable,
)
from todomq.list_server import actor as actor_module
from todomq.list_server import records
from todomq.list_server.gate import UNCOMMITTED_BYTES
from todomq.list_server.recording import SESSIONS_IN_ENTRIES
from todomq.list_server.snapshots import REFUSED_BYTES
from todomq.list_server.weight import weight
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack, unpack

DAY = "2026-12-01"


def loaded(name: str = "a") -> Bench:
    """Return a bench whose list is in memory and empty."""
    bench = Bench()
    assert bench.ask(name, "size") == 0
    return bench


def test_no_reply_to_a_change_leaves_before_its_commit() -> None:
    bench = loaded()
    added = bench.send("a", "add_entry", "milk")
    bench.turn()
    assert added not in bench.replies
    bench.commit()
    assert bench.answer(added) == 1


def test_a_read_behind_an_uncommitted_write_waits_for_its_commit() -> None:
    bench = loaded()
    bench.send("a", "add_entry", "milk")
    bench.turn()
    read = bench.send("a", "size", number=2)
    bench.turn()
    assert read not in bench.replies
    bench.commit()
    assert bench.answer(read) == 1


def test_law_6_a_list_remembers_so_many_clients_and_refuses_others_until_it_forgets_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor_module, "SESSIONS", 3)
    bench = loaded()
    for number in range(3):
        assert bench.ask("a", "add_entry", "milk", client=b"%d" % number) == number + 1
    for _ in range(2):
        with pytest.raises(Overloaded, match="3 clients"):
            bench.ask("a", "add_entry", "bread", client=b"another")
    assert bench.ask("a", "add_entry", "bread", client=b"0", number=2) == 4
    assert bench.ask("a", "size", client=b"another") == 4  # a read needs to be remembered by nobody
    bench.tick(limits.REMEMBERED_MS - 100)
    bench.ask("a", "size")  # so that the list stays in memory
    bench.settle_with_ticks(lambda: not bench.actor("a").sessions, 500)
    assert bench.ask("a", "add_entry", "salt", client=b"another") == 5


def test_a_read_of_another_list_does_not_wait() -> None:
    bench = loaded("a")
    bench.ask("b", "size")
    bench.send("a", "add_entry", "milk")
    read = bench.send("b", "size", client=b"other")
    bench.turn()
    assert bench.answer(read) == 0


def test_a_refusal_that_an_uncommitted_change_led_to_waits_as_well() -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk")
    bench.send("a", "delete_entry", 1, number=2)
    update = bench.send("a", "update_entry", 1, {"done": True}, number=3)
    bench.turn()
    assert update not in bench.replies
    bench.commit()
    assert isinstance(bench.error(update), EntryNotFound)


def test_a_change_and_the_record_of_it_are_in_the_same_batch() -> None:
    bench = loaded()
    for number in (1, 2):
        bench.send("a", "add_entry", "milk", number=number)
    bench.turn()
    (batch,) = bench.sent
    prefix = records.prefix("a")
    keys = [records.entry_key(prefix, 0, 1), records.list_key("a"), records.entry_key(prefix, 0, 2)]
    assert batch.keys == keys
    assert batch.values[-1] is not None
    added, _ = records.read_run("a", 2, batch.values[-1])
    assert added == (b"client", 2, 1, bench.now_ms, None)
    bench.settle()
    bench.send("a", "update_entry", 1, {"done": True}, number=3)
    bench.turn()
    (batch,) = bench.sent
    assert batch.keys == [records.entry_key(prefix, 0, 1), records.session_key(prefix, b"client")]
    assert batch.values[-1] is not None
    assert records.read_session("a", b"client", batch.values[-1]).next_number == 4


CHANGING = [("update_entry", 1, {"done": True}), ("delete_entry", 1), ("delete_entry", 9), ("clear",), ("delete",)]


@pytest.mark.parametrize("change", CHANGING)
def test_what_stands_beside_an_entry_only_is_kept_whatever_becomes_of_the_entry(change: tuple[Any, ...]) -> None:
    bench = loaded()
    added = bench.ask("a", "add_entry", "milk", client=b"one")
    several = bench.ask("a", "add_entries", [["bread"], ["tea"]], client=b"two")
    bench.ask("a", *change, client=b"three")
    for _ in range(2):
        size = bench.ask("a", "size", client=b"reader")
        assert bench.ask("a", "add_entry", "milk", client=b"one") == added
        assert bench.ask("a", "add_entries", [["bread"], ["tea"]], client=b"two") == several
        assert bench.ask("a", "size", client=b"reader") == size
        bench = Bench(bench.disk)


def test_a_refusal_that_an_add_follows_is_answered_the_same_after_a_load() -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk", number=1)
    with pytest.raises(EntryNotFound):
        bench.ask("a", "update_entry", 9, {"done": True}, number=2)
    bench.ask("a", "add_entry", "bread", number=3)
    fresh = Bench(bench.disk)
    assert fresh.ask("a", "add_entry", "bread", number=3) == 2
    with pytest.raises(EntryNotFound):
        fresh.ask("a", "update_entry", 9, {"done": True}, number=2)
    assert fresh.ask("a", "size", number=4) == 2


def test_no_more_stands_beside_entries_than_one_batch_takes() -> None:
    bench = loaded()
    for number in range(1, 301):
        bench.ask("a", "add_entry", "milk", number=number)
    for client in range(100):
        bench.ask("a", "add_entry", "milk", client=b"client %d" % client)
    assert len(bench.actor("a").in_entries) == SESSIONS_IN_ENTRIES
    bench = Bench(bench.disk)
    bench.ask("a", "clear", client=b"other")
    assert bench.actor("a").in_entries == ()
    assert [bench.ask("a", "add_entry", "milk", number=number) for number in (1, 150, 300)] == [1, 150, 300]
    for client in range(100):
        assert bench.ask("a", "add_entry", "milk", client=b"client %d" % client) == 301 + client


def test_answers_that_were_let_go_do_not_come_back_with_a_load() -> None:
    bench = loaded()
    for number in range(1, 201):
        bench.send("a", "add_entry", "milk", number=number, floor=1)
        bench.send("a", "size", number=number + 1, floor=number + 1)
    bench.settle()
    fresh = Bench(bench.disk)
    fresh.ask("a", "size", client=b"reader")
    assert len(fresh.actor("a").sessions[b"client"].answers) == 1
    with pytest.raises(ProtocolError):
        fresh.ask("a", "add_entry", "milk", number=100)
    assert fresh.ask("a", "add_entry", "milk", number=200) == 200


def test_a_long_answer_does_not_stand_beside_entries() -> None:
    bench = loaded()
    for client in range(20):
        bench.ask("a", "add_entries", [["milk"]] * 2_000, client=b"client %d" % client)
    assert bench.actor("a").in_entries == ()


def test_an_entry_that_grows_takes_those_beside_it_along_no_further_than_a_record_goes() -> None:
    bench, client = loaded(), Client()
    client.change(bench, "a", "add_entries", [[f"entry {place}"] for place in range(200)])
    expected: list[Any] = [[place + 1, f"entry {place}", None, False, {}] for place in range(200)]
    for identifier in (30, 31, 64, 65, 199):
        client.change(bench, "a", "update_entry", identifier, {"title": "x" * 9_000})
        expected[identifier - 1][1] = "x" * 9_000
    for identifier in (1, 2, 65, 200):
        assert client.change(bench, "a", "delete_entry", identifier) is True
        expected = [entry for entry in expected if entry[0] != identifier]
    assert client.entries(bench, "a") == expected
    assert client.entries(Bench(bench.disk, page=50), "a") == expected
    largest = max(len(value) for value in bench.disk.records.values())
    assert largest < 9_000 + records.RUN_BYTES


def test_what_was_stored_by_the_version_before_is_read_and_its_list_is_marked_when_it_is_written() -> None:
    disk = Disk()
    prefix, key = records.prefix("a"), records.list_key("a")
    disk.records[key] = pack([1, 0, 1, False, 0])
    disk.records[records.entry_key(prefix, 0, 1)] = pack(["milk"])
    disk.records[records.entry_key(prefix, 0, 3)] = pack(["bread", "2026-12-01"])
    bench, client = Bench(disk), Client()
    stored = [[1, "milk", None, False, {}], [3, "bread", "2026-12-01", False, {}]]
    assert client.entries(bench, "a") == stored
    assert disk.records[key] == pack([1, 0, 1, False, 0])
    client.change(bench, "a", "add_entry", "tea")
    assert disk.records[key] == pack([2, 0, 1, False, 0])
    assert client.entries(Bench(disk), "a") == [*stored, [4, "tea", None, False, {}]]


def test_a_change_sent_again_takes_effect_once_and_gets_the_same_answer() -> None:
    bench = loaded()
    first = bench.ask("a", "add_entry", "milk")
    assert bench.ask("a", "add_entry", "milk") == first
    assert bench.ask("a", "size", number=2) == 1


def test_a_change_sent_again_before_its_commit_is_not_answered_sooner() -> None:
    bench = loaded()
    bench.send("a", "add_entry", "milk")
    bench.turn()
    again = bench.send("a", "add_entry", "milk")
    bench.turn()
    assert again not in bench.replies
    bench.commit()
    assert bench.answer(again) == 1


@pytest.mark.parametrize("between", ["a killed actor", "another list server"])
def test_a_change_sent_again_gets_the_same_answer_from_the_stored_record(between: str) -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk", number=1)
    answer = bench.ask("a", "update_entry", 1, {"title": "oat milk"}, number=2)
    if between == "a killed actor":
        bench.hosting.kill(bench.actor("a"))
    else:
        bench = Bench(bench.disk)
    assert bench.ask("a", "update_entry", 1, {"title": "oat milk"}, number=2) == answer
    assert bench.ask("a", "add_entry", "milk", number=1) == 1
    assert bench.ask("a", "size", number=3) == 1


def test_the_record_of_a_change_survives_clear_and_delete() -> None:
    for operation in ("clear", "delete"):
        bench = loaded()
        bench.ask("a", "add_entry", "milk", number=1)
        bench.ask("a", operation, number=2)
        bench.settle_with_ticks(lambda: not any(key[:1] == b"l" and b"e" in key[3:5] for key in bench.disk.records))  # noqa: B023
        bench = Bench(bench.disk)
        assert bench.ask("a", operation, number=2) is None
        assert bench.ask("a", "add_entry", "milk", number=1) == 1
        assert bench.ask("a", "size", number=3) == 0


def test_changes_that_arrive_in_the_wrong_order_take_effect_in_the_right_one() -> None:
    bench = loaded()
    third = bench.send("a", "add_entry", "third", number=3)
    read = bench.send("a", "size", number=4)
    second = bench.send("a", "add_entry", "second", number=2)
    first = bench.send("a", "add_entry", "first", number=1)
    bench.settle()
    assert [bench.answer(identifier) for identifier in (first, second, third)] == [1, 2, 3]
    assert bench.answer(read) == 3


def test_one_clients_gap_holds_up_no_other_client() -> None:
    bench = loaded()
    bench.send("a", "add_entry", "milk", number=2)
    assert bench.ask("a", "add_entry", "bread", client=b"other") == 1


def test_what_waits_over_250_ms_for_a_missing_change_is_told_so_and_may_be_sent_again() -> None:
    bench = loaded()
    behind = bench.send("a", "add_entry", "milk", number=2)
    bench.tick(200)
    assert behind not in bench.replies
    bench.tick(50)
    error = bench.error(behind)
    assert isinstance(error, OutOfOrder)
    assert error.retryable
    assert error.outcome == "not applied"
    assert bench.partition("a").waiting == {}
    assert bench.ask("a", "add_entry", "bread", number=1) == 1
    assert bench.ask("a", "add_entry", "milk", number=2) == 2


def test_numbers_that_a_client_has_given_up_are_not_waited_for() -> None:
    bench = loaded()
    assert bench.ask("a", "add_entry", "milk", number=5, floor=5) == 1
    with pytest.raises(ProtocolError, match="change 4 "):
        bench.ask("a", "add_entry", "late", number=4, floor=4)
    assert bench.ask("a", "size", number=6, floor=6) == 1


def test_a_floor_that_a_read_declares_lets_go_what_waits_behind_it() -> None:
    bench = loaded()
    waiting = bench.send("a", "add_entry", "milk", number=2, floor=1)
    assert bench.ask("a", "size", number=2, floor=2) == 0
    assert bench.answer(waiting) == 1


READINGS = [("size",), ("entries",), ("entries", None), ("entries_on", None)]


@pytest.mark.parametrize("between", ["nothing", "a killed actor", "another list server"])
@pytest.mark.parametrize("read", READINGS)
def test_a_read_that_comes_again_behind_a_later_change_is_refused_for_good(read: tuple[Any, ...], between: str) -> None:
    bench = loaded()
    bench.ask("a", *read, number=1)
    bench.ask("a", "add_entry", "milk", number=1)
    now = bench.ask("a", *read, number=2)
    if between == "a killed actor":
        bench.hosting.kill(bench.actor("a"))
    elif between == "another list server":
        bench = Bench(bench.disk)
    for _ in range(2):
        late = bench.send("a", *read, number=1)
        bench.settle()
        error = bench.error(late)
        assert isinstance(error, OutOfOrder) and "ask again" in error.text
        assert (error.retryable, error.outcome) == (False, "not applied")
        assert bench.ask("a", *read, number=2) == bench.ask("a", *read, client=b"other", number=1) == now


def test_a_read_that_is_too_late_hears_so_once_what_makes_it_late_is_on_disk() -> None:
    bench = loaded()
    for fails in (True, False):
        bench.send("a", "add_entry", "milk", number=1)
        late = bench.send("a", "size", number=1)
        bench.turn()
        assert late not in bench.replies
        if fails:
            bench.fail()
            assert bench.error(late).retryable
            assert bench.ask("a", "size", number=1) == 0
    bench.commit()
    assert isinstance(bench.error(late), OutOfOrder)


def test_a_read_in_front_of_changes_that_were_given_up_before_they_came_is_not_too_late() -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk", number=1)
    waiting = bench.send("a", "size", number=3)
    assert bench.ask("a", "size", number=6, floor=6) == bench.answer(waiting) == 1
    assert bench.ask("a", "size", number=3) == 1
    waiting = bench.send("a", "size", number=7)
    bench.ask("a", "add_entry", "bread", number=9, floor=9)
    assert bench.answer(waiting) == 1
    with pytest.raises(OutOfOrder):
        bench.ask("a", "size", number=9)


def test_a_read_in_front_of_what_was_given_up_before_the_first_change_came_is_not_too_late() -> None:
    bench = loaded()
    first = bench.send("a", "add_entry", "milk", number=6, floor=5)
    assert bench.ask("a", "size", number=3, floor=3) == 0
    bench.ask("a", "add_entry", "bread", number=5, floor=5)
    assert bench.answer(first) == 2
    with pytest.raises(OutOfOrder):
        bench.ask("a", "size", number=3, floor=3)


def test_a_read_of_number_0_shows_the_list_as_it_is_now_whatever_its_client_has_sent() -> None:
    bench = loaded()
    assert bench.ask("a", "size", number=0, floor=0) == 0
    bench.ask("a", "add_entry", "milk", number=1)
    assert bench.ask("a", "size", number=0, floor=0) == 1
    bench.send("a", "add_entry", "tea", number=3)
    assert bench.ask("a", "size", number=0, floor=0) == 1


def test_a_read_with_floor_0_waits_for_nothing_and_may_be_too_late() -> None:
    bench = loaded()
    assert bench.ask("a", "size", number=3, floor=0) == 0
    bench.ask("a", "add_entry", "milk", number=1)
    assert bench.ask("a", "size", number=3, floor=0) == 1
    bench.ask("a", "add_entry", "bread", number=3, floor=3)
    with pytest.raises(OutOfOrder):
        bench.ask("a", "size", number=3, floor=0)


def test_what_is_refused_for_good_takes_its_number_in_memory_only() -> None:
    bench = loaded()
    refused = bench.send("a", "add_entry", "", number=1)
    behind = bench.send("a", "add_entry", "milk", number=2)
    bench.turn()
    assert isinstance(bench.error(refused), InvalidRequest)
    bench.commit()
    assert bench.answer(behind) == 1
    with pytest.raises(EntryNotFound):
        bench.ask("a", "update_entry", 9, {"done": True}, number=3)
    stored = bench.disk.records[records.session_key(records.prefix("a"), b"client")]
    assert records.read_session("a", b"client", stored).next_number == 3


def test_what_is_overloaded_does_not_take_its_number() -> None:
    bench = loaded()
    number = 0
    while bench.gate.bytes <= UNCOMMITTED_BYTES:
        number += 1
        bench.send("b", "add_entry", "x" * 10_000, number=number, client=b"flood")
        bench.turn()
        bench.read()
    refused = bench.send("a", "add_entry", "milk", number=1)
    bench.turn()
    assert isinstance(bench.error(refused), Overloaded)
    bench.settle()
    assert bench.ask("a", "add_entry", "milk", number=1) == 1


def test_what_comes_after_its_deadline_is_never_applied_and_does_not_take_its_number() -> None:
    bench = loaded()
    with pytest.raises(DeadlineExceeded):
        bench.ask("a", "add_entry", "late", number=1, deadline_ms=bench.now_ms - 1)
    assert bench.ask("a", "add_entry", "milk", number=1) == 1
    assert bench.ask("a", "size", number=2) == 1


def test_a_change_whose_deadline_passes_while_its_list_loads_is_never_applied() -> None:
    bench = Bench()
    late = bench.send("a", "add_entry", "late", deadline_ms=bench.now_ms + 10)
    bench.turn()
    bench.now_ms += 11
    bench.read()
    assert isinstance(bench.error(late), DeadlineExceeded)
    assert bench.ask("a", "size") == 0


def test_answers_that_a_client_never_declares_received_are_bounded() -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk", number=1)
    number = 1
    changes: list[int] = []
    while not changes or bench.replies[changes[-1]].status == messages.OK:
        number += 1
        changes.append(bench.send("a", "update_entry", 1, {"title": "x" * 10_000}, number=number))
        bench.settle()
        assert number < 40
    assert isinstance(bench.error(changes[-1]), Overloaded)
    bench.ask("a", "update_entry", 1, {"done": True}, number=number, floor=number)
    assert Client(b"other").entries(Bench(bench.disk), "a")[0][3] is True


def test_a_client_of_many_changes_in_one_turn_does_not_lose_the_order_or_an_answer() -> None:
    bench = loaded()
    sent = [bench.send("a", "add_entry", "milk", number=number) for number in range(1_000, 0, -1)]
    bench.settle()
    assert [bench.answer(identifier) for identifier in reversed(sent)] == list(range(1, 1_001))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", messages.body("no_such_operation"), pack("text")])
def test_a_body_that_cannot_be_read_gets_an_error_and_changes_nothing(body: bytes) -> None:
    bench = loaded()
    epoch = bench.partition("a").epoch
    bench.hosting.take(b"router", b"client", [[1, "a", bench.now_ms + 1, body, 1, 1, epoch]], bench.now_ms)
    bench.turn()
    assert isinstance(bench.error(1), ProtocolError | InvalidRequest)
    assert bench.ask("a", "add_entry", "milk") == 1


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("add_entry", []),
        ("add_entry", [7]),
        ("add_entry", ["milk", "2026-02-30"]),
        ("add_entries", [[["milk"], ["bread", "tomorrow"]]]),
        ("add_entries", ["milk"]),
        ("update_entry", [1, {"id": 7}]),
        ("delete_entry", [0]),
        ("clear", [1]),
    ],
)
def test_a_change_with_a_wrong_argument_is_refused_whole(operation: str, arguments: list[Any]) -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk", number=1)
    before = dict(bench.disk.records)
    with pytest.raises(InvalidRequest):
        bench.ask("a", operation, *arguments, number=2)
    assert bench.disk.records == before


@pytest.mark.parametrize(
    "cursor", [7, [], [1], [1, 2], ["a", 0, 1], [1, 0, None], [1, -1, 1], [99, 0, 1], [1, 10**9, 1]]
)
def test_a_cursor_that_no_page_answered_is_refused(cursor: Any) -> None:
    bench = loaded()
    with pytest.raises((InvalidRequest, Unavailable)):
        bench.ask("a", "entries", cursor)


def long_list() -> tuple[Bench, Client]:
    bench, client = Bench(page=100), Client()
    for _ in range(60):
        client.change(bench, "a", "add_entry", "x" * 10_000)
    return bench, client


def test_a_long_read_comes_in_pages_and_shows_one_state_whatever_changes_meanwhile() -> None:
    bench, client = long_list()
    page, cursor = client.read(bench, "a", "entries")
    assert cursor is not None
    assert len(bench.every_reply[-1].value) < 2 * limits.PAGE_BYTES
    client.change(bench, "a", "clear")
    seen = [entry[0] for entry in page]
    while cursor is not None:
        page, cursor = client.read(bench, "a", "entries", cursor)
        seen += [entry[0] for entry in page]
    assert seen == list(range(1, 61))


def test_the_pages_of_a_read_may_come_late_and_its_beginning_may_not() -> None:
    bench, client = long_list()
    page, cursor = client.read(bench, "a", "entries")
    number = client.next["a"]
    client.change(bench, "a", "clear")
    while cursor is not None:
        asked = cursor
        rest, cursor = bench.ask("a", "entries", asked, number=number)
        page += rest
    assert [entry[0] for entry in page] == list(range(1, 61))
    assert bench.ask("a", "entries", asked, number=number) == [rest, None], "the last one was lost"
    bench.hosting.kill(bench.actor("a"))
    with pytest.raises(Unavailable, match="from the first page"):
        bench.ask("a", "entries", asked, number=number)
    with pytest.raises(OutOfOrder):
        bench.ask("a", "entries", number=number)


@pytest.mark.parametrize("change", [("add_entry", "tea", DAY), ("add_entries", [["tea", DAY]]), *CHANGING])
def test_a_read_asked_twice_shows_the_list_as_it_is_each_time(change: tuple[Any, ...]) -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "milk", DAY)
    client.change(bench, "a", "add_entry", "bread")
    for _ in range(2):
        for question in (("entries",), ("entries_on", DAY), ("entries",)):
            shown = [client.read(bench, "a", *question) for _ in range(3)]
            bench.hosting.kill(bench.actor("a"))
            assert shown == [client.read(bench, "a", *question)] * 3
        client.read(bench, "a", "entries")
        client.change(bench, "a", *change)


def test_a_change_that_waits_for_the_floor_of_a_read_asked_before_shows_in_it() -> None:
    bench = loaded()
    assert bench.ask("a", "entries") == [[], None]
    waiting = bench.send("a", "add_entry", "milk", number=2, floor=1)
    assert bench.ask("a", "entries", number=3, floor=2) == [[[1, "milk", None, False, {}]], None]
    assert bench.answer(waiting) == 1


def test_a_read_between_which_and_its_answer_another_is_served_gets_its_own_answer() -> None:
    bench = loaded()
    bench.ask("a", "add_entry", "milk", DAY, client=b"other")
    everything = bench.ask("a", "entries", client=b"other")
    waiting = bench.send("a", "entries_on", None, number=2, floor=1)
    assert bench.ask("a", "entries", number=3, floor=3) == everything
    assert bench.answer(waiting) == [[], None]


def test_a_page_that_is_kept_is_weighed_and_a_longer_one_is_not_kept() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "x" * 600)
    alone = weight(bench.actor("a"))
    client.read(bench, "a", "entries")
    assert alone + 600 < weight(bench.actor("a")) < alone + 1_000
    client.change(bench, "a", "add_entry", "x" * 600)
    client.read(bench, "a", "entries")
    assert bench.actor("a").last_page is None


@pytest.mark.parametrize("question", [("entries", None, 0), ("entries_on", DAY, None, 0), ("entries_on",)])
def test_a_read_with_more_or_fewer_arguments_than_it_takes_is_refused(question: tuple[Any, ...]) -> None:
    bench = loaded()
    with pytest.raises(InvalidRequest, match="needed, not"):
        bench.ask("a", *question)


def test_a_question_and_its_page_are_kept_only_where_both_together_are_short() -> None:
    question = messages.body("entries", None)
    around = len(pack(([(1, "x" * 600, None, False, None)], None))) - 600
    for over in (0, 1):
        bench, client = Bench(), Client()
        client.change(bench, "a", "add_entry", "x" * (actor_module.LAST_PAGE_BYTES - around - len(question) + over))
        client.read(bench, "a", "entries", None)
        assert (bench.actor("a").last_page is None) == bool(over)


def test_no_more_reads_of_one_short_page_are_answered_in_a_turn_than_of_long_ones() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "x" * 900)
    bench.hosting.kill(bench.actor("a"))
    reads = [bench.send("a", "entries", client=b"reader") for _ in range(REFUSED_BYTES // 900)]
    more = [bench.send("a", "entries", client=b"reader") for _ in range(100)]
    bench.settle()
    assert bench.answer(reads[0])[0][0][0] == 1
    assert all(isinstance(bench.error(read), Overloaded) for read in more)


def test_pages_of_entries_whose_open_fields_are_all_arrays_can_be_read_by_a_client() -> None:
    bench, client = Bench(), Client()
    extra = {"x": [[]] * 60_000, "bytes": b"x"}
    for _ in range(5):
        client.change(bench, "a", "add_entry", "milk", None, extra)
    seen, cursor = [], None
    while True:
        client.read(bench, "a", "entries", cursor)
        page, cursor = read_entries_page(bench.every_reply[-1].value)
        seen += page
        if cursor is None:
            break
    assert [entry.id for entry in seen] == [1, 2, 3, 4, 5] and all(entry.extra == extra for entry in seen)


def test_a_cursor_is_worth_nothing_after_its_actor_was_killed() -> None:
    bench, client = long_list()
    _, cursor = client.read(bench, "a", "entries")
    bench.hosting.kill(bench.actor("a"))
    with pytest.raises(Unavailable, match="from the first page"):
        client.read(bench, "a", "entries", cursor)


def test_a_cursor_is_worth_nothing_in_another_life_of_the_list_server_that_gives_the_same_numbers() -> None:
    bench, client = long_list()
    _, cursor = client.read(bench, "a", "entries")
    heir, reader = Bench(bench.disk), Client(b"reader")
    _, other = reader.read(heir, "a", "entries")
    assert cursor is not None and other is not None and cursor[:2] == other[:2]
    with pytest.raises(Unavailable, match="the rest of this read is gone"):
        reader.read(heir, "a", "entries", cursor)


def test_naming_another_lists_cursor_neither_shows_nor_ends_that_read() -> None:
    bench, client = long_list()
    _, cursor = client.read(bench, "a", "entries")
    with pytest.raises(Unavailable):
        client.read(bench, "b", "entries", cursor)
    page, _ = client.read(bench, "a", "entries", cursor)
    assert page


def test_a_deleted_list_that_is_added_to_again_is_there_after_a_reload() -> None:
    bench, client = Bench(), Client()
    for _ in range(5):
        client.change(bench, "a", "add_entry", "milk")
    client.change(bench, "a", "delete")
    assert records.read_list("a", bench.disk.records[records.list_key("a")]).deleted
    assert client.change(bench, "a", "add_entry", "bread") == 1
    fresh = Bench(bench.disk)
    assert client.entries(fresh, "a") == [[1, "bread", None, False, {}]]
    assert not records.read_list("a", bench.disk.records[records.list_key("a")]).deleted


@pytest.mark.parametrize(
    ("operation", "arguments"), [("delete_entry", [1]), ("clear", []), ("delete", []), ("add_entries", [[]])]
)
def test_a_change_that_finds_nothing_to_change_brings_no_list_into_being(operation: str, arguments: list[Any]) -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", operation, *arguments)
    assert records.list_key("a") not in bench.disk.records
    client.change(bench, "a", "add_entry", "milk")
    client.change(bench, "a", "delete")
    client.change(bench, "a", operation, *arguments)
    assert records.read_list("a", bench.disk.records[records.list_key("a")]).deleted
    assert client.change(bench, "a", "add_entry", "bread") == 1
    assert client.entries(Bench(bench.disk), "a") == [[1, "bread", None, False, {}]]


def test_a_change_of_many_entries_is_all_or_none_even_if_the_next_one_is_not_committed() -> None:
    bench = loaded()
    bench.ask("a", "add_entries", [["milk"], ["bread", "2026-12-01"]], number=1)
    bench.send("a", "add_entries", [["a"], ["b"], ["c"]], number=2)
    bench.turn()
    assert len(Client(b"other").entries(Bench(bench.disk), "a")) == 2


def test_a_turn_of_many_large_changes_leaves_in_messages_that_a_connection_takes() -> None:
    bench = loaded()
    changes = [bench.send("a", "add_entry", "x" * 10_000, number=number) for number in range(1, 801)]
    bench.turn()
    assert len(bench.sent) > 1
    for batch in bench.sent:
        message = messages.writes(batch.as_sent(bytes(16), bytes(16)))
        assert len(message) <= 2 * limits.BATCH_BYTES
    bench.settle()
    assert [bench.answer(identifier) for identifier in changes] == list(range(1, 801))


def test_a_crash_between_two_batches_of_one_turn_leaves_each_change_with_its_record_or_neither() -> None:
    bench = loaded()
    for number in range(1, 201):
        bench.send("a", "add_entry", "x" * 10_000, number=number)
    bench.turn()
    while bench.sent:
        bench.disk.apply(bench.sent.popleft())
        start = records.entries_prefix(records.prefix("a"), 0)
        entries = [key for key in bench.disk.records if key.startswith(start)]
        fresh = Bench(Disk(dict(bench.disk.records)))
        fresh.ask("a", "size", client=b"reader")
        assert fresh.actor("a").sessions[b"client"].next == len(entries) + 1


def test_one_change_writes_no_more_than_a_message_takes() -> None:
    name = "n" * 255
    bench = loaded(name)
    with pytest.raises(InvalidRequest, match=str(limits.CHANGE_BYTES)):
        bench.ask(name, "add_entries", [["x"]] * 20_000, number=1)
    added = bench.send(name, "add_entries", [["x"]] * 8_000, number=2)
    bench.turn()
    message = messages.writes(bench.sent[0].as_sent(bytes(16), bytes(16)))
    assert len(message) <= limits.TRANSPORT_BYTES
    assert messages.read_writes(messages.read(message)[1]).keys == bench.sent[0].keys
    bench.settle()
    assert len(bench.answer(added)) == 8_000


def test_the_largest_change_of_the_shortest_entries_can_be_read_by_its_worker_and_loaded_again() -> None:
    bench = Bench(page=10_000)
    bench.ask("a", "size")
    count = limits.CHANGE_BYTES // (len(records.prefix("a")) + records.ENTRY_TAIL_BYTES + 32 + 4)
    added = bench.send("a", "add_entries", [["x"]] * count)
    bench.turn()
    messages.read_writes(messages.read(messages.writes(bench.sent[0].as_sent(bytes(16), bytes(16))))[1])
    bench.settle()
    assert bench.answer(added)[-1] == count
    assert Bench(bench.disk, page=10_000).ask("a", "size", client=b"other") == count


def test_an_answer_is_packed_as_the_protocol_says() -> None:
    bench = loaded()
    identifier = bench.send("a", "add_entry", "milk")
    bench.settle()
    assert unpack(bench.replies[identifier].value) == 1
    assert bench.replies[identifier].peer == b"router"
