"""Requests to daemons by name: what waits, what is sent again, what fails when the daemon dies."""

from __future__ import annotations

from itertools import chain

import pytest

from todomq.errors import NOT_APPLIED, UNKNOWN
from todomq.protocol import limits, messages
from todomq.router import named
from todomq.router.in_flight import InFlight
from todomq.router.named import NamedRouting

WORKER, JOB = b"worker", b"job"


class Bench:
    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.named = NamedRouting(self.in_flight)

    def ask(
        self, name: bytes, *, key: bool | bytes, present: bool = True, size: int = 0, sender: bytes = b"sender"
    ) -> int:
        target = [name] if not key else b"key" if key is True else key
        identifier = self.in_flight.admit(sender, sender, [1, target, 1_000, bytes(size), 1, 1], name)
        self.named.forward(identifier, name, present)
        return identifier

    def ready(self) -> dict[bytes, list[int]]:
        return {name: [identifier for identifier, _ in chain(*batches)] for name, batches in self.named.ready().items()}

    def ready_batches(self, name: bytes) -> list[list[int]]:
        return [[identifier for identifier, _ in batch] for batch in self.named.ready()[name]]


def test_a_request_goes_out_once_in_the_order_of_arrival() -> None:
    bench = Bench()
    first, second = bench.ask(WORKER, key=True), bench.ask(WORKER, key=False)
    assert bench.ready() == {WORKER: [first, second]}
    assert bench.ready() == {}


def test_a_request_for_a_name_that_is_not_there_waits_until_it_is() -> None:
    bench = Bench()
    waiting = [bench.ask(WORKER, key=True, present=False) for _ in range(3)]
    assert bench.ready() == {}
    assert bench.named.names_waited_for() == [WORKER]
    bench.named.found(WORKER)
    assert bench.ready() == {WORKER: waiting}
    assert bench.named.names_waited_for() == []


def test_what_waited_goes_out_before_what_comes_in_the_turn_in_which_the_daemon_is_found() -> None:
    bench = Bench()
    waited = [bench.ask(WORKER, key=True, present=False) for _ in range(2)]
    came = bench.ask(WORKER, key=True)
    bench.named.found(WORKER)
    assert bench.ready() == {WORKER: [*waited, came]}


def test_law_6_what_waited_for_a_daemon_leaves_in_messages_of_the_size_of_a_batch() -> None:
    bench = Bench()
    large = [bench.ask(WORKER, key=True, present=False, size=900_000) for _ in range(6)]
    small = [bench.ask(WORKER, key=True, present=False, size=limits.BATCH_BYTES // 3) for _ in range(5)]
    bench.named.found(WORKER)
    assert bench.ready_batches(WORKER) == [*([each] for each in large), small[:2], small[2:4], small[4:]]


def test_law_6_long_keys_count_for_the_size_of_a_message_as_well() -> None:
    bench = Bench()
    asked = [bench.ask(WORKER, key=bytes(limits.KEY_BYTES), present=False) for _ in range(3_000)]
    bench.named.found(WORKER)
    batches = bench.named.ready()[WORKER]
    assert [identifier for identifier, _ in chain(*batches)] == asked
    for batch in batches:
        message = messages.call(b"sender", [[identifier, *flight.request[1:]] for identifier, flight in batch])
        assert len(message) <= limits.BATCH_BYTES


def test_a_message_has_requests_of_one_sender_in_the_order_of_arrival() -> None:
    bench = Bench()
    first, second = (bench.ask(WORKER, key=True, sender=b"one") for _ in range(2))
    third = bench.ask(WORKER, key=True, sender=b"two")
    fourth = bench.ask(WORKER, key=True, sender=b"one")
    assert bench.ready_batches(WORKER) == [[first, second], [third], [fourth]]


def test_when_a_daemon_dies_requests_for_keys_wait_for_the_next_one_under_new_ids_and_in_order() -> None:
    bench = Bench()
    sent = [bench.ask(WORKER, key=True) for _ in range(3)]
    bench.ready()
    assert bench.named.lost(WORKER, comes_back=True) == []
    assert all(bench.in_flight.end(identifier) is None for identifier in sent), "an old answer finds no taker"
    bench.named.found(WORKER)
    again = bench.ready()[WORKER]
    assert [bench.in_flight.flights[identifier].order for identifier in again] == sent


def test_when_a_daemon_dies_requests_by_name_fail_with_an_unknown_outcome() -> None:
    bench = Bench()
    identifier = bench.ask(JOB, key=False)
    bench.ready()
    ((failed, error),) = bench.named.lost(JOB, comes_back=False)
    assert failed == identifier
    assert error.outcome == UNKNOWN
    assert error.code == "unavailable"


def test_requests_by_name_that_nobody_got_wait_for_a_daemon_that_comes_back_and_else_are_not_applied() -> None:
    bench = Bench()
    sent = bench.ask(WORKER, key=False)
    bench.ready()
    waiting = [bench.ask(WORKER, key=False, present=False), bench.ask(WORKER, key=False)]
    assert [identifier for identifier, _ in bench.named.lost(WORKER, comes_back=True)] == [sent]
    bench.in_flight.end(sent)
    bench.named.found(WORKER)
    assert [bench.in_flight.flights[identifier].order for identifier in bench.ready()[WORKER]] == waiting

    unasked = bench.ask(JOB, key=False, present=False)
    ((failed, error),) = bench.named.lost(JOB, comes_back=False)
    assert (failed, error.outcome, error.retryable) == (unasked, NOT_APPLIED, True)


def test_a_death_touches_no_request_for_another_daemon() -> None:
    bench = Bench()
    other = bench.ask(b"worker 2", key=True)
    bench.ask(WORKER, key=True)
    bench.named.lost(WORKER, comes_back=True)
    assert bench.ready() == {b"worker 2": [other]}


def test_what_was_to_go_out_in_the_turn_of_the_death_goes_out_once() -> None:
    bench = Bench()
    bench.ask(WORKER, key=True)
    bench.named.lost(WORKER, comes_back=True)
    bench.named.found(WORKER)
    assert len(bench.ready()[WORKER]) == 1


def test_two_deaths_in_a_row_lose_nothing() -> None:
    bench = Bench()
    order = [bench.ask(WORKER, key=True), bench.ask(WORKER, key=True)]
    bench.ready()
    bench.named.lost(WORKER, comes_back=True)
    order.append(bench.ask(WORKER, key=True, present=False))
    bench.named.lost(WORKER, comes_back=True)
    bench.named.found(WORKER)
    assert [bench.in_flight.flights[identifier].order for identifier in bench.ready()[WORKER]] == order


def test_a_request_that_ended_while_it_waited_is_not_sent() -> None:
    bench = Bench()
    bench.in_flight.end(bench.ask(WORKER, key=True, present=False))
    bench.named.found(WORKER)
    assert bench.ready() == {WORKER: []}


def test_a_name_that_never_comes_does_not_keep_the_ids_of_all_who_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "REQUESTS", 10)
    bench = Bench()
    for _ in range(1_000):
        bench.in_flight.end(bench.ask(WORKER, key=True, present=False))
    living = bench.ask(WORKER, key=True, present=False)
    assert len(bench.named._waiting[WORKER]) <= 20
    bench.named.found(WORKER)
    assert bench.ready() == {WORKER: [living]}


def test_law_6_a_name_that_nobody_waits_for_any_more_is_forgotten() -> None:
    bench = Bench()
    for number in range(10):
        bench.in_flight.end(bench.ask(b"%d" % number, key=False, present=False))
    kept = bench.ask(JOB, key=False, present=False)
    assert bench.named.names_waited_for() == [JOB]
    assert list(bench.named._waiting) == [JOB]
    assert bench.named.give_up(JOB, kept) == [kept]
