"""The router on real sockets, between a client and whoever it sends to: what waits, what is refused, what arrives."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import zmq

from todomq import errors
from todomq.protocol import limits, messages
from todomq.protocol.codec import canonical, pack
from todomq.protocol.partitions import PARTITIONS
from todomq.protocol.registration import Registration
from todomq.router.service import RouterService
from todomq.runtime import sockets
from todomq.runtime.callee import OUTBOX_BYTES, Answer, Callee
from todomq.runtime.calls import LATER, Call, CallServer, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.loop import Loop
from todomq.settings import Settings

BOUND_S = 15.0
WORKER = ["database_worker", 1]
JOB = ["my", "job"]


class Taker(Service):
    """A daemon that takes whatever it is asked to store."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Any] = []
        self.operations["store"] = self._store

    def _store(self, call: Call) -> None:
        self.taken.append(call.arguments[0])


class LaterTaker(Taker):
    """A daemon that takes what it is asked to store, and says nothing."""

    def _store(self, call: Call) -> object:  # type: ignore[override]
        super()._store(call)
        return LATER


class Silent(Service):
    """A list server that answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.forwarded = 0

    def on_message(self, server: CallServer, peer: bytes, kind: str, fields: messages.Fields) -> None:
        self.forwarded += 1


class Liar(Service):
    """A job that answers, beside what it was asked, what others were."""

    def __init__(self) -> None:
        super().__init__()
        self.operations["lie"] = self._lie

    def _lie(self, call: Call) -> str:
        assert call.id is not None
        call._server.reply(call.peer, call.id - 1, messages.OK, pack("a lie"))
        call._server.reply(call.peer, call.id - 1, messages.MOVED, b"")
        return "the truth"


class Talkative(Service):
    """A job whose answer takes as many bytes as it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations["talk"] = lambda call: bytes(call.only_argument())


class Stand:
    """A router and a client of it on one loop; the registry is what the test says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.daemon = Daemon(["router"], Settings(home, "", database_workers=1), registers=False)
        self.router = RouterService(self.daemon)
        self.daemon.begin(self.router)
        self.loop = self.daemon.loop
        self.replies: list[list[Any]] = []
        self.client = Callee(self.loop, self.daemon.address, b"client", on_replies=self._replied)
        self.loop.at_turn_end(self.client.flush)
        self._ids = count(1)

    def _replied(self, replies: list[Any]) -> None:
        self.replies += map(list, replies)

    def register(self, name: list[Any], address: str, incarnation: bytes = b"life") -> None:
        self.daemon.registrations[canonical(name)] = Registration(name, address, None, incarnation)
        for action in self.daemon.on_registry_change:
            action()

    def start(self, name: str, service: Service) -> str:
        """Return the address at which the service is asked from now on."""
        server = CallServer(self.loop, f"ipc://{self.home}/{name}", service)
        self.loop.at_turn_end(server.flush)
        return server.address

    def learn_table(self, *servers: str, owner: int = 1) -> None:
        """Tell the router which list servers there are, and that one owns every partition; its number is the epoch."""
        self.register(["cache"], "ipc:///nowhere", self.daemon.incarnation)
        told: list[Answer] = []
        cache = Callee(self.loop, self.daemon.address, self.daemon.incarnation)
        numbered = [[number, address.encode()[-16:], address] for number, address in enumerate(servers, 1)]
        rows = [[partition, owner, owner] for partition in range(PARTITIONS)]
        cache.call("table", numbered, rows, done=told.append)
        cache.flush()
        self.turn_until(lambda: told)
        assert told[0].value is True
        cache.close()

    def ask(self, target: Any, *body: Any, is_cast: bool = False) -> int:
        """Send a request in a message of its own; return its id."""
        identifier = next(self._ids)
        deadline_ms = Loop.now_ms() + int(BOUND_S * 1000)
        request = [None if is_cast else identifier, target, deadline_ms, messages.body(*body), identifier, 1]
        self.client.send(messages.call(b"client", [request]))
        return identifier

    def ask_alone(self, target: Any, *body: Any, is_cast: bool = False) -> None:
        """Send a request that reaches the router in a turn of its own."""
        before = self.router.counts["requests"]
        self.ask(target, *body, is_cast=is_cast)
        self.turn_until(lambda: self.router.counts["requests"] > before)

    def refusals(self) -> dict[int, tuple[str, str]]:
        """Return code and outcome of what was refused, by id; fail where an id was answered twice."""
        assert len({identifier for identifier, _, _ in self.replies}) == len(self.replies)
        refused = [(identifier, value) for identifier, status, value in self.replies if status == messages.ERROR]
        return {
            identifier: (error.code, error.outcome)
            for identifier, value in refused
            for error in [messages.read_error(value)]
        }

    def turn_until(self, condition: Callable[[], Any]) -> None:
        give_up = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < give_up, "the condition was not met in time"
            self.loop.turn(0.02)

    def close(self) -> None:
        for source in [each for each in self.loop._descriptors if isinstance(each, zmq.Socket)]:
            self.loop.unwatch(source)
            if source.type == zmq.DEALER:
                source.disable_monitor()
            source.close(0)


@pytest.fixture
def stand() -> Iterator[Stand]:
    home = Path(tempfile.mkdtemp(prefix="tq"))
    stand = Stand(home)
    yield stand
    stand.close()
    shutil.rmtree(home)


def test_law_6_requests_for_keys_that_waited_for_one_worker_arrive_however_large_they_are_together(
    stand: Stand,
) -> None:
    asked = [stand.ask(canonical(key), "store", key, bytes(900_000)) for key in range(6)]
    stand.turn_until(lambda: len(stand.router.in_flight.flights) == 6)
    assert stand.router.in_flight.bytes > limits.TRANSPORT_BYTES
    worker = Taker()
    stand.register(WORKER, stand.start("worker", worker))
    stand.turn_until(lambda: len(stand.replies) == 6)
    assert [(identifier, status) for identifier, status, _ in stand.replies] == [(each, messages.OK) for each in asked]
    assert worker.taken == list(range(6))


SIZE = 10_000
ROOM = 20 * SIZE
ENOUGH = 1_000
OVERLOADED = ("overloaded", errors.NOT_APPLIED)


@pytest.fixture
def deaf(stand: Stand) -> Iterator[str]:
    """The address of a daemon that reads nothing, without much room on the way to it."""
    address = f"ipc://{stand.home}/deaf"
    with sockets.context().socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.bind(address)
        yield address


@pytest.mark.parametrize("target", [[JOB], "some list"])
def test_law_6_what_waits_for_a_daemon_that_reads_nothing_is_bounded_and_the_rest_is_refused_at_once(
    stand: Stand, deaf: str, monkeypatch: pytest.MonkeyPatch, target: Any
) -> None:
    monkeypatch.setattr("todomq.runtime.callee.OUTBOX_BYTES", ROOM)
    stand.register(JOB, deaf)
    stand.learn_table(deaf)
    asked = 0
    while len(stand.replies) < 20:
        stand.ask_alone(target, "store", bytes(SIZE))
        asked += 1
        assert asked < ENOUGH
    stand.turn_until(lambda: len(stand.replies) + len(stand.router.in_flight.flights) == asked)
    refused = stand.refusals()
    assert set(refused.values()) == {OVERLOADED}
    assert stand.daemon._stats(stand.router)["unsent_bytes"] < ROOM + 2 * SIZE
    monkeypatch.setattr(stand.loop, "now_ms", lambda: Loop.now_ms() + int(BOUND_S * 1000))
    stand.turn_until(lambda: len(stand.replies) == asked)
    late = [said for identifier, said in stand.refusals().items() if identifier not in refused]
    assert set(late) == {("deadline_exceeded", errors.UNKNOWN)}
    assert (stand.router.in_flight.bytes, stand.router.in_flight._of_connection) == (0, {})


def test_law_5_requests_to_lists_are_taken_behind_those_by_name_for_which_there_is_no_room(
    stand: Stand, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todomq.router.in_flight.REQUESTS", 8)
    stand.register(JOB, deaf)
    lists = Silent()
    stand.learn_table(stand.start("lists", lists))
    for _ in range(4):
        stand.ask_alone([JOB], "store", "x")
    mixed = [[each, target, Loop.now_ms() + int(BOUND_S * 1000), messages.body("size"), each, 1]
             for each, target in ((101, [JOB]), (102, "a list"), (103, [JOB]), (104, "another"))]  # fmt: skip
    stand.client.send(messages.call(b"client", mixed))
    stand.turn_until(lambda: len(stand.replies) == 2 and lists.forwarded)
    assert stand.refusals() == {101: OVERLOADED, 103: OVERLOADED}
    assert stand.router.pacing._over == set()


def test_who_has_nothing_in_flight_is_not_held_to_the_least_because_the_router_is_full(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todomq.router.in_flight.REQUESTS", 0)
    refused = stand.ask("a list", "size")
    stand.turn_until(lambda: stand.replies)
    assert stand.refusals() == {refused: OVERLOADED} and stand.router.pacing._over == set()


def test_an_answer_that_is_too_long_for_a_reply_is_refused_with_its_size(stand: Stand) -> None:
    stand.register(JOB, stand.start("job", Talkative()))
    fits, is_too_long = (stand.ask([JOB], "talk", limits.REQUEST_BYTES - each) for each in (5, 4))
    stand.turn_until(lambda: len(stand.replies) == 2)
    assert stand.refusals() == {is_too_long: ("error", errors.UNKNOWN)}
    assert [len(value) for identifier, _, value in stand.replies if identifier == fits] == [limits.REQUEST_BYTES]


def test_a_cast_for_which_there_is_no_room_is_dropped_and_counted(
    stand: Stand, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todomq.runtime.callee.OUTBOX_BYTES", ROOM)
    stand.register(JOB, deaf)
    asked = 0
    while stand.router.counts["casts_dropped"] < 20:
        stand.ask_alone([JOB], "store", bytes(SIZE), is_cast=True)
        asked += 1
        assert asked < ENOUGH
    assert stand.router.counts["casts_dropped"] == asked - len(stand.router.in_flight.flights)
    assert stand.replies == []


def test_what_has_expired_before_anybody_listens_where_a_name_is_registered_is_not_sent_to_who_comes_then(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.register(JOB, f"ipc://{stand.home}/job")
    stand.ask_alone([JOB], "store", "early")
    assert stand.daemon._stats(stand.router)["unsent_bytes"] == 0
    monkeypatch.setattr(stand.loop, "now_ms", lambda: Loop.now_ms() + int(BOUND_S * 1000))
    stand.turn_until(lambda: stand.replies)
    monkeypatch.undo()
    job = Taker()
    stand.start("job", job)
    stand.ask([JOB], "store", "in time")
    stand.turn_until(lambda: len(stand.replies) == 2)
    assert job.taken == ["in time"]


def test_law_3_what_another_list_server_got_before_may_have_taken_effect_though_there_is_no_room_for_it_now(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Silent()
    at_first, nobody = stand.start("first", first), f"ipc://{stand.home}/nobody"
    stand.learn_table(at_first, nobody)
    before = stand.ask("some list", "size")
    stand.turn_until(lambda: first.forwarded)
    monkeypatch.setattr(stand.router._servers[2][1], "outbox_bytes", OUTBOX_BYTES + 1)
    stand.learn_table(at_first, nobody, owner=2)
    after = stand.ask("some list", "size")
    stand.turn_until(lambda: len(stand.replies) == 2)
    assert stand.refusals() == {before: ("overloaded", errors.UNKNOWN), after: OVERLOADED}


def test_law_3_what_another_worker_got_before_may_have_taken_effect_though_nobody_can_be_reached_now(
    stand: Stand,
) -> None:
    worker = LaterTaker()
    stand.register(WORKER, stand.start("worker", worker))
    before = stand.ask(canonical("key"), "store", "key", "value")
    stand.turn_until(lambda: worker.taken)
    stand.register(WORKER, "no address", b"another life")
    after = stand.ask(canonical("key"), "store", "key", "value")
    stand.turn_until(lambda: len(stand.replies) == 2)
    assert stand.refusals() == {
        before: ("unavailable", errors.UNKNOWN), after: ("unavailable", errors.NOT_APPLIED),
    }  # fmt: skip


def test_law_6_of_large_answers_a_client_that_reads_nothing_has_few_in_the_router_and_the_rest_is_refused(
    stand: Stand,
) -> None:
    job = Service()
    job.operations["large"] = lambda call: bytes(900_000)
    stand.register(JOB, stand.start("job", job))
    with sockets.context().socket(zmq.DEALER) as deaf:
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.connect(stand.daemon.address)
        for number in range(1, 61):
            request = [number, [JOB], Loop.now_ms() + int(BOUND_S * 1000), messages.body("large")]
            deaf.send_multipart([b"", messages.call(b"deaf", [request])])
        stand.turn_until(lambda: stand.router.counts["requests"] == 60 and not stand.router.in_flight.flights)
        server = stand.daemon.server
        assert server.counts["messages_sent"] <= sockets.CLIENT_PIPE_MESSAGES + 4, "what is read and written besides"
        assert sum(map(server._backlog.bytes_for, server._backlog._waiting)) < 6_000_000
        told: dict[int, int] = {}
        while len(told) < 60:
            stand.turn_until(lambda: deaf.poll(0))
            told |= {number: status for number, status, _ in replies_in(deaf.recv_multipart()[-1])}
        assert 0 < list(told.values()).count(messages.ERROR) < 60
        assert not server.counts["replies_dropped"]


def replies_in(message: bytes) -> list[Any]:
    kind, fields = messages.read(message)
    assert kind == "reply"
    return messages.read_replies(fields)


def test_law_6_no_more_connections_are_kept_than_list_servers_can_own_partitions(stand: Stand) -> None:
    lists = Silent()
    gone = [f"ipc://{stand.home}/gone-{number}" for number in range(PARTITIONS + 10)]
    stand.learn_table(stand.start("lists", lists), *gone)
    stand.ask("some list", "size")
    stand.turn_until(lambda: lists.forwarded)
    assert list(stand.router._servers) == [1]
    assert len(stand.daemon._connections) == 1


def test_a_job_answers_only_what_it_was_asked_itself(stand: Stand) -> None:
    lists = Silent()
    stand.learn_table(stand.start("lists", lists))
    stand.register(JOB, stand.start("job", Liar()))
    asked = stand.ask("some list", "size")
    stand.turn_until(lambda: lists.forwarded)
    job = stand.ask([JOB], "lie")
    stand.turn_until(lambda: stand.replies)
    assert stand.replies == [[job, messages.OK, pack("the truth")]]
    assert stand.router.counts["replies_without_taker"] == 2
    assert not stand.router.routing.moving and len(stand.router.in_flight.flights) == 1
    assert asked == job - 1


def test_a_name_that_is_registered_at_another_address_is_called_there(stand: Stand) -> None:
    first, second = Taker(), Taker()
    stand.register(JOB, stand.start("first", first), b"")
    stand.ask([JOB], "store", 1)
    stand.turn_until(lambda: first.taken)
    stand.register(JOB, stand.start("second", second), b"")
    stand.ask([JOB], "store", 2)
    stand.turn_until(lambda: second.taken or len(first.taken) > 1)
    assert (first.taken, second.taken) == ([1], [2])


class Registry:
    """What the registry is asked, answered when the test says so."""

    def __init__(self, stand: Stand) -> None:
        self.asked: list[tuple[tuple[Any, ...], Callable[[Answer], None]]] = []
        stand.daemon.settled = True
        stand.daemon.ask_registry = lambda *body, done: self.asked.append((body, done))  # type: ignore[method-assign]

    def answer(self, value: Any = None, error: errors.TodoMQError | None = None) -> None:
        self.asked.pop(0)[1](Answer(value, error))


def test_a_name_that_is_not_known_here_is_nobodys_once_the_registry_says_so(stand: Stand) -> None:
    registry = Registry(stand)
    first = stand.ask([JOB], "store", 1)
    stand.turn_until(lambda: registry.asked)
    second = stand.ask([JOB], "store", 2)
    stand.turn_until(lambda: len(stand.router.in_flight.flights) == 2)
    assert [body for body, _ in registry.asked] == [("whereis_name", JOB)]
    registry.answer(None)
    stand.turn_until(lambda: stand.replies)
    assert stand.refusals() == {first: ("name_not_found", errors.NOT_APPLIED)}
    registry.answer(None)  # the second may have been registered after the first was asked
    stand.turn_until(lambda: len(stand.replies) == 2)
    assert stand.refusals()[second] == ("name_not_found", errors.NOT_APPLIED)
    assert not registry.asked and not stand.router.named.routing.names_waited_for()


def test_a_name_that_was_registered_just_now_is_called_when_the_news_of_it_are_here(stand: Stand) -> None:
    registry, job = Registry(stand), Taker()
    stand.ask([JOB], "store", 1)
    stand.turn_until(lambda: registry.asked)
    registry.answer([JOB, "ipc:///somewhere", None, b""])
    assert not registry.asked
    stand.register(JOB, stand.start("job", job), b"")
    stand.turn_until(lambda: job.taken)


def test_law_5_to_refuse_what_a_crowded_daemon_is_asked_costs_little(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand.router.in_flight.by_daemon, "_most_requests", 16)
    stand.learn_table(stand.start("lists", Silent()))
    for _ in range(12):
        stand.ask("some list", "size")
    stand.turn_until(lambda: len(stand.router.in_flight.flights) == 12)
    packed: list[errors.TodoMQError] = []
    error_value = messages.error_value

    def pack_error(error: errors.TodoMQError) -> bytes:
        packed.append(error)
        return error_value(error)

    monkeypatch.setattr(messages, "error_value", pack_error)
    deadline_ms = Loop.now_ms() + int(BOUND_S * 1000)
    names = ["some list", "another list"] * 50
    requests = [[100 + n, name, deadline_ms, messages.body("size"), n, 1] for n, name in enumerate(names)]
    stand.client.send(messages.call(b"other", requests))
    stand.turn_until(lambda: len(stand.replies) == 100)
    assert set(stand.refusals().values()) == {("overloaded", errors.NOT_APPLIED)}
    assert len(packed) == 2, "each list's refusal is packed once"


def test_law_8_what_the_registry_does_not_know_is_not_told_as_nobody(stand: Stand) -> None:
    registry = Registry(stand)
    asked = stand.ask([JOB], "store", 1)
    stand.turn_until(lambda: registry.asked)
    registry.answer(error=errors.CorruptRecord("the registry has lost it"))
    stand.turn_until(lambda: stand.replies)
    assert stand.refusals() == {asked: ("corrupt_record", errors.NOT_APPLIED)}


@pytest.mark.parametrize(
    "error", [errors.DeadlineExceeded("no answer"), errors.Unavailable("it broke", outcome=errors.UNKNOWN)]
)
def test_a_name_that_was_looked_up_while_the_registry_died_is_looked_up_again(
    stand: Stand, error: errors.TodoMQError
) -> None:
    registry = Registry(stand)
    asked = stand.ask([JOB], "store", 1)
    for _ in range(3):
        stand.turn_until(lambda: registry.asked)
        registry.answer(error=error)
    stand.turn_until(lambda: registry.asked)
    assert not stand.replies
    registry.answer(None)
    stand.turn_until(lambda: stand.replies)
    assert stand.refusals() == {asked: ("name_not_found", errors.NOT_APPLIED)}
    assert not stand.router.named.routing.names_waited_for()


def test_what_waited_while_the_registry_did_not_know_is_looked_up_when_it_does(stand: Stand) -> None:
    registry = Registry(stand)
    stand.daemon.settled = False
    asked = stand.ask([JOB], "store", 1)
    stand.turn_until(lambda: stand.router.in_flight.flights)
    assert not registry.asked
    stand.daemon.settled = True
    stand.register(WORKER, f"ipc://{stand.home}/worker")
    registry.answer(None)
    stand.turn_until(lambda: stand.replies)
    assert stand.refusals() == {asked: ("name_not_found", errors.NOT_APPLIED)}


def test_of_what_nobody_has_got_it_is_not_said_that_it_may_have_taken_effect(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.register(JOB, f"ipc://{stand.home}/job")
    worker = LaterTaker()
    stand.register(WORKER, stand.start("worker", worker))
    unsent, sent = stand.ask([JOB], "store", 1), stand.ask(canonical("key"), "store", "key", "value")
    stand.turn_until(lambda: worker.taken and len(stand.router.in_flight.flights) == 2)
    monkeypatch.setattr(stand.loop, "now_ms", lambda: Loop.now_ms() + int(BOUND_S * 1000))
    stand.turn_until(lambda: len(stand.replies) == 2)
    late = "deadline_exceeded"
    assert stand.refusals() == {unsent: (late, errors.NOT_APPLIED), sent: (late, errors.UNKNOWN)}
