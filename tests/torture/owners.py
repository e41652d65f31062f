"""Provocations of laws 1 and 2: an owner says too much before its disk, or wakes when another one owns its partition.

Owns: how that is brought about on one machine, where the registry ends whoever hangs: the old owner stands still for
less than its lease and is taken for gone meanwhile. Must not know: the faults before, what other clients ask.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from todomq.errors import NameNotFound, Unavailable
from torture.stage import Stage

SOON_S = 3.0
STUCK_S = 1.5
"""Less than until the registry, which stands still, is replaced: then whoever woke gets its partitions back."""
ANSWERED_S = 8.0
GIVEN_UP_S = 0.4
BULK_BYTES = 6 << 20
LOADING_S = 0.5
LISTS = 4


def promised(stage: Stage) -> Iterator[str]:
    """What is answered, and what a read shows, is there after list server and worker die with what lay between them."""
    server, worker = stage.some_pair()
    name = stage.fresh(server, worker)
    with stage.raw() as adder, stage.raw() as reader:
        adder.insist(name, "add_entry", "first")
        reader.insist(name, "size")
        with stage.paused(f"database_worker-{worker}") as (paused,):
            adds = adder.send(name, "add_entry", "second", number=2, floor=2, deadline_s=GIVEN_UP_S)
            adder.arrive()
            reads = reader.send(name, "entries", times=2)  # the second is answered as the first
            answers = adder.wait(adds)  # if nobody has answered, that its deadline is over: nobody sends it again
            reader.drain()
            stage.kill(f"list_server-{server}")
            paused.kill()
        shown = [answer.value[0] for read in reads if (answer := reader.answers.get(read)) and answer.value]
        reader.wait(reads)
    titles = stage.titles(name)
    if answers[0] and answers[0].value and "second" not in titles:
        yield "a change that was acknowledged is lost"
    if any(len(entries) > len(titles) for entries in shown):
        yield "a read has shown what a crash could undo"


def reloaded(stage: Stage) -> Iterator[str]:
    """A list that is loaded again is as it was answered: what was deleted or cleared stays away, its ids too."""
    name = stage.fresh()
    todo = stage.todo.todo_list(name)
    todo.add_entry("first")
    newest = todo.add_entry("second")
    todo.delete_entry(newest.id)  # no entry is left to show that its id was given
    stage.reload(name)
    if (titles := stage.titles(name)) != ["first"]:
        yield f"a list whose newest entry was deleted holds {titles} when it is loaded again"
    if (identifier := todo.add_entry("third").id) <= newest.id:
        yield f"id {identifier} is given again, after the list was loaded again"
    todo.clear()
    stage.reload(name)
    if titles := stage.titles(name):
        yield f"a list that was cleared holds {titles} when it is loaded again"


def woken(stage: Stage) -> Iterator[str]:
    """What an owner that was taken for dead has to write when it wakes reaches no disk."""
    server = stage.some_server()
    name = stage.fresh(server)
    with stage.raw() as raw:
        raw.insist(name, "add_entry", "added", number=1)
        with stage.paused(f"list_server-{server}"):
            first = raw.send(name, "update_entry", 1, {"title": "first"}, number=2, floor=2)
            raw.arrive()  # so it lies in the socket of the one that stands still
            stage.take_for_dead(server)
            (answer,) = raw.wait(first)
            if answer is None or answer.error is not None:
                yield f"a change whose list's partition moves is answered with {answer}"
            raw.insist(name, "update_entry", 1, {"title": "second"}, number=3, floor=3)
    stage.wait(lambda: stage.place(name).server == server, "the partition is with the list server that woke")
    stage.reload(name)
    if (titles := stage.titles(name)) != ["second"]:
        yield f"an owner that woke has undone what the next one had acknowledged: {titles}"


def handed_over(stage: Stage) -> Iterator[str]:
    """What the old owner says of requests that went on to the next one is not taken.

    Router, registry and the next owner stand still in turn, so that what the old owner says comes before the answers.
    """
    server = stage.some_server()
    old = f"list_server-{server}"
    name = stage.fresh(server)
    place = stage.place(name)
    worker = f"database_worker-{place.worker}"
    with stage.raw() as raw, contextlib.ExitStack() as ends:
        raw.insist(name, "size")
        old_owner = ends.enter_context(stage.pause(old))
        adds = raw.send_bulk(name, BULK_BYTES, ANSWERED_S)  # more than a list server takes in some turns
        raw.arrive()
        sent_again, fenced = stage.call("router", "stats")["sent_again"], stage.call(worker, "stats")["fenced"]
        router = ends.enter_context(stage.pause("router"))
        stage.take_for_dead(server)
        stage.wait(lambda: stage.place(name).server not in (server, None), "the partition has another owner", SOON_S)
        next_owner = stage.place(name).server
        ends.enter_context(stage.pause("registry"))  # so that the one that wakes is not heard of
        new_owner = ends.enter_context(stage.pause(f"list_server-{next_owner}"))
        router.go_on()
        again = sent_again + len(adds)
        stage.wait(lambda: stage.call("router", "stats")["sent_again"] >= again, "all goes to the next owner", SOON_S)
        old_owner.go_on()
        stage.call(old, "ping")  # it has served a turn or two, and stands still again before it hears what came of that
        old_owner.stop()
        with contextlib.suppress(Unavailable):  # a worker that takes anything refuses nothing
            stage.wait(lambda: stage.call(worker, "stats")["fenced"] > fenced, "its first changes are refused", SOON_S)
            stage.call(worker, "check")  # comes behind what is refused
        old_owner.go_on()  # and hears of that, with the others still to be served
        with contextlib.suppress(Unavailable):
            stage.wait(lambda: _has_dropped(stage, old, name), "it has dropped the partition", SOON_S)
            for daemon in (old, "router", old, "router"):
                stage.call(daemon, "ping")  # so its word on some of the others is there
        new_owner.go_on()
        if bad := [answer for answer in raw.wait(adds, ANSWERED_S) if answer is None or answer.error is not None]:
            yield f"{len(bad)} changes to a list whose partition has moved are answered with {bad[0]}"
        answer = raw.ask(name, "size", number=len(adds) + 1, floor=len(adds) + 1, deadline_s=STUCK_S)
        if answer.value != len(adds):
            yield f"a list whose partition has moved is not answered for: {answer.error or answer.value}"


def _has_dropped(stage: Stage, server: str, name: str) -> bool:
    """Tell whether a list server, which others need not know of, says that a list is not its own."""
    try:
        stage.call(server, "describe_list", name)
    except NameNotFound:
        return True
    return False


def claimed(stage: Stage) -> Iterator[str]:
    """A partition is served only once it is claimed: what is shown before would lack what is on its way to the disk.

    What a list server that dies has sent lies behind much else that its worker, which stands still, has to write: of
    that it commits a little in each turn, and whoever does not wait for the claim reads in the first.
    """
    server, worker = stage.some_pair()
    names = [stage.fresh(server, worker) for _ in range(LISTS)]
    with stage.raw() as raw:
        for name in names:
            raw.insist(name, "add_entry", "first")
        with stage.paused_behind_writes(worker) as paused:
            adds = [
                raw.send(name, "add_entry", "on its way", number=2, floor=2, deadline_s=GIVEN_UP_S)[0] for name in names
            ]
            raw.arrive()
            stage.wait(lambda: all(stage.described(name)["entries"] == 2 for name in names), "they have it", SOON_S)
            paused.go_on()
            stage.call(f"database_worker-{worker}", "ping")  # it has taken their batch, and no claim before that
            paused.stop()
            raw.wait(adds)  # nobody sends them again: their deadline is over
            stage.kill(f"list_server-{server}")
            reads = [raw.send(name, "entries", number=3, floor=3)[0] for name in names]
            with contextlib.suppress(Unavailable):  # who keeps the law has claimed nothing yet, so nothing is loaded
                stage.wait(lambda: all(stage.described(name)["state"] == "loading" for name in names), "", LOADING_S)
        shown = [answer and answer.value and len(answer.value[0]) for answer in raw.wait(reads)]
    for name, count in zip(names, shown):
        stage.reload(name)
        if (stored := len(stage.titles(name))) != count:
            yield f"a list whose partition is claimed shows {count} entries where {stored} are stored"
