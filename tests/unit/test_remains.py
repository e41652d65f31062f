"""What is left of lists that nobody asks for again: it goes, by the notes of it, whoever dies meanwhile (law 6)."""

from __future__ import annotations

from itertools import count

import pytest
from workbench import Bench, Client

from todomq.errors import CorruptRecord, Unavailable
from todomq.list_server import records, remains
from todomq.list_server.records import MINUTE_MS
from todomq.protocol import limits
from todomq.protocol.partitions import partition_of
from todomq.runtime.callee import Answer

PREFIX = records.prefix("a")
LATER_MS = limits.REMEMBERED_MS + 2 * MINUTE_MS


def taken_over(bench: Bench, page: int = 100) -> Bench:
    """Return another list server, which owns what the first one did; that one is heard of no more."""
    heir = Bench(bench.disk, page=page)
    heir.now_ms = bench.now_ms
    return heir


def let_pass(bench: Bench, pass_ms: int) -> None:
    for _ in range(pass_ms // 20_000):
        bench.tick(20_000)
        bench.settle()


def notes(bench: Bench) -> list[bytes]:
    return sorted(key for key in bench.disk.records if key.startswith(b"r"))


def of_list(bench: Bench, name: str = "a") -> list[bytes]:
    return sorted(key for key in bench.disk.records if key.startswith(records.prefix(name)))


@pytest.mark.parametrize("operation", ["clear", "delete"])
def test_what_a_clear_left_when_its_list_server_died_is_swept_though_nobody_asks_for_the_list(operation: str) -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entries", [["milk"]] * 200)
    client.change(bench, "a", operation)
    assert len(of_list(bench)) > 1
    heir = taken_over(bench)
    let_pass(heir, LATER_MS)
    assert [key for key in of_list(heir) if key.startswith(PREFIX + b"e")] == []
    assert notes(heir) == []
    if operation == "delete":
        assert heir.disk.records == {}
    else:
        assert Client(b"other").entries(taken_over(heir), "a") == []


def test_nothing_is_cleared_away_before_its_time() -> None:
    """A change that is sent again is answered as it was, so its session stays as long as it is remembered."""
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "milk")
    client.change(bench, "a", "delete")
    heir = taken_over(bench)
    let_pass(heir, limits.REMEMBERED_MS - MINUTE_MS)
    assert records.session_key(PREFIX, b"client") in heir.disk.records
    assert heir.ask("a", "delete", number=2, floor=2) is None
    assert heir.ask("a", "add_entry", "bread", number=3, floor=3) == 1


def test_a_change_that_finds_no_list_leaves_nothing_for_ever() -> None:
    bench = Bench()
    for number in range(20):
        Client().change(bench, f"nobody's {number}", "delete_entry", 1)
    assert len(notes(bench)) == 20
    heir = taken_over(bench)
    let_pass(heir, LATER_MS)
    assert heir.disk.records == {}
    let_pass(heir, LATER_MS)
    assert heir.hosting.lists == 0, "they were loaded for this only"


def test_of_a_list_that_is_in_use_the_note_goes_and_nothing_else() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "add_entry", "milk")
    client.change(bench, "a", "clear")
    for step in count():
        if bench.now_ms >= 1_800_000_000_000 + LATER_MS:
            break
        let_pass(bench, 40_000)
        assert client.change(bench, "a", "add_entry", f"{step}") == step + 1
    assert notes(bench) == []
    assert len(client.entries(bench, "a")) == step
    assert len(client.entries(taken_over(bench), "a")) == step


def test_a_client_that_goes_on_is_remembered_and_a_later_note_tells_of_it() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "a", "delete_entry", 1)
    let_pass(bench, limits.REMEMBERED_MS - MINUTE_MS)
    client.change(bench, "a", "delete_entry", 1)
    heir = taken_over(bench)
    let_pass(heir, 3 * MINUTE_MS)
    assert records.session_key(PREFIX, b"client") in heir.disk.records
    assert len(notes(heir)) == 1
    let_pass(heir, LATER_MS)
    assert heir.disk.records == {}


def test_where_the_clock_was_set_forward_a_note_is_taken_up_once_something_is_over_and_not_again_and_again() -> None:
    bench = Bench()
    bench.tick()
    bench.ask("a", "delete_entry", 1)
    loads = bench.hosting.loads
    bench.now_ms += 2 * LATER_MS
    let_pass(bench, limits.REMEMBERED_MS - MINUTE_MS)
    assert records.session_key(PREFIX, b"client") in bench.disk.records
    assert bench.hosting.loads == loads
    let_pass(bench, LATER_MS + limits.REMEMBERED_MS)
    assert bench.disk.records == {}


def test_notes_in_any_number_are_taken_up_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "NOTES", 4)
    names = [name for name in map(str, range(20_000)) if partition_of(name.encode()) == 7][:50]
    bench = Bench(page=3)
    for name in names:
        Client().change(bench, name, "delete_entry", 1)
    heir = taken_over(bench, page=3)
    most = 0
    heir.now_ms += LATER_MS
    heir.tick(20_000)
    for _ in range(200):
        heir.settle()
        most = max(most, len(heir.remains._taken))
        heir.tick(50)
    assert heir.disk.records == {}, "in one round, which no minute was waited for"
    assert 0 < most <= 4


def test_law_5_a_list_that_never_comes_to_rest_holds_up_no_other() -> None:
    bench, client = Bench(), Client()
    client.change(bench, "hot", "add_entry", "milk")
    client.change(bench, "hot", "clear")
    let_pass(bench, 5 * MINUTE_MS)
    for number in range(30):
        Client().change(bench, f"{number}", "delete_entry", 1)
    heir = taken_over(bench)
    heir.now_ms += LATER_MS - 5 * MINUTE_MS
    for step in range(500):
        heir.send("hot", "add_entry", "x", client=b"busy", number=step + 1, floor=step + 1)
        heir.tick(1_000)
        heir.read()
        if heir.sent:
            heir.commit(1)
    assert {records.read_remains_key(key)[1] for key in notes(heir)} <= {"hot"}
    assert Client(b"reader").entries(heir, "hot")


def test_a_note_that_is_damaged_or_of_a_damaged_list_holds_up_no_other() -> None:
    bench = Bench()
    other = next(name for name in map(str, count()) if partition_of(name.encode()) == partition_of(b"a"))
    Client().change(bench, "a", "delete_entry", 1)
    Client().change(bench, other, "delete_entry", 1)
    bench.disk.records[records.session_key(PREFIX, b"client")] = b"damaged"
    damaged = records.remains_prefix(partition_of(b"a")) + b"\0"
    bench.disk.records[damaged] = b""
    heir = taken_over(bench)
    let_pass(heir, LATER_MS)
    assert of_list(heir, other) == []
    assert notes(heir) == sorted([damaged, *(key for key in notes(heir) if key.endswith(b"a"))])
    with pytest.raises(CorruptRecord):
        heir.ask("a", "size", client=b"other")


@pytest.mark.parametrize("answer", [Answer(None, Unavailable("away")), Answer("none", None)])
def test_a_worker_that_is_away_or_talks_nonsense_is_asked_again_in_the_next_round(answer: Answer) -> None:
    bench = Bench()
    Client().change(bench, "a", "delete_entry", 1)
    heir = taken_over(bench)
    heir.now_ms += LATER_MS
    heir.tick(20_000)
    while heir.looks:
        heir.looks.popleft()[2](answer)
    heir.settle()
    assert len(notes(heir)) == 1
    let_pass(heir, 2 * MINUTE_MS)
    assert heir.disk.records == {}


def test_a_worker_without_room_is_written_nothing_until_it_has_some() -> None:
    bench = Bench()
    Client().change(bench, "a", "delete_entry", 1)
    heir = taken_over(bench)
    heir.now_ms += LATER_MS
    heir.gate.refuse("the disk is full", heir.steady_ms)
    let_pass(heir, 2 * MINUTE_MS)
    assert len(notes(heir)) == 1
    heir.gate.why_refused = ""
    let_pass(heir, 2 * MINUTE_MS)
    assert heir.disk.records == {}


def test_what_is_found_after_the_partition_went_is_left_to_its_owner() -> None:
    bench = Bench()
    Client().change(bench, "a", "delete_entry", 1)
    heir = taken_over(bench)
    heir.now_ms += LATER_MS
    heir.tick(20_000)
    heir.hosting.disown(partition_of(b"a"))
    before = dict(heir.disk.records)
    heir.settle()
    let_pass(heir, LATER_MS)
    assert heir.disk.records == before
