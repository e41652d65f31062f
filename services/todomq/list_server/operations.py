"""The operations on one list, by the name that a request's body carries: what each checks, does, and answers.

Owns: the names and arguments of operations. Must not know: who asks, numbers, how records reach the disk.
A change is given the to-do list and where to note the entries it touched; a read is given the to-do list alone.
Whatever is wrong with the arguments is an ``InvalidRequest`` before anything is changed (law 7).

A new operation stands here, in ``CHANGES``, ``READS`` or ``PAGED``; its right in ``keys/rights.py``; the request in
``client/operations.py``, and a line in each face (``client.py``, ``pipeline.py``, ``async_client.py``); its row in
``docs/protocol.md``. What it does is then claimed by ``tests/checking`` and asked for by ``tests/topology/workload.py``
and ``tests/torture/workload.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from todomq.errors import InvalidRequest
from todomq.list_server.todo_list import Entry, TodoList
from todomq.protocol import messages
from todomq.protocol.entries import are_titles, check_changes, check_date, check_id, check_new_entry

Touched = dict[int, Entry | None]
"""Entries to store, by id; None for those to delete."""


def add_entry(todo: TodoList, arguments: list[Any], touched: Touched) -> int:
    """``["add_entry", title, date, extra, done]``, later ones may be left out; answers the id."""
    messages.check_count(arguments, 1, 4)
    title, date, extra, done = check_new_entry(*arguments)
    entry = todo.add(title, date, extra, done)
    touched[entry.id] = entry
    return entry.id


def add_entries(todo: TodoList, arguments: list[Any], touched: Touched) -> list[int]:
    """``["add_entries", [[title, date, extra, done], ...]]``: all or none; answers the ids."""
    messages.check_count(arguments, 1, 1)
    items = arguments[0]
    if type(items) is not list:
        raise InvalidRequest("add_entries: an array of entries is needed")
    titles = _only_titles(items)
    entries = todo.add_all(*(_checked_columns(items) if titles is None else [titles]))
    touched.update(entries)
    return list(entries)


def _only_titles(items: list[Any]) -> list[str] | None:
    """Return the titles of items that are all ``[title]``, and right; None where they are not."""
    if set(map(type, items)) != {list} or set(map(len, items)) != {1}:
        return None
    titles = [title for (title,) in items]
    return titles if are_titles(titles) else None


def _checked_columns(items: list[Any]) -> list[tuple[Any, ...]]:
    """Return titles, dates, done and extra of items that are right."""
    checked: list[tuple[Any, ...]] = []
    for item in items:
        if type(item) is not list or not 1 <= len(item) <= 4:
            raise InvalidRequest(f"add_entries: item {len(checked)} is not [title, date, extra, done]")
        try:
            title, date, extra, done = check_new_entry(*item)
        except InvalidRequest as error:
            raise InvalidRequest(f"add_entries: item {len(checked)}: {error.text}") from None
        checked.append((title, date, done, extra))
    return list(zip(*checked)) or [()]


def update_entry(todo: TodoList, arguments: list[Any], touched: Touched) -> Entry:
    """``["update_entry", id, {field: value}]``: fields left out stay; answers the entry."""
    messages.check_count(arguments, 2, 2)
    entry = todo.update(check_id(arguments[0]), check_changes(arguments[1]))
    touched[entry.id] = entry
    return entry


def delete_entry(todo: TodoList, arguments: list[Any], touched: Touched) -> bool:
    """``["delete_entry", id]``: answers whether there was one."""
    messages.check_count(arguments, 1, 1)
    identifier = check_id(arguments[0])
    deleted = todo.delete(identifier)
    if deleted:
        touched[identifier] = None
    return deleted


def clear(todo: TodoList, arguments: list[Any], touched: Touched) -> None:
    """``["clear"]``: empties the list under a new generation; ids start at 1 again."""
    messages.check_count(arguments, 0, 0)
    todo.clear()


def size(todo: TodoList, arguments: list[Any]) -> int:
    """``["size"]``: answers the number of entries."""
    messages.check_count(arguments, 0, 0)
    return len(todo)


def entries(todo: TodoList, arguments: list[Any]) -> tuple[Entry, ...]:
    """``["entries", cursor]``: all entries, in pages."""
    messages.check_count(arguments, 0, 0)
    return todo.all()


def entries_on(todo: TodoList, arguments: list[Any]) -> tuple[Entry, ...]:
    """``["entries_on", date, cursor]``: those of a date, or without one (nil), in pages."""
    messages.check_count(arguments, 1, 1)
    return todo.on(check_date(arguments[0]))


def size_on(todo: TodoList, arguments: list[Any]) -> int:
    """Return how many entries ``entries_on`` answers."""
    messages.check_count(arguments, 1, 1)
    return todo.count_on(check_date(arguments[0]))


Change = Callable[[TodoList, list[Any], Touched], Any]
"""Changes a list as arguments say, and notes what it touched; returns what is answered."""

CHANGES: dict[str, Change] = {
    "add_entry": add_entry,
    "add_entries": add_entries,
    "update_entry": update_entry,
    "delete_entry": delete_entry,
    "clear": clear,
    "delete": clear,
}
ADDS = frozenset(("add_entry", "add_entries"))
EMPTYING = frozenset(("clear", "delete"))
WITHIN = "within"
"""``["within", may_create, most_entries, body]``: an add of a client whose key may store so much only."""

READS: dict[str, Callable[[TodoList, list[Any]], Any]] = {"size": size}


class Paged(NamedTuple):
    """A read that is answered in pages: how many arguments stand before the cursor, what it reads and how much."""

    arguments: int
    read: Callable[[TodoList, list[Any]], tuple[Entry, ...]]
    size: Callable[[TodoList, list[Any]], int]


PAGED = {
    "entries": Paged(0, entries, size),
    "entries_on": Paged(1, entries_on, size_on),
}


Question = tuple[str, list[Any], Change | None]
"""An operation, its arguments, and what makes the change, None where it is none (or stands in a ``WITHIN``)."""


def read_operation(body: bytes) -> Question:
    """Read a request's body.

    Raises:
        ProtocolError: it can't be read.
    """
    operation, arguments = messages.read_body(body)
    return operation, arguments, CHANGES.get(operation)


def asks_on(body: bytes) -> bool:
    """Tell whether a read asks for a page behind the first, by a cursor.

    Raises:
        ProtocolError: it can't be read.
    """
    operation, arguments, _ = read_operation(body)
    return operation in PAGED and len(arguments) == PAGED[operation].arguments + 1 and arguments[-1] is not None


def read_within(arguments: list[Any]) -> tuple[bool, int, str, list[Any], Change]:
    """Read ``within``.

    Returns:
        whether the list may come to be by it, how many entries it may have then (0: any); the add, its arguments and
        what makes it.

    Raises:
        InvalidRequest: anything else. ProtocolError: its body can't be read.
    """
    if [type(argument) for argument in arguments] != [bool, int, bytes]:
        raise InvalidRequest("within takes a bool, a whole number and a body")
    operation, inner, change = read_operation(arguments[2])
    if change is None or operation not in ADDS:
        raise InvalidRequest("within takes add_entry or add_entries")
    return arguments[0], arguments[1], operation, inner, change
