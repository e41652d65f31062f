"""The plots: one file for each question that a reader has.

Owns: what is drawn and how. Must not know: how it was measured. A plot whose figures this run lacks is not drawn.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import CPU, MS, RATE, Figure
from benchmarks.goals import Outcome
from benchmarks.todomq_contender import NAME as TODOMQ

OURS, PEER, SECOND = "#1b6ca8", "#b9c0c7", "#e08e45"
DAEMON_COLOURS = ("#1b6ca8", "#5aa9d6", "#e08e45", "#7a5ea8", "#4c9f70", "#c0504d", "#999999", "#d4b94e", "#66708a")
WIDTH = 9.0
THROUGHPUT = ("adds", "entries in batches", "reads", "mixed", "create")
ALONE = ("round trip", "put alone", "read alone", "add alone")


def draw(figures: Sequence[Figure], outcomes: Sequence[Outcome], directory: Path) -> list[str]:
    """Write the plots that these figures allow.

    Returns:
        the names of the files.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: install matplotlib (pip install matplotlib)")
        return []
    import matplotlib

    matplotlib.use("Agg")
    drawn = []
    for name, plot in PLOTS.items():
        shape = plot(figures, outcomes)
        if shape is not None:
            shape.savefig(directory / name, dpi=120)
            matplotlib.pyplot.close(shape)
            drawn.append(name)
    return drawn


def _axes(title: str, rows: float) -> tuple[Any, Any]:
    from matplotlib import pyplot

    shape, axes = pyplot.subplots(figsize=(WIDTH, 1.1 + 0.34 * rows), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return shape, axes


def _throughput(figures: Sequence[Figure], _: Sequence[Outcome]) -> Any:
    """Bars of requests per second, grouped by workload; logarithmic, as the peers differ by hundreds."""
    chosen = [figure for name in THROUGHPUT for figure in figures if figure.workload == name and figure.unit == RATE]
    return _grouped_bars(chosen, "Requests per second (entries, for batches); logarithmic", _thousands, right=3)


def _alone(figures: Sequence[Figure], _: Sequence[Outcome]) -> Any:
    """Bars of latency."""
    chosen = [figure for name in ALONE for figure in figures if figure.workload == name and figure.unit == MS]
    return _grouped_bars(chosen, "One request at a time: median ms (p99 behind it); logarithmic", _ms, right=9)


def _grouped_bars(chosen: Sequence[Figure], title: str, text: Callable[[Figure], str], right: float) -> Any:
    if not chosen:
        return None
    workloads = list(dict.fromkeys(figure.workload for figure in chosen))
    places = [place + 0.8 * workloads.index(figure.workload) for place, figure in enumerate(chosen)]
    shape, axes = _axes(title, places[-1] + 1 + len(workloads) * 0.5)
    values = [figure.median for figure in chosen]
    colours = [OURS if figure.contender == TODOMQ else PEER for figure in chosen]
    bars = axes.barh(places, values, color=colours)
    axes.bar_label(bars, [text(figure) for figure in chosen], padding=3, fontsize=9)
    axes.set_yticks(places, [figure.contender for figure in chosen])
    for workload in workloads:
        first = next(place for place, figure in zip(places, chosen) if figure.workload == workload)
        axes.text(-0.005, first - 0.85, workload, transform=axes.get_yaxis_transform(), ha="right", va="center",
                  fontsize=9, fontweight="bold")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * right)
    axes.set_ylim(places[-1] + 0.6, -1.4)
    return shape


def _cpu(figures: Sequence[Figure], _: Sequence[Outcome]) -> Any:
    """Stacked bars: which process the CPU time of a request goes to."""
    chosen = [figure for figure in figures if figure.unit == CPU]
    if not chosen:
        return None
    workloads = list(dict.fromkeys(figure.workload for figure in chosen))
    shape, axes = _axes("CPU seconds per million requests, by process", 2.2 + len(workloads) * 1.6)
    left = [0.0] * len(workloads)
    widest = max(sum(figure.median for figure in chosen if figure.workload == name) for name in workloads)
    names = list(dict.fromkeys(re.sub(r"-\d+$", "", figure.contender) for figure in chosen))
    for colour, name in zip(DAEMON_COLOURS, names):
        values = [
            sum(f.median for f in chosen if f.workload == workload and re.sub(r"-\d+$", "", f.contender) == name)
            for workload in workloads
        ]
        bars = axes.barh(workloads, values, left=left, color=colour, label=name.replace("_", " "), height=0.6)
        axes.bar_label(bars, [f"{v:.1f}" if v > 0.04 * widest else "" for v in values], label_type="center",
                       color="white", fontsize=9)  # fmt: skip
        left = [before + value for before, value in zip(left, values)]
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=6, frameon=False, fontsize=9, columnspacing=1.2)
    return shape


def _lists(figures: Sequence[Figure], _: Sequence[Outcome]) -> Any:
    """Lines: the rate of adds over the number of lists."""
    return _lines(figures, r"adds over ([\d,]+) lists, (\w+)", "Adds per second, by the number of lists", "lists")


def _clients(figures: Sequence[Figure], _: Sequence[Outcome]) -> Any:
    """Lines: the rate of adds and reads over the number of client processes."""
    from_one = [f._replace(workload=f"{f.workload}, 1 clients") for f in figures if f.workload in ("adds", "reads")]
    many = [figure for figure in figures if figure.workload.endswith(" clients")]
    ours = [figure for figure in from_one if figure.contender == TODOMQ]
    if not many:
        return None
    return _lines([*ours, *many], r"(?P<law>\w+), (?P<count>\d+) clients", "Requests per second, by the number of "
                  "client processes", "client processes")  # fmt: skip


def _lines(figures: Sequence[Figure], pattern: str, title: str, across: str) -> Any:
    lines: dict[str, list[tuple[int, float]]] = {}
    for figure in figures:
        found = re.fullmatch(pattern, figure.workload)
        if found:
            named = found.groupdict() or {"count": found[1], "law": found[2]}
            lines.setdefault(named["law"], []).append((int(named["count"].replace(",", "")), figure.median))
    if not lines:
        return None
    shape, axes = _axes(title, 8)
    for colour, (name, points) in zip((OURS, SECOND), lines.items()):
        points.sort()
        axes.plot(*zip(*points), marker="o", color=colour, label=name)
    axes.set_xscale("log")
    counts = sorted({count for points in lines.values() for count, _ in points})
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    return shape


def _recovery(figures: Sequence[Figure], _: Sequence[Outcome]) -> Any:
    """Bars: how long after a kill everything is answered."""
    chosen = [figure for figure in figures if figure.workload.startswith("answered again")]
    if not chosen:
        return None
    shape, axes = _axes("Milliseconds from kill -9 until an add to each of 64 lists is answered", len(chosen))
    bars = axes.barh([figure.contender.replace("_", " ") for figure in chosen], [f.median for f in chosen], color=OURS)
    axes.bar_label(bars, [f"{figure.median:.0f}" for figure in chosen], padding=3, fontsize=9)
    axes.invert_yaxis()
    return shape


def _goals(_: Sequence[Figure], outcomes: Sequence[Outcome]) -> Any:
    """Bars: each ratio as a share of what is asked; turned round where less is better, so that right is good."""
    chosen = [outcome for outcome in outcomes if outcome.goal.asked is not None]
    if not chosen:
        return None
    shape, axes = _axes("Share of what is asked; longer is better", len(chosen))
    shares = [outcome.share for outcome in chosen]
    bars = axes.barh(
        [outcome.goal.text for outcome in chosen], shares, color=[OURS if share >= 1 else SECOND for share in shares]
    )
    for label in axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=3, fontsize=9):
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # the line at 1 goes behind it
    axes.axvline(1, color="black", linewidth=1, zorder=0)
    axes.set_xlim(0, max(shares) * 1.12)
    axes.invert_yaxis()
    return shape


def _thousands(figure: Figure) -> str:
    return f"{figure.median:,.0f}"


def _ms(figure: Figure) -> str:
    p99 = "" if figure.p99_ms is None else f"  (p99 {figure.p99_ms:.2f})"
    return f"{figure.median:.3f}{p99}"


PLOTS: dict[str, Callable[[Sequence[Figure], Sequence[Outcome]], Any]] = {
    "throughput.png": _throughput,
    "latency.png": _alone,
    "cpu.png": _cpu,
    "lists.png": _lists,
    "clients.png": _clients,
    "recovery.png": _recovery,
    "goals.png": _goals,
}
