"""What the shell is told where a name is completed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from todomq.cli import lists
from todomq.cli.__main__ import make_app

NAMES = ["Bob's list", "Bob $HOME `x` \"q\" *", "Bob", "Bob\n"]


@pytest.fixture(autouse=True)
def known_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connect(deadline_s: float) -> Iterator[Any]:
        yield SimpleNamespace(list_names=lambda prefix: [name for name in NAMES if name.startswith(prefix)])

    monkeypatch.setattr(lists, "connect", connect)


def completed(*words: str) -> list[str]:
    """Return what bash is offered for the last of the words."""
    env = {"_TODOMQ_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(make_app(), [], prog_name="todomq", env=env).stdout.strip().splitlines()


@pytest.mark.parametrize("word", ["", "Bob", "Bob\\'s\\ l"])
def test_names_of_lists_are_quoted_for_bash_and_those_that_cannot_be_typed_left_out(word: str) -> None:
    meant = "".join(shlex.split(word))
    assert [shlex.split(line) for line in completed("todomq", "ls", word)] == [
        [name] for name in NAMES[:3] if name.startswith(meant)
    ]


def test_behind_an_open_quote_a_name_is_completed_as_it_is() -> None:
    assert completed("todomq", "ls", '"Bo') == ["Bob's list", "Bob"]
    assert completed("todomq", "ls", "'Bo") == [NAMES[1], "Bob"]
