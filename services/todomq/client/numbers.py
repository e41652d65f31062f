"""The numbers under which one client's changes to one list take effect once and in order (laws 3 and 4).

Owns: per list the next number, the floor, the numbers whose outcome is unknown; which lists are remembered at all.
Must not know: requests, messages, the clock. The session takes numbers here and tells what became of them.

A number is *open* from when it is taken until it is *closed*: answered, or given up. The floor is the lowest number
that is not closed. A change whose outcome is unknown is *held*: the floor does not pass its number, so that the same
request can be sent again under it. Held numbers are given up when the next new change to that list is sent; or when a
later change is refused because a number is missing, or is asked again and again with deadlines that end before it could
be refused. From then on, sending those requests again is refused here, and nothing is sent.
"""

from __future__ import annotations

from msgspec import Struct

from todomq.protocol import limits

REMEMBERED_LISTS = 100_000

_NONE: frozenset[int] = frozenset()


class Counter(Struct, gc=False):
    """The numbers of one list. There are many, in no reference cycle: the garbage collector may ignore them.

    Attributes:
        next: the number that the next change takes.
        floor: every number below it is answered or given up.
    """

    next: int = 1
    floor: int = 1
    # Closed numbers above the floor, and held ones. Most lists never have any: they share the empty set.
    _ahead: set[int] | frozenset[int] = _NONE
    _held: set[int] | frozenset[int] = _NONE
    # By held number: which later change was asked again and was late, and when that happened first since it is held.
    _late_behind: dict[int, tuple[int, int]] | None = None

    def take(self) -> int:
        """Take the next number for a change; numbers held until now are given up."""
        if self._held:
            self.give_up_held(self.next)
        number = self.next
        self.next = number + 1
        return number

    def floor_to_read(self) -> int:
        """Return the floor that a read names along with ``next``: the list waits for all changes sent before the read.

        If no number is open but held ones, it is 0: a read must not wait for what may never arrive.
        """
        return self.floor if self.next == self.floor or self.has_open() else 0

    def has_open(self) -> bool:
        """Tell whether a change is neither answered, given up nor held."""
        return self.next - self.floor > len(self._ahead) + len(self._held)

    def gaps(self, below: int) -> list[int]:
        """Return the closed numbers below ``below`` that lie above an open one, so that no floor covers them yet."""
        return sorted(number for number in self._ahead if number < below)

    def close(self, number: int) -> None:
        """Note that a number is answered or given up."""
        if number == self.floor:
            self.floor = number + 1
            if self._ahead:
                self._advance()
        elif number > self.floor:
            if not self._ahead:
                self._ahead = set()
            self._ahead.add(number)  # type: ignore[union-attr]

    def hold(self, number: int) -> None:
        """Keep the number of a change whose outcome is unknown."""
        self._held = self._held | {number}

    def take_again(self, number: int) -> bool:
        """Open a held number again; False where it was given up or is on its way already."""
        if number not in self._held:
            return False
        self._held = self._held - {number}
        if self._late_behind is not None:
            self._late_behind.pop(number, None)
        return True

    def was_late_again(self, number: int, now_ms: int) -> None:
        """Note that a change that is asked again got no answer in time; it may be waiting for lower numbers.

        A held number among those is given up once ``GAP_MS`` have passed since this first happened to the same change,
        unless somebody has asked again under the held number in between.
        """
        if self._late_behind is None:
            self._late_behind = {}
        overdue = []
        for held in self._held:
            if held < number:
                behind, since_ms = self._late_behind.setdefault(held, (number, now_ms))
                if behind == number and now_ms - since_ms >= limits.GAP_MS:
                    overdue.append(held)
        self._give_up(overdue)

    def give_up_held(self, below: int) -> None:
        """Give up the held numbers below ``below``: no change sent from now on waits for them."""
        self._give_up([number for number in self._held if number < below])

    def _give_up(self, numbers: list[int]) -> None:
        if not numbers:
            return
        self._held = self._held.difference(numbers)
        if not self._held:
            self._late_behind = None
        for number in numbers:
            self.close(number)

    def _advance(self) -> None:
        while self.floor in self._ahead:
            self._ahead.remove(self.floor)  # type: ignore[union-attr]
            self.floor += 1


class Counters(dict[str, Counter]):
    """The counters of all lists that one client has sent to, by name, bounded in number; ``[name]`` makes a fresh one.

    A list that was forgotten starts again above every number that was used in any forgotten list, with its floor there
    too, which the protocol allows. Lists with open numbers are never forgotten.
    """

    def __init__(self, remembered_lists: int = REMEMBERED_LISTS) -> None:
        super().__init__()
        self._remembered_lists = remembered_lists
        self._limit = remembered_lists
        self._first = 1

    def __missing__(self, list_name: str) -> Counter:
        if len(self) >= self._limit:
            self._forget_half()
        counter = self[list_name] = Counter(self._first, self._first)
        return counter

    def has(self, list_name: str, counter: Counter) -> bool:
        """Tell whether this very counter is still the one of the list."""
        return self.get(list_name) is counter

    def _forget_half(self) -> None:
        """Forget the older half; lists with open numbers stay, and if there are many of them the limit is raised."""
        half = self._remembered_lists // 2
        for list_name, counter in list(self.items()):
            if len(self) <= half:
                break
            if not counter.has_open():
                self._first = max(self._first, counter.next)
                del self[list_name]
        self._limit = max(self._remembered_lists, len(self) + half)
