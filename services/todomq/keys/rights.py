"""What a key may do: patterns of list names, and which right each operation needs.

Owns: the language of patterns, the right that an operation needs. Must not know: sockets, files, whether a list exists.

A pattern is a list's name, or a prefix of names followed by one ``*`` (``*`` alone covers every list). Nothing else
in it has a meaning, and nothing is normalised: names are compared as the bytes of their UTF-8, so no spelling widens
a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from todomq.errors import InvalidRequest
from todomq.protocol import limits

READ = "read"
WRITE = "write"
ADMIN = "admin"
RIGHTS = (READ, WRITE, ADMIN)

PATTERNS_MOST = 64

NEEDED = {
    b"size": (READ,),
    b"entries": (READ,),
    b"entries_on": (READ,),
    b"add_entry": (WRITE,),
    b"add_entries": (WRITE,),
    b"delete_entry": (WRITE,),
    b"clear": (WRITE,),
    b"delete": (WRITE,),
    b"update_entry": (READ, WRITE),
}
_ANYTHING = (READ, WRITE)
_FIXARRAY = range(0x91, 0xA0)
_FIXSTR = range(0xA0, 0xC0)
_TEXTS = frozenset((*_FIXSTR, 0xD9, 0xDA, 0xDB))
_LONG_ARRAY_BYTES = {0xDC: 3, 0xDD: 5}
"""How many bytes stand before the items of an array in a longer form."""


def operation_of(body: bytes) -> bytes:
    """Return the name of a body's operation; empty if it is not packed in msgpack's shortest form.

    The body is not decoded: a name that is read here is the very one that decoding the body will give.
    """
    if len(body) < 2 or body[0] not in _FIXARRAY or body[1] not in _FIXSTR:
        return b""
    return body[2 : 2 + body[1] - 0xA0]


def begins_with_text(body: bytes) -> bool:
    """Tell whether a body begins like an array whose first item is a text, in any form; it is not decoded."""
    if not body or (body[0] not in _FIXARRAY and body[0] not in _LONG_ARRAY_BYTES):
        return False
    items = _LONG_ARRAY_BYTES.get(body[0], 1)
    return len(body) > items and body[items] in _TEXTS


def needed(body: bytes) -> tuple[str, ...]:
    """Return the rights that a request to a list needs; an operation that is not known here needs both."""
    return NEEDED.get(operation_of(body), _ANYTHING)


def check_patterns(patterns: Sequence[str]) -> None:
    """Check patterns that a person wrote.

    Raises:
        InvalidRequest: not patterns of list names; the text names the one.
    """
    if len(patterns) > PATTERNS_MOST:
        raise InvalidRequest(f"a key has at most {PATTERNS_MOST} patterns, not {len(patterns)}")
    for pattern in patterns:
        if "*" in pattern[:-1]:
            raise InvalidRequest(f"the pattern {pattern!r:.80}: a * stands at the end only, once")
        try:
            size = len(pattern.encode())
        except UnicodeEncodeError:
            raise InvalidRequest(f"the pattern {pattern!r:.80} is not valid Unicode") from None
        if not 1 <= size <= limits.LIST_NAME_BYTES:
            allowed = f"1 to {limits.LIST_NAME_BYTES} are allowed"
            raise InvalidRequest(f"the pattern {pattern!r:.80} has {size} bytes where {allowed}")


class Rights:
    """What one key may do."""

    __slots__ = ("_literals", "_prefixes", "is_admin", "patterns", "rights")

    def __init__(self, rights: Iterable[str], patterns: Sequence[str]) -> None:
        """Take rights, and patterns that ``check_patterns`` has accepted. An admin may do anything with every list."""
        self.rights = frozenset(rights)
        self.is_admin = ADMIN in self.rights
        self.patterns = tuple(patterns)
        self._literals = frozenset(pattern.encode() for pattern in patterns if not pattern.endswith("*"))
        self._prefixes = tuple(pattern[:-1].encode() for pattern in patterns if pattern.endswith("*"))

    def covers(self, name: bytes) -> bool:
        """Tell whether a pattern covers the list of this name (UTF-8)."""
        return name in self._literals or name.startswith(self._prefixes)

    def allow(self, name: bytes, body: bytes) -> bool:
        """Tell whether this request may go to the list of this name."""
        return self.is_admin or (self.rights.issuperset(needed(body)) and self.covers(name))

    def has(self, right: str) -> bool:
        """Tell whether the key has the right."""
        return self.is_admin or right in self.rights
