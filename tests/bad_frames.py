"""Frames that no daemon may take for a message, nor end by: what the simulation and torture send to every socket."""

from __future__ import annotations

from random import Random

from todomq.protocol import messages
from todomq.protocol.codec import pack


def bad_frames(random: Random) -> list[bytes]:
    """Return garbage, a message that was cut, nesting, lengths that lie, and messages of the wrong shape."""
    good = messages.call(b"a stranger", [[1, "trial", 0, messages.body("add_entry", "x"), 1, 1]])
    cut = random.randrange(1, len(good))
    return [
        b"", b"\xc1", random.randbytes(50), good[:cut], b"\x91" * 2_000, b"\xdd\xff\xff\xff\xff",
        pack([1, "call"]), pack([2, "call", b"", []]), pack([1, "forward", 5]),
        pack([1, "writes", b"", b"", 1, 5, b"", [], []]), pack([1, "committed", b"", b"", 1, 1, "x", [], ""]),
        pack([1, "call", b"s", [5, {}, [1, 2]]]),
        pack([1, "call", b"s", [[1, None, 0, b"\xc1"], [2, 5, 0, b""], [3, None, 0, pack([b"ping"])]]]),
    ]  # fmt: skip
