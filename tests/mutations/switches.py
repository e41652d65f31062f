"""The switches, by law. Each is as small as it can be, and leaves everything else as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack
from msgspec.structs import replace

from mutations.switch import Replaced, breaks
from todomq import errors
from todomq.client.request import Request
from todomq.client.session import Session as ClientSession
from todomq.database_worker.commit import Commits
from todomq.database_worker.group import Get, TakenBatch, commit_group
from todomq.database_worker.service import DatabaseWorkerService
from todomq.database_worker.shard import COMMITS, Shard
from todomq.list_server import hosting, operations, outgoing, short_ways
from todomq.list_server.actor import LOADING, ListActor
from todomq.list_server.gate import Gate
from todomq.list_server.hosting import Hosting
from todomq.list_server.loading import Loading
from todomq.list_server.operations import CHANGES
from todomq.list_server.outgoing import write_sessions
from todomq.list_server.ownership import Ownership
from todomq.list_server.partition import Partition
from todomq.list_server.records import pack_entry
from todomq.list_server.sessions import Session as ListSession
from todomq.list_server.short_ways import add_plainly, read_again
from todomq.list_server.todo_list import Entry, TodoList
from todomq.list_server.words import Words
from todomq.protocol import limits, messages
from todomq.protocol.entries import check_new_entry
from todomq.registry.registrations import Registrations
from todomq.router.in_flight import InFlight
from todomq.router.routing import Routing
from todomq.runtime import daemon
from todomq.runtime.calls import Call

LONG_WAY_ONLY: Replaced = [
    (hosting, "add_plainly", lambda *asked: False),
    (hosting, "read_again", lambda *asked: False),
]
"""With what is broken in the actor, which the commonest requests do not go through."""

# Law 1: a reply is a promise.


def _let_out(actor: ListActor, asked: Any) -> None:
    """Let the reply to a request out of the gate at once."""
    peer, _, request = asked
    gate = actor.partition.gate
    for batch in (gate.open, *gate.batches.values()):
        for reply in batch.replies:
            if reply.peer == peer and reply.id == request[0]:
                batch.replies.remove(reply)
                actor.partition.replies.append(reply)
                return


@breaks(1)
def answers_before_commit() -> Replaced:
    """A change is answered before it is on disk."""
    change = ListActor._change

    def changed(self: ListActor, asked: Any, *rest: Any) -> None:
        change(self, asked, *rest)
        _let_out(self, asked)

    return [(ListActor, "_change", changed), *LONG_WAY_ONLY]


@breaks(1)
def shows_uncommitted() -> Replaced:
    """A read is answered though what it shows is not on disk."""
    serve = ListActor._serve

    def served(self: ListActor, asked: Any, now_ms: int) -> None:
        serve(self, asked, now_ms)
        if messages.read_body(asked[2][3])[0] not in CHANGES:
            _let_out(self, asked)

    return [(ListActor, "_serve", served), *LONG_WAY_ONLY]


@breaks(1)
def plain_adds_are_answered_at_once() -> Replaced:
    """An add by the short way is answered before it is on disk."""

    def added(actor: ListActor, peer: bytes, sender: bytes, request: Any, now_ms: int) -> bool:
        took = add_plainly(actor, peer, sender, request, now_ms)
        if took:
            _let_out(actor, (peer, sender, request))
        return took

    return [(hosting, "add_plainly", added)]


@breaks(1)
def reads_again_show_uncommitted() -> Replaced:
    """A read by the short way is answered though what it shows is not on disk."""

    def answered(actor: ListActor, peer: bytes, sender: bytes, request: Any, now_ms: int) -> bool:
        last_batch, actor.last_batch = actor.last_batch, 0
        took = read_again(actor, peer, sender, request, now_ms)
        actor.last_batch = last_batch
        return took

    return [(hosting, "read_again", answered)]


@breaks(1)
def worker_says_committed_first() -> Replaced:
    """A worker says that a group is committed, then commits it."""

    def end_turn(self: Shard) -> list[messages.Committed]:
        storage = self._storage
        group = self.commits.next_group() if storage is not None else []
        marks = dict(self.commits.marks)
        if storage is not None and any(isinstance(item, Get) for item in group):
            self._loop.offload(lambda: commit_group(group, storage, marks, 0), self._committed, COMMITS)
        elif storage is not None and group:
            self.commits.committed([None if isinstance(item, TakenBatch) else item.value for item in group])  # type: ignore[union-attr]
            self._loop.offload(lambda: commit_group(group, storage, marks, 0), lambda result, error: None, COMMITS)
        words, answers = self.commits.ready()
        for ask, outcome in answers:
            ask(outcome)
        return words

    return [(Shard, "end_turn", end_turn)]


@breaks(1)
def deletes_in_memory_only() -> Replaced:
    """A delete never reaches the disk."""
    delete = CHANGES["delete_entry"]

    def deleted(todo: TodoList, arguments: list[Any], touched: Any) -> Any:
        value = delete(todo, arguments, touched)
        touched.clear()
        return value

    return _operation("delete_entry", deleted)


def _operation(name: str, replacement: Callable[..., Any]) -> Replaced:
    return [(operations, "CHANGES", {**CHANGES, name: replacement})]


@breaks(1)
def clears_in_memory_only() -> Replaced:
    """The record of a clear never reaches the disk."""

    def write_record(self: ListActor, todo: TodoList, deleted: bool) -> None:
        if self.record is None:
            record(self, todo, deleted)

    record = ListActor.write_list_record
    return [(ListActor, "write_list_record", write_record)]


@breaks(1)
def gives_ids_again() -> Replaced:
    """The id of a deleted newest entry is given again once the list was loaded again."""

    def delete(self: TodoList, identifier: int) -> bool:
        entry = self.entries.pop(identifier, None)
        if entry is None:
            return False
        self._drop_from_index(entry)
        return True

    return [(TodoList, "delete", delete)]


# Law 2: one owner.


@breaks(2)
def skips_the_fence() -> Replaced:
    """A worker takes batches under old epochs."""
    return [(Commits, "_fenced", lambda self, batch: [])]


@breaks(2)
def router_takes_old_replies() -> Replaced:
    """A request that goes to a new owner keeps its id, so the old owner's reply is taken."""
    return [(InFlight, "renew", lambda self, identifier: identifier)]


@breaks(2)
def serves_before_the_claim() -> Replaced:
    """A list server serves a partition, loading it, before the worker has granted its claim."""
    own = Ownership._own

    def owned(self: Ownership, call: Call) -> object:
        arguments = list(call.arguments)
        known = self._hosting.partitions[arguments[0]]
        if known is None or known.epoch < arguments[1]:
            self._hosting.own(arguments[0], arguments[1])
            self._links.of(arguments[0]).call("claim", *arguments[:3], done=lambda answer: None)
            return [True, *arguments[1:3]]
        return own(self, call)

    return [(Ownership, "_own", owned)]


# Law 3: once.


@breaks(3)
def skips_the_dedupe() -> Replaced:
    """A change that comes again takes effect again."""
    change = ListActor._change

    def changed(self: ListActor, asked: Any, *rest: Any) -> None:
        session = self.sessions.get(asked[1])
        number = asked[2][4]
        if session is not None and asked[2][5] <= number < session.next:
            session.next = number
        change(self, asked, *rest)

    return [(ListActor, "_change", changed), *LONG_WAY_ONLY]


@breaks(3)
def forgets_sessions_at_load() -> Replaced:
    """What was answered is forgotten when a list is loaded."""
    nothing = lambda self, *record: None  # noqa: E731
    return [(Loading, "_take_session", nothing), (Loading, "_take_addition", nothing)]


@breaks(3)
def session_in_the_next_batch() -> Replaced:
    """The record of a change lies in the batch behind the change."""
    ready = Hosting.ready

    def late(self: Hosting, now_ms: int) -> Any:
        result = ready(self, now_ms)
        write_sessions(self._outgoing.lists_to_write)
        return result

    return [
        (outgoing, "write_sessions", lambda changed: None),
        (Hosting, "ready", late),
        (ListActor, "_can_tell_beside_entries", lambda self, *change: False),
        *LONG_WAY_ONLY,
    ]


@breaks(3)
def plain_adds_tell_of_nobody() -> Replaced:
    """The record of an add by the short way does not say whose it is."""
    return [(short_ways, "pack_titled", lambda title, date, added: pack_entry(Entry(0, title, date)))]


@breaks(3)
def accepts_past_deadline() -> Replaced:
    """A list takes a change whose deadline has passed."""
    serve = ListActor._serve

    def served(self: ListActor, asked: Any, now_ms: int) -> None:
        peer, sender, request = asked
        late = [*request]
        late[2] = max(late[2], now_ms)
        serve(self, (peer, sender, late), now_ms)

    refuse_none = (ListActor, "refuse_overdue", lambda self, now_ms: None)
    return [(ListActor, "_serve", served), refuse_none, *LONG_WAY_ONLY]


@breaks(3)
def remembers_too_briefly() -> Replaced:
    """The record of a change is kept for a hundredth of a second."""
    return [(limits, "REMEMBERED_MS", 10)]


@breaks(3)
def retries_under_a_new_number() -> Replaced:
    """A client sends again under a new number."""
    stamped = ClientSession._stamped

    def stamp(self: ClientSession, request: Request[Any], now_ms: int) -> Any:
        if request.first_sent_ms and request.counter is not None and request.error is None:
            request.counter.close(request.number)
            request.counter = None
        return stamped(self, request, now_ms)

    return [(ClientSession, "_stamped", stamp)]


@breaks(3)
def sends_casts_twice() -> Replaced:
    """A client sends a cast twice."""
    submit = ClientSession.submit

    def submitted(self: ClientSession, requests: Sequence[Request[Any]]) -> None:
        twice: list[Request[Any]] = []
        for request in requests:
            twice.append(request)
            if request.is_cast:
                again = Request(request.kind, request.target, request.body, request.read, is_cast=True)
                again.deadline_ms = request.deadline_ms
                again.refusal = _UNTOLD
                twice.append(again)
        submit(self, twice)

    take = ClientSession.take_finished

    def take_finished(self: ClientSession) -> list[Request[Any]]:
        return [request for request in take(self) if request.refusal is not _UNTOLD]

    return [(ClientSession, "submit", submitted), (ClientSession, "take_finished", take_finished)]


_UNTOLD = errors.Unavailable("the second of a cast that was sent twice")


@breaks(3)
def stores_twice() -> Replaced:
    """A store that comes again takes effect again."""
    store = DatabaseWorkerService._store

    def stored(self: DatabaseWorkerService, call: Call) -> None:
        call.number = 0
        store(self, call)

    return [(DatabaseWorkerService, "_store", stored)]


# Law 4: in order.


@breaks(4)
def takes_any_number() -> Replaced:
    """A list takes a change though one before it is missing."""
    change = ListActor._change

    def changed(self: ListActor, asked: Any, *rest: Any) -> None:
        session = self.sessions.get(asked[1])
        if session is not None and asked[2][4] > session.next:
            session.next = asked[2][4]
        change(self, asked, *rest)

    return [(ListActor, "_change", changed), *LONG_WAY_ONLY]


@breaks(4)
def reads_overtake() -> Replaced:
    """A read is answered though a change sent before it has not come."""
    return [(ListActor, "_is_in_order", lambda self, sender, request, asked, now_ms: True), *LONG_WAY_ONLY]


@breaks(4)
def reads_come_late() -> Replaced:
    """A read that comes again is answered though a change sent after it has taken effect."""
    return [(ListSession, "has_taken", lambda self, number: False)]


@breaks(4)
def lost_batches_are_not_missed() -> Replaced:
    """A worker takes a batch though one before it is missing, and the list server believes that all are on disk."""
    take, word = Commits.take_batch, Words._take_word

    def take_batch(self: Commits, batch: messages.Writes, size: int) -> None:
        sender = self._senders.get(batch.sender)
        if sender is not None and batch.number > sender.next:
            sender.next = batch.number
        take(self, batch, size)

    def take_word(self: Words, told: messages.Committed) -> None:
        word(self, told._replace(first=1) if told.outcome == messages.COMMITTED else told)

    return [(Commits, "take_batch", take_batch), (Words, "_take_word", take_word)]


@breaks(4)
def drops_the_order() -> Replaced:
    """The router sends what waited for a moving partition in the opposite order, and lists take any number."""
    again = Routing._send_again

    def send_again(self: Routing, partitions: set[int]) -> None:
        flights = self._in_flight.flights
        most = max((flight.order for flight in flights.values()), default=0)
        for identifier, flight in list(flights.items()):
            flights[identifier] = replace(flight, order=most - flight.order)
        again(self, partitions)

    return [(Routing, "_send_again", send_again), *takes_any_number(), *reads_overtake()]


@breaks(4)
def shows_what_it_was() -> Replaced:
    """A list that has changed answers a read with the page that it kept from before."""
    change = ListActor._change

    def changed(self: ListActor, asked: Any, *rest: Any) -> None:
        kept = self.last_page
        change(self, asked, *rest)
        self.last_page = kept

    return [(ListActor, "_change", changed), (hosting, "add_plainly", lambda *asked: False)]


# Law 5: a failure stays where it is.


@breaks(5)
def poison_spreads() -> Replaced:
    """A list that can't be read takes the others of its partition down."""
    quarantine = ListActor.quarantine

    def quarantined(self: ListActor, error: errors.TodoMQError) -> None:
        quarantine(self, error)
        for other in self.partition.actors.values():
            if other is not self:
                quarantine(other, error)

    take = Hosting.activate

    def activated(self: Hosting, partition: Any, name: str, now_ms: int) -> ListActor:
        one = take(self, partition, name, now_ms)
        poisoned = [other for other in partition.actors.values() if other.error is not None]
        if poisoned and one.error is None:
            quarantine(one, poisoned[0].error)
        return one

    return [(ListActor, "quarantine", quarantined), (Hosting, "activate", activated)]


@breaks(5)
def crash_ends_the_process() -> Replaced:
    """A fault of ours in one list ends its list server."""

    def crashed(self: Hosting, actor: ListActor, crash: Exception) -> None:
        raise crash

    return [(Hosting, "_crashed", crashed)]


@breaks(5)
def loads_hold_up_others() -> Replaced:
    """While one list is loaded, no other is answered."""
    ready = Hosting.ready

    def held_up(self: Hosting, now_ms: int) -> Any:
        batches, replies, reads = ready(self, now_ms)
        owned = [partition for partition in self.partitions if partition is not None]
        if any(one.state is LOADING for partition in owned for one in partition.actors.values()):
            self.replies += replies
            replies = []
        return batches, replies, reads

    return [(Hosting, "ready", held_up)]


# Law 6: nothing grows without bound.


@breaks(6)
def router_takes_everything() -> Replaced:
    """The router has no limit of requests in flight."""
    admit = InFlight.admit

    def admitted(self: InFlight, peer: bytes, sender: bytes, request: list[Any], place: int | bytes) -> int:
        if peer in self._of_connection:
            share = self._of_connection[peer]
            share.requests = share.bytes = -1 << 40
        return admit(self, peer, sender, request, place)

    return [(InFlight, "admit", admitted)]


@breaks(6)
def gate_is_never_full() -> Replaced:
    """A list server has no limit of what is not committed."""
    return [(Gate, "is_full", lambda self: False)]


# Law 7: bad input changes nothing.


@breaks(7)
def applies_in_part() -> Replaced:
    """The good part of a bad request is applied."""

    def add_entries(todo: TodoList, arguments: list[Any], touched: Any) -> list[int]:
        ids = []
        for fields in arguments[0]:
            if type(fields) is not list or not 1 <= len(fields) <= 4:
                raise errors.InvalidRequest("add_entries: an item is not [title, date, extra, done]")
            entry = todo.add(*check_new_entry(*fields))
            touched[entry.id] = entry
            ids.append(entry.id)
        return ids

    return _operation("add_entries", add_entries)


@breaks(7)
def decoder_raises() -> Replaced:
    """The decoder lets through what the packing library raises."""

    def read(data: bytes | memoryview) -> tuple[str, list[Any]]:
        message = msgpack.unpackb(data, strict_map_key=False)
        return message[1], message[2:]

    return [(messages, "read", read)]


# Law 8: unreadable is not empty.


@breaks(8)
def unreadable_is_empty() -> Replaced:
    """A record that can't be read is taken for one that is not there."""
    take = Loading.take

    def taken(self: Loading, value: bytes | None, pairs: list[bytes], last: bytes | None) -> Any:
        try:
            return take(self, value, pairs, last)
        except errors.CorruptRecord:
            return None

    return [(Loading, "take", taken)]


@breaks(8)
def missing_is_empty() -> Replaced:
    """Entries without the list's record are taken for a list without entries."""
    take = Loading._take_entry

    def taken(self: Loading, key: bytes, value: bytes) -> bool:
        return True if self.record is None else take(self, key, value)

    return [(Loading, "_take_entry", taken)]


@breaks(8)
def dropped_is_new() -> Replaced:
    """A partition's first owner takes a list that it has dropped for one that was never stored."""
    drop = Partition.drop

    def dropped(self: Partition, actor: ListActor) -> None:
        drop(self, actor)
        if self._dropped is not None:
            self._dropped.clear()

    return [(Partition, "drop", dropped)]


@breaks(8)
def stored_is_new() -> Replaced:
    """Every owner of a partition takes a list for new that it has not dropped itself."""
    make = Partition.__init__

    def made(self: Partition, number: int, *rest: Any) -> None:
        make(self, number, *rest)
        self._dropped = set()

    return [(Partition, "__init__", made)]


# Law 9: no orphans.


@breaks(9)
def hung_are_left() -> Replaced:
    """The registry does not end a daemon that no longer renews its lease."""
    tick = Registrations.tick

    def ticked(self: Registrations, now_ms: int) -> None:
        for key in self._leased:
            if self._holders[key].process is not None:
                self._holders[key].ends_ms = max(self._holders[key].ends_ms, now_ms + 1)
        tick(self, now_ms)

    return [(Registrations, "tick", ticked)]


@breaks(9)
def orphans_stay() -> Replaced:
    """A daemon does not leave when supervisord is gone."""
    return [(daemon, "die_with_parent", lambda: None)]
