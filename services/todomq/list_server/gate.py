"""The gate between one list server and one database worker: what is not committed yet, and the replies it holds back.

Owns: the numbered batches of writes that are not committed, the replies behind them. Must not know: lists, sockets.
Keeps law 1: a reply that depends on a batch leaves only when the worker says that the batch is on disk.
While the worker has no room, changes are refused here before they touch a list; one is let through now and then.
"""

from __future__ import annotations

from msgspec import Struct

from todomq.errors import Overloaded, Unavailable
from todomq.protocol import limits
from todomq.protocol.messages import Writes

TRY_AGAIN_MS = 250
"""How long after a refusal, or the last try, the next change is let through to the worker."""
UNCOMMITTED_BYTES = 32 * limits.MIB
RECORD_OVERHEAD_BYTES = 32
HELD_BYTES = 32 * limits.MIB
"""Answers to reads that wait for batches at most."""
REPLY_OVERHEAD_BYTES = 160


class Reply(Struct, frozen=True, gc=False):
    """One reply to a router: its connection, its request's id, status, packed value, and the partition it is about."""

    peer: bytes
    id: int
    status: int
    value: bytes
    partition: int


class Batch:
    """Writes of a turn or of a part of it, in columns, and the replies behind them; it may only ask and write nothing.

    Attributes:
        epochs: under which epoch each partition is written or asked about.
        partitions, keys, values: of each write; a value of None deletes.
    """

    __slots__ = (
        "bytes", "closed_ms", "epochs", "expected_bytes", "held_bytes", "keys", "number", "partitions", "replies",
        "values",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.epochs: dict[int, int] = {}
        self.partitions = bytearray()
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []
        self.replies: list[Reply] = []
        self.bytes = 0
        self.expected_bytes = 0
        self.held_bytes = 0
        self.closed_ms = 0

    def as_sent(self, sender: bytes, receiver: bytes) -> Writes:
        """Return what a message carries of it, from one incarnation to another."""
        epochs = list(self.epochs.items())
        return Writes(sender, receiver, self.number, epochs, bytes(self.partitions), self.keys, self.values)


class Gate:
    """Batches to one worker, from the first that is not committed to the one that is still open.

    Attributes:
        committed: every batch up to this number is on disk, or was given up (``fail``): nothing waits for it.
        open: the batch that is written to.
        batches: those that were closed and not committed yet, by number.
    """

    def __init__(self) -> None:
        self.committed = 0
        self.open = Batch(1)
        self.batches: dict[int, Batch] = {}
        self.bytes = 0
        self.held_bytes = 0
        self._asked = 0
        self.why_refused = ""  # why the worker last refused to write; empty once it has written again
        self._may_try = True
        self._tries_at_ms = 0

    def refuse(self, text: str, steady_ms: int) -> None:
        """Take the word that the worker writes nothing at the moment."""
        self.why_refused = text
        self._may_try = False
        self._tries_at_ms = steady_ms + TRY_AGAIN_MS

    def check_may_try(self) -> None:
        """Let one change through after each pause while the worker refuses to write.

        Raises:
            Unavailable: another change has taken the try (``take_try``), or the pause is not over.
        """
        if self.why_refused and not self._may_try:
            raise Unavailable(self.why_refused)

    def take_try(self) -> None:
        """Note that a change goes to the worker: it is the one that is let through."""
        self._may_try = False

    def tick(self, steady_ms: int) -> None:
        """Let a change through again, ``TRY_AGAIN_MS`` after the worker refused, or got, the last one."""
        if self._may_try or steady_ms >= self._tries_at_ms:
            self._may_try = True
            self._tries_at_ms = steady_ms + TRY_AGAIN_MS

    def is_full(self) -> bool:
        """Whether further changes are to be refused until more is committed (law 6)."""
        return self.bytes > UNCOMMITTED_BYTES

    def is_batch_full(self) -> bool:
        """Whether the open batch is to be closed before the turn's end, so that it fits into a message."""
        batch = self.open
        return batch.bytes + batch.expected_bytes >= limits.BATCH_BYTES

    def expect(self, size: int) -> None:
        """Reserve ``size`` bytes of the open batch for what is to be written before it is closed."""
        self.open.expected_bytes += size

    def write(self, partition: int, epoch: int, key: bytes, value: bytes | None) -> int:
        """Put a record into the open batch (None deletes it); return the batch's number."""
        batch = self.open
        batch.epochs[partition] = epoch
        batch.partitions.append(partition)
        batch.keys.append(key)
        batch.values.append(value)
        size = len(key) + RECORD_OVERHEAD_BYTES
        if value is not None:
            size += len(value)
        batch.bytes += size
        self.bytes += size
        return batch.number

    def take_back(self, size: int) -> None:
        """Take back the latest writes until the open batch has ``size`` bytes again; partitions it names stay named."""
        batch = self.open
        while batch.bytes > size:
            batch.partitions.pop()
            taken = _size(batch.keys.pop(), batch.values.pop())
            batch.bytes -= taken
            self.bytes -= taken

    def ask(self, partition: int, epoch: int) -> None:
        """Have the open batch name the partition without writing to it: the worker refuses it if the epoch is old."""
        self.open.epochs[partition] = epoch
        self._asked = self.open.number

    @property
    def is_asking(self) -> bool:
        """Whether the last batch that asks has not been answered yet."""
        return self._asked > self.committed

    def hold(self, number: int, reply: Reply) -> Batch:
        """Hold a reply until the batch of this number, which is not committed, is; return that batch."""
        batch = self.open
        if number != batch.number:
            batch = self.batches[number]
        batch.replies.append(reply)
        return batch

    def hold_answer(self, number: int, reply: Reply) -> None:
        """Hold the answer to a read, of which there may be any number.

        Those to changes are bounded by what they write, and by what the router lets one connection have unanswered.

        Raises:
            Overloaded: too much is held already.
        """
        size = len(reply.value) + REPLY_OVERHEAD_BYTES
        if self.held_bytes + size > HELD_BYTES:
            raise Overloaded("too many answers wait for the database worker")
        self.hold(number, reply).held_bytes += size
        self.held_bytes += size

    def close(self, now_ms: int) -> Batch | None:
        """Close the open batch and return it to be sent; None where it names no partition."""
        batch = self.open
        if not batch.epochs:
            return None
        batch.closed_ms = now_ms
        self.batches[batch.number] = batch
        self.open = Batch(batch.number + 1)
        return batch

    def commit(self, last: int, refused: list[list[int]]) -> list[Reply]:
        """Take the word that every batch up to ``last`` is on disk, but for the refused ``[number, partition, epoch]``.

        Returns:
            the replies that may leave now; those about a refused partition never leave.
        """
        lost = {(number, partition) for number, partition, _ in refused}
        released: list[Reply] = []
        for number in [number for number in self.batches if number <= last]:
            batch = self.batches.pop(number)
            self.bytes -= batch.bytes
            self.held_bytes -= batch.held_bytes
            if self.why_refused and batch.bytes:
                self.why_refused = ""
            if lost:
                released += [reply for reply in batch.replies if (number, reply.partition) not in lost]
            else:
                released += batch.replies
        self.committed = max(self.committed, last)
        return released

    def fail(self) -> list[Reply]:
        """Give up every batch, the open one too: none is known to be on disk. Return the replies they held."""
        held = [reply for batch in (*self.batches.values(), self.open) for reply in batch.replies]
        self.batches.clear()
        self.bytes = self.held_bytes = 0
        self.committed = self.open.number
        self.open = Batch(self.open.number + 1)
        return held

    def forget(self, partition: int) -> None:
        """Another list server owns the partition: nothing of it is written or answered here any more."""
        for batch in (*self.batches.values(), self.open):
            batch.replies = [reply for reply in batch.replies if reply.partition != partition]
            if batch.epochs.pop(partition, None) is None:
                continue
            if not batch.epochs and batch is self.open and self._asked == batch.number:
                self._asked = self.committed  # it is not sent: nobody answers
            writes = list(zip(batch.partitions, batch.keys, batch.values))
            batch.partitions = bytearray([of for of, _, _ in writes if of != partition])
            batch.keys = [key for of, key, _ in writes if of != partition]
            batch.values = [value for of, _, value in writes if of != partition]
            size = sum([_size(key, value) for of, key, value in writes if of == partition])
            batch.bytes -= size
            self.bytes -= size


def _size(key: bytes, value: bytes | None) -> int:
    return len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES
