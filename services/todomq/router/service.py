"""The router's wiring of requests to where they go, and of answers back to their clients.

Owns: the connections to list servers; what is taken in. Must not know: what a request means: it reads version, target,
deadline and number, and never the body. Talks to: clients and the cache (who call it), list servers, and through
``named_links.py`` every daemon that is called by name.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any
from zlib import crc32

from todomq.errors import DeadlineExceeded, InvalidRequest, Overloaded, ProtocolError, TodoMQError, Unauthorized
from todomq.protocol import limits, messages
from todomq.protocol.codec import canonical
from todomq.protocol.messages import BODY, DEADLINE_MS, ID, TARGET
from todomq.protocol.partitions import PARTITIONS, partition_of, worker_of
from todomq.router.answers import Answers
from todomq.router.daemon_shares import Place
from todomq.router.in_flight import REQUESTS_PER_CONNECTION, Crowded, InFlight
from todomq.router.named_links import NamedLinks
from todomq.router.pacing import Pacing
from todomq.router.routing import Forward, Routing
from todomq.router.table import read_table
from todomq.runtime.callee import Callee
from todomq.runtime.calls import DEFAULT_DEADLINE_MS, Call, CallServer, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.sockets import CLIENT_PIPE_MESSAGES

if TYPE_CHECKING:
    from todomq.router.door_keeper import DoorKeeper

WINDOW = REQUESTS_PER_CONNECTION // 2
"""How many requests a client is asked to have in flight at most; ``hello`` tells it."""

EXPIRE_S = 0.1
_TEXT = frozenset((str,))


class RouterService(Service):
    """Everything the router does with a message."""

    pipe_messages = CLIENT_PIPE_MESSAGES

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.in_flight = InFlight(self._daemons_of)
        self.routing = Routing(self.in_flight)
        self.answers = Answers(self.in_flight, daemon, self.counts)
        self.named = NamedLinks(self.in_flight, self.answers, daemon)
        self.pacing = Pacing(self.in_flight, self.answers.are_unread)
        self.operations |= {"hello": self._hello, "table": self._table}
        self._daemon = daemon
        self._loop = daemon.loop
        self._servers: dict[int, tuple[bytes, Callee]] = {}
        """The list servers that own partitions, or did: not more of them than there are partitions."""
        self._cache = canonical(["cache"])
        self._workers = {
            number: canonical(["database_worker", number]) for number in range(1, daemon.settings.database_workers + 1)
        }
        self._loop.every(EXPIRE_S, lambda: self.answers.end_late(self._loop.now_ms()))
        self._loop.every(1.0, self.pacing.tick)
        self._loop.at_turn_end(self._flush)
        self._door_keeper: DoorKeeper | None = None
        if daemon.settings.tcp:
            from todomq.router.door_keeper import DoorKeeper  # not loaded where there is no door

            self._door_keeper = DoorKeeper(daemon, self.in_flight, self.answers, self.on_call)
            self.also_at = self._door_keeper.open_to_all

    def on_call(self, server: CallServer, peer: bytes, sender: bytes, requests: list[Any]) -> None:
        """Send each request of a call on its way, or refuse it."""
        now_ms = self._loop.now_ms()
        self.counts["requests"] += len(requests)
        columns = messages.numbered_columns(requests)
        are_numbered = columns is not None
        is_held = self.pacing.note(peer, len(requests))
        if columns is not None and not is_held and self._forward_all(peer, sender, requests, columns, now_ms):
            return
        refusal = b""
        crowded: dict[str, bytes] = {}  # lists that need a crowded daemon, and how that is told
        for request in requests if columns is None else map(list, requests):  # what is missing in one is filled in
            if not (are_numbered or messages.is_request(request)) or request[TARGET] is None:
                server.serve(self, peer, sender, [request])
                continue
            target = request[TARGET]
            told = refusal or (crowded.get(target) if type(target) is str and crowded else None)
            if told:
                self.answers.refuse_with(peer, request[ID], told)
                continue
            try:
                self._forward_one(peer, sender, request, now_ms, is_held)
            except ProtocolError as error:  # its target is malformed
                server.refuse_malformed(peer, request, error)
            except Crowded as error:
                told = messages.error_value(error)
                if type(target) is str:
                    crowded[target] = told
                self.answers.refuse_with(peer, request[ID], told)
            except Overloaded as error:
                # There is no room for the rest of the message either. Refusing must cost little: a client that floods
                # is refused most of the time, and the others wait meanwhile.
                if self.in_flight.share(peer)[0] > WINDOW:
                    self.pacing.overstepped(peer)
                refusal = messages.error_value(error)
                self.answers.refuse_with(peer, request[ID], refusal)
            except TodoMQError as error:
                self.answers.refuse(peer, request[ID], error)

    def _forward_all(
        self, peer: bytes, sender: bytes, requests: list[Any], columns: list[tuple[Any, ...]], now_ms: int
    ) -> bool:
        """Send a whole call to lists on its way; False, with nothing done, if anything in it needs a closer look."""
        _, targets, deadlines_ms, bodies, _, _ = columns
        if not sender or not _TEXT.issuperset(map(type, targets)):
            return False
        if min(deadlines_ms) <= now_ms or max(deadlines_ms) > now_ms + limits.DEADLINE_AHEAD_MS:
            return False
        names = [target.encode() for target in targets]
        sizes = [len(body) for body in bodies]
        if max(map(len, names)) > limits.LIST_NAME_BYTES or max(sizes) > limits.REQUEST_BYTES:
            return False
        partitions = [crc32(name) % PARTITIONS for name in names]  # ``partition_of``, without a call for each
        first = self.in_flight.admit_all(peer, sender, requests, partitions, sizes)
        if first is None:
            return False
        self.routing.forward_all(first, sender, requests, partitions, sizes)
        return True

    def _forward_one(self, peer: bytes, sender: bytes, request: list[Any], now_ms: int, is_held: bool) -> None:
        """Send one request on its way, or let it wait where its connection is held back.

        Raises:
            TodoMQError: it is refused.
        """
        deadline_ms = request[DEADLINE_MS]
        if not now_ms < deadline_ms <= now_ms + limits.DEADLINE_AHEAD_MS:
            request[DEADLINE_MS] = self._deadline(deadline_ms, now_ms)
        if len(request[BODY]) > limits.REQUEST_BYTES:
            raise InvalidRequest(f"a request of over {limits.REQUEST_BYTES} bytes")
        target = request[TARGET]
        if type(target) is not str:
            self._forward_to_daemon(peer, sender, request)
            return
        name = target.encode()
        if len(name) > limits.LIST_NAME_BYTES or len(request) != 6 or not sender:
            raise _invalid_list_request(name, sender)
        partition = partition_of(name)
        identifier = self.in_flight.admit(peer, sender, request, partition)
        if is_held:
            self.pacing.hold(peer, identifier)
        else:
            self.routing.forward(identifier, sender, request, partition)

    def stats(self) -> dict[str, Any]:
        """Return requests in flight, their bytes, partitions that move, requests sent again."""
        return {
            "in_flight": len(self.in_flight.flights),
            "in_flight_bytes": self.in_flight.bytes,
            "held_back": self.pacing.held,
            "moving_partitions": len(self.routing.moving),
            "moving": sorted(self.routing.moving),
            "sent_again": self.routing.sent_again,
            **({} if self._door_keeper is None else self._door_keeper.stats()),
        }

    def _hello(self, call: Call) -> list[Any]:
        window = WINDOW if self._door_keeper is None else self._door_keeper.window_of(call.peer, WINDOW)
        return [messages.VERSION, self._loop.now_ms(), self._daemon.incarnation, window]

    def _table(self, call: Call) -> bool | list[tuple[int, int]]:
        servers, rows = read_table(call.arguments)
        cache = self._daemon.registrations.get(self._cache)
        if cache is None or call.sender != cache.incarnation:
            raise Unauthorized("the router takes its table from the cache only")
        for number, (incarnation, address) in servers.items():
            self._connect(number, incarnation, address)
        self.in_flight.by_daemon.forget()
        return self.routing.learn(rows) or True

    def _daemons_of(self, place: Place) -> tuple[Hashable, ...]:
        """Return the daemons that requests for a place need: a partition's worker and, if it has one, list server."""
        if type(place) is not int:
            return (place,)
        worker = self._workers[worker_of(place, len(self._workers))]
        row = self.routing.table[place]
        return (worker,) if row is None else (worker, row.server)

    def _connect(self, number: int, incarnation: bytes, address: str) -> None:
        known = self._servers.get(number)
        if known is not None and known[0] == incarnation:
            return
        callee = self._daemon.connect(  # first: where no descriptor is left, the one before stays
            address,
            on_replies=self._answered,
            on_break=lambda: self.routing.server_lost(number),
            on_connect=lambda: self.routing.server_found(number, incarnation),
        )
        if known is not None:
            known[1].close()
            self.routing.server_lost(number)
        self._servers[number] = (incarnation, callee)

    def _close_idle_servers(self) -> None:
        owners = {row.server for row in self.routing.table if row is not None}
        for number in self._servers.keys() - owners:
            self._servers.pop(number)[1].close()

    def _deadline(self, deadline_ms: int, now_ms: int) -> int:
        if not deadline_ms:
            return now_ms + DEFAULT_DEADLINE_MS
        if deadline_ms <= now_ms:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        raise InvalidRequest(messages.TOO_FAR_AHEAD)

    def _forward_to_daemon(self, peer: bytes, sender: bytes, request: list[Any]) -> None:
        target = request[TARGET]
        if type(target) is bytes:
            if len(target) > limits.KEY_BYTES or len(request) != 6:
                raise InvalidRequest(f"a key has at most {limits.KEY_BYTES} bytes, and number and floor beside it")
            name = self._workers[worker_of(partition_of(target), len(self._workers))]
        elif type(target) is list and len(target) == 1:
            name = canonical(target[0])
        else:
            raise ProtocolError("a target is nil, a list's name, a database key or [a daemon's name]")
        self.named.forward(self.in_flight.admit(peer, sender, request, name), name)

    def _answered(self, replies: list[Any]) -> None:
        """Take what a list server answers; what it has not taken is sent to the next owner."""
        moved = [identifier for identifier, status, _ in replies if status == messages.MOVED]
        if moved:
            replies = [reply for reply in replies if reply[1] != messages.MOVED]
            for identifier in moved:
                self.routing.not_taken(identifier)
        self.answers.hand_over(replies)

    def _flush(self) -> None:
        for identifier, flight in self.pacing.released():
            assert isinstance(flight.place, int)
            self.routing.forward(identifier, flight.sender, flight.request, flight.place)
        for number, forwards in self.routing.ready().items():
            callee = self._servers[number][1]
            for forward in forwards:
                if not callee.send(_packed(forward)):
                    self.answers.end_unsent((item[0] for group in forward.groups.values() for item in group), Crowded())
        self.named.flush()
        if len(self._servers) > PARTITIONS:  # now that nothing is to be sent to any of them
            self._close_idle_servers()


def _packed(forward: Forward) -> bytes:
    return messages.forward(list(forward.groups.items()))


def _invalid_list_request(name: bytes, sender: bytes) -> InvalidRequest:
    if not sender:
        return InvalidRequest("a request to a list needs a sender that is not empty: 16 random bytes, say")
    if len(name) > limits.LIST_NAME_BYTES:
        return InvalidRequest(f"a list name has 1 to {limits.LIST_NAME_BYTES} bytes of UTF-8, not {len(name)}")
    return InvalidRequest("a request to a list has six fields: number and floor are needed")
