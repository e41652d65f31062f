"""CURVE on a socket: what makes it ask for keys, or come with one.

Owns: the options. Must not know: where keys are stored, who is let in (``zap.py`` asks). Source: https://rfc.zeromq.org/spec/26/
"""

from __future__ import annotations

from typing import NamedTuple

import zmq

from todomq.errors import Unavailable

DOOR = "door"
STACK = "stack"
"""The ZAP domains: clients at the router's door, the daemons of the stack among themselves."""

HANDSHAKE_MS = 3_000


class Curve(NamedTuple):
    """The stack's own pair, by which its daemons know each other. Z85."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return "Curve(...)"


def new_pair() -> tuple[str, str]:
    """Return a new public and secret key, Z85.

    Raises:
        Unavailable: this build of libzmq has no CURVE.
    """
    if not zmq.has("curve"):
        raise Unavailable("this build of libzmq has no CURVE; the wheels of pyzmq have it")
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def guard(socket: zmq.Socket[bytes], secret: str, domain: str) -> None:
    """Have the socket let in, at addresses bound from now on, whom the ZAP handler lets in; without one, nobody."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)


def unguard(socket: zmq.Socket[bytes]) -> None:
    """Ask for no keys at addresses bound from now on; those bound before stay guarded.

    libzmq can't take a domain back, so the ZAP handler is asked there too: it lets in over ipc only.
    """
    socket.setsockopt(zmq.CURVE_SERVER, 0)


def present(socket: zmq.Socket[bytes], server: str, public: str, secret: str) -> None:
    """Have the socket come with this pair, and talk to nobody but the server of this key."""
    socket.setsockopt_string(zmq.CURVE_SERVERKEY, server)
    socket.setsockopt_string(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt_string(zmq.CURVE_SECRETKEY, secret)
