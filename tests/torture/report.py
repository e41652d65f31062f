"""The figures of a run and the judgement on it.

Owns: what is counted, how it is shown, what counts as passed. Must not know: how faults are done.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checking import Violation, check
from torture.damage import Flip
from torture.nemesis import Fault
from torture.provoke import Provoked
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
    flips: Sequence[Flip] = ()
    provoked: Sequence[Provoked] = ()

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
        self.troubles += [f"flip in {flip.file}: {flip.trouble}" for flip in self.flips if flip.trouble]
        self.troubles += [f"provoked {each.name}: {problem}" for each in self.provoked for problem in each.problems]

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
            *(f"provoked {each.name}: {len(each.problems)} problems, {each.took_s:.1f} s" for each in self.provoked),
            *(f"flip in {flip.file}: {flip.reported} lists report it, {flip.unharmed} unharmed" for flip in self.flips),
            *(f"TROUBLE {trouble}" for trouble in self.troubles),
            *(f"VIOLATION {violation}" for violation in self.violations[:SHOWN]),
            *(f"UNDECIDED {undecided}" for undecided in self.undecided[:SHOWN]),
        ]
        return "\n".join(lines)


def as_markdown(report: Report, command: str) -> str:
    """Return the report as tables in Markdown."""
    count, found = report.outcomes, report.found
    left = sum("left behind" in trouble for trouble in report.troubles)
    cells = (
        count["ok"], count["cast"], count["failed"], count["unknown"], found["lost"], found["doubled"], found["wrong"],
        len(report.undecided), left or "nothing", len(report.troubles) - left,
    )  # fmt: skip
    kinds = Counter(fault.kind for fault in report.faults)
    flips = (f"| {flip.file} at {flip.offset:,} | {flip.reported} | {flip.unharmed} |" for flip in report.flips)
    return "\n".join([
        f"`{command}`: {report.lasted_s / 60:.1f} minutes, seed {report.seed}, {len(report.faults):,} faults, "
        f"{count.total():,} operations on {report.lists:,} lists.", "",
        "| acknowledged | casts | refused | unknown | lost | doubled | wrong | undecided lists | left behind | other |",
        "| --- " * len(cells) + "|",
        "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |", "",
        "| fault | times |", "| --- | --- |", *(f"| {kind} | {times} |" for kind, times in kinds.most_common()), "",
        "How long until an add behind every pair of list server and database worker was answered, ms:", "",
        "| fault | hit | times | p50 | p99 | worst |", "| --- | --- | --- | --- | --- | --- |",
        *(f"| {kind} | {hit} | {len(ms)} | {percentile(ms, 50):,.0f} | {percentile(ms, 99):,.0f} | {max(ms):,.0f} |"
          for (kind, hit), ms in _times(report.faults)), "",
        "| byte flipped in | lists that reported it | lists unharmed |", "| --- | --- | --- |", *flips,
    ]) + "\n"  # fmt: skip


def _trouble(fault: Fault) -> str | None:
    return fault.trouble or (None if fault.served_s is not None else "not everything was served again in time")


def _kind_of(violation: Violation) -> str:
    sentence = violation.sentence
    if "lost" in sentence or "undone" in sentence:
        return "lost"
    return "doubled" if "twice" in sentence else "wrong"


def _recoveries(faults: Iterable[Fault]) -> list[str]:
    return [
        f"{kind:<20} {target:<20} {len(times):>5} {'':<24}"
        f"{percentile(times, 50):>7.0f} {percentile(times, 99):>7.0f} {max(times):>7.0f}"
        for (kind, target), times in _times(faults)
    ]


def _times(faults: Iterable[Fault]) -> list[tuple[tuple[str, str], list[float]]]:
    """Return, by kind and what was hit, the milliseconds until all was served again."""
    by_target: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for fault in faults:
        target = "several" if fault.kind == "two killed" else fault.target
        by_target[fault.kind, target].append(float("inf") if fault.served_s is None else fault.served_s * 1000)
    return sorted(by_target.items())


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
