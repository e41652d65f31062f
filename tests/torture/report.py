"""The figures of a run and the judgement on it.

Owns: what is counted, how it is shown, what counts as passed. Must not know: how faults are done.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checking import Violation, check
from torture.nemesis import Fault
from torture.recorder import read_round, rounds

SHOWN = 10


@dataclass
class Report:
    """What came of a run."""

    seed: int
    lasted_s: float
    faults: Sequence[Fault]
    outcomes: Counter[str] = field(default_factory=Counter)
    """Operations by outcome; ``ok`` is acknowledged."""
    lists: int = 0
    found: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    undecided: list[Violation] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What went wrong beside the answers: something left behind, a client that ended, a fault that was not over."""

    def judge(self, directory: Path) -> None:
        """Check everything that was recorded, round by round."""
        for each in rounds(directory):
            history = list(read_round(each))
            self.outcomes.update(operation.outcome for operation in history)
            judgement = check(history)
            self.lists += judgement.lists
            self.violations += judgement.violations
            self.undecided += judgement.undecided
        self.found.update(_kind_of(violation) for violation in self.violations)
        for fault in self.faults:
            if (trouble := _trouble(fault)) is not None:
                self.troubles.append(f"{fault.kind} of {fault.target}: {trouble}")

    @property
    def passed(self) -> bool:
        """Whether nothing at all was wrong."""
        return not self.violations and not self.undecided and not self.troubles

    def __str__(self) -> str:
        count = self.outcomes
        lines = [
            f"seed {self.seed}, {self.lasted_s:.0f} s, {len(self.faults)} faults, {count.total()} operations on "
            f"{self.lists} lists: " + ("good" if self.passed else "NOT PASSED"),
            f"acknowledged {count['ok']}, casts {count['cast']}, refused {count['failed']}, unknown {count['unknown']}",
            f"lost {self.found['lost']}, doubled {self.found['doubled']}, wrong {self.found['wrong']}, "
            f"undecided lists {len(self.undecided)}",
            "",
            f"{'fault':<20} {'hit':<20} {'times':>5}   served again after ms: {'p50':>7} {'p99':>7} {'worst':>7}",
            *_recoveries(self.faults),
            *(f"TROUBLE {trouble}" for trouble in self.troubles),
            *(f"VIOLATION {violation}" for violation in self.violations[:SHOWN]),
            *(f"UNDECIDED {undecided}" for undecided in self.undecided[:SHOWN]),
        ]
        return "\n".join(lines)


def _trouble(fault: Fault) -> str | None:
    return fault.trouble or (None if fault.served_s is not None else "not everything was served again in time")


def _kind_of(violation: Violation) -> str:
    sentence = violation.sentence
    if "lost" in sentence or "undone" in sentence:
        return "lost"
    return "doubled" if "twice" in sentence else "wrong"


def _recoveries(faults: Iterable[Fault]) -> list[str]:
    by_target: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for fault in faults:
        target = "several" if fault.kind == "two killed" else fault.target
        by_target[fault.kind, target].append(float("inf") if fault.served_s is None else fault.served_s * 1000)
    return [
        f"{kind:<20} {target:<20} {len(times):>5} {'':<24}"
        f"{percentile(times, 50):>7.0f} {percentile(times, 99):>7.0f} {max(times):>7.0f}"
        for (kind, target), times in sorted(by_target.items())
    ]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
