"""Run seeds: ``PYTHONPATH=tests python -m topology [--seed N [--trace] | --seeds FIRST-LAST]``.

A seed that fails prints itself and how to replay it; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool

from topology.simulation import Result, simulate

SHOWN = 4
SHOWN_CHARACTERS = 1_500


def main() -> int:
    """Run what the command line names."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets are ordered by the hashes of what is in them: the same in every process, or a seed would not replay.
        again = [sys.executable, "-m", "topology", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    arguments = _parser().parse_args()
    only = tuple(filter(None, arguments.only.split(",")))
    if arguments.seed is not None:
        result = simulate(arguments.seed, _write if arguments.trace else None, only)
        print(_line(result), *result.problems, *result.undecided, sep="\n")
        return bool(result.problems)
    first, _, last = arguments.seeds.rpartition("-")
    seeds = range(int(first or 1), int(last) + 1)
    begun = time.monotonic()
    results = []
    for result in _results(seeds, arguments.jobs, only, arguments.within or float("inf")):
        results.append(result)
        if result.problems:
            print(_line(result), *(problem[:SHOWN_CHARACTERS] for problem in result.problems[:SHOWN]), sep="\n")
            print(f"replay: PYTHONPATH=tests python -m topology --seed {result.seed} --trace", flush=True)
    print(_summary(results), f"in {time.monotonic() - begun:.0f} s")
    return any(result.problems for result in results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="topology", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--seeds", default="100", help="FIRST-LAST, or how many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many to run at a time")
    parser.add_argument("--within", type=float, help="begin none after so many seconds")
    parser.add_argument("--only", default="", help="kinds of faults to use, comma-separated")
    return parser


def _results(seeds: range, jobs: int, only: tuple[str, ...], within_s: float) -> Iterator[Result]:
    give_up = time.monotonic() + within_s
    with Pool(jobs) as pool:
        for result in pool.imap(partial(simulate, only=only), seeds):
            yield result
            if time.monotonic() > give_up:
                return


def _write(line: str) -> None:
    sys.stdout.write(line)


def _summary(results: list[Result]) -> str:
    failed = [result.seed for result in results if result.problems]
    return (
        f"{len(results)} seeds, {sum(result.operations for result in results)} operations, "
        f"{sum(result.acknowledged for result in results)} acknowledged, "
        f"{sum(result.unknown for result in results)} unknown, "
        f"{sum(sum(result.faults.values()) for result in results)} faults, "
        f"{sum(result.restarts for result in results)} restarts, "
        f"{sum(result.virtual_s for result in results):.0f} virtual seconds, "
        f"undecided: {[result.seed for result in results if result.undecided] or 'none'}, failed: {failed or 'none'}"
    )


def _line(result: Result) -> str:
    return (
        f"seed {result.seed}: {'FAILED' if result.problems else 'good'}, {result.operations} operations, "
        f"{result.acknowledged} acknowledged, {result.unknown} unknown, faults {result.faults}, "
        f"{result.virtual_s:.1f} virtual s, trace {result.digest}"
    )


if __name__ == "__main__":
    sys.exit(main())
