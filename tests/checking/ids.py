"""Counts ids: whether those that adds were told can all still be given.

Owns: that arithmetic. Must not know: when anything may take place. The lookahead asks it.
"""

from __future__ import annotations

from collections.abc import Sequence


def have_room(next_id: int, wanted: Sequence[int], spare: int, clears: int) -> bool:
    """Return False where ids can't be given as often as they are wanted, whatever the order.

    A list has one life until the first clear, one more behind each. In each it gives the ids from 1 on, none left out,
    up to some highest one: so where an id is given in several lives, every lower one is given in at least as many of
    them, and where no add was told that id, an add whose id nobody knows must have taken it. The present life goes on
    from ``next_id``; for every id at which it may end, the ids that it leaves must fit into lives to come.

    Args:
        next_id: what the present life gives next.
        wanted: how many adds still to come were told each id; the first place stands for no id.
        spare: how many entries may still be added whose ids nobody knows.
        clears: how many clears may still come.
    """
    end = next_id - 1  # the last id of the present life
    gaps = 0
    while gaps <= spare:
        lives = 0
        missing = gaps
        for identifier in range(len(wanted) - 1, 0, -1):
            left = wanted[identifier]
            if left and next_id <= identifier <= end:
                left -= 1
            if left > lives:
                lives = left
            else:
                missing += lives - left
        if lives <= clears and missing <= spare:
            return True
        end += 1
        while end < len(wanted) and not wanted[end]:
            gaps += 1
            end += 1
        if end >= len(wanted):
            return False
    return False
