"""Who is let in: the answers to libzmq's question about each CURVE handshake (https://rfc.zeromq.org/spec/27/).

Owns: the one ZAP handler of the process. Must not know: where keys are stored, what they allow.

It fails closed. Every socket with CURVE enforces a domain, so if no handler is bound libzmq refuses the handshake.
While the loop stands still a handshake waits, and is cut after ``curve.HANDSHAKE_MS``. A question for an unknown
domain, with another mechanism or in a form that can't be read is answered with a refusal.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable

from zmq.utils import z85

from todomq.runtime import sockets
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop

VERSION = b"1.0"
YES, NOT_NOW, NO = b"200", b"300", b"400"

Judge = Callable[[str], bytes]
"""Given a public key in Z85, returns YES, NOT_NOW or NO."""


_IPC = re.compile(rb"(?:localhost)?:(\d+):\d+:\d+")
"""What libzmq says of a peer at the other end of an ipc socket: user, group, process. Over TCP: its IP address."""


def _is_own_ipc(address: bytes) -> bool:
    """Tell whether a peer comes without a key over an ipc socket and is this very user, as the kernel knows."""
    peer = _IPC.fullmatch(address)
    return peer is not None and int(peer.group(1)) == os.getuid()


class ZapHandler:
    """The ZAP handler. Make it before the first socket with CURVE is bound."""

    def __init__(self, loop: Loop) -> None:
        self.counts: Counter[str] = Counter()
        self._judges: dict[bytes, Judge] = {}
        self._loop = loop
        self._socket = sockets.zap()
        loop.watch(self._socket, self._drain)

    def judge(self, domain: str, judge: Judge) -> None:
        """Have ``judge`` decide who is let in at the sockets of this domain."""
        self._judges[domain.encode()] = judge

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.unwatch(self._socket)
        self._socket.close(0)

    def _drain(self) -> None:
        for _ in range(sockets.DRAIN_MESSAGES):
            frames = sockets.receive(self._socket, max_frames=10)
            if frames is None:
                return
            self._answer(frames)
        self._loop.look_again(self._socket)

    def _answer(self, frames: list[bytes]) -> None:
        if len(frames) < 4 or frames[1]:
            return  # not a question: libzmq asks in the envelope of a REQ socket
        verdict, user = self._verdict(frames[2:])
        self.counts["let_in" if verdict == YES else "refused"] += 1
        if verdict != YES:
            address = frames[5].decode(errors="replace") if len(frames) > 5 else ""
            log_counted("not_let_in", address=address, key=user[:8])
        sockets.send(self._socket, (*frames[:2], VERSION, frames[3], verdict, b"", user.encode(), b""))

    def _verdict(self, question: list[bytes]) -> tuple[bytes, str]:
        if len(question) == 6 and question[5] == b"NULL" and _is_own_ipc(question[3]):
            return YES, ""
        if len(question) != 7 or question[0] != VERSION or question[5] != b"CURVE" or len(question[6]) != 32:
            return NO, ""
        judge = self._judges.get(question[2])
        public: str = z85.encode(question[6]).decode()
        return (NO if judge is None else judge(public)), public
