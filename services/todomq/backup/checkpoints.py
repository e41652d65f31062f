"""The shards of a running stack as they are at one moment each, asked of its workers.

Owns: the asking, the removal afterwards. Must not know: what is done with them. Works on the machine that has the data.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from todomq.client import Client, Via
from todomq.database_worker.checkpoints import CHECKPOINTS, hold_checkpoint
from todomq.database_worker.storage.manifest import read_manifest, shard_name
from todomq.errors import TodoMQError, Unavailable

CHECKPOINT_S = 60.0

Checkpoints = dict[int, Path | TodoMQError]
"""By worker: the directory of its checkpoint, or why there is none."""


@contextmanager
def checkpoints(todo: Client, data: Path) -> Iterator[Checkpoints]:
    """Give a checkpoint of every shard; each holds every change that was acknowledged before this call.

    Args:
        todo: a client of the stack.
        data: where the stack keeps its data.

    Raises:
        CorruptRecord, NewerFormat: the manifest can't be read.
        Unavailable: the stack that answers keeps its data elsewhere.
    """
    name = f"{int(time.time())}-{os.getpid()}"
    made: Checkpoints = {}
    held: list[int] = []
    workers = range(1, read_manifest(data)["pool_size"] + 1)
    try:
        for worker in workers:
            made[worker] = checkpoint = _checkpoint(todo, data, worker, name)
            if isinstance(checkpoint, Path):
                held.append(hold_checkpoint(checkpoint))
        yield made
    finally:
        for descriptor in held:
            os.close(descriptor)
        for worker in workers:  # also if its worker did not answer in time
            shutil.rmtree(data / shard_name(worker) / CHECKPOINTS / name, ignore_errors=True)


def _checkpoint(todo: Client, data: Path, worker: int, name: str) -> Path | TodoMQError:
    try:
        answer = todo.call(Via(["database_worker", worker]), "checkpoint", name, deadline_s=CHECKPOINT_S)
    except TodoMQError as error:
        return error
    directory = Path(str(answer))
    shard = (data / shard_name(worker)).resolve()  # it may be a link to another disk
    if not directory.resolve().is_relative_to(shard) or not directory.is_dir():
        elsewhere = directory.parents[2] if len(directory.parents) > 2 else directory
        raise Unavailable(f"the stack that answers keeps its data in {elsewhere}, not in {data}: "
                          "set TODOMQ_HOME to its home, on its machine", retryable=False)  # fmt: skip
    return directory
