"""``todomq``, put together from its commands. Owns: which there are. Must not know: what they do."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any

import typer

from todomq.cli import backups, demo, keys, lists, probe, stack_commands, transfer
from todomq.cli.exit_codes import BY_SIGNAL
from todomq.cli.show import make_output_forgiving

HELP = """Named to-do lists, kept by a stack of supervised processes.

Commands on lists talk to a running stack; todomq up starts one on this machine.

\b
Examples:
  todomq up
  todomq add "Bob's list" dentist --date 2026-12-01
  todomq ls "Bob's list"
  todomq probe health
  todomq down
"""
EPILOG = """\b
Exit codes:
  0  done
  1  refused or failed; the text on standard error says why
  2  usage: an argument, an option, a setting or a path that can't be used
  3  the service can't be reached, or a part of it is late or can't do it now
  130  ended by Ctrl-C (143 by SIGTERM, 129 if the terminal was closed)

\b
Environment:
  TODOMQ_HOME      where the stack of this machine keeps its data, logs and
                   sockets (~/.todomq)
  TODOMQ_ENDPOINT  where the router is, if not there: for the commands on
                   lists, import, export and probe. The commands that start,
                   stop or back up a stack, and keys, go by TODOMQ_HOME
  TODOMQ_CREDENTIALS
                   a file with the key to connect with; it says where
  More settings, read by todomq up: see README.md, "Settings".
"""
PLAIN_HELP: dict[str, Any] = {"rich_markup_mode": None, "context_settings": {"help_option_names": ["-h", "--help"]}}


def make_app() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(help=HELP, epilog=EPILOG, no_args_is_help=True, pretty_exceptions_enable=False, **PLAIN_HELP)
    app.callback()(_options)
    for module in (lists, transfer, stack_commands, backups, demo):
        module.add_commands(app)
    app.add_typer(probe.make_app(), name="probe")
    app.add_typer(keys.make_app(), name="keys")
    return app


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib import metadata  # takes a seventh of what all else that is loaded takes

        typer.echo(f"todomq {metadata.version('todomq')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.", show_default=False),
    ] = False,
) -> None:
    """Take the options before the command."""


def main() -> None:
    """Run the command that the arguments name."""
    try:
        make_output_forgiving()
        make_app()(prog_name="todomq")
    except KeyboardInterrupt:  # before there was a command that could say what it leaves
        sys.exit(BY_SIGNAL + signal.SIGINT)


if __name__ == "__main__":
    main()
