"""Where a name or a key belongs: stable hashing into partitions, partitions to database workers.

The hash is CRC-32 (zlib, ISO 3309) of the bytes, so that any language computes the same; never Python's ``hash()``.
"""

from __future__ import annotations

from zlib import crc32

PARTITIONS = 256


def partition_of(data: bytes) -> int:
    """Return the partition (0-255) of a list name in UTF-8 or of another key's canonical packed bytes."""
    return crc32(data) % PARTITIONS


def worker_of(partition: int, pool_size: int) -> int:
    """Return the number (from 1) of the database worker that keeps the partition, for good."""
    return partition % pool_size + 1
