"""The to-do list against a naive model, and the checks of what may go into it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from todomq.errors import EntryNotFound, InvalidRequest
from todomq.list_server.todo_list import INDEX_FROM, Entry, TodoList
from todomq.protocol import entries as rules
from todomq.protocol import limits

DAYS = [None, "2026-01-01", "2026-12-01"]
DATES = st.sampled_from(DAYS)
EXTRAS = st.sampled_from([{}, {"room": 4}])
COLUMNS = st.sampled_from([1, 4])
TITLES = st.sampled_from(["milk", "bread", "dentist"])
CHANGES = st.fixed_dictionaries({}, optional={"title": TITLES, "date": DATES, "done": st.booleans(), "extra": EXTRAS})


class TodoListMachine(RuleBasedStateMachine):
    """Does everything to a to-do list and to a plain list of plain maps, and compares them after every step."""

    @initialize(size=st.sampled_from([0, 3, INDEX_FROM - 1, INDEX_FROM + 1, 2 * INDEX_FROM]))
    def start(self, size: int) -> None:
        self.todo = TodoList()
        self.model: list[dict[str, Any]] = []
        self.last_id = 0
        self.generation = 0
        for number in range(size):
            self.add(f"entry {number}", None if number % 3 else "2026-01-01", {}, False)

    @rule(title=TITLES, day=DATES, extra=EXTRAS, done=st.booleans())
    def add(self, title: str, day: str | None, extra: dict[str, Any], done: bool) -> None:
        self.last_id += 1
        self.model.append({"id": self.last_id, "title": title, "date": day, "done": done, "extra": extra})
        assert self.todo.add(title, day, extra, done) == Entry(**self.model[-1])

    @rule(entries=st.lists(st.tuples(TITLES, DATES, st.booleans(), EXTRAS), max_size=5), columns=COLUMNS)
    def add_all(self, entries: list[tuple[Any, ...]], columns: int) -> None:
        added = self.todo.add_all(*(list(zip(*entries)) or [()])[:columns])
        for entry in entries:
            self.last_id += 1
            given = dict(zip(("title", "date", "done", "extra"), entry[:columns]))
            self.model.append({"id": self.last_id, "date": None, "done": False, "extra": {}, **given})
        assert list(added.values()) == [Entry(**entry) for entry in self.model[len(self.model) - len(entries) :]]
        assert list(added) == [entry.id for entry in added.values()]

    @rule(data=st.data(), changes=CHANGES)
    def update(self, data: st.DataObject, changes: dict[str, Any]) -> None:
        identifier = data.draw(st.integers(0, self.last_id + 1))
        for entry in self.model:
            if entry["id"] == identifier:
                entry.update(changes)
                assert self.todo.update(identifier, changes) == Entry(**entry)
                return
        with pytest.raises(EntryNotFound):
            self.todo.update(identifier, changes)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        identifier = data.draw(st.integers(0, self.last_id + 1) | st.just(self.last_id))
        there = any(entry["id"] == identifier for entry in self.model)
        self.model = [entry for entry in self.model if entry["id"] != identifier]
        assert self.todo.delete(identifier) is there

    @rule()
    def clear(self) -> None:
        self.todo.clear()
        self.model = []
        self.last_id = 0
        self.generation += 1

    @rule()
    def load_again(self) -> None:
        self.todo = TodoList(self.todo.generation, self.todo.lowest_next_id, self.todo.all())

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        identifier = data.draw(st.integers(0, self.last_id + 1))
        expected = [Entry(**entry) for entry in self.model if entry["id"] == identifier]
        if expected:
            assert self.todo.get(identifier) == expected[0]
        else:
            with pytest.raises(EntryNotFound):
                self.todo.get(identifier)

    @invariant()
    def is_the_model(self) -> None:
        entries = tuple([Entry(**entry) for entry in self.model])
        assert self.todo.all() == entries
        for day in DAYS:
            assert self.todo.on(day) == tuple([entry for entry in entries if entry.date == day])
        assert len(self.todo) == len(self.model)
        assert self.todo.next_id == self.last_id + 1
        assert self.todo.generation == self.generation


TestTodoListIsTheModel = TodoListMachine.TestCase
TestTodoListIsTheModel.settings = settings(max_examples=120, stateful_step_count=25, derandomize=True, deadline=None)


def test_an_id_is_never_given_twice_after_the_highest_was_deleted_and_the_list_loaded_again() -> None:
    todo = TodoList()
    todo.add_all("abc")
    todo.delete(3)
    todo.delete(2)
    again = TodoList(todo.generation, todo.lowest_next_id, todo.all())
    assert again.add("d").id == 4


def test_the_list_record_needs_writing_only_when_the_newest_entry_is_deleted_or_the_list_cleared() -> None:
    todo = TodoList()
    written = [todo.lowest_next_id]
    todo.add_all("abcde")
    for identifier in (1, 5, 4, 9):
        todo.delete(identifier)
        written.append(todo.lowest_next_id)
    todo.add("f")
    written.append(todo.lowest_next_id)
    todo.clear()
    written.append(todo.lowest_next_id)
    assert written == [1, 1, 6, 6, 6, 6, 1]


def test_an_update_that_makes_an_entry_too_large_changes_nothing() -> None:
    todo = TodoList()
    entry = todo.add("a" * 10_000, None, {"b": "c" * 55_000})
    with pytest.raises(InvalidRequest, match="entry: 75"):
        todo.update(1, {"title": "ä" * 10_000, "date": "2026-01-01"})
    assert todo.get(1) is entry and todo.on("2026-01-01") == ()


def test_a_small_list_has_no_index_and_a_large_one_builds_it_once_asked() -> None:
    small, large = TodoList(), TodoList()
    small.add_all(["a"] * INDEX_FROM)
    large.add_all(["a"] * (INDEX_FROM + 1))
    assert large._by_date is None
    small.on(None), large.on(None)
    assert small._by_date is None and large._by_date is not None


def test_the_index_is_kept_up_by_every_change() -> None:
    todo = TodoList()
    todo.add_all(["a"] * 40, ["2026-01-01"] * 40)
    assert [entry.id for entry in todo.on("2026-01-01")] == list(range(1, 41))
    for identifier in (30, 20):
        todo.update(identifier, {"date": "2026-12-01"})
    todo.update(10, {"title": "b"})
    todo.delete(20)
    todo.delete(40)
    todo.add("c", "2026-12-01")
    todo.update(25, {"date": "2026-12-01"})
    assert [entry.id for entry in todo.on("2026-12-01")] == [25, 30, 41]
    assert todo.count_on("2026-12-01") == 3 and todo.count_on("2026-12-31") == 0
    assert [entry.id for entry in todo.on("2026-01-01")] == [i for i in range(1, 40) if i not in (20, 25, 30)]
    assert todo.on("2026-01-01")[9].title == "b"
    todo.clear()
    assert todo.on("2026-01-01") == ()


# Checks


@pytest.mark.parametrize("title", ["a", "ä" * limits.TITLE_CHARACTERS, " ", "\x1b[31m\0\n", "☕"])
def test_a_title_of_any_characters_is_kept_as_it_is(title: str) -> None:
    assert rules.check_title(title) == title


@pytest.mark.parametrize("value", [date(2026, 12, 1).isoformat(), "0001-01-01", "9999-12-31", "2024-02-29", None])
def test_a_calendar_date_or_none_is_a_date(value: str | None) -> None:
    assert rules.check_date(value) == value


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.dates())
def test_every_calendar_date_is_a_date(day: date) -> None:
    assert rules.check_date(day.isoformat()) == day.isoformat()


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_extra_holds_any_plain_values_up_to_sixteen_deep() -> None:
    extra = {"a": None, "b": [1.5, b"x", {1: True}], "c": nested(15), "": 2**64 - 1}
    assert rules.check_extra(extra) is extra


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        (rules.check_id, True, "id: an integer from 1 is needed, not True"),
        (rules.check_id, 0, "id: an integer from 1 is needed, not 0"),
        (rules.check_id, "1", "id: an integer from 1 is needed, not '1'"),
        (rules.check_title, None, "title: a text is needed, not None"),
        (rules.check_title, b"a", "title: a text is needed, not bytes"),
        (rules.check_title, "", "title: 0 characters where 1 to 10000 are allowed"),
        (rules.check_title, "a" * 10_001, "title: 10001 characters where 1 to 10000 are allowed"),
        (rules.check_date, "", "date: a calendar date YYYY-MM-DD or none is needed, not ''"),
        (rules.check_date, "2026-02-29", "date: a calendar date YYYY-MM-DD or none is needed, not '2026-02-29'"),
        (rules.check_date, "20260201", "date: a calendar date"),
        (rules.check_date, "2026-2-01", "date: a calendar date"),
        (rules.check_date, "2026-W01-1", "date: a calendar date"),
        (rules.check_date, "２０２６-12-1", "date: a calendar date"),
        (rules.check_date, "2026-01-01T00", "date: a calendar date"),
        (rules.check_date, "\x1b" * 9, r"not '\x1b\x1b"),
        (rules.check_date, "a" * 99, "not str"),
        (rules.check_date, 20260101, "not 20260101"),
        (rules.check_done, 1, "done: true or false is needed, not 1"),
        (rules.check_extra, [], "extra: a map or none is needed, not list"),
        (rules.check_extra, {1: 2}, "extra: its keys are texts, not 1"),
        (rules.check_extra, {"a": nested(16)}, "extra: nested deeper than 16"),
        (rules.check_extra, {"a": 2**64}, "extra: an integer does not fit into 64 bits"),
        (rules.check_extra, {"a": {1, 2}}, "extra: set is not a msgpack type"),
        (rules.check_changes, [], "changes: a map is needed, not list"),
        (rules.check_changes, {"id": 1}, "changes: an entry has title, date, done, extra to change, not 'id'"),
        (rules.check_changes, {7: 1}, "to change, not 7"),
        (rules.check_changes, {"title": ""}, "title: 0 characters"),
        (rules.check_changes, {"date": 1}, "date: a calendar date"),
        (rules.check_changes, {"done": None}, "done: true or false"),
        (rules.check_changes, {"extra": 1}, "extra: a map"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_a_text_that_names_it(check: Any, value: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(value)
    assert text in str(caught.value)


def test_changes_that_keep_the_rules_pass() -> None:
    changes = {"title": "a", "date": None, "done": True, "extra": {"b": 1}}
    assert rules.check_changes(changes) == changes
    assert rules.check_changes({"extra": None}) == {"extra": {}}
    assert rules.check_changes({}) == {}


def test_a_new_entry_is_checked_whole() -> None:
    assert rules.check_new_entry("a") == ("a", None, {}, False)
    assert rules.check_new_entry("a", "2026-01-01", {"b": 1}, True) == ("a", "2026-01-01", {"b": 1}, True)
    for fields in ((1,), ("a", 1), ("a", None, 1), ("a", None, None, 1)):
        with pytest.raises(InvalidRequest):
            rules.check_new_entry(*fields)


def test_an_entry_may_have_64_kib_packed_and_not_a_byte_more() -> None:
    overhead = 1 + 2 + 1 + 1 + 1 + 2 + 3  # array, title, date, done, map, key, header of the value
    largest = b"x" * (limits.ENTRY_BYTES - overhead)
    rules.check_new_entry("t", None, {"k": largest})
    with pytest.raises(InvalidRequest, match="entry: 65537 bytes packed where at most 65536 are allowed"):
        rules.check_new_entry("t", None, {"k": largest + b"x"})
