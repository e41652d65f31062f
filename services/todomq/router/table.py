"""What the cache says of the table, checked before any of it is believed (law 7).

Owns: the shape of the ``table`` request. Must not know: sockets, requests in flight. Used by ``service.py``.
"""

from __future__ import annotations

from typing import Any

from todomq.errors import InvalidRequest
from todomq.protocol import limits, messages
from todomq.protocol.addresses import is_address
from todomq.router.routing import Row


def read_table(arguments: list[Any]) -> tuple[dict[int, tuple[bytes, str]], list[tuple[int, Row]]]:
    """Read ``[[number, incarnation, address], ...], [[partition, number, epoch], ...]``.

    Returns:
        incarnation and address of each list server by its number, and the rows.

    Raises:
        InvalidRequest: anything else, or a row whose list server is not among them.
    """
    if len(arguments) != 2 or not all(type(part) is list for part in arguments):
        raise InvalidRequest("table takes an array of list servers and an array of rows")
    if not all(_is_server(server) for server in arguments[0]):
        raise InvalidRequest("table: a list server is [number, incarnation, address]")
    servers = {number: (incarnation, address) for number, incarnation, address in arguments[0]}
    if not all(_is_row(row) and row[1] in servers for row in arguments[1]):
        raise InvalidRequest("table: a row is [partition, number of a list server named before, epoch]")
    return servers, [(partition, Row(number, servers[number][0], epoch)) for partition, number, epoch in arguments[1]]


def _is_server(server: Any) -> bool:
    if type(server) is not list or [type(field) for field in server] != [int, bytes, str]:
        return False
    number, incarnation, address = server
    return bool(number >= 1 and len(incarnation) <= limits.SENDER_BYTES and is_address(address))


def _is_row(row: Any) -> bool:
    if type(row) is not list or len(row) != 3:
        return False
    partition, number, epoch = row
    return messages.is_partition(partition) and type(number) is int and messages.is_epoch(epoch)
