"""Who is registered under a name, as the registry tells it.

Owns: the shape. Must not know: leases, how a registration comes and goes. ``client/values.py`` has the public value.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Registration(NamedTuple):
    """``[name, address, pid, incarnation]``.

    Attributes:
        name: any msgpack value.
        address: where whoever has the name listens.
        pid: the process of this machine whose end ends the registration, or None.
        incarnation: this life of a daemon; empty for what has none.
    """

    name: Any
    address: str
    pid: int | None
    incarnation: bytes


def is_same(one: Registration | None, other: Registration | None) -> bool:
    """Tell whether two registrations of one name are the same. The name is not compared: it may hold NaN."""
    return one is other or (one is not None and other is not None and one[1:] == other[1:])
