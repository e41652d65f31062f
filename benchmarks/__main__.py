"""``make bench``: several rounds, in each TodoMQ and its peers in turn; a table, a JSON file, plots.

Owns: the arguments, the order of the turns. Exit status: 0 done, 1 a contender failed, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.figures import Measurement, figures_of
from benchmarks.goals import outcomes_of
from benchmarks.peers import PEERS
from benchmarks.plan import FULL, QUICK, WORKLOADS, Contender, Plan
from benchmarks.plots import draw
from benchmarks.report import goals_table, table, write_json
from benchmarks.todomq_contender import TodoMQ

RESULTS = Path(__file__).with_name("results")
PARTIAL = RESULTS / "partial"
"""Of a run that leaves workloads out, or is quick: the figures of the last full run stay."""
ONCE = frozenset(("clients", "import", "recovery", "create later"))
"""Workloads of the first round only, as are the most lists: they take long, or repeat within themselves."""


def main() -> int:
    """Run the benchmark.

    Returns:
        the exit status.
    """
    options = _arguments()
    present = _present([TodoMQ(), *PEERS], options.only)
    measurements: list[Measurement] = []
    failed = False
    for number in range(options.rounds):
        plan = _plan(QUICK if options.quick else FULL, options.only, is_first=number == 0)
        for contender in present:
            if not plan.wants(*contender.workloads):
                continue
            began_s = time.monotonic()
            try:
                for measurement in contender.measure(plan):
                    measurements.append(measurement)
            except Exception as error:  # one contender's failure is reported, and the others go on
                failed = True
                print(f"{contender.name} failed: {error!r}", file=sys.stderr)
            print(f"round {number + 1}: {contender.name}, {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    figures = figures_of(measurements)
    outcomes = outcomes_of(figures)
    print("\n".join([*table(figures), "", *goals_table(outcomes)]))
    is_partial = options.quick or options.only != frozenset(WORKLOADS)
    results: Path = options.results or (PARTIAL if is_partial else RESULTS)
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / "figures.json", figures, outcomes, sys.argv[1:])
    drawn = draw(figures, outcomes, results)
    print(f"\nwritten to {results}: {', '.join(['figures.json', *drawn])}")
    return 1 if failed else 0


def _plan(size: Plan, only: frozenset[str], is_first: bool) -> Plan:
    if is_first:
        return size._replace(only=only)
    return size._replace(only=only - ONCE, many_lists=0)


def _present(contenders: list[Contender], only: frozenset[str]) -> list[Contender]:
    present = []
    for contender in contenders:
        missing = contender.missing()
        if missing is None:
            present.append(contender)
        elif not only.isdisjoint(contender.workloads):
            print(f"{contender.name} is left out; to measure it install {missing}", file=sys.stderr)
    return present


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...",
        description="Measure TodoMQ and its peers.",
        epilog="workloads: " + "; ".join(f"{name}: {text}" for name, text in WORKLOADS.items()),
    )
    parser.add_argument("--only", type=_workloads, default=frozenset(WORKLOADS), help="such as adds,reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="short loads, few lists: to see that everything works")
    parser.add_argument(
        "--results", type=Path, help="directory of the figures; else benchmarks/results, or partial in it"
    )
    return parser.parse_args()


def _workloads(text: str) -> frozenset[str]:
    names = frozenset(text.split(","))
    if not names <= WORKLOADS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(names - WORKLOADS.keys()))}")
    return names


if __name__ == "__main__":
    sys.exit(main())
