"""Flips bytes in the files of a shard, as the last thing of a run: what is damaged must be reported, the rest goes on.

Owns: which byte is flipped, what must be true then. Must not know: what the files hold.
The design (law 8): a damaged shard says ``CorruptRecord`` and names the file, the others are served, the stack stays
up; never fewer entries without a word. A flip in what nothing lives in any more harms nobody and need not be reported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from stacks import RunningStack

from todomq import Client, Entry
from todomq.errors import CorruptRecord, TodoMQError
from todomq.protocol.partitions import partition_of, worker_of

KINDS = ("*.log", "*.sst", "MANIFEST-*")
LISTS = 48
ENTRIES = 5
READ_S = 15.0
DECIDED_S = 30.0


class Flip(NamedTuple):
    """One byte that was flipped, and what came of it."""

    file: str
    offset: int
    reported: int
    """Lists of the shard that said CorruptRecord."""
    unharmed: int
    """Lists of the shard that are as they were."""
    trouble: str


def flip_bytes(stack: RunningStack, random: Random, flips: int, say: Callable[[str], None]) -> list[Flip]:
    """Flip so many bytes, each in another shard while there are any; return what came of each."""
    workers = stack.control.settings.database_workers
    names = [f"flip {number}" for number in range(LISTS)]
    untouched = set(names)
    with Client(stack.endpoint) as todo:
        for name in names:
            todo.todo_list(name).add_entries([(f"entry {number}", None) for number in range(ENTRIES)])
        done = []
        for number in random.sample(range(1, workers + 1), min(flips, workers)):
            theirs = [name for name in names if worker_of(partition_of(name.encode()), workers) == number]
            untouched.difference_update(theirs)
            done.append(_flip(stack, todo, random, number, theirs, sorted(untouched)))
            say(f"flipped {done[-1]}")
    return done


def _flip(
    stack: RunningStack, todo: Client, random: Random, worker: int, theirs: list[str], untouched: list[str]
) -> Flip:
    """Flip a byte in the shard of ``theirs``; ``untouched`` are lists of shards in which none was flipped yet."""
    directory = next((stack.home / "data").rglob(f"*{worker}/rocksdb"))
    kind = random.choice([pattern for pattern in KINDS if _holding(directory, pattern)])
    file = random.choice(_holding(directory, kind))
    offset = random.randrange(file.stat().st_size)
    before = {name: pid for name, pid in stack.pids().items() if not name.endswith(f"database_worker-{worker}")}
    pid = stack.pid(f"database_worker-{worker}")
    os.kill(pid, signal.SIGSTOP)
    _flip_byte(file, offset, 1 << random.randrange(8))
    os.kill(pid, signal.SIGKILL)
    for name in stack.daemons:  # what they know of these lists is to come from the disk
        if name.startswith("list_server"):
            stack.kill(name)
            before.pop(name, None)
    answers = _entries(todo, [*theirs, *untouched])
    said = [answers[name] for name in theirs]
    whole = [f"entry {number}" for number in range(ENTRIES)]
    reported = sum(type(answer) is CorruptRecord for answer in said)
    unharmed = sum(answer == whole for answer in said)
    troubles = [f"{name!r} answers {answer}" for name, answer in zip(theirs, said) if _is_wrong(answer, whole)]
    troubles += [f"{name!r} of another shard answers {answers[name]}" for name in untouched if answers[name] != whole]
    after = stack.pids()
    troubles += [f"{name} is another process" for name, pid in before.items() if after.get(name) != pid]
    return Flip(str(file.relative_to(stack.home)), offset, reported, unharmed, "; ".join(troubles[:3]))


def _holding(directory: Path, pattern: str) -> list[Path]:
    return [file for file in sorted(directory.glob(pattern)) if file.stat().st_size]


def _is_wrong(answer: Any, whole: list[str]) -> bool:
    if type(answer) is CorruptRecord:
        return "/" not in answer.text  # it names no file
    return bool(answer != whole)


def _entries(todo: Client, names: list[str]) -> dict[str, list[str] | TodoMQError]:
    """Return the titles of each list, or the error that the service settles on."""
    answers: dict[str, list[str] | TodoMQError] = {}
    give_up = time.monotonic() + DECIDED_S
    while len(answers) < len(names):
        left = [name for name in names if name not in answers]
        futures: dict[str, Future[list[Entry]]] = {}
        with contextlib.suppress(ExceptionGroup), todo.pipeline() as pipeline:
            for name in left:
                futures[name] = pipeline.todo_list(name).entries(deadline_s=READ_S)
        for name, future in futures.items():
            error = future.exception()
            if error is None:
                answers[name] = [entry.title for entry in future.result()]
            elif isinstance(error, CorruptRecord) or (isinstance(error, TodoMQError) and time.monotonic() > give_up):
                answers[name] = error
    return answers


def _flip_byte(file: Path, offset: int, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ bit]))
        opened.flush()
        os.fsync(opened.fileno())
