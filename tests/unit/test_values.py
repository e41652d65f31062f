"""An entry is a value: equal by its fields, never changed, to be copied, pickled and taken apart by pattern."""

from __future__ import annotations

import copy
import datetime
import pickle

import pytest

from todomq import Entry

DAY = datetime.date(2026, 12, 1)
ENTRY = Entry(7, "dentist", DAY, True, {"room": 4})


def test_an_entry_is_equal_to_one_of_the_same_fields_and_to_no_other() -> None:
    assert Entry(id=7, title="dentist", date=DAY, done=True, extra={"room": 4}) == ENTRY
    assert Entry(7, "dentist", DAY) != ENTRY
    assert Entry(1, "milk") == Entry(1, "milk", None, False, {})
    assert Entry(1, "milk").extra is not Entry(1, "milk").extra
    assert repr(Entry(1, "milk")) == "Entry(id=1, title='milk', date=None, done=False, extra={})"


def test_an_entry_can_be_copied_pickled_and_matched() -> None:
    assert pickle.loads(pickle.dumps(ENTRY)) == copy.deepcopy(ENTRY) == ENTRY
    match ENTRY:
        case Entry(identifier, title, day, done, extra):
            assert (identifier, title, day, done, extra) == (7, "dentist", DAY, True, {"room": 4})
        case _:
            raise AssertionError


def test_an_entry_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ENTRY.title = "tea"  # type: ignore[misc]
