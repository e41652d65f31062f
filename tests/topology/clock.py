"""Virtual time and what is to happen when. Whole microseconds; nothing here ever waits.

Owns: the order of events. Must not know: what they do. Events of the same moment happen in the order they were planned.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]

START_US = 1_800_000_000_000_000
"""When every simulation begins, in microseconds since 1970."""

SECOND_US = 1_000_000
MS_US = 1_000


class Event:
    """Something planned; ``cancel()`` unplans it."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        """Never happen."""
        self.action = None


class Clock:
    """The time of one simulation."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.set_by_us = 0
        """By how much the wall clock was set on (or back) since the beginning; nothing planned goes by it."""
        self._planned: list[tuple[int, int, Event]] = []
        self._order = 0

    @property
    def wall_us(self) -> int:
        """What the wall clock shows, in microseconds since 1970."""
        return self.now_us + self.set_by_us

    def after(self, delay_us: int, action: Action) -> Event:
        """Plan an action."""
        event = Event(action)
        self._order += 1
        heapq.heappush(self._planned, (self.now_us + max(delay_us, 0), self._order, event))
        return event

    def run_until(self, at_us: int, is_done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until a moment, or until ``is_done``; return whether it is done."""
        while self._planned and self._planned[0][0] <= at_us:
            time_us, _, event = heapq.heappop(self._planned)
            if event.action is None:
                continue
            self.now_us = time_us
            event.action()
            if is_done is not None and is_done():
                return True
        self.now_us = max(self.now_us, at_us)
        return is_done is not None and is_done()
