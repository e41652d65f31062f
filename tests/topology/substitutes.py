"""Puts the simulated world in the place of sockets, clocks, locks, pidfds, parents, random bytes, while a run lasts.

Owns: the list of what is replaced. Everything else of the daemons is the real code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import todomq.database_worker.service
import todomq.registry.service
import todomq.runtime.daemon
import todomq.runtime.locks
import todomq.runtime.log
import todomq.runtime.parent
import todomq.runtime.registry_link
import todomq.runtime.sockets
from topology.processes import KeptJournal, WatchedProcesses
from topology.world import World

NETWORK = ("router", "pull", "push", "dealer", "restore", "receive", "has_more", "send")


@contextmanager
def in_world(world: World) -> Iterator[None]:
    """Run the daemons in this world and no other."""
    clock = world.clock
    time = SimpleNamespace(
        time_ns=lambda: clock.wall_us * 1_000,
        monotonic=lambda: clock.now_us / 1e6,
        perf_counter_ns=lambda: clock.now_us * 1_000,
        gmtime=lambda: None,
        strftime=lambda form, stamp: "",
    )
    system = SimpleNamespace(urandom=world.random_bytes, getpid=world.processes.pid)
    # A daemon of another machine has no pid here: the registry can see its lease end, and can't kill it.
    elsewhere = SimpleNamespace(urandom=world.random_bytes, getpid=lambda: None)
    stderr = SimpleNamespace(write=lambda line: _log(world, line), flush=lambda: None)
    # Each daemon finds itself started by supervisord.
    child = SimpleNamespace(environ={"SUPERVISOR_ENABLED": "1"}, getppid=world.processes.parent_pid)
    network = world.network
    replaced: list[tuple[Any, dict[str, Any]]] = [
        (
            todomq.runtime.sockets,
            {name: getattr(network, name) for name in NETWORK},
        ),
        (todomq.runtime.daemon, {"Loop": world.make_loop, "os": elsewhere if world.is_spread else system}),
        (todomq.runtime.registry_link, {"os": elsewhere if world.is_spread else system}),
        (todomq.runtime.locks, {"hold": world.hold, "private_directory": lambda path: None}),
        (todomq.runtime.log, {"time": time, "sys": SimpleNamespace(stderr=stderr), "_seen": {}}),
        (
            todomq.runtime.parent,
            {
                "os": child,
                "sys": SimpleNamespace(stderr=stderr, exit=sys.exit),
                "prctl": world.processes.prctl,
                "is_supervisord": world.is_supervisord,
            },
        ),
        (todomq.database_worker.service, {"time": time}),
        (
            todomq.registry.service,
            {
                "os": system,
                "LocalProcesses": lambda: WatchedProcesses(world.processes),
                "Journal": lambda directory, boot: KeptJournal(world.journal),
                "boot": lambda: "boot",
                "is_endable": world.is_endable,
            },
        ),
    ]
    with ExitStack() as stack:
        for module, names in replaced:
            stack.enter_context(patch.multiple(module, **names))
        yield


def _log(world: World, line: str) -> None:
    world.trace(f"{world.processes.current!r} log {line.strip()}")
