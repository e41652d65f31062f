"""The gate: no reply before its commit, none about a refused partition, what a failure and a loss leave (law 1)."""

from __future__ import annotations

from todomq.list_server.gate import UNCOMMITTED_BYTES, Batch, Gate, Reply
from todomq.protocol import limits


def reply(identifier: int, partition: int = 0) -> Reply:
    return Reply(b"router", identifier, 0, b"", partition)


def written(gate: Gate, identifier: int, partition: int = 0) -> Batch:
    """Write one record, hold one reply behind it, close the batch."""
    number = gate.write(partition, 1, b"key", b"value")
    gate.hold(number, reply(identifier, partition))
    batch = gate.close(0)
    assert batch is not None
    assert batch.number == number
    return batch


def test_a_reply_leaves_with_the_commit_of_its_batch_and_not_before() -> None:
    gate = Gate()
    written(gate, 1)
    written(gate, 2)
    assert gate.commit(1, []) == [reply(1)]
    assert gate.committed == 1
    assert gate.commit(2, []) == [reply(2)]


def test_a_word_on_several_batches_frees_their_replies_in_order() -> None:
    gate = Gate()
    for identifier in (1, 2, 3):
        written(gate, identifier)
    assert [reply.id for reply in gate.commit(3, [])] == [1, 2, 3]


def test_a_word_that_comes_twice_or_late_frees_nothing_and_takes_nothing_back() -> None:
    gate = Gate()
    written(gate, 1)
    written(gate, 2)
    gate.commit(2, [])
    assert gate.commit(1, []) == []
    assert gate.committed == 2


def test_a_turn_without_writes_closes_no_batch() -> None:
    assert Gate().close(0) is None


def test_a_late_reply_can_be_held_behind_a_batch_that_is_closed_already() -> None:
    gate = Gate()
    batch = written(gate, 1)
    gate.hold(batch.number, reply(2))
    assert [reply.id for reply in gate.commit(batch.number, [])] == [1, 2]


def test_replies_about_a_refused_partition_never_leave_and_the_others_do() -> None:
    gate = Gate()
    for partition in (5, 6):
        gate.hold(gate.write(partition, 1, b"key", b"value"), reply(partition, partition))
    gate.close(0)
    assert gate.commit(1, [[1, 5, 9]]) == [reply(6, 6)]


def test_after_a_failure_nothing_is_held_and_numbers_go_on_behind_what_was_given_up() -> None:
    gate = Gate()
    written(gate, 1)
    gate.hold(gate.write(0, 1, b"key", b"value"), reply(2))
    assert [reply.id for reply in gate.fail()] == [1, 2]
    assert gate.batches == {}
    assert gate.bytes == 0
    assert gate.committed == 2
    assert gate.open.number == 3
    assert gate.close(0) is None


def test_a_forgotten_partition_is_neither_written_nor_answered() -> None:
    gate = Gate()
    closed = written(gate, 1, partition=5)
    gate.hold(gate.write(5, 1, b"key", b"value"), reply(2, 5))
    gate.hold(gate.write(6, 1, b"key", b"value"), reply(3, 6))
    gate.forget(5)
    assert (closed.epochs, closed.keys) == ({}, [])
    assert (gate.open.epochs, list(gate.open.partitions)) == ({6: 1}, [6])
    gate.close(0)
    assert gate.commit(2, []) == [reply(3, 6)]
    assert gate.bytes == 0


def test_bytes_are_counted_until_they_are_committed_and_then_the_gate_has_room_again() -> None:
    gate = Gate()
    while not gate.is_full():
        gate.write(0, 1, b"key", b"v" * limits.MIB)
        gate.close(0)
    assert gate.bytes > UNCOMMITTED_BYTES
    gate.commit(gate.open.number - 1, [])
    assert not gate.is_full()
    assert gate.bytes == 0


def test_a_batch_is_full_once_what_it_has_and_what_is_expected_fill_it() -> None:
    gate = Gate()
    gate.write(0, 1, b"key", b"v" * (limits.BATCH_BYTES // 2))
    assert not gate.is_batch_full()
    gate.expect(limits.BATCH_BYTES // 2)
    assert gate.is_batch_full()
    gate.close(0)
    assert not gate.is_batch_full()


def test_what_a_lost_partition_had_written_takes_no_room_any_more() -> None:
    gate = Gate()
    gate.write(5, 1, b"key", b"value")
    gate.close(0)
    gate.write(5, 1, b"other", None)
    gate.forget(5)
    assert gate.bytes == 0
    assert not gate.is_batch_full()
