"""The door by itself, on real sockets: it fails closed whatever is not there, and a cut is a cut."""

from __future__ import annotations

import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from todomq.protocol import messages
from todomq.runtime import curve, sockets
from todomq.runtime.calls import Service
from todomq.runtime.door import Door
from todomq.runtime.loop import Loop
from todomq.runtime.zap import NO, NOT_NOW, YES, ZapHandler

BOUND_S = 10.0
SILENCE_S = 0.3
"""How long nothing must happen for it to count as refused; what is let in is answered within milliseconds."""


def free_address() -> str:
    """Return an address that is free, below the ports that the system gives to connections: see ``system/keyed.py``."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(16_000, 32_000)))
            return f"tcp://127.0.0.1:{free.getsockname()[1]}"


class Stand:
    """A loop that turns here, with what is put on it, and clients of it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.server, self.secret = curve.new_pair()
        self.public, self.own_secret = curve.new_pair()
        self.known: dict[str, Any] = {self.public: "alice"}
        self.zap_handler: ZapHandler | None = None
        self.doors: list[Door] = []
        self.clients: list[zmq.Socket[bytes]] = []
        self.context = zmq.Context()
        self.address = free_address()

    def keep_the_gate(self, judge: Callable[[str], bytes] | None = None) -> None:
        self.zap_handler = ZapHandler(self.loop)
        self.zap_handler.judge(curve.DOOR, judge or (lambda public: YES if public in self.known else NO))

    def open(self) -> Door:
        self.doors.append(Door(self.loop, self.address, Service(), self.secret, self.known.get))
        return self.doors[-1]

    def client(self, server: str = "", by_key: bool = True, connect: bool = True) -> zmq.Socket[bytes]:
        opened = self.context.socket(zmq.DEALER)
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.SNDTIMEO, 0)
        opened.setsockopt(zmq.RECONNECT_IVL, 10)
        public, secret = (self.public, self.own_secret) if by_key else curve.new_pair()
        curve.present(opened, server or self.server, public, secret)
        if connect:
            opened.connect(self.address)
        self.clients.append(opened)
        return opened

    def is_let_in(self, by_key: bool = True, bound_s: float = BOUND_S) -> bool:
        """Connect and turn the loop until the handshake has succeeded or the time is up."""
        client = self.client(by_key=by_key, connect=False)
        monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        client.connect(self.address)
        try:
            return self.turn_until(lambda: monitor.poll(0), bound_s)
        finally:
            client.disable_monitor()
            monitor.close(0)

    def turn_until(self, condition: Callable[[], Any], bound_s: float = BOUND_S) -> bool:
        give_up = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() > give_up:
                return False
            self.loop.turn(0.005)
            for door in self.doors:
                door.flush()
        return True

    def is_answered(self, client: zmq.Socket[bytes], bound_s: float = BOUND_S) -> bool:
        """Send a ping and turn the loop until it is answered or the time is up."""
        try:
            client.send_multipart([b"", messages.call(b"me", [[1, None, 0, messages.body("ping")]])])
        except zmq.Again:
            return False
        answered = self.turn_until(lambda: client.poll(0), bound_s)
        if answered:
            client.recv_multipart()
        return answered

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.context.term()
        for door in self.doors:
            for each in (door._monitor, door._socket):
                self.loop.unwatch(each)
            door._socket.disable_monitor()
            door._monitor.close(0)
            door._socket.close(0)
        if self.zap_handler is not None:
            self.zap_handler.close()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A stand with a context of its own, for there is one ZAP handler in each."""
    monkeypatch.setattr(sockets, "_context", None)
    made = Stand()
    yield made
    made.end()
    sockets.context().term()


def test_who_has_a_key_on_file_is_let_in(stand: Stand) -> None:
    stand.keep_the_gate()
    stand.open()
    assert stand.is_answered(stand.client())


def test_before_the_handler_is_there_nobody_is_let_in(stand: Stand) -> None:
    """Not even who would be: libzmq on its own lets in every key, but for the domain that is enforced."""
    stand.open()
    assert not stand.is_let_in(by_key=False, bound_s=SILENCE_S) and not stand.is_let_in(bound_s=SILENCE_S)
    assert not stand.is_answered(stand.client(), SILENCE_S)
    stand.keep_the_gate()
    assert stand.is_let_in() and stand.is_answered(stand.client())
    assert not stand.is_let_in(by_key=False, bound_s=SILENCE_S)


def test_after_the_handler_is_gone_nobody_new_is_let_in(stand: Stand) -> None:
    stand.keep_the_gate()
    stand.open()
    before = stand.client()
    assert stand.is_answered(before)
    assert stand.zap_handler is not None
    stand.zap_handler.close()
    stand.zap_handler = None
    assert not stand.is_let_in(by_key=False, bound_s=SILENCE_S) and not stand.is_let_in(bound_s=SILENCE_S)
    assert stand.is_answered(before)  # who was let in by the handler stays in


def test_while_the_loop_stands_still_nobody_is_let_in(stand: Stand) -> None:
    stand.keep_the_gate()
    stand.open()
    outside, inside = stand.client(by_key=False), stand.client()
    monitors = [each.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) for each in (outside, inside)]
    assert not any(monitor.poll(int(SILENCE_S * 1000)) for monitor in monitors)
    assert stand.is_answered(inside)  # and it goes on as if nothing had been
    assert not stand.is_answered(outside, SILENCE_S)
    for each, monitor in zip((outside, inside), monitors):
        each.disable_monitor()
        monitor.close(0)


@pytest.mark.parametrize("verdict", [NO, NOT_NOW, b"", b"500"])
def test_every_verdict_but_yes_keeps_out(stand: Stand, verdict: bytes) -> None:
    stand.keep_the_gate(lambda public: verdict)
    stand.open()
    assert not stand.is_answered(stand.client(), SILENCE_S)


def test_a_handler_that_knows_another_domain_only_lets_nobody_in(stand: Stand) -> None:
    stand.zap_handler = ZapHandler(stand.loop)
    stand.zap_handler.judge(curve.STACK, lambda public: YES)
    stand.open()
    assert not stand.is_answered(stand.client(), SILENCE_S)


def test_a_client_talks_to_the_server_that_it_pins_only(stand: Stand) -> None:
    stand.keep_the_gate()
    stand.open()
    assert not stand.is_answered(stand.client(server=curve.new_pair()[0]), SILENCE_S)


def test_a_cut_connection_is_served_no_more_and_closed(stand: Stand) -> None:
    stand.keep_the_gate()
    door = stand.open()
    client = stand.client()
    assert stand.is_answered(client)
    monitor = client.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    stand.known.clear()
    door.look_again()
    assert stand.turn_until(lambda: monitor.poll(0))
    assert int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder) == zmq.EVENT_DISCONNECTED
    assert not stand.is_answered(client, SILENCE_S)
    assert stand.turn_until(lambda: door.connections == 0)
    client.disable_monitor()
    monitor.close(0)


@pytest.mark.parametrize("frames", [4, 100_000])
def test_law_6_who_sends_more_than_three_frames_is_cut_while_others_are_served(stand: Stand, frames: int) -> None:
    stand.keep_the_gate()
    door = stand.open()
    hostile, good = stand.client(), stand.client()
    assert stand.is_answered(hostile) and stand.is_answered(good)
    monitor = hostile.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    hostile.send_multipart([b""] * frames)
    assert stand.turn_until(lambda: monitor.poll(0))
    hostile.disable_monitor()
    monitor.close(0)
    turns = stand.loop.turns
    assert stand.is_answered(good)
    assert door.counts["flooded"] == door.counts["cut"] == 1
    assert stand.loop.turns > turns


def test_a_key_that_is_no_longer_known_is_not_served_even_before_it_is_looked_for(stand: Stand) -> None:
    stand.keep_the_gate()
    stand.open()
    client = stand.client()
    assert stand.is_answered(client)
    stand.known.clear()
    assert not stand.is_answered(client, SILENCE_S)


def test_a_thousand_connections_that_come_and_go_leave_nothing(stand: Stand) -> None:
    stand.keep_the_gate()
    door = stand.open()
    for _ in range(20):
        clients = [stand.client() for _ in range(10)]
        for client in clients:
            assert stand.is_answered(client)
        host, port = stand.address.removeprefix("tcp://").split(":")
        strangers = [socket.create_connection((host, int(port))) for _ in range(40)]
        for client in clients:
            client.close()
        for each in strangers:
            each.close()
        assert stand.turn_until(lambda: door.connections == 0)
    assert not door._guests and not door._backlog and not door._replies


def test_a_door_that_libzmq_leaves_open_still_serves_nobody(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second lock: were the domain not enforced, whoever came in would have no name, and is cut."""
    guard = curve.guard

    def careless(opened: zmq.Socket[bytes], secret: str, domain: str) -> None:
        guard(opened, secret, domain)
        opened.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)

    monkeypatch.setattr(curve, "guard", careless)
    stand.open()
    assert stand.is_let_in(by_key=False)
    assert not stand.is_answered(stand.client(by_key=False), SILENCE_S)


class SlowWire:
    """A way between two TCP addresses on which a megabyte takes seconds."""

    BYTES_PER_S = 150_000

    def __init__(self, to: str) -> None:
        host, port = to.removeprefix("tcp://").split(":")
        self._to = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.connections = 0
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._ends):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._ends += (near, far)
                self.connections += 1
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(4_096):
                time.sleep(len(data) / self.BYTES_PER_S)
                other.sendall(data)


@pytest.mark.parametrize("kind", ["push", "dealer"])
def test_a_long_message_between_daemons_gets_through_a_slow_network_and_what_the_network_loses_ends(
    stand: Stand, kind: str, tmp_path: Path
) -> None:
    stand.zap_handler = ZapHandler(stand.loop)
    own = curve.Curve(stand.server, stand.secret)
    stand.zap_handler.judge(curve.STACK, lambda public: YES if public == own.public else NO)
    if kind == "push":
        server = sockets.pull(stand.address, own)
    else:
        server = sockets.router(f"ipc://{tmp_path}/r")
        sockets.listen_in_stack(server, stand.address, own)
    wire = SlowWire(stand.address)
    client, *monitors = [sockets.push(wire.address, own)] if kind == "push" else sockets.dealer(wire.address, own)
    long = bytes(900_000)  # six seconds, in which nothing else is heard
    try:
        assert stand.turn_until(lambda: sockets.send(client, (long,)))
        assert stand.turn_until(lambda: (frames := sockets.receive(server)) is not None and frames[-1] == long, 30.0)
        assert wire.connections == 1
        for each in (client, server):  # to lose packets takes more than a test may do
            assert (each.getsockopt(zmq.TCP_KEEPALIVE), each.getsockopt(zmq.TCP_MAXRT)) == (1, sockets.UNHEARD_MS)
    finally:
        if monitors:
            client.disable_monitor()
        for each in (server, client, *monitors):
            each.close(0)
        wire.close()


def test_a_pull_with_the_stacks_key_takes_from_the_stack_only(stand: Stand) -> None:
    stand.zap_handler = ZapHandler(stand.loop)
    own = curve.Curve(stand.server, stand.secret)
    stand.zap_handler.judge(curve.STACK, lambda public: YES if public == own.public else NO)
    pull = sockets.pull(stand.address, own)
    other = curve.Curve(*curve.new_pair())
    outsider = sockets._open(zmq.PUSH)
    curve.present(outsider, own.public, other.public, other.secret)
    outsider.setsockopt(zmq.IMMEDIATE, 1)
    outsider.connect(stand.address)
    inside = sockets.push(stand.address, own)
    try:
        assert stand.turn_until(lambda: sockets.send(inside, (b"ours",)))
        assert stand.turn_until(lambda: pull.poll(0))
        assert sockets.receive(pull) == [b"ours"]
        assert not stand.turn_until(lambda: sockets.send(outsider, (b"theirs",)), SILENCE_S)
    finally:
        for each in (pull, outsider, inside):
            each.close(0)
