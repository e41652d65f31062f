"""Calls about a list, as opposed to requests to it: that its actor begins, ends, or is described.

Owns: who waits for a list to be loaded. Must not know: the requests of clients, sockets. Talks to: the cache, which
asks them for itself (activate) or for whoever debugs (kill_list, describe_list).
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from todomq.errors import NOT_APPLIED, DeadlineExceeded, NameNotFound, Overloaded, TodoMQError
from todomq.list_server.actor import LOADING, STOPPING, ListActor
from todomq.list_server.hosting import Hosting
from todomq.list_server.partition import Partition
from todomq.list_server.records import stored_bytes
from todomq.list_server.todo_list import TodoList
from todomq.list_server.worker_link import WorkerLinks
from todomq.protocol.entries import check_list_name
from todomq.protocol.partitions import partition_of, worker_of
from todomq.runtime.calls import LATER, Call, Operation
from todomq.runtime.loop import Loop

SAMPLE_ENTRIES = 200
WAITING_ACTIVATIONS = 4_096
NOT_OWNED = "this list server does not own the list's partition"


class ListCalls:
    """The calls about single lists."""

    def __init__(self, loop: Loop, hosting: Hosting, links: WorkerLinks) -> None:
        self.operations: dict[str, Operation] = {
            "activate": self._activate, "kill_list": self._kill_list, "describe_list": self._describe_list,
        }  # fmt: skip
        self._loop = loop
        self._hosting = hosting
        self._links = links
        self._activations: list[tuple[ListActor, Call]] = []

    def end_turn(self) -> None:
        """Answer those whose list is ready now."""
        if not self._activations:
            return
        waiting, self._activations = self._activations, []
        for actor, call in waiting:
            partition = self._hosting.partitions[actor.partition.number]
            current = partition.actors.get(actor.name) if partition is actor.partition and partition else None
            if partition is not actor.partition:
                call.refuse(NameNotFound(NOT_OWNED))
            elif self._loop.now_ms() > call.deadline_ms:
                call.refuse(DeadlineExceeded("the list was not loaded in time"))
                if current is not None:
                    self._hosting.let_go(current)  # whoever else waits for it has it begin again
            elif current is None:
                heir = self._hosting.activate(actor.partition, actor.name, self._loop.now_ms())
                self._activations.append((heir, call))
            elif _is_to_answer_soon(current):
                self._activations.append((current, call))
            else:
                try:
                    call.answer(_activation(current))
                except TodoMQError as error:
                    call.refuse(error)

    def _activate(self, call: Call) -> object:
        name = check_list_name(call.only_argument())
        partition, now_ms = self._partition(name), self._loop.now_ms()
        actor = self._hosting.activate(partition, name, now_ms)
        actor.used_ms = now_ms
        if _is_to_answer_soon(actor):
            if len(self._activations) >= WAITING_ACTIVATIONS:
                self._hosting.let_go(actor)
                raise Overloaded("too many callers wait for lists to be loaded")
            self._activations.append((actor, call))
            return LATER
        return _activation(actor)

    def _kill_list(self, call: Call) -> bool:
        name = check_list_name(call.only_argument())
        actor = self._partition(name).actors.get(name)
        if actor is None:
            return False
        self._hosting.kill(actor)
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
            "worker": worker_of(partition.number, len(self._hosting.gates)),
            "worker_greeted": self._links.of(partition.number).greeted,
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
        partition = self._hosting.partitions[partition_of(name.encode())]
        if partition is None or partition.releasing:
            raise NameNotFound(NOT_OWNED)
        if partition.refusal is not None:
            raise partition.refusal.with_outcome(NOT_APPLIED)
        return partition


def _is_to_answer_soon(actor: ListActor) -> bool:
    """Tell whether a list that is not ready is worth waiting for: not where its worker says why it can't be read."""
    return actor.state is STOPPING or (actor.state is LOADING and actor.error is None)


def _activation(actor: ListActor) -> list[int]:
    if actor.error is not None:
        raise actor.error.with_outcome(NOT_APPLIED)  # a new one each time: one that was raised keeps its traceback
    return [actor.activation, actor.partition.epoch]


def _about_stored_bytes(todo: TodoList) -> int:
    """Return about how many bytes a list's entries take in storage: the mean of the first ones for all."""
    sample = list(islice(todo.entries.values(), SAMPLE_ENTRIES))
    return len(todo) * sum(map(stored_bytes, sample)) // max(1, len(sample))
