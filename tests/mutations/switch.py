"""The form of a switch and how it is turned on.

Owns: the list of switches, turning one on for a while or for good. Must not know: what any of them breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

Replaced = list[tuple[Any, str, Any]]
"""Owner, attribute, what takes its place. An attribute that is not there is an error: nothing would be broken."""

SWITCHES: dict[str, Switch] = {}


class Switch(NamedTuple):
    """One way to break one law."""

    name: str
    law: int
    says: str
    make: Callable[[], Replaced]


def breaks(law: int) -> Callable[[Callable[[], Replaced]], Callable[[], Replaced]]:
    """Make a switch of a function that returns what is replaced; its docstring says what is broken."""

    def register(make: Callable[[], Replaced]) -> Callable[[], Replaced]:
        says = (make.__doc__ or "").strip().rstrip(".")
        SWITCHES[make.__name__] = Switch(make.__name__, law, says, make)
        return make

    return register


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break what the switch of this name breaks; with no name, nothing."""
    with ExitStack() as stack:
        for owner, attribute, replacement in SWITCHES[name].make() if name else ():
            stack.enter_context(patch.object(owner, attribute, replacement))
        yield


def break_for_good(name: str) -> None:
    """Break it for the rest of this process."""
    for owner, attribute, replacement in SWITCHES[name].make():
        patch.object(owner, attribute, replacement).start()
