"""The client against a scripted router on a real socket: answers, silence, garbage, death, forks, the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import datetime
import errno
import gc
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

import todomq
from todomq import AsyncClient, Client, Entry, Registration, ServerRef, Via, errors
from todomq.client import connection, futures
from todomq.client.connection import Connection
from todomq.client.line import Line
from todomq.client.outcomes import AskAgain
from todomq.client.session import Session
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack, unpack
from todomq.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
TOMORROW = datetime.date(2026, 12, 1)
BOUND_S = 20.0

Handler = Callable[[Any, list[Any], list[Any]], Any]


class ScriptedRouter:
    """A ROUTER that keeps lists in memory, or answers as the test says.

    Attributes:
        script: given the target, the body and the whole request, returns the value; raises a refusal; SILENT or bytes
            (sent as they are) for what a router should not do.
        requests: every request that came, hello apart. senders: their client ids. connections: the peers.
    """

    def __init__(self, address: str, script: Handler | None = None) -> None:
        self.address = address
        self.lists: dict[str, list[list[Any]]] = {}
        self.keys: dict[bytes, Any] = {}
        self.script: Handler = script or self.serve
        self.requests: list[list[Any]] = []
        self.senders: set[bytes] = set()
        self.connections: set[bytes] = set()
        self._ends = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._bound.wait(5)

    def kill(self) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            path = self.address.removeprefix("ipc://")
            if os.path.exists(path):
                os.unlink(path)
            socket.bind(self.address)
            self._bound.set()
            while not self._ends.is_set():
                if socket.poll(5):
                    peer, _, data = socket.recv_multipart()
                    self.connections.add(peer)
                    for reply in self._replies(data):
                        socket.send_multipart([peer, b"", reply])

    def _replies(self, data: bytes) -> list[bytes]:
        sender, requests = messages.read_call(messages.read(data)[1])
        self.senders.add(sender)
        replies: list[Any] = []
        raw: list[bytes] = []
        for request in requests:
            assert messages.is_request(request)
            if request[1] is None:
                now_ms = time.time_ns() // 1_000_000
                replies.append((request[0], messages.OK, pack([messages.VERSION, now_ms, b"incarnation"])))
                continue
            self.requests.append(list(request))
            try:
                value = self.script(request[1], unpack(request[3]), request)
            except errors.TodoMQError as error:
                replies.append((request[0], messages.ERROR, messages.error_value(error)))
                continue
            if isinstance(value, bytes):
                raw.append(value)
            elif value is not SILENT and request[0] is not None:
                replies.append((request[0], messages.OK, pack(value)))
        return [*raw, messages.reply(replies)] if replies else raw

    def serve(self, target: Any, body: list[Any], request: list[Any]) -> Any:
        operation, *arguments = body
        if isinstance(target, bytes):
            return self.keys.get(target) if operation == "get" else self.keys.update({target: arguments[1]})
        if isinstance(target, list):
            return self._serve_daemon(target[0], operation, arguments)
        if operation == "list_names":
            return [sorted(self.lists)[::-1], None]
        if operation == "delete":
            return self.lists.pop(target, None) and None
        return self._serve_list(self.lists.setdefault(target, []), operation, arguments)

    def _serve_daemon(self, name: Any, operation: str, arguments: list[Any]) -> Any:
        if operation == "server_process":
            return [["list_server", 1], b"life", len(arguments[0]), 7, 3]
        if operation in ("names", "whereis_name"):
            found = [["my", "job"], "tcp://127.0.0.1:5000", 12, b""]
            return [found] if operation == "names" else found
        if operation in ("register_name", "unregister_name"):
            return True
        if name == ["nobody"]:
            raise errors.NameNotFound("nobody is registered under this name")
        return [name, operation, arguments]

    def _serve_list(self, entries: list[list[Any]], operation: str, arguments: list[Any]) -> Any:
        if operation == "add_entry":
            title, date, extra, done = [*arguments, None, None, None][:4]
            entries.append([len(entries) + 1, title, date, bool(done), extra or {}])
            return len(entries)
        if operation == "add_entries":
            return [self._serve_list(entries, "add_entry", list(fields)) for fields in arguments[0]]
        if operation in ("entries", "entries_on"):
            after = arguments[-1] or 0
            page = [entry for entry in entries if operation == "entries" or entry[2] == arguments[0]][after : after + 2]
            return [page, after + 2 if len(page) == 2 else None]
        if operation == "update_entry":
            for entry in entries:
                if entry[0] == arguments[0]:
                    for place, field in enumerate(("title", "date", "done", "extra"), start=1):
                        entry[place] = arguments[1].get(field, entry[place])
                    return entry
            raise errors.EntryNotFound(f"no entry {arguments[0]}")
        if operation == "delete_entry":
            return arguments[0] <= len(entries)
        return len(entries) if operation == "size" else entries.clear()


SILENT = object()
SHORT_S = 0.5
"""A deadline that passes, and yet gives a repetition, which has the same, time to be answered on a busy machine."""


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for a condition, at most ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, what or "the condition never held"
        threading.Event().wait(0.002)


@pytest.fixture
def address() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="todomq-")
    yield f"ipc://{directory}/router"
    shutil.rmtree(directory)


@pytest.fixture
def router(address: str) -> Iterator[ScriptedRouter]:
    made = ScriptedRouter(address)
    yield made
    made.kill()


@pytest.fixture
def client(router: ScriptedRouter) -> Iterator[Client]:
    with Client(router.address) as made:
        yield made


class TestFace:
    def test_an_entry_comes_back_as_it_was_added(self, client: Client) -> None:
        bob = client.todo_list("Bob's list")
        entry = bob.add_entry("dentist", date=TOMORROW, extra={"room": 4, "tags": ("a",)})
        assert entry == Entry(1, "dentist", TOMORROW, False, {"room": 4, "tags": ["a"]})
        assert bob.entries() == [entry]

    def test_several_entries_go_in_one_request(self, client: Client, router: ScriptedRouter) -> None:
        bob = client.todo_list("Bob's list")
        added = bob.add_entries([("milk", None), ("bread", TOMORROW), "salt", ("tea", None, {"kind": "green"})])
        assert [entry.id for entry in added] == [1, 2, 3, 4]
        assert len(router.requests) == 1
        assert bob.entries() == added
        assert bob.entries(TOMORROW) == [added[1]]
        assert [entry.title for entry in bob.undated_entries()] == ["milk", "salt", "tea"]
        assert bob.size() == 4

    def test_an_update_says_only_what_changes(self, client: Client, router: ScriptedRouter) -> None:
        bob = client.todo_list("Bob's list")
        bob.add_entry("milk", TOMORROW)
        assert bob.update_entry(1, done=True) == Entry(1, "milk", TOMORROW, True)
        assert unpack(router.requests[-1][3]) == ["update_entry", 1, {"done": True}]
        assert bob.update_entry(1, date=None).date is None
        with pytest.raises(errors.EntryNotFound):
            bob.update_entry(9, title="bread")

    def test_the_rest_of_a_list(self, client: Client) -> None:
        bob = client.todo_list("Bob's list")
        bob.add_entry("milk")
        assert bob.delete_entry(1) is True
        assert bob.delete_entry(2) is False
        bob.clear()
        assert bob.size() == 0
        assert client.list_names() == ["Bob's list"]
        bob.delete()
        assert client.list_names() == []

    def test_a_cast_returns_at_once_and_arrives(self, client: Client, router: ScriptedRouter) -> None:
        bob = client.todo_list("Bob's list")
        bob.cast_add_entry("milk")
        assert [entry.title for entry in bob.entries()] == ["milk"]
        assert router.requests[0][0] is None

    def test_a_cast_just_before_the_end_is_sent(self, router: ScriptedRouter) -> None:
        with Client(router.address) as client:
            client.todo_list("Bob's list").cast_add_entry("milk")
        wait_until(lambda: router.lists.get("Bob's list"))

    def test_keys_are_any_value(self, client: Client) -> None:
        for key in ("", "a/../b", b"\x00", ["array", 1], {"b": 1, "a": 2}, None, 3.5):
            assert client.database.get(key) is None
            client.database.store(key, {"value": [1, None]})
            assert client.database.get(key) == {"value": [1, None]}
        client.database.cast_store("k", 1)
        assert client.database.get("k") == 1

    def test_names_and_servers(self, client: Client) -> None:
        assert client.registry.register_name(["my", "job"], "tcp://127.0.0.1:5000", pid=os.getpid())
        assert client.registry.names() == [client.registry.whereis_name(["my", "job"])]
        assert client.registry.names() == [Registration(["my", "job"], "tcp://127.0.0.1:5000", 12, b"")]
        assert client.registry.unregister_name(["my", "job"])
        assert client.call(Via(["job", 1]), "work", 1, [2]) == [["job", 1], "work", [1, [2]]]
        client.send(Via(["job", 1]), "work")
        client.registry.send(["job", 1], "work")
        with pytest.raises(errors.NameNotFound):
            client.call(Via(["nobody"]), "ping")

    def test_a_server_ref_is_equal_while_the_actor_lives(self, client: Client) -> None:
        ref = client.cache.server_process("Bob's list")
        assert ref == client.cache.server_process("Bob's list")
        assert ref != client.cache.server_process("Ann's list!")
        assert isinstance(ref, ServerRef)
        assert ref.todo_list.add_entry("milk").id == 1

    @pytest.mark.parametrize(
        "ask",
        [
            lambda c: c.todo_list(""),
            lambda c: c.todo_list("x" * 256),
            lambda c: c.todo_list("\ud800"),
            lambda c: c.todo_list(7),
            lambda c: c.todo_list("l").add_entry(""),
            lambda c: c.todo_list("l").add_entry("x" * 10_001),
            lambda c: c.todo_list("l").add_entry("\ud800"),
            lambda c: c.todo_list("l").add_entry(7),
            lambda c: c.todo_list("l").add_entry("milk", date="2026-12-01"),
            lambda c: c.todo_list("l").add_entry("milk", date=datetime.datetime(2026, 12, 1)),
            lambda c: c.todo_list("l").add_entry("milk", extra={"x": "x" * 70_000}),
            lambda c: c.todo_list("l").add_entry("milk", extra={1: 1}),
            lambda c: c.todo_list("l").add_entry("milk", extra={"x": object()}),
            lambda c: c.todo_list("l").add_entries([("milk",), ("bread", None, None, None)]),
            lambda c: c.todo_list("l").add_entries([("milk", None, {"x": "x" * 60_000})] * 20),
            lambda c: c.todo_list("l").add_entries("milk"),
            lambda c: c.todo_list("l").add_entries(5),
            lambda c: c.todo_list("l").add_entries([1, 2]),
            lambda c: c.todo_list("l").add_entries([{"title": "milk"}]),
            lambda c: c.todo_list("l").delete_entry(1 << 63),
            lambda c: c.todo_list("l").update_entry("1"),
            lambda c: c.todo_list("l").update_entry(1, done=1),
            lambda c: c.todo_list("l").delete_entry(0),
            lambda c: c.todo_list("l").cast_add_entry(""),
            lambda c: c.todo_list("l").size(deadline_s=61),
            lambda c: c.todo_list("l").size(deadline_s=0),
            lambda c: c.todo_list("l").size(deadline_s="1"),
            lambda c: c.database.get("k" * 5_000),
            lambda c: c.database.store("k", object()),
            lambda c: c.database.store("k", {(1,): 2}),
            lambda c: c.database.store("k", [1] * 200_000),
            lambda c: c.call(["registry"], "ping"),
            lambda c: c.call(Via(["registry"]), "ping", object()),
        ],
    )
    def test_bad_arguments_are_refused_before_anything_is_sent(
        self, client: Client, router: ScriptedRouter, ask: Callable[[Client], Any]
    ) -> None:
        with pytest.raises(errors.InvalidRequest):
            ask(client)
        client.todo_list("l").add_entry("milk")
        assert router.requests[0][4:] == [1, 1]
        assert len(router.requests) == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda todo: todo.add_entry("\udcff"),
            lambda todo: todo.add_entries(["milk", "\udcff"]),
            lambda todo: todo.update_entry(1, title="\udcff"),
            lambda todo: todo.cast_add_entry("\udcff"),
            lambda todo: todo.add_entry("\udcff", extra={}),
            lambda todo: todo.add_entries([("\udcff", None, {"room": 4})]),
            lambda todo: todo.cast_add_entry("\udcff", None, {}),
        ],
    )
    def test_a_title_that_is_not_valid_unicode_is_named_as_what_is_wrong(
        self, client: Client, change: Callable[[Any], Any]
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match="title: a text of valid Unicode"):
            change(client.todo_list("l"))

    @pytest.mark.parametrize(
        "endpoint",
        ["", "http://x", "ipc://" + "x" * 108, "ipc://", 7, "tcp://h:port", "tcp://h:99999", "tcp://:5", "tcp://*:5",
         "ipc://a\0b"],
    )  # fmt: skip
    def test_an_endpoint_that_is_none_is_refused(self, endpoint: Any) -> None:
        with pytest.raises(errors.InvalidRequest):
            Client(endpoint)

    def test_a_port_of_very_many_digits_is_refused_as_any_other(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="port"):
            Client("tcp://host:" + "1" * 5_000)

    def test_whoever_names_the_endpoint_needs_no_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TODOMQ_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where nobody knows one
        with Client("ipc:///nowhere") as client, pytest.raises(errors.Unavailable, match="does not answer"):
            client.todo_list("l").size(deadline_s=0.1)
        with pytest.raises(errors.InvalidRequest, match="TODOMQ_HOME has to name a directory"):
            Client()

    def test_an_endpoint_that_cannot_be_connected_to_is_an_error_of_each_request(self) -> None:
        with Client("tcp://no such host:1") as client:
            for _ in range(2):
                with pytest.raises(errors.InvalidRequest, match="endpoint"):
                    client.todo_list("l").size()

    def test_the_endpoint_is_taken_from_the_environment(
        self, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TODOMQ_ENDPOINT", router.address)
        with Client() as client:
            assert client.todo_list("l").size() == 0


def lost_add(client: Client, router: ScriptedRouter) -> errors.DeadlineExceeded:
    """Add to the list ``l`` while the router is silent; return the error, with the router answering again."""
    router.script = lambda *_: SILENT
    with pytest.raises(errors.DeadlineExceeded) as caught:
        client.todo_list("l").add_entry("milk", deadline_s=SHORT_S)
    router.script = router.serve
    return caught.value


async def lost_add_later(
    client: AsyncClient, router: ScriptedRouter, deadline_s: float
) -> errors.DeadlineExceeded:
    """Do the same as ``lost_add``, with await."""
    router.script = lambda *_: SILENT
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await client.todo_list("l").add_entry("milk", deadline_s=deadline_s)
    router.script = router.serve
    return caught.value


def refused_in_a_callback(client: Client, ask: Callable[[], Any]) -> list[errors.TodoMQError]:
    """Ask from the callback of a future; return the errors that this raised there."""
    refused: list[errors.TodoMQError] = []

    def callback(future: concurrent.futures.Future[Any]) -> None:
        try:
            ask()
        except errors.TodoMQError as error:
            refused.append(error)

    with client.pipeline() as pipeline:
        pipeline.todo_list("other").size().add_done_callback(callback)
    return refused


class TestOddArguments:
    def test_a_list_is_named_by_a_text_of_any_subclass_and_by_nothing_that_merely_encodes(self, client: Client) -> None:
        class Name(str):
            __slots__ = ()

            def __str__(self) -> str:
                return "another"

        class Encodes:
            def encode(self) -> bytes:
                return b"name"

        assert client.todo_list(Name("l")).add_entry("milk").id == 1
        assert type(client.todo_list(Name("l")).name) is str
        assert [entry.title for entry in client.todo_list("l").entries()] == ["milk"]
        milk = client.todo_list("l")
        added = [milk.add_entry(Name("tea")), *milk.add_entries([Name("bread"), (Name("oil"), None)])]
        added += [milk.update_entry(1, title=Name("rye"))]
        milk.cast_add_entry(Name("salt"))
        assert [entry.title for entry in added] == ["tea", "bread", "oil", "rye"]
        assert {type(entry.title) for entry in added} == {str}
        assert [entry.title for entry in milk.entries()] == ["rye", "tea", "bread", "oil", "salt"]
        assert client.list_names(Name("l")) == ["l"]
        assert client.call(Via(["cache"]), Name("ping"))[1] == "ping"
        with pytest.raises(errors.InvalidRequest, match="list name"):
            client.todo_list(Encodes())  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "change",
        [
            lambda todo: todo.todo_list("l").add_entries(["x"] * limits.DECODED_ITEMS),
            lambda todo: todo.todo_list("l").add_entries([("x", None, {"a": 1})] * 70_000),
            lambda todo: todo.database.store("k", [[[]] * 100_000, [[]] * 100_000]),
        ],
    )
    def test_more_arrays_and_maps_than_anybody_reads_are_refused_here(
        self, client: Client, change: Callable[[Any], Any]
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match="more than 131072 arrays and maps"):
            change(client)

    def test_of_entries_without_end_no_more_are_taken_than_are_allowed(self, client: Client) -> None:
        taken = itertools.count()
        with pytest.raises(errors.InvalidRequest, match="more than the 131072 entries"):
            client.todo_list("l").add_entries(f"entry {number}" for number in taken)
        assert next(taken) <= limits.DECODED_ITEMS + 1

    @pytest.mark.parametrize("bad", ["\ud800", ("\ud800", None), ("\ud800", None, {"a": 1}), "", ("b", "2026-12-01")])
    def test_which_of_several_entries_is_wrong_is_told(self, client: Client, bad: Any) -> None:
        with pytest.raises(errors.InvalidRequest, match=r"^entry 2: (title|date): "):
            client.todo_list("l").add_entries([("a", None), ("b", None), bad])

    def test_a_date_comes_back_as_a_plain_one(self, client: Client) -> None:
        class Day(datetime.date):
            pass

        milk, day = client.todo_list("milk"), Day(2026, 12, 1)
        added = [milk.add_entry("milk", day), *milk.add_entries([("bread", day), ("rye", day, {"a": 1})])]
        assert [(type(entry.date), entry.date) for entry in added] == [(datetime.date, day)] * 3
        assert milk.entries(day) == added

    def test_what_cannot_be_shown_or_looked_up_is_refused_all_the_same(self, client: Client) -> None:
        with pytest.raises(errors.InvalidRequest, match="very many digits"):
            client.todo_list("l").size(deadline_s=10**5000)
        with pytest.raises(errors.InvalidRequest, match="operation"):
            client.call(Via(["cache"]), ["ping"])  # type: ignore[arg-type]
        for endpoint in ("ipc:///tmp/\ud800", "ipc:///tmp/\udcff"):
            with pytest.raises(errors.InvalidRequest, match="valid Unicode"):
                Client(endpoint)


class TestPipeline:
    def test_one_that_is_used_again_tells_of_the_requests_of_each_time(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        pipeline = client.pipeline()
        with pipeline:
            first = pipeline.todo_list("l").add_entry("milk")
        with pipeline:
            second = pipeline.todo_list("l").add_entry("bread")
        assert [first.result(0).id, second.result(0).id] == [1, 2]
        with pytest.raises(ExceptionGroup, match="1 of 2 requests failed"), pipeline:  # noqa: PT012
            pipeline.todo_list("l").add_entry("salt")
            pipeline.call(Via(["nobody"]), "ask")
        with pipeline:
            pass

    def test_arguments_that_break_a_rule_fail_the_future_and_nothing_else(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        with pytest.raises(ExceptionGroup, match="7 of 9 requests failed") as failed, client.pipeline() as pipeline:  # noqa: PT012
            todo = pipeline.todo_list("l")
            before, missing = todo.add_entry("milk"), todo.update_entry(9, title="x")
            bad: list[concurrent.futures.Future[Any]] = [todo.add_entry("")]
            bad += [todo.cast_add_entry("x" * 10_001), pipeline.database.get("x" * 10_000)]
            bad.append(pipeline.cache.server_process(""))
            bad += [todo.add_entry("salt", deadline_s=-1), todo.cast_add_entry("salt", deadline_s=100)]
            after = todo.add_entry("bread")
        assert [before.result(0).id, after.result(0).id] == [1, 2]
        assert list(failed.value.exceptions) == [future.exception(0) for future in (missing, *bad)]
        assert {type(future.exception(0)) for future in bad} == {errors.InvalidRequest}

    def test_arguments_that_break_a_rule_fail_what_is_awaited_and_nothing_else(self, router: ScriptedRouter) -> None:
        async def main() -> None:
            async with AsyncClient(router.address) as client:
                todo = client.todo_list("l")
                asked = todo.add_entry("milk"), todo.add_entry(""), todo.add_entry("salt", deadline_s=-1)
                added, *bad = await asyncio.gather(*asked, return_exceptions=True)
                assert isinstance(added, Entry) and [type(error) for error in bad] == [errors.InvalidRequest] * 2
                with pytest.raises(ExceptionGroup, match="1 of 2 requests failed"):  # noqa: PT012
                    async with client.pipeline() as pipeline:
                        pipeline.cache.server_process("")
                        pipeline.todo_list("l").add_entry("bread")
                assert await todo.size() == 2

        asyncio.run(main())

    def test_many_requests_are_in_flight_and_in_order(self, client: Client, router: ScriptedRouter) -> None:
        with client.pipeline() as pipeline:
            lists = [pipeline.todo_list(f"list {n}") for n in range(7)]
            futures = [lists[n % 7].add_entry(f"entry {n}") for n in range(5_000)]
        assert all(isinstance(future, concurrent.futures.Future) for future in futures)
        assert [future.result().id for future in futures] == [n // 7 + 1 for n in range(5_000)]
        assert [entry[1] for entry in router.lists["list 3"]] == [f"entry {n}" for n in range(3, 5_000, 7)]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_of_very_many_failures_all_are_counted(
        self, client: Client, address: str, monkeypatch: pytest.MonkeyPatch, is_async: bool
    ) -> None:
        monkeypatch.setattr("todomq.client.outcomes.FAILURES_MOST", 3)
        with pytest.raises(ExceptionGroup, match="7 of 8 requests failed; here are the first 3") as caught:  # noqa: PT012
            if is_async:
                asyncio.run(fail_in_async_pipeline(address, 7))
            with client.pipeline() as pipeline:
                fail(pipeline, 7)
        assert len(caught.value.exceptions) == 3

    @pytest.mark.parametrize("is_async", [False, True])
    def test_what_is_called_before_a_block_counts_for_it(self, client: Client, address: str, is_async: bool) -> None:
        async def ask() -> None:
            async with AsyncClient(address) as client:
                pipeline = client.pipeline()
                for failures in (2, 1):
                    fail(pipeline, failures)
                    while pipeline._waited_for:
                        await asyncio.wait(pipeline._waited_for)
                    with pytest.raises(ExceptionGroup, match=f"{failures} of {failures + 2} requests failed"):
                        async with pipeline:
                            fail(pipeline, 0)

        if is_async:
            asyncio.run(ask())
        pipeline = client.pipeline()
        for failures in (2, 1):
            fail(pipeline, failures)
            with pytest.raises(ExceptionGroup, match=f"{failures} of {failures + 2} requests failed"), pipeline:
                fail(pipeline, 0)

    @pytest.mark.parametrize("is_async", [False, True])
    def test_what_a_block_raises_by_itself_gets_a_note_of_the_failures(
        self, client: Client, address: str, is_async: bool
    ) -> None:
        with pytest.raises(KeyError) as caught:  # noqa: PT012
            if is_async:
                asyncio.run(fail_in_async_pipeline(address, 2, KeyError("own")))
            with client.pipeline() as pipeline:
                fail(pipeline, 2)
                raise KeyError("own")
        assert caught.value.__notes__ == ["In the pipeline 2 of 3 requests failed, the first of them: no entry 9"]
        with pytest.raises(KeyError) as caught, client.pipeline() as pipeline:  # noqa: PT012
            fail(pipeline, 0)
            raise KeyError("own")
        assert not hasattr(caught.value, "__notes__")

    def test_leaving_the_block_waits_for_what_callbacks_begin_meanwhile(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        """The first request is answered last, behind many that were begun after leaving had."""
        answered, left = threading.Event(), itertools.count()

        def serve(target: Any, body: list[Any], request: list[Any]) -> Any:
            if target == "slow":
                raise errors.Overloaded("not yet") if not answered.is_set() else errors.EntryNotFound("no entry 1")
            return router.serve(target, body, request)

        router.script = serve
        one = "1 of 202 requests failed"
        with pytest.raises(ExceptionGroup, match=one) as caught, client.pipeline() as pipeline:  # noqa: PT012

            def again(_: object) -> None:
                if next(left) < 200:
                    pipeline.todo_list("fast").add_entry("milk").add_done_callback(again)
                else:
                    answered.set()

            slow = pipeline.todo_list("slow").delete_entry(1)
            pipeline.todo_list("fast").add_entry("milk").add_done_callback(again)
        assert slow.done() and caught.value.exceptions == (slow.exception(),)
        assert len(router.lists["fast"]) == 201

    @pytest.mark.parametrize("is_async", [False, True])
    def test_failures_come_in_the_order_of_the_calls(self, router: ScriptedRouter, is_async: bool) -> None:
        refused = set[int]()

        def serve(target: Any, body: list[Any], request: list[Any]) -> Any:
            number = int(target)
            if number % 3 and number not in refused:  # for now, so that it fails behind those that come after it
                refused.add(number)
                raise errors.Overloaded("not yet")
            raise errors.EntryNotFound(f"no entry {number}")

        router.script = serve

        async def delete() -> None:
            async with AsyncClient(router.address) as todo, todo.pipeline() as pipeline:
                for number in range(100):
                    pipeline.todo_list(str(number)).delete_entry(1)

        def delete_by_futures() -> None:
            with Client(router.address) as todo, todo.pipeline() as pipeline:
                for number in range(100):
                    pipeline.todo_list(str(number)).delete_entry(1)

        with pytest.raises(ExceptionGroup) as caught:
            asyncio.run(delete()) if is_async else delete_by_futures()
        assert [str(each) for each in caught.value.exceptions] == [f"no entry {number}" for number in range(100)]

    def test_failures_come_as_one_group(self, client: Client) -> None:
        with pytest.raises(ExceptionGroup) as caught, client.pipeline() as pipeline:  # noqa: PT012
            bad = pipeline.todo_list("l").update_entry(5, title="x")
            good = pipeline.todo_list("l").add_entry("milk")
            worse = pipeline.call(Via(["nobody"]), "ping")
        assert {type(error) for error in caught.value.exceptions} == {errors.EntryNotFound, errors.NameNotFound}
        assert good.result().title == "milk"
        assert isinstance(bad.exception(), errors.EntryNotFound)
        assert isinstance(worse.exception(), errors.NameNotFound)

    def test_an_error_of_the_block_comes_out_as_it_is(self, client: Client) -> None:
        with pytest.raises(KeyError), client.pipeline() as pipeline:  # noqa: PT012
            pipeline.todo_list("l").update_entry(5, title="x")
            raise KeyError

    def test_futures_do_what_futures_do(self, client: Client, router: ScriptedRouter) -> None:
        release = threading.Event()
        router.script = lambda *request: release.wait(5) and router.serve(*request)
        seen: list[int] = []
        with client.pipeline() as pipeline:
            future = pipeline.todo_list("l").size()
            future.add_done_callback(lambda done: seen.append(done.result()))
            assert not future.cancel()
            assert not future.done()
            with pytest.raises(concurrent.futures.TimeoutError):
                future.result(timeout=0.01)
            release.set()
            assert concurrent.futures.wait([future], timeout=5).done == {future}
            assert list(concurrent.futures.as_completed([future], timeout=5)) == [future]
        future.add_done_callback(lambda done: seen.append(done.result()))
        assert seen == [0, 0]

    def test_a_callback_may_begin_a_request_but_not_wait_for_one(self, client: Client) -> None:
        seen: list[Any] = []

        def wait_for_another(done: Any) -> None:
            try:
                client.todo_list("l").size()
            except errors.InvalidRequest as error:
                seen.append(error)

        with client.pipeline() as pipeline:
            pipeline.todo_list("l").size().add_done_callback(wait_for_another)
            pipeline.todo_list("l").size().add_done_callback(lambda _: pipeline.todo_list("l").add_entry("milk"))
        wait_until(lambda: client.todo_list("l").size() == 1)
        wait_until(lambda: seen)

    def test_reads_casts_and_keys_have_futures_too(self, client: Client) -> None:
        with client.pipeline() as pipeline:
            pipeline.todo_list("l").cast_add_entry("milk").result(timeout=0)
            entries = pipeline.todo_list("l").entries()
            pipeline.database.store("k", 1)
            value = pipeline.database.get("k")
            names = pipeline.list_names()
            ref = pipeline.cache.server_process("l")
        assert [entry.title for entry in entries.result()] == ["milk"]
        assert (value.result(), names.result()) == (1, ["l"])
        assert ref.result().todo_list.name == "l"


class TestTrouble:
    def test_a_router_that_is_killed_and_back_is_found_again(self, address: str) -> None:
        first = ScriptedRouter(address)
        with Client(address) as client:
            assert client.todo_list("l").add_entry("milk").id == 1
            first.kill()
            second = ScriptedRouter(address)
            try:
                assert client.todo_list("l").add_entry("bread").id == 1
                assert second.requests[0][4:] == [2, 2]
            finally:
                second.kill()

    def test_what_was_unanswered_when_the_router_died_is_sent_again_in_order(self, address: str) -> None:
        first = ScriptedRouter(address, lambda *_: SILENT)
        with Client(address) as client, client.pipeline() as pipeline:
            futures = [pipeline.todo_list("l").add_entry(f"entry {n}") for n in range(100)]
            wait_until(lambda: len(first.requests) == 100)
            first.kill()
            second = ScriptedRouter(address)
            try:
                assert [future.result(10).id for future in futures] == list(range(1, 101))
                assert [request[3:5] for request in second.requests] == [request[3:5] for request in first.requests]
                assert second.senders == first.senders
            finally:
                second.kill()

    def test_a_router_that_swallows_everything_is_left_for_a_new_connection(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        client.todo_list("l").size()
        real, router._replies = router._replies, lambda data: []  # type: ignore[method-assign]
        with client.pipeline() as pipeline:
            future = pipeline.todo_list("l").add_entry("milk")
            wait_until(lambda: len(router.connections) > 1)
            router._replies = real  # type: ignore[method-assign]
            assert future.result(10).id == 1

    def test_a_client_may_be_there_before_the_router(self, address: str) -> None:
        with Client(address) as client, client.pipeline() as pipeline:
            future = pipeline.todo_list("l").add_entry("milk")
            router = ScriptedRouter(address)
            try:
                assert future.result(10).id == 1
            finally:
                router.kill()

    def test_without_a_router_a_request_ends_at_its_deadline(
        self, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TODOMQ_HOME", str(tmp_path))
        address = read_settings().address("router")
        with Client() as client:
            begin = time.monotonic()
            with pytest.raises(errors.Unavailable) as caught:
                client.todo_list("l").add_entry("milk", deadline_s=0.1)
            assert caught.value.outcome == errors.NOT_APPLIED
            assert f"at {address}; todomq up" in caught.value.text
            assert 0.09 < time.monotonic() - begin < 2

    @pytest.mark.parametrize(
        "garbage", [b"", b"\xc1", b"\xff" * 1_000, pack([1, "reply", [[[], 0, b""]]]), b"\x91" * 100_000]
    )
    def test_garbage_is_passed_over(self, client: Client, router: ScriptedRouter, garbage: bytes) -> None:
        router.script = lambda *_: garbage
        with pytest.raises(errors.DeadlineExceeded):
            client.todo_list("l").size(deadline_s=SHORT_S)
        router.script = router.serve
        assert client.todo_list("l").size() == 0

    @pytest.mark.parametrize("now_ms", [-1, 1 << 62, (1 << 64) - 1])
    def test_a_greeting_with_a_time_that_no_deadline_can_go_by_is_an_error(
        self, address: str, monkeypatch: pytest.MonkeyPatch, now_ms: int
    ) -> None:
        router = ScriptedRouter(address)
        monkeypatch.setattr(time, "time_ns", lambda: now_ms * 1_000_000)
        try:
            with Client(address) as client, pytest.raises(errors.ProtocolError, match="greeting"):
                client.todo_list("l").size()
        finally:
            router.kill()

    def test_a_cursor_that_nobody_can_pack_is_an_error_of_that_request(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        nested = b"\x91" * 1_000 + b"\xc0"
        ids: list[int] = []

        def serve(target: Any, body: list[Any], request: list[Any]) -> Any:
            ids.append(request[0])
            page = b"\x92\x90" + nested
            return messages.reply([(request[0], messages.OK, page)])

        router.script = serve
        for ask in (client.todo_list("l").entries, client.list_names):
            with pytest.raises(errors.ProtocolError, match="cannot be read"):
                ask()
        assert ids

    def test_a_deadline_that_leaves_no_time_to_connect_does_not_make_the_router_silent(
        self, router: ScriptedRouter
    ) -> None:
        for _ in range(5):
            with Client(router.address) as client, contextlib.suppress(errors.DeadlineExceeded):
                client.todo_list("l").size(deadline_s=0.0001)

    def test_an_answer_of_another_shape_is_an_error(self, client: Client, router: ScriptedRouter) -> None:
        router.script = lambda *_: ["what", "is", "this"]
        for ask in (
            lambda: client.todo_list("l").size(),
            lambda: client.todo_list("l").entries(),
            lambda: client.todo_list("l").add_entry("milk"),
            lambda: client.todo_list("l").add_entries(["milk"]),
            lambda: client.todo_list("l").update_entry(1),
            lambda: client.cache.server_process("l"),
            lambda: client.registry.names(),
            lambda: client.list_names(),
        ):
            with pytest.raises(errors.ProtocolError):
                ask()

    def test_a_refusal_for_now_is_tried_again(self, client: Client, router: ScriptedRouter) -> None:
        refusals = iter([errors.Overloaded("full"), errors.Unavailable("away"), errors.OutOfOrder("wait")])

        def script(*request: Any) -> Any:
            for refusal in refusals:
                raise refusal
            return router.serve(*request)

        router.script = script
        assert client.todo_list("l").add_entry("milk").id == 1
        assert [request[4] for request in router.requests] == [1, 1, 1, 1]

    def test_a_read_that_later_changes_have_overtaken_is_asked_anew_for_who_only_waits_for_it(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        for ask in (lambda: client.todo_list("l").entries(), lambda: client.todo_list("l").size()):
            self.overtake_one(router)
            assert not ask()
        assert len(router.requests) == 4

    def test_a_read_that_later_changes_have_overtaken_fails_in_a_pipeline_and_with_asyncio(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        self.overtake_one(router)
        with pytest.raises(ExceptionGroup) as failed, client.pipeline() as pipeline:
            pipeline.todo_list("l").entries()
        (error,) = failed.value.exceptions
        assert isinstance(error, errors.OutOfOrder) and not error.retryable

        async def main() -> None:
            async with AsyncClient(router.address) as todo:
                self.overtake_one(router)
                with pytest.raises(errors.OutOfOrder):
                    await todo.todo_list("l").entries()
                assert await todo.todo_list("l").entries() == []

        asyncio.run(main())
        assert len(router.requests) == 3

    def overtake_one(self, router: ScriptedRouter) -> None:
        """Have the router refuse the next request, as a list does a read that comes again too late."""

        def refuse(*request: Any) -> Any:
            router.script = router.serve
            raise errors.OutOfOrder("overtaken", retryable=False)

        router.script = refuse

    def test_an_unknown_outcome_can_be_retried_under_the_same_number(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        unknown = lost_add(client, router)
        assert unknown.outcome == errors.UNKNOWN
        assert unknown.retry() == Entry(1, "milk")
        assert unknown.retry() == Entry(1, "milk"), "and again, though there is nobody any more who could be asked"
        assert [request[4] for request in router.requests] == [1, 1]

    def test_a_refusal_for_good_is_given_again_where_it_is_asked_for_again(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        router.script = lambda *_: SILENT
        with pytest.raises(errors.DeadlineExceeded) as unknown:
            client.todo_list("l").update_entry(999, done=True, deadline_s=SHORT_S)
        router.script = router.serve
        for _ in range(2):
            with pytest.raises(errors.EntryNotFound) as refused:
                unknown.value.retry()
            assert refused.value.outcome == errors.NOT_APPLIED
        assert [request[4] for request in router.requests] == [1, 1]

    def test_threads_that_ask_again_at_once_get_one_answer(self, client: Client, router: ScriptedRouter) -> None:
        unknown = lost_add(client, router)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: unknown.retry(), range(4)))
        assert answers == [Entry(1, "milk")] * 4
        assert [request[4] for request in router.requests] == [1, 1]

    def test_a_retry_that_was_lost_as_well_and_what_it_raised_ask_the_same(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        unknown = lost_add(client, router)
        router.script = lambda *_: SILENT
        with pytest.raises(errors.DeadlineExceeded) as again:
            unknown.retry()
        router.script = router.serve
        assert again.value.retry() == unknown.retry() == again.value.retry() == Entry(1, "milk")
        assert [request[4] for request in router.requests] == [1, 1, 1]

    def test_a_forked_child_asks_again_though_a_thread_of_its_parent_was_asking(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unknown = lost_add(client, router)
        again = unknown._resend
        assert isinstance(again, AskAgain)
        holder = threading.Thread(target=again._asking.acquire)
        holder.start()
        holder.join()
        monkeypatch.setattr(again, "_pid", 0)  # as in a child
        assert unknown.retry() == Entry(1, "milk")

    def test_of_a_change_whose_answer_cannot_be_read_it_is_not_said_that_it_was_not_applied(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        router.script = lambda target, body, request: messages.reply([(request[0], messages.OK, b"\xc1")])
        with pytest.raises(errors.ProtocolError) as change:
            client.todo_list("l").add_entry("milk")
        with pytest.raises(errors.ProtocolError) as read:
            client.todo_list("l").size()
        assert (change.value.outcome, read.value.outcome) == (errors.UNKNOWN, errors.NOT_APPLIED)

    def test_a_retry_that_comes_too_late_says_why_the_outcome_stays_unknown(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        unknown = lost_add(client, router)
        client.todo_list("l").add_entry("bread")
        with pytest.raises(errors.DeadlineExceeded, match="a later change to the list was sent") as again:
            unknown.retry()
        assert again.value.outcome == errors.UNKNOWN and not again.value.retryable
        assert len(router.requests) == 2  # it was not sent

    def test_what_a_client_refuses_to_ask_again_by_itself_stays_unknown_and_can_be_asked_once_more(
        self, address: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Client(address) as client:
            unknown = lost_add(client, router)
            refused = refused_in_a_callback(client, unknown.retry)
            with monkeypatch.context() as patch:
                patch.setattr(connection, "WAIT_REQUESTS", 0)
                with pytest.raises(errors.Overloaded) as full:
                    unknown.retry()  # waits for room for as long as the first request was to take
            refused.append(full.value)
            assert [type(error) for error in refused] == [errors.InvalidRequest, errors.Overloaded]
            assert {error.outcome for error in refused} == {errors.UNKNOWN}
            assert [request[4] for request in router.requests if request[1] == "l"] == [1]  # nothing was sent again
            assert refused[1].retry() == Entry(1, "milk")
        assert unknown.retry() == Entry(1, "milk"), "as it was answered"

    def test_law_6_callbacks_that_have_not_run_are_bounded_as_requests_are(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "WAIT_REQUESTS", 100)
        most, called = 0, itertools.count()

        def call_back(future: concurrent.futures.Future[Any]) -> None:
            time.sleep(0.001)
            next(called)

        with client.pipeline() as pipeline:
            for _ in range(500):
                pipeline.todo_list("l").size(deadline_s=30.0).add_done_callback(call_back)
                most = max(most, client._connection._uncalled)
        assert (next(called), client._connection._uncalled) == (500, 0)
        assert 0 < most <= 100

    def test_of_a_client_that_is_closed_nothing_can_be_asked_again(self, address: str, router: ScriptedRouter) -> None:
        with Client(address) as client:
            unknown = lost_add(client, router)
        with pytest.raises(errors.Unavailable) as closed:
            unknown.retry()
        assert closed.value.outcome == errors.UNKNOWN

    def test_a_request_that_is_waited_for_in_a_callback_is_refused_before_it_is_sent(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        refused = refused_in_a_callback(client, lambda: client.todo_list("l").add_entry("milk"))
        assert [(type(error), error.outcome) for error in refused] == [(errors.InvalidRequest, errors.NOT_APPLIED)]
        assert client.todo_list("l").size() == 0

    def test_an_error_is_copied_and_pickled_without_its_way_to_ask_again(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        unknown = lost_add(client, router)
        for copied in (pickle.loads(pickle.dumps(unknown)), copy.copy(unknown)):
            assert type(copied) is errors.DeadlineExceeded
            assert (copied.text, copied.outcome) == (unknown.text, errors.UNKNOWN)
            with pytest.raises(errors.DeadlineExceeded):
                copied.retry()

    def test_whether_a_name_was_registered_is_not_known_where_the_answer_was_lost(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        router.script = lambda *_: SILENT
        with pytest.raises(errors.DeadlineExceeded) as caught:
            client.registry.register_name(["my", "job"], "tcp://127.0.0.1:5000", deadline_s=SHORT_S)
        assert caught.value.outcome == errors.UNKNOWN
        router.script = router.serve
        assert caught.value.retry() is True


INTERRUPTS = (KeyboardInterrupt, TimeoutError, ValueError)
"""What a signal's handler may raise in the middle of whatever its thread does: anything."""


class TestInterrupts:
    @pytest.mark.parametrize(
        ("where", "name"),
        [
            (Session, "__init__"), (Line, "__init__"), (Line, "_close_sockets"), (Line, "connect"),
            (Session, "connected"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("is_done_first", [False, True], ids=["before", "after"])
    def test_an_interrupt_while_the_connection_is_made_ends_that_request_only(
        self, address: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch,
        where: type, name: str, is_done_first: bool,
    ) -> None:  # fmt: skip
        undisturbed = getattr(where, name)

        def interrupted(*args: Any, **named: Any) -> Any:
            monkeypatch.setattr(where, name, undisturbed)
            if is_done_first:
                undisturbed(*args, **named)
            raise KeyboardInterrupt

        with Client(address) as client:
            monkeypatch.setattr(where, name, interrupted)
            with pytest.raises((KeyboardInterrupt, errors.Unavailable)):
                client.todo_list("l").add_entry("milk")
            for place in range(3):
                assert client.todo_list("other").add_entry("bread").id == place + 1


    def test_what_a_signals_handler_raises_while_the_connection_is_made_comes_out_wherever_that_is(
        self, address: str, router: ScriptedRouter
    ) -> None:
        script = """
            import signal, sys
            from todomq import Client
            class Stop(Exception): pass
            def stop(*_): raise Stop
            signal.signal(signal.SIGALRM, stop)
            for number in range(300):
                client = Client(sys.argv[1])
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 + number % 100 * 4e-5)
                    client.todo_list("l").size()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Stop: pass
                client.close()
            print("none hung", file=sys.__stdout__)
        """
        assert "none hung" in run(script, address)

    def test_a_handler_that_interrupts_its_thread_in_here_is_refused_to_wait(
        self, address: str, router: ScriptedRouter
    ) -> None:
        script = """
            import signal, sys, time
            from todomq import Client, errors
            client, refused, busy = Client(sys.argv[1]), 0, False
            def ask(*_):
                global refused, busy
                if busy: return
                busy = True
                try: client.todo_list("l").size(deadline_s=1)
                except errors.InvalidRequest: refused += 1
                busy = False
            signal.signal(signal.SIGALRM, ask)
            signal.setitimer(signal.ITIMER_REAL, 7e-4, 7e-4)
            give_up = time.monotonic() + 20
            while refused < 100 and time.monotonic() < give_up:
                with client.pipeline() as pipeline:
                    for _ in range(3): pipeline.todo_list("l").size().add_done_callback(lambda _: None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(refused >= 100)
        """
        assert run(script, address) == "True\n"

    def test_whoever_asks_at_the_end_of_the_interpreter_hears_that_the_client_is_closed(
        self, address: str, router: ScriptedRouter
    ) -> None:
        script = """
            import sys
            from todomq import Client, errors
            class Last:
                def __init__(self):
                    self.client = Client(sys.argv[1])
                    self.client.todo_list("l").size()
                def __del__(self):
                    try: self.client.todo_list("l").size()
                    except errors.Unavailable as error: print(error)
            last = Last()
        """
        assert run(script, address) == "this client is closed\n"

    def test_a_second_interrupt_while_the_first_one_ends_the_connection_leaves_nobody_waiting(
        self, address: str, router: ScriptedRouter
    ) -> None:
        router.script = lambda *_: SILENT
        script = """
            import sys, threading
            from todomq import Client, errors
            from todomq.client.connection import Connection
            from todomq.client.line import Line
            send, finish, struck = Line.send, Connection._finish, []
            def strike(first, second):
                if struck == first and threading.current_thread() is threading.main_thread():
                    struck.append(second)
                    raise KeyboardInterrupt
            def interrupted_send(*arguments):
                send(*arguments)
                strike([], "send")
            def interrupted_finish(*arguments):
                strike(["send"], "finish")
                finish(*arguments)
            Line.send, Connection._finish = interrupted_send, interrupted_finish
            client, futures = Client(sys.argv[1], deadline_s=5.0), []
            try:
                with client.pipeline() as pipeline:
                    while "finish" not in struck:
                        futures += [pipeline.todo_list("l").add_entry("milk") for _ in range(50)]
                        futures[-1].exception(0.01)
            except (KeyboardInterrupt, TimeoutError): pass
            print(struck, all(isinstance(future.exception(10), errors.Unavailable) for future in futures))
        """
        assert run(script, address) == "['send', 'finish'] True\n"

    def test_a_handler_that_closes_the_client_while_its_thread_is_in_there_waits_for_nobody(
        self, address: str, router: ScriptedRouter
    ) -> None:
        router.script = lambda *_: SILENT
        script = """
            import signal, sys, threading, time
            from todomq import Client, errors
            from todomq.client.connection import Connection
            client = Client(sys.argv[1], deadline_s=5.0)
            connection, may_leave = client._connection, Connection._may_leave_now
            joined = []
            class Watched(threading.Thread):
                def join(self, timeout=None): joined.append(timeout)
            def interrupted(self):  # under the lock, on a thread that does not drive
                if threading.current_thread() is threading.main_thread():
                    self._keeper.__class__ = Watched
                    signal.raise_signal(signal.SIGUSR1)
                return may_leave(self)
            signal.signal(signal.SIGUSR1, lambda *_: client.close())
            client.pipeline().todo_list("l").size().add_done_callback(lambda _: None)
            while connection._driver is None or connection._driver == threading.get_ident(): time.sleep(0.01)
            Connection._may_leave_now = interrupted
            try: client.todo_list("l").size()
            except errors.TodoMQError as error: print(error)
            print(joined)
        """
        assert run(script, address).splitlines()[-1] == "[]"

    def test_a_handler_that_begins_a_future_starts_no_second_keeper(self, address: str, router: ScriptedRouter) -> None:
        script = """
            import signal, sys, threading
            from todomq import Client
            def ask(*_): client.pipeline().todo_list("l").size().add_done_callback(lambda _: None)
            signal.signal(signal.SIGALRM, ask)
            for number in range(200):
                client = Client(sys.argv[1])
                client.todo_list("l").size()
                signal.setitimer(signal.ITIMER_REAL, 2e-5 + number % 40 * 5e-6)
                with client.pipeline() as pipeline:
                    pipeline.todo_list("l").size().add_done_callback(lambda _: None)
                signal.setitimer(signal.ITIMER_REAL, 0)
                client.close()
            for thread in threading.enumerate():
                if thread is not threading.current_thread(): thread.join(5)
            print(threading.active_count())
        """
        assert run(script, address) == "1\n"

    @pytest.mark.parametrize("name", ["_take_turn", "_drive", "_leave"])
    def test_an_interrupt_just_before_the_thread_drives_or_leaves_leaves_others_to_drive(
        self, address: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        undisturbed = getattr(Connection, name)

        def interrupted(*args: Any) -> Any:
            monkeypatch.setattr(Connection, name, undisturbed)
            raise KeyboardInterrupt

        with Client(address, deadline_s=5) as client:
            client.todo_list("l").size()
            monkeypatch.setattr(Connection, name, interrupted)
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                if name == "_take_turn":
                    client.todo_list("l").cast_add_entry("milk")
                else:
                    client.todo_list("l").add_entry("milk")
            with client.pipeline() as pipeline:
                futures = [pipeline.todo_list("other").add_entry("bread") for _ in range(3)]
            assert [future.result(0).id for future in futures] == [1, 2, 3]

    def test_a_signal_handler_that_would_wait_for_its_own_thread_is_refused_and_the_client_goes_on(
        self, address: str, router: ScriptedRouter
    ) -> None:
        said: list[Any] = []
        todo = Client(address)

        def handle(*_: object) -> None:
            try:
                said.append(todo.todo_list("handled").add_entry("milk", deadline_s=1))
            except errors.InvalidRequest as error:
                said.append(error.text)

        def interrupt(*asked: Any) -> Any:
            if asked[1][0] == "size":  # the signal comes while the other thread waits
                signal.pthread_kill(waiting, signal.SIGALRM)
                wait_until(lambda: said)
            return router.serve(*asked)

        waiting = threading.get_ident()
        before = signal.signal(signal.SIGALRM, handle)
        router.script = interrupt
        try:
            with todo:
                todo.todo_list("l").add_entry("bread")
                assert todo.todo_list("l").size(deadline_s=BOUND_S) == 1
                assert len(said) == 1 and "signal handler" in said[0]
                assert todo.todo_list("l").add_entry("butter").id == 2
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_an_error_of_ours_that_a_signals_handler_raises_comes_out_as_any_other(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And is not taken for what has happened to the requests that are under way."""
        undisturbed, raised = Line.receive, errors.EntryNotFound("of another client, in a handler")

        def receive(line: Line, session: Session, now: int) -> None:
            monkeypatch.setattr(Line, "receive", undisturbed)
            undisturbed(line, session, now)
            raise raised

        pipeline = client.pipeline()
        pipeline.todo_list("l").add_entry("before").result()
        monkeypatch.setattr(Line, "receive", receive)
        future = pipeline.todo_list("l").add_entry("milk")
        with pytest.raises(errors.EntryNotFound) as caught:
            future.result()
        assert caught.value is raised
        with pytest.raises(errors.Unavailable, match="connection failed: EntryNotFound"):
            future.result(BOUND_S)
        pipeline.todo_list("l").add_entry("after").result()

    def test_closing_in_a_signal_handler_does_not_wait_for_its_own_thread(
        self, address: str, router: ScriptedRouter
    ) -> None:
        router.script = lambda *_: SILENT
        took_s: list[float] = []
        client = Client(address)

        def handle(*_: object) -> None:
            began_s = time.monotonic()
            client.close()
            took_s.append(time.monotonic() - began_s)

        before = signal.signal(signal.SIGALRM, handle)
        try:
            future = client.pipeline().todo_list("l").add_entry("bread")  # from now on there is a keeper
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(errors.Unavailable):
                client.todo_list("l").size()
            assert took_s and took_s[0] < connection.CLOSE_WAIT_S / 2
            assert isinstance(future.exception(1), errors.Unavailable)
        finally:
            signal.signal(signal.SIGALRM, before)
            client.close()

    def test_what_is_interrupted_as_it_is_taken_in_is_counted_once(
        self, address: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        undisturbed = Connection._take_turn

        def interrupted(self: Connection) -> None:
            monkeypatch.setattr(Connection, "_take_turn", undisturbed)
            undisturbed(self)
            raise KeyboardInterrupt

        with Client(address) as client:
            client.todo_list("l").size()
            pipeline = client.pipeline()
            monkeypatch.setattr(Connection, "_take_turn", interrupted)
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                for _ in range(2 * connection.TURN_REQUESTS):
                    pipeline.todo_list("l").add_entry("milk")
            with pipeline:
                last = pipeline.todo_list("slow").add_entry("last")
            assert last.done()

    def test_a_pipeline_whose_end_was_interrupted_reports_no_failure_that_was_none(
        self, address: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        undisturbed = Connection.wait

        def interrupted(self: Connection, *args: Any) -> bool:
            monkeypatch.setattr(Connection, "wait", undisturbed)
            raise KeyboardInterrupt

        with Client(address) as client:
            pipeline = client.pipeline()
            monkeypatch.setattr(Connection, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt), pipeline:
                pipeline.todo_list("l").add_entry("milk")
            with pipeline:
                assert pipeline.todo_list("l").add_entry("bread").result().id == 2

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_callback_that_ends_its_thread_takes_no_other_callback_along(
        self, address: str, router: ScriptedRouter
    ) -> None:
        def ends(future: Any) -> None:
            raise SystemExit

        called: list[int] = []
        with Client(address) as client, client.pipeline() as pipeline:
            futures = [pipeline.todo_list("l").add_entry("milk") for _ in range(20)]
            futures[0].add_done_callback(ends)
            for place, future in enumerate(futures[1:]):
                future.add_done_callback(lambda _, place=place: called.append(place))  # type: ignore[misc]
        wait_until(lambda: sorted(called) == list(range(19)))

    @pytest.mark.parametrize("face", ["blocking", "async"])
    def test_where_no_thread_can_be_started_that_request_is_refused_and_the_client_goes_on(
        self, address: str, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, face: str
    ) -> None:
        undisturbed = threading.Thread.start

        def refused(thread: threading.Thread) -> None:
            monkeypatch.setattr(threading.Thread, "start", undisturbed)
            raise RuntimeError("can't start new thread")

        async def ask() -> None:
            async with AsyncClient(address) as client:
                monkeypatch.setattr(threading.Thread, "start", refused)
                with pytest.raises(errors.Unavailable, match="no thread"):
                    await client.todo_list("l").add_entry("milk")
                assert (await client.todo_list("l").add_entry("bread")).id == 1

        if face == "async":
            asyncio.run(ask())
            return
        with Client(address) as client:
            pipeline = client.pipeline()
            monkeypatch.setattr(threading.Thread, "start", refused)
            with pytest.raises(errors.Unavailable, match="no thread") as caught:
                pipeline.todo_list("l").add_entry("milk")
            assert caught.value.outcome == errors.NOT_APPLIED
            future = pipeline.todo_list("l").add_entry("bread")
            assert concurrent.futures.wait([future], 5).done and future.result().id == 1

    @pytest.mark.parametrize("left", [0, 2, 3, 4, 5, 8, 12])
    def test_where_no_descriptor_is_left_that_is_one_of_our_errors(
        self, address: str, router: ScriptedRouter, left: int
    ) -> None:
        script = f"""
            import gc, os, resource
            from contextlib import suppress
            from todomq import Client, errors
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            held = []
            def opened():
                return len(os.listdir("/proc/self/fd"))

            with Client({address!r}) as client:
                before = opened()
                with suppress(OSError):
                    while True:
                        held.append(os.open("/dev/null", os.O_RDONLY))
                for _ in range({left}):
                    os.close(held.pop())
                try:
                    client.todo_list("l").add_entry("milk")
                except errors.Unavailable as error:
                    print(error, error.outcome)
                for descriptor in held:
                    os.close(descriptor)
                gc.collect()
                print(opened() - before, "left open")
                print(client.todo_list("l").add_entry("bread").id)
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
        )
        said, left_open, entry_id = ran.stdout.splitlines()
        assert "Too many open files not applied" in said and "ZMQError" not in said
        assert left_open == "0 left open"
        assert entry_id == "1", ran.stderr


class TestBounds:
    @pytest.fixture
    def narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "OUTBOX_REQUESTS", 10)
        monkeypatch.setattr(connection, "WAIT_REQUESTS", 10)

    @pytest.mark.usefixtures("narrow")
    def test_a_pipeline_waits_for_room(self, client: Client) -> None:
        with client.pipeline() as pipeline:
            futures = [pipeline.todo_list("l").add_entry("milk") for _ in range(500)]
        assert [future.result().id for future in futures] == list(range(1, 501))

    @pytest.mark.usefixtures("narrow")
    def test_who_waits_for_room_until_the_deadline_is_refused(self, client: Client, router: ScriptedRouter) -> None:
        router.script = lambda *_: SILENT
        milk = client.pipeline().todo_list("milk")
        for _ in range(10):
            milk.add_entry("milk", deadline_s=BOUND_S)
        with pytest.raises(errors.Overloaded):
            milk.add_entry("milk", deadline_s=0.05)

    def test_law_6_large_requests_are_bounded_by_their_bytes(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "OUTBOX_BYTES", 20_000)
        is_silent = True
        router.script = lambda *asked: SILENT if is_silent else router.serve(*asked)
        milk = client.pipeline().todo_list("milk")
        futures = [milk.add_entry("m" * 5_000, deadline_s=1.0) for _ in range(4)]
        with pytest.raises(errors.Overloaded, match=r"requests of 20,[0-9]+ bytes of this client"):
            milk.add_entry("milk", deadline_s=0.05)
        is_silent = False
        milk.add_entry("milk").result()  # once the others have ended there is room again
        assert not concurrent.futures.wait(futures, BOUND_S).not_done
        assert (client._connection._bytes, client._connection._arrived_bytes) == (0, 0)

    @pytest.mark.usefixtures("narrow")
    def test_a_cast_without_room_is_refused_at_once(self, address: str) -> None:
        with Client(address) as client:
            for _ in range(10):
                client.todo_list("l").cast_add_entry("milk", deadline_s=30)
            with pytest.raises(errors.Overloaded):
                client.todo_list("l").cast_add_entry("milk", deadline_s=30)


class TestWhoDrives:
    """One thread at a time drives a connection: whoever waits, else the connection's own."""

    def test_who_waits_for_each_answer_needs_no_other_thread(self, client: Client) -> None:
        for _ in range(3):
            client.todo_list("l").add_entry("milk")
        assert "todomq-client" not in [thread.name for thread in threading.enumerate()]

    def test_what_nobody_waits_for_is_sent_and_answered_all_the_same(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        pipeline = client.pipeline()
        answered: list[str] = []
        future = pipeline.todo_list("l").add_entry("milk")
        future.add_done_callback(lambda _: answered.append(threading.current_thread().name))
        wait_until(lambda: answered)
        assert answered == ["todomq-client"]
        assert len(router.lists["l"]) == 1

    def test_a_callback_never_meets_the_lock_that_its_caller_holds(self, client: Client) -> None:
        lock = threading.Lock()
        called: list[int] = []
        caller = threading.current_thread()
        is_adding = False

        def note(future: Any) -> None:
            if threading.current_thread() is caller:
                assert is_adding, "only what is answered already is called by add_done_callback itself"
                called.append(future.result().id)
                return
            with lock:
                called.append(future.result().id)

        with client.pipeline() as pipeline:
            milk = pipeline.todo_list("l")
            with lock:  # held while these take turns, and while their answers are waited for
                futures = [milk.add_entry("milk") for _ in range(3 * connection.TURN_REQUESTS)]
                is_adding = True
                for future in futures:
                    future.add_done_callback(note)
                is_adding = False
                more = [milk.add_entry("milk") for _ in range(3 * connection.TURN_REQUESTS)]
                assert [future.result().id for future in (*futures, *more)] == list(range(1, len(futures + more) + 1))
        wait_until(lambda: len(called) >= len(futures))
        assert sorted(called) == list(range(1, len(futures) + 1))

    def test_a_client_that_the_collector_closes_while_a_callback_is_added_holds_up_nobody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = futures._Watch.__init__

        def collected_while_made(self: futures._Watch) -> None:
            make(self)
            futures.settle([])

        monkeypatch.setattr(futures._Watch, "__init__", collected_while_made)
        adding = threading.Thread(target=futures.Answer[None]().add_done_callback, args=(print,), daemon=True)
        adding.start()
        adding.join(10.0)
        assert not adding.is_alive()

    def test_a_result_that_holds_its_own_future_is_collected(self, client: Client) -> None:
        with client.pipeline() as pipeline:
            pipeline.todo_list("l").add_entry("milk")
            reading: Any = pipeline.todo_list("l").entries()
            reading.result().append(reading)
            gone = weakref.ref(reading)
            del reading
            pipeline.todo_list("l").size().result()
        gc.collect()
        assert gone() is None

    def test_leaving_the_block_waits_for_the_callbacks_too(self, client: Client) -> None:
        called: list[str] = []

        def note(future: Any) -> None:
            time.sleep(0.001)  # so that who does not wait for it is seen to be early
            called.append(future.result().title)

        for _ in range(20):
            called.clear()
            with client.pipeline() as pipeline:
                for title in ("milk", "bread", "salt"):
                    pipeline.todo_list("l").add_entry(title).add_done_callback(note)
            assert called == ["milk", "bread", "salt"]

    def test_when_the_driver_gives_up_another_who_waits_follows(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        outcomes: list[str] = []

        def ask(name: str, deadline_s: float) -> None:
            try:
                client.todo_list(name).size(deadline_s=deadline_s)
                outcomes.append(f"{name} answered")
            except errors.DeadlineExceeded:
                outcomes.append(f"{name} gave up")

        router.script = lambda target, *rest: SILENT if target == "silent" else router.serve(target, *rest)
        first = threading.Thread(target=ask, args=("silent", 0.3))
        first.start()
        wait_until(lambda: router.requests)
        held: list[list[Any]] = []

        def hold(target: Any, body: list[Any], request: list[Any]) -> Any:
            held.append(request)
            return SILENT

        router.script = hold
        second = threading.Thread(target=ask, args=("later", 10.0))
        second.start()
        wait_until(lambda: held)
        first.join(5)
        assert outcomes == ["silent gave up"]
        router.script = router.serve
        client.todo_list("l").size()  # whoever comes in between is answered as well
        router.kill()
        again = ScriptedRouter(router.address)
        second.join(5)
        again.kill()
        assert outcomes == ["silent gave up", "later answered"]

    def test_when_who_is_to_follow_the_driver_has_just_given_up_what_is_out_is_seen_to(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Late(connection._Follower):
            """Is told that it is to drive, and wakes when its own time is over."""

            def __init__(self, is_done: Callable[[], bool]) -> None:
                super().__init__(is_done)
                told = self.turnstile

                class Turnstile:
                    def acquire(self, timeout: float) -> bool:
                        until_s = time.monotonic() + timeout
                        is_told = told.acquire(timeout=5)
                        followed.append(is_told)
                        wait_until(lambda: time.monotonic() > until_s)
                        return is_told

                    def release(self) -> None:
                        told.release()

                self.turnstile = Turnstile()  # type: ignore[assignment]

        followed: list[bool] = []
        monkeypatch.setattr(connection, "_Follower", Late)
        held: list[list[Any]] = []

        def hold(target: Any, body: list[Any], request: list[Any]) -> Any:
            held.append(request)
            return SILENT

        router.script = hold

        def give_up() -> None:
            with pytest.raises(errors.DeadlineExceeded):
                client.todo_list("silent").size(deadline_s=1.0)

        driver = threading.Thread(target=give_up)
        driver.start()
        wait_until(lambda: held)
        future = client.pipeline().todo_list("later").size(deadline_s=10.0)
        with pytest.raises(TimeoutError):
            future.result(1.5)
        driver.join(5)
        assert followed == [True]
        router.kill()
        again = ScriptedRouter(router.address)
        try:
            wait_until(future.done)
        finally:
            again.kill()
        assert future.result() == 0

    @pytest.mark.parametrize("kind", INTERRUPTS)
    def test_an_interrupt_in_the_middle_of_a_turn_leaves_nobody_waiting(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
    ) -> None:
        receive = Session.receive

        def interrupted(session: Session, data: bytes, now_ms: int) -> None:
            if not router.requests:
                return receive(session, data, now_ms)
            session._unanswered.popitem()  # taken out, and not finished: as far as a turn may have come
            raise kind

        pipeline = client.pipeline()
        pipeline.todo_list("l").size().result()
        monkeypatch.setattr(Session, "receive", interrupted)
        futures = [pipeline.todo_list("l").add_entry("milk") for _ in range(5)]
        with pytest.raises(kind):
            futures[0].result()
        monkeypatch.undo()
        found = [future.exception() for future in futures]
        assert {type(error) for error in found} == {errors.Unavailable}
        assert {error.outcome for error in found if isinstance(error, errors.TodoMQError)} == {errors.UNKNOWN}
        with pytest.raises(ExceptionGroup, match="of 6 requests failed"):
            pipeline.__exit__(None, None, None)
        assert client.todo_list("l").size() == 5

    @pytest.mark.parametrize("kind", INTERRUPTS)
    def test_an_interrupt_while_waiting_loses_nothing(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
    ) -> None:
        release = threading.Event()
        router.script = lambda *request: release.wait(5) and router.serve(*request)
        poll = Line.poll
        caller = threading.current_thread()

        def interrupted(line: Line, timeout_ms: int) -> None:
            poll(line, min(timeout_ms, 20))
            if threading.current_thread() is caller and timeout_ms:
                raise kind

        milk = client.pipeline().todo_list("l").add_entry("milk")
        with monkeypatch.context() as patched:
            patched.setattr(Line, "poll", interrupted)
            with pytest.raises(kind):
                client.todo_list("l").add_entry("bread")
        release.set()
        assert milk.result(timeout=5).id == 1
        assert [entry.title for entry in client.todo_list("l").entries()] == ["milk", "bread"]
        assert len(router.senders) == 1

    def test_a_callback_is_told_that_it_must_not_wait_for_a_future(self, client: Client) -> None:
        told: list[BaseException] = []

        def wait_for(future: concurrent.futures.Future[Any]) -> None:
            try:
                future.result()
            except errors.InvalidRequest as error:
                told.append(error)

        with client.pipeline() as pipeline:
            milk = pipeline.todo_list("l")
            milk.size().add_done_callback(lambda _: wait_for(milk.add_entry("milk")))
            wait_until(lambda: told)


class TestEnds:
    def test_closing_answers_whoever_waits(self, client: Client, router: ScriptedRouter) -> None:
        router.script = lambda *_: SILENT
        with pytest.raises(ExceptionGroup) as caught, client.pipeline() as pipeline:  # noqa: PT012
            pipeline.todo_list("l").add_entry("milk")
            pipeline.todo_list("l").size()
            wait_until(lambda: len(router.requests) == 2)
            client.close()
        closed = caught.value.exceptions
        assert [type(error) for error in closed] == [errors.Unavailable] * 2
        assert [error.outcome for error in closed if isinstance(error, errors.TodoMQError)] == [
            errors.UNKNOWN,
            errors.NOT_APPLIED,
        ]

    def test_closing_twice_does_nothing_and_a_closed_client_says_so(self, client: Client) -> None:
        client.todo_list("l").size()
        client.close()
        client.close()
        with pytest.raises(errors.Unavailable, match="closed"):
            client.todo_list("l").size()

    def test_a_forgotten_client_leaves_no_thread(self, router: ScriptedRouter) -> None:
        client = Client(router.address)
        pipeline = client.pipeline()
        concurrent.futures.wait([pipeline.todo_list("l").size()])
        names = [thread.name for thread in threading.enumerate()]
        assert "todomq-client" in names
        del client, pipeline
        gc.collect()
        wait_until(lambda: "todomq-client" not in [thread.name for thread in threading.enumerate()])

    def test_an_unclosed_client_neither_hangs_nor_prints_at_exit(self, router: ScriptedRouter) -> None:
        script = """
            import sys
            from todomq import Client
            client = Client(sys.argv[1])
            client.todo_list("l").add_entry("milk")
            client.todo_list("l").cast_add_entry("bread")
        """
        assert run(script, router.address) == ""
        wait_until(lambda: len(router.lists["l"]) == 2)

    def test_a_forked_child_is_another_client(self, router: ScriptedRouter) -> None:
        script = """
            import os, sys, threading
            from todomq import Client
            client = Client(sys.argv[1])
            bob = client.todo_list("l")
            bob.add_entry("parent's")
            stop = threading.Event()
            busy = threading.Thread(target=lambda: [bob.size() for _ in iter(stop.is_set, True)])
            busy.start()
            children = []
            for n in range(5):
                pid = os.fork()
                if pid == 0:
                    bob.add_entry("child's")
                    assert bob.size() >= 2
                    client.close()
                    os._exit(0)
                children.append(pid)
            codes = [os.waitpid(pid, 0)[1] for pid in children]
            stop.set()
            busy.join()
            bob.add_entry("parent's")
            print(codes)
        """
        assert run(script, router.address) == "[0, 0, 0, 0, 0]\n"
        assert len(router.senders) == 6
        assert len(router.lists["l"]) == 7

    def test_a_pipeline_of_the_parent_waits_in_a_child_for_what_the_child_asked(self, router: ScriptedRouter) -> None:
        script = """
            import os, sys
            from todomq import Client, errors
            client = Client(sys.argv[1])
            pipeline = client.pipeline()
            parents = pipeline.todo_list("l").add_entry("parent's")
            with pipeline:
                pid = os.fork()
                if pid == 0:
                    try:
                        parents.result(5)
                    except errors.Unavailable:
                        pass
                    with pipeline:
                        future = pipeline.todo_list("l").add_entry("child's")
                    os._exit(0 if future.done() else 1)
            print(os.waitpid(pid, 0)[1])
        """
        assert run(script, router.address) == "0\n"
        assert len(router.lists["l"]) == 2

    def test_many_threads_share_a_client(self, client: Client, router: ScriptedRouter) -> None:
        def work(n: int) -> list[int]:
            return [client.todo_list(f"list {n % 3}").add_entry(f"{n}").id for _ in range(50)]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(8)))
        assert all(ids == sorted(ids) for ids in found)
        assert sum(map(len, router.lists.values())) == 400

    def test_what_threads_leave_is_answered_whoever_drives_falls_asleep_or_leaves_meanwhile(
        self, client: Client, router: ScriptedRouter, hurried: None
    ) -> None:
        pipeline = client.pipeline()

        def work(number: int) -> list[int]:
            chance = random.Random(number)
            milk = pipeline.todo_list(f"list {number}")
            ids: list[int] = []
            while len(ids) < 4_000:
                futures = [milk.add_entry("milk") for _ in range(chance.choice([1, 1, 2, 50]))]
                if chance.random() < 0.5:  # it waits by a condition, which drives nothing
                    concurrent.futures.wait(futures, BOUND_S)
                elif chance.random() < 0.5:
                    time.sleep(chance.random() * 3 * connection.NAP_S)
                ids += [future.result(BOUND_S).id for future in futures]
            return ids

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for ids in pool.map(work, range(4)):
                assert ids == list(range(1, len(ids) + 1))
        assert {tuple(request[1:2]) for request in router.requests} == {(f"list {number}",) for number in range(4)}

    def test_what_is_left_stays_before_what_is_handed_over_behind_it(self, client: Client) -> None:
        with client.pipeline() as pipeline:
            milk = pipeline.todo_list("milk")
            futures = [milk.add_entry(title) for title in ("milk", "milk", "m" * connection.SMALL_BYTES) * 50]
        assert [future.result().id for future in futures] == list(range(1, 151))

    @pytest.mark.parametrize("is_before", [True, False])
    def test_what_is_left_as_nobody_looks_any_more_is_seen_to(self, client: Client, is_before: bool) -> None:
        keeper_is_idle = lambda: client._connection._is_keeper_idle  # noqa: E731
        milk = client.pipeline().todo_list("milk")
        late = LateList(lambda: wait_until(keeper_is_idle), is_before=is_before)
        client._connection._arrived = late
        futures = [milk.add_entry("milk")]
        while not late.is_called:
            futures.append(milk.add_entry("milk"))
        for _ in range(3):
            wait_until(keeper_is_idle)
            futures += [milk.add_entry("milk") for _ in range(2)]
            assert not concurrent.futures.wait(futures, BOUND_S).not_done

    def test_what_is_left_for_a_driver_that_sleeps_wakes_it(self, client: Client, router: ScriptedRouter) -> None:
        router.script = lambda target, *asked: SILENT if target == "silent" else router.serve(target, *asked)
        milk = client.pipeline().todo_list("milk")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.todo_list("silent").size, deadline_s=BOUND_S)
            for _ in range(20):
                wait_until(lambda: client._connection._driver is not None and client._connection._is_asleep)
                assert not client._connection._may_leave
                futures = [milk.add_entry("milk") for _ in range(3)]
                assert not concurrent.futures.wait(futures, BOUND_S / 2).not_done
            client.close()
            assert isinstance(waiting.exception(), errors.Unavailable)

    def test_what_is_left_when_no_thread_can_be_started_any_more_is_refused(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        goes_on = threading.Event()
        router.script = lambda target, *asked: (
            target == "slow" and goes_on.wait(BOUND_S), router.serve(target, *asked)
        )[1]  # fmt: skip
        tied = client._connection
        milk = client.pipeline().todo_list("milk")
        futures: list[Any] = []
        leave, start = tied._leave, threading.Thread.start

        def leave_late() -> None:
            if not futures:
                futures.extend(milk.add_entry("milk") for _ in range(2))
            leave()

        def start_or_not(thread: threading.Thread) -> None:
            if thread.name == "todomq-client" and not are_threads_left:
                raise RuntimeError("can't start new thread")
            start(thread)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.todo_list("slow").size)
            wait_until(lambda: tied._driver is not None and tied._is_asleep)
            are_threads_left = False
            monkeypatch.setattr(threading.Thread, "start", start_or_not)
            monkeypatch.setattr(tied, "_leave", leave_late)
            goes_on.set()
            assert waiting.result(BOUND_S) == 0
        with pytest.raises(errors.Unavailable, match="no thread"):
            milk.add_entry("m" * connection.SMALL_BYTES)
        assert tied._arrived_bytes == 0
        are_threads_left = True
        futures.append(milk.add_entry("milk"))
        assert not concurrent.futures.wait(futures, BOUND_S).not_done

    @pytest.mark.parametrize("threads", [1, 8])
    def test_law_6_what_is_left_counts_towards_the_bound(
        self, client: Client, router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        router.script = lambda *_: SILENT
        tied = client._connection
        monkeypatch.setattr(connection, "WAIT_REQUESTS", 1_000)
        send = Line.send

        def send_slowly(line: Line, session: Session, now: int) -> None:
            send(line, session, now)
            time.sleep(0.02)  # meanwhile the driver takes in nothing

        monkeypatch.setattr(Line, "send", send_slowly)
        most = 0

        def fill(number: int) -> None:
            nonlocal most
            milk = client.pipeline().todo_list(f"list {number}")
            with contextlib.suppress(errors.Overloaded):
                for _ in range(2_000 // threads):
                    milk.add_entry("milk", deadline_s=1.0)
                    most = max(most, tied._requests + len(tied._arrived))

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(threads), timeout=BOUND_S))
        assert 1_000 <= most <= 1_000 + threads

    def test_law_6_what_a_callback_leaves_is_bounded(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "OUTBOX_REQUESTS", 2_000)
        milk = client.pipeline().todo_list("milk")
        said: list[str] = []

        def add_many(_: Any) -> None:
            try:
                for _ in range(10_000):
                    milk.add_entry("milk")
            except errors.Overloaded as error:
                said.append(error.text)

        milk.add_entry("milk").add_done_callback(add_many)
        wait_until(lambda: said)

    def test_what_has_arrived_ends_as_the_sockets_fail(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        milk = client.pipeline().todo_list("milk")
        milk.add_entry("milk").result()
        receive = Line.receive

        have_arrived = threading.Event()

        def fail(line: Line, session: Session, now: int) -> None:
            monkeypatch.setattr(Line, "receive", receive)
            assert have_arrived.wait(BOUND_S)
            raise zmq.ZMQError(errno.EMFILE)

        monkeypatch.setattr(Line, "receive", fail)
        futures = [milk.add_entry("milk") for _ in range(3)]
        have_arrived.set()
        assert not concurrent.futures.wait(futures, BOUND_S).not_done
        assert all(isinstance(future.exception(), errors.Unavailable) for future in futures)

    def test_a_callback_that_closes_its_client_hands_over_nothing_more(
        self, client: Client, router: ScriptedRouter
    ) -> None:
        milk = client.pipeline().todo_list("milk")
        said: list[str] = []

        def close_and_add(_: Any) -> None:
            futures = [milk.add_entry("before"), milk.add_entry("before")]
            client.close()
            said.append(add_until_refused(milk.add_entry, futures))
            said.append(str(len(futures)))

        milk.add_entry("milk").add_done_callback(close_and_add)
        wait_until(lambda: len(said) == 2)
        assert said == ["this client is closed", "2"]
        wait_until(lambda: client._connection._session is None)
        titles = [title for _, title, *_ in router.lists["milk"]]
        assert titles in (["milk"], ["milk", "before"], ["milk", "before", "before"]), "nothing that came after the end"

    def test_a_signals_handler_may_hand_over_wherever_it_interrupts(self, client: Client) -> None:
        milk, bread = client.pipeline().todo_list("milk"), client.pipeline().todo_list("bread")
        large = "b" * connection.SMALL_BYTES  # so that its bytes count
        handled: list[concurrent.futures.Future[Entry]] = []
        before = signal.signal(signal.SIGALRM, lambda *_: handled.append(bread.add_entry(large)))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            ids: list[int] = []
            while len(ids) < 30_000:
                futures = [milk.add_entry("milk") for _ in range(1_000)]
                ids += [future.result(BOUND_S).id for future in futures]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert ids == list(range(1, len(ids) + 1))
        assert sorted(future.result(BOUND_S).id for future in handled) == list(range(1, len(handled) + 1))
        tied = client._connection
        wait_until(lambda: not tied._requests)
        assert (tied._requests, tied._bytes, tied._arrived_bytes, tied._arrived) == (0, 0, 0, [])

    def test_what_is_left_by_who_is_interrupted_is_waited_for(self, client: Client) -> None:
        def interrupt() -> None:
            wait_until(lambda: not client._connection._requests)
            raise KeyboardInterrupt

        late = client._connection._arrived = LateList(interrupt, is_before=False)
        pipeline = client.pipeline()
        milk = pipeline.todo_list("milk")
        with pytest.raises(KeyboardInterrupt), pipeline:  # noqa: PT012
            while True:
                milk.add_entry("milk")
        assert late.is_called and not late
        with pipeline:
            futures = [milk.add_entry("bread") for _ in range(3)]
        assert all(future.done() for future in futures)

    def test_what_is_left_as_the_client_is_closed_is_refused(self, client: Client) -> None:
        milk = client.pipeline().todo_list("milk")
        late = client._connection._arrived = LateList(client.close)
        futures: list[concurrent.futures.Future[Entry]] = []
        assert add_until_refused(milk.add_entry, futures) == "this client is closed"
        assert not concurrent.futures.wait(futures, BOUND_S).not_done
        assert late.is_called and not late

    def test_what_is_left_before_the_client_is_closed_ends_as_well(self, client: Client) -> None:
        milk = client.pipeline().todo_list("milk")
        late = client._connection._arrived = LateList(client.close, is_before=False)
        futures = [milk.add_entry("milk")]
        while not late.is_called:
            futures.append(milk.add_entry("milk"))
        assert not concurrent.futures.wait(futures, BOUND_S).not_done
        assert "this client is closed" in str(futures[-1].exception())


def fail(pipeline: Any, count: int) -> None:
    """Begin one request that goes well and so many that do not."""
    milk = pipeline.todo_list("milk")
    milk.add_entry("milk")
    for _ in range(count):
        milk.update_entry(9, done=True)


async def fail_in_async_pipeline(address: str, count: int, error: Exception | None = None) -> None:
    async with AsyncClient(address) as client, client.pipeline() as pipeline:
        fail(pipeline, count)
        if error is not None:
            raise error


def add_until_refused(
    add: Callable[[str], concurrent.futures.Future[Entry]], futures: list[concurrent.futures.Future[Entry]]
) -> str:
    """Add without end, note the futures, and return why no more is taken."""
    try:
        while True:
            futures.append(add("milk"))
    except errors.Unavailable as error:
        return str(error)


class LateList(list[Any]):
    """What requests arrive in; something happens just before, or just after, the first that is left there."""

    def __init__(self, happens: Callable[[], object], *, is_before: bool = True) -> None:
        super().__init__()
        self.is_called = False
        self._happens = happens
        self._is_before = is_before

    def append(self, item: Any) -> None:
        is_first = not self.is_called and sys._getframe(1).f_code.co_name == "submit"  # without the lock
        self.is_called = self.is_called or is_first
        if is_first and self._is_before:
            self._happens()
        super().append(item)
        if is_first and not self._is_before:
            self._happens()


@pytest.fixture
def hurried() -> Iterator[None]:
    """Have threads take turns after some bytecodes."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


class TestAsync:
    def test_a_client_that_nobody_knows_any_more_lives_until_its_requests_are_answered(
        self, router: ScriptedRouter
    ) -> None:
        async def main() -> Entry:
            future = AsyncClient(router.address).todo_list("l").add_entry("milk")
            gc.collect()
            return await future

        assert asyncio.run(main()).id == 1

    def test_the_same_names_with_await(self, router: ScriptedRouter) -> None:
        async def main() -> None:
            async with AsyncClient(router.address) as client:
                bob = client.todo_list("Bob's list")
                assert await bob.add_entry("milk", TOMORROW) == Entry(1, "milk", TOMORROW)
                assert [entry.id for entry in await bob.add_entries(["bread", ("tea", None)])] == [2, 3]
                assert [entry.title for entry in await bob.entries()] == ["milk", "bread", "tea"]
                assert (await bob.update_entry(1, done=True)).done
                await bob.cast_add_entry("salt")
                assert await bob.size() == 4
                assert await client.list_names() == ["Bob's list"]
                assert (await client.cache.server_process("Bob's list")).todo_list.name == "Bob's list"
                await client.database.store("k", 1)
                assert await client.database.get("k") == 1
                assert (await client.registry.names())[0].pid == 12
                with pytest.raises(errors.NameNotFound):
                    await client.call(Via(["nobody"]), "ping")

        asyncio.run(main())

    @pytest.mark.parametrize("is_closed", [True, False])
    def test_its_pipeline_tells_of_what_a_loop_that_runs_no_more_was_to_take(
        self, router: ScriptedRouter, is_closed: bool
    ) -> None:
        client = AsyncClient(router.address)
        pipeline = client.pipeline()

        async def begin() -> None:
            pipeline.todo_list("l").add_entry("milk", deadline_s=0.2)

        async def leave() -> None:
            async with asyncio.timeout(10):
                async with pipeline:
                    assert await pipeline.todo_list("l").size() == 1

        async def leave_again_and_close() -> None:
            async with asyncio.timeout(10), client, pipeline:
                pass

        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        if is_closed:
            loop.close()
        with pytest.raises(ExceptionGroup, match="1 of 2 requests failed") as lost:
            asyncio.run(leave())
        assert isinstance(lost.value.exceptions[0], errors.Unavailable)
        if not is_closed:
            loop.run_until_complete(asyncio.sleep(0))
        asyncio.run(leave_again_and_close())
        loop.close()

    def test_its_pipeline_waits_for_a_loop_that_pauses(self, router: ScriptedRouter) -> None:
        client = AsyncClient(router.address)
        pipeline = client.pipeline()
        paused = asyncio.new_event_loop()

        async def begin() -> None:
            pipeline.todo_list("l").add_entry("milk")

        async def leave() -> None:
            async with asyncio.timeout(10), client, pipeline:
                goes_on = threading.Timer(0.1, paused.run_until_complete, [asyncio.sleep(0.2)])
                goes_on.start()
            goes_on.join()

        paused.run_until_complete(begin())
        asyncio.run(leave())
        paused.close()

    def test_its_pipeline_gives_awaitables_and_a_group_of_failures(self, router: ScriptedRouter) -> None:
        async def main() -> None:
            async with AsyncClient(router.address) as client:
                with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
                    async with client.pipeline() as pipeline:
                        futures = [pipeline.todo_list("l").add_entry(f"{n}") for n in range(1_000)]
                        pipeline.todo_list("l").update_entry(5_000, title="x")
                assert [type(error) for error in caught.value.exceptions] == [errors.EntryNotFound]
                assert [(await future).id for future in futures] == list(range(1, 1_001))

        asyncio.run(main())

    def test_a_cancelled_wait_harms_nobody(self, router: ScriptedRouter) -> None:
        async def main() -> None:
            async with AsyncClient(router.address) as client:
                router.script = lambda *_: SILENT
                waiting = client.todo_list("l").size(deadline_s=0.1)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(waiting, 0.01)
                router.script = router.serve
                assert await client.todo_list("l").size() == 0

        asyncio.run(main())

    def test_an_unknown_outcome_is_retried_with_await(self, router: ScriptedRouter) -> None:
        async def main() -> None:
            async with AsyncClient(router.address) as client:
                unknown = await lost_add_later(client, router, deadline_s=SHORT_S)
                router.script = lambda *_: SILENT
                with pytest.raises(errors.DeadlineExceeded) as again:
                    await unknown.retry()
                router.script = router.serve
                assert await again.value.retry() == Entry(1, "milk")
                assert await unknown.retry() == Entry(1, "milk")
                assert [request[4] for request in router.requests] == [1, 1, 1]

        asyncio.run(main())

    def test_of_a_client_that_is_gone_nothing_can_be_asked_again_however_often(self, router: ScriptedRouter) -> None:
        async def lost() -> errors.TodoMQError:
            client = AsyncClient(router.address)
            unknown = await lost_add_later(client, router, deadline_s=SHORT_S)
            await client.close()
            return unknown

        async def main() -> None:
            unknown = await lost()
            for _ in range(2):
                with pytest.raises(errors.TodoMQError) as refused:
                    await asyncio.wait_for(unknown.retry(), 5)
                assert refused.value.outcome == errors.UNKNOWN

        asyncio.run(main())

    def test_a_retry_that_another_loop_began_is_answered_in_this_one(self, router: ScriptedRouter) -> None:
        client = AsyncClient(router.address)
        held = threading.Event()

        async def first() -> errors.TodoMQError:
            unknown = await lost_add_later(client, router, deadline_s=2.0)
            router.script = lambda *request: (held.wait(10), router.serve(*request))[1]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(unknown.retry(), 0.02)
            return unknown

        async def second(unknown: errors.TodoMQError) -> list[Entry]:
            waiting = [unknown.retry() for _ in range(2)]
            held.set()
            router.script = router.serve
            found = [await each for each in waiting]
            await client.close()
            return found

        unknown = asyncio.run(first())
        assert asyncio.run(second(unknown)) == [Entry(1, "milk")] * 2

    def test_a_retry_that_is_cancelled_loses_no_answer(self, router: ScriptedRouter) -> None:
        async def main() -> None:
            async with AsyncClient(router.address) as client:
                unknown = await lost_add_later(client, router, deadline_s=2.0)
                held = threading.Event()
                router.script = lambda *request: (held.wait(10), router.serve(*request))[1]
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(unknown.retry(), 0.02)
                held.set()
                router.script = router.serve
                assert await unknown.retry() == Entry(1, "milk")
                assert await unknown.retry() == Entry(1, "milk")

        asyncio.run(main())


def test_the_plain_req_example_adds_and_reads(router: ScriptedRouter) -> None:
    command = [sys.executable, str(ROOT / "examples" / "plain_req.py"), router.address, "Bob's list", "milk"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["added 1", "entries [[[1, 'milk', None, False, {}]], None]"]


def test_the_plain_req_example_without_arguments_says_how_it_is_run() -> None:
    command = [sys.executable, str(ROOT / "examples" / "plain_req.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "Usage: " in done.stderr and "Traceback" not in done.stderr


def test_a_message_is_one_array_of_the_protocol() -> None:
    """What the scripted router reads with the protocol's own code is what the page on the protocol shows."""
    request = [1, "Bob's list", 0, msgpack.packb(["size"]), 1, 1]
    packed = messages.call(b"me", [request])
    assert msgpack.unpackb(packed) == [1, "call", b"me", [request]]


def run(script: str, *arguments: str) -> str:
    """Run a script in a process of its own; return what it printed, errors included."""
    lines = script.splitlines()
    code = "\n".join(line[12:] for line in lines)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(todomq.__file__).parents[1])}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, env=environment, check=False
    )
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stdout}"
