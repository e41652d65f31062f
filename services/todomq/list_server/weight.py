"""What a loaded list takes in memory, about: what the memory budget of a list server counts with (law 6).

Owns: these estimates. Must not know: the budget and who is over it (``housekeeping.py``).
It is asked of every list now and then, of which most are small and cold, so it looks at a few entries only.
"""

from __future__ import annotations

from itertools import islice
from sys import getsizeof
from typing import TYPE_CHECKING

from todomq.list_server.records import stored_bytes
from todomq.list_server.todo_list import Entry, TodoList

if TYPE_CHECKING:
    from todomq.list_server.actor import ListActor

LIST_BYTES = 900
"""A list that is empty, and known to nobody."""
ENTRY_IN_MEMORY_BYTES = 130
SESSION_BYTES = 320
"""One client's session, without what it was answered."""
PAGE_OVERHEAD_BYTES = 120
"""The last question and its page, without their bytes. Those that came since the last round are not counted: they are
bounded by ``actor.LAST_PAGE_BYTES`` for each list.
"""
EXTRA_TIMES = 8
"""An entry's open fields take so many times what they take packed."""
SAMPLE = 4
"""Of a longer list so many entries are looked at from either end."""


def weight(loaded: ListActor) -> int:
    """Return about how many bytes of memory a loaded list takes."""
    assert loaded.todo is not None
    sessions = sum([SESSION_BYTES + session.answer_bytes for session in loaded.sessions.values()])
    page = 0 if loaded.last_page is None else PAGE_OVERHEAD_BYTES + sum(map(len, loaded.last_page))
    return LIST_BYTES + sessions + page + _entries_weight(loaded.todo)


def _entries_weight(todo: TodoList) -> int:
    entries = todo.entries.values()
    if len(entries) <= 2 * SAMPLE:
        return sum(map(_entry_weight, entries))
    looked_at = [*islice(entries, SAMPLE), *islice(reversed(entries), SAMPLE)]
    return len(entries) * sum(map(_entry_weight, looked_at)) // len(looked_at)


def _entry_weight(entry: Entry) -> int:
    extra = EXTRA_TIMES * stored_bytes(entry) if entry.extra else 0
    return ENTRY_IN_MEMORY_BYTES + getsizeof(entry.title) + extra
