"""``todomq demo``: its options; what it does is in ``demo_job.py``.

Owns: the options. Must not know: the steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from todomq.cli.command import Result, command
from todomq.cli.exit_codes import DONE, REFUSED
from todomq.errors import Unavailable
from todomq.settings import read_settings


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    command(app)(demo)


def demo(
    lists: Annotated[int, typer.Option("--lists", metavar="N", min=1, help="How many lists to create.")] = 100_000,
    sample: Annotated[
        Path | None,
        typer.Option("--sample", metavar="FILE", exists=True, dir_okay=False, help="Another todo.txt to import."),
    ] = None,
    kills: Annotated[bool, typer.Option(help="Kill a database worker and the cache on the way.")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lists there.", show_default=False)] = False,
) -> Result:
    """Try the stack: make lists, kill parts of it, check every promise.

    It imports a todo.txt, creates lists of one durable entry each, says how fast that went and what it costs in
    memory, and reads everything again. The exit code is 1 if anything that was promised is missing.

    Example: todomq demo --lists 10000
    """
    from todomq.cli import demo_job
    from todomq.supervision.manager import ANSWERS, Manager

    settings = read_settings()
    if kills and Manager(settings).state() != ANSWERS:
        raise Unavailable(
            f"no stack of {settings.home} would start again what the demo kills: todomq up starts one, and with "
            "--no-kills any other will do"
        )
    report = demo_job.run(settings, lists, sample, demo_job.VICTIMS if kills else (), keep)
    return Result(report.value(), report.show, DONE if report.is_good else REFUSED)
