"""The listings of one list server: how many are under way, what waits, and what becomes of it (laws 5 and 6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from todomq.errors import (
    UNKNOWN,
    CorruptRecord,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    TodoMQError,
    Unavailable,
)
from todomq.list_server import records
from todomq.list_server.listing_queue import UNDER_WAY, WAITING, WAITING_BYTES, ListingQueue
from todomq.list_server.records import ListRecord, pack_list
from todomq.protocol import messages
from todomq.protocol.codec import unpack
from todomq.runtime.callee import Answer

NOW_MS = 1_000_000
WORKERS = 2


class Stage:
    """ListingQueue over two workers that answer when they are told to."""

    def __init__(self) -> None:
        self.asked: list[deque[Callable[[Answer], None]]] = [deque() for _ in range(WORKERS)]
        self.refused: list[deque[Callable[[TodoMQError], None]]] = [deque() for _ in range(WORKERS)]
        self.replies: dict[int, list[tuple[int, Any]]] = {}
        self.listings = ListingQueue([self._call(worker) for worker in range(WORKERS)], self._take_reply)

    def _call(self, worker: int) -> Callable[..., None]:
        def call(*body: Any, done: Callable[[Answer], None], refused: Callable[[TodoMQError], None]) -> None:
            self.asked[worker].append(done)
            self.refused[worker].append(refused)

        return call

    def _take_reply(self, peer: bytes, identifier: int | None, status: int, value: bytes) -> None:
        assert identifier is not None
        value_or_error = unpack(value) if status == messages.OK else messages.read_error(value)
        self.replies.setdefault(identifier, []).append((status, value_or_error))

    def ask(
        self, *identifiers: int, deadline_ms: int = NOW_MS + 5_000, after: str | None = None, pattern: str = "",
        now_ms: int = NOW_MS,
    ) -> None:  # fmt: skip
        for identifier in identifiers:
            body = messages.body("list_names", "", after)
            if pattern:
                body = messages.body("list_names_within", [pattern], body)
            self.listings.add(b"router", [identifier, "", deadline_ms, body, 1, 1, 7])
        self.listings.begin(now_ms)

    def work(self, worker: int, error: TodoMQError | None = None, value: Any = None, now_ms: int = NOW_MS) -> None:
        """Let a worker answer the first it was asked; the turn ends."""
        name = f"list of {worker}"
        page = value or [None, [records.list_key(name), pack_list(ListRecord())], None]
        self.asked[worker].popleft()(Answer(None, error) if error is not None else Answer(page, None))
        self.listings.begin(now_ms)

    def error(self, identifier: int) -> TodoMQError:
        ((status, error),) = self.replies[identifier]
        assert status == messages.ERROR
        return error  # type: ignore[no-any-return]


def test_a_few_listings_are_under_way_and_the_others_follow_in_order() -> None:
    stage = Stage()
    stage.ask(*range(UNDER_WAY + 3))
    assert [len(calls) for calls in stage.asked] == [UNDER_WAY] * WORKERS
    for answered in range(UNDER_WAY + 3):
        stage.work(0)
        assert answered not in stage.replies, "half of the names are no page"
        stage.work(1)
        assert stage.replies[answered] == [(messages.OK, [["list of 0", "list of 1"], None])]
        assert len(stage.replies) == answered + 1
        assert len(stage.asked[0]) <= UNDER_WAY
    assert not stage.listings


def test_past_what_may_wait_a_listing_is_refused_at_once() -> None:
    stage = Stage()
    stage.ask(*range(UNDER_WAY))
    stage.ask(*range(UNDER_WAY, UNDER_WAY + WAITING))
    assert not stage.replies
    stage.ask(9_999)
    assert type(stage.error(9_999)) is Overloaded and stage.error(9_999).retryable
    stage.work(0)
    stage.work(1)
    stage.ask(10_000)
    assert 10_000 not in stage.replies, "there is room again"


def test_of_many_listings_at_once_those_that_go_on_come_before_those_that_begin() -> None:
    stage = Stage()
    stage.ask(*range(UNDER_WAY))
    stage.ask(*range(UNDER_WAY, UNDER_WAY + WAITING))
    stage.ask(1_000, 1_001, after="a")
    assert not stage.replies, "what waits to begin takes no room of theirs"
    for _ in range(UNDER_WAY + 2):
        stage.work(0)
        stage.work(1)
    assert list(stage.replies) == [*range(UNDER_WAY), 1_000, 1_001]


def test_what_waits_is_bounded_in_bytes_as_well() -> None:
    stage = Stage()
    stage.ask(*range(UNDER_WAY))
    stage.ask(100, 101, pattern="x" * (WAITING_BYTES // 2))
    stage.ask(102)
    assert set(stage.replies) == {102} and type(stage.error(102)) is Overloaded
    stage.listings.tick(NOW_MS + 5_001)
    stage.ask(103, deadline_ms=NOW_MS + 9_000, now_ms=NOW_MS + 5_001)
    assert 103 not in stage.replies, "what is given up takes no room"


@pytest.mark.parametrize("ticks", [False, True])
def test_a_listing_whose_deadline_has_passed_is_not_begun(ticks: bool) -> None:
    stage = Stage()
    stage.ask(*range(UNDER_WAY), deadline_ms=NOW_MS + 50_000)
    stage.ask(100, deadline_ms=NOW_MS + 10)
    stage.ask(101, deadline_ms=NOW_MS + 50_000)
    if ticks:
        stage.listings.tick(NOW_MS + 10)
        assert not stage.replies
        stage.listings.tick(NOW_MS + 11)
    for worker in range(WORKERS):
        stage.work(worker, now_ms=NOW_MS + 11)
    assert type(stage.error(100)) is DeadlineExceeded
    assert [len(calls) for calls in stage.asked] == [UNDER_WAY] * WORKERS, "the one behind it is"


def test_a_listing_ends_at_its_deadline_though_a_worker_says_nothing() -> None:
    stage = Stage()
    stage.ask(1, deadline_ms=NOW_MS + 10)
    stage.work(0)
    stage.listings.tick(NOW_MS + 11)
    stage.listings.tick(NOW_MS + 12)
    assert type(stage.error(1)) is DeadlineExceeded
    stage.work(1)
    assert len(stage.replies[1]) == 1 and not stage.listings


def test_what_a_silent_worker_is_asked_does_not_grow_with_the_listings_that_give_up() -> None:
    stage = Stage()
    for n in range(100):
        now_ms = NOW_MS + 100 * n
        stage.ask(10 * n, 10 * n + 1, deadline_ms=now_ms + 50, now_ms=now_ms)
        while stage.asked[0]:
            stage.work(0, now_ms=now_ms)
        stage.listings.tick(now_ms + 51)
        assert type(stage.error(10 * n)) is DeadlineExceeded
        assert len(stage.asked[1]) <= UNDER_WAY
    while stage.asked[1]:
        stage.work(1)
    stage.ask(9_999)
    stage.work(0)
    stage.work(1)
    assert stage.replies[9_999][0][0] == messages.OK


@pytest.mark.parametrize(
    ("worker", "error", "value", "expected"),
    [(0, CorruptRecord("bad"), None, CorruptRecord), (1, Unavailable("away", retryable=False), None, Unavailable),
     (0, None, ["no page"], Unavailable), (1, None, [None, [b"nx", b"\xc1"], None], CorruptRecord)],
)  # fmt: skip
def test_one_workers_error_is_the_listings_and_is_answered_once(
    worker: int, error: TodoMQError | None, value: Any, expected: type[TodoMQError]
) -> None:
    stage = Stage()
    stage.ask(1)
    stage.work(worker, error, value)
    stage.work(1 - worker, error, value)
    assert type(stage.error(1)) is expected
    assert not stage.listings


def test_a_worker_that_says_why_it_cannot_read_refuses_a_listing_before_its_deadline_and_leaves_its_place() -> None:
    stage = Stage()
    stage.ask(*range(UNDER_WAY + 1))
    refused = stage.refused[1].popleft()
    refused(Unavailable("the connection broke", outcome=UNKNOWN))
    assert not stage.replies, "its next life is waited for"
    refused(Unavailable("Permission denied"))
    refused(Unavailable("Permission denied"))
    assert stage.error(0).text == "Permission denied"
    stage.listings.begin(NOW_MS)
    assert len(stage.asked[0]) == UNDER_WAY + 1
    for worker in range(WORKERS):
        stage.work(worker)
    assert len(stage.replies[0]) == 1 and len(stage.listings) == UNDER_WAY


def test_another_question_is_refused_at_once() -> None:
    stage = Stage()
    stage.listings.add(b"router", [1, "", NOW_MS + 5_000, messages.body("fly"), 1, 1, 7])
    assert type(stage.error(1)) is InvalidRequest
    assert not stage.listings
