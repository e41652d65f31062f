"""Decides when a record of a change may be forgotten: the wall clock, held back for a while after it is set forward.

Owns: how far the wall clock was ahead of the steady one lately. Must not know: what is remembered, sockets, the clocks
(times are arguments). Used by list servers and database workers.

Law 3: a remembered change bears the wall clock's time, since no other clock means the same to all processes and
machines, and after a restart. By the time kept here, nothing that was made since this process began seems older than it
is, no matter which process made it. It knows nothing of how the clock was set before that.
"""

from __future__ import annotations

from todomq.protocol import limits


class ForgettingClock:
    """What the wall clock would show with the lowest setting that it had in the last ``limits.REMEMBERED_MS``.

    A setting is remembered for up to twice as long, which harms nothing.
    """

    def __init__(self) -> None:
        self._latest_ms: int | None = None
        self._since_ms = 0
        self._lowest_ms = self._lowest_before_ms = 0
        """The least that the wall clock was ahead: since ``_since_ms``, and in the period before that."""

    def tick(self, now_ms: int, steady_ms: int) -> None:
        """Look at both clocks; to be done before anything that was made after them is judged.

        Args:
            now_ms: the wall clock.
            steady_ms: the steady clock.
        """
        ahead_ms = now_ms - steady_ms
        if self._latest_ms is None:
            self._since_ms, self._lowest_before_ms, self._lowest_ms = steady_ms, ahead_ms, ahead_ms
        elif steady_ms - self._since_ms >= limits.REMEMBERED_MS:
            self._since_ms, self._lowest_before_ms, self._lowest_ms = steady_ms, self._lowest_ms, ahead_ms
        self._lowest_ms = min(self._lowest_ms, ahead_ms)
        self._latest_ms = steady_ms + min(self._lowest_ms, self._lowest_before_ms)

    def ms(self, now_ms: int) -> int:
        """Return the time at the last look; if there was none, ``now_ms``, the wall clock's."""
        return now_ms if self._latest_ms is None else self._latest_ms
