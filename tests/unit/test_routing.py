"""The router's table: who gets a request, what waits, what is sent again, in which order (laws 2 and 4)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from todomq.protocol import limits
from todomq.router.in_flight import InFlight
from todomq.router.routing import Routing, Row


class Bench:
    """Routing with the requests it was given; ``out`` is what went to each list server, in order."""

    def __init__(self, *rows: tuple[int, Row]) -> None:
        self.in_flight = InFlight()
        self.routing = Routing(self.in_flight)
        self.sent = 0
        if rows:
            self.routing.learn(rows)

    def ask(self, partition: int = 0, sender: bytes = b"sender", size: int = 0) -> int:
        self.sent += 1
        request: list[Any] = [self.sent, f"list in {partition}", 60_000, bytes(size), self.sent, 1]
        identifier = self.in_flight.admit(b"peer", sender, request, partition)
        self.routing.forward(identifier, sender, request, partition)
        return identifier

    def out(self) -> dict[int, list[tuple[int, int, int]]]:
        """Return what leaves: (router's id, client's number, epoch) for each list server."""
        return {
            server: [
                (item[0], item[4], item[6]) for batch in batches for group in batch.groups.values() for item in group
            ]
            for server, batches in self.routing.ready().items()
        }

    def numbers_out(self) -> dict[int, list[int]]:
        return {server: [number for _, number, _ in items] for server, items in self.out().items()}


FIRST, SECOND = Row(1, b"one", 5), Row(2, b"two", 6)


def test_a_request_goes_to_the_owner_of_its_partition_under_its_epoch_once() -> None:
    bench = Bench((0, FIRST), (1, SECOND))
    first, second = bench.ask(0), bench.ask(1)
    assert bench.out() == {1: [(first, 1, 5)], 2: [(second, 2, 6)]}
    assert bench.out() == {}


def test_a_request_for_a_partition_without_an_owner_waits_until_it_has_one() -> None:
    bench = Bench()
    bench.ask(0)
    bench.ask(0)
    assert bench.out() == {}
    bench.routing.learn([(0, FIRST)])
    assert bench.numbers_out() == {1: [1, 2]}


def test_what_is_in_flight_goes_to_a_new_owner_in_order_and_the_old_ones_answer_finds_no_taker() -> None:
    bench = Bench((0, FIRST))
    asked = [bench.ask(0) for _ in range(3)]
    bench.out()
    bench.routing.learn([(0, SECOND)])
    bench.ask(0)
    assert bench.numbers_out() == {2: [1, 2, 3, 4]}
    assert all(bench.in_flight.end(identifier) is None for identifier in asked)
    assert bench.routing.sent_again == 3


def test_law_3_what_an_owner_got_before_is_told_from_what_only_waited() -> None:
    bench = Bench((0, FIRST))
    bench.ask(0)
    bench.out()
    bench.routing.server_lost(1)
    bench.ask(0)
    bench.routing.learn([(0, SECOND)])
    (first, _, _), (second, _, _) = bench.out()[2]
    assert bench.in_flight.sent_before == {first}
    assert second in bench.in_flight.flights


def test_requests_of_other_partitions_are_not_sent_again() -> None:
    bench = Bench((0, FIRST), (1, FIRST))
    bench.ask(0)
    stays = bench.ask(1)
    bench.out()
    bench.routing.learn([(0, SECOND)])
    assert bench.numbers_out() == {2: [1]}
    assert bench.in_flight.end(stays) is not None


def test_a_row_that_is_not_newer_is_ignored_and_whoever_told_it_hears_so() -> None:
    bench = Bench((0, SECOND))
    asked = bench.ask(0)
    bench.out()
    third = Row(3, b"three", SECOND.epoch)
    assert bench.routing.learn([(0, SECOND)]) == []
    assert bench.routing.learn([(0, FIRST), (0, third)]) == [(0, SECOND.epoch)] * 2
    assert bench.routing.table[0] == SECOND
    assert bench.out() == {}
    assert bench.in_flight.end(asked) is not None


def test_what_a_list_server_does_not_take_waits_for_a_newer_row_and_so_does_what_comes_after_it() -> None:
    bench = Bench((0, FIRST))
    first = bench.ask(0)
    bench.out()
    bench.routing.not_taken(first)
    bench.ask(0)
    assert bench.out() == {}
    bench.routing.learn([(0, SECOND)])
    assert bench.numbers_out() == {2: [1, 2]}


def test_a_late_word_that_a_request_was_not_taken_is_ignored_once_it_went_to_the_new_owner() -> None:
    bench = Bench((0, FIRST))
    first = bench.ask(0)
    bench.out()
    bench.routing.learn([(0, SECOND)])
    bench.out()
    bench.routing.not_taken(first)
    assert 0 not in bench.routing.moving
    bench.ask(0)
    assert bench.numbers_out() == {2: [2]}


def test_what_is_in_flight_to_a_lost_server_waits_and_goes_to_its_successor() -> None:
    bench = Bench((0, FIRST), (1, SECOND))
    bench.ask(0)
    bench.out()
    bench.routing.server_lost(1)
    bench.ask(0)
    bench.ask(1)
    assert bench.numbers_out() == {2: [3]}
    bench.routing.learn([(0, Row(2, b"two", 7))])
    assert bench.numbers_out() == {2: [1, 2]}


def test_what_is_in_flight_to_a_server_whose_connection_broke_is_sent_again_when_the_same_life_is_back() -> None:
    bench = Bench((0, FIRST), (1, SECOND))
    bench.ask(0)
    bench.out()
    bench.routing.server_lost(1)
    bench.routing.server_found(1, b"one")
    assert bench.numbers_out() == {1: [1]}
    assert 0 not in bench.routing.moving
    assert 1 not in bench.routing.moving


def test_another_life_of_a_list_server_gets_nothing_until_the_table_names_it() -> None:
    bench = Bench((0, FIRST))
    bench.ask(0)
    bench.out()
    bench.routing.server_lost(1)
    bench.routing.server_found(1, b"another life")
    assert bench.out() == {}
    bench.routing.learn([(0, Row(1, b"another life", 6))])
    assert bench.numbers_out() == {1: [1]}


def test_the_first_connection_to_a_server_sends_nothing_twice() -> None:
    bench = Bench((0, FIRST))
    asked = bench.ask(0)
    bench.routing.server_found(1, b"one")
    assert bench.out() == {1: [(asked, 1, 5)]}


def test_a_request_that_ended_is_not_sent_again() -> None:
    bench = Bench((0, FIRST))
    bench.in_flight.end(bench.ask(0))
    bench.out()
    bench.routing.learn([(0, SECOND)])
    assert bench.out() == {}


def test_requests_to_one_server_leave_grouped_by_sender_each_in_its_order() -> None:
    bench = Bench((0, FIRST))
    for place in range(6):
        bench.ask(0, sender=b"even" if place % 2 == 0 else b"odd")
    ((batch,),) = bench.routing.ready().values()
    assert {sender: [item[4] for item in group] for sender, group in batch.groups.items()} == {
        b"even": [1, 3, 5],
        b"odd": [2, 4, 6],
    }


def test_a_message_to_a_server_is_closed_at_the_size_of_a_batch_and_the_next_one_goes_on() -> None:
    bench = Bench((0, FIRST))
    for _ in range(12):
        bench.ask(0, size=100_000)
    (batches,) = bench.routing.ready().values()
    assert len(batches) > 1
    assert all(batch.bytes <= limits.BATCH_BYTES for batch in batches)
    assert [item[4] for batch in batches for item in batch.groups[b"sender"]] == list(range(1, 13))


def test_one_request_over_the_size_of_a_batch_leaves_alone() -> None:
    bench = Bench((0, FIRST))
    bench.ask(0, size=limits.REQUEST_BYTES)
    bench.ask(0)
    (batches,) = bench.routing.ready().values()
    assert [len(batch.groups[b"sender"]) for batch in batches] == [1, 1]


STEPS = st.tuples(
    st.sampled_from(["ask", "flush", "answer", "learn", "lost", "found", "not taken"]),
    st.integers(0, 3),
    st.integers(1, 2),
)


@given(st.lists(STEPS, max_size=60))
def test_whatever_moved_before_the_last_owner_gets_a_partitions_unanswered_requests_in_the_order_sent(
    steps: list[tuple[str, int, int]],
) -> None:
    bench = Bench()
    routing, flights = bench.routing, bench.in_flight
    epoch = 0
    for step, partition, server in steps:
        if step == "ask":
            bench.ask(partition)
        elif step == "flush":
            bench.out()
        elif step == "answer" and flights.flights:
            flights.end(min(flights.flights))
        elif step == "learn":
            epoch += 1
            routing.learn([(partition, Row(server, b"one", epoch))])
        elif step == "lost":
            routing.server_lost(server)
        elif step == "found":
            routing.server_found(server, b"one")
        elif step == "not taken" and flights.flights:
            routing.not_taken(min(flights.flights))
    routing.learn([(partition, Row(3, b"three", epoch + 1)) for partition in range(4)])
    sent = [number for identifier, number, _ in bench.out().get(3, []) if identifier in flights.flights]
    for partition in range(4):
        left = [flight.request[4] for flight in flights.flights.values() if flight.place == partition]
        assert [number for number in sent if number in left] == sorted(left)
    assert not routing.moving & set(range(4))
