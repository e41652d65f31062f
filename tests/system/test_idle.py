"""What a stack costs that nobody asks anything: `pytest -s tests/system/test_idle.py` prints it by process.

How often the daemons wake is a count, so it is what is asserted; what a wake costs differs by the machine, and is most
where nothing else runs: its processors have to be woken too. ``TODOMQ_MEASURE_IDLE_S`` measures for longer.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from stacks import RunningStack

from todomq.daemons import KINDS

pytestmark = pytest.mark.quiet

MEASURED_S = float(os.environ.get("TODOMQ_MEASURE_IDLE_S", "5"))
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MOST_TURNS = 1.7
"""Of each daemon: how many times what the page says that it takes in a second."""
MOST_PERCENT = 30.0
"""Of one core, for all of it: whoever spins is above it by himself."""


def documented_turns() -> dict[str, int]:
    """Return the turns that each kind of daemon takes in a second, by the table of the page."""
    table = r"^\| (registry \| list server .*) \|\n.*\n\| (.* turns/s .*) \|$"
    ((heads, cells),) = re.findall(table, PAGE.read_text(encoding="utf-8"), re.M)
    turns = {}
    for head, cell in zip(heads.split(" | "), cells.split(" | ")):
        kind = {"list server 1, 2": "list_server", "worker 1, 2, 3": "database_worker"}.get(head, head)
        if counted := re.search(r"%, (\d+)", cell):
            turns[kind] = int(counted[1])
    return turns


def processor_ns(pid: int) -> int:
    """Return the processor time of all threads of a process, in ns (schedstat of proc(5))."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def test_a_stack_that_nobody_asks_anything_is_nearly_idle(stack: RunningStack) -> None:
    names = {pid: name for name, pid in stack.pids().items()} | {stack.manager_pid(): "supervisord"}
    before = {pid: processor_ns(pid) for pid in names}
    turns = {daemon: stack.ask(daemon, "stats")["turns"] for daemon in stack.daemons}
    time.sleep(MEASURED_S)  # the time is what is measured
    turns = {daemon: stack.ask(daemon, "stats")["turns"] - turns[daemon] for daemon in stack.daemons}
    percent = {name: (processor_ns(pid) - before[pid]) / MEASURED_S / 1e7 for pid, name in names.items()}
    for name, share in sorted(percent.items(), key=lambda item: -item[1]):
        print(f"{name}: {share:.2f} % of a core, {turns.get(name, 0) / MEASURED_S:.0f} turns a second")
    print(f"all: {sum(percent.values()):.2f} %")
    documented = documented_turns()
    assert documented.keys() == KINDS.keys()
    most = {daemon: MOST_TURNS * documented[daemon.partition("-")[0]] * MEASURED_S for daemon in turns}
    assert not {daemon: (turns[daemon], most[daemon]) for daemon in turns if turns[daemon] > most[daemon]}
    assert sum(percent.values()) < MOST_PERCENT
