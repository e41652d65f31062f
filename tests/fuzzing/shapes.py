"""Makes messages out of bytes: some of them as they come, the others nearly right, to get past the first check.

Owns: how bytes choose. Must not know: who takes the messages. The same bytes give the same message.
"""

from __future__ import annotations

from typing import Any

from todomq.protocol import messages
from todomq.protocol.codec import pack

OPERATIONS = (
    "ping", "stats", "hello", "table", "register_name", "unregister_name", "whereis_name", "names", "watch",
    "server_process", "whereis_list", "kill_list", "describe_list", "own", "release", "owned", "activate", "claim",
    "read", "read_many", "store", "get", "check", "add_entry", "add_entries", "update_entry", "delete_entry", "clear",
    "delete", "size", "entries", "entries_on", "list_names",
)  # fmt: skip
NAMES = ("list", "", "Bob's list", "x" * 256, "\ud800", "ü" * 127, "../..", "other")
HUGE = (1 << 63) - 1
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 256, 1 << 31, HUGE, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.5, float("nan"),
    "", "a", "title", "title\x1b[31m", "2026-12-01", "2026-13-01", "ipc:///sim/run/stranger", "tcp://x", b"", b"\xc0",
    b"\xc1", bytes(16), bytes(65), b"n", b"lx", b"\x00", [], {}, [[]], [None], {"title": "t"}, {"done": True}, {1: 2},
    ["cache"], ["database_worker", 1], ["list_server", 1], ["list_server", 2],
)  # fmt: skip
TARGETS = (
    None, None, None, "list", [["cache"]], [["database_worker", 1]], [["registry"]], [["list_server", 1]], b"\xa1k",
)  # fmt: skip
SENDER = b"a stranger"
AS_PACKED = b"\x01"
"""What an input for ``answer`` begins with whose rest is the packed value of a good reply."""


class Bytes:
    """Choices taken from bytes, one after the other; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def one(self) -> int:
        """Return the next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def some(self, count: int) -> bytes:
        """Return up to so many bytes."""
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        """Return what is left."""
        return self._data[self._at :]

    def choice(self, choices: Any) -> Any:
        """Return one of them."""
        return choices[self.one() % len(choices)]

    def number(self) -> int:
        """Return a number from 0 on, mostly small."""
        kind = self.one()
        return kind if kind < 128 else int.from_bytes(self.some(kind % 9 or 1), "big")

    def value(self, depth: int = 3) -> Any:
        """Return a value of any kind."""
        kind = self.one() % 8
        if kind < 3:
            return self.choice(ODD)
        if kind == 3:
            return self.number()
        if kind == 4:
            return self.some(self.one() % 20).decode("latin-1")
        if kind == 5:
            return self.some(self.one() % 40)
        if depth == 0:
            return None
        items = [self.value(depth - 1) for _ in range(self.one() % 5)]
        return items if kind == 6 else {str(place): item for place, item in enumerate(items)}


def frames(data: bytes) -> list[bytes]:
    """Return the frames of a message to a ROUTER, as a DEALER sends them."""
    chosen = Bytes(data)
    kind = chosen.one() % 8
    if kind == 0:
        return [b"", chosen.rest()]
    if kind == 1:
        return [chosen.some(chosen.one() % 50) for _ in range(1 + chosen.one() % 5)]
    message = forwarded(chosen) if kind == 2 else call(chosen)
    return [b"", spoiled(message, chosen) if kind == 3 else message]


def call(chosen: Bytes) -> bytes:
    """Return a call of a few requests."""
    return packed([1, "call", chosen.choice((SENDER, b"", bytes(64))), requests(chosen)])


def requests(chosen: Bytes) -> list[Any]:
    """Return a few requests, most of them right in shape."""
    return [request(chosen) for _ in range(1 + chosen.one() % 4)]


def request(chosen: Bytes) -> Any:
    """Return a request of any target."""
    shape = chosen.one()
    if shape < 8:
        return chosen.value()
    target = chosen.choice(TARGETS)
    if shape < 40:
        target = chosen.value()
    identifier = chosen.choice((1, 2, 3, None, HUGE))
    made = [identifier, target, chosen.choice((0, 0, 0, 1, HUGE)), body(chosen)]
    return made if target is None and shape % 2 else [*made, chosen.number(), chosen.number()]


def forwarded(chosen: Bytes) -> bytes:
    """Return what only a router sends."""
    items = [
        [chosen.number(), chosen.choice(NAMES), HUGE, body(chosen), chosen.number(), chosen.number(), chosen.one() % 3]
        for _ in range(1 + chosen.one() % 3)
    ]
    return packed([1, "forward", [[chosen.choice((SENDER, b"")), items]]])


def body(chosen: Bytes) -> bytes:
    """Return the body of a request."""
    kind = chosen.one()
    if kind < 16:
        return chosen.some(kind)
    return packed([chosen.choice(OPERATIONS), *(chosen.value() for _ in range(kind % 6))])


def writes(data: bytes) -> list[bytes]:
    """Return the frames of a message to the PULL of a database worker."""
    chosen = Bytes(data)
    if chosen.one() % 4 == 0:
        return [chosen.rest()]
    epochs = [[chosen.one(), chosen.number()] for _ in range(chosen.one() % 4)]
    count = chosen.one() % 4
    partitions = bytes(chosen.choice([*(partition for partition, _ in epochs), 7]) for _ in range(count))
    keys = [chosen.choice((b"lx", b"\x00", b"", None, b"n"))] * count
    values = [chosen.choice((None, b"v", b"", 1))] * (count if chosen.one() % 8 else 1)
    sender = chosen.choice((SENDER, bytes(16)))
    message = packed([1, "writes", sender, SENDER, chosen.number(), epochs, partitions, keys, values])
    return [spoiled(message, chosen)] if chosen.one() % 2 else [message]


def words(data: bytes) -> list[bytes]:
    """Return the frames of a message to the PULL of a list server."""
    chosen = Bytes(data)
    if chosen.one() % 4 == 0:
        return [chosen.rest()]
    outcome = chosen.choice((messages.COMMITTED, messages.FAILED, messages.WANTED, "lost"))
    refused = [[chosen.number(), chosen.one(), chosen.number()] for _ in range(chosen.one() % 3)]
    word = [SENDER, bytes(16), chosen.number(), chosen.number(), outcome, refused, chosen.value()]
    message = packed([1, "committed", *word])
    return [spoiled(message, chosen)] if chosen.one() % 2 else [message]


def answer(data: bytes, asked: list[int]) -> bytes:
    """Return a reply to one of the ids that were asked, or what is none."""
    chosen = Bytes(data)
    kind = chosen.one() % 4
    if kind == 0:
        return chosen.rest()
    value = chosen.rest() if kind == AS_PACKED[0] else packed(chosen.value())
    status = chosen.choice((0, 0, 0, 1, 2)) if kind == 2 else 0
    return packed([1, "reply", [[identifier, status, value] for identifier in asked[:8] or [chosen.number()]]])


def spoiled(message: bytes, chosen: Bytes) -> bytes:
    """Return the message with a few bytes changed, or its beginning."""
    changed = bytearray(message)
    for _ in range(1 + chosen.one() % 4):
        changed[(chosen.one() * 256 + chosen.one()) % len(changed)] = chosen.one()
    return bytes(changed[: chosen.one() * 4] if chosen.one() < 32 else changed)


def packed(value: Any) -> bytes:
    """Pack what can be packed; of text that is no Unicode, its escaped form."""
    try:
        return pack(value)
    except (ValueError, OverflowError, UnicodeEncodeError):
        return pack(repr(value).encode("ascii", "backslashreplace"))
