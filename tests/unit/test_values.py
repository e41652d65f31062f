"""An entry that was made quickly is an entry like any other: a frozen dataclass."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import pickle

import pytest

from todomq import Entry
from todomq.client.values import make_entry

DAY = datetime.date(2026, 12, 1)
MADE = make_entry(7, "dentist", DAY, True, {"room": 4})


def test_an_entry_that_was_made_quickly_is_one_like_any_other() -> None:
    entry = Entry(id=7, title="dentist", date=DAY, done=True, extra={"room": 4})
    assert entry == MADE and type(MADE) is Entry and repr(MADE) == repr(entry)
    assert dataclasses.asdict(MADE) == dataclasses.asdict(entry)
    assert dataclasses.replace(MADE, title="tea") == Entry(7, "tea", DAY, True, {"room": 4})
    assert pickle.loads(pickle.dumps(MADE)) == copy.deepcopy(MADE) == entry
    assert Entry(1, "milk") == make_entry(1, "milk", None, False, {})


def test_an_entry_cannot_be_changed() -> None:
    for entry in (MADE, Entry(1, "milk")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.title = "tea"  # type: ignore[misc]
