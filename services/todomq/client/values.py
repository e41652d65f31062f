"""The values that callers get and give: entries, names, where things are.

Owns: their shape, their equality, how they are read from an answer. Must not know: requests, sockets.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec

from todomq.errors import ProtocolError
from todomq.protocol import limits
from todomq.protocol.codec import Plain, has_few_items, unpack_value

H = TypeVar("H")

if TYPE_CHECKING:
    _Fields = dict[str, Any]
else:
    _Fields = dict[str, Plain]  # values that decode quickly; others take a slower way, see ``read_entries_page``


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One entry of a list, as it was when the answer was given.

    A value: two are equal if their fields are, and none can be changed. ``dataclasses.asdict``, ``fields`` and
    ``replace`` accept it, and so do the functions of ``msgspec.structs``. (It is not a real dataclass: making one costs
    three times as much, and answers hold many. For the same reason the garbage collector ignores entries: one is in no
    reference cycle, unless you make its ``extra`` lead back to it. And msgspec packs an entry as the array of its
    fields, which is its form in an answer.)

    Attributes:
        id: given by the list in ascending order; never given twice until the list is cleared.
        title: 1 to 10,000 characters.
        date: a day, or None.
        done: whether it is done.
        extra: open fields, by name; empty where there are none.
    """

    id: int
    title: str
    date: datetime.date | None = None
    done: bool = False
    extra: _Fields = msgspec.field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.id, self.title, self.date, self.done))


Entry.__dataclass_fields__ = make_dataclass("Entry", Entry.__struct_fields__).__dataclass_fields__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Via:
    """A callee, identified by the name under which it is registered.

    Attributes:
        name: any msgpack value, for instance ``["database_worker", 1]``.
    """

    name: Any

    def __hash__(self) -> int:
        return _hash_of(self.name)


@dataclass(frozen=True, slots=True)
class Registration:
    """Who is registered under a name.

    Attributes:
        name: any msgpack value.
        address: where it listens.
        pid: its process on this machine, or None.
        incarnation: which life of that process this is.
    """

    name: Any
    address: str
    pid: int | None
    incarnation: bytes

    def __hash__(self) -> int:
        return hash((self.address, self.pid, self.incarnation))


@dataclass(frozen=True, slots=True)
class ServerRef(Generic[H]):
    """The server of a list: two are equal as long as the list's actor lives, and differ if the list or activation does.

    It can't be pickled, because its handle holds the client. Its first four attributes, which decide equality, can be.

    Attributes:
        list_name: the list.
        server: the registered name of the list server, ``("list_server", n)``.
        incarnation: this life of the list server.
        activation: this life of the list's actor in it.
        partition, epoch: the list's partition, and the epoch under which the server owns it.
        todo_list: the list's handle, made by the client that asked.
    """

    list_name: str
    server: tuple[str, int]
    incarnation: bytes
    activation: Any
    partition: int = field(compare=False)
    epoch: int = field(compare=False)
    todo_list: H = field(compare=False, repr=False)


def _hash_of(value: Any) -> int:
    """Return a hash of any msgpack value that agrees with ``==``."""
    if isinstance(value, list | tuple):
        return hash(tuple(map(_hash_of, value)))
    if isinstance(value, dict):
        return hash(frozenset((key, _hash_of(item)) for key, item in value.items()))
    return hash(value)


def read_entry(fields: Any) -> Entry:
    """Return the entry that ``[id, title, date, done, extra]`` describes; ValueError or TypeError for anything else."""
    identifier, title, date, done, extra = fields
    day = None if date is None else datetime.date.fromisoformat(date)
    return Entry(identifier, title, day, done, extra or {})


_Page = tuple[Annotated[list[Entry], msgspec.Meta(max_length=limits.DECODED_ITEMS)], Plain]
_unpack_page: Callable[[bytes], tuple[list[Entry], Any]] = msgspec.msgpack.Decoder(_Page).decode


def read_entries_page(value: bytes) -> tuple[list[Entry], Any]:
    """Return the entries of a page ``[[entry, ...], cursor or nil]``, and the cursor.

    Raises:
        ProtocolError, ValueError, TypeError: it is not such a page.
    """
    if len(value) <= limits.DECODED_ITEMS or has_few_items(value):
        try:
            return _unpack_page(value)
        except ValueError:
            pass  # it may be valid all the same: open fields may hold bytes
    items, cursor = read_page(value)
    return [read_entry(item) for item in items], cursor


def read_page(value: bytes) -> tuple[list[Any], Any]:
    """Return the items of a page ``[[item, ...], cursor or nil]``, and the cursor.

    Raises:
        ProtocolError: it is not such a page.
    """
    page = unpack_value(value)
    if type(page) is not list or len(page) != 2 or type(page[0]) is not list:
        raise ProtocolError("a page is [[item, ...], cursor or nil]")
    return page[0], page[1]


def read_registration(fields: Any) -> Registration:
    """Return the registration that ``[name, address, pid, incarnation]`` describes; ValueError for anything else."""
    name, address, pid, incarnation = fields
    return Registration(name, address, pid, incarnation)
