"""Looks for an order of effects that explains every answer of one list's history.

Owns: the search and its bound. Must not know: where the history comes from, how a verdict is said to a person.
The checker talks to it, with chains from ``steps``.

Linearizability is Herlihy and Wing's (TOPLAS 1990); the search is Wing and Gong's (J. Par. Distr. Comp. 1993) with the
memory of failed configurations of Lowe (Conc. Comp. 2017): take a step that nothing left must come before, whose answer
is right now; go back where there is none. What keeps it near linear here:

- A step that changes nothing and is right now is taken at once: no order is lost by it, but where an unknown change
  would be passed over by it or miss its deadline; there it is one choice among others.
- Ids say which add comes next, and an unknown change whose title was seen counts as one that happened.
- A change that may happen is taken as late as possible: only before a step that it makes a difference to, or that it
  can't follow. Of several that do the same the one that must be soonest is tried, where that gives up nothing.
- A title or date that was given once and is gone from the list can't be shown again: while some answer still to come
  shows it, nothing that removes it is taken.
- Of the others the first tried is one that no open read or change speaks against: a read that shows entry 5 speaks
  against deleting it before. Unknown changes are tried where an open answer speaks for them, before what is spoken
  against. This is the order of trying only: where it misleads, the search goes back and tries the rest.
- What is known of a configuration holds for those in which less may happen (``Memory``), and a search that has begun to
  go back and forth can be given somebody to ask whether there is an end at all (``Ahead``; see ``lookahead``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple, Protocol

from checking.history import READS
from checking.steps import FOREVER, Chain, Effect, Fields, State, Step, updated

Choice = tuple[int, int, Step, Effect]
"""The chain, the place in it, the step there and what it does."""

Configuration = tuple[tuple[Any, ...], int]
"""Where a search is, but for the changes that may still happen; these, one bit each."""


class Verdict(Enum):
    """What a search found out."""

    EXPLAINED = "there is an order"
    IMPOSSIBLE = "there is none"
    UNDECIDED = "the bound was reached first"


class DeadEnd(NamedTuple):
    """How far the longest attempt came: steps taken, those that could not follow, and the list there."""

    taken: int
    stuck: list[Step]
    entries: dict[int, Fields]
    next_id: int


class Memory:
    """Configurations of which something is known: that they can be finished, or that they can't.

    Of two that agree but for what may happen, the one in which more may can do all that the other can. So what can't be
    finished is not either where less may happen, and what can be is also where more may.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], list[int]] = {}

    def has_more(self, configuration: Configuration) -> bool:
        """Return whether one is known in which at least as much may happen."""
        key, ahead = configuration
        return any(not ahead & ~known for known in self._known.get(key, ()))

    def has_less(self, configuration: Configuration) -> bool:
        """Return whether one is known in which at most as much may happen."""
        key, ahead = configuration
        return any(not known & ~ahead for known in self._known.get(key, ()))

    def add_most(self, configuration: Configuration) -> None:
        """Keep one, and not those in which less may happen."""
        key, ahead = configuration
        self._known[key] = [known for known in self._known.get(key, ()) if known & ~ahead] + [ahead]

    def add_least(self, configuration: Configuration) -> None:
        """Keep one, and not those in which more may happen."""
        key, ahead = configuration
        self._known[key] = [known for known in self._known.get(key, ()) if ahead & ~known] + [ahead]


class Ahead(Protocol):
    """Who sees further than a search."""

    def follow(self, step: Step, effect: Effect) -> None:
        """Note what the search takes."""

    def go_back(self) -> None:
        """Undo what was noted last."""

    def can_finish(self) -> bool:
        """Return False only where nothing can come of what was taken."""


class Search:
    """One search over one list's history."""

    def __init__(self, chains: list[Chain], ahead: Ahead | None = None) -> None:
        """Begin before the first step.

        Args:
            chains: of the list's history, not used by another search.
            ahead: follows this search and is asked wherever there are several ways to go on.
        """
        self.chains = chains
        self.clients = sum(chain.after is None for chain in chains)
        self.place = [0] * len(chains)
        self.state = State()
        self.left = sum(step.must for chain in chains for step in chain.steps)
        self.latest_start = 0
        self.dead_end = DeadEnd(-1, [], {}, 1)
        self._to_show = Counter(value for chain in chains for step in chain.steps for value in step.shows)
        self._first_resent = self.clients  # resent reads before this one are all taken
        self._taken: list[tuple[Any, ...]] = []
        self._ahead = ahead
        self._early: tuple[Choice, ...] = ()
        steps = [step for chain in chains for step in chain.steps]
        possible = sorted((step for step in steps if not step.must), key=lambda step: step.latest)
        self._deadlines = [step.latest for step in possible if step.latest < FOREVER]
        bits = {id(step): 1 << number for number, step in enumerate(possible)}
        self._late = [(1 << passed) - 1 for passed in range(len(self._deadlines) + 1)]
        """The changes that may happen no more, by how many deadlines have passed."""
        self._open_from = [open_from(chain, bits) for chain in chains]
        self._clears = [step for step in steps if step.kind in ("clear", "drop")]
        self._adds = [step for step in steps if step.titles and step.id is not None]
        self._adds.sort(key=lambda add: add.start)
        self._followed: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        """Of each chain the reads that were sent again, and the places in it behind which they come."""
        for number, chain in enumerate(chains):
            if chain.after is not None:
                self._followed[chain.after[0]].append((number, chain.after[1]))
        self._horizon = 0
        self._first_add = 0  # adds before this one are all taken
        self._deletes: defaultdict[int | None, list[Step]] = defaultdict(list)
        for step in steps:
            if step.kind == "delete" and not step.idle:
                self._deletes[step.id].append(step)
        self._reserved: dict[int, Step] = {}
        """Who must give which id in this life of the list: adds of groups of which it has a part and wants the rest."""
        self._groups: dict[int, list[Step]] = {}
        self._group_left: dict[int, int] = {}
        self._find_groups()

    def _find_groups(self) -> None:
        """Note the groups of steps that change something; who only asks has nothing to be followed by."""
        groups: defaultdict[int, list[Step]] = defaultdict(list)
        for chain in self.chains:
            for step in chain.steps:
                if step.group is not None and step.must and not step.idle:
                    groups[step.group].append(step)
        self._groups = {number: steps for number, steps in groups.items() if len(steps) > 1}
        self._group_left = {number: len(steps) for number, steps in self._groups.items()}

    def run(self, bound: int) -> Verdict:
        """Search until an order is found, there is none, or ``bound`` steps were tried. To be called once."""
        failed = Memory()
        behind: list[tuple[Iterator[Choice], Configuration | None]] = []
        if not self.left:
            return Verdict.EXPLAINED
        choices, key = self._choices(failed)
        for _ in range(bound):
            choice = next(choices, None)
            while choice is None:
                if key is not None:
                    failed.add_most(key)
                if not behind:
                    return Verdict.IMPOSSIBLE
                choices, key = behind.pop()
                self._retreat()
                choice = next(choices, None)
            self._advance(choice)
            if not self.left:
                return Verdict.EXPLAINED
            behind.append((choices, key))
            choices, key = self._choices(failed)
        return Verdict.UNDECIDED

    def order(self) -> list[Step]:
        """Return the steps in the order of effect that was found."""
        return [taken[0] for taken in self._taken]

    def _advance(self, choice: Choice) -> None:
        self._take(choice)
        if self._ahead is not None:
            self._ahead.follow(choice[2], choice[3])

    def _retreat(self) -> None:
        self._undo()
        if self._ahead is not None:
            self._ahead.go_back()

    def _take(self, choice: Choice) -> None:
        number, place, step, effect = choice
        after = self.chains[number].after
        main, main_place = (after[0], self.place[after[0]]) if after else (number, self.place[number])
        undo = self.state.take(effect)
        step.taken = True
        if step.group in self._groups and not step.idle:
            self._take_of_group(step.group, -1)
        for value in step.shows:
            self._to_show[value] -= 1
        self._taken.append((step, number, self.place[number], main, main_place, self.latest_start, undo, self._early))
        self._early = () if step.must else (*(each for each in self._early if self._could_wait(each, choice)), choice)
        self.place[number] = place + 1
        if after:
            self.place[main] = max(main_place, after[1])
        self.latest_start = max(self.latest_start, step.start)
        self.left -= step.must

    def _undo(self) -> None:
        step, number, place, main, main_place, self.latest_start, undo, self._early = self._taken.pop()
        self.state.undo(undo)
        step.taken = False
        if step.group in self._groups and not step.idle:
            self._take_of_group(step.group, 1)
        if step.titles:
            self._first_add = min(self._first_add, bisect_left(self._adds, step.start, key=lambda add: add.start))
        for value in step.shows:
            self._to_show[value] += 1
        self.place[main] = main_place
        self.place[number] = place
        self.left += step.must
        if self.clients <= number < self._first_resent:
            self._first_resent = number

    def _take_of_group(self, group: int, more: int) -> None:
        """Note that one step less is left of a group, or one more again."""
        self._group_left[group] += more
        if 0 < self._group_left[group] < len(self._groups[group]):
            self._reserved.update((each, step) for step in self._groups[group] for each in step.ids)
        else:
            for step in self._groups[group]:
                for each in step.ids:
                    self._reserved.pop(each, None)

    def _choices(self, failed: Memory) -> tuple[Iterator[Choice], Configuration | None]:
        """Return the steps that can come next, likeliest first, and this configuration's key if there are several."""
        horizon, opened = self._opened()
        self._horizon = horizon
        certain: list[Choice] = []
        possible: list[Choice] = []
        for number in opened:
            chain = self.chains[number]
            place = self.place[number]
            must = chain.next_must[place]
            if must < len(chain.steps):
                step = chain.steps[must]
                if step.start <= horizon and (effect := self._effect_of(number, must, step)) is not None:
                    if step.idle and must == self._reached(chain, place) and not self._misses_a_deadline(step):
                        return iter(((number, must, step, effect),)), None
                    certain.append((number, must, step, effect))
            for other in chain.alternatives[place]:
                possible.extend(self._possible(number, chain, other, horizon))
        if not certain and not possible:
            self._note_dead_end(opened, horizon)
            return iter(()), None
        if self._early:
            certain = [choice for choice in certain if not self._shows_haste(choice)]
            possible = [choice for choice in possible if not self._shows_haste(choice)]
        if len(certain) + len(possible) == 1:
            return iter(certain or possible), None
        observers = self._observers(opened)
        certain = [choice for choice in certain if not self._overtakes(choice, observers)]
        possible = [choice for choice in possible if not self._overtakes(choice, observers)]
        possible = self._without_doubles(possible)
        key = self._configuration()
        if failed.has_more(key):
            return iter(()), None
        if self._is_hopeless(key):
            failed.add_most(key)
            return iter(()), None
        return self._by_promise(certain, possible, observers), key

    def _configuration(self) -> Configuration:
        """Return where this search is: what lies ahead that must happen, the list, and what may happen.

        The moment of the latest start only says which changes may happen no more.
        """
        ahead = 0
        places = []
        for chain, place, open_from in zip(self.chains, self.place, self._open_from):
            places.append(chain.next_must[place])
            ahead |= open_from[place]
        ahead &= ~self._late[bisect_left(self._deadlines, self.latest_start)]
        early = frozenset((number, place) for number, place, _, _ in self._early)
        # Where some may have to wait, less is tried, and how much says nothing about other configurations.
        return (*places, self.state.next_id, self.state.mark, early, ahead if early else 0), ahead

    def _is_hopeless(self, key: Configuration) -> bool:
        """Return whether nothing can come of this configuration; not asked where little can follow anyway."""
        return self._ahead is not None and not self._early and not self._ahead.can_finish()

    def _shows_haste(self, choice: Choice) -> bool:
        """Return whether a change that may happen and was taken since the last step that must should have waited.

        It should where it could change places with all from there up to the next step that must; before a clear it need
        not happen at all. No order is lost by it: of those that explain the history take one with the fewest changes
        that may happen, and among these one in which their places add up to the most. It shows no haste, for else there
        would be a better one. Nor does what the search does besides lead away from the best: a step that changes
        nothing is taken earlier, which moves others back if any, and a double stands where the other stood.
        """
        _, _, step, effect = choice
        return effect[2] or (step.must and any(self._could_wait(early, choice) for early in self._early))

    def _could_wait(self, early: Choice, choice: Choice) -> bool:
        """Return whether a change could as well take place behind the step that follows it."""
        number, _, change, (_, changed, clears) = early
        other, _, step, _ = choice
        after = self.chains[other].after
        if clears or number == other or (after is not None and after[0] == number) or change.latest < step.start:
            return False
        if step.kind in READS:
            return change.kind == "update" and step.kind == "size"
        if step.id is None or step.titles:
            return bool(step.titles) and not change.titles
        return all(identifier != step.id for identifier, _ in changed)

    def _without_doubles(self, possible: list[Choice]) -> list[Choice]:
        """Leave out a change that may happen where one that does the same and must happen sooner, if at all, may too.

        What is left out stands alone in its chain, so it can be taken wherever the other one would have been: that is
        before the other's deadline, and before the end of the next step that must happen in the other's chain. The
        other one passes over no third change, and was sent no later, or makes none miss its deadline.
        """
        kept: list[Choice] = []
        sooner: defaultdict[tuple[Any, ...], list[Step]] = defaultdict(list)
        for choice in sorted(possible, key=self._last_moment):
            number, place, step, _ = choice
            key = step.effect_key()
            if (
                len(self.chains[number].steps) == 1
                and number not in self._followed
                and any(other.start <= step.start or not self._misses_a_deadline(other) for other in sooner[key])
            ):
                continue
            kept.append(choice)
            if self.chains[number].behind_late(self.place[number], self.latest_start) == place:
                sooner[key].append(step)
        return kept

    def _last_moment(self, choice: Choice) -> int:
        number, place, step, _ = choice
        return min(step.latest, self.chains[number].least_end[place])

    def _misses_a_deadline(self, step: Step) -> bool:
        """Return whether a change that may happen now could happen no more behind this step."""
        at = bisect_left(self._deadlines, self.latest_start)
        if at == len(self._deadlines) or self._deadlines[at] >= step.start:
            return False
        return any(
            not other.must and self.latest_start <= other.latest < step.start
            for chain, place in zip(self.chains, self.place)
            for other in chain.steps[place:]
        )

    def _effect_of(self, number: int, place: int, step: Step) -> Effect | None:
        """Return what a step would do now; None where it can't be next, or a read sent before it was sent again."""
        reads = () if step.idle else self._followed.get(number, ())
        if any(not self.place[read] and behind <= place for read, behind in reads):
            return None
        return self._effect(step)

    def _effect(self, step: Step) -> Effect | None:
        """Return what a step would do now; None where it can't be next."""
        effect = self.state.effect(step)
        if effect is None or not (effect[1] or effect[2]):
            return effect
        if self._breaks_a_group(step, effect):
            return None
        entries = self.state.entries
        if step.beside is not None and entries.get(step.beside[0], ("",))[0] != step.beside[1]:
            return None
        _, changed, clears = effect
        if clears:
            lost = [value for fields in entries.values() for value in (fields[0], fields[2])]
        else:
            lost = []
            for identifier, after in changed:
                current = entries.get(identifier)
                if current is not None:
                    lost += [value for value in (current[0], current[2]) if after is None or value not in after]
        return None if any(self._to_show[value] for value in lost if value) else effect

    def _breaks_a_group(self, step: Step, effect: Effect) -> bool:
        """Return whether steps that belong into one life of the list could not all be taken in this one any more."""
        next_id, _, clears = effect
        if clears:
            return bool(self._reserved)
        for each in range(self.state.next_id, next_id):
            if self._reserved.get(each, step) is not step:
                return True
        if step.group not in self._groups or self._group_left[step.group] < len(self._groups[step.group]):
            return False
        return any(
            each < next_id or each in self._reserved
            for other in self._groups[step.group]
            if other is not step
            for each in other.ids
        )

    def _overtakes(self, choice: Choice, observers: list[Step]) -> bool:
        """Return whether an add would leave a read behind that does not show it, and nothing can remove it before."""
        _, _, step, (_, changed, _) = choice
        if not step.titles:
            return False
        for read in observers:
            if read.kind != "entries":
                continue
            for identifier, fields in changed:
                if identifier in read.entries or self._may_be_removed(identifier, read):
                    continue
                if fields is not None and not self._may_clear_before(read):
                    return True
        return False

    def _may_be_removed(self, identifier: int, read: Step) -> bool:
        deletes = self._deletes.get(identifier, ())
        return any(not delete.taken and delete.start <= read.end for delete in deletes)

    def _may_clear_before(self, read: Step) -> bool:
        for identifier, fields in read.entries.items():
            if fields[0] in read.shows and self.state.entries.get(identifier, ("",))[0] == fields[0]:
                return False  # it shows the list as it is now, and no title comes twice
            break
        return any(not clear.taken and clear.start <= read.end for clear in self._clears)

    def _reached(self, chain: Chain, place: int) -> int:
        """Return the place of the step that can be taken without giving up a change that may happen."""
        if chain.after is None:
            return chain.behind_late(place, self.latest_start)
        main, behind = chain.after
        return place if self.place[main] >= behind else -1

    def _opened(self) -> tuple[int, list[int]]:
        """Return the moment before which the next step must take effect, and the chains that may have it."""
        chains, places = self.chains, self.place
        horizon = min([chain.least_end[place] for chain, place in zip(chains[: self.clients], places)], default=0)
        while self._first_resent < len(chains) and places[self._first_resent]:
            self._first_resent += 1
        opened = []
        for number in range(self._first_resent, len(chains)):
            if chains[number].steps[0].start > horizon:
                break
            if not places[number]:
                horizon = min(horizon, chains[number].steps[0].end)
                main, behind = chains[number].after or (0, 0)
                if chains[main].next_must[places[main]] >= behind:
                    opened.append(number)
        opened.extend(number for number in range(self.clients) if places[number] < len(chains[number].steps))
        return horizon, opened

    def _possible(self, number: int, chain: Chain, place: int, horizon: int) -> Iterator[Choice]:
        """Yield the first step, from this one on and of its effect, that may happen now, if it would do anything."""
        while place < len(chain.steps) and chain.steps[place].start <= horizon:
            step = chain.steps[place]
            if step.latest >= self.latest_start:
                if (effect := self._effect_of(number, place, step)) is not None:
                    yield number, place, step, effect
                return
            place = chain.again[place]

    def _observers(self, opened: list[int]) -> list[Step]:
        """Return, of each client, the next step that must happen and the next read: what they show is still to come."""
        observers = []
        for number in opened:
            chain = self.chains[number]
            must = chain.next_must[self.place[number]]
            read = chain.next_read[self.place[number]]
            if must < len(chain.steps):
                observers.append(chain.steps[must])
            if read < len(chain.steps) and read != must:
                observers.append(chain.steps[read])
        return observers

    def _by_promise(self, certain: list[Choice], possible: list[Choice], observers: list[Step]) -> Iterator[Choice]:
        certain.sort(key=self._haste)
        spoken_against = []
        for choice in certain:
            score = self._score(choice, observers)
            if score[0]:
                spoken_against.append((score, choice))
            else:
                yield choice
        scored = [(self._score(choice, observers), choice) for choice in possible]
        for (against, favour), choice in scored:
            if favour and not against:
                yield choice
        spoken_against.sort(key=lambda scored: (scored[0][0] - scored[0][1], scored[1][2].end))
        yield from (choice for _, choice in spoken_against)
        for (against, favour), choice in scored:
            if against or not favour:
                yield choice

    def _haste(self, choice: Choice) -> tuple[bool, int]:
        """Return what sorts first the steps that give up nothing, then those whose end is near."""
        number, place, step, _ = choice
        return place > self._reached(self.chains[number], self.place[number]), step.end

    def _score(self, choice: Choice, observers: list[Step]) -> tuple[int, int]:
        """Return how many observers speak against this step before them, and how many for it."""
        _, _, step, effect = choice
        against, favour = self._score_by_ids(step, effect) if step.id is None else (0, 0)
        for observer in observers:
            if observer is step or observer.start > step.end:
                continue
            change = self._change_of_fit(observer, effect)
            if change < 0:
                against += 1
            elif change > 0:
                favour += 1
        return against, favour

    def _score_by_ids(self, step: Step, effect: Effect) -> tuple[int, int]:
        """Return how many open adds a clear or an add without a known id would put out of reach, and within."""
        before, after = self.state.next_id, effect[0]
        if before == after:
            return 0, 0
        while self._first_add < len(self._adds) and self._adds[self._first_add].taken:
            self._first_add += 1
        against = favour = 0
        for place in range(self._first_add, len(self._adds)):
            add = self._adds[place]
            if add.start > step.end or add.start > self._horizon:
                break
            if not add.taken and add.id is not None:
                against += before <= add.id and (after < before or add.id < after)
                favour += after <= add.id < before if after < before else add.id >= after
        return against, favour

    def _change_of_fit(self, observer: Step, effect: Effect) -> int:
        """Return whether an effect brings the list nearer to what an observer shows (> 0) or leads away (< 0)."""
        entries = self.state.entries
        _, changed, clears = effect
        if observer.kind == "size":
            now = len(entries)
            after = 0 if clears else now + sum((fields is not None) - (each in entries) for each, fields in changed)
            size: int = observer.result
            return abs(now - size) - abs(after - size)
        if observer.titles:
            return 0
        if clears:
            identifier = observer.id if observer.kind != "entries" else next(iter(observer.entries or entries), None)
            if identifier is None:
                return 0
            return fit(observer, identifier, None) - fit(observer, identifier, entries.get(identifier))
        return sum(fit(observer, each, fields) - fit(observer, each, entries.get(each)) for each, fields in changed)

    def _note_dead_end(self, opened: list[int], horizon: int) -> None:
        if len(self._taken) <= self.dead_end.taken:
            return
        stuck = []
        for number in opened:
            chain = self.chains[number]
            must = chain.next_must[self.place[number]]
            if must < len(chain.steps) and chain.steps[must].start <= horizon:
                stuck.append(chain.steps[must])
        stuck.sort(key=lambda step: step.end)
        self.dead_end = DeadEnd(len(self._taken), stuck, dict(self.state.entries), self.state.next_id)


def open_from(chain: Chain, bits: dict[int, int]) -> list[int]:
    """Return, for each place in a chain, the changes from there on that may happen."""
    following = [0]
    for step in reversed(chain.steps):
        following.append(following[-1] | bits.get(id(step), 0))
    return following[::-1]


def fit(observer: Step, identifier: int, fields: Fields | None) -> int:
    """Return how well an entry (None: no such entry) agrees with what a step shows: 0 not, 1 it is there, 2 equal."""
    if observer.kind == "entries":
        shown = observer.entries.get(identifier)
        return 2 if shown == fields else int(shown is not None and fields is not None)
    if observer.id != identifier or not observer.stated:
        return 1
    if observer.kind == "delete":
        return 2 if observer.result == (fields is not None) else 0
    if observer.kind != "update":
        return 1
    if observer.result is None or fields is None:
        return 2 if observer.result is fields else 0
    return 2 if observer.result[1:] == updated(fields, observer.changes) else 1
