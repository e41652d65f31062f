"""Inputs that go far: ``corpus/<target>.hex``, one to a line.

Owns: these files. Must not know: what takes the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

DIRECTORY = Path(__file__).parent / "corpus"
KEPT = 60
"""Inputs kept of one target, the shortest of those that the fuzzer says go further than others."""
KEPT_BYTES = 200


def load(target: str) -> list[bytes]:
    """Return the inputs of a target; none where there is no file."""
    file = DIRECTORY / f"{target}.hex"
    return [bytes.fromhex(line) for line in file.read_text().split()] if file.exists() else []


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Add inputs to a target's, as far as there is room for more."""
    known = load(target)
    fresh = _shortest_first({each for each in inputs if 0 < len(each) <= KEPT_BYTES} - set(known))
    everything = _shortest_first({*known, *fresh[: max(0, KEPT - len(known))]})
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"{target}.hex").write_text("".join(f"{each.hex()}\n" for each in everything if each))


def _shortest_first(inputs: set[bytes]) -> list[bytes]:
    return sorted(inputs, key=lambda each: (len(each), each))
