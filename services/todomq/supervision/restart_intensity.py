"""Restart intensity: how often a group's processes may be restarted before the group, then the stack, gives up.

Owns: one sliding window of restarts per group, which processes are waited for. Must not know: supervisord, sockets,
clocks. ``service.py`` feeds it and carries out its effects.

After Erlang/OTP's ``max_restarts`` and ``max_seconds`` (https://www.erlang.org/doc/system/sup_princ.html): if more
than ``max_restarts`` restarts of a group fall within the window, its parent, the stack, ends with a reason; group by
group in the order of any stop, so that what is under way in the others is still committed. Law 9: within the limit the
same set of processes comes back. Law 5: one group's restarts never count for another.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

EAGER_MS = 1_000
EAGER_TICK_MS = 5
PATIENT_TICK_MS = 100

REFUSES = "refuses to start: "
"""How the text about a process begins that would not start and has logged why: a setting is wrong, nothing crashed. The
reason follows."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many restarts of a group's processes may fall within how many milliseconds."""

    max_restarts: int
    within_ms: int


class Wake(NamedTuple):
    """Wake the process manager, so that it sees the death of this process, or starts it, now."""

    process: str


class GiveUp(NamedTuple):
    """Stop the stack; the reason is for a person and names the part."""

    reason: str


Effect = Wake | GiveUp


class RestartIntensity:
    """The state of one stack's supervision. Times are milliseconds of any steady clock.

    Attributes:
        restarts: by process, all that were counted.
        given_up: the reason, None if the stack has not given up.
        groups: the tree's.
        is_ending: the stack is being stopped, or has given up.
    """

    def __init__(self, limits: dict[str, Limit], restarts: Iterable[tuple[str, int]] = ()) -> None:
        """Begin with empty windows.

        Args:
            limits: the limit of each group of the tree.
            restarts: restarts counted so far in the stack's life, by process, for ``restarts``.
        """
        self.restarts: Counter[str] = Counter(dict(restarts))
        self.given_up: str | None = None
        self.groups = frozenset(limits)
        self._limits = limits
        self.is_ending = False
        self._windows: dict[str, deque[int]] = {group: deque() for group in limits}
        self._awaited: dict[str, int] = {}

    def vanished(self, process: str, now_ms: int) -> list[Effect]:
        """Note that the process was seen to be dead before the process manager said so."""
        self._awaited.setdefault(process, now_ms)
        return [Wake(process)]

    def exited(self, process: str, group: str, how: str, now_ms: int, ago_ms: int = 0) -> list[Effect]:
        """Count a death that nobody asked for; the process manager is about to restart the process.

        Args:
            process: its name.
            group: its group.
            how: how it ended, for the reason.
            now_ms: the time.
            ago_ms: how long ago it ended; a listener that stood still hears of it late.

        Returns:
            a wake, or the effects of giving up.
        """
        if self.is_ending:
            return [Wake(process)]
        self.restarts[process] += 1
        limit, window = self._limits[group], self._windows[group]
        insort(window, now_ms - ago_ms)  # an earlier death may be heard of later
        while window[0] <= window[-1] - limit.within_ms:
            window.popleft()
        if len(window) > limit.max_restarts:
            within = f"{len(window)} times within {limit.within_ms / 1000:g} s"
            return self._give_up(group, f"its processes ended {within} ({limit.max_restarts} allowed)", process, how)
        return self.vanished(process, now_ms)

    def could_not_start(self, process: str, group: str, tries: int, how: str) -> list[Effect]:
        """Take note that the program could not even be started, for the ``tries``-th time in a row.

        The process manager waits longer and longer between such tries, so they are limited by number and not by window.
        """
        if self.is_ending or tries <= self._limits[group].max_restarts:
            return []
        return self._give_up(group, f"a program could not be started {tries} times in a row", process, how)

    def settled(self, process: str) -> None:
        """Take note that the process runs again, or was stopped on purpose: nobody waits for it."""
        self._awaited.pop(process, None)

    def ending(self) -> None:
        """Take note that the stack is being stopped: from here on nothing is restarted, so no death counts."""
        self.is_ending = True

    def tick(self) -> list[Effect]:
        """Return a wake for each process that is still waited for."""
        return [Wake(process) for process in self._awaited]

    def next_tick_ms(self, now_ms: int) -> int | None:
        """Return in how many milliseconds ``tick`` is due, or None while all processes are there.

        Often at first; after ``EAGER_MS`` something else keeps the process away and haste is useless.
        """
        if not self._awaited:
            return None
        youngest = max(self._awaited.values())
        return EAGER_TICK_MS if now_ms - youngest < EAGER_MS else PATIENT_TICK_MS

    def _give_up(self, group: str, why: str, process: str, how: str) -> list[Effect]:
        if how.startswith(REFUSES):
            self.given_up = f"{process} {how}"
        else:
            self.given_up = f"the group {group} gave up: {why}; the last was {process}: {how}"
        self._awaited.clear()
        self.ending()
        return [GiveUp(self.given_up)]
