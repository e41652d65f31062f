"""Long reads in progress: how many are kept, and how much of a turn they may take (laws 5 and 6)."""

from __future__ import annotations

import pytest

from todomq.errors import Overloaded
from todomq.list_server.snapshots import REFUSED_BYTES, SNAPSHOTS, TURN_BYTES, Snapshots


def test_a_turn_that_has_packed_a_page_serves_no_more() -> None:
    snapshots = Snapshots()
    snapshots.packed(TURN_BYTES - 1)
    assert not snapshots.is_turn_full
    snapshots.packed(1)
    assert snapshots.is_turn_full
    snapshots.begin_turn()
    assert not snapshots.is_turn_full


def test_a_turn_that_has_packed_enough_refuses_further_reads_until_the_next() -> None:
    snapshots = Snapshots()
    snapshots.packed(REFUSED_BYTES - 1)
    snapshots.check_room()
    snapshots.packed(1)
    with pytest.raises(Overloaded) as refused:
        snapshots.check_room()
    assert refused.value.retryable
    snapshots.begin_turn()
    snapshots.check_room()


def test_the_oldest_read_is_given_up_for_a_new_one() -> None:
    snapshots, actor = Snapshots(), object()
    first = snapshots.keep([], actor)
    others = [snapshots.keep([], actor) for _ in range(SNAPSHOTS)]
    assert snapshots.get(first, actor) is None
    assert all(snapshots.get(number, actor) == [] for number in others)
