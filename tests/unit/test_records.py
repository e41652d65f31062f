"""Stored records: back as they were, in the order a scan needs, and damage is named, never taken for empty (law 8)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from todomq.errors import CorruptRecord
from todomq.list_server import records
from todomq.list_server.records import Added, AddedBy, ListRecord, SessionRecord
from todomq.list_server.todo_list import Entry
from todomq.protocol.codec import pack
from todomq.protocol.partitions import partition_of

NAME = "Bob's/../list ☕"
PREFIX = records.prefix(NAME)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
COUNTS = st.integers(0, (1 << 32) - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
VALUES_OF_EXTRA = st.none() | st.integers(-5, 5) | TEXTS | st.lists(st.booleans())
EXTRAS = st.dictionaries(TEXTS, VALUES_OF_EXTRA, max_size=3)
ENTRIES = st.builds(
    Entry,
    st.integers(1, (1 << 64) - 1),
    TEXTS,
    st.none() | st.dates().map(lambda day: day.isoformat()),
    st.booleans(),
    EXTRAS,
)
ANSWERS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2), st.binary(max_size=9)), max_size=3)

LIST_VALUE = records.pack_list(ListRecord(7, 300, False, 5))
ENTRY = Entry(9, "dentist", "2026-12-01", True, {"room": [4]})
RUN = [ENTRY, None, Entry(11, "milk")]
((_, _, RUN_VALUE),) = records.pack_run(9, RUN, (b"client", 7, 5, 1_700_000_000_000, 3))
assert RUN_VALUE is not None
SESSION_VALUE = records.pack_session(12, 1_700_000_000_000, [(10, 0, b"\x01"), (11, 1, b"\x90")])

steady = settings(max_examples=100, derandomize=True, deadline=None)


def read_any(kind: str, value: bytes) -> Any:
    if kind == "list":
        return records.read_list(NAME, value)
    if kind == "entry":
        return records.read_run(NAME, 9, value)
    return records.read_session(NAME, b"\xab\xcd", value)


VALUES = [("list", LIST_VALUE), ("entry", RUN_VALUE), ("session", SESSION_VALUE)]


# Back as they were


@steady
@given(st.lists(st.none() | ENTRIES, min_size=1, max_size=200), st.none() | st.integers(1, 200), st.booleans())
def test_entries_are_read_as_they_were_stored(entries: list[Entry | None], count: int | None, is_told: bool) -> None:
    first = 1_000
    entries = [entry and replace(entry, id=identifier) for identifier, entry in enumerate(entries, first)]
    added: AddedBy | None = None
    if is_told:
        added = (b"client", 7, 5, 9) if count is None else (b"client", 7, 5, 9, count)
    found: list[Entry | None] = []
    said = []
    for start, end, value in records.pack_run(first, entries, added):
        assert start == first + len(found)
        if value is None:
            run: list[Entry | None] = [None] * (end - start + 1)
        else:
            by, run = records.read_run(NAME, start, value)
            said.append(by)
            assert len(run) == end - start + 1 <= records.RUN_ENTRIES
            assert len(run) == 1 or len(value) <= records.RUN_BYTES
        found += run
    assert found == entries
    if entries[-1] is not None:
        assert said[-1] == (Added(*added) if added else None)
        assert not any(said[:-1])


def test_an_entry_of_the_version_before_is_read() -> None:
    value = pack(["dentist", "2026-12-01", True, {"room": [4]}])
    assert records.read_run(NAME, 9, value) == (None, [ENTRY])
    assert records.read_run(NAME, 9, pack(["milk"])) == (None, [Entry(9, "milk")])
    assert records.read_list(NAME, pack([1, 7, 300, False, 5])) == ListRecord(7, 300, False, 5, version=1)


@steady
@given(COUNTS, st.integers(1, 1 << 63), st.booleans())
def test_a_list_record_is_read_as_it_was_stored(generation: int, lowest_next_id: int, deleted: bool) -> None:
    for swept in (0, generation):
        record = ListRecord(generation, lowest_next_id, deleted, swept)
        assert records.read_list(NAME, records.pack_list(record)) == record


@steady
@given(st.integers(100, 1 << 62), COUNTS, ANSWERS)
def test_a_session_is_read_as_it_was_stored(next_number: int, last_used_ms: int, answers: list[Any]) -> None:
    value = records.pack_session(next_number, last_used_ms, answers)
    assert records.read_session(NAME, b"c", value) == SessionRecord(next_number, last_used_ms, answers)


@steady
@given(NAMES, COUNTS, st.integers(1, (1 << 64) - 1), st.binary(min_size=1, max_size=20))
def test_keys_are_read_as_they_were_made(name: str, generation: int, identifier: int, client: bytes) -> None:
    prefix = records.prefix(name)
    assert records.name_of(records.list_key(name)) == name
    assert records.read_entry_key(name, records.entry_key(prefix, generation, identifier)) == (generation, identifier)
    assert records.read_session_key(name, records.session_key(prefix, client)) == client


@steady
@given(NAMES, st.integers(0, 1 << 42))
def test_a_note_of_remains_tells_the_list_and_the_first_minute_after_its_time(name: str, due_ms: int) -> None:
    key = records.remains_key(name, due_ms)
    assert key.startswith(records.remains_prefix(partition_of(name.encode())))
    told_ms, told = records.read_remains_key(key)
    assert told == name and 0 < told_ms - due_ms <= records.MINUTE_MS


def test_records_have_these_very_bytes() -> None:
    assert records.list_key("é") == b"n\xc3\xa9"
    assert records.prefix("é") == b"l" + bytes([0x3E, 2]) + b"\xc3\xa9"
    assert records.entry_key(b"l", 1, 258) == b"le\xff\xff\xff\xfe" + bytes(6) + b"\x01\x02"
    assert records.session_key(b"l", b"\x07") == b"ls\x07"
    assert records.remains_key("é", 600_000) == b"r" + bytes([0x3E, 0, 0, 0, 11]) + b"\xc3\xa9"
    assert records.pack_list(ListRecord()) == bytes([0x95, 2, 0, 1, 0xC2, 0])
    entries = [
        Entry(1, "milk"), Entry(2, "a", "2026-01-01"), None, Entry(4, "a", done=True), Entry(5, "a", extra={"": 1})
    ]  # fmt: skip
    packed = b"\x91\xa4milk\x92\xa1a\xaa2026-01-01\xc0\x93\xa1a\xc0\xc3\x94\xa1a\xc0\xc2\x81\xa0\x01"
    assert records.pack_run(1, entries) == [(1, 5, b"\x96\xc0" + packed)]
    assert records.pack_run(1, entries, (b"c", 7, 6, 9)) == [(1, 5, b"\x96\x94\xc4\x01c\x07\x06\x09" + packed)]
    assert records.pack_run(1, entries, (b"c", 7, 6, 9, 5)) == [
        (1, 5, b"\x96\x95\xc4\x01c\x07\x06\x09\x05" + packed)
    ]


# The order a scan needs


@steady
@given(st.lists(st.tuples(COUNTS, st.integers(1, (1 << 64) - 1)), max_size=8))
def test_a_scan_meets_the_newest_generation_first_and_its_entries_in_ascending_id(ids: list[tuple[int, int]]) -> None:
    keys = sorted(records.entry_key(PREFIX, generation, identifier) for generation, identifier in ids)
    assert [records.read_entry_key(NAME, key) for key in keys] == sorted(ids, key=lambda pair: (-pair[0], pair[1]))
    for key, (generation, _) in zip(keys, (records.read_entry_key(NAME, key) for key in keys), strict=True):
        assert key.startswith(records.entries_prefix(PREFIX, generation))
        assert not key.startswith(records.sessions_prefix(PREFIX))


@steady
@given(NAMES, NAMES)
def test_no_other_list_lies_under_a_lists_prefix(name: str, other: str) -> None:
    for one, two in ((name, other), (name, name + other), (name, name + "e")):
        if one != two:
            assert not records.prefix(two).startswith(records.prefix(one))


# Damage


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_truncated_value_is_corrupt_at_every_length(kind: str, value: bytes) -> None:
    for length in range(len(value)):
        with pytest.raises(CorruptRecord, match="list \"Bob's"):
            read_any(kind, value[:length])


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_value_with_something_behind_it_is_corrupt(kind: str, value: bytes) -> None:
    with pytest.raises(CorruptRecord):
        read_any(kind, value + b"\xc0")


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_flipped_bit_is_corrupt_or_another_value_of_the_right_types_and_nothing_else(kind: str, value: bytes) -> None:
    refused = 0
    for bit in range(8 * len(value)):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read_any(kind, bytes(flipped))
        except CorruptRecord:
            refused += 1
    assert refused >= len(value)


@steady
@given(st.sampled_from([kind for kind, _ in VALUES]), st.binary(max_size=40))
def test_random_bytes_raise_nothing_but_corrupt_record(kind: str, value: bytes) -> None:
    with contextlib.suppress(CorruptRecord):
        read_any(kind, value)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("list", None),
        ("list", {}),
        ("list", []),
        ("list", [1, 0, 1, False]),
        ("list", [1, 0, 1, False, 0, 0]),
        ("list", [0, 0, 1, False, 0]),
        ("list", [True, 0, 1, False, 0]),
        ("list", [1, "0", 1, False, 0]),
        ("list", [1, -1, 1, False, 0]),
        ("list", [1, 0, 0, False, 0]),
        ("list", [1, 0, 1.0, False, 0]),
        ("list", [1, 0, 1, 0, 0]),
        ("list", [1, 0, 1, False, None]),
        ("list", [1, 0, 1, False, 1]),
        ("entry", None),
        ("entry", "title"),
        ("entry", []),
        ("entry", ["a", None, False, None, None]),
        ("entry", [None]),
        ("entry", [None, None]),
        ("entry", [None, "a"]),
        ("entry", [None, []]),
        ("entry", [None, ["a", None, False, None, None]]),
        ("entry", [None, [b"a"]]),
        ("entry", [None, [""]]),
        ("entry", [None, [1]]),
        ("entry", [None, ["a", "2026-02-30"]]),
        ("entry", [None, ["a", 20260101]]),
        ("entry", [None, ["a", None, 1]]),
        ("entry", [None, ["a", None, None]]),
        ("entry", [None, ["a", None, False, []]]),
        ("entry", [None, ["a", None, False, {1: 2}]]),
        ("entry", [None, *[["a"]] * (records.RUN_ENTRIES + 1)]),
        ("entry", [1, ["a"]]),
        ("entry", [[b"c", 1, 1], ["a"]]),
        ("entry", [[b"", 1, 1, 1], ["a"]]),
        ("entry", [["c", 1, 1, 1], ["a"]]),
        ("entry", [[b"c", -1, 1, 1], ["a"]]),
        ("entry", [[b"c", 1, None, 1], ["a"]]),
        ("entry", [[b"c", 1, 1, True], ["a"]]),
        ("entry", [[b"c", 1, 1, 1, 0], ["a"]]),
        ("entry", [[b"c", 1, 1, 1, 10], ["a"]]),
        ("entry", [[b"c", 1, 1, 1, 1, 1], ["a"]]),
        ("session", None),
        ("session", []),
        ("session", [1, 2]),
        ("session", [1, 2, [], 3]),
        ("session", ["1", 2, []]),
        ("session", [1, -2, []]),
        ("session", [1, True, []]),
        ("session", [1, 2, {}]),
        ("session", [1, 2, [0]]),
        ("session", [1, 2, [[0, 0]]]),
        ("session", [1, 2, [[1, 0, b""]]]),
        ("session", [1, 2, [["0", 0, b""]]]),
        ("session", [1, 2, [[0, None, b""]]]),
        ("session", [1, 2, [[0, 0, "text"]]]),
    ],
)
def test_a_value_of_wrong_types_is_corrupt(kind: str, fields: Any) -> None:
    with pytest.raises(CorruptRecord):
        read_any(kind, pack(fields))


def test_the_text_names_the_list_and_the_record_and_not_its_contents() -> None:
    secret = pack([["secret"]])
    for kind, what in (("list", "the list's record"), ("entry", "entry 9"), ("session", "the session of client abcd")):
        with pytest.raises(CorruptRecord) as caught:
            read_any(kind, secret)
        assert str(caught.value).startswith(f"list {NAME!r}: {what}")
        assert "secret" not in str(caught.value)


def test_a_record_of_a_newer_version_says_so_whatever_else_it_holds() -> None:
    for fields in ([3], [3, "anything"], [3, 0, 1, False, 0]):
        with pytest.raises(CorruptRecord, match="stored in format 3, newer than format 2 of this version"):
            records.read_list(NAME, pack(fields))


ENTRY_KEY = records.entry_key(PREFIX, 3, 9)


@pytest.mark.parametrize(
    "key",
    [b"", ENTRY_KEY[:-1], ENTRY_KEY + b"\0", b"m" + ENTRY_KEY[1:], records.session_key(PREFIX, b"\0" * 12),
     records.entry_key(PREFIX, 3, 0), records.entry_key(records.prefix("another"), 3, 9)],
)  # fmt: skip
def test_a_key_that_is_no_entrys_of_this_list_is_corrupt(key: bytes) -> None:
    with pytest.raises(CorruptRecord, match="Bob"):
        records.read_entry_key(NAME, key)


@pytest.mark.parametrize("key", [b"", ENTRY_KEY, records.session_key(PREFIX, b""), b"s"])
def test_a_key_that_is_no_sessions_of_this_list_is_corrupt(key: bytes) -> None:
    with pytest.raises(CorruptRecord, match="Bob"):
        records.read_session_key(NAME, key)


@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(5), bytes(5) + b"\xff", bytes(5) + b"a"])
def test_a_key_that_is_no_note_of_remains_is_corrupt(tail: bytes) -> None:
    with pytest.raises(CorruptRecord, match="remains"):
        records.read_remains_key(b"r" + tail)


@pytest.mark.parametrize("key", [b"", b"n", b"n\xff", b"mname"])
def test_a_key_that_is_no_list_records_is_corrupt(key: bytes) -> None:
    with pytest.raises(CorruptRecord, match="the directory of lists"):
        records.name_of(key)
