"""The registry as a real process: names, deaths, leases, its own death, whatever a peer sends."""

from __future__ import annotations

import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

import todomq
from todomq.errors import (
    NOT_APPLIED,
    UNKNOWN,
    CorruptRecord,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    TodoMQError,
    Unavailable,
)
from todomq.protocol import limits, messages
from todomq.protocol.codec import canonical, unpack
from todomq.protocol.registration import Registration
from todomq.registry.journal import Journal
from todomq.registry.processes import LocalProcesses, boot
from todomq.registry.registrations import Process, Remember
from todomq.registry.service import WATCHERS, WATCHES_PER_CONNECTION
from todomq.runtime.calls import Service
from todomq.runtime.daemon import Daemon
from todomq.settings import Settings

LEASE_MS = 600
PATIENT_MS = 3_000
BOUND_S = 15.0
ADDRESS = "ipc:///run/somewhere"
DEAF = 12
ASKED = 60
"""How much of each each of those who read nothing asks."""

# A process that keeps a leased name, as daemons do, and says so once it has it.
RENEWER = """
import os, sys, time
import zmq
from todomq.protocol import limits, messages
socket = zmq.Context().socket(zmq.REQ)
socket.connect(sys.argv[1])
incarnation = os.urandom(16)
while True:
    body = messages.body("register_name", "renewer", "ipc:///run/renewer", os.getpid(), incarnation, int(sys.argv[2]))
    socket.send(messages.call(incarnation, [(1, None, 0, body)]))
    socket.recv()
    print("renewed", flush=True)
    time.sleep(int(sys.argv[2]) / 4000)
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a bound."""
    give_up = time.monotonic() + BOUND_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < give_up, f"not within {BOUND_S} s: {what}"
        pause.wait(0.005)


class Stack:
    """A registry process in a directory of its own, and what the test started beside it."""

    def __init__(self, home: Path, lease_ms: int) -> None:
        self.home = home
        self.run = home / "run"
        self.address = f"ipc://{home}/run/registry"
        self.environment = {
            **os.environ,
            "TODOMQ_HOME": str(home),
            "TODOMQ_LEASE_MS": str(lease_ms),
            "PYTHONPATH": str(Path(todomq.__file__).parents[1]),
        }
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.children: list[subprocess.Popen[bytes]] = []
        self.sockets: list[zmq.Socket[bytes]] = []
        self.log = home / "log"
        self.socket = self.connect(zmq.REQ)
        self.start()

    def start(self, descriptors: int = 1_024) -> None:
        command = ["prlimit", f"--nofile={descriptors}", sys.executable, "-m", "todomq.registry"]
        with self.log.open("ab") as log:
            self.registry = subprocess.Popen(command, env=self.environment, stderr=log)
        self.children.append(self.registry)

    def connect(self, kind: int, *, deaf: bool = False) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(kind)
        if deaf:  # until somebody reads, it takes in next to nothing
            socket.setsockopt(zmq.RCVHWM, 1)
            socket.setsockopt(zmq.RCVBUF, 4096)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 5)
        socket.setsockopt(zmq.RCVTIMEO, int(BOUND_S * 1000))
        socket.connect(self.address)
        self.sockets.append(socket)
        return socket

    def kill_registry(self) -> None:
        self.registry.kill()
        self.registry.wait(BOUND_S)

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE)
        self.children.append(child)
        return child

    def sleeper(self) -> subprocess.Popen[bytes]:
        return self.spawn("sleep", "1000")

    def renewer(self, lease_ms: int = LEASE_MS) -> subprocess.Popen[bytes]:
        child = self.spawn(sys.executable, "-c", RENEWER, self.address, str(lease_ms))
        assert child.stdout is not None and select.select([child.stdout], [], [], BOUND_S)[0]
        assert child.stdout.readline() == b"renewed\n"
        return child

    def send(self, operation: str, *arguments: Any, timeout_s: float = BOUND_S) -> None:
        deadline_ms = int((time.time() + timeout_s) * 1000)
        request = (1, None, deadline_ms, messages.body(operation, *arguments))
        self.socket.send(messages.call(b"test", [request]))

    def receive(self) -> Any:
        _, status, value = replies_in(self.socket.recv())[0]
        if status != messages.OK:
            raise messages.read_error(value)
        return unpack(value)

    def ask(self, operation: str, *arguments: Any) -> Any:
        self.send(operation, *arguments)
        return self.receive()

    def whereis(self, name: Any) -> Any:
        """Ask where a name is, again while the registry does not know yet, as the client does."""
        give_up = time.monotonic() + BOUND_S
        while True:
            try:
                return self.ask("whereis_name", name)
            except Unavailable:
                assert time.monotonic() < give_up

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait(BOUND_S)
            if child.stdout is not None:
                child.stdout.close()
        for socket in self.sockets:
            socket.close()
        self.context.term()


def ask_many(socket: zmq.Socket[bytes], operation: str, *arguments: Any, times: int, first: int = 0) -> None:
    deadline_ms = int((time.time() + 2 * BOUND_S) * 1000)
    body = messages.body(operation, *arguments)
    requests = [(number, None, deadline_ms, body) for number in range(first, first + times)]
    socket.send_multipart([b"", messages.call(b"many", requests)])


def answered_in(socket: zmq.Socket[bytes], count: int) -> dict[int, tuple[int, bytes]]:
    """Return the first so many answers, by the id of their request."""
    answers: dict[int, tuple[int, bytes]] = {}
    while len(answers) < count:
        answers.update({number: (status, value) for number, status, value in replies_in(socket.recv_multipart()[-1])})
    return answers


def fill(stack: Stack) -> None:
    """Register names until there is no room for another."""
    with suppress(Overloaded):
        for number in range(limits.MIB):
            stack.ask("register_name", number, ADDRESS + "x" * 900, os.getpid())


def most_memory(pid: int) -> int:
    """Return how many bytes of memory a process had at most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("\nVmHWM:")[2].split()[0]) * limits.KIB


def replies_in(message: bytes) -> list[Any]:
    kind, fields = messages.read(message)
    assert kind == "reply"
    return [list(reply) for reply in messages.read_replies(fields)]


def running_stack(lease_ms: int = LEASE_MS) -> Iterator[Stack]:
    home = Path(tempfile.mkdtemp(prefix="todomq-"))
    stack = Stack(home, lease_ms)
    try:
        yield stack
    finally:
        stack.close()
        shutil.rmtree(home)


@pytest.fixture
def stack() -> Iterator[Stack]:
    yield from running_stack()


@pytest.fixture
def patient_stack() -> Iterator[Stack]:
    """A registry whose lease is long for a busy machine: it does not take itself for stalled, or settle early."""
    yield from running_stack(PATIENT_MS)


class TestNames:
    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls) -> Iterator[Stack]:
        yield from running_stack()

    def test_a_name_is_registered_found_and_taken_away(self, stack: Stack) -> None:
        assert stack.ask("register_name", ["my", "job"], ADDRESS, os.getpid()) is True
        assert stack.whereis(["my", "job"]) == [["my", "job"], ADDRESS, os.getpid(), b""]
        assert [["my", "job"], ADDRESS, os.getpid(), b""] in stack.ask("names")
        other = stack.sleeper()
        assert stack.ask("register_name", ["my", "job"], ADDRESS, other.pid) is False
        assert stack.ask("unregister_name", ["my", "job"]) is True
        assert stack.whereis(["my", "job"]) is None
        assert stack.ask("unregister_name", ["my", "job"]) is False
        assert stack.ask("register_name", ["my", "job"], ADDRESS, other.pid) is True

    def test_any_value_is_a_name_and_different_values_are_different_names(self, stack: Stack) -> None:
        names: list[Any] = [
            "a", b"a", ["a"], 1, 1.0, True, None, "", b"", [], {}, -1, 2**64 - 1, "../x/y", "\0", ["a", [{"c": 1}]],
            {"x": 1, "y": 2}, {1: "one"},
        ]  # fmt: skip
        for number, name in enumerate(names):
            assert stack.ask("register_name", name, f"ipc:///run/{number}", os.getpid()) is True
        for number, name in enumerate(names):
            assert stack.whereis(name)[1] == f"ipc:///run/{number}"
        assert stack.whereis({"y": 2, "x": 1})[1] == stack.whereis({"x": 1, "y": 2})[1]

    def test_the_registry_is_registered_itself_and_stays_so(self, stack: Stack) -> None:
        before = stack.ask("stats")["names"]
        name, address, pid, incarnation = stack.whereis(["registry"])
        assert (name, address, pid, len(incarnation)) == (["registry"], stack.address, stack.registry.pid, 16)
        assert stack.ask("register_name", ["registry"], ADDRESS, os.getpid()) is False
        with pytest.raises(InvalidRequest, match="own name"):
            stack.ask("unregister_name", ["registry"], incarnation)
        assert stack.ask("ping") == "pong"
        assert stack.ask("stats")["names"] == before

    def test_an_old_incarnation_cannot_unregister_a_new_one(self, stack: Stack) -> None:
        child = stack.sleeper()
        stack.ask("register_name", "d", ADDRESS, child.pid, b"new", 60_000)
        assert stack.ask("unregister_name", "d", b"old") is False
        assert stack.ask("unregister_name", "d", b"new") is True


class TestDeaths:
    def test_a_dead_process_is_gone_at_once(self, stack: Stack) -> None:
        child = stack.sleeper()
        stack.ask("register_name", "child", ADDRESS, child.pid)
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled")
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not even reaped
        assert stack.ask("whereis_name", "child") is None
        assert stack.ask("register_name", "child", ADDRESS, os.getpid()) is True

    def test_a_death_is_told_to_watchers_at_once(self, stack: Stack) -> None:
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled")
        took_s = []
        for _ in range(9):
            child = stack.sleeper()
            stack.ask("register_name", "child", ADDRESS, child.pid)
            version = stack.ask("watch", 0)[0]
            stack.send("watch", version)
            began = time.monotonic()
            child.kill()
            assert "child" not in [name for name, *_ in stack.receive()[2]]
            took_s.append(time.monotonic() - began)
        assert sorted(took_s)[4] < 0.1, took_s

    def test_a_hung_process_with_a_lease_is_killed_and_its_name_free(self, stack: Stack) -> None:
        child = stack.renewer()
        child.send_signal(signal.SIGSTOP)
        assert child.wait(BOUND_S) == -signal.SIGKILL
        assert stack.whereis("renewer") is None
        assert stack.ask("stats")["killed"] == 1
        stack.renewer()

    def test_a_renewing_process_is_left_alone_also_when_the_registry_stalls(self, stack: Stack) -> None:
        child = stack.renewer(PATIENT_MS // 2)
        began = time.monotonic()
        stack.registry.send_signal(signal.SIGSTOP)
        wait_until(lambda: time.monotonic() > began + PATIENT_MS / 1000, "every lease over")
        stack.registry.send_signal(signal.SIGCONT)
        wait_until(lambda: stack.ask("stats")["settled"] is False, "absence unknown after the stall")
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled again")
        assert child.poll() is None
        assert stack.ask("whereis_name", "renewer")[2] == child.pid
        assert stack.ask("stats")["killed"] == 0

    def test_processes_are_watched_only_while_they_hold_names(self, stack: Stack) -> None:
        child = stack.sleeper()
        for number in range(50):
            stack.ask("register_name", number, ADDRESS, child.pid)
        assert stack.ask("stats")["processes"] == 2
        child.kill()
        wait_until(lambda: stack.ask("stats")["processes"] == 1, "released")
        assert stack.ask("stats")["names"] == 1


class TestTheRegistrysOwnDeath:
    def test_names_of_living_processes_are_back_and_of_dead_ones_not(self, patient_stack: Stack) -> None:
        stack = patient_stack
        living, dead = stack.sleeper(), stack.sleeper()
        stack.ask("register_name", "living", ADDRESS, living.pid, b"one")
        stack.ask("register_name", "dead", ADDRESS, dead.pid)
        stack.ask("register_name", "taken away", ADDRESS, living.pid)
        stack.ask("unregister_name", "taken away")
        stack.kill_registry()
        dead.kill()
        dead.wait(BOUND_S)
        stack.start()
        assert stack.ask("whereis_name", "living") == ["living", ADDRESS, living.pid, b"one"]
        with pytest.raises(Unavailable):
            stack.ask("whereis_name", "dead")
        assert stack.whereis("dead") is None and stack.whereis("taken away") is None
        living.kill()
        living.wait(BOUND_S)
        assert stack.whereis("living") is None

    def test_a_name_under_a_lease_is_still_held_and_nobody_else_gets_it(self, stack: Stack) -> None:
        child = stack.spawn(sys.executable, "-c", "import time; time.sleep(1000)")
        stack.ask("register_name", "daemon", ADDRESS, child.pid, b"one", 60_000)
        stack.ask("register_name", "remote", ADDRESS, None, None, 60_000)
        stack.kill_registry()
        stack.start()
        assert stack.ask("register_name", "daemon", ADDRESS, os.getpid()) is False
        assert stack.ask("register_name", "remote", "tcp://192.0.2.2:1", None, None, 60_000) is False
        assert [stack.ask("whereis_name", name)[3] for name in ("daemon", "remote")] == [b"one", b""]
        assert stack.ask("register_name", "daemon", ADDRESS, child.pid, b"one", 60_000) is True
        assert stack.ask("register_name", "remote", ADDRESS, None, None, 60_000) is True

    def test_law_8_names_whose_processes_it_cannot_watch_are_not_said_to_be_nobodys(self, stack: Stack) -> None:
        for number in range(40):
            assert stack.ask("register_name", number, ADDRESS, stack.sleeper().pid) is True
        stack.kill_registry()
        stack.start(descriptors=64)
        assert stack.ask("whereis_name", ["registry"])[0] == ["registry"], "it has a place for itself in any case"
        there = [each[0] for each in stack.ask("names")]
        absent = [number for number in range(40) if number not in there]
        assert 0 < len(absent) < 40
        wait_until(lambda: stack.ask("stats")["settled"], "a lease has passed")
        for name in (absent[0], "never there"):
            with pytest.raises(CorruptRecord, match="processes are watched already"):
                stack.ask("whereis_name", name)
        stack.kill_registry()
        stack.start()
        assert all(stack.whereis(number) for number in range(40)), "they stay in the journal"

    def test_a_reused_pid_is_not_taken_for_alive(self, stack: Stack) -> None:
        stack.ask("ping")
        stack.kill_registry()
        processes = LocalProcesses()
        own = processes.watch(os.getpid())
        processes.release(own)
        journal = Journal(stack.run, boot())
        for name, process in (("mine", own), ("before me", Process(own.pid, own.start_time - 1))):
            journal.remember(Remember(canonical(name), Registration(name, ADDRESS, own.pid, b""), process, 0))
        journal.close()
        stack.start()
        assert stack.whereis("mine") == ["mine", ADDRESS, os.getpid(), b""]
        assert stack.whereis("before me") is None

    def test_a_name_whose_end_cannot_be_written_is_told_as_one_that_may_come_back(self, stack: Stack) -> None:
        assert stack.ask("register_name", "mine", ADDRESS, os.getpid()) is True
        resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # as a full disk
        with pytest.raises(Unavailable, match="may come back") as told:
            stack.ask("unregister_name", "mine")
        assert told.value.outcome == UNKNOWN
        with pytest.raises(Unavailable, match="can't be written"):
            stack.ask("register_name", "other", ADDRESS, os.getpid())

    def test_a_name_whose_end_could_not_be_written_stays_away_once_it_could(self, stack: Stack) -> None:
        assert stack.ask("register_name", "mine", ADDRESS, os.getpid()) is True
        before = resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE, (0, before[1]))  # as a full disk
        with pytest.raises(Unavailable, match="may come back"):
            stack.ask("unregister_name", "mine")
        resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE, before)
        wait_until(lambda: b"journal_restored" in stack.log.read_bytes(), "the journal is written anew")
        stack.kill_registry()
        stack.start()
        assert stack.whereis("mine") is None

    def test_a_name_that_cannot_be_written_down_is_as_it_is_told(self, stack: Stack) -> None:
        assert stack.ask("register_name", "held", ADDRESS, os.getpid(), b"life") is True
        (journal,) = stack.run.glob("registry-*.journal")
        before = resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, before[1]))
        for name, outcome in (("held", UNKNOWN), ("new", NOT_APPLIED)):
            with pytest.raises(Unavailable, match="can't be written to the registry's journal") as caught:
                stack.ask("register_name", name, f"{ADDRESS}/else", os.getpid(), b"life")
            assert caught.value.outcome == outcome
            assert (stack.whereis(name) is not None) is (outcome == UNKNOWN)
        resource.prlimit(stack.registry.pid, resource.RLIMIT_FSIZE, before)
        for name in ("held", "new"):
            assert stack.ask("register_name", name, f"{ADDRESS}/else", os.getpid(), b"life") is True

    def test_a_damaged_journal_is_named_and_no_absent_name_taken_for_nobodys(self, stack: Stack) -> None:
        for number in range(10):
            stack.ask("register_name", number, ADDRESS, os.getpid())
        stack.kill_registry()
        (path,) = stack.run.glob("registry-*.journal")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        stack.start()
        with pytest.raises(CorruptRecord, match=path.name):
            stack.whereis(3)
        assert stack.ask("register_name", 3, ADDRESS, os.getpid()) is True
        assert stack.whereis(3)[2] == os.getpid()
        assert path.name in stack.ask("stats")["names_lost"]
        assert b"names_lost" in stack.log.read_bytes()


class TestWatch:
    def test_a_watcher_is_answered_at_once_when_it_knows_less(self, stack: Stack) -> None:
        version, settled, registrations = stack.ask("watch", 0)
        assert version > 0 and settled in (False, True)
        assert [name for name, *_ in registrations] == [["registry"]]

    def test_a_watcher_is_answered_on_change(self, stack: Stack) -> None:
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled")
        version, _, _ = stack.ask("watch", 0)
        other = stack.connect(zmq.REQ)
        stack.send("watch", version)
        with suppress(zmq.Again):
            pytest.fail(f"answered without a change: {stack.socket.recv(zmq.NOBLOCK)!r}")
        body = messages.body("register_name", "news", ADDRESS, os.getpid())
        other.send(messages.call(b"other", [(1, None, 0, body)]))
        later, _, registrations = stack.receive()
        assert later > version and "news" in [name for name, *_ in registrations]

    def test_law_5_the_more_names_there_are_the_more_seldom_watchers_are_told(self, stack: Stack) -> None:
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled")
        flooding, watching = stack.connect(zmq.DEALER), stack.connect(zmq.REQ)

        def register(first: int, count: int) -> None:
            numbers = range(first, first + count)
            bodies = [messages.body("register_name", n, ADDRESS + "x" * 900, os.getpid()) for n in numbers]
            call = messages.call(b"flood", [(n, None, 0, body) for n, body in zip(numbers, bodies)])
            flooding.send_multipart([b"", call])
            assert len(answered_in(flooding, count)) == count

        register(0, 500)
        begun_s, told, version = time.monotonic(), 0, 0
        watching.send(messages.call(b"watcher", [(1, None, 0, messages.body("watch", version))]))
        for number in range(500, 700):
            register(number, 1)
            if watching.poll(0):
                told += 1
                version = unpack(replies_in(watching.recv())[0][2])[0]
                watching.send(messages.call(b"watcher", [(1, None, 0, messages.body("watch", version))]))
        assert told <= 2 + (time.monotonic() - begun_s) / 0.8, "500 names are 450 KB, which take 0.9 s to tell"
        while version != stack.ask("watch", 0)[0]:
            version = unpack(replies_in(watching.recv())[0][2])[0]
            watching.send(messages.call(b"watcher", [(1, None, 0, messages.body("watch", version))]))

    def test_a_watch_without_change_is_answered_before_its_deadline(self, stack: Stack) -> None:
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled")
        version = stack.ask("watch", 0)[0]
        stack.send("watch", version, timeout_s=0.5)
        assert stack.receive()[0] == version
        assert stack.ask("stats")["watchers"] == 0

    def test_the_versions_of_the_next_registry_are_higher(self, stack: Stack) -> None:
        version = stack.ask("watch", 0)[0]
        stack.kill_registry()
        stack.start()
        assert stack.ask("watch", version)[0] > version

    def test_watchers_past_the_limit_are_overloaded_and_one_connection_has_a_small_part_of_them(
        self, stack: Stack
    ) -> None:
        wait_until(lambda: stack.ask("stats")["settled"] is True, "settled")
        version = stack.ask("watch", 0)[0]
        connections = [stack.connect(zmq.DEALER) for _ in range(WATCHERS // WATCHES_PER_CONNECTION)]
        for socket in connections:
            ask_many(socket, "watch", version, times=WATCHES_PER_CONNECTION + 1)
            ((number, (status, value)),) = answered_in(socket, 1).items()
            assert number == WATCHES_PER_CONNECTION and status == messages.ERROR
            assert isinstance(messages.read_error(value), Overloaded)
        assert stack.ask("stats")["watchers"] == WATCHERS
        with pytest.raises(Overloaded):
            stack.ask("watch", version)
        assert stack.ask("watch", 0)[0] == version, "whoever lost its watch learns what there is"
        stack.ask("register_name", "news", ADDRESS, os.getpid())
        assert len(answered_in(connections[0], WATCHES_PER_CONNECTION)) == WATCHES_PER_CONNECTION
        assert stack.ask("stats")["watchers"] == 0


class TestWhoReadsNothing:
    def test_law_6_has_little_waiting_is_refused_the_rest_and_holds_up_nobody(self, stack: Stack) -> None:
        fill(stack)
        before = most_memory(stack.registry.pid)
        messages_before = stack.ask("stats")["messages"]
        version = stack.ask("watch", 0)[0]
        deaf = [stack.connect(zmq.DEALER, deaf=True) for _ in range(DEAF)]
        for socket in deaf:
            ask_many(socket, "watch", version, times=ASKED)
            ask_many(socket, "names", times=ASKED, first=ASKED)
        wait_until(lambda: stack.ask("stats")["messages"] >= messages_before + 2 * DEAF, "all of it has come in")
        assert stack.ask("unregister_name", 0) is True
        wait_until(lambda: stack.ask("watch", version)[0] > version, "who reads is told")
        assert len(stack.ask("names")) == len(stack.ask("watch", 0)[2])
        for socket in deaf:
            answers = answered_in(socket, 2 * ASKED)
            assert len(answers) == 2 * ASKED, "each is told or refused, and none dropped"
            refused = [messages.read_error(value) for status, value in answers.values() if status == messages.ERROR]
            assert 0 < len(refused) < 2 * ASKED
            assert all(isinstance(error, Overloaded) and error.retryable for error in refused)
        assert "replies_dropped" not in stack.ask("stats")
        assert most_memory(stack.registry.pid) - before < DEAF * 4 * limits.MIB

    def test_law_5_a_daemon_whose_watch_is_refused_since_others_have_them_all_hears_the_news(
        self, patient_stack: Stack
    ) -> None:
        stack = patient_stack
        daemon = Daemon(["cache"], Settings(stack.home, "", lease_ms=60_000))  # it is this process, which often waits
        daemon.begin(Service())
        others = [stack.connect(zmq.DEALER) for _ in range(WATCHERS // WATCHES_PER_CONNECTION)]

        def turn_until(condition: Callable[[], bool], what: str) -> None:
            def is_met() -> bool:
                daemon.loop.turn(0.005)
                return condition()

            wait_until(is_met, what)

        try:
            turn_until(lambda: daemon.settled and daemon.whereis(["cache"]) is not None, "it is there and settled")
            stack.ask("register_name", "change", ADDRESS, os.getpid())  # which ends the watch that it has
            wait_until(lambda: stack.ask("stats")["watchers"] == 0, "told")
            version = stack.ask("watch", 0)[0]
            for socket in others:
                ask_many(socket, "watch", version, times=WATCHES_PER_CONNECTION)
            wait_until(lambda: stack.ask("stats")["watchers"] == WATCHERS, "others have all watches")
            link = daemon._registry
            turn_until(lambda: link is not None and link._version == 0, "its own is refused")
            assert stack.ask("register_name", ["news"], ADDRESS, os.getpid()) is True
            turn_until(lambda: daemon.whereis(["news"]) is not None, "it hears the news")
        finally:
            for callee in list(daemon._connections):
                callee.close()
            daemon.loop.unwatch(daemon.server._socket)
            daemon.server._socket.close(0)
            os.close(daemon._lock)


class TestBadInput:
    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls) -> Iterator[Stack]:
        yield from running_stack()

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("name",),
            ("name", ADDRESS),
            ("name", 5, 1),
            ("name", "", 1),
            ("name", "a" * 1025, 1),
            ("name", ADDRESS, "1"),
            ("name", ADDRESS, True),
            ("name", ADDRESS, 0),
            ("name", ADDRESS, -1),
            ("name", ADDRESS, 2**40),
            ("name", ADDRESS, 2**31 - 1),
            ("name", ADDRESS, None, b"one", 0),
            ("name", ADDRESS, None, "one", 1000),
            ("name", ADDRESS, None, b"i" * 65, 1000),
            ("name", ADDRESS, None, b"one", -1),
            ("name", ADDRESS, None, b"one", 1.5),
            ("name", ADDRESS, None, b"one", 10**9),
            ("name", ADDRESS, None, b"one", 1000, "more"),
            ("n" * 1024, ADDRESS, 1),
        ],
    )
    def test_a_registration_that_breaks_a_rule_is_refused(self, stack: Stack, arguments: tuple[Any, ...]) -> None:
        with pytest.raises(InvalidRequest):
            stack.ask("register_name", *arguments)
        stats = stack.ask("stats")
        assert (stats["names"], stats["processes"]) == (1, 1)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [(("",), "1 to 1024 bytes is needed, not 0"), (("a" * 1025,), "is needed, not 1025"),
         ((5,), "is needed, not int"), ((ADDRESS, 2**31), "pid: an integer from 1 to 2.31 - 1,")],
    )  # fmt: skip
    def test_a_registration_that_is_refused_hears_what_is_allowed_and_what_came(
        self, stack: Stack, arguments: tuple[Any, ...], says: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=says):
            stack.ask("register_name", "name", *arguments)

    def test_a_dead_pid_and_a_threads_id_are_no_process(self, stack: Stack) -> None:
        child, unreaped = stack.sleeper(), stack.sleeper()
        child.kill()
        child.wait(BOUND_S)
        unreaped.kill()
        os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
        ends = threading.Event()
        thread = threading.Thread(target=ends.wait, daemon=True)
        thread.start()
        for pid in (child.pid, unreaped.pid, thread.native_id):
            with pytest.raises(InvalidRequest, match="no process"):
                stack.ask("register_name", "name", ADDRESS, pid)
        ends.set()
        thread.join(BOUND_S)
        assert not thread.is_alive()

    def test_a_lease_for_a_process_that_may_not_be_ended_is_refused(self, stack: Stack) -> None:
        with pytest.raises(InvalidRequest, match="ended"):
            stack.ask("register_name", "name", ADDRESS, stack.registry.pid, b"one", 1000)

    @pytest.mark.parametrize(
        "request_body",
        [("watch",), ("watch", "1"), ("whereis_name",), ("names", 1), ("unregister_name", 1, "one"), ("no such",)],
    )
    def test_other_requests_with_wrong_arguments_are_refused(self, stack: Stack, request_body: tuple[Any, ...]) -> None:
        with pytest.raises(InvalidRequest):
            stack.ask(*request_body)

    def test_garbage_changes_nothing_and_the_registry_lives_on(self, stack: Stack) -> None:
        assert stack.ask("register_name", "kept", ADDRESS, os.getpid()) is True
        chance = random.Random(1)
        good = messages.call(b"test", [(1, None, 0, messages.body("names"))])
        garbage = [chance.randbytes(chance.randrange(200)) for _ in range(200)]
        garbage += [good[:size] for size in range(len(good))]
        garbage += [b"\x91" * 1_000_000, messages.call(b"test", [(1, None, 0, b"\x91" * 500_000)])]
        socket = stack.connect(zmq.DEALER)
        for data in garbage:
            socket.send_multipart([b"", data])
            _, status, value = replies_in(socket.recv_multipart()[-1])[0]
            assert status == messages.ERROR
            assert isinstance(messages.read_error(value), TodoMQError)
        socket.send_multipart([b""] * 10_000)
        _, status, value = replies_in(socket.recv_multipart()[-1])[0]
        assert isinstance(messages.read_error(value), ProtocolError)
        assert stack.registry.poll() is None
        assert len(stack.ask("names")) == 2
        assert stack.ask("unregister_name", "kept") is True
