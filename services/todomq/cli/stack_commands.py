"""The commands on the stack itself: up, down, restart, status, logs, run.

Owns: their options, what a person is told, that only one at a time starts or stops a stack. Must not know: how it is
done (``supervision/stack.py``).
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from todomq.cli.command import INTERRUPTS, Result, command
from todomq.cli.exit_codes import DONE, REFUSED, UNREACHABLE
from todomq.cli.lists import Yes
from todomq.cli.show import duration, is_terminal, name_of, safe, say
from todomq.cli.stack_parts import STANDS_STILL
from todomq.daemons import name_of_process
from todomq.errors import CorruptRecord, TodoMQError, Unavailable
from todomq.runtime.local_process import is_stopped

if TYPE_CHECKING:
    from todomq.supervision.manager import Process
    from todomq.supervision.stack import Stack

LOG_LINES = 20
READ_BYTES = 1 << 16
PREFIX = "TODOMQ_"

NEXT = """\
TodoMQ is up; its home is {home}. Try:
  {todomq} add "Bob's list" dentist --date 2026-12-01
  {todomq} ls "Bob's list"
  {todomq} probe tree
  {todomq} status, logs, demo, down"""


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for function in (up, down, restart, status, logs, run):
        command(app)(function)


def up() -> Result:
    """Start the stack in the background, unless it runs. Returns once a real add and read have gone through.

    Example: todomq up
    """
    from todomq.cli.health import wait_healthy

    stack = _stack()
    with _told_if_interrupted("what has begun to start goes on"), _alone(stack):
        ran = not stack.start()
        wait_healthy(stack, say=_say)
        not_taken = stack.settings_not_taken()
    home, unknown = str(stack.settings.home), stack.unknown_variables()
    value = {"running": True, "ran": ran, "home": home, "settings_not_taken": not_taken, "unknown_variables": unknown}
    if ran:
        text = f"TodoMQ was up already; its home is {safe(home)}{_not_taken_text(not_taken)}"
    else:
        text = NEXT.format(home=safe(home), todomq=_this_command())
    return Result(value, "\n".join([text, *_unknown_lines(unknown)]))


def down(
    remove_data: Annotated[
        bool, typer.Option("--remove-data", help="Remove every stored list, too.", show_default=False)
    ] = False,
    yes: Yes = False,
) -> Result:
    """Stop the stack. Nothing of it runs afterwards, and its data stays.

    Example: todomq down
    """
    from todomq.database_worker.storage.manifest import MANIFEST, RESTORING, check_is_ours, remove_data_in

    stack = _stack()
    data = safe(str(stack.settings.data))
    if remove_data:
        check_is_ours(stack.settings.data)
    is_asked = remove_data and not yes and is_terminal(sys.stdin)
    if is_asked and not typer.confirm(f"Remove {data} with every list in it?"):
        return Result({"running": None, "removed": False}, "Nothing was changed.", REFUSED)
    if not stack.settings.home.exists() and stack.manager.living_pid() is None:
        home = safe(str(stack.settings.home))
        value = {"running": False, "ran": False, "removed": False}
        return Result(value, f"TodoMQ is not running; there is no {home}, so no data either.")
    with _told_if_interrupted("what has begun to stop goes on"), _alone(stack):
        ran = stack.stop()
        removed = remove_data and stack.settings.data.exists()
        if removed:
            remove_data_in(stack.settings.data)
        if remove_data:
            shutil.rmtree(stack.settings.data.with_name(RESTORING), ignore_errors=True)  # of a killed restore
            stack.settings.note_of_data.unlink(missing_ok=True)  # last: if interrupted, the same command goes on
    state = "down" if ran else "not running"
    value = {"running": False, "ran": ran, "removed": removed}
    if removed:
        return Result(value, f"TodoMQ is {state}; {data} and every list in it are removed.")
    has_data = (stack.settings.data / MANIFEST).exists()
    where = f"its data is in {data}" if has_data else f"there is no data in {data}"
    return Result(value, f"TodoMQ is {state}; {where}")


def restart() -> Result:
    """Restart one process after the other, each gracefully. Clients see a pause, and no error.

    The stack keeps the settings that it was started with.

    Example: todomq restart
    """
    from todomq.cli.health import wait_healthy
    from todomq.supervision.manager import ANSWERS

    stack = _stack()
    state = stack.manager.state()
    if state != ANSWERS:
        raise Unavailable(_nothing_runs(stack, state))
    with _told_if_interrupted("what was stopped is started; the others not named above run as before"), _alone(stack):
        stack.restart(partial(wait_healthy, stack, say=_say), _say)
        not_taken = stack.settings_not_taken()
    text = f"Every process is a new one, and the stack is healthy.{_not_taken_text(not_taken)}"
    return Result({"restarted": True, "settings_not_taken": not_taken}, text)


def status() -> Result:
    """Show the processes of the stack. Exit code 1 if one of them does not run, 3 if none does.

    Example: todomq status
    """
    from todomq.supervision import run_files
    from todomq.supervision.manager import ANSWERS, RUNNING

    stack = _stack()
    reason = stack.failure()
    state = stack.manager.state()
    if state != ANSWERS:
        stopped = f"TodoMQ is stopped: {safe(reason)}\n{_START_AGAIN}" if reason else safe(_nothing_runs(stack, state))
        return Result({"running": False, "reason": reason, "processes": []}, stopped, UNREACHABLE)
    try:
        counts = run_files.read_restarts(stack.settings.run)
    except CorruptRecord:
        counts = None  # the listener counts anew, and replaces the file at the next restart
    processes = stack.manager.processes()
    restarts = [None if counts is None else counts.get(process.name, 0) for process in processes]
    lines = [_status_line(process, count) for process, count in zip(processes, restarts)]
    values = [{**process._asdict(), "restarts": count} for process, count in zip(processes, restarts)]
    if reason is not None:
        lines.append(f"TodoMQ is stopping: {safe(reason)}")
    is_good = reason is None and all(process.state == RUNNING for process in processes)
    value = {"running": True, "reason": reason, "processes": values}
    return Result(value, "\n".join(lines), DONE if is_good else REFUSED)


_START_AGAIN = "todomq logs shows what led to it, todomq up starts it again."


def logs(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what is written.", show_default=False)
    ] = False,
) -> Result:
    """Show the last lines of every daemon's log.

    With --json they are shown once.

    Example: todomq logs --follow
    """
    log = _stack().settings.log
    files = sorted(log / name for name in os.listdir(log) if name.endswith(".log")) if log.exists() else []
    if not files:
        return Result({}, f"There are no logs in {safe(str(log))}.")
    last = {file.name: _last_lines(file) for file in files}
    if follow:
        return Result(last, partial(_follow, files))
    return Result(last, "\n".join("\n".join([f"==> {name} <==", *map(safe, lines)]) for name, lines in last.items()))


def run() -> Result:
    """Run the stack in the foreground. That is for a container or another process manager; SIGTERM stops it.

    Whatever ends this command ends the stack.

    Example: todomq run
    """
    from todomq.supervision.foreground import Foreground
    from todomq.supervision.manager import ANSWERS

    stack = _stack()
    with _alone(stack):
        state = stack.manager.state()
        if state == ANSWERS:
            raise TodoMQError(f"the stack of {stack.settings.home} runs already; stop it with: {_this_command()} down")
        stack.prepare(state)
        for line in _unknown_lines(stack.unknown_variables()):
            print(line, file=sys.stderr, flush=True)
        foreground = Foreground(stack)
    code = foreground.wait()
    reason = stack.failure()
    if reason is not None or code != 0:
        raise TodoMQError(reason or f"supervisord ended with exit status {code}")
    return Result({"running": False, "home": str(stack.settings.home)}, "TodoMQ is down.")


def _follow(files: list[Path]) -> NoReturn:
    """Show what is written to files until somebody has had enough."""
    tail = subprocess.Popen(["tail", "-n", str(LOG_LINES), "-F", *map(str, files)], stdout=subprocess.PIPE, bufsize=0)
    assert tail.stdout is not None
    source, rest = tail.stdout.fileno(), b""
    watched = select.poll()
    watched.register(source, select.POLLIN)
    if sys.stdout is not None:
        watched.register(sys.stdout.fileno(), 0)  # only to see that its reader is gone
    try:
        while all(descriptor == source for descriptor, _ in watched.poll()):
            written = os.read(source, READ_BYTES)
            if not written:
                raise TodoMQError("tail, which follows the logs, was ended")
            *lines, rest = (rest + written).split(b"\n")
            for line in lines:
                say(safe(line.decode(errors="replace")))
        raise BrokenPipeError(errno.EPIPE, "whoever read this is gone")
    finally:
        tail.kill()
        tail.wait()


def _say(line: str) -> None:
    """Say what goes on, apart from the command's one answer."""
    typer.echo(safe(line), err=True)


def _stack() -> Stack:
    from todomq.supervision.stack import Stack

    return Stack()


def _nothing_runs(stack: Stack, state: str) -> str:
    from todomq.supervision.manager import ENDING

    if state == ENDING:
        return f"the stack in {stack.settings.home} is being stopped"
    silent = stack.manager.living_pid()
    if silent is not None:
        again = f"{_this_command()} up ends it and starts the stack again"
        return f"the stack in {stack.settings.home} runs, but its supervisord (pid {silent}) does not answer; {again}"
    return f"TodoMQ is not running in {stack.settings.home}; start it with: {_this_command()} up"


@contextmanager
def _alone(stack: Stack) -> Iterator[None]:
    """Start or stop alone. A stack that does not come up has failed: waiting and trying again won't help."""
    try:
        with stack.alone():
            yield
    except Unavailable as error:
        raise TodoMQError(error.text) from None


@contextmanager
def _told_if_interrupted(what: str) -> Iterator[None]:
    """Say what an interrupt leaves, and how to look at it."""
    try:
        yield
    except INTERRUPTS:
        command = _this_command()
        typer.echo(f"Interrupted: {what}; {command} status says what runs, {command} down stops it.", err=True)
        raise


def _not_taken_text(names: list[str]) -> str:
    if not names:
        return ""
    return (
        f"\nIt keeps the settings that it was started with; set otherwise here: {', '.join(names)}. "
        f"To start it with what is set here: {_this_command()} down; {_this_command()} up"
    )


def _unknown_lines(names: list[str]) -> list[str]:
    from difflib import get_close_matches

    from todomq.supervision.stack import KNOWN_VARIABLES

    known = sorted(each.removeprefix(PREFIX) for each in KNOWN_VARIABLES)
    lines = []
    for name in names:
        nearest = get_close_matches(name.removeprefix(PREFIX), known, 1)
        meant = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
        lines.append(f"{safe(name)} is no setting of TodoMQ and changes nothing{meant}")
    return lines


def _this_command() -> str:
    """Return what a person types for this installation's command."""
    own = Path(sys.executable).with_name("todomq")
    return "todomq" if shutil.which("todomq") == str(own) else str(own)


def _status_line(process: Process, restarts: int | None) -> str:
    where = f"pid {process.pid:<8} up {duration(max(process.uptime_s, 1))}" if process.pid else safe(process.trouble)
    if process.pid and is_stopped(process.pid):
        where += f"; {STANDS_STILL}"
    name, told = name_of(list(name_of_process(process.name))), "?" if restarts is None else str(restarts)
    return f"{process.group:<12} {name:<20} {process.state:<9} restarts {told:<4} {where}".rstrip()


def _last_lines(file: Path) -> list[str]:
    written = file.read_bytes().decode(errors="replace").removesuffix("\n")
    return written.split("\n")[-LOG_LINES:] if written else []  # not at every sign that some take for a line's end
