"""What a run is to measure, and what every contender has in common.

Owns: the names of the workloads, their sizes, the shape of a contender. Must not know: any contender.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from benchmarks.figures import Measurement

TITLE = "dentist"
DAY = datetime.date(2026, 12, 1)
LISTS = 1_000
IN_FLIGHT = 1_000

DURABLE = "durable"
NOT_DURABLE = "not durable"
NO_WORK = "no work"

WORKLOADS = {
    "adds": "durable adds, pipelined; CPU by daemon",
    "batches": "add_entries, 100 at a time, pipelined",
    "reads": "entries(date) of one entry, pipelined; CPU by daemon",
    "mixed": "nine reads to one add, pipelined",
    "single": "an add, and a read, one at a time",
    "clients": "adds and reads, pipelined, from 4 and 16 client processes",
    "long": "one list of 100,000 entries: adds, entries(date)",
    "cold": "the first read of a list that is not loaded",
    "import": "a large CSV through the command line",
    "create": "100,000 lists created with one entry each; memory per loaded list",
    "create later": "the same lists where others owned the partitions before, so that each is looked for first",
    "lists": "adds over 1,000, 100,000 and 1,000,000 lists, uniform and Zipf; memory and files of them",
    "recovery": "kill -9 of each daemon",
    "scaling": "adds with one list server, with one database worker",
}


class Plan(NamedTuple):
    """The size of one round.

    Attributes:
        only: the workloads that are wanted, names of ``WORKLOADS``.
        seconds: how long a load of requests in flight goes on.
        singles: how many requests one at a time.
        lists: how many lists a creation of lists makes.
        many_lists: the most lists; 0 where this round leaves them out.
        long_entries: the length of a long list.
    """

    only: frozenset[str]
    seconds: float
    singles: int
    lists: int
    many_lists: int
    long_entries: int

    def wants(self, *workloads: str) -> bool:
        """Tell whether any of the workloads is wanted."""
        return not self.only.isdisjoint(workloads)


FULL = Plan(frozenset(WORKLOADS), 3.0, 2_000, 100_000, 1_000_000, 100_000)
QUICK = Plan(frozenset(WORKLOADS), 0.7, 300, 10_000, 30_000, 10_000)


class Contender(Protocol):
    """Whoever is measured. It starts what it needs for each turn, with no data, and leaves nothing behind."""

    name: str
    workloads: frozenset[str]
    """What it takes part in."""

    def missing(self) -> str | None:
        """Return what to install, or None where nothing is missing."""

    def measure(self, plan: Plan) -> Iterator[Measurement]:
        """Run the workloads that are wanted."""
