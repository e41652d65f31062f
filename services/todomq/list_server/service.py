"""The list server's wiring: forwarded requests in, replies out, batches and reads to the database workers.

Owns: the order of a turn: requests, releases, activations, then batches, replies and reads. Must not know: what a
request does, which batch is committed. Talks to: the router (forward), the cache (own, release, owned, activate),
database workers (batches, claims, reads).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from todomq.errors import (
    NOT_APPLIED,
    UNKNOWN,
    CorruptRecord,
    DeadlineExceeded,
    InvalidRequest,
    NameNotFound,
    Overloaded,
    ProtocolError,
    TodoMQError,
    Unavailable,
)
from todomq.list_server.actor import LOADING, QUARANTINED, STOPPING, ListActor
from todomq.list_server.hosting import Hosting, Read
from todomq.list_server.listing_queue import ListingQueue
from todomq.list_server.partition import Partition
from todomq.list_server.reading import Reading
from todomq.list_server.records import stored_bytes
from todomq.list_server.remains import Remains
from todomq.list_server.todo_list import TodoList
from todomq.list_server.turns import Turns
from todomq.list_server.worker_link import WorkerLink
from todomq.protocol import limits, messages
from todomq.protocol.entries import check_list_name
from todomq.protocol.partitions import PARTITIONS, partition_of, worker_of
from todomq.runtime.calls import LATER, Call, CallServer, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.log import log, log_counted
from todomq.runtime.peers import Answer
from todomq.settings import socket_name

_TEXT = frozenset((str,))
AHEAD_BYTES = 256 * limits.KIB
TICK_S = 0.05
SAMPLE_ENTRIES = 200
CLAIM_S = 30.0
"""How long a claim is tried. The cache waits less long, and asks again: what takes a slow worker longer counts then."""
WAITING_ACTIVATIONS = 4_096
CHECK_MS = 1_000
"""How often the workers are asked whether the owned partitions are still this server's."""


class ListServerService(Service):
    """Everything one list server does with a message."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        settings = daemon.settings
        self.hosting = Hosting(settings.database_workers, int(settings.idle_s * 1000), settings.list_memory_bytes)
        self._daemon = daemon
        self._loop = daemon.loop
        commits_address = settings.reached_at(f"{socket_name(daemon.name)}.commits")
        daemon.pull(commits_address, self._take_commit)
        self._links = {
            number: WorkerLink(daemon, number, commits_address, gate, partial(self.hosting.worker_restarted, number))
            for number, gate in self.hosting.gates.items()
        }
        self._readings = {
            number: Reading(link.call, self._page_read, self._page_failed) for number, link in self._links.items()
        }
        calls = [link.call for link in self._links.values()]
        self._listings = ListingQueue(calls, lambda *reply: daemon.server.reply(*reply))
        self._remains = Remains(self.hosting, {number: link.call for number, link in self._links.items()})
        self._turns = Turns()
        self._claims: dict[tuple[int, int], list[Call]] = {}
        self._releases: list[tuple[int, int, Call]] = []
        self._activations: list[tuple[ListActor, Call]] = []
        self._done: Callable[[], None] | None = None
        self._stall_ms = settings.lease_ms // 2
        self._seen_ms = self._checked_ms = self._loop.steady_ms()
        self.operations |= {
            "own": self._own,
            "release": self._release,
            "owned": self._owned,
            "activate": self._activate,
            "kill_list": self._kill_list,
            "describe_list": self._describe_list,
        }
        daemon.on_registry_change.append(self._registry_changed)
        self._loop.every(TICK_S, self._tick)
        self._loop.at_turn_end(self._end_turn)

    def on_message(self, server: CallServer, peer: bytes, kind: str, fields: messages.Fields) -> None:
        """Take a batch of requests that a router forwards."""
        if kind != "forward":
            raise ProtocolError(f"a {kind[:20]!r} message is not for a list server")
        groups = messages.read_forward(fields)
        for sender, requests in groups:
            if not sender or not _are_list_names([request[1] for request in requests]):
                raise ProtocolError("a forwarded request has a sender and a list's name")
        self._check_epochs()
        now_ms = self._loop.now_ms()
        for sender, requests in groups:
            if self._turns.serve_or_queue(peer, sender, requests):
                self._serve(peer, sender, requests, now_ms)

    def drain_bytes(self) -> int:
        """Return how much is read ahead of what is served, so that whoever asks little is seen behind who asks much."""
        return min(AHEAD_BYTES, self._turns.room_bytes())

    def _serve_waiting(self, now_ms: int) -> None:
        """Serve what this turn takes of the requests that wait."""
        self._check_epochs()
        for peer, sender, requests in self._turns.end():
            self._serve(peer, sender, requests, now_ms)
        if self._turns.bytes:
            self._loop.wake()

    def _serve(self, peer: bytes, sender: bytes, requests: list[Any], now_ms: int) -> None:
        left = self.hosting.take(peer, sender, requests, now_ms)
        if left or self.hosting.snapshots.is_turn_full():
            self._turns.stop(peer, sender, left)

    def stats(self) -> dict[str, Any]:
        """Return lists in memory, partitions, what is not committed, loads and drops."""
        hosting = self.hosting
        return {
            "lists": hosting.lists,
            "partitions": len(hosting.owned()),
            "waiting_bytes": self._turns.bytes,
            "uncommitted_batches": sum(len(gate.batches) for gate in hosting.gates.values()),
            "uncommitted_bytes": sum(gate.bytes for gate in hosting.gates.values()),
            "loads": hosting.loads,
            "drops": hosting.drops,
            "crashes": hosting.crashes,
            "quarantined": sorted(name for name, _ in self._quarantined()),
            "damaged_partitions": hosting.damaged_partitions,
        }

    def drain(self, done: Callable[[], None]) -> None:
        """Release every partition, so that no reply is lost, then leave."""
        self._done = done
        for partition, epoch in self.hosting.owned():
            self.hosting.stop_serving(partition, epoch)

    # -- partitions ----------------------------------------------------------------------------------------------------

    def _owned(self, call: Call) -> list[tuple[int, int]]:
        self._check_incarnation(call, 0)
        return self.hosting.owned()

    def _check_incarnation(self, call: Call, place: int) -> None:
        """Refuse what another life of this list server was asked: a connection goes on to the next one unasked.

        Else the cache would take a claim of this life for one of the life before (law 2). Who does not say which life
        is meant means any.
        """
        is_named = len(call.arguments) == place + 1 and type(call.arguments[place]) is bytes
        if is_named and call.arguments.pop() != self._daemon.incarnation:
            raise Unavailable("another life of this list server was asked")

    def _own(self, call: Call) -> object:
        self._check_incarnation(call, 2)
        partition, epoch = _partition_and_epoch(call)
        if self._done is not None:
            raise Unavailable("this list server is leaving")
        owned = self.hosting.partitions[partition]
        if owned is not None and owned.epoch == epoch and not owned.releasing:
            return [True, epoch]

        calls = self._claims.setdefault((partition, epoch), [])
        calls.append(call)
        if len(calls) == 1:  # else the claim is under way: made twice it would be refused, for its own epoch
            claimed = partial(self._claimed, partition, epoch)
            self._link_of(partition).call("claim", partition, epoch, done=claimed, timeout_s=CLAIM_S)
        return LATER

    def _claimed(self, partition: int, epoch: int, answer: Answer) -> None:
        calls = self._claims.pop((partition, epoch))
        try:
            grant = self._grant(partition, epoch, answer)
        except TodoMQError as error:
            for call in calls:
                call.refuse(error)
        else:
            for call in calls:
                call.answer(grant)

    def _grant(self, partition: int, epoch: int, answer: Answer) -> list[Any]:
        """Take a worker's answer to a claim; return ``[granted, stored epoch]``, or raise why it is not known."""
        if isinstance(answer.error, CorruptRecord):
            log_counted("partition_damaged", partition=partition, why=answer.error.text)
            self.hosting.own_damaged(partition, epoch, answer.error)
            return [True, epoch]
        if answer.error is not None:
            raise answer.error
        if not _is_grant(answer.value):
            raise Unavailable("the database worker gave an answer to the claim that cannot be read")
        granted, stored = answer.value
        if granted:
            self.hosting.own(partition, epoch)
        return [granted, stored]

    def _release(self, call: Call) -> object:
        self._check_incarnation(call, 2)
        partition, epoch = _partition_and_epoch(call)
        if self.hosting.stop_serving(partition, epoch):
            return True
        self._releases.append((partition, epoch, call))
        return LATER

    def _end_releases(self) -> None:
        now_ms = self._loop.now_ms()
        releases, self._releases = self._releases, []
        for partition, epoch, call in releases:
            if now_ms > call.deadline_ms:
                call.refuse(DeadlineExceeded("the partition's writes were not on disk in time"))
            elif self.hosting.stop_serving(partition, epoch):
                call.answer(True)
            else:
                self._releases.append((partition, epoch, call))
        if self._done is not None:
            owned = [partition for partition in self.hosting.partitions if partition is not None]
            if all(self.hosting.stop_serving(partition.number, partition.epoch) for partition in owned):
                done, self._done = self._done, None
                done()

    # -- lists ---------------------------------------------------------------------------------------------------------

    def _activate(self, call: Call) -> object:
        name = check_list_name(call.only_argument())
        partition = self._partition(name)
        actor = self.hosting.activate(partition, name, self._loop.now_ms())
        if actor.state == LOADING or actor.state == STOPPING:
            if len(self._activations) >= WAITING_ACTIVATIONS:
                raise Overloaded("too many callers wait for lists to be loaded")
            self._activations.append((actor, call))
            return LATER
        return self._activation(actor)

    def _activation(self, actor: ListActor) -> list[int]:
        if actor.error is not None:
            raise actor.error
        return [actor.activation, actor.partition.epoch]

    def _answer_activations(self) -> None:
        waiting, self._activations = self._activations, []
        for actor, call in waiting:
            partition = self.hosting.partitions[actor.partition.number]
            current = partition.actors.get(actor.name) if partition is actor.partition and partition else None
            if partition is not actor.partition:
                call.refuse(Unavailable("the list's partition is moving"))
            elif self._loop.now_ms() > call.deadline_ms:
                call.refuse(DeadlineExceeded("the list was not loaded in time"))
            elif current is None:
                heir = self.hosting.activate(actor.partition, actor.name, self._loop.now_ms())
                self._activations.append((heir, call))
            elif current.state in (LOADING, STOPPING):
                self._activations.append((current, call))
            else:
                try:
                    call.answer(self._activation(current))
                except TodoMQError as error:
                    call.refuse(error)

    def _kill_list(self, call: Call) -> bool:
        name = check_list_name(call.only_argument())
        actor = self._partition(name).actors.get(name)
        if actor is None:
            return False
        self.hosting.kill(actor)
        return True

    def _describe_list(self, call: Call) -> dict[str, Any]:
        name = check_list_name(call.only_argument())
        partition = self._partition(name)
        now_ms = self._loop.now_ms()
        gate = partition.gate
        oldest = min((batch.closed_ms for batch in gate.batches.values()), default=None)
        described: dict[str, Any] = {
            "partition": partition.number,
            "epoch": partition.epoch,
            "worker": worker_of(partition.number, len(self.hosting.gates)),
            "worker_greeted": self._link_of(partition.number).greeted,
            "uncommitted_since_ms": None if oldest is None else now_ms - oldest,
        }
        actor = partition.actors.get(name)
        if actor is None:
            return {**described, "state": "not loaded"}
        return {
            **described,
            "state": actor.state,
            "state_since_ms": now_ms - actor.since_ms,
            "activation": actor.activation,
            "entries": None if actor.todo is None else len(actor.todo),
            "bytes": None if actor.todo is None else _about_stored_bytes(actor.todo),
            "clients": len(actor.sessions),
            "queued": len(actor.queue or ()),
            "out_of_turn": sum(len(session.waiting or ()) for session in actor.sessions.values()),
            "uncommitted": actor.uncommitted,
            "error": None if actor.error is None else actor.error.text,
        }

    def _partition(self, name: str) -> Partition:
        partition = self.hosting.partitions[partition_of(name.encode())]
        if partition is None or partition.releasing:
            raise NameNotFound("this list server does not own the list's partition")
        if partition.damage is not None:
            raise CorruptRecord(partition.damage.text)
        return partition

    def _quarantined(self) -> list[tuple[str, TodoMQError | None]]:
        return [
            (actor.name, actor.error)
            for partition in self.hosting.partitions
            if partition is not None
            for actor in partition.actors.values()
            if actor.state == QUARANTINED
        ]

    # -- workers -------------------------------------------------------------------------------------------------------

    def _registry_changed(self) -> None:
        for link in self._links.values():
            link.registry_changed()

    def _tick(self) -> None:
        self._check_epochs()
        now_ms, steady_ms = self._loop.now_ms(), self._loop.steady_ms()
        self._remains.tick(now_ms, steady_ms)  # first: what it had loaded may leave memory with this tick
        self.hosting.tick(now_ms, steady_ms)
        if self._listings:
            self._listings.tick(now_ms)
        for link in self._links.values():
            link.tick(steady_ms)

    def _check_epochs(self) -> None:
        steady_ms = self._loop.steady_ms()
        is_stalled = steady_ms - self._seen_ms > self._stall_ms
        self._seen_ms = steady_ms
        if is_stalled:
            self.hosting.doubt_epochs()  # whoever was paused may have been taken for dead
        elif steady_ms - self._checked_ms >= CHECK_MS:
            self.hosting.check_epochs()
        else:
            return
        self._checked_ms = steady_ms

    def _link_of(self, partition: int) -> WorkerLink:
        return self._links[worker_of(partition, len(self._links))]

    def _take_commit(self, message: bytes) -> None:
        try:
            kind, fields = messages.read(message)
            if kind != "committed":
                raise ProtocolError(f"a {kind[:20]!r} message where committed was expected")
            self._take_word(messages.read_committed(fields))
        except ProtocolError as error:
            log_counted("malformed_commit", why=error.text)

    def _take_word(self, word: messages.Committed) -> None:
        if word.sender != self._daemon.incarnation:
            return
        for number, link in self._links.items():
            if link.incarnation != word.receiver:
                continue
            self._check_word(number, word)
            committed = self.hosting.gates[number].committed
            if word.outcome == messages.COMMITTED and word.first <= committed + 1:
                for partition in self.hosting.committed(number, word.last, word.refused):
                    log("partition_lost", partition=partition, worker=number)
            elif word.outcome in (messages.FAILED, NOT_APPLIED) and word.last <= committed:
                continue  # these batches were given up when their failure was first heard of
            elif word.outcome in (messages.FAILED, NOT_APPLIED):
                log_counted("commit_failed", worker=number, why=word.text)
                # With a word lost before this one, an earlier batch may be on disk.
                is_known = word.outcome == NOT_APPLIED and word.first <= committed + 1
                outcome = NOT_APPLIED if is_known else UNKNOWN
                self.hosting.failed(number, word.text, outcome, self._loop.steady_ms())
                link.greet()
            else:
                link.greet()  # a word or a batch was lost on the way: what is not committed is sent again

    def _check_word(self, worker: int, word: messages.Committed) -> None:
        if word.outcome == messages.COMMITTED and not word.first <= word.last < self.hosting.gates[worker].open.number:
            raise ProtocolError("a word about batches that were never sent")
        if any(worker_of(partition, len(self._links)) != worker for _, partition, _ in word.refused):
            raise ProtocolError("a word about partitions of another worker")

    def _page_read(self, read: Read, value: Any, pairs: Any, last: Any) -> None:
        self.hosting.read(read, value, pairs, last, self._loop.now_ms())

    def _page_failed(self, read: Read, error: TodoMQError) -> None:
        if self.hosting.read_failed(read, error):
            self._loop.after(TICK_S, lambda: self.hosting.load_again(read, self._loop.now_ms()))

    def _begin_listings(self) -> None:
        listings, self.hosting.listings = self.hosting.listings, []
        for peer, request in listings:
            self._listings.add(peer, request)
        self._listings.begin(self._loop.now_ms())

    # -- the end of a turn ---------------------------------------------------------------------------------------------

    def _end_turn(self) -> None:
        hosting = self.hosting
        self._serve_waiting(self._loop.now_ms())
        if self._releases or self._done is not None:
            self._end_releases()
        if self._activations:
            self._answer_activations()
        if hosting.listings or self._listings:
            self._begin_listings()
        batches, replies, reads = hosting.ready(self._loop.now_ms())
        for worker, batch in batches:
            self._links[worker].send(batch)
        answered: object = None
        for reply in replies:
            if reply.peer is not answered:
                answered, queue = reply.peer, self._daemon.server.replies_to(reply.peer)
            queue.append((reply.id, reply.status, reply.value))
        for read in reads:
            self._readings[read.worker].add(read)
        for reading in self._readings.values():
            reading.begin()


def _about_stored_bytes(todo: TodoList) -> int:
    """Return about how many bytes a list's entries take in storage: the mean of the first ones for all."""
    sample = list(islice(todo.entries.values(), SAMPLE_ENTRIES))
    return len(todo) * sum(map(stored_bytes, sample)) // max(1, len(sample))


def _partition_and_epoch(call: Call) -> tuple[int, int]:
    arguments = call.arguments
    if (
        [type(item) for item in arguments] != [int, int]
        or not 0 <= arguments[0] < PARTITIONS
        or not 0 < arguments[1] < 1 << 63
    ):
        raise InvalidRequest(f"a partition (0-{PARTITIONS - 1}) and an epoch (from 1) are needed")
    return arguments[0], arguments[1]


def _are_list_names(names: list[Any]) -> bool:
    if not _TEXT.issuperset(map(type, names)):
        return False
    long = [name for name in names if len(name) > limits.LIST_NAME_BYTES // 4]  # no character takes more than 4 bytes
    return all(len(name.encode()) <= limits.LIST_NAME_BYTES for name in long)


def _is_grant(value: Any) -> bool:
    return type(value) is list and [type(item) for item in value] == [bool, int]
