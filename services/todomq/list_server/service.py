"""The list server's wiring: forwarded requests in, replies out, batches and reads to the database workers.

Owns: the order of a turn: requests, releases, activations, listings, then batches, replies and reads. Must not know:
what a request does, which batch is committed, how a partition comes and goes. Talks to: the router (forward), the cache
(``ownership``, ``list_calls``), database workers (batches, reads, ``words``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import nsmallest
from typing import Any

from todomq.daemons import socket_name
from todomq.errors import ProtocolError, TodoMQError
from todomq.list_server.hosting import Hosting, Read
from todomq.list_server.list_calls import ListCalls
from todomq.list_server.listing_queue import ListingQueue
from todomq.list_server.memory_budget import memory_budget
from todomq.list_server.ownership import Ownership
from todomq.list_server.reading import Reading
from todomq.list_server.remains import Remains
from todomq.list_server.turns import Turns
from todomq.list_server.words import Words
from todomq.list_server.worker_link import WorkerLink, WorkerLinks
from todomq.protocol import limits, messages
from todomq.protocol.messages import TARGET
from todomq.runtime.calls import CallServer, Service
from todomq.runtime.daemon import Daemon

_TEXT = frozenset((str,))
AHEAD_BYTES = 256 * limits.KIB
TICK_S = 0.05
QUARANTINED_TOLD = 100
READ_AGAIN_S = 0.25
"""How long after a page could not be read it is asked for again."""


class ListServerService(Service):
    """Everything one list server does with a message."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        settings, loop = daemon.settings, daemon.loop
        self.hosting = hosting = Hosting(
            settings.database_workers, int(settings.idle_s * 1000), memory_budget(settings)
        )
        self._daemon = daemon
        self._loop = loop
        commits_address = settings.reached_at(f"{socket_name(daemon.name)}.commits")
        self._links = links = WorkerLinks()
        for number, gate in hosting.gates.items():
            granted = partial(hosting.granted_by, number)
            restarted, another = partial(hosting.worker_restarted, number), partial(hosting.has_another_shard, number)
            links[number] = WorkerLink(daemon, number, commits_address, gate, granted, restarted, another)
        daemon.pull(commits_address, Words(daemon.incarnation, hosting, links, loop.steady_ms).take)
        calls = {number: link.call for number, link in links.items()}
        pages = hosting.is_current, self._page_read, self._page_failed, hosting.read_refused
        self._readings = {number: Reading(call, *pages) for number, call in calls.items()}
        self._listings = ListingQueue([*calls.values()], lambda *reply: daemon.server.reply(*reply))
        self._remains = Remains(hosting, calls)
        self._turns = Turns()
        self._ownership = Ownership(daemon.incarnation, loop, hosting, links, settings.lease_ms // 2)
        self._list_calls = ListCalls(loop, hosting, links)
        self.operations |= self._ownership.operations | self._list_calls.operations
        daemon.on_registry_change.append(self._registry_changed)
        loop.every(TICK_S, self._tick)
        loop.at_turn_end(self._end_turn)

    def on_message(self, server: CallServer, peer: bytes, kind: str, fields: messages.Fields) -> None:
        """Take a batch of requests that a router forwards."""
        if kind != "forward":
            raise ProtocolError(f"a {kind[:20]!r} message is not for a list server")
        groups = messages.read_forward(fields)
        for sender, requests in groups:
            if not sender or not _are_list_names([request[TARGET] for request in requests]):
                raise ProtocolError("a forwarded request has a sender and a list's name")
        self._ownership.check_epochs()
        now_ms = self._loop.now_ms()
        for sender, requests in groups:
            if self._turns.serve_or_queue(peer, sender, requests):
                self._serve(peer, sender, requests, now_ms)

    def drain_bytes(self) -> int:
        """Return how much to read ahead of what is served, so that a quiet client is noticed behind a busy one."""
        return min(AHEAD_BYTES, self._turns.room_bytes())

    def stats(self) -> dict[str, Any]:
        """Return lists in memory, partitions, what is not committed, loads and drops."""
        hosting = self.hosting
        quarantined = hosting.quarantined
        return {
            "lists": hosting.lists,
            "lists_bytes": hosting.housekeeping.memory,
            "lists_bytes_budget": hosting.housekeeping.memory_budget,
            "partitions": len(hosting.owned()),
            "waiting_bytes": self._turns.bytes,
            "uncommitted_batches": sum(len(gate.batches) for gate in hosting.gates.values()),
            "uncommitted_bytes": sum(gate.bytes for gate in hosting.gates.values()),
            "loads": hosting.loads,
            "drops": hosting.drops,
            "crashes": hosting.crashes,
            "quarantined": len(quarantined),
            "quarantined_names": nsmallest(QUARANTINED_TOLD, quarantined),
            "damaged_partitions": hosting.damaged_partitions,
        }

    def finish(self, done: Callable[[], None]) -> None:
        """Release every partition, so that no reply is lost, then leave."""
        self._ownership.leave(done)

    def _serve(self, peer: bytes, sender: bytes, requests: list[Any], now_ms: int) -> None:
        left = self.hosting.take(peer, sender, requests, now_ms)
        if left or self.hosting.snapshots.is_turn_full():
            self._turns.stop(peer, sender, left)

    def _end_turn(self) -> None:
        hosting = self.hosting
        self._serve_waiting(self._loop.now_ms())
        self._ownership.end_turn()
        self._list_calls.end_turn()
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

    def _serve_waiting(self, now_ms: int) -> None:
        """Serve what this turn takes of the requests that wait."""
        self._ownership.check_epochs()
        for peer, sender, requests in self._turns.end():
            self._serve(peer, sender, requests, now_ms)
        if self._turns.bytes:
            self._loop.wake()

    def _begin_listings(self) -> None:
        listings, self.hosting.listings = self.hosting.listings, []
        for peer, request in listings:
            self._listings.add(peer, request)
        self._listings.begin(self._loop.now_ms())

    def _page_read(self, read: Read, value: Any, pairs: Any, last: Any) -> None:
        self._ownership.check_epochs()
        self.hosting.page_read(read, value, pairs, last, self._loop.now_ms())

    def _page_failed(self, read: Read, error: TodoMQError) -> None:
        if self.hosting.read_failed(read, error):
            self._loop.after(READ_AGAIN_S, lambda: self.hosting.ask_page_again(read, self._loop.now_ms()))

    def _tick(self) -> None:
        self._ownership.check_epochs()
        now_ms, steady_ms = self._loop.now_ms(), self._loop.steady_ms()
        self._remains.tick(now_ms, steady_ms)  # first: what it had loaded may leave memory with this tick
        self.hosting.tick(now_ms, steady_ms)
        if self._listings:
            self._listings.tick(now_ms)
        for link in self._links.values():
            link.tick(steady_ms)

    def _registry_changed(self) -> None:
        for link in self._links.values():
            link.registry_changed()


def _are_list_names(names: list[Any]) -> bool:
    if not _TEXT.issuperset(map(type, names)):
        return False
    long = [name for name in names if len(name) > limits.LIST_NAME_BYTES // 4]  # no character takes more than 4 bytes
    return all(len(name.encode()) <= limits.LIST_NAME_BYTES for name in long)
