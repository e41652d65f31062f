"""Says which steps stand in one life of the list, and narrows the times in which they can take place.

Owns: what follows from lives before anything is tried. Must not know: how an order is found. The checker talks to it.

A list has one life until the first clear, and one more behind each. These steps make up one *group*, in one life:

- Who shows a title or date that one step alone gave, and who gave it.
- A read, and the delete of an id below the highest that it shows, if it does not show that id and no other delete can
  have removed the entry: ids are given from 1 on, none left out, so an entry was there.
- Whoever shares a step with these.

Two groups that give the same id otherwise stand in different lives, and a clear stands between lives, so it is treated
as a group of its own, apart from all others. Where two groups are apart and one step of the first must come before one
of the second, all of the first must come before all of the second.

Every order that explains the history keeps to the times and groups found, so none is lost. It is the propagation of
disjunctive constraints known from scheduling (Carlier and Pinson, Management Science 1989). The search keeps a group
together (``Search._breaks_a_group``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from checking.steps import Chain, Step


def narrowed(chains: Sequence[Chain]) -> list[Chain]:
    """Return the chains with the times of their steps narrowed, and with each step's ``group`` if it has others in it.

    Args:
        chains: of one list's history; their steps are changed.
    """
    _Lives(chains).narrow()
    clients = [Chain(chain.steps) for chain in chains if chain.after is None]
    resent = [Chain(chain.steps, chain.after) for chain in chains if chain.after is not None]
    resent.sort(key=lambda chain: chain.steps[0].start)
    return clients + resent


class _Lives:
    """The steps that must happen, by number; sets of them are bits of an int."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self.chains = chains
        self.steps = [step for chain in chains for step in chain.steps if step.must]
        self.number = {id(step): number for number, step in enumerate(self.steps)}
        self.earlier = [0] * len(self.steps)
        """Of each step, those that must come before it."""
        self.deletes: defaultdict[int | None, list[Step]] = defaultdict(list)
        for step in (step for chain in chains for step in chain.steps):
            if step.kind == "delete" and not step.idle:
                self.deletes[step.id].append(step)
        self._note_senders()
        self.groups = self._groups()
        self.apart = [pair for pair in combinations(self.groups, 2) if are_apart(*pair)]

    def narrow(self) -> None:
        """Narrow the steps' times and enlarge groups until nothing more follows."""
        changed = True
        while changed:
            self._close()
            self._narrow_steps()
            changed = self._part() | self._place_deletes()

    def _note_senders(self) -> None:
        for chain in self.chains:
            main, place = chain.after or (0, 0)
            sent = [step for step in self.chains[main].steps[:place] if step.must]
            sent += [step for step in chain.steps if step.must]
            for first, second in pairwise(sent):
                self._note(first, second)

    def _note(self, first: Step, second: Step) -> None:
        self.earlier[self.number[id(second)]] |= 1 << self.number[id(first)]

    def _groups(self) -> list[list[Step]]:
        givers = {value: step for chain in self.chains for step in chain.steps for value in values_given(step)}
        root = list(range(len(self.steps)))

        def root_of(number: int) -> int:
            while root[number] != number:
                root[number] = root[root[number]]
                number = root[number]
            return number

        for number, step in enumerate(self.steps):
            for value in step.shows:
                giver = givers.get(value)
                if giver is not None and giver.must:
                    self._note(giver, step)
                    root[root_of(number)] = root_of(self.number[id(giver)])
        members: defaultdict[int, list[Step]] = defaultdict(list)
        for number, step in enumerate(self.steps):
            members[root_of(number)].append(step)
        for number, group in members.items():
            if len(group) > 1:
                self._note_ids(group)
                for step in group:
                    step.group = number
        return [group for group in members.values() if is_clear(group) or any(step.ids for step in group)]

    def _note_ids(self, group: list[Step]) -> None:
        adds = sorted((step for step in group if step.ids), key=lambda add: add.ids.start)
        for first, second in pairwise(adds):
            self._note(first, second)
        for read in group:
            if read.kind == "entries":
                for add in adds:
                    if any(each not in read.entries and each not in self.deletes for each in add.ids):
                        self._note(read, add)

    def _close(self) -> None:
        changed = True
        while changed:
            changed = False
            for number, earlier in enumerate(self.earlier):
                all_earlier = earlier
                for each in bits_of(earlier):
                    all_earlier |= self.earlier[each]
                if all_earlier != earlier:
                    self.earlier[number] = all_earlier
                    changed = True

    def _narrow_steps(self) -> None:
        for step, earlier in zip(self.steps, self.earlier):
            for each in bits_of(earlier):
                first = self.steps[each]
                step.start = max(step.start, first.start)
        for step, earlier in zip(self.steps, self.earlier):
            for each in bits_of(earlier):
                first = self.steps[each]
                first.end = min(first.end, step.end)

    def _part(self) -> bool:
        """Put groups that are apart one before the other where that is known; return whether anything was new."""
        changed = False
        for pair in self.apart:
            for first, second in (pair, pair[::-1]):
                if self._must_precede(first, second):
                    before = sum(1 << self.number[id(step)] for step in first)
                    for step in second:
                        number = self.number[id(step)]
                        changed = changed or bool(before & ~self.earlier[number])
                        self.earlier[number] |= before
        return changed

    def _place_deletes(self) -> bool:
        """Put deletes into the groups that have lost an entry which no other delete can have removed.

        A read that shows an id shows every lower one as well, but for what was deleted in the same life.
        """
        changed = False
        for group in self.groups:
            for read in [step for step in group if step.kind == "entries"]:
                for identifier in range(1, max(read.entries)):
                    if identifier not in read.entries:
                        changed |= self._place_delete(group, identifier, read)
        return changed

    def _place_delete(self, group: list[Step], identifier: int, read: Step) -> bool:
        earlier = [step for step in group if is_before_loss(step, identifier)]
        fitting = [
            delete
            for delete in self.deletes[identifier]
            if self._may_follow(read, delete) and all(self._may_follow(delete, step) for step in earlier)
        ]
        if len(fitting) != 1 or not fitting[0].must or fitting[0].group is not None:
            return False
        delete = fitting[0]
        delete.group = read.group
        group.append(delete)
        for step in earlier:
            self._note(step, delete)
        self._note(delete, read)
        return True

    def _may_follow(self, step: Step, first: Step) -> bool:
        """Return whether a step may come behind another."""
        if first.start > min(step.end, step.latest):
            return False
        return not (step.must and first.must and self._is_earlier(step, first))

    def _is_earlier(self, first: Step, second: Step) -> bool:
        return bool(self.earlier[self.number[id(second)]] >> self.number[id(first)] & 1)

    def _must_precede(self, first: list[Step], second: list[Step]) -> bool:
        if min(step.end for step in first) < max(step.start for step in second):
            return True
        before = sum(1 << self.number[id(step)] for step in first)
        return any(self.earlier[self.number[id(step)]] & before for step in second)


def is_clear(group: list[Step]) -> bool:
    """Return whether a group is a clear."""
    return group[0].kind in ("clear", "drop")


def are_apart(one: list[Step], other: list[Step]) -> bool:
    """Return whether two groups can't stand in one life."""
    if is_clear(one) or is_clear(other):
        return is_clear(one) != is_clear(other)
    given = Counter(each for group in (one, other) for step in group for each in step.ids)
    return max(given.values()) > 1


def is_before_loss(step: Step, identifier: int) -> bool:
    """Return whether a step comes before an entry is gone, in a life in which it goes: there its id is given once."""
    if step.titles:
        return step.id is not None and step.id <= identifier
    return identifier in step.entries or (step.kind == "update" and step.id == identifier)


def values_given(step: Step) -> list[str]:
    """Return the titles and dates that a step gives."""
    return [*step.titles, *(step.changes[field] for field in ("title", "date") if step.changes.get(field) is not None)]


def bits_of(numbers: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set."""
    while numbers:
        lowest = numbers & -numbers
        yield lowest.bit_length() - 1
        numbers ^= lowest
