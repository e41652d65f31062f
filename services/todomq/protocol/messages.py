"""The messages of the protocol, made and read. ``docs/protocol.md`` says the same with hex examples.

Owns: the shape of every message. Must not know: what a request's body means.
A message is one msgpack array ``[version, kind, ...]``. Every kind carries 1..n items: batches are the protocol.

    call       [1, "call", sender, [request, ...]]                     a client or daemon asks
    reply      [1, "reply", [[id, status, value], ...]]                answers, by id, in any order
    forward    [1, "forward", [[sender, [forwarded, ...]], ...]]       router -> list server
    writes     [1, "writes", sender, receiver, number, [[partition, epoch], ...], partitions, [key, ...], [value, ...]]
    committed  [1, "committed", sender, receiver, first, last, outcome, refused, text]

    request    [id, target, deadline_ms, body]  or  [id, target, deadline_ms, body, number, floor]
    forwarded  [id, target, deadline_ms, body, number, floor, epoch]

Messages that come in great numbers are decoded into the type they should have, which checks them on the way. A message
that does not fit exactly is decoded within the codec's bounds and checked field by field, so that the answer says what
is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta
from msgspec.msgpack import Decoder

from todomq import errors
from todomq.errors import NOT_APPLIED, ProtocolError, TodoMQError
from todomq.protocol import limits
from todomq.protocol.codec import pack, unpack, unpack_value
from todomq.protocol.partitions import PARTITIONS

VERSION = 1
LIMIT = 1 << 63
"""Ids, numbers, epochs and times are from 0 to below this."""
FIRST_EPOCH = 1
"""The epoch of a partition's first owner; 0 stands for that of a partition that was never owned."""
EPOCH_STEP = 1 << 32
"""How far one claim may raise an epoch: once the highest of all was used, nobody could own the partition any more."""

# Where the fields of a request stand; the epoch only in a forwarded one, number and floor in those that have them.
ID: Final = 0
TARGET: Final = 1
DEADLINE_MS: Final = 2
BODY: Final = 3
NUMBER: Final = 4
FLOOR: Final = 5
EPOCH: Final = 6

# Status of a reply. ``MOVED`` is between list server and router only: not the owner under this epoch.
OK = 0
ERROR = 1
MOVED = 2

NOT_THIS_TIME = "not this time"
"""Outcome of an error, besides those of ``errors.py``: not applied this time, but perhaps when it was sent before."""
TOO_FAR_AHEAD = f"a deadline is at most {limits.DEADLINE_AHEAD_MS} ms ahead of the router's clock"
"""What a router says instead of forwarding the request; a client whose deadline is right asks for the time."""

SAID_UNDER_THE_NUMBER = (errors.InvalidRequest, errors.EntryNotFound, errors.QuotaExceeded)
"""Errors by which a list answers a change for good: they use up its number, and each repetition gets the same."""

# Outcome of a batch of writes.
COMMITTED = "committed"
WANTED = "wanted"
FAILED = "failed"
_OUTCOMES = (COMMITTED, WANTED, FAILED, NOT_APPLIED)


class Request(NamedTuple):
    """One request of a call. ``id`` None is a cast; ``target`` None is the daemon that receives it."""

    id: int | None
    target: Any
    deadline_ms: int
    body: bytes
    number: int = 0
    floor: int = 0


class Writes(NamedTuple):
    """One numbered batch of absolute puts (and deletes, value None), in columns.

    ``epochs`` has ``(partition, epoch)`` for each partition that is written or asked about; ``partitions`` has one byte
    for each write, in the order of ``keys`` and ``values``.
    """

    sender: bytes
    receiver: bytes
    number: int
    epochs: list[tuple[int, int]]
    partitions: bytes
    keys: list[bytes]
    values: list[bytes | None]


class Committed(NamedTuple):
    """What a worker says of the batches ``first``..``last`` of one sender; sender and receiver are the batches'.

    ``outcome`` is COMMITTED (on disk), WANTED (``first`` is the next number), FAILED (not known to be on disk) or
    NOT_APPLIED (known not to be on disk, and never will be).
    ``refused`` lists ``[number, partition, stored_epoch]`` for the partitions of which the batch named an old epoch.
    """

    sender: bytes
    receiver: bytes
    first: int
    last: int
    outcome: str
    refused: list[list[int]]
    text: str


def call(sender: bytes, requests: list[Any]) -> bytes:
    """Pack a call of 1..n requests (tuples or lists in the shape of ``Request``)."""
    return pack([VERSION, "call", sender, requests])


def reply(replies: list[Any]) -> bytes:
    """Pack 1..n replies ``(id, status, value)``; ``value`` is packed already."""
    return pack([VERSION, "reply", replies])


def body(operation: str, *arguments: Any) -> bytes:
    """Pack a request's body."""
    return pack([operation, *arguments])


def error_value(error: TodoMQError) -> bytes:
    """Pack an error as the value of a reply with status ERROR."""
    return pack([error.code, error.text, error.retryable, error.outcome])


def read_error(value: bytes) -> TodoMQError:
    """Return the error that a reply's value describes; never raises."""
    return read_refusal(value)[0]


def read_refusal(value: bytes) -> tuple[TodoMQError, bool]:
    """Read the error that a reply's value describes; never raises.

    Returns:
        the error, and whether its outcome is NOT_THIS_TIME, which means unknown if nobody may send the request again.
    """
    try:
        fields = unpack(value)
    except ProtocolError:
        fields = None
    if type(fields) is not list or [type(field) for field in fields] != [str, str, bool, str]:
        return ProtocolError("an error reply that cannot be read", outcome=errors.UNKNOWN), False
    code, text, retryable, outcome = fields
    # An outcome that does not promise that nothing happened leaves it open.
    known = outcome if outcome == errors.NOT_APPLIED else errors.UNKNOWN
    return errors.from_wire(code, text, retryable, known), outcome == NOT_THIS_TIME


def not_this_time(value: bytes) -> bytes:
    """Return a packed error with the outcome that is true of a request sent to two daemons, one after the other.

    If the second has not applied it, that says nothing of the first: the outcome becomes NOT_THIS_TIME. The errors that
    a list answers when a change's turn comes (SAID_UNDER_THE_NUMBER) are the same each time it is sent, and stay.
    """
    error = read_error(value)
    if error.outcome != errors.NOT_APPLIED or type(error) in SAID_UNDER_THE_NUMBER:
        return value
    return pack([error.code, error.text, error.retryable, NOT_THIS_TIME])


_Counter = Annotated[int, Meta(ge=0, le=LIMIT - 1)]
_Sender = Annotated[bytes, Meta(max_length=limits.SENDER_BYTES)]
_Packed = Annotated[bytes, Meta(max_length=limits.REQUEST_BYTES)]
_Text = Annotated[str, Meta(max_length=limits.REQUEST_BYTES // 4)]
_ToList = tuple[_Counter | None, _Text, _Counter, _Packed, _Counter, _Counter]
_Forwarded = tuple[_Counter, _Text, _Counter, _Packed, _Counter, _Counter, _Counter]
_Reply = tuple[_Counter | None, Annotated[int, Meta(ge=0, le=MOVED)], _Packed]
_Partition = Annotated[int, Meta(ge=0, le=PARTITIONS - 1)]
_MOST = Meta(max_length=limits.DECODED_ITEMS)
_SOME = Meta(min_length=1, max_length=limits.DECODED_ITEMS // 2)
_Group = tuple[_Sender, Annotated[list[_Forwarded], _SOME]]


class _Call(NamedTuple):
    version: int
    kind: str
    sender: _Sender
    requests: Annotated[list[_ToList], Meta(min_length=1, max_length=limits.MESSAGE_REQUESTS)]


class _Replies(NamedTuple):
    version: int
    kind: str
    replies: Annotated[list[_Reply], _SOME]


class _Forward(NamedTuple):
    version: int
    kind: str
    groups: Annotated[list[_Group], _SOME]


class _Writes(NamedTuple):
    version: int
    kind: str
    sender: _Sender
    receiver: _Sender
    number: _Counter
    epochs: Annotated[list[tuple[_Partition, _Counter]], _MOST]
    partitions: _Packed
    keys: Annotated[list[_Packed], _MOST]
    values: Annotated[list[_Packed | None], _MOST]


_TYPED: tuple[tuple[bytes, Decoder[Any]], ...] = (
    (b"\x94\x01\xa4call", Decoder(_Call)),
    (b"\x93\x01\xa5reply", Decoder(_Replies)),
    (b"\x93\x01\xa7forward", Decoder(_Forward)),
    (b"\x99\x01\xa6writes", Decoder(_Writes)),
)
"""By the first bytes of a message, which are version and kind."""

Fields = list[Any] | tuple[Any, ...]
"""What ``read`` returns beside a message's kind."""


def read(data: bytes) -> tuple[str, Fields]:
    """Unpack a message.

    Returns:
        its kind, and the fields for ``read_...``: those behind the kind, or the whole as a type that vouches for it.

    Raises:
        ProtocolError: not a message of this protocol, or of another version.
    """
    if len(data) <= limits.TRANSPORT_BYTES:
        for beginning, decoder in _TYPED:
            if data.startswith(beginning):
                try:
                    typed = decoder.decode(data)
                except ValueError:
                    break  # ``unpack`` and ``read_...`` find out why
                return typed.kind, typed
    message = unpack(data)
    if type(message) is not list or len(message) < 3 or type(message[1]) is not str:
        raise ProtocolError("a message is an array [version, kind, ...] of at least three items, and its kind a text")
    if type(message[0]) is not int:
        raise ProtocolError("a message begins with its version, an integer")
    if message[0] != VERSION:
        raise ProtocolError(f"version {message[0]} where this service speaks {VERSION}")
    return message[1], message[2:]


def read_call(fields: Fields) -> tuple[bytes, list[Any]]:
    """Check the shape of a call.

    Returns:
        the sender and its requests: each the list that came, unchecked; or, if all are numbered requests, tuples.

    Raises:
        ProtocolError: not ``[sender, [request, ...]]``, no request, or too many.
    """
    if type(fields) is _Call:
        return fields.sender, fields.requests
    if len(fields) != 2 or not _is_sender(fields[0]) or type(fields[1]) is not list:
        raise ProtocolError(f'a call is [version, "call", sender (up to {limits.SENDER_BYTES} bytes), [request, ...]]')
    if not 1 <= len(fields[1]) <= limits.MESSAGE_REQUESTS:
        raise ProtocolError(f"a call carries 1 to {limits.MESSAGE_REQUESTS} requests, not {len(fields[1])}")
    return fields[0], fields[1]


def numbered_columns(requests: list[Any]) -> list[tuple[Any, ...]] | None:
    """Return the columns, checked, of requests that all have number and floor, as those to lists do; else None.

    Returns:
        ids, targets, deadlines (milliseconds), bodies, numbers and floors.
    """
    if type(requests[0]) is tuple:  # so are all, see ``read_call``
        return list(zip(*requests))
    columns = _columns(requests, 6)
    if columns is None:
        return None
    identifiers, _, deadlines_ms, bodies, numbers, floors = columns
    if not _BYTES.issuperset(map(type, bodies)) or not _COUNTER_OR_NIL.issuperset(map(type, identifiers)):
        return None
    given = identifiers if None not in identifiers else [each for each in identifiers if each is not None]
    return columns if all(map(_are_counters, (given, deadlines_ms, numbers, floors))) else None


def is_request(request: Any) -> bool:
    """Tell whether an item of a call has the shape of a request."""
    if type(request) is tuple:
        return True  # see ``read_call``
    if type(request) is not list or len(request) not in (4, 6):
        return False
    if len(request) == 6:
        identifier, _, deadline_ms, packed, number, floor = request
        if not (type(number) is type(floor) is int and 0 <= number < LIMIT and 0 <= floor < LIMIT):
            return False
    else:
        identifier, _, deadline_ms, packed = request
    if identifier is not None and not (type(identifier) is int and 0 <= identifier < LIMIT):
        return False
    return type(packed) is bytes and type(deadline_ms) is int and 0 <= deadline_ms < LIMIT


_A_COUNTER = "an integer from 0 to 2^63 - 1"


def why_no_request(request: Any) -> str:
    """Return what is wrong with an item that ``is_request`` refused: its shape, or the first field that is wrong."""
    if type(request) is not list or len(request) not in (4, 6):
        return "a request is [id, target, deadline_ms, body] or has number and floor as well"
    if request[ID] is not None and not _is_counter(request[ID]):
        return f"id: {_A_COUNTER}, or nil for a cast"
    if not _is_counter(request[DEADLINE_MS]):
        return f"deadline_ms: {_A_COUNTER}"
    if type(request[BODY]) is not bytes:
        return "body: bytes (bin), the packed array [operation, argument, ...]"
    return f"{'floor' if _is_counter(request[NUMBER]) else 'number'}: {_A_COUNTER}"


def _is_counter(value: Any) -> bool:
    return type(value) is int and 0 <= value < LIMIT


def is_partition(value: Any) -> bool:
    """Tell whether a peer's value is the number of a partition."""
    return type(value) is int and 0 <= value < PARTITIONS


def is_epoch(value: Any) -> bool:
    """Tell whether a peer's value is an epoch."""
    return type(value) is int and FIRST_EPOCH <= value < LIMIT


def is_partition_and_epoch(value: Any) -> bool:
    """Tell whether a peer's value is ``[partition, epoch]``."""
    return type(value) is list and len(value) == 2 and is_partition(value[0]) and is_epoch(value[1])


def _is_sender(value: Any) -> bool:
    return type(value) is bytes and len(value) <= limits.SENDER_BYTES


def request_id(request: Any) -> int | None:
    """Return the id by which a malformed request can still be answered, or None."""
    if type(request) in (list, tuple) and request and _is_counter(request[ID]):
        identifier: int = request[ID]
        return identifier
    return None


def read_body(packed: bytes) -> tuple[str, list[Any]]:
    """Unpack a request's body.

    Returns:
        the operation and its arguments.

    Raises:
        ProtocolError: not an array that begins with a text.
    """
    value = unpack_value(packed, limits.REQUEST_BYTES)
    if type(value) is not list or not value or type(value[0]) is not str:
        raise ProtocolError("a body is an array [operation, argument, ...]")
    operation = value.pop(0)
    return operation, value


def check_count(arguments: list[Any], least: int, most: int) -> None:
    """Check how many arguments an operation was given.

    Raises:
        InvalidRequest: fewer than ``least``, or more than ``most``.
    """
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        plural = "" if wanted == "1" else "s"
        raise errors.InvalidRequest(f"{wanted} argument{plural} needed, not {len(arguments)}")


def read_replies(fields: Fields) -> list[Any]:
    """Check the shape of a reply message and return its ``[id, status, value]`` items.

    Raises:
        ProtocolError: anything else.
    """
    if type(fields) is _Replies:
        return fields.replies
    if len(fields) != 1 or type(fields[0]) is not list:
        raise ProtocolError('a reply is [version, "reply", [[id, status, value], ...]]')
    replies: list[Any] = fields[0]
    columns = _columns(replies, 3)
    if columns is None:
        raise ProtocolError("a reply item is [id, status, value]")
    identifiers, statuses, values = columns
    if not _COUNTER_OR_NIL.issuperset(map(type, identifiers)) or not _BYTES.issuperset(map(type, values)):
        raise ProtocolError("a reply item has an id (or nil, where the whole message is refused) and a packed value")
    given = identifiers if None not in identifiers else [each for each in identifiers if each is not None]
    if not _are_counters(statuses, MOVED + 1) or not _are_counters(given):
        raise ProtocolError("a reply item has an id that is no negative number and a status 0-2")
    return replies


_BYTES = frozenset((bytes,))
_BYTES_OR_NIL = frozenset((bytes, type(None)))
_LIST = frozenset((list,))
_COUNTER = frozenset((int,))
_COUNTER_OR_NIL = frozenset((int, type(None)))


def _columns(rows: list[Any], width: int) -> list[tuple[Any, ...]] | None:
    """Turn arrays of one width into columns, to check a whole column at once; None if they are anything else.

    A batch has many rows: this takes a tenth of a microsecond for each, checking every field half a microsecond.
    """
    if not rows:
        return [()] * width
    if not _LIST.issuperset(map(type, rows)) or set(map(len, rows)) != {width}:
        return None
    return list(zip(*rows))


def _are_counters(column: Sequence[Any], limit: int = LIMIT) -> bool:
    """Tell whether all are integers from 0 to below ``limit``."""
    return not column or (_COUNTER.issuperset(map(type, column)) and min(column) >= 0 and max(column) < limit)


def writes(batch: Writes) -> bytes:
    """Pack a numbered batch of writes."""
    return pack([VERSION, "writes", *batch])


def read_writes(fields: Fields) -> Writes:
    """Check the shape of a batch of writes.

    Raises:
        ProtocolError: anything else.
    """
    if type(fields) is _Writes:
        batch = Writes(*fields[2:])
    elif len(fields) == 7:
        batch = Writes(*fields)
        if not _is_sender(batch.sender) or not _is_sender(batch.receiver) or not _is_counter(batch.number):
            raise ProtocolError("writes have a sender, a receiver and a number")
        if not _are_epochs(batch.epochs) or not _are_writes(batch):
            raise ProtocolError(_NO_WRITES)
    else:
        raise ProtocolError("writes have a sender, a receiver, a number, epochs, partitions, keys and values")
    if not len(batch.partitions) == len(batch.keys) == len(batch.values):
        raise ProtocolError(_NO_WRITES)
    if not {partition for partition, _ in batch.epochs}.issuperset(batch.partitions):
        raise ProtocolError("a batch names the epoch of each partition that it writes")
    return batch


_NO_WRITES = "writes are [[partition, epoch], ...], then of each write its partition (a byte), its key, and its value"


def _are_epochs(items: Any) -> bool:
    columns = _columns(items, 2) if type(items) is list else None
    return columns is not None and _are_counters(columns[0], PARTITIONS) and _are_counters(columns[1])


def _are_writes(batch: Writes) -> bool:
    if [type(column) for column in batch[4:]] != [bytes, list, list]:
        return False
    return _BYTES.issuperset(map(type, batch.keys)) and _BYTES_OR_NIL.issuperset(map(type, batch.values))


def committed(outcome: Committed) -> bytes:
    """Pack a worker's word on a range of batches."""
    return pack([VERSION, "committed", *outcome])


def read_committed(fields: Fields) -> Committed:
    """Check the shape of a worker's word on a range of batches.

    Raises:
        ProtocolError: anything else.
    """
    if len(fields) != 7:
        raise ProtocolError("committed has seven fields")
    word = Committed(*fields)
    numbers = _is_counter(word.first) and _is_counter(word.last)
    are_named = all(_is_sender(each) and each for each in (word.sender, word.receiver))  # lives, which are never empty
    if not numbers or not are_named:
        raise ProtocolError("committed has a sender, a receiver and a range of numbers")
    if word.outcome not in _OUTCOMES or type(word.refused) is not list or type(word.text) is not str:
        raise ProtocolError("committed has an outcome, what was refused, and a text")
    for item in word.refused:
        if type(item) is not list or len(item) != 3 or not all(map(_is_counter, item)) or not is_partition(item[1]):
            raise ProtocolError("what was refused is [number, partition, stored epoch]")
    return word


def forward(groups: list[Any]) -> bytes:
    """Pack what a router forwards to one list server: ``[[sender, [forwarded, ...]], ...]``."""
    return pack([VERSION, "forward", groups])


def _are_forwarded(items: list[Any]) -> bool:
    columns = _columns(items, 7)
    if columns is None:
        return False
    identifiers, _, deadlines_ms, bodies, numbers, floors, epochs = columns
    counters = (identifiers, deadlines_ms, numbers, floors, epochs)
    return _BYTES.issuperset(map(type, bodies)) and all(map(_are_counters, counters))


def read_forward(fields: Fields) -> list[Any]:
    """Check the shape of a forwarded batch.

    Raises:
        ProtocolError: anything else.
    """
    if type(fields) is _Forward:
        return fields.groups
    if len(fields) != 1 or type(fields[0]) is not list:
        raise ProtocolError("forward carries groups [sender, [forwarded, ...]]")
    for group in fields[0]:
        if type(group) is not list or len(group) != 2 or not _is_sender(group[0]) or type(group[1]) is not list:
            raise ProtocolError("forward carries groups [sender, [forwarded, ...]]")
        if not _are_forwarded(group[1]):
            raise ProtocolError("a forwarded request is [id, target, deadline_ms, body, number, floor, epoch]")
    groups: list[Any] = fields[0]
    return groups
