"""Law 7 at every socket of every daemon: bad input gets a clear error where that is possible, the daemon lives on."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from running import Running, running, wait_until

from batches import batch_of
from todomq.errors import InvalidRequest, ProtocolError, TodoMQError, Unauthorized, Unavailable
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack, unpack

ME = b"garbage tester"
PING = messages.body("ping")
DAEMONS = ["registry", "cache", "router", "list_server-1", "database_worker-1"]
PULLS = ["list_server-1.commits", "database_worker-1.writes"]
GROWTH_BYTES = 96 * limits.MIB
GROWTH_DESCRIPTORS = 8
HUGE = (1 << 63) - 1


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with running() as stack:
        for name in DAEMONS:  # the first large message costs each its buffers once
            send_and_ask(stack, name, pack([1, "call", ME, [[1, None, 0, bytes(1_000_000)]]]))
        yield stack


@pytest.fixture
def stack(shared: Running) -> Iterator[Running]:
    """Return the stack; afterwards every daemon is the process it was, answers, and has not grown."""
    before = {name: (shared.descriptors(name), shared.memory_bytes(name)) for name in DAEMONS}
    pids = shared.pids()
    yield shared
    for name in DAEMONS:
        assert name in shared.pids(), f"{name} died: {shared.log(name)[-2000:]}"
        assert shared.ask(name, "ping") == "pong"
        descriptors, memory_bytes = before[name]
        wait_until(lambda: shared.descriptors(name) <= descriptors + GROWTH_DESCRIPTORS, f"{name} closes descriptors")  # noqa: B023
        assert shared.memory_bytes(name) <= memory_bytes + GROWTH_BYTES
    assert shared.pids() == pids
    assert shared.try_list("after garbage", "size", sender=os.urandom(16)) == 0


def send_and_ask(stack: Running, name: str, *frames: bytes) -> list[Any]:
    """Send frames as one message from a DEALER, then a ping; return the replies that came before the ping's."""
    opened = stack.open(zmq.DEALER, name)
    try:
        opened.send_multipart(frames or (b"",))
        opened.send_multipart([b"", messages.call(ME, [[424242, None, 0, PING]])])
        replies: list[Any] = []
        while True:
            kind, fields = messages.read(opened.recv_multipart()[-1])
            assert kind == "reply"
            replies += map(list, messages.read_replies(fields))
            if any(reply[0] == 424242 for reply in replies):
                return [reply for reply in replies if reply[0] != 424242]
    finally:
        opened.close()


REFUSED_FRAMES: dict[str, bytes] = {
    "an empty frame": b"",
    "random bytes": random.Random(7).randbytes(2_000),
    "truncated msgpack": messages.call(ME, [[1, None, 0, PING]])[:-3],
    "trailing bytes": messages.call(ME, [[1, None, 0, PING]]) + b"\xc0",
    "a wrong version": pack([2, "call", ME, [[1, None, 0, PING]]]),
    "a version nested 900 deep": b"\x94" + b"\x91" * 900 + b"\xc0\xa4call\xc4\x00\x90",
    "no array": pack({"call": 1}),
    "missing fields": pack([1, "call"]),
    "wrong types": pack([1, "call", "sender", "requests"]),
    "an unknown kind": pack([1, "shout", ME, []]),
    "a kind of a megabyte": pack([1, "x" * 1_000_000, ME, []]),
    "a reply": messages.reply([(1, 0, b"\xc0")]),
    "no requests": pack([1, "call", ME, []]),
    "a sender of 65 bytes": pack([1, "call", bytes(65), [[1, None, 0, PING]]]),
    "a timestamp": b"\x94\x01\xa4call\xc4\x00\xd6\xff\x00\x00\x00\x01",
    "an extension": b"\x94\x01\xa4call\xc4\x00\xd4\x05a",
    "a million nested arrays": b"\x91" * 1_000_000,
    "a million nested maps": b"\x81\x01" * 1_000_000,
    "a promise of 4 GiB": b"\xdd\xff\xff\xff\xff",
    "two million empty maps": b"\xdc\x00\x10" + (b"\xdd" + (131_000).to_bytes(4, "big") + b"\x80" * 131_000) * 16,
    "too many requests": pack([1, "call", ME, [[None, None, 0, PING]] * (limits.MESSAGE_REQUESTS + 1)]),
    "a wrong forward": pack([1, "forward", [["sender", []]]]),
    "writes": messages.writes(batch_of(ME, ME, 1, [])),
    "a word": messages.committed(messages.Committed(ME, ME, 1, 1, messages.COMMITTED, [], "")),
}


@pytest.mark.parametrize("name", DAEMONS)
def test_a_message_that_cannot_be_read_is_refused_with_an_id_of_nil(stack: Running, name: str) -> None:
    for what, frame in REFUSED_FRAMES.items():
        replies = send_and_ask(stack, name, b"", frame)
        assert [reply[:2] for reply in replies] == [[None, messages.ERROR]], what
        error = messages.read_error(replies[0][2])
        assert type(error) is ProtocolError, what
        assert error.text and len(error.text) < 300, what


@pytest.mark.parametrize("name", DAEMONS)
def test_a_wrong_envelope_is_refused(stack: Running, name: str) -> None:
    good = messages.call(ME, [[1, None, 0, PING]])
    for frames in ([good], [b"x", good], [good, b""], [b"", good, b""], [b"", b"", good], [b""], [b""] * 10_000):
        replies = send_and_ask(stack, name, *frames)
        assert [reply[:2] for reply in replies] == [[None, messages.ERROR]]


@pytest.mark.parametrize("name", DAEMONS)
def test_bad_requests_are_refused_one_by_one_and_good_ones_beside_them_are_served(stack: Running, name: str) -> None:
    bad: list[tuple[Any, type[TodoMQError]]] = [
        ([1, None, 0], ProtocolError),
        ([2, None, 0, "ping"], ProtocolError),
        ([3, None, -1, PING], ProtocolError),
        ([4, None, 0, PING, 1], ProtocolError),
        ([5, None, 0, PING, -1, 0], ProtocolError),
        ([6, None, 0, b""], ProtocolError),
        ([7, None, 0, b"\x91" * 1_000_000], ProtocolError),
        ([8, None, 0, b"\x91\xd6\xff\x00\x00\x00\x01"], ProtocolError),
        ([9, None, 0, pack([b"ping"])], ProtocolError),
        ([10, None, 0, messages.body("fly", 1)], InvalidRequest),
        ([11, None, 0, messages.body("x" * 1_000_000)], InvalidRequest),
    ]
    requests = [request for request, _ in bad] + [[12, None, 0, PING], [None, None, 0, b"\xc1"], 5, {}, [[]]]
    replies = send_and_ask(stack, name, b"", pack([1, "call", ME, requests[:6] + requests[9:10] + requests[11:]]))
    assert [reply[0] for reply in replies] == [1, 2, 3, 4, 5, 6, 10, 12, None, None, None]
    assert [reply[1] for reply in replies].count(messages.OK) == 1
    for request, kind in bad:
        (reply,) = send_and_ask(stack, name, b"", pack([1, "call", ME, [request]]))
        assert reply[:2] == [request[0], messages.ERROR]
        assert type(messages.read_error(reply[2])) is kind
    (reply,) = send_and_ask(stack, name, b"", pack([1, "call", ME, [[1, None, -1, PING]]]))
    assert messages.read_error(reply[2]).text == "deadline_ms: an integer from 0 to 2^63 - 1"


@pytest.mark.parametrize("target", [5, 1.5, [], ["a", "b"], {}, True])
@pytest.mark.parametrize("counters", [[], [1, 1]], ids=["four fields", "six fields"])
def test_of_a_cast_to_a_target_that_is_none_its_sender_is_told(
    stack: Running, target: Any, counters: list[int]
) -> None:
    cast = messages.call(ME, [[None, target, 0, PING, *counters]])
    ((identifier, status, value),) = send_and_ask(stack, "router", b"", cast)
    error = messages.read_error(value)
    assert (identifier, status, type(error)) == (None, messages.ERROR, ProtocolError) and "a target is" in error.text


@pytest.mark.parametrize("name", [*DAEMONS, *PULLS])
def test_a_frame_over_the_limit_cuts_its_connection_and_no_other(stack: Running, name: str) -> None:
    opened = stack.open(zmq.PUSH if name in PULLS else zmq.DEALER, name)
    monitor: zmq.Socket[bytes] = opened.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        opened.send_multipart([bytes(5 * limits.MIB)])
        assert monitor.poll(20_000), "cut"
    finally:
        opened.disable_monitor()
        monitor.close()
        opened.close()


@pytest.mark.parametrize("name", [*DAEMONS, *PULLS])
def test_half_open_connections_and_other_protocols_harm_nobody(stack: Running, name: str) -> None:
    greetings = [b"", b"\xff", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x03", os.urandom(5_000)]
    connections = [stack.connect_raw(name) for _ in range(20)]
    try:
        for at, connection in enumerate(connections):
            connection.sendall(greetings[at % len(greetings)])
        assert stack.ask(name.partition(".")[0], "ping") == "pong"
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("name", DAEMONS)
def test_random_and_mutated_messages_in_thousands(stack: Running, name: str) -> None:
    chance = random.Random(f"garbage for {name}")
    good = [
        messages.call(ME, [[1, "list", 0, messages.body("add_entry", "x"), 1, 1], [None, [name], 0, PING]]),
        messages.call(ME, [[1, None, 0, messages.body("table", [[1, ME, "ipc:///x"]], [[1, 1, 1]])]]),
        messages.call(ME, [[1, None, 0, messages.body("claim", 1, 1, 0)], [2, b"\xa1k", 0, messages.body("get", "k")]]),
        messages.forward([[ME, [[1, "list", HUGE, messages.body("add_entry", "x"), 1, 1, 1]]]]),
    ]
    opened = stack.open(zmq.DEALER, name)
    try:
        for at in range(1_000):
            frame = bytearray(good[at % len(good)] if at % 3 else chance.randbytes(chance.randrange(200)))
            for _ in range(chance.randrange(1, 6) if frame else 0):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
            opened.send_multipart([b"", bytes(frame)])
            while opened.poll(0):
                messages.read_replies(messages.read(opened.recv_multipart()[-1])[1])
    finally:
        opened.close()


OPERATIONS: dict[str, list[str]] = {
    "registry": ["register_name", "unregister_name", "whereis_name", "watch", "names"],
    "cache": ["server_process", "whereis_list", "kill_list", "describe_list"],
    "router": ["table"],
    "list_server-1": ["own", "release", "activate", "kill_list", "describe_list"],
    "database_worker-1": ["hello", "claim", "read", "store", "get"],
}
ODD: list[Any] = [None, True, -1, HUGE, 1 << 64 - 1, 1.5, "", "x" * 300, b"", b"\xff" * 70, [], [[]], [[1]], {}, {1: 2}]


@pytest.mark.parametrize("name", DAEMONS)
def test_odd_arguments_are_invalid_requests_and_never_internal_errors(stack: Running, name: str) -> None:
    requests: list[Any] = []
    for operation in OPERATIONS[name]:
        for arguments in [[], *([odd] for odd in ODD), *([odd, other] for odd in ODD for other in ODD), [1] * 9]:
            if (operation, name) in {("store", name), ("get", name), ("whereis_name", name)} and len(arguments) < 3:
                continue  # any value is a key or a name
            if operation == "watch" and arguments and type(arguments[0]) is int:
                continue  # is answered
            if operation == "unregister_name":
                continue  # any value is a name; a nil incarnation frees it, whoever has it
            requests.append([len(requests) + 1, None, 0, messages.body(operation, *arguments)])
    replies = send_and_ask(stack, name, b"", pack([1, "call", ME, requests]))
    wait_for = {request[0] for request in requests} - {reply[0] for reply in replies}
    assert not wait_for, [unpack(requests[identifier - 1][3]) for identifier in sorted(wait_for)]
    for identifier, status, value in replies:
        asked = unpack(requests[identifier - 1][3])
        if status == messages.OK:
            assert asked[0] in ("names", "describe_list", "release"), asked
            continue
        error = messages.read_error(value)
        kinds = (InvalidRequest, ProtocolError) if asked != ["table", [], []] else (Unauthorized,)
        assert type(error) in kinds, (asked, error.text)


TABLES: list[list[Any]] = [
    [[], [[0, 1, 5]]], [[[1, ME, "nowhere"]], []], [[[1, ME, "ipc:///tmp/x"]], [[256, 1, 5]]],
    [[[1, ME, "ipc:///tmp/x"]], [[-1, 1, 5]]], [[[1, ME, "ipc:///tmp/x"]], [[0, 1, 0]]], [[[[1], ME, "ipc:///x"]], []],
    [[[1, ME, "ipc:///tmp/x"]], [[0, [1], 5]]], [[[1, ME]], []], [[[1, ME, "tcp://-:1"]], []],
    [[[0, ME, "ipc:///x"]], []],
    [[[1, ME, "ipc:///tmp/x"]], [[0, 1, 1 << 63]]], [[[1, bytes(65), "ipc:///tmp/x"]], []],
    [[[True, ME, "ipc:///x"]], []],
]  # fmt: skip


@pytest.mark.parametrize("arguments", TABLES)
def test_a_table_that_cannot_be_is_refused_and_nothing_of_it_believed(stack: Running, arguments: list[Any]) -> None:
    assert type(stack.ask("router", "table", *arguments)) is InvalidRequest


def test_nobody_but_the_cache_tells_the_router_its_table(stack: Running) -> None:
    refused = stack.ask("router", "table", [[1, ME, stack.address("nobody")]], [[0, 1, 1_000_000]])
    assert type(refused) is Unauthorized


@pytest.mark.parametrize(
    "name", [["list_server"], ["list_server", "x"], ["list_server", [1]], ["list_server", -1], ["list_server", 2, 3]]
)
def test_a_name_like_a_list_servers_is_not_taken_for_one(stack: Running, name: Any) -> None:
    assert stack.ask("registry", "register_name", name, "ipc:///nowhere", None, ME, 60_000) is True
    stack.ask("cache", "whereis_list", "x")
    assert stack.ask("registry", "unregister_name", name, ME) is True


def test_calling_what_is_registered_under_no_address_is_refused(stack: Running) -> None:
    for address in ("nowhere", "ipc://" + "x" * 300, "tcp://-:1", "udp://a:1"):
        if stack.ask("registry", "register_name", ["bad"], address, None, ME, 60_000) is not True:
            continue  # refused already where it is registered
        wait_until(  # the router hears of the name soon after the registry has it
            lambda: isinstance(stack.request("router", [1, [["bad"]], 0, PING]), Unavailable), "it is refused"
        )
        assert stack.ask("registry", "unregister_name", ["bad"], ME) is True


class Rogue:
    """A registered daemon that answers every call with bytes of the test's choice."""

    def __init__(self, stack: Running) -> None:
        self.stack = stack
        self.socket: zmq.Socket[bytes] = stack.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.socket.bind(stack.address("rogue"))
        assert stack.ask("registry", "register_name", ["rogue"], stack.address("rogue"), None, ME, 60_000) is True
        wait_until(self._is_called, "the router hears of the name")

    def _is_called(self) -> bool:
        asking = self.stack.open(zmq.DEALER, "router")
        try:
            asking.send_multipart([b"", messages.call(ME, [[1, [["rogue"]], 0, PING]])])
            wait_until(lambda: self.socket.poll(0) or asking.poll(0), "it comes here or is refused")
            if not self.socket.poll(0):
                return False
            peer, _, frame = self.socket.recv_multipart()
            self.socket.send_multipart([peer, b"", messages.reply([(unpack(frame)[3][0][0], 0, b"\xc3")])])
            return bool(asking.recv_multipart())
        finally:
            asking.close()

    def answer(self, make: Callable[[int], bytes]) -> None:
        """Let the router call here, and send what ``make`` returns for the call's id; then answer as one should."""
        asking = self.stack.open(zmq.DEALER, "router")
        try:
            asking.send_multipart([b"", messages.call(ME, [[1, [["rogue"]], 0, PING]])])
            peer, _, frame = self.socket.recv_multipart()
            identifier = unpack(frame)[3][0][0]
            self.socket.send_multipart([peer, b"", make(identifier)])
            self.socket.send_multipart([peer, b"", messages.reply([(identifier, 0, b"\xc3")])])
            assert asking.recv_multipart()
        finally:
            asking.close()

    def close(self) -> None:
        assert self.stack.ask("registry", "unregister_name", ["rogue"], ME) is True
        self.socket.close()


def test_replies_that_cannot_be_read_harm_nobody(stack: Running) -> None:
    rogue = Rogue(stack)
    try:
        for make in (
            lambda i: b"", lambda i: os.urandom(100), lambda i: pack([1, "reply", [[[i], 0, b""]]]),
            lambda i: pack([1, "reply", [[{}, 0, b""]]]), lambda i: pack([1, "reply", [[i, 9, b""]]]),
            lambda i: pack([1, "reply", [[i, [], b""]]]), lambda i: pack([1, "reply", [[i, 0, 5]]]),
            lambda i: b"\x91" * 1_000_000, lambda i: pack([1, "reply", [[-5, 0, b""], [HUGE, 0, b""]]]),
        ):  # fmt: skip
            rogue.answer(make)
    finally:
        rogue.close()


def test_a_registered_process_is_sent_what_the_page_says(stack: Running) -> None:
    rogue = Rogue(stack)
    asking = stack.open(zmq.DEALER, "router")
    try:
        requests = [[7, [["rogue"]], 0, PING], [None, [["rogue"]], 0, PING], [8, [["rogue"]], 0, PING, 3, 2]]
        asking.send_multipart([b"", messages.call(ME, requests)])
        peer, empty, frame = rogue.socket.recv_multipart()
        version, kind, sender, sent = unpack(frame)
        assert (empty, version, kind, sender) == (b"", 1, "call", ME)
        came = [[target, body, *others] for _, target, _, body, *others in sent]
        assert came == [[None, PING], [None, PING], [None, PING, 3, 2]]
        assert all(type(identifier) is int and deadline_ms > 0 for identifier, _, deadline_ms, *_ in sent)
        rogue.socket.send_multipart([peer, b"", messages.reply([(request[0], 0, b"\xc3") for request in sent])])
        assert [reply[:2] for reply in unpack(asking.recv_multipart()[1])[2]] == [[7, 0], [8, 0]]
    finally:
        asking.close()
        rogue.close()


# -- between daemons ---------------------------------------------------------------------------------------------------


FORWARDS: list[Any] = [
    [[b"", [[1, "a", HUGE, PING, 1, 1, 1]]]],
    [[ME, [[None, "a", HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, None, HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, b"a", HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, ["a"], HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, "x" * 256, HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, "\u4e00" * 86, HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, "a", HUGE, PING, 1, 1, -1]]]],
    [[ME, [[1, "a", HUGE, PING, 1, 1]]]],
    [[ME, [[1, "good", HUGE, messages.body("add_entry", "x"), 1, 1, 1], [2, b"bad", HUGE, PING, 1, 1, 1]]]],
    [[ME, [[1, "good", HUGE, messages.body("add_entry", "x"), 1, 1, 1]]], [b"", [[2, "a", HUGE, PING, 1, 1, 1]]]],
]


@pytest.mark.parametrize("groups", FORWARDS)
def test_a_forward_with_one_odd_request_is_refused_whole(stack: Running, groups: list[Any]) -> None:
    (reply,) = send_and_ask(stack, "list_server-1", b"", messages.forward(groups))
    assert reply[:2] == [None, messages.ERROR]
    assert stack.try_list("good", "size", sender=os.urandom(16)) == 0


def test_requests_under_another_epoch_and_odd_bodies_are_answered_each(stack: Running) -> None:
    epoch = stack.ask("cache", "whereis_list", "odd")[1]
    late = stack.request("router", [1, None, 0, messages.body("hello")])[1] + 50_000
    bodies = [
        b"", b"\xc1", pack(5), pack(["fly"]), pack(["entries", "cursor"]), pack(["entries", [1 << 64 - 1, -5]]),
        pack(["entries", 1, 2]), pack(["size", 1]),
    ]  # fmt: skip
    requests = [[at, "odd", late, body, 1, 1, epoch] for at, body in enumerate(bodies, 1)]
    replies = send_and_ask(
        stack, "list_server-1", b"",
        messages.forward([[ME, [*requests, [50, "odd", late, PING, 1, 1, HUGE], [51, "odd", 1, PING, 1, 1, epoch]]]]),
    )  # fmt: skip
    statuses = {identifier: status for identifier, status, _ in replies}
    assert statuses.pop(50) == messages.MOVED
    assert set(statuses.values()) <= {messages.ERROR}


@pytest.mark.parametrize("sender", [b""])
def test_a_list_is_not_changed_by_a_client_without_an_id(stack: Running, sender: bytes) -> None:
    assert type(stack.try_list("anonymous", "add_entry", "x", sender=sender)) is InvalidRequest
    assert stack.try_list("anonymous", "size", sender=os.urandom(16)) == 0


def push(stack: Running, name: str, *frames: list[bytes]) -> None:
    """Send messages to a PULL socket."""
    opened = stack.open(zmq.PUSH, name)
    try:
        for parts in frames:
            opened.send_multipart(parts)
        # The connection is closed only behind what was sent.
        opened.setsockopt(zmq.LINGER, 5_000)
    finally:
        opened.close()


@pytest.mark.parametrize("name", PULLS)
def test_garbage_at_a_pull_socket_is_logged_once_and_dropped(stack: Running, name: str) -> None:
    daemon = name.partition(".")[0]
    logged_before = len(stack.log(daemon).splitlines())
    push(
        stack, name, *([frame] for frame in REFUSED_FRAMES.values()), [b"", REFUSED_FRAMES["random bytes"]],
        [b""] * 10_000, *([random.Random(at).randbytes(at % 300)] for at in range(1_000)),
    )  # fmt: skip

    def is_logged() -> bool:
        push(stack, name, [b"more"])  # lines are at most one a second: the one for what came first may be left out
        return "malformed_" in "".join(stack.log(daemon).splitlines()[logged_before:])

    wait_until(is_logged, "a line is logged")
    assert len(stack.log(daemon).splitlines()) < logged_before + 20
    assert stack.try_list("still written", "add_entry", "x", sender=os.urandom(16)) > 0


def words(stack: Running) -> list[messages.Committed]:
    """Return words that only somebody who knows both incarnations can send, about what can't be."""
    server = stack.ask("list_server-1", "stats")["incarnation"]
    worker = stack.ask("database_worker-1", "stats")["incarnation"]
    return [
        messages.Committed(server, worker, 0, HUGE, messages.COMMITTED, [], ""),
        messages.Committed(server, worker, HUGE, HUGE, messages.COMMITTED, [], ""),
        messages.Committed(server, worker, HUGE, 0, messages.COMMITTED, [], ""),
        messages.Committed(server, worker, HUGE, HUGE, messages.WANTED, [], ""),
        messages.Committed(server, worker, 0, 0, messages.COMMITTED, [[HUGE, 255, HUGE]] * 100, "x" * 100_000),
        messages.Committed(server, worker, 1, 1, messages.COMMITTED, [[1, 256, 1]], ""),
        messages.Committed(server, worker, 1, 1, messages.COMMITTED, [[1, HUGE, 1]], ""),
    ]


def test_words_with_absurd_numbers_open_no_gate(stack: Running) -> None:
    push(stack, "list_server-1.commits", *([messages.committed(word)] for word in words(stack)))
    client = os.urandom(16)
    for number in range(1, 4):
        assert stack.try_list("gated", "add_entry", "x", number=number, sender=client) == number
    gates = stack.ask("list_server-1", "stats")
    wait_until(lambda: stack.ask("list_server-1", "stats")["uncommitted_batches"] == 0, "everything is committed")
    assert gates["partitions"] == 256 or wait_until(
        lambda: stack.ask("list_server-1", "stats")["partitions"] == 256, "the partition is claimed again"
    )


def test_batches_of_strangers_write_nothing(stack: Running) -> None:
    worker = stack.ask("database_worker-1", "stats")["incarnation"]
    batches = [
        batch_of(ME, worker, 1, [(0, 1, [b"nforged", b"x"])]),
        batch_of(ME, b"", HUGE, [(0, 1, [b"nforged", b"x"])]),
        batch_of(b"", worker, 0, [(0, HUGE, [b"", None])]),
    ]
    push(stack, "database_worker-1.writes", *([messages.writes(batch)] for batch in batches))
    assert stack.ask("database_worker-1", "read", b"nforged", None, None, 100)[0] is None


@pytest.mark.parametrize("arguments", [[0, 0], [0, -1], [256, 1], [0, HUGE + 1], [True, 1], [0, True]])
def test_no_partition_is_owned_or_released_under_odd_numbers(stack: Running, arguments: list[Any]) -> None:
    for asked in (["own", *arguments, 0], ["release", *arguments]):
        assert type(stack.ask("list_server-1", *asked)) is InvalidRequest


@pytest.mark.parametrize("arguments", [[0], [0, 1], [0, 1, 1], [0, 1, -1], [0, 1, True], [0, 1, None], [0, 1, 0, 0]])
def test_no_partition_is_owned_without_what_is_known_of_it(stack: Running, arguments: list[Any]) -> None:
    assert type(stack.ask("list_server-1", "own", *arguments)) is InvalidRequest


@pytest.mark.parametrize("arguments", [[0], [0, 1, 2]])
def test_no_partition_is_released_by_a_wrong_number_of_arguments(stack: Running, arguments: list[Any]) -> None:
    assert type(stack.ask("list_server-1", "release", *arguments)) is InvalidRequest


def test_a_list_server_that_talks_nonsense_gets_no_partition_and_the_cache_lives_on(stack: Running) -> None:
    opened: zmq.Socket[bytes] = stack.context.socket(zmq.ROUTER)
    opened.setsockopt(zmq.LINGER, 0)
    opened.bind(stack.address("nonsense"))
    try:
        address = stack.address("nonsense")
        assert stack.ask("registry", "register_name", ["list_server", 9], address, None, ME, 60_000) is True
        odd = [5, [1, 2], [[256, 1, 0]], [[1, 1]], [[1, 1, -1]], [[[], {}]], None, {}]
        answers = iter([pack(each) for each in odd])
        for value in answers:
            assert opened.poll(20_000), "the cache asks what it owns"
            peer, _, frame = opened.recv_multipart()
            for request in unpack(frame)[3]:
                opened.send_multipart([peer, b"", messages.reply([(request[0], 0, value)])])
        grants = [False, 2**64 - 1, 0], [False, -1, 0], [2, 1, 0], [True, 1], [True, 1.0, 0], [True, 1, -1]
        for grant in map(pack, grants):
            asked = set[str]()
            while "own" not in asked:
                assert opened.poll(20_000), "the cache asks it to own partitions"
                peer, _, frame = opened.recv_multipart()
                for request in unpack(frame)[3]:
                    operation = unpack(request[3])[0]
                    asked.add(operation)
                    value = grant if operation == "own" else pack([])
                    opened.send_multipart([peer, b"", messages.reply([(request[0], 0, value)])])
        assert stack.ask("cache", "ping") == "pong"
    finally:
        assert stack.ask("registry", "unregister_name", ["list_server", 9], ME) is True
        opened.close()
