"""Loads: requests kept in flight, or one at a time, in client processes that begin together.

Owns: the clock of a load, fresh processes, their start at one moment. Must not know: what is asked of whom.
Each load runs in a process of its own, so no measurement pays for the memory or the threads of one before it.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import BrokenBarrierError
from typing import Any, NamedTuple

STEP = 50
MOST_REQUESTS = 5_000_000
START_S = 120.0
RESULT_S = 600.0

_spawn = multiprocessing.get_context("spawn")


Begin = Callable[[], object]
"""What a load calls when it is ready: returns when all are."""
AtStart = Callable[[], object]
"""What is called when all loads begin."""


def nothing() -> None:
    """Do nothing at the start of a load."""


class Load(NamedTuple):
    """What became of a load.

    Attributes:
        requests: how many were answered.
        seconds: from the first request to the last answer.
        waits_s: how long requests took; of a pipelined load a sample.
        cpu_s: what the client process used meanwhile.
    """

    requests: int
    seconds: float
    waits_s: list[float]
    cpu_s: float


def keep_in_flight(
    begin_request: Callable[[int], Future[Any]], seconds: float, in_flight: int, most: int = MOST_REQUESTS
) -> Load:
    """Keep requests in flight for a time; each answer is looked at, so a refused one raises.

    Args:
        begin_request: begins the request of this number.
        seconds: after which no more are begun.
        in_flight: how many at most.
        most: how many in all.
    """
    steps: deque[tuple[float, list[Future[Any]]]] = deque()
    waits_s: list[float] = []
    step = max(1, min(STEP, in_flight // 10))
    number = 0
    cpu_s = time.process_time()
    began_s = now_s = time.perf_counter()
    while number < most and now_s - began_s < seconds:
        numbers = range(number, min(number + step, most))
        steps.append((now_s, [begin_request(each) for each in numbers]))
        number = numbers.stop
        while (len(steps) + 1) * step > in_flight:
            _look_at(steps.popleft(), waits_s)
        now_s = time.perf_counter()
    while steps:
        _look_at(steps.popleft(), waits_s)
    return Load(number, time.perf_counter() - began_s, waits_s, time.process_time() - cpu_s)


def _look_at(step: tuple[float, list[Future[Any]]], waits_s: list[float]) -> None:
    """Wait for the results of a step; note when that of its first request was there to be looked at."""
    step_began_s, (first, *others) = step
    first.result()
    waits_s.append(time.perf_counter() - step_began_s)
    for future in others:
        future.result()


def in_rounds(exchange: Callable[[], int], seconds: float) -> Load:
    """Repeat an exchange of many requests at once, which returns how many; ``waits_s`` are those of the exchanges."""
    waits_s: list[float] = []
    requests = 0
    cpu_s = time.process_time()
    began_s = now_s = time.perf_counter()
    while now_s - began_s < seconds:
        requests += exchange()
        now_s, before_s = time.perf_counter(), now_s
        waits_s.append(now_s - before_s)
    return Load(requests, now_s - began_s, waits_s, time.process_time() - cpu_s)


def one_at_a_time(ask: Callable[[int], object], requests: int) -> list[float]:
    """Ask one request after another; return how long each took, in seconds."""
    waits_s = []
    for number in range(requests):
        began_s = time.perf_counter()
        ask(number)
        waits_s.append(time.perf_counter() - began_s)
    return waits_s


def in_clients(work: Callable[..., Load], arguments: Sequence[tuple[Any, ...]], at_start: AtStart = nothing) -> Load:
    """Run ``work(begin, *arguments)`` in one fresh process for each tuple of arguments; return the sum of the loads.

    The seconds are those of the slowest.
    """
    loads: list[Load] = run_together(work, arguments, at_start)
    return Load(
        sum(load.requests for load in loads),
        max(load.seconds for load in loads),
        [wait_s for load in loads for wait_s in load.waits_s],
        sum(load.cpu_s for load in loads),
    )


def run_together(
    work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], at_start: AtStart = nothing
) -> list[Any]:
    """Run ``work`` in fresh processes that begin at one moment; return what each returned.

    ``at_start`` runs here at that moment.

    Raises:
        RuntimeError: one of them failed, or took too long.
    """
    ready = _spawn.Barrier(len(arguments) + 1)
    children = []
    try:
        for each in arguments:
            ours, theirs = _spawn.Pipe()
            child = _spawn.Process(target=_run, args=(theirs, ready, work, each), daemon=True)
            child.start()
            theirs.close()
            children.append((child, ours))
        with suppress(BrokenBarrierError):  # one of them failed and says why
            ready.wait(START_S)
            at_start()
        results = [_result(ours) for _, ours in children]
    finally:
        for child, _ in children:
            child.join(5.0)
            if child.is_alive():
                child.kill()
                child.join()
    faults = [fault for fault, _ in results if fault]
    if faults:  # the others only heard that somebody had failed
        raise RuntimeError(next((fault for fault in faults if "BrokenBarrier" not in fault), faults[0]))
    return [value for _, value in results]


def _result(connection: Connection) -> tuple[str, Any]:
    if not connection.poll(RESULT_S):
        return "a load did not end in time", None
    try:
        fault, value = connection.recv()
    except EOFError:
        return "the process of a load ended early", None
    return fault, value


def _run(connection: Connection, ready: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        value = work(lambda: ready.wait(START_S), *arguments)
    except BaseException as error:  # told to the parent, which raises it
        ready.abort()
        connection.send((f"{work.__name__}: {error!r}", None))
    else:
        connection.send(("", value))
