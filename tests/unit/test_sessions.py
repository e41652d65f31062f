"""One client's session with one list: once, in order, bounded (laws 3, 4 and 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todomq.errors import Overloaded, ProtocolError
from todomq.list_server import records
from todomq.list_server.sessions import ANSWERS, ANSWERS_BYTES, WAITING_REQUESTS, Session
from todomq.protocol import limits, messages


def test_a_number_taken_is_answered_again_with_the_same_answer() -> None:
    session = Session(1, 0)
    session.took(1, messages.OK, b"one", 10)
    session.took(2, messages.ERROR, b"two", 20)
    assert session.next == 3
    assert session.used_ms == 20
    assert session.answered(1) == (messages.OK, b"one")
    assert session.answered(2) == (messages.ERROR, b"two")


def test_an_answer_below_the_floor_is_forgotten_and_asking_for_it_is_an_error() -> None:
    session = Session(1, 0)
    for number in (1, 2, 3):
        session.took(number, messages.OK, b"x" * number, 0)
    session.declare(3)
    assert session.answers == [(3, messages.OK, b"xxx")]
    assert session.answer_bytes == 3
    with pytest.raises(ProtocolError, match="change 2 "):
        session.answered(2)


def test_the_floor_skips_numbers_that_were_given_up_and_never_goes_back() -> None:
    session = Session(1, 0)
    session.declare(7)
    session.declare(3)
    assert session.next == 7


def test_numbers_that_were_given_up_are_not_taken_until_one_above_them_is() -> None:
    session = Session(1, 0)
    session.took(1, messages.OK, b"", 0)
    session.declare(4)
    session.declare(7)
    assert [session.has_taken(number) for number in (1, 2, 6, 7)] == [True, False, False, False]
    session.took(7, messages.OK, b"", 0)
    assert [session.has_taken(number) for number in (2, 7, 8)] == [True, True, False]


def test_what_waits_comes_out_in_the_order_of_its_turn_reads_before_the_change_that_takes_their_number() -> None:
    session = Session(1, 0)
    for number, request in ((3, "change 3"), (2, "read at 2"), (2, "change 2"), (4, "read at 4")):
        session.wait(number, 0, request)
    assert session.next_in_order() is None
    session.took(1, messages.OK, b"", 0)
    assert session.next_in_order() == "read at 2"
    assert session.next_in_order() == "change 2"
    assert session.next_in_order() is None
    session.took(2, messages.OK, b"", 0)
    assert session.next_in_order() == "change 3"
    session.took(3, messages.OK, b"", 0)
    assert session.next_in_order() == "read at 4"
    assert session.next_in_order() is None
    assert session.waiting is None


@given(st.lists(st.integers(2, 9), max_size=30))
def test_any_arrival_comes_out_by_number_and_then_by_arrival(numbers: list[int]) -> None:
    session = Session(1, 0)
    for place, number in enumerate(numbers):
        session.wait(number, 0, (number, place))
    session.declare(9)
    out = [session.next_in_order() for _ in numbers]
    assert out == sorted((number, place) for place, number in enumerate(numbers))
    assert session.next_in_order() is None


def test_waiting_is_bounded() -> None:
    session = Session(1, 0)
    for number in range(WAITING_REQUESTS):
        session.wait(number + 2, 0, number)
    with pytest.raises(Overloaded):
        session.wait(2, 0, "one more")


def test_only_what_has_waited_too_long_is_given_back() -> None:
    session = Session(1, 0)
    session.wait(2, 0, "early")
    session.wait(3, 100, "late")
    assert session.waited_too_long(limits.GAP_MS - 1) == []
    assert session.waited_too_long(limits.GAP_MS) == ["early"]
    assert session.waiting == [(3, 100, "late")]
    assert session.waited_too_long(1_000) == ["late"]
    assert session.waiting is None


def test_what_waits_is_given_back_though_the_clock_was_set_back() -> None:
    session = Session(1, 0)
    session.wait(2, 3_600_000, "early")
    assert session.waited_too_long(0) == ["early"]


def test_answers_are_bounded_in_bytes_until_the_client_declares_them_received() -> None:
    session = Session(1, 0)
    session.took(1, messages.OK, b"x" * (ANSWERS_BYTES + 1), 0)
    with pytest.raises(Overloaded, match="raise the floor"):
        session.check_room()
    session.declare(2)
    session.check_room()


def test_answers_are_bounded_in_number_so_that_their_record_can_always_be_read_again() -> None:
    session = Session(1, 0)
    for number in range(1, ANSWERS + 1):
        session.check_room()
        session.took(number, messages.OK, b"\xc0", 0)
    with pytest.raises(Overloaded):
        session.check_room()
    assert ANSWERS * 2 < limits.DECODED_ITEMS
    record = records.read_session("a", b"c", records.pack_session(session.next, 0, session.answers))
    assert Session.stored(record.next_number, 0, record.answers).answers == session.answers


def test_a_session_read_again_counts_the_bytes_of_its_answers() -> None:
    session = Session.stored(3, 0, [(1, messages.OK, b"xx"), (2, messages.OK, b"yyy")])
    assert session.answer_bytes == 5
