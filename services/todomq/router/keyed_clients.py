"""Clients that come with a key: what is let through to the router, as what, and what is refused.

Owns: the keys that are let in, as the files of keys say; the check of each request before the router sees it. Must
not know: where requests go, what a list holds. Of a body it reads the name of the operation, and of ``register_name``
the pid.

Keeps law 3 over keys: the sender under which a list keeps a client's session is made of the key and of what the
client calls itself, so no key can read another's answers or use up its numbers. And law 6 for each key, with
``key_use.py``. Whatever is in doubt is refused: a key that is not on file, files that can't be read, an operation
that is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from heapq import nlargest
from typing import Any

from todomq.errors import InvalidRequest, Overloaded, TodoMQError, Unauthorized
from todomq.keys.rights import READ, begins_with_text, operation_of
from todomq.keys.store import KeyPair, KeyStore, Stamp
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack
from todomq.protocol.messages import BODY, TARGET
from todomq.router.answers import Answers
from todomq.router.in_flight import OVERHEAD_BYTES, InFlight
from todomq.router.key_use import KeyUse
from todomq.router.list_count import ListCount
from todomq.runtime.calls import CallServer, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.door import Guest
from todomq.runtime.log import log
from todomq.runtime.zap import NO, NOT_NOW, YES

KEYS_TOLD = 256
LOOK_S = 0.2
"""How often the keys on file are compared with those that are let in."""

WRAPPING_BYTES = 64
"""What a request that is sent on within a quota has besides its own body, at most."""

FOR_EVERYBODY = frozenset((b"hello", b"ping"))
ADDING = frozenset((b"add_entry", b"add_entries"))
UNSEEN = frozenset((b"", b"within"))
"""Operations that may hide an add: one whose name is not in the shortest form, and a wrapper of the client's own."""
LetThrough = Callable[[CallServer, bytes, bytes, list[Any]], None]
"""Takes requests as ``Service.on_call`` does."""

NOT_ALLOWED = "this key does not allow that"


class KeyedClients(Service):
    """The service behind the door."""

    def __init__(
        self, daemon: Daemon, pair: KeyPair, in_flight: InFlight, answers: Answers, let_through: LetThrough
    ) -> None:
        """Open the door.

        Args:
            daemon: whose door it is.
            pair: the key that the door proves to have.
            in_flight: what each connection has under way, which counts towards its key's limits.
            answers: by which refusals go back.
            let_through: takes what a key allows.

        Raises:
            Unavailable: the address can't be bound.
        """
        super().__init__()
        self._in_flight = in_flight
        self._answers = answers
        self._let_through = let_through
        self._daemon = daemon
        self._loop = daemon.loop
        self._store = KeyStore(daemon.settings.keys)
        self._uses: dict[str, KeyUse] = {}
        self._unknown: dict[str, KeyUse] = {}
        """Kept while the key files can't be read: nobody is let in by these keys; their use counts again afterwards."""
        self._stamp: Stamp | None = None
        self._is_readable = True
        self._door = daemon.open_door(daemon.settings.tcp, self, pair.secret, self._uses.get, self._judge)
        self._look()
        self._loop.every(LOOK_S, self._look)

    def on_call(self, server: CallServer, peer: bytes, sender: bytes, requests: list[Any]) -> None:
        """Hand to the router what the key allows, refuse the rest."""
        assert isinstance(peer, Guest)
        use: KeyUse = peer.key
        use.counts["requests"] += len(requests)
        now_ms = self._loop.now_ms()
        share = self._in_flight.share
        try:
            use.join(peer, share, _is_over)
        except Overloaded as error:
            for request in requests:
                self._refuse(use, peer, request, error)
            return
        room = use.room(share)
        allowed = []
        for request in requests:
            try:
                if messages.is_request(request):
                    request = list(request)  # a copy: _narrow adds to it what the list server must check
                    self._check(use, request)
                    use.take_request(now_ms)
                    room.take(len(request[BODY]) + OVERHEAD_BYTES)
                    self._narrow(use, request)
                allowed.append(request)
            except TodoMQError as error:
                self._refuse(use, peer, request, error)
        if allowed:
            self._let_through(server, peer, sender_of(use.client.public_key, sender), allowed)

    def window_of(self, peer: bytes, most: int) -> int:
        """Return how many requests a connection is asked to keep to: ``most``, or fewer if its key allows fewer."""
        if not isinstance(peer, Guest):
            return most
        return min(most, peer.key.client.quota.requests_in_flight or most)

    def stats(self) -> dict[str, Any]:
        """Return connections and handshakes, and for the busiest keys by name what each asked and was refused."""
        uses = self._uses.values()
        return {
            **self._door.counts,
            "connections": self._door.connections,
            "handshakes": dict(self._daemon.zap_handler.counts),
            "keys": {use.client.name: dict(use.counts) for use in nlargest(KEYS_TOLD, uses, key=_requests)},
        }

    # -- requests ------------------------------------------------------------------------------------------------------

    def _check(self, use: KeyUse, request: list[Any]) -> None:
        """Check what the request needs against the key's rights.

        Raises:
            Unauthorized: it is not allowed; the text is the same whatever there is.
        """
        target, body, rights = request[TARGET], request[BODY], use.client.rights
        if rights.is_admin:
            if type(target) is list:
                _check_registration(body)
            return
        if target is None:
            allowed = operation_of(body) in FOR_EVERYBODY
        elif target == "":
            allowed = rights.has(READ) and operation_of(body) == b"list_names"
        else:
            allowed = type(target) is str and rights.allow(target.encode(), body)
        if not allowed:
            raise Unauthorized(NOT_ALLOWED)

    def _narrow(self, use: KeyUse, request: list[Any]) -> None:
        """Wrap the body, where need be, with what limits the key, for the list server to check.

        That is its patterns around ``list_names``, its quota around an add.
        """
        target, body, client = request[TARGET], request[BODY], use.client
        if type(target) is not str or len(body) > limits.REQUEST_BYTES - WRAPPING_BYTES:
            self._check_wrappable(use, request)
        elif target == "":
            if not client.rights.is_admin:
                request[BODY] = pack(["list_names_within", client.rights.patterns, body])
        elif client.quota.lists or client.quota.entries_per_list:
            operation = operation_of(body)
            if operation in ADDING:
                may_create = not client.quota.lists or self._may_create(use, target)
                request[BODY] = pack(["within", may_create, client.quota.entries_per_list, body])
            elif operation in UNSEEN:  # it may add, and how much it may would not be looked at
                raise InvalidRequest(_why_unseen(operation, body))

    def _check_wrappable(self, use: KeyUse, request: list[Any]) -> None:
        quota = use.client.quota
        if type(request[TARGET]) is str and (quota.lists or quota.entries_per_list or not request[TARGET]):
            raise InvalidRequest(f"a request of over {limits.REQUEST_BYTES - WRAPPING_BYTES} bytes, for this key")

    def _may_create(self, use: KeyUse, name: str) -> bool:
        lists, most, steady_ms = use.lists, use.client.quota.lists, self._loop.steady_ms()
        may = lists.is_counted and lists.count_if_room(name, most, steady_ms)
        if not may and lists.begin_count_if_due(steady_ms):
            patterns = use.client.rights.patterns
            ListCount(lists, patterns, most, self._loop.steady_ms, self._ask_in_own_name).ask(None)
        if not lists.is_counted:
            raise Overloaded("the lists of this key are being counted")
        return may

    def _ask_in_own_name(self, count: ListCount, request: list[Any]) -> None:
        """Ask the directory of lists for a count, in a turn of its own: this one may have been flushed."""
        self._loop.post(lambda: self._let_through(self._daemon.server, count, b"count", [request]))

    def _refuse(self, use: KeyUse, peer: Guest, request: Any, error: TodoMQError) -> None:
        use.counts[error.code] += 1
        self._answers.refuse(peer, messages.request_id(request), error)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _judge(self, public: str) -> bytes:
        if public not in self._uses:
            self._look()  # it may have been made a moment ago
        use = self._uses.get(public)
        if use is None:
            return NO
        return YES if use.take_handshake(self._loop.now_ms()) else NOT_NOW

    def _look(self) -> None:
        stamp = self._store.stamp()
        if stamp is not None and stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._learn()
            self._is_readable = True
        except InvalidRequest as error:
            if self._is_readable:
                log("keys_unreadable", why=error.text, then="nobody is let in until they can be read")
            self._is_readable = False
            self._unknown |= self._uses
            self._uses.clear()
            self._stamp = None  # look again, whatever it is
        self._door.look_again()

    def _learn(self) -> None:
        now_ms = self._loop.now_ms()
        clients = {client.public_key: client for client in self._store.clients()}
        self._uses |= self._unknown
        self._unknown.clear()
        for public in self._uses.keys() - clients.keys():
            revoked = self._uses.pop(public)
            self._answers.drop(partial(_comes_with, revoked))
            log("key_revoked", name=revoked.client.name)
        for public, client in clients.items():
            use = self._uses.get(public)
            if use is None:
                self._uses[public] = KeyUse(client, now_ms)
            else:
                use.learn(client, now_ms)
        log("keys", let_in=len(self._uses))


def _requests(use: KeyUse) -> int:
    return use.counts["requests"]


def _check_registration(body: bytes) -> None:
    """Refuse a pid from another machine: a process of this one would be watched, and ended when its lease is over."""
    operation, arguments = messages.read_body(body)
    if operation == "register_name" and len(arguments) > 2 and arguments[2] is not None:
        raise Unauthorized("a process is registered from its own machine only: leave out the pid, and give a lease")


def _why_unseen(operation: bytes, body: bytes) -> str:
    if operation:
        return "within is the router's own: send the add that stands in it by itself"
    if not begins_with_text(body):
        return "a body is an array [operation, argument, ...]"
    return "a key with a quota names the operation, and in msgpack's shortest form"


def sender_of(public_key: str, sender: bytes) -> bytes:
    """Return the sender that a client of this key is to the lists; one without a sender stays without."""
    return blake2b(sender, key=public_key.encode(), digest_size=32).digest() if sender else b""


def _comes_with(use: KeyUse, connection: bytes) -> bool:
    return isinstance(connection, Guest) and connection.key is use


def _is_over(connection: bytes) -> bool:
    return isinstance(connection, Guest) and connection.is_cut
