"""The short ways and the long one: whatever comes, both write, answer and remember the same.

Two list servers get the same requests, failures and turns, one of them with the short ways closed. Laws 1, 3, 4, 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from workbench import ROUTER, START_MS, Bench, Disk

from todomq.list_server import hosting, records, short_ways
from todomq.list_server.actor import READY, ListActor
from todomq.list_server.recording import ANSWERS_IN_ENTRIES
from todomq.list_server.records import ListRecord
from todomq.list_server.short_ways import add_plainly, read_again
from todomq.list_server.snapshots import TURN_ANSWER_BYTES
from todomq.protocol import limits, messages
from todomq.protocol.partitions import partition_of

LIST_NAMES = ("a", "b")
CLIENTS = (b"one", b"two")
OWNED = sorted({partition_of(name.encode()) for name in LIST_NAMES})
Move = tuple[Any, ...]


@contextmanager
def taken() -> Iterator[list[bool]]:
    """Note of each request whether it goes a short way."""
    took: list[bool] = []

    def added(*asked: Any) -> bool:
        is_added = add_plainly(*asked)
        if is_added:
            took.append(True)
        return is_added

    def answered(*asked: Any) -> bool:  # tried last
        took.append(read_again(*asked))
        return took[-1]

    with patch.object(hosting, "add_plainly", added), patch.object(hosting, "read_again", answered):
        yield took


@contextmanager
def closed() -> Iterator[None]:
    """Let everything go the long way."""
    nothing = lambda *asked: False  # noqa: E731
    with patch.object(hosting, "add_plainly", nothing), patch.object(hosting, "read_again", nothing):
        yield


def loaded() -> Bench:
    """Return a list server whose list "a" is loaded and has an entry of the client's, which it knows is answered."""
    bench = Bench()
    bench.ask("a", "add_entry", "milk", number=1)
    return bench


def picture(bench: Bench, first_id: int) -> dict[str, Any]:
    """Return everything that a list server has written, answered and remembered, and on which request."""
    gate = bench.gate
    return {
        "replies": [(r.peer, r.id - first_id, r.status, r.value, r.partition) for r in bench.every_reply],
        "records": bench.disk.records,
        "batches": [columns(batch) for batch in (*bench.sent, *gate.batches.values(), gate.open)],
        "bytes": (gate.bytes, gate.held_bytes, gate.committed, bench.hosting.snapshots._turn_bytes),
        "lists": {
            name: remembered(actor)
            for name in LIST_NAMES
            if (actor := bench.partition(name).actors.get(name)) is not None
        },
    }


def remembered(actor: ListActor) -> tuple[Any, ...]:
    todo, to_write = actor.todo, sorted(actor.sessions_to_write or ())
    return (
        actor.state, actor.used_ms, actor.last_batch, actor.in_entries, actor.record, actor.last_page, to_write,
        todo is not None and (todo.entries, todo.next_id, todo.lowest_next_id, todo.generation),
        {
            sender: (s.next, s.used_ms, s.answers, s.answer_bytes, s.kept, [number for number, _, _ in s.waiting or ()])
            for sender, s in actor.sessions.items()
        },
    )  # fmt: skip


def columns(batch: Any) -> tuple[Any, ...]:
    held = [(reply.status, reply.value, reply.partition) for reply in batch.replies]
    return batch.number, batch.bytes, dict(batch.epochs), bytes(batch.partitions), batch.keys, batch.values, held


def run(moves: list[Move], is_new: bool) -> dict[str, Any]:
    bench = Bench(Disk.new() if is_new else Disk(), owned=OWNED, page=2)
    first_id = bench.send("a", "size")
    next_number = dict.fromkeys([(client, name) for client in CLIENTS for name in LIST_NAMES], 1)
    for client in CLIENTS:  # the other list is new
        bench.ask("a", "add_entry", "milk", client=client)
        next_number[client, "a"] = 2
    for kind, *arguments in moves:
        if kind == "send":
            client, name, body, step, floor_below, late = arguments
            number = max(0, next_number[client, name] + step)
            if step == 0 and not body[0].startswith("entries"):
                next_number[client, name] += 1
            deadline_ms = bench.now_ms - 1 if late else None
            bench.send(
                name, *body, client=client, number=number, floor=max(0, number - floor_below), deadline_ms=deadline_ms
            )
        elif kind == "forget":
            bench.tick(limits.REMEMBERED_MS + 1)
        elif kind == "kill":
            actor = bench.partition(arguments[0]).actors.get(arguments[0])
            if actor is not None:
                bench.hosting.kill(actor)
        else:
            getattr(bench, kind)()
    bench.settle()
    return picture(bench, first_id)


TITLES = st.sampled_from(["milk", "é", "x" * limits.TITLE_CHARACTERS, "", "x" * (limits.TITLE_CHARACTERS + 1), 5, None])
DATES = st.sampled_from([None, None, "2026-12-01", "2026-02-30", "20261201", "", 5])
PLAIN = st.tuples(st.just("add_entry"), TITLES, DATES)
OTHERS = st.sampled_from([
    ("add_entry", "milk"), ("add_entry", "milk", None, {"room": 4}), ("add_entry", "milk", None, None, True),
    ("add_entries", [["a"], ["b"]]), ("update_entry", 1, {"done": True}), ("delete_entry", 1), ("delete_entry", 2),
    ("clear",), ("delete",), ("nonsense",), ("entries", None, 5), ("entries_on", "2026-02-30", None),
])  # fmt: skip
ADDED = st.just(("add_entry", "milk", None))
READ = st.sampled_from([("entries_on", None, None), ("entries_on", "2026-12-01", None), ("entries", None)])
SENDS = st.tuples(
    st.just("send"), st.sampled_from(CLIENTS), st.sampled_from(LIST_NAMES),
    ADDED | ADDED | ADDED | READ | READ | PLAIN | OTHERS,
    st.sampled_from([0] * 12 + [-1, 1]), st.sampled_from([0] * 6 + [1, 3, -1]), st.sampled_from([False] * 19 + [True]),
)  # fmt: skip
MOVES = SENDS | SENDS | SENDS | st.sampled_from([
    ("turn",), ("turn",), ("settle",), ("settle",), ("settle",), ("fail",), ("refuse",), ("tick",), ("forget",),
    ("kill", "a"),
])  # fmt: skip


@settings(max_examples=1_000, deadline=None)
@given(st.lists(MOVES, min_size=5, max_size=40), st.booleans())
def test_whatever_comes_both_ways_write_answer_and_remember_the_same(moves: list[Move], is_new: bool) -> None:
    event(f"by the short way: {min(by_both_ways(moves, is_new), 5)}")


def by_both_ways(moves: list[Move], is_new: bool = False) -> int:
    """Compare both ways, on the disk of a new stack or of another; return how many requests went the short one."""
    with taken() as took:
        short = run(moves, is_new)
    with closed():
        long = run(moves, is_new)
    assert short == long
    return sum(took)


def test_answers_that_the_client_does_not_declare_received_stand_beside_their_entries_up_to_the_same_number() -> None:
    steps = range(ANSWERS_IN_ENTRIES + 5)
    adds = [("send", b"one", "a", ("add_entry", "milk", None), 0, step, False) for step in steps]
    assert by_both_ways(adds) == ANSWERS_IN_ENTRIES


def test_answers_that_the_client_does_not_declare_received_stand_beside_entries_up_to_the_same_bytes() -> None:
    several = ("send", b"one", "a", ("add_entries", [["x"]] * 440), 0, 0, False)
    adds = [("send", b"one", "a", ("add_entry", "milk", None), 0, step + 1, False) for step in range(40)]
    assert 1 < by_both_ways([several, *adds]) < 40


def test_the_first_add_to_a_list_whose_record_is_old_writes_it_anew() -> None:
    bench = loaded()
    bench.actor("a").record = ListRecord(version=1)
    with taken() as took:
        bench.ask("a", "add_entry", "milk", None, number=2)
    assert took == [True]
    assert records.read_list("a", bench.disk.records[records.list_key("a")]).version == records.VERSION


BODIES = [
    messages.body("add_entry", "milk", None) + b"\0",
    messages.body("add_entry", "milk", None)[:-1],
    messages.body("add_entry", "milk", "2026-W49-2"),
    b"\x93\xa9add_entry\xa2\xff\xff\xc0",
    b"\x93\xa9add_entry\xd9\x04milk\xc0",
    b"\x93\xd9\x09add_entry\xa4milk\xc0",
    b"\x93\xa9add_entry\xa4milk\xd6\xff\0\0\0\0",
    b"\x93\xa9add_entry\xc4\x04milk\xc0",
    b"\x93\xa9add_entry\x91\xa4milk\xc0",
    b"\x93\xa9add_entry",
    b"\x93\xa9add_entrx\xa4milk\xc0",
]


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_no_client_of_ours_packs_have_the_same_answer_either_way(body: bytes) -> None:
    outcomes = []
    for way in (taken, closed):
        bench = loaded()
        with way():
            identifier = bench.send("a", "", packed=body, number=2)
            bench.settle()
        outcomes.append(picture(bench, identifier))
    assert outcomes[0] == outcomes[1]


def test_adds_to_a_list_that_is_loaded_go_the_short_way() -> None:
    bench = loaded()
    with taken() as took:
        for number in range(2, 10):
            assert bench.ask("a", "add_entry", "milk", "2026-12-01", number=number, floor=number) == number
        assert bench.ask("a", "add_entry", "milk", None, client=b"another") == 10
        bench.ask("a", "clear", number=10)
        assert bench.ask("a", "add_entry", "milk", None, number=11) == 1
        bench.ask("a", "delete", number=12)
        assert bench.ask("a", "add_entry", "milk", None, number=13) == 1
    assert took == [True] * 9 + [False, True] * 2


def test_the_first_add_to_a_list_goes_the_short_way_once_it_is_known_that_nothing_is_stored() -> None:
    bench = Bench()
    with taken() as took:
        first, second = (bench.send("a", "add_entry", "milk", None, number=number) for number in (1, 2))
        bench.settle()
    assert (bench.answer(first), bench.answer(second)) == (1, 2)
    assert took == [False, False, True, True]  # both had to wait until it was looked for
    assert records.list_key("a") in bench.disk.records


def test_the_first_add_to_a_new_list_goes_the_short_way_at_once() -> None:
    bench = Bench(Disk.new())
    with taken() as took:
        assert bench.ask("a", "add_entry", "milk", None) == 1
    assert took == [True]
    assert records.list_key("a") in bench.disk.records


@pytest.mark.parametrize("most", ["SESSIONS", "SESSIONS_IN_ENTRIES"])
def test_past_a_bound_of_clients_the_long_way_says_what_becomes_of_one_more(
    monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    bench = loaded()
    monkeypatch.setattr(short_ways, most, 1)
    with taken() as took:
        bench.ask("a", "add_entry", "milk", None, client=b"another")
    assert took == [False]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda bench: bench.hosting.kill(bench.actor("a")),
        lambda bench: setattr(bench.gate, "bytes", 1 << 40),
        lambda bench: bench.gate.refuse("the disk is full", 0),
        lambda bench: bench.send("a", "add_entry", "early", None, number=9),
        lambda bench: bench.send("a", "update_entry", 1, {"done": True}, number=2),
    ],
    ids=["it stops", "too much waits", "no room", "one waits", "its session is to be written"],
)
def test_what_is_not_plain_is_left_as_it_was(spoil: Callable[[Bench], object]) -> None:
    bench = loaded()
    actor = bench.actor("a")
    spoil(bench)
    before = picture(bench, 0)
    number = actor.sessions[b"client"].next
    body = messages.body("add_entry", "milk", None)
    epoch = bench.partition("a").epoch
    for client, its_number in ((b"client", number), (b"client", number + 1), (b"client", number - 1), (b"new", 2)):
        request = (1, "a", START_MS + 5_000, body, its_number, 1, epoch)
        assert not add_plainly(actor, ROUTER, client, request, START_MS)
    assert picture(bench, 0) == before


def test_a_list_that_is_read_again_before_it_changes_answers_the_short_way() -> None:
    bench = loaded()
    read = ("a", "entries_on", None, None)
    with taken() as took:
        first = bench.ask(*read, number=2)
        assert bench.ask(*read, number=2) == bench.ask(*read, client=b"another") == first
        bench.ask("a", "entries_on", "2026-12-01", None, number=2)
        bench.ask(*read, number=2)
    assert took == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("client", "number", "floor", "late"),
    [(b"client", 3, 1, False), (b"client", 2, 3, False), (b"client", 2, 1, True), (b"another", 2, 1, False)],
    ids=["a change before it has not come", "its floor is above it", "late", "of a client unknown"],
)
def test_a_read_whose_turn_it_is_not_is_left_as_it_was(client: bytes, number: int, floor: int, late: bool) -> None:
    bench = loaded()
    bench.ask("a", "entries", None, number=2)
    before = picture(bench, 0)
    deadline_ms = START_MS + (-1 if late else 5_000)
    body = messages.body("entries", None)
    request = (1, "a", deadline_ms, body, number, floor, bench.partition("a").epoch)
    assert not read_again(bench.actor("a"), ROUTER, client, request, START_MS)
    assert picture(bench, 0) == before


def test_a_turn_that_has_answered_enough_answers_no_more_the_short_way() -> None:
    bench = loaded()
    bench.ask("a", "entries", None, number=2)
    bench.hosting.snapshots.packed(TURN_ANSWER_BYTES)
    with taken() as took:
        bench.ask("a", "entries", None, number=2)
    assert took == [False]


def test_what_is_answered_again_counts_for_the_turn() -> None:
    bench = loaded()
    bench.ask("a", "entries", None, number=2)
    bytes_of = []
    for _ in range(2):
        before = bench.hosting.snapshots._turn_bytes
        bench.send("a", "entries", None, number=2)
        bytes_of.append(bench.hosting.snapshots._turn_bytes - before)
    with closed():
        bench.send("a", "entries", None, number=2)
    assert bytes_of[0] == bytes_of[1] == bench.hosting.snapshots._turn_bytes // 3 > 0


def test_a_read_of_what_is_not_on_disk_is_held_as_on_the_long_way() -> None:
    bench = loaded()
    bench.send("a", "add_entry", "bread", None, number=2)
    with taken() as took:
        reads = [bench.send("a", "entries", None, number=3) for _ in range(2)]
    bench.turn()
    assert took == [False, False]
    assert not bench.replies.keys() & set(reads)
    bench.settle()
    assert bench.answer(reads[0]) == bench.answer(reads[1])


def test_a_fault_on_the_short_way_is_met_again_on_the_long_one_and_ends_that_list_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = loaded()

    def broken(*_: object) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(short_ways, "entry_key", broken)
    assert bench.ask("a", "add_entry", "milk", None, number=2) == 2  # the long way has no such fault
    monkeypatch.setattr("todomq.list_server.records.entry_key", broken)
    crashed = bench.send("a", "add_entry", "milk", None, number=3)
    bench.turn()
    assert "crashed" in bench.error(crashed).text
    monkeypatch.undo()
    assert bench.ask("a", "add_entry", "milk", None, number=3) == 3
    assert bench.actor("a").state is READY
