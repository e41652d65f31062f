"""The record of what clients asked of lists, when, and what they were told.

Owns: ``Operation``, its file form (one JSON array a line). Must not know: how a history is judged.
Simulation and torture write it, with virtual or real time; the checker reads it.

What a recorder must keep to:

- One record for one request, however often it was sent: ``start`` before its first sending, ``end`` after its answer.
- ``client`` names what counts numbers: who takes a new client id (after a fork, a restart) is another client here.
- ``sequence`` ascends with the order in which a client sent its requests to one list.
- Every title and every title given by an update is unique. Histories without that are judged as rightly, more slowly.
- A list begins as never used, and what was not recorded did not happen.
- ``entries`` is one answer: a list that is read in several pages is not read at one moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["add", "add_all", "update", "delete", "clear", "drop", "entries", "size"]
Outcome = Literal["ok", "failed", "unknown", "cast"]

READS = ("entries", "size")


class Entry(NamedTuple):
    """An entry as a client was shown it. ``date`` is ``YYYY-MM-DD`` or None."""

    id: int
    title: str
    done: bool = False
    date: str | None = None


class Operation(NamedTuple):
    """One request of one client to one list, and what it was told. Times are whole ns, of whatever clock.

    ========  ===================  =================================================
    kind      arguments            result, where the outcome is ``ok``
    ========  ===================  =================================================
    add       title                the id
    add_all   (title, ...)         (id, ...)
    update    id, {field: value}   the Entry as it is then; None for ``EntryNotFound``
    delete    id                   True, or False where there was none
    clear                          None; ids begin at 1 again
    drop                           None; the list itself is deleted, ids begin at 1 again
    entries                        (Entry, ...)
    size                           the number of entries
    ========  ===================  =================================================
    """

    client: int | str
    list: str
    sequence: int
    kind: Kind
    arguments: tuple[Any, ...]
    start: int
    end: int
    """When the answer came, or nobody waited for it any more."""
    outcome: Outcome
    """``failed``: not applied. ``unknown`` and ``cast``: it may have taken effect at any time from ``start`` on."""
    result: Any = None
    deadline: int | None = None
    """The last moment at which an ``unknown`` or ``cast`` change may take effect; None for no such moment."""
    resent: bool = False
    """A read that was sent again because its answer was lost: later reads of the same client may be answered before."""

    @property
    def is_idle(self) -> bool:
        """Whether its answer says that it changes nothing, whenever it takes place."""
        return self.outcome == "ok" and (
            self.kind in READS or (self.kind in ("update", "delete") and not self.result)
        )

    def keeps_order_with(self, later: Operation) -> bool:
        """Return whether it takes effect before what the same client sent later, if both do.

        A read that was sent again does where that changes something: the list refuses it afterwards.
        """
        return not (self.resent and self.kind in READS and later.is_idle)

    def __str__(self) -> str:
        told = f"-> {_shown(self.result)}" if self.outcome == "ok" else f"({self.outcome})"
        asked = ", ".join(_shown(argument) for argument in self.arguments)
        return f"client {self.client} #{self.sequence} {self.kind}({asked}) {told} [{self.start}..{self.end}]"


def save(path: Path, operations: Iterable[Operation]) -> None:
    """Write a history to a file, one operation a line; the file is replaced."""
    with path.open("w", encoding="utf-8") as file:
        for operation in operations:
            file.write(to_line(operation))


def to_line(operation: Operation) -> str:
    """Return an operation as one line of a history's file, for recorders that write as they go."""
    return json.dumps(operation, separators=(",", ":")) + "\n"


def load(path: Path) -> Iterator[Operation]:
    """Yield the operations of a file that ``save`` wrote.

    Raises:
        ValueError: a line is not an operation; it is named by its number.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _from_json(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path.name}, line {number} is not an operation: {error}") from error


def _from_json(fields: list[Any]) -> Operation:
    operation = Operation(*fields)
    arguments = tuple(tuple(each) if isinstance(each, list) else each for each in operation.arguments)
    result = operation.result
    if isinstance(result, list):
        if operation.kind == "entries":
            result = tuple(Entry(*entry) for entry in result)
        else:
            result = Entry(*result) if operation.kind == "update" else tuple(result)
    return operation._replace(arguments=arguments, result=result)


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and not isinstance(value, Entry):
        value = tuple(tuple(each) if isinstance(each, Entry) else each for each in value)
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}"
