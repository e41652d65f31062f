"""Law 4 where a number is missing: what waits for its turn is served before what was sent behind it."""

from __future__ import annotations

from workbench import Bench


def waiting_read(bench: Bench) -> int:
    """Send a read that waits for change 1, which never comes; return its id."""
    read = bench.send("a", "size", number=2)
    bench.settle()
    assert read not in bench.replies
    return read


def test_a_read_does_not_see_the_change_behind_it_that_gives_up_what_the_read_waits_for() -> None:
    bench = Bench()
    assert bench.ask("a", "size") == 0
    read = waiting_read(bench)
    assert bench.ask("a", "add_entry", "milk", number=2, floor=2) == 1
    assert bench.answer(read) == 0


def test_a_read_that_waits_sees_no_later_change_though_the_actor_was_killed_between_them() -> None:
    bench = Bench()
    bench.ask("a", "add_entry", "bread", client=b"other")
    read = waiting_read(bench)
    bench.send("a", "add_entry", "butter", client=b"other", number=2)
    bench.turn()
    bench.hosting.kill(bench.actor("a"))
    added = bench.send("a", "add_entry", "milk", number=2, floor=2)
    bench.settle()
    assert bench.answer(added) == 3
    assert bench.answer(read) == 2
