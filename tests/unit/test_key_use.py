"""The share of one key: requests per second and in flight, connections, stored lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todomq.errors import Overloaded
from todomq.keys.rights import Rights
from todomq.keys.store import ClientKey, Quota
from todomq.protocol import messages
from todomq.protocol.codec import pack
from todomq.router.key_use import COUNT_AGAIN_MS, UNCERTAIN_MS, KeyUse, Rate, Room, StoredLists
from todomq.router.list_count import ListCount


def use_of(**quota: int) -> KeyUse:
    return KeyUse(ClientKey("alice", "A" * 40, Rights(["read"], ["a*"]), Quota(**quota)), 0)


@pytest.mark.parametrize(
    "answer",
    [*map(pack, (5, {}, [5, None], [[5], None], [[["x"]], None])), b"\xc1", b"\x92\x90" + b"\x91" * 1_000],
)
def test_a_count_of_lists_that_is_answered_with_nonsense_ends_and_nothing_else(answer: bytes) -> None:
    asked = list[Any]()
    lists = StoredLists()
    lists.begin_count_if_due(0)
    count = ListCount(lists, ["a*"], 1, lambda: 10, lambda _, request: asked.append(request))
    count.take_replies([(1, messages.OK, answer)])
    assert not lists.is_counted and not asked
    assert lists.begin_count_if_due(10 + COUNT_AGAIN_MS)


def test_a_count_that_was_begun_under_other_patterns_does_not_count_for_those_of_now() -> None:
    use, asked = use_of(lists=1), list[Any]()
    use.lists.begin_count_if_due(0)
    count = ListCount(use.lists, ["a*"], 1, lambda: 10, lambda _, request: asked.append(request))
    use.learn(ClientKey("alice", "A" * 40, Rights(["read"], ["b*"]), Quota(lists=1)), 5)
    count.take_replies([(1, messages.OK, pack([[], None]))])
    assert not use.lists.is_counted


@given(st.lists(st.integers(-50, 500), max_size=200))
def test_no_second_has_more_than_its_rate_and_what_was_saved(steps: list[int]) -> None:
    rate, now_ms, taken_ms = Rate(10, 10, 0), 0, []
    for step in steps:
        now_ms = max(0, now_ms + step)
        if rate.take(now_ms):
            taken_ms.append(now_ms)
    span_s = sum(max(0, step) for step in steps) / 1000
    assert len(taken_ms) <= 10 + 10 * span_s + 1


def test_a_rate_is_for_ever_renewed() -> None:
    rate = Rate(10, 10, 0)
    assert sum(rate.take(0) for _ in range(20)) == 10
    assert sum(rate.take(1_000) for _ in range(20)) == 10


def test_room_counts_over_all_connections() -> None:
    use = use_of(requests_in_flight=5, bytes_in_flight=1_000)
    use.connections = {b"1", b"2"}
    room = use.room(lambda connection: (2, 100))
    room.take(100)
    with pytest.raises(Overloaded, match="5 requests"):
        room.take(100)
    with pytest.raises(Overloaded, match="bytes"):
        Room(0, 2, 1_000, 950).take(51)


def test_bytes_in_flight_count_over_all_connections_too() -> None:
    use = use_of(requests_in_flight=0, bytes_in_flight=1_000)
    use.connections = {b"1", b"2"}
    use.room(lambda connection: (2, 400)).take(200)
    with pytest.raises(Overloaded, match="bytes"):
        use.room(lambda connection: (2, 400)).take(201)


def test_a_connection_that_ended_makes_room_once_nothing_of_it_is_in_flight() -> None:
    use = use_of(connections=2)
    over: set[bytes] = set()
    shares = {b"1": 1}

    def join(connection: bytes) -> None:
        use.join(connection, lambda each: (shares.get(each, 0), 0), over.__contains__)

    for each in (b"1", b"2", b"1"):
        join(each)
    with pytest.raises(Overloaded):
        join(b"3")
    over.add(b"1")
    with pytest.raises(Overloaded):
        join(b"3")
    shares[b"1"] = 0
    join(b"3")
    assert use.connections == {b"2", b"3"}


def test_a_quota_that_changed_holds_from_then_on() -> None:
    use = use_of()
    use.take_request(0)
    use.learn(ClientKey("alice", "A" * 40, Rights(["read"], ["a*"]), Quota(requests_per_s=1)), 0)
    use.take_request(0)
    with pytest.raises(Overloaded):
        use.take_request(0)


def test_handshakes_are_bounded_in_time() -> None:
    use = use_of()
    assert 100 < sum(use.take_handshake(0) for _ in range(1_000)) < 200
    assert sum(use.take_handshake(1_000) for _ in range(1_000)) < 64


def test_a_name_counts_from_its_first_add_until_a_count_well_after_it_does_not_find_it() -> None:
    lists = StoredLists()
    assert lists.begin_count_if_due(0) and not lists.begin_count_if_due(1)
    lists.counted(["a"], 10)
    assert lists.count_if_room("a", 2, 20) and lists.count_if_room("b", 2, 20) and not lists.count_if_room("c", 2, 20)
    assert not lists.begin_count_if_due(10 + COUNT_AGAIN_MS - 1) and lists.begin_count_if_due(10 + COUNT_AGAIN_MS)
    lists.counted([], 2_000)  # both are gone, or are about to come to be
    assert not lists.count_if_room("c", 2, 2_000)
    assert lists.begin_count_if_due(20 + UNCERTAIN_MS + 1)
    lists.counted([], 20 + UNCERTAIN_MS + 2)
    assert lists.count_if_room("c", 2, 20 + UNCERTAIN_MS + 3)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 70_000), st.booleans(), st.integers(0, 60_000))),
    st.integers(1, 4),
)
def test_by_no_timing_are_there_more_lists_than_the_quota(
    steps: list[tuple[str, int, bool, int]], most: int
) -> None:
    """An add that was let through takes effect within its 60 s, whenever that is; a count sees what is there then."""
    lists, stored, under_way, now_ms = StoredLists(), set[str](), list[tuple[int, str]](), 0
    lists.begin_count_if_due(0)
    lists.counted([], 0)
    for name, step_ms, counts, delay_ms in steps:
        now_ms += step_ms
        stored |= {each for due_ms, each in under_way if due_ms <= now_ms}
        under_way = [item for item in under_way if item[0] > now_ms]
        if counts and lists.begin_count_if_due(now_ms):
            lists.counted(list(stored), now_ms)
        if name in stored or lists.count_if_room(name, most, now_ms):
            under_way.append((now_ms + delay_ms, name))
        assert len(stored | {each for _, each in under_way}) <= most


def test_where_the_patterns_or_the_quota_of_lists_change_the_lists_are_counted_anew() -> None:
    use = use_of(lists=5)
    for patterns, most in ((["a*"], 5), (["*"], 5), (["*"], 0), (["*"], 5)):
        counted = use.lists
        changed = ClientKey("alice", "A" * 40, Rights(["read"], patterns), Quota(lists=most))
        use.learn(changed, 0)
        assert (use.lists is counted) == ((patterns, most) == (["a*"], 5))
        use.learn(changed, 0)
        assert use.lists is use.lists
