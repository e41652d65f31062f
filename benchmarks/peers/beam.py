"""The design that TodoMQ is modelled on, on the BEAM: ``todo_system.exs`` holds it, with the loads, in one process.

Not durable: an add is acknowledged by nobody, and a file that was written was not synced. The loads count an add when
its file has been written. There is no network, so a read alone is two messages within one process.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import BYTES, MS, Measurement, rate
from benchmarks.plan import IN_FLIGHT, LISTS, NOT_DURABLE, Plan
from benchmarks.processes import temporary_home

NAME = "BEAM original"
SCRIPT = Path(__file__).with_name("todo_system.exs")
MOST_S = 120.0
GROWN = 2_000
GROW_S = 4


class Beam:
    """The peer."""

    name = NAME
    workloads = frozenset(("adds", "reads", "single", "long", "create"))

    def missing(self) -> str | None:
        return None if shutil.which("elixir") else "elixir (apt-get install elixir)"

    def measure(self, plan: Plan) -> Iterator[Measurement]:
        if plan.wants("adds"):
            found = _run("adds", plan.seconds, LISTS, IN_FLIGHT)
            yield rate("adds", NAME, NOT_DURABLE, found["requests"], found["seconds"])
        if plan.wants("reads"):
            found = _run("reads", plan.seconds, LISTS, IN_FLIGHT)
            yield rate("reads", NAME, NOT_DURABLE, found["requests"], found["seconds"])
        if plan.wants("single"):
            found = _run("read_alone", plan.singles, LISTS, 1)
            yield Measurement("read alone", NAME, NOT_DURABLE, found["p50_ms"], MS, found["p99_ms"])
        if plan.wants("create"):
            found = _run("create", 0, plan.lists, 1)
            yield rate("create", NAME, "empty, not durable", plan.lists, found["seconds"])
            yield Measurement("bytes per loaded list", NAME, "empty", found["bytes"] / plan.lists, BYTES)
        if plan.wants("long"):
            found = _run("long", GROW_S, GROWN, 10)
            yield rate("adds to one growing list", NAME, NOT_DURABLE, found["requests"], found["seconds"])


def _run(workload: str, span: float, lists: int, in_flight: int) -> dict[str, float]:
    """Run one load in a fresh process; it prints lines of a name and a number."""
    with temporary_home() as home:
        said = subprocess.run(
            ["elixir", str(SCRIPT), workload, str(home / "database"), *map(str, (int(span * 1000), lists, in_flight))],
            capture_output=True, text=True, timeout=MOST_S, check=False, cwd=home,
        )  # fmt: skip
    if said.returncode != 0:
        raise RuntimeError(f"elixir {SCRIPT.name} {workload}: {(said.stderr + said.stdout)[-500:]}")
    return {name: float(number) for name, number in (line.split() for line in said.stdout.splitlines())}
