"""The link to a database worker: whatever is in the way, what is not committed is sent and nothing is refused twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from todomq.database_worker.commit import Commits
from todomq.errors import NOT_APPLIED, UNKNOWN, CorruptRecord, Unavailable
from todomq.list_server.gate import Reply
from todomq.list_server.hosting import Hosting
from todomq.list_server.words import Words
from todomq.list_server.worker_link import WorkerLink, WorkerLinks
from todomq.protocol import messages
from todomq.protocol.registration import Registration
from todomq.runtime.callee import Answer
from todomq.runtime.loop import Loop

ME, WORKER = b"list server", b"worker"
PARTITION = 1
ADDRESS = "ipc:///nowhere"


class Wire:
    """The connections of one list server to one worker: what is on the way stands still until it is brought."""

    def __init__(self) -> None:
        self.hellos: list[tuple[tuple[Any, ...], Callable[[Answer], None]]] = []
        self.asked: list[str] = []
        self.batches: list[bytes] = []

    def call(self, operation: str, *arguments: Any, done: Callable[[Answer], None], timeout_s: float) -> None:
        if operation == "hello":
            self.hellos.append((arguments, done))
        else:
            self.asked.append(operation)

    def send(self, message: bytes) -> bool:
        self.batches.append(message)
        return True

    def close(self) -> None:
        return


class Pair:
    """A list server's hosting, gate and link, and the commits of a worker, with a wire between them."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.address = ADDRESS
        self.commits = Commits(WORKER, range(256), {PARTITION: 1})
        self.hosting = Hosting(1, 600_000, 1 << 30)
        self.gate = self.hosting.gates[1]
        links = WorkerLinks()
        self.restarts = 0

        def restarted() -> None:
            self.restarts += 1
            self.hosting.worker_restarted(1)

        granted, another = partial(self.hosting.granted_by, 1), partial(self.hosting.has_another_shard, 1)
        self.link = links[1] = WorkerLink(
            self, 1, ADDRESS, self.gate, granted, restarted, another  # type: ignore[arg-type]
        )
        self.words = Words(ME, self.hosting, links, lambda: 0)
        self.link.registry_changed()

    # What the link takes of its daemon.
    incarnation = ME
    loop = Loop()

    def whereis(self, name: Any) -> Registration:
        return Registration(name, self.address, None, WORKER)

    def connect(self, address: str, **_: Any) -> Wire:
        return self.wire

    push = connect

    def hello(self) -> Callable[[], None]:
        """Bring the hello that is on the way to the worker; return what brings the answer back."""
        (incarnation, _, first, _), done = self.wire.hellos.pop(0)
        self.commits.hello(incarnation, first)
        return lambda: done(Answer([WORKER, ADDRESS, 1, 1], None))

    def write(self) -> None:
        self.gate.write(PARTITION, 1, b"n", b"x")
        batch = self.gate.close(0)
        assert batch is not None
        self.link.send(batch)

    def deliver(self) -> None:
        """Bring the batches that are on the way."""
        while self.wire.batches:
            batch = messages.read_writes(messages.read(self.wire.batches.pop(0))[1])
            self.commits.take_batch(batch, 10)

    def say(self) -> None:
        """Bring what the worker says of batches."""
        for word in self.commits.ready()[0]:
            self.words.take(messages.committed(word))


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.link.greet()
    pair.hello()()
    assert pair.link.greeted
    return pair


def test_a_failure_that_is_heard_while_a_hello_is_on_its_way_is_answered_with_another_hello(pair: Pair) -> None:
    pair.write()
    pair.deliver()
    assert pair.commits.next_group()
    pair.link.greet()  # as after a long silence; it names the batch that is about to fail
    answered = pair.hello()
    pair.commits.failed(Unavailable("the disk"))
    pair.commits.reopened({PARTITION: 1}, {})
    pair.say()
    answered()
    assert not pair.link.greeted, "the worker takes nothing before it has heard that all was given up"
    pair.hello()()
    pair.write()
    pair.deliver()
    group = pair.commits.next_group()
    assert len(group) == 1, "what came after the failure is not refused"
    pair.commits.committed([None])
    pair.say()
    assert not pair.gate.batches


def test_one_hello_is_on_its_way_at_a_time(pair: Pair) -> None:
    for _ in range(3):
        pair.link.greet()
    assert len(pair.wire.hellos) == 1
    pair.hello()()
    pair.hello()()
    assert pair.link.greeted and not pair.wire.hellos


@pytest.mark.parametrize("refused", ["connect", "push"])
def test_where_no_descriptor_is_left_the_worker_is_tried_again_and_what_waits_is_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    tries = list[str]()

    def refuse(address: str, **_: Any) -> Wire:
        tries.append(address)
        if len(tries) < 3:
            raise Unavailable("no socket can be opened: Too many open files")
        return pair.wire

    pair.write()
    pair.wire.batches.clear()  # lost with the connection
    monkeypatch.setattr(pair, refused, refuse)
    moved = Registration(["database_worker", 1], "ipc:///elsewhere", None, WORKER)
    monkeypatch.setattr(pair, "whereis", lambda name: moved)
    pair.link.registry_changed()
    for _ in range(200):
        if len(tries) == 3 and pair.wire.batches:
            break
        if refused == "push" or len(tries) == 3:
            pair.link.greet()
        while pair.wire.hellos:
            pair.hello()()
        pair.loop.turn(0.05)
    assert len(tries) == 3 and pair.link.greeted
    pair.deliver()
    assert pair.commits.next_group()


def test_law_3_that_the_next_life_writes_nothing_does_not_say_that_the_one_before_has_not(pair: Pair) -> None:
    pair.write()
    pair.gate.hold(1, Reply(b"peer", 7, messages.OK, b"", PARTITION))
    pair.link.greet()
    _, done = pair.wire.hellos.pop(0)
    done(Answer([b"next", ADDRESS, 1, 1], None))
    pair.words.take(messages.committed(messages.Committed(ME, b"next", 1, 1, NOT_APPLIED, [], "it can't be opened")))
    (reply,) = pair.hosting.replies
    assert (reply.status, messages.read_error(reply.value).outcome) == (messages.ERROR, UNKNOWN)
    pair.write()
    (number,) = pair.gate.batches
    pair.gate.hold(number, Reply(b"peer", 8, messages.OK, b"", PARTITION))
    word = messages.Committed(ME, b"next", number, number, NOT_APPLIED, [], "it can't be opened")
    pair.words.take(messages.committed(word))
    assert messages.read_error(pair.hosting.replies[-1].value).outcome == NOT_APPLIED, "of what only this life has got"


ANOTHER = CorruptRecord("it is another copy")


def test_law_8_a_worker_is_greeted_with_what_it_granted(pair: Pair) -> None:
    pair.hosting.granted[PARTITION] = 7
    pair.link.greet()
    (arguments, _) = pair.wire.hellos.pop(0)
    assert arguments[-1] == [(PARTITION, 7)]


def test_law_8_a_worker_with_another_shard_gets_nothing_and_what_is_asked_is_refused_until_the_right_one_is_back(
    pair: Pair,
) -> None:
    pair.hosting.own(PARTITION, 1)
    pair.write()
    (number,) = pair.gate.batches
    pair.gate.hold(number, Reply(b"peer", 7, messages.OK, b"", PARTITION))
    pair.wire.batches.clear()
    answers: list[Answer] = []
    pair.link.greet()
    pair.link.call("claim", 2, 1, 0, done=answers.append)
    pair.wire.hellos.pop(0)[1](Answer(None, ANOTHER))
    pair.link.call("read", done=answers.append)
    for _ in range(3):
        pair.loop.turn(0.01)
    assert [type(answer.error) for answer in answers] == [CorruptRecord] * 2
    assert not pair.wire.asked and not pair.wire.batches and not pair.link.greeted
    (reply,) = pair.hosting.replies
    assert messages.read_error(reply.value).outcome == UNKNOWN, "the right worker may have written it"
    partition = pair.hosting.partitions[PARTITION]
    assert partition is not None and partition.refusal is not None and partition.refusal.text == ANOTHER.text
    for _ in range(200):
        if pair.wire.hellos:
            break
        pair.loop.turn(0.05)
    pair.hello()()
    assert pair.link.greeted and pair.restarts == 1, "the same life of the worker: it was away only"
    assert pair.hosting.partitions[PARTITION] is None, "it is claimed anew"
    pair.link.call("read", done=answers.append)
    assert pair.wire.asked == ["read"]


def test_who_has_the_name_at_another_address_is_asked_nothing_before_it_is_greeted(pair: Pair) -> None:
    assert pair.link.greeted
    pair.link.call("claim", 1, 1, 0, done=lambda answer: None)
    assert pair.wire.asked == ["claim"]
    pair.address = "ipc:///elsewhere"
    pair.link.registry_changed()
    pair.link.call("claim", 2, 1, 0, done=lambda answer: None)
    assert pair.wire.asked == ["claim"]
    pair.link.greet()
    pair.hello()()
    assert pair.wire.asked == ["claim", "claim"]
