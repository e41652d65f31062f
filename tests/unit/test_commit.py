"""The queue of a shard: numbers, fences, claims, once-records, failures; examples, then any interleaving of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import batch_of
from memory_storage import MemoryStorage
from todomq.database_worker import commit, group, records
from todomq.database_worker.commit import Commits
from todomq.database_worker.group import commit_group
from todomq.database_worker.storage import StorageFailed, Write
from todomq.errors import NOT_APPLIED, CorruptRecord, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from todomq.protocol.messages import COMMITTED, EPOCH_STEP, FAILED, WANTED, Committed

ME = b"worker"
A, B = b"sender a", b"sender b"


class Bench:
    """A shard's queue over a disk in memory, committed step by step."""

    def __init__(self, disk: dict[bytes, bytes] | None = None, incarnation: bytes = ME) -> None:
        self.disk = {} if disk is None else disk
        self.storage = MemoryStorage(self.disk)
        self.commits = Commits(incarnation, range(0, 256, 2), records.read_epochs(self.storage))
        self.answers: list[tuple[str, Any]] = []
        self.words: list[Committed] = []

    def next_life(self, incarnation: bytes) -> Bench:
        """Return the worker's next life on the same disk, which knows what is on it."""
        bench = Bench(self.disk, incarnation)
        bench.learn()
        return bench

    def learn(self) -> None:
        marks = {sender: number for sender, (number, _) in records.read_marks(self.storage).items()}
        self.commits.reopened(records.read_epochs(self.storage), marks)

    def ask(self, name: str) -> Any:
        return lambda outcome: self.answers.append((name, outcome))

    def claim(self, partition: int, epoch: int) -> None:
        self.commits.take_claim(partition, epoch, self.ask(f"claim {partition} {epoch}"))

    def send(self, sender: bytes, number: int, *partitions: tuple[int, int], receiver: bytes = ME) -> None:
        """Send a batch that puts ``sender-number-partition`` into each of the (partition, epoch) pairs."""
        writes = [
            (p, e, [b"n%b-%d-%d" % (sender, number, p), b"", b"last%b-%d" % (sender, p), records.packed_number(number)])
            for p, e in partitions or ((0, 1),)
        ]
        self.commits.take_batch(batch_of(sender, receiver, number, writes), 100)

    def step(self, fails: str | None = None) -> Sequence[Any]:
        """Commit one group, or fail it before or after it has reached the disk; then take words and answers."""
        group = self.commits.next_group()
        if group:
            self.storage.fail_next = fails
            try:
                outcomes = commit_group(group, self.storage, self.commits.marks, 0)
            except StorageFailed as error:
                self.commits.failed(error)
                self.storage = MemoryStorage(self.disk)
                self.learn()
            else:
                self.commits.committed(outcomes)
        return self.take()

    def take(self) -> list[Committed]:
        words, answers = self.commits.ready()
        for answered in answers:
            answered.done(answered.outcome)
        self.words += words
        return words

    def wrote(self, sender: bytes, number: int, partition: int = 0) -> bool:
        return b"n%b-%d-%d" % (sender, number, partition) in self.disk


@pytest.fixture
def bench() -> Bench:
    """Return a queue that knows senders A and B and has partition 0 claimed under epoch 1."""
    bench = Bench()
    bench.commits.hello(A, 1)
    bench.commits.hello(B, 1)
    bench.claim(0, 1)
    bench.step()
    bench.answers.clear()
    return bench


def outcomes(words: Sequence[Committed]) -> list[tuple[bytes, int, int, str]]:
    return [(word.sender, word.first, word.last, word.outcome) for word in words]


# Numbers


def test_batches_in_order_are_committed_together_and_told_in_one_word(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.send(A, number)
    assert bench.take() == [], "nothing may be told before it is on disk"
    assert outcomes(bench.step()) == [(A, 1, 3, COMMITTED)]
    assert bench.wrote(A, 1) and bench.wrote(A, 3)


def test_what_comes_while_a_commit_is_in_flight_is_the_next_group(bench: Bench) -> None:
    bench.send(A, 1)
    first = bench.commits.next_group()
    bench.send(A, 2)
    assert bench.commits.next_group() == []
    bench.commits.committed(commit_group(first, bench.storage, bench.commits.marks, 0))
    assert outcomes(bench.take()) == [(A, 1, 1, COMMITTED)]
    assert not bench.wrote(A, 2)
    assert outcomes(bench.step()) == [(A, 2, 2, COMMITTED)]


def test_a_gap_is_answered_with_the_number_that_is_wanted_once_a_turn(bench: Bench) -> None:
    bench.send(A, 3)
    bench.send(A, 4)
    assert outcomes(bench.take()) == [(A, 1, 1, WANTED)]
    for number in (1, 2, 3, 4):
        bench.send(A, number)
    assert outcomes(bench.step()) == [(A, 1, 4, COMMITTED)]


def test_a_batch_sent_again_is_answered_again_and_not_written_again(bench: Bench) -> None:
    bench.send(A, 1)
    bench.step()
    bench.disk.clear()
    bench.send(A, 1)
    assert outcomes(bench.step()) == [(A, 1, 1, COMMITTED)]
    assert not bench.disk


def test_a_batch_sent_again_while_it_waits_has_one_word_to_come(bench: Bench) -> None:
    bench.send(A, 1)
    bench.send(A, 1)
    assert bench.take() == []
    assert outcomes(bench.step()) == [(A, 1, 1, COMMITTED)]


def test_batches_of_strangers_and_for_an_earlier_life_are_dropped_and_counted(bench: Bench) -> None:
    bench.send(b"nobody", 1)
    bench.send(A, 1, receiver=b"earlier worker")
    assert bench.step() == []
    assert bench.commits.counts["dropped"] == 2


def test_a_new_life_of_the_worker_takes_what_the_sender_kept(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.send(A, number)
    bench.step()
    again = Bench(bench.disk)
    again.commits.hello(A, 2)
    again.send(A, 2)
    again.send(A, 3)
    again.send(A, 4)
    assert outcomes(again.step()) == [(A, 2, 4, COMMITTED)]


def test_hello_again_forgets_nothing_that_was_taken(bench: Bench) -> None:
    bench.send(A, 1)
    bench.commits.hello(A, 1)
    bench.send(A, 1)
    bench.send(A, 2)
    assert outcomes(bench.step()) == [(A, 1, 2, COMMITTED)]


# Claims and fences


def test_a_claim_is_granted_only_above_the_stored_epoch_and_told_when_it_is_durable(bench: Bench) -> None:
    bench.claim(0, 5)
    assert bench.take() == [] and bench.answers == []
    bench.step()
    for epoch in (5, 4):
        bench.claim(0, epoch)
    bench.step()
    assert [outcome for _, outcome in bench.answers] == [[True, 5], [False, 5], [False, 5]]
    assert records.read_epochs(bench.storage) == {0: 5}


def test_a_claim_survives_the_worker(bench: Bench) -> None:
    bench.claim(0, 7)
    bench.step()
    again = Bench(bench.disk)
    again.claim(0, 7)
    again.step()
    assert again.answers == [("claim 0 7", [False, 7])]


def test_after_a_claim_was_accepted_the_old_owner_is_refused_and_before_it_was_not(bench: Bench) -> None:
    bench.send(A, 1, (0, 1))
    bench.claim(0, 2)
    bench.send(A, 2, (0, 1))
    (word,) = bench.step()
    assert word.refused == [[2, 0, 2]]
    assert bench.wrote(A, 1) and not bench.wrote(A, 2)


def test_a_fenced_partition_does_not_hold_up_the_others_of_its_batch(bench: Bench) -> None:
    bench.claim(2, 9)
    bench.send(A, 1, (0, 1), (2, 8), (4, 3))
    (word,) = bench.step()
    assert word.outcome == COMMITTED and word.refused == [[1, 2, 9], [1, 4, 0]]
    assert bench.wrote(A, 1, 0) and not bench.wrote(A, 1, 2) and not bench.wrote(A, 1, 4)


def test_a_fenced_batch_sent_again_is_refused_again(bench: Bench) -> None:
    bench.claim(0, 2)
    bench.send(A, 1, (0, 1))
    bench.step()
    bench.send(A, 1, (0, 1))
    (word,) = bench.step()
    assert word.refused == [[1, 0, 2]]


def test_a_batch_for_another_shard_or_with_a_key_of_the_worker_fails_and_names_it(bench: Bench) -> None:
    bench.send(A, 1)
    bench.send(A, 2, (1, 1))
    for number, key in ((3, b"p\0"), (4, b"kx"), (5, b"d"), (6, b"h"), (7, b"")):
        bench.commits.take_batch(batch_of(A, ME, number, [(0, 1, [key, b"x"])]), 10)
    bench.send(A, 8)
    words = bench.step()
    assert [(word.first, word.last, word.outcome) for word in words] == [
        (1, 1, COMMITTED), (2, 2, FAILED), (3, 7, FAILED), (8, 8, COMMITTED),
    ]  # fmt: skip
    assert "not of this shard" in words[1].text and "worker's own" in words[2].text


def test_a_claim_for_another_shard_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="not of this shard"):
        bench.claim(1, 1)


# Stores


def store(bench: Bench, value: bytes, client: bytes = b"client", number: int = 1) -> None:
    once = records.once_key(client, number) if number else None
    writes: list[Write] = [(b"kkey", value)]
    if once:
        writes.append((once, records.packed_number(600_000)))
    bench.commits.take_change(writes, once, bench.ask("store"), None)


def test_a_store_sent_again_takes_effect_once_and_is_answered_the_same(bench: Bench) -> None:
    store(bench, b"old")
    bench.step()
    store(bench, b"new", number=2)
    bench.step()
    store(bench, b"old")
    bench.step()
    assert bench.disk[b"kkey"] == b"new"
    assert bench.answers == [("store", None)] * 3


def test_a_store_and_its_repeat_in_one_group_take_effect_once(bench: Bench) -> None:
    for value, number in ((b"1", 1), (b"2", 2), (b"1", 1)):
        store(bench, value, number=number)
    bench.step()
    assert bench.disk[b"kkey"] == b"2"


def test_a_repeat_is_known_to_the_next_life_of_the_worker(bench: Bench) -> None:
    store(bench, b"1")
    store(bench, b"2", number=2)
    bench.step()
    again = Bench(bench.disk)
    store(again, b"1")
    again.step()
    assert again.answers == [("store", None)] and bench.disk[b"kkey"] == b"2"


def test_stores_without_a_number_and_of_other_clients_are_all_new(bench: Bench) -> None:
    for value, client, number in ((b"1", b"a", 1), (b"2", b"b", 1), (b"3", b"a", 0), (b"4", b"a", 0)):
        store(bench, value, client, number)
        bench.step()
        assert bench.disk[b"kkey"] == value


def test_once_records_are_forgotten_when_their_time_is_over_page_by_page() -> None:
    bench = Bench()
    for number in range(1, 41):
        once = records.once_key(b"client", number)
        bench.commits.take_change([(once, records.packed_number(number))], once, None, None)
    bench.step()
    after, pages = None, 0
    while True:
        deletes, after = records.expired_once_records(bench.storage, after, 31, limit_bytes=200)
        bench.storage.apply(deletes)
        pages += 1
        if after is None:
            break
    assert pages > 3
    assert set(bench.disk) == {records.once_key(b"client", number) for number in range(31, 41)}


def test_a_get_sees_the_changes_before_it_and_none_behind_it(bench: Bench) -> None:
    for value in (b"1", b"2"):
        bench.commits.take_get(b"kkey", bench.ask("get"))
        store(bench, value, number=0)
        bench.commits.take_get(b"kkey", bench.ask("get"))
        if value == b"1":
            bench.step()
    assert bench.take() == []
    bench.step()
    assert [outcome for name, outcome in bench.answers if name == "get"] == [None, b"1", b"1", b"2"]


def test_law_6_gets_that_find_much_are_answered_in_several_commits_in_their_order(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "FOUND_BYTES", 25)
    bench.disk[b"kkey"] = b"0" * 10
    for value in (b"1", b"2", b"3"):
        for _ in range(2):
            bench.commits.take_get(b"kkey", bench.ask("get"))
        bench.send(A, int(value))
        store(bench, value * 10, number=0)
    steps = []
    while not bench.commits.is_idle:
        before = len(bench.answers)
        bench.step()
        steps.append([outcome for name, outcome in bench.answers[before:] if name == "get"])
    values = [found for step in steps for found in step]
    assert values == [digit * 10 for digit in (b"0", b"0", b"1", b"1", b"2", b"2")]
    assert [len(step) for step in steps] == [3, 3]
    assert bench.wrote(A, 3) and bench.disk[b"kkey"] == b"3" * 10
    assert bench.commits.depths()["waiting_bytes"] == 0


def test_a_commit_takes_few_gets_while_they_find_much_and_all_where_they_find_little(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "FOUND_BYTES", 25)
    taken = []

    def step() -> None:
        taken.append(len(bench.commits.next_group()))
        bench.commits.committed(commit_group(bench.commits._in_flight, bench.storage, bench.commits.marks, 0))
        bench.take()

    for value in (b"much" * 5, b""):
        for _ in range(1_000):
            bench.commits.take_get(b"kkey", bench.ask("get"))
        bench.disk[b"kkey"] = value
        step()
        step()
    assert taken == [1_000, commit.GETS_LEAST, commit.GETS_LEAST, 2 * commit.GETS_LEAST]


def test_law_5_clients_take_turns_and_a_batch_waits_for_none_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "FOUND_BYTES", 10)
    bench.disk[b"kkey"] = b"0" * 10
    for number in range(1, 6):
        bench.commits.take_get(b"kkey", bench.ask(f"one {number}"), b"one")
    bench.commits.take_get(b"kkey", bench.ask("other"), b"other")
    bench.send(A, 1)
    assert outcomes(bench.step()) == [(A, 1, 1, COMMITTED)]
    while not bench.commits.is_idle:
        bench.step()
    order = [name for name, _ in bench.answers]
    assert order.index("other") <= 1
    assert [name for name in order if name != "other"] == [f"one {number}" for number in range(1, 6)]


def test_a_get_whose_time_is_over_before_its_turn_is_refused_and_not_read(bench: Bench) -> None:
    bench.commits.take_get(b"kkey", bench.ask("late"), until_ms=10)
    bench.commits.take_get(b"kkey", bench.ask("in time"), until_ms=11)
    assert len(bench.commits.next_group(11)) == 1
    bench.take()
    ((name, error),) = bench.answers
    assert name == "late" and type(error) is DeadlineExceeded and error.outcome == NOT_APPLIED
    assert bench.commits.depths()["waiting"] == 1


def test_a_get_of_a_damaged_record_fails_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(key: bytes) -> bytes | None:
        raise CorruptRecord("this record is damaged")

    monkeypatch.setattr(bench.storage, "get", damaged)
    bench.send(A, 1)
    bench.commits.take_get(b"kkey", bench.ask("get"))
    assert outcomes(bench.step()) == [(A, 1, 1, COMMITTED)]
    assert isinstance(bench.answers[0][1], CorruptRecord)


# Failures


def test_law_1_what_waits_is_not_told_to_be_on_disk_because_a_later_batch_was_refused(bench: Bench) -> None:
    bench.send(A, 1)
    assert bench.commits.next_group()
    bench.commits.refuse_batch(batch_of(A, ME, 3, []), "the shard is damaged")
    bench.send(A, 1)  # again
    assert outcomes(bench.take()) == [(A, 3, 3, NOT_APPLIED)]


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_failed_commit_fails_everything_in_it_and_behind_it(bench: Bench, fails: str) -> None:
    bench.send(A, 1)
    bench.claim(0, 5)
    store(bench, b"x")
    bench.commits.next_group()
    bench.send(A, 2, (0, 5))
    bench.send(B, 1, (0, 5))
    error = StorageFailed("the disk is full")
    bench.commits.failed(error)
    bench.learn()
    assert outcomes(bench.take()) == [(A, 1, 2, FAILED), (B, 1, 1, FAILED)]
    assert bench.answers == [("claim 0 5", error), ("store", error)]
    assert bench.commits.is_idle


def test_each_commit_that_fails_is_counted_and_none_that_succeeds(bench: Bench) -> None:
    store(bench, b"good")
    bench.step()
    assert bench.commits.counts["failed_commits"] == 0
    for count, fails in ((1, "before"), (2, "after")):
        store(bench, b"bad", number=count + 1)
        bench.step(fails)
        assert bench.commits.counts["failed_commits"] == count


def test_the_epoch_of_a_claim_that_failed_is_not_in_force(bench: Bench) -> None:
    bench.claim(0, 5)
    bench.step("before")
    bench.claim(0, 3)
    bench.step()
    assert bench.answers[-1] == ("claim 0 3", [True, 3])


def test_a_claim_that_failed_and_yet_reached_the_disk_is_in_force(bench: Bench) -> None:
    bench.claim(0, 5)
    bench.step("after")
    bench.claim(0, 3)
    bench.step()
    assert bench.answers[-1] == ("claim 0 3", [False, 5])


def test_what_was_on_its_way_when_a_commit_failed_is_refused_until_the_sender_says_hello(bench: Bench) -> None:
    bench.send(A, 1)
    bench.send(A, 2)
    bench.step("before")
    bench.send(A, 3)  # made on top of 1 and 2 before the sender heard
    bench.commits.hello(A, 1)  # a hello from before it heard, too
    bench.send(A, 4)
    assert outcomes(bench.step()) == [(A, 3, 4, FAILED)]
    bench.commits.hello(A, 6)
    bench.send(A, 5)  # overtaken by the hello
    bench.send(A, 6)
    bench.send(A, 1)
    assert outcomes(bench.step()) == [(A, 5, 5, FAILED), (A, 1, 1, FAILED), (A, 6, 6, COMMITTED)]
    assert not any(bench.wrote(A, number) for number in (1, 2, 3, 4, 5))


def test_a_sender_that_had_nothing_under_way_goes_on_after_a_failure(bench: Bench) -> None:
    bench.send(B, 1)
    bench.step()
    bench.send(A, 1)
    words = bench.step("before")
    assert outcomes(words) == [(A, 1, 1, FAILED), (B, 2, 2, WANTED)]
    bench.send(B, 2)
    assert outcomes(bench.step()) == [(B, 2, 2, COMMITTED)]


# A full disk


def test_law_1_what_is_refused_for_lack_of_room_is_known_not_to_be_written_and_storage_stays_open(bench: Bench) -> None:
    bench.storage.full = "the disk is full"
    bench.send(A, 1)
    bench.send(A, 2)
    store(bench, b"x")
    words = bench.step()
    assert outcomes(words) == [(A, 1, 2, NOT_APPLIED)] and words[0].text == "the disk is full"
    ((_, error),) = bench.answers
    assert (error.code, error.retryable, error.outcome) == ("unavailable", True, NOT_APPLIED)
    assert not bench.wrote(A, 1) and not bench.wrote(A, 2) and bench.storage.get(b"kkey") is None


def test_what_was_sent_behind_something_refused_is_never_written_though_there_is_room_again(bench: Bench) -> None:
    bench.storage.full = "the disk is full"
    bench.send(A, 1)
    group = bench.commits.next_group()
    bench.send(A, 2)  # waits, made on top of 1
    bench.send(B, 1)
    bench.commits.committed(commit_group(group, bench.storage, bench.commits.marks, 0))
    bench.storage.full = ""
    bench.send(A, 3)  # on its way before the sender heard
    assert outcomes(bench.take()) == [(A, 1, 2, NOT_APPLIED), (A, 3, 3, FAILED)]
    assert outcomes(bench.step()) == [(B, 1, 1, COMMITTED)]
    assert bench.commits.depths()["waiting_bytes"] == 0
    bench.commits.hello(A, 4)
    bench.send(A, 4)
    assert outcomes(bench.step()) == [(A, 4, 4, COMMITTED)]
    assert not any(bench.wrote(A, number) for number in (1, 2, 3))


def test_claims_and_reads_and_repeats_of_what_is_stored_go_on_while_there_is_no_room(bench: Bench) -> None:
    store(bench, b"x")
    bench.step()
    bench.storage.full = "the disk is full"
    bench.answers.clear()
    bench.claim(0, 7)
    store(bench, b"x")
    bench.commits.take_get(b"kkey", bench.ask("get"))
    bench.commits.take_batch(batch_of(B, ME, 1, [(0, 1, [])]), 10)  # asks whether the partition is still B's
    (word,) = bench.step()
    assert bench.answers == [("claim 0 7", [True, 7]), ("store", None), ("get", b"x")]
    assert (word.outcome, word.refused) == (COMMITTED, [[1, 0, 7]])
    assert records.read_epochs(bench.storage)[0] == 7


def test_a_batch_that_storage_cannot_even_be_opened_for_is_refused_with_all_behind_it_until_hello(bench: Bench) -> None:
    bench.commits.refuse_batch(batch_of(A, ME, 1, []), "damaged")
    bench.commits.refuse_batch(batch_of(A, ME, 3, []), "damaged")  # 2 was lost on the way
    bench.send(A, 4)
    bench.send(A, 2)
    assert outcomes(bench.take()) == [
        (A, 1, 1, NOT_APPLIED), (A, 3, 3, NOT_APPLIED), (A, 4, 4, FAILED), (A, 2, 2, FAILED),
    ]  # fmt: skip
    bench.commits.hello(A, 5)
    bench.send(A, 5)
    assert outcomes(bench.step()) == [(A, 5, 5, COMMITTED)]


def test_however_many_failures_a_failed_batch_is_never_called_committed(bench: Bench) -> None:
    for number in range(1, 400, 2):
        bench.send(A, number)
        bench.send(A, number + 1, (1, 1))
        bench.step()
    for number in range(2, 400, 2):
        bench.send(A, number, (1, 1))
        assert {word.outcome for word in bench.step()} == {FAILED}, number


# Bounds


def test_a_group_is_bounded_in_bytes_and_holds_at_least_one_item(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.commits.take_batch(batch_of(A, ME, number, [(0, 1, [b"n", b"x"])]), commit.GROUP_BYTES - 1)
    assert outcomes(bench.step()) == [(A, 1, 1, COMMITTED)]
    assert outcomes(bench.step()) == [(A, 2, 2, COMMITTED)]


def test_a_sender_beyond_its_room_is_asked_again_when_there_is_some_and_loses_nothing(bench: Bench) -> None:
    big = commit.SENDER_WAITING_BYTES // 2
    for number in (1, 2, 3, 4):
        bench.commits.take_batch(batch_of(A, ME, number, [(0, 1, [b"n%d" % number, b"x"])]), big)
    bench.send(B, 1)
    assert bench.take() == []
    assert outcomes(bench.step()) == [(A, 1, 1, COMMITTED), (A, 3, 3, WANTED)]
    assert bench.commits.counts["dropped"] == 2
    assert bench.commits.depths()["waiting_bytes"] == big + 100


def test_calls_beyond_the_room_for_them_are_refused_at_once(bench: Bench) -> None:
    piece = commit.CALL_BYTES // 4
    for _ in range(3):
        bench.commits.take_change([(b"kx", b"x" * piece)], None, None, None)
    with pytest.raises(Overloaded):
        bench.commits.take_change([(b"kx", b"x" * piece)], None, None, None)
    while not bench.commits.is_idle:
        bench.step()
    bench.commits.take_change([(b"kx", b"x" * piece)], None, None, None)


def test_senders_are_bounded_and_the_one_longest_unheard_makes_room(bench: Bench) -> None:
    strangers = [b"%d" % number for number in range(commit.SENDERS - 2)]
    for stranger in strangers:
        assert bench.commits.hello(stranger, 1) is None
    bench.send(A, 1)
    bench.send(B, 1)
    bench.step()
    assert [bench.commits.hello(b"more %d" % number, 1) for number in range(3)] == strangers[:3]
    bench.send(A, 2)
    bench.step()
    assert bench.wrote(A, 2), "who sends is not forgotten for strangers"


def test_where_something_of_every_sender_waits_another_one_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "SENDERS", 2)
    bench.send(A, 1)
    bench.send(B, 1)
    with pytest.raises(Overloaded):
        bench.commits.hello(b"one more", 1)
    bench.step()
    assert bench.commits.hello(b"one more", 1) == A


def test_no_claim_puts_an_epoch_out_of_everybodys_reach(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="above the stored one"):
        bench.claim(2, (1 << 63) - 1)
    bench.claim(2, EPOCH_STEP)
    bench.claim(2, EPOCH_STEP + 1)
    bench.step()
    assert [outcome for _, outcome in bench.answers][-1] == [True, EPOCH_STEP + 1]


def test_what_a_sender_sent_before_it_went_is_committed(bench: Bench) -> None:
    bench.send(A, 1)
    bench.commits.forget(A)
    assert bench.step() == [] and bench.wrote(A, 1)


# Any interleaving

ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([A, B]), st.integers(0, 7)),
    st.tuples(st.just("again"), st.sampled_from([A, B]), st.integers(1, 6)),
    st.tuples(st.just("lose"), st.sampled_from([A, B]), st.just(0)),
    st.tuples(st.just("claim"), st.sampled_from([0, 2]), st.integers(1, 2)),
    st.tuples(st.just("arrive"), st.sampled_from([A, B]), st.integers(1, 4)),
    st.tuples(st.just("step"), st.sampled_from([None, None, None, "before", "after"]), st.just(0)),
    st.tuples(st.just("crash"), st.just(0), st.just(0)),
)


class Owner:
    """A sender as it should be: keeps its batches until they are settled, gives all up when one has failed."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.next = 1
        self.kept: dict[int, tuple[tuple[int, int], ...]] = {}
        self.on_the_way: list[tuple[int, bytes, tuple[tuple[int, int], ...]]] = []
        self.given_up: set[bytes] = set()  # what was not on disk when it was given up

    def send(self, number: int, worker: bytes) -> None:
        self.on_the_way.append((number, worker, self.kept[number]))

    def hear(self, word: Committed, bench: Bench) -> list[tuple[int, int]]:
        """Take a word; return the (number, partition) pairs that it promises are on disk."""
        settled = [number for number in self.kept if word.first <= number <= word.last]
        if word.outcome == WANTED:
            for number in [n for n in self.kept if n >= word.first]:
                self.send(number, word.receiver)
            return []
        if word.outcome == FAILED:
            if settled:
                self.given_up |= {key(self.name, n, p) for n, pairs in self.kept.items() for p, _ in pairs}
                self.given_up -= set(bench.disk)
                self.kept.clear()
                bench.commits.hello(self.name, self.next)
            return []
        lost = {(number, partition) for number, partition, _ in word.refused}
        return [(n, p) for n in settled for p, _ in self.kept.pop(n) if (n, p) not in lost]


def key(sender: bytes, number: int, partition: int) -> bytes:
    return b"n%b-%d-%d" % (sender, number, partition)


class World:
    """A worker that fails and crashes, two senders whose batches travel and get lost, and what may never happen."""

    def __init__(self) -> None:
        self.lives = 1
        self.bench = Bench({}, b"life 1")
        self.owners = {name: Owner(name) for name in (A, B)}
        self.epochs = {0: 0, 2: 0}
        self.promised: set[bytes] = set()
        self.stale: set[bytes] = set()  # made under an epoch that was over on disk already
        for name in self.owners:
            self.bench.commits.hello(name, 1)

    def send(self, owner: Owner, how: int) -> None:
        """Send a new batch: to partition 0, 2 or both, and now and then from an owner whose epoch is over."""
        pairs = tuple((p, max(0, e - (how >= 6))) for p, e in self.epochs.items() if how & 1 or p == (how & 2))
        self.stale |= {key(owner.name, owner.next, p) for p, e in pairs if e < self.epochs[p]}
        owner.kept[owner.next] = pairs
        owner.send(owner.next, self.bench.commits.incarnation)
        owner.next += 1

    def arrive(self, owner: Owner, count: int) -> None:
        for number, worker, pairs in owner.on_the_way[:count]:
            self.bench.send(owner.name, number, *pairs, receiver=worker)
        del owner.on_the_way[:count]

    def step(self, fails: str | None) -> None:
        for word in self.bench.step(fails):
            for number, partition in self.owners[word.sender].hear(word, self.bench):
                self.promised.add(key(word.sender, number, partition))
                last = self.bench.disk[b"last%b-%d" % (word.sender, partition)]
                assert last >= records.packed_number(number), "a later batch of the sender was written before this one"
        self.epochs |= records.read_epochs(self.bench.storage)

    def crash(self) -> None:
        """Begin the next life of the worker; the senders say hello and send what they keep."""
        self.lives += 1
        self.bench = Bench(self.bench.disk, b"life %d" % self.lives)
        for owner in self.owners.values():
            self.bench.commits.hello(owner.name, min(owner.kept, default=owner.next))
            for number in sorted(owner.kept):
                owner.send(number, self.bench.commits.incarnation)

    def check(self) -> None:
        on_disk = set(self.bench.disk)
        assert self.promised <= on_disk, "what was promised is on disk"
        assert not self.stale & on_disk, "what was made under an old epoch is not"
        for owner in self.owners.values():
            assert not owner.given_up & on_disk, "what was given up does not come back"

    def settle(self) -> None:
        """Let everything arrive, be asked for and be committed."""
        for _ in range(100):
            for owner in self.owners.values():
                self.arrive(owner, 1_000)
            self.step(None)
            for owner in self.owners.values():
                if owner.kept and not owner.on_the_way and self.bench.commits.is_idle:
                    for number in sorted(owner.kept):  # a word was lost, or a batch: hello, and again
                        owner.send(number, self.bench.commits.incarnation)
            if not any(owner.kept or owner.on_the_way for owner in self.owners.values()):
                return
        raise AssertionError("every batch is settled in the end")


@settings(max_examples=500, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_whatever_happens_promises_are_kept_and_what_is_fenced_or_given_up_stays_away(actions: list[Any]) -> None:
    world = World()
    for kind, first, second in actions:
        owner = world.owners.get(first, world.owners[A])
        if kind == "send":
            world.send(owner, second)
        elif kind == "again" and owner.next - second in owner.kept:
            owner.send(owner.next - second, world.bench.commits.incarnation)
        elif kind == "lose":
            del owner.on_the_way[:1]
        elif kind == "claim":
            world.bench.claim(first, world.epochs[first] + second)
        elif kind == "arrive":
            world.arrive(owner, second)
        elif kind == "step":
            world.step(first)
        elif kind == "crash":
            world.crash()
        world.check()
    world.settle()
    world.check()


@pytest.mark.parametrize("is_greeted_first", [False, True])
def test_law_1_the_next_life_takes_no_batch_again_that_is_on_disk_for_it_might_end_before_those_behind_it(
    bench: Bench, is_greeted_first: bool
) -> None:
    bench.claim(0, 1)
    bench.commits.hello(A, 1)
    bench.send(A, 1)
    bench.send(A, 2)
    bench.step()
    assert bench.wrote(A, 1) and bench.wrote(A, 2)
    before = dict(bench.disk)
    after = bench.next_life(b"next")
    if is_greeted_first:  # while storage is being opened
        after = Bench(bench.disk, b"next")
        after.commits.hello(A, 1)
        after.learn()
    else:
        after.commits.hello(A, 1)
    after.take()
    after.send(A, 1, receiver=b"next")
    after.send(A, 2, receiver=b"next")
    assert [(word.first, word.last, word.outcome) for word in after.step()] == [(1, 2, COMMITTED)]
    assert after.disk == before
    after.send(A, 3, receiver=b"next")
    assert [(word.first, word.outcome) for word in after.step()] == [(3, COMMITTED)] and after.wrote(A, 3)


def mark_of(bench: Bench, sender: bytes) -> int:
    return records.read_marks(bench.storage)[sender][0]


def test_law_1_of_a_sender_that_was_forgotten_nothing_that_is_on_disk_is_written_again(bench: Bench) -> None:
    bench.claim(0, 1)
    bench.commits.hello(A, 1)
    for number in (1, 2):
        bench.send(A, number)
        bench.step()
    bench.commits.forget(A)
    bench.commits.hello(A, 1)
    bench.send(A, 1)
    assert [word.outcome for word in bench.step()] == [COMMITTED] and mark_of(bench, A) == 2


def test_law_1_nor_what_still_waits_from_before_it_was_forgotten(bench: Bench) -> None:
    bench.claim(0, 1)
    bench.commits.hello(A, 1)
    bench.send(A, 1)
    bench.send(A, 2)
    bench.commits.forget(A)
    bench.commits.hello(A, 1)
    bench.send(A, 1)  # the second time in the same group
    bench.step()
    assert mark_of(bench, A) == 2


@pytest.mark.parametrize("where", ["closed", "given up"])
def test_law_1_what_is_on_disk_is_not_said_to_be_not_applied_where_storage_fails(bench: Bench, where: str) -> None:
    bench.claim(0, 1)
    bench.commits.hello(A, 1)
    bench.send(A, 1)
    bench.step()
    bench.commits.forget(A)
    bench.commits.hello(A, 1)
    if where == "closed":
        for number in (1, 2):
            bench.commits.refuse_batch(batch_of(A, ME, number, [(0, 1, [b"nx", b""])]), "it can't be opened")
    else:
        bench.send(A, 1)
        bench.send(A, 2)
        bench.commits.give_up_waiting(Unavailable("it is damaged"))
    said = [(word.first, word.outcome) for word in bench.take()]
    assert said == [(1, COMMITTED), (2, NOT_APPLIED)]


def test_the_mark_that_a_sender_writes_when_it_comes_back_is_not_deleted_with_its_old_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.claim(0, 1)
    bench.commits.hello(A, 1)
    bench.send(A, 1)
    bench.step()
    bench.commits.forget(A)
    bench.commits.forget_marks([A])
    bench.commits.hello(A, 2)
    monkeypatch.setattr("todomq.database_worker.commit.GROUP_ITEMS", 1)
    bench.send(A, 2)
    for _ in range(3):
        bench.step()
    assert mark_of(bench, A) == bench.commits.marks[A] == 2


def test_a_batch_that_writes_nothing_leaves_no_mark(bench: Bench) -> None:
    bench.claim(0, 1)
    bench.commits.hello(A, 1)
    bench.step()
    before = dict(bench.disk)
    bench.commits.take_batch(batch_of(A, ME, 1, [(0, 1, [])]), 10)
    assert [word.outcome for word in bench.step()] == [COMMITTED] and bench.disk == before


def test_law_8_a_shard_that_lacks_a_granted_epoch_is_another_one(bench: Bench) -> None:
    bench.claim(2, 7)
    bench.step()
    assert bench.commits.why_another([]) == ""
    assert bench.commits.why_another([[2, 7], [3, 9], [2, 1]]) == "", "partition 3 is not of this shard"
    why = "partition 2 was granted under epoch 8, and epoch 7 is stored"
    assert bench.commits.why_another([[2, 7], [2, 8]]) == why
    assert bench.commits.why_another([(4, 1)]) == "partition 4 was granted under epoch 1, and epoch 0 is stored"
    assert bench.next_life(b"next").commits.why_another([[2, 7]]) == ""
