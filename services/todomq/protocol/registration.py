"""Who is registered under a name, as the registry tells it.

Owns: the shape. Must not know: leases, how a registration comes and goes. ``client/values.py`` has the public value.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Registration(NamedTuple):
    """``[name, address, pid, incarnation]``.

    Attributes:
        name: any msgpack value.
        address: where the holder of the name listens.
        pid: the process on this machine with whose end the registration ends, or None.
        incarnation: which life of a daemon this is; empty for a holder that has none.
    """

    name: Any
    address: str
    pid: int | None
    incarnation: bytes


def is_same(one: Registration | None, other: Registration | None) -> bool:
    """Tell whether two registrations of one name are the same. The name is not compared: it may hold NaN."""
    return one is other or (one is not None and other is not None and one[1:] == other[1:])
