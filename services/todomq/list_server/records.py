"""The stored form of lists: keys and values in bytes, made and read. No storage, no sockets, no clock.

Owns: the layout of every record that a list server stores. Must not know: workers, batches, epochs.
``recording.py`` packs with it what changed, ``loading.py`` reads with it what a scan brought.

    n name                                     list     [version, generation, lowest next id, deleted, swept generation]
    l partition length name  e ~generation id  entries  [added or nil, entry or nil, ...] of consecutive ids from it
    l partition length name  s client id       session  [next number, last used ms, [[number, status, value], ...]]
    r partition minute name                    remains  empty: what of the list is to be cleared away from then on

    entry   [title, date, done, extra], trailing defaults left out; nil for one that was deleted
    added   [client id, number, floor, ms] of the add_entry that made them; add_entries adds how many entries

What was added together lies together, up to ``RUN_ENTRIES`` and about ``RUN_BYTES``. ``added`` tells of one add what a
session's record would, where that does not know of it yet: the change's number is not below the record's next number.

One byte each: the letters, the partition, the name's length. Four, big-endian: 0xFFFFFFFF - generation, so that a scan
meets the newest generation first; the minute since 1970. Eight, big-endian: the entry's id. No name's prefix begins
another's: the length stands before the name.

Law 8: what is not exactly as it is made here is ``CorruptRecord``, never taken for empty. The text names the list and
the record, not its contents. Sizes are not checked again: what an older limit let in stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

from todomq.errors import CorruptRecord, ProtocolError
from todomq.list_server.todo_list import Entry
from todomq.protocol import limits
from todomq.protocol.codec import pack, unpack
from todomq.protocol.entries import NO_FIELDS, is_date
from todomq.protocol.partitions import partition_of

VERSION = 2
"""Version 1 had one entry in a record, without the array around it; it is read as well."""
RUN_ENTRIES = 64
RUN_BYTES = 4 * limits.KIB
LISTS_PREFIX = b"n"
MINUTE_MS = 60_000

_NEWEST = 0xFFFFFFFF
_ENTRY, _SESSION = b"e", b"s"
_ENTRY_TAIL = Struct(">cIQ")
_ENTRIES_TAIL = Struct(">cI")
ENTRY_TAIL_BYTES = _ENTRY_TAIL.size
"""How much longer than the list's prefix the key of an entry is."""
_REMAINS_HEAD = Struct(">cBI")
_LEFT_OUT: tuple[Any, ...] = ("", None, False, NO_FIELDS)
"""What the fields of an entry are where they are left out; the title never is."""


class ListRecord(NamedTuple):
    """What is stored of the list itself.

    A ``deleted`` list is not among the list names. Storage holds no entries of generations below ``swept_generation``.
    """

    generation: int = 0
    lowest_next_id: int = 1
    deleted: bool = False
    swept_generation: int = 0
    version: int = VERSION


class Added(NamedTuple):
    """By which change entries were added: so many ``entries`` by ``add_entries``, or one by ``add_entry`` (None)."""

    client: bytes
    number: int
    floor: int
    at_ms: int
    entries: int | None = None


AddedBy = tuple[bytes, int, int, int] | tuple[bytes, int, int, int, int]
"""The same as it is packed: without a fifth field for ``add_entry``."""


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


def prefix(name: str) -> bytes:
    """Return what the keys of a list's entries and sessions begin with.

    Args:
        name: the list's name, 1-255 bytes in UTF-8.
    """
    encoded = name.encode()
    return bytes((0x6C, partition_of(encoded), len(encoded))) + encoded


def list_of(key: bytes) -> str:
    """Return the name of the list that the key of an entry or a session belongs to.

    Raises:
        CorruptRecord: not such a key.
    """
    name = key[3 : 3 + key[2]] if len(key) > 3 else b""
    try:
        decoded = name.decode()
    except UnicodeDecodeError:
        decoded = ""
    if not decoded or len(name) != key[2] or key[1] != partition_of(name):
        raise CorruptRecord(f"a key of {len(key)} bytes is no list's")
    return decoded


def all_entries_prefix(list_prefix: bytes) -> bytes:
    """Return what the keys of the entries of all generations begin with."""
    return list_prefix + _ENTRY


def entries_prefix(list_prefix: bytes, generation: int) -> bytes:
    """Return what the keys of the entries of one generation begin with."""
    return list_prefix + _ENTRIES_TAIL.pack(_ENTRY, _NEWEST - generation)


def behind_generation(list_prefix: bytes, generation: int) -> bytes:
    """Return what lies behind the keys of the entries of one generation, and before those of older ones."""
    return entries_prefix(list_prefix, generation) + b"\xff" * (_ENTRY_TAIL.size - _ENTRIES_TAIL.size + 1)


def behind_entries(list_prefix: bytes) -> bytes:
    """Return what lies behind the keys of all entries."""
    return list_prefix + _ENTRY + b"\xff" * (_ENTRY_TAIL.size - 1)


def is_session_key(list_prefix: bytes, key: bytes) -> bool:
    """Tell whether a key of a list is that of a session."""
    return key[len(list_prefix) : len(list_prefix) + 1] == _SESSION


def entry_key(list_prefix: bytes, generation: int, identifier: int) -> bytes:
    """Return the key of an entry."""
    return list_prefix + _ENTRY_TAIL.pack(_ENTRY, _NEWEST - generation, identifier)


def remains_prefix(partition: int) -> bytes:
    """Return what the keys of a partition's remains begin with; a scan meets the earliest first."""
    return bytes((0x72, partition))


def remains_key(name: str, due_ms: int) -> bytes:
    """Return the key that says that a list is to be looked at for remains, in the first minute that begins after."""
    encoded = name.encode()
    return _REMAINS_HEAD.pack(b"r", partition_of(encoded), due_ms // MINUTE_MS + 1) + encoded


def read_remains_key(key: bytes) -> tuple[int, str]:
    """Return from when on (milliseconds since 1970) which list is to be looked at.

    Raises:
        CorruptRecord: not such a key.
    """
    name = key[_REMAINS_HEAD.size :]
    try:
        decoded = name.decode()
    except UnicodeDecodeError:
        decoded = ""
    if not decoded or not key.startswith(remains_prefix(partition_of(name))):
        raise CorruptRecord(f"a key of {len(key)} bytes does not say of which list something remains")
    _, _, minute = _REMAINS_HEAD.unpack_from(key)
    return minute * MINUTE_MS, decoded


def pack_entry(entry: Entry, added: AddedBy | None = None) -> bytes:
    """Pack an entry that has a record of its own."""
    return pack((added, _fields(entry)))


def pack_titled(title: str, date: str | None, added: AddedBy) -> bytes:
    """Pack an entry that has a record of its own and of which no more than this is known."""
    return pack((added, (title,) if date is None else (title, date)))


def pack_run(
    first: int, entries: Sequence[Entry | None], added: AddedBy | None = None
) -> list[tuple[int, int, bytes | None]]:
    """Pack entries of consecutive ids, those that are None being deleted.

    Returns:
        of each record the first id, the last one, and the value, None where no entry is left; ``added`` is told in the
        last one.
    """
    packed: list[tuple[int, int, bytes | None]] = []
    for start in range(0, len(entries), RUN_ENTRIES):
        is_last = start + RUN_ENTRIES >= len(entries)
        packed += _pack_part(first + start, entries[start : start + RUN_ENTRIES], added if is_last else None)
    return packed


def _pack_part(
    first: int, entries: Sequence[Entry | None], added: AddedBy | None
) -> list[tuple[int, int, bytes | None]]:
    last = first + len(entries) - 1
    if not any(entries):
        return [(first, last, None)]
    value = pack((added, *map(_fields, entries)))
    if len(value) <= RUN_BYTES or len(entries) == 1:
        return [(first, last, value)]
    half = len(entries) // 2
    return [*_pack_part(first, entries[:half], None), *_pack_part(first + half, entries[half:], added)]


def sessions_prefix(list_prefix: bytes) -> bytes:
    """Return what the keys of a list's sessions begin with."""
    return list_prefix + _SESSION


def session_key(list_prefix: bytes, client: bytes) -> bytes:
    """Return the key of one client's session."""
    return list_prefix + _SESSION + client


def read_entry_key(name: str, key: bytes) -> tuple[int, int]:
    """Return the generation and the id that an entry's key holds.

    Raises:
        CorruptRecord: not the key of an entry of this list.
    """
    list_prefix = prefix(name)
    tail = key[len(list_prefix) :]
    if not key.startswith(list_prefix + _ENTRY) or len(tail) != _ENTRY_TAIL.size:
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
    return pack((VERSION, *record[:4]))


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
    version, generation, lowest_next_id, deleted, swept_generation = fields
    record = ListRecord(generation, lowest_next_id, deleted, swept_generation, version)
    if record.version < 1 or record.lowest_next_id < 1 or record.swept_generation > record.generation:
        raise CorruptRecord(f"list {name!r}: the list's record has numbers that cannot be")
    return record


def stored_bytes(entry: Entry) -> int:
    """Return how many bytes an entry takes in a record."""
    return len(pack(_fields(entry)))


def read_run(name: str, first: int, value: bytes) -> tuple[Added | None, list[Entry | None]]:
    """Unpack entries of consecutive ids.

    Args:
        name: the list's name, for the error.
        first: the id from the key.
        value: the stored value.

    Returns:
        by which change they were added, where that is told, and the entries, None for one that was deleted.

    Raises:
        CorruptRecord: damaged; the text names list and entry.
    """
    what = f"list {name!r}: entry {first}"
    fields = _unpack_array(value, what)
    if fields and type(fields[0]) is str:
        fields = [None, fields]  # version 1
    if not 2 <= len(fields) <= RUN_ENTRIES + 1:
        raise CorruptRecord(f"{what} is in a record of {len(fields)} fields")
    entries = [
        None if entry is None else _read_entry(name, identifier, entry)
        for identifier, entry in enumerate(fields[1:], first)
    ]
    added = None if fields[0] is None else _read_added(what, fields[0])
    if not any(entries) or (added is not None and first + len(entries) <= (added.entries or 1)):
        raise CorruptRecord(f"{what} is in a record that cannot be")
    return added, entries


def _read_entry(name: str, identifier: int, fields: Any) -> Entry:
    if type(fields) is not list or not 1 <= len(fields) <= 4:
        raise CorruptRecord(f"list {name!r}: entry {identifier} is not an array of 1 to 4 fields")
    title, date, done, extra = (*fields, *_LEFT_OUT[len(fields) :])
    if (
        type(title) is not str
        or not title
        or not (date is None or (type(date) is str and is_date(date)))
        or type(done) is not bool
        or type(extra) is not dict
        or not all(type(key) is str for key in extra)
    ):
        raise CorruptRecord(f"list {name!r}: entry {identifier} has fields of the wrong types")
    return Entry(identifier, title, date, done, extra)


def _read_added(what: str, fields: Any) -> Added:
    if type(fields) is not list or not 4 <= len(fields) <= 5 or type(fields[0]) is not bytes or not fields[0]:
        raise CorruptRecord(f"{what} does not say by whom it was added")
    if not all(map(_is_count, fields[1:])) or fields[4:] == [0]:
        raise CorruptRecord(f"{what} was added under numbers that cannot be")
    return Added(*fields)


def _fields(entry: Entry | None) -> tuple[Any, ...] | None:
    if entry is None:
        return None
    if entry.extra:
        return entry.title, entry.date, entry.done, entry.extra
    if entry.done:
        return entry.title, entry.date, True
    return (entry.title,) if entry.date is None else (entry.title, entry.date)


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
