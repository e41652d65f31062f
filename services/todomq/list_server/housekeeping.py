"""Rounds over all lists in memory: idle ones are dropped, old sessions forgotten, and all of them weighed (law 6).

Owns: when a round begins and how quickly it goes, what the lists take in memory against their budget. Must not know:
requests, what is read and written. Its hosting tells it the time, and how much came.
"""

from __future__ import annotations

from todomq.list_server.actor import QUARANTINED, ListActor
from todomq.list_server.partition import Partition
from todomq.list_server.weight import LIST_BYTES, weight

ROUND_MS = 120_000
"""How long one round over all lists is to take; a quarter of the idle time where that is less.

A visit costs some 2.5 us where many lists are cold, and makes others cold: in rounds of 30 s it took a tenth of a
processor with 500,000 lists.
"""
QUICK_ROUND_MS = 1_000
"""The same where the budget is reached, or seems to be."""
STEP_MS = 50
VISITS_LEAST, VISITS_MOST = 32, 4_000
"""Lists that one step visits. The maximum takes 10 ms, for which everybody waits; if it is not enough, a round takes
longer than it should."""
GROWTH = 3
"""What a byte written or loaded is guessed to take in memory; when that passes the budget, all lists are weighed."""
IDLE_OVER_BUDGET_MS = 60_000


class Housekeeping:
    """The rounds of one list server.

    Args:
        partitions: those that it owns, by number; None where it does not.
        idle_ms: how long a list may be unused.
        memory_budget: what all lists may take, in bytes, about; over it idle ones go sooner.

    Attributes:
        drops: how many lists have left memory for being idle.
    """

    def __init__(self, partitions: list[Partition | None], idle_ms: int, memory_budget: int) -> None:
        self.drops = 0
        self.memory_budget = memory_budget
        self._partitions = partitions
        self._idle_ms = idle_ms
        self._to_visit: list[ListActor] = []
        self._visits = VISITS_LEAST
        self._next_round_ms = 0
        self._is_quick = False
        self._weighed = 0
        self._found = 0
        """What the last whole round has weighed."""
        self._grown_bytes = 0

    @property
    def lists(self) -> int:
        """How many lists are in memory."""
        return sum(len(partition.actors) for partition in self._partitions if partition is not None)

    @property
    def memory(self) -> int:
        """About how many bytes the lists take, by what the last round found."""
        return max(self._found, self.lists * LIST_BYTES)

    @property
    def is_between_rounds(self) -> bool:
        """Whether every list of the last round was visited."""
        return not self._to_visit

    def grew(self, size: int) -> None:
        """Note that so many bytes of records were written or loaded."""
        self._grown_bytes += size

    def tick(self, now_ms: int, steady_ms: int) -> None:
        """Visit some lists, of a new round where one is due or the budget seems to be reached.

        Args:
            now_ms: the time that requests and records go by.
            steady_ms: the time of the steady clock.
        """
        is_full = self._memory_at_most() > self.memory_budget
        if (is_full and not self._is_quick) or (self.is_between_rounds and steady_ms >= self._next_round_ms):
            self._begin_round(steady_ms, is_full)
        idle_ms = self._idle_limit_ms()
        for _ in range(min(self._visits, len(self._to_visit))):
            self._visit(self._to_visit.pop(), now_ms, idle_ms)
        if self.is_between_rounds:
            self._found = self._weighed

    def _begin_round(self, steady_ms: int, is_quick: bool) -> None:
        self._is_quick = is_quick
        self._weighed = self._grown_bytes = 0
        self._to_visit = [
            actor for partition in self._partitions if partition is not None for actor in partition.actors.values()
        ]
        round_ms = max(STEP_MS, min(QUICK_ROUND_MS if is_quick else ROUND_MS, self._idle_ms // 4))
        self._visits = min(max(VISITS_LEAST, len(self._to_visit) * STEP_MS // round_ms), VISITS_MOST)
        self._next_round_ms = steady_ms + round_ms

    def _memory_at_most(self) -> int:
        """Return what they may take by now, with all that has come since."""
        return self.memory + GROWTH * self._grown_bytes

    def _idle_limit_ms(self) -> int:
        """Return how long a list may be idle: less, the further the lists in memory are over the budget."""
        over = self.memory / self.memory_budget
        return self._idle_ms if over <= 1 else int(min(self._idle_ms, IDLE_OVER_BUDGET_MS) / (4 * over * over))

    def _visit(self, actor: ListActor, now_ms: int, idle_ms: int) -> None:
        partition = actor.partition
        if self._partitions[partition.number] is not partition or partition.actors.get(actor.name) is not actor:
            return
        weighs = 0 if actor.todo is None else weight(actor)
        self._weighed += weighs
        if actor.is_at_rest:
            if not partition.gate.why_refused:  # else what is read would wait for writes that fail
                actor.forget_expired(now_ms)
            if actor.used_ms > now_ms:  # the clock was set back
                actor.used_ms = now_ms
            idle = now_ms - actor.used_ms > idle_ms and actor.name not in partition.to_sweep
            if idle and not actor.uncommitted and not actor.everything_waiting():
                partition.drop(actor)
                self.drops += 1
                self._weighed -= weighs
        elif actor.state is QUARANTINED and idle_ms < self._idle_ms and now_ms - actor.used_ms > idle_ms:
            partition.drop(actor)  # over the budget; whoever asks for it finds again that it can't be read
            self.drops += 1
