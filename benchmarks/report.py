"""The table on the terminal and the JSON file.

Owns: how figures are written. Must not know: how they were measured.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.figures import CPU, FILES, MS, RATE, Figure
from benchmarks.goals import Outcome
from benchmarks.todomq_contender import NAME as TODOMQ

MIB = 1 << 20


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """Return the lines of the table: a block for each workload, its ratio to each peer beside it."""
    head = f"{'workload / contender':34} {'promise':20} {'median':>16} {'p99 ms':>9}  {'rounds':<19}"
    yield f"{head} TodoMQ's ratio to it"
    places = _places(figures)
    ordered = sorted(figures, key=lambda figure: places[figure.workload])
    for workload, group in groupby(ordered, key=lambda figure: figure.workload):
        members = list(group)
        ours = next((figure.median for figure in members if figure.contender == TODOMQ), None)
        yield workload
        for figure in members:
            ratio = f"{ours / figure.median:.2f} x" if ours and figure.contender != TODOMQ else ""
            p99 = f"{figure.p99_ms:,.2f}" if figure.p99_ms is not None else ""
            spread = f"{_short(min(figure.rounds))} .. {_short(max(figure.rounds))}" if len(figure.rounds) > 1 else ""
            line = f"  {figure.contender:32} {figure.promise:20} {shown(figure):>16} {p99:>9}  {spread:<19} {ratio}"
            yield line.rstrip()


def goals_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Return the lines that compare ratios with what is to be reached."""
    if outcomes:
        yield f"{'goal':46} {'ratio':>8} {'asked':>9} {'aim':>9}"
    for outcome in outcomes:
        goal, ratio = outcome
        sign = "<=" if goal.at_most else ">="
        asked = "" if goal.asked is None else f"{sign} {goal.asked:g}"
        yield f"{goal.text:46} {ratio:8.2f} {asked:>9} {f'{sign} {goal.aim:g}':>9}  {outcome.verdict}"


def shown(figure: Figure) -> str:
    """Return a figure's median with its unit."""
    if figure.unit == RATE:
        return f"{figure.median:,.0f}/s"
    if figure.unit == MS:
        return f"{figure.median:,.3f} ms"
    if figure.unit == CPU:
        return f"{figure.median:.2f} s/million"
    if figure.unit == FILES:
        return f"{figure.median:,.0f} files"
    return f"{figure.median / MIB:,.1f} MiB" if figure.median >= MIB else f"{figure.median:,.0f} bytes"


def write_json(path: Path, figures: Sequence[Figure], outcomes: Sequence[Outcome], arguments: Sequence[str]) -> None:
    """Write everything that was measured, and where."""
    content: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processors": os.cpu_count(),
            "model": _processor(),
            "system": f"{platform.system()} {platform.release().partition('-')[0]}",
            "python": platform.python_version(),
        },
        "arguments": list(arguments),
        "figures": [{**figure._asdict(), "median": figure.median} for figure in figures],
        "goals": [
            {"goal": each.goal.text, "ratio": each.ratio, "asked": each.goal.asked, "aim": each.goal.aim,
             "at_most": each.goal.at_most, "verdict": each.verdict}
            for each in outcomes
        ],
    }  # fmt: skip
    path.write_text(json.dumps(content, indent=1) + "\n")


def _places(figures: Sequence[Figure]) -> dict[str, int]:
    places: dict[str, int] = {}
    for figure in figures:
        places.setdefault(figure.workload, len(places))
    return places


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
