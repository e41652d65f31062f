"""Provocations of laws 5 to 9: one list, shard or client in trouble, and what that may mean for everybody else.

Owns: damage, crashes, floods and garbage on a running stack. Must not know: the faults before, what other clients ask.
A crash needs no hook in the service: a list whose stored ids are at their end meets an integer that cannot be packed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import zmq
from stacks import is_gone

from bad_frames import bad_frames
from todomq.errors import CorruptRecord, InvalidRequest, Overloaded, TodoMQError, Unavailable
from todomq.list_server import records
from todomq.list_server.gate import UNCOMMITTED_BYTES
from todomq.list_server.records import ListRecord
from todomq.protocol import messages
from todomq.router.in_flight import REQUESTS_PER_CONNECTION
from torture.orphans import kill_manager
from torture.raw import Raw
from torture.stage import Stage

OTHERS_S = 2.0
"""How long others may take while one is in trouble; what stands still for that goes on before its lease is over."""
OTHERS = 6
FLOOD = REQUESTS_PER_CONNECTION + 1_500
SWAMPING = 3
SWAMP_BYTES = 13 << 20
"""Less than the router takes of one client; together more than a list server keeps for one worker."""
HELD_BYTES = UNCOMMITTED_BYTES + (2 << 20)
SWAMPED_S = 20.0
HUNG_S = 15.0
"""Five leases."""
LAST_ID = (1 << 64) - 1


def stalled(stage: Stage) -> Iterator[str]:
    """Law 5: while one shard stands still and a list of it is loaded, lists of others are loaded, changed and read."""
    server = stage.some_server()
    stuck, other, *_ = stage.random.sample(stage.workers_of(server), 2)
    waiting = stage.fresh(server, stuck)
    others = [stage.fresh(server, other) for _ in range(OTHERS)]
    with stage.raw() as raw:
        with stage.paused(f"database_worker-{stuck}"):
            loaded = raw.send(waiting, "size")
            raw.arrive()
            asked = []
            for name in others:
                asked += raw.send(name, "size") + raw.send(name, "add_entry", "t") + raw.send(name, "entries", number=2)
            answers = raw.wait(asked, OTHERS_S)
        if any(answer is None or answer.error for answer in answers):
            late = sum(answer is None for answer in answers)
            yield f"while worker {stuck} stands still, {late} requests to lists of another wait for it: {answers[-1]}"
        raw.wait(loaded)


def damaged(stage: Stage) -> Iterator[str]:
    """Laws 5 and 8: a record damaged or missing is an error that names the list; no other list is harmed."""
    for is_missing in (False, True):
        name = stage.fresh()
        stage.todo.todo_list(name).add_entries([("a", None), ("b", None)])
        beside = _loaded_beside(stage, name)
        prefix = records.prefix(name)
        key = records.list_key(name)
        if is_missing:
            stage.write(name, key, None)
        else:
            stage.write(name, stage.random.choice([key, records.entry_key(prefix, 0, 2)]), b"\xc1damaged")
        stage.reload(name)
        for ask in (stage.todo.todo_list(name).entries, lambda name=name: stage.todo.todo_list(name).add_entry("c")):
            said: Any
            try:
                said = ask()
            except TodoMQError as error:
                said = error
            if type(said) is not CorruptRecord or repr(name) not in said.text:
                yield f"a list with a record that is {'missing' if is_missing else 'damaged'} answers {said!r:.200}"
        yield from _look_beside(stage, beside)


def crashed(stage: Stage) -> Iterator[str]:
    """Law 5: a fault of ours in one list ends that list's actor and nothing else."""
    name = stage.fresh()
    stage.todo.todo_list(name).add_entry("a")
    beside = _loaded_beside(stage, name)
    server = f"list_server-{stage.place(name).server}"
    pid, crashes = stage.pid(server), stage.call(server, "stats")["crashes"]
    stage.write(name, records.list_key(name), records.pack_list(ListRecord(lowest_next_id=LAST_ID)))
    stage.reload(name)
    with stage.raw() as raw:
        answers = [raw.ask(name, "add_entry", "t", number=number, floor=number) for number in (1, 2)]
        if all(answer.error is None for answer in answers):
            yield f"ids past the last one are given: {answers}"
        yield from _look_beside(stage, beside)
        if stage.pid(server) != pid or stage.call(server, "stats")["crashes"] == crashes:
            yield f"{server} does not live on, or has met no fault"


def flooded(stage: Stage) -> Iterator[str]:
    """Law 6: past what one client may have in flight it hears Overloaded at once; the others are served."""
    servers = [f"list_server-{number}" for number in range(1, stage.servers + 1)]
    name = stage.fresh()
    with stage.raw() as raw:
        raw.insist(name, "size")
        with stage.paused(*servers):
            flood = raw.send(name, "size", times=FLOOD)
            raw.wait(flood[REQUESTS_PER_CONNECTION:], OTHERS_S)
            refused = sum(type(answer.error) is Overloaded for answer in raw.answers.values())
            if refused < FLOOD - REQUESTS_PER_CONNECTION:
                yield f"{refused} of a flood of {FLOOD} requests are told Overloaded at once"
        if not all(raw.wait(flood)):
            yield "not every request of a flood is answered"


def swamped(stage: Stage) -> Iterator[str]:
    """Law 6: what a list server keeps for a worker that stands still is bounded. Laws 1 and 4: none of it is lost.

    It is more than the worker lets wait of one sender, so that the worker drops batches and asks for them again.
    """
    server, worker = stage.some_pair()
    daemon = f"list_server-{server}"
    names = [stage.fresh(server, worker) for _ in range(SWAMPING)]
    with contextlib.ExitStack() as ends:
        raws = [ends.enter_context(stage.raw()) for _ in names]
        for raw, name in zip(raws, names):
            raw.insist(name, "size")
        sent = []
        with stage.paused_behind_writes(worker):
            for raw, name in zip(raws, names):
                sent.append(raw.send_bulk(name, SWAMP_BYTES, SWAMPED_S))
            with contextlib.suppress(Unavailable):  # a slow machine, on which it is not that much by then
                stage.wait(lambda: any(map(_is_overloaded, raws)) or _held(stage, daemon) > HELD_BYTES, "", OTHERS_S)
            if (held := _held(stage, daemon)) > HELD_BYTES:
                yield f"{daemon} keeps {held} bytes that are not committed"
        told = [raw.wait(identifiers, SWAMPED_S) for raw, identifiers in zip(raws, sent)]
    for name, answers in zip(names, told):
        stage.reload(name)
        stored = {entry.id for entry in stage.todo.todo_list(name).entries(deadline_s=SWAMPED_S)}
        given = {answer.value for answer in answers if answer is not None and answer.error is None}
        if not given <= stored:
            yield f"{len(given - stored)} of {len(given)} acknowledged entries are not there"


def _held(stage: Stage, daemon: str) -> int:
    held: int = stage.call(daemon, "stats")["uncommitted_bytes"]
    return held


def _is_overloaded(raw: Raw) -> bool:
    return any(type(answer.error) is Overloaded for answer in raw.drain())


def bad_in_part(stage: Stage) -> Iterator[str]:
    """Law 7: a request that is bad in part is refused, and changes nothing."""
    name = stage.fresh()
    stage.todo.todo_list(name).add_entry("a")
    with stage.raw() as raw:
        bad: Any
        for number, bad in enumerate(([""], ["t", "2026-13-01"], ["t", None, 5], [], ["t" * 10_001], "t"), 1):
            answer = raw.ask(name, "add_entries", [["good"], ["good too"], bad], number=number, floor=number)
            if type(answer.error) is not InvalidRequest:
                yield f"a request that is bad in part is answered with {answer}"
    if (titles := stage.titles(name)) != ["a"]:
        yield f"a request that was refused has changed the list: {titles}"


def garbage(stage: Stage) -> Iterator[str]:
    """Law 7: whatever is sent to a socket, its daemon lives on and answers."""
    before = {daemon: stage.pid(daemon) for daemon in stage.stack.daemons}
    frames = bad_frames(stage.random)
    for path in stage.stack.sockets():
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH if "." in path else zmq.DEALER)
        try:
            socket.setsockopt(zmq.LINGER, 1_000)
            socket.setsockopt(zmq.SNDTIMEO, 1_000)
            socket.connect(f"ipc://{stage.stack.home}/run/{path}")
            with contextlib.suppress(zmq.Again):
                for frame in frames:
                    socket.send_multipart([frame] if "." in path else [b"", frame])
                if "." not in path:
                    socket.send_multipart([b"", messages.call(b"", [[1, None, 0, messages.body("ping")]])])
                    socket.poll(1_000)
        finally:
            socket.close()
    for daemon, pid in before.items():
        stage.call(daemon, "ping")
        if stage.pid(daemon) != pid:
            yield f"{daemon} has ended of what was sent to its sockets"


def hung(stage: Stage) -> Iterator[str]:
    """Law 9: a daemon that hangs for good is ended, and another one is there in its place."""
    daemon = stage.random.choice([name for name in stage.stack.daemons if name != "registry"])
    with stage.pause(daemon) as victim:
        try:
            stage.wait(lambda: is_gone(victim.pid), f"{daemon}, which hangs, is ended", HUNG_S)
        except Unavailable as error:
            yield error.text
            victim.kill()
    stage.pid(daemon)


def orphaned(stage: Stage) -> Iterator[str]:
    """Law 9: with supervisord gone everything leaves by itself, and it all comes back."""
    if stayed := kill_manager(stage.stack):
        yield stayed


def _loaded_beside(stage: Stage, name: str) -> list[str]:
    """Return lists of the same partition, the same worker and any, with an entry each."""
    place = stage.place(name)
    beside = [stage.fresh(partition=place.partition), stage.fresh(worker=place.worker), stage.fresh()]
    for other in beside:
        stage.todo.todo_list(other).add_entry("beside")
    return beside


def _look_beside(stage: Stage, beside: list[str]) -> Iterator[str]:
    """See that lists beside one in trouble hold what they held and take more, and that new ones are served."""
    place = stage.place(beside[0])
    for name in [*beside, stage.fresh(partition=place.partition)]:
        try:
            stage.todo.todo_list(name).add_entry("more", deadline_s=OTHERS_S)
            titles = stage.titles(name, OTHERS_S)
        except TodoMQError as error:
            yield f"list {name!r} beside the one in trouble answers {error!r}"
            continue
        if titles != (["beside", "more"] if name in beside else ["more"]):
            yield f"list {name!r} beside the one in trouble holds {titles}"
