"""One owned partition: the epoch it is served under, and its list actors.

Owns: what its lists share with each other and with those of other partitions; what is known of lists that are not in
memory. Must not know: how it came to be owned.
Law 8: a list is taken for new, and not looked for in storage, only where nothing of it can be stored. A worker grants
the first epoch only where there was no owner before: nothing is stored then, so whatever is stored later was written
here, by an actor that is in memory or was dropped. Law 2: that is believed once the worker has said, after the grant
and after any doubt, that no other has claimed the partition since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from todomq.errors import TodoMQError
from todomq.protocol.messages import FIRST_EPOCH

if TYPE_CHECKING:
    from todomq.list_server.actor import ListActor
    from todomq.list_server.outgoing import Outgoing
    from todomq.list_server.recording import RecordedList
    from todomq.list_server.snapshots import Snapshots
    from todomq.protocol.forgetting_clock import ForgettingClock


NAMES_KEPT = 256
"""Dropped lists that a partition's first owner remembers; past that it looks for every list, as later owners do."""


class Partition:
    """One owned partition: its epoch, its actors, and what they share with the others of this process.

    Attributes:
        number, epoch, worker: which partition it is, under which epoch it is owned, which database worker keeps it.
        refusal: why it can't be claimed, so that everything is refused; None where it is claimed.
        doubted: the number of the batch that asked last, in doubt, whether it is owned still.
        releasing: whether it is being given away.
        actors: by the name of the list.
        waiting: those of them with requests that can't be served yet.
        to_sweep: those of which older generations are stored and no sweep has begun.
        gate, replies, lists_to_write: those of all partitions of the process, not copies: they write into the same
            batches, and what they answer leaves together.
        snapshots, forgetting: also of the whole process.
    """

    __slots__ = (
        "_dropped", "_outgoing", "actors", "doubted", "epoch", "forgetting", "gate", "lists_to_write", "number",
        "refusal", "releasing", "replies", "snapshots", "to_sweep", "waiting", "worker",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        epoch: int,
        worker: int,
        outgoing: Outgoing,
        snapshots: Snapshots,
        forgetting: ForgettingClock,
        refusal: TodoMQError | None = None,
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.worker = worker
        self.refusal = refusal
        self.gate = outgoing.gates[worker]
        self.doubted = 0
        self.releasing = False
        self.actors: dict[str, ListActor] = {}
        self.replies = outgoing.replies
        self.lists_to_write = outgoing.lists_to_write
        self.snapshots = snapshots
        self.forgetting = forgetting
        self._outgoing = outgoing
        self.waiting: dict[str, ListActor] = {}
        self.to_sweep: dict[str, RecordedList] = {}
        self._dropped: set[str] | None = set() if epoch == FIRST_EPOCH and refusal is None else None

    @property
    def uncommitted(self) -> bool:
        """Whether a write of any of its lists is not on disk yet."""
        return any(actor.uncommitted for actor in self.actors.values())

    def is_to_be_looked_for(self, name: str) -> bool:
        """Tell whether a list that is not in memory may be stored, or its worker is in trouble, which a load shows."""
        return self._dropped is None or name in self._dropped or bool(self.gate.why_refused)

    def must_look_for(self, name: str) -> None:
        """From now on look in storage for a list that is asked for and not in memory."""
        if self._dropped is not None:
            self._dropped.add(name)
            if len(self._dropped) > NAMES_KEPT:
                self._dropped = None

    def must_look_for_all(self) -> None:
        """From now on look in storage for every such list: take none for new."""
        self._dropped = None

    def doubt(self) -> None:
        """Ask whether it is still owned; no list that is in memory, or taken for new, answers before that is known."""
        self.gate.ask(self.number, self.epoch)
        self.doubted = self.gate.open.number
        for actor in self.actors.values():
            actor.last_batch = self.doubted

    @property
    def is_doubted(self) -> bool:
        """Whether the worker has yet to say, since ``doubt``, that it is owned still."""
        return self.doubted > self.gate.committed

    def close_batch_if_full(self, now_ms: int) -> None:
        """Close a batch that has become large within the turn, so that it fits into a message.

        To be called between two changes only: sessions go into the same batch as their changes.
        """
        if self.gate.is_batch_full():
            self._outgoing.close_batch(self.worker, now_ms)

    def drop(self, actor: ListActor) -> None:
        """Let go of a list, of which nothing is uncommitted."""
        if actor.record is not None or actor.sessions:
            self.must_look_for(actor.name)
        del self.actors[actor.name]
        self.waiting.pop(actor.name, None)
        self.to_sweep.pop(actor.name, None)
