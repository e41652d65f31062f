"""Count in how many seeds each switch is found: ``python -m mutations [--only NAME] [--seeds N] [--stack | --known]``.

Prints a table in Markdown; leaves with 1 where a switch was found in no seed at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from multiprocessing import Pool
from typing import NamedTuple

from mutations import switches
from mutations.known import KNOWN
from mutations.switch import SWITCHES, Switch, broken
from torture.interrupt import Interrupted, raise_on_signals

assert switches


class Found(NamedTuple):
    """What came of one switch."""

    seeds: int
    found: list[int]
    says: str
    """What the first seed that found it says."""


def main() -> int:
    """Count, one switch after the other.

    With ``--stack``, SIGINT and SIGTERM end it, and its stack and disk are removed.
    """
    if os.environ.get("PYTHONHASHSEED") != "0":
        # As in the simulation: a seed that was named must be the same in every process.
        again = [sys.executable, "-m", "mutations", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", default="", help="switches, comma-separated")
    parser.add_argument("--stack", action="store_true", help="on the real stack, one torture for each seed")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long each torture lasts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--known", action="store_true", help="try each switch with the seed that is known to find it")
    options = parser.parse_args()
    if options.known:
        return try_known(options.jobs)
    if not options.stack:
        return count(options)
    raise_on_signals()
    try:
        return count(options)
    except Interrupted as interrupted:
        print(f"ended by {interrupted.signal.name}: the stack is removed")
        return interrupted.status


def count(options: argparse.Namespace) -> int:
    """Print in how many seeds each switch is found; return 1 where one is found in none."""
    names = [each for each in options.only.split(",") if each] or list(SWITCHES)
    missed = []
    print("| law | switch | what is broken | found in | first |\n| --- | --- | --- | --- | --- |", flush=True)
    for switch in sorted((SWITCHES[name] for name in names), key=lambda switch: switch.law):
        if options.stack:
            found = _tortured(switch, options.seeds, 60 * options.minutes)
        else:
            found = simulated(switch, options.seeds, options.jobs)
        print(_row(switch, f"{len(found.found)} of {found.seeds}", str(min(found.found, default="-"))), flush=True)
        print(f"    {found.says[:300]}", file=sys.stderr, flush=True)
        if not found.found:
            missed.append(switch.name)
    if missed:
        print(f"NOT FOUND: {', '.join(missed)}")
    return bool(missed)


def try_known(jobs: int) -> int:
    """Say whether each switch's known seed finds it, and none of these seeds anything where nothing is broken."""
    with Pool(jobs) as pool:
        said = pool.starmap(problem_in, KNOWN.items(), chunksize=1)
        alone = pool.starmap(problem_in, [("", seed) for seed in sorted(set(KNOWN.values()))], chunksize=1)
    for (name, seed), problem in zip(KNOWN.items(), said):
        print(f"{name}: {'found' if problem else 'MISSED'} by seed {seed}: {problem[:200]!r}")
    print(f"with nothing broken: {'; '.join(filter(None, alone)) or 'nothing found'}")
    return not all(said) or any(alone)


def simulated(switch: Switch, seeds: int, jobs: int) -> Found:
    """Simulate seeds 1 to ``seeds`` with the switch on."""
    with Pool(jobs) as pool:
        return _found(pool.map(partial(problem_in, switch.name), range(1, seeds + 1), chunksize=1))


def _found(said: list[str]) -> Found:
    """Sum up what the seeds from 1 on say."""
    found = [seed for seed, problem in enumerate(said, 1) if problem]
    return Found(len(said), found, said[found[0] - 1] if found else "")


def problem_in(name: str, seed: int) -> str:
    """Return the first problem of a seed with the switch on, the empty text where there is none."""
    from topology.simulation import simulate

    with broken(name):
        problems = simulate(seed).problems
    return problems[0] if problems else ""


def _tortured(switch: Switch, seeds: int, seconds: float) -> Found:
    """Torture a stack with the switch on, once for each of seeds 1 to ``seeds``."""
    from mutations.stack import problem_on_stack

    return _found([problem_on_stack(switch.name, seed, seconds) for seed in range(1, seeds + 1)])


def _row(switch: Switch, found: str, first: str) -> str:
    return f"| {switch.law} | `{switch.name}` | {switch.says} | {found} | {first} |"


if __name__ == "__main__":
    sys.exit(main())
