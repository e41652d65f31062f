"""The cache's wiring: the registry's news in, claims and releases to list servers, the table to the router.

Owns: who is asked what, and who waits for an answer. Must not know: how partitions are placed. Talks to: list servers
(own, release, owned, activate, kill_list, describe_list), the router (table), clients that ask for a list's server.
Requests to routed lists go on while it is away: they do not pass through here.
"""

from __future__ import annotations

from typing import Any

from todomq.cache.directory import Directory, Own, Owner, Release, Server
from todomq.daemons import is_daemon_name
from todomq.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NameNotFound,
    Overloaded,
    ProtocolError,
    TodoMQError,
    Unavailable,
    is_refusal_for_now,
)
from todomq.protocol.addresses import is_address
from todomq.protocol.entries import check_list_name
from todomq.protocol.messages import is_epoch, is_partition_and_epoch
from todomq.protocol.partitions import partition_of, worker_of
from todomq.protocol.registration import Registration
from todomq.runtime.callee import Answer, Callee
from todomq.runtime.calls import LATER, Call, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.log import log, log_counted
from todomq.settings import POOL_MOST

VERIFY_S = 1.0
ASK_AGAIN_S = 0.02
ANSWER_S = 1.0
"""How long a list server may take to say what it owns."""
LIST_SERVERS = 1 << 16
"""Highest number of a list server."""
SERVERS_MOST = 2 * POOL_MOST
"""How many list servers may get partitions: each takes a connection, and anybody may register names like theirs."""
WAITING_CALLS = 4_096
PLAIN = (str, int, float, bool, type(None))


class CacheService(Service):
    """Everything the cache does with a request."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.directory = Directory(daemon.settings.list_servers, daemon.settings.database_workers)
        self._daemon = daemon
        self._loop = daemon.loop
        self._router_incarnation = b""
        self._asked: set[bytes] = set()
        self._waiting: list[Call] = []
        self.operations |= {
            "server_process": self._server_process,
            "whereis_list": self._whereis_list,
            "kill_list": lambda call: self._of_list(call, "kill_list"),
            "describe_list": lambda call: self._of_list(call, "describe_list"),
        }
        daemon.on_registry_change.append(self._registry_changed)
        self._loop.every(VERIFY_S, self._verify)
        self._loop.at_turn_end(self._act)

    def stats(self) -> dict[str, Any]:
        """Return how partitions are placed."""
        owned: dict[int, int] = {}
        for _, owner in self.directory.all_rows():
            owned[owner.server.number] = owned.get(owner.server.number, 0) + 1
        return {"partitions": owned, "moves": self.directory.moves, "waiting": len(self._waiting)}

    # -- requests ------------------------------------------------------------------------------------------------------

    def _server_process(self, call: Call) -> object:
        """Get or create: answer where the list's actor lives; it is loaded first if it must be."""
        name = check_list_name(call.only_argument())
        owner, callee = self._owner(name)
        if owner is None or callee is None:
            self._let_wait(call)
            return LATER

        def activated(answer: Answer) -> None:
            if answer.error is not None and not _is_of_the_moment(answer.error):
                call.refuse(answer.error)
            elif answer.error is None and _is_activation(answer.value) and answer.value[1] == owner.epoch:
                activation, epoch = answer.value
                server = ["list_server", owner.server.number]
                call.answer([server, owner.server.incarnation, activation, partition_of(name.encode()), epoch])
            else:
                self._loop.after(ASK_AGAIN_S, lambda: self._let_wait(call))

        callee.call("activate", name, done=activated, timeout_s=self._time_left_s(call))
        return LATER

    def _whereis_list(self, call: Call) -> list[Any]:
        name = check_list_name(call.only_argument())
        partition = partition_of(name.encode())
        owner = self.directory.owners[partition]
        worker = worker_of(partition, self._daemon.settings.database_workers)
        epoch, server = (0, None) if owner is None else (owner.epoch, owner.server.number)
        return [partition, epoch, server, worker]

    def _of_list(self, call: Call, operation: str) -> object:
        """Ask the list's server on the caller's behalf."""
        name = check_list_name(call.only_argument())
        owner, callee = self._owner(name)
        if owner is None or callee is None:
            raise Unavailable("the list's partition has no list server at the moment")

        def answered(answer: Answer) -> None:
            if answer.error is not None:
                call.refuse(answer.error)
            elif operation == "describe_list" and _is_description(answer.value):
                call.answer({"list_server": owner.server.number, **answer.value})
            elif operation == "kill_list" and type(answer.value) is bool:
                call.answer(answer.value)
            else:
                call.refuse(ProtocolError(f"the list server's answer to {operation} is malformed"))

        callee.call(operation, name, done=answered, timeout_s=self._time_left_s(call))
        return LATER

    def _let_wait(self, call: Call) -> None:
        if len(self._waiting) < WAITING_CALLS:
            self._waiting.append(call)
        else:
            call.refuse(Overloaded("too many requests wait for a list server"))

    def _serve_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if self._time_left_s(call) <= 0:
                call.refuse(DeadlineExceeded("the list's partition found no list server in time"))
            else:
                self._server_process(call)

    def _owner(self, name: str) -> tuple[Owner | None, Callee | None]:
        owner = self.directory.owners[partition_of(name.encode())]
        return owner, None if owner is None else self._daemon.callee(["list_server", owner.server.number])

    def _time_left_s(self, call: Call) -> float:
        return (call.deadline_ms - self._loop.now_ms()) / 1000

    # -- placement -----------------------------------------------------------------------------------------------------

    def _registry_changed(self) -> None:
        registered = [
            Server(registration.name[1], registration.incarnation, registration.address)
            for registration in self._daemon.registrations.values()
            if _is_list_server(registration)
        ]
        servers = sorted(registered)[:SERVERS_MOST]  # the stack's own have the lowest numbers
        if len(registered) > SERVERS_MOST:
            log_counted("list_servers_left_out", why=f"{len(registered)} are registered, {SERVERS_MOST} are used")
        before = {server.incarnation for server in self.directory.servers.values()}
        self.directory.servers_are(servers)
        if before != {server.incarnation for server in servers}:
            log("list_servers", numbers=sorted(server.number for server in servers))

    def _verify(self) -> None:
        """Ask every list server again what it owns: it may have dropped a partition that a worker refused."""
        for server in self.directory.servers.values():
            self._ask(server)

    def _act(self) -> None:
        directory = self.directory
        for server in directory.to_be_asked():
            self._ask(server)
        # While the registry can't tell absence from death, who lives is known only if none of the stack's is missing.
        placing = self._daemon.settled or len(directory.servers) >= self._daemon.settings.list_servers
        for effect in directory.plan(placing):
            self._carry_out(effect)
        self._tell_router()
        if self._waiting:
            self._serve_waiting()

    def _ask(self, server: Server) -> None:
        callee = self._daemon.callee(["list_server", server.number])
        if callee is None:
            self.directory.silent(server)
            return
        if server.incarnation in self._asked:
            return
        self._asked.add(server.incarnation)

        def answered(answer: Answer) -> None:
            self._asked.discard(server.incarnation)
            if answer.error is None and _are_owned(answer.value):
                self.directory.reported(server, [(partition, epoch, known) for partition, epoch, known in answer.value])
                return
            self.directory.silent(server)
            if answer.error is not None and answer.error.retryable:
                self._loop.after(ASK_AGAIN_S, lambda: self._ask_again(server))

        callee.call("owned", server.incarnation, done=answered, timeout_s=ANSWER_S)

    def _ask_again(self, server: Server) -> None:
        if self.directory.servers.get(server.number) == server:
            self._ask(server)

    def _carry_out(self, effect: Own | Release) -> None:
        callee = self._daemon.callee(["list_server", effect.server.number])
        if callee is None:
            self.directory.failed(effect)
            return

        def answered(answer: Answer) -> None:
            if isinstance(effect, Own) and isinstance(answer.error, InvalidRequest):
                self._loop.after(ASK_AGAIN_S, lambda: self.directory.impossible(effect))
            elif answer.error is not None or (isinstance(effect, Own) and not _is_grant(answer.value)):
                self._loop.after(ASK_AGAIN_S, lambda: self.directory.failed(effect))
            elif isinstance(effect, Own):
                self.directory.claimed(effect, *answer.value)
            else:
                self.directory.released(effect)

        known = [effect.known] if isinstance(effect, Own) else []
        operation, incarnation = "own" if known else "release", effect.server.incarnation
        callee.call(operation, effect.partition, effect.epoch, *known, incarnation, done=answered, timeout_s=5.0)

    def _tell_router(self) -> None:
        router = self._daemon.whereis(["router"])
        callee = self._daemon.callee(["router"])
        if router is None or callee is None:
            self._router_incarnation = b""
            return
        rows = self.directory.changes()
        if router.incarnation != self._router_incarnation:
            self._router_incarnation = router.incarnation
            rows = self.directory.all_rows()
        if not rows:
            return
        servers = {owner.server for _, owner in rows}
        table = [(partition, owner.server.number, owner.epoch) for partition, owner in rows]
        callee.call("table", list(servers), table, done=self._router_told, timeout_s=1.0)

    def _router_told(self, answer: Answer) -> None:
        if answer.error is not None:
            self._loop.after(ASK_AGAIN_S, self._tell_all_again)
        elif _are_epochs(answer.value):
            for partition, epoch in answer.value:
                self.directory.outdated(partition, epoch)

    def _tell_all_again(self) -> None:
        self._router_incarnation = b""  # so at the end of this turn all is told, to whichever router there is by then


def _is_list_server(registration: Registration) -> bool:
    """Tell a list server from anything else that somebody has registered under a similar name."""
    name = registration.name
    is_one = is_daemon_name(name) and name[0] == "list_server" and name[1] <= LIST_SERVERS
    return is_one and is_address(registration.address)


def _is_of_the_moment(error: TodoMQError) -> bool:
    """Tell whether a list's server was asked at a bad moment (its partition moves, it died): it is asked again."""
    is_one = isinstance(error, Unavailable | NameNotFound | DeadlineExceeded)
    return is_one and not is_refusal_for_now(error)  # it concerns the list: its shard can't be opened, say


def _is_activation(value: Any) -> bool:
    """Tell whether a list server answered ``[activation, epoch]``."""
    return type(value) is list and [type(item) for item in value] == [int, int]


def _is_grant(value: Any) -> bool:
    """Tell whether a list server answered ``[granted, epoch, highest epoch known to be granted]``."""
    is_one = type(value) is list and len(value) == 3 and type(value[0]) is bool and is_epoch(value[1])
    return is_one and _is_known(value[2])


def _is_description(value: Any) -> bool:
    """Tell whether a list server described a list: texts with plain values."""
    return type(value) is dict and all(type(key) is str and type(each) in PLAIN for key, each in value.items())


def _is_known(epoch: Any) -> bool:
    return is_epoch(epoch) or (epoch == 0 and type(epoch) is int)


def _are_owned(value: Any) -> bool:
    """Tell whether an answer is ``[[partition, epoch, highest epoch known to be granted], ...]``."""
    return (
        type(value) is list
        and all(type(item) is list and len(item) == 3 and _is_known(item[2]) for item in value)
        and _are_epochs([item[:2] for item in value])
    )


def _are_epochs(value: Any) -> bool:
    """Tell whether an answer is ``[[partition, epoch], ...]``."""
    return type(value) is list and all(map(is_partition_and_epoch, value))
