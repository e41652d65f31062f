"""The runtime on real sockets: the loop, calls both ways, locks, and a daemon from its start to its stop."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

from todomq import errors
from todomq.daemons import REFUSED_TO_START
from todomq.errors import UNKNOWN, DeadlineExceeded, EntryNotFound, InvalidRequest, Overloaded, TodoMQError, Unavailable
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.runtime import call_queue, calls, locks, sockets
from todomq.runtime.callee import Answer, Callee
from todomq.runtime.calls import LATER, Call, CallServer, Service, batches_of
from todomq.runtime.daemon import FAILED
from todomq.runtime.local_process import age_ms, has_ended, kill
from todomq.runtime.loop import Loop, OneTimer
from todomq.runtime.pipes import Pull, Push
from todomq.settings import Settings, SettingsError

BOUND_S = 15.0


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="tq"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    open_sockets = [source for source in loop._descriptors if isinstance(source, zmq.Socket)]
    for source in open_sockets:
        loop.unwatch(source)
        if source.type == zmq.DEALER:
            source.disable_monitor()  # a monitor that nobody reads stalls the thread behind all sockets
    for source in open_sockets:
        source.close(0)


def turn_until(loop: Loop, condition: Callable[[], bool], *flush: Callee | CallServer) -> None:
    """Turn the loop until the condition holds, within a bound."""
    give_up = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < give_up, "the condition was not met in time"
        for each in flush:
            each.flush()
        loop.turn(0.02)


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_planned_actions_run_in_the_order_of_their_time_and_each_once(loop: Loop) -> None:
    ran: list[str] = []
    loop.after(0.02, lambda: ran.append("later"))
    loop.after(0, lambda: ran.append("sooner"))
    turn_until(loop, lambda: len(ran) == 2)
    assert ran == ["sooner", "later"]
    loop.turn(0.03)
    assert len(ran) == 2


def test_a_repeated_action_runs_until_it_is_cancelled_also_by_itself(loop: Loop) -> None:
    ran: list[int] = []

    def run() -> None:
        ran.append(1)
        if len(ran) == 3:
            timer.cancel()

    timer = loop.every(0.001, run)
    turn_until(loop, lambda: len(ran) == 3)
    loop.turn(0.02)
    assert len(ran) == 3


def test_what_is_asked_for_again_and_again_is_planned_once_until_it_has_run(loop: Loop) -> None:
    ran: list[int] = []

    def run() -> None:
        ran.append(len(ran))
        if len(ran) == 1:
            again.plan()  # by itself

    again = OneTimer(loop, 0.001, run)
    for _ in range(3):
        again.plan()
    turn_until(loop, lambda: len(ran) == 2)
    loop.after(0.02, lambda: ran.append(-1))
    turn_until(loop, lambda: ran[-1] == -1)
    assert ran == [0, 1, -1]


def test_the_end_of_every_turn_comes_after_what_the_turn_brought(loop: Loop) -> None:
    ran: list[str] = []
    loop.after(0, lambda: ran.append("timer"))
    loop.at_turn_end(lambda: ran.append("first"))
    loop.at_turn_end(lambda: ran.append("second"))
    loop.turn(0.01)
    assert ran == ["timer", "first", "second"]


def test_offloaded_work_runs_in_order_on_one_thread_and_is_done_on_the_loop(loop: Loop) -> None:
    threads: list[int] = []
    done: list[Any] = []

    def work(place: int) -> int:
        threads.append(threading.get_ident())
        return place

    for place in range(5):
        loop.offload(
            partial(work, place), lambda result, error: done.append((result, error, threading.get_ident()))
        )
    turn_until(loop, lambda: len(done) == 5)
    assert done == [(place, None, threading.get_ident()) for place in range(5)]
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


def test_offloaded_work_that_fails_hands_over_its_error_and_the_lane_goes_on(loop: Loop) -> None:
    done: list[Any] = []
    loop.offload(lambda: 1 // 0, lambda result, error: done.append(error))
    loop.offload(lambda: "fine", lambda result, error: done.append(result))
    turn_until(loop, lambda: len(done) == 2)
    assert isinstance(done[0], ZeroDivisionError)
    assert done[1] == "fine"


def test_slow_work_in_one_lane_holds_up_neither_the_loop_nor_another_lane(loop: Loop) -> None:
    gate = threading.Event()
    done: list[str] = []
    loop.offload(lambda: gate.wait(BOUND_S), lambda result, error: done.append("slow"), lane="slow")
    loop.offload(lambda: None, lambda result, error: done.append("quick"), lane="quick")
    turn_until(loop, lambda: done == ["quick"])
    gate.set()
    turn_until(loop, lambda: done == ["quick", "slow"])


def test_law_6_work_that_ends_as_fast_as_it_is_taken_does_not_keep_timers_from_running(loop: Loop) -> None:
    ran: list[str] = []

    def again(result: Any, error: BaseException | None) -> None:
        loop.post(lambda: again(None, None))

    loop.after(0, lambda: ran.append("timer"))
    for _ in range(200):
        again(None, None)
    turn_until(loop, lambda: ran == ["timer"])


def test_stop_ends_the_loop_from_another_thread(loop: Loop) -> None:
    threading.Timer(0.01, loop.stop).start()
    loop.run()
    assert loop.turns


def test_a_descriptor_that_is_unwatched_in_a_turn_is_not_served_in_it(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    served: list[int] = []

    def serve(own: int, other: int) -> None:
        served.append(own)
        loop.unwatch(other)
        os.close(other)

    (one, to_one), (two, to_two) = pipes
    loop.watch(one, lambda: serve(one, two))
    loop.watch(two, lambda: serve(two, one))
    for writer in (to_one, to_two):
        os.write(writer, b"x")
        os.close(writer)
    loop.turn(0.1)
    assert len(served) == 1


def test_a_descriptor_that_takes_the_number_of_one_that_was_closed_in_a_turn_is_not_served_in_it(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    silent, to_silent = os.pipe()
    served: list[str] = []

    def serve(other: int) -> None:
        served.append("one of both")
        loop.unwatch(other)
        os.dup2(silent, other)
        loop.watch(other, lambda: served.append("what has nothing to read"))

    for (reader, _), (other, _) in zip(pipes, reversed(pipes)):
        loop.watch(reader, lambda other=other: serve(other))  # type: ignore[misc]
    for _, writer in pipes:
        os.write(writer, b"x")
    loop.turn(0.1)
    assert served == ["one of both"]
    for reader, writer in (*pipes, (silent, to_silent)):
        os.close(reader)
        os.close(writer)


# -- calls -------------------------------------------------------------------------------------------------------------


class Echo(Service):
    """Answers at once, later, with an error, with a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Call] = []
        self.operations |= {
            "echo": lambda call: call.arguments,
            "later": self._later,
            "refuse": self._refuse,
            "crash": lambda call: 1 // 0,
        }

    def _later(self, call: Call) -> object:
        self.later.append(call)
        return LATER

    def _refuse(self, call: Call) -> object:
        raise EntryNotFound("none such")


class Pair:
    """A server and a connection to it on one loop."""

    def __init__(self, loop: Loop, home: Path) -> None:
        self.loop = loop
        self.address = f"ipc://{home}/echo"
        self.service = Echo()
        self.server = CallServer(loop, self.address, self.service)
        self.events: list[str] = []
        self.callee = Callee(
            loop, self.address, b"sender",
            on_break=lambda: self.events.append("broke"),
            on_connect=lambda: self.events.append("connected"),
            on_close=lambda: self.events.append("closed"),
        )  # fmt: skip
        self.answers: list[Answer] = []
        loop.at_turn_end(lambda: self.server.flush())
        loop.at_turn_end(lambda: self.callee.flush())

    def call(self, operation: str, *arguments: Any, timeout_s: float = BOUND_S) -> None:
        self.callee.call(operation, *arguments, done=self.answers.append, timeout_s=timeout_s)

    def wait(self, answers: int = 1) -> list[Answer]:
        turn_until(self.loop, lambda: len(self.answers) >= answers)
        return self.answers

    def stop_server(self) -> None:
        self.loop.unwatch(self.server._socket)
        self.server._socket.close(0)

    def start_server(self) -> None:
        self.server = CallServer(self.loop, self.address, self.service)


@pytest.fixture
def pair(loop: Loop, home: Path) -> Pair:
    return Pair(loop, home)


def test_a_call_is_answered_and_many_of_one_turn_travel_in_one_message(pair: Pair) -> None:
    for place in range(100):
        pair.call("echo", place)
    assert [answer.value for answer in pair.wait(100)] == [[place] for place in range(100)]
    assert pair.server.counts["messages"] == 1


def test_a_connection_wakes_nobody_until_the_first_call_is_late(pair: Pair) -> None:
    pair.call("ping")
    pair.wait()
    pair.call("later", timeout_s=0.6)
    pair.call("later", timeout_s=0.3)
    longest = 0.0
    while len(pair.answers) < 3:
        begun = time.monotonic()
        pair.loop.turn(BOUND_S)
        longest = max(longest, time.monotonic() - begun)
    assert all(isinstance(answer.error, DeadlineExceeded) for answer in pair.answers[1:])
    assert longest > 0.2


def test_law_6_calls_that_take_longer_than_a_turn_wait_while_others_are_served(pair: Pair) -> None:
    def slow(call: Call) -> int:
        time.sleep(0.001)
        return len(served)

    served: list[int] = []
    pair.service.operations["slow"] = lambda call: served.append(slow(call))
    other = Callee(pair.loop, pair.address, b"other")
    pair.loop.at_turn_end(other.flush)
    answers: list[int] = []
    pair.callee.send(messages.call(b"sender", [(n, None, 0, messages.body("slow")) for n in range(1, 1_001)]))
    turn_until(pair.loop, lambda: bool(served))
    other.call("ping", done=lambda answer: answers.append(len(served)))
    turn_until(pair.loop, lambda: bool(answers))
    assert answers[0] < 500, "its turn came before all that the first one asked was served"
    most = 0
    while len(served) < 1_000:
        before = len(served)
        pair.loop.turn(0.02)
        most = max(most, len(served) - before)
    assert most <= 2 * calls.TURN_MS, "each took a millisecond at least"
    assert served == list(range(1_000))


def test_law_6_of_calls_for_which_there_is_no_room_each_is_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TURN_MS", 0)  # no turn serves what it reads
    monkeypatch.setattr(call_queue, "PEER_REQUESTS", 10)
    for place in range(30):
        pair.call("echo", place)
    turn_until(pair.loop, lambda: len(pair.answers) == 20)
    assert {type(answer.error) for answer in pair.answers} == {Overloaded}
    monkeypatch.setattr(calls, "TURN_MS", 1_000)
    assert [answer.value for answer in pair.wait(30)[20:]] == [[place] for place in range(10)]


@pytest.mark.parametrize("target", ["list" * 50_000, [b"name" * 50_000], {"a": [bytes(200_000)]}])
def test_law_6_a_call_that_waits_holds_no_target_that_nobody_reads(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, target: Any
) -> None:
    request = (1, target, 0, messages.body("later"), 0, 0)
    pair.callee.send(messages.call(b"sender", [request]))
    turn_until(pair.loop, lambda: bool(pair.service.later))
    assert pair.service.later[0].target is None
    monkeypatch.setattr(calls, "TURN_MS", 0)  # no turn serves what it reads
    pair.callee.send(messages.call(b"sender", [request]))
    turn_until(pair.loop, lambda: bool(pair.server._waiting))
    _, (waiting, _) = pair.server._waiting.take()
    assert waiting[messages.TARGET] is None


def test_law_6_a_key_counts_while_it_waits_and_one_that_is_longer_than_any_is_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TURN_MS", 0)
    longest = bytes(limits.KEY_BYTES)
    told: list[Any] = []
    pair.callee._on_replies = told.extend
    requests = [(1, longest, 0, messages.body("later")), (2, longest + b"1", 0, messages.body("later"))]
    pair.callee.send(messages.call(b"sender", requests))
    turn_until(pair.loop, lambda: bool(told))
    assert [identifier for identifier, *_ in told] == [2]
    assert isinstance(messages.read_error(told[0][2]), errors.ProtocolError)
    assert pair.server._waiting._bytes > limits.KEY_BYTES
    monkeypatch.setattr(calls, "TURN_MS", 1_000)
    turn_until(pair.loop, lambda: bool(pair.service.later))
    assert [call.target for call in pair.service.later] == [longest]


def test_a_daemon_that_is_to_stop_serves_what_waits(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "TURN_MS", 0)
    for place in range(10):
        pair.call("echo", place)
    turn_until(pair.loop, lambda: bool(pair.server._waiting))
    pair.server.serve_all_waiting()
    assert [answer.value for answer in pair.wait(10)] == [[place] for place in range(10)]


def hear(socket: zmq.Socket[bytes], told: list[list[bytes]]) -> int:
    if socket.poll(0):
        told.append(socket.recv_multipart())
    return len(told)


def test_law_6_a_message_of_very_many_frames_is_one_malformed_message_and_holds_nobody_up(
    pair: Pair,
) -> None:
    hostile = sockets.context().socket(zmq.DEALER)
    try:
        hostile.setsockopt(zmq.LINGER, 0)
        hostile.connect(pair.address)
        hostile.send_multipart([b""] * 200_000)
        hostile.send_multipart([b"", messages.call(b"", [(1, None, 0, messages.body("ping"))])])
        turn_until(pair.loop, lambda: pair.server.counts["malformed"] > 0)
        turns = pair.loop.turns
        turn_until(pair.loop, lambda: pair.server.counts["messages"] == 2)
        assert pair.loop.turns - turns >= 200_000 // (sockets.DROPPED_FRAMES * sockets.DRAIN_MESSAGES)
        told: list[list[bytes]] = []
        turn_until(pair.loop, lambda: hear(hostile, told) == 2)
        _, replies = messages.read(told[1][1])
        assert messages.read_replies(replies)[0][:2] == (1, messages.OK)
        assert pair.server.counts["malformed"] == 1
    finally:
        hostile.close(0)


def test_an_error_travels_with_its_code_and_outcome(pair: Pair) -> None:
    pair.call("refuse")
    error = pair.wait()[0].error
    assert isinstance(error, EntryNotFound)
    assert (error.text, error.retryable, error.outcome) == ("none such", False, "not applied")


def test_an_answer_may_come_turns_later_and_out_of_order(pair: Pair) -> None:
    pair.call("later")
    pair.call("echo", 1)
    assert pair.wait()[0].value == [1]
    turn_until(pair.loop, lambda: bool(pair.service.later))
    pair.service.later[0].answer("at last")
    assert pair.wait(2)[1].value == "at last"


def test_a_fault_of_ours_in_one_request_is_told_and_the_next_one_is_served(pair: Pair) -> None:
    pair.call("crash")
    pair.call("echo", 1)
    crashed, echoed = pair.wait(2)
    assert crashed.error is not None
    assert crashed.error.outcome == UNKNOWN
    assert "ZeroDivisionError" in crashed.error.text
    assert echoed.value == [1]


def test_an_operation_that_does_not_exist_is_refused_and_ping_always_exists(pair: Pair) -> None:
    pair.call("no such thing")
    pair.call("ping")
    refused, pong = pair.wait(2)
    assert isinstance(refused.error, InvalidRequest)
    assert pong.value == "pong"


def test_a_cast_is_served_and_nothing_comes_back(pair: Pair) -> None:
    pair.callee.send(messages.call(b"sender", [(None, None, 0, messages.body("later", 7))]))
    turn_until(pair.loop, lambda: bool(pair.service.later))
    pair.service.later[0].answer("into nothing")
    pair.service.later[0].refuse(Unavailable("counted"))
    pair.call("ping")
    assert len(pair.wait()) == 1
    assert pair.server.counts["casts_dropped"] == 1


def test_a_call_that_is_not_answered_in_time_fails_with_an_unknown_outcome(pair: Pair) -> None:
    pair.call("later", timeout_s=0.5)
    turn_until(pair.loop, lambda: bool(pair.service.later))  # in time: past its deadline the server would refuse it
    error = pair.wait()[0].error
    assert isinstance(error, DeadlineExceeded)
    assert error.outcome == UNKNOWN
    pair.service.later[0].answer("too late")
    pair.call("ping")
    assert len(pair.wait(2)) == 2


def test_a_call_that_is_not_answered_fails_in_time_though_the_clock_was_set_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.call("later", timeout_s=0.5)
    turn_until(pair.loop, lambda: bool(pair.service.later))
    hour_ago_ms = Loop.now_ms() - 3_600_000
    monkeypatch.setattr(Loop, "now_ms", staticmethod(lambda: hour_ago_ms))
    assert isinstance(pair.wait()[0].error, DeadlineExceeded)


def test_a_request_past_its_deadline_is_not_carried_out(pair: Pair) -> None:
    pair.callee.send(messages.call(b"sender", [(999, None, 1, messages.body("later"))]))
    pair.call("ping")
    pair.wait()
    assert pair.service.later == []


def test_calls_in_flight_fail_at_once_when_the_connection_breaks_and_go_through_when_it_is_back(pair: Pair) -> None:
    pair.call("later")
    turn_until(pair.loop, lambda: bool(pair.service.later))
    pair.stop_server()
    error = pair.wait()[0].error
    assert isinstance(error, Unavailable)
    assert error.outcome == UNKNOWN
    assert pair.events == ["connected", "broke"]
    pair.start_server()
    turn_until(pair.loop, lambda: pair.events[-1] == "connected")
    pair.call("ping")
    assert pair.wait(2)[1].value == "pong"


def test_a_call_to_a_server_that_is_not_there_yet_goes_through_when_it_is(loop: Loop, home: Path) -> None:
    answers: list[Answer] = []
    callee = Callee(loop, f"ipc://{home}/late", b"sender")
    callee.call("ping", done=answers.append, timeout_s=BOUND_S)
    turn_until(loop, lambda: not callee._requests, callee)
    server = CallServer(loop, callee.address, Echo())
    turn_until(loop, lambda: bool(answers), callee, server)
    assert answers[0].value == "pong"


def test_closing_fails_what_is_in_flight_and_what_is_called_after_it(pair: Pair) -> None:
    pair.call("later")
    pair.callee.close()
    pair.call("ping")
    pair.callee.close()
    assert [type(answer.error) for answer in pair.answers] == [Unavailable, Unavailable]
    assert pair.events.count("closed") == 1


def test_a_connection_that_was_closed_leaves_memory_though_whoever_closed_it_is_told_which(
    loop: Loop, home: Path
) -> None:
    known: list[Callee] = []

    def connect() -> weakref.ref[Callee]:
        callee = Callee(loop, f"ipc://{home}/nobody", b"sender", on_close=lambda: known.remove(callee))
        known.append(callee)
        return weakref.ref(callee)

    reference = connect()
    gc.disable()
    try:
        known[0].close()
        assert known == [] and reference() is None
    finally:
        gc.enable()


def test_what_is_handed_to_a_closed_connection_is_not_said_to_be_on_its_way(loop: Loop, home: Path) -> None:
    callee = Callee(loop, f"ipc://{home}/nobody", b"sender")
    assert callee.send(b"first")
    callee.close()
    assert not callee.send(b"second")


def test_what_waits_for_a_peer_that_takes_nothing_is_bounded(
    loop: Loop, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todomq.runtime.callee.OUTBOX_BYTES", 10_000)
    callee = Callee(loop, f"ipc://{home}/nobody", b"sender")
    answers: list[Answer] = []
    for _ in range(sockets.PIPE_MESSAGES + 100):
        callee.call("echo", bytes(1_000), done=answers.append, timeout_s=BOUND_S)
        callee.flush()
    assert answers
    assert all(isinstance(answer.error, Overloaded) for answer in answers)
    assert callee.outbox_bytes <= 12_000
    assert not callee.send(bytes(1_000)) and callee.outbox_bytes <= 12_000


def test_whole_messages_for_a_peer_that_takes_nothing_are_bounded_and_it_is_told_which_were_not_taken(
    loop: Loop, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todomq.runtime.callee.OUTBOX_BYTES", 10_000)
    callee = Callee(loop, f"ipc://{home}/nobody", b"sender")
    taken = 0
    for _ in range(sockets.PIPE_MESSAGES + 100):
        taken += callee.send(bytes(1_000))
        callee.flush()
    assert callee.outbox_bytes <= 11_000
    assert taken == sockets.PIPE_MESSAGES + callee.outbox_bytes // 1_000


def req(address: str) -> zmq.Socket[bytes]:
    socket = sockets.context().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    return socket


def reply_to(pair: Pair, socket: zmq.Socket[bytes]) -> list[Any]:
    turn_until(pair.loop, lambda: bool(socket.poll(0)))
    kind, fields = messages.read(socket.recv_multipart()[-1])
    assert kind == "reply"
    return [list(reply) for reply in messages.read_replies(fields)]


def test_a_plain_req_socket_is_answered(pair: Pair) -> None:
    with req(pair.address) as socket:
        socket.send(messages.call(b"", [(7, None, 0, messages.body("ping"))]))
        assert reply_to(pair, socket) == [[7, messages.OK, pack("pong")]]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        pack([2, "call", b"", []]),
        pack([1, "call", b"", []]),
        pack([1, "surprise", 1]),
        pack(["1", "call", b"", [[1, None, 0, b""]]]),
        b"\x91" * 1_000_000,
    ],
)
def test_a_message_that_cannot_be_read_gets_an_error_and_the_next_one_an_answer(pair: Pair, message: bytes) -> None:
    for each in (message, messages.call(b"", [(7, None, 0, messages.body("ping"))])):
        with req(pair.address) as socket:
            socket.send(each)
            ((identifier, status, value),) = reply_to(pair, socket)
            if each is message:
                assert (identifier, status) == (None, messages.ERROR)
                assert messages.read_error(value).code == "protocol_error"
            else:
                assert (identifier, status) == (7, messages.OK)
    assert pair.server.counts["malformed"] == 1


def test_a_malformed_request_among_good_ones_is_refused_alone(pair: Pair) -> None:
    good = [7, None, 0, messages.body("ping")]
    with req(pair.address) as socket:
        socket.send(messages.call(b"", [[5, None, "soon", b""], good, "nothing at all"]))
        statuses = {identifier: status for identifier, status, _ in reply_to(pair, socket)}
    assert statuses == {5: messages.ERROR, 7: messages.OK, None: messages.ERROR}


def test_ten_thousand_frames_are_one_counted_error(pair: Pair) -> None:
    with sockets.context().socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(pair.address)
        socket.send_multipart([b""] * 10_000)
        ((identifier, status, _),) = reply_to(pair, socket)
    assert (identifier, status) == (None, messages.ERROR)
    assert pair.server.counts["malformed"] == 1


def test_replies_are_split_into_messages_of_the_size_of_a_batch() -> None:
    small: list[tuple[int | None, int, bytes]] = [(place, messages.OK, bytes(100)) for place in range(10)]
    assert batches_of(small) == [small]
    large: list[tuple[int | None, int, bytes]]
    large = [(place, messages.OK, bytes(limits.BATCH_BYTES // 3)) for place in range(10)]
    split = batches_of(large)
    assert [item for batch in split for item in batch] == large
    assert all(len(messages.reply(batch)) <= limits.BATCH_BYTES for batch in split)
    huge: list[tuple[int | None, int, bytes]] = [(1, messages.OK, bytes(limits.MIB)), (2, messages.OK, b"")]
    assert [len(batch) for batch in batches_of(huge)] == [1, 1]


def test_the_replies_that_wait_for_a_peer_that_reads_nothing_are_bounded(pair: Pair) -> None:
    pair.server._backlog._most_bytes = 3 * limits.MIB
    with sockets.context().socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.connect(pair.address)
        request = messages.call(b"", [(1, None, 0, messages.body("echo", bytes(limits.MIB // 2)))])
        sent = 0
        give_up = time.monotonic() + BOUND_S
        while not pair.server.counts["replies_dropped"]:
            assert time.monotonic() < give_up
            if socket.poll(0, zmq.POLLOUT):
                socket.send_multipart([b"", request])
                sent += 1
            pair.loop.turn(0.001)
        backlog = pair.server._backlog
        assert all(backlog.bytes_for(peer) <= 3 * limits.MIB for peer in backlog._waiting)
        assert len(pair.loop._timers) == 1, "one try is planned, however many turns there were"


def test_what_waits_for_a_peer_is_counted_and_leaves_in_order_once_the_peer_reads(pair: Pair) -> None:
    backlog = pair.server._backlog
    with sockets.context().socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.connect(pair.address)
        peers: list[bytes] = []
        pair.service.operations["peer"] = lambda call: peers.append(call.peer)
        socket.send_multipart([b"", messages.call(b"", [(1, None, 0, messages.body("peer"))])])
        turn_until(pair.loop, lambda: socket.poll(0) != 0, pair.server)
        socket.recv_multipart()
        (peer,) = peers
        sent = 0
        while sent < 2_000 or not backlog:
            backlog.send(peer, b"%06d" % sent)
            sent += 1
        waiting = sent - pair.server.counts["messages_sent"] + 1
        assert backlog.bytes_for(peer) == 6 * waiting > 0
        received: list[bytes] = []

        def receive() -> bool:
            while socket.poll(0):
                received.append(socket.recv_multipart()[-1])
            return len(received) == sent

        turn_until(pair.loop, receive, pair.server)
        assert received == [b"%06d" % number for number in range(sent)]
        assert not backlog and backlog.bytes_for(peer) == 0


# -- pipes, locks ------------------------------------------------------------------------------------------------------


def test_a_push_to_nobody_sends_nothing_and_tells_so(loop: Loop, home: Path) -> None:
    address = f"ipc://{home}/pull"
    push = Push(address)
    assert not push.send(b"lost?")
    taken: list[bytes] = []
    Pull(loop, address, taken.append)
    turn_until(loop, lambda: push.send(b"here") or bool(taken))
    turn_until(loop, lambda: bool(taken))
    assert taken[0] == b"here"
    push.close()


def test_where_a_port_is_taken_the_error_names_it_and_no_socket_stays_open() -> None:
    first = sockets.pull("tcp://127.0.0.1:*")
    taken = first.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
    try:
        with pytest.raises(Unavailable, match=taken):
            sockets.pull(taken)
        with pytest.raises(Unavailable, match=taken):
            sockets.router(taken)
    finally:
        first.close(0)


def test_a_daemon_whose_directory_of_sockets_is_gone_goes_on_and_is_found_again_once_it_is_back(
    pair: Pair, home: Path
) -> None:
    moved = home.with_name(home.name + "moved")
    shutil.move(home, moved)
    try:
        pair.server.restore()
        pair.call("echo", 1)  # over no connection yet: the socket's file is not there
        pair.loop.turn(0.05)
        assert not pair.answers
    finally:
        shutil.move(moved, home)
    Path(pair.address.removeprefix("ipc://")).unlink()
    pair.server.restore()
    assert pair.wait()[0].value == [1]


def test_a_list_server_without_a_number_says_how_to_start_it() -> None:
    for arguments in ([], ["x"], ["0"], ["1", "2"]):
        command = [sys.executable, "-m", "todomq.list_server", *arguments]
        told = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)
        assert told.returncode == 1
        assert told.stderr == "usage: python -m todomq.list_server NUMBER, from 1\n"


def test_a_daemon_for_which_the_stack_has_no_port_is_refused_with_the_settings_at_fault(home: Path) -> None:
    settings = Settings(home, "", stack_tcp="tcp://127.0.0.1:20000", list_servers=2)
    assert settings.reached_at("list_server-2").startswith("tcp://127.0.0.1:")
    with pytest.raises(SettingsError, match="no list_server-5 where TODOMQ_LIST_SERVERS=2"):
        settings.reached_at("list_server-5")


def test_a_name_is_held_by_one_process_and_the_error_names_it(home: Path) -> None:
    held = locks.hold(home / "router.lock")
    with pytest.raises(Unavailable, match=f"held by process {os.getpid()}"):
        locks.hold(home / "router.lock", wait_s=0.03)
    os.close(held)
    os.close(locks.hold(home / "router.lock", wait_s=0))


def test_a_lock_is_held_though_the_disk_is_too_full_for_its_note(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", fails)
        held = locks.hold(home / "router.lock")
    with pytest.raises(Unavailable, match="held by process unknown"):
        locks.hold(home / "router.lock", wait_s=0.03)
    os.close(held)


def test_the_next_holder_gets_the_lock_as_soon_as_the_one_before_has_gone(home: Path) -> None:
    held = locks.hold(home / "router.lock")
    threading.Timer(0.05, os.close, [held]).start()
    os.close(locks.hold(home / "router.lock", wait_s=BOUND_S))


def test_the_directory_of_sockets_is_private_also_where_it_was_open_before(home: Path) -> None:
    (home / "run").mkdir(mode=0o755)
    locks.private_directory(home / "run")
    assert (home / "run").stat().st_mode & 0o777 == 0o700


# -- a daemon ----------------------------------------------------------------------------------------------------------


def test_the_age_of_a_process_is_what_has_passed_since_it_began() -> None:
    tick_ms = 1000 // os.sysconf("SC_CLK_TCK")
    before_ms = time.monotonic_ns() // 1_000_000
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        begun_ms = time.monotonic_ns() // 1_000_000
        first_ms, now_ms = age_ms(child.pid), time.monotonic_ns() // 1_000_000
        assert first_ms <= now_ms - before_ms + tick_ms
        while (now_ms := time.monotonic_ns() // 1_000_000) < begun_ms + 5 * tick_ms:
            assert age_ms(child.pid) >= now_ms - begun_ms - 1
        assert age_ms(os.getpid()) > age_ms(child.pid)
    with pytest.raises(ProcessLookupError):
        age_ms(child.pid)


def test_a_process_is_ended_by_its_pidfd_and_one_that_has_ended_is_left_alone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pidfd = os.pidfd_open(child.pid)
    try:
        assert not has_ended(pidfd)
        kill(pidfd)
        assert has_ended(pidfd, BOUND_S)
        child.wait(BOUND_S)
        kill(pidfd)
    finally:
        os.close(pidfd)
        child.kill()


class Stack:
    """Real daemons in a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, part: str, home: Path | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, "TODOMQ_HOME": str(home or self.home)}
        environment.pop("SUPERVISOR_ENABLED", None)
        process = subprocess.Popen(
            [sys.executable, "-m", f"todomq.{part}"], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.processes[part] = process
        return process

    def ask(self, loop: Loop, part: str, operation: str, *arguments: Any) -> Any:
        answers: list[Answer] = []
        callee = Callee(loop, f"ipc://{self.home}/run/{part}", b"test")
        callee.call(operation, *arguments, done=answers.append, timeout_s=BOUND_S)
        turn_until(loop, lambda: bool(answers), callee)
        callee.close()
        if answers[0].error is not None:
            raise answers[0].error
        return answers[0].value

    def names(self, loop: Loop) -> list[Any]:
        return [registration[0] for registration in self.ask(loop, "registry", "names")]

    def wait_for_names(self, loop: Loop, wanted: Callable[[list[Any]], bool]) -> None:
        turn_until(loop, lambda: wanted(self.names(loop)))


@pytest.fixture
def stack(home: Path) -> Iterator[Stack]:
    stack = Stack(home)
    yield stack
    for process in stack.processes.values():
        process.kill()
        process.communicate()


def test_a_daemon_starts_before_the_registry_answers_meanwhile_and_is_found_once_there_is_one(
    stack: Stack, loop: Loop
) -> None:
    stack.start("cache")
    assert stack.ask(loop, "cache", "ping") == "pong"
    stats = stack.ask(loop, "cache", "stats")
    assert stats["name"] == ["cache"]
    assert stats["pid"] == stack.processes["cache"].pid
    stack.start("registry")
    stack.wait_for_names(loop, lambda names: ["cache"] in names)


def test_a_daemon_that_is_asked_to_stop_takes_its_name_away_and_leaves_with_0(stack: Stack, loop: Loop) -> None:
    stack.start("registry")
    cache = stack.start("cache")
    stack.wait_for_names(loop, lambda names: ["cache"] in names)
    cache.send_signal(signal.SIGTERM)
    assert cache.wait(BOUND_S) == 0
    assert ["cache"] not in stack.names(loop)


SLOW_TO_FINISH = """
from todomq.runtime.calls import Service
from todomq.runtime.daemon import main

class SlowToFinish(Service):
    def __init__(self, daemon):
        super().__init__()
        self.loop = daemon.loop

    def finish(self, done):
        self.loop.after({seconds}, done)

main(["cache"], SlowToFinish)
"""


def test_a_daemon_that_takes_longer_to_finish_than_its_lease_is_not_taken_for_one_that_hangs(
    stack: Stack, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_s = 1.0
    monkeypatch.setenv("TODOMQ_LEASE_MS", str(int(lease_s * 1000)))
    stack.start("registry")
    environment = {**os.environ, "TODOMQ_HOME": str(stack.home)}
    script = SLOW_TO_FINISH.format(seconds=2.5 * lease_s)
    slow = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
    stack.processes["cache"] = slow
    stack.wait_for_names(loop, lambda names: ["cache"] in names)
    slow.send_signal(signal.SIGTERM)
    assert slow.wait(BOUND_S) == 0
    assert ["cache"] not in stack.names(loop)


def test_a_daemon_is_back_in_a_registry_that_was_killed(stack: Stack, loop: Loop) -> None:
    stack.start("registry")
    stack.start("cache")
    stack.wait_for_names(loop, lambda names: ["cache"] in names)
    stack.processes["registry"].kill()
    stack.processes["registry"].communicate()
    stack.start("registry")
    stack.wait_for_names(loop, lambda names: ["cache"] in names)


def test_a_daemon_whose_socket_path_is_too_long_says_so_and_does_not_start(stack: Stack, home: Path) -> None:
    process = stack.start("cache", home / ("d" * 100))
    _, log = process.communicate(timeout=BOUND_S)
    assert process.returncode == REFUSED_TO_START
    assert "107" in log
    assert "TODOMQ_HOME" in log


FAILING = """
from todomq.errors import Unavailable
from todomq.runtime.calls import Service
from todomq.runtime.daemon import main

class Failing(Service):
    def __init__(self, daemon):
        super().__init__()
        daemon.loop.after(0.0, self.fail)

    def fail(self):
        raise {error}

main(["cache"], Failing)
"""


@pytest.mark.parametrize("error", ["OSError(24, 'too many open files')", "Unavailable('gone')", "KeyError('no such')"])
def test_what_escapes_a_daemon_that_had_started_is_told_as_what_it_is_and_not_as_a_refusal_to_start(
    home: Path, error: str
) -> None:
    failed = subprocess.run(
        [sys.executable, "-c", FAILING.format(error=error)],
        env={**os.environ, "TODOMQ_HOME": str(home)}, capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert failed.returncode == FAILED != REFUSED_TO_START
    assert "refused_to_start" not in failed.stderr
    assert "in fail" in failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert "failed name=cache" in last and error.split("(")[0] in last


def test_errors_of_a_daemon_come_back_as_what_they_are(stack: Stack, loop: Loop) -> None:
    stack.start("cache")
    with pytest.raises(InvalidRequest, match="list name"):
        stack.ask(loop, "cache", "server_process", 7)
    with pytest.raises(TodoMQError):
        stack.ask(loop, "cache", "no such operation")


def test_an_address_where_nobody_can_listen_is_named_once_with_what_to_do() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(zmq.ROUTER) as holder, context.socket(zmq.ROUTER) as other:
        taken = f"tcp://127.0.0.1:{holder.bind_to_random_port('tcp://127.0.0.1')}"
        for address, why in (
            (taken, "Address already in use; another process listens there"),
            ("tcp://192.0.2.1:7447", "Cannot assign requested address; it takes an address of this machine"),
        ):  # fmt: skip
            with pytest.raises(Unavailable) as caught:
                sockets.listen(other, address)
            assert caught.value.text == f"cannot listen at {address}: {why}"
