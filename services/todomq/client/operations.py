"""Every operation that a client offers, described once: what it sends and what it makes of the answer.

Owns: arguments and their checks, bodies, results. Must not know: sockets, threads, numbers, whether the caller waits,
gets a future or awaits. The faces (``client``, ``pipeline``, ``async_client``) offer these functions as methods: those
under "One list" take the list's name first, which a handle supplies.

Wrong arguments raise an ``InvalidRequest`` that names the limit, before a number is taken (law 7). ``deadline_s`` is
always how many seconds the whole request may take, retries included; None means the client's default.
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import lru_cache, update_wrapper
from itertools import islice
from typing import Any, TypeVar

from msgspec import Struct

from todomq.client.request import CALL, KEY_CHANGE, LIST_CHANGE, LIST_READ, REPEATABLE, SAFE, Request
from todomq.client.values import (
    Entry,
    Registration,
    ServerRef,
    Via,
    read_entries_page,
    read_entry,
    read_page,
    read_registration,
)
from todomq.errors import InvalidRequest, ProtocolError
from todomq.protocol import limits
from todomq.protocol.codec import canonical, check_plain, has_few_items, pack, unpack
from todomq.protocol.entries import (
    NOT_UNICODE,
    are_titles,
    check_done,
    check_entry_size,
    check_extra,
    check_id,
    check_list_name,
    check_title,
)

H = TypeVar("H")
M = TypeVar("M", bound=Callable[..., Any])

NewEntry = (
    str
    | tuple[str, datetime.date | None]
    | tuple[str, datetime.date | None, dict[str, Any] | None]
    | tuple[str, datetime.date | None, dict[str, Any] | None, bool]
)
"""One of several entries to add: a title, or a tuple of title, date and, if need be, ``extra`` and ``done``."""

_REGISTRY = Via(["registry"])
_CACHE = Via(["cache"])
_INTEGERS = frozenset((int,))
_DAYS = frozenset((datetime.date, type(None)))
_HARMLESS = frozenset(("ping", "stats"))


class Unchanged(Enum):
    """The type of ``UNCHANGED``, which stands for a field that an update leaves as it is."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


# One list.


def add_entry(
    list_name: str,
    title: str,
    date: datetime.date | None = None,
    extra: dict[str, Any] | None = None,
    *,
    done: bool = False,
    deadline_s: float | None = None,
) -> Request[Entry]:
    """Add an entry; it is on disk before the answer is sent.

    Args:
        title: 1 to 10,000 characters.
        date: a day, or None.
        extra: open fields of plain values, nested at most 16 deep.
        done: whether it is done already.

    Returns:
        the entry, with the id that the list gave it.
    """
    title = check_title(title)
    day = None
    if date is not None:
        date = _check_day(date)
        day = date.isoformat()
    if extra is None and done is False:
        body = _body("add_entry", title, day)
        return Request(LIST_CHANGE, list_name, body, _Added(title, date), deadline_s)
    _check_entry(title, day, done, extra)
    body = _body("add_entry", title, day, extra, done)
    kept = _plain_copy(extra)
    return Request(LIST_CHANGE, list_name, body, lambda value: Entry(_id(value), title, date, done, kept), deadline_s)


def add_entries(
    list_name: str, entries: Iterable[NewEntry], *, deadline_s: float | None = None
) -> Request[list[Entry]]:
    """Add several entries in one request: all or none.

    Args:
        entries: for each its title, or ``(title, date)``, ``(title, date, extra)`` or ``(title, date, extra, done)``.

    Returns:
        the entries in the same order, with their ids.
    """
    new = _listed(entries)
    columns = _plain_columns(new)
    if columns is None:
        return _add_checked(list_name, [_new_entry(place, entry) for place, entry in enumerate(new)], deadline_s)
    titles, dates = columns
    wires = [(title,) if day is None else (title, day.isoformat()) for title, day in zip(titles, dates)]

    def read(value: Any) -> list[Entry]:
        return list(map(Entry, _ids(value, len(titles)), titles, dates))

    return Request(LIST_CHANGE, list_name, _entries_body(wires), read, deadline_s)


def entries(
    list_name: str, date: datetime.date | None = None, *, deadline_s: float | None = None
) -> Request[list[Entry]]:
    """Read the entries of a day, or all of them, by ascending id.

    Args:
        date: the day; None for all entries.
    """
    if date is None:
        return _read_entries(list_name, _pages(read_entries_page, "entries"), deadline_s)
    return _read_entries(list_name, _pages_of(_check_day(date)), deadline_s)


def undated_entries(list_name: str, *, deadline_s: float | None = None) -> Request[list[Entry]]:
    """Read the entries that have no date, by ascending id."""
    return _read_entries(list_name, _pages_of(None), deadline_s)


def update_entry(
    list_name: str,
    id: int,
    *,
    title: str | Unchanged = UNCHANGED,
    date: datetime.date | Unchanged | None = UNCHANGED,
    done: bool | Unchanged = UNCHANGED,
    extra: dict[str, Any] | Unchanged | None = UNCHANGED,
    deadline_s: float | None = None,
) -> Request[Entry]:
    """Change an entry: fields that are left out stay as they are, ``date=None`` removes the date.

    Returns:
        the changed entry.

    Raises:
        EntryNotFound: the list has no entry with this id.
    """
    changes: dict[str, Any] = {}
    if title is not UNCHANGED:
        changes["title"] = check_title(title)
    if date is not UNCHANGED:
        changes["date"] = None if date is None else _day(date)
    if done is not UNCHANGED:
        changes["done"] = check_done(done)
    if extra is not UNCHANGED:
        changes["extra"] = check_extra(extra)
    return Request(LIST_CHANGE, list_name, _body("update_entry", check_id(id), changes), read_entry, deadline_s)


def delete_entry(list_name: str, id: int, *, deadline_s: float | None = None) -> Request[bool]:
    """Delete an entry; its id is not given to another one. Returns False if there was no such entry."""
    return Request(LIST_CHANGE, list_name, _body("delete_entry", check_id(id)), _boolean, deadline_s)


def clear(list_name: str, *, deadline_s: float | None = None) -> Request[None]:
    """Empty the list; ids start at 1 again."""
    return Request(LIST_CHANGE, list_name, _body("clear"), _nothing, deadline_s)


def delete(list_name: str, *, deadline_s: float | None = None) -> Request[None]:
    """Delete the list itself; it is gone from ``list_names``."""
    return Request(LIST_CHANGE, list_name, _body("delete"), _nothing, deadline_s)


def size(list_name: str, *, deadline_s: float | None = None) -> Request[int]:
    """Return the number of entries."""
    return Request(LIST_READ, list_name, _body("size"), _integer, deadline_s)


def cast_add_entry(
    list_name: str,
    title: str,
    date: datetime.date | None = None,
    extra: dict[str, Any] | None = None,
    *,
    deadline_s: float | None = None,
) -> Request[None]:
    """Ask for an entry to be added, with no promise and no answer."""
    title = check_title(title)
    day = None if date is None else _day(date)
    _check_entry(title, day, False, extra)
    body = _body("add_entry", title, day, extra)
    return Request(LIST_CHANGE, list_name, body, _nothing, deadline_s, is_cast=True)


# All lists.


def list_names(prefix: str = "", *, deadline_s: float | None = None) -> Request[list[str]]:
    """Return the names of all stored lists that begin with ``prefix``, sorted, whether loaded or not."""
    pages = _pages(read_page, "list_names", _text("prefix", prefix))
    return Request(SAFE, "", pages.first, lambda names: sorted(set(names)), deadline_s, pages)


def server_process(
    list_name: str, handle: Callable[[str], H], *, deadline_s: float | None = None
) -> Request[ServerRef[H]]:
    """Return where the list's actor lives; if it is not active, it is activated first.

    Args:
        handle: makes the list's handle.
    """
    name = check_list_name(list_name)
    todo_list = handle(name)

    def read(value: Any) -> ServerRef[H]:
        (kind, n), incarnation, activation, partition, epoch = value
        return ServerRef(name, (kind, n), incarnation, activation, partition, epoch, todo_list)

    return Request(SAFE, _by_name(_CACHE), _body("server_process", name), read, deadline_s)


# Names.


def register_name(
    name: Any, address: str, pid: int | None = None, *, lease_ms: int = 0, deadline_s: float | None = None
) -> Request[bool]:
    """Register a name.

    Args:
        name: any msgpack value.
        address: where it can be reached.
        pid: a process on this machine; the registration ends when that process does.
        lease_ms: how long the registration lasts unless the name is registered again; the registry's own lease (3 s) if
            that is longer. With a pid too, a process that has not registered again by then is taken to hang, like a
            daemon of the stack, and is ended with SIGKILL. 0 means no lease, which is allowed only with a pid.

    Returns:
        True, or False if the name is taken by somebody who is still alive.
    """
    canonical(name)
    check_plain(pid, what="pid")
    check_plain(lease_ms, what="lease_ms")
    body = _body("register_name", name, _text("address", address), pid, None, lease_ms)
    return Request(REPEATABLE, _by_name(_REGISTRY), body, _boolean, deadline_s)


def unregister_name(name: Any, *, deadline_s: float | None = None) -> Request[bool]:
    """Take a name out of the registry.

    Returns:
        True, or False if it was not there. A daemon's name is refused: it was registered with an incarnation, and only
        that incarnation can give it up.
    """
    canonical(name)
    return Request(CALL, _by_name(_REGISTRY), _body("unregister_name", name, None), _boolean, deadline_s)


def whereis_name(name: Any, *, deadline_s: float | None = None) -> Request[Registration | None]:
    """Return who is registered under a name, or None."""
    canonical(name)

    def read(value: Any) -> Registration | None:
        return None if value is None else read_registration(value)

    return Request(SAFE, _by_name(_REGISTRY), _body("whereis_name", name), read, deadline_s)


def names(*, deadline_s: float | None = None) -> Request[list[Registration]]:
    """Return all registrations."""

    def read(value: Any) -> list[Registration]:
        return [read_registration(item) for item in value]

    return Request(SAFE, _by_name(_REGISTRY), _body("names"), read, deadline_s)


def call(via: Via, operation: str, *arguments: Any, deadline_s: float | None = None) -> Request[Any]:
    """Call the process that is registered under a name, which is looked up for each call.

    A call that was on its way when the daemon died or the connection broke is not sent again: its outcome is
    ``unknown``. A call has no number, so with ``retry()`` it may take effect twice.

    Args:
        via: the name.
        operation, arguments: plain msgpack values; what they mean is up to the callee.

    Raises:
        NameNotFound: nobody is registered under the name.
    """
    body = _call_body(operation, arguments)
    kind = SAFE if operation in _HARMLESS else CALL
    return Request(kind, _by_name(via), body, _anything, deadline_s)


def send(via: Via, operation: str, *arguments: Any, deadline_s: float | None = None) -> Request[None]:
    """Send a request to the process that is registered under a name, with no promise and no answer."""
    body = _call_body(operation, arguments)
    return Request(CALL, _by_name(via), body, _nothing, deadline_s, is_cast=True)


def send_to_name(name: Any, operation: str, *arguments: Any, deadline_s: float | None = None) -> Request[None]:
    """Send a request to the process that is registered under a name, with no promise and no answer."""
    return send(Via(name), operation, *arguments, deadline_s=deadline_s)


# Database.


def store(key: Any, value: Any, *, deadline_s: float | None = None) -> Request[None]:
    """Store any msgpack value under any msgpack key; it is on disk before the answer is sent."""
    return Request(KEY_CHANGE, _key(key), _store_body(key, value), _nothing, deadline_s)


def cast_store(key: Any, value: Any, *, deadline_s: float | None = None) -> Request[None]:
    """Ask for a value to be stored, with no promise and no answer."""
    return Request(KEY_CHANGE, _key(key), _store_body(key, value), _nothing, deadline_s, is_cast=True)


def get(key: Any, *, deadline_s: float | None = None) -> Request[Any]:
    """Return the value stored under a key, or None if there is none."""
    return Request(SAFE, _key(key), _body("get", key), _anything, deadline_s)


# What the faces make of these.


def shown_as(build: Callable[..., Request[Any]], result: str = "{}", *, is_of_list: bool = False) -> Callable[[M], M]:
    """Make ``help()`` and the like show the method that a face makes of an operation with its true signature.

    Args:
        build: the operation.
        result: what the method returns, where ``{}`` is the request's result.
        is_of_list: whether callers leave the list's name out, since the handle knows it.
    """
    asked = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    given = list(asked.parameters.values())[1 if is_of_list else 0 :]
    returned = result.format(asked.return_annotation.removeprefix("Request[").removesuffix("]"))

    def show(method: M) -> M:
        update_wrapper(method, build)
        method.__signature__ = inspect.Signature([own, *given], return_annotation=returned)  # type: ignore[attr-defined]
        method.__annotations__ = {**{each.name: each.annotation for each in given}, "return": returned}
        return method

    return show


# What requests are made of.


class _Added(Struct, gc=False):
    """Makes the added entry from its id. Title and date refer to nothing else: the garbage collector may ignore it."""

    title: str
    date: datetime.date | None

    def __call__(self, value: Any) -> Entry:
        return Entry(_id(value), self.title, self.date)


class _Pages(Struct, frozen=True, gc=False):
    """A read in pages: ``question`` with a cursor asks for one, ``read_page`` returns its items and the next cursor."""

    question: tuple[Any, ...]
    first: bytes
    read_page: Callable[[bytes], tuple[list[Any], Any]]

    def read(self, value: bytes) -> tuple[list[Any], bytes | None]:
        try:
            items, cursor = self.read_page(value)
            return items, None if cursor is None else _body(*self.question, cursor)
        except (ValueError, TypeError, RecursionError, InvalidRequest) as error:
            raise ProtocolError(f"an answer that cannot be read: {error}") from None


def _read_entries(list_name: str, pages: _Pages, deadline_s: float | None) -> Request[list[Entry]]:
    return Request(LIST_READ, list_name, pages.first, _anything, deadline_s, pages)


@lru_cache(maxsize=1024)
def _pages_of(date: datetime.date | None) -> _Pages:
    """Return the pages of the entries of a day, or without one."""
    return _pages(read_entries_page, "entries_on", None if date is None else date.isoformat())


def _pages(read_page: Callable[[bytes], tuple[list[Any], Any]], *question: Any) -> _Pages:
    return _Pages(question, _body(*question, None), read_page)


def _body(*parts: Any) -> bytes:
    try:
        body = pack(parts)
    except UnicodeEncodeError:  # in a title: every other text was encoded when it was checked
        raise InvalidRequest(NOT_UNICODE) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{parts[0]}: {error}") from None
    if len(body) <= limits.DECODED_ITEMS:
        return body  # it can't hold too many arrays and maps
    if len(body) > limits.REQUEST_BYTES:
        raise InvalidRequest(f"{parts[0]}: a request of {len(body)} bytes where {limits.REQUEST_BYTES} are allowed")
    if not has_few_items(body):
        try:
            unpack(body)
        except ProtocolError as error:
            raise InvalidRequest(f"{parts[0]}: {error.text}") from None
    return body


def _call_body(operation: str, arguments: Sequence[Any]) -> bytes:
    for argument in arguments:
        check_plain(argument, what="argument")
    return _body(_text("operation", operation), *arguments)


def _store_body(key: Any, value: Any) -> bytes:
    check_plain(value)
    return _body("store", key, value)


def _key(key: Any) -> bytes:
    return canonical(key, limits.KEY_BYTES, "key")


def _by_name(via: Via) -> list[Any]:
    """Return a name as a request's target: a copy, since it is packed later, on another thread."""
    if not isinstance(via, Via):
        raise InvalidRequest("via: a Via(name) is needed")
    return [unpack(canonical(via.name))]


def _text(what: str, value: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{what}: a text is needed, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what}: text that is not valid Unicode") from None
    return str.__str__(value)  # a plain text where a subclass was given, which could not be packed


def _day(date: datetime.date) -> str:
    return _check_day(date).isoformat()


def _check_day(date: datetime.date) -> datetime.date:
    if type(date) is not datetime.date and (not isinstance(date, datetime.date) or isinstance(date, datetime.datetime)):
        raise InvalidRequest(f"date: a datetime.date or None is needed, not {type(date).__name__}")
    return date if type(date) is datetime.date else datetime.date(date.year, date.month, date.day)


def _plain_columns(new: list[Any]) -> tuple[Sequence[str], Sequence[datetime.date | None]] | None:
    """Return titles and dates of entries that are all a title, or all ``(title, date)``, and valid; None for others.

    Checking a column costs a fifth of checking each entry.
    """
    kinds = set(map(type, new))
    titles: Sequence[Any]
    dates: Sequence[Any]
    if kinds == {str}:
        titles, dates = new, [None] * len(new)
    elif kinds == {tuple} and set(map(len, new)) == {2}:
        titles, dates = zip(*new)
    else:
        return None
    return (titles, dates) if _DAYS.issuperset(map(type, dates)) and are_titles(titles) else None


_Checked = tuple[tuple[Any, ...], datetime.date | None]
"""A new entry as it is sent, ``(title, day, extra, done)`` or less of it, and its date."""


def _add_checked(list_name: str, checked: list[_Checked], deadline_s: float | None) -> Request[list[Entry]]:
    def read(value: Any) -> list[Entry]:
        return [
            Entry(identifier, wire[0], date)
            if len(wire) < 4
            else Entry(identifier, wire[0], date, wire[3], _plain_copy(wire[2]))
            for identifier, (wire, date) in zip(_ids(value, len(checked)), checked)
        ]

    return Request(LIST_CHANGE, list_name, _entries_body([wire for wire, _ in checked]), read, deadline_s)


def _listed(entries: Iterable[NewEntry]) -> list[NewEntry]:
    if isinstance(entries, str | bytes | dict) or not isinstance(entries, Iterable):
        raise InvalidRequest(f"add_entries: several entries are needed, not {type(entries).__name__}")
    listed = list(islice(entries, limits.DECODED_ITEMS + 1))  # they may be endless
    if len(listed) > limits.DECODED_ITEMS:
        raise InvalidRequest(f"add_entries: more than the {limits.DECODED_ITEMS} entries that are allowed")
    return listed


def _entries_body(wires: list[tuple[Any, ...]]) -> bytes:
    try:
        return _body("add_entries", wires)
    except InvalidRequest as error:
        if error.text == NOT_UNICODE:
            place = next(place for place, wire in enumerate(wires) if not _is_unicode(wire[0]))
            raise InvalidRequest(f"entry {place}: {NOT_UNICODE}") from None
        raise


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _new_entry(place: int, entry: NewEntry) -> _Checked:
    given: tuple[Any, ...] = tuple(entry) if isinstance(entry, tuple | list) else (entry,)
    try:
        if not 1 <= len(given) <= 4:
            raise InvalidRequest("a title, (title, date), (title, date, extra) or (title, date, extra, done) is needed")
        title = check_title(given[0])
        date = _check_day(given[1]) if len(given) > 1 and given[1] is not None else None
        day = None if date is None else date.isoformat()
        if len(given) < 3:
            return (title,) if day is None else (title, day), date
        extra, done = given[2], len(given) > 3 and given[3]
        _check_entry(title, day, done, extra)
    except InvalidRequest as error:
        raise InvalidRequest(f"entry {place}: {error.text}") from None
    return (title, day, extra, done), date


def _check_entry(title: str, day: str | None, done: bool, extra: dict[str, Any] | None) -> None:
    check_done(done)
    if extra is not None:
        check_extra(extra)
        check_entry_size(title, day, done, extra)


def _plain_copy(extra: dict[str, Any] | None) -> dict[str, Any]:
    """Return open fields as the list keeps them: the caller may change its own afterwards."""
    if not extra:
        return {}
    copy: dict[str, Any] = unpack(pack(extra))
    return copy


def _ids(value: Any, count: int) -> list[int]:
    if type(value) is not list or len(value) != count or not _INTEGERS.issuperset(map(type, value)):
        raise ValueError("one id for each entry is needed")
    return value


def _id(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("an id is an integer")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("an integer is needed")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false is needed")
    return value


def _nothing(value: Any) -> None:
    return None


def _anything(value: Any) -> Any:
    return value
