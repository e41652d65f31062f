"""The help: what a person reads before anything runs."""

from __future__ import annotations

import datetime
from importlib import metadata

import pytest
from typer.testing import CliRunner

from todomq.cli.__main__ import make_app
from todomq.cli.lists import read_date

COMMANDS = [
    "add", "ls", "done", "edit", "rm", "clear", "drop", "lists", "import", "export", "backup", "restore", "verify",
    "demo",
]  # fmt: skip
STACK = ["up", "down", "restart", "status", "logs", "run"]
PROBES = ["health", "ping", "tree", "top", "list", "why", "registry", "kill"]
KEYS = ["init", "new", "list", "revoke", "show"]


EVERY = [
    *([name] for name in COMMANDS + STACK),
    *(["probe", name] for name in PROBES),
    *(["keys", name] for name in KEYS),
]


def help_of(*command: str) -> str:
    """Return a command's help as a terminal of 80 columns shows it."""
    shown = CliRunner().invoke(make_app(), [*command, "--help"], prog_name="todomq", env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    return shown.stdout


@pytest.mark.parametrize("command", EVERY)
def test_every_command_has_help_with_an_example_and_json(command: list[str]) -> None:
    shown = help_of(*command)
    assert "Example" in shown and f"  todomq {' '.join(command)}" in shown.replace("Example: ", "  ")
    assert all(part in shown for part in ("--json", "Exit codes:", "Environment:"))


@pytest.mark.parametrize("command", [[], ["probe"], ["keys"], *EVERY])
def test_help_reads_well_on_80_columns(command: list[str]) -> None:
    shown = help_of(*command)
    assert max(map(len, shown.splitlines())) <= 80
    usage = shown.splitlines()[0]
    assert usage.startswith(" ".join(["Usage: todomq", *command]))
    assert not set("{<") & set(usage) or command == ["probe", "kill"]
    assert "<str>" not in shown and "<path>" not in shown and "range>" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("  ") and line.endswith("...")]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["add", "groceries", "-dash"], "goes after --"),
        (["done", "groceries", "-1"], "'-1' is no id; todomq ls shows the ids"),
        (["done", "-groceries", "1"], "goes after --"),
        (["probe", "health", "--wait", "x"], "'x' is no number of seconds"),
        (["probe", "health", "--wait", "-1"], "'-1' is no number of seconds"),
        (["probe", "top", "--every", "0"], "'0' is no number of seconds from 0.1 to 3,600"),
        (["probe", "top", "--every", "inf"], "--every"),
        (["probe", "health", "--wait", "nan"], "'nan' is no number of seconds"),
        (["demo", "--lists", "x"], "'x' is not a whole number"),
        (["import", "-", "groceries"], "standard input has no name"),
        (["done", "groceries", "x"], "'x' is no id"),
        (["rm", "groceries", "0"], "'0' is no id"),
        (["import", "/", "groceries"], "/ is a directory"),
        (["import", "/nowhere.csv", "groceries"], "there is no file /nowhere.csv"),
    ],
)
def test_words_that_are_not_understood_come_with_what_to_write(words: list[str], hint: str) -> None:
    refused = CliRunner().invoke(make_app(), words, prog_name="todomq")
    assert refused.exit_code == 2 and hint in refused.stderr


def test_an_error_begins_alike_whoever_finds_it() -> None:
    for endpoint, words in (("smoke://signal", ["ls", "x"]), ("", ["done", "x", "y"])):
        refused = CliRunner().invoke(make_app(), words, prog_name="todomq", env={"TODOMQ_ENDPOINT": endpoint})
        assert "Error: " in refused.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TODOMQ_ENDPOINT": "foo"}, "TODOMQ_ENDPOINT: ipc://PATH or tcp://HOST:PORT is needed, not 'foo'"),
        ({"TODOMQ_CREDENTIALS": "/nowhere"}, "TODOMQ_CREDENTIALS: /nowhere can't be read: No such file or directory"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(environment: dict[str, str], said: str) -> None:
    refused = CliRunner().invoke(make_app(), ["lists"], prog_name="todomq", env=environment)
    assert (refused.exit_code, refused.stderr) == (2, f"Error: {said}\n")


@pytest.mark.parametrize("day", ["tuesday", "2026-W01-1", "20261201", "2026-02-30"])
def test_an_option_that_is_wrong_by_itself_gets_no_advice_on_titles(day: str) -> None:
    refused = CliRunner().invoke(make_app(), ["add", "x", "y", f"--date={day}"], prog_name="todomq")
    assert refused.exit_code == 2 and "is no day" in refused.stderr and "behind --" not in refused.stderr


def test_tomorrow_is_the_day_after_today() -> None:
    days_before, day = [datetime.date.today()], read_date("tomorrow")
    days_before.append(datetime.date.today())  # it may be midnight
    assert day - datetime.timedelta(days=1) in days_before


def test_the_first_help_names_every_command_and_the_exit_codes() -> None:
    shown = help_of()
    assert all(f"  {name} " in shown for name in [*COMMANDS, *STACK, "probe", "keys"])
    assert all(part in shown for part in ("Exit codes:", "  130  ", "Environment:", "Examples:", "--install"))


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(make_app(), ["--version"]).stdout == f"todomq {metadata.version('todomq')}\n"


def test_the_completion_script_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))  # whoever runs the tests
    shown = CliRunner().invoke(make_app(), ["--show-completion"], prog_name="todomq")
    assert "todomq" in shown.stdout
