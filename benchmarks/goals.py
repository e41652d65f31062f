"""What TodoMQ is to reach, as ratios to its peers within one run.

Owns: the table of goals, ratios. Must not know: how anything was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.figures import Figure
from benchmarks.peers import beam, fastapi_sqlite, redis_server, rocksdb_alone, zmq_echo
from benchmarks.plan import FULL
from benchmarks.todomq_contender import NAME as TODOMQ

Key = tuple[str, str]
"""A workload and a contender."""


class Goal(NamedTuple):
    """One ratio.

    Attributes:
        text: what is compared with what.
        ours: what is compared.
        peers: with what: the sum of these, each taken so often.
        asked: the ratio that is asked for, None where there is only an aim.
        aim: the one beyond it.
        at_most: whether a smaller ratio is better.
    """

    text: str
    ours: Key
    peers: Sequence[tuple[float, Key]]
    asked: float | None
    aim: float
    at_most: bool = False


class Outcome(NamedTuple):
    """A goal and what this run says to it."""

    goal: Goal
    ratio: float

    @property
    def verdict(self) -> str:
        """``aim``, ``reached`` or ``short``."""
        if self._share_of(self.goal.aim) >= 1:
            return "aim"
        return "reached" if self.share >= 1 and self.goal.asked is not None else "short"

    @property
    def share(self) -> float:
        """How much of what is asked was reached: 1 is all of it, and more is better."""
        return self._share_of(self.goal.aim if self.goal.asked is None else self.goal.asked)

    def _share_of(self, wanted: float) -> float:
        return wanted / self.ratio if self.goal.at_most else self.ratio / wanted


_REDIS, _NATIVE = redis_server.PIPELINED, redis_server.NATIVE
_ROUND_TRIPS = (2.0, ("round trip", zmq_echo.NAME))
_SIZES = "adds by number of daemons"
_BATCHES = ("entries in batches", TODOMQ)
_MANY, _MOST = f"{FULL.lists:,}", f"{FULL.many_lists:,}"

GOALS: tuple[Goal, ...] = (
    Goal("adds / redis-py", ("adds", TODOMQ), [(1, ("adds", _REDIS))], 1.3, 2),
    Goal("adds / bare pyzmq echo", ("adds", TODOMQ), [(1, ("adds", zmq_echo.NAME))], 2, 3),
    Goal("adds / FastAPI+SQLite", ("adds", TODOMQ), [(1, ("adds", fastapi_sqlite.NAME))], 30, 50),
    Goal("adds / BEAM original", ("adds", TODOMQ), [(1, ("adds", beam.NAME))], 60, 100),
    Goal("entries in batches / redis-py adds", _BATCHES, [(1, ("adds", _REDIS))], 4, 4),
    Goal("entries in batches / redis-benchmark adds", _BATCHES, [(1, ("adds", _NATIVE))], None, 1),
    Goal("reads / redis-py", ("reads", TODOMQ), [(1, ("reads", _REDIS))], 1.8, 2.5),
    Goal("reads / FastAPI+SQLite", ("reads", TODOMQ), [(1, ("reads", fastapi_sqlite.NAME))], 25, 40),
    Goal("add alone / (2 round trips + synced put)", ("add alone", TODOMQ),
         [_ROUND_TRIPS, (1, ("put alone", rocksdb_alone.NAME))], 4, 2.5, True),
    Goal("read alone / 2 round trips", ("read alone", TODOMQ), [_ROUND_TRIPS], 3, 2, True),
    Goal("add to the long list / to a list of 10", ("add to the long list", TODOMQ),
         [(1, ("add to a list of 10", TODOMQ))], 1.2, 1.05, True),
    Goal("entries(date) of 1,000 / 10 x that of 100", ("entries(date) of 1000", TODOMQ),
         [(10, ("entries(date) of 100", TODOMQ))], 1.2, 1, True),
    Goal(f"adds over {_MOST} lists / over 1,000", (f"adds over {_MOST} lists, uniform", TODOMQ),
         [(1, ("adds over 1,000 lists, uniform", TODOMQ))], 0.7, 0.9),
    Goal("lists created with an entry / BEAM's, empty", ("create", TODOMQ), [(1, ("create", beam.NAME))], 1, 2),
    Goal("the same, later owners / BEAM's, empty", ("create, later owners", TODOMQ), [(1, ("create", beam.NAME))],
         None, 1),
    Goal("2 list servers / 1", (_SIZES, "2 list servers, 3 workers"), [(1, (_SIZES, "1 list server, 3 workers"))],
         0.85, 1),
    Goal("3 database workers / 1", (_SIZES, "2 list servers, 3 workers"), [(1, (_SIZES, "2 list servers, 1 worker"))],
         0.85, 1),
)  # fmt: skip

LIST_BYTES = Goal("KB per loaded list of one entry", ("bytes per loaded list", TODOMQ), [], 1.5, 1, True)
"""The one goal that is no ratio."""


def outcomes_of(figures: Sequence[Figure]) -> list[Outcome]:
    """Return the goals of which this run has all figures."""
    medians = {(figure.workload, figure.contender): figure.median for figure in figures}
    found = [
        Outcome(goal, medians[goal.ours] / sum(times * medians[key] for times, key in goal.peers))
        for goal in GOALS
        if _is_measured(goal, medians)
    ]
    if LIST_BYTES.ours in medians:
        found.append(Outcome(LIST_BYTES, medians[LIST_BYTES.ours] / 1024))
    return found


def _is_measured(goal: Goal, medians: Mapping[Key, float]) -> bool:
    return goal.ours in medians and all(key in medians for _, key in goal.peers)
