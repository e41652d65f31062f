"""Batches of writes as tests say them: by partition, and not in columns as they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from todomq.protocol.messages import Writes

Row = tuple[int, int, Sequence[bytes | None]]
"""``(partition, epoch, [key, value, ...])``."""


def batch_of(sender: bytes, receiver: bytes, number: int, rows: Iterable[Row]) -> Writes:
    """Return the batch that writes these rows, right or wrong."""
    epochs: list[tuple[int, int]] = []
    partitions = bytearray()
    keys: list[Any] = []
    values: list[bytes | None] = []
    for partition, epoch, pairs in rows:
        epochs.append((partition, epoch))
        partitions += bytes([partition] * (len(pairs) // 2))
        keys += pairs[::2]
        values += pairs[1::2]
    return Writes(sender, receiver, number, epochs, bytes(partitions), keys, values)
