"""The client's session against scripted answers, and against a model of the service that loses, repeats and refuses.

No sockets, no threads, no clock: time is a number.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from todomq.client.greeting import SILENCE_MS, WINDOW_REQUESTS
from todomq.client.numbers import Counter, Counters
from todomq.client.request import CALL, KEY_CHANGE, LIST_CHANGE, LIST_READ, REPEATABLE, SAFE, Kind, Request
from todomq.client.session import (
    BACKOFF_MOST_MS,
    FILLED_MOST,
    OVERLOADED_MOST_MS,
    REPEATABLE_MS,
    RouterSilent,
    Session,
)
from todomq.errors import (
    NOT_APPLIED,
    UNKNOWN,
    DeadlineExceeded,
    EntryNotFound,
    InvalidRequest,
    OutOfOrder,
    Overloaded,
    ProtocolError,
    TodoMQError,
    Unavailable,
)
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack, unpack

ROUTER_CLOCK_MS = 1_800_000_000_000
START_MS = 1_000
FOREVER_MS = 60_000


def request(
    kind: Kind = LIST_CHANGE, target: Any = "list", *, deadline_ms: int = FOREVER_MS, **more: Any
) -> Request[Any]:
    body = more.pop("body", messages.body("add_entry", "milk"))
    made: Request[Any] = Request(kind, target, body, lambda value: value, **more)
    made.deadline_ms = deadline_ms
    return made


class Driver:
    """Drives a session by hand, as the connection does, with the router's side in the test's hands."""

    def __init__(self, **more: Any) -> None:
        self.now = START_MS
        self.session = Session(b"c" * 16, lambda: 0.0, **more)
        self.finished: list[Request[Any]] = []

    def greet(self, window: int | None = None) -> None:
        self.session.connected(self.now)
        (hello,) = self.sent()
        assert hello[:3] == [0, None, 0]
        greeting = [messages.VERSION, ROUTER_CLOCK_MS + self.now, b"i"]
        self.reply((0, messages.OK, pack(greeting if window is None else [*greeting, window])))

    def submit(self, *requests: Request[Any]) -> None:
        self.session.submit(requests)

    def messages(self) -> list[list[Any]]:
        """Return the requests of each message that the session sends now."""
        found = []
        while (data := self.session.take_message(self.now)) is not None:
            assert len(data) <= limits.TRANSPORT_BYTES
            kind, fields = messages.read(data)
            assert kind == "call"
            sender, requests = messages.read_call(fields)
            assert sender == b"c" * 16
            assert all(messages.is_request(item) for item in requests)
            found.append([list(request) for request in requests])
        self.finished += self.session.take_finished()
        return found

    def sent(self) -> list[list[Any]]:
        return [item for message in self.messages() for item in message]

    def reply(self, *replies: tuple[Any, int, bytes]) -> None:
        self.session.receive(messages.reply(list(replies)), self.now)
        self.finished += self.session.take_finished()

    def answer(self, item: list[Any], value: Any = None) -> None:
        self.reply((item[0], messages.OK, pack(value)))

    def refuse(self, item: list[Any], error: TodoMQError) -> None:
        self.reply((item[0], messages.ERROR, messages.error_value(error)))

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.session.tick(self.now)
        self.finished += self.session.take_finished()


@pytest.fixture
def driver() -> Driver:
    made = Driver()
    made.greet()
    return made


def numbers_and_floors(items: list[list[Any]]) -> list[tuple[int, int]]:
    return [(item[4], item[5]) for item in items]


class TestNumbers:
    def test_changes_to_one_list_are_numbered_without_gaps(self, driver: Driver) -> None:
        driver.submit(request(), request(target="other"), request())
        assert [(item[1], item[4]) for item in driver.sent()] == [("list", 1), ("other", 1), ("list", 2)]

    def test_a_read_names_the_next_number_and_takes_none(self, driver: Driver) -> None:
        driver.submit(request(), request(LIST_READ), request(LIST_READ), request())
        assert numbers_and_floors(driver.sent()) == [(1, 1), (2, 1), (2, 1), (2, 1)]

    def test_the_floor_is_the_lowest_number_that_is_not_answered(self, driver: Driver) -> None:
        driver.submit(request(), request(), request())
        first, second, third = driver.sent()
        driver.answer(third)
        driver.submit(request())
        driver.answer(second)
        driver.submit(request())
        assert numbers_and_floors(driver.sent()) == [(4, 1), (5, 1)]
        driver.answer(first)
        driver.submit(request())
        assert numbers_and_floors(driver.sent()) == [(6, 4)]

    def test_a_change_refused_for_good_is_below_the_floor(self, driver: Driver) -> None:
        driver.submit(request())
        driver.refuse(driver.sent()[0], EntryNotFound("none"))
        driver.submit(request())
        assert numbers_and_floors(driver.sent()) == [(2, 2)]

    def test_a_cast_is_numbered_sent_once_and_waited_for_by_nobody(self, driver: Driver) -> None:
        driver.submit(request(is_cast=True), request())
        cast, change = driver.sent()
        assert cast[0] is None
        assert numbers_and_floors([cast, change]) == [(1, 1), (2, 2)]
        driver.session.connected(driver.now)
        driver.greet()
        assert [item[4] for item in driver.sent()] == [2]

    def test_database_keys_share_one_counter(self, driver: Driver) -> None:
        driver.submit(request(KEY_CHANGE, b"a"), request(KEY_CHANGE, b"b"), request(SAFE, b"a"))
        assert numbers_and_floors(driver.sent()) == [(1, 0), (2, 0), (0, 0)]

    def test_the_longest_deadline_is_one_that_the_router_takes(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=driver.now + limits.DEADLINE_AHEAD_MS))
        (item,) = driver.sent()
        router_ms = ROUTER_CLOCK_MS + driver.now - 5  # it may be a little behind what the session makes of it
        assert router_ms + limits.DEADLINE_AHEAD_MS - 100 < item[2] <= router_ms + limits.DEADLINE_AHEAD_MS

    def test_deadlines_are_told_in_the_routers_clock(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=5_000))
        assert driver.sent()[0][2] == ROUTER_CLOCK_MS + 5_000

    def test_a_number_is_taken_only_when_the_request_is_sent(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        driver.submit(request(deadline_ms=2_000), request())
        driver.advance(1_500)
        assert [type(item.error) for item in driver.finished] == [RouterSilent]
        driver.greet()
        assert numbers_and_floors(driver.sent()) == [(1, 1)]


class TestCounters:
    def test_forgotten_lists_start_above_every_number_they_used(self) -> None:
        counters = Counters(remembered_lists=4)
        for count, name in enumerate("abcd", start=1):
            for _ in range(count):
                counter = counters[name]
                counter.close(counter.take())
        fresh = counters["e"]
        assert len(counters) == 3
        assert (fresh.next, fresh.floor) == (3, 3)
        assert counters["d"].next == 5

    def test_a_list_with_an_open_number_is_not_forgotten(self) -> None:
        counters = Counters(remembered_lists=4)
        first = counters["open"]
        first.take()
        for n in range(50):
            counter = counters[f"list {n}"]
            counter.close(counter.take())
        assert counters["open"] is first
        assert len(counters) <= 7

    @given(st.lists(st.integers(0, 5), max_size=60), st.randoms(use_true_random=False))
    def test_the_floor_is_what_a_plain_set_says(self, steps: list[int], chance: random.Random) -> None:
        counter, open_numbers, held = Counter(), set[int](), set[int]()
        for step in steps:
            if step <= 2:
                taken = counter.take()
                assert taken == counter.next - 1
                open_numbers.add(taken)
                held.clear()
            elif step == 3 and held:
                number = chance.choice(sorted(held))
                assert counter.take_again(number)
                held.remove(number)
                open_numbers.add(number)
            elif open_numbers:
                number = chance.choice(sorted(open_numbers))
                open_numbers.remove(number)
                if step == 4:
                    counter.hold(number)
                    held.add(number)
                else:
                    counter.close(number)
            assert counter.floor == min(open_numbers | held, default=counter.next)
            assert counter.has_open() == bool(open_numbers)


class TestBatches:
    def test_what_waits_goes_into_one_message(self, driver: Driver) -> None:
        driver.submit(*(request(target=f"list {n}") for n in range(1_000)))
        assert [len(message) for message in driver.messages()] == [1_000]

    def test_a_message_closes_at_its_size(self, driver: Driver) -> None:
        body = messages.body("add_entry", "m" * 10_000)
        driver.submit(*(request(body=body) for _ in range(120)))
        sizes = [sum(len(item[3]) for item in message) for message in driver.messages()]
        assert len(sizes) == 3
        assert max(sizes) <= limits.BATCH_BYTES

    def test_a_request_over_the_size_of_a_batch_goes_alone(self, driver: Driver) -> None:
        big = request(body=b"x" * limits.REQUEST_BYTES)
        driver.submit(request(), big, request())
        assert [len(message) for message in driver.messages()] == [1, 1, 1]

    def test_no_more_than_the_routers_window_is_in_flight(self) -> None:
        driver = Driver()
        driver.greet(window=10)
        driver.submit(*(request() for _ in range(25)))
        first = driver.sent()
        assert len(first) == 10
        for item in first[:4]:
            driver.answer(item)
        assert [item[4] for item in driver.sent()] == [11, 12, 13, 14]

    def test_a_router_that_names_no_window_gets_the_default(self, driver: Driver) -> None:
        driver.submit(*(request() for _ in range(WINDOW_REQUESTS + 5)))
        assert len(driver.sent()) == WINDOW_REQUESTS


class TestAnswers:
    def test_answers_may_come_in_any_order_and_twice(self, driver: Driver) -> None:
        asked = [request(), request(), request()]
        driver.submit(*asked)
        items = driver.sent()
        for item in (items[2], items[0], items[2], items[1], items[1]):
            driver.answer(item, item[4])
        assert [unpack(item.value) for item in asked] == [1, 2, 3]
        assert len(driver.finished) == 3
        assert driver.session.unreadable == 2

    @pytest.mark.parametrize(
        "garbage",
        [
            b"",
            b"\xc1",
            b"\x93\x01",
            pack([1, "reply", []]),
            pack([2, "reply", [[1, 0, b""]]]),
            pack([1, "call", b"", []]),
            pack([1, "reply", [[1, 0]]]),
            pack([1, "reply", [[[1], 0, b""]]]),
            pack([1, "reply", [[True, 0, b""]]]),
            pack([1, "reply", [[None, 1, b""]]]),
            pack([1, "reply", [[99, 0, b""]]]),
            b"\xdd\xff\xff\xff\xff",
        ],
    )
    def test_garbage_is_counted_and_changes_nothing(self, driver: Driver, garbage: bytes) -> None:
        driver.submit(request())
        item = driver.sent()[0]
        driver.session.receive(garbage, driver.now)
        assert driver.session.take_finished() == []
        assert driver.session.unreadable == 1
        driver.answer(item, 7)
        assert unpack(driver.finished[0].value) == 7

    def test_an_error_that_cannot_be_read_is_an_error(self, driver: Driver) -> None:
        driver.submit(request())
        driver.reply((driver.sent()[0][0], messages.ERROR, b"\xc1"))
        error = driver.finished[0].error
        assert isinstance(error, ProtocolError)
        assert error.outcome == UNKNOWN

    def test_a_read_never_ends_with_an_unknown_outcome(self, driver: Driver) -> None:
        driver.submit(request(LIST_READ, deadline_ms=2_000))
        driver.refuse(driver.sent()[0], Unavailable("the shard was reopened", retryable=False, outcome=UNKNOWN))
        assert driver.finished[0].error is not None
        assert driver.finished[0].error.outcome == NOT_APPLIED


class TestRetries:
    @pytest.mark.parametrize("error", [Overloaded("full"), Unavailable("away"), OutOfOrder("a number is missing")])
    def test_what_was_refused_for_now_is_sent_again_under_its_number(self, driver: Driver, error: TodoMQError) -> None:
        driver.submit(request(), request())
        first, second = driver.sent()
        driver.answer(second, 2)
        driver.refuse(first, error)
        assert driver.sent() == []
        driver.advance(10)
        (again,) = driver.sent()
        assert again[4:] == [1, 1]
        driver.answer(again, 1)
        assert all(item.error is None for item in driver.finished)

    @pytest.mark.parametrize(
        ("refusal", "most_ms"), [(Overloaded, OVERLOADED_MOST_MS), (Unavailable, BACKOFF_MOST_MS)]
    )
    def test_retries_back_off_up_to_a_limit(self, driver: Driver, refusal: type[TodoMQError], most_ms: int) -> None:
        driver.submit(request())
        waits = []
        for _ in range(12):
            (item,) = driver.sent()
            driver.refuse(item, refusal("not now", outcome=NOT_APPLIED))
            wait = driver.session.wake_at_ms() - driver.now
            waits.append(wait)
            driver.advance(wait)
        assert waits[0] == 5
        assert waits == sorted(waits)
        assert waits[-1] == most_ms // 2

    def test_for_room_a_request_asks_until_shortly_before_its_deadline(self, driver: Driver) -> None:
        deadline_ms = START_MS + 10_000
        driver.submit(request(deadline_ms=deadline_ms))
        driver.refuse(driver.sent()[0], Overloaded("full"))
        while not driver.finished:
            driver.advance(driver.session.wake_at_ms() - driver.now)
            driver.refuse(driver.sent()[0], Overloaded("full"))
        assert deadline_ms - BACKOFF_MOST_MS <= driver.now < deadline_ms

    def test_what_was_refused_together_is_sent_again_in_order(self, driver: Driver) -> None:
        driver.submit(*(request() for _ in range(6)))
        items = driver.sent()
        refusal = messages.error_value(OutOfOrder("a number is missing"))
        driver.reply(*((item[0], messages.ERROR, refusal) for item in reversed(items)))
        driver.advance(300)
        assert [item[4] for item in driver.sent()] == [1, 2, 3, 4, 5, 6]

    def test_what_was_refused_together_comes_again_together(self) -> None:
        """Law 4: a later change that came first would only wait for the earlier one, and be refused again."""
        driver = Driver()
        driver.session._random = random.Random(7).random
        driver.greet()
        driver.submit(*(request() for _ in range(20)))
        for _ in range(4):
            items = driver.sent()
            assert [item[4] for item in items] == list(range(1, 21))
            refusal = messages.error_value(Overloaded("too many at once"))
            driver.reply(*((item[0], messages.ERROR, refusal) for item in items))
            while not driver.session.has_message:
                driver.advance(1)

    def test_the_last_refusal_is_what_the_caller_gets_at_the_deadline(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 40))
        while not driver.finished:
            for item in driver.sent():
                driver.refuse(item, Overloaded("the queue is full"))
            driver.advance(1)
        error = driver.finished[0].error
        assert isinstance(error, Overloaded)
        assert (error.text, error.outcome) == ("the queue is full", NOT_APPLIED)

    def test_where_the_deadline_comes_while_an_attempt_is_under_way_it_is_told_why_the_one_before_was_refused(
        self, driver: Driver
    ) -> None:
        driver.submit(request(deadline_ms=START_MS + 40))
        driver.refuse(driver.sent()[0], Unavailable("the disk is full"))
        while not driver.sent():
            driver.advance(1)
        driver.advance(40)
        error = driver.finished[0].error
        assert isinstance(error, DeadlineExceeded) and error.outcome == UNKNOWN
        assert error.text == "no answer before the deadline; the attempt before was refused: the disk is full"

    def test_a_number_given_up_no_longer_holds_back_the_ones_behind_it(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 20), request())
        first, second = driver.sent()
        driver.refuse(first, Overloaded("full"))
        driver.advance(5)
        driver.refuse(driver.sent()[0], Overloaded("full"))
        driver.advance(50)
        assert [type(item.error) for item in driver.finished] == [Overloaded]
        driver.refuse(second, OutOfOrder("1 is missing"))
        driver.advance(10)
        assert numbers_and_floors(driver.sent()) == [(2, 2)]

    def test_a_number_given_up_between_two_that_are_sent_again_is_filled(self, driver: Driver) -> None:
        """Its floor can't tell the list of it: it would wait for each such number in turn, and refuse all behind it."""
        driver.submit(request(), request(deadline_ms=START_MS + 20), request(), request(LIST_READ))
        first, _, third, read = driver.sent()
        driver.advance(20)
        driver.refuse(first, Overloaded("full"))
        for item in (third, read):
            driver.refuse(item, OutOfOrder("1 is missing"))
        driver.advance(10)
        *again, filler = driver.sent()
        assert numbers_and_floors(again) == [(1, 1), (3, 1), (4, 1)]
        assert (filler[0], filler[4:]) == (None, [2, 1])

    def test_an_unknown_outcome_is_told_at_once(self, driver: Driver) -> None:
        driver.submit(request())
        driver.refuse(driver.sent()[0], Unavailable("the commit failed", outcome=UNKNOWN))
        error = driver.finished[0].error
        assert isinstance(error, Unavailable)
        assert error.outcome == UNKNOWN

    def test_law_3_what_was_sent_on_before_is_tried_again_and_unknown_in_the_end(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 30))
        refusal = messages.error_value(Unavailable("its disk is full"))
        while not driver.finished:
            for item in driver.sent():
                driver.reply((item[0], messages.ERROR, messages.not_this_time(refusal)))
            driver.advance(1)
        error = driver.finished[0].error
        assert isinstance(error, Unavailable)
        assert error.outcome == UNKNOWN

    def test_after_the_routers_clock_was_set_back_the_time_is_asked_for_and_the_request_sent_again(
        self, driver: Driver
    ) -> None:
        driver.submit(request())
        driver.refuse(driver.sent()[0], InvalidRequest(messages.TOO_FAR_AHEAD))
        driver.advance(10)
        hello, again = driver.sent()
        assert hello[0] == 0 and numbers_and_floors([again]) == [(1, 1)]

    def test_law_3_a_deadline_that_the_router_refuses_says_nothing_of_an_attempt_before(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 40))
        driver.sent()
        driver.greet()
        while not driver.finished:
            for item in driver.sent():
                if item[0]:
                    driver.refuse(item, InvalidRequest(messages.TOO_FAR_AHEAD))
            driver.advance(1)
        error = driver.finished[0].error
        assert error is not None and error.outcome == UNKNOWN

    def test_what_may_be_done_twice_is_sent_again_though_its_outcome_is_unknown(self, driver: Driver) -> None:
        driver.submit(request(REPEATABLE, deadline_ms=START_MS + 60))
        for _ in range(2):
            driver.refuse(driver.sent()[0], Unavailable("the daemon was lost before it answered", outcome=UNKNOWN))
            assert not driver.finished
            driver.advance(20)
        driver.refuse(driver.sent()[0], Unavailable("the daemon was gone before it was asked"))
        driver.advance(60)
        assert driver.finished[0].error is not None and driver.finished[0].error.outcome == UNKNOWN

    def test_a_last_attempt_that_comes_too_late_does_not_hide_why_the_others_were_refused(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 30))
        (item,) = driver.sent()
        driver.refuse(item, Unavailable("the disk is full"))
        driver.advance(20)
        (again,) = driver.sent()
        driver.now += 5
        driver.refuse(again, DeadlineExceeded("the deadline had passed when the request arrived"))
        (done,) = driver.finished
        assert done.error is not None and (done.error.text, done.error.outcome) == ("the disk is full", NOT_APPLIED)

    def test_a_greeting_that_was_long_on_its_way_is_asked_for_once_more(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        driver.sent()
        router_ms = ROUTER_CLOCK_MS + driver.now
        for held_up_ms in (300, 300):
            driver.now += held_up_ms  # this process stood still, say
            driver.reply((0, messages.OK, pack([messages.VERSION, router_ms, b"i"])))
            hellos = [item for item in driver.sent() if item[1] is None]
            router_ms = ROUTER_CLOCK_MS + driver.now
        assert hellos == [], "where every answer takes that long, it stays at that"
        driver.submit(request(deadline_ms=driver.now + 50))
        (item,) = driver.sent()
        assert item[2] == router_ms - 300 + 50, "never later than the caller said"

    def test_who_is_refused_at_the_greeting_tells_why(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        (hello,) = driver.sent()
        driver.submit(request(deadline_ms=START_MS + 100))
        driver.refuse(hello, Overloaded("this key has 2 connections"))
        driver.advance(100)
        error = driver.finished[0].error
        assert type(error) is Overloaded and (error.text, error.outcome) == ("this key has 2 connections", NOT_APPLIED)

    def test_a_refusal_of_a_connection_before_says_nothing_of_a_router_that_is_silent_now(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        driver.refuse(driver.sent()[0], Overloaded("this key has 2 connections"))
        driver.session.connected(driver.now)
        driver.submit(request(deadline_ms=START_MS + 100))
        driver.advance(100)
        assert type(driver.finished[0].error) is RouterSilent

    def test_a_short_deadline_that_the_router_finds_passed_has_the_time_asked_for(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=driver.now + 40))
        driver.refuse(driver.sent()[0], DeadlineExceeded("the deadline had passed when the request arrived"))
        assert driver.finished[0].error is not None and driver.finished[0].error.outcome == NOT_APPLIED
        (hello,) = driver.sent()
        assert hello[1] is None

    def test_a_deadline_that_has_not_passed_here_means_a_clock_was_set(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 5_000))
        driver.refuse(driver.sent()[0], DeadlineExceeded("it has passed"))
        (hello,) = driver.sent()
        assert hello[1] is None
        driver.reply((0, messages.OK, pack([1, ROUTER_CLOCK_MS * 2, b"i"])))
        driver.advance(10)
        (again,) = driver.sent()
        assert again[2] == ROUTER_CLOCK_MS * 2 + 5_000


class TestDeadlines:
    def test_a_change_that_was_sent_has_an_unknown_outcome(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 100))
        driver.sent()
        driver.advance(100)
        error = driver.finished[0].error
        assert isinstance(error, DeadlineExceeded)
        assert error.outcome == UNKNOWN

    @pytest.mark.parametrize("kind", [LIST_READ, SAFE])
    def test_a_read_was_not_applied(self, driver: Driver, kind: Kind) -> None:
        driver.submit(request(kind, deadline_ms=START_MS + 100))
        driver.sent()
        driver.advance(100)
        assert driver.finished[0].error is not None
        assert driver.finished[0].error.outcome == NOT_APPLIED

    def test_a_change_that_was_never_sent_was_not_applied(self) -> None:
        driver = Driver()
        driver.greet(window=1)
        driver.submit(request(), request(deadline_ms=START_MS + 100))
        driver.sent()
        driver.advance(100)
        error = driver.finished[0].error
        assert isinstance(error, DeadlineExceeded)
        assert error.outcome == NOT_APPLIED

    def test_where_no_router_answers_that_is_the_error(self) -> None:
        driver = Driver(silence="the router does not answer at its address")
        driver.session.connected(driver.now)
        driver.submit(request(deadline_ms=START_MS + 100))
        driver.advance(100)
        error = driver.finished[0].error
        assert isinstance(error, RouterSilent) and isinstance(error, Unavailable)
        assert (error.code, error.text) == ("unavailable", "the router does not answer at its address")
        assert error.outcome == NOT_APPLIED

    def test_a_lost_attempt_makes_the_outcome_unknown_whatever_is_refused_later(self, driver: Driver) -> None:
        driver.submit(request(deadline_ms=START_MS + 100))
        driver.sent()
        driver.greet()
        driver.refuse(driver.sent()[0], Overloaded("full"))
        driver.advance(100)
        error = driver.finished[0].error
        assert error is not None
        assert error.outcome == UNKNOWN

    def test_what_the_list_itself_says_holds_for_every_attempt(self, driver: Driver) -> None:
        driver.submit(request())
        driver.sent()
        driver.greet()
        driver.refuse(driver.sent()[0], InvalidRequest("no such operation"))
        assert driver.finished[0].error is not None
        assert driver.finished[0].error.outcome == NOT_APPLIED

    def test_each_request_ends_at_its_own_deadline(self, driver: Driver) -> None:
        chance = random.Random(1)
        asked = [request(deadline_ms=START_MS + chance.randrange(1, 3_000)) for _ in range(200)]
        driver.submit(*asked)
        driver.sent()
        for _ in range(3_100):
            driver.advance(1)
            driver.sent()
            for item in driver.finished:
                assert item.deadline_ms <= driver.now <= item.deadline_ms + 10
            driver.finished.clear()
        assert all(item.error is not None for item in asked)


class TestCasts:
    WINDOW = 16

    @pytest.fixture
    def driver(self) -> Driver:
        made = Driver()
        made.greet(self.WINDOW)
        return made

    def cast(self, driver: Driver, casts: int, **fields: Any) -> list[list[Any]]:
        driver.submit(*(request(is_cast=True, **fields) for _ in range(casts)))
        return driver.sent()

    def test_a_few_casts_are_sent_and_nothing_else(self, driver: Driver) -> None:
        assert [item[0] for item in self.cast(driver, 3)] == [None] * 3
        assert len(driver.finished) == 3

    @pytest.mark.parametrize("kind", [LIST_CHANGE, KEY_CHANGE, CALL])
    def test_of_many_casts_some_are_calls_whose_answers_tell_of_those_before(self, driver: Driver, kind: Kind) -> None:
        sent = self.cast(driver, 40, kind=kind, target=b"key" if kind is KEY_CHANGE else "list")
        assert len(sent) == self.WINDOW
        told = [place for place, item in enumerate(sent) if item[0] is not None]
        assert told == [3, 7, 11, 15] and driver.sent() == []
        driver.answer(sent[7])
        assert len(driver.sent()) == 4, "those before the second of them, and itself"
        for item in (sent[3], sent[11], sent[15]):
            driver.answer(item)
        assert len(driver.sent()) == 12
        assert driver.session.unreadable == 0

    def test_with_a_window_of_one_each_cast_waits_for_the_one_before(self) -> None:
        driver = Driver()
        driver.greet(1)
        (item,) = self.cast(driver, 3)
        for _ in range(2):
            assert driver.sent() == []
            driver.answer(item)
            (item,) = driver.sent()
        driver.answer(item)
        assert len(driver.finished) == 3

    def test_a_cast_that_is_refused_as_a_call_is_sent_again(self, driver: Driver) -> None:
        sent = self.cast(driver, 4)
        driver.refuse(sent[3], Overloaded("full"))
        driver.advance(10)
        (again,) = driver.sent()
        assert again[3:5] == sent[3][3:5] and len(driver.finished) == 3

    def test_casts_that_nobody_tells_of_have_their_place_in_the_window_for_a_while(self, driver: Driver) -> None:
        self.cast(driver, 3)
        driver.submit(*(request(LIST_READ) for _ in range(self.WINDOW + 3)))
        assert len(driver.sent()) == self.WINDOW - 3
        assert driver.session.wake_at_ms() <= driver.now + 5_000
        driver.advance(5_000)
        assert len([item for item in driver.sent() if item[1] is not None]) == 3

    def test_a_new_connection_knows_nothing_of_casts_before(self, driver: Driver) -> None:
        sent = [item[4] for item in self.cast(driver, 40) if item[0] is not None]
        driver.greet(self.WINDOW)
        again = [item[4] for item in driver.sent() if item[0] is not None]
        assert again[:4] == sent, "those that are calls are sent again, as calls are"

    def test_a_window_that_became_smaller_has_room_all_the_same(self, driver: Driver) -> None:
        asked = self.cast(driver, 7)[3]
        driver.advance(SILENCE_MS // 2)
        (hello,) = driver.sent()
        driver.reply((hello[0], messages.OK, pack([messages.VERSION, ROUTER_CLOCK_MS + driver.now, b"i", 2])))
        driver.answer(asked)
        driver.submit(request(LIST_READ))
        assert len(driver.sent()) == 1

    def test_before_the_end_the_router_is_asked_whether_it_has_read_all_casts(self, driver: Driver) -> None:
        assert not driver.session.has_casts_to_send()
        self.cast(driver, 2)
        assert driver.session.has_casts_to_send()
        (hello,) = driver.sent()
        assert hello[1] is None and driver.session.has_casts_to_send()
        driver.reply((0, messages.OK, pack([messages.VERSION, ROUTER_CLOCK_MS + driver.now, b"i", self.WINDOW])))
        assert not driver.session.has_casts_to_send() and driver.sent() == []

    def test_changes_that_are_asked_have_their_place_beside_casts(self, driver: Driver) -> None:
        self.cast(driver, 10)
        driver.submit(*(request() for _ in range(9)))
        assert len([item for item in driver.sent() if item[0] is not None]) == self.WINDOW - 10


class TestRepeating:
    @pytest.fixture
    def unknown(self, driver: Driver) -> Request[Any]:
        asked = request(deadline_ms=START_MS + 100)
        driver.submit(asked)
        driver.sent()
        driver.advance(100)
        driver.finished.clear()
        return asked

    def repeat(self, driver: Driver, asked: Request[Any], deadline_ms: int = FOREVER_MS) -> Request[Any]:
        again = asked.repeated()
        again.deadline_ms = deadline_ms
        driver.submit(again)
        return again

    def is_given_up(self, again: Request[Any], unknown: Request[Any], why: str) -> bool:
        error = again.error
        assert error is not None and type(error) is type(unknown.error)
        return (error.outcome, error.retryable) == (UNKNOWN, False) and why in error.text

    def test_the_same_request_goes_under_the_same_number(self, driver: Driver, unknown: Request[Any]) -> None:
        again = self.repeat(driver, unknown)
        (item,) = driver.sent()
        assert numbers_and_floors([item]) == [(1, 1)]
        driver.answer(item, 5)
        assert again.error is None
        assert unpack(again.value) == 5

    def test_a_read_in_between_leaves_the_number_alone_and_does_not_wait_for_it(
        self, driver: Driver, unknown: Request[Any]
    ) -> None:
        driver.submit(request(LIST_READ))
        assert numbers_and_floors(driver.sent()) == [(2, 0)]
        self.repeat(driver, unknown)
        assert numbers_and_floors(driver.sent()) == [(1, 1)]

    def test_the_next_change_gives_the_number_up(self, driver: Driver, unknown: Request[Any]) -> None:
        driver.submit(request())
        assert numbers_and_floors(driver.sent()) == [(2, 2)]
        again = self.repeat(driver, unknown)
        assert driver.sent() == []
        assert self.is_given_up(again, unknown, "a later change to the list was sent")

    def test_a_later_change_that_waits_for_the_number_gives_it_up(self, driver: Driver) -> None:
        lost, waiting = request(deadline_ms=START_MS + 100), request()
        driver.submit(lost, waiting)
        item = driver.sent()[1]
        driver.advance(100)
        driver.refuse(item, OutOfOrder("1 is missing"))
        driver.advance(10)
        assert numbers_and_floors(driver.sent()) == [(2, 2)]

    def test_two_repetitions_at_once_are_one(self, driver: Driver, unknown: Request[Any]) -> None:
        first, second = self.repeat(driver, unknown), self.repeat(driver, unknown)
        (item,) = driver.sent()
        assert self.is_given_up(second, unknown, "it was asked again already")
        driver.answer(item)
        assert first.error is None

    def test_a_repetition_that_ends_unknown_may_be_repeated(self, driver: Driver, unknown: Request[Any]) -> None:
        again = self.repeat(driver, unknown, deadline_ms=driver.now + 50)
        driver.sent()
        driver.advance(100)
        assert again.error is not None
        assert again.error.outcome == UNKNOWN
        self.repeat(driver, again)
        assert numbers_and_floors(driver.sent()) == [(1, 1)]

    def test_what_the_service_may_have_forgotten_is_not_repeated(self, driver: Driver, unknown: Request[Any]) -> None:
        again = self.repeat(driver, unknown, deadline_ms=START_MS + REPEATABLE_MS + 1)
        assert driver.sent() == []
        assert self.is_given_up(again, unknown, "too long ago")

    def test_another_client_cannot_repeat_it(self, unknown: Request[Any]) -> None:
        other = Driver()
        other.greet()
        again = self.repeat(other, unknown)
        assert other.sent() == []
        assert self.is_given_up(again, unknown, "begun a new session")

    @pytest.fixture
    def two_unknown(self, driver: Driver) -> list[Request[Any]]:
        asked = [request(deadline_ms=START_MS + 100) for _ in range(2)]
        driver.submit(*asked)
        driver.sent()
        driver.advance(100)
        return asked

    def ask_again(self, driver: Driver, asked: Request[Any], for_ms: int = 50) -> list[tuple[int, int]]:
        """Repeat a change with a deadline at which nobody has answered yet; return what was sent."""
        self.repeat(driver, asked, deadline_ms=driver.now + for_ms)
        sent = numbers_and_floors(driver.sent())
        driver.advance(for_ms)
        return sent

    def test_a_change_that_is_asked_again_for_as_long_as_a_list_waits_gives_up_a_number_that_nobody_asks_for(
        self, driver: Driver, two_unknown: list[Request[Any]]
    ) -> None:
        first, second = two_unknown
        for _ in range(6):
            assert self.ask_again(driver, second) == [(2, 1)]
        assert self.ask_again(driver, second) == [(2, 2)]
        again = self.repeat(driver, first)
        assert driver.sent() == []
        assert self.is_given_up(again, first, "gave it up")

    def test_two_changes_that_are_asked_again_in_turn_keep_their_numbers_however_long(
        self, driver: Driver, two_unknown: list[Request[Any]]
    ) -> None:
        first, second = two_unknown
        for _ in range(10):
            assert self.ask_again(driver, first) == [(1, 1)]
            assert self.ask_again(driver, second, for_ms=400) == [(2, 1)]

    def test_a_number_that_was_given_up_leaves_no_trace(
        self, driver: Driver, two_unknown: list[Request[Any]]
    ) -> None:
        first, second = two_unknown
        self.ask_again(driver, second)
        driver.submit(request())
        assert numbers_and_floors(driver.sent()) == [(3, 3)]
        counter = first.counter
        assert counter is not None and counter._late_behind is None

    def test_a_store_is_repeated_under_its_number(self, driver: Driver) -> None:
        lost = request(KEY_CHANGE, b"key", deadline_ms=START_MS + 100)
        driver.submit(lost)
        driver.sent()
        driver.advance(100)
        driver.submit(request(KEY_CHANGE, b"other"))
        driver.sent()
        self.repeat(driver, lost)
        assert driver.sent()[0][4] == 1


class TestConnections:
    def test_nothing_is_sent_before_the_greeting(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        driver.submit(request())
        (hello,) = driver.sent()
        assert hello[1] is None
        driver.reply((0, messages.OK, pack([1, ROUTER_CLOCK_MS, b"i"])))
        assert len(driver.sent()) == 1

    def test_all_that_is_unanswered_is_sent_again_in_order(self, driver: Driver) -> None:
        driver.submit(*(request() for _ in range(5)))
        items = driver.sent()
        driver.answer(items[1])
        driver.refuse(items[2], Overloaded("full"))
        driver.submit(request())
        driver.advance(20)
        driver.greet()
        assert [item[4] for item in driver.sent() if item[0] is not None] == [1, 3, 4, 5, 6]

    def test_casts_that_may_be_lost_between_others_hold_up_nothing(self, driver: Driver) -> None:
        driver.submit(request(), request(is_cast=True), request(), request(is_cast=True), request(LIST_READ))
        assert [item[4] for item in driver.sent()] == [1, 2, 3, 4, 5]
        driver.greet()
        *again, one, other = driver.sent()
        assert numbers_and_floors(again) == [(1, 1), (3, 1), (5, 1)]
        assert [(item[0], item[4]) for item in (one, other)] == [(None, 2), (None, 4)]

    def test_what_fills_numbers_is_bounded(self, driver: Driver) -> None:
        casts = [request(is_cast=True) for _ in range(2 * FILLED_MOST - 2)]
        driver.submit(request(), *casts, request())
        driver.sent()
        driver.greet()
        assert len(driver.sent()) == 2 + FILLED_MOST

    def test_a_call_to_a_daemon_is_not_sent_twice(self, driver: Driver) -> None:
        driver.submit(request(CALL, [["job"]]))
        driver.sent()
        driver.greet()
        assert driver.sent() == []
        error = driver.finished[0].error
        assert isinstance(error, Unavailable)
        assert error.outcome == UNKNOWN

    def test_silence_is_probed_and_then_ends_the_connection(self, driver: Driver) -> None:
        driver.submit(request())
        driver.sent()
        driver.advance(SILENCE_MS // 2)
        assert not driver.session.must_reconnect(driver.now)
        assert [item[1] for item in driver.sent()] == [None]
        driver.advance(SILENCE_MS // 2)
        assert driver.session.must_reconnect(driver.now)

    def test_a_slow_answer_of_a_living_router_keeps_the_connection(self, driver: Driver) -> None:
        driver.submit(request())
        item = driver.sent()[0]
        for _ in range(1_000):
            driver.advance(10)
            for probe in driver.sent():
                driver.reply((probe[0], messages.OK, pack([1, ROUTER_CLOCK_MS, b"i"])))
            assert not driver.session.must_reconnect(driver.now)
        driver.answer(item, 1)
        assert driver.finished[0].error is None

    def test_without_requests_silence_is_fine(self, driver: Driver) -> None:
        driver.advance(1_000_000)
        assert not driver.session.must_reconnect(driver.now)
        assert driver.sent() == []

    def test_patience_grows_while_nobody_is_heard(self) -> None:
        driver = Driver()
        driver.submit(request(deadline_ms=1 << 40))
        waits = []
        for _ in range(6):
            driver.session.connected(driver.now)
            driver.sent()
            begin = driver.now
            while not driver.session.must_reconnect(driver.now):
                driver.advance(100)
                driver.sent()
            waits.append(driver.now - begin)
        assert waits == [1_000, 2_000, 4_000, 5_000, 5_000, 5_000]

    def test_a_router_of_another_version_is_an_error(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        driver.submit(request())
        driver.sent()
        driver.reply((0, messages.OK, pack([2, ROUTER_CLOCK_MS, b"i"])))
        assert isinstance(driver.finished[0].error, ProtocolError)

    def test_a_greeting_is_asked_for_again_by_the_next_request(self) -> None:
        driver = Driver()
        driver.session.connected(driver.now)
        driver.sent()
        driver.refuse([0], InvalidRequest("no"))
        driver.submit(request())
        driver.advance(1)
        assert [item[1] for item in driver.sent()] == [None]

    def test_closing_tells_the_true_outcome(self, driver: Driver) -> None:
        driver.submit(request(), request(LIST_READ))
        driver.sent()
        driver.submit(request())
        driver.session.fail_all(lambda outcome: Unavailable("closed", outcome=outcome))
        outcomes = [item.error.outcome for item in driver.session.take_finished() if item.error]
        assert outcomes == [UNKNOWN, NOT_APPLIED, NOT_APPLIED]


class Book:
    """Pages of a read, as the operations have them."""

    first = pack(["entries", None])

    def read(self, value: bytes) -> tuple[list[int], bytes | None]:
        items, cursor = unpack(value)
        return items, None if cursor is None else pack(["entries", cursor])


class TestPages:
    def ask(self, driver: Driver) -> Request[Any]:
        asked = request(LIST_READ, pages=Book(), body=Book.first)
        driver.submit(asked)
        return asked

    def test_pages_are_asked_for_until_the_last(self, driver: Driver) -> None:
        asked = self.ask(driver)
        for page, cursor in (([1, 2], 2), ([3], 3), ([4], None)):
            (item,) = driver.sent()
            assert not driver.finished
            driver.answer(item, [page, cursor])
        assert driver.finished == [asked]
        assert asked.value == [1, 2, 3, 4]

    def test_a_cursor_that_is_gone_starts_the_read_again(self, driver: Driver) -> None:
        asked = self.ask(driver)
        driver.answer(driver.sent()[0], [[1, 2], 2])
        driver.refuse(driver.sent()[0], Unavailable("the list was loaded again"))
        driver.advance(10)
        (item,) = driver.sent()
        assert unpack(item[3]) == ["entries", None]
        driver.answer(item, [[7], None])
        assert asked.value == [7]


OVERTAKEN = OutOfOrder("overtaken by later changes", retryable=False)


class TestOvertakenReads:
    def overtaken(self, driver: Driver, *, is_waited_for: bool = False) -> Request[Any]:
        """Return a read that comes again when the change behind it has taken effect, and is refused."""
        asked = request(LIST_READ, pages=Book(), body=Book.first)
        if is_waited_for:
            asked.driver = Waiter()
        driver.submit(asked, request())
        read, change = driver.sent()
        driver.answer(read, [[1], 1])
        driver.answer(change)
        driver.refuse(driver.sent()[0], Unavailable("the list was loaded again"))
        driver.advance(10)
        (again,) = driver.sent()
        assert numbers_and_floors([again]) == [(1, 1)]
        driver.finished.clear()
        driver.refuse(again, OVERTAKEN)
        return asked

    def test_what_others_may_have_been_sent_behind_ends_with_the_error(self, driver: Driver) -> None:
        asked = self.overtaken(driver)
        assert driver.finished == [asked]
        assert isinstance(asked.error, OutOfOrder) and asked.error.outcome == NOT_APPLIED
        assert not driver.sent()

    def test_what_its_caller_waits_for_is_asked_anew_from_the_first_page(self, driver: Driver) -> None:
        asked = self.overtaken(driver, is_waited_for=True)
        driver.submit(request())
        read, change = driver.sent()
        assert not driver.finished
        assert numbers_and_floors([read, change]) == [(2, 2), (2, 2)]
        assert unpack(read[3]) == ["entries", None]
        driver.answer(read, [[7], None])
        assert driver.finished == [asked] and asked.error is None
        assert asked.value == [7]

    def test_what_is_refused_again_when_it_is_asked_anew_waits_as_long_as_if_it_were_not(self, driver: Driver) -> None:
        self.overtaken(driver, is_waited_for=True)
        driver.refuse(driver.sent()[0], Overloaded("full"))
        driver.advance(9)
        assert not driver.sent()
        driver.advance(1)
        assert numbers_and_floors(driver.sent()) == [(2, 2)]

    def test_what_is_asked_anew_has_the_deadline_that_it_had(self, driver: Driver) -> None:
        asked = self.overtaken(driver, is_waited_for=True)
        driver.now = FOREVER_MS
        driver.advance(0)
        assert driver.finished == [asked] and isinstance(asked.error, Unavailable)

    def test_what_comes_again_keeps_its_number_though_all_before_the_present_one_is_answered(
        self, driver: Driver
    ) -> None:
        driver.submit(request(LIST_READ), request())
        read, change = driver.sent()
        driver.refuse(read, Overloaded("full"))
        driver.answer(change)
        driver.advance(10)
        assert numbers_and_floors(driver.sent()) == [(1, 1)]


class Waiter:
    def wait(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        raise AssertionError("nobody waits here")


class Service:
    """A model of router and list: takes each client's changes to one list once and in order, by the binding rules."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.next = 1
        self.taken = 0
        self.answers: dict[int, bytes] = {}
        self.floor = 1
        self.applied: list[int] = []
        self.waiting: list[tuple[list[Any], int]] = []
        self.failing = True

    def take(self, item: list[Any], now: int) -> list[tuple[Any, int, bytes]]:
        if item[1] is None:
            return [(item[0], messages.OK, pack([1, ROUTER_CLOCK_MS + now, b"i", 8]))]
        identifier, _, deadline_ms, _, _, floor = item
        if deadline_ms <= ROUTER_CLOCK_MS + now:
            return [(identifier, messages.ERROR, messages.error_value(DeadlineExceeded("late", outcome=UNKNOWN)))]
        if self.failing and self.chance.random() < 0.2:
            kind = self.chance.choice([Overloaded, Unavailable])
            return [(identifier, messages.ERROR, messages.error_value(kind("not now")))]
        self.floor = max(self.floor, floor)
        self.next = max(self.next, floor)
        self.answers = {known: answer for known, answer in self.answers.items() if known >= self.floor}
        self.waiting.append((item, now))
        return self.drain()

    def drain(self) -> list[tuple[Any, int, bytes]]:
        replies = []
        while ready := [entry for entry in self.waiting if entry[0][4] <= self.next or not entry[0][5]]:
            entry = min(ready, key=lambda found: found[0][4])
            self.waiting.remove(entry)
            replies.append(self.apply(*entry[0]))
        return replies

    def apply(self, identifier: int, target: str, deadline_ms: int, body: bytes, number: int, floor: int) -> Any:
        operation, *arguments = unpack(body)
        if operation == "read":
            if number <= self.taken:
                return identifier, messages.ERROR, messages.error_value(OVERTAKEN)
            return identifier, messages.OK, pack(list(self.applied))
        if number < self.next:
            if number not in self.answers:
                return identifier, messages.ERROR, messages.error_value(ProtocolError("below the floor"))
            return identifier, messages.OK, self.answers[number]
        if operation == "add":
            self.applied.append(arguments[0])
        self.next = number + 1
        self.taken = number
        self.answers[number] = pack(arguments[0])
        return identifier, messages.OK, self.answers[number]

    def tick(self, now: int) -> list[tuple[Any, int, bytes]]:
        late = [entry for entry in self.waiting if now - entry[1] >= 250]
        self.waiting = [entry for entry in self.waiting if now - entry[1] < 250]
        refusal = messages.error_value(OutOfOrder("a number is missing"))
        return [(entry[0][0], messages.ERROR, refusal) for entry in late]


class Network:
    """Connections that lose everything, or let it arrive after their end, when they break."""

    def __init__(self, chance: random.Random, driver: Driver, service: Service) -> None:
        self.chance = chance
        self.driver = driver
        self.service = service
        self.lanes: list[deque[list[Any]]] = []
        self.replies: deque[list[tuple[Any, int, bytes]]] = deque()
        self.connect()

    def connect(self) -> None:
        self.replies.clear()
        for lane in self.lanes:
            if self.chance.random() < 0.5:
                lane.clear()
        self.lanes = [lane for lane in self.lanes if lane] + [deque()]
        self.driver.session.connected(self.driver.now)

    def carry(self) -> None:
        """Move some of what is under way one hop further; only the newest connection has an end to reply to."""
        self.lanes[-1].extend(self.driver.sent())
        for _ in range(self.chance.randrange(40)):
            lane = self.chance.choice(self.lanes)
            if lane:
                replies = self.service.take(lane.popleft(), self.driver.now)
                self.replies.append(replies if lane is self.lanes[-1] else [])
        self.replies.append(self.service.tick(self.driver.now))
        while self.replies and self.chance.random() < 0.7:
            arriving = self.replies.popleft()
            self.chance.shuffle(arriving)
            for reply in arriving * (2 if self.chance.random() < 0.1 else 1):
                if reply[0] is not None:  # nobody is told of a cast
                    self.driver.reply(reply)
        if self.driver.session.must_reconnect(self.driver.now):
            self.connect()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 40), st.booleans())
def test_each_change_takes_effect_once_and_in_order(seed: int, count: int, is_hasty: bool) -> None:
    """Laws 3 and 4 against a service that refuses, connections that break, messages that are lost, late or repeated."""
    chance = random.Random(seed)
    driver, service = Driver(), Service(chance)
    network = Network(chance, driver, service)
    changes: list[Request[Any]] = []
    reads: list[tuple[set[int], int, Request[Any]]] = []
    steps = 0
    while len(changes) < count or not all(map(is_ended, [*changes, *(read for _, _, read in reads)])):
        steps += 1
        assert steps < 20_000, "a request never ended"
        service.failing = steps < 1_000
        if len(changes) < count and chance.random() < 0.5:
            deadline_ms = driver.now + (chance.randrange(1, 400) if is_hasty else 40_000)
            is_cast = chance.random() < 0.2
            changes.append(request(body=pack(["add", len(changes)]), deadline_ms=deadline_ms, is_cast=is_cast))
            driver.submit(changes[-1])
        if chance.random() < 0.1:
            answered = {n for n, change in enumerate(changes) if change.value is not None}
            read = request(LIST_READ, body=pack(["read"]), deadline_ms=driver.now + 40_000)
            if chance.random() < 0.5:
                read.driver = Waiter()
            reads.append((answered, len(changes), read))
            driver.submit(read)
        if service.failing and chance.random() < 0.03:
            network.connect()
        network.carry()
        driver.advance(chance.randrange(30))
    assert service.applied == sorted(set(service.applied)), "not once, or not in order"
    for n, change in enumerate(changes):
        if change.is_cast:
            continue
        if change.error is None:
            assert unpack(change.value) == n
            assert n in service.applied
        elif change.error.outcome == NOT_APPLIED:
            assert n not in service.applied
    if not is_hasty:
        assert [n for n in service.applied if not changes[n].is_cast] == [
            n for n, change in enumerate(changes) if not change.is_cast
        ]
    for answered, sent_before, read in reads:
        if read.error is not None:
            assert isinstance(read.error, OutOfOrder) and not read.is_waited_for
            continue
        shown = set(unpack(read.value))
        assert answered <= shown, "a read missed a change that had been answered"
        assert read.is_waited_for or shown <= set(range(sent_before)), "a read shows a change sent behind it"


def is_ended(item: Request[Any]) -> bool:
    return item.is_cast or item.error is not None or item.value is not None
