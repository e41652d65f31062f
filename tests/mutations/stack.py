"""A switch on the real stack: a round of torture in which every process has it turned on.

Owns: how a switch reaches the processes of the stack and of its clients. Must not know: what a switch breaks.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from mutations.switch import broken
from todomq.errors import Unavailable
from torture.torture import torture

TESTS = Path(__file__).parents[1]


def problem_on_stack(name: str, seed: int, seconds: float) -> str:
    """Torture a stack with the switch on; return what was found first, the empty text where nothing was."""
    paths = f"{TESTS / 'mutations' / 'entry'}{os.pathsep}{TESTS}"
    with (
        tempfile.TemporaryDirectory(prefix="tq-mutant-") as directory,
        patch.dict(os.environ, {"PYTHONPATH": paths, "TODOMQ_TEST_MUTATION": name}),
        broken(name),  # the client of the provocations is in this process
    ):
        try:
            report = torture(Path(directory), seconds, seed, settings={"TODOMQ_TEST_MUTATION": name}, fills_disk=True)
        except Unavailable as error:  # what is broken shows in the check of health already
            return f"the stack does not become healthy: {error.text}"
    found = [*map(str, report.violations), *report.troubles]
    return found[0] if found else ""
