"""Whether a process that should be heard of has hung.

The registry watches all others and nobody watches the registry, so it must answer a ping. The others must be
registered: a registry that has just started does not know of a daemon that hung before.

Owns: how long silence may last. Must not know: how the process is asked, or ended.
"""

from __future__ import annotations

STARTING_MS = 10_000


class AnswerWatch:
    """The silence of one process. Times are milliseconds of any steady clock."""

    def __init__(self, silence_ms: int, tick_ms: int, starting_ms: int = STARTING_MS) -> None:
        """Begin with nobody to watch.

        Args:
            silence_ms: longest silence allowed to a process that has answered before; three ticks at least, since it
                is asked only once in each tick.
            tick_ms: how often ``tick`` or ``unknown`` is called.
            starting_ms: longest silence allowed to one that has just begun.
        """
        self._silence_ms = max(silence_ms, 3 * tick_ms)
        self._starting_ms = starting_ms
        self._tick_ms = tick_ms
        self._since_ms: int | None = None
        self._allowed_ms = 0
        self._last_tick_ms = 0

    def began(self, now_ms: int, age_ms: int = 0) -> None:
        """Watch another process, which is given longer until its first answer while it is young.

        One that began ``age_ms`` ago has used up that much of this time already.
        """
        self._since_ms = now_ms
        self._last_tick_ms = now_ms
        self._allowed_ms = max(self._silence_ms, self._starting_ms - age_ms)

    def ended(self) -> None:
        """Watch nobody."""
        self._since_ms = None

    def answered(self, now_ms: int) -> None:
        """Take note of an answer."""
        if self._since_ms is not None:
            self._since_ms = now_ms
            self._allowed_ms = self._silence_ms

    def tick(self, now_ms: int) -> bool:
        """Tell whether the process has been silent for too long.

        If the ticks themselves were late, it was the watcher that stood still, and the silence counts from now.
        """
        self.unknown(now_ms)
        return self._since_ms is not None and now_ms - self._since_ms >= self._allowed_ms

    def unknown(self, now_ms: int) -> None:
        """Tick while nobody can say whether the process is heard: the silence goes on, without consequence so far."""
        late = now_ms - self._last_tick_ms > 2 * self._tick_ms
        self._last_tick_ms = now_ms
        if late and self._since_ms is not None:
            self._since_ms = now_ms
