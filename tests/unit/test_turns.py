"""Who asks much leaves room for who asks little, in list servers (laws 5 and 6), in order (law 4)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from todomq.list_server import turns
from todomq.list_server.turns import TURN_REQUEST_BYTES, WAITING_BYTES, Turns


def request(identifier: int, size: int = 10) -> list[Any]:
    return [identifier, "a", 1_000, bytes(size), identifier, 1, 1]


def served(groups: list[turns.Group], sender: bytes) -> list[int]:
    return [each[0] for _, client, requests in groups if client == sender for each in requests]


class Server:
    """The part of a list server that decides when a request is served."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.served: list[turns.Group] = []

    def take(self, sender: bytes, requests: list[Any]) -> None:
        if self.turns.serve_or_queue(b"router", sender, requests):
            self.served.append((b"router", sender, requests))

    def turn(self) -> list[turns.Group]:
        done, self.served = [*self.served, *self.turns.end()], []
        return done


def test_what_fits_into_a_turn_is_served_as_it_came() -> None:
    server = Server()
    for sender in (b"a", b"b", b"a"):
        server.take(sender, [request(1), request(2)])
    assert server.turn() == [(b"router", sender, [request(1), request(2)]) for sender in (b"a", b"b", b"a")]
    assert server.turns.bytes == 0 and server.turn() == []


def test_who_asks_little_is_served_in_the_next_turn_whatever_waits_of_others() -> None:
    server = Server()
    server.take(b"flood", [request(n) for n in range(10_000)])
    server.turn()
    server.take(b"little", [request(1)])
    turn = server.turn()
    assert served(turn, b"little") == [1]
    assert served(turn, b"flood")  # and the flood goes on as well
    assert sum(len(each[3]) for _, _, requests in turn for each in requests) <= TURN_REQUEST_BYTES


def test_what_was_served_at_once_counts_for_the_turn() -> None:
    server = Server()
    server.take(b"first", [request(1, TURN_REQUEST_BYTES - 1_000)])
    server.take(b"second", [request(n, 1_000) for n in range(100)])
    assert len(served(server.turn(), b"second")) < 10
    assert len(served(server.turn(), b"second")) > 50


def test_a_large_request_is_paid_for_in_the_turns_after_it() -> None:
    server = Server()
    server.take(b"large", [request(1, TURN_REQUEST_BYTES), request(2, TURN_REQUEST_BYTES)])
    server.take(b"small", [request(n, 1_000) for n in range(100)])
    assert served(server.turn(), b"large") == [1]
    turn = server.turn()
    assert served(turn, b"large") == [] and len(served(turn, b"small")) > 50


def test_a_turn_that_is_stopped_serves_no_more_and_what_was_left_goes_first_of_its_client_only() -> None:
    server = Server()
    server.take(b"reads much", [request(n) for n in range(5)])
    server.turns.stop(b"router", b"reads much", [request(n) for n in range(2, 5)])
    server.served.clear()
    server.take(b"reads much", [request(5)])
    server.take(b"little", [request(1)])
    assert server.turn() == []
    of_first_turn = []
    for peer, sender, requests in server.turns.end():
        of_first_turn.append((sender, [each[0] for each in requests[:1]]))
        if sender == b"reads much":
            server.turns.stop(peer, sender, requests[1:])
    assert of_first_turn == [(b"reads much", [2])]
    assert [(sender, [each[0] for each in requests]) for _, sender, requests in server.turn()] == [
        (b"little", [1]),
        (b"reads much", [3, 4, 5]),
    ]
    assert server.turns.bytes == 0


def test_what_came_by_two_connections_of_a_client_stays_in_order() -> None:
    turns = Turns()
    turns.stop(b"router", b"client", [])
    for peer, identifier in ((b"old", 1), (b"old", 2), (b"new", 3)):
        turns.serve_or_queue(peer, b"client", [request(identifier)])
    assert list(turns.end()) == []
    assert [(peer, [each[0] for each in requests]) for peer, _, requests in turns.end()] == [
        (b"old", [1, 2]),
        (b"new", [3]),
    ]


def test_there_is_no_room_once_enough_waits_and_room_again_once_it_was_served() -> None:
    server = Server()
    server.take(b"flood", [request(n, 1_000_000) for n in range(10)])
    assert server.turns.room_bytes() <= 0
    while server.turns.bytes:
        server.turn()
    assert server.turns.room_bytes() == WAITING_BYTES


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.lists(st.integers(0, 100_000), max_size=30))))
def test_each_clients_requests_come_out_once_in_order_and_nothing_is_left(
    arriving: list[tuple[bytes, list[int]]],
) -> None:
    server, number = Server(), 0
    sent: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": []}
    got: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": []}
    taken = []
    for sender, sizes in arriving:
        server.take(sender, [request(number + at, size) for at, size in enumerate(sizes)])
        sent[sender] += range(number, number + len(sizes))
        number += len(sizes)
        if number % 3:
            taken.append(server.turn())
    while server.turns.bytes or server.served:
        taken.append(server.turn())
    for turn in taken:
        for sender in got:
            got[sender] += served(turn, sender)
    assert got == sent
