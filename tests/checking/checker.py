"""Judges a recorded history, list by list.

Owns: what counts as passed. Must not know: how histories are recorded. Simulation and torture talk to it.

Every list is judged for itself: linearizability is local (Herlihy and Wing), a history is good where each list's is.
A list passes only when an order of effects was found that gives every answer; a list for which the search reached its
bound is *undecided*, which is not passing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from checking.history import Operation
from checking.laws import Breaches, Violation
from checking.lives import narrowed
from checking.lookahead import Lookahead
from checking.search import DeadEnd, Search, Verdict
from checking.steps import Impossible, chains_of

BOUND = 300_000
"""Steps that the search of one list tries before it gives up, beyond a few for each of its operations."""

AHEAD = 2
"""How many times as many steps each lookahead may try, all questions together."""


class Report(NamedTuple):
    """The judgement on a history."""

    lists: int
    operations: int
    violations: tuple[Violation, ...]
    undecided: tuple[Violation, ...]
    """Lists about which nothing is known, with what to look at."""

    @property
    def passed(self) -> bool:
        """Whether every list's history was explained."""
        return not self.violations and not self.undecided

    def __str__(self) -> str:
        lines = [f"{self.operations} operations on {self.lists} lists: " + ("good" if self.passed else "NOT PASSED")]
        lines += [f"VIOLATION {violation}" for violation in self.violations]
        lines += [f"UNDECIDED {undecided}" for undecided in self.undecided]
        return "\n".join(lines)


def check(operations: Iterable[Operation], bound: int = BOUND) -> Report:
    """Judge a history.

    Args:
        operations: in any order; of a client and a list no two with the same sequence.
        bound: steps to try for each list before it is called undecided.

    Raises:
        ValueError: the history is not a record: a request stands in it twice, an answer before its question.
    """
    lists: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.outcome == "ok" and operation.end < operation.start:
            raise ValueError(f"answered before it was sent: {operation}")
        lists[operation.list].append(operation)
    violations: list[Violation] = []
    undecided: list[Violation] = []
    for history in lists.values():
        verdict, found = check_list(history, bound)
        if verdict is Verdict.IMPOSSIBLE:
            violations += found
        elif verdict is Verdict.UNDECIDED:
            undecided += found
    return Report(len(lists), sum(map(len, lists.values())), tuple(violations), tuple(undecided))


def check_list(history: list[Operation], bound: int = BOUND) -> tuple[Verdict, list[Violation]]:
    """Judge the history of one list; what is wrong with it comes with the verdict."""
    try:
        search = Search(chains_of(history))
        verdict = search.run(4 * len(history) + 1000)
        if verdict is Verdict.EXPLAINED:
            return verdict, []
        named = Breaches(history).all()
        if named:
            return Verdict.IMPOSSIBLE, named
        if verdict is Verdict.UNDECIDED:
            skeleton = Lookahead(history, AHEAD * bound, deletes=False)
            body = Lookahead(history, AHEAD * bound, deletes=True, ahead=skeleton)
            search = Search(narrowed(chains_of(history)), body)
            verdict = search.run(4 * len(history) + bound)
    except Impossible as impossible:
        return Verdict.IMPOSSIBLE, [Violation(history[0].list, impossible.sentence, impossible.operations)]
    if verdict is Verdict.EXPLAINED:
        return verdict, []
    return verdict, [_told_of(search.dead_end, history[0].list, verdict)]


def _told_of(dead_end: DeadEnd, name: str, verdict: Verdict) -> Violation:
    if verdict is Verdict.IMPOSSIBLE:
        found = "no order of effects gives all these answers"
    else:
        found = "the search reached its bound, so nothing is known; at least the last look found no order"
    shown = ", ".join(f"{each}: {fields}" for each, fields in sorted(dead_end.entries.items())[-10:])
    return Violation(
        name,
        f"{found}. The longest attempt explains {dead_end.taken} operations; the list then holds "
        f"{len(dead_end.entries)} entries (the last: {shown or 'none'}), its next id is {dead_end.next_id}, "
        "and none of these could be next, while the first must",
        tuple(step.operation for step in dead_end.stuck[:8]),
    )
