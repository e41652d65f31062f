"""Tells a search early that what it has begun can't be finished, by finishing an easier history instead.

Owns: the easier histories (``relaxed``, ``Skeleton``) and the searches over them. Must not know: how the search that
asks goes on. The checker puts it behind the search of a list for which the plain one took too long.

Where clears overlap much of a history, the plain search puts changes into the wrong life of the list (from one clear to
the next) and learns so only at the end, once for every order of what lies between. The easier history keeps adds and
clears, which decide about lives, and lets almost everything else only ask:

- Updates and deletes that may happen are left out. What such a delete could remove is gone for whoever needs that.
- An update asks whether there is such an entry. So does a delete, in the *skeleton*; in the *body* one answered with
  True deletes. A read asks whether the entries it shows are there, with the titles that adds gave them, and whether all
  others can be gone. Who only asks changes nothing and is taken as soon as the answer can be right, so the search tries
  no orders of these.
- In the skeleton ids are counted as well (``ids``).

Each order that finishes the real history finishes the easier one, without the steps that were left out: nothing is
asked that was not so, deadlines and each client's order are the same. So where the easier one can't be finished nothing
is lost by going back. It is searched like the real one, and whatever was found out about a configuration serves all
later questions. The body looks ahead by a skeleton as the list's own search does by the body: abstractions as in the
pattern databases of Culberson and Schaeffer (Comp. Intelligence 1998), filled when they are asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from checking.history import Operation
from checking.ids import have_room
from checking.lives import narrowed
from checking.search import Choice, Configuration, Memory, Search
from checking.steps import UNSEEN, Chain, Effect, Fields, State, Step, chains_of

CLEARS = ("clear", "drop")


class Skeleton(State):
    """The to-do list as the easier history has it: entries as they were added, and what may be gone."""

    __slots__ = ("_added_once", "_deletes", "_given_from", "_removers")

    def __init__(self, steps: Sequence[Step], removers: Sequence[Step], *, deletes: bool) -> None:
        """Begin with an empty list.

        Args:
            steps: of the history, those as well that the easier one leaves out.
            removers: deletes that may remove an entry at any time from their start on.
            deletes: whether a delete that was answered True deletes.
        """
        super().__init__()
        self._deletes = deletes
        self._removers: defaultdict[int | None, list[Step]] = defaultdict(list)
        for step in removers:
            self._removers[step.id].append(step)
        given = Counter(title for step in steps for title in step.titles)
        changed = {step.changes.get("title") for step in steps}
        self._added_once = {title for title, times in given.items() if times == 1} - changed - {UNSEEN}
        self._given_from = {title: step.start for step in steps for title in step.titles if title in self._added_once}

    def changes(self, step: Step) -> bool:
        """Return whether a step does what it did, and does not only ask."""
        return bool(step.titles) or step.kind in CLEARS or (self._deletes and step.kind == "delete" and not step.idle)

    def effect(self, step: Step) -> Effect | None:
        """Return what a step would do now; None where its answer can't have been right."""
        if self.changes(step):
            return super().effect(step)
        return (self.next_id, (), False) if self._may_answer(step) else None

    def may_be_gone(self, identifier: int, observer: Step) -> bool:
        """Return whether something that is not followed may have removed an entry before a step."""
        current = self.entries.get(identifier)
        given_from = self._given_from.get(current[0], 0) if current is not None else 0
        return any(
            remover.start <= observer.end and min(remover.end, remover.latest) >= given_from
            for remover in self._removers.get(identifier, ())
            if remover is not observer
        )

    def _may_answer(self, step: Step) -> bool:
        if step.kind == "entries":
            return self._may_show(step)
        if step.kind == "size":
            least = sum(not self.may_be_gone(each, step) for each in self.entries)
            return bool(least <= step.result <= len(self.entries))
        if step.id is None:
            return True  # it adds nothing
        current = self.entries.get(step.id)
        if step.stated and not step.result:
            return current is None or self.may_be_gone(step.id, step)
        if current is None:
            return False
        kept = step.kind == "update" and step.stated and "title" not in step.changes
        return not kept or self._may_be_titled(current, step.result[1])

    def _may_show(self, read: Step) -> bool:
        for identifier, fields in read.entries.items():
            current = self.entries.get(identifier)
            if current is None or not self._may_be_titled(current, fields[0]):
                return False
        hidden = self.entries.keys() - read.entries.keys()
        return all(self.may_be_gone(identifier, read) for identifier in hidden)

    def _may_be_titled(self, current: Fields, title: str) -> bool:
        return current[0] == title or title not in self._added_once


class Lookahead(Search):
    """A search over an easier history that follows another search and says whether it can still come to an end."""

    state: Skeleton

    def __init__(
        self, history: Sequence[Operation], bound: int, *, deletes: bool, ahead: Lookahead | None = None
    ) -> None:
        """Make the easier history.

        Args:
            history: of one list.
            bound: steps that may be tried in all; what is asked afterwards is answered with True.
            deletes: whether a delete that was answered True deletes (the body), or only asks (the skeleton).
            ahead: what this search looks ahead by.
        """
        told = narrowed(chains_of(history))
        steps = [step for chain in told for step in chain.steps]
        removers = [step for step in steps if step.kind == "delete" and not step.idle and not (deletes and step.must)]
        chains = relaxed(told)
        super().__init__(chains, ahead)
        self.state = Skeleton(steps, removers, deletes=deletes)
        for step in steps:
            step.idle = step.must and not self.state.changes(step)
        self._find_groups()
        self._left_to_try = bound
        self._failed = Memory()
        self._finished = Memory()
        self._followed_from: list[int] = []
        self._own = {
            (step.operation.client, step.operation.sequence): (number, place, step)
            for number, chain in enumerate(chains)
            for place, step in enumerate(chain.steps)
        }

    def follow(self, step: Step, effect: Effect) -> None:
        """Take what the search that is followed takes."""
        self._followed_from.append(len(self._taken))
        own = self._own.get((step.operation.client, step.operation.sequence))
        if own is not None:
            self._take((*own, effect if self.state.changes(own[2]) else (self.state.next_id, (), False)))
            self._early = ()  # why it is not too early may not show here
        if self._ahead is not None:
            self._ahead.follow(step, effect)

    def go_back(self) -> None:
        """Undo what was followed last."""
        if len(self._taken) > self._followed_from.pop():
            self._undo()
        if self._ahead is not None:
            self._ahead.go_back()

    def can_finish(self) -> bool:
        """Return False only where no order of what is left finishes the easier history from here."""
        depth = len(self._taken)
        behind: list[tuple[Iterator[Choice], Configuration | None]] = []
        choices, key = self._choices(self._failed)
        while self.left and (key is None or not self._finished.has_less(key)):
            if not self._left_to_try:
                self._retreat_to(depth)
                return True
            choice = next(choices, None)
            if choice is not None:
                self._left_to_try -= 1
                self._advance(choice)
                behind.append((choices, key))
                choices, key = self._choices(self._failed)
                continue
            if key is not None:
                self._failed.add_most(key)
            if not behind:
                return False
            choices, key = behind.pop()
            self._retreat()
        for _, key in behind:
            if key is not None:
                self._finished.add_least(key)
        self._retreat_to(depth)
        return True

    def _retreat_to(self, depth: int) -> None:
        while len(self._taken) > depth:
            self._retreat()

    def _is_hopeless(self, key: Configuration) -> bool:
        if self._finished.has_less(key):
            return False
        return super()._is_hopeless(key) if self._ahead is not None else not self._have_ids_room()

    def _have_ids_room(self) -> bool:
        wanted: Counter[int] = Counter()
        spare = clears = 0
        for chain, place in zip(self.chains, self.place):
            for step in chain.steps[place:]:
                if step.latest < self.latest_start:
                    continue
                if step.kind in CLEARS:
                    clears += 1
                elif step.titles and step.id is None:
                    spare += len(step.titles)
                elif step.titles and step.id is not None:
                    wanted.update(range(step.id, step.id + len(step.titles)))
        counts = [wanted[identifier] for identifier in range(max(wanted, default=0) + 1)]
        return have_room(self.state.next_id, counts, spare, clears)

    def _may_be_removed(self, identifier: int, read: Step) -> bool:
        return self.state.may_be_gone(identifier, read) or super()._may_be_removed(identifier, read)


def relaxed(chains: Sequence[Chain]) -> list[Chain]:
    """Return the chains without the updates and deletes that may happen."""
    kept = [[step for step in chain.steps if _is_kept(step)] for chain in chains]
    result = []
    for chain, steps in zip(chains, kept):
        main, place = chain.after or (0, 0)
        behind = sum(map(_is_kept, chains[main].steps[:place]))
        result.append(Chain(steps, (main, behind) if chain.after else None))
    return result


def _is_kept(step: Step) -> bool:
    return step.must or bool(step.titles) or step.kind in CLEARS
