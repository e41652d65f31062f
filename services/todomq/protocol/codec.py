"""The bounded msgpack codec: the only door through which a peer's bytes become values.

Owns: packing, unpacking within bounds, canonical packing of names and keys.
Must not know: messages, sockets, what the values mean.

Law 7: no peer's bytes can raise past this decoder. Whatever is wrong with them is a ``ProtocolError``.
Format: https://github.com/msgpack/msgpack/blob/master/spec.md

Two libraries read and write it: msgspec packs three times as fast as msgpack, and unpacks plain values that fast;
msgpack has the bounds for everything else. Values whose type is known in advance are decoded elsewhere, under the same
bounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import msgpack
import msgspec

from todomq.errors import InvalidRequest, ProtocolError
from todomq.protocol import limits

pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
"""Pack a value of this process's own making, or one that ``check_plain`` has passed; from any thread."""

_NOT_CONTAINERS = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ProtocolError(f"msgpack extension type {code} is not used here")


def _counting() -> dict[str, Callable[[Any], Any]]:
    """Return hooks that refuse the container after the last one allowed, before the rest is built."""
    numbers = count(1)

    def counted(container: Any) -> Any:
        if next(numbers) > limits.DECODED_ITEMS:
            raise ProtocolError(f"more than {limits.DECODED_ITEMS} arrays and maps")
        return container

    return {"list_hook": counted, "object_hook": counted}


def unpack(data: bytes | memoryview, max_bytes: int = limits.TRANSPORT_BYTES) -> Any:
    """Unpack exactly one value within the service's bounds.

    Args:
        data: the packed value and nothing else.
        max_bytes: refuse longer input.

    Raises:
        ProtocolError: truncated, trailing bytes, too long, too many items, too deep, not UTF-8, an extension type.
    """
    size = len(data)
    if size > max_bytes:
        raise ProtocolError(f"{size} bytes where at most {max_bytes} are allowed")
    try:
        return _unpack_short(data) if size <= limits.DECODED_ITEMS else _unpack_long(data)
    except ProtocolError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        raise ProtocolError(f"not readable msgpack: {_why(error)}") from None


_OVER_LENGTH = re.compile(r"(\d+) exceeds max_(\w+)_len\((\d+)\)")
_OF_LENGTH = {"str": "a text of", "bin": "binary of", "array": "an array of", "map": "a map of"}


def _why(error: Exception) -> str:
    """Say what is wrong with bytes in words that do not depend on the library that read them."""
    over = _OVER_LENGTH.fullmatch(str(error))
    if over is not None:
        length, kind, most = over.groups()
        return f"{_OF_LENGTH[kind]} {length}, where {most} fit" if kind in _OF_LENGTH else "an extension type"
    if isinstance(error, UnicodeDecodeError):
        return "a text that is not UTF-8"
    if isinstance(error, TypeError):
        return "a map's key is an array or a map"
    if isinstance(error, msgpack.StackError | RecursionError):
        return "it is nested too deep"
    if isinstance(error, msgpack.ExtraData):
        return "more bytes follow the value"
    return "a byte that means nothing" if isinstance(error, msgpack.FormatError) else "it ends too early"


def has_few_items(data: bytes) -> bool:
    """Tell quickly that a value holds no more arrays and maps than allowed; False means that it is not certain."""
    return len(data) <= limits.DECODED_ITEMS or len(data.translate(None, _NOT_CONTAINERS)) <= limits.DECODED_ITEMS


def unpack_value(data: bytes, max_bytes: int = limits.TRANSPORT_BYTES) -> Any:
    """Unpack a body or an answer, as ``unpack`` does, but quickly if it holds no bytes, as most do not.

    Args:
        data: the packed value and nothing else.
        max_bytes: refuse longer input.

    Raises:
        ProtocolError: as ``unpack``.
    """
    if len(data) <= limits.DECODED_ITEMS:
        try:
            return _unpack_plain(data)
        except ValueError:
            pass  # it may be valid all the same: ``unpack`` knows
    return unpack(data, max_bytes)


Plain: Any = None | bool | int | float | str
for _ in range(5):
    Plain = None | bool | int | float | str | list[Plain] | dict[str, Plain]
"""A type that msgspec decodes quickly: no bytes, no extension, no keys but texts, not nested deep."""

_unpack_plain: Callable[[bytes], Any] = msgspec.msgpack.Decoder(Plain).decode
"""Unpacks plain values; ValueError for all others."""

# No length in a value can be over the length of the whole, so short input is within all other bounds anyway.
# The hook is not asked about timestamps (type -1), the length of 0 is.
_unpack_short = partial(msgpack.unpackb, strict_map_key=False, ext_hook=_refuse_extension, max_ext_len=0)


def _unpack_long(data: bytes | memoryview) -> Any:
    hooks = {}
    # An empty map takes one byte here and 64 in memory. Counting costs time, so it is done only if too many bytes could
    # begin an array or a map, including those that belong to texts and numbers.
    if not has_few_items(bytes(data)):
        hooks = _counting()
    return msgpack.unpackb(
        data,
        strict_map_key=False,
        ext_hook=_refuse_extension,
        max_ext_len=0,
        max_str_len=limits.REQUEST_BYTES,
        max_bin_len=limits.REQUEST_BYTES,
        max_array_len=limits.DECODED_ITEMS,
        max_map_len=limits.DECODED_ITEMS,
        **hooks,
    )


def check_plain(value: Any, nesting: int = limits.EXTRA_NESTING, what: str = "value") -> None:
    """Check that a free-form value is made of msgpack's plain types and nested at most ``nesting`` deep.

    Raises:
        InvalidRequest: an extension type, an integer over 64 bits, too deep, too many items, an array for a key.
    """
    kind = type(value)
    if kind is int:
        if not -(1 << 63) <= value < (1 << 64):
            raise InvalidRequest(f"{what}: an integer does not fit into 64 bits")
    elif kind is list or kind is tuple or kind is dict:
        if nesting == 0:
            raise InvalidRequest(f"{what}: nested deeper than {limits.EXTRA_NESTING}")
        if len(value) > limits.DECODED_ITEMS:
            raise InvalidRequest(f"{what}: {len(value)} items where at most {limits.DECODED_ITEMS} are allowed")
        if kind is dict:
            for key, inner in value.items():
                if type(key) is tuple:
                    raise InvalidRequest(f"{what}: a map's key is an array, which no reader could take for a key")
                check_plain(key, nesting - 1, what)
                check_plain(inner, nesting - 1, what)
        else:
            for inner in value:
                check_plain(inner, nesting - 1, what)
    elif kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"{what}: text that is not valid Unicode") from None
    elif value is not None and kind is not bool and kind is not float and kind is not bytes:
        raise InvalidRequest(f"{what}: {kind.__name__} is not a msgpack type")


def canonical(value: Any, max_bytes: int = limits.NAME_BYTES, what: str = "name") -> bytes:
    """Return the one packed form by which a name or a key is compared: maps sorted by packed key, shortest integers.

    Args:
        value: any msgpack value (a tuple counts as an array).
        max_bytes: longest packed form allowed.
        what: how the error names the value.

    Raises:
        InvalidRequest: not a msgpack value, nested too deep, or longer than ``max_bytes`` packed.
    """
    check_plain(value, what=what)
    packed = pack(_sorted_maps(value))
    if len(packed) > max_bytes:
        raise InvalidRequest(f"{what}: {len(packed)} bytes packed where at most {max_bytes} are allowed")
    return packed


def _sorted_maps(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = [(_sorted_maps(key), _sorted_maps(inner)) for key, inner in value.items()]
        return dict(sorted(pairs, key=lambda pair: pack(pair[0])))
    if isinstance(value, list | tuple):
        kind = tuple if isinstance(value, tuple) else list
        return kind(_sorted_maps(inner) for inner in value)
    return value
