"""Long answers page by page: where a page ends, and the cursor that asks for the next.

Owns: how much a page holds. Must not know: who asks, what is kept until the next page is asked for (``snapshots.py``).
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from todomq.errors import InvalidRequest
from todomq.list_server import records
from todomq.list_server.todo_list import Entry
from todomq.protocol import limits

FIT_ALWAYS = limits.DECODED_ITEMS // limits.ENTRY_BYTES
"""So many entries fit into a page in any case: an entry has ``ENTRY_BYTES`` arrays and maps at most, and whoever reads
a page takes ``DECODED_ITEMS`` of them."""
ENTRY_OVERHEAD_BYTES = 24
"""About what an entry has in a page besides its title and its open fields."""
FIT_NEVER = limits.PAGE_BYTES // ENTRY_OVERHEAD_BYTES
"""More entries than this do not fit into one."""

LOOKED_AT_AT_ONCE = 64
"""How many entries are tested at once for being plain, as most are."""
EXTRA_IN_PAGE_TIMES = 4
"""How many times their bytes an entry's open fields count towards a page. Each byte may be an empty array or map, of
which whoever reads a page takes ``DECODED_ITEMS`` at most: a quarter of ``PAGE_BYTES``, and the one entry that goes
over it, are no more than that.
"""


_extra = attrgetter("extra")


def end_of_page(entries: tuple[Entry, ...], start: int) -> int:
    """Return where the page ends that begins at ``start``: behind the entry that fills it, or the last."""
    if len(entries) - start <= FIT_ALWAYS:
        return len(entries)
    end, size = start, 0
    while end < len(entries) and size < limits.PAGE_BYTES:
        some = entries[end : end + LOOKED_AT_AT_ONCE]
        plain = _bytes_of_plain(some)
        if plain is not None and size + plain < limits.PAGE_BYTES:
            size += plain
            end += len(some)
            continue
        for entry in some:
            if size >= limits.PAGE_BYTES:
                break
            size += _bytes_of(entry)
            end += 1
    return end


def _bytes_of_plain(entries: tuple[Entry, ...]) -> int | None:
    """Return about what entries have in a page; None where one is not ASCII or has open fields."""
    titles = "".join([entry.title for entry in entries])
    if not titles.isascii() or any(map(_extra, entries)):
        return None
    return ENTRY_OVERHEAD_BYTES * len(entries) + len(titles)


def _bytes_of(entry: Entry) -> int:
    size = ENTRY_OVERHEAD_BYTES + len(entry.title) * (1 if entry.title.isascii() else 4)
    if entry.extra:
        size += EXTRA_IN_PAGE_TIMES * records.stored_bytes(entry)
    return size


def read_cursor(cursor: Any) -> tuple[int, int, int]:
    """Return the snapshot, the place in it and the epoch that a cursor names.

    Raises:
        InvalidRequest: it is none.
    """
    if type(cursor) is not list or [type(part) for part in cursor] != [int, int, int]:
        raise InvalidRequest("a cursor is what the page before answered")
    snapshot, start, epoch = cursor
    return snapshot, start, epoch
