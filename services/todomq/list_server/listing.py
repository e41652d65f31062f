"""The directory of lists: the names of all stored lists, merged from every database worker in pages.

Owns: one listing in progress, and its narrowing to the names that a key may read. Must not know: sockets, actors. Shows
what is on disk: a list that is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from todomq.errors import InvalidRequest
from todomq.list_server import records
from todomq.protocol import limits, messages

Page = tuple[list[str], Any]


class Listing:
    """One page of names: asked of every worker, answered when all have."""

    def __init__(self, prefix: str, after: str | None, workers: int) -> None:
        """Ask for names that begin with ``prefix``, behind the name ``after`` if there is one."""
        self.prefix = records.LISTS_PREFIX + prefix.encode()
        self.after = None if after is None else records.list_key(after)
        self.bytes_each = max(1, limits.PAGE_BYTES // workers)
        """What each worker is asked for, so that however many they are, their pages make one; a record at least."""
        self.goes_on = after is not None
        """Whether pages before this one have been read."""
        self._missing = workers
        self._keys: list[bytes] = []
        self._end: bytes | None = None

    def take(self, pairs: list[bytes], last: bytes | None) -> bool:
        """Take one worker's page; return whether all have answered.

        Raises:
            CorruptRecord: a list's record cannot be read.
        """
        for key, value in zip(pairs[::2], pairs[1::2]):
            if not records.read_list(records.name_of(key), value).deleted:
                self._keys.append(key)
        if last is not None:
            self._end = last if self._end is None else min(self._end, last)
        self._missing -= 1
        return self._missing == 0

    def page(self) -> Page:
        """Return the names in order of their bytes, and the name to go on after (None at the end)."""
        end = self._end
        keys = sorted(key for key in self._keys if end is None or key <= end)
        return [records.name_of(key) for key in keys], None if end is None else records.name_of(end)


class Range(NamedTuple):
    """Names that a key may read: all that begin with ``start``, or that one only."""

    start: str
    is_one: bool


class NarrowedListing(Listing):
    """A listing within the ranges that a key's patterns leave, one range after the other.

    The place to go on is ``[start of the range, name or nil]``: what a key gets to see comes out of its own ranges
    only.
    """

    def __init__(self, ranges: list[Range], place: int, after: str | None, workers: int) -> None:
        super().__init__(ranges[place].start, after, workers)
        self.goes_on = place > 0 or after is not None
        self._range = ranges[place]
        self._next = ranges[place + 1].start if place + 1 < len(ranges) else None

    def page(self) -> Page:
        """Return the names of this range's page, and where to go on."""
        names, after = super().page()
        if self._range.is_one:
            # Of all names that begin so it is the first, so it is on the first page or nowhere.
            names, after = [name for name in names if name == self._range.start], None
        if after is not None:
            return names, [self._range.start, after]
        return names, None if self._next is None else [self._next, None]


def listing_of(operation: str, arguments: list[Any], workers: int) -> Listing | None:
    """Return the listing that a request asks for: ``list_names``, or that within patterns; None where there is nothing.

    Raises:
        InvalidRequest: neither, or other arguments than theirs.
    """
    if operation == "list_names":
        prefix, after = _prefix_and_after(arguments)
        if not isinstance(after, str | None):
            raise InvalidRequest("list_names: the name to go on after is a text or nil")
        return Listing(prefix, after, workers) if _may_begin_a_name(prefix) else None
    if operation != "list_names_within":
        raise InvalidRequest(f"the directory of lists knows list_names only, not {operation[:50]!r}")
    patterns, inner = arguments if len(arguments) == 2 else (None, None)
    if type(patterns) is not list or not all(type(each) is str for each in patterns) or type(inner) is not bytes:
        raise InvalidRequest("list_names_within takes patterns (texts) and the body of a list_names")
    operation, arguments = messages.read_body(inner)
    if operation != "list_names":
        raise InvalidRequest(f"the directory of lists knows list_names only, not {operation[:50]!r}")
    prefix, after = _prefix_and_after(arguments)
    ranges = ranges_of(patterns, prefix)
    if not ranges or not _may_begin_a_name(prefix):
        return None
    place, name = _read_place(ranges, after)
    return NarrowedListing(ranges, place, name, workers)


def ranges_of(patterns: Sequence[str], prefix: str) -> list[Range]:
    """Return the ranges of names that patterns cover and that begin with ``prefix``: apart from each other, sorted."""
    found = []
    for pattern in patterns:
        start, is_one = (pattern[:-1], False) if pattern.endswith("*") else (pattern, True)
        if start.startswith(prefix):
            found.append(Range(start, is_one))
        elif not is_one and prefix.startswith(start):
            found.append(Range(prefix, False))
    found.sort(key=lambda each: (each.start.encode(), each.is_one))
    apart: list[Range] = []
    for each in found:
        if not apart or not _holds(apart[-1], each):
            apart.append(each)
    return apart


def _holds(outer: Range, inner: Range) -> bool:
    return inner.start == outer.start or (not outer.is_one and inner.start.startswith(outer.start))


def _read_place(ranges: list[Range], place: Any) -> tuple[int, str | None]:
    if place is None:
        return 0, None
    if type(place) is list and len(place) == 2 and type(place[0]) is str and isinstance(place[1], str | None):
        for number, each in enumerate(ranges):
            if each.start == place[0] and (place[1] is None or place[1].startswith(each.start)):
                return number, place[1]
    raise InvalidRequest("list_names: to go on, hand back what the page before gave")


def _prefix_and_after(arguments: list[Any]) -> tuple[str, Any]:
    if len(arguments) != 2 or type(arguments[0]) is not str:
        raise InvalidRequest("list_names takes a prefix (a text) and the name to go on after (a text or nil)")
    prefix, after = arguments
    name = after[-1] if type(after) is list and after else after
    if type(name) is str and not _may_begin_a_name(name):
        raise InvalidRequest(f"list_names: the name to go on after has at most {limits.LIST_NAME_BYTES} bytes")
    return prefix, after


def _may_begin_a_name(text: str) -> bool:
    """Tell whether there are names that begin so; a longer text would not fit into what a worker is asked, either."""
    return len(text.encode()) <= limits.LIST_NAME_BYTES
