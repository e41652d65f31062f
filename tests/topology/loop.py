"""The loop of a simulated process: the same methods and the same order of a turn as ``todomq.runtime.loop.Loop``.

Owns: what one process waits for. Must not know: sockets, messages. A source is readable or not; when it becomes so it
wakes the process. Work that is offloaded takes virtual time, and happens at one moment of it: a process killed before
has not done it, one killed behind has done it and never heard of it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, Protocol

from todomq.runtime.loop import Timer
from topology.clock import START_US, Action, Clock, Event
from topology.processes import Process

Done = Callable[[Any, BaseException | None], None]
Latency = Callable[[Process, str], int]

BOOT_US = START_US - 60_000_000


class Source(Protocol):
    """Something that a loop watches."""

    @property
    def is_readable(self) -> bool:
        """Whether there is something to read."""


class SimulatedLoop:
    """The loop of one process."""

    def __init__(self, process: Process, clock: Clock, random: Random, latency_us: Latency) -> None:
        """Begin to give the process its turns.

        Args:
            process: whose loop this is.
            clock: the time.
            random: decides in which order readable sources are served.
            latency_us: tells how long offloaded work of a lane takes.
        """
        self.turns = 0
        self._process = process
        self._clock = clock
        self._random = random
        self._latency_us = latency_us
        self._readers: dict[Any, Action] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = count()
        self._alarm: Event | None = None
        self._alarm_us = 0
        self._turn_ends: list[Action] = []
        self._completions: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._lanes: dict[str, deque[tuple[Callable[[], Any], Done]]] = {}
        process.turn = self.turn

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
        return self._clock.wall_us // 1_000

    def steady_ms(self) -> int:
        """Return a clock that nobody sets; its zero is far from that of the wall clock."""
        return (self._clock.now_us - BOOT_US) // 1_000

    def awake_ms(self) -> int:
        """Return the same as of a machine that never sleeps, from another zero."""
        return self._clock.now_us // 1_000

    def watch(self, source: Source, on_readable: Action) -> None:
        """Run ``on_readable`` in every turn in which the source has something to read."""
        self._readers[source] = on_readable
        if source.is_readable:
            self.wake()

    def unwatch(self, source: Source) -> None:
        """Forget a source."""
        self._readers.pop(source, None)

    def look_again(self, source: Source) -> None:
        """Do nothing: what is readable here is always known."""

    def after(self, seconds: float, action: Action) -> Timer:
        """Run ``action`` once."""
        return self._plan(seconds, Timer(action, None))

    def every(self, seconds: float, action: Action) -> Timer:
        """Run ``action`` again and again."""
        return self._plan(seconds, Timer(action, seconds))

    def at_turn_end(self, action: Action) -> None:
        """Run ``action`` at the end of every turn."""
        self._turn_ends.append(action)

    def post(self, action: Action) -> None:
        """Run ``action`` in the next turn."""
        self._completions.append((lambda result, error: action(), None, None))
        self.wake()

    def wake(self) -> None:
        """Begin a turn soon."""
        self._process.wake()

    def stop(self) -> None:
        """End the process."""
        self._process.die()

    def offload(self, work: Callable[[], Any], done: Done, lane: str = "work") -> None:
        """Run ``work`` a while from now, then ``done`` in a turn; work of one lane is done one after another."""
        queue = self._lanes.setdefault(lane, deque())
        queue.append((work, done))
        if len(queue) == 1:
            self._begin_work(lane, queue)

    def turn(self) -> None:
        """Serve what is there, end the turn."""
        self.turns += 1
        ready = [source for source in self._readers if source.is_readable]
        if len(ready) > 1:
            self._random.shuffle(ready)
        for source in ready:
            on_readable = self._readers.get(source)
            if on_readable is not None:
                on_readable()
        while self._completions:
            done, result, error = self._completions.popleft()
            done(result, error)
        self._run_timers()
        for action in self._turn_ends:
            action()
        if any(source.is_readable for source in self._readers):
            self.wake()

    def _plan(self, seconds: float, timer: Timer) -> Timer:
        heapq.heappush(self._timers, (self._clock.now_us + int(seconds * 1e6), next(self._order), timer))
        self._set_alarm()
        return timer

    def _set_alarm(self) -> None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return
        due_us = self._timers[0][0]
        if self._alarm is not None:
            if self._alarm_us == due_us:
                return
            self._alarm.cancel()
        self._alarm_us = due_us
        self._alarm = self._clock.after(due_us - self._clock.now_us, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.wake()

    def _run_timers(self) -> None:
        now_us = self._clock.now_us
        while self._timers and self._timers[0][0] <= now_us:
            timer = heapq.heappop(self._timers)[2]
            if timer.action is None:
                continue
            if timer.interval_s is not None:
                self._plan(timer.interval_s, timer)
            timer.action()
        self._set_alarm()

    def _begin_work(self, lane: str, queue: deque[tuple[Callable[[], Any], Done]]) -> None:
        latency_us = self._latency_us(self._process, lane)
        self._clock.after(latency_us, lambda: self._process.run(lambda: self._work(lane, queue)))

    def _work(self, lane: str, queue: deque[tuple[Callable[[], Any], Done]]) -> None:
        work, done = queue[0]
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # handed to whoever asked for the work
            failure = error

        def complete() -> None:
            queue.popleft()
            self._completions.append((done, result, failure))
            self.wake()
            if queue:
                self._begin_work(lane, queue)

        self._clock.after(self._random.randint(1, 300), lambda: self._process.run(complete))
