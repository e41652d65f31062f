"""``todomq backup``, ``restore`` and ``verify``: their arguments, and how what they found looks.

Owns: the commands, the choice between a running and a stopped stack. Must not know: how it is done (``todomq.backup``).
"""

from __future__ import annotations

import shlex
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from todomq.backup import NOT_READ
from todomq.cli.command import Result, command
from todomq.cli.connection import connect
from todomq.cli.exit_codes import DONE, REFUSED, UNREACHABLE
from todomq.cli.show import coloured, counted, safe, size
from todomq.errors import CorruptRecord, InvalidRequest, TodoMQError, Unavailable
from todomq.settings import Settings, read_settings

if TYPE_CHECKING:
    from todomq.backup.contents import Problem
    from todomq.backup.verify import Report, ShardReport
    from todomq.cli.progress import Begin

BackupDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The backup's directory.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for function in (backup, restore, verify):
        command(app)(function)


def backup(directory: BackupDirectory) -> Result:
    """Back up the running stack.

    The directory is empty or does not exist yet. Nothing stops meanwhile. Every change that was acknowledged before is
    in the backup, and each list is as it was at one moment. Run it on the machine of the stack.

    Example: todomq backup /backups/2026-12-01
    """
    from todomq.backup.take import take_backup
    from todomq.cli.progress import bars

    settings = read_settings()
    with bars(transient=True) as begin, connect(endpoint=settings.address("router")) as todo:
        taken = take_backup(todo, settings.data, directory.absolute(), begin)
    held = f"{counted(taken.pool_size, 'shard')}, {counted(len(taken.files), 'file')}, {size(taken.bytes)}"
    value = {"directory": str(directory.absolute()), "shards": taken.pool_size, "files": len(taken.files),
             "bytes": taken.bytes, "made_at": taken.made_at}  # fmt: skip
    check = f"todomq verify {safe(shlex.quote(str(directory)))}"
    return Result(value, f"Backed up to {safe(str(directory))}: {held}. Check it with: {check}")


def restore(
    directory: BackupDirectory,
    worker: Annotated[
        int | None, typer.Option("--worker", metavar="N", min=1, help="Only the shard of this database worker.")
    ] = None,
) -> Result:
    """Restore a backup into a home without data; the stack must be down.

    With --worker one shard takes the place of a damaged one, which is kept beside it; the lists of the other shards
    stay as they are.

    Example: todomq restore /backups/2026-12-01
    """
    from todomq.backup.restore import restore_all, restore_worker
    from todomq.cli.progress import bars

    settings = read_settings()
    source = _existing(directory)
    with bars(transient=True) as begin:
        if worker is not None:
            kept = restore_worker(source, settings, worker, begin)
            replaced = None if kept is None else str(kept)
            value: dict[str, Any] = {"data": str(settings.data), "worker": worker, "replaced": replaced}
            before = "" if kept is None else f"; the one before is kept as {safe(str(kept))}"
            return Result(value, f"The shard of database_worker {worker} is restored{before}.")
        restored = restore_all(source, settings, begin)
    value = {"data": str(settings.data), "shards": restored.pool_size, "made_at": restored.made_at}
    text = f"The backup of {restored.made_at} is restored to {safe(str(settings.data))}. Start it with: todomq up"
    if restored.pool_size != settings.database_workers:
        text += f"\nIt has {counted(restored.pool_size, 'shard')}: set TODOMQ_DATABASE_WORKERS={restored.pool_size}"
    return Result(value, text)


def verify(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A backup; else this machine's stack.", show_default=False)
    ] = None,
) -> Result:
    """Read every record, and say what is wrong.

    The records are those of a backup, or of this machine's stack, running or stopped. The exit code is 0 if nothing is
    wrong, 1 if something is damaged, 2 if you may not read it, 3 if nothing is found damaged but something can't be
    read at the moment, for instance because a worker of a running stack does not answer.

    Example: todomq verify /backups/2026-12-01
    """
    from todomq.backup.verify import verify_backup
    from todomq.cli.progress import bars

    with bars(transient=True) as begin:
        if directory is not None:
            report = verify_backup(_existing(directory), begin)
        else:
            report = _verify_stack(read_settings(), begin)
    return _report_result(report)


KINDS_SHOWN = 3
ENDS = {"ok": "every record can be read", NOT_READ: "could not read everything", "damaged": "something is wrong"}
CODES = {"ok": DONE, NOT_READ: UNREACHABLE, "damaged": REFUSED}


def _verify_stack(settings: Settings, begin: Begin) -> Report:
    from todomq.backup.checkpoints import checkpoints
    from todomq.backup.contents import Problem, problem_of
    from todomq.backup.verify import Report, ShardReport, missing_of, verify_data, verify_shard
    from todomq.database_worker.storage.manifest import check_noted, read_manifest, shard_name

    if not settings.data.exists():
        check_noted(settings.data, settings.note_of_data)
        raise InvalidRequest(f"{settings.data} does not exist: there is no stack in {settings.home}, nor was one")
    if not _is_running(settings):
        report = verify_data(settings.data, begin)
        try:
            check_noted(settings.data, settings.note_of_data)
        except CorruptRecord as error:
            if not report.problems or not report.shards:  # otherwise it has been said already
                report.problems[:] = [Problem(str(settings.data), "", error.text)]
        return report
    manifest = read_manifest(settings.data)
    shards = []
    with connect(endpoint=settings.address("router")) as todo, checkpoints(todo, settings.data) as made:
        for worker, checkpoint in made.items():
            if isinstance(checkpoint, TodoMQError):
                shards.append(ShardReport(worker, {}, [problem_of(settings.data / shard_name(worker), checkpoint)]))
            else:
                found = verify_shard(checkpoint, worker, manifest["stack"], manifest["pool_size"], begin)
                shard = settings.data / shard_name(worker)
                problems = [*missing_of(shard), *(_of_shard(problem, checkpoint, shard) for problem in found.problems)]
                shards.append(found._replace(problems=problems))
    return Report(str(settings.data), [], shards)


def _of_shard(problem: Problem, checkpoint: Path, shard: Path) -> Problem:
    """Return a checkpoint's problem as one of its shard: they share their files, and the checkpoint is soon gone."""
    where, text = (words.replace(str(checkpoint), str(shard)) for words in (problem.where, problem.text))
    return problem._replace(where=where, text=text)


def _is_running(settings: Settings) -> bool:
    """Tell whether a database worker of the stack runs: one that does holds the lock on its name."""
    import os

    from todomq.runtime import locks

    for path in settings.run.glob("database_worker-*.lock"):
        try:
            os.close(locks.hold(path, 0.0))
        except Unavailable:
            return True
    return False


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        name = safe(str(directory))
        raise typer.BadParameter(f"{name} is no directory" if directory.exists() else f"there is no directory {name}")
    return directory.absolute()


def _report_result(report: Report) -> Result:
    from todomq.backup.verify import report_value

    state = _state([*report.problems, *chain(*(shard.problems for shard in report.shards))])
    lines = _problem_lines(report.problems)
    for shard in report.shards:
        lines.append(f"{coloured(f'{_state(shard.problems):<8}', not shard.problems)}  {_held(shard)}")
        lines += [f"          {line}" for line in _problem_lines(shard.problems)]
        if shard.problems_more:
            lines.append(f"          and {shard.problems_more:,} more")
    lines.append(f"{safe(report.where)}: {ENDS[state]}.")
    return Result(report_value(report), "\n".join(lines), CODES[state])


def _state(problems: list[Problem]) -> str:
    """Return what the problems amount to: if something just could not be read, that may pass and is not damage."""
    if not problems:
        return "ok"
    return NOT_READ if all(problem.kind == NOT_READ for problem in problems) else "damaged"


def _held(shard: ShardReport) -> str:
    if not shard.counts:  # it was not opened
        return f"database_worker {shard.worker}"
    nouns = {"lists": "list", "entries": "entry", "sessions": "session", "values": "value"}
    held = ", ".join(counted(shard.counts[kind], noun, kind) for kind, noun in nouns.items())
    deleted = shard.counts["deleted"]
    whose = "its" if deleted == 1 else "their"
    swept = f"; {counted(deleted, 'deleted list')} not swept yet: {whose} entries and sessions are counted"
    return f"database_worker {shard.worker}  {held}{swept if deleted else ''}"


def _problem_lines(problems: list[Problem]) -> list[str]:
    """Return a line for each problem, but one for the same problem of several kinds of records: one block held them."""
    lines = []
    for (where, text), same in groupby(problems, key=lambda problem: (problem.where, problem.text)):
        kinds = [problem.kind for problem in same if problem.kind]
        more = f" and {len(kinds) - KINDS_SHOWN:,} kinds more" if len(kinds) > KINDS_SHOWN else ""
        kind = f"{', '.join(kinds[:KINDS_SHOWN])}{more}: " if kinds else ""
        lines.append(f"{'' if text.startswith(where) else f'{safe(where)}: '}{kind}{safe(text)}")
    return lines
