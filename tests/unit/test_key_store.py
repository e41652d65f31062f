"""The files of keys: private, whole or an error, and no secret where it does not belong."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from todomq.cli.__main__ import make_app
from todomq.errors import InvalidRequest
from todomq.keys.credentials import Credentials, read_credentials, write_credentials
from todomq.keys.files import read_private, write_private
from todomq.keys.required import KeysUnusable, check_keys, door_pair, stack_pair
from todomq.keys.rights import Rights
from todomq.keys.store import ClientKey, KeyPair, KeyStore, Quota
from todomq.protocol import limits
from todomq.settings import SettingsError, read_settings

PUBLIC, SECRET = "P" * 40, "S" * 40
ALICE = ClientKey("alice", "A" * 40, Rights(["read"], ["alice/*"]), Quota(lists=5))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path / "keys")
    made.init(KeyPair(PUBLIC, SECRET))
    return made


def test_what_was_written_is_read_back(store: KeyStore) -> None:
    store.add(ALICE)
    assert store.server() == KeyPair(PUBLIC, SECRET)
    (known,) = store.clients()
    assert (known.name, known.public_key, known.quota) == (ALICE.name, ALICE.public_key, ALICE.quota)
    assert (known.rights.rights, known.rights.patterns) == (ALICE.rights.rights, ALICE.rights.patterns)
    assert store.revoke("alice").name == "alice" and store.clients() == []


def test_every_change_shows_in_the_stamp(store: KeyStore) -> None:
    stamps = {store.stamp()}
    for number in range(20):
        store.add(replace(ALICE, name=f"k{number}"))
        stamps.add(store.stamp())
    assert len(stamps) == 21
    store.clients_path.chmod(0o644)
    assert store.stamp() not in stamps
    store.clients_path.unlink()
    assert store.stamp() is None


@pytest.mark.parametrize("written", [0, 1])
def test_what_ends_while_keys_are_made_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    store = KeyStore(tmp_path / "keys")
    left = written

    def write(*what: Any, **how: Any) -> None:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= 1
        write_private(*what, **how)

    with monkeypatch.context() as patched:
        patched.setattr("todomq.keys.store.write_private", write)
        with pytest.raises(OSError, match="No space left"):
            store.init(KeyPair(PUBLIC, SECRET))
    store.init(KeyPair(PUBLIC, SECRET))
    assert store.clients() == [] and store.server() == KeyPair(PUBLIC, SECRET)


def test_keys_are_not_made_twice(store: KeyStore) -> None:
    with pytest.raises(InvalidRequest, match="already"):
        store.init(KeyPair(SECRET, PUBLIC))
    assert store.server().public == PUBLIC


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (replace(ALICE, name="../alice"), "letters"),
        (replace(ALICE, name=""), "letters"),
        (replace(ALICE, name="a\nb"), "letters"),
        (replace(ALICE, rights=Rights(["fly"], ["a"])), "fly"),
        (replace(ALICE, rights=Rights([], ["a"])), "rights"),
        (replace(ALICE, rights=Rights(["read"], [])), "--lists"),
        (replace(ALICE, rights=Rights(["admin"], ["a"])), "admin"),
        (replace(ALICE, rights=Rights(["read"], ["a*b"])), "end only"),
        (replace(ALICE, quota=Quota(lists=-1)), "lists"),
        (replace(ALICE, public_key="short"), "40"),
    ],
)
def test_a_client_that_makes_no_sense_is_not_let_in(store: KeyStore, wrong: ClientKey, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        store.add(wrong)
    assert store.clients() == []


def test_names_are_unique_and_unknown_ones_can_not_be_revoked(store: KeyStore) -> None:
    store.add(ALICE)
    with pytest.raises(InvalidRequest, match="already"):
        store.add(ALICE)
    with pytest.raises(InvalidRequest, match="no key named"):
        store.revoke("bob")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": "other"}', '{"format": "todomq clients", "version": 2}',
                '{"format": "todomq clients", "version": 1}',
                '{"format": "todomq clients", "version": 1, "clients": {}}',
                '{"format": "todomq clients", "version": 1, "clients": [{}]}',
                '{"format": "todomq clients", "version": 1, "clients": [1]}'],
)  # fmt: skip
def test_a_damaged_file_is_an_error_that_names_it_and_never_empty(store: KeyStore, content: str) -> None:
    store.clients_path.write_text(content)
    with pytest.raises(InvalidRequest, match=r"clients\.json"):
        store.clients()
    with pytest.raises(InvalidRequest):
        store.add(ALICE)
    assert store.clients_path.read_text() == content


@pytest.mark.parametrize("change", [{"rights": ["fly"]}, {"lists": ["a*b"]}, {"quota": {"x": 1}}, {"name": 1}])
def test_no_field_is_guessed(store: KeyStore, change: dict[str, Any]) -> None:
    store.add(ALICE)
    value = json.loads(store.clients_path.read_text())
    value["clients"][0] |= change
    store.clients_path.write_text(json.dumps(value))
    with pytest.raises(InvalidRequest, match="damaged"):
        store.clients()


def test_what_is_no_file_of_keys_is_called_that_and_nobody_is_told_to_close_it(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("2026-12-01,milk\n")
    table.chmod(0o644)
    with pytest.raises(InvalidRequest, match="not JSON"):
        read_credentials(table)
    table.write_text("[]")
    with pytest.raises(InvalidRequest, match="not a file of the format"):
        read_credentials(table)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o602])
def test_a_file_that_is_open_to_others_is_not_used(store: KeyStore, mode: int) -> None:
    store.server_path.chmod(mode)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        store.server()


def test_files_are_private_and_a_secret_shows_nowhere(store: KeyStore, tmp_path: Path) -> None:
    store.add(ALICE)
    path = tmp_path / "alice.credentials"
    credentials = Credentials("alice", "tcp://127.0.0.1:7447", PUBLIC, "A" * 40, SECRET)
    write_credentials(path, credentials)
    assert read_credentials(path) == credentials
    assert {each.stat().st_mode & 0o777 for each in [path, *store.directory.iterdir()]} == {0o600}
    assert SECRET not in repr(credentials) + str(credentials) + repr(store.server())
    assert SECRET not in store.clients_path.read_text()
    with pytest.raises(InvalidRequest, match="already"):
        write_credentials(path, credentials)


@pytest.mark.parametrize(
    "change",
    [{"secret_key": "short"}, {"endpoint": "ipc:///x"}, {"endpoint": "tcp://x"}, {"public_key": 1}, {"name": None},
     {"version": 2}, {"format": "x"}],
)  # fmt: skip
def test_credentials_that_make_no_sense_are_refused_without_showing_the_secret(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "c"
    write_credentials(path, Credentials("alice", "tcp://127.0.0.1:7447", PUBLIC, "A" * 40, SECRET))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidRequest) as refused:
        read_credentials(path)
    assert str(path) in refused.value.text and SECRET not in refused.value.text


@pytest.mark.parametrize(
    ("address", "is_open"),
    [("tcp://127.0.0.1:7447", True), ("tcp://[::1]:7447", True), ("tcp://127.1.2.3:1", True),
     ("tcp://0.0.0.0:7447", False), ("tcp://*:7447", False), ("tcp://10.0.0.1:7447", False),
     ("tcp://[::]:7447", False), ("tcp://localhost:7447", False), ("tcp://127.0.0.1.example.org:7447", False)],
)  # fmt: skip
def test_without_keys_only_this_machine_may_reach_the_router(tmp_path: Path, address: str, is_open: bool) -> None:
    settings = read_settings({"TODOMQ_HOME": str(tmp_path), "TODOMQ_TCP": address})
    if is_open:
        assert door_pair(settings) is None
    else:
        with pytest.raises(SettingsError, match="todomq keys init"):
            door_pair(settings)
    KeyStore(settings.keys).init(KeyPair(PUBLIC, SECRET))
    assert door_pair(settings) == KeyPair(PUBLIC, SECRET)  # once there are keys they are asked for everywhere
    check_keys(settings)
    KeyStore(settings.keys).clients_path.unlink()
    assert door_pair(settings) is not None  # what is missing is not taken for "no keys"
    with pytest.raises(SettingsError, match=r"clients\.json"):
        check_keys(settings)
    KeyStore(settings.keys).server_path.unlink()
    with pytest.raises(SettingsError, match=r"server\.json"):
        door_pair(settings)


def test_daemons_join_a_registry_at_one_address_though_it_may_listen_at_any(tmp_path: Path) -> None:
    home = {"TODOMQ_HOME": str(tmp_path)}
    assert read_settings({**home, "TODOMQ_TCP": "tcp://*:7447"}).tcp == "tcp://*:7447"
    for name in ("TODOMQ_REGISTRY", "TODOMQ_STACK_TCP"):
        with pytest.raises(SettingsError, match=name):
            read_settings({**home, name: "tcp://*:7447"})


@pytest.mark.parametrize(
    "environment",
    [
        {"TODOMQ_STACK_TCP": "tcp://0.0.0.0:7500"}, {"TODOMQ_STACK_TCP": "tcp://[::]:7500"},
        {"TODOMQ_STACK_TCP": "tcp://127.0.0.1:7500", "TODOMQ_REGISTRY": "tcp://10.0.0.1:7500"},
        {"TODOMQ_TCP": "tcp://*:\u0667\u0664\u0664\u0667"}, {"TODOMQ_TCP": "tcp://127.0.0.1:\u0667"},
    ],
)  # fmt: skip
def test_an_address_at_which_nobody_could_be_reached_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    name, address = next(iter(environment.items()))
    with pytest.raises(SettingsError, match=rf"{name} is '{re.escape(address)}'"):
        read_settings({"TODOMQ_HOME": str(tmp_path), **environment})


@pytest.mark.parametrize("how", ["gone", "a link to nowhere"])
def test_keys_that_are_gone_are_not_no_keys(tmp_path: Path, how: str) -> None:
    settings = read_settings({"TODOMQ_HOME": str(tmp_path), "TODOMQ_TCP": "tcp://127.0.0.1:7447"})
    KeyStore(settings.keys).init(KeyPair(PUBLIC, SECRET))
    settings.keys.rename(tmp_path / "away")
    if how == "a link to nowhere":
        settings.keys.symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeysUnusable, match=str(settings.keys)):
        door_pair(settings)
    with pytest.raises(SettingsError):
        check_keys(settings)


def test_keys_of_before_there_was_a_note_are_noted_when_they_are_used(tmp_path: Path) -> None:
    settings = read_settings({"TODOMQ_HOME": str(tmp_path), "TODOMQ_TCP": "tcp://127.0.0.1:7447"})
    store = KeyStore(settings.keys)
    store.init(KeyPair(PUBLIC, SECRET))
    store.note.unlink()
    assert door_pair(settings) is not None and store.were_made()


@pytest.mark.parametrize(("field", "text"), [("lists", "alice/*"), ("rights", "read")])
def test_a_text_where_an_array_must_be_lets_nobody_in(store: KeyStore, field: str, text: str) -> None:
    store.add(ALICE)
    held = json.loads(store.clients_path.read_text())
    held["clients"][0][field] = text
    store.clients_path.write_text(json.dumps(held))
    with pytest.raises(InvalidRequest, match="damaged"):
        store.clients()


def test_daemons_reach_each_other_over_tcp_by_key_only(tmp_path: Path) -> None:
    settings = read_settings({"TODOMQ_HOME": str(tmp_path), "TODOMQ_STACK_TCP": "tcp://127.0.0.1:7500"})
    with pytest.raises(SettingsError, match="todomq keys init"):
        stack_pair(settings)
    assert settings.reached_at("registry") == "tcp://127.0.0.1:7500"
    assert settings.reached_at("database_worker-1.writes") == "tcp://127.0.0.1:7505"


def test_the_command_that_a_list_of_no_keys_names_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODOMQ_HOME", str(tmp_path))
    monkeypatch.delenv("TODOMQ_TCP", raising=False)
    monkeypatch.chdir(tmp_path)
    todomq = CliRunner()
    assert todomq.invoke(make_app(), ["keys", "init"]).exit_code == 0

    said = todomq.invoke(make_app(), ["keys", "list"]).stdout

    command = said.partition("todomq ")[2].replace("NAME", "alice").replace("HOST:PORT", "todo.example:7447")
    made = todomq.invoke(make_app(), shlex.split(command))
    assert made.exit_code == 0, made.output


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_cannot_be_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InvalidRequest, match="can't be written: No space left"):
            write_private(tmp_path / "key", "todomq test", 1, {}, replace=replace)
    assert list(tmp_path.iterdir()) == []
    write_private(tmp_path / "key", "todomq test", 1, {"a": 1}, replace=False)
    with pytest.raises(InvalidRequest, match="key is there already"):
        write_private(tmp_path / "key", "todomq test", 1, {"a": 2}, replace=False)
    assert read_private(tmp_path / "key", "todomq test", 1)["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_key_without_options_has_the_quotas_that_the_page_promises() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    fields = {
        "in-flight": "requests_in_flight", "bytes-in-flight": "bytes_in_flight", "per-second": "requests_per_s",
        "connections": "connections", "most-lists": "lists", "most-entries": "entries_per_list",
    }  # fmt: skip
    rows = dict(re.findall(r"^\| `--([\w-]+)` \| (no limit|[\d,]+(?: MiB)?) \|", page, re.M))
    assert rows.keys() == fields.keys()
    for option, said in rows.items():
        number, _, unit = said.replace("no limit", "0").replace(",", "").partition(" ")
        assert getattr(Quota(), fields[option]) == int(number) * (limits.MIB if unit else 1), option
