"""The sweep: what a clear left behind goes, the tombstone of a deleted list too, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbench import Bench, Client, Disk

from todomq.errors import CorruptRecord, Unavailable
from todomq.list_server import records
from todomq.list_server.sweeping import Sweeping
from todomq.protocol import limits

PREFIX = records.prefix("a")


def with_entries(count: int, page: int = 3, idle_ms: int = 600_000) -> tuple[Bench, Client]:
    bench, client = Bench(page=page, idle_ms=idle_ms), Client()
    client.change(bench, "a", "add_entries", [["milk"]] * count)
    return bench, client


def entry_keys(bench: Bench) -> list[bytes]:
    return sorted(key for key in bench.disk.records if key.startswith(PREFIX + b"e"))


def swept(bench: Bench) -> bool:
    return not bench.partition("a").to_sweep and not bench.reads and not bench.sent


def test_a_clear_writes_the_same_however_long_the_list() -> None:
    written = []
    for count in (1, 500):
        bench, _ = with_entries(count, page=1_000)
        bench.send("a", "clear", number=2, floor=2)
        bench.turn()
        written.append(len(bench.sent[0].keys))
    assert written[0] == written[1]


@pytest.mark.parametrize("page", [1, 3, 100])
def test_the_entries_of_older_generations_go_and_those_of_the_present_one_stay(page: int) -> None:
    bench, client = with_entries(10, page)
    client.change(bench, "a", "clear")
    client.change(bench, "a", "add_entry", "bread")
    bench.settle_with_ticks(lambda: swept(bench))
    assert entry_keys(bench) == [records.entry_key(PREFIX, 1, 1)]
    record = records.read_list("a", bench.disk.records[records.list_key("a")])
    assert record.swept_generation == record.generation == 1
    assert client.entries(Bench(bench.disk), "a") == [[1, "bread", None, False, {}]]


def test_what_a_clear_leaves_is_deleted_at_once_however_many_lists_there_are() -> None:
    """A list server that leaves before has to be asked for the list again, or it stays on disk for ever."""
    bench, client = with_entries(4, page=1_000)
    for number in range(200):
        bench.ask(str(number), "size")
    client.change(bench, "a", "delete")
    for _ in range(3):
        bench.tick(50)
        bench.settle()
    assert swept(bench) and entry_keys(bench) == []
    assert records.list_key("a") not in bench.disk.records


def test_a_list_cleared_twice_before_the_sweep_is_swept_of_both_generations() -> None:
    bench, client = with_entries(4)
    client.change(bench, "a", "clear")
    client.change(bench, "a", "add_entries", [["bread"]] * 4)
    client.change(bench, "a", "clear")
    bench.settle_with_ticks(lambda: swept(bench))
    assert entry_keys(bench) == []


def test_a_list_cleared_again_during_its_sweep_is_swept_again() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "clear")
    client.change(bench, "a", "add_entries", [["bread"]] * 5)
    bench.tick()
    assert isinstance(bench.reads[0].job, Sweeping)
    bench.send("a", "clear", number=client.next["a"], floor=client.next["a"])
    bench.settle_with_ticks(lambda: swept(bench))
    assert entry_keys(bench) == []


def test_a_list_deleted_during_its_sweep_can_be_loaded_at_every_moment_until_nothing_of_it_is_left() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "clear")
    client.change(bench, "a", "add_entries", [["bread"]] * 5)
    bench.tick()
    bench.send("a", "delete", number=4, floor=4)
    while not swept(bench):
        bench.turn()
        if bench.sent:
            bench.commit(1)
        elif bench.reads:
            bench.read()
        else:
            bench.tick()
        disk = Disk()
        disk.records = dict(bench.disk.records)
        assert Bench(disk, owned=[bench.partition("a").number]).ask("a", "size", client=b"other") in (0, 5)
    assert entry_keys(bench) == []
    assert records.list_key("a") not in bench.disk.records


def test_the_tombstone_of_a_deleted_list_goes_and_the_record_of_the_change_stays_with_a_note_of_it() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "delete")
    bench.settle_with_ticks(lambda: swept(bench))
    note = records.remains_key("a", bench.now_ms + limits.REMEMBERED_MS)
    assert set(bench.disk.records) == {records.session_key(PREFIX, b"client"), note}
    assert bench.ask("a", "delete", number=2, floor=2) is None


def test_a_list_that_is_added_to_during_the_sweep_after_its_deletion_stays() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "delete")
    bench.tick()
    bench.send("a", "add_entry", "bread", number=3, floor=3)
    bench.settle_with_ticks(lambda: swept(bench))
    assert Client(b"reader").entries(Bench(bench.disk), "a") == [[1, "bread", None, False, {}]]
    assert entry_keys(bench) == [records.entry_key(PREFIX, 1, 1)]


def test_a_list_goes_on_after_its_tombstone_went() -> None:
    bench, client = with_entries(3)
    client.change(bench, "a", "delete")
    bench.settle_with_ticks(lambda: swept(bench))
    assert client.change(bench, "a", "add_entry", "bread") == 1
    assert client.entries(Bench(bench.disk), "a") == [[1, "bread", None, False, {}]]


def test_a_kill_during_a_sweep_ends_it_and_the_next_life_takes_it_up() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "clear")
    bench.tick()
    bench.hosting.kill(bench.actor("a"))
    assert client.read(bench, "a", "size") == 0
    bench.settle_with_ticks(lambda: swept(bench))
    assert entry_keys(bench) == []


def test_another_list_server_takes_up_what_was_not_swept() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "clear")
    bench = Bench(bench.disk)
    assert client.read(bench, "a", "size") == 0
    bench.settle_with_ticks(lambda: swept(bench))
    assert entry_keys(bench) == []


def test_a_sweep_that_the_worker_could_not_serve_is_tried_again() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "clear")
    bench.tick()
    read = bench.reads.popleft()
    assert bench.hosting.read_failed(read, Unavailable("the worker is gone"))
    bench.hosting.ask_page_again(read, bench.now_ms)
    assert "a" in bench.partition("a").to_sweep
    bench.settle_with_ticks(lambda: swept(bench))
    assert entry_keys(bench) == []


def test_a_sweep_that_meets_an_unreadable_record_is_not_tried_for_ever_and_the_list_goes_on() -> None:
    bench, client = with_entries(10)
    client.change(bench, "a", "clear")
    bench.tick()
    assert not bench.hosting.read_failed(bench.reads.popleft(), CorruptRecord("block checksum mismatch"))
    bench.tick()
    assert not bench.reads
    assert client.change(bench, "a", "add_entry", "bread") == 1


@given(st.lists(st.sampled_from(["add", "clear", "delete", "tick", "kill", "settle", "read page"]), max_size=30))
def test_whatever_is_interleaved_only_what_nobody_sees_is_swept(steps: list[str]) -> None:
    bench, client = with_entries(5, page=2)
    titles = ["milk"] * 5
    for place, step in enumerate(steps):
        number = client.next["a"]
        if step == "add":
            bench.send("a", "add_entry", f"entry {place}", number=number, floor=number)
            titles.append(f"entry {place}")
            client.next["a"] += 1
        elif step in ("clear", "delete"):
            bench.send("a", step, number=number, floor=number)
            titles = []
            client.next["a"] += 1
        elif step == "tick":
            bench.tick()
        elif step == "kill" and "a" in bench.partition("a").actors:
            bench.hosting.kill(bench.actor("a"))
        elif step == "read page":
            bench.turn()
            bench.commit()
            bench.read()
        else:
            bench.settle()
    bench.settle()
    assert [entry[1] for entry in client.entries(bench, "a")] == titles
    bench.settle_with_ticks(lambda: swept(bench))
    fresh = Bench(bench.disk)
    assert [entry[1] for entry in client.entries(fresh, "a")] == titles
    runs = [(records.read_entry_key("a", key)[1], bench.disk.records[key]) for key in entry_keys(bench)]
    stored = [entry for first, value in runs for entry in records.read_run("a", first, value)[1]]
    assert [entry.title for entry in stored if entry is not None] == titles


def test_law_6_a_list_that_is_deleted_while_what_a_clear_left_is_swept_leaves_memory_and_is_looked_at_no_more() -> None:
    bench, client = Bench(page=3, idle_ms=1_000), Client()
    client.change(bench, "a", "add_entries", [["x" * 3_000]] * 60)
    client.change(bench, "a", "clear")
    bench.tick()
    bench.read()  # a page of the first sweep
    bench.turn()
    bench.commit()
    assert bench.reads, "the first sweep is under way"
    bench.send("a", "delete", client=b"client", number=3, floor=3)
    bench.turn()
    bench.commit()
    bench.tick()
    while bench.reads:  # both go on
        bench.read()
        bench.turn()
        bench.commit()
    for _ in range(10):
        bench.tick(1_000)
        bench.settle()
    assert not entry_keys(bench) and records.list_key("a") not in bench.disk.records
    assert bench.hosting.lists == 0 and not bench.reads
