"""What must be true of the stack when everything is healed and answered: nothing grew, everybody is back.

Owns: the look into the daemons' tables. Must not know: what was asked.
"""

from __future__ import annotations

from typing import Any

from todomq.list_server.service import ListServerService
from todomq.router.service import RouterService
from topology.workload import Workload
from topology.world import Running, World


def leftovers(world: World, workload: Workload) -> list[str]:
    """Return what is there and should not be, or is not there and should."""
    problems = [f"{orphan!r} stays though the supervisord that started it is gone" for orphan in world.orphans()]
    problems += [f"{name} does not run" for name in world.missing()]
    for name, running in world.running.items():
        problems += [f"{name}: {what}" for what in _of_daemon(world, running)]
    for client in workload.clients:
        session: Any = client.client.session
        if client.open or session._unanswered or session._again or session._delayed or session._outbox:
            problems.append(f"{client.name} has {client.open} requests open")
    return problems


def _of_daemon(world: World, running: Running) -> list[str]:
    problems = []
    daemon: Any = running.daemon
    if daemon.server._backlog:
        problems.append(f"replies wait for {len(daemon.server._backlog)} peers")
    if running.process.name != "registry":
        missing = [name for name in world.settings.daemon_names() if daemon.whereis(name) is None]
        if missing:
            problems.append(f"does not know {missing}")
        for peer in daemon._connections:
            if peer._outbox or peer._requests or peer.outbox_bytes:
                problems.append(f"{len(peer._outbox)} messages wait for {peer.address}")
    service: Any = running.service
    if isinstance(service, RouterService):
        problems += _of_router(service)
    elif isinstance(service, ListServerService):
        problems += _of_list_server(service)
    return problems


def _of_router(service: RouterService) -> list[str]:
    problems = []
    if service.in_flight.flights or service.in_flight.bytes:
        problems.append(f"{len(service.in_flight.flights)} requests, {service.in_flight.bytes} bytes in flight")
    if service.routing.moving:
        problems.append(f"partitions {sorted(service.routing.moving)[:5]} are moving")
    return problems


def _of_list_server(service: Any) -> list[str]:
    problems = []
    for number, gate in service.hosting.gates.items():
        if gate.batches or gate.bytes:
            problems.append(f"{len(gate.batches)} batches, {gate.bytes} bytes not committed by worker {number}")
    if service._ownership._releases or service._list_calls._activations or service.hosting._stopping:
        problems.append("releases, activations or stopping actors are left")
    if service.hosting.listings or service._listings:
        problems.append(f"{len(service.hosting.listings) + len(service._listings)} listings wait or are under way")
    for number, link in service._links.items():
        if link._waiting or link._unsent or not link.greeted:
            problems.append(f"the link to worker {number} is not idle")
    for partition in service.hosting.partitions:
        for actor in partition.actors.values() if partition is not None else ():
            waiting = [session for session in actor.sessions.values() if session.waiting]
            if actor.queue or waiting or actor.state != "ready":
                problems.append(f"list {actor.name!r} is {actor.state}, requests wait")
    return problems
