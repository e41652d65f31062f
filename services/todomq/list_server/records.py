"""The stored form of lists: keys and values in bytes, made and read. No storage, no sockets, no clock.

Owns: the layout of every record that a list server stores. Must not know: workers, batches, epochs.
The list actor packs what changed with it and reads with it what a scan brought.

    n name                                     list     [version, generation, lowest next id, deleted, swept generation]
    l partition length name  e ~generation id  entry    [title, date, done, extra], trailing defaults left out
    l partition length name  s client id       session  [next number, last used ms, [[number, status, value], ...]]

One byte each: the letters, the partition, the name's length. Four, big-endian: 0xFFFFFFFF - generation, so that a scan
meets the newest generation first. Eight, big-endian: the entry's id. No name's prefix begins another's: the length
stands before the name.

Law 8: what is not exactly as it is made here is ``CorruptRecord``, never taken for empty. The text names the list and
the record, not its contents. Sizes are not checked again: what an older limit let in stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from todomq.errors import CorruptRecord, ProtocolError
from todomq.list_server.checks import is_date
from todomq.list_server.todo_list import Entry
from todomq.protocol.codec import pack, unpack
from todomq.protocol.partitions import partition_of

VERSION = 1
LISTS_PREFIX = b"n"

_NEWEST = 0xFFFFFFFF
_ENTRY_TAIL = Struct(">cIQ")
_ENTRIES_TAIL = Struct(">cI")


class ListRecord(NamedTuple):
    """What is stored of the list itself.

    A ``deleted`` list is not among the list names. Storage holds no entries of generations below ``swept_generation``.
    """

    generation: int = 0
    lowest_next_id: int = 1
    deleted: bool = False
    swept_generation: int = 0


class SessionRecord(NamedTuple):
    """What is stored of one client's changes to one list; ``answers`` are ``(number, status, packed value)``."""

    next_number: int
    last_used_ms: int
    answers: list[tuple[int, int, bytes]]


def list_key(name: str) -> bytes:
    """Return the key of a list's own record; these keys together are the directory of lists."""
    return LISTS_PREFIX + name.encode()


def name_of(key: bytes) -> str:
    """Return the list name that a list record's key holds.

    Raises:
        CorruptRecord: not such a key.
    """
    try:
        name = key[1:].decode()
    except UnicodeDecodeError:
        name = ""
    if not name or key[:1] != LISTS_PREFIX:
        raise CorruptRecord(f"the directory of lists has a key of {len(key)} bytes that is no list's")
    return name


@lru_cache(maxsize=8192)
def prefix(name: str) -> bytes:
    """Return what the keys of a list's entries and sessions begin with.

    Args:
        name: the list's name, 1-255 bytes in UTF-8.
    """
    encoded = name.encode()
    return bytes((0x6C, partition_of(encoded), len(encoded))) + encoded


def entries_prefix(list_prefix: bytes, generation: int) -> bytes:
    """Return what the keys of the entries of one generation begin with."""
    return list_prefix + _ENTRIES_TAIL.pack(b"e", _NEWEST - generation)


def entry_key(list_prefix: bytes, generation: int, identifier: int) -> bytes:
    """Return the key of an entry."""
    return list_prefix + _ENTRY_TAIL.pack(b"e", _NEWEST - generation, identifier)


def entries(list_prefix: bytes, generation: int, changed: Mapping[int, Entry | None]) -> list[bytes | None]:
    """Return the records of entries as ``key, value, key, value ...``; of those that are None the value is None."""
    start = entries_prefix(list_prefix, generation)
    pairs: list[bytes | None] = []
    for identifier, entry in changed.items():
        pairs += (start + identifier.to_bytes(8, "big"), None if entry is None else pack_entry(entry))
    return pairs


def sessions_prefix(list_prefix: bytes) -> bytes:
    """Return what the keys of a list's sessions begin with."""
    return list_prefix + b"s"


def session_key(list_prefix: bytes, client: bytes) -> bytes:
    """Return the key of one client's session."""
    return list_prefix + b"s" + client


def read_entry_key(name: str, key: bytes) -> tuple[int, int]:
    """Return the generation and the id that an entry's key holds.

    Raises:
        CorruptRecord: not the key of an entry of this list.
    """
    list_prefix = prefix(name)
    tail = key[len(list_prefix) :]
    if not key.startswith(list_prefix + b"e") or len(tail) != _ENTRY_TAIL.size:
        raise CorruptRecord(f"list {name!r}: an entry's key of {len(key)} bytes is damaged")
    _, inverted, identifier = _ENTRY_TAIL.unpack(tail)
    if not identifier:
        raise CorruptRecord(f"list {name!r}: an entry's key has the id 0")
    return _NEWEST - inverted, identifier


def read_session_key(name: str, key: bytes) -> bytes:
    """Return the client id that a session's key holds.

    Raises:
        CorruptRecord: not the key of a session of this list.
    """
    start = sessions_prefix(prefix(name))
    if not key.startswith(start) or len(key) == len(start):
        raise CorruptRecord(f"list {name!r}: a session's key of {len(key)} bytes is damaged")
    return key[len(start) :]


def pack_list(record: ListRecord) -> bytes:
    """Pack the record of the list itself."""
    return pack((VERSION, *record))


def read_list(name: str, value: bytes) -> ListRecord:
    """Unpack the record of the list itself.

    Raises:
        CorruptRecord: damaged, or written by a newer version of this service.
    """
    fields = _unpack_array(value, f"list {name!r}: the list's record")
    if fields and _is_count(fields[0]) and fields[0] > VERSION:
        raise CorruptRecord(f"list {name!r}: stored in format {fields[0]}, newer than format {VERSION} of this version")
    if len(fields) != 5 or not all(_is_count(fields[place]) for place in (0, 1, 2, 4)) or type(fields[3]) is not bool:
        raise CorruptRecord(f"list {name!r}: the list's record has fields of the wrong types")
    record = ListRecord(*fields[1:])
    if fields[0] != VERSION or record.lowest_next_id < 1 or record.swept_generation > record.generation:
        raise CorruptRecord(f"list {name!r}: the list's record has numbers that cannot be")
    return record


def pack_entry(entry: Entry) -> bytes:
    """Pack an entry's fields; its id stands in the key."""
    _, title, date, done, extra = entry
    if extra is not None:
        return pack((title, date, done, extra))
    if done:
        return pack((title, date, done))
    return pack((title,)) if date is None else pack((title, date))


def read_entry(name: str, identifier: int, value: bytes) -> Entry:
    """Unpack an entry.

    Args:
        name: the list's name, for the error.
        identifier: the id from the key.
        value: the stored value.

    Raises:
        CorruptRecord: damaged; the text names list and entry.
    """
    fields = _unpack_array(value, f"list {name!r}: entry {identifier}")
    if not 1 <= len(fields) <= 4:
        raise CorruptRecord(f"list {name!r}: entry {identifier} has {len(fields)} fields")
    entry = Entry(identifier, *fields)
    _, title, date, done, extra = entry
    if (
        type(title) is not str
        or not title
        or not (date is None or (type(date) is str and is_date(date)))
        or type(done) is not bool
        or not (extra is None or (type(extra) is dict and all(type(key) is str for key in extra)))
    ):
        raise CorruptRecord(f"list {name!r}: entry {identifier} has fields of the wrong types")
    return entry


def pack_session(next_number: int, last_used_ms: int, answers: list[tuple[int, int, bytes]]) -> bytes:
    """Pack a session.

    Args:
        next_number: the number of the next change that is taken.
        last_used_ms: when the last change came, milliseconds since 1970.
        answers: ``(number, status, packed value)`` of changes that may be asked for again, ascending.
    """
    return pack((next_number, last_used_ms, answers))


def read_session(name: str, client: bytes, value: bytes) -> SessionRecord:
    """Unpack a session.

    Raises:
        CorruptRecord: damaged; the text names list and client.
    """
    what = f"list {name!r}: the session of client {client.hex()}"
    fields = _unpack_array(value, what)
    if len(fields) != 3 or not _is_count(fields[0]) or not _is_count(fields[1]) or type(fields[2]) is not list:
        raise CorruptRecord(f"{what} has fields of the wrong types")
    if not all(_is_answer(answer, fields[0]) for answer in fields[2]):
        raise CorruptRecord(f"{what} holds an answer that cannot be")
    return SessionRecord(fields[0], fields[1], [tuple(answer) for answer in fields[2]])


def _is_answer(answer: Any, next_number: int) -> bool:
    return (
        type(answer) is list
        and len(answer) == 3
        and _is_count(answer[0])
        and answer[0] < next_number
        and _is_count(answer[1])
        and type(answer[2]) is bytes
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _unpack_array(value: bytes, what: str) -> list[Any]:
    try:
        fields = unpack(value)
    except ProtocolError as error:
        raise CorruptRecord(f"{what} cannot be read: {error}") from None
    if type(fields) is not list:
        raise CorruptRecord(f"{what} is not an array")
    return fields
