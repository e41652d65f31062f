"""What the shell is told where a name is completed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from todomq.cli import lists
from todomq.cli.__main__ import make_app
from todomq.keys.rights import Rights
from todomq.keys.store import ClientKey, KeyPair, KeyStore, Quota
from todomq.runtime.curve import new_pair

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
    offered = CliRunner().invoke(make_app(), [], prog_name="todomq", env=env)
    assert not isinstance(offered.exception, Exception)
    return offered.stdout.strip().splitlines()


@pytest.mark.parametrize("word", ["", "Bob", "Bob\\'s\\ l"])
def test_names_of_lists_are_quoted_for_bash_and_those_that_cannot_be_typed_left_out(word: str) -> None:
    meant = "".join(shlex.split(word))
    assert [shlex.split(line) for line in completed("todomq", "ls", word)] == [
        [name] for name in NAMES[:3] if name.startswith(meant)
    ]


def test_behind_an_open_quote_a_name_is_completed_as_it_is() -> None:
    assert completed("todomq", "ls", '"Bo') == ["Bob's list", "Bob"]
    assert completed("todomq", "ls", "'Bo") == [NAMES[1], "Bob"]


def test_the_words_of_a_probe_are_completed() -> None:
    assert completed("todomq", "probe", "kill", "list", "Bob\\'s") == ["Bob\\'s\\ list"]
    assert completed("todomq", "probe", "kill", "l") == ["list", "list_server"]
    assert completed("todomq", "probe", "ping", "ca") == ["cache"]
    assert completed("todomq", "probe", "kill", "list_server", "")[0] == "1"
    assert "1" in completed("todomq", "probe", "ping", "list_server", "")


def test_with_a_setting_that_cannot_be_used_nothing_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODOMQ_DATABASE_WORKERS", "x")
    assert completed("todomq", "probe", "ping", "") == completed("todomq", "keys", "show", "") == []


def test_the_names_of_keys_are_completed_where_they_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TODOMQ_HOME", str(tmp_path))
    assert completed("todomq", "keys", "show", "a") == []
    store = KeyStore(tmp_path / "keys")
    store.init(KeyPair(*new_pair()))
    store.add(ClientKey("alice", new_pair()[0], Rights(["admin"], []), Quota()))
    assert completed("todomq", "keys", "show", "a") == completed("todomq", "keys", "revoke", "a") == ["alice"]
