"""What goes wrong in a run, and when: decided by the seed before it begins, healed at its end.

Owns: faults and their healing. Must not know: what clients ask.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from todomq.daemons import socket_name
from topology.clock import MS_US, SECOND_US
from topology.disk import Disk
from topology.network import DELAY_US, Connection
from topology.processes import Process
from topology.world import World

# How often each kind strikes. Who is ``unseen`` is cut off from the registry, and hears the router late.
FAULTS = {
    "kill": 5, "kill_pair": 1, "pause": 3, "long_pause": 1, "cut": 4, "cut_all": 1, "delay": 3, "remove": 1,
    "slow_disk": 2, "slow_syncs": 2, "old_owner": 3, "fail_before": 2, "fail_after": 2, "full_disk": 1, "low_disk": 2,
    "open_fails": 1, "lose_writes": 3,
}  # fmt: skip
SPREAD_FAULTS = {**FAULTS, "old_owner": 12, "unseen": 12}
"""Where each daemon is on a machine of its own: there an owner that was taken for dead may live on."""

SUPERVISORD = 0.15
"""In how many runs on one machine supervisord is killed as well, and with it everything."""


class Nemesis:
    """The faults of one run."""

    def __init__(self, world: World, until_us: int, only: tuple[str, ...] = ()) -> None:
        """Plan them.

        Args:
            world: where.
            until_us: when the last one is over.
            only: the kinds of faults to use; all of them if none is named.
        """
        self.counts: Counter[str] = Counter()
        self._world = world
        self._random = random = world.stream("nemesis")
        self._names = [socket_name(name) for name in world.settings.daemon_names()]
        self._until_us = until_us
        weights = SPREAD_FAULTS if world.is_spread else FAULTS
        kinds = list(only or weights)
        for _ in range(random.choice((0, 1, 2, 3, 5, 8, 12))):
            kind = random.choices(kinds, [weights.get(kind, 1) for kind in kinds])[0]
            at_us = random.randint(world.clock.now_us, until_us)
            world.clock.after(at_us - world.clock.now_us, lambda kind=kind: self._strike(kind))  # type: ignore[misc]
        world.network.duplicates = random.choice((0.0, 0.0, 0.02, 0.2))
        apart = world.stream("supervisord")
        if not only and not world.is_spread and apart.random() < SUPERVISORD:
            at_us = apart.randint(world.clock.now_us, until_us)
            world.clock.after(at_us - world.clock.now_us, partial(self._strike, "supervisord"))

    def heal(self) -> None:
        """End every fault that goes on."""
        world = self._world
        for disk in world.disks.values():
            disk.heal()
        self._start_again()
        for process in list(world.processes.living.values()):
            process.resume()
        for connection in world.network.connections:
            connection.delay_us = DELAY_US
        world.network.duplicates = 0.0
        world.trace("healed")

    def _strike(self, kind: str) -> None:
        self.counts[kind] += 1
        self._world.trace(f"fault {kind}")
        match kind:
            case "kill":
                self._kill()
            case "kill_pair":
                self._kill()
                self._kill()
            case "pause":
                self._pause(self._random.randint(5 * MS_US, 2 * SECOND_US))
            case "long_pause":
                self._pause(self._random.randint(2 * SECOND_US, 8 * SECOND_US))
            case "supervisord":
                self._kill_supervisord()
            case "remove":
                self._world.network.remove_address()
            case "old_owner":
                self._pause_list_server()
            case "lose_writes":
                self._lose_writes()
            case "unseen":
                self._hide()
            case "cut" | "cut_all" | "delay":
                self._disturb(kind)
            case _:
                self._strike_disk(kind)

    def _some(self) -> Process | None:
        running = self._world.running.get(self._random.choice(self._names))
        return None if running is None else running.process

    def _kill(self) -> None:
        process = self._some()
        if process is not None:
            process.die()

    def _kill_supervisord(self) -> None:
        """Kill it, with which all daemons end, and start another one a while later."""
        self._world.supervisord.die()
        self._world.clock.after(self._random.randint(10 * MS_US, SECOND_US), self._start_again)

    def _start_again(self) -> None:
        if not self._world.supervisord.is_alive:
            self._world.start_again()

    def _pause_list_server(self) -> None:
        """Pause one for longer than its lease: where nobody can kill it, it wakes when others own its partitions."""
        lease_us = self._world.settings.lease_ms * MS_US
        name = f"list_server-{self._random.randint(1, self._world.settings.list_servers)}"
        self._pause(int(lease_us * 1.1) + self._random.randint(0, 2 * SECOND_US), name)

    def _pause(self, duration_us: int, name: str = "") -> None:
        running = self._world.running.get(name)
        process = self._some() if running is None else running.process
        if process is not None and not process.is_paused:
            self._world.trace(f"paused {process!r} for {duration_us} us")
            process.pause()
            self._world.clock.after(duration_us, process.resume)

    def _lose_writes(self) -> None:
        """Cut all connections by which batches go to workers, when some are on their way, and now and then again."""
        for _ in range(self._random.randint(1, 4)):
            self._world.clock.after(self._random.randint(0, SECOND_US), self._cut_when_under_way)

    def _cut_when_under_way(self) -> None:
        network = self._world.network
        for connection in [each for each in network.connections if each.bound.address.endswith(".writes")]:
            connection.delay_us = (40 * MS_US, 80 * MS_US)
            cut_us = self._random.randint(50 * MS_US, 200 * MS_US)
            self._world.clock.after(cut_us, partial(network.break_connection, connection))

    def _hide(self) -> None:
        """Keep a list server's renewals from the registry until others take it for dead, and what it is asked late."""
        settings = self._world.settings
        name = f"list_server-{self._random.randint(1, settings.list_servers)}"
        hidden_us = int(settings.lease_ms * MS_US * 1.5) + self._random.randint(0, SECOND_US)
        late_us = self._random.randint(1 * MS_US, hidden_us)
        for connection in self._world.network.connections:
            ends = connection.connecting.process.name, connection.bound.process.name
            if ends == (name, "registry"):
                connection.delay_us = (hidden_us, hidden_us)
            elif ends == ("router", name):
                connection.delay_us = (late_us // 2, late_us)
            else:
                continue
            self._world.clock.after(hidden_us, partial(_hasten, connection))

    def _disturb(self, kind: str) -> None:
        network = self._world.network
        if not network.connections:
            return
        chosen = self._random.choice(network.connections)
        if kind == "cut":
            network.break_connection(chosen)
        elif kind == "cut_all":
            for connection in [each for each in network.connections if each.bound is chosen.bound]:
                network.break_connection(connection)
        else:
            chosen.delay_us = (100, self._random.randint(1 * MS_US, 300 * MS_US))

    def _strike_disk(self, kind: str) -> None:
        disk = self._world.disks[self._random.randint(1, len(self._world.disks))]
        if kind == "slow_disk":
            disk.is_slow = True
        elif kind == "slow_syncs":
            disk.is_slow_to_sync = True
        elif kind == "full_disk":
            disk.is_full = True
        elif kind == "low_disk":
            disk.is_low = True
        elif kind == "open_fails":
            disk.open_failures += self._random.randint(1, 3)
            disk.failing.append("before")
        else:
            disk.failing.append(kind.removeprefix("fail_"))
        self._world.clock.after(self._random.randint(50 * MS_US, 2 * SECOND_US), lambda: self._mend(disk, kind))

    def _mend(self, disk: Disk, kind: str) -> None:
        if kind == "slow_disk":
            disk.is_slow = False
        elif kind == "slow_syncs":
            disk.is_slow_to_sync = False
        elif kind == "full_disk":
            disk.is_full = False
        elif kind == "low_disk":
            disk.is_low = False


def _hasten(connection: Connection) -> None:
    connection.delay_us = DELAY_US
