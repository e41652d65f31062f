"""Law 2 for an owner that others took for dead: it asks whether it still owns what it has in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from workbench import Bench, Disk

from todomq.errors import NOT_APPLIED
from todomq.protocol.partitions import partition_of

PARTITION = partition_of(b"a")
OTHER = partition_of(b"b")


def test_an_owner_that_was_paused_answers_no_read_from_memory_once_another_has_claimed() -> None:
    disk = Disk()
    old = Bench(disk, owned=[PARTITION])
    assert old.ask("a", "add_entry", "milk") == 1
    Bench(disk, owned=[PARTITION]).ask("a", "add_entry", "bread", client=b"other")
    old.hosting.doubt_epochs()
    read = old.send("a", "size", number=2)
    old.settle()
    with pytest.raises(KeyError):
        old.answer(read)
    assert old.hosting.owned() == []


def test_an_owner_that_was_paused_takes_no_list_for_new_before_it_is_known_that_no_other_has_claimed() -> None:
    disk = Disk.new()
    old = Bench(disk, owned=[PARTITION])
    Bench(disk, owned=[PARTITION]).ask("a", "add_entry", "bread", client=b"other")
    old.hosting.doubt_epochs()
    read = old.send("a", "size")
    old.settle()
    with pytest.raises(KeyError):
        old.answer(read)
    assert old.hosting.owned() == []


@pytest.mark.parametrize("fails", [Bench.fail, Bench.refuse])
def test_a_doubt_that_is_not_answered_since_the_commit_failed_leaves_no_list_to_be_taken_for_new(
    fails: Callable[[Bench], None],
) -> None:
    disk = Disk.new()
    old = Bench(disk, owned=[PARTITION])
    old.settle()
    Bench(disk, owned=[PARTITION]).ask("a", "add_entry", "bread", client=b"other")
    old.hosting.doubt_epochs()
    old.turn()
    fails(old)
    read = old.send("a", "size")
    old.settle()
    assert old.answer(read) == 1


def test_a_grant_of_the_first_epoch_that_comes_late_lets_no_list_be_taken_for_new() -> None:
    disk = Disk.new()
    epoch = disk.claim(PARTITION)
    Bench(disk, owned=[PARTITION]).ask("a", "add_entry", "bread", client=b"other")
    old = Bench(disk, owned=[])
    old.hosting.own(PARTITION, epoch)
    read = old.send("a", "size")
    old.settle()
    with pytest.raises(KeyError):
        old.answer(read)
    assert old.hosting.owned() == []


def test_what_is_refused_for_an_old_epoch_is_given_up_though_the_rest_of_the_batch_failed() -> None:
    disk = Disk()
    old = Bench(disk, owned=[PARTITION, OTHER])
    disk.claim(PARTITION)
    old.hosting.doubt_epochs()
    old.send("b", "add_entry", "milk")
    old.turn()
    (batch,) = old.sent
    assert old.hosting.failed(1, "the disk is full", NOT_APPLIED, 0, disk.apply(batch)) == {PARTITION}
    assert [number for number, _ in old.hosting.owned()] == [OTHER]


def test_an_owner_that_always_writes_to_one_partition_hears_of_a_successor_in_another() -> None:
    disk = Disk()
    old = Bench(disk, owned=[PARTITION, OTHER])
    disk.claim(PARTITION)
    old.ask("b", "size")
    for number in (1, 2):
        old.send("b", "add_entry", "milk", number=number)
        old.turn()
        old.hosting.check_epochs()
        old.turn()
        old.commit(1)
    old.settle()
    assert [number for number, _ in old.hosting.owned()] == [OTHER]


def test_an_owner_that_was_paused_and_still_owns_answers_when_that_is_known() -> None:
    bench = Bench(owned=[PARTITION])
    bench.ask("a", "add_entry", "milk")
    bench.hosting.doubt_epochs()
    read = bench.send("a", "size", number=2)
    bench.turn()
    assert read not in bench.replies
    bench.settle()
    assert bench.answer(read) == 1


def test_an_owner_to_whom_nobody_writes_hears_of_its_successor() -> None:
    disk = Disk()
    old, _ = Bench(disk, owned=[PARTITION]), Bench(disk, owned=[PARTITION])
    old.hosting.check_epochs()
    old.settle()
    assert old.hosting.owned() == []


def test_a_worker_that_says_nothing_is_not_asked_again() -> None:
    bench = Bench(owned=[PARTITION])
    for _ in range(3):
        bench.hosting.check_epochs()
        bench.turn()
    assert len(bench.gate.batches) == 1
