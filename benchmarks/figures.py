"""What was measured: single measurements, and the figures that several rounds of them give.

Owns: ``Measurement``, ``Figure``, medians and quantiles. Must not know: who measured, how it is shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

RATE = "/s"
MS = "ms"
CPU = "CPU s per million"
BYTES = "bytes"
FILES = "files"


class Measurement(NamedTuple):
    """One measurement of one round.

    Attributes:
        workload: what was done, such as ``adds``.
        contender: who did it, such as ``TodoMQ``.
        promise: what an answer promises, such as ``durable``.
        value: in ``unit``.
        unit: one of this module's.
        p99_ms: how long the slowest hundredth of the requests took at least, or None.
    """

    workload: str
    contender: str
    promise: str
    value: float
    unit: str
    p99_ms: float | None = None


class Figure(NamedTuple):
    """What all rounds say of one workload and contender; the fields are as in ``Measurement``."""

    workload: str
    contender: str
    promise: str
    unit: str
    rounds: list[float]
    p99_ms: float | None

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)


def figures_of(measurements: Iterable[Measurement]) -> list[Figure]:
    """Gather measurements of several rounds, in the order in which each was first seen."""
    gathered: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        gathered.setdefault((measurement.workload, measurement.contender), []).append(measurement)
    return [_figure(group) for group in gathered.values()]


def _figure(group: list[Measurement]) -> Figure:
    first = group[0]
    slowest = [measurement.p99_ms for measurement in group if measurement.p99_ms is not None]
    return Figure(
        first.workload, first.contender, first.promise, first.unit,
        [measurement.value for measurement in group], statistics.median(slowest) if slowest else None,
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def rate(
    workload: str, contender: str, promise: str, requests: float, seconds: float, waits_s: Sequence[float] = ()
) -> Measurement:
    """Return a measurement of throughput; ``waits_s`` are the times that requests were in flight, or some of them."""
    p99_ms = quantile(waits_s, 0.99) * 1000 if waits_s else None
    return Measurement(workload, contender, promise, requests / seconds, RATE, p99_ms)


def latency(workload: str, contender: str, promise: str, waits_s: Sequence[float]) -> Measurement:
    """Return a measurement of latency: its value is the median."""
    return Measurement(
        workload, contender, promise, statistics.median(waits_s) * 1000, MS, quantile(waits_s, 0.99) * 1000
    )
