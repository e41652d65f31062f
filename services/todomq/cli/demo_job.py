"""What ``todomq demo`` does on a running stack: lists are made, parts are killed, every promise is checked.

Owns: the steps, the measurements, the check of every promise. Must not know: the command line, how a report looks.
A promise is an add whose answer came. At the end each promised entry must be there, once, in its list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from todomq.cli.asking import first_failure
from todomq.cli.command import INTERRUPTS
from todomq.cli.connection import connect
from todomq.cli.demo_report import Memory, Report
from todomq.cli.formats import read_todo_txt
from todomq.cli.killing import kill_daemon
from todomq.cli.progress import Advance, Bars, bars
from todomq.cli.show import name_of, safe
from todomq.cli.stack_parts import resident_bytes
from todomq.cli.transfer import Format, lines_of, store
from todomq.client.client import Client
from todomq.client.values import Via
from todomq.errors import TodoMQError, Unauthorized
from todomq.settings import Settings

DEADLINE_S = 60.0
REMOVAL_S = 10.0
STEP = 250
VICTIMS: tuple[list[str | int], ...] = (["database_worker", 1], ["cache"])

OWN_SAMPLE = b"""\
(A) call the plumber +house @phone due:2026-12-01
x 2026-11-20 2026-11-02 book the hall for the choir +choir
(B) 2026-11-03 write the minutes +choir @desk
milk, bread & "the good" coffee
water the plants rec:1w t:2026-11-28 due:2026-11-30 +house
"""


def run(settings: Settings, lists: int, sample: Path | None, victims: Sequence[list[str | int]], keep: bool) -> Report:
    """Make lists, kill parts of the stack meanwhile, check every promise.

    Args:
        settings: the stack's.
        lists: how many lists to create.
        sample: the todo.txt file to import; None for a sample of our own.
        victims: the daemons to kill while the lists are created.
        keep: whether to leave the lists there.

    Raises:
        TodoMQError: the stack does not answer, or the sample's export is not what was imported.
    """
    promises = Promises(lists, prefix=f"demo/{time.time_ns():x}/")
    with connect() as todo:  # which takes little time if nobody is there
        todo.todo_list(f"{promises.prefix}sample").size()
    with bars() as shown, connect(DEADLINE_S) as todo, _tidying(todo, promises, keep, shown):
        imported = _import_sample(todo, f"{promises.prefix}sample", sample, shown)
        before = _memory(todo, settings)
        created_s, killed = _create(todo, promises, victims, shown)
        after = _memory(todo, settings)
        checked_s = _check(todo, promises, shown)
    return Report(lists, imported, promises.made, promises.broken, created_s, checked_s, killed, before, after)


class Promises:
    """Which of the adds were promised, by the number of their list; and what became of the others.

    Attributes:
        begun: how many lists may be there: those with lower numbers.
    """

    def __init__(self, total: int, prefix: str) -> None:
        self.prefix = prefix
        self.ids: list[int | None] = [None] * total
        self.begun = 0
        self.broken = 0

    def note(self, number: int) -> Callable[[Future[Any]], None]:
        """Return the function that takes the answer to the add to list ``number``."""

        def take(future: Future[Any]) -> None:
            if future.exception() is None:
                self.ids[number] = future.result().id

        return take

    def check(self, number: int) -> Callable[[Future[Any]], None]:
        """Return the function that compares the entries of list ``number`` with the promise."""

        def take(future: Future[Any]) -> None:
            found = None if future.exception() else [(entry.id, entry.title) for entry in future.result()]
            if self.ids[number] is not None and found != [(self.ids[number], title_of(number))]:
                self.broken += 1

        return take

    @property
    def made(self) -> int:
        """How many adds were promised."""
        return sum(identifier is not None for identifier in self.ids)


class _Counter:
    """Counts answers for a bar: moving the bar for each of them would cost too much."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self.count = 0

    def __call__(self, _: Future[Any]) -> None:
        self.count += 1
        if self.count % STEP == 0:
            self._advance(STEP)

    def finish(self) -> None:
        self._advance(self.count % STEP)


def title_of(number: int) -> str:
    """Return the title of the one entry of list ``number``."""
    return f"what list {number} is for"


def _import_sample(todo: Client, list_name: str, sample: Path | None, shown: Bars) -> int:
    """Import the file, or our own sample, and check that its export gives back every line that is not blank."""
    content = sample.read_bytes() if sample else OWN_SAMPLE
    fields = list(read_todo_txt(content.splitlines(keepends=True)))
    store(todo, list_name, fields, shown("storing the sample", len(fields)))
    exported = b"".join(lines_of(todo.todo_list(list_name).entries(), Format.TODO_TXT))
    if exported.splitlines() != [line for line in content.splitlines() if line.strip()]:
        raise TodoMQError(f"the export of {list_name} is not what was imported")
    return len(fields)


def _create(
    todo: Client, promises: Promises, victims: Sequence[list[str | int]], shown: Bars
) -> tuple[float, list[str]]:
    """Create the lists; kill the victims one after the other, evenly spread over the way."""
    lists = len(promises.ids)
    counter = _Counter(shown("creating lists", lists))
    kill_at = {lists * (place + 1) // (len(victims) + 1): victim for place, victim in enumerate(victims)}
    killed: list[str] = []
    began_s = time.monotonic()
    # The kills have a client of their own: through the first they would wait behind all that is on its way.
    with connect() as killer, _failures_are_told(shown), todo.pipeline() as pipeline:
        for number in range(lists):
            if number in kill_at:
                killed += _kill(killer, kill_at[number], shown)
            promises.begun = number + 1
            future = pipeline.todo_list(f"{promises.prefix}{number}").add_entry(title_of(number))
            future.add_done_callback(promises.note(number))
            future.add_done_callback(counter)
    counter.finish()
    return time.monotonic() - began_s, killed


def _kill(killer: Client, victim: list[str | int], shown: Bars) -> list[str]:
    """Kill a daemon and return it with its pid; if it can't be killed, say why and return nothing."""
    try:
        return [f"{name_of(victim)} (pid {kill_daemon(killer, victim)})"]
    except TodoMQError as error:
        shown.tell(f"{name_of(victim)} was not killed: {safe(error.text)}")
        return []


def _check(todo: Client, promises: Promises, shown: Bars) -> float:
    """Read every list and compare it with its promise; return the seconds that it took."""
    counter = _Counter(shown("reading them all", len(promises.ids)))
    began_s = time.monotonic()
    with _failures_are_told(shown), todo.pipeline() as pipeline:
        for number in range(len(promises.ids)):
            future = pipeline.todo_list(f"{promises.prefix}{number}").entries()
            future.add_done_callback(promises.check(number))
            future.add_done_callback(counter)
    counter.finish()
    return time.monotonic() - began_s


@contextmanager
def _tidying(todo: Client, promises: Promises, keep: bool, shown: Bars) -> Iterator[None]:
    """Remove the lists in the end, whatever ends the work, unless they are to be kept."""
    try:
        yield
    except INTERRUPTS:
        shown.tell(f"interrupted; the lists {f'are kept under {promises.prefix}' if keep else 'are being removed'}")
        raise
    finally:
        if not keep:
            _remove(todo, promises, shown)


def _remove(todo: Client, promises: Promises, shown: Bars) -> None:
    """Remove what was created; if that is not possible, say what is left and how to remove it."""
    names = [f"{promises.prefix}sample", *(f"{promises.prefix}{number}" for number in range(promises.begun))]
    counter = _Counter(shown("removing them", len(names)))

    def take(future: Future[Any]) -> None:
        if isinstance(future.exception(), Unauthorized | None):  # who may not delete could not add either
            counter(future)

    try:
        with _failures_are_told(shown), todo.pipeline() as pipeline:
            for name in names:
                pipeline.todo_list(name).delete(deadline_s=REMOVAL_S).add_done_callback(take)
    finally:
        counter.finish()
        if counter.count < len(names):
            shown.tell(f"lists are left; remove them: todomq lists {promises.prefix} | xargs -r -n 1 todomq drop --yes")


@contextmanager
def _failures_are_told(shown: Bars) -> Iterator[None]:
    """Go on where requests of a pipeline failed: the promises say which."""
    try:
        yield
    except* TodoMQError as failures:
        shown.tell(f"some requests failed, the first with: {safe(str(first_failure(failures)))}")


def _memory(todo: Client, settings: Settings) -> dict[str, Memory]:
    """Return what each daemon of this machine holds in memory."""
    found = {}
    for name in settings.daemon_names():
        stats = todo.call(Via(name), "stats")
        held = resident_bytes(stats["pid"])
        if held is not None:
            found[name_of(name)] = Memory(stats["pid"], *held, stats.get("lists", 0))
    return found
