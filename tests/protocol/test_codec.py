"""The decoder's bounds: whatever bytes come, a value within the limits comes out, or a ``ProtocolError``."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from todomq.errors import InvalidRequest, ProtocolError
from todomq.protocol import limits
from todomq.protocol.codec import canonical, pack, unpack, unpack_value

MIB = 1 << 20
QUIET = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
"""The same examples every time, however busy the machine."""


def array(count: int, items: bytes) -> bytes:
    """Return an array whose header promises ``count`` items."""
    return b"\xdd" + count.to_bytes(4, "big") + items


UNREADABLE = {
    "nothing": b"",
    "a truncated array": b"\x93\x01\x02",
    "a truncated text": b"\xa5abc",
    "a truncated integer": b"\xcf\x00\x01",
    "trailing bytes": b"\x01\x02",
    "a byte that is not used": b"\xc1",
    "text that is not UTF-8": b"\xa2\xff\xfe",
    "a surrogate in UTF-8": b"\xa3\xed\xa0\x80",
    "an overlong form of UTF-8": b"\xa2\xc0\x80",
    "an extension": b"\xd4\x05a",
    "an empty extension": b"\xc7\x00\x05",
    "a timestamp of 32 bits": b"\xd6\xff\x00\x00\x00\x01",
    "a timestamp of 64 bits": b"\xd7\xff" + bytes(8),
    "a timestamp of 96 bits": b"\xc7\x0c\xff" + bytes(12),
    "a timestamp of no bits": b"\xc7\x00\xff",
    "a timestamp inside a map": b"\x81\xa1t\xd6\xff\x00\x00\x00\x01",
    "a map whose key is an array": b"\x81\x90\x01",
    "a map whose key is a map": b"\x81\x80\x01",
    "an array that promises 4 thousand million items": b"\xdd\xff\xff\xff\xff",
    "a map that promises 4 thousand million pairs": b"\xdf\xff\xff\xff\xff",
    "a text that promises 4 GiB": b"\xdb\xff\xff\xff\xff",
    "bytes that promise 4 GiB": b"\xc6\xff\xff\xff\xff",
    "an extension that promises 4 GiB": b"\xc9\xff\xff\xff\xff\x05",
    "one item too many": array(limits.DECODED_ITEMS + 1, bytes(limits.DECODED_ITEMS + 1)),
    "a text one byte too long": b"\xdb" + (MIB + 1).to_bytes(4, "big") + b"x" * (MIB + 1),
    "bytes one byte too long": b"\xc6" + (MIB + 1).to_bytes(4, "big") + b"x" * (MIB + 1),
    "a million nested arrays": b"\x91" * 1_000_000,
    "a million nested arrays that end": b"\x91" * 1_000_000 + b"\xc0",
    "a million nested maps": b"\x81\x01" * 1_000_000,
    "a frame over the transport's limit": array(5, (b"\xc6" + MIB.to_bytes(4, "big") + bytes(MIB)) * 5),
    "empty maps without end": array(30, array(131_000, b"\x80" * 131_000) * 30),
    "empty arrays without end": array(30, array(131_000, b"\x90" * 131_000) * 30),
    "small maps without end": array(7, array(131_000, b"\x81\x01\x01" * 131_000) * 7),
}


@pytest.mark.parametrize("decode", [unpack, unpack_value])
@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_out_of_bounds_is_a_protocol_error(data: bytes, decode: Callable[[bytes], Any]) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("a truncated text", "it ends too early"),
        ("trailing bytes", "more bytes follow the value"),
        ("a byte that is not used", "a byte that means nothing"),
        ("text that is not UTF-8", "a text that is not UTF-8"),
        ("an extension", "an extension type"),
        ("a map whose key is an array", "a map's key is an array or a map"),
        ("an array that promises 4 thousand million items", "an array of 4294967295, where 5 fit"),
        ("bytes one byte too long", f"binary of {MIB + 1}, where {MIB} fit"),
        ("a million nested arrays", "it is nested too deep"),
    ],
)
def test_what_is_wrong_is_said_without_words_of_one_language(what: str, words: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        unpack(UNREADABLE[what])
    assert refused.value.text == f"not readable msgpack: {words}"


def test_the_limits_themselves_are_within_bounds() -> None:
    assert len(unpack(array(limits.DECODED_ITEMS, bytes(limits.DECODED_ITEMS)))) == limits.DECODED_ITEMS
    assert len(unpack(pack("x" * limits.REQUEST_BYTES))) == limits.REQUEST_BYTES
    maps = unpack(array(limits.DECODED_ITEMS - 1, b"\x80" * (limits.DECODED_ITEMS - 1)))
    assert len(maps) == limits.DECODED_ITEMS - 1


def test_long_text_whose_bytes_look_like_arrays_is_read() -> None:
    text = "\u4e00\u0400" * 150_000
    assert unpack(pack([text, [text]])) == [text, [text]]


def test_the_worst_frame_costs_a_bounded_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("empty maps without end", "empty arrays without end", "small maps without end"):
        with pytest.raises(ProtocolError):
            unpack(UNREADABLE[name])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 96 * MIB


def test_deep_nesting_within_the_decoder_is_no_danger_behind_it() -> None:
    deep = unpack(b"\x91" * 900 + b"\xc0")
    with pytest.raises(InvalidRequest, match="nested deeper"):
        canonical(deep)


@settings(QUIET, max_examples=400)
@given(st.binary(max_size=200))
def test_random_bytes_give_a_value_or_a_protocol_error(data: bytes) -> None:
    try:
        value = unpack(data)
    except ProtocolError:
        return
    assert unpack(pack(value)) == value or "nan" in repr(value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False)
    | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4) | st.integers(-9, 9) | st.binary(max_size=4) | st.none(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def depth(value: Any) -> int:
    """Return how deep a value is nested."""
    if isinstance(value, dict):
        return 1 + max((depth(inner) for inner in value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def reordered(value: Any) -> Any:
    """Return an equal value whose maps hold their pairs the other way round."""
    if isinstance(value, dict):
        return {key: reordered(inner) for key, inner in reversed(value.items())}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


@settings(QUIET, max_examples=200)
@given(plain.filter(lambda value: depth(value) <= limits.EXTRA_NESTING))
def test_the_canonical_form_is_one_and_reads_back(value: Any) -> None:
    packed = canonical(value, 1 << 20)
    assert packed == canonical(reordered(value), 1 << 20)
    assert unpack(packed) == value
    assert repr(unpack_value(packed)) == repr(unpack(packed))
    assert canonical(unpack(packed), 1 << 20) == packed


def test_maps_with_keys_of_mixed_types_are_sorted_by_packed_key() -> None:
    mixed = {"b": 1, 2: 2, b"a": 3, None: 4, 1.5: 5, -1: 6, "a": 7, 200: 8}
    packed = canonical(mixed)
    keys = [pack(key) for key in unpack(packed)]
    assert keys == sorted(keys)
    assert packed == canonical(dict(reversed(mixed.items())))


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (1, "01"), (127, "7f"), (128, "cc80"), (-32, "e0"), (-33, "d0df"), (1 << 32, "cf0000000100000000"),
        (1.0, "cb3ff0000000000000"), (True, "c3"), (None, "c0"), ("", "a0"), (b"", "c400"), ((1, "a"), "9201a161"),
        ({"b": 1, "a": {2: 3, 1: 4}}, "82a16182010402 03a16201".replace(" ", "")), (float("inf"), "cb7ff0000000000000"),
    ],
)  # fmt: skip
def test_canonical_bytes_are_these(value: Any, packed: str) -> None:
    assert canonical(value).hex() == packed


@pytest.mark.parametrize(
    "value",
    [1 << 64, -(1 << 63) - 1, "\ud800", object(), msgpack.Timestamp(1), msgpack.ExtType(5, b""), {1, 2}, "x" * 1_024,
     {"key": [1 << 64]}, {(1 << 64): 1}],
)  # fmt: skip
def test_what_no_message_can_hold_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        canonical(value)
