"""The worker's own records, among the keys of its shard: epochs, marks, stored values, once-records, the probe's.

Owns: their keys and packed forms. Must not know: sockets, the clock, what other keys mean.

    p partition                     the epoch of the partition's owner (8 bytes)
    q sender                        its mark: the number of its last batch that wrote, and when (ms), 8 bytes each
    k canonical key                 a stored value, packed
    d length client number          once-record of a store: when it may be forgotten (ms, 8 bytes)
    h                               what the probe wrote last

Every other key belongs to the senders of batches, who may not write these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from todomq.database_worker.storage import Storage, Write
from todomq.errors import CorruptRecord
from todomq.protocol import limits
from todomq.protocol.partitions import PARTITIONS

RESERVED = frozenset({b"", b"p", b"q", b"k", b"d", b"h"})
"""First bytes that keys of batches may not have; a key must have one."""
PROBE_KEY = b"h"
_EPOCH = b"p"
_MARK = b"q"  # beside the epochs, which are needed as much
_STORED = b"k"
_ONCE = b"d"
_PLACE_BYTES = 9
"""Behind the letter: the length of a client id and its first bytes, by which once-records are far apart."""
_STEP_LEAST_BITS, _STEP_MOST_BITS = 32, 60


def epoch_key(partition: int) -> bytes:
    """Return the key of a partition's epoch."""
    return _EPOCH + bytes([partition])


def packed_number(number: int) -> bytes:
    """Return a number as these records hold it: 8 bytes, big end first."""
    return number.to_bytes(8, "big")


def mark_key(sender: bytes) -> bytes:
    """Return the key of a sender's mark."""
    return _MARK + sender


def packed_mark(number: int, now_ms: int) -> bytes:
    """Return a mark as it is stored."""
    return packed_number(number) + packed_number(now_ms)


def read_mark(value: bytes) -> tuple[int, int]:
    """Return the number of a batch, and when it was written in milliseconds.

    Raises:
        CorruptRecord: it has the wrong form.
    """
    if len(value) != 16:
        raise CorruptRecord(f"a mark of {len(value)} bytes where 16 are needed")
    return int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big")


def read_marks(storage: Storage) -> dict[bytes, tuple[int, int]]:
    """Return the marks by their senders.

    Raises:
        CorruptRecord, StorageFailed: as the storage does; a mark has the wrong form.
    """
    return {key[1:]: read_mark(value) for key, value in _all_of(storage, _MARK)}


def stored_key(canonical_key: bytes) -> bytes:
    """Return the key under which the value of a database key is stored."""
    return _STORED + canonical_key


def once_key(client: bytes, number: int) -> bytes:
    """Return the key of the record that a client's change with this number has taken effect."""
    return _ONCE + bytes([len(client)]) + client + packed_number(number)


def read_epochs(storage: Storage) -> dict[int, int]:
    """Return the stored epoch of every partition that was ever claimed.

    Raises:
        CorruptRecord, StorageFailed: as the storage does; an epoch record has the wrong form.
    """
    epochs: dict[int, int] = {}
    for key, value in _all_of(storage, _EPOCH):
        if len(key) != 2 or len(value) != 8 or key[1] >= PARTITIONS:
            raise CorruptRecord(f"the epoch record {key!r} has the wrong form")
        epochs[key[1]] = int.from_bytes(value, "big")
    return epochs


def _all_of(storage: Storage, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    after: bytes | None = None
    while True:
        page = storage.scan(prefix, after, limits.PAGE_BYTES)
        yield from zip(page.items[::2], page.items[1::2], strict=True)
        after = page.last
        if after is None:
            return


def expired_once_records(
    storage: Storage, after: bytes | None, now_ms: int, limit_bytes: int = limits.PAGE_BYTES
) -> tuple[Sequence[Write], bytes | None]:
    """Look through one page of once-records for those whose time is over.

    Args:
        storage: the shard.
        after: where the page before ended, None to begin.
        now_ms: the time.
        limit_bytes: size of the page.

    Returns:
        deletes of the expired ones, and where to go on, None at the end.
    """
    page = storage.scan(_ONCE, after, limit_bytes)
    pairs = zip(page.items[::2], page.items[1::2], strict=True)
    return [(key, None) for key, value in pairs if int.from_bytes(value, "big") < now_ms], page.last


def behind_unreadable(after: bytes | None, tries: int) -> bytes | None:
    """Return where the once-records are to be looked through again where a page of them can't be read.

    Args:
        after: where the page before ended, None to begin.
        tries: how many places in a row, before this one, could not be read from: the next one is twice as far behind,
            up to a sixteenth of the clients whose ids are as long.

    Returns:
        the place to go on, None at the end.
    """
    place = int.from_bytes((after or _ONCE)[1 : 1 + _PLACE_BYTES].ljust(_PLACE_BYTES, b"\0"), "big")
    place += 1 << min(_STEP_LEAST_BITS + tries, _STEP_MOST_BITS)
    return None if place >> 8 * _PLACE_BYTES else _ONCE + place.to_bytes(_PLACE_BYTES, "big")
