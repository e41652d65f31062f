"""Provocations of laws 3 and 4: changes that come twice, too late, too early, or lie between two batches at a death.

Owns: clients that number as they like, and the moments at which a daemon dies or stands still under them.
Must not know: the faults before, what other clients ask.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future

from todomq import Entry
from todomq.errors import DeadlineExceeded, OutOfOrder, TodoMQError
from todomq.protocol.codec import canonical
from torture.stage import Stage

LATE_S = 0.3
RETRIED_BYTES = 50_000
"""More than is in flight of the other clients."""
RETRIED = {"filling": "x" * RETRIED_BYTES}
STORMS = 2
STORM_LISTS = 12
STORM_ADDS = 250
"""Fewer than the router holds back while others ask."""
STORM_FILLING = "x" * 6_000
"""So that a list server takes some tens of turns for them, with a batch in each."""
STORM_BYTES = STORM_ADDS * len(STORM_FILLING)
STORM_SENT_BYTES = 500_000
"""More than the pipe to a worker that stands still takes from the list server."""
STORM_DEADLINE_S = 15.0


def late(stage: Stage) -> Iterator[str]:
    """A change that no list could take before its deadline is never applied."""
    server = stage.some_server()
    name = stage.fresh(server)
    with stage.raw() as raw:
        raw.insist(name, "size")
        with stage.paused(f"list_server-{server}"):
            (answer,) = raw.wait(raw.send(name, "add_entry", "late", deadline_s=LATE_S))
        if answer is None or type(answer.error) is not DeadlineExceeded:
            yield f"a change whose list stands still past its deadline is answered with {answer}"
        if titles := stage.titles(name):
            yield f"a change that reached its list after its deadline has been applied: {titles}"


def repeated(stage: Stage) -> Iterator[str]:
    """Sent again to the next life of list server and worker, a change does nothing and gets the answer it had.

    A read does not show what was sent after it.
    """
    name = stage.fresh(stage.some_server())
    place = stage.place(name)
    key = stage.key(place.worker)
    target = canonical(key)
    with stage.raw() as raw:
        answers = [raw.insist(name, "add_entry", f"title {n}", number=n) for n in (1, 2)]
        for n in (1, 2):
            raw.insist(target, "store", key, n, number=n)
        for daemon in (f"list_server-{place.server}", f"database_worker-{place.worker}"):
            stage.kill(daemon)
        again = [raw.insist(name, "add_entry", f"title {n}", number=n) for n in (1, 2)]
        raw.insist(target, "store", key, 1, number=1)
        with contextlib.suppress(OutOfOrder):
            size = raw.insist(name, "size", number=1)
            yield f"a read that comes again behind the changes that its client sent after it is answered with {size}"
        if again != answers:
            yield f"changes that were answered with {answers} are answered with {again} when they come again"
        if (titles := stage.titles(name)) != ["title 1", "title 2"]:
            yield f"a change that came again took effect again: {titles}"
        if (value := raw.insist(target, "get", key)) != 2:
            yield f"a store that came again took effect again: the value is {value} where 2 was stored last"


def retried(stage: Stage) -> Iterator[str]:
    """A change whose router dies once it has sent it on is sent again by its client, and takes effect once."""
    server = stage.some_server()
    name = stage.fresh(server)
    stage.titles(name)  # so it is loaded
    with stage.todo.pipeline() as pipeline, stage.paused(f"list_server-{server}"):
        pipeline.todo_list(name).add_entry("once", extra=RETRIED)
        stage.wait(lambda: stage.call("router", "stats")["in_flight_bytes"] > RETRIED_BYTES, "the router has it")
        stage.kill("router")
    if (titles := stage.titles(name)) != ["once"]:
        yield f"a change that its client sent again took effect again: {titles}"


def early(stage: Stage) -> Iterator[str]:
    """A change, or a read, that names a number too high waits for what is missing, and is refused without it."""
    name = stage.fresh()
    with stage.raw() as raw:
        raw.insist(name, "add_entry", "title 1", number=1)
        third = raw.send(name, "add_entry", "title 3", number=3)
        read = raw.send(name, "size", number=4)
        for answer in raw.wait([*third, *read]):
            if answer is None or type(answer.error) is not OutOfOrder:
                yield f"a request without the change before it is answered with {answer}"
        both = [raw.send(name, "add_entry", f"title {n}", number=n)[0] for n in (3, 2)]
        raw.wait(both)
        for n in (2, 3):
            with contextlib.suppress(TodoMQError):
                raw.insist(name, "add_entry", f"title {n}", number=n)
    if (titles := stage.titles(name)) != ["title 1", "title 2", "title 3"]:
        yield f"changes that came in another order than that of their numbers have become {titles}"


def storm(stage: Stage) -> Iterator[str]:
    """A list server that dies among many changes leaves none half done: each is there once, in the order sent.

    Whatever reached the worker last is on disk, and answered by nobody: so all of that is sent again.
    """
    for _ in range(STORMS):
        stage.settle()
        yield from _killed_in_storm(stage)


def _killed_in_storm(stage: Stage) -> Iterator[str]:
    server, worker = stage.some_pair()
    names = [stage.fresh(server, worker) for _ in range(STORM_LISTS)]
    for name in names:
        stage.titles(name)  # so it is loaded
    daemon = f"list_server-{server}"
    futures: list[tuple[str, str, Future[Entry]]] = []
    with contextlib.suppress(ExceptionGroup), stage.todo.pipeline() as pipeline, stage.paused(daemon) as (victim,):
        for number in range(STORM_ADDS):
            name, title = names[number % STORM_LISTS], f"{number:05} {STORM_FILLING}"
            futures.append((name, title, pipeline.todo_list(name).add_entry(title, deadline_s=STORM_DEADLINE_S)))
        stage.wait(lambda: stage.call("router", "stats")["in_flight_bytes"] >= STORM_BYTES, "all adds are sent")
        with stage.paused(f"database_worker-{worker}"):
            victim.go_on()  # with much to do, turn by turn; what does not fit into the worker's pipe dies with it
            sent = "they are on their way to the disk"
            stage.wait(lambda: stage.call(daemon, "stats")["uncommitted_bytes"] > STORM_SENT_BYTES, sent)
            victim.kill()
    for name in names:
        stored = {entry.id: entry.title for entry in stage.todo.todo_list(name).entries()}
        told = {add.result().id: title for at, title, add in futures if at == name and not add.exception()}
        yield from _wrong(list(stored.values()), stored, told)


def _wrong(titles: list[str], stored: dict[int, str], told: dict[int, str]) -> Iterator[str]:
    """Say what is wrong with a list to which one client added titles in ascending order."""
    if twice := [title for title, times in Counter(titles).items() if times > 1]:
        yield f"{len(twice)} changes took effect twice, {twice[0]!r:.20} among them"
    elif missing := [title for identifier, title in told.items() if stored.get(identifier) != title]:
        yield f"{len(missing)} acknowledged entries are not there under their ids, {missing[0]!r:.20} among them"
    elif titles != sorted(titles):
        yield "changes of one client took effect in another order than they were sent in"
