"""Measures how soon after a fault everything is served again.

Owns: lists of its own behind every pair of list server and database worker, and a client that adds to all of them at
once. Must not know: which fault it was. What it was told is recorded as of any other client.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from random import Random

from todomq import Client
from todomq.cache.directory import first_homes
from todomq.errors import TodoMQError
from todomq.protocol.partitions import partition_of, worker_of
from todomq.settings import Settings
from torture.clients import Pipelining
from torture.recorder import Asked, Recorder, Wish
from torture.workload import Chooser

NAME = "probe"
SERVED_S = 40.0


class _Patient(Pipelining):
    """Tries again what is unknown, but for as long as it must be served within."""

    until_s = float("inf")

    def is_tried_again(self, asked: Asked) -> bool:
        return time.monotonic() < self.until_s and super().is_tried_again(asked)


class Probe:
    """A client that asks once of every part that serves lists."""

    def __init__(self, settings: Settings, directory: Path, seed: int, began: float) -> None:
        """Connect; ``began`` is when the run began, ``time.monotonic``."""
        self._homes = first_homes(settings.list_servers, settings.database_workers)
        pairs = {(home, worker_of(place, settings.database_workers)) for place, home in enumerate(self._homes)}
        self._pairs = len(pairs)
        self._settings = settings
        self._chooser = Chooser(NAME, Random(seed), began)
        self._client = Client(settings.endpoint)
        self._pipelining = _Patient(self._chooser, Recorder(directory, NAME))
        self._titles = count(1)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def served_s(self, since: float) -> float | None:
        """Add an entry behind every pair of list server and database worker.

        Returns:
            how long after ``since`` all of them were answered, seconds; None where one was not, or with an error.
        """
        round = self._chooser.round()
        wishes = [Wish(round, name, "add", f"{NAME}.{next(self._titles)}") for name in self._lists(round)]
        self._pipelining.until_s = time.monotonic() + SERVED_S
        asked = self._pipelining.ask_all(self._client, wishes, SERVED_S)
        served_s = time.monotonic() - since
        return None if any(isinstance(each.error, TodoMQError) for each in asked) else served_s

    def _lists(self, round: int) -> list[str]:
        """Return a list of each pair; without a cache's help, by its rule of placement."""
        found: dict[tuple[int, int], str] = {}
        for number in count():
            name = f"{NAME}/{round}/{number}"
            partition = partition_of(name.encode())
            worker = worker_of(partition, self._settings.database_workers)
            found.setdefault((self._homes[partition], worker), name)
            if len(found) == self._pairs:
                return list(found.values())
        raise AssertionError
