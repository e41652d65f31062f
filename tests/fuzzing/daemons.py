"""Sends random and nearly right messages to every socket of real daemons and looks how these are afterwards.

Owns: what must hold of the processes: all live on, answer, close what was opened, and have not grown.
Must not know: how messages are made.
``register_name`` is left out here: a name with a lease is a request to end some process of this machine.
"""

from __future__ import annotations

import time
from random import Random

import zmq
from running import Running, running, wait_until

from fuzzing import corpus, shapes
from todomq.protocol import limits, messages

DAEMONS = ("registry", "cache", "router", "list_server-1", "database_worker-1")
SHAPES = {"list_server-1.commits": shapes.words, "database_worker-1.writes": shapes.writes}
PULLS = tuple(SHAPES)
LOOK_EVERY = 500
GROWTH_BYTES = 96 * limits.MIB
GROWTH_DESCRIPTORS = 8
WARM_UP = 2_000
"""Inputs until a daemon has the memory and the connections to others that its work needs."""
LEAST = 5 * WARM_UP
"""Inputs on however slow a machine: behind the warming up there must be some of which a daemon could have grown."""
LEAST_WITHIN_S = 120.0


class Stranger:
    """One who sends to every socket, and a neighbour who asks beside."""

    def __init__(self, stack: Running, random: Random) -> None:
        self.sent = 0
        self._stack = stack
        self._random = random
        self._sockets = {name: stack.open(zmq.DEALER, name) for name in DAEMONS}
        self._sockets |= {name: stack.open(zmq.PUSH, name) for name in PULLS}
        self._neighbours = {name: stack.open(zmq.DEALER, name) for name in DAEMONS}
        self._known = {name: corpus.load(name) for name in self._sockets}
        self._asked = 0

    def send(self) -> None:
        """Send one message somewhere; read what was answered."""
        name = self._random.choice((*DAEMONS, *PULLS))
        data = self._random.randbytes(self._random.randrange(1, 100))
        if self._known[name] and self._random.random() < 0.4:
            data = self._mutated(self._random.choice(self._known[name]))
        made = SHAPES.get(name, shapes.frames)(data)
        opened = self._sockets[name]
        if not any(b"register_name" in frame for frame in made) and opened.poll(1_000, zmq.POLLOUT):
            opened.send_multipart(made)
            self.sent += 1
        while name in DAEMONS and opened.poll(0):
            messages.read_replies(messages.read(opened.recv_multipart()[-1])[1])

    def look(self, pids: dict[str, int]) -> None:
        """Check that every daemon is the process it was and answers its neighbour what he asked, and nothing else."""
        for name, opened in self._neighbours.items():
            self._asked += 1
            opened.send_multipart([b"", messages.call(b"neighbour", [[self._asked, None, 0, messages.body("ping")]])])
            replies = messages.read_replies(messages.read(opened.recv_multipart()[-1])[1])
            assert [reply[0] for reply in replies] == [self._asked], f"{name} answered what somebody else asked"
        assert self._stack.pids() == pids, "a daemon died"

    def close(self) -> None:
        """Close every socket."""
        for opened in (*self._sockets.values(), *self._neighbours.values()):
            opened.close()

    def _mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.randrange(1, 4)):
            changed[self._random.randrange(len(changed))] = self._random.randrange(256)
        return bytes(changed)


def fuzz(seconds: float, seed: int) -> int:
    """Send for so long, and ``LEAST`` messages at least; return how many were sent.

    Raises:
        AssertionError: a daemon died, answered somebody what another asked, took too few messages, or has grown.
    """
    with running() as stack:
        pids = stack.pids()
        memory: dict[str, int] = {}
        descriptors: dict[str, int] = {}
        stranger = Stranger(stack, Random(seed))
        until = time.monotonic() + seconds
        give_up = until + LEAST_WITHIN_S
        try:
            while (now := time.monotonic()) < until or stranger.sent < LEAST:
                assert now < give_up, f"only {stranger.sent} messages were taken"
                stranger.send()
                if stranger.sent % LOOK_EVERY == 0:
                    stranger.look(pids)
                if stranger.sent >= WARM_UP and not memory:
                    memory = {name: stack.memory_bytes(name) for name in DAEMONS}
                    descriptors = {name: stack.descriptors(name) for name in DAEMONS}
            stranger.look(pids)
        finally:
            stranger.close()
        for name in DAEMONS:
            most = descriptors[name] + GROWTH_DESCRIPTORS
            wait_until(lambda: stack.descriptors(name) <= most, f"{name} closes descriptors")  # noqa: B023
            grown = stack.memory_bytes(name) - memory[name]
            assert grown <= GROWTH_BYTES, f"{name} grew by {grown} bytes"
        return stranger.sent
