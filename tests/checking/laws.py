"""Says in a sentence what is impossible in one list's history, for the breaches that people need to know by name.

Owns: the named breaches. Must not know: the search, which is what decides; most of these look at two or three
operations at a time and at nothing else. The checker asks here when no order of effects was found at once.

Each rule is necessary: it says nothing about a history that some order explains. ``before`` is the order that any
explanation must keep: answered before the other was sent, or sent earlier by the same client (law 4).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any, NamedTuple

from checking.history import Operation
from checking.steps import FOREVER, shown_by

MOST_OF_A_RULE = 3
"""Breaches that one rule reports of one list; more would say the same again."""


class Violation(NamedTuple):
    """What is impossible in the history of one list, and the operations that show it."""

    list: str
    sentence: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        return "\n    ".join([f"list {self.list!r}: {self.sentence}", *map(str, self.operations)])


class Given(NamedTuple):
    """An id that an acknowledged add gave."""

    id: int
    title: str
    add: Operation


def before(first: Operation, second: Operation) -> bool:
    """Return whether the first must have taken effect before the second, if both did."""
    if latest_effect(first) < second.start:
        return True
    return first.client == second.client and first.sequence < second.sequence and first.keeps_order_with(second)


def latest_effect(operation: Operation) -> int:
    """Return the last moment at which an operation can have taken effect, ns."""
    if operation.outcome == "ok":
        return operation.end
    return FOREVER if operation.deadline is None else operation.deadline


class Breaches:
    """What is wrong in the history of one list, as far as the named rules see."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Sort a list's history by what the rules ask for."""
        self.list = operations[0].list
        done = [operation for operation in operations if operation.outcome != "failed"]
        self.reads = [operation for operation in done if operation.kind == "entries" and operation.outcome == "ok"]
        self.observers = [operation for operation in done if shown_by(operation)]
        self.clears = [operation for operation in done if operation.kind in ("clear", "drop")]
        self.clears.sort(key=lambda clear: clear.start)
        self._clear_starts = [clear.start for clear in self.clears]
        # When the last of the clears up to each has certainly taken effect, if it did.
        self._clear_ends = list(accumulate(map(latest_effect, self.clears), max))
        self.updates = [operation for operation in done if operation.kind == "update"]
        self.deletes: defaultdict[int, list[Operation]] = defaultdict(list)
        self.sources: defaultdict[str, list[Operation]] = defaultdict(list)
        for operation in operations:
            if operation.kind == "delete" and operation.outcome != "failed":
                self.deletes[operation.arguments[0]].append(operation)
            for title in titles_given(operation):
                self.sources[title].append(operation)
        self.given = [each for operation in done for each in ids_given(operation)]

    def all(self) -> list[Violation]:
        """Return the breaches found, of each rule the first few."""
        rules = (
            self._never_made, self._seen_twice, self._id_given_twice, self._ids_descend, self._lost, self._undone,
            self._update_lost, self._value_never_written,
        )  # fmt: skip
        found = []
        for rule in rules:
            for _, (sentence, operations) in zip(range(MOST_OF_A_RULE), rule()):
                found.append(Violation(self.list, sentence, operations))
        return found

    def _never_made(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        judged = set()
        for observer in self.observers:
            for entry in shown_by(observer):
                sources = self.sources[entry.title]
                if any(source.outcome != "failed" and not before(observer, source) for source in sources):
                    continue
                if entry.title in judged:
                    continue
                judged.add(entry.title)
                if not sources:
                    yield f"{entry.title!r} is shown, and nobody ever gave that title", (observer,)
                elif all(source.outcome == "failed" for source in sources):
                    yield f"{entry.title!r} is shown, though it was refused as not applied", (*sources, observer)
                else:
                    yield f"{entry.title!r} is shown before it was sent", (observer, *sources)

    def _seen_twice(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        ids: dict[str, tuple[int, Operation]] = {each.title: (each.id, each.add) for each in self.given}
        judged = set()
        for observer in self.observers:
            for entry in shown_by(observer):
                if len(self.sources[entry.title]) != 1 or entry.title in judged:
                    continue
                source = self.sources[entry.title][0]
                if source.kind == "update":
                    continue
                identifier, witness = ids.setdefault(entry.title, (entry.id, observer))
                if identifier != entry.id:
                    judged.add(entry.title)
                    what = "the cast" if source.outcome == "cast" else "the add"
                    yield (
                        f"{what} of {entry.title!r} took effect twice: it has the ids {identifier} and {entry.id}",
                        (source, observer) if witness is source else (source, witness, observer),
                    )

    def _id_given_twice(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        holders: defaultdict[int, list[Given]] = defaultdict(list)
        for each in self.given:
            for other in holders[each.id]:
                if not any(self._may_part(clear, other.add, each.add) for clear in self.clears):
                    both = f"{other.title!r} and to {each.title!r}"
                    yield f"id {each.id} was given twice, to {both}, with no clear between", (other.add, each.add)
            holders[each.id].append(each)

    def _may_part(self, clear: Operation, one: Operation, other: Operation) -> bool:
        """Return whether a clear may have come between two operations, whichever of them was first."""
        return not (before(clear, one) and before(clear, other)) and not (before(one, clear) and before(other, clear))

    def _ids_descend(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        ended: list[tuple[int, int, Given]] = []
        highest: Given | None = None
        own: dict[int | str, Given] = {}
        for place, low in enumerate(sorted(self.given, key=lambda each: (each.add.start, each.add.sequence))):
            while ended and ended[0][0] < low.add.start:
                candidate = heappop(ended)[2]
                if highest is None or candidate.id > highest.id or self._could_clear(highest.add, candidate.add):
                    highest = candidate
            for high in (highest, own.get(low.add.client)):
                if high is None or high.id <= low.id or not before(high.add, low.add):
                    continue
                if not self._could_clear(high.add, low.add):
                    sentence = f"{low.title!r} has the id {low.id}, lower than {high.id} given before it"
                    yield f"{sentence}, with no clear between", (high.add, low.add)
                    break
            heappush(ended, (low.add.end, place, low))
            own[low.add.client] = low

    def _lost(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        witnesses: defaultdict[int, list[Operation]] = defaultdict(list)
        for each in self.given:
            witnesses[each.id].append(each.add)
        for update in self.updates:
            if shown_by(update):
                witnesses[update.arguments[0]].append(update)
        previous: Operation | None = None
        for read in sorted(self.reads, key=lambda read: read.start):
            shown = {entry.id for entry in read.result}
            for identifier, operations in witnesses.items():
                if identifier not in shown:
                    yield from self._lost_to(read, identifier, operations)
            if previous is not None and before(previous, read):
                for entry in previous.result:
                    if entry.id not in shown:
                        yield from self._lost_to(read, entry.id, [previous])
            previous = read
        for absent in [*self.updates, *(each for deletes in self.deletes.values() for each in deletes)]:
            if absent.outcome == "ok" and not absent.result:
                yield from self._lost_to(absent, absent.arguments[0], witnesses[absent.arguments[0]])

    def _lost_to(
        self, observer: Operation, identifier: int, witnesses: Sequence[Operation]
    ) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        for witness in witnesses:
            if before(witness, observer) and not self._could_go(identifier, witness, observer):
                sentence = f"entry {identifier} is lost: it was there, nothing can have removed it since"
                yield f"{sentence}, and it is not shown", (witness, observer)
                return

    def _undone(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        earliest: dict[tuple[int, str], Operation] = {(each.id, each.title): each.add for each in self.given}
        for observer in self.reads:
            for entry in observer.result:
                sources = self.sources[entry.title]
                if len(sources) != 1:
                    continue
                witness = earliest.setdefault((entry.id, entry.title), observer)
                for remover in (*self.deletes[entry.id], *self.clears):
                    if remover.outcome == "ok" and before(witness, remover) and before(remover, observer):
                        what = "the delete of" if remover.kind == "delete" else f"the {remover.kind} that removed"
                        yield f"{what} {entry.title!r} (entry {entry.id}) was undone", (witness, remover, observer)
                        break

    def _update_lost(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        by_id: defaultdict[int, list[Operation]] = defaultdict(list)
        for update in self.updates:
            by_id[update.arguments[0]].append(update)
        for observer in self.observers:
            for entry in shown_by(observer):
                for update in by_id.get(entry.id, ()):
                    if update.result is None or not before(update, observer):
                        continue
                    for field, value in update.arguments[1].items():
                        shown = getattr(entry, field)
                        if shown != value and not self._could_change(field, entry.id, update, observer, by_id):
                            sentence = f"the update of entry {entry.id} is lost: its {field} is {shown!r} again"
                            yield sentence, (update, observer)

    def _could_change(
        self, field: str, identifier: int, first: Operation, last: Operation, updates: dict[int, list[Operation]]
    ) -> bool:
        """Return whether the field may have got another value from the first operation on, up to the last."""
        others = (other for other in updates[identifier] if other is not first and field in other.arguments[1])
        return any(self._between(first, other, last) for other in others) or self._could_go(identifier, first, last)

    def _value_never_written(self) -> Iterator[tuple[str, tuple[Operation, ...]]]:
        fresh: dict[str, Any] = {"done": False, "date": None}
        writers: defaultdict[tuple[int, str, Any], list[Operation]] = defaultdict(list)
        for update in self.updates:
            for field in fresh.keys() & update.arguments[1].keys():
                writers[update.arguments[0], field, update.arguments[1][field]].append(update)
        for observer in self.observers:
            for entry in shown_by(observer):
                for field, at_first in fresh.items():
                    value = getattr(entry, field)
                    sources = writers.get((entry.id, field, value), [])
                    if value != at_first and not any(not before(observer, source) for source in sources):
                        sentence = f"entry {entry.id} is shown with {field} {value!r}, which nobody had given it"
                        yield sentence, (observer,)

    def _between(self, first: Operation, other: Operation, last: Operation) -> bool:
        return not before(other, first) and not before(last, other)

    def _could_clear(self, first: Operation, last: Operation) -> bool:
        for place in reversed(range(bisect_right(self._clear_starts, last.end))):
            if self._clear_ends[place] < first.start:
                return False
            if self._between(first, self.clears[place], last):
                return True
        return False

    def _could_go(self, identifier: int, first: Operation, last: Operation) -> bool:
        """Return whether an entry may have been removed after the first operation and before the last."""
        deletes = self.deletes.get(identifier, ())
        return self._could_clear(first, last) or any(
            delete.result is not False and self._between(first, delete, last) for delete in deletes
        )


def titles_given(operation: Operation) -> tuple[str, ...]:
    """Return the titles that an operation gives, whether it took effect or not."""
    if operation.kind == "add":
        return (operation.arguments[0],)
    if operation.kind == "add_all":
        return tuple(operation.arguments[0])
    if operation.kind == "update" and "title" in operation.arguments[1]:
        return (operation.arguments[1]["title"],)
    return ()


def ids_given(operation: Operation) -> list[Given]:
    """Return the ids that an acknowledged add gave, with their titles."""
    if operation.outcome != "ok" or operation.kind not in ("add", "add_all"):
        return []
    ids = (operation.result,) if operation.kind == "add" else operation.result
    return [Given(identifier, title, operation) for identifier, title in zip(ids, titles_given(operation))]
