"""The directory: which live list server owns which partition, and what to do when that is not as it should be.

Owns: the placement of partitions. Must not know: entries, storage engines, sockets.
Keeps law 2 on its side: a server that gets a partition gets it under a higher epoch, and only after its last owner has
released it or is dead. It stores nothing: a cache that starts learns the directory from the list servers themselves.
And law 8: whoever is to own a partition is told the highest epoch that is known to be granted, so that it is not
claimed from a database worker that has another shard, or an older copy of the right one.

Placement: the partitions, in the order of their database workers, are cut into one stretch for each list server, so
that a list server has few workers to write to: every batch costs. If a server is away, each of its partitions goes to
the living one that ranks first for it (rendezvous hashing; Thaler and Ravishankar, 1998). A server that joins besides
those of the stack gets the partitions for which it ranks first. So a death moves only what the dead server had, and its
return brings back just that.

A server that is alive and silent (it hangs, or is no list server at all) keeps what it is known to own, since only its
lease tells whether it is dead; nothing else is given to it, or waits for it (law 5). What it owns without having said
so, and what it was asked to own, others claim under higher epochs.
"""

from __future__ import annotations

from typing import NamedTuple

from todomq.protocol.messages import EPOCH_STEP
from todomq.protocol.partitions import PARTITIONS, worker_of


class Server(NamedTuple):
    """One life of a list server."""

    number: int
    incarnation: bytes
    address: str


class Owner(NamedTuple):
    """Who owns a partition, under which epoch."""

    server: Server
    epoch: int


class Own(NamedTuple):
    """Effect: ask the server to claim the partition under the epoch; ``known`` is one granted before, 0 if none."""

    server: Server
    partition: int
    epoch: int
    known: int


class Release(NamedTuple):
    """Effect: ask the owner to give the partition away."""

    server: Server
    partition: int
    epoch: int


class Directory:
    """The placement of all partitions on the live list servers."""

    def __init__(self, list_servers: int, database_workers: int) -> None:
        """Begin with no owners, for a stack of this many list servers (numbered from 1) and database workers."""
        self._configured = range(1, list_servers + 1)
        self._first_homes = first_homes(list_servers, database_workers)
        self.owners: list[Owner | None] = [None] * PARTITIONS
        self.servers: dict[int, Server] = {}
        self.moves = 0
        self._epochs = [0] * PARTITIONS
        self._granted = [0] * PARTITIONS
        """By partition: the highest epoch heard of, and the one under which it was last claimed for this cache."""
        self._stored = [0] * PARTITIONS
        """By partition: the highest epoch that a database worker is known to have granted, so it must be in storage."""
        self._reported: set[bytes] = set()
        self._silent: set[bytes] = set()
        self._pending: dict[int, Own | Release] = {}
        self._changed: set[int] = set()
        self._homes: list[Server] | None = None

    def servers_are(self, servers: list[Server]) -> None:
        """Take the list servers that live now; partitions of any others have no owner from here on."""
        self.servers = {server.number: server for server in servers}
        living = {server.incarnation for server in servers}
        self._reported &= living
        self._silent &= living
        self._homes = None
        for partition, owner in enumerate(self.owners):
            if owner is not None and owner.server.incarnation not in living:
                self.owners[partition] = None
        self._pending = {
            partition: effect for partition, effect in self._pending.items() if effect.server.incarnation in living
        }

    def to_be_asked(self) -> list[Server]:
        """Return the live servers that have yet to say what they own."""
        heard = self._reported | self._silent
        return [server for server in self.servers.values() if server.incarnation not in heard]

    def reported(self, server: Server, owned: list[tuple[int, int, int]]) -> None:
        """Take a server's word on what it owns, first or again; if two claim the same, the higher epoch wins.

        An epoch so far above the one granted that no claim could follow it is not believed.

        Args:
            server: which one.
            owned: of each partition its number, the epoch, and the highest one that is known to be granted.
        """
        if self.servers.get(server.number) != server:
            return
        self._reported.add(server.incarnation)
        if server.incarnation in self._silent:
            self._silent.remove(server.incarnation)
            self._homes = None
        named = {partition for partition, _, _ in owned}
        for partition, epoch, granted in owned:
            known, most = self.owners[partition], self._granted[partition] + EPOCH_STEP
            if granted < most:
                self._heard_of_grant(partition, granted)
            may_be = self._epochs[partition] <= epoch < most
            if may_be and (known is None or known.epoch < epoch):
                self._set_owner(partition, Owner(server, epoch))
        for partition, known in enumerate(self.owners):
            named_or_pending = partition in named or partition in self._pending
            if known is not None and known.server == server and not named_or_pending:
                self.owners[partition] = None

    def silent(self, server: Server) -> None:
        """Note that a server does not say what it owns: until it does, nothing is placed on it."""
        if self.servers.get(server.number) != server or server.incarnation in self._silent:
            return
        self._silent.add(server.incarnation)
        self._homes = None
        for partition, effect in list(self._pending.items()):
            if effect.server == server and isinstance(effect, Own):
                del self._pending[partition]
                self._epochs[partition] = max(self._epochs[partition], effect.epoch)

    def plan(self, placing: bool) -> list[Own | Release]:
        """Return what to ask of list servers now; each effect is answered by ``claimed``, ``released`` or ``failed``.

        Args:
            placing: whether it is known which list servers live; while it is not, nothing is moved.
        """
        if not placing or self.to_be_asked():
            return []
        if self._homes is None:
            self._homes = self._find_homes()
        if not self._homes:
            return []
        effects: list[Own | Release] = []
        for partition in range(PARTITIONS):
            if partition in self._pending:
                continue
            home, owner = self._homes[partition], self.owners[partition]
            effect: Own | Release
            if owner is None:
                effect = Own(home, partition, self._epochs[partition] + 1, self._stored[partition])
            elif owner.server != home and owner.server.incarnation not in self._silent:
                effect = Release(owner.server, partition, owner.epoch)
            else:
                continue
            self._pending[partition] = effect
            effects.append(effect)
        return effects

    def claimed(self, effect: Own, granted: bool, epoch: int, stored: int) -> None:
        """Take the answer to ``Own``: granted, or refused because a higher epoch is stored.

        Args:
            effect: what was asked.
            granted: whether the partition is served now.
            epoch: under which epoch, or the one that was higher.
            stored: the highest one that the server knows to be granted. It is lower where the server owns what it
                could not claim.
        """
        self._epochs[effect.partition] = max(self._epochs[effect.partition], epoch)
        self._heard_of_grant(effect.partition, stored)
        if self._pending.get(effect.partition) != effect:
            return
        del self._pending[effect.partition]
        if granted:
            self._granted[effect.partition] = effect.epoch
        if granted and self.servers.get(effect.server.number) == effect.server:
            self._set_owner(effect.partition, Owner(effect.server, effect.epoch))
            self.moves += 1

    def released(self, effect: Release) -> None:
        """Take the answer to ``Release``: the partition has no owner."""
        if self._pending.get(effect.partition) == effect:
            del self._pending[effect.partition]
            self.owners[effect.partition] = None

    def failed(self, effect: Own | Release) -> None:
        """Note that an effect was not answered; it is planned again."""
        if self._pending.get(effect.partition) == effect:
            del self._pending[effect.partition]

    def impossible(self, effect: Own) -> None:
        """Note that nobody may claim under such an epoch, and forget what led to it: storage tells the epoch anew."""
        if self._pending.get(effect.partition) == effect:
            del self._pending[effect.partition]
            self._epochs[effect.partition] = self._stored[effect.partition] = 0

    def outdated(self, partition: int, epoch: int) -> None:
        """Take the router's word that it knows a partition under this epoch: the next owner claims a higher one.

        Storage knows the highest epoch, but nobody asks it while a shard can't be read, and a restarted cache begins
        below the epochs that the router was told before.
        """
        self._epochs[partition] = max(self._epochs[partition], epoch)
        owner = self.owners[partition]
        if owner is not None and owner.epoch <= epoch:
            self.owners[partition] = None

    def changes(self) -> list[tuple[int, Owner]]:
        """Return and forget the partitions whose owner changed, for the router."""
        changed, self._changed = self._changed, set()
        return [(partition, owner) for partition in sorted(changed) if (owner := self.owners[partition]) is not None]

    def all_rows(self) -> list[tuple[int, Owner]]:
        """Return every partition that has an owner."""
        return [(partition, owner) for partition, owner in enumerate(self.owners) if owner is not None]

    def _heard_of_grant(self, partition: int, epoch: int) -> None:
        self._stored[partition] = max(self._stored[partition], epoch)
        self._epochs[partition] = max(self._epochs[partition], epoch)

    def _set_owner(self, partition: int, owner: Owner) -> None:
        self.owners[partition] = owner
        self._epochs[partition] = max(self._epochs[partition], owner.epoch)
        self._changed.add(partition)

    def _find_homes(self) -> list[Server]:
        """Return where each partition belongs; nothing if no server answers."""
        there = {number: each for number, each in self.servers.items() if each.incarnation not in self._silent}
        return [self._home(partition, there) for partition in range(PARTITIONS)] if there else []

    def _home(self, partition: int, there: dict[int, Server]) -> Server:
        def ranked(number: int) -> int:
            return rank(number, partition)

        joined = max({*self._configured, *there}, key=ranked)
        number = joined if joined not in self._configured else self._first_homes[partition]
        return there.get(number) or there[max(there, key=ranked)]


def first_homes(list_servers: int, database_workers: int) -> list[int]:
    """Return for each partition the number of the list server that has it while all of them live."""
    by_worker = sorted(range(PARTITIONS), key=lambda partition: (worker_of(partition, database_workers), partition))
    homes = [0] * PARTITIONS
    for place, partition in enumerate(by_worker):
        homes[partition] = place * list_servers // PARTITIONS + 1
    return homes


def rank(server: int, partition: int) -> int:
    """Return how high a server ranks for a partition: SplitMix64 (Steele, Lea and Flood, 2014) of the two numbers."""
    mixed = (server * PARTITIONS + partition + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return mixed ^ (mixed >> 31)
