"""The language of patterns and the rights that operations need."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todomq.errors import InvalidRequest, ProtocolError
from todomq.keys.rights import (
    ADMIN,
    NEEDED,
    READ,
    WRITE,
    Rights,
    begins_with_text,
    check_patterns,
    needed,
    operation_of,
)
from todomq.list_server.operations import CHANGES, PAGED, READS
from todomq.protocol.codec import pack
from todomq.protocol.messages import read_body

NAMES = st.text(st.sampled_from("ab/*é\u0301\U0001f600"), max_size=6)


def test_a_pattern_is_a_name_or_a_beginning() -> None:
    rights = Rights([READ], ["alice/*", "groceries"])
    covered = ["alice/", "alice/a", "alice/*", "alice/a/b", "groceries"]
    other = ["alice", "Alice/a", "alice\\a", "groceries ", "groceries2", "", "bob/alice/a", "*"]
    assert all(rights.covers(name.encode()) for name in covered)
    assert not any(rights.covers(name.encode()) for name in other)


def test_nothing_is_normalised() -> None:
    rights = Rights([READ], ["caf\u00e9/*"])
    assert rights.covers("caf\u00e9/a".encode()) and not rights.covers("cafe\u0301/a".encode())


@given(st.lists(NAMES.filter(bool), max_size=4), NAMES)
def test_covering_is_what_it_is_said_to_be(patterns: list[str], name: str) -> None:
    patterns = [pattern.replace("*", "") + ("*" if pattern.endswith("*") else "") for pattern in patterns]
    said = any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in patterns)
    assert Rights([READ], patterns).covers(name.encode()) == said


@pytest.mark.parametrize("pattern", ["a*b", "**", "*a", "", "x" * 256, "\ud800"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest):
        check_patterns([pattern])


def test_no_key_has_patterns_without_end() -> None:
    with pytest.raises(InvalidRequest):
        check_patterns(["a"] * 65)


def test_every_operation_of_a_list_needs_a_right() -> None:
    for operation in [*CHANGES, *READS, *PAGED]:
        wanted = (READ,) if operation in READS or operation in PAGED else (WRITE,)
        assert needed(pack([operation])) == ((READ, WRITE) if operation == "update_entry" else wanted)
    assert needed(pack(["fly"])) == needed(b"") == needed(b"\xc0") == needed(pack(["within"])) == (READ, WRITE)


@given(st.one_of(st.binary(max_size=20), st.lists(st.text(max_size=3), max_size=3).map(msgpack.packb)))
def test_an_operation_that_is_recognised_is_the_one_that_the_list_will_read(body: bytes) -> None:
    seen = operation_of(body)
    try:
        operation, _ = read_body(body)
    except ProtocolError:
        return
    assert seen in (b"", operation.encode())
    assert begins_with_text(body)


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91", pack([]), pack([1]), pack([b"x"]), pack("x"), b"\xdc\x00\x00"]
)
def test_what_names_no_operation_is_known_by_its_first_bytes(body: bytes) -> None:
    assert not begins_with_text(body)


@given(
    st.sampled_from(["entries", "add_entry", "clear", "update_entry"]), st.lists(st.integers(0, 1 << 32), max_size=3)
)
def test_what_clients_send_is_recognised(operation: str, arguments: list[Any]) -> None:
    assert operation_of(pack([operation, *arguments])) == operation.encode()


def test_an_admin_may_do_everything() -> None:
    rights = Rights([ADMIN], [])
    assert rights.allow(b"anything", pack(["clear"])) and rights.has(READ)


def test_every_operation_on_lists_has_the_rights_that_it_needs() -> None:
    assert {name.decode() for name in NEEDED} == {*CHANGES, *READS, *PAGED}
