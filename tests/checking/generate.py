"""Makes good histories: a to-do list that many clients use at once, some of whose answers get lost.

Owns: the make-believe run. Must not know: the checker. Everything follows from a seed.
What takes effect when is decided in one place, one operation after the other, so each history has an explanation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from checking.exhaustive import Todo, perform
from checking.history import READS, Kind, Operation, Outcome


class Habits(NamedTuple):
    """How a made-up run goes; shares are between 0 and 1."""

    operations: int
    clients: int = 16
    depth: int = 4
    """Requests a client has open at most."""
    unknown: float = 0.02
    """Changes whose answer is lost; half of them take effect."""
    casts: float = 0.05
    failed: float = 0.01
    resent: float = 0.05
    """Of reads."""
    slowest: int = 8
    """How long after its effect an answer comes, at most."""
    titles: int = 0
    """How many titles there are, which are given again and again; 0: each is given once."""
    weights: tuple[int, ...] = (40, 5, 20, 15, 1, 1, 12, 6)
    """How often an add, add_all, update, delete, clear, drop, entries, size is sent."""


KINDS: tuple[Kind, ...] = ("add", "add_all", "update", "delete", "clear", "drop", "entries", "size")


class Run:
    """One list's run. Time goes on by one with every sending and every effect."""

    def __init__(self, name: str, seed: int, habits: Habits) -> None:
        self.name = name
        self.random = Random(f"{seed} {name}")
        self.habits = habits
        self.now = 0
        self.sent = 0
        self.todo: Todo = (1, ())
        self.open: list[deque[Operation]] = [deque() for _ in range(habits.clients)]
        self.floating: list[Operation] = []
        self.told: list[Operation] = []

    def history(self) -> list[Operation]:
        """Let the run take place and return what was recorded."""
        while self.sent < self.habits.operations or any(self.open) or self.floating:
            self.now += 1
            if self.floating and self.random.random() < 0.2:
                self._perform(self.floating.pop(self.random.randrange(len(self.floating))))
                continue
            client = self.random.randrange(self.habits.clients)
            queue = self.open[client]
            if self.sent < self.habits.operations and len(queue) < self.habits.depth and self.random.random() < 0.5:
                queue.append(self._send(client))
            elif queue:
                self._arrive(queue.popleft())
        return self.told

    def _send(self, client: int) -> Operation:
        self.sent += 1
        kind = self.random.choices(KINDS, self.habits.weights)[0]
        outcome = self._outcome(kind)
        end = self.now + self.random.randrange(8) if outcome in ("unknown", "failed") else self.now
        arguments = self._arguments(kind)
        limited = outcome in ("unknown", "cast") and self.random.random() < 0.5
        deadline = self.now + self.random.randrange(30) if limited else None
        resent = kind in READS and self.random.random() < self.habits.resent
        return Operation(
            client, self.name, self.sent, kind, arguments, self.now, end, outcome, None, deadline, resent
        )  # fmt: skip

    def _outcome(self, kind: Kind) -> Outcome:
        if self.random.random() < self.habits.failed:
            return "failed"
        if kind not in READS and self.random.random() < self.habits.unknown:
            return "unknown"
        return "cast" if kind == "add" and self.random.random() < self.habits.casts else "ok"

    def _arguments(self, kind: Kind) -> tuple[Any, ...]:
        titles = self.habits.titles
        title = f"{self.name}-{self.random.randrange(titles) if titles else self.sent}"
        identifier = self.random.randrange(1, self.todo[0] + 2)
        if kind == "add":
            return (title,)
        if kind == "add_all":
            return (tuple(f"{title}-{part}" for part in range(self.random.randrange(4))),)
        if kind == "update":
            return identifier, self.random.choice([{"done": True}, {"done": False}, {"title": title}, {"date": title}])
        return (identifier,) if kind == "delete" else ()

    def _arrive(self, operation: Operation) -> None:
        if operation.resent and operation.outcome == "ok":
            self.floating.append(operation)
        elif operation.outcome == "ok" or (operation.outcome != "failed" and self.random.random() < 0.5):
            if operation.kind not in READS:
                self._answer_reads_of(operation.client)
            late = operation.deadline is not None and operation.deadline < self.now
            self._perform(operation) if not late else self.told.append(operation)
        else:
            self.told.append(operation)

    def _answer_reads_of(self, client: int | str) -> None:
        """Let the reads take place that a client has sent again, ahead of its next change."""
        for read in [each for each in self.floating if each.client == client]:
            self.floating.remove(read)
            self._perform(read)

    def _perform(self, operation: Operation) -> None:
        self.todo, answer = perform(self.todo, operation)
        if operation.outcome == "ok":
            operation = operation._replace(result=answer, end=self.now + self.random.randrange(self.habits.slowest))
        self.told.append(operation)


def histories(lists: int, seed: int, habits: Habits) -> Iterator[Operation]:
    """Yield the histories of several lists, one after the other."""
    for number in range(lists):
        yield from Run(f"list {number}", seed, habits).history()
