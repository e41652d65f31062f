"""``todomq probe``: what a stack is doing, and what is wrong with it.

Owns: the commands and how their answers look (those on one list are in ``list_probe.py``). Must not know: how a part
comes to its answers.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from todomq.cli.asking import ask_all, ask_names, calling, registered_in
from todomq.cli.command import Result, command
from todomq.cli.connection import connect_to_look_in, named_by
from todomq.cli.exit_codes import DONE, REFUSED, UNREACHABLE
from todomq.cli.killing import NOT_RUNNING, kill_daemon
from todomq.cli.list_probe import kill_list, show_list, why
from todomq.cli.lists import complete_list
from todomq.cli.show import coloured, console, name_of, safe, say_cut, table
from todomq.cli.stack_parts import expected_daemons, next_words, read_daemon_name, supervised
from todomq.errors import NameNotFound
from todomq.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from todomq.cli.health import Health
    from todomq.cli.stack_parts import Name
    from todomq.cli.tree import Sample
    from todomq.client import Client, Registration

HELP = "Look into a stack: what runs, what waits, what is at fault."
PING_S = 2.0
FIRST_PICTURE_S = 1.0
"""How soon ``top`` draws, however seldom it draws then."""


def make_app() -> typer.Typer:
    """Return the commands under ``todomq probe``."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
    for function in (health, ping, tree, top, why, registry, kill):
        command(app)(function)
    command(app, "list")(show_list)
    return app


def _seconds(text: str | float, least: float = 0.0, most: float = inf) -> float:
    with suppress(ValueError):
        if least <= float(text) <= most and isfinite(float(text)):
            return float(text)
    between = "" if most == inf else f" from {least} to {most:,.0f}"
    raise typer.BadParameter(f"{safe(str(text))!r} is no number of seconds{between}")


def health(
    wait_s: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", parser=_seconds, help="Try until it is healthy, or time is up."),
    ] = 0,
) -> Result:
    """Add and read through every worker; say which part is at fault.

    Example: todomq probe health --wait 30
    """
    from todomq.cli.health import CHECK_S, check_health, check_until_healthy

    settings = read_settings()

    def check() -> Health:
        with connect_to_look_in(CHECK_S) as todo:
            return check_health(todo, settings, named_by())

    found = check_until_healthy(check, wait_s)
    code = DONE if found.is_healthy else REFUSED if found.is_reachable else UNREACHABLE
    parts = [{"name": part.name, "state": part.state, "text": part.text} for part in found.parts]
    value = {"healthy": found.is_healthy, "at_fault": found.at_fault, "parts": parts}
    return Result(value, _health_text(found), code)


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    before = list(ctx.params.get("daemon") or ctx.params.get("what") or ())
    if before == ["list"]:
        return complete_list(incomplete)
    also = ["list"] if ctx.info_name == "kill" and not before else []
    try:
        return also + next_words(read_settings(), before)
    except SettingsError:
        return also


def ping(
    daemon: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DAEMON]", help="Such as list_server 1.", show_default=False, autocompletion=_complete),
    ] = None,
) -> Result:
    """Ask a daemon, or all of them, how long an answer takes.

    Example: todomq probe ping list_server 1
    """
    from todomq.client.session import RouterSilent

    with connect_to_look_in(PING_S) as todo:
        names = [read_daemon_name(daemon)] if daemon else [list(name) for name in _all_daemons(todo)]
        answers = ask_all(todo, {place: calling(name, "ping", deadline_s=PING_S) for place, name in enumerate(names)})
        silent = [answer.error for answer in answers.values() if isinstance(answer.error, RouterSilent)]
        if len(silent) == len(names):
            raise silent[0]  # nothing is known of any of them
    values, lines, code = [], [], DONE
    for place, name in enumerate(names):
        error, took_ms = answers[place].error, answers[place].took_s * 1000
        why = NOT_RUNNING if isinstance(error, NameNotFound) else "" if error is None else safe(error.text)
        told = coloured(why, False) if why else f"{took_ms:.1f} ms"
        values.append({"name": name, "ms": took_ms if error is None else None, "error": error and error.code})
        lines.append(f"{name_of(name):<17}  {told}")
        code = code if error is None else UNREACHABLE
    return Result(values, "\n".join(lines), code)


def tree() -> Result:
    """Show the supervision tree. It gives each process's state, pid, uptime, restarts and queues.

    Example: todomq probe tree
    """
    from todomq.cli.tree import gather, tree_lines

    with connect_to_look_in() as todo:
        settings = read_settings()
        rows = gather(todo, settings)
        lines = tree_lines(rows, settings, todo.endpoint)
    return Result([row.value() for row in rows], lambda: say_cut(lines))


def top(
    every_s: Annotated[
        float,
        typer.Option("--every", metavar="SECONDS", parser=partial(_seconds, least=0.1, most=3_600), help="How often."),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once, then leave.", show_default=False)] = False,
) -> Result:
    """Show what every process does, again and again. It gives processor, memory, work and queues. Ctrl-C ends it.

    With --json, or if the output is no terminal or a dumb one (TERM=dumb), it is shown once.

    Example: todomq probe top --every 2
    """
    from todomq.cli.tree import sample, top_table, top_value

    screen = console()
    settings = read_settings()
    is_once = once or not screen.is_terminal or screen.is_dumb_terminal
    with connect_to_look_in() as todo:
        before = sample(todo, settings)
        time.sleep(every_s if is_once else min(every_s, FIRST_PICTURE_S))
        now = sample(todo, settings)
    if is_once:
        return Result(top_value(now, before), lambda: screen.print(top_table(now, before, screen.width)))
    return Result(top_value(now, before), lambda: _top_live(every_s, before, now))


def registry() -> Result:
    """Show the registered names, including those of other programs.

    Example: todomq probe registry
    """
    with connect_to_look_in() as todo:
        registered = todo.registry.names()
    registered.sort(key=lambda each: name_of(each.name))
    values = [registration_value(each) for each in registered]
    rows = [
        (name_of(each.name), each.pid, safe(each.address), each.incarnation.hex()[:8] if each.incarnation else "")
        for each in registered
    ]
    drawn = table(("name", "pid", "address", "incarnation"), rows, right=("pid",))
    return Result(values, lambda: console().print(drawn))


def kill(
    what: Annotated[
        list[str],
        typer.Argument(metavar="{list NAME | DAEMON}", help="One list's actor, or a daemon.", autocompletion=_complete),
    ],
) -> Result:
    """End one list's actor, or kill a daemon of this machine. Nothing that was promised is lost by it.

    \b
    Examples:
      todomq probe kill list "Bob's list"
      todomq probe kill database_worker 2
    """
    if what[0] == "list":
        if len(what) != 2:
            raise typer.BadParameter("kill list takes one list's name")
        return kill_list(what[1])
    return _kill_daemon(read_daemon_name(what))


def registration_value(registration: Registration) -> dict[str, Any]:
    """Return a registration as a value for programs."""
    return {
        "name": registration.name,
        "address": registration.address,
        "pid": registration.pid,
        "incarnation": registration.incarnation.hex(),
    }


def _kill_daemon(name: list[str | int]) -> Result:
    with connect_to_look_in() as todo:
        pid = kill_daemon(todo, name)
    return Result({"killed": name, "pid": pid}, f"{name_of(name)} (pid {pid}) is killed.")


def _all_daemons(todo: Client) -> list[Name]:
    from todomq.client.session import RouterSilent

    settings, names = read_settings(), ask_names(todo, PING_S)
    if isinstance(names.error, RouterSilent):
        raise names.error  # nothing is known of any of them
    return expected_daemons(settings, supervised(settings, todo.endpoint), registered_in(names))


def _health_text(found: Health) -> str:
    from todomq.cli.health import OK

    lines = [
        f"{coloured(f'{part.state:<7}', part.state == OK)}  {name_of(list(part.name)):<17}  {safe(part.text)}".rstrip()
        for part in found.parts
    ]
    at_fault = ", ".join(name_of(list(name)) for name in found.at_fault)
    return "\n".join([*lines, f"At fault: {at_fault}" if at_fault else "Healthy: every part answers."])


def _top_live(every_s: float, before: Sample, now: Sample) -> None:
    from rich.live import Live

    from todomq.cli.tree import sample, top_table

    settings = read_settings()
    with connect_to_look_in() as todo, Live(console=console(), auto_refresh=False, screen=True) as live:
        try:
            while True:
                live.update(top_table(now, before, live.console.width), refresh=True)
                time.sleep(every_s)
                before, now = now, sample(todo, settings)
        except KeyboardInterrupt:
            return
