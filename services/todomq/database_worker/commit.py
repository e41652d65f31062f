"""What is committed, in which order, by whom: the pure core of a database worker.

Owns: numbers of senders, epochs of partitions, the queue of what waits, the answers when a commit ends. Must not
know: sockets, threads, the clock, lists and entries. ``service.py`` feeds it; ``shard.py`` runs ``commit_group`` off
the loop and takes what ``ready`` returns.

One queue holds batches and claims in the order they came; beside it wait stores and gets, whose clients take turns. One
group is in flight; what comes meanwhile is the next one. Nothing is answered before its group is on disk.

Law 1: words and answers leave after the commit. Law 2: a batch is taken under the epoch that the last accepted claim
set; a partition whose batch names another is refused, the rest of the batch goes on. Law 3: a store is one atomic write
with its once-record, and a repeat changes nothing. Law 4: a worker takes only the next number of a sender. Law 6: what
waits is bounded per sender and for calls; a sender's surplus is dropped and wanted again once there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

from todomq.database_worker.call_turns import CallTurns
from todomq.database_worker.group import Answered, Change, Get, Item, TakenBatch, Told
from todomq.database_worker.records import RESERVED, epoch_key, mark_key, packed_number
from todomq.database_worker.senders import Sender
from todomq.database_worker.storage import Write
from todomq.errors import NOT_APPLIED, DeadlineExceeded, InvalidRequest, Overloaded, TodoMQError
from todomq.protocol import limits
from todomq.protocol.messages import COMMITTED, EPOCH_STEP, FAILED, WANTED, Committed, Writes

GROUP_BYTES = 2 * limits.BATCH_BYTES
GROUP_ITEMS = 4_096
GETS_LEAST = 64
"""How many gets a group takes after one whose gets found much. The rest must be put back, and the longer the queue, the
more that costs."""
SENDER_WAITING_BYTES = 16 * limits.BATCH_BYTES
CALL_BYTES = 16 * limits.MIB
CALL_ITEMS = 16_384
SENDERS = 1_024


class Commits:
    """The queue of one shard and everything known about its senders and owners.

    Attributes:
        incarnation: of this worker.
        counts: what was done since it began.
        marks: of each sender the last batch that is on disk.
    """

    def __init__(self, incarnation: bytes, partitions: Iterable[int], epochs: dict[int, int]) -> None:
        """Begin.

        Args:
            incarnation: of this worker; batches for another are dropped.
            partitions: those that belong to this shard.
            epochs: what storage holds.
        """
        self.incarnation = incarnation
        self._partitions = frozenset(partitions)
        self.counts = {"commits": 0, "failed_commits": 0, "committed_bytes": 0, "batches": 0, "dropped": 0, "fenced": 0}
        self._epochs = epochs
        self.marks: dict[bytes, int] = {}
        self._senders: dict[bytes, Sender] = {}
        self._queue: deque[TakenBatch | Change] = deque()
        self._calls = CallTurns()
        self._gets_most = GROUP_ITEMS
        self._in_flight: list[Item] = []
        self._call_bytes = 0
        self._call_items = 0
        self._words: list[Committed] = []
        self._answers: list[Answered] = []

    def depths(self) -> dict[str, int]:
        """Return what waits, in items and bytes."""
        in_batches = sum(sender.waiting_bytes for sender in self._senders.values())
        waiting = len(self._queue) + len(self._calls) + len(self._in_flight)
        return {"senders": len(self._senders), "waiting": waiting, "waiting_bytes": in_batches + self._call_bytes}

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._queue and not self._calls and not self._in_flight

    @property
    def is_in_flight(self) -> bool:
        """Whether a group is being committed."""
        return bool(self._in_flight)

    def hello(self, incarnation: bytes, next_number: int) -> bytes | None:
        """Take a sender's batches from ``next_number`` on: the lowest that it keeps, or its next if it keeps none.

        If the sender is known already, nothing that was taken of it is lost. After a failure this is how it says that
        it has given up all it kept; until then its batches fail (see ``senders.py``).

        Returns:
            the sender that had to be forgotten for this one: the one not heard for the longest time, of which nothing
            waits; None where there was room. A list server that is forgotten says hello again.

        Raises:
            Overloaded: too many senders, and something of each waits.
        """
        sender = self._senders.get(incarnation)
        if sender is not None:
            sender.greet(next_number)
            return None
        forgotten = None
        if len(self._senders) >= SENDERS:
            forgotten = next((name for name, known in self._senders.items() if not known.waiting_bytes), None)
            if forgotten is None:
                raise Overloaded(f"this worker takes batches from at most {SENDERS} senders")
            self.forget(forgotten)
        self._senders[incarnation] = Sender(next_number, next_number - 1)
        return forgotten

    def why_another(self, granted: Iterable[Sequence[int]]) -> str:
        """Return why this is not the shard that granted ``[partition, epoch]`` pairs; empty where it may be.

        A granted epoch was on disk before anybody heard of it, and epochs only grow.
        """
        for partition, epoch in granted:
            stored = self._epochs.get(partition, 0)
            if stored < epoch and partition in self._partitions:
                return f"partition {partition} was granted under epoch {epoch}, and epoch {stored} is stored"
        return ""

    def forget(self, incarnation: bytes) -> None:
        """Drop a sender that is gone; what it sent before is committed all the same."""
        self._senders.pop(incarnation, None)

    def take_batch(self, batch: Writes, size: int) -> None:
        """Queue a batch of ``size`` bytes if it is the sender's next; else say what is known of it or wanted."""
        sender = self._senders.get(batch.sender)
        if sender is None or batch.receiver != self.incarnation:
            self.counts["dropped"] += 1  # of another life; hello sorts it out
            return
        self._senders[batch.sender] = self._senders.pop(batch.sender)  # the last that was heard
        if batch.number < sender.next:
            self._repeat(sender, batch)
        elif sender.broken:
            self._say(batch.sender, batch.number, FAILED, [], "an earlier batch failed; hello is needed to go on")
        elif batch.number > sender.next:
            self.counts["dropped"] += 1
            sender.wants = not sender.starved
        elif sender.waiting_bytes + size > SENDER_WAITING_BYTES and sender.waiting_bytes:
            self.counts["dropped"] += 1
            sender.starved = True
        else:
            sender.next += 1
            sender.waiting_bytes += size
            self.counts["batches"] += 1
            self._queue.append(self._checked(batch, size))

    def refuse_batch(self, batch: Writes, text: str) -> None:
        """Say of a batch that it will not be written, nor any after it before hello: storage can't be opened."""
        sender = self._senders.get(batch.sender)
        if sender is None or batch.receiver != self.incarnation:
            self.counts["dropped"] += 1
        elif batch.number < sender.next:
            self._repeat(sender, batch)
        elif batch.number == sender.next and self._is_written(batch.sender, batch.number):
            sender.next += 1
            sender.settle(batch.number, failed=False)
            self._repeat(sender, batch)
        else:
            sender.give_up(batch.number)
            self._say(batch.sender, batch.number, NOT_APPLIED, [], text)

    def take_claim(self, partition: int, epoch: int, done: Told) -> None:
        """Queue a claim: granted iff its epoch is above the partition's; later batches are measured by it at once.

        The answer, [granted, stored epoch], leaves when all that came before is on disk, so it shows nothing that a
        crash could undo.

        Raises:
            InvalidRequest: the partition is not of this shard, or the epoch is too far above the stored one.
            Overloaded: too much waits.
        """
        if partition not in self._partitions:
            raise InvalidRequest(f"partition {partition} is not of this shard")
        stored = self._epochs.get(partition, 0)
        if epoch > stored + EPOCH_STEP:
            raise InvalidRequest(f"epoch {epoch} is over {EPOCH_STEP} above the stored one, {stored}")
        granted = epoch > stored
        writes: list[Write] = [(epoch_key(partition), packed_number(epoch))] if granted else []
        claim = Change(_size(writes), writes, None, done, [granted, max(epoch, stored)], is_claim=True)
        self._make_room(claim)
        self._queue.append(claim)
        if granted:
            self._epochs[partition] = epoch

    def take_change(
        self, writes: list[Write], once: bytes | None, done: Told | None, value: Any, client: bytes = b""
    ) -> None:
        """Queue writes that are committed together, or not at all where ``once`` is stored already.

        Raises:
            Overloaded: too much waits.
        """
        change = Change(_size(writes), writes, once, done, value, client)
        self._make_room(change)
        self._calls.add(change)

    def take_get(self, key: bytes, done: Told, client: bytes = b"", until_ms: float = inf) -> None:
        """Queue a read of a key that changes write; it sees its client's before it and none behind it.

        Where its time is over before its turn comes, it is refused.

        Raises:
            Overloaded: too much waits.
        """
        get = Get(len(key), key, done, client, until_ms)
        self._make_room(get)
        self._calls.add(get)

    def next_group(self, now_ms: float = 0) -> list[Item]:
        """Return what to commit now, bounded in bytes and number; empty where nothing waits or a group is in flight.

        Batches and claims stand first: what a commit leaves of a group are stores and gets, which wait again.
        """
        if self._in_flight:
            return []
        group, size = self._in_flight, 0
        while self._queue and len(group) < GROUP_ITEMS and (not group or size + self._queue[0].size <= GROUP_BYTES):
            group.append(self._queue.popleft())
            size += group[-1].size
        gets = 0
        while self._calls and len(group) < GROUP_ITEMS and gets < self._gets_most and size < GROUP_BYTES:
            item = self._calls.take()
            if isinstance(item, Get):
                if item.until_ms < now_ms:
                    self._answers.append(Answered(item.done, DeadlineExceeded("its deadline passed before its turn")))
                    self._release([item])
                    continue
                gets += 1
            group.append(item)
            size += item.size
        return list(group)

    def committed(self, outcomes: list[Any]) -> None:
        """The group in flight is on disk, but for what was refused: its words and answers may leave.

        Args:
            outcomes: what ``commit_group`` returned; what it left of the group is first in the next one.
        """
        taken, left = self._in_flight[: len(outcomes)], self._in_flight[len(outcomes) :]
        self._in_flight = []
        self._gets_most = GETS_LEAST if left else min(2 * self._gets_most, GROUP_ITEMS)
        # What is left begins with a get; whatever is behind it is left as well.
        self._calls.put_back([item for item in left if not isinstance(item, TakenBatch)])
        self.counts["commits"] += 1
        self.counts["committed_bytes"] += sum(item.size for item in taken)
        refusals: dict[bytes, str] = {}
        for item, outcome in zip(taken, outcomes, strict=True):
            if isinstance(item, TakenBatch):
                if outcome is None or item.fault:
                    if item.writes:
                        self.marks[item.sender] = max(item.number, self.marks.get(item.sender, 0))
                    self._settle(item, item.fault)
                else:
                    refusals[item.sender] = outcome
                    self._settle(item, outcome, NOT_APPLIED)
            elif item.done is not None:
                self._answers.append(Answered(item.done, outcome))
        self._release(taken)
        if refusals:
            self._give_up_behind(refusals)

    def failed(self, error: TodoMQError) -> None:
        """The group in flight is not known to be on disk: it and all that waits behind it has failed.

        Nothing may be taken in until ``reopened``: until then the epochs of claims that failed stay in force here.
        """
        self.counts["failed_commits"] += 1
        failed, self._in_flight = self._in_flight, []
        self._give_up(failed + self._take_waiting(), error, FAILED)

    def give_up_waiting(self, error: TodoMQError) -> None:
        """What waits is never written. No group may be in flight: what a commit leaves of it would wait again."""
        self._give_up(self._take_waiting(), error, NOT_APPLIED)

    def _take_waiting(self) -> list[Item]:
        waiting = [*self._queue, *self._calls.take_all()]
        self._queue.clear()
        return waiting

    def _give_up(self, items: list[Item], error: TodoMQError, outcome: str) -> None:
        for item in items:
            if isinstance(item, TakenBatch) and self._is_written(item.sender, item.number):
                self._settle(item, item.fault)
            elif isinstance(item, TakenBatch):
                self._settle(item, item.fault or error.text, outcome)
                if item.sender in self._senders:
                    self._senders[item.sender].broken = True
            elif item.done is not None:
                self._answers.append(Answered(item.done, error))
        self._release(items)

    def reopened(self, epochs: dict[int, int], marks: dict[bytes, int]) -> None:
        """Go on, with what storage holds; senders that did not fail hear what is wanted of them.

        Args:
            epochs: of the partitions.
            marks: of each sender the last batch that is on disk.
        """
        self._epochs = epochs
        self.marks = marks
        for sender in self._senders.values():
            sender.wants = True

    def forget_marks(self, senders: Iterable[bytes]) -> None:
        """Delete the marks of senders that have written nothing for long; of one that is greeted it stays.

        Raises:
            Overloaded: too much waits.
        """
        gone = [sender for sender in senders if sender not in self._senders]
        writes: list[Write] = [(mark_key(sender), None) for sender in gone]
        if writes:
            change = Change(_size(writes), writes, None, None, None)
            self._make_room(change)
            self._queue.append(change)  # among the batches: one that comes now writes its mark behind this
        for sender in gone:
            self.marks.pop(sender, None)

    def ready(self) -> tuple[list[Committed], list[Answered]]:
        """Return and forget the words to senders and the answers to calls that may leave now."""
        for incarnation, sender in self._senders.items():
            if sender.wants and not sender.broken:
                self._words.append(Committed(incarnation, self.incarnation, sender.next, sender.next, WANTED, [], ""))
            sender.wants = False
        words, answers = self._words, self._answers
        self._words, self._answers = [], []
        return words, answers

    def _is_written(self, sender: bytes, number: int) -> bool:
        """Tell whether a batch is on disk by its sender's mark: it was sent again."""
        return number <= self.marks.get(sender, 0)

    def _make_room(self, item: Change | Get) -> None:
        """Count an item in, or raise Overloaded."""
        if self._call_items >= CALL_ITEMS or self._call_bytes + item.size > CALL_BYTES:
            raise Overloaded("too many calls wait for this database worker")
        self._call_items += 1
        self._call_bytes += item.size

    def _checked(self, batch: Writes, size: int) -> TakenBatch:
        """Return the batch as it goes into the queue, with those of its writes that its epochs allow."""
        foreign = [partition for partition, _ in batch.epochs if partition not in self._partitions]
        if foreign:
            return _faulty(batch, size, f"partition {foreign[0]} is not of this shard")
        if not RESERVED.isdisjoint([key[:1] for key in batch.keys]):
            return _faulty(batch, size, "a batch writes a key that is the worker's own")
        writes = list(zip(batch.keys, batch.values))
        refused = self._fenced(batch)
        if refused:
            fenced = {partition for _, partition, _ in refused}
            writes = [write for partition, write in zip(batch.partitions, writes) if partition not in fenced]
        return TakenBatch(size, writes, batch.sender, batch.number, refused, "")

    def _fenced(self, batch: Writes) -> list[list[int]]:
        epoch_of = self._epochs.get
        old = [partition for partition, epoch in batch.epochs if epoch != epoch_of(partition, 0)]
        self.counts["fenced"] += len(old)
        return [[batch.number, partition, epoch_of(partition, 0)] for partition in old]

    def _repeat(self, sender: Sender, batch: Writes) -> None:
        """Say again what became of a batch; for one that still waits the word is yet to come."""
        number, became = batch.number, sender.became_of(batch.number)
        if became == FAILED:
            self._say(batch.sender, number, FAILED, [], "this batch failed when it was sent first")
        elif became == COMMITTED:
            # Whether it was fenced then is not kept. Whoever lost the partition since must hear so in any case.
            self._say(batch.sender, number, COMMITTED, self._fenced(batch), "")

    def _settle(self, batch: TakenBatch, fault: str, outcome: str = FAILED) -> None:
        sender = self._senders.get(batch.sender)
        if sender is None:
            return
        sender.settle(batch.number, failed=bool(fault))
        self._say(batch.sender, batch.number, outcome if fault else COMMITTED, batch.refused, fault)

    def _give_up_behind(self, refusals: dict[bytes, str]) -> None:
        """Give up what else waits of senders that had a batch refused: it builds on that batch."""
        queue, self._queue = self._queue, deque()
        behind: list[TakenBatch] = []
        for item in queue:
            if isinstance(item, TakenBatch) and item.sender in refusals:
                behind.append(item)
                self._settle(item, item.fault or refusals[item.sender], NOT_APPLIED)
            else:
                self._queue.append(item)
        for name in refusals.keys() & self._senders.keys():
            self._senders[name].broken = True
        self._release(behind)

    def _say(self, sender: bytes, number: int, outcome: str, refused: list[list[int]], text: str) -> None:
        """Add a word, as part of the sender's last one where it continues that."""
        for at in range(len(self._words) - 1, -1, -1):
            word = self._words[at]
            if word.sender == sender:
                if word.last == number - 1 and word.outcome == outcome and word.text == text:
                    self._words[at] = word._replace(last=number, refused=word.refused + refused)
                    return
                break
        self._words.append(Committed(sender, self.incarnation, number, number, outcome, refused, text))

    def _release(self, items: Iterable[Item]) -> None:
        """Give back the room that items took, and ask starved senders to go on."""
        for item in items:
            if isinstance(item, TakenBatch):
                sender = self._senders.get(item.sender)
                if sender is not None:
                    sender.waiting_bytes = max(0, sender.waiting_bytes - item.size)  # it may have been forgotten since
                    sender.wants = sender.wants or sender.starved
                    sender.starved = False
            else:
                self._call_items -= 1
                self._call_bytes -= item.size


def _faulty(batch: Writes, size: int, fault: str) -> TakenBatch:
    return TakenBatch(size, [], batch.sender, batch.number, [], fault)


def _size(writes: list[Write]) -> int:
    return sum(len(key) + len(data or b"") for key, data in writes)
