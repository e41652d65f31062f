"""Progress bars on standard error, where a person can see them, and what is said while they are there.

Owns: how they look. Must not know: what is done. Imported on first use only, since rich takes long to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from todomq.cli.show import console

Advance = Callable[[int], None]
Begin = Callable[[str, int], Advance]
"""Begins a step of the work: takes its name and how much there is to do; the result is told how much has been done."""


class Bars:
    """The bars of one command."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, what: str, total: int) -> Advance:
        """Begin a step, as ``Begin`` has it."""
        task = self._progress.add_task(what, total=total)
        return lambda count: self._progress.advance(task, count)

    def tell(self, text: str) -> None:
        """Say something above the bars."""
        self._progress.console.print(text, soft_wrap=True)


@contextmanager
def bars(transient: bool = False) -> Iterator[Bars]:
    """Give the bars, which are called to begin a step; each step has one. ``transient`` ones are removed in the end."""
    columns = (
        TextColumn("{task.description:<18}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    screen = console(stderr=True)
    with Progress(*columns, console=screen, transient=transient, disable=not screen.is_terminal) as progress:
        yield Bars(progress)
