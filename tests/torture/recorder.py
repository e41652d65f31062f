"""Keeps what one client asked and was told, in the form that the checker reads.

Owns: the files (one for each client and round), when an operation counts as begun and ended. Must not know: faults.
The lists of a round are used in that round only, so each round is a history of its own; ``read_round`` gives it back.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checking import Entry
from checking.history import Kind, Operation, Outcome, load, to_line
from todomq.client.values import Entry as ClientEntry
from todomq.errors import UNKNOWN, EntryNotFound, TodoMQError

DEADLINE_SLACK_NS = 1_000_000_000
"""How much later than noted here a deadline may pass: the thread may wait for its turn before the client takes over."""


class Wish:
    """Something to ask of a list."""

    __slots__ = ("arguments", "kind", "list", "round")

    def __init__(self, round: int, list: str, kind: str, *arguments: Any) -> None:
        self.round = round
        self.list = list
        self.kind = kind
        self.arguments = arguments


@dataclass(slots=True)
class Asked:
    """A wish that was sent, and what came of it."""

    wish: Wish
    sequence: int
    start: int
    deadline_s: float
    may_be_overtaken: bool
    """A read behind which more was in flight: sent again it may show that."""
    deadline: int = 0
    end: int = 0
    attempts: int = 0
    value: Any = None
    error: TodoMQError | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def sending(self) -> None:
        """Note that it is handed over now, first or again."""
        self.attempts += 1
        self.deadline = time.monotonic_ns() + int(self.deadline_s * 1e9) + DEADLINE_SLACK_NS

    def ended(self, value: Any, error: BaseException | None) -> None:
        """Note its answer, as soon as it is there.

        Raises:
            BaseException: the error, where it is none of the service's.
        """
        self.end = time.monotonic_ns()
        if error is not None and not isinstance(error, TodoMQError):
            raise error
        self.value, self.error = value, error
        self.is_over.set()

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows if it took effect."""
        return self.error is not None and self.error.outcome == UNKNOWN


class Recorder:
    """The record of one client; used by one thread."""

    def __init__(self, directory: Path, client: str) -> None:
        self.client = client
        self._directory = directory
        self._sequences: Counter[str] = Counter()

    def begin(self, wish: Wish, deadline_s: float, may_be_overtaken: bool = False) -> Asked:
        """Note that a wish is about to be sent."""
        self._sequences[wish.list] += 1
        return Asked(wish, self._sequences[wish.list], time.monotonic_ns(), deadline_s, may_be_overtaken)

    def keep(self, asked: list[Asked]) -> None:
        """Write down what is finished; all of it is of one round."""
        directory = self._directory / f"round-{asked[0].wish.round:05}"
        directory.mkdir(exist_ok=True)
        with (directory / f"{self.client}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(to_line(self._operation(each)) for each in asked)

    def _operation(self, asked: Asked) -> Operation:
        wish, error = asked.wish, asked.error
        kind: Kind = "add" if wish.kind == "cast" else wish.kind  # type: ignore[assignment]
        outcome: Outcome = "ok"
        if wish.kind == "cast":
            outcome = "cast" if error is None else "failed"
        elif error is not None and not isinstance(error, EntryNotFound):
            outcome = "unknown" if error.outcome == UNKNOWN else "failed"
        # Tried again it was sent behind others, tried first before them: it keeps no order with its client's.
        client = self.client if asked.attempts <= 1 else f"{self.client} again {asked.sequence}"
        result = shown(kind, asked.value) if outcome == "ok" and error is None else None
        return Operation(
            client, wish.list, asked.sequence, kind, wish.arguments, asked.start, asked.end, outcome, result,
            asked.deadline, kind in ("entries", "size") and (asked.may_be_overtaken or asked.attempts > 1),
        )  # fmt: skip


def shown(kind: Kind, value: Any) -> Any:
    """Return a client's result as a history has it."""
    match kind:
        case "add":
            return value.id
        case "add_all":
            return tuple(entry.id for entry in value)
        case "update":
            return _entry(value)
        case "entries":
            return tuple(map(_entry, value))
    return value


def _entry(entry: ClientEntry) -> Entry:
    return Entry(entry.id, entry.title, entry.done, None if entry.date is None else entry.date.isoformat())


def rounds(directory: Path) -> list[Path]:
    """Return the directories of the rounds, in their order."""
    return sorted(directory.glob("round-*"))


def read_round(directory: Path) -> Iterator[Operation]:
    """Yield what all clients recorded in one round."""
    for file in sorted(directory.glob("*.jsonl")):
        yield from load(file)
