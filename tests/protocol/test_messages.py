"""Every message both ways, byte for byte; and whatever is no message is a ``ProtocolError``, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batches import batch_of
from todomq import errors
from todomq.errors import (
    BY_CODE,
    NOT_APPLIED,
    UNKNOWN,
    CorruptRecord,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    TodoMQError,
)
from todomq.list_server import records
from todomq.protocol import limits, messages
from todomq.protocol.addresses import is_address
from todomq.protocol.codec import canonical, pack, unpack
from todomq.protocol.messages import COMMITTED, Committed, Request

ME = b"\x00\x01"
QUIET = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
"""The same examples every time, however busy the machine."""
PING = messages.body("ping")

GOLDEN: list[tuple[bytes, str]] = [
    (PING, "91a470696e67"),
    (messages.body("add_entry", "milk", None), "93a96164645f656e747279a46d696c6bc0"),
    (messages.call(ME, [Request(1, None, 0, PING)]), "9401a463616c6cc40200019196 01c000c40691a470696e670000"),
    (messages.call(ME, [(1, "a", 5, PING, 3, 2)]), "9401a463616c6cc40200019196 01a16105c40691a470696e670302"),
    (messages.call(b"", [(None, None, 0, PING)]), "9401a463616c6cc4009194 c0c000c40691a470696e67"),
    (messages.reply([(1, messages.OK, pack("pong"))]), "9301a57265706c7991930100c405a4706f6e67"),
    (messages.reply([(1, messages.MOVED, b"")]), "9301a57265706c7991930102c400"),
    (messages.error_value(Overloaded("full")), "94aa6f7665726c6f61646564a466756c6cc3ab6e6f74206170706c696564"),
    (messages.forward([(ME, [(7, "a", 5, PING, 3, 2, 9)])]),
     "9301a7666f72776172649192c40200019197 07a16105c40691a470696e67030209"),
    (messages.writes(batch_of(ME, b"\x02", 4, [(37, 1, [b"k", b"v", b"g", None])])),
     "9901a6777269746573c4020001c401020491922501c402252592c4016bc4016792c40176c0"),
    (messages.committed(Committed(ME, b"\x02", 1, 3, COMMITTED, [[2, 37, 5]], "")),
     "9901a9636f6d6d6974746564c4020001c401020103a9636f6d6d69747465649193022505a0"),
]  # fmt: skip


@pytest.mark.parametrize(("packed", "golden"), GOLDEN)
def test_messages_are_packed_to_these_bytes(packed: bytes, golden: str) -> None:
    assert packed.hex() == golden.replace(" ", "")


def test_a_call_comes_back_as_it_was_made() -> None:
    requests = [Request(1, "a", 5, PING, 3, 2), (None, None, 0, PING)]
    kind, fields = messages.read(messages.call(ME, requests))
    assert (kind, messages.read_call(fields)) == ("call", (ME, [list(request) for request in requests]))
    assert all(map(messages.is_request, fields[1]))
    assert messages.read_body(PING) == ("ping", [])


def test_replies_come_back_as_they_were_made() -> None:
    replies = [[1, messages.OK, b"\xc0"], [None, messages.ERROR, b"x"], [2, messages.MOVED, b""]]
    assert [list(reply) for reply in messages.read_replies(messages.read(messages.reply(replies))[1])] == replies


def test_writes_words_and_forwards_come_back_as_they_were_made() -> None:
    batch = batch_of(ME, b"\x02", 4, [(37, 1, [b"k", b"v", b"g", None])])
    read = messages.read_writes(messages.read(messages.writes(batch))[1])
    assert read == batch
    word = Committed(ME, b"\x02", 1, 3, COMMITTED, [[2, 37, 5]], "")
    assert messages.read_committed(messages.read(messages.committed(word))[1]) == word
    groups = [(ME, [(7, "a", 5, PING, 3, 2, 9)])]
    assert messages.read_forward(messages.read(messages.forward(groups))[1]) == groups


@pytest.mark.parametrize("kind", BY_CODE.values())
@pytest.mark.parametrize("outcome", [NOT_APPLIED, UNKNOWN])
def test_errors_come_back_as_they_were_made(kind: type[TodoMQError], outcome: str) -> None:
    read = messages.read_error(messages.error_value(kind("what was wrong", outcome=outcome)))
    assert type(read) is kind
    assert (read.text, read.retryable, read.outcome) == ("what was wrong", kind.retryable_by_default, outcome)


@pytest.mark.parametrize(
    "value",
    [b"", b"\x05", b"\xa4abcd", pack({1: 1, 2: 2, 3: 3, 4: 4}), pack([]), pack(["code", "text", True]),
     pack(["code", "text", 1, "unknown"]), pack([None, "text", True, "unknown"]), pack([b"code", "text", True, "x"]),
     b"\x94" + b"\x91" * 900 + b"\xc0" + b"\xa1x\xc3\xa1x", b"\x91" * 1_000_000],
)  # fmt: skip
def test_an_error_that_cannot_be_read_is_an_error_of_unknown_outcome(value: bytes) -> None:
    error = messages.read_error(value)
    assert type(error) is ProtocolError
    assert error.outcome == UNKNOWN


def test_an_outcome_that_nobody_knows_counts_as_unknown() -> None:
    assert messages.read_error(pack(["unavailable", "text", True, "perhaps"])).outcome == UNKNOWN


NESTED = b"\x91" * 900 + b"\xc0"

NO_MESSAGES: dict[str, bytes] = {
    "nothing": b"",
    "no array": pack({"version": 1}),
    "too short": pack([1, "call"]),
    "no kind": pack([1, 2, 3]),
    "another version": pack([2, "call", ME, []]),
    "a version that is a text": pack(["1", "call", ME, []]),
    "a version that is true": pack([True, "call", ME, []]),
    "a version that is 1.0": pack([1.0, "call", ME, []]),
    "a version that is nested deeper than Python prints": b"\x94" + NESTED + b"\xa4call\xc4\x00\x90",
    "trailing bytes": messages.call(ME, [[1, None, 0, PING]]) + b"\0",
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        messages.read(data)


def test_what_is_too_short_for_a_message_hears_so() -> None:
    with pytest.raises(ProtocolError, match="at least three items"):
        messages.read(NO_MESSAGES["too short"])


HUGE = 1 << 63
REQUEST = [1, "a", 5, PING, 3, 2]
NO_WRITES = [[], b"", [], []]
MALFORMED: dict[Callable[[list[Any]], Any], list[list[Any]]] = {
    messages.read_call: [
        [], [ME], [ME, [REQUEST], 3], ["me", [REQUEST]], [bytes(65), [REQUEST]], [ME, REQUEST[0]], [ME, {}], [ME, []],
        [ME, [REQUEST] * (limits.MESSAGE_REQUESTS + 1)],
    ],
    messages.read_replies: [
        [], [1], [[], []], [[1]], [[[1, 0]]], [[[1, 0, b"", 4]]], [[[1, "0", b""]]], [[[1, 0, "text"]]],
        [[[1, True, b""]]], [[[1, 3, b""]]], [[[1, -1, b""]]], [[[1, HUGE, b""]]],
        [[[[1], 0, b""]]], [[[{}, 0, b""]]], [[["1", 0, b""]]], [[[1.5, 0, b""]]], [[[-1, 0, b""]]], [[[HUGE, 0, b""]]],
    ],
    messages.read_writes: [
        [], [ME, ME, 1], [ME, ME, 1, *NO_WRITES, 5], ["me", ME, 1, *NO_WRITES], [ME, None, 1, *NO_WRITES],
        [ME, ME, -1, *NO_WRITES], [ME, ME, HUGE, *NO_WRITES], [ME, ME, True, *NO_WRITES],
        [bytes(65), ME, 1, *NO_WRITES], [ME, bytes(65), 1, *NO_WRITES],
        [ME, ME, 1, {}, b"", [], []], [ME, ME, 1, [1], b"", [], []], [ME, ME, 1, [[1]], b"", [], []],
        [ME, ME, 1, [[256, 1]], b"", [], []], [ME, ME, 1, [[-1, 1]], b"", [], []], [ME, ME, 1, [[[], 1]], b"", [], []],
        [ME, ME, 1, [[1, -1]], b"", [], []], [ME, ME, 1, [[1, HUGE]], b"", [], []],
        [ME, ME, 1, [[1, True]], b"", [], []],
        [ME, ME, 1, [[1, 1]], [1], [b"k"], [b"v"]], [ME, ME, 1, [[1, 1]], b"\1", b"k", [b"v"]],
        [ME, ME, 1, [[1, 1]], b"\1", [b"k"], {}], [ME, ME, 1, [[1, 1]], b"\1", ["k"], [b"v"]],
        [ME, ME, 1, [[1, 1]], b"\1", [b"k"], ["v"]], [ME, ME, 1, [[1, 1]], b"\1", [None], [b"v"]],
        [ME, ME, 1, [[1, 1]], b"", [b"k"], [b"v"]], [ME, ME, 1, [[1, 1]], b"\1", [], [b"v"]],
        [ME, ME, 1, [[1, 1]], b"\1", [b"k"], []], [ME, ME, 1, [[1, 1]], b"\2", [b"k"], [b"v"]],
        [ME, ME, 1, [], b"\1", [b"k"], [b"v"]],
    ],
    messages.read_committed: [
        [], [ME, ME, 1, 3, COMMITTED, []], [ME, ME, 1, 3, "perhaps", [], ""], [ME, ME, 1, 3, [], [], ""],
        ["me", ME, 1, 3, COMMITTED, [], ""], [b"", ME, 1, 3, COMMITTED, [], ""], [ME, b"", 1, 3, COMMITTED, [], ""],
        [ME, bytes(65), 1, 3, COMMITTED, [], ""],
        [ME, ME, -1, 3, COMMITTED, [], ""], [ME, ME, 1, HUGE, COMMITTED, [], ""], [ME, ME, 1, 3, COMMITTED, {}, ""],
        [ME, ME, 1, 3, COMMITTED, [], b""], [ME, ME, 1, 3, COMMITTED, [[1, 2]], ""],
        [ME, ME, 1, 3, COMMITTED, [[1, 256, 5]], ""], [ME, ME, 1, 3, COMMITTED, [[1, -1, 5]], ""],
        [ME, ME, 1, 3, COMMITTED, [[1, 2, HUGE]], ""], [ME, ME, 1, 3, COMMITTED, [[1, True, 5]], ""],
        [ME, ME, 1, 3, COMMITTED, [{1: 2}], ""],
    ],
    messages.read_forward: [
        [], [1], [[], []], [[1]], [[[ME]]], [[["me", []]]], [[[bytes(65), []]]], [[[ME, {}]]], [[[ME, [REQUEST]]]],
        [[[ME, [[*REQUEST, "9"]]]]], [[[ME, [[*REQUEST, -1]]]]], [[[ME, [[*REQUEST, HUGE]]]]],
        [[[ME, [[*REQUEST, True]]]]], [[[ME, [["1", *REQUEST[1:], 9]]]]], [[[ME, [[1, "a", 5, "ping", 3, 2, 9]]]]],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("read", "fields"), [(read, fields) for read, cases in MALFORMED.items() for fields in cases])
def test_fields_of_another_shape_are_refused(read: Callable[[list[Any]], Any], fields: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        read(unpack(pack(fields)))


@pytest.mark.parametrize(("read", "fields"), [(read, fields) for read, cases in MALFORMED.items() for fields in cases])
def test_messages_of_another_shape_are_refused(read: Callable[[messages.Fields], Any], fields: list[Any]) -> None:
    kind = "reply" if read is messages.read_replies else read.__name__.removeprefix("read_")
    with pytest.raises(ProtocolError):
        read(messages.read(pack([messages.VERSION, kind, *fields]))[1])


@pytest.mark.parametrize(
    "message",
    [
        messages.call(ME, [Request(1, "a", 5, PING, 3, 2)]), messages.reply([(7, 0, b"\xc0"), (None, 1, b"x")]),
        messages.writes(batch_of(ME, ME, 4, [(37, 1, [b"k", b"v", b"g", None])])),
        messages.forward([[ME, [[7, "a", 5, PING, 3, 2, 9]]]]),
    ],
)  # fmt: skip
def test_a_message_says_the_same_in_whatever_form_its_first_bytes_are(message: bytes) -> None:
    longer = b"\xdc" + bytes((0, message[0] & 0x0F)) + message[1:]  # an array of 16 bits' length
    kind, fields = messages.read(message)
    read = messages.read_replies if kind == "reply" else getattr(messages, f"read_{kind}")
    assert messages.read(longer)[0] == kind
    assert pack(read(fields)) == pack(read(messages.read(longer)[1]))


@pytest.mark.parametrize(
    "request_",
    [None, 5, "x", {}, [], [1, None, 0], [1, None, 0, PING, 1], [*REQUEST, 7], ["1", *REQUEST[1:]], [-1, *REQUEST[1:]],
     [HUGE, *REQUEST[1:]], [True, *REQUEST[1:]], [1.0, *REQUEST[1:]], [1, "a", None, PING], [1, "a", -1, PING],
     [1, "a", HUGE, PING], [1, "a", 5, "ping"], [1, "a", 5, None], [1, "a", 5, PING, None, 2],
     [1, "a", 5, PING, 3, -1]],
)  # fmt: skip
def test_a_malformed_request_is_seen_and_still_has_its_id_if_that_is_one(request_: Any) -> None:
    assert not messages.is_request(request_)
    identifier = messages.request_id(request_)
    assert identifier is None or (identifier == request_[0] and type(identifier) is int)


@pytest.mark.parametrize(
    ("bad", "says"),
    [([1, None, 0], "a request is"), ([-1, *REQUEST[1:]], "id"), ([1.0, *REQUEST[1:]], "id"),
     ([1, "a", -1, PING], "deadline_ms"), ([1, "a", 1.5, PING], "deadline_ms"), ([1, "a", 5, "ping"], "body"),
     ([1, "a", 5, PING, True, 2], "number"),
     ([1, "a", 5, PING, 3, HUGE], "floor"), ([1, "a", -1, PING, -1, -1], "deadline_ms")],
)  # fmt: skip
def test_of_a_malformed_request_the_first_wrong_field_is_named(bad: Any, says: str) -> None:
    assert messages.why_no_request(bad).startswith(says)


@pytest.mark.parametrize(
    "body", [b"", b"\xc0", b"\x90", pack([1]), pack([b"ping"]), pack("ping"), pack({"ping": 1}), b"\x91" * 10_000,
             b"\x91\xa4ping" + b"\0" * (1 << 20)],
)  # fmt: skip
def test_a_body_that_names_no_operation_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        messages.read_body(body)


READERS: list[Callable[[messages.Fields], Any]] = [
    messages.read_call, messages.read_replies, messages.read_writes, messages.read_committed, messages.read_forward,
]  # fmt: skip
WHOLE = [bytes.fromhex(golden.replace(" ", "")) for _, golden in GOLDEN]


def read_everything(data: bytes) -> None:
    """Give the bytes to every decoder; anything but its own errors comes out of here."""
    messages.read_error(data)
    for record in (
        lambda: records.read_list("a", data),
        lambda: records.read_run("a", 1, data),
        lambda: records.read_session("a", ME, data),
        lambda: records.read_entry_key("a", data),
        lambda: records.read_session_key("a", data),
        lambda: records.read_remains_key(data),
        lambda: records.name_of(data),
    ):
        try:
            record()
        except CorruptRecord:
            continue
    with suppress(ProtocolError):
        messages.read_body(data)
    with suppress(ProtocolError, InvalidRequest):
        canonical(unpack(data))
    try:
        _, fields = messages.read(data)
    except ProtocolError:
        return
    for read in READERS:
        try:
            read(fields)
        except ProtocolError:
            continue
    for field in fields:
        for item in field if isinstance(field, list) else [field]:
            messages.is_request(item)
            messages.request_id(item)


@settings(QUIET, max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else_in_any_decoder(data: bytes) -> None:
    read_everything(data)


@settings(QUIET, max_examples=600)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_messages_raise_nothing_else_in_any_decoder(data: bytes, changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(data)
    for place, byte in changes:
        mutated[place % len(mutated)] = byte
    read_everything(bytes(mutated))


@pytest.mark.parametrize("data", WHOLE)
def test_truncated_messages_raise_nothing_else_in_any_decoder(data: bytes) -> None:
    for length in range(len(data)):
        read_everything(data[:length])


field = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=4)
    | st.binary(max_size=4) | st.sampled_from(["call", "reply", "writes", "committed", "forward", COMMITTED]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)  # fmt: skip


@settings(QUIET, max_examples=250)
@given(st.sampled_from(["call", "reply", "writes", "committed", "forward"]), st.lists(field, max_size=8))
def test_messages_of_random_fields_raise_nothing_else_in_any_decoder(kind: str, fields: list[Any]) -> None:
    read_everything(pack([1, kind, *fields]))


@pytest.mark.parametrize(
    "address",
    ["ipc:///run/todomq/router", "ipc:///a b/\u00e9", "tcp://127.0.0.1:5000", "tcp://[::1]:80", "tcp://host.example:65535"],
)
def test_addresses_are_known(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "nowhere", "ipc://", "ipc://relative", "ipc:///" + "x" * 107, "ipc:///" + "\u00e9" * 54, "ipc:///a\0b", "tcp://-:80",
     "tcp://host", "tcp://host:0", "tcp://host:65536", "tcp://*:80", "inproc://x", "udp://a:5", "tcp://a:80\n"],
)  # fmt: skip
def test_what_is_no_address_is_known(address: str) -> None:
    assert not is_address(address)


def test_what_holds_for_the_last_time_only_is_unknown_to_who_cannot_send_again() -> None:
    value = messages.not_this_time(messages.error_value(errors.Overloaded("full")))
    error, is_sent_before = messages.read_refusal(value)
    assert (type(error), error.retryable, error.outcome, is_sent_before) == (errors.Overloaded, True, "unknown", True)
    said = messages.error_value(errors.EntryNotFound("the list has no entry 9"))
    assert messages.not_this_time(said) == said
    unknown = messages.error_value(errors.Unavailable("gone", outcome=errors.UNKNOWN))
    assert messages.not_this_time(unknown) == unknown
    assert messages.read_refusal(said)[1] is messages.read_refusal(unknown)[1] is False
