"""A database worker as a real process: stores, claims, batches, kill -9, garbage, damage, the stop."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import todomq
from batches import batch_of
from todomq.database_worker import records, words
from todomq.database_worker.storage.rocksdb import RocksDBStorage
from todomq.database_worker.storage.small_files import write_file
from todomq.errors import CorruptRecord, InvalidRequest, ProtocolError, TodoMQError, Unavailable
from todomq.protocol import messages
from todomq.protocol.codec import canonical, pack, unpack
from todomq.protocol.messages import COMMITTED, WANTED, Committed
from todomq.runtime import sockets
from todomq.runtime.loop import Loop
from todomq.runtime.pipes import Push

BOUND_S = 20.0
SOURCE = str(Path(todomq.__file__).parents[1])

KEYS: list[Any] = [
    "milk", "", "/", "..", "../../etc/passwd", "\0", "ключ", b"", b"/", b"\xff\xfe", 0, -1, 1, 1.0, True, None,
    [], ["a", 1], [["deep"], {"b": 2, "a": 1}], {}, {"b": 1, "a": [1, 2]}, {1: "one", "1": "text"}, "x" * 4_000,
]  # fmt: skip
VALUES: list[Any] = [None, 0, 1 << 63, -5.5, "text", b"\0bytes", [1, [2, [3]]], {"a": {"b": [None]}}, "v" * 900_000]


class Worker:
    """One worker process of a stack of its own, and a client's connections to it."""

    def __init__(self, home: Path, number: int = 1, pool_size: int = 1) -> None:
        self.home = home
        self.number = number
        self.environment = {
            **os.environ, "TODOMQ_HOME": str(home), "PYTHONPATH": SOURCE, "TODOMQ_DATABASE_WORKERS": str(pool_size),
        }  # fmt: skip
        self.ids = 0
        self.process: subprocess.Popen[str] | None = None
        self.context = zmq.Context()
        self.opened: list[zmq.Socket[bytes]] = []
        self.socket = self.open(zmq.DEALER, f"ipc://{home}/run/database_worker-{number}")
        self.address_for_writes = f"ipc://{home}/run/database_worker-{number}.writes"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "todomq.database_worker", str(self.number)],
            env=self.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.call("ping")

    def open(self, kind: int, address: str) -> zmq.Socket[bytes]:
        """Connect a socket, or bind it where it is a PULL; ``close`` closes it."""
        socket = self.context.socket(kind)
        socket.linger = 0
        if kind == zmq.PUSH:
            socket.setsockopt(zmq.IMMEDIATE, 1)
        (socket.bind if kind == zmq.PULL else socket.connect)(address)
        self.opened.append(socket)
        return socket

    def close(self) -> None:
        """End the process and close every socket."""
        self.end()
        for socket in self.opened:
            socket.close(0)
        self.context.term()

    def end(self, number: int = signal.SIGKILL) -> tuple[int, str]:
        """Send a signal and wait for the end; return status and log."""
        if self.process is None:
            return 0, ""
        process, self.process = self.process, None
        process.send_signal(number)
        _, log = process.communicate(timeout=BOUND_S)
        return process.returncode, log

    def send(self, *bodies: bytes, target: Any = None, number: int = 0, sender: bytes = b"tester") -> list[int]:
        """Send requests in one message; return their ids."""
        ids = list(range(self.ids + 1, self.ids + 1 + len(bodies)))
        self.ids += len(bodies)
        deadline_ms = Loop.now_ms() + 20_000
        requests = [(i, target, deadline_ms, body, number, 0) for i, body in zip(ids, bodies)]
        self.wait(lambda: sockets.send(self.socket, (b"", messages.call(sender, requests))) or None)
        return ids

    def replies(self, ids: list[int]) -> list[Any]:
        """Wait for the replies to these ids; return values and errors in their order."""
        found: dict[int, Any] = {}

        def receive() -> bool | None:
            frames = sockets.receive(self.socket)
            if frames is not None:
                for identifier, status, value in messages.read_replies(messages.read(frames[-1])[1]):
                    found[identifier] = messages.read_error(value) if status else unpack(value)
            return True if found.keys() >= set(ids) else None

        self.wait(receive)
        return [found[i] for i in ids]

    def call(self, *body: Any, target: Any = None, number: int = 0, sender: bytes = b"tester") -> Any:
        (answer,) = self.replies(self.send(messages.body(*body), target=target, number=number, sender=sender))
        if isinstance(answer, TodoMQError):
            raise answer
        return answer

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return what the condition gives, once it is not None; fail after a bound."""
        give_up = time.monotonic() + BOUND_S
        while (value := condition()) is None:
            assert time.monotonic() < give_up
            assert self.process is None or self.process.poll() in (None, 0), "the worker ended"
            self.socket.poll(2)
        return value


class Sender:
    """A sender of batches with its own way back."""

    def __init__(self, worker: Worker, next_number: int = 1) -> None:
        self.worker = worker
        self.incarnation = os.urandom(16)
        self.address = f"ipc://{worker.home}/run/s{self.incarnation.hex()[:6]}"
        self.words = worker.open(zmq.PULL, self.address)
        self.hello(next_number)

    def hello(self, next_number: int) -> None:
        answer = self.worker.call("hello", self.incarnation, self.address, next_number, [])
        self.receiver, address, number, pool_size = answer
        assert (number, pool_size) == (self.worker.number, int(self.worker.environment["TODOMQ_DATABASE_WORKERS"]))
        self.writes = self.worker.open(zmq.PUSH, address)

    def send(self, number: int, *partitions: Any) -> None:
        """Send a batch of (partition, epoch, [key, value, ...])."""
        packed = messages.writes(batch_of(self.incarnation, self.receiver, number, list(partitions)))
        self.worker.wait(lambda: sockets.send(self.writes, [packed]) or None)

    def hear(self) -> Committed:
        frames = self.worker.wait(lambda: sockets.receive(self.words))
        return messages.read_committed(messages.read(frames[0])[1])

    def hear_committed(self, last: int) -> None:
        """Wait until everything up to a number is committed."""
        while (word := self.hear()).last < last:
            assert word.outcome == COMMITTED
        assert word.outcome == COMMITTED and word.last == last


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a short directory: the path of a socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="tq", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def workers(home: Path) -> Iterator[Callable[..., Worker]]:
    """Return a function that makes a worker (not started) in one stack; they end with the test."""
    made: list[Worker] = []

    def make(number: int = 1, pool_size: int = 1) -> Worker:
        made.append(Worker(home, number, pool_size))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(workers: Callable[..., Worker]) -> Worker:
    """Return the one worker of a stack, started."""
    worker = workers()
    worker.start()
    return worker


@pytest.fixture(scope="module")
def asked_worker() -> Iterator[Worker]:
    """Return a started worker for what is asked and changes nothing."""
    home = Path(tempfile.mkdtemp(prefix="tq", dir="/tmp"))
    worker = Worker(home, 1, 1)
    try:
        worker.start()
        yield worker
    finally:
        worker.close()
        shutil.rmtree(home)


# Store and get


def test_any_value_under_any_key_is_stored_and_found_after_kill_9(worker: Worker) -> None:
    for n, key in enumerate(KEYS):
        assert worker.call("get", key) is None
        assert worker.call("store", key, [n, key]) is None
    for n, value in enumerate(VALUES):
        worker.call("store", ["value", n], value)
    for _ in range(2):
        for n, key in enumerate(KEYS):
            assert worker.call("get", key) == [n, key], key
        for n, value in enumerate(VALUES):
            assert worker.call("get", ["value", n]) == value
        worker.end()
        worker.start()


def test_law_8_an_older_copy_that_is_put_in_the_place_of_a_shard_is_recognised_after_kill_9(worker: Worker) -> None:
    shard, older = worker.home / "data" / "worker-1", worker.home / "older"
    worker.call("store", "key", "old")
    worker.end(signal.SIGTERM)
    shutil.copytree(shard, older)
    worker.start()
    worker.call("store", "key", "new")
    copy = worker.home / "data" / "acknowledged.worker-1"
    written = copy.read_bytes()
    worker.wait(lambda: copy.read_bytes() != written or None)  # about a second later
    worker.end()
    shutil.rmtree(shard)
    older.rename(shard)
    worker.start()
    with pytest.raises(CorruptRecord, match="worker-1 is an older copy"):
        worker.call("get", "key")


def test_law_8_a_worker_that_lacks_a_granted_epoch_serves_nothing_while_somebody_says_so(worker: Worker) -> None:
    worker.call("store", "key", "value")
    assert worker.call("claim", 3, 5, 0) == [True, 5]
    greeting = "hello", b"who remembers", f"ipc://{worker.home}/run/words", 1
    worker.call(*greeting, [[3, 5]])
    assert worker.call("get", "key") == "value"
    says = "worker-1 is not the shard .* partition 3 was granted under epoch 6, and epoch 5 is stored"
    with pytest.raises(CorruptRecord, match=says):
        worker.call(*greeting, [[3, 6]])
    for body in (("get", "key"), ("store", "key", "x"), ("check",), ("claim", 3, 7, 0), ("checkpoint", "copy")):
        with pytest.raises(CorruptRecord, match=says):
            worker.call(*body)
    worker.wait(lambda: worker.call("stats")["storage"] == "open" or None)
    assert worker.call("get", "key") == "value"
    assert worker.call("claim", 3, 7, 5) == [True, 7]


def test_law_8_a_worker_that_lacks_the_epoch_that_a_claim_names_grants_nothing(worker: Worker) -> None:
    assert worker.call("claim", 3, 5, 0) == [True, 5]
    says = "worker-1 is not the shard .* partition 3 was granted under epoch 6, and epoch 5 is stored"
    with pytest.raises(CorruptRecord, match=says):
        worker.call("claim", 3, 7, 6)
    with pytest.raises(CorruptRecord, match=says):
        worker.call("get", "key")
    worker.wait(lambda: worker.call("stats")["storage"] == "open" or None)
    assert worker.call("claim", 3, 6, 5) == [True, 6]


def test_a_key_is_its_canonical_packing_whatever_order_its_maps_come_in(worker: Worker) -> None:
    worker.call("store", {"a": 1, "b": 2}, "value")
    assert worker.call("get", {"b": 2, "a": 1}, target=canonical({"a": 1, "b": 2})) == "value"
    with pytest.raises(InvalidRequest, match="target"):
        worker.call("get", "key", target=canonical("another key"))


def test_a_worker_asked_by_name_takes_any_key_but_claims_of_its_own_partitions_only(
    workers: Callable[..., Worker],
) -> None:
    worker = workers(number=2, pool_size=3)
    worker.start()
    for key in range(20):
        assert worker.call("store", key, key) is None
        assert worker.call("get", key) == key
    assert worker.call("claim", 4, 1, 0) == [True, 1]
    with pytest.raises(InvalidRequest, match="not of this shard"):
        worker.call("claim", 3, 1, 0)


def test_a_get_sees_the_stores_sent_before_it(worker: Worker) -> None:
    bodies = [messages.body(*body) for n in range(200) for body in (("store", "k", n), ("get", "k"))]
    assert worker.replies(worker.send(*bodies)) == [value for n in range(200) for value in (None, n)]


def test_a_store_sent_again_takes_effect_once_even_after_kill_9(worker: Worker) -> None:
    worker.call("store", "k", "first", number=1)
    worker.call("store", "k", "second", number=2)
    worker.end()
    worker.start()
    assert worker.call("store", "k", "first", number=1) is None
    assert worker.call("get", "k") == "second"
    worker.call("store", "k", "of another", number=1, sender=b"another client")
    assert worker.call("get", "k") == "of another"


def test_everything_acknowledged_before_a_kill_9_in_full_flow_is_there(worker: Worker) -> None:
    acknowledged = 0
    for round_ in range(3):
        sender = Sender(worker)
        epoch = round_ + 1
        assert worker.call("claim", 7, epoch, 0) == [True, epoch]
        for number in range(1, 31):
            keys = [b"n%d-%04d-%02d" % (round_, number, n) for n in range(50)]
            sender.send(number, (7, epoch, [part for key in keys for part in (key, b"value")]))
        acknowledged = sender.hear().last
        worker.end()
        worker.start()
        found, after = set(), None
        while True:
            _, items, after = worker.call("read", None, b"n%d-" % round_, after, 1_000_000)
            found |= set(items[::2])
            if after is None:
                break
        assert found >= {b"n%d-%04d-%02d" % (round_, n, i) for n in range(1, acknowledged + 1) for i in range(50)}
    assert acknowledged


# Batches and claims


def test_batches_are_committed_and_read_and_the_way_back_tells(worker: Worker) -> None:
    sender = Sender(worker)
    worker.call("claim", 3, 1, 0)
    sender.send(1, (3, 1, [b"lb", b"2", b"la", b"1"]))
    sender.send(2, (3, 1, [b"lc", b"3", b"la", None]))
    sender.hear_committed(2)
    assert worker.call("read", b"lb", b"l", None, 1_000) == [b"2", [b"lb", b"2", b"lc", b"3"], None]
    assert worker.call("read", b"la", None, None, 1_000) == [None, [], None]
    assert worker.call("read", None, b"l", None, 1) == [None, [b"lb", b"2"], b"lb"]
    assert worker.call("read", None, b"l", b"lb", 1) == [None, [b"lc", b"3"], None]
    pages = [[b"lb", b"l", None], [None, b"lc", None], [b"la", b"m", None]]
    assert worker.call("read_many", pages, 1_000) == [
        [b"2", [b"lb", b"2", b"lc", b"3"], None], [None, [b"lc", b"3"], None], [None, [], None]
    ]  # fmt: skip
    assert worker.call("read_many", pages, 1) == [[b"2", [b"lb", b"2"], b"lb"]]


def test_an_old_owner_is_refused_after_another_has_claimed(worker: Worker) -> None:
    old, new = Sender(worker), Sender(worker)
    assert worker.call("claim", 3, 5, 0) == [True, 5]
    old.send(1, (3, 5, [b"n", b"old"]))
    assert old.hear().refused == []
    assert worker.call("claim", 3, 6, 0) == [True, 6]
    assert worker.call("claim", 3, 6, 0) == [False, 6]
    old.send(2, (3, 5, [b"n", b"too late"]))
    new.send(1, (3, 6, [b"m", b"new"]))
    assert old.hear().refused == [[2, 3, 6]]
    assert new.hear().refused == []
    worker.end()
    worker.start()
    assert worker.call("claim", 3, 5, 0) == [False, 6]
    assert worker.call("read", b"n", None, None, 1)[0] == b"old"


def test_a_gap_is_asked_for_and_a_new_life_takes_what_was_kept(worker: Worker) -> None:
    sender = Sender(worker)
    worker.call("claim", 3, 1, 0)
    batches = {n: (3, 1, [b"n%d" % n, b"x"]) for n in range(1, 6)}
    sender.send(1, batches[1])
    sender.hear_committed(1)
    sender.send(3, batches[3])
    word = sender.hear()
    assert (word.outcome, word.first) == (WANTED, 2)
    worker.end()
    worker.start()
    sender.hello(2)
    for number in (2, 3, 4, 5):
        sender.send(number, batches[number])
    sender.hear_committed(5)
    assert len(worker.call("read", None, b"n", None, 10_000)[1]) == 10


def test_a_new_life_of_a_sender_at_the_same_address_replaces_the_old_one(worker: Worker) -> None:
    sender = Sender(worker)
    sender.send(1, (3, 0, [b"n1", b"x"]))
    sender.hear()
    sender.incarnation = os.urandom(16)
    sender.hello(1)
    sender.send(1, (3, 0, [b"n2", b"x"]))
    sender.hear_committed(1)
    assert worker.call("stats")["senders"] == 1


# What must not harm it


@pytest.mark.parametrize(
    "body",
    [
        ("unknown",), ("store",), ("store", "k"), ("store", "k", 1, 2), ("get",), ("get", "k", 1), ("claim", "3", 1, 0),
        ("claim", 256, 1, 0), ("claim", 3, 0, 0), ("claim", 3, -1, 0), ("claim", 3, True, 0), ("claim", 3, 1),
        ("claim", 3, 1, 1), ("claim", 3, 1, -1), ("claim", 3, 1, None), ("hello", b"", "ipc:///x", 1, []),
        ("hello", b"x", "inproc://x", 1, []), ("hello", b"x", "ipc:///x", -1, []), ("hello", 1, 2, 3, []), ("hello",),
        ("hello", b"x", "ipc:///x", 1), ("hello", b"x", "ipc:///x", 1, [3, 1]),
        ("hello", b"x", "ipc:///x", 1, [[3, 0]]), ("hello", b"x", "ipc:///x", 1, [[256, 1]]),
        ("read", "k", b"", None, 1), ("read", b"k"),
        ("read_many", [], 1), ("read_many", [[b"k", None, None]], 1), ("read_many", [[b"k"]], 1),
        ("store", "x" * 5_000, 1),
        ("store", [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], 1),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_the_reason(asked_worker: Worker, body: tuple[Any, ...]) -> None:
    with pytest.raises((InvalidRequest, ProtocolError)) as refusal:
        asked_worker.call(*body)
    assert refusal.value.text and refusal.value.outcome == "not applied"
    assert asked_worker.call("ping") == "pong"


def test_garbage_at_both_sockets_is_counted_and_changes_nothing(worker: Worker) -> None:
    rng = random.Random(5)
    whole = messages.writes(batch_of(b"s", b"r", 1, [(3, 1, [b"n", b"x"])]))
    garbage = [
        b"", b"\xc1", b"\x91" * 1_000_000, whole[:-3], whole + b"x", messages.call(b"s", []),
        pack([1, "writes", b"s", b"r", -1, [[3, 1]], b"", [], []]),
        pack([1, "writes", b"s", b"r", 1, [[3, 1]], b"\3", [b"n"], []]),
        pack([1, "writes", b"s", b"r", 1, [[3, 1]], b"\4", [b"n"], [b"x"]]),
        pack([1, "writes", b"s", b"r", 1, [[3, 1]], b"\3", [b"n"], [5]]), pack([2, "writes", 0, 0, 0, 0, 0, 0, 0]),
        pack([1, "committed", 1, 2, 3, 4, 5, 6, 7]),
        *(rng.randbytes(rng.randrange(200)) for _ in range(50)),
    ]  # fmt: skip
    push = worker.open(zmq.PUSH, worker.address_for_writes)
    dealer = worker.open(zmq.DEALER, f"ipc://{worker.home}/run/database_worker-1")
    for data in garbage:
        worker.wait(lambda data=data: sockets.send(push, [data]) or None)  # type: ignore[misc]
        worker.wait(lambda data=data: sockets.send(dealer, [b"", data]) or None)  # type: ignore[misc]
    worker.wait(lambda: sockets.send(push, [b"x"] * 10_000) or None)
    worker.wait(lambda: worker.call("stats")["malformed_batches"] == len(garbage) + 1 or None)
    assert worker.call("check") > 0
    status, log = worker.end(signal.SIGTERM)
    assert status == 0
    assert "malformed_batch" in log and "Traceback" not in log


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (("get",), "get takes one argument"),
        (("store", "k"), "store takes two arguments"),
        (("read", b"k", b""), "4 arguments needed, not 2"),
        (("checkpoint",), "1 argument needed, not 0"),
        (("read", b"k", "p", None, 1), "argument 2 of this operation is of another type"),
        (("claim", 3, True, 0), "argument 2 of this operation is of another type"),
    ],
)
def test_a_wrong_count_of_arguments_is_not_called_a_wrong_type(
    asked_worker: Worker, body: tuple[Any, ...], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        asked_worker.call(*body)


def test_hello_with_an_address_where_nobody_listens_holds_up_nobody(worker: Worker) -> None:
    worker.call("hello", b"ghost", f"ipc://{worker.home}/run/nobody", 1, [])
    push = worker.open(zmq.PUSH, worker.address_for_writes)
    receiver = worker.call("stats")["incarnation"]
    for number in (1, 2, 3):
        packed = messages.writes(batch_of(b"ghost", receiver, number, [(3, 0, [b"n", b"x"])]))
        worker.wait(lambda packed=packed: sockets.send(push, [packed]) or None)  # type: ignore[misc]
    worker.wait(lambda: worker.call("stats")["batches"] == 3 or None)
    worker.call("store", "k", 1)
    assert worker.end(signal.SIGTERM)[0] == 0


def test_a_full_disk_fails_what_is_under_way_and_the_worker_goes_on_once_there_is_room(worker: Worker) -> None:
    process = worker.process
    assert process is not None
    sender = Sender(worker)
    worker.call("claim", 3, 1, 0)
    sender.send(1, (3, 1, [b"n1", b"x"]))
    sender.hear_committed(1)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))  # no file may grow any more
    (answer,) = worker.replies(worker.send(messages.body("store", "k", "v" * 10_000)))
    assert answer.code == "unavailable" and answer.retryable and answer.outcome == "unknown"
    (answer,) = worker.replies(worker.send(messages.body("claim", 3, 2, 0)))
    assert answer.code == "unavailable"
    assert worker.call("ping") == "pong"
    assert process.poll() is None, "a full disk must not end the worker"
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    worker.wait(lambda: worker.call("stats")["storage_open"] or None)
    word = sender.hear()
    assert (word.outcome, word.first) == (WANTED, 2), "it had nothing under way, so it goes on"
    sender.send(2, (3, 1, [b"n2", b"x"]))
    sender.hear_committed(2)
    assert worker.call("read", None, b"n", None, 1_000)[1] == [b"n1", b"x", b"n2", b"x"]
    worker.call("store", "k", "now")
    worker.end()
    worker.start()
    assert worker.call("get", "k") == "now"


def test_a_batch_that_failed_is_told_and_its_sender_goes_on_after_hello(worker: Worker) -> None:
    process = worker.process
    assert process is not None
    sender = Sender(worker)
    worker.call("claim", 3, 1, 0)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))
    sender.send(1, (3, 1, [b"n1", b"x" * 10_000]))
    word = sender.hear()
    assert (word.outcome, word.first, word.last) == ("failed", 1, 1) and word.text
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    worker.wait(lambda: worker.call("stats")["storage_open"] or None)
    sender.send(2, (3, 1, [b"n2", b"made on top of what failed"]))
    word = sender.hear()
    assert (word.outcome, word.first, word.last) == ("failed", 2, 2)
    sender.hello(3)
    sender.send(3, (3, 1, [b"n3", b"x"]))
    sender.hear_committed(3)
    assert worker.call("read", b"n2", b"n3", None, 1_000) == [None, [b"n3", b"x"], None]


def test_a_sender_that_takes_no_words_for_long_is_disconnected(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    sender_words = words.Words(loop, Push)
    assert sender_words.connect(b"ghost", f"ipc://{home}/nobody") is None
    sender_words.add(Committed(b"ghost", b"worker", 1, 1, COMMITTED, [], ""))
    assert sender_words.flush() == []
    monkeypatch.setattr(words, "GONE_MS", -1)
    assert sender_words.flush() == [b"ghost"]
    assert sender_words.flush() == [] and sender_words.dropped == 1


class Ear(Push):
    """A connection that takes every word."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def send(self, message: bytes) -> bool:
        self.heard.append(message)
        return True


def test_a_sender_that_could_not_be_connected_to_hears_its_words_once_it_can() -> None:
    ear = Ear()
    refusals = [Unavailable("too many open sockets")]

    def connect(address: str) -> Push:
        if refusals:
            raise refusals.pop()
        return ear

    sender_words = words.Words(Loop(), connect)
    with pytest.raises(Unavailable):
        sender_words.connect(b"sender", "ipc:///sender")
    sender_words.connect(b"sender", "ipc:///sender")
    sender_words.add(Committed(b"sender", b"worker", 1, 1, COMMITTED, [], ""))
    sender_words.flush()
    assert len(ear.heard) == 1 and sender_words.dropped == 0


def test_the_check_writes_and_reads_for_real(asked_worker: Worker) -> None:
    before = asked_worker.call("stats")["commits"]
    assert 0 < asked_worker.call("check") < BOUND_S * 1e6
    assert asked_worker.call("stats")["commits"] > before


def test_stats_tell_depths_and_counts(asked_worker: Worker) -> None:
    stats = asked_worker.call("stats")
    assert {"commits", "failed_commits", "waiting", "waiting_bytes", "reads_waiting", "dropped", "records"} <= {*stats}
    assert stats["name"] == ["database_worker", 1] and stats["storage_open"] is True


def test_sigterm_commits_and_answers_what_has_arrived(worker: Worker) -> None:
    worker.call("store", 0, 0)
    ids = worker.send(*(messages.body("store", n, n) for n in range(500)))
    # The last of one message is answered when all are taken; the stop comes while the commit is under way.
    worker.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    answers = worker.replies(ids)
    assert all(answer is None or answer.outcome == "not applied" for answer in answers)
    assert worker.end(signal.SIGTERM)[0] == 0
    worker.start()
    for n, answer in enumerate(answers):
        if answer is None:
            assert worker.call("get", n) == n


# What it refuses to start with


def refused(worker: Worker) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "todomq.database_worker", str(worker.number)],
        env=worker.environment, capture_output=True, text=True, timeout=BOUND_S,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "refused_to_start" in line]
    return line


def test_another_pool_size_and_a_newer_format_are_refused_in_one_line(worker: Worker) -> None:
    worker.call("store", "k", "v")
    worker.end()
    data = worker.home / "data"
    worker.environment["TODOMQ_DATABASE_WORKERS"] = "4"
    assert "TODOMQ_DATABASE_WORKERS=1" in refused(worker)
    worker.environment["TODOMQ_DATABASE_WORKERS"] = "1"
    write_file(data / "worker-1" / "identity", {"stack": "of the future", "worker": 1})
    newer = (data / "worker-1" / "identity").read_text().replace('"format": 2', '"format": 3')
    value = json.loads(newer)
    del value["checksum"]
    value["checksum"] = zlib.crc32(json.dumps(value, sort_keys=True).encode())
    (data / "worker-1" / "identity").write_text(json.dumps(value))
    assert "has format 3 and this version of TodoMQ reads formats 1 to 2" in refused(worker)


def hide(path: Path) -> Callable[[], None]:
    """Rename a file or directory; return what puts it back."""
    hidden = path.with_name("hidden")
    path.rename(hidden)
    return lambda: (hidden.rename(path), None)[1]


def flip(path: Path, at: int) -> Callable[[], None]:
    """Flip a bit of a file; return what puts it back."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    return lambda: (path.write_bytes(whole), None)[1]


DAMAGES: dict[str, Callable[[Path], Callable[[], None]]] = {
    "worker-1 is missing": lambda data: hide(data / "worker-1"),
    "CURRENT": lambda data: hide(data / "worker-1" / "rocksdb" / "CURRENT"),
    "data/manifest": lambda data: flip(data / "manifest", 20),
    "worker-1/identity": lambda data: flip(data / "worker-1" / "identity", 20),
    "acknowledged is damaged": lambda data: flip(data / "worker-1" / "acknowledged", 3),
    ".log is damaged": lambda data: flip(log_of(data), 22),
    "MANIFEST-": lambda data: flip(next((data / "worker-1" / "rocksdb").glob("MANIFEST-*")), 60),
}


def log_of(data: Path) -> Path:
    return max((data / "worker-1" / "rocksdb").glob("*.log"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("named", DAMAGES)
def test_law_8_a_worker_whose_shard_is_damaged_lives_and_names_the_file_to_all_who_ask(
    worker: Worker, named: str
) -> None:
    worker.call("store", "k", "v")
    worker.end()
    put_back = DAMAGES[named](worker.home / "data")
    worker.start()
    for body in (
        ("get", "k"), ("store", "k", "w"), ("claim", 3, 1, 0), ("check",), ("read", None, b"n", None, 1_000),
        ("read_many", [[None, b"n", None]], 1_000), ("checkpoint", "a"),
    ):  # fmt: skip
        with pytest.raises(CorruptRecord) as refusal:
            worker.call(*body)
        assert named in refusal.value.text and "backup" in refusal.value.text
        assert "  " not in refusal.value.text and ".;" not in refusal.value.text, "it reads as one sentence"
        assert (refusal.value.outcome, refusal.value.retryable) == ("not applied", False)
    stats = worker.call("stats")
    assert stats["storage"] == "damaged" and named in stats["trouble"]
    sender = Sender(worker)
    sender.send(1, (3, 1, [b"n", b"x"]))
    word = sender.hear()
    assert (word.outcome, word.first, word.last) == ("not applied", 1, 1) and named in word.text
    assert worker.end(signal.SIGTERM)[0] == 0
    put_back()
    worker.start()
    assert worker.call("get", "k") == "v"


def test_law_8_a_flipped_byte_in_a_table_is_told_to_those_who_ask_for_it_and_the_file_is_named(worker: Worker) -> None:
    worker.call("store", "k", "v")
    worker.end(signal.SIGTERM)
    worker.start()  # what was in the log is in a table now
    worker.call("store", "other", "w")
    worker.end()
    (table,) = (worker.home / "data" / "worker-1" / "rocksdb").glob("*.sst")
    flip(table, 12)
    worker.start()
    with pytest.raises(CorruptRecord, match=table.name):
        worker.call("get", "k")
    pages = [[records.stored_key(canonical("k")), b"n", None], [None, b"n", None]]
    damaged, whole = worker.call("read_many", pages, 1_000)
    assert table.name in messages.read_error(damaged).text, "and it is no matter of those that are read with it"
    assert whole == [None, [], None]


def test_a_number_outside_the_pool_is_refused(workers: Callable[..., Worker]) -> None:
    assert "TODOMQ_DATABASE_WORKERS=2" in refused(workers(number=3, pool_size=2))


def test_a_damaged_value_is_an_error_and_never_nothing(worker: Worker) -> None:
    sender = Sender(worker)
    worker.call("store", "k", "v")
    sender.send(1, (3, 0, [records.stored_key(canonical("k")), b"\xc1"]))
    assert sender.hear().outcome == "failed", "a batch may not write a stored value"
    assert worker.call("get", "k") == "v"
    worker.end()
    storage = RocksDBStorage(worker.home / "data" / "worker-1")
    storage.apply([(records.stored_key(canonical("k")), b"\xc1")])
    storage.close()
    worker.start()
    with pytest.raises(CorruptRecord):
        worker.call("get", "k")
