"""Proof of the proof: what breaks a law is found. `make mutants` says in how many seeds; here it is a known one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mutations import switches
from mutations.known import KNOWN
from mutations.switch import SWITCHES

TESTS = Path(__file__).parents[1]
LAWS = range(1, 10)
WITHIN_S = 240
"""On a busy machine; alone it takes a tenth of that."""

assert switches


def test_every_law_has_a_switch_and_every_switch_a_seed() -> None:
    assert {switch.law for switch in SWITCHES.values()} == set(LAWS)
    assert set(KNOWN) == set(SWITCHES)


@pytest.fixture(scope="module")
def said() -> str:
    """Return what the known seeds say of their switches; run in processes of their own."""
    ran = subprocess.run(
        [sys.executable, "-m", "mutations", "--known"],
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"},
        capture_output=True, text=True, check=False, timeout=WITHIN_S,
    )  # fmt: skip
    assert not ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_broken_law_is_found_by_the_simulation(name: str, said: str) -> None:
    assert f"{name}: found by seed {KNOWN[name]}:" in said, said


def test_the_known_seeds_find_nothing_where_no_switch_is_on(said: str) -> None:
    """What they find is the switch and nothing else."""
    assert "with nothing broken: nothing found" in said, said
