"""One-way pipes: a PULL that hands over messages, a PUSH that sends over a living connection or not at all.

Owns: their sockets. Must not know: what a message means.
"""

from __future__ import annotations

from collections.abc import Callable

from todomq.runtime import sockets
from todomq.runtime.curve import Curve
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop


class Pull:
    """A bound PULL socket."""

    def __init__(
        self, loop: Loop, address: str, take: Callable[[bytes], None], curve: Curve | None = None
    ) -> None:
        self.malformed = 0
        self._loop = loop
        self._address = address
        self._take = take
        self._socket = sockets.pull(address) if curve is None else sockets.pull(address, curve)
        loop.watch(self._socket, self.drain)

    def drain(self) -> None:
        """Hand over what has arrived, a bounded number of messages."""
        for _ in range(sockets.DRAIN_MESSAGES):
            frames = sockets.receive(self._socket)
            if frames is None:
                return
            if len(frames) == 1:
                self._take(frames[0])
            elif frames:
                self.malformed += 1
                log_counted("malformed_message", at=self._address.rsplit("/", 1)[-1], why="more than one frame")
            if not sockets.has_more(self._socket):
                return
        self._loop.look_again(self._socket)

    def restore(self) -> None:
        """Bind again if the socket's file was removed."""
        if sockets.restore(self._socket, self._address):
            self._loop.look_again(self._socket)

    def stop(self) -> None:
        """Hand over nothing more."""
        self._loop.unwatch(self._socket)


class Push:
    """A connected PUSH socket."""

    def __init__(self, address: str, curve: Curve | None = None) -> None:
        self._socket = sockets.push(address) if curve is None else sockets.push(address, curve)

    def send(self, message: bytes) -> bool:
        """Send one message; False if nobody is connected or the pipe is full."""
        return sockets.send(self._socket, (message,))

    def look(self) -> None:
        """Take in what happened to the connection: libzmq keeps a note of each time it broke until somebody looks."""
        sockets.has_more(self._socket)

    def close(self) -> None:
        """Close the connection; what it had not delivered is dropped."""
        self._socket.close(0)
