"""What TodoMQ's client processes do; each function runs in a fresh process and uses the public client only.

Owns: which requests a load is made of. Must not know: how a stack is run, what becomes of the figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import accumulate

from benchmarks.loads import Begin, Load, keep_in_flight, one_at_a_time
from benchmarks.plan import DAY, IN_FLIGHT, LISTS, TITLE
from todomq import Client

DEADLINE_S = 30.0
BATCH = 100
ZIPF_EXPONENT = 0.99
CHOICES = 200_000
FILL_BATCH = 1_000
SHORT_LISTS = 50
SHORT_ENTRIES = 10
WARM = 50


def pipelined(
    begin: Begin, endpoint: str, prefix: str, seconds: float, adds_of_ten: int, in_flight: int = IN_FLIGHT
) -> Load:
    """Of each ten requests so many adds over 1,000 lists, the others reads of a day's one entry; all are loaded."""
    with Client(endpoint, deadline_s=DEADLINE_S) as todo, todo.pipeline() as pipeline:
        adds = [pipeline.todo_list(f"{prefix} add {number}").add_entry for number in range(LISTS)]
        reads = [pipeline.todo_list(f"{prefix} read {number}").entries for number in range(LISTS)]
        filled = [pipeline.todo_list(f"{prefix} read {number}").add_entry for number in range(LISTS)]
        fill = (*(filled if adds_of_ten < 10 else ()), *(adds if adds_of_ten else ()))
        for future in [add(TITLE, DAY) for add in fill]:
            future.result()
        begin()
        if adds_of_ten == 10:
            return keep_in_flight(lambda number: adds[number % LISTS](TITLE), seconds, in_flight)
        if adds_of_ten == 0:
            return keep_in_flight(lambda number: reads[number % LISTS](DAY), seconds, in_flight)
        return keep_in_flight(
            lambda number: adds[number % LISTS](TITLE) if number % 10 < adds_of_ten else reads[number % LISTS](DAY),
            seconds, in_flight,
        )  # fmt: skip


def batches(begin: Begin, endpoint: str, seconds: float) -> Load:
    """``add_entries`` of 100 over 1,000 lists; ``requests`` of the result counts entries."""
    entries = [(TITLE, None)] * BATCH
    with Client(endpoint, deadline_s=DEADLINE_S) as todo, todo.pipeline() as pipeline:
        adds = [pipeline.todo_list(f"batch {number}").add_entries for number in range(LISTS)]
        for future in [add([TITLE]) for add in adds]:
            future.result()
        begin()
        load = keep_in_flight(lambda number: adds[number % LISTS](entries), seconds, IN_FLIGHT)
    return load._replace(requests=load.requests * BATCH)


def single(begin: Begin, endpoint: str, requests: int, is_add: bool) -> Load:
    """Adds, or reads of a day's one entry, one at a time over 1,000 lists that are loaded."""
    kind = "add" if is_add else "read"
    with Client(endpoint, deadline_s=DEADLINE_S) as todo:
        with todo.pipeline() as pipeline:
            for number in range(LISTS):
                pipeline.todo_list(f"single {kind} {number}").add_entry(TITLE, DAY)
        lists = [todo.todo_list(f"single {kind} {number}") for number in range(LISTS)]
        if is_add:
            one_at_a_time(lambda number: lists[number % LISTS].add_entry(TITLE), WARM)
            begin()
            waits_s = one_at_a_time(lambda number: lists[number % LISTS].add_entry(TITLE), requests)
        else:
            one_at_a_time(lambda number: lists[number % LISTS].entries(DAY), WARM)
            begin()
            waits_s = one_at_a_time(lambda number: lists[number % LISTS].entries(DAY), requests)
    return Load(requests, sum(waits_s), waits_s, 0.0)


def create(begin: Begin, endpoint: str, first: int, lists: int) -> Load:
    """Create lists by adding one entry to each, from the number ``first`` on."""
    with Client(endpoint, deadline_s=DEADLINE_S) as todo, todo.pipeline() as pipeline:
        pipeline.list_names("nothing begins so").result()
        begin()
        return keep_in_flight(
            lambda number: pipeline.todo_list(f"many {first + number}").add_entry(TITLE), 1e9, IN_FLIGHT, lists
        )


def spread(begin: Begin, endpoint: str, lists: int, is_zipf: bool, seconds: float) -> Load:
    """Adds over the first so many of the created lists, drawn at random."""
    names = [f"many {number}" for number in _choices(lists, is_zipf)]
    with Client(endpoint, deadline_s=DEADLINE_S) as todo, todo.pipeline() as pipeline:
        for future in [pipeline.todo_list(name).add_entry(TITLE) for name in names[:IN_FLIGHT]]:
            future.result()
        begin()
        return keep_in_flight(
            lambda number: pipeline.todo_list(names[number % CHOICES]).add_entry(TITLE), seconds, IN_FLIGHT
        )


def fill_long(begin: Begin, endpoint: str, entries: int) -> Load:
    """Fill one list with entries that have no date, then with as many of each day of ``DAYS`` as it names."""
    with Client(endpoint, deadline_s=DEADLINE_S) as todo, todo.pipeline() as pipeline:
        begin()
        long = pipeline.todo_list("long")
        step = [(TITLE, None)] * FILL_BATCH
        load = keep_in_flight(lambda number: long.add_entries(step), 1e9, 50, entries // FILL_BATCH)
        for count, day in DAYS.items():
            long.add_entries([(TITLE, day)] * count).result()
    return load._replace(requests=load.requests * FILL_BATCH)


DAYS = {count: DAY.replace(day=2 + place) for place, count in enumerate((1, 10, 100, 1_000))}
"""The day on which the long list has so many entries."""


def add_to_long(begin: Begin, endpoint: str, requests: int) -> list[list[float]]:
    """Add one at a time, in turn to a list of about ten entries and to the long one; return the waits of each."""
    with Client(endpoint, deadline_s=DEADLINE_S) as todo:
        short = [todo.todo_list(f"short {number}") for number in range(SHORT_LISTS)]
        for handle in short:
            handle.add_entries([(TITLE, None)] * SHORT_ENTRIES)
        long = todo.todo_list("long")
        long.add_entry(TITLE)
        begin()
        waits_s: list[list[float]] = [[], []]
        for number in range(min(requests, SHORT_LISTS * SHORT_ENTRIES)):
            waits_s[0] += one_at_a_time(lambda _, number=number: short[number % SHORT_LISTS].add_entry(TITLE), 1)  # type: ignore[misc]
            waits_s[1] += one_at_a_time(lambda _: long.add_entry(TITLE), 1)
    return waits_s


def read_long(begin: Begin, endpoint: str, requests: int) -> dict[int, list[float]]:
    """Read days of the long list, one at a time; return the waits by the number of entries of the day."""
    with Client(endpoint, deadline_s=DEADLINE_S) as todo:
        long = todo.todo_list("long")
        begin()
        waits_s = {}
        for count, day in DAYS.items():
            if len(long.entries(day)) != count:
                raise RuntimeError("the long list does not hold what was added")
            waits_s[count] = one_at_a_time(lambda _, day=day: long.entries(day), requests)  # type: ignore[misc]
    return waits_s


def answers_after(endpoint: str, lists: int, begun_s: float) -> float:
    """Add to each list at once and return the seconds from ``begun_s`` (of ``perf_counter``) to the last answer."""
    with Client(endpoint, deadline_s=DEADLINE_S) as todo, todo.pipeline() as pipeline:
        for number in range(lists):
            pipeline.todo_list(f"recovery {number}").add_entry(TITLE)
    return time.perf_counter() - begun_s


def _choices(lists: int, is_zipf: bool) -> Sequence[int]:
    chooser = random.Random(lists)
    if not is_zipf:
        return [chooser.randrange(lists) for _ in range(CHOICES)]
    weights = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, lists + 1)))
    return chooser.choices(range(lists), cum_weights=weights, k=CHOICES)
