"""Seeds of the simulation: nothing promised is lost, nothing takes effect twice, everything comes back (all laws)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
LEAST_SEEDS = 8
"""However busy the machine."""
SEEDS = 300
WITHIN_S = 10
"""For the rest of them: on a busy machine fewer are run, and the test says how many."""
TIMEOUT_S = 120


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation in a process of its own: what it puts in the place of clocks and sockets is everybody's."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-m", "topology", *arguments],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def test_no_seed_breaks_a_law() -> None:
    first = run("--seeds", f"1-{LEAST_SEEDS}")
    further = run("--seeds", f"{LEAST_SEEDS + 1}-{SEEDS}", "--within", str(WITHIN_S))
    seeds, operations, acknowledged, faults, restarts = map(sum, zip(counts_of(first), counts_of(further)))
    # A simulation in which nothing is answered or nothing breaks would find nothing.
    assert acknowledged > operations * 0.7
    assert faults > seeds and restarts > seeds // 2


def counts_of(ran: subprocess.CompletedProcess[str]) -> tuple[int, ...]:
    """Return how many seeds, operations, acknowledged ones, faults and restarts there were in a good run."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(ran.stdout)
    counts = r"(\d+) seeds, (\d+) operations, (\d+) acknowledged, .* (\d+) faults, (\d+) restarts"
    counted = re.search(counts, ran.stdout)
    assert counted is not None
    return tuple(map(int, counted.groups()))


def test_the_same_seed_does_the_same_to_the_last_event() -> None:
    seed = "17"
    first, second, other = run("--seed", seed), run("--seed", seed), run("--seed", "18")
    assert first.returncode == 0, first.stdout + first.stderr
    assert trace_of(first) == trace_of(second) != trace_of(other)


def trace_of(ran: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"trace ([0-9a-f]{64})", ran.stdout)
    assert found is not None, ran.stdout + ran.stderr
    return found.group(1)
