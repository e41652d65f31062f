"""Add an entry to a list and read the list, with nothing but pyzmq and msgpack: any language's REQ socket can do this.

Usage: python plain_req.py ENDPOINT LIST TITLE
ENDPOINT is where the router listens: ipc:///home/you/.todomq/run/router for the stack of your home.
"""

import os
import sys

import msgpack
import zmq

if len(sys.argv) != 4:
    raise SystemExit(__doc__)
endpoint, list_name, title = sys.argv[1:4]
me = os.urandom(16)  # a client's id: its changes are numbered under it, per list, from 1 on
socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
socket.setsockopt(zmq.RCVTIMEO, 10_000)
socket.setsockopt(zmq.LINGER, 0)
try:
    socket.connect(endpoint)
except zmq.ZMQError as error:
    raise SystemExit(f"{endpoint}: {error.strerror}") from None


def call(number: int, *body: object) -> object:
    """Send one request to the list and return its value; deadline 0 is 5 seconds from arrival."""
    request = [1, list_name, 0, msgpack.packb(body), number, number]
    socket.send(msgpack.packb([1, "call", me, [request]]))
    try:
        _version, _kind, [[_id, status, value]] = msgpack.unpackb(socket.recv())
    except zmq.Again:
        raise SystemExit(f"nobody answers at {endpoint}") from None
    if status != 0:
        raise SystemExit(f"refused: {msgpack.unpackb(value)}")
    return msgpack.unpackb(value)


print("added", call(1, "add_entry", title, None, None))  # a change takes the next number
print("entries", call(2, "entries", None))  # a read only names it
