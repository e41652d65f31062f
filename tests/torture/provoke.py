"""What is tried at the end of a run, while clients still ask: some things that faults at random hardly bring about.

Owns: which provocations there are, that each begins on a stack that has settled, how long one request of them may take.
Must not know: how any of them works. The simulation does the same at its end (``topology/trials.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from stacks import RunningStack

from todomq import Client
from todomq.errors import TodoMQError
from torture import numbers, owners, troubles
from torture.stage import Stage

Provocation = Callable[[Stage], Iterator[str]]

PROVOCATIONS: dict[str, Provocation] = {
    each.__name__: each
    for each in (
        owners.promised, owners.reloaded, owners.woken, owners.handed_over, owners.claimed,
        numbers.late, numbers.repeated, numbers.retried, numbers.early, numbers.storm,
        troubles.stalled, troubles.damaged, troubles.crashed, troubles.flooded, troubles.swamped,
        troubles.bad_in_part, troubles.garbage, troubles.hung,
        troubles.orphaned,
    )
}  # fmt: skip

CUT_SHORT = "it could not go on: "
DEADLINE_S = 15.0
"""What is only slow is no finding."""


class Provoked(NamedTuple):
    """What came of one provocation."""

    name: str
    took_s: float
    problems: list[str]


def provoke(
    stack: RunningStack, random: Random, say: Callable[[str], None], names: Sequence[str]
) -> list[Provoked]:
    """Try each of these provocations, in any order, up to the first that finds something."""
    done: list[Provoked] = []
    with Client(stack.endpoint, DEADLINE_S) as todo:
        stage = Stage(stack, todo, random)
        for name in random.sample(list(names), len(names)):
            since = time.monotonic()
            problems = _problems(stage, PROVOCATIONS[name])
            done.append(Provoked(name, time.monotonic() - since, problems))
            say(f"provoked {name} in {done[-1].took_s:.1f} s: {problems[:3] or 'nothing found'}")
            if problems:
                break
    return done


def _problems(stage: Stage, provocation: Provocation) -> list[str]:
    """Return what a provocation finds; what it cannot go on with is one of them."""
    found: list[str] = []
    try:
        stage.settle()
        found += provocation(stage)
    except (TodoMQError, TimeoutError) as error:
        found.append(f"{CUT_SHORT}{type(error).__name__}: {error}")
    return found
