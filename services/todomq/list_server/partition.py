"""One owned partition: the epoch it is served under, and its list actors.

Owns: what its lists share with each other and with those of other partitions. Must not know: how it came to be owned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from todomq.errors import CorruptRecord
from todomq.list_server.recording import RecordedList, write_sessions

if TYPE_CHECKING:
    from todomq.list_server.actor import ListActor
    from todomq.list_server.hosting import Hosting


class Partition:
    """One owned partition: its epoch, its actors, and what they share with the others of this process.

    Attributes:
        number, epoch, worker: which partition it is, under which epoch it is owned, which database worker keeps it.
        damage: why it can't even be read; None where it can.
        releasing: whether it is being given away.
        actors: by the name of the list.
        waiting: those of them with requests that can't be served yet.
        to_sweep: those of which older generations are stored and no sweep has begun.
        gate, replies, lists_to_write, closed_batches, snapshots: the hosting's own, not copies: all partitions of a
            process write into the same batches, and what they answer leaves together.
    """

    __slots__ = (
        "actors", "closed_batches", "damage", "epoch", "gate", "lists_to_write", "number", "releasing", "replies",
        "snapshots", "to_sweep", "waiting", "worker",
    )  # fmt: skip

    def __init__(self, number: int, epoch: int, worker: int, hosting: Hosting) -> None:
        self.number = number
        self.epoch = epoch
        self.worker = worker
        self.damage: CorruptRecord | None = None
        self.gate = hosting.gates[worker]
        self.releasing = False
        self.actors: dict[str, ListActor] = {}
        self.replies = hosting.replies
        self.lists_to_write = hosting.lists_to_write
        self.closed_batches = hosting.closed_batches
        self.snapshots = hosting.snapshots
        self.waiting: dict[str, ListActor] = {}
        self.to_sweep: dict[str, RecordedList] = {}

    @property
    def uncommitted(self) -> bool:
        """Whether a write of any of its lists is not on disk yet."""
        return any(actor.uncommitted for actor in self.actors.values())

    def close_batch_if_full(self, now_ms: int) -> None:
        """Close a batch that has become large within the turn, so that it fits into a message.

        To be asked between two changes; the sessions belong with their changes.
        """
        if self.gate.is_batch_full():
            write_sessions(self.lists_to_write)
            batch = self.gate.close(now_ms)
            if batch is not None:
                self.closed_batches.append((self.worker, batch))

    def drop(self, actor: ListActor) -> None:
        """Let go of a list, of which nothing is uncommitted."""
        del self.actors[actor.name]
        self.waiting.pop(actor.name, None)
        self.to_sweep.pop(actor.name, None)
