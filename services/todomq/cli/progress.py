"""Progress bars on standard error, where a person can see them, and what is said while they are there.

Owns: how they look. Must not know: what is done. Imported on first use only, for rich takes its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from todomq.cli.show import console

Advance = Callable[[int], None]
Begin = Callable[[str, int], Advance]
"""Begins a step of the work: what it is called and how much there is; the result takes what has been done of it."""


_screens: list[Console] = []
"""The console of the bars that are shown now."""


@contextmanager
def bars(transient: bool = False) -> Iterator[Begin]:
    """Give what begins a step; each step has a bar. ``transient`` ones are removed in the end."""
    columns = (
        TextColumn("{task.description:<18}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    screen = console(stderr=True)
    with Progress(*columns, console=screen, transient=transient, disable=not screen.is_terminal) as progress:

        def begin(what: str, total: int) -> Advance:
            task = progress.add_task(what, total=total)
            return lambda count: progress.advance(task, count)

        _screens.append(screen)
        try:
            yield begin
        finally:
            _screens.pop()


def tell(text: str) -> None:
    """Say something on standard error; above the bars, where there are any."""
    screen = _screens[-1] if _screens else console(stderr=True)
    screen.print(text, soft_wrap=True)
