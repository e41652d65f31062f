"""The values that callers get and give: entries, names, where things are.

Owns: their shape, their equality, how they are read from an answer. Must not know: requests, sockets.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

H = TypeVar("H")


@dataclass(frozen=True, slots=True, init=False)
class Entry:
    """One entry of a list, as it was when the answer was given.

    Attributes:
        id: given by the list, ascending, never given twice until the list is cleared.
        title: 1 to 10,000 characters.
        date: a day, or None.
        done: whether it is done.
        extra: open fields, by name.
    """

    id: int
    title: str
    date: datetime.date | None = None
    done: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        id: int,
        title: str,
        date: datetime.date | None = None,
        done: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> None:
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "date", date)
        object.__setattr__(self, "done", done)
        object.__setattr__(self, "extra", {} if extra is None else extra)


class _Unfrozen:
    """An entry that is being made: what is frozen sets its fields at three times the price."""

    __slots__ = ("date", "done", "extra", "id", "title")  # as Entry has them, so that one may become the other


def make_entry(id: int, title: str, date: datetime.date | None, done: bool, extra: dict[str, Any]) -> Entry:
    """Return what ``Entry`` with the same arguments would be; a pipelined answer should cost little."""
    made: Any = _Unfrozen()
    made.id = id
    made.title = title
    made.date = date
    made.done = done
    made.extra = extra
    made.__class__ = Entry
    entry: Entry = made
    return entry


@dataclass(frozen=True, slots=True)
class Via:
    """Somebody who is called by the name under which they are registered.

    Attributes:
        name: any msgpack value, for instance ``["database_worker", 1]``.
    """

    name: Any


@dataclass(frozen=True, slots=True)
class Registration:
    """Who is registered under a name.

    Attributes:
        name: any msgpack value.
        address: where it listens.
        pid: its process on this machine, or None.
        incarnation: this life of it.
    """

    name: Any
    address: str
    pid: int | None
    incarnation: bytes


@dataclass(frozen=True, slots=True)
class ServerRef(Generic[H]):
    """The server of a list: equal while the list's actor lives, different for another list or another activation.

    Attributes:
        list_name: the list.
        server: the registered name of the list server, ``("list_server", n)``.
        incarnation: this life of the list server.
        activation: this life of the list's actor in it.
        partition, epoch: where the list belongs, under which epoch the server owns it.
        todo_list: the list's handle, of the client that asked.
    """

    list_name: str
    server: tuple[str, int]
    incarnation: bytes
    activation: Any
    partition: int = field(compare=False)
    epoch: int = field(compare=False)
    todo_list: H = field(compare=False, repr=False)


def read_entry(fields: Any) -> Entry:
    """Return the entry that ``[id, title, date, done, extra]`` describes; ValueError or TypeError for anything else."""
    identifier, title, date, done, extra = fields
    day = None if date is None else datetime.date.fromisoformat(date)
    return make_entry(identifier, title, day, done, extra or {})


def read_registration(fields: Any) -> Registration:
    """Return the registration that ``[name, address, pid, incarnation]`` describes; ValueError for anything else."""
    name, address, pid, incarnation = fields
    return Registration(name, address, pid, incarnation)
