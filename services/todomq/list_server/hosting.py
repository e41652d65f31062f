"""The hosting of many list actors: partitions owned, lists in memory from their first use until idle.

Owns: which partitions this list server has under which epoch, the actors of each, what is read this turn. Must not
know: sockets, the storage engine, how partitions are placed, which lists are idle (``housekeeping.py``).

Keeps law 2 (a partition is served under its epoch only; once refused it is dropped and nothing of it is answered), law
5 (a list that fails or loads slowly is waited for by its own requests only) and law 6.
A list is loaded or dropped only when none of its writes is uncommitted, for a read may overtake a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import Any, NamedTuple
from zlib import crc32

from msgspec.structs import replace

from todomq.errors import NOT_APPLIED, UNKNOWN, CorruptRecord, TodoMQError, Unavailable, is_refusal_for_now
from todomq.list_server.actor import LOADING, QUARANTINED, READY, STOPPING, Asked, Crashed, ListActor
from todomq.list_server.gate import Batch, Reply
from todomq.list_server.housekeeping import Housekeeping
from todomq.list_server.loading import Loading, Wanted
from todomq.list_server.outgoing import Outgoing
from todomq.list_server.partition import Partition
from todomq.list_server.short_ways import PLAIN_ADD, add_plainly, read_again
from todomq.list_server.snapshots import Snapshots
from todomq.list_server.sweeping import Sweeping
from todomq.protocol import messages
from todomq.protocol.forgetting_clock import ForgettingClock
from todomq.protocol.messages import BODY, EPOCH, FIRST_EPOCH, ID, TARGET
from todomq.protocol.partitions import PARTITIONS, worker_of

SWEEPS_A_STEP = 128
FREED_MOST = 2_000
"""Lists that one step frees: each takes 2 us, and requests to lists that stay must not wait for all of them."""


class Read(NamedTuple):
    """A page to be read from a worker for a list that loads, or whose old generations are swept."""

    worker: int
    actor: ListActor
    job: Loading | Sweeping
    wanted: Wanted


class Hosting:
    """Everything one list server keeps in memory."""

    def __init__(self, workers: int, idle_ms: int, memory_bytes: int) -> None:
        self._outgoing = outgoing = Outgoing(workers)
        self.gates, self.replies = outgoing.gates, outgoing.replies
        self.partitions: list[Partition | None] = [None] * PARTITIONS
        self.granted = [0] * PARTITIONS
        """The highest epoch of each partition that its worker has granted to anybody, as far as is known here."""
        self.reads: list[Read] = []
        self.listings: list[tuple[bytes, Any]] = []
        self.snapshots = Snapshots()
        self.forgetting = ForgettingClock()
        self.loads = self.crashes = 0
        self.housekeeping = Housekeeping(self.partitions, idle_ms, memory_bytes)
        self._workers = workers
        self._ended = 0
        self._activations = count(1)
        self._stopping: list[ListActor] = []
        self._gone: list[Partition] = []

    @property
    def lists(self) -> int:
        """How many lists are in memory."""
        return self.housekeeping.lists

    @property
    def drops(self) -> int:
        """How many activations have ended while their partition stayed."""
        return self._ended + self.housekeeping.drops

    @property
    def quarantined(self) -> list[str]:
        """Which lists can't be read."""
        owned = [partition for partition in self.partitions if partition is not None]
        return [actor.name for each in owned for actor in each.actors.values() if actor.state is QUARANTINED]

    @property
    def damaged_partitions(self) -> int:
        """How many partitions are refused because their shard can't be read."""
        owned = [partition for partition in self.partitions if partition is not None]
        return sum(isinstance(partition.refusal, CorruptRecord) for partition in owned)

    # -- partitions ----------------------------------------------------------------------------------------------------

    def own(self, number: int, epoch: int) -> None:
        """Serve a partition from now on, under an epoch that its worker has granted."""
        self.disown(number)
        partition = self.partitions[number] = self._partition(number, epoch)
        if epoch == FIRST_EPOCH:  # what is taken for new is read from nowhere; the grant may be an old one
            partition.doubt()

    def own_unclaimed(self, number: int, epoch: int, refusal: TodoMQError) -> None:
        """Answer for a partition that can't be claimed, now or ever: everything is refused with the reason.

        Nothing of it is read or written here, so law 2 asks for no epoch in storage.
        """
        self.disown(number)
        refused = refusal.with_outcome(NOT_APPLIED)  # of the claim itself it may not be known
        self.partitions[number] = self._partition(number, epoch, refused)

    def _partition(self, number: int, epoch: int, refusal: TodoMQError | None = None) -> Partition:
        worker = worker_of(number, self._workers)
        return Partition(number, epoch, worker, self._outgoing, self.snapshots, self.forgetting, refusal)

    def granted_by(self, worker: int) -> list[tuple[int, int]]:
        """Return ``(partition, epoch)`` of what a worker has granted: only the shard that did it has such epochs."""
        known = enumerate(self.granted)
        return [(number, epoch) for number, epoch in known if epoch and worker_of(number, self._workers) == worker]

    def has_another_shard(self, worker: int, refusal: CorruptRecord, steady_ms: int) -> None:
        """Take the word that a worker has not the shard that granted what is owned here: all of that is refused.

        What was not committed is given up: it may be on the right worker's disk.
        """
        gate = self.gates[worker]
        owned = [each for each in self.partitions if each is not None and each.gate is gate]
        served = [partition for partition in owned if not isinstance(partition.refusal, CorruptRecord)]
        if served:
            self.failed(worker, refusal.text, UNKNOWN, steady_ms)
        for partition in served:
            waiting = [asked for actor in partition.actors.values() for asked in actor.everything_waiting()]
            self.own_unclaimed(partition.number, partition.epoch, refusal)
            refused = self.partitions[partition.number]
            assert refused is not None
            for peer, _, request in waiting:
                self._refuse(refused, peer, request[ID])

    def is_unclaimed(self, number: int, epoch: int) -> bool:
        """Tell whether a partition is answered for under this epoch without a claim (``own_unclaimed``)."""
        partition = self.partitions[number]
        return partition is not None and partition.epoch == epoch and partition.refusal is not None

    def worker_restarted(self, worker: int) -> None:
        """Try again what was damaged in the worker's life before: its files may have been put right."""
        for partition in self.partitions:
            if partition is None or partition.gate is not self.gates[worker]:
                continue
            if isinstance(partition.refusal, CorruptRecord):
                self.disown(partition.number)  # the cache sees it, and has it claimed
                continue
            for actor in [actor for actor in partition.actors.values() if actor.state is QUARANTINED]:
                self.kill(actor)

    def disown(self, number: int) -> None:
        """Drop a partition and all its lists at once; nothing of it is answered or written any more."""
        partition = self.partitions[number]
        if partition is not None:
            self.partitions[number] = None
            partition.gate.forget(number)
            for actor in self._outgoing.lists_to_write:
                if actor.partition is partition:
                    actor.sessions_to_write = None
            partition.waiting.clear()
            partition.to_sweep.clear()
            self._gone.append(partition)

    def stop_serving(self, number: int, epoch: int) -> bool:
        """Take no more requests for a partition that is to be released.

        Returns:
            True once it can be given away: every write of it is on disk and it is dropped.
        """
        partition = self.partitions[number]
        if partition is None or partition.epoch != epoch:
            return True
        partition.releasing = True
        if partition.uncommitted:
            return False
        # Whatever waits here is answered MOVED, so that the router sends it to the next owner.
        for actor in partition.actors.values():
            if actor.queue is not None or actor.name in partition.waiting:
                for peer, _, request in actor.everything_waiting():
                    self._moved(peer, request[ID], number)
        self.disown(number)
        return True

    def owned(self) -> list[tuple[int, int]]:
        """Return ``(partition, epoch)`` of each owned partition."""
        return [(p.number, p.epoch) for p in self.partitions if p is not None and not p.releasing]

    def owned_and_granted(self) -> list[tuple[int, int, int]]:
        """Return the same, each with the highest epoch that is known to be granted, 0 for none."""
        return [(number, epoch, self.granted[number]) for number, epoch in self.owned()]

    def check_epochs(self) -> None:
        """Ask each worker whether what is owned here still is, unless it has yet to answer the last such question.

        An owner that was taken for dead would otherwise learn of its successor only when it next writes (law 2).
        """
        silent = [gate for gate in self.gates.values() if gate.is_asking]
        for partition in self.partitions:
            if partition is not None and partition.refusal is None and partition.gate not in silent:
                partition.gate.ask(partition.number, partition.epoch)

    def doubt_epochs(self) -> None:
        """Ask the same of every worker, and answer nothing from memory before it is known."""
        for partition in self.partitions:
            if partition is not None and partition.refusal is None:
                partition.doubt()

    # -- requests ------------------------------------------------------------------------------------------------------

    def take(self, peer: bytes, sender: bytes, requests: list[Any], now_ms: int) -> list[Any]:
        """Serve forwarded requests of one client, in order.

        Returns:
            those that are left for another turn, since this one has packed enough of long answers.
        """
        partitions, snapshots = self.partitions, self.snapshots
        coming = iter(requests)
        for request in coming:
            name = request[TARGET]
            number = crc32(name.encode()) % PARTITIONS  # ``partition_of``, without a call for each request
            partition = partitions[number]
            if partition is None or partition.epoch != request[EPOCH] or partition.releasing:
                self._moved(peer, request[ID], number)
            elif partition.refusal is not None:
                self._refuse(partition, peer, request[ID])
            elif name:
                actor = partition.actors.get(name) or self.activate(partition, name, now_ms)
                if request[BODY].startswith(PLAIN_ADD) and add_plainly(actor, peer, sender, request, now_ms):
                    partition.close_batch_if_full(now_ms)
                    continue
                if not read_again(actor, peer, sender, request, now_ms):
                    self._give(actor, (peer, sender, request), now_ms)
                if snapshots.is_turn_full():
                    return list(coming)
            else:
                self.listings.append((peer, request))
        return []

    def _give(self, actor: ListActor, asked: Asked, now_ms: int) -> None:
        try:
            actor.take(asked, now_ms)
        except Crashed as crash:
            self._crashed(actor, crash)
        actor.partition.close_batch_if_full(now_ms)

    def activate(self, partition: Partition, name: str, now_ms: int) -> ListActor:
        """Return the actor of a list; the first use begins to load it, unless nothing of it can be stored."""
        actor = partition.actors.get(name)
        if actor is None:
            actor = self._begin(partition, name, now_ms)
            if partition.is_to_be_looked_for(name):
                self.load(actor, now_ms)
            else:
                actor.begin_new()
        return actor

    def _begin(self, partition: Partition, name: str, now_ms: int) -> ListActor:
        actor = partition.actors[name] = ListActor(name, partition, next(self._activations), now_ms)
        return actor

    def kill(self, actor: ListActor) -> None:
        """End one activation as soon as its writes are on disk; the next request finds the list under another.

        What waits for one that loads waits for the next.
        """
        if actor.state is not STOPPING:
            self._stop(actor)

    # -- loading -------------------------------------------------------------------------------------------------------

    def load(self, actor: ListActor, now_ms: int) -> None:
        """Read a list from the beginning."""
        loading = Loading(actor.name, self.forgetting.ms(now_ms))
        self.reads.append(Read(actor.partition.worker, actor, loading, loading.first_page()))
        self.loads += 1

    def is_current(self, read: Read) -> bool:
        """Tell whether anybody still wants a page."""
        partition, actor = read.actor.partition, read.actor
        return (
            self.partitions[partition.number] is partition
            and partition.actors.get(actor.name) is actor
            and actor.state is (LOADING if isinstance(read.job, Loading) else READY)
        )

    def ask_page_again(self, read: Read, now_ms: int) -> None:
        """Begin a load or a sweep again, a while after one of its pages could not be read, if it is still wanted."""
        if not self.is_current(read):
            return
        if isinstance(read.job, Sweeping):
            read.actor.partition.to_sweep[read.actor.name] = read.actor
            return
        read.actor.is_being_read = False
        if not self.let_go(read.actor):
            self.load(read.actor, now_ms)

    def let_go(self, actor: ListActor) -> bool:
        """Drop a list that is not loaded yet if nobody waits for it and nothing of it is being read; tell whether so.

        Otherwise, while its worker is away, every name that anybody asks for would stay and push others out of memory.
        """
        if actor.state is not LOADING or actor.queue is not None or actor.is_being_read:
            return False
        actor.partition.drop(actor)
        self._ended += 1
        return True

    def page_read(self, read: Read, value: bytes | None, pairs: list[bytes], last: bytes | None, now_ms: int) -> None:
        """Take a page that was read."""
        actor, job = read.actor, read.job
        if not self.is_current(read):
            return
        if isinstance(job, Sweeping):
            following = job.take(actor, pairs, last)
            actor.partition.close_batch_if_full(now_ms)
        else:
            self.housekeeping.grew(sum(map(len, pairs)))
            try:
                following = job.take(value, pairs, last)
            except TodoMQError as error:
                actor.quarantine(error)
                return
        if following is not None:
            self.reads.append(read._replace(wanted=following))
        elif isinstance(job, Loading):
            self._loaded(actor, job, now_ms)

    def _loaded(self, actor: ListActor, loading: Loading, now_ms: int) -> None:
        partition = actor.partition
        waiting = actor.loaded(loading, now_ms)
        if actor.sessions and not partition.gate.why_refused:  # else the reads that wait would fail with it
            actor.forget_expired(now_ms)
        if actor.is_to_be_swept:
            partition.to_sweep[actor.name] = actor
        for peer, sender, request in waiting:
            if add_plainly(actor, peer, sender, request, now_ms):
                partition.close_batch_if_full(now_ms)
            else:
                self._give(self.activate(partition, actor.name, now_ms), (peer, sender, request), now_ms)

    def read_failed(self, read: Read, error: TodoMQError) -> bool:
        """Take the word that a page could not be read.

        Returns:
            True if it is to be read again in a while; False if that is of no use.
        """
        if not self.is_current(read):
            return False
        if not isinstance(error, CorruptRecord):
            self.read_refused(read, error)
            return True
        if isinstance(read.job, Loading):
            read.actor.quarantine(error)
        return False

    def read_refused(self, read: Read, error: TodoMQError) -> None:
        """Take the word that a page can't be read for now: if the worker itself says so, whoever waits hears why."""
        if is_refusal_for_now(error) and isinstance(read.job, Loading) and self.is_current(read):
            read.actor.refuse_all(error)

    # -- what the workers say ------------------------------------------------------------------------------------------

    def committed(self, worker: int, last: int, refused: list[list[int]]) -> set[int]:
        """Open the gate up to a batch; drop the partitions that were refused for an old epoch and return them."""
        self.replies += self.gates[worker].commit(last, refused)
        lost = self._disown_lost(refused)
        self._end_stopping()
        return lost

    def _disown_lost(self, refused: Sequence[list[int]]) -> set[int]:
        """Drop the partitions that were refused for an old epoch and return them."""
        # A batch of an earlier epoch of ours is refused as well: the partition is lost only if that is not ours now.
        lost = {
            number
            for _, number, stored_epoch in refused
            if (owned := self.partitions[number]) is not None and owned.epoch != stored_epoch
        }
        for partition in lost:
            self.disown(partition)
        return lost

    def failed(
        self, worker: int, text: str, outcome: str, steady_ms: int, refused: Sequence[list[int]] = ()
    ) -> set[int]:
        """A commit failed, or was refused: the lists of the open batches are loaded again.

        Args:
            worker: whose.
            text: why.
            outcome: UNKNOWN, or NOT_APPLIED where it is known that none of them is on disk, nor will be.
            steady_ms: the time of the steady clock.
            refused: ``[number, partition, stored epoch]`` of what was refused for an old epoch besides.

        Returns:
            the partitions that were dropped because of that.
        """
        lost = self._disown_lost(refused)
        gate = self.gates[worker]
        if outcome == NOT_APPLIED:
            gate.refuse(text, steady_ms)
        suspects = [
            actor
            for partition in self.partitions
            if partition is not None and partition.gate is gate
            for actor in partition.actors.values()
            if actor.uncommitted
        ]
        self._outgoing.drop_batches(worker)
        value = messages.error_value(Unavailable(text, outcome=outcome))
        for partition in self.partitions:
            if partition is not None and partition.gate is gate and partition.is_doubted:
                partition.must_look_for_all()  # what was asked of the worker is not answered
        self.replies += [replace(reply, status=messages.ERROR, value=value) for reply in gate.fail()]
        for actor in suspects:
            actor.sessions_to_write = None
            actor.partition.must_look_for(actor.name)  # by its memory it may look as if nothing of it were stored
            self._stop(actor)
        return lost

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, steady_ms: int) -> None:
        """Refuse what has waited too long, drop idle lists, forget expired sessions, begin sweeps, free what went.

        Args:
            now_ms: the time that requests and records go by.
            steady_ms: the time of the steady clock.
        """
        self.forgetting.tick(now_ms, steady_ms)
        self.snapshots.tick(steady_ms)
        for gate in self.gates.values():
            gate.tick(steady_ms)
        for partition in self.partitions:
            if partition is not None and partition.waiting:
                self._refuse_what_waited_too_long(partition, now_ms)
        self.housekeeping.tick(now_ms, steady_ms)
        self._begin_sweeps()
        self._free_some()

    def _begin_sweeps(self) -> None:
        """Begin to delete what clears have left; what dies with this process is found by its note (``remains``)."""
        waiting = (
            actor
            for partition in self.partitions
            if partition is not None and partition.to_sweep and not partition.gate.why_refused  # else it would fail
            for name in partition.to_sweep
            if (actor := partition.actors[name]).is_at_rest
        )
        for actor in list(islice(waiting, SWEEPS_A_STEP)):
            sweeping = Sweeping(actor)
            self.reads.append(Read(actor.partition.worker, actor, sweeping, sweeping.first_page()))

    def _free_some(self) -> None:
        """Free some lists of dropped partitions: a list and its partition refer to each other, so each is taken out."""
        left = FREED_MOST
        while self._gone and left:
            actors = self._gone[-1].actors
            for _ in range(min(left, len(actors))):
                actors.popitem()
                left -= 1
            if not actors:
                self._gone.pop()

    # -- the end of a turn ---------------------------------------------------------------------------------------------

    def ready(self, now_ms: int) -> tuple[list[tuple[int, Batch]], list[Reply], list[Read]]:
        """End the turn.

        Returns:
            the closed batches by worker, the replies that may leave, the pages to read; each of them once.
        """
        self.snapshots.begin_turn()
        batches = self._outgoing.take_batches(now_ms)
        self.housekeeping.grew(sum([batch.bytes for _, batch in batches]))
        reads, self.reads = self.reads, []
        return batches, self._outgoing.take_replies(), reads

    # -- inside --------------------------------------------------------------------------------------------------------

    def _refuse(self, partition: Partition, peer: bytes, identifier: int) -> None:
        assert partition.refusal is not None
        value = messages.error_value(partition.refusal)
        self.replies.append(Reply(peer, identifier, messages.ERROR, value, partition.number))

    def _moved(self, peer: bytes, identifier: int, partition: int) -> None:
        self.replies.append(Reply(peer, identifier, messages.MOVED, b"", partition))

    def _crashed(self, actor: ListActor, crash: Crashed) -> None:
        # Law 5: a fault in one list ends that actor and no other; its state may be half changed, so it is not kept.
        self.crashes += 1
        text = f"the list's actor crashed ({type(crash.__cause__).__name__}) and is loaded again"
        peer, _, request = crash.asked
        actor.refuse(peer, request[ID], Unavailable(text, outcome=UNKNOWN, retryable=False))
        self._stop(actor)

    def _stop(self, actor: ListActor) -> None:
        actor.state = STOPPING
        self._stopping.append(actor)
        self._end_stopping()

    def _end_stopping(self) -> None:
        stopping, self._stopping = self._stopping, []
        for actor in stopping:
            self._end_if_committed(actor)

    def _end_if_committed(self, actor: ListActor) -> None:
        """End a stopping actor; if something waits for its list, the next activation serves it."""
        partition = actor.partition
        if self.partitions[partition.number] is not partition or partition.actors.get(actor.name) is not actor:
            return
        if actor.uncommitted or actor.sessions_to_write is not None:
            self._stopping.append(actor)
            return
        waiting = actor.everything_waiting()
        partition.drop(actor)
        self._ended += 1
        if waiting:
            heir = self._begin(partition, actor.name, actor.used_ms)
            self.load(heir, actor.used_ms)  # also where it could be taken for new: only a load serves what waits
            heir.queue = waiting
            partition.waiting[heir.name] = heir

    def _refuse_what_waited_too_long(self, partition: Partition, now_ms: int) -> None:
        for name, actor in list(partition.waiting.items()):
            if actor.queue is not None:
                actor.refuse_overdue(now_ms)
            actor.refuse_too_early(now_ms)
            if actor.queue is None and actor.early is None:
                del partition.waiting[name]
                self.let_go(actor)
