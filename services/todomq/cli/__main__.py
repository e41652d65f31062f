"""``todomq``, put together from its commands. Owns: which there are. Must not know: what they do."""

from __future__ import annotations

from typing import Any

import typer

from todomq.cli import demo, keys, lists, probe, transfer
from todomq.cli.show import make_output_forgiving

HELP = """Named to-do lists, kept by a stack of supervised processes.

Which stack: that of the key in the file TODOMQ_CREDENTIALS, else TODOMQ_ENDPOINT, else the one whose home is
TODOMQ_HOME (default ~/.todomq). Start it with: make up

Exit codes: 0 done, 1 refused by the service, 2 usage, 3 the service can't be reached or did not answer in time.
"""
PLAIN_HELP: dict[str, Any] = {"rich_markup_mode": None, "context_settings": {"help_option_names": ["-h", "--help"]}}


def make_app() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, **PLAIN_HELP)
    for module in (lists, transfer, demo):
        module.add_commands(app)
    app.add_typer(probe.make_app(), name="probe")
    app.add_typer(keys.make_app(), name="keys")
    return app


def main() -> None:
    """Run the command that the arguments name."""
    make_output_forgiving()
    make_app()(prog_name="todomq")


if __name__ == "__main__":
    main()
