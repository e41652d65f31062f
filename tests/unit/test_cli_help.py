"""The help: what a person reads before anything runs."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from todomq.cli.__main__ import make_app

COMMANDS = ["add", "ls", "done", "edit", "rm", "clear", "drop", "lists", "import", "export", "demo"]
PROBES = ["health", "ping", "tree", "top", "list", "why", "registry", "kill"]
KEYS = ["init", "new", "list", "revoke", "show"]


ALL = [*([name] for name in COMMANDS), *(["probe", name] for name in PROBES), *(["keys", name] for name in KEYS)]


@pytest.mark.parametrize("command", ALL)
def test_every_command_has_help_with_an_example_and_json(command: list[str]) -> None:
    shown = CliRunner().invoke(make_app(), [*command, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.stdout and f"todomq {' '.join(command)}" in shown.stdout and "--json" in shown.stdout


def test_the_first_help_names_every_command_and_the_exit_codes() -> None:
    shown = CliRunner().invoke(make_app(), ["--help"]).stdout
    assert all(f"  {name} " in shown for name in [*COMMANDS, "probe", "keys"])
    assert "Exit codes" in shown and "--install-completion" in shown


def test_the_completion_script_is_there() -> None:
    shown = CliRunner().invoke(make_app(), ["--show-completion", "bash"], prog_name="todomq")
    assert "todomq" in shown.stdout
