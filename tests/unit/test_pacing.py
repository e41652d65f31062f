"""Who asks much leaves room for who asks little, in the router (laws 5 and 6), in order (law 4)."""

from __future__ import annotations

from typing import Any

import pytest

from todomq.router import pacing
from todomq.router.in_flight import REQUESTS_PER_CONNECTION, InFlight
from todomq.router.pacing import Pacing


def request(identifier: int, size: int = 10) -> list[Any]:
    return [identifier, "a", 1_000, bytes(size), identifier, 1, 1]


class Router:
    """The part of a router that decides when an admitted request goes to a list server."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.deaf: set[bytes] = set()
        self.pacing = Pacing(self.in_flight, self.deaf.__contains__)
        self.sent: list[int] = []

    def ask(self, peer: bytes, count: int = 1) -> list[int]:
        is_held = self.pacing.note(peer, count)
        identifiers = [self.in_flight.admit(peer, peer, request(0), 7) for _ in range(count)]
        for identifier in identifiers:
            if is_held:
                self.pacing.hold(peer, identifier)
            else:
                self.sent.append(identifier)
        self.turn_ends()
        return identifiers

    def turn_ends(self) -> None:
        self.sent += [identifier for identifier, _ in self.pacing.released()]


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Router:
    monkeypatch.setattr(pacing, "IN_LIST_SERVERS", 20)
    monkeypatch.setattr(pacing, "LEAST", 4)
    return Router()


def test_who_is_alone_is_not_held_back(router: Router) -> None:
    assert router.ask(b"alone", 1_000) == router.sent


def test_who_asks_much_while_others_ask_has_only_its_part_under_way_and_the_rest_in_order(router: Router) -> None:
    router.ask(b"little")
    much = router.ask(b"much", 100)
    assert router.sent[1:] == much[:10]
    little = router.ask(b"little")
    assert router.sent[-1:] == little
    for at in range(100):
        router.in_flight.end(much[at])
        router.turn_ends()
    assert [each for each in router.sent if each in much] == much
    assert not router.pacing.held


def test_who_keeps_to_no_window_has_the_least_until_it_was_not_refused_for_two_ticks(router: Router) -> None:
    router.ask(b"little")
    router.pacing.overstepped(b"flood")
    flood = router.ask(b"flood", 100)
    assert router.sent[1:] == flood[:4]
    for _ in range(2):
        router.ask(b"little")
        router.ask(b"another")
        router.pacing.tick()
    assert [each for each in router.sent if each in flood] == flood[:4]
    router.ask(b"little")
    assert [each for each in router.sent if each in flood] == flood[:10]


def test_what_comes_behind_what_is_held_back_stays_behind_it(router: Router) -> None:
    router.ask(b"little")
    first = router.ask(b"much", 11)
    second = router.ask(b"much")
    for identifier in first:
        router.in_flight.end(identifier)
        router.turn_ends()
    assert router.sent[1:] == [*first, *second]


def test_what_ends_while_it_is_held_back_never_goes_out_and_holds_up_nothing(router: Router) -> None:
    router.ask(b"little")
    much = router.ask(b"much", 15)
    for identifier in (*much[:10], *much[10:14]):
        router.in_flight.end(identifier)
    router.turn_ends()
    assert router.sent[1:] == [*much[:10], much[14]]


def test_calls_to_named_daemons_take_nothing_of_a_clients_part(router: Router) -> None:
    router.ask(b"little")
    for _ in range(50):
        router.in_flight.admit(b"much", b"much", request(0), b"a daemon")
    assert router.ask(b"much", 10)[-1] in router.sent


def test_the_others_count_no_more_once_they_have_not_asked_for_two_ticks(router: Router) -> None:
    router.ask(b"little")
    much = router.ask(b"much", 100)
    for _ in range(2):
        router.pacing.tick()
    router.turn_ends()
    assert router.sent[1:] == much


def test_what_ended_while_it_was_held_back_makes_no_room_for_others_behind_it(router: Router) -> None:
    router.ask(b"little")
    router.ask(b"much", 8)
    for identifier in router.ask(b"much", 5):
        if identifier not in router.sent:
            router.in_flight.end(identifier)
    router.ask(b"much", 5)
    assert len(router.sent) == 1 + 10


def test_what_is_asked_by_who_does_not_read_waits_until_it_reads(router: Router) -> None:
    before = router.ask(b"alone", 3)
    router.deaf.add(b"alone")
    meanwhile = router.ask(b"alone", 3)
    for identifier in before:
        router.in_flight.end(identifier)
        router.turn_ends()
    assert router.sent == before
    router.deaf.clear()
    router.turn_ends()
    assert router.sent == [*before, *meanwhile]


def test_of_who_never_reads_no_more_is_kept_than_is_in_flight(router: Router) -> None:
    router.deaf.add(b"deaf")
    first = router.ask(b"deaf")
    for _ in range(3 * REQUESTS_PER_CONNECTION):
        router.in_flight.end(*router.ask(b"deaf"))
        assert router.pacing.held <= 2 * REQUESTS_PER_CONNECTION
    router.deaf.clear()
    router.turn_ends()
    assert router.sent == first
    assert not router.pacing.held
