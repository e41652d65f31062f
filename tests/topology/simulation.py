"""One run: a stack starts, clients ask, the nemesis breaks, everything is healed, and then it is judged.

Owns: the phases of a run and what must be true at its end. Talks to: all of this package and the checker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from checking import check
from todomq.settings import Settings
from topology.clock import SECOND_US
from topology.nemesis import Nemesis
from topology.substitutes import in_world
from topology.trials import Trials
from topology.verdict import leftovers
from topology.workload import SHARED, Asker, Told, Workload
from topology.world import World

DRAINED_US = 60 * SECOND_US
HEALED_US = 20 * SECOND_US
BOUND = 100_000
"""Steps that the checker tries for one list."""

SPREAD = 0.3
"""In how many runs each daemon is on a machine of its own: who is paused there wakes as an old owner."""

QUIET_LOOKS = 20

READ_S = 15.0
"""How long after everything was healed a list may take to answer."""


class Result(NamedTuple):
    """What came of a run."""

    seed: int
    problems: list[str]
    undecided: list[str]
    """Lists whose history the checker could not decide; too many unknown outcomes at once."""
    digest: str
    operations: int
    acknowledged: int
    unknown: int
    faults: dict[str, int]
    restarts: int
    virtual_s: float


def simulate(seed: int, show: Callable[[str], None] | None = None, only: tuple[str, ...] = ()) -> Result:
    """Run one seed.

    Args:
        seed: decides everything.
        show: is given every line of the trace.
        only: kinds of faults to use, all if empty.
    """
    is_spread = Random(f"{seed} spread").random() < SPREAD
    world = World(seed, _settings(seed, is_spread), show, is_spread=is_spread)
    with in_world(world):
        run = _Run(world, only)
        run.go()
    problems = run.problems + run.workload.problems
    return Result(
        seed, problems, run.undecided, world.digest(), len(run.workload.history), run.workload.counts["ok"],
        run.workload.counts["unknown"], dict(run.nemesis.counts), world.restarts,
        (world.clock.now_us - run.begun_us) / SECOND_US,
    )  # fmt: skip


def _settings(seed: int, is_spread: bool) -> Settings:
    random = Random(f"{seed} settings")
    home = Path("/sim")
    return Settings(
        home=home,
        endpoint=Settings(home, "").address("router"),
        list_servers=random.choice((2, 3) if is_spread else (1, 2, 2, 3)),
        database_workers=random.choice((1, 2, 3)),
        idle_s=random.choice((0.1, 1.0, 600.0)),
        lease_ms=random.choice((400, 1_000) if is_spread else (1_000, 3_000)),
    )


class _Run:
    def __init__(self, world: World, only: tuple[str, ...]) -> None:
        self.world = world
        self.problems: list[str] = []
        self.undecided: list[str] = []
        self.begun_us = world.clock.now_us
        random = world.stream("run")
        world.start_all()
        # Some clients ask before the stack is up, some faults strike while it starts.
        begin_us = random.choice((0, 2 * SECOND_US))
        world.clock.run_until(world.clock.now_us + begin_us)
        until_us = world.clock.now_us + random.randint(1 * SECOND_US, 5 * SECOND_US)
        self.nemesis = Nemesis(world, until_us, only)
        self.workload = Workload(world, random.randint(1, 5), until_us, random.choice((0.0, 0.3, 0.8)))
        self._until_us = until_us

    def go(self) -> None:
        world, clock, workload = self.world, self.world.clock, self.workload
        for client in workload.clients:
            workload.go_on(client)
        clock.run_until(self._until_us)
        self.nemesis.heal()
        if not clock.run_until(clock.now_us + DRAINED_US, workload.is_over):
            self.problems.append("a request is not answered though its deadline has passed")
        self._read_back("client-reader")
        self._forget_memory()
        self._read_back("client-rereader")
        report = check(workload.history, BOUND)
        self.problems += [f"VIOLATION {violation}" for violation in report.violations]
        self.undecided = [f"UNDECIDED {undecided}" for undecided in report.undecided]
        clock.run_until(clock.now_us + 4 * SECOND_US)
        self.problems += self._settled()
        if not self.problems:
            self.problems += Trials(world).go()
        self.problems += world.processes.faults

    def _settled(self) -> list[str]:
        """Return what is left over at no moment only of a while: what is checked every second may be under way."""
        left: list[str] = []
        for _ in range(QUIET_LOOKS):
            left = leftovers(self.world, self.workload)
            if not left:
                break
            self.world.clock.run_until(self.world.clock.now_us + SECOND_US // 20)
        return left

    def _forget_memory(self) -> None:
        """Kill every list server, so that what is read next is what lies on the disks."""
        for name, running in list(self.world.running.items()):
            if name.startswith("list_server"):
                running.process.die()

    def _read_back(self, name: str) -> None:
        """With everything healed, each list and key answers in time."""
        workload, clock = self.workload, self.world.clock
        reader = Asker(workload, self.world, name)
        names = {operation.list for operation in workload.history} | set(SHARED)
        for name in sorted(names):
            reader.read_all(name, READ_S, lambda answered, name=name: self._answered(name, answered))  # type: ignore[misc]
        keys: dict[str, Told] = {}
        for client in workload.clients:
            keys |= client.keys
        reader.get_all(keys, READ_S)
        clock.run_until(clock.now_us + HEALED_US, lambda: not reader.open)
        workload.clients.append(reader)

    def _answered(self, name: str, answered: bool) -> None:
        if not answered:
            self.problems.append(f"list {name!r} does not answer within {READ_S} s of healing")
