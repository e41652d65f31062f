"""Requests in flight: limits per client and in all, deadlines, ids that are renewed (law 6)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todomq.errors import Overloaded
from todomq.protocol import limits
from todomq.router import in_flight
from todomq.router.in_flight import BYTES_PER_CONNECTION, InFlight


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
    admit(flights, peer=b"one")
    admit(flights, peer=b"two")
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
    with pytest.raises(Overloaded, match="by name"):
        flights.admit(b"another", b"sender", request, b"job")
    for number in range(5):
        flights.admit(b"%d" % number, b"sender", request, 7)
    with pytest.raises(Overloaded):
        flights.admit(b"another", b"sender", request, 7)
