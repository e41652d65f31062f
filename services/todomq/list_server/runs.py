"""Which entries of one list lie in a record together.

Owns: the first and the last id of each record of several entries; whatever is in none of them has a record of its own.
Must not know: what a record holds. ``recording.py`` asks it which record to write when an entry changes, ``loading.py``
fills it.
"""

from __future__ import annotations

from bisect import bisect_right, insort


class Runs:
    """The records of several entries, none of which overlap."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: dict[int, int] = {}

    def add(self, first: int, last: int) -> None:
        """Note that the entries from ``first`` to ``last`` lie in one record."""
        if self._firsts and first < self._firsts[-1]:
            insort(self._firsts, first)
        else:
            self._firsts.append(first)
        self._lasts[first] = last

    def of(self, identifier: int) -> tuple[int, int]:
        """Return the first and the last id of the record that an entry is in: its own id where that is alone."""
        place = bisect_right(self._firsts, identifier)
        if place:
            first = self._firsts[place - 1]
            if identifier <= self._lasts[first]:
                return first, self._lasts[first]
        return identifier, identifier

    def forget(self, first: int) -> None:
        """Forget the record that begins with this id, if it is one of several entries."""
        if self._lasts.pop(first, None) is not None:
            del self._firsts[bisect_right(self._firsts, first) - 1]
