"""The load of a list from its records, page by page; unreadable is not empty (law 8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbench import Bench, Client, Disk

from todomq.errors import CorruptRecord
from todomq.list_server import records
from todomq.list_server.loading import Loading
from todomq.list_server.records import ListRecord
from todomq.list_server.todo_list import Entry

PREFIX = records.prefix("a")
NOW_MS = 1_800_000_000_000


def stored(generation: int = 0, entries: range = range(0), sessions: int = 0, swept: int = 0) -> Disk:
    """Return a disk with the list "a"."""
    disk = Disk()
    record = ListRecord(generation, 1, False, swept)
    disk.records[records.list_key("a")] = records.pack_list(record)
    for identifier in entries:
        entry = Entry(identifier, f"entry {identifier}")
        disk.records[records.entry_key(PREFIX, generation, identifier)] = records.pack_entry(entry)
    for client in range(sessions):
        session = records.pack_session(client + 2, NOW_MS, [(client + 1, 0, b"\x01")])
        disk.records[records.session_key(PREFIX, b"client %d" % client)] = session
    return disk


def load(disk: Disk, page: int) -> Loading:
    loading = Loading("a", NOW_MS)
    asked = loading.first_page()
    while True:
        value = None if asked.key is None else disk.records.get(asked.key)
        following = loading.take(value, *disk.page(asked.prefix, asked.after, page))
        if following is None:
            return loading
        asked = following


@given(st.integers(0, 12), st.integers(0, 3), st.integers(0, 9), st.integers(1, 5))
def test_a_list_is_loaded_whole_whatever_the_size_of_a_page(
    entries: int, sessions: int, older: int, page: int
) -> None:
    disk = stored(2, range(1, entries + 1), sessions)
    for identifier in range(1, older + 1):
        disk.records[records.entry_key(PREFIX, identifier % 2, identifier)] = b"of an older generation, never looked at"
    loading = load(disk, page)
    todo = loading.todo_list()
    assert list(todo.entries) == list(range(1, entries + 1))
    assert todo.generation == 2
    assert {client: session.next for client, session in loading.sessions.items()} == {
        b"client %d" % client: client + 2 for client in range(sessions)
    }


def test_a_list_that_is_not_stored_is_empty() -> None:
    loading = load(Disk(), 3)
    assert loading.record is None
    assert len(loading.todo_list()) == 0


def test_a_list_whose_name_begins_with_anothers_is_not_mixed_with_it() -> None:
    disk = stored(entries=range(1, 4))
    other = records.prefix("ab")
    disk.records[records.list_key("ab")] = records.pack_list(ListRecord())
    disk.records[records.entry_key(other, 0, 9)] = records.pack_entry(Entry(9, "of ab"))
    assert list(load(disk, 3).todo_list().entries) == [1, 2, 3]


def test_entries_without_a_list_record_are_an_error() -> None:
    disk = stored(entries=range(1, 2))
    del disk.records[records.list_key("a")]
    with pytest.raises(CorruptRecord, match="no list record"):
        load(disk, 3)


def test_entries_newer_than_their_list_record_are_an_error() -> None:
    disk = stored(1, range(1, 2))
    disk.records[records.list_key("a")] = records.pack_list(ListRecord())
    with pytest.raises(CorruptRecord):
        load(disk, 3)


def damaged(kind: str) -> Disk:
    disk = stored(entries=range(1, 4), sessions=1)
    key = {
        "list record": records.list_key("a"),
        "entry": records.entry_key(PREFIX, 0, 2),
        "session": records.session_key(PREFIX, b"client 0"),
    }[kind]
    disk.records[key] = b"\xc1" + disk.records[key]
    return disk


DAMAGED = ["list record", "entry", "session"]


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_record_is_an_error_that_names_the_list(kind: str) -> None:
    with pytest.raises(CorruptRecord, match="'a'"):
        load(damaged(kind), 2)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_list_that_cannot_be_read_is_quarantined_and_the_others_go_on(kind: str) -> None:
    bench, client = Bench(damaged(kind)), Client()
    before = dict(bench.disk.records)
    waiting = [bench.send("a", "add_entry", "milk"), bench.send("a", "size")]
    bench.settle()
    assert all(isinstance(bench.error(identifier), CorruptRecord) for identifier in waiting)
    with pytest.raises(CorruptRecord):
        client.change(bench, "a", "clear")
    assert bench.disk.records == before
    assert bench.actor("a").state == "quarantined"
    assert client.change(bench, "b", "add_entry", "milk") == 1


def test_killing_a_quarantined_list_tries_to_load_it_again() -> None:
    disk = damaged("entry")
    bench, client = Bench(disk), Client()
    with pytest.raises(CorruptRecord):
        client.read(bench, "a", "size")
    bench.hosting.kill(bench.actor("a"))
    with pytest.raises(CorruptRecord):
        client.read(bench, "a", "size")
    disk.records[records.entry_key(PREFIX, 0, 2)] = records.pack_entry(Entry(2, "mended"))
    bench.hosting.kill(bench.actor("a"))
    assert client.read(bench, "a", "size") == 3


def test_a_worker_that_cannot_read_the_record_quarantines_the_list() -> None:
    bench = Bench()
    waiting = bench.send("a", "size")
    bench.turn()
    assert not bench.hosting.read_failed(bench.reads.popleft(), CorruptRecord("block checksum mismatch"))
    bench.turn()
    assert isinstance(bench.error(waiting), CorruptRecord)
