"""A client that asks as fast as it can until SIGTERM: ``python -m torture.flood ENDPOINT SECONDS RECORD``.

Owns: adds and casts over a raw socket, which keep to no window. Must not know: the client library.
It floods for SECONDS at most, and writes to RECORD what it was told:
``{"counts": {"asked" or code: n}, "acknowledged": {list: [[id, title], ...]}}``.
Every request gives up all numbers before its own, so that one that is refused holds up none behind it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import zmq

from todomq.protocol import messages
from todomq.protocol.codec import unpack

LISTS = 200
AT_ONCE = 500
CASTS_IN = 5
"""Every so many requests one is a cast."""
LAST_ANSWERS_S = 10.0


class Flood:
    """One connection that floods."""

    def __init__(self, endpoint: str) -> None:
        self.counts: Counter[str] = Counter()
        self.acknowledged: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self._sender = os.urandom(16)
        self._open: dict[int, tuple[str, str]] = {}
        self._number = 0
        self._is_over = False
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    def run(self, seconds: float) -> None:
        """Flood for so long or until told to end, then wait for the last answers."""
        until = time.monotonic() + seconds
        while not self._is_over and time.monotonic() < until:
            if self._socket.poll(10, zmq.POLLOUT):
                self._socket.send_multipart([b"", messages.call(self._sender, self._requests())])
            self._take_answers(0)
        last = time.monotonic() + LAST_ANSWERS_S
        while self._open and time.monotonic() < last:
            self._take_answers(100)

    def end(self) -> None:
        """Ask no more."""
        self._is_over = True

    def _requests(self) -> list[Any]:
        requests = []
        for _ in range(AT_ONCE):
            self._number += 1
            name, title = f"flood {self._number % LISTS}", f"title {self._number}"
            identifier = None if self._number % CASTS_IN == 0 else self._number
            if identifier is not None:
                self._open[identifier] = name, title
            body = messages.body("add_entry", title, None)
            requests.append([identifier, name, 0, body, self._number, self._number])
        self.counts["asked"] += AT_ONCE
        return requests

    def _take_answers(self, wait_ms: int) -> None:
        while self._socket.poll(wait_ms):
            _, message = self._socket.recv_multipart()
            for identifier, status, value in messages.read_replies(messages.read(message)[1]):
                name, title = self._open.pop(identifier)
                if status == messages.OK:
                    self.acknowledged[name].append((unpack(value), title))
                else:
                    self.counts[messages.read_error(value).code] += 1


def main(endpoint: str, seconds: str, record: str) -> None:
    """Flood and write the record."""
    flood = Flood(endpoint)
    signal.signal(signal.SIGTERM, lambda *_: flood.end())
    flood.run(float(seconds))
    Path(record).write_text(json.dumps({"counts": flood.counts, "acknowledged": flood.acknowledged}))


if __name__ == "__main__":
    main(*sys.argv[1:])
