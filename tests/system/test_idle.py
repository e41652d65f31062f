"""What a stack costs that nobody asks anything: `pytest -s tests/system/test_idle.py` prints it by process.

How often the daemons wake is a count, so it is what is asserted; what a wake costs differs by the machine, and is most
where nothing else runs: its processors have to be woken too. ``TODOMQ_MEASURE_IDLE_S`` measures for longer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from conftest import RunningStack

MEASURED_S = float(os.environ.get("TODOMQ_MEASURE_IDLE_S", "5"))
MOST_TURNS = 60
"""Of each daemon in a second: twice what was counted."""
MOST_PERCENT = 30.0
"""Of one core, for all of it: whoever spins is above it by himself."""


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
    assert max(turns.values()) < MOST_TURNS * MEASURED_S
    assert sum(percent.values()) < MOST_PERCENT
