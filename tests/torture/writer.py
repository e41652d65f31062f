"""Who sends a database worker batches, as a list server does, and nobody looks at what they hold.

Owns: one life of a sender: its incarnation, the numbers of its batches, the socket that words about them come to.
Must not know: what is provoked with it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from batches import batch_of
from todomq.errors import Unavailable
from todomq.protocol import messages


class Writer:
    """One sender of batches; to be used by one thread."""

    def __init__(self, worker: str, call: Callable[..., Any]) -> None:
        """Say hello to a worker.

        Args:
            worker: its name, as ``database_worker-1``.
            call: ``call(worker, operation, *arguments)`` asks it at its socket for calls.
        """
        self._worker = worker
        self._incarnation = os.urandom(16)
        self._number = 0
        self._directory = tempfile.TemporaryDirectory(prefix="tq-words-", dir="/tmp")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._words: zmq.Socket[bytes] = context.socket(zmq.PULL)
        self._writes: zmq.Socket[bytes] = context.socket(zmq.PUSH)
        try:
            address = f"ipc://{Path(self._directory.name) / 'words'}"
            self._words.bind(address)
            self._receiver, writes_address, *_ = call(worker, "hello", self._incarnation, address, 1, [])
            self._writes.setsockopt(zmq.LINGER, 0)
            self._writes.connect(writes_address)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def send(self, partition: int, epoch: int, pairs: list[bytes | None]) -> None:
        """Send the next batch: records key, value, key, value, of a partition under its epoch."""
        self._number += 1
        batch = batch_of(self._incarnation, self._receiver, self._number, [(partition, epoch, pairs)])
        self._writes.send(messages.writes(batch))

    def wait(self, within_s: float) -> None:
        """Wait until all that was sent is on disk.

        Raises:
            Unavailable: it is not in time, or something of it was refused.
        """
        give_up = time.monotonic() + within_s
        last = 0
        while last < self._number:
            if not self._words.poll(max(0, int((give_up - time.monotonic()) * 1000))):
                raise Unavailable(f"{self._worker} says nothing of batch {last + 1} of {self._number}")
            said = messages.read_committed(messages.read(self._words.recv())[1])
            if said.outcome == messages.WANTED:
                continue
            if said.outcome != messages.COMMITTED or said.refused:
                raise Unavailable(f"{self._worker} has not written a batch: {said}")
            last = said.last

    def _close(self) -> None:
        self._words.close(0)
        self._writes.close(0)
        self._directory.cleanup()
