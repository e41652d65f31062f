"""A client that speaks ZMTP 3 and CURVE by itself, with the libsodium that pyzmq brings along, to do what libzmq won't.

It has a key, or a pair of its own making. It can send a message that never ends and name any properties.
Sources: https://rfc.zeromq.org/spec/23/ and https://rfc.zeromq.org/spec/26/
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

import zmq
from zmq.utils import z85

from todomq.keys.credentials import Credentials

BOUND_S = 10.0
MAC_BYTES = 16


def _sodium() -> ctypes.CDLL:
    beside = Path(zmq.__file__).parents[1] / "pyzmq.libs"
    (library,) = beside.glob("libsodium*.so*")
    return ctypes.CDLL(str(library))


class HostileClient:
    """One connection, through its handshake when this returns."""

    def __init__(self, endpoint: str, credentials: Credentials, properties: dict[str, bytes]) -> None:
        host, port = endpoint.removeprefix("tcp://").split(":")
        self._library = _sodium()
        self._server = z85.decode(credentials.server_public_key)
        self._public, self._secret = z85.decode(credentials.public_key), z85.decode(credentials.secret_key)
        pair = zmq.curve_keypair()
        self._own_public, self._own_secret = z85.decode(pair[0]), z85.decode(pair[1])
        self._counter = 0
        self.socket = socket.create_connection((host, int(port)), BOUND_S)
        self._greet()
        self._shake_hands(properties)

    def send_frame(self, content: bytes, has_more: bool) -> None:
        """Send one frame of a message."""
        box = self._box(bytes([has_more]) + content, b"CurveZMQMESSAGEC", self._session)
        self._send(b"\x07MESSAGE" + self._short_nonce() + box, flags=0)

    def receive_frame(self) -> bytes:
        """Return the content of the next frame; nothing where the connection has ended."""
        while True:
            body = self._receive()
            if not body:
                return b""
            if body.startswith(b"\x07MESSAGE"):
                return self._open(body[16:], b"CurveZMQMESSAGES" + body[8:16], self._session)[1:]

    # -- CURVE ---------------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32))
        self._read(64)

    def _shake_hands(self, properties: dict[str, bytes]) -> None:
        hello = self._box(bytes(64), b"CurveZMQHELLO---", self._server)
        self._send(b"\x05HELLO\x01\x00" + bytes(72) + self._own_public + self._short_nonce() + hello, flags=4)
        welcome = self._receive()
        assert welcome.startswith(b"\x07WELCOME"), welcome[:20]
        opened = self._open(welcome[24:], b"WELCOME-" + welcome[8:24], self._server)
        self._session, cookie = opened[:32], opened[32:]
        long_nonce = os.urandom(16)
        vouch = self._seal(self._own_public + self._server, b"VOUCH---" + long_nonce, self._session, self._secret)
        packed = b"".join(
            bytes([len(name)]) + name.encode() + struct.pack(">I", len(value)) + value
            for name, value in properties.items()
        )
        box = self._box(self._public + long_nonce + vouch + packed, b"CurveZMQINITIATE", self._session)
        self._send(b"\x08INITIATE" + cookie + self._short_nonce() + box, flags=4)
        ready = self._receive()
        assert ready.startswith(b"\x05READY"), ready[:20]

    def _short_nonce(self) -> bytes:
        return struct.pack(">Q", self._counter)

    def _box(self, plain: bytes, prefix: bytes, to: bytes) -> bytes:
        self._counter += 1
        return self._seal(plain, prefix + self._short_nonce(), to, self._own_secret)

    def _seal(self, plain: bytes, nonce: bytes, to: bytes, secret: bytes) -> bytes:
        sealed = ctypes.create_string_buffer(len(plain) + MAC_BYTES)
        length = ctypes.c_ulonglong(len(plain))
        assert self._library.crypto_box_easy(sealed, plain, length, nonce, to, secret) == 0
        return sealed.raw

    def _open(self, sealed: bytes, nonce: bytes, of: bytes) -> bytes:
        plain = ctypes.create_string_buffer(len(sealed) - MAC_BYTES)
        length = ctypes.c_ulonglong(len(sealed))
        assert self._library.crypto_box_open_easy(plain, sealed, length, nonce, of, self._own_secret) == 0
        return plain.raw

    # -- ZMTP ----------------------------------------------------------------------------------------------------------

    def _send(self, body: bytes, flags: int) -> None:
        if len(body) > 255:
            self.socket.sendall(bytes([flags | 2]) + struct.pack(">Q", len(body)) + body)
        else:
            self.socket.sendall(bytes([flags, len(body)]) + body)

    def _receive(self) -> bytes:
        head = self._read(2)
        if len(head) < 2:
            return b""
        length = head[1]
        if head[0] & 2:
            (length,) = struct.unpack(">Q", head[1:] + self._read(7))
        return self._read(length)

    def _read(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            try:
                more = self.socket.recv(count - len(got))
            except ConnectionResetError:
                more = b""
            if not more:
                return got
            got += more
        return got
