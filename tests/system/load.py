"""Clients that note what was acknowledged while something happens to a stack, and what the machine itself held up."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from stacks import wait_until

from todomq import Client, errors

DAEMONS = [
    "registry", "cache", "router", "list_server-1", "list_server-2",
    "database_worker-1", "database_worker-2", "database_worker-3",
]  # fmt: skip


class Stalls:
    """How long the machine itself held up somebody who wanted to run: that much a request may take longer."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            time.sleep(0.005)
            self.longest_s = max(self.longest_s, time.monotonic() - begun - 0.005)


def held_up_s(pid: int) -> float:
    """Return for how long all threads of a process have waited for a processor (schedstat of proc(5)).

    A start is many such waits, of which ``Stalls`` sees only the longest.
    """
    return sum(int(path.read_text().split()[1]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


class Load:
    """Clients that add entries one after another, each to lists of its own, and note what was acknowledged when."""

    def __init__(self, endpoint: str, name: str, clients: int = 4, lists: int = 12) -> None:
        self.acknowledged: dict[str, list[str]] = {}
        self.answered: list[tuple[float, float]] = []
        self.failures: list[errors.TodoMQError] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(endpoint, [f"{name} {number} {place}" for place in range(lists)]))
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.answered) > 50, 20.0, "the load runs")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)

    def _run(self, endpoint: str, lists: list[str]) -> None:
        with Client(endpoint, deadline_s=20.0) as todo:
            count = 0
            while not self._stop.is_set():
                name = lists[count % len(lists)]
                title = f"entry {count}"
                count += 1
                begun = time.monotonic()
                try:
                    todo.todo_list(name).add_entry(title)
                except errors.TodoMQError as error:
                    self.failures.append(error)
                else:
                    self.acknowledged.setdefault(name, []).append(title)
                    self.answered.append((begun, time.monotonic()))

    def slowest_s(self, since: float) -> float:
        """Return how long the slowest request took that was under way at ``since`` or began after it."""
        return max(end - begun for begun, end in list(self.answered) if end >= since)

    def check(self, endpoint: str) -> None:
        """Check that every list holds what was acknowledged, in that order and once."""
        with Client(endpoint) as todo:
            for name, titles in self.acknowledged.items():
                entries = todo.todo_list(name).entries()
                assert [entry.title for entry in entries] == titles
                assert [entry.id for entry in entries] == list(range(1, len(titles) + 1))
