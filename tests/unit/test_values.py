"""An entry is a value: equal by its fields, never changed, to be copied, pickled and taken apart by pattern."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import gc
import pickle
from typing import Any

import pytest

from todomq import Client, Entry, ServerRef, Via
from todomq.client.values import Registration, read_entries_page
from todomq.errors import ProtocolError
from todomq.protocol import limits
from todomq.protocol.codec import pack

DAY = datetime.date(2026, 12, 1)
FIELD_NAMES = ("id", "title", "date", "done", "extra")
ENTRY = Entry(7, "dentist", DAY, True, {"room": 4})


def test_an_entry_is_equal_to_one_of_the_same_fields_and_to_no_other() -> None:
    assert Entry(id=7, title="dentist", date=DAY, done=True, extra={"room": 4}) == ENTRY
    assert Entry(7, "dentist", DAY) != ENTRY
    assert Entry(1, "milk") == Entry(1, "milk", None, False, {})
    assert Entry(1, "milk").extra is not Entry(1, "milk").extra
    assert repr(Entry(1, "milk")) == "Entry(id=1, title='milk', date=None, done=False, extra={})"


def test_entries_and_registrations_can_be_kept_in_a_set() -> None:
    assert {ENTRY, Entry(7, "dentist", DAY, True, {"room": 5}), copy.deepcopy(ENTRY)} == {
        ENTRY, Entry(7, "dentist", DAY, True, {"room": 5}),
    }  # fmt: skip
    registered = Registration(["my", "job"], "ipc:///x", 17, b"i")
    assert len({registered, dataclasses.replace(registered), Registration("other", "ipc:///x", 17, b"i")}) == 2


@pytest.mark.parametrize(
    ("name", "equal"),
    [
        ("job", "job"), (["worker", 1], ["worker", 1.0]), (("worker", 1), ("worker", True)),
        ({"b": [1], "a": b"\x00"}, {"a": b"\x00", "b": [1]}), ([{"a": [[]]}, None], [{"a": [[]]}, None]),
    ],
)  # fmt: skip
def test_ways_to_be_called_by_an_equal_name_are_one_in_a_set(name: Any, equal: Any) -> None:
    assert {Via(name), Via(equal)} == {Via(name)}
    assert len({Via(name), Via([name]), Via([name, "other"]), Via({"name": name})}) == 4


def test_a_ref_is_not_pickled_or_copied_with_the_client_in_it_and_says_so() -> None:
    with Client("ipc:///nowhere") as todo:
        ref = ServerRef("x", ("list_server", 1), b"i", 7, 0, 1, todo.todo_list("x"))
        for refused in (pickle.dumps, copy.deepcopy, dataclasses.asdict):
            with pytest.raises(TypeError, match="a client can't be pickled or deep-copied, nor can what holds one"):
                refused(ref)


def test_an_entry_can_be_copied_pickled_and_matched() -> None:
    assert pickle.loads(pickle.dumps(ENTRY)) == copy.deepcopy(ENTRY) == ENTRY
    match ENTRY:
        case Entry(identifier, title, day, done, extra):
            assert (identifier, title, day, done, extra) == (7, "dentist", DAY, True, {"room": 4})
        case _:
            raise AssertionError


def test_what_takes_a_dataclass_takes_an_entry() -> None:
    entry: Any = ENTRY
    assert [field.name for field in dataclasses.fields(entry)] == list(FIELD_NAMES)
    assert dataclasses.asdict(entry) == dict(zip(FIELD_NAMES, (7, "dentist", DAY, True, {"room": 4})))
    assert dataclasses.replace(entry, title="tea") == Entry(7, "tea", DAY, True, {"room": 4})


def test_the_collector_of_cycles_has_no_entry_to_look_at() -> None:
    assert not gc.is_tracked(ENTRY)


def test_an_entry_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ENTRY.title = "tea"  # type: ignore[misc]


FIELDS = [7, "dentist", "2026-12-01", True, {"room": 4}]


def test_a_page_of_entries_is_read_with_its_cursor() -> None:
    assert read_entries_page(pack([[FIELDS, [8, "milk", None, False, None]], [3, 2]])) == (
        [ENTRY, Entry(8, "milk")], [3, 2],
    )  # fmt: skip


def test_open_fields_that_are_not_plain_text_and_numbers_are_read_as_well() -> None:
    extra = {"bytes": b"\x00\xff", "deep": [[[[[[[1]]]]]]]}
    assert read_entries_page(pack([[[1, "milk", None, False, extra]], None])) == ([Entry(1, "milk", extra=extra)], None)


def test_law_7_no_page_makes_more_of_a_client_than_its_bytes_allow() -> None:
    with pytest.raises(ProtocolError, match="arrays and maps"):
        read_entries_page(pack([[[1, "a", None, False, {"x": [{}] * limits.DECODED_ITEMS}]], None]))


@pytest.mark.parametrize(
    "page",
    [
        None, [], [[]], [[], None, None], [{}, None], [[FIELDS[:1]], None], [[[*FIELDS, 1]], None], [["milk"], None],
        [[[7, "dentist", "2026-13-01", True, {}]], None], [[[7, "dentist", 5, True, {}]], None],
    ],
)  # fmt: skip
def test_law_7_what_is_no_page_of_entries_is_refused(page: Any) -> None:
    with pytest.raises((ProtocolError, ValueError, TypeError)):
        read_entries_page(pack(page))
