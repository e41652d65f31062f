"""Requests in flight: limits per client and in all, deadlines, ids that are renewed (law 6)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todomq.errors import Overloaded
from todomq.protocol import limits
from todomq.router import in_flight
from todomq.router.in_flight import BYTES_PER_CONNECTION, Crowded, InFlight


def request(deadline_ms: int = 1_000, size: int = 0, identifier: int | None = 1) -> list[Any]:
    return [identifier, "a", deadline_ms, bytes(size), 1, 1]


def admit(flights: InFlight, peer: bytes = b"peer", **fields: Any) -> int:
    return flights.admit(peer, b"sender", request(**fields), 7)


def test_a_request_is_in_flight_until_it_ends_and_ends_once() -> None:
    flights = InFlight()
    identifier = admit(flights)
    flight = flights.end(identifier)
    assert flight is not None
    assert (flight.peer, flight.sender, flight.place) == (b"peer", b"sender", 7)
    assert flights.end(identifier) is None


def test_ids_are_the_routers_own_and_never_given_twice() -> None:
    flights = InFlight()
    first = admit(flights)
    flights.end(first)
    assert admit(flights) > first


def test_a_renewed_request_keeps_its_order_and_its_old_id_finds_nothing() -> None:
    flights = InFlight()
    first, second = admit(flights), admit(flights)
    fresh = flights.renew(first)
    assert flights.end(first) is None
    assert flights.flights[fresh].order < flights.flights[second].order
    assert flights.end(fresh) is not None


def test_it_is_known_which_requests_somebody_got_before() -> None:
    flights = InFlight()
    sent, waiting = admit(flights), admit(flights)
    flights.unsent.add(waiting)
    sent, waiting = flights.renew(sent), flights.renew(waiting)
    assert (flights.sent_before, flights.unsent) == ({sent}, {waiting})
    flights.unsent.add(sent)  # it waits this time, and was sent the time before
    sent = flights.renew(sent)
    assert flights.sent_before == {sent}
    flights.end(sent)
    flights.end(waiting)
    assert not flights.sent_before and not flights.unsent


def test_one_client_may_have_so_many_requests_and_others_have_room_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "REQUESTS_PER_CONNECTION", 3)
    flights = InFlight()
    held = [admit(flights) for _ in range(3)]
    with pytest.raises(Overloaded, match="this connection"):
        admit(flights)
    admit(flights, peer=b"other")
    flights.end(held[0])
    admit(flights)


def test_one_client_may_have_so_many_bytes() -> None:
    flights = InFlight()
    for _ in range(BYTES_PER_CONNECTION // limits.MIB - 1):
        admit(flights, size=limits.MIB)
    with pytest.raises(Overloaded, match="this connection"):
        admit(flights, size=limits.MIB)
    admit(flights, size=limits.KIB)


def test_all_clients_together_may_have_so_many_requests_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "REQUESTS", 2)
    flights = InFlight()
    flights.admit(b"one", b"sender", request(), 7)
    flights.admit(b"two", b"sender", request(), 8)
    with pytest.raises(Overloaded, match="the router"):
        admit(flights, peer=b"three")
    monkeypatch.setattr(in_flight, "REQUESTS", 9)
    monkeypatch.setattr(in_flight, "BYTES", flights.bytes + 100)
    with pytest.raises(Overloaded, match="the router"):
        admit(flights, peer=b"three", size=100)


def test_a_refused_request_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "REQUESTS_PER_CONNECTION", 1)
    flights = InFlight()
    identifier = admit(flights)
    with pytest.raises(Overloaded):
        admit(flights)
    assert list(flights.flights) == [identifier]
    flights.end(identifier)
    assert flights.bytes == 0


def test_requests_past_their_deadline_are_named_and_the_others_are_not() -> None:
    flights = InFlight()
    early, late = admit(flights, deadline_ms=100), admit(flights, deadline_ms=200)
    assert flights.expire(99) == []
    assert flights.expire(100) == [early]
    flights.end(early)
    assert flights.expire(199) == []
    assert flights.expire(10_000) == [late]


def test_a_deadline_is_kept_whatever_id_the_request_has_by_then() -> None:
    flights = InFlight()
    fresh = flights.renew(admit(flights, deadline_ms=100))
    assert flights.expire(100) == [fresh]


def test_an_early_deadline_that_comes_after_a_late_one_is_kept() -> None:
    flights = InFlight()
    admit(flights, deadline_ms=50_000)
    assert flights.expire(10) == []
    early = admit(flights, deadline_ms=100)
    assert flights.expire(150) == [early]


def test_what_was_answered_leaves_nothing_behind() -> None:
    flights = InFlight()
    for _ in range(1_000):
        flights.end(admit(flights, deadline_ms=60_000))
    flights.expire(10)
    held = {name: value for name, value in vars(flights).items() if hasattr(value, "__len__")}
    assert all(len(value) == 0 for value in held.values()), held
    assert flights.bytes == 0


@given(st.lists(st.tuples(st.sampled_from(["admit", "end", "renew", "expire"]), st.integers(0, 400)), max_size=60))
def test_whatever_happens_the_requests_that_are_late_are_those_named(steps: list[tuple[str, int]]) -> None:
    flights = InFlight()
    deadlines: dict[int, int] = {}
    now_ms = 0
    for step, value in steps:
        if step == "admit":
            deadlines[admit(flights, deadline_ms=now_ms + 1 + value, size=value)] = now_ms + 1 + value
        elif step == "expire":
            now_ms += value
            late = flights.expire(now_ms)
            assert sorted(late) == sorted(each for each, deadline_ms in deadlines.items() if deadline_ms <= now_ms)
            for identifier in late:
                flights.end(identifier)
                del deadlines[identifier]
        elif deadlines:
            identifier = sorted(deadlines)[value % len(deadlines)]
            deadline_ms = deadlines.pop(identifier)
            if step == "end":
                assert flights.end(identifier) is not None
            else:
                deadlines[flights.renew(identifier)] = deadline_ms
    assert set(flights.flights) == set(deadlines)
    assert flights.bytes == sum(flight.size for flight in flights.flights.values())


def test_requests_of_several_clients_that_end_together_count_for_nothing_any_more() -> None:
    flights = InFlight()
    identifiers = [admit(flights, peer=peer) for peer in (b"one", b"two", b"one", b"one")]
    named = flights.admit(b"two", b"sender", [9, [["cache"]], 60_000, b"", 0, 0], b"cache")
    flights.unsent.add(identifiers[1])
    ended = flights.end_all([identifiers[0], 10_000, identifiers[1], identifiers[0], named])
    assert [flight and flight.peer for flight in ended] == [b"one", None, b"two", None, b"two"]
    assert flights.share(b"one") == (2, flights.bytes) and flights.share(b"two") == (0, 0)
    assert flights.to_lists(b"one") == 2 and not flights.unsent
    flights.end_all(identifiers)
    assert flights.bytes == 0 and not flights.flights


def test_law_6_what_goes_to_daemons_by_name_leaves_half_of_the_room_to_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "REQUESTS", 10)
    flights = InFlight()
    request = [1, ["job"], 1_000, b"", 1, 1]
    for number in range(5):
        flights.admit(b"%d" % number, b"sender", request, b"job")
    with pytest.raises(Crowded, match="by name"):
        flights.admit(b"another", b"sender", request, b"job")
    for number in range(5):
        flights.admit(b"%d" % number, b"sender", request, 7)
    with pytest.raises(Overloaded):
        flights.admit(b"another", b"sender", request, 7)


def test_law_6_the_bytes_for_daemons_by_name_leave_half_of_the_room_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "BYTES", 10 * limits.KIB)
    flights = InFlight()

    def admit_named(size: int) -> int:
        return flights.admit(b"peer", b"sender", [1, b"key", 1_000, bytes(size), 1, 0], b"worker")

    held = [admit_named(2 * limits.KIB) for _ in range(2)]
    with pytest.raises(Crowded, match="by name"):
        admit_named(limits.KIB)
    flights.admit(b"peer", b"sender", request(size=limits.KIB), 7)
    flights.end(held[0])
    admit_named(limits.KIB)


def two_servers(place: int | bytes) -> tuple[int | bytes, ...]:
    """Return the daemons of a stack of two list servers and one worker for the odd partitions, another for the even."""
    return (place,) if isinstance(place, bytes) else (b"worker %d" % (place % 2), place // 10)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> InFlight:
    """Return what is in flight when a list server (of the partitions below 10) has got as much as it may."""
    monkeypatch.setattr(in_flight, "REQUESTS", 16)
    flights = InFlight(two_servers)
    for number in range(12):
        flights.admit(b"%d" % number, b"sender", request(), number % 10)
    return flights


def test_law_5_what_waits_for_one_list_server_leaves_room_for_the_others(crowded: InFlight) -> None:
    for peer in (b"new", b"0"):
        with pytest.raises(Crowded):
            crowded.admit(peer, b"sender", request(), 3)
        assert crowded.admit_all(peer, b"sender", [request(), request()], [13, 3], [0, 0]) is None
    assert crowded.admit_all(b"new", b"sender", [request(), request()], [13, 14], [0, 0]) is not None
    crowded.admit(b"new", b"sender", request(), b"job")
    assert len(crowded.flights) == 15


def test_what_ends_makes_room_for_its_daemon_again(crowded: InFlight) -> None:
    crowded.end(min(crowded.flights))
    crowded.admit(b"new", b"sender", request(), 3)
    with pytest.raises(Crowded):
        crowded.admit(b"new", b"sender", request(), 3)
    crowded.end_all(list(crowded.flights))
    assert not crowded.by_daemon.are_counted, "nothing is counted where there is little"


def test_the_bytes_for_one_worker_have_a_limit_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "BYTES", 160 * limits.KIB)
    flights = InFlight(two_servers)
    for partition in (1, 13):
        flights.admit(b"peer", b"sender", request(size=60 * limits.KIB), partition)
    with pytest.raises(Crowded):
        flights.admit(b"peer", b"sender", request(), 15)
    flights.admit(b"peer", b"sender", request(), 14)


def test_after_a_move_requests_count_for_those_who_have_them_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "REQUESTS", 16)
    owner = {7: b"one", 8: b"two"}
    flights = InFlight(lambda place: (owner[place],) if type(place) is int else (place,))
    for number in range(12):
        flights.admit(b"%d" % number, b"sender", request(), 7)
    flights.admit(b"new", b"sender", request(), 8)
    owner.update({7: b"two", 8: b"one"})
    flights.by_daemon.forget()
    flights.admit(b"new", b"sender", request(), 8)
    with pytest.raises(Crowded):
        flights.admit(b"new", b"sender", request(), 7)


def test_law_6_nothing_is_kept_of_names_that_were_called_while_it_was_counted(crowded: InFlight) -> None:
    for number in range(100):
        name = b"name %d" % number
        crowded.end(crowded.admit(b"caller", b"sender", request(), name))
    kept = [value for value in vars(crowded.by_daemon).values() if isinstance(value, dict)]
    assert sum(map(len, kept)) < 20


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 25)), max_size=80))
def test_shares_are_those_of_what_is_in_flight(steps: list[tuple[bool, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_flight, "REQUESTS", 20)
        flights = InFlight(two_servers)
        for begins, value in steps:
            if begins:
                with suppress(Overloaded):
                    flights.admit(b"%d" % value, b"sender", request(), value)
            elif flights.flights:
                flights.end(sorted(flights.flights)[value % len(flights.flights)])
            for server in range(3):
                mine = sum(type(each.place) is int and each.place // 10 == server for each in flights.flights.values())
                assert mine <= 15
                if flights.by_daemon.are_counted:
                    assert flights.by_daemon.is_full(10 * server) == (mine >= 15 or _of_worker(flights, 0) >= 15)


def _of_worker(flights: InFlight, number: int) -> int:
    return sum(type(each.place) is int and each.place % 2 == number for each in flights.flights.values())
