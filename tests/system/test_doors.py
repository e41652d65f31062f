"""Who gets in over TCP and what each may do there, against a real stack: the lines of ``docs/security.md``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq
from hostile import HostileClient
from keyed import SILENCE_MS, KeyedStack, free_port, raw, refusal
from load import held_up_s
from stacks import RunningStack, kept_running, wait_until

from todomq import AsyncClient, Client, Via, errors
from todomq.database_worker.storage.manifest import shard_directory
from todomq.database_worker.storage.rocksdb import RocksDBStorage
from todomq.keys.credentials import Credentials, read_credentials
from todomq.keys.store import KeyStore
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.protocol.partitions import partition_of, worker_of
from todomq.runtime.curve import HANDSHAKE_MS

HALF_OPEN = 2_000
USAGE = 2


@pytest.fixture(scope="module")
def stack() -> Iterator[KeyedStack]:
    """A stack whose daemons may stand still for as long as a test takes."""
    yield from kept_running(KeyedStack(TODOMQ_LEASE_MS="20000"))


_names = iter(range(1_000))


@pytest.fixture
def owner(stack: KeyedStack) -> Path:
    """A key of its own for each test, for every list that begins with its name and a slash."""
    name = f"owner{next(_names)}"
    return stack.new_key(name, "--lists", f"{name}/*")


def name_of(path: Path) -> str:
    return read_credentials(path).name


def stranger(path: Path) -> Credentials:
    """Somebody who knows the server's public key and made a pair."""
    public, secret = zmq.curve_keypair()
    return replace(read_credentials(path), public_key=public.decode(), secret_key=secret.decode())


# -- who gets in -------------------------------------------------------------------------------------------------------


def test_a_client_adds_and_reads_with_the_file_it_was_handed(stack: KeyedStack, owner: Path) -> None:
    with Client.from_file(owner) as todo:
        handle = todo.todo_list(f"{name_of(owner)}/groceries")
        entry = handle.add_entry("milk")
        assert handle.entries() == [entry]
        with todo.pipeline() as pipeline:
            futures = [pipeline.todo_list(handle.name).add_entry(str(n)) for n in range(500)]
        assert [future.result().id for future in futures] == list(range(2, 502))


async def _add_and_read(path: Path, name: str) -> bool:
    async with AsyncClient.from_file(path) as todo:
        entry = await todo.todo_list(name).add_entry("milk")
        return await todo.todo_list(name).entries() == [entry]


def test_a_client_for_asyncio_comes_in_by_the_file_of_a_key(stack: KeyedStack, owner: Path) -> None:
    assert asyncio.run(_add_and_read(owner, f"{name_of(owner)}/async"))


def test_the_command_line_comes_in_by_the_file_that_the_environment_names(stack: KeyedStack, owner: Path) -> None:
    by_key = {"TODOMQ_CREDENTIALS": str(owner), "TODOMQ_ENDPOINT": "ipc:///nowhere"}
    done = stack.run("todomq.cli", "add", f"{name_of(owner)}/cli", "milk", settings=by_key)
    assert (done.returncode, done.stderr) == (0, "")
    refused = stack.run("todomq.cli", "ls", "another's", settings=by_key)
    assert refused.returncode == 1 and "this key does not allow that" in refused.stderr


def test_an_endpoint_beside_credentials_is_where_the_client_connects(stack: KeyedStack, owner: Path) -> None:
    """As through a tunnel: the router is not found where the file says."""
    moved = replace(read_credentials(owner), endpoint="tcp://127.0.0.1:1")
    with Client(stack.tcp, deadline_s=20, credentials=moved) as todo:
        assert todo.endpoint == stack.tcp
        assert todo.todo_list(f"{name_of(owner)}/tunnel").add_entry("milk").id == 1
    with pytest.raises(errors.InvalidRequest, match="endpoint: with credentials tcp://HOST:PORT is needed"):
        Client(stack.endpoint, credentials=moved)


def test_a_stranger_is_not_let_in_and_hears_it_at_once(stack: KeyedStack, owner: Path) -> None:
    began_s = time.monotonic()
    with Client(credentials=stranger(owner), deadline_s=20) as todo, pytest.raises(errors.Unauthorized):
        todo.list_names()
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize(
    "what", ["no key", "a key of its own", "a client that pins another server", "the server's key"]
)
def test_who_has_no_key_of_this_stack_gets_no_answer(stack: KeyedStack, owner: Path, what: str) -> None:
    known = read_credentials(owner)
    comes_as = {
        "no key": None,
        "a key of its own": stranger(owner),
        "a client that pins another server": replace(known, server_public_key=zmq.curve_keypair()[0].decode()),
        "the server's key": replace(known, public_key=known.server_public_key),
    }[what]
    with raw(stack.tcp, comes_as) as outside:
        outside.socket.setsockopt(zmq.SNDTIMEO, SILENCE_MS)
        with contextlib.suppress(zmq.Again):  # there may not even be a pipe to send into
            assert outside.ask(None, "ping", timeout_ms=SILENCE_MS) is None
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in outside.events()
    with raw(stack.tcp, owner) as inside:
        assert inside.ask(None, "ping") == "pong"


def test_revoking_cuts_a_live_connection_within_a_second(stack: KeyedStack, owner: Path) -> None:
    with raw(stack.tcp, owner) as inside:
        assert inside.ask(None, "ping") == "pong"
        inside.events()
        stack.keys("revoke", name_of(owner))
        revoked_at, held_up_before_s = time.monotonic(), held_up_s(stack.pid("router"))
        inside.wait_event(zmq.EVENT_DISCONNECTED, 5.0)
        took_s = time.monotonic() - revoked_at
        assert took_s - (held_up_s(stack.pid("router")) - held_up_before_s) < 1.0
        inside.wait_event(zmq.EVENT_HANDSHAKE_FAILED_AUTH, 5.0)
    assert "no key named" in stack.run("todomq.cli", "keys", "revoke", name_of(owner)).stderr


def test_revoking_is_no_matter_of_when_the_key_was_made(stack: KeyedStack) -> None:
    """Many keys made and revoked in a row: each is let in, then cut."""
    for number in range(5):
        path = stack.new_key(f"brief{number}", "--lists", "a")
        with raw(stack.tcp, path) as inside:
            assert inside.ask(None, "ping") == "pong"
            inside.events()
            stack.keys("revoke", f"brief{number}")
            inside.wait_event(zmq.EVENT_DISCONNECTED, 5.0)


def test_what_is_in_flight_of_a_revoked_key_is_not_answered(stack: KeyedStack, owner: Path) -> None:
    listed = f"{name_of(owner)}/held"
    with raw(stack.tcp, owner) as inside:
        assert inside.ask(listed, "add_entry", "milk", number=1) == 1
        servers = [name for name in stack.daemons if name.startswith("list_server")]
        pids = [stack.kill(name, signal.SIGSTOP) for name in servers]
        try:
            inside.send([7, listed, 0, pack(["entries"]), 2, 2])
            assert inside.receive(SILENCE_MS) == {}
            stack.keys("revoke", name_of(owner))
            wait_until(lambda: name_of(owner) not in stack.door_stats()["keys"], 5, "the router has heard of it")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert inside.receive(1_000) == {}
    wait_until(lambda: stack.ask("router", "stats")["in_flight"] <= 1, 10, "nothing is left in flight")


@pytest.mark.parametrize("is_unreadable_before", [False, True])
def test_what_waits_of_a_revoked_key_goes_to_nobody(stack: KeyedStack, owner: Path, is_unreadable_before: bool) -> None:
    listed, clients = f"{name_of(owner)}/a", stack.home / "keys" / "clients.json"
    stack.new_key(f"stays-{is_unreadable_before}", "--lists", "stays")
    stack.wait_healthy()
    with raw(stack.tcp, owner) as inside, Client(stack.endpoint, deadline_s=30) as local:
        assert inside.ask(listed, "add_entry", "milk", number=1) == 1
        wait_until(lambda: not stack.ask("router", "stats")["in_flight"], 5, "nothing else is in flight")
        cache = stack.kill("cache", signal.SIGSTOP)  # nobody gives the partitions to the next list servers
        try:
            for name in ("list_server-1", "list_server-2"):
                stack.kill(name)
            inside.send([7, listed, 0, pack(["add_entry", "bread"]), 2, 2])
            wait_until(lambda: stack.ask("router", "stats")["in_flight"], 5, "the add waits")
            if is_unreadable_before:
                kept = clients.read_bytes()
                clients.write_bytes(kept[:-20])
                wait_until(lambda: not stack.door_stats()["keys"], 5, "the keys can't be read")
                clients.write_bytes(kept)
            stack.keys("revoke", name_of(owner))
            wait_until(lambda: _is_only_revoked(stack, owner), 5, "the router has heard of it")
        finally:
            os.kill(cache, signal.SIGCONT)
        assert [entry.title for entry in local.todo_list(listed).entries()] == ["milk"]
        assert inside.receive(SILENCE_MS) == {}


def _is_only_revoked(stack: KeyedStack, path: Path) -> bool:
    keys = stack.door_stats()["keys"]
    return bool(keys) and name_of(path) not in keys


def test_a_key_that_is_made_is_let_in_without_a_restart(stack: KeyedStack) -> None:
    pid = stack.pid("router")
    late = stack.new_key("late", "--lists", "late/*")
    with Client.from_file(late) as todo:
        todo.todo_list("late/a").add_entry("x")
    assert stack.pid("router") == pid


def test_where_the_keys_cannot_be_read_nobody_is_let_in_until_they_can(stack: KeyedStack, owner: Path) -> None:
    clients = stack.home / "keys" / "clients.json"
    kept = clients.read_bytes()
    with raw(stack.tcp, owner) as inside:
        assert inside.ask(None, "ping") == "pong"
        inside.events()
        try:
            clients.write_bytes(kept[:-20])
            inside.wait_event(zmq.EVENT_DISCONNECTED, 5.0)
            inside.wait_event(zmq.EVENT_HANDSHAKE_FAILED_AUTH, 5.0)
        finally:
            clients.write_bytes(kept)
    wait_until(lambda: name_of(owner) in stack.door_stats()["keys"], 5, "the keys are back")
    with Client.from_file(owner) as todo:
        assert todo.list_names() == []


@contextlib.contextmanager
def router_without_keys(stack: KeyedStack, owner: Path) -> Iterator[Path]:
    """Have a router that began without the stack's keys, which are the path given; then let it find them again."""
    keys, away = stack.home / "keys", stack.home / "away"
    try:
        keys.rename(away)
        stack.wait_restarted("router", stack.kill("router"), 20)
        yield keys
    finally:
        if not keys.exists():
            away.rename(keys)
    with Client.from_file(owner, deadline_s=20) as todo:
        todo.list_names()


def test_a_router_that_restarts_without_the_stacks_own_pair_serves_this_machine_until_it_is_back(
    stack: KeyedStack, owner: Path
) -> None:
    with router_without_keys(stack, owner) as keys:
        with Client(stack.endpoint, deadline_s=20) as local:
            local.todo_list("local").add_entry("x")
            assert str(keys) in local.call(Via(["router"]), "stats")["door_closed"]
        health = stack.run("todomq.cli", "probe", "health")
        assert health.returncode == 1 and f"lets nobody in over TCP: {keys} is missing" in health.stdout
        with Client(stack.tcp, deadline_s=0.5) as anybody, pytest.raises(errors.Unavailable):
            anybody.list_names()


def test_a_router_whose_port_another_took_while_its_keys_were_away_serves_this_machine(
    stack: KeyedStack, owner: Path
) -> None:
    with router_without_keys(stack, owner) as keys, Client(stack.endpoint, deadline_s=20) as local:
        local.todo_list("local").add_entry("x")
        with socket.create_server(("127.0.0.1", int(stack.tcp.rpartition(":")[2]))):
            (stack.home / "away").rename(keys)
            wait_until(lambda: "Address" in stack.ask("router", "stats")["door_closed"], 10, "it is told")
            local.todo_list("local").add_entry("x")


def test_a_router_that_restarts_without_readable_keys_serves_this_machine_and_nobody_else(
    stack: KeyedStack, owner: Path
) -> None:
    clients = stack.home / "keys" / "clients.json"
    kept = clients.read_bytes()
    try:
        clients.write_bytes(b"{")
        stack.wait_restarted("router", stack.kill("router"), 20)
        with Client(stack.endpoint, deadline_s=20) as local:
            local.todo_list("local").add_entry("x")
        with Client.from_file(owner) as todo, pytest.raises(errors.Unauthorized):
            todo.list_names()
    finally:
        clients.write_bytes(kept)
    wait_until(lambda: name_of(owner) in stack.door_stats()["keys"], 5, "the keys are back")
    with Client.from_file(owner) as todo:
        assert todo.list_names() == []


def test_a_client_keeps_to_what_its_key_may_have_in_flight(stack: KeyedStack) -> None:
    path = stack.new_key("narrow", "--lists", "narrow", "--in-flight", "20")
    with Client.from_file(path) as todo, todo.pipeline() as pipeline:
        for _ in range(500):
            pipeline.todo_list("narrow").add_entry("x")
    assert "overloaded" not in stack.door_stats()["keys"]["narrow"]


def test_a_restarted_router_lets_the_same_in(stack: KeyedStack, owner: Path) -> None:
    with Client.from_file(owner, deadline_s=20) as todo:
        handle = todo.todo_list(f"{name_of(owner)}/a")
        first = handle.add_entry("before")
        stack.wait_restarted("router", stack.kill("router"), 20)
        assert handle.entries() == [first]


# -- what each may do --------------------------------------------------------------------------------------------------


def test_what_a_key_does_not_cover_is_refused_in_the_same_words_whether_it_exists_or_not(
    stack: KeyedStack, owner: Path
) -> None:
    with Client(stack.endpoint) as local:
        local.todo_list("exists").add_entry("secret")
    before = stack.ask("router", "stats").get("unauthorized", 0)
    with Client.from_file(owner) as todo:
        said = []
        for name in ("exists", "exists not"):
            for operation in ("entries", "clear", "delete", "size"):
                error = refusal(todo, name, operation)
                assert isinstance(error, errors.Unauthorized) and not error.retryable
                said.append((error.text, error.outcome))
        assert len(set(said)) == 1
    assert stack.ask("router", "stats")["unauthorized"] == before + 8
    assert stack.door_stats()["keys"][name_of(owner)]["unauthorized"] == 8
    with Client(stack.endpoint) as local:
        assert [entry.title for entry in local.todo_list("exists").entries()] == ["secret"]
        assert "exists not" not in local.list_names("exists")


ADD, UPDATE, DELETE = ("add_entry", "x"), ("update_entry", 1, {"done": True}), ("delete_entry", 99)
READS: list[tuple[Any, ...]] = [("size",), ("entries",), ("entries", None), ("entries_on", None)]


@pytest.mark.parametrize(
    ("rights", "allowed", "refused"),
    [
        ("read", READS, [ADD, UPDATE, DELETE, ("add_entries", [["x"]]), ("clear",), ("delete",), ("fly",)]),
        ("write", [ADD, DELETE, ("add_entries", [["x"]])], [*READS, UPDATE, ("fly",)]),
    ],
)
def test_a_right_is_for_its_operations_only(
    stack: KeyedStack, rights: str, allowed: list[tuple[Any, ...]], refused: list[tuple[Any, ...]]
) -> None:
    path = stack.new_key(f"only-{rights}", "--lists", "ours", "--rights", rights)
    with Client(stack.endpoint) as local:
        local.todo_list("ours").clear()
        local.todo_list("ours").add_entry("x")
    with raw(stack.tcp, path) as inside:
        for body in refused:
            assert isinstance(inside.ask("ours", *body, number=1), errors.Unauthorized), body
        for number, body in enumerate(allowed, 1):
            answer = inside.ask("ours", *body, number=number if rights == "write" else 1)
            assert not isinstance(answer, errors.TodoMQError), (body, answer)
        names = inside.ask("", "list_names", "", None)
        assert isinstance(names, errors.Unauthorized) if rights == "write" else names == [["ours"], None]


def test_no_spelling_of_an_operation_gets_around_the_rights(stack: KeyedStack) -> None:
    """The same operation in other msgpack: longer headers, binary for text, more in front."""
    path = stack.new_key("spell", "--lists", "spell/*", "--rights", "write")
    spelled = [
        b"\xdc\x00\x01\xa7entries", b"\xdd\x00\x00\x00\x01\xa7entries", b"\x91\xd9\x07entries",
        b"\x91\xda\x00\x07entries", b"\x91\xdb\x00\x00\x00\x07entries", b"\x91\xc4\x07entries", b"\xc0\x91\xa7entries",
        b"\x91\x91\xa7entries", b"", b"\x91", b"\x91\xa7ent", b"\x81\xa7entries\xc0",
    ]  # fmt: skip
    with raw(stack.tcp, path) as inside:
        for body in spelled:
            inside.send([1, "spell/a", 0, body, 1, 1])
            assert isinstance(inside.receive()[1], errors.Unauthorized), body


def test_no_spelling_of_a_name_gets_around_the_patterns(stack: KeyedStack, owner: Path) -> None:
    name = name_of(owner)
    names = [
        name, f"{name}", f"{name.upper()}/a", f" {name}/a", f"{name} /a", f"/{name}/a", f"./{name}/a", f"x/../{name}/a",
        f"{name}\u2215a", f"{name}\uff0fa", f"{name[:-1]}\u200b{name[-1]}/a", f"\ufeff{name}/a", f"\0{name}/a",
        f"{name}\\a", "*", f"{name[:3]}*", "",
    ]  # fmt: skip
    with raw(stack.tcp, owner) as inside:
        for other in names:
            assert isinstance(inside.ask(other, "entries", number=1), errors.Unauthorized), other
        # Bytes for text are a database key, and bytes that are no UTF-8 no text.
        assert isinstance(inside.ask(f"{name}/a".encode(), "entries", number=1), errors.Unauthorized)
        broken = pack([1, "call", b"raw", [[1, f"{name}/\x7f", 0, pack(["entries"]), 1, 1]]]).replace(b"\x7f", b"\xff")
        inside.socket.send_multipart([b"", broken])
        assert isinstance(inside.receive()[None], errors.ProtocolError)


ADMINS_ONLY: list[tuple[Any, tuple[Any, ...]]] = [
    ([["registry"]], ("names",)),
    ([["registry"]], ("register_name", "x", "tcp://127.0.0.1:1", None, b"", 1000)),
    ([["cache"]], ("server_process", "a")),
    ([["cache"]], ("kill_list", "a")),
    ([["router"]], ("stats",)),
    ([["list_server", 1]], ("stats",)),
    ([["database_worker", 1]], ("ping",)),
    ([["nobody"]], ("ping",)),
    (b"\xa1k", ("get", "k")),
    (b"\xa1k", ("store", "k", 1)),
    (None, ("stats",)),
    (None, ("table", [], [])),
    ("", ("list_names_within", ["*"], pack(["list_names", "", None]))),
]


@pytest.mark.parametrize(("target", "body"), ADMINS_ONLY)
def test_registry_cache_database_and_probes_are_for_admins(
    stack: KeyedStack, owner: Path, target: Any, body: tuple[Any, ...]
) -> None:
    with raw(stack.tcp, owner) as inside:
        error = inside.ask(target, *body)
        assert isinstance(error, errors.Unauthorized) and error.text == "this key does not allow that"


@pytest.mark.parametrize("command", ["health", "ping", "tree", "top", "list", "why", "registry", "kill"])
def test_a_probe_by_another_key_names_the_right_that_it_takes_and_blames_no_part(
    stack: KeyedStack, owner: Path, command: str
) -> None:
    more = {"list": ["x"], "why": ["x"], "kill": ["cache"], "top": ["--once", "--every", "0.1"]}.get(command, [])
    done = stack.run("todomq.cli", "probe", command, *more, settings={"TODOMQ_CREDENTIALS": str(owner)})
    assert (done.returncode, done.stdout) == (1, "")
    assert "takes a key with the right admin" in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_admin_reaches_every_part(stack: KeyedStack) -> None:
    path = stack.new_key("root", "--rights", "admin")
    with Client.from_file(path) as todo:
        todo.database.store("k", 1)
        assert todo.database.get("k") == 1
        assert todo.call(Via(["list_server", 1]), "ping") == "pong"
        assert all(todo.registry.whereis_name(name) for name in stack.control.settings.daemon_names())
        todo.todo_list("anything").add_entry("x")
        assert "anything" in todo.list_names()
    with raw(stack.tcp, path) as inside:  # not even an admin sets the table: that is the cache's
        assert isinstance(inside.ask(None, "table", [], []), errors.Unauthorized)


def test_list_names_shows_what_the_key_may_read_and_nothing_else(stack: KeyedStack) -> None:
    path = stack.new_key("names", "--lists", "m/*", "--lists", "one", "--lists", "z*", "--rights", "read")
    mine = ["m/1", "m/2", "m/\U0010ffff", "one", "z", "zz"]
    with Client(stack.endpoint) as local, local.pipeline() as pipeline:
        for name in [*mine, "m", "m0", "l/z", "one ", "one1", "on", "y"]:
            pipeline.todo_list(name).add_entry("x")
    with Client.from_file(path) as todo:
        assert todo.list_names() == mine
        assert todo.list_names("m") == todo.list_names("m/") == mine[:3]
        assert todo.list_names("on") == ["one"] and todo.list_names("y") == [] and todo.list_names("zz") == ["zz"]


# -- one key against another -------------------------------------------------------------------------------------------


def test_the_sender_and_number_of_another_key_give_nobody_its_answer(stack: KeyedStack) -> None:
    """The dedupe record is per key, so a guessed sender id and number are a change of the guesser's own."""
    alice, mallory = (stack.new_key(name, "--lists", "shared") for name in ("alice", "mallory"))
    with raw(stack.tcp, alice) as hers, raw(stack.tcp, mallory) as his, raw(stack.endpoint, None) as local:
        assert hers.ask("shared", "add_entries", [["a"], ["b"]], number=1, sender=b"alice") == [1, 2]
        assert his.ask("shared", "add_entry", "c", number=1, sender=b"alice") == 3
        assert local.ask("shared", "add_entry", "d", number=1, sender=b"alice") == 4
        assert hers.ask("shared", "add_entries", [["a"], ["b"]], number=1, sender=b"alice") == [1, 2]
        assert hers.ask("shared", "size", number=2, sender=b"alice") == 4


def test_a_change_replayed_by_its_own_key_takes_effect_once(stack: KeyedStack, owner: Path) -> None:
    name = f"{name_of(owner)}/once"
    for _ in range(3):
        with raw(stack.tcp, owner) as inside:
            assert inside.ask(name, "add_entry", "x", number=1, sender=b"me") == 1
    with raw(stack.tcp, owner) as inside:
        assert inside.ask(name, "size", number=2, sender=b"me") == 1


def test_a_recorded_handshake_is_of_no_use(stack: KeyedStack, owner: Path) -> None:
    """The bytes of a whole session, sent again: CURVE's keys are new for each connection."""
    host, port = stack.tcp.removeprefix("tcp://").split(":")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(10)
        middle = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        recorded: list[bytes] = []
        thread = threading.Thread(target=_record, args=(listening, (host, int(port)), recorded))
        thread.start()
        with raw(middle, owner) as inside:
            assert inside.ask(f"{name_of(owner)}/r", "add_entry", "x", number=1, sender=b"me") == 1
        thread.join(10)
    before = stack.door_stats()["keys"][name_of(owner)]["requests"]
    with socket.create_connection((host, int(port))) as replay:
        replay.settimeout(10)
        for piece in recorded:
            replay.sendall(piece)
        while _receive(replay):
            continue
    assert stack.door_stats()["keys"][name_of(owner)]["requests"] == before


def _record(listening: socket.socket, to: tuple[str, int], recorded: list[bytes]) -> None:
    """Pass one connection on and keep what its client sends."""
    near, _ = listening.accept()
    near.settimeout(10)
    with near, socket.create_connection(to, 10) as far:
        back = threading.Thread(target=_pass_on, args=(far, near, None))
        back.start()
        _pass_on(near, far, recorded)
        back.join(10)


def _pass_on(source: socket.socket, target: socket.socket, kept: list[bytes] | None) -> None:
    while piece := _receive(source):
        if kept is not None:
            kept.append(piece)
        try:
            target.sendall(piece)
        except OSError:
            break
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def _receive(source: socket.socket) -> bytes:
    """Return what comes, nothing once the connection has ended; raise where neither happens in the socket's time."""
    try:
        return source.recv(65_536)
    except ConnectionError:
        return b""


def test_whoever_names_a_routing_id_is_cut(stack: KeyedStack, owner: Path) -> None:
    for routing_id in (b"bob", b"\xff\xfe", b"1234"):
        with raw(stack.tcp, owner, routing_id) as inside:
            inside.send([1, None, 0, pack(["ping"])])
            inside.wait_event(zmq.EVENT_DISCONNECTED, 5)
            assert inside.receive(SILENCE_MS) == {}


def test_request_ids_are_each_connections_own(stack: KeyedStack, owner: Path) -> None:
    name = name_of(owner)
    with raw(stack.tcp, owner) as one, raw(stack.tcp, owner) as two:
        for number in range(1, 50):
            for each, sender in ((one, b"1"), (two, b"2")):
                each.send([7, f"{name}/{sender.decode()}", 0, pack(["add_entry", "x"]), number, number], sender=sender)
            assert one.receive() == two.receive() == {7: number}


# -- shares ------------------------------------------------------------------------------------------------------------


def test_a_key_over_its_requests_in_flight_is_overloaded_and_nobody_else(stack: KeyedStack, owner: Path) -> None:
    few = stack.new_key("few", "--lists", "few/*", "--in-flight", "10")
    with raw(stack.tcp, few) as one, raw(stack.tcp, few) as two, raw(stack.tcp, owner) as other:
        servers = [name for name in stack.daemons if name.startswith("list_server")]
        assert one.ask(None, "ping") == two.ask(None, "ping") == other.ask(None, "ping") == "pong"
        pids = [stack.kill(name, signal.SIGSTOP) for name in servers]
        try:
            one.send(*([n, "few/a", 0, pack(["size"]), 1, 1] for n in range(6)))
            wait_until(lambda: stack.ask("router", "stats")["in_flight"] >= 6, 5, "six are in flight")
            two.send(*([n, "few/a", 0, pack(["size"]), 1, 1] for n in range(6)))
            refused = two.receive_all(2)
            assert [type(error) for error in refused.values()] == [errors.Overloaded] * 2
            other.send(*([n, f"{name_of(owner)}/a", 0, pack(["size"]), 1, 1] for n in range(12)))
            wait_until(lambda: stack.ask("router", "stats")["in_flight"] >= 22, 5, "the other's are in flight as well")
            assert raw_ping(stack, owner)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert one.receive_all(6) == dict.fromkeys(range(6), 0)
        assert other.receive_all(12) == dict.fromkeys(range(12), 0)


def raw_ping(stack: KeyedStack, path: Path) -> bool:
    with raw(stack.tcp, path) as inside:
        return bool(inside.ask(None, "ping") == "pong")


def test_a_key_over_its_bytes_in_flight_is_overloaded(stack: KeyedStack) -> None:
    path = stack.new_key("thin", "--lists", "thin", "--bytes-in-flight", "10000")
    with raw(stack.tcp, path) as inside:
        assert isinstance(inside.ask("thin", "add_entry", "x", None, {"x": "y" * 10_000}, number=1), errors.Overloaded)
        assert inside.ask("thin", "add_entry", "x", number=1) == 1


def test_a_key_over_its_requests_a_second_waits_and_loses_nothing(stack: KeyedStack, owner: Path) -> None:
    path = stack.new_key("slow", "--lists", "slow", "--per-second", "50")
    with raw(stack.tcp, path) as inside:
        inside.send(*([n, None, 0, pack(["ping"])] for n in range(100)))
        answers = inside.receive_all(100)
        assert 50 <= sum(answer == "pong" for answer in answers.values()) < 60
        assert sum(isinstance(answer, errors.Overloaded) for answer in answers.values()) > 40
    with Client.from_file(path, deadline_s=30) as todo:
        with todo.pipeline() as pipeline:
            futures = [pipeline.todo_list("slow").add_entry(str(number)) for number in range(100)]
        assert [future.result().title for future in futures] == [str(number) for number in range(100)]
        assert todo.todo_list("slow").size() == 100


def test_a_key_over_its_connections_is_overloaded(stack: KeyedStack) -> None:
    path = stack.new_key("two", "--lists", "two", "--connections", "2")
    with raw(stack.tcp, path) as one, raw(stack.tcp, path) as two:
        assert one.ask(None, "ping") == two.ask(None, "ping") == "pong"
        with raw(stack.tcp, path) as three:
            assert isinstance(three.ask(None, "ping"), errors.Overloaded)
        with Client.from_file(path, deadline_s=2.0) as todo, pytest.raises(errors.Overloaded, match="connections"):
            todo.todo_list("two").size()
    with raw(stack.tcp, path) as again:
        wait_until(lambda: again.ask(None, "ping") == "pong", 5, "there is room again")


def test_a_key_cannot_come_to_have_more_lists_or_entries_than_its_quota(stack: KeyedStack) -> None:
    with Client(stack.endpoint) as local:
        local.todo_list("q/there already").add_entry("x")
    path = stack.new_key("q", "--lists", "q/*", "--most-lists", "5", "--most-entries", "3")
    with Client.from_file(path) as todo:
        with pytest.raises(BaseExceptionGroup), todo.pipeline() as pipeline:
            futures = [pipeline.todo_list(f"q/{number}").add_entry("x") for number in range(20)]
        failures = [future.exception() for future in futures if future.exception() is not None]
        assert {type(error) for error in failures} == {errors.QuotaExceeded} and len(failures) == 16
        assert len(todo.list_names()) == 5
        first = todo.todo_list(todo.list_names()[0])
        first.add_entries([("y", None), ("z", None)])
        with pytest.raises(errors.QuotaExceeded, match="3 entries"):
            first.add_entry("one too many")
        with pytest.raises(errors.QuotaExceeded):
            todo.todo_list("q/new").add_entry("x")
        assert first.size() == 3 and len(todo.list_names()) == 5
        first.delete_entry(1)
        assert first.add_entry("there is room again").id == 4
    with Client(stack.endpoint) as local:  # the quota is the key's, not the lists'
        local.todo_list("q/new").add_entry("x")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (pack(["within", True, 0, pack(["add_entry", "x"])]), "the router's own"),
        (pack(["within", True, 0, pack(["add_entries", [["x"], ["y"]]])]), "the router's own"),
        (b"\x92\xd9\x09add_entry\xa1x", "shortest form"),
        (b"\xdc\x00\x02\xa9add_entry\xa1x", "shortest form"),
        (b"\x94\xd9\x06within\xc3\x00" + pack(pack(["add_entry", "x"])), "shortest form"),
        (pack([]), "a body is an array"),
        (b"", "a body is an array"),
        (b"\xc1", "a body is an array"),
    ],
)
def test_no_form_of_a_request_gets_around_a_quota(stack: KeyedStack, around: Path, body: bytes, says: str) -> None:
    with raw(stack.tcp, around) as inside:
        wait_until(
            lambda: inside.ask("around/a", "add_entry", "x", number=1, sender=b"first") == 1, 5, "the lists are counted"
        )
        for name in ("around/a", "around/b"):
            inside.send([1, name, 0, body, 1, 1], sender=os.urandom(8))
            refusal = inside.receive()[1]
            assert isinstance(refusal, errors.InvalidRequest) and says in refusal.text
    with Client(stack.endpoint) as local:
        assert local.list_names("around/") == ["around/a"] and local.todo_list("around/a").size() == 1


@pytest.fixture(scope="module")
def around(stack: KeyedStack) -> Path:
    return stack.new_key("around", "--lists", "around/*", "--most-lists", "1", "--most-entries", "1")


def test_a_key_cannot_have_a_process_of_this_machine_watched_and_ended(stack: KeyedStack) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with raw(stack.tcp, stack.new_key("chief", "--rights", "admin")) as inside:
            victim = ["victim", "tcp://127.0.0.1:7", bystander.pid, b"i", 500]
            assert isinstance(inside.ask([["registry"]], "register_name", *victim), errors.Unauthorized)
            mine = ["mine", "tcp://127.0.0.1:7", None, b"i", 3000]
            assert inside.ask([["registry"]], "register_name", *mine) is True
            names = [registration[0] for registration in inside.ask([["registry"]], "names")]
            assert "mine" in names and "victim" not in names
    finally:
        bystander.kill()
        bystander.wait()


@pytest.fixture(scope="module")
def narrow() -> Iterator[KeyedStack]:
    """A stack for what is taken from it: descriptors first, then its pair, its keys at last."""
    yield from kept_running(KeyedStack(TODOMQ_LIST_SERVERS="1", TODOMQ_DATABASE_WORKERS="1"))


def test_strangers_leave_descriptors_for_this_machine(narrow: KeyedStack) -> None:
    """Where none is left for ipc, libzmq ends the process."""
    stack = narrow
    few = 2_000
    resource.prlimit(stack.manager_pid(), resource.RLIMIT_NOFILE, (few, few))
    before = stack.kill("router")
    router = stack.wait_restarted("router", before)
    host, port = stack.tcp.removeprefix("tcp://").split(":")
    opened: list[socket.socket] = []
    clients: list[Client] = []
    try:
        opened += [socket.create_connection((host, int(port))) for _ in range(few + few // 4)]
        wait_until(lambda: stack.door_stats().get("too_many", 0) > 0, 10, "some are turned away")
        for number in range(20):
            clients.append(Client(stack.endpoint, deadline_s=20))
            assert clients[-1].todo_list("local").add_entry("x").id == number + 1
        assert stack.pid("router") == router
    finally:
        for client in clients:
            client.close()
        for each in opened:
            each.close()


def test_another_pair_of_the_stack_is_used_at_once(narrow: KeyedStack) -> None:
    before, old, new = narrow.pid("router"), narrow.new_key("old", "--rights", "admin"), narrow.home / "new"
    shutil.rmtree(narrow.home / "keys")
    narrow.keys("init")
    narrow.keys("new", "new", "--rights", "admin", "--out", str(new))
    narrow.wait_restarted("router", before, 20)
    with Client.from_file(new, deadline_s=20) as todo:
        todo.list_names()
    with Client.from_file(old, deadline_s=1.0) as todo, pytest.raises(errors.Unavailable):
        todo.list_names()


def test_a_stack_that_is_to_have_no_keys_any_more_gets_an_open_door(narrow: KeyedStack) -> None:
    shutil.rmtree(narrow.home / "keys")
    narrow.wait_restarted("router", narrow.kill("router"), 20)
    before = narrow.pid("router")
    (narrow.home / "has-keys").unlink()  # as is said where the keys are missed
    narrow.wait_restarted("router", before, 20)
    with Client(narrow.tcp, deadline_s=20) as anybody:
        anybody.todo_list("open").add_entry("milk")
    narrow.wait_healthy()


def test_an_add_sent_again_within_a_quota_gets_its_first_answer(stack: KeyedStack) -> None:
    path = stack.new_key("full", "--lists", "full/*", "--most-lists", "1", "--most-entries", "1")
    with raw(stack.tcp, path) as inside:

        def add(number: int) -> Any:
            return inside.ask("full/a", "add_entry", "x", number=number, sender=b"me")

        wait_until(lambda: add(1) == 1, 5, "the lists are counted")
        assert isinstance(add(2), errors.QuotaExceeded) and add(1) is not None
        assert isinstance(inside.ask("full/b", "add_entry", "x", number=1, sender=b"me"), errors.QuotaExceeded)


def test_an_add_sent_again_is_not_refused_because_it_filled_the_quota(stack: KeyedStack) -> None:
    path = stack.new_key("brim", "--lists", "brim/*", "--most-lists", "1", "--most-entries", "1")
    with raw(stack.tcp, path) as inside:
        wait_until(lambda: inside.ask("brim/a", "add_entry", "x", number=1, sender=b"me") == 1, 5, "it is added")
        assert inside.ask("brim/a", "add_entry", "x", number=1, sender=b"me") == 1


# -- hostile bytes -----------------------------------------------------------------------------------------------------


def test_a_frame_over_the_doors_limit_cuts_its_sender_only(stack: KeyedStack, owner: Path) -> None:
    with raw(stack.tcp, owner) as bystander, raw(stack.tcp, owner) as inside:
        assert bystander.ask(None, "ping") == inside.ask(None, "ping") == "pong"
        inside.socket.send_multipart([b"", b"\xc0" * (limits.DOOR_BYTES + 1)])
        inside.wait_event(zmq.EVENT_DISCONNECTED, 10)
        assert bystander.ask(None, "ping") == "pong"


def test_a_message_of_endless_frames_is_cut_before_it_fills_the_router(stack: KeyedStack, owner: Path) -> None:
    """libzmq sends a message when it is whole, so it takes a client that speaks the protocol by itself."""
    before, flooded = stack.router_memory_bytes(), stack.door_stats().get("flooded", 0)
    with raw(stack.tcp, owner) as bystander, hostile(stack, owner) as inside:
        frame, sent = b"x" * 65_536, 0
        inside.socket.settimeout(2)  # whoever is cut with its window closed may not hear of it while it sends
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 1 << 30:
                inside.send_frame(frame, has_more=True)
                sent += len(frame)
        inside.socket.settimeout(10)
        assert sent < 512 << 20 and _receive(inside.socket) == b""
        assert bystander.ask(None, "ping") == "pong"
    assert stack.router_memory_bytes() - before < 512 << 20
    assert stack.door_stats()["flooded"] == flooded + 1


def test_who_sends_much_but_completes_its_messages_is_not_cut(stack: KeyedStack, owner: Path) -> None:
    title, name, before = "x" * 1_000, f"{name_of(owner)}/much", stack.door_stats().get("flooded", 0)
    with Client.from_file(owner, deadline_s=60) as todo:
        for _ in range(100):
            todo.todo_list(name).add_entries([(title, None)] * 500)
            todo.todo_list(name).clear()
    assert stack.door_stats().get("flooded", 0) == before


@contextlib.contextmanager
def hostile(stack: KeyedStack, path: Path, **properties: bytes) -> Iterator[HostileClient]:
    named = {"Socket-Type": b"DEALER", "Identity": b"", **{key.replace("_", "-"): v for key, v in properties.items()}}
    client = HostileClient(stack.tcp, read_credentials(path), named)
    try:
        yield client
    finally:
        client.socket.close()


def test_no_property_that_a_client_names_makes_it_somebody_else(stack: KeyedStack, owner: Path) -> None:
    root = stack.new_key("somebody", "--rights", "admin")
    user = read_credentials(root).public_key.encode()
    with hostile(stack, owner, User_Id=user) as inside:
        for target, body, allowed in ((None, ["ping"], True), (None, ["stats"], False), ("anything", ["size"], False)):
            inside.send_frame(b"", has_more=True)
            inside.send_frame(messages.call(b"me", [[1, target, 0, pack(body), 1, 1]]), has_more=False)
            assert inside.receive_frame() == b""
            _, fields = messages.read(inside.receive_frame())
            ((_, status, _),) = messages.read_replies(fields)
            assert (status == messages.OK) == allowed


def test_a_routing_id_like_those_that_libzmq_makes_is_cut_too(stack: KeyedStack, owner: Path) -> None:
    with hostile(stack, owner, Identity=b"\0\1\2\3\4") as inside:
        inside.send_frame(b"", has_more=True)
        inside.send_frame(messages.call(b"me", [[1, None, 0, pack(["ping"])]]), has_more=False)
        assert inside.receive_frame() == b""


@pytest.mark.parametrize("content", [b"\x80", b"\x90", b"\x91", b"\xc0"])
def test_a_megabyte_of_empty_containers_is_refused_and_costs_no_memory(
    stack: KeyedStack, owner: Path, content: bytes
) -> None:
    before = stack.router_memory_bytes()
    with raw(stack.tcp, owner) as inside:
        for _ in range(10):
            blown = b"\xdd" + (1_000_000).to_bytes(4, "big") + content * 1_000_000
            inside.socket.send_multipart([b"", blown])
            assert isinstance(inside.receive()[None], errors.ProtocolError)
            inside.send([1, f"{name_of(owner)}/a", 0, b"\x92\xa9add_entry" + blown, 1, 1])
            assert isinstance(inside.receive()[1], errors.TodoMQError)
    assert stack.router_memory_bytes() - before < 64 << 20


def test_thousands_of_half_open_connections_delay_nobody(stack: KeyedStack, owner: Path) -> None:
    """Some say nothing, some half of ZMTP's greeting, some a greeting and then garbage."""
    host, port = stack.tcp.removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(22, b"\0") + bytes(32)
    says = [b"", greeting[:10], greeting, greeting + b"\x04\xff" + b"x" * 255]
    with Client.from_file(owner) as todo:
        handle = todo.todo_list(f"{name_of(owner)}/busy")
        calm_s = _median_s(lambda: handle.add_entry("x"))
        opened: list[socket.socket] = []
        try:
            for number in range(HALF_OPEN):
                each = socket.create_connection((host, int(port)))
                each.sendall(says[number % len(says)])
                opened.append(each)
            busy_s = _median_s(lambda: handle.add_entry("x"))
            assert raw_ping(stack, owner)
        finally:
            for each in opened:
                each.close()
    assert busy_s < 5 * calm_s + 0.02
    wait_until(lambda: stack.door_stats()["connections"] < 50, 20, "the half-open connections are gone")


def _median_s(action: Any, times: int = 100) -> float:
    took = []
    for _ in range(times):
        began_s = time.monotonic()
        action()
        took.append(time.monotonic() - began_s)
    return sorted(took)[times // 2]


def test_half_open_connections_end_by_themselves(stack: KeyedStack) -> None:
    host, port = stack.tcp.removeprefix("tcp://").split(":")
    router = stack.pid("router")
    with socket.create_connection((host, int(port))) as silent:
        silent.settimeout(15)
        silent.sendall(b"\xff")
        assert _receive(silent)  # the router's own greeting: it was let in
        since_s = time.monotonic()
        while _receive(silent):
            continue
        assert time.monotonic() - since_s > HANDSHAKE_MS / 2_000
    assert stack.pid("router") == router and stack.ask("router", "ping") == "pong"


def test_a_path_as_a_name_is_a_name(stack: KeyedStack) -> None:
    path = stack.new_key("paths", "--lists", "../*", "--lists", "/etc/*")
    before = {each.name for each in stack.home.iterdir()}
    with Client.from_file(path) as todo:
        for name in ("../../../etc/passwd", "../keys/server.json", "/etc/passwd", "../\0"):
            assert todo.todo_list(name).add_entry("x").id == 1
            assert [entry.title for entry in todo.todo_list(name).entries()] == ["x"]
    assert {each.name for each in stack.home.iterdir()} == before
    refused = stack.run("todomq.cli", "keys", "new", "../x", "--lists", "a")
    assert refused.returncode == USAGE and not (stack.home.parent / "x.credentials").exists()
    for wrong in (["x"], ["x", "--rights", "admin", "--lists", "a"], ["x", "--lists", "a", "--endpoint", "tcp://*:1"]):
        refused = stack.run("todomq.cli", "keys", "new", *wrong)
        assert refused.returncode == USAGE, refused


def test_titles_and_names_write_nothing_into_logs_or_terminals(stack: KeyedStack, owner: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\r\nnot_let_in forged=1\u202e"
    name = f"{name_of(owner)}/{evil}"
    with Client.from_file(owner) as todo:
        todo.todo_list(name).add_entry(evil)
    by_key = {"TODOMQ_CREDENTIALS": str(owner)}
    for command in (["ls", name], ["lists"]):
        shown = stack.run("todomq.cli", *command, settings=by_key).stdout
        assert "\\x1b[2J" in shown and not set(shown) & set("\x1b\x07\r\u202e")
    with raw(stack.tcp, owner) as inside:
        inside.socket.send_multipart([b"", pack([1, evil, 1])])
        assert isinstance(inside.receive()[None], errors.ProtocolError)
    for log in (stack.home / "log").iterdir():
        text = log.read_bytes()
        assert b"\x1b" not in text and b"\nnot_let_in forged" not in text


def test_no_secret_is_in_any_log_command_line_or_environment(stack: KeyedStack, owner: Path) -> None:
    server = (stack.home / "keys" / "server.json").read_text()
    secrets = [read_credentials(owner).secret_key, server.split('"secret": "')[1][:40]]
    raw_ping(stack, owner)
    seen = [log.read_text(errors="replace") for log in (stack.home / "log").iterdir()]
    for pid in stack.living():
        seen += [Path(f"/proc/{pid}/{part}").read_text(errors="replace") for part in ("cmdline", "environ")]
    seen.append(stack.run("todomq.cli", "keys", "show", name_of(owner)).stdout)
    seen.append(stack.run("todomq.cli", "keys", "show", "--json").stdout)
    assert len(seen) > 15 and not [text for text in seen for secret in secrets if secret in text]
    modes = {path.stat().st_mode & 0o777 for path in [owner, *(stack.home / "keys").iterdir()]}
    assert modes == {0o600} and (stack.home / "keys").stat().st_mode & 0o777 == 0o700


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:{}", "tcp://*:{}", "tcp://localhost:{}"])
def test_nothing_starts_where_others_could_reach_it_without_keys(address: str) -> None:
    outside = RunningStack(TODOMQ_TCP=address.format(free_port()))
    try:
        for module, *arguments in (("todomq", "up"), ("todomq.router",)):
            refused = outside.run(module, *arguments)
            assert refused.returncode in (2, 78)
            assert "other machines can reach" in refused.stderr and "todomq keys init" in refused.stderr
        assert not outside.living()
    finally:
        assert not outside.discard()


def test_files_that_others_may_read_are_not_used(stack: KeyedStack, owner: Path) -> None:
    owner.chmod(0o640)
    with pytest.raises(errors.InvalidRequest, match="chmod 600"):
        Client.from_file(owner)
    owner.chmod(0o600)


def test_the_door_is_open_at_every_address_of_a_stack_with_keys() -> None:
    """At every address of a machine, and over IPv6: the kernel tells of those connections in another form."""
    port = free_port()
    for listens, reached in (("*", "localhost"), ("[::1]", "[::1]")):
        wide = KeyedStack(TODOMQ_LIST_SERVERS="1", TODOMQ_DATABASE_WORKERS="1")
        wide.environment["TODOMQ_TCP"] = f"tcp://{listens}:{port}"
        try:
            wide.start()
            path = wide.new_key("far", "--lists", "far/*", "--endpoint", f"tcp://{reached}:{port}")
            with raw(f"tcp://{reached}:{port}", path) as inside:
                assert inside.ask("far/a", "add_entry", "x", number=1) == 1
                with Client.from_file(path) as todo:
                    assert todo.todo_list("far/a").add_entry("y").id == 2
                inside.events()
                wide.keys("revoke", "far")
                inside.wait_event(zmq.EVENT_DISCONNECTED, 5.0)
        finally:
            assert not wide.discard()


# -- between daemons ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spread() -> Iterator[KeyedStack]:
    """A stack whose daemons reach each other over TCP."""
    ports = free_port(262)
    yield from kept_running(KeyedStack(TODOMQ_STACK_TCP=f"tcp://127.0.0.1:{ports}"))


def stack_ports(stack: KeyedStack) -> list[int]:
    first = int(stack.environment["TODOMQ_STACK_TCP"].rpartition(":")[2])
    return list(range(first, first + 2 * len(stack.daemons)))


def test_daemons_reach_each_other_over_tcp(spread: KeyedStack) -> None:
    with Client(spread.endpoint, deadline_s=20) as todo:
        for registration in todo.registry.names():
            assert registration.address.startswith("tcp://127.0.0.1:"), registration
        for number in range(20):
            todo.todo_list(f"list {number}").add_entry("x")
        for victim in ("database_worker-1", "list_server-1", "cache", "registry", "router"):
            spread.wait_restarted(victim, spread.kill(victim), 20)
            for number in range(20):
                todo.todo_list(f"list {number}").add_entry(victim)
        assert all(todo.todo_list(f"list {number}").size() == 6 for number in range(20))


def test_a_stack_whose_daemons_use_the_pair_keeps_it_until_it_is_started_again(spread: KeyedStack) -> None:
    keys = spread.home / "keys"
    with Client(spread.endpoint, deadline_s=20) as todo:
        keys.rename(spread.home / "away")
        try:
            spread.keys("init")
            closed = wait_until(lambda: spread.ask("router", "stats").get("door_closed"), 10, "it is told")
            assert "todomq down; todomq up" in closed
            todo.todo_list("goes on").add_entry("x")
            health = spread.run("todomq.cli", "probe", "health")
            assert "lets nobody in over TCP: the stack's own keys are others" in health.stdout
        finally:
            shutil.rmtree(keys)
            (spread.home / "away").rename(keys)
        wait_until(lambda: "door_closed" not in spread.ask("router", "stats"), 10, "the pair is the one in use")
        todo.todo_list("goes on").add_entry("x")


def test_no_socket_of_a_daemon_answers_who_is_not_of_the_stack(spread: KeyedStack) -> None:
    client = read_credentials(spread.new_key("client", "--rights", "admin"))
    outsiders = [None, client, stranger(spread.home / "client.credentials")]
    with contextlib.ExitStack() as opened:
        outside = [
            opened.enter_context(raw(f"tcp://127.0.0.1:{port}", comes_as))
            for port in stack_ports(spread)
            for comes_as in outsiders
        ]
        for each in outside:
            each.socket.setsockopt(zmq.SNDTIMEO, 0)
            with contextlib.suppress(zmq.Again):
                each.send([1, None, 0, pack(["ping"])])
        assert outside[0].receive(2 * SILENCE_MS) == {}
        for each in outside:
            assert each.receive(0) == {} and zmq.EVENT_HANDSHAKE_SUCCEEDED not in each.events()


def test_the_stacks_own_key_is_let_in_there_so_the_silence_above_means_something(spread: KeyedStack) -> None:
    with raw(f"tcp://127.0.0.1:{stack_ports(spread)[0]}", stack_key(spread)) as inside:
        assert inside.ask(None, "ping") == "pong"


def stack_key(stack: KeyedStack) -> Credentials:
    pair = KeyStore(stack.home / "keys").server()
    return Credentials("stack", stack.tcp, pair.public, pair.public, pair.secret)


def answers_over_ipc(stack: KeyedStack, name: str) -> bool:
    return bool(stack.ask(name, "ping", 0.2) == "pong")


def test_ipc_stays_open_beside_it_and_comes_back_when_its_file_is_removed(spread: KeyedStack) -> None:
    for name in ("router", "registry", "list_server-1"):
        (spread.home / "run" / name).unlink()
        wait_until(partial(answers_over_ipc, spread, name), 10, f"{name} answers over ipc again")
    with raw(f"tcp://127.0.0.1:{stack_ports(spread)[0]}", None) as outside:
        outside.socket.setsockopt(zmq.SNDTIMEO, 100)
        with contextlib.suppress(zmq.Again):
            assert outside.ask(None, "ping", timeout_ms=SILENCE_MS) is None
        assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in outside.events()


def test_a_list_server_with_another_home_takes_part_over_tcp(spread: KeyedStack) -> None:
    """As from another machine: nothing is shared but the stack's keys and the registry's address."""
    first = spread.environment["TODOMQ_STACK_TCP"]
    elsewhere = RunningStack(
        TODOMQ_REGISTRY=first, TODOMQ_STACK_TCP=f"tcp://127.0.0.1:{free_port(262)}", TODOMQ_LIST_SERVERS="3"
    )
    shutil.copytree(spread.home / "keys", elsewhere.home / "keys")
    far = subprocess.Popen([sys.executable, "-m", "todomq.list_server", "3"], env=elsewhere.environment)
    try:
        with Client(spread.endpoint, deadline_s=20) as todo:
            wait_until(lambda: _owns_some(todo, 3), 20, "the far list server owns partitions")
            homes = set()
            for number in range(40):
                todo.todo_list(f"far {number}").add_entry("x")
                homes.add(todo.cache.server_process(f"far {number}").server[1])
            assert homes == {1, 2, 3}
            health = spread.run("todomq.cli", "probe", "health")
            assert health.returncode == 0 and re.search(r"ok +list_server 3 +[1-9]\d* partitions", health.stdout)
            name = next(f"far {n}" for n in range(40) if todo.cache.server_process(f"far {n}").server[1] == 3)
            assert "list_server 3" in spread.run("todomq.cli", "probe", "list", name).stdout
            tree = spread.run("todomq.cli", "probe", "tree").stdout
            assert tree.startswith("supervisord\n") and re.search(r"list_server 3 +REGISTERED .* partitions", tree)
            assert re.search(r"list_server 2.*\n.*list_server 3.*\n.*\n.*router", tree)
            assert re.search(r"list_server 3 +[\d.]+ ms", spread.run("todomq.cli", "probe", "ping").stdout)
            far.send_signal(signal.SIGSTOP)
            try:
                health = spread.run("todomq.cli", "probe", "health")
                assert health.returncode == 1 and re.search(r"At fault: .*list_server 3", health.stdout)
            finally:
                far.send_signal(signal.SIGCONT)
            wait_until(lambda: _owns_some(todo, 3), 20, "the far list server owns partitions again")
            far.terminate()
            far.wait(20)
            assert all(todo.todo_list(f"far {number}").size() == 1 for number in range(40))
    finally:
        far.kill()
        far.wait()
        assert not elsewhere.discard()


def test_law_8_a_worker_with_another_home_and_no_shard_begins_no_empty_one(spread: KeyedStack) -> None:
    elsewhere = RunningStack(
        TODOMQ_REGISTRY=spread.environment["TODOMQ_STACK_TCP"], TODOMQ_STACK_TCP=f"tcp://127.0.0.1:{free_port(262)}"
    )
    shutil.copytree(spread.home / "keys", elsewhere.home / "keys")
    try:
        refused = elsewhere.run("todomq.database_worker", "1")
        assert refused.returncode == 78 and "holds no shard" in refused.stderr
        assert not (elsewhere.home / "data").exists()
    finally:
        assert not elsewhere.discard()


def test_law_8_a_worker_that_brings_other_data_is_refused_and_named_until_the_right_one_is_back(
    spread: KeyedStack,
) -> None:
    """As from another machine, where the volume is another one; the right worker is stopped meanwhile."""
    elsewhere = RunningStack(
        TODOMQ_REGISTRY=spread.environment["TODOMQ_STACK_TCP"], TODOMQ_STACK_TCP=f"tcp://127.0.0.1:{free_port(262)}"
    )
    shutil.copytree(spread.home / "keys", elsewhere.home / "keys")
    shard_directory(elsewhere.home / "data", 1, 3, RocksDBStorage.create, elsewhere.home / "stack")
    kept = (f"kept {number}" for number in range(40))
    names = [name for name in kept if worker_of(partition_of(name.encode()), 3) == 1]
    new = names.pop()
    manager, other = spread.control.manager, None
    with Client(spread.endpoint, deadline_s=20) as todo:
        for name in names:
            todo.todo_list(name).add_entry("x")
        todo.call(Via(["database_worker", 1]), "store", "key", "value")
        try:
            with spread.control.alone():  # else the listener starts what is stopped
                manager.stop(spread.processes()["database_worker-1"], 20.0)
                command = [sys.executable, "-m", "todomq.database_worker", "1"]
                other = subprocess.Popen(command, env=elsewhere.environment)
                wait_until(partial(_refuses, todo, names[0]), 20, "the other worker is found out")
                says = f"{elsewhere.home}/data/worker-1 is not the shard .* was granted under epoch"
                for name in (*names, new):
                    with pytest.raises(errors.CorruptRecord, match=says):
                        todo.todo_list(name).entries()
                    with pytest.raises(errors.CorruptRecord, match=says) as refused:
                        todo.todo_list(name).add_entry("y")
                    assert refused.value.outcome == "not applied"
                with pytest.raises(errors.CorruptRecord, match=says):
                    todo.list_names("kept")
                with pytest.raises(errors.CorruptRecord, match=says):
                    todo.call(Via(["database_worker", 1]), "get", "key")
                health = spread.run("todomq.cli", "probe", "health")
                assert "At fault: database_worker 1\n" in health.stdout, health.stdout
                assert re.search(f"failed +database_worker 1 +its storage is damaged: {says}", health.stdout)
                other.terminate()
                other.wait(20)
                manager.start(spread.processes()["database_worker-1"], 20.0)
            spread.wait_healthy()
            for name in names:
                assert [entry.title for entry in todo.todo_list(name).entries()] == ["x"]
            assert todo.call(Via(["database_worker", 1]), "get", "key") == "value"
        finally:
            if other is not None:
                other.kill()
                other.wait()
            assert not elsewhere.discard()


def _refuses(todo: Client, name: str) -> bool:
    try:
        todo.todo_list(name).size(deadline_s=1.0)
    except errors.CorruptRecord:
        return True
    except errors.TodoMQError:
        return False
    return False


def _owns_some(todo: Client, number: int) -> bool:
    try:
        return int(todo.call(Via(["list_server", number]), "stats")["partitions"]) > 20
    except errors.TodoMQError:
        return False
