"""The check of a shard's records: what is as it was written passes, and whatever is not is named."""

from __future__ import annotations

import pytest

from todomq.backup import contents
from todomq.backup.contents import Problem, ShardContents
from todomq.database_worker import records as worker_records
from todomq.list_server import records
from todomq.list_server.records import ListRecord
from todomq.list_server.todo_list import Entry
from todomq.protocol.codec import canonical, pack
from todomq.protocol.partitions import partition_of, worker_of

POOL = 3
NAME = "Bob's list"
WORKER = worker_of(partition_of(NAME.encode()), POOL)
PREFIX = records.prefix(NAME)
MINE = next(p for p in range(256) if worker_of(p, POOL) == WORKER)
OTHERS = next(p for p in range(256) if worker_of(p, POOL) != WORKER)
OTHER_NAME = next(n for n in map(str, range(100)) if worker_of(partition_of(n.encode()), POOL) != WORKER)
NOTE = records.remains_key(NAME, 600_000)

GOOD: dict[bytes, bytes] = {
    worker_records.once_key(b"client", 1): worker_records.packed_number(1),
    worker_records.PROBE_KEY: worker_records.packed_number(1),
    worker_records.stored_key(canonical(["k"])): pack({"v": 1}),
    worker_records.epoch_key(MINE): worker_records.packed_number(7),
    records.list_key(NAME): records.pack_list(ListRecord(2, 3, False, 1)),
    records.entry_key(PREFIX, 2, 1): records.pack_entry(Entry(1, "milk")),
    records.entry_key(PREFIX, 2, 2): records.pack_entry(Entry(2, "bread", "2026-12-01", True, {"shop": 1})),
    records.entry_key(PREFIX, 1, 1): records.pack_entry(Entry(1, "of before the clear, not swept yet")),
    records.session_key(PREFIX, b"client"): records.pack_session(3, 1, [(2, 0, b"\x02")]),
    NOTE: b"",
}


def problems(held: dict[bytes, bytes], pool_size: int | None = POOL) -> list[Problem]:
    check = ShardContents("worker", WORKER, pool_size)
    for key in sorted(held):
        check.take(key, held[key])
    check.end()
    return check.problems


def test_what_a_stack_writes_has_nothing_wrong_and_is_counted() -> None:
    check = ShardContents("worker", WORKER, POOL)
    for key in sorted(GOOD):
        check.take(key, GOOD[key])
    check.end()
    assert check.problems == []
    assert check.counts == {"once": 1, "values": 1, "epochs": 1, "lists": 1, "entries": 3, "sessions": 1}


def test_a_deleted_list_that_is_not_swept_yet_is_counted_apart() -> None:
    check = ShardContents("worker", WORKER, POOL)
    check.take(records.list_key(NAME), records.pack_list(ListRecord(2, 3, True, 1)))
    assert check.counts == {"deleted": 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in GOOD for value in (b"", b"\xc1", b"\x91\xc1", bytes(9)) if value != GOOD[key]],
)
def test_a_damaged_value_of_any_kind_is_named_by_its_kind(key: bytes, value: bytes) -> None:
    (problem, *_) = problems({**GOOD, key: value})
    assert problem.kind == contents.KINDS[key[:1]] and problem.where == "worker" and problem.text


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"x", "no known kind"), (b"", "no known kind"), (b"p", "epochs"), (b"p\x00\x00", "epochs"), (b"l", "entries"),
        (b"l\x00\x05Bob", "entries"), (PREFIX, "entries"), (PREFIX + b"e", "entries"), (PREFIX + b"s", "entries"),
        (PREFIX + b"z", "entries"), (b"n", "list records"), (b"n\xff", "list records"), (b"k\xc1", "stored values"),
        (b"r", "notes"), (NOTE[:6], "notes"), (b"r\0" + NOTE[2:], "notes"),
        (b"l" + bytes([PREFIX[1] ^ 1]) + PREFIX[2:] + b"s1", "entries"),
    ],
)  # fmt: skip
def test_a_key_that_is_none_of_ours_is_named(key: bytes, kind: str) -> None:
    assert any(kind in problem.kind for problem in problems({**GOOD, key: worker_records.packed_number(1)}))


def test_entries_without_their_lists_record_or_newer_than_it_are_named() -> None:
    without = {key: value for key, value in GOOD.items() if key != records.list_key(NAME)}
    (problem,) = problems(without)
    assert NAME in problem.text and "no list record" in problem.text
    older = {**GOOD, records.list_key(NAME): records.pack_list(ListRecord(1, 3, False, 1))}
    (problem,) = problems(older)
    assert NAME in problem.text and "newer than its record" in problem.text


def test_records_of_another_workers_partition_are_named_where_the_pool_size_is_known() -> None:
    foreign = {
        worker_records.epoch_key(OTHERS): worker_records.packed_number(1),
        records.list_key(OTHER_NAME): records.pack_list(ListRecord()),
        records.session_key(records.prefix(OTHER_NAME), b"c"): records.pack_session(1, 1, []),
    }
    for key, value in foreign.items():
        (problem,) = problems({**GOOD, key: value})
        assert "belongs to worker" in problem.text
    assert problems({**GOOD, **foreign}, pool_size=None) == []


def test_a_shard_with_thousands_of_problems_is_told_in_a_bounded_number_of_them() -> None:
    check = ShardContents("worker", WORKER, POOL)
    for number in range(1_000):
        check.take(b"x%d" % number, b"")
    assert len(check.problems) == contents.PROBLEMS_MOST and check.problems_more == 900
