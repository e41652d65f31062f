"""Which kinds of daemon there are: what they are called, and in which supervision group each is.

Owns: the supervision tree as a table; registered names, and what sockets and processes are called after them.
``supervision/supervisord.conf`` says the same to supervisord, and how each is started.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of daemon.

    Attributes:
        group: its supervision group.
        is_pooled: whether there are several, numbered from 1.
    """

    group: str
    is_pooled: bool = False


KINDS = {
    "registry": Kind("registry"),
    "cache": Kind("cache"),
    "database_worker": Kind("database", is_pooled=True),
    "list_server": Kind("lists", is_pooled=True),
    "router": Kind("edge"),
}
"""In the order in which they are started; the stop is the reverse."""

LISTENER = "supervision"
"""The group, and the process, of the restart-intensity listener, which is no daemon."""

GROUPS = tuple(kind.group for kind in KINDS.values())


NUMBER_DIGITS = 9
"""How many digits the number of a pooled daemon has at most."""
REFUSED_TO_START = 78  # EX_CONFIG of sysexits.h
"""The exit status of a daemon that refuses to start as it is told to."""


def names_of_stack(pools: dict[str, int]) -> list[list[str | int]]:
    """Return the registered names of all daemons of a stack that has this many of each pooled kind."""
    names: list[list[str | int]] = []
    for name, kind in KINDS.items():
        names += [[name, number] for number in range(1, pools[name] + 1)] if kind.is_pooled else [[name]]
    return names


def is_daemon_name(name: object) -> bool:
    """Tell whether a registered name is a daemon's, including daemons that other machines add."""
    if type(name) is not list or not name or type(name[0]) is not str:
        return False
    kind = KINDS.get(name[0])
    if kind is None or len(name) != (2 if kind.is_pooled else 1):
        return False
    return not kind.is_pooled or (type(name[1]) is int and name[1] > 0)


def socket_name(name: list[str | int]) -> str:
    """Return what a daemon's socket and its process are called: ``["list_server", 1]`` is ``list_server-1``."""
    return "-".join(str(part) for part in name)


def name_of_process(process_name: str) -> tuple[str | int, ...]:
    """Return the registered name of a process, as a key: ``("list_server", 1)`` for ``list_server-1``."""
    kind, dash, number = process_name.rpartition("-")
    return (kind, int(number)) if dash and is_number(number) else (process_name,)


def is_number(text: str) -> bool:
    """Tell whether a text may be the number of a pooled daemon."""
    return text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS
