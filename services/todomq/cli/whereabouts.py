"""Where a list lives, and what its requests wait for: ``todomq probe list`` and ``todomq probe why``.

Owns: the questions to every hop of a list's way, the reading of the answers. Must not know: the terminal.
Every list server is asked directly, not through the cache, so that there is an answer even if the cache is away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from todomq.cli.asking import Answer, ask_all, ask_names, calling, registered_in, why_no_answer
from todomq.cli.show import counted, name_of
from todomq.cli.stack_parts import Name, expected_daemons, supervised
from todomq.errors import CorruptRecord, NameNotFound
from todomq.protocol.partitions import partition_of, worker_of

if TYPE_CHECKING:
    from todomq.client import Client
    from todomq.settings import Settings

HOP_S = 1.0


class Whereabouts(NamedTuple):
    """What the hops of a list's way say.

    Attributes:
        list_name: the list.
        partition: of its name.
        worker: the database worker that keeps it.
        server: the list server that serves it, or None if none does.
        description: what that list server says of the list; empty if none serves it.
        answers: the answer of every daemon asked, by its name: a database worker's to ``check``, a list server's to
            ``describe_list``, others' to ``stats``.
        registered: the pid of each registered daemon, or None if the registry did not say.
    """

    list_name: str
    partition: int
    worker: int
    server: int | None
    description: dict[str, Any]
    answers: dict[Name, Answer]
    registered: dict[Name, int | None] | None


class Reason(NamedTuple):
    """What a list's requests wait for.

    Attributes:
        hop: the daemon where they wait or that they wait for; None if nothing waits.
        text: the reason, for a person.
        since_ms: how long that has been so, in milliseconds, if it is known.
    """

    hop: Name | None
    text: str
    since_ms: int | None = None


def find(todo: Client, settings: Settings, list_name: str) -> Whereabouts:
    """Ask every hop of a list's way. The list is not loaded by this.

    Raises:
        InvalidRequest: not a list's name. Unavailable: the router does not answer.
    """
    todo.todo_list(list_name)  # checks the name
    names = ask_names(todo, HOP_S)
    registered = registered_in(names)
    daemons = expected_daemons(settings, supervised(settings, todo.endpoint), registered)
    workers = max(int(name[1]) for name in daemons if name[0] == "database_worker")
    servers = [int(name[1]) for name in daemons if name[0] == "list_server"]
    partition = partition_of(list_name.encode())
    questions: dict[Any, Any] = {name: calling(name, "stats", deadline_s=HOP_S) for name in (("router",), ("cache",))}
    for number in servers:
        name = ("list_server", number)
        questions[name] = calling(name, "describe_list", list_name, deadline_s=HOP_S)
    answers: dict[Any, Answer] = ask_all(todo, questions)
    owners = [(answers["list_server", n].value["epoch"], n) for n in servers if answers["list_server", n].error is None]
    server = max(owners)[1] if owners else None
    description = {} if server is None else answers["list_server", server].value
    # A list server knows how many workers its stack has; another stack may have fewer than this home's settings say.
    worker = description["worker"] if description else worker_of(partition, workers)
    keeper = ("database_worker", worker)
    answers |= ask_all(todo, {keeper: calling(keeper, "check", deadline_s=HOP_S)})
    if names.error is not None and all(answer.error is not None for answer in answers.values()):
        raise names.error
    return Whereabouts(list_name, partition, worker, server, description, answers, registered)


def explain(found: Whereabouts) -> Reason:
    """Say what the list's requests wait for, going along their way: router, list server, database worker."""
    if found.server is None:
        return _no_server(found)
    router = found.answers["router",]
    if router.error is None and found.partition in router.value.get("moving", ()):
        text = f"partition {found.partition} is moving: its requests wait there until the cache names its owner anew"
        return Reason(("router",), text)
    described, server, worker = found.description, found.server, found.worker
    since_ms = described.get("state_since_ms")
    if described["state"] == "quarantined":
        return Reason(("list_server", server), f"its record can't be read: {described['error']}", since_ms)
    trouble = _worker_trouble(found)
    if described["state"] == "loading":
        text = trouble or f"database_worker {worker} is reading it for list_server {server}"
        return Reason(("database_worker", worker), text, since_ms)
    if described.get("uncommitted") or (trouble and described["uncommitted_since_ms"] is not None):
        text = trouble or f"database_worker {worker} has not committed its last changes yet"
        return Reason(("database_worker", worker), text, described["uncommitted_since_ms"])
    if described.get("out_of_turn"):
        early = counted(described["out_of_turn"], "change")
        text = f"{early} came ahead of one that the client has not sent or sends again"
        return Reason(("list_server", server), text, None)
    if described["state"] == "stopping":
        return Reason(("list_server", server), "its actor is ending and will be loaded again", since_ms)
    if trouble:
        return Reason(("database_worker", worker), f"nothing waits now, but changes would: {trouble}", None)
    return Reason(None, "nothing: every hop answers")


def is_at_fault(found: Whereabouts, reason: Reason) -> bool:
    """Tell whether the part that the list waits for is failing, not just busy: it gave an error, or can't read it."""
    if reason.hop is None:
        return False
    return found.answers[reason.hop].error is not None or found.description.get("state") == "quarantined"


def _no_server(found: Whereabouts) -> Reason:
    partition, worker = found.partition, ("database_worker", found.worker)
    refused = {
        name: answer.error for name, answer in found.answers.items()
        if name[0] == "list_server" and answer.error is not None and not isinstance(answer.error, NameNotFound)
    }  # fmt: skip
    damage = next((error for error in refused.values() if isinstance(error, CorruptRecord)), None)
    if damage is not None:
        return Reason(worker, f"partition {partition} can't be read: {damage}")
    trouble, cache = _worker_trouble(found), found.answers["cache",]
    waits = f"partition {partition} has no list server that answers"
    if trouble:
        return Reason(worker, f"no list server can claim partition {partition}: {trouble}")
    if cache.error is not None:
        why = why_no_answer(("cache",), cache.error, found.registered)
        return Reason(("cache",), f"{waits}, and the cache, which would place it, {why}")
    for name, error in refused.items():
        return Reason(name, f"{waits}: {name_of(list(name))} {why_no_answer(name, error, found.registered)}")
    return Reason(("router",), f"{waits}: it is moving, and requests wait at the router")


def _worker_trouble(found: Whereabouts) -> str:
    worker: Name = ("database_worker", found.worker)
    error = found.answers[worker].error
    if error is not None:
        return f"{name_of(list(worker))} {why_no_answer(worker, error, found.registered)}"
    if found.description.get("worker_greeted") is False:
        return f"{name_of(list(worker))} has not answered the greeting of list_server {found.server} yet"
    return ""
