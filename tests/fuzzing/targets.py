"""What takes the bytes, by name: each takes an input and raises where law 7 (8, for what is stored) is broken.

Owns: the list of targets, a fresh stack now and then. Must not know: who makes inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fuzzing import shapes
from fuzzing.world import INPUTS, FuzzedWorld
from todomq.client import operations
from todomq.client.outcomes import outcome
from todomq.client.session import Session
from todomq.errors import CorruptRecord, InvalidRequest, ProtocolError
from todomq.list_server import records
from todomq.list_server.loading import Loading
from todomq.protocol import messages
from todomq.protocol.codec import canonical, check_plain, pack, unpack
from topology.network import DEALER, PUSH

Target = Callable[[bytes], None]

READERS = (
    messages.read_call, messages.read_replies, messages.read_writes, messages.read_committed, messages.read_forward,
)  # fmt: skip


def codec(data: bytes) -> None:
    """Every decoder: a value within the bounds, or a ``ProtocolError``; what was read packs to the same again."""
    messages.read_error(data)
    for read in (messages.read, messages.read_body):
        try:
            read(data)
        except ProtocolError:
            continue
    try:
        value = unpack(data)
    except ProtocolError:
        return
    for reader in READERS:
        try:
            reader(value if type(value) is list else [value])
        except ProtocolError:
            continue
    messages.is_request(value)
    messages.request_id(value)
    try:
        check_plain(value)
        assert canonical(unpack(pack(value))) == canonical(value)
    except InvalidRequest:
        return


def stored(data: bytes) -> None:
    """Every record: read as it was made, or ``CorruptRecord``; never anything else (law 8)."""
    readings: tuple[Callable[[], Any], ...] = (
        lambda: records.read_list("list", data),
        lambda: records.read_run("list", 1, data),
        lambda: records.read_session("list", b"client", data),
        lambda: records.name_of(data),
        lambda: records.read_entry_key("list", records.prefix("list") + data),
        lambda: records.read_session_key("list", data),
        lambda: records.read_remains_key(data),
        lambda: Loading("list", 0).take(data, [], None),
        lambda: _load([records.prefix("list") + data, data]),
    )
    for read in readings:
        try:
            read()
        except CorruptRecord:
            continue


def _load(pairs: list[bytes]) -> None:
    loading = Loading("list", 0)
    loading.take(records.pack_list(records.ListRecord()), pairs, None)
    loading.todo_list()


def client(data: bytes) -> None:
    """A client's session: whatever the router says, it ends its requests with a result or an error of the service."""
    session = Session(bytes(16), lambda: 0.5)
    session.connected(0)
    session.take_message(0)
    session.receive(messages.reply([(0, 0, pack([1, 0, bytes(16), 100]))]), 0)
    asked: list[Any] = [operations.entries("list"), operations.size("list"), operations.get("key")]
    asked += [operations.list_names(), operations.server_process("list", str), operations.clear("list")]
    for request in asked:
        request.deadline_ms = 1_000
    session.submit(asked)
    session.take_message(0)
    session.receive(shapes.answer(data, [request.id for request in asked]), 1)
    session.tick(2_000)
    for request in session.take_finished():
        outcome(request, lambda repeated: None)


class _Stack:
    """The stack that the targets of daemons share."""

    world: FuzzedWorld | None = None

    def get(self) -> FuzzedWorld:
        if self.world is not None and self.world.inputs >= INPUTS:
            self.close()
        if self.world is None:
            self.world = FuzzedWorld()
        return self.world

    def close(self) -> None:
        if self.world is not None:
            self.world.close()
            self.world = None


STACK = _Stack()


def _to(daemon: str, kind: str, shape: Callable[[bytes], list[bytes]], data: bytes) -> None:
    _guarded(lambda world: world.send(kind, daemon, shape(data)))


def answers(data: bytes) -> None:
    """What any daemon hears from another that it asked."""
    _guarded(lambda world: world.answer(data))


def _guarded(deed: Callable[[FuzzedWorld], None]) -> None:
    try:
        deed(STACK.get())
    except BaseException:
        STACK.close()  # the next input meets a fresh one
        raise


TARGETS: dict[str, Target] = {
    "codec": codec,
    "stored": stored,
    "client": client,
    "answers": answers,
    **{
        name: partial(_to, name, DEALER, shapes.frames)
        for name in ("registry", "cache", "router", "list_server-1", "database_worker-1")
    },
    "list_server-1.commits": partial(_to, "list_server-1.commits", PUSH, shapes.words),
    "database_worker-1.writes": partial(_to, "database_worker-1.writes", PUSH, shapes.writes),
}
