"""A switch on the real stack: a round of torture in which every process has it turned on.

Owns: how a switch reaches the processes of the stack and of its clients. Must not know: what a switch breaks.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from torture.torture import torture

TESTS = Path(__file__).parents[1]
SECONDS = 60.0


def problem_on_stack(name: str, seed: int, seconds: float = SECONDS) -> str:
    """Torture a stack with the switch on; return what was found first, the empty text where nothing was."""
    paths = f"{TESTS / 'mutations' / 'entry'}{os.pathsep}{TESTS}"
    with (
        tempfile.TemporaryDirectory(prefix="tq-mutant-") as directory,
        patch.dict(os.environ, {"PYTHONPATH": paths, "TODOMQ_TEST_MUTATION": name}),
    ):
        report = torture(Path(directory), seconds, seed, settings={"TODOMQ_TEST_MUTATION": name})
    found = [*map(str, report.violations), *report.troubles]
    return found[0] if found else ""
