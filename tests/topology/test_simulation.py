"""Seeds of the simulation: nothing promised is lost, nothing takes effect twice, everything comes back (all laws)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SEEDS = 300
LEAST_SEEDS = 8
WITHIN_S = 10
"""On a busy machine fewer seeds are run, and the test says how many."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation in a process of its own: what it puts in the place of clocks and sockets is everybody's."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-m", "topology", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_no_seed_breaks_a_law() -> None:
    ran = run("--seeds", str(SEEDS), "--within", str(WITHIN_S))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(ran.stdout)
    counts = r"(\d+) seeds, (\d+) operations, (\d+) acknowledged, .* (\d+) faults, (\d+) restarts"
    counted = re.search(counts, ran.stdout)
    assert counted is not None
    seeds, operations, acknowledged, faults, restarts = map(int, counted.groups())
    assert seeds >= LEAST_SEEDS
    # A simulation in which nothing is answered or nothing breaks would find nothing.
    assert acknowledged > operations * 0.7
    assert faults > seeds and restarts > seeds // 2


def test_the_same_seed_does_the_same_to_the_last_event() -> None:
    seed = "17"
    first, second, other = run("--seed", seed), run("--seed", seed), run("--seed", "18")
    assert first.returncode == 0, first.stdout + first.stderr
    assert trace_of(first) == trace_of(second) != trace_of(other)


def trace_of(ran: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"trace ([0-9a-f]{64})", ran.stdout)
    assert found is not None, ran.stdout + ran.stderr
    return found.group(1)
