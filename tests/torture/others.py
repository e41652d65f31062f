"""Clients that work at a fixed rate: ``python -m torture.others ENDPOINT SECONDS NAME RECORD``.

Owns: what is asked and how long each request took, written to RECORD as seconds in JSON. It is a process of its own, so
that what it measures is not the work of whoever compares. Must not know: what goes on beside it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from todomq import Client

CLIENTS = 4
INTERVAL_S = 0.04


def work(endpoint: str, name: str, until: float, took: list[float]) -> None:
    """Add to one list, one request at a time, at a fixed rate where the answers allow it."""
    with Client(endpoint, deadline_s=20.0) as todo:
        while time.monotonic() < until:
            begun = time.monotonic()
            todo.todo_list(name).add_entry("milk")
            took.append(time.monotonic() - begun)
            time.sleep(max(0.0, INTERVAL_S - took[-1]))


def main(endpoint: str, seconds: str, name: str, record: str) -> None:
    """Work for so long and write the record."""
    took: list[float] = []
    until = time.monotonic() + float(seconds)
    threads = [
        threading.Thread(target=work, args=(endpoint, f"{name} {number}", until, took)) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Path(record).write_text(json.dumps(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
