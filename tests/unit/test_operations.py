"""What the list server reads of a request's body: adds are read by a way of their own, which must be no other way."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from todomq.errors import TodoMQError
from todomq.list_server.operations import CHANGES, Touched, read_operation
from todomq.list_server.todo_list import TodoList
from todomq.protocol import limits, messages

DAY = "2026-12-01"
WIDEST = "\N{GLASS OF MILK}"
LONGEST = limits.TITLE_CHARACTERS
BODIES = [
    messages.body("add_entry", *arguments)
    for arguments in (
        ("milk", None), ("milk", DAY), ("m", DAY), (WIDEST * LONGEST, None), (WIDEST * (LONGEST + 1), None),
        ("", None), (None, None), (b"milk", None), (1, None), (["milk"], DAY), ("milk", ""), ("milk", "2026-02-30"),
        ("milk", "2026-W49-2"), ("milk", 20261201), ("milk", False), ("milk",), (), ("milk", DAY, {"room": 4}),
        ("milk", DAY, None, True), ("milk", None, None, False, 5),
    )
]  # fmt: skip
OTHERS = [
    messages.body("add_entry", "milk", None) + b"\0",
    messages.body("add_entry", "milk", None)[:-1],
    b"\x93\xa9add_entry\xa2\xff\xff\xc0",
    b"\x93\xa9add_entry\xd9\x04milk\xc0",
    b"\x93\xd9\x09add_entry\xa4milk\xc0",
    b"\x93\xa9add_entry\xa4milk\xd6\xff\0\0\0\0",
    b"\x93\xa9add_entry",
    messages.body("add_entries", [["milk"]]),
    messages.body("size"),
    msgpack.packb(["add_entrx", "milk", None]),
]


def plainly(body: bytes, todo: TodoList, touched: Touched) -> Any:
    operation, arguments = messages.read_body(body)
    return operation, arguments if operation not in CHANGES else CHANGES[operation](todo, arguments, touched)


def as_read(body: bytes, todo: TodoList, touched: Touched) -> Any:
    operation, arguments, change = read_operation(body)
    return operation, arguments if change is None else change(todo, arguments, touched)


@pytest.mark.parametrize("body", BODIES + OTHERS)
def test_a_body_is_read_and_does_what_it_would_if_every_field_were_looked_at(body: bytes) -> None:
    outcomes = []
    for serve in (plainly, as_read):
        todo = TodoList()
        touched: Touched = {}
        try:
            outcome = serve(body, todo, touched)
        except TodoMQError as error:
            outcome = type(error), error.text
        outcomes.append((outcome, touched, todo.all()))
    assert outcomes[0] == outcomes[1]
