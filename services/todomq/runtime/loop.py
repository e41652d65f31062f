"""The one poll loop: sockets, file descriptors, timers, work done off the loop, what is flushed at the end of a turn.

Owns: the order of a turn (poll, drain, completions, timers, turn end) and the clock of a process. Must not know:
messages. The functions that drain bound what they take in a turn, so no peer starves another. Work that can take over a
millisecond is offloaded to a lane, one thread each; its completion runs on the loop.

It waits on the descriptors of sockets (ZMQ_FD in zmq_getsockopt(3)), with one system call however many there are, while
zmq_poll(3) asks each socket (16 us for the router's 25). Such a descriptor only signals that there is news for the
socket, and any call on the socket takes the news in. So code that sends on a watched socket, or does not read all that
is there, says so with ``look_again``, and the socket itself is asked before the next wait.
"""

from __future__ import annotations

import heapq
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from typing import Any, TypeVar

import zmq

from todomq.runtime import sockets

COMPLETIONS = 64
"""How many completions one turn takes at most: more may come as fast as it takes them."""

T = TypeVar("T")
Action = Callable[[], None]
Done = Callable[[Any, BaseException | None], None]
Source = zmq.Socket[bytes] | int


class Timer:
    """A planned action; ``cancel()`` unplans it."""

    __slots__ = ("action", "interval_s")

    def __init__(self, action: Action, interval_s: float | None) -> None:
        self.action: Action | None = action
        self.interval_s = interval_s

    def cancel(self) -> None:
        """Never run again."""
        self.action = None


class OneTimer:
    """An action that is planned once, however often it is asked for until it runs.

    Args:
        loop: where it runs.
        seconds: how long after it was asked for.
        action: None if only a turn is wanted, at the end of which something is tried again.
    """

    def __init__(self, loop: Loop, seconds: float, action: Action | None = None) -> None:
        self._loop = loop
        self._seconds = seconds
        self._action = action
        self._is_planned = False

    def plan(self, seconds: float | None = None) -> None:
        """Have it run, unless it is planned already; ``seconds`` from now, if not after the usual time."""
        if not self._is_planned:
            self._is_planned = True
            self._loop.after(self._seconds if seconds is None else seconds, self._run)

    def _run(self) -> None:
        self._is_planned = False
        if self._action is not None:
            self._action()


class Loop:
    """A single-threaded poll loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Action] = {}
        self._descriptors: dict[Source, int] = {}
        self._used: set[zmq.Socket[bytes]] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._turn_ends: list[Action] = []
        self._completions: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._lanes: dict[str, SimpleQueue[tuple[Callable[[], Any], Done]]] = {}
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._running = False
        self._is_woken = False
        self.turns = 0
        self.watch(self._wake_reader, self._drain_wakes)

    @staticmethod
    def now_ms() -> int:
        """Return the wall clock in milliseconds since 1970, the clock of deadlines and records."""
        return time.time_ns() // 1_000_000

    @staticmethod
    def steady_ms() -> int:
        """Return milliseconds of a monotonic clock, for intervals; it goes on while the machine sleeps."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    @staticmethod
    def awake_ms() -> int:
        """Return milliseconds of a clock that stops while the machine sleeps, as the processes being waited for do."""
        return time.monotonic_ns() // 1_000_000

    def watch(self, source: Source, on_readable: Action) -> None:
        """Run ``on_readable`` in every turn in which the socket or descriptor has something to read."""
        descriptor = source if isinstance(source, int) else int(source.getsockopt(zmq.FD))
        self._readers[descriptor] = on_readable
        self._descriptors[source] = descriptor
        self._epoll.register(descriptor, select.EPOLLIN)
        if not isinstance(source, int):
            self._used.add(source)

    def unwatch(self, source: Source) -> None:
        """Forget a socket or descriptor, which is still open; unknown ones are ignored."""
        descriptor = self._descriptors.pop(source, None)
        if descriptor is not None:
            del self._readers[descriptor]
            self._epoll.unregister(descriptor)
        if not isinstance(source, int):
            self._used.discard(source)

    def look_again(self, socket: zmq.Socket[bytes]) -> None:
        """Ask a watched socket itself before the next wait: it was sent on, or not read to the end."""
        self._used.add(socket)

    def after(self, seconds: float, action: Action) -> Timer:
        """Run ``action`` once, ``seconds`` from now."""
        return self._plan(seconds, Timer(action, None))

    def every(self, seconds: float, action: Action) -> Timer:
        """Run ``action`` every ``seconds`` seconds, first after one interval."""
        return self._plan(seconds, Timer(action, seconds))

    def at_turn_end(self, action: Action) -> None:
        """Run ``action`` at the end of every turn, in the order in which actions were added."""
        self._turn_ends.append(action)

    def offload(self, work: Callable[[], T], done: Done, lane: str = "work") -> None:
        """Run ``work`` in the lane's thread, then ``done(result, None)`` or ``done(None, error)`` on the loop.

        Work of one lane runs one after another, in order.
        """
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = SimpleQueue()
            threading.Thread(target=self._work, args=(queue,), name=lane, daemon=True).start()
        queue.put((work, done))

    def post(self, action: Action) -> None:
        """Run ``action`` on the loop soon; may be called from any thread or signal handler."""
        self._completions.append((lambda result, error: action(), None, None))
        self.wake()

    def wake(self) -> None:
        """Begin a turn soon; may be called from any thread or signal handler."""
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full of wakes already

    @property
    def wake_descriptor(self) -> int:
        """The descriptor that ``signal.set_wakeup_fd`` may write to."""
        return self._wake_writer

    def stop(self) -> None:
        """Leave ``run`` after this turn."""
        self._running = False
        self.wake()

    def run(self) -> None:
        """Turn until stopped."""
        self._running = True
        while self._running:
            self.turn()

    def turn(self, timeout_s: float | None = None) -> None:
        """Poll once (until the next timer, at most ``timeout_s``), serve what is there, end the turn."""
        wait_s = self._until_next_timer()
        if timeout_s is not None:
            wait_s = timeout_s if wait_s is None else min(wait_s, timeout_s)
        self.turns += 1
        readable = self._readable_of_used()
        if wait_s is None:
            wait_s = -1.0
        for descriptor, _ in self._epoll.poll(0 if readable else wait_s):
            readable.add(descriptor)
        for descriptor, on_readable in [(descriptor, self._readers.get(descriptor)) for descriptor in readable]:
            if on_readable is not None and self._readers.get(descriptor) is on_readable:  # not another's by now
                on_readable()
        self._is_woken = False
        for _ in range(min(len(self._completions), COMPLETIONS)):
            done, result, error = self._completions.popleft()
            done(result, error)
        if self._completions:
            self.wake()
        self._run_timers()
        for action in self._turn_ends:
            action()

    def _readable_of_used(self) -> set[int]:
        """Return the descriptors of the sockets that were used and have something to read."""
        used, self._used = self._used, set()
        descriptors = self._descriptors
        return {descriptors[socket] for socket in used if socket in descriptors and sockets.has_more(socket)}

    def _plan(self, seconds: float, timer: Timer) -> Timer:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def _until_next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.action is None:
                continue
            if timer.interval_s is not None:
                self._plan(timer.interval_s, timer)
            timer.action()

    def _drain_wakes(self) -> None:
        try:
            while len(os.read(self._wake_reader, 4096)) == 4096:
                continue
        except BlockingIOError:
            return

    def _work(self, queue: SimpleQueue[tuple[Callable[[], Any], Done]]) -> None:
        while True:
            work, done = queue.get()
            try:
                self._completions.append((done, work(), None))
            except BaseException as error:  # handed to the code that asked for the work
                self._completions.append((done, None, error))
            if not self._is_woken:  # the flag is reset before the completions are looked at, so none is left lying
                self._is_woken = True
                self.wake()
