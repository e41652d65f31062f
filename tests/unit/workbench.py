"""A list server's hosting on a disk in memory: the worker's part played step by step, so that a test can stop anywhere.

Several benches may share one disk: then each is a list server, and the disk fences those whose epoch is old.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from todomq.errors import NOT_APPLIED, UNKNOWN, TodoMQError
from todomq.list_server.actor import ListActor
from todomq.list_server.gate import Batch, Reply
from todomq.list_server.hosting import Hosting, Read
from todomq.list_server.operations import CHANGES
from todomq.list_server.partition import Partition
from todomq.list_server.remains import Remains
from todomq.protocol import messages
from todomq.protocol.codec import unpack
from todomq.protocol.messages import FIRST_EPOCH
from todomq.protocol.partitions import PARTITIONS, partition_of
from todomq.runtime.callee import Answer

ROUTER = b"router"
START_MS = 1_800_000_000_000
_ids = count(1)


class Disk:
    """What the database workers of one stack hold: records and epochs, as left by an owner of every partition."""

    def __init__(self, held: dict[bytes, bytes] | None = None) -> None:
        self.records = held or {}
        self.epochs = dict.fromkeys(range(PARTITIONS), FIRST_EPOCH)

    @classmethod
    def new(cls) -> Disk:
        """Return the disk of a stack of which nobody has owned anything yet."""
        disk = cls()
        disk.epochs.clear()
        return disk

    def claim(self, partition: int) -> int:
        self.epochs[partition] = self.epochs.get(partition, 0) + 1
        return self.epochs[partition]

    def apply(self, batch: Batch) -> list[list[int]]:
        """Apply one batch; return what was refused for an old epoch, as a worker tells it."""
        refused = []
        for partition, epoch in batch.epochs.items():
            if epoch != self.epochs.get(partition, 0):
                refused.append([batch.number, partition, self.epochs.get(partition, 0)])
        fenced = {partition for _, partition, _ in refused}
        for partition, key, value in zip(batch.partitions, batch.keys, batch.values, strict=True):
            if partition in fenced:
                continue
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        return refused

    def page(self, prefix: bytes, after: bytes | None, limit: int) -> tuple[list[bytes], bytes | None]:
        keys = sorted(key for key in self.records if key.startswith(prefix) and (after is None or key > after))
        pairs = [part for key in keys[:limit] for part in (key, self.records[key])]
        return pairs, keys[limit - 1] if len(keys) > limit else None


class Bench:
    """One list server that owns every partition of its one worker."""

    def __init__(
        self, disk: Disk | None = None, *, idle_ms: int = 600_000, memory_bytes: int = 1 << 30, page: int = 3,
        owned: Iterable[int] = range(PARTITIONS),
    ) -> None:  # fmt: skip
        self.disk = disk or Disk()
        self.now_ms = START_MS
        self.steady_ms = 0
        self.hosting = Hosting(1, idle_ms, memory_bytes)
        self.gate = self.hosting.gates[1]
        self.replies: dict[int, Reply] = {}
        self.every_reply: list[Reply] = []
        self.sent: deque[Batch] = deque()
        self.reads: deque[Read] = deque()
        self.looks: deque[tuple[bytes, bytes | None, Callable[[Answer], None]]] = deque()
        self.remains = Remains(self.hosting, {1: self._take_look})
        self.page = page
        for partition in owned:
            self.own(partition)

    def own(self, partition: int) -> int:
        """Claim a partition and serve it; return its epoch."""
        epoch = self.disk.claim(partition)
        self.hosting.own(partition, epoch)
        return epoch

    def partition(self, name: str) -> Partition:
        partition = self.hosting.partitions[partition_of(name.encode())]
        assert partition is not None
        return partition

    def actor(self, name: str) -> ListActor:
        return self.partition(name).actors[name]

    # -- what a router does --------------------------------------------------------------------------------------------

    def send(
        self, name: str, operation: str, *arguments: Any, client: bytes = b"client", number: int | None = None,
        floor: int = 1, deadline_ms: int | None = None, epoch: int | None = None, packed: bytes | None = None,
    ) -> int:  # fmt: skip
        """Forward one request, with a body of that operation, or one that is packed already; return its id.

        Without a number a change is its client's first, and a read asks for the list as it is now.
        """
        if number is None:
            number = floor = 1 if operation in CHANGES else 0
        identifier = next(_ids)
        if epoch is None:
            owned = self.hosting.partitions[partition_of(name.encode())]
            epoch = 0 if owned is None else owned.epoch
        deadline_ms = self.now_ms + 5_000 if deadline_ms is None else deadline_ms
        body = messages.body(operation, *arguments) if packed is None else packed
        self.hosting.take(ROUTER, client, [[identifier, name, deadline_ms, body, number, floor, epoch]], self.now_ms)
        return identifier

    def ask(self, name: str, operation: str, *arguments: Any, **envelope: Any) -> Any:
        """Send, bring everything to an end, and return or raise the answer."""
        identifier = self.send(name, operation, *arguments, **envelope)
        self.settle()
        return self.answer(identifier)

    def answer(self, identifier: int) -> Any:
        """Return the answer that has left for a request.

        Raises:
            TodoMQError: the answer is an error. KeyError: none has left.
        """
        reply = self.replies[identifier]
        if reply.status == messages.ERROR:
            raise messages.read_error(reply.value)
        assert reply.status == messages.OK
        return unpack(reply.value)

    def error(self, identifier: int) -> TodoMQError:
        reply = self.replies[identifier]
        assert reply.status == messages.ERROR
        return messages.read_error(reply.value)

    # -- what a daemon does --------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """End a turn: batches go to the worker, replies leave, reads are asked for."""
        batches, replies, reads = self.hosting.ready(self.now_ms)
        self.sent += [batch for _, batch in batches]
        for reply in replies:
            assert reply.id not in self.replies, "a request is answered once"
            self.replies[reply.id] = reply
        self.every_reply += replies
        self.reads += reads

    def commit(self, batches: int | None = None) -> set[int]:
        """Commit what was sent (or so many batches of it); return the partitions that were lost."""
        lost: set[int] = set()
        for _ in range(len(self.sent) if batches is None else batches):
            batch = self.sent.popleft()
            lost |= self.hosting.committed(1, batch.number, self.disk.apply(batch))
        self.turn()
        return lost

    def fail(self, on_disk: int = 0) -> None:
        """Let the commit of what was sent fail, after so many of its batches did reach the disk."""
        for batch in list(self.sent)[:on_disk]:
            self.disk.apply(batch)
        self.sent.clear()
        self.hosting.failed(1, "the disk is full", UNKNOWN, self.steady_ms)
        self.turn()

    def refuse(self) -> None:
        """Let the worker refuse what was sent, for lack of room: none of it is on disk, nor will be."""
        self.sent.clear()
        self.hosting.failed(1, "the disk is full", NOT_APPLIED, self.steady_ms)
        self.turn()

    def read(self) -> None:
        """Answer the pages that were asked for."""
        while self.reads:
            asked = self.reads.popleft()
            asked.actor.is_being_read = True
            key, prefix, after = asked.wanted
            value = None if key is None else self.disk.records.get(key)
            pairs, last = self.disk.page(prefix, after, self.page)
            self.hosting.page_read(asked, value, pairs, last, self.now_ms)
        while self.looks:
            prefix, after, done = self.looks.popleft()
            done(Answer([None, *self.disk.page(prefix, after, self.page)], None))
        self.turn()

    def _take_look(
        self, operation: str, key: None, prefix: bytes, after: bytes | None, limit_bytes: int, *,
        done: Callable[[Answer], None],
    ) -> None:  # fmt: skip
        self.looks.append((prefix, after, done))

    def settle_reads(self) -> None:
        """Turn and read until only batches are under way."""
        self.turn()
        while self.reads:
            self.read()

    def tick(self, pass_ms: int = 50) -> None:
        self.now_ms += pass_ms
        self.steady_ms += pass_ms
        self.remains.tick(self.now_ms, self.steady_ms)
        self.hosting.tick(self.now_ms, self.steady_ms)
        self.turn()

    def settle(self) -> None:
        """Turn, commit and read until nothing is under way."""
        self.turn()
        for _ in range(1_000):
            if not self.sent and not self.reads and not self.looks:
                return
            self.commit()
            self.read()
        raise AssertionError("a thousand turns and still something under way")

    def settle_with_ticks(self, until: Callable[[], bool], pass_ms: int = 50) -> None:
        for _ in range(1_000):
            self.settle()
            if until():
                return
            self.tick(pass_ms)
        raise AssertionError("a thousand ticks and not yet so")


class Client:
    """One client's numbers for the lists of a bench: each change is answered before the next one is sent."""

    def __init__(self, name: bytes = b"client") -> None:
        self.name = name
        self.next: dict[str, int] = {}

    def change(self, bench: Bench, name: str, operation: str, *arguments: Any) -> Any:
        number = self.next.get(name, 1)
        try:
            return bench.ask(name, operation, *arguments, client=self.name, number=number, floor=number)
        finally:
            self.next[name] = number + 1

    def read(self, bench: Bench, name: str, operation: str, *arguments: Any) -> Any:
        number = self.next.get(name, 1)
        return bench.ask(name, operation, *arguments, client=self.name, number=number, floor=number)

    def entries(self, bench: Bench, name: str) -> list[list[Any]]:
        """Return all entries, page by page."""
        entries: list[list[Any]] = []
        cursor = None
        while True:
            page, cursor = self.read(bench, name, "entries", *([] if cursor is None else [cursor]))
            entries += page
            if cursor is None:
                return entries
