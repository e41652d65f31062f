"""What each operation of one list's history claims, made ready for the search.

Owns: ``Step`` (an operation as the to-do list's sequential specification sees it), ``State`` (that specification), and
the ``Chain``s in which one client's steps stand in the order sent (law 4). Must not know: how an order is found.
The search talks to it.

A step *must* take effect where its client was answered, and where a title that nobody else gave was seen: an unknown
add that was seen happened, under the id that was seen, before whoever saw it was answered. Every other unknown change
and every cast *may*. What was refused as not applied is not among the steps at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from checking.history import READS, Entry, Operation

FOREVER = 1 << 63

Fields = tuple[str, bool, str | None]
"""An entry without its id: title, done, date."""

Effect = tuple[int, tuple[tuple[int, Fields | None], ...], bool]
"""The next id after a change; the entries it leaves, None for one it deletes; whether it empties the list first."""

UNSEEN = "\0unseen"
"""Stands for every title that no answer shows: whose it is can make no difference."""


class Impossible(Exception):
    """Operations that no order of effects can explain, and why, in a sentence."""

    def __init__(self, sentence: str, *operations: Operation) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.operations = operations


class Step:
    """One operation that may have had an effect."""

    __slots__ = (
        "beside", "changes", "end", "entries", "group", "id", "idle", "kind", "latest", "mark", "must", "operation",
        "result", "shows", "start", "stated", "taken", "titles",
    )  # fmt: skip

    def __init__(self, operation: Operation, start: int) -> None:
        """Read an operation.

        Args:
            operation: not one that failed.
            start: from when on it can take effect, ns.

        Raises:
            Impossible: its own answer contradicts itself.
        """
        self.operation = operation
        self.kind = operation.kind
        self.start = start
        self.stated = self.must = operation.outcome == "ok"
        self.end = operation.end if self.must else FOREVER
        self.latest = FOREVER if self.must or operation.deadline is None else operation.deadline
        self.result = operation.result
        self.id: int | None = None
        self.titles: tuple[str, ...] = ()
        self.changes: dict[str, Any] = {}
        self.entries: dict[int, Fields] = {}
        self.mark = 0
        self.taken = False
        self.shows: tuple[str, ...] = ()
        """Titles and dates in its answer that were given once and not by itself: they are there before it."""
        self.beside: tuple[int, str] | None = None
        """An older entry that some read shows beside the first that this step adds, so it is there before it."""
        self.group: int | None = None
        """Of the steps that stand in one life of the list with this one, their number; see ``lives``."""
        self._read_arguments()
        self.idle = operation.is_idle

    def _read_arguments(self) -> None:
        operation = self.operation
        if self.kind == "add":
            self.titles = (operation.arguments[0],)
            self.id = self.result if self.stated else None
        elif self.kind == "add_all":
            self.titles = tuple(operation.arguments[0])
            if self.stated:
                self._read_ids(tuple(self.result))
        elif self.kind in ("update", "delete"):
            self.id = operation.arguments[0]
            if self.kind == "update":
                self.changes = operation.arguments[1]
        elif self.kind == "entries" and self.stated:
            ids = [entry.id for entry in self.result]
            if any(after <= before for before, after in pairwise(ids)):
                raise Impossible("a read shows ids that do not ascend", operation)
            self.entries = {entry[0]: entry[1:] for entry in self.result}
            self.mark = sum(mark_of(*item) for item in self.entries.items())

    def _read_ids(self, ids: tuple[int, ...]) -> None:
        first = ids[0] if ids else None
        if first is not None:
            self.id = first
        if ids != tuple(range(first or 0, (first or 0) + len(self.titles))):
            raise Impossible("ids given to entries that were added together do not follow one another", self.operation)

    @property
    def ids(self) -> range:
        """The ids that it gives, if it adds and they are known."""
        return range(self.id, self.id + len(self.titles)) if self.titles and self.id is not None else range(0)

    def effect_key(self) -> tuple[Any, ...]:
        """Return what is equal for two unstated changes that do the same."""
        return (self.kind, self.id, self.titles, tuple(sorted(self.changes.items())))


class State:
    """The to-do list as specified: what it holds and the id it gives next."""

    __slots__ = ("entries", "mark", "next_id")

    def __init__(self) -> None:
        self.entries: dict[int, Fields] = {}
        self.next_id = 1
        self.mark = 0  # the sum of the marks of all entries: equal lists have equal marks

    def effect(self, step: Step) -> Effect | None:
        """Return what a step would do now; None where it would be answered otherwise, or unstated and do nothing."""
        kind = step.kind
        if kind == "add" or kind == "add_all":
            return self._effect_of_add(step)
        if kind == "entries":
            same = step.mark == self.mark and step.entries == self.entries
            return (self.next_id, (), False) if same else None
        if kind == "size":
            return (self.next_id, (), False) if step.result == len(self.entries) else None
        if kind == "clear" or kind == "drop":
            return None if self.next_id == 1 and not step.must else (1, (), True)
        assert step.id is not None
        current = self.entries.get(step.id)
        if kind == "delete":
            if step.stated and step.result != (current is not None):
                return None
            if current is None:
                return (self.next_id, (), False) if step.stated else None
            return (self.next_id, ((step.id, None),), False)
        return self._effect_of_update(step, step.id, current)

    def _effect_of_add(self, step: Step) -> Effect | None:
        first = self.next_id
        if step.id is not None and step.id != first:
            return None
        titles = step.titles
        if len(titles) == 1:
            return (first + 1, ((first, (titles[0], False, None)),), False)
        added = tuple((identifier, (title, False, None)) for identifier, title in enumerate(titles, first))
        return (first + len(titles), added, False)

    def _effect_of_update(self, step: Step, identifier: int, current: Fields | None) -> Effect | None:
        if current is None:
            return (self.next_id, (), False) if step.stated and step.result is None else None
        after = updated(current, step.changes)
        if step.stated and step.result != (identifier, *after):
            return None
        return (self.next_id, ((identifier, after),), False)

    def take(self, effect: Effect) -> tuple[Any, ...]:
        """Let an effect happen and return what ``undo`` needs."""
        next_id, changed, clears = effect
        befores = [(identifier, self.entries.get(identifier)) for identifier, _ in changed]
        undo = (self.next_id, self.mark, self.entries if clears else None, befores)
        self.next_id = next_id
        if clears:
            self.entries = {}
            self.mark = 0
        for identifier, fields in changed:
            before = self.entries.pop(identifier, None)
            if before is not None:
                self.mark -= mark_of(identifier, before)
            if fields is not None:
                self.entries[identifier] = fields
                self.mark += mark_of(identifier, fields)
        return undo

    def undo(self, undo: tuple[Any, ...]) -> None:
        """Make the last effect that was taken and not undone not have happened."""
        self.next_id, self.mark, entries, befores = undo
        if entries is not None:
            self.entries = entries
            return
        for identifier, before in befores:
            if before is None:
                self.entries.pop(identifier, None)
            else:
                self.entries[identifier] = before


@lru_cache(1 << 16)
def mark_of(identifier: int, fields: Fields) -> int:
    """Return a number for an entry; sums of them are equal for equal lists only, as far as chance goes.

    Hashes of tuples would not do: they are near enough to sums of their parts that two lists in which two entries have
    changed places are often taken for each other. Hashes of texts are not.
    """
    return hash(f"{identifier} {fields}")


def updated(fields: Fields, changes: dict[str, Any]) -> Fields:
    """Return an entry's fields after an update."""
    title, done, date = fields
    return (changes.get("title", title), changes.get("done", done), changes.get("date", date))


class Chain:
    """The steps of one client in the order sent; a read that was sent again is a chain of its own.

    ``after`` names the chain and the place in it behind which such a read comes. What changes something and stands in
    that chain from this place on comes behind the read.
    """

    __slots__ = ("after", "again", "alternatives", "least_end", "next_must", "next_read", "steps")

    def __init__(self, steps: Sequence[Step], after: tuple[int, int] | None = None) -> None:
        size = len(steps)
        self.steps = steps
        self.after = after
        self.least_end = [FOREVER] * (size + 1)  # of the steps from here on, which must happen
        self.next_must = [size] * (size + 1)
        self.next_read = [size] * (size + 1)
        self.alternatives: list[tuple[int, ...]] = [()] * (size + 1)
        """Steps from here to the next that must happen, the first of each effect: earlier ones leave more open."""
        self.again = [size] * size
        """The next step of the same effect in that stretch."""
        for place in reversed(range(size)):
            self._note(place, steps[place])

    def behind_late(self, place: int, now: int) -> int:
        """Return the place of the first step from here on that can still be taken where the latest start is ``now``."""
        while place < len(self.steps) and self.steps[place].latest < now:
            place += 1
        return place

    def _note(self, place: int, step: Step) -> None:
        following = place + 1
        self.next_read[place] = place if step.kind in READS else self.next_read[following]
        self.least_end[place] = min(step.end, self.least_end[following]) if step.must else self.least_end[following]
        self.next_must[place] = place if step.must else self.next_must[following]
        if step.must:
            return
        key = step.effect_key()
        others = []
        for other in self.alternatives[following]:
            if self.steps[other].effect_key() == key:
                self.again[place] = other
            else:
                others.append(other)
        self.alternatives[place] = (place, *others)


def chains_of(operations: Iterable[Operation]) -> list[Chain]:
    """Return the chains of one list's history: clients' first, then reads that were sent again, each by start.

    Raises:
        Impossible: answers contradict each other whatever the order.
        ValueError: a client's request is recorded twice.
    """
    clients: defaultdict[int | str, list[Operation]] = defaultdict(list)
    for operation in operations:
        clients[operation.client].append(operation)
    sequences = [_steps_of(sent) for sent in clients.values()]
    _infer_from_titles([step for steps in sequences for step in steps])
    sequences = _without_unseen_updates(sequences)
    sequences.sort(key=lambda steps: steps[0].start)
    chains = []
    resent = []
    for number, steps in enumerate(sequences):
        kept: list[Step] = []
        for step in steps:
            if step.operation.resent and step.idle and step.kind in READS:
                resent.append(Chain([step], (number, len(kept))))
            else:
                kept.append(step)
        chains.append(Chain(kept))
    resent.sort(key=lambda chain: chain.steps[0].start)
    return chains + resent


def _steps_of(sent: list[Operation]) -> list[Step]:
    sent.sort(key=lambda operation: operation.sequence)
    steps = []
    start = 0
    for place, operation in enumerate(sent):
        if place and sent[place - 1].sequence == operation.sequence:
            raise ValueError(f"recorded twice: {operation}")
        # What was sent later can't take effect earlier than what was sent before it was made.
        start = max(start, operation.start)
        if operation.outcome == "failed" or (operation.outcome != "ok" and operation.kind in READS):
            continue
        step = Step(operation, start)
        if step.latest >= start:
            steps.append(step)
    return steps


def _without_unseen_updates(sequences: list[list[Step]]) -> list[list[Step]]:
    """Leave out updates that may happen and give nothing but values that no answer shows of that entry.

    An order that has one explains as much without it: until all that it gave is overwritten, or the entry is gone, no
    answer shows the entry, and afterwards the list is the same.
    """
    steps = [step for sequence in sequences for step in sequence]
    shown = [entry for step in steps for entry in shown_by(step.operation)]
    seen = {(entry.id, field, value) for entry in shown for field, value in entry._asdict().items()}

    def is_unseen(step: Step) -> bool:
        if step.kind != "update" or step.must:
            return False
        return all((step.id, field, value) not in seen for field, value in step.changes.items())

    kept = [[step for step in sequence if not is_unseen(step)] for sequence in sequences]
    return [sequence for sequence in kept if sequence]


def _infer_from_titles(steps: list[Step]) -> None:
    """Make those unknown changes certain whose title was seen and can come from nowhere else."""
    seen: dict[str, list[tuple[int, Step]]] = {}
    sources: defaultdict[str, list[Step]] = defaultdict(list)
    for step in steps:
        for entry in shown_by(step.operation):
            seen.setdefault(entry.title, []).append((entry.id, step))
        for title in step.titles:
            sources[title].append(step)
        if "title" in step.changes:
            sources[step.changes["title"]].append(step)
        if step.changes.get("date") is not None:
            sources[step.changes["date"]].append(step)
    _infer_neighbours(steps, {title: given[0] for title, given in sources.items() if len(given) == 1})
    for step in steps:
        if step.stated:
            shown = [value for entry in shown_by(step.operation) for value in (entry.title, entry.date) if value]
            step.shows = tuple(value for value in shown if len(sources[value]) == 1 and sources[value][0] is not step)
            continue
        given = step.titles if step.titles else [step.changes[field] for field in step.changes if field == "title"]
        for place, title in enumerate(given):
            if title in seen and len(sources[title]) == 1:
                _make_certain(step, place, title, seen[title])
        step.titles = tuple(title if title in seen else UNSEEN for title in step.titles)


def _infer_neighbours(steps: list[Step], givers: dict[str, Step]) -> None:
    """Note which older entry each add must find: ids ascend, so what a read shows with a lower id was added before."""
    for step in steps:
        older: tuple[int, str] | None = None
        for identifier, fields in step.entries.items():
            giver = givers.get(fields[0])
            if giver is None or not giver.titles:
                continue
            if older is not None and giver.beside is None and giver.titles[0] == fields[0]:
                giver.beside = older
            older = (identifier, fields[0])


def _make_certain(step: Step, place: int, title: str, seen: list[tuple[int, Step]]) -> None:
    step.must = True
    step.end = min(step.end, step.latest, *(reader.end for _, reader in seen))
    if not step.titles:
        return
    for identifier, reader in seen:
        if step.id is None:
            step.id = identifier - place
        elif step.id + place != identifier:
            raise Impossible(
                f"{title!r} was added once and is seen under the ids {step.id + place} and {identifier}",
                step.operation, reader.operation,
            )  # fmt: skip


def shown_by(operation: Operation) -> tuple[Entry, ...]:
    """Return the entries that an operation's answer shows."""
    if operation.outcome != "ok" or operation.result is None:
        return ()
    if operation.kind == "entries":
        return tuple(operation.result)
    return (operation.result,) if operation.kind == "update" else ()
