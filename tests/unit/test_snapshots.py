"""Long reads in progress: how many are kept, and how much of a turn they may take (laws 5 and 6)."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from workbench import Bench, Client

from todomq.errors import Overloaded, Unavailable
from todomq.list_server.actor import ListActor
from todomq.list_server.snapshots import (
    KEPT_MS,
    LOOKED_AT_BYTES,
    REFUSAL_BYTES,
    REFUSED_BYTES,
    SHORT_MS,
    SNAPSHOTS,
    TURN_ANSWER_BYTES,
    Snapshots,
)

NOW_MS = 1_000_000
ACTIVATION = 7


def test_a_turn_that_has_packed_a_page_serves_no_more() -> None:
    snapshots = Snapshots()
    snapshots.packed(TURN_ANSWER_BYTES - 1)
    assert not snapshots.is_turn_full()
    snapshots.packed(1)
    assert snapshots.is_turn_full()
    snapshots.begin_turn()
    assert not snapshots.is_turn_full()


def test_a_turn_that_has_packed_enough_refuses_further_reads_until_the_next() -> None:
    snapshots = Snapshots()
    snapshots.packed(REFUSED_BYTES - 1)
    snapshots.check_room()
    snapshots.packed(1)
    with pytest.raises(Overloaded) as refused:
        snapshots.check_room()
    assert refused.value.retryable
    snapshots.begin_turn()
    snapshots.check_room()


def test_past_the_bound_a_new_read_is_refused_and_those_under_way_go_on() -> None:
    snapshots = Snapshots()
    kept = [snapshots.keep((), ACTIVATION) for _ in range(SNAPSHOTS)]
    for _ in range(2 * SNAPSHOTS):
        with pytest.raises(Overloaded) as refused:
            snapshots.keep((), ACTIVATION)
        assert refused.value.retryable
    assert all(snapshots.get(number, ACTIVATION) == () for number in kept)


def test_who_leaves_reads_where_they_are_keeps_nobody_else_from_reading() -> None:
    snapshots = Snapshots()
    snapshots.tick(NOW_MS)
    left = [snapshots.keep((), ACTIVATION) for _ in range(SNAPSHOTS)]
    snapshots.tick(NOW_MS + SHORT_MS)
    assert snapshots.get(left[0], ACTIVATION) == ()  # goes on
    with pytest.raises(Overloaded):
        snapshots.check_place()
    snapshots.tick(NOW_MS + SHORT_MS + 1)
    begun = [snapshots.keep((), ACTIVATION) for _ in range(SNAPSHOTS - 1)]
    with pytest.raises(Overloaded):
        snapshots.check_place()
    assert all(snapshots.get(number, ACTIVATION) == () for number in [left[0], *begun])
    assert all(snapshots.get(number, ACTIVATION) is None for number in left[1:])


def test_refused_reads_fill_a_turn_too_the_sooner_the_more_was_looked_at() -> None:
    snapshots = Snapshots()
    for _ in range(SNAPSHOTS):
        snapshots.keep((), ACTIVATION)
    for looked_at, size in ((True, LOOKED_AT_BYTES), (False, REFUSAL_BYTES)):
        snapshots.begin_turn()
        for _ in range(TURN_ANSWER_BYTES // size):
            assert not snapshots.is_turn_full()
            with pytest.raises(Overloaded):
                snapshots.keep((), ACTIVATION) if looked_at else snapshots.check_place()
        assert snapshots.is_turn_full()


def test_a_read_that_nobody_goes_on_with_is_given_up_and_one_that_is_asked_for_is_not() -> None:
    snapshots = Snapshots()
    snapshots.tick(NOW_MS)
    left, read = snapshots.keep((), ACTIVATION), snapshots.keep((), ACTIVATION)
    snapshots.tick(NOW_MS + KEPT_MS)
    assert snapshots.get(read, ACTIVATION) == ()
    snapshots.tick(NOW_MS + KEPT_MS + 1)
    assert snapshots.get(left, ACTIVATION) is None
    assert snapshots.get(read, ACTIVATION) == ()


def test_a_read_that_has_ended_is_kept_for_a_while_unless_another_needs_its_place() -> None:
    snapshots = Snapshots()
    snapshots.tick(NOW_MS)
    ended, also_ended = snapshots.keep((), ACTIVATION), snapshots.keep((), ACTIVATION)
    for number in (ended, also_ended, ended):
        assert snapshots.get(number, ACTIVATION) == ()
        snapshots.end(number)
    for _ in range(SNAPSHOTS - 1):
        snapshots.keep((), ACTIVATION)
    assert snapshots.get(also_ended, ACTIVATION) is None, "it was asked for before the other"
    assert snapshots.get(ended, ACTIVATION) == ()
    snapshots.end(ended)
    snapshots.tick(NOW_MS + KEPT_MS + 1)
    assert snapshots.get(ended, ACTIVATION) is None


def test_a_read_that_another_goes_on_with_has_not_ended() -> None:
    snapshots = Snapshots()
    shared = snapshots.keep((), ACTIVATION)
    snapshots.end(shared)
    assert snapshots.get(shared, ACTIVATION) == ()
    for _ in range(SNAPSHOTS - 1):
        snapshots.keep((), ACTIVATION)
    with pytest.raises(Overloaded):
        snapshots.check_place()
    assert snapshots.get(shared, ACTIVATION) == ()


def test_however_many_read_a_long_list_in_turns_each_comes_to_its_end() -> None:
    bench, client = Bench(page=100), Client()
    for _ in range(80):
        client.change(bench, "a", "add_entry", "x" * 10_000)
    readers = [bench_reader(bench, client) for _ in range(3 * SNAPSHOTS)]
    for turn in range(20):
        for reader in list(readers):
            client.change(bench, "a", "update_entry", 1, {"title": f"{turn}, so that nothing is shared"})
            if next(reader):
                readers.remove(reader)
    assert not readers


def test_whoever_reads_a_list_that_has_not_changed_meanwhile_shares_what_is_kept_of_it() -> None:
    bench, client = Bench(page=100), Client()
    for _ in range(80):
        client.change(bench, "a", "add_entry", "x" * 10_000)
    readers = [bench_reader(bench, client) for _ in range(3 * SNAPSHOTS)]
    assert not any(map(next, readers))
    client.change(bench, "a", "add_entry", "later")
    assert len(client.read(bench, "a", "entries")[0]) < 80
    ends = [[*reader] for reader in readers]
    assert {len(end) for end in ends} == {len(ends[0])}, "none had to begin anew"


def test_a_long_read_begins_with_the_list_as_it_is() -> None:
    bench, client = Bench(page=100), Client()
    for _ in range(80):
        client.change(bench, "a", "add_entry", "x" * 10_000)
    first, cursor = client.read(bench, "a", "entries")
    client.change(bench, "a", "update_entry", 1, {"title": "changed"})
    assert client.read(bench, "a", "entries")[0][0][1] == "changed"
    client.change(bench, "a", "delete_entry", 1)
    assert client.read(bench, "a", "entries")[0][0][0] == 2
    assert client.read(bench, "a", "entries", cursor)[0][0][0] == first[-1][0] + 1
    for added in range(81, 84):
        client.change(bench, "a", "add_entry", "on the short way", None)
        assert client.entries(bench, "a")[-1][0] == added


def bench_reader(bench: Bench, client: Client) -> Iterator[bool]:
    """Read the list as a client does: refused for now it asks again, and anew where the rest is gone."""
    seen: list[int] = []
    cursor = None
    while True:
        try:
            page, cursor = client.read(bench, "a", "entries", cursor)
        except Overloaded:
            pass
        except Unavailable:
            seen, cursor = [], None
        else:
            seen += [entry[0] for entry in page]
            if cursor is None:
                break
        yield False
    assert seen == list(range(1, 81))
    yield True


def test_a_read_under_way_holds_no_list_that_has_been_dropped() -> None:
    bench, client = Bench(page=100, idle_ms=1_000), Client()
    for _ in range(60):
        client.change(bench, "dropped meanwhile", "add_entry", "x" * 10_000)
    _, cursor = client.read(bench, "dropped meanwhile", "entries")
    bench.settle_with_ticks(lambda: bench.hosting.lists == 0)
    assert not [each for each in gc.get_objects() if type(each) is ListActor and each.name == "dropped meanwhile"]
    with pytest.raises(Unavailable, match="from the first page"):
        client.read(bench, "dropped meanwhile", "entries", cursor)
