"""Where a page of a long answer ends."""

from __future__ import annotations

import random

import pytest

from todomq.list_server import pages
from todomq.list_server.pages import ENTRY_OVERHEAD_BYTES, EXTRA_IN_PAGE_TIMES, FIT_ALWAYS, end_of_page
from todomq.list_server.records import stored_bytes
from todomq.list_server.todo_list import Entry
from todomq.protocol import limits

TITLES = ("milk", "x" * 300, "", "é", "買い物" * 20, "y" * 4_000)


def bytes_of(entry: Entry) -> int:
    title = len(entry.title) * (1 if entry.title.isascii() else 4)
    return ENTRY_OVERHEAD_BYTES + title + (EXTRA_IN_PAGE_TIMES * stored_bytes(entry) if entry.extra else 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_page_ends_behind_the_entry_that_fills_it_or_the_last(seed: int) -> None:
    chance = random.Random(seed)
    titles = chance.sample(TITLES, 1 + seed % len(TITLES))
    few = chance.choice((0.0, 0.01, 0.5))
    entries = tuple(
        Entry(n, chance.choice(titles), extra={"note": "x" * 50} if chance.random() < few else {})
        for n in range(chance.choice((FIT_ALWAYS + 1, pages.LOOKED_AT_AT_ONCE, 3_000, 15_000)))
    )
    begins = start = 0
    while start < len(entries):
        end = end_of_page(entries, start)
        before = sum(map(bytes_of, entries[start : end - 1]))
        assert end == start + FIT_ALWAYS == len(entries) or before < limits.PAGE_BYTES
        assert end == len(entries) or before + bytes_of(entries[end - 1]) >= limits.PAGE_BYTES
        start = end
        begins += 1
    assert begins <= 1 + sum(map(bytes_of, entries)) // limits.PAGE_BYTES
