"""The registrations: name -> address, incarnation, liveness. Pure: no sockets, no clock, no operating system.

Owns: who holds which name, until when, and what is to be done about a holder that stopped renewing.
Must not know: what the names mean; how a process is watched or killed; where the journal lies.
Used by ``service.py``, which carries out the effects.

Rules kept here:

- One holder: a name is held by one living process at a time. The same incarnation again is a renewal. An old
  incarnation can't unregister a new one.
- A name with a lease is renewed or ends; a name with a local process and no lease ends with that process.
- Absence is unknown, not death: a registry that started or stalled waits one lease before it says that nobody has a
  name, and gives every holder that lease to come back.
- If a lease is over and the process lives, it is killed, and the name stays taken until its death is seen.
- The next registry begins with the names of this one, each with its lease from then on.
- Law 6: everything registered fits into one reply; past that, ``Overloaded``.
- Law 8: names lost with a damaged journal are unknown, never "nobody".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from todomq.errors import CorruptRecord, InvalidRequest, Overloaded, Unavailable
from todomq.protocol import limits
from todomq.protocol.codec import canonical
from todomq.protocol.registration import Registration

REGISTERED_BYTES = limits.REQUEST_BYTES - 64 * limits.KIB
"""All registrations together, so that one reply carries them."""

RESERVED_BYTES = 64 * limits.KIB
"""The part kept for those that name an incarnation, as the stack's daemons do: they can return to a full registry."""

_ITEM_BYTES = 16  # for each value in a name; so all names together stay far from ``DECODED_ITEMS``
_FIXED_BYTES = 32  # most that a packed registration takes beyond its name, address and incarnation


class Process(NamedTuple):
    """One life of a local process; ``start_time`` (clock ticks since boot) tells it from a later one of its pid."""

    pid: int
    start_time: int


class Kill(NamedTuple):
    """End a process whose lease is over; its death is reported by ``process_died``."""

    process: Process


class Release(NamedTuple):
    """Stop watching this process, unless it holds a name again by now."""

    process: Process


class Remember(NamedTuple):
    """Keep this registration for the registry's next life."""

    key: bytes
    registration: Registration
    process: Process | None
    lease_ms: int


class Forget(NamedTuple):
    """Stop keeping what is registered under this key."""

    key: bytes


Effect = Kill | Release | Remember | Forget


@dataclass(slots=True)
class _Holder:
    registration: Registration
    process: Process | None
    lease_ms: int  # 0: none, the name lives as long as the process
    ends_ms: int = 0
    killed: bool = False
    is_restored: bool = False  # from the registry's life before, and not renewed in this one

    @property
    def is_to_be_killed(self) -> bool:
        """Whether its process is to be ended where the lease is over.

        A restored name may belong to a process that gave it up while the journal could not be written; such a process
        must not be killed.
        """
        return self.process is not None and not (self.is_restored and not self.registration.incarnation)


class Registrations:
    """All names of one registry. Times are milliseconds of any one clock.

    Attributes:
        bytes: what all registrations take, about, packed.
        settled: whether what is not registered is absent.
        version: rises with every change.
    """

    def __init__(self, lease_ms: int, now_ms: int, first_version: int = 1, lost: str = "") -> None:
        """Begin with no names and unsettled.

        Args:
            lease_ms: shortest lease, and how long absence stays unknown after a start or a stall.
            now_ms: the time.
            first_version: higher than any version of an earlier registry that a watcher may still hold.
            lost: why names of an earlier registry may be missing for good; empty if none are.
        """
        self._lease_ms = lease_ms
        self._lost = lost
        self._holders: dict[bytes, _Holder] = {}
        self._leased: set[bytes] = set()
        self._keys: dict[Process, set[bytes]] = {}
        self.bytes = 0
        self._effects: list[Effect] = []
        self._seen_ms = now_ms
        self._settles_ms = now_ms + lease_ms
        self.settled = False
        self.version = first_version

    def __len__(self) -> int:
        return len(self._holders)

    def register(
        self, name: Any, address: str, process: Process | None, incarnation: bytes, lease_ms: int, now_ms: int
    ) -> bool:
        """Give a name to a process, or renew its lease.

        Args:
            name: any msgpack value, compared by its canonical packing.
            address: where the holder listens.
            process: the local process, None for a remote one.
            incarnation: one life of the holder, empty if it has none: then only the very same registration is it again.
            lease_ms: the name ends unless renewed within this time (or the registry's lease, if that is longer);
                0 is no lease.
            now_ms: the time.

        Returns:
            True if the caller has the name now, False if another living holder has it.

        Raises:
            InvalidRequest: not usable as a name, or neither a process nor a lease to tell its end by.
            Overloaded: no room for another registration.
        """
        self._advance(now_ms)
        key = canonical(name)
        if process is None and not lease_ms:
            raise InvalidRequest("a name without a local process (pid) needs a lease_ms, or nothing would tell its end")
        registration = Registration(name, address, process.pid if process else None, incarnation)
        lease_ms = max(lease_ms, self._lease_ms) if lease_ms else 0
        holder = _Holder(registration, process, lease_ms, now_ms + lease_ms)
        held = self._holders.get(key)
        if held is None:
            self._check_room(_size(key, registration), holder)
            self._add(key, holder)
            return True
        if not _is_same_holder(held, holder):
            return False
        self._renew(key, held, holder)
        return True

    def restore(
        self, key: bytes, registration: Registration, process: Process | None, lease_ms: int, now_ms: int
    ) -> None:
        """Take over a name from the registry's previous life, which had room for it; its process, if any, lives."""
        self._add(key, _Holder(registration, process, lease_ms, now_ms + lease_ms, is_restored=True))

    def lose(self, why: str) -> None:
        """Note that a name could not be taken over: from now on a name that is absent may be held all the same."""
        self._lost = self._lost or why

    def unregister(self, name: Any, incarnation: bytes | None, now_ms: int) -> bool:
        """Take a name away.

        Args:
            name: the name.
            incarnation: only if held by this incarnation; None where the holder has none.
            now_ms: the time.

        Returns:
            True if the name was held and is free now, False if it is nobody's or of another incarnation.

        Raises:
            InvalidRequest: not usable as a name; or it is held by an incarnation, and none is named.
            Unavailable, CorruptRecord: the name is absent and nobody knows yet, or any more, whether it is held.
        """
        key, held = self._find(name, now_ms)
        if held is None:
            return False
        if incarnation is None and held.registration.incarnation:
            raise InvalidRequest("this name belongs to an incarnation, as those of daemons: only that can give it up")
        if held.registration.incarnation != (incarnation or b""):
            return False
        self._remove(key)
        return True

    def whereis(self, name: Any, now_ms: int) -> Registration | None:
        """Return the registration of a name, or None if nobody has it.

        Raises:
            InvalidRequest: not usable as a name.
            Unavailable, CorruptRecord: the name is absent and nobody knows yet, or any more, whether it is held.
        """
        held = self._find(name, now_ms)[1]
        return held.registration if held else None

    def names(self) -> list[Registration]:
        """Return every registration known now, oldest first; while not ``settled`` there may be more."""
        return [holder.registration for holder in self._holders.values()]

    def is_held(self, name: Any) -> bool:
        """Tell whether anybody is known to hold a name."""
        return canonical(name) in self._holders

    def holds_any(self, process: Process) -> bool:
        """Tell whether the process holds a name."""
        return process in self._keys

    def process_died(self, process: Process) -> None:
        """Free every name of a local process that has ended."""
        for key in list(self._keys.get(process, ())):
            self._remove(key)

    def tick(self, now_ms: int) -> None:
        """Let time pass: settle, and end what was not renewed. To be called at least four times per lease."""
        self._advance(now_ms)
        for key in [key for key in self._leased if self._holders[key].ends_ms <= now_ms]:
            holder = self._holders[key]
            if holder.process is None or not holder.is_to_be_killed:
                self._remove(key)
            elif not holder.killed:
                holder.killed = True
                self._effects.append(Kill(holder.process))

    def effects(self) -> Iterator[Effect]:
        """Hand over what is to be done since the last call, in order."""
        effects, self._effects = self._effects, []
        return iter(effects)

    def _advance(self, now_ms: int) -> None:
        gap_ms, self._seen_ms = now_ms - self._seen_ms, now_ms
        if not 0 <= gap_ms <= self._lease_ms // 2:  # stalled, or the clock went back: renewals may be waiting unread
            self._settles_ms = now_ms + self._lease_ms
            self._settle(False)
            for key in self._leased:
                self._holders[key].ends_ms = now_ms + self._holders[key].lease_ms
        elif now_ms >= self._settles_ms:
            self._settle(True)

    def _settle(self, settled: bool) -> None:
        if self.settled is not settled:
            self.settled = settled
            self.version += 1

    def _find(self, name: Any, now_ms: int) -> tuple[bytes, _Holder | None]:
        self._advance(now_ms)
        key = canonical(name)
        held = self._holders.get(key)
        if held is None and not self.settled:
            raise Unavailable("the registry has just started or stalled and does not know yet whether the name is held")
        if held is None and self._lost:
            raise CorruptRecord(f"the name may be held by a process that the registry has lost: {self._lost}")
        return key, held

    def _add(self, key: bytes, holder: _Holder) -> None:
        self.bytes += _size(key, holder.registration)
        self._holders[key] = holder
        if holder.process is not None:
            self._keys.setdefault(holder.process, set()).add(key)
        if holder.lease_ms:
            self._leased.add(key)
        self._effects.append(Remember(key, holder.registration, holder.process, holder.lease_ms))
        self.version += 1

    def _renew(self, key: bytes, held: _Holder, holder: _Holder) -> None:
        if held.killed:
            return  # its death is on the way
        if held.registration.address == holder.registration.address and bool(held.lease_ms) == bool(holder.lease_ms):
            if held.lease_ms != holder.lease_ms:
                self._effects.append(Remember(key, held.registration, held.process, holder.lease_ms))
            held.lease_ms, held.ends_ms, held.is_restored = holder.lease_ms, holder.ends_ms, False
            return
        self._check_room(_size(key, holder.registration) - _size(key, held.registration), holder)
        self._remove(key)
        self._add(key, holder)

    def _check_room(self, more_bytes: int, holder: _Holder) -> None:
        most = REGISTERED_BYTES if holder.registration.incarnation else REGISTERED_BYTES - RESERVED_BYTES
        if more_bytes > 0 and self.bytes + more_bytes > most:
            raise Overloaded(f"the registry is full: {len(self)} names, {most} bytes are the most in all")

    def _remove(self, key: bytes) -> None:
        holder = self._holders.pop(key)
        self.bytes -= _size(key, holder.registration)
        self._leased.discard(key)
        self._effects.append(Forget(key))
        if holder.process is not None:
            keys = self._keys[holder.process]
            keys.discard(key)
            if not keys:
                del self._keys[holder.process]
                self._effects.append(Release(holder.process))
        self.version += 1


def _is_same_holder(held: _Holder, holder: _Holder) -> bool:
    if held.process != holder.process or held.registration.incarnation != holder.registration.incarnation:
        return False
    return bool(holder.registration.incarnation) or held.registration.address == holder.registration.address


def _size(key: bytes, registration: Registration) -> int:
    parts = _ITEM_BYTES * _items(registration.name)
    return len(key) + len(registration.address.encode()) + len(registration.incarnation) + parts + _FIXED_BYTES


def _items(name: Any) -> int:
    """Return how many values make up a name: everybody who is told of the name looks at each of them."""
    if isinstance(name, dict):
        return 1 + sum(_items(key) + _items(value) for key, value in name.items())
    return 1 + sum(map(_items, name)) if isinstance(name, list | tuple) else 1
