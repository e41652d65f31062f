"""A shard whose storage fails, fills up, can't be opened or is damaged: who is told what, and how it heals.

Work off the loop is done when the test says so, in the order of its lanes' queues; timers ring when the test says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batches import batch_of
from memory_storage import MemoryStorage
from todomq.database_worker import records
from todomq.database_worker.shard import ANOTHER_MS, COPIES, MARK_KEPT_MS, READS, TEND_S, Shard
from todomq.database_worker.storage import Page, StorageFailed, StorageInUse
from todomq.errors import NOT_APPLIED, UNKNOWN, CorruptRecord, Overloaded, TodoMQError, Unavailable
from todomq.protocol import limits
from todomq.protocol.messages import COMMITTED, WANTED, Committed

ME, SENDER = b"worker", b"sender"
NOW_MS = 1_000
DIRECTORY = Path("data/worker-1")
MINE = range(0, 256, 2)
FULL = StorageFailed("the disk is full", outcome=NOT_APPLIED)


class Loop:
    """In the place of the runtime's loop."""

    def __init__(self) -> None:
        self.work: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = deque()
        self.held: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = deque()
        self.held_lane = ""
        self.timers: list[Callable[[], None]] = []
        self.passed_ms = self.set_by_ms = 0

    def now_ms(self) -> int:
        return NOW_MS + self.passed_ms + self.set_by_ms

    def steady_ms(self) -> int:
        return self.passed_ms

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds == TEND_S:
            self.sweep = action
        else:
            self.forget_marks = action

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.timers.append(action)

    def offload(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None], lane: str) -> None:
        (self.held if lane == self.held_lane else self.work).append((work, done))

    def hold(self, lane: str) -> None:
        """Have the work of a lane take long: until it is let go."""
        self.held_lane = lane

    def let_go(self) -> None:
        self.held_lane = ""
        self.work.extendleft(reversed(self.held))
        self.held.clear()


class Bench:
    """A shard on a disk that fails as it is told to; partition 0 is claimed under epoch 1."""

    def __init__(self) -> None:
        self.disk = {records.epoch_key(0): records.packed_number(1)}
        self.loop = Loop()
        self.opened: list[MemoryStorage] = []
        self.cannot_write: Exception | None = None
        self.cannot_read: Exception | None = None
        self.words: list[Committed] = []

    def open(self, read_only: bool) -> MemoryStorage:
        error = self.cannot_read if read_only else self.cannot_write
        if error is not None:
            raise error
        self.opened.append(MemoryStorage(self.disk))
        return self.opened[-1]

    def start(self) -> Shard:
        self.shard = Shard(self.loop, ME, DIRECTORY, MINE, self.open)  # type: ignore[arg-type]
        self.shard.commits.hello(SENDER, 1)
        return self.shard

    def run(self) -> None:
        """Turn until nothing is under way."""
        while True:
            self.words += self.shard.end_turn()
            if not self.loop.work:
                return
            work, done = self.loop.work.popleft()
            try:
                result = work()
            except Exception as error:
                done(None, error)
            else:
                done(result, None)

    def ring(self) -> None:
        timers, self.loop.timers = self.loop.timers, []
        for timer in timers:
            timer()
        self.run()

    def store(self, value: bytes = b"v") -> Any:
        """Store under one key; return or raise the answer."""
        self.shard.check_readable()
        return self._answer(lambda ask: self.shard.commits.take_change([(b"kkey", value)], None, ask, None))

    def get(self) -> Any:
        self.shard.check_readable()
        return self._answer(lambda ask: self.shard.read(lambda storage: storage.get(b"kkey"), ask))

    def send(self, number: int) -> None:
        self.shard.take_batch(batch_of(SENDER, ME, number, [(0, 1, [b"nlist", b"x"])]), 100)
        self.run()

    def _answer(self, begin: Callable[[Any], None]) -> Any:
        answers: list[Any] = []
        begin(answers.append)
        self.run()
        (answer,) = answers
        if isinstance(answer, TodoMQError):
            raise answer
        return answer


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.start()
    return bench


def fail_a_write(bench: Bench) -> None:
    bench.opened[-1].fail_next = "before"
    with pytest.raises(StorageFailed) as failure:
        bench.store(b"lost")
    assert failure.value.outcome == UNKNOWN


def test_after_a_write_failed_reads_go_on_and_changes_are_refused_until_it_can_be_written_again(bench: Bench) -> None:
    bench.store()
    bench.cannot_write = FULL
    fail_a_write(bench)
    assert bench.shard.state == "read only" and bench.get() == b"v"
    with pytest.raises(StorageFailed, match="the disk is full") as refusal:
        bench.store(b"refused")
    assert refusal.value.outcome == NOT_APPLIED and refusal.value.retryable
    with pytest.raises(StorageFailed, match="full"):
        bench.shard.check_writable()
    bench.send(1)
    assert (bench.words[-1].outcome, bench.words[-1].text) == (NOT_APPLIED, "the disk is full")
    bench.ring()
    assert bench.shard.state == "read only", "there is no room yet"
    bench.cannot_write = None
    bench.ring()
    assert bench.shard.state == "open" and bench.get() == b"v"
    bench.store(b"w")
    assert bench.get() == b"w" and b"nlist" not in bench.disk
    assert bench.opened[-1] is not bench.opened[-2] and bench.opened[-2]._disk is None, "the one before is closed"


def test_a_shard_that_cannot_be_opened_at_all_is_opened_as_soon_as_it_can_be() -> None:
    bench = Bench()
    bench.cannot_write = bench.cannot_read = OSError(5, "Input/output error")
    bench.start()
    assert bench.shard.state == "closed" and "Input/output error" in bench.shard.stats()["trouble"]
    with pytest.raises(StorageFailed, match="Input/output error") as refusal:
        bench.store()
    assert refusal.value.outcome == NOT_APPLIED
    bench.send(1)
    assert bench.words[-1].outcome == NOT_APPLIED
    bench.ring()
    bench.cannot_write = None
    bench.ring()
    assert bench.shard.state == "open"
    bench.store()


def fails(key: bytes) -> bytes | None:
    raise StorageFailed("it cannot be read at the moment")


def test_a_shard_whose_read_failed_while_it_was_being_opened_for_changes_knows_its_epochs_still(bench: Bench) -> None:
    bench.cannot_write = FULL
    fail_a_write(bench)
    assert bench.shard.state == "read only"
    bench.opened[-1].get = fails  # type: ignore[method-assign]
    bench.shard.commits.take_change([(b"kkey", b"v")], b"dclient", None, None)
    bench.words += bench.shard.end_turn()  # the commit is under way
    bench.cannot_write = None
    bench.ring()
    while bench.shard.state != "open":
        bench.ring()
    claims: list[Any] = []
    bench.shard.commits.take_claim(0, 1, claims.append)
    bench.run()
    assert claims == [[False, 1]]


def test_a_sender_that_had_nothing_under_way_hears_once_what_is_wanted(bench: Bench) -> None:
    bench.cannot_write = FULL
    fail_a_write(bench)
    bench.cannot_write = None
    bench.ring()
    assert [(word.outcome, word.first) for word in bench.words] == [(WANTED, 1)]


def test_what_comes_while_storage_is_opened_again_is_dropped_for_it_is_asked_for_soon(bench: Bench) -> None:
    bench.opened[-1].fail_next = "before"
    bench.shard.commits.take_change([(b"kkey", b"lost")], None, None, None)
    bench.shard.end_turn()
    work, done = bench.loop.work.popleft()
    with pytest.raises(StorageFailed) as failure:
        work()
    done(None, failure.value)
    with pytest.raises(Unavailable, match="storage is being opened") as refusal:
        bench.shard.check_readable()
    assert not isinstance(refusal.value, StorageFailed), "nothing has failed that a copy of it is asked of"
    bench.shard.take_batch(batch_of(SENDER, ME, 1, [(0, 1, [b"nlist", b"x"])]), 100)
    bench.run()
    assert [(word.outcome, word.first) for word in bench.words] == [(WANTED, 1)]
    bench.send(1)
    assert b"nlist" in bench.disk


@pytest.mark.parametrize("where", ["at the start", "in a commit", "when it is opened for changes again"])
def test_law_8_a_damaged_shard_tells_everybody_what_is_damaged_and_lives_on(where: str) -> None:
    damage = CorruptRecord("000012.log is damaged", outcome=UNKNOWN)
    bench = Bench()
    if where == "at the start":
        bench.cannot_write = damage
        bench.start()
    else:
        bench.start()
        bench.store()
        if where == "in a commit":
            bench.opened[-1].apply = lambda writes: (_ for _ in ()).throw(damage)  # type: ignore[method-assign]
            with pytest.raises(CorruptRecord):
                bench.store()
        else:
            bench.cannot_write = FULL
            fail_a_write(bench)
            bench.cannot_write = damage
            bench.ring()
    assert bench.shard.state == "damaged" and "000012" in bench.shard.stats()["trouble"]
    for ask in (bench.store, bench.get, bench.shard.check_writable):
        with pytest.raises(CorruptRecord, match="000012") as refusal:
            ask()
        assert refusal.value.outcome == NOT_APPLIED
    bench.send(1)
    assert bench.words[-1].outcome == NOT_APPLIED and "000012" in bench.words[-1].text
    bench.loop.sweep()
    bench.ring()
    assert not bench.loop.timers, "nothing but another life helps"
    assert all(storage._disk is None for storage in bench.opened), "all are closed"
    closed: list[bool] = []
    bench.shard.close(lambda: closed.append(True))
    bench.run()
    assert closed == [True]


@pytest.mark.parametrize("is_full", [False, True], ids=["to write", "to read only"])
def test_law_8_another_workers_records_in_this_ones_directory_are_not_taken_for_none_of_its_own(is_full: bool) -> None:
    bench = Bench()
    bench.disk = {records.epoch_key(1): records.packed_number(1)}  # of the worker that has the odd partitions
    bench.cannot_write = FULL if is_full else None
    shard = bench.start()
    for ask in (bench.store, bench.get):
        with pytest.raises(CorruptRecord, match=r"data/worker-1 holds .* another worker's .*partition 1"):
            ask()
    assert shard.state == "damaged"
    assert [storage._disk for storage in bench.opened] == [None], "it is closed"


def test_law_8_a_shard_whose_first_records_are_damaged_is_damaged_also_where_it_cannot_be_closed() -> None:
    class Damaged(MemoryStorage):
        def get(self, key: bytes) -> bytes | None:
            raise CorruptRecord("000012.sst is damaged")

        def scan(self, prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
            raise CorruptRecord("000012.sst is damaged")

        def close(self) -> None:
            raise StorageFailed("data/worker-1 did not close")

    bench = Bench()
    bench.open = lambda read_only: Damaged(bench.disk)  # type: ignore[method-assign]
    shard = bench.start()
    with pytest.raises(CorruptRecord, match="000012"):
        bench.get()
    assert shard.state == "damaged"


@pytest.mark.parametrize("is_under_way", [True, False], ids=["behind a group", "with none under way"])
def test_law_8_what_waits_when_a_shard_turns_out_damaged_is_told_so_and_not_left_waiting(is_under_way: bool) -> None:
    bench = Bench()
    bench.start()
    bench.cannot_write = FULL
    fail_a_write(bench)
    failed_commits = bench.shard.stats()["failed_commits"]
    bench.cannot_write = CorruptRecord("000012.log is damaged")
    commits, found, answers, other = bench.shard.commits, list[Any](), list[Any](), b"another sender"
    commits.hello(other, 1)
    for timer in bench.loop.timers:
        timer()  # it is being opened for changes
    if is_under_way:
        commits.take_get(b"kkey", found.append)
        bench.shard.end_turn()
    bench.shard.take_batch(batch_of(other, ME, 1, [(0, 1, [b"nlist", b"x"])]), 100)
    commits.take_change([(b"kkey", b"v")], None, answers.append, None)
    commits.take_claim(0, 2, answers.append)
    commits.take_get(b"kkey", answers.append)
    if not is_under_way:
        opening, opened = bench.loop.work.popleft()
        with pytest.raises(CorruptRecord) as damage:
            opening()
        opened(None, damage.value)
    bench.run()
    assert bench.shard.state == "damaged" and commits.is_idle and found == [None] * is_under_way
    assert [(type(answer), answer.outcome) for answer in answers] == [(CorruptRecord, NOT_APPLIED)] * 3
    told = [(word.first, word.last, word.outcome) for word in bench.words if word.sender == other]
    assert told == [(1, 1, NOT_APPLIED)] and b"nlist" not in bench.disk
    assert bench.shard.stats()["failed_commits"] == failed_commits, "nobody tried to commit any of it"


def test_law_1_what_another_process_has_open_is_not_read_beside_it() -> None:
    bench = Bench()
    bench.cannot_write = StorageInUse("another process has it open")
    assert bench.start().state == "closed"
    with pytest.raises(StorageFailed, match="another process has it open"):
        bench.get()
    bench.cannot_write = None
    bench.ring()
    assert bench.shard.state == "open"


def test_law_5_a_once_record_that_cannot_be_read_is_the_matter_of_its_change_only(bench: Bench) -> None:
    def damaged(key: bytes) -> bytes | None:
        raise CorruptRecord("000012.sst is damaged")

    bench.opened[-1].get = damaged  # type: ignore[method-assign]
    answers: list[Any] = []
    bench.shard.commits.take_change([(b"kkey", b"v")], b"dclient", answers.append, None)
    bench.shard.commits.take_change([(b"kother", b"v")], None, answers.append, "stored")
    bench.send(1)
    assert isinstance(answers[0], CorruptRecord) and answers[0].outcome == UNKNOWN
    assert answers[1] == "stored" and bench.words[-1].outcome == COMMITTED
    assert (bench.shard.state, b"kkey" in bench.disk) == ("open", False)


def test_what_is_looked_at_each_second_is_seen_though_old_records_cannot_be_read(bench: Bench) -> None:
    def damaged(prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
        raise CorruptRecord("000012.sst is damaged")

    bench.opened[-1].scan = damaged  # type: ignore[method-assign]
    bench.opened[-1].full = "the disk is full"
    bench.loop.sweep()
    bench.run()
    assert bench.shard.state == "full"
    assert not bench.shard.stats()["storage_open"]


def test_law_6_old_records_are_forgotten_before_and_behind_those_that_cannot_be_read(bench: Bench) -> None:
    old = [records.once_key(bytes([first]) * 16, 1) for first in range(256)]
    bench.disk |= dict.fromkeys(old, records.packed_number(NOW_MS - 1))
    scan, damaged = bench.opened[-1].scan, {old[0], old[99], old[100], old[255]}

    def scanned(prefix: bytes, after: bytes | None, limit_bytes: int) -> Page:
        page = scan(prefix, after, 8 * len(old[0]))
        if not damaged.isdisjoint(page.items):
            raise CorruptRecord("000012.sst is damaged")
        return page

    bench.opened[-1].scan = scanned  # type: ignore[method-assign]
    for _ in range(1_000):
        bench.loop.sweep()
        bench.run()
    left = [key for key in old if key in bench.disk]
    assert damaged <= set(left) and len(left) < len(old) / 5, "but for some that are near one of them"


def test_while_nothing_can_be_deleted_old_records_are_not_looked_for(bench: Bench) -> None:
    bench.disk[records.once_key(b"client", 1)] = records.packed_number(NOW_MS - 1)
    bench.opened[-1].full = "the disk is full"
    bench.loop.sweep()
    bench.run()
    bench.ring()
    for _ in range(3):
        bench.loop.sweep()
        bench.run()
        assert not bench.loop.timers
    bench.opened[-1].full = ""
    for _ in range(2):
        bench.loop.sweep()
        bench.run()
    assert records.once_key(b"client", 1) not in bench.disk


def test_law_6_once_records_whose_time_is_over_go_page_after_page_and_living_ones_stay() -> None:
    bench = Bench()
    ours = [records.once_key(b"client", number) for number in range(20_000)]  # some three pages
    bench.disk |= dict.fromkeys(ours[:-5], records.packed_number(NOW_MS - 1))
    bench.disk |= dict.fromkeys(ours[-5:], records.packed_number(NOW_MS + 1))
    bench.start()
    bench.loop.sweep()
    bench.loop.sweep()  # as when a look takes longer than the pause between two
    bench.run()
    for _ in range(10):
        if bench.loop.timers:
            assert len(bench.loop.timers) == 1
            bench.ring()
    assert sorted(key for key in bench.disk if key in set(ours)) == sorted(ours[-5:])
    assert not bench.loop.timers  # until the next second


def test_law_3_once_records_stay_for_their_time_though_the_clock_was_set_forward() -> None:
    bench = Bench()
    bench.start()
    key = records.once_key(b"client", 1)
    bench.disk[key] = records.packed_number(NOW_MS + limits.REMEMBERED_MS)
    bench.loop.sweep()
    bench.run()
    bench.loop.set_by_ms = 2 * limits.REMEMBERED_MS
    for _ in range(9):
        bench.loop.passed_ms += 60_000
        bench.loop.sweep()
        bench.run()
        assert key in bench.disk
    for _ in range(12):
        bench.loop.passed_ms += 60_000
        bench.loop.sweep()
        bench.run()
    assert key not in bench.disk


def test_marks_of_senders_that_are_long_gone_are_deleted(bench: Bench) -> None:
    for sender, now_ms in ((b"gone", NOW_MS), (SENDER, NOW_MS), (b"here", NOW_MS + 1)):
        bench.disk[records.mark_key(sender)] = records.packed_mark(7, now_ms)
    shard = bench.start()
    assert shard.commits.marks == {b"gone": 7, SENDER: 7, b"here": 7}
    bench.loop.passed_ms = MARK_KEPT_MS + 1
    bench.loop.forget_marks()
    bench.run()
    assert set(records.read_marks(bench.opened[-1])) == {SENDER, b"here"}, "of one that is greeted it stays"
    assert shard.commits.marks == {SENDER: 7, b"here": 7}


@pytest.mark.parametrize("lane", [READS, COPIES])
def test_a_storage_that_another_takes_the_place_of_is_closed_behind_what_was_begun_with_it(
    bench: Bench, lane: str
) -> None:
    bench.cannot_write = FULL
    fail_a_write(bench)
    before = bench.opened[-1]
    assert bench.shard.state == "read only"
    bench.loop.hold(lane)
    begin = bench.shard.read if lane == READS else bench.shard.beside
    answers: list[Any] = []
    begin(lambda storage: storage.get(b"kkey"), answers.append)
    bench.cannot_write = None
    bench.ring()
    assert bench.shard.state == "open" and not before.is_closed
    bench.loop.let_go()
    bench.run()
    assert before.is_closed and answers == [None]


def test_law_6_reads_that_wait_are_bounded_by_what_they_hold(bench: Bench) -> None:
    answers: list[Any] = []
    for _ in range(17):
        bench.shard.read(lambda storage: storage.get(b"kkey"), answers.append, limits.MIB)
    (refused,) = answers
    assert isinstance(refused, Overloaded)
    bench.run()
    assert answers[1:] == [None] * 16
    bench.shard.read(lambda storage: storage.get(b"kkey"), answers.append, 16 * limits.MIB)
    bench.run()
    assert answers[17:] == [None], "what was answered holds nothing"


# -- another shard than the one that granted epochs --------------------------------------------------------------------


def test_law_8_a_shard_that_lacks_what_was_granted_gives_and_takes_nothing_as_long_as_somebody_says_so() -> None:
    bench = Bench()
    shard = bench.start()
    bench.run()
    shard.check_granted([[0, 1]])
    assert shard.state == "open"
    with pytest.raises(CorruptRecord, match=r"worker-1 .*partition 0 was granted under epoch 2, and epoch 1 is stored"):
        shard.check_granted([[0, 2]])
    assert shard.state == "damaged" and "epoch 2" in shard.stats()["trouble"]
    outcomes: list[Any] = []
    for check in (shard.check_readable, shard.check_writable):
        with pytest.raises(CorruptRecord):
            check()
    shard.read(lambda storage: storage.get(b"n"), outcomes.append)
    shard.take_batch(batch_of(SENDER, ME, 1, [(0, 1, [b"n", b"x"])]), 10)
    bench.run()
    assert isinstance(outcomes.pop(), CorruptRecord)
    assert [word.outcome for word in bench.words] == [NOT_APPLIED] and b"n" not in bench.disk
    bench.loop.passed_ms += ANOTHER_MS
    shard.check_readable()
    assert shard.state == "open" and shard.stats()["trouble"] is None


def test_law_8_what_was_granted_is_compared_once_a_shard_can_be_opened() -> None:
    bench = Bench()
    bench.cannot_write = bench.cannot_read = StorageFailed("no permission")
    shard = bench.start()
    bench.run()
    shard.check_granted([[0, 5], [2, 1]])
    shard.check_granted([[0, 4]])
    bench.cannot_write = bench.cannot_read = None
    bench.ring()
    assert shard.state == "damaged"
    with pytest.raises(CorruptRecord, match="partition 0 was granted under epoch 5, and epoch 1 is stored"):
        shard.check_readable()


def test_law_8_what_waits_when_a_shard_is_found_to_be_another_one_is_not_written() -> None:
    bench = Bench()
    shard = bench.start()
    bench.run()
    outcomes: list[Any] = []
    shard.commits.take_change([(b"k", b"x")], None, outcomes.append, None)
    with pytest.raises(CorruptRecord):
        shard.check_granted([[0, 2]])
    bench.run()
    assert isinstance(outcomes.pop(), CorruptRecord) and b"k" not in bench.disk
