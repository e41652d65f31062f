"""Where a stack lives and how it is tuned: read from the environment once, at start.

Owns: every ``TODOMQ_*`` variable, its default and its check, except ``TODOMQ_MAX_RESTARTS_...`` of single groups
(``supervision/limits.py``) and ``TODOMQ_PYTHON`` (``supervision/stack.py``); the addresses of daemons; the directories.
Used by every daemon, the client (for the default endpoint) and the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from todomq.daemons import names_of_stack, socket_name
from todomq.errors import InvalidRequest
from todomq.protocol.addresses import SOCKET_PATH_BYTES, is_address

LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}|\[::1\]")

VARIABLES = frozenset(
    f"TODOMQ_{name}"
    for name in (
        "HOME", "ENDPOINT", "CREDENTIALS", "TCP", "STACK_TCP", "REGISTRY", "LIST_SERVERS", "DATABASE_WORKERS", "IDLE_S",
        "LIST_MEMORY_BYTES", "RESERVE_BYTES", "LEASE_MS", "MAX_RESTARTS", "MAX_RESTARTS_S",
    )
)  # fmt: skip
"""The variables that are read here."""

POOL_MOST = 64
"""List servers, and database workers, of a stack at most."""
STACK_PORTS = 2 * len(names_of_stack({"database_worker": POOL_MOST, "list_server": POOL_MOST}))
"""Ports that a stack of the largest size takes from ``TODOMQ_STACK_TCP`` on."""


SERVER_ADVICE = "install with: pip install 'todomq[server]'"
"""What to do if a package that only a stack needs is missing."""


class SettingsError(InvalidRequest):
    """A setting that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One stack's settings. Times in milliseconds or, where named so, seconds; sizes in bytes.

    ``endpoint`` is where clients find the router, unless ``credentials`` names a file that says where it is; ``tcp`` is
    where the router listens besides its ipc socket, empty for nowhere. ``stack_tcp`` is where the daemons listen for
    each other (the first of their ports), empty for ipc only; ``registry`` is where the registry listens if that is on
    another machine. ``list_memory_bytes`` is how much memory the lists of one list server may take, 0 for a share of
    the machine's memory.
    """

    home: Path
    endpoint: str
    credentials: str = ""
    tcp: str = ""
    stack_tcp: str = ""
    registry: str = ""
    list_servers: int = 2
    database_workers: int = 3
    idle_s: float = 600.0
    list_memory_bytes: int = 0
    reserve_bytes: int = 32 << 20
    lease_ms: int = 3_000
    max_restarts: int = 5
    max_restarts_s: float = 5.0

    @property
    def run(self) -> Path:
        """Directory of sockets, locks and pid files, mode 0700."""
        return self.home / "run"

    @property
    def data(self) -> Path:
        """Directory of the durable storage."""
        return self.home / "data"

    @property
    def note_of_data(self) -> Path:
        """File outside the data directory that says that there is data, and of which stack."""
        return self.home / "stack"

    @property
    def log(self) -> Path:
        """Directory of the daemons' logs."""
        return self.home / "log"

    @property
    def keys(self) -> Path:
        """Directory of the stack's keys, mode 0700; it is not there if none were made."""
        return self.home / "keys"

    @property
    def registry_at(self) -> str:
        """The address of the registry."""
        return self.registry or self.reached_at("registry")

    def reached_at(self, name: str) -> str:
        """Return the address under which other daemons reach a socket: its TCP address where there is one, else ipc.

        Every daemon has two ports, in the order of ``daemon_names``: for calls, and for what comes over PUSH
        (``list_server-1.commits``, ``database_worker-1.writes``).

        Raises:
            SettingsError: as ``address``; or there is no such daemon in a stack of this size.
        """
        if not self.stack_tcp:
            return self.address(name)
        host, _, first = self.stack_tcp.rpartition(":")
        daemon, _, pipe = name.partition(".")
        names = [socket_name(each) for each in self.daemon_names()]
        if daemon not in names:
            raise SettingsError(
                f"no {daemon} where TODOMQ_LIST_SERVERS={self.list_servers} and "
                f"TODOMQ_DATABASE_WORKERS={self.database_workers}: TODOMQ_STACK_TCP has no port for it"
            )
        place = names.index(daemon)
        return f"{host}:{int(first) + 2 * place + bool(pipe)}"

    def address(self, name: str) -> str:
        """Return the ipc address of a socket in the run directory.

        Raises:
            SettingsError: its path is longer than a socket's path may be.
        """
        path = str(self.run / name)
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            raise SettingsError(
                f"the socket path {path} has {len(os.fsencode(path))} bytes and {SOCKET_PATH_BYTES} is the most; "
                "set TODOMQ_HOME to a shorter directory"
            )
        return f"ipc://{path}"

    def daemon_names(self) -> list[list[str | int]]:
        """Return the registered names of all daemons of this stack, in the order of the supervision tree."""
        return names_of_stack({"database_worker": self.database_workers, "list_server": self.list_servers})


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of this stack.

    Args:
        environment: the variables, ``os.environ`` by default.

    Raises:
        SettingsError: a variable has no usable value; the text names it.
    """
    if environment.get("TODOMQ_REGISTRY") and not environment.get("TODOMQ_STACK_TCP"):
        raise SettingsError(
            "TODOMQ_REGISTRY is for daemons started by hand, and TODOMQ_STACK_TCP must say where they are reached; "
            "unset it for a stack"
        )
    try:
        home = Path(environment.get("TODOMQ_HOME") or "~/.todomq").expanduser().absolute()
    except (RuntimeError, FileNotFoundError) as error:  # this user has no home, or the working directory was removed
        raise SettingsError(f"TODOMQ_HOME has to name a directory: {error}") from None
    try:
        str(home).encode()
    except UnicodeEncodeError:
        raise SettingsError(
            f"TODOMQ_HOME is {str(home)!a}, which is no UTF-8, or the locale is not (LC_ALL=C.UTF-8 is)"
        ) from None
    defaults = Settings(home, "")
    settings = Settings(
        home=home,
        endpoint=environment.get("TODOMQ_ENDPOINT") or defaults.address("router"),
        credentials=environment.get("TODOMQ_CREDENTIALS", ""),
        tcp=_tcp(environment, "TODOMQ_TCP", may_be_any=True),
        stack_tcp=_tcp(environment, "TODOMQ_STACK_TCP", ports=STACK_PORTS),
        registry=_tcp(environment, "TODOMQ_REGISTRY"),
        list_servers=_whole(environment, "TODOMQ_LIST_SERVERS", defaults.list_servers, 1, POOL_MOST),
        database_workers=_whole(environment, "TODOMQ_DATABASE_WORKERS", defaults.database_workers, 1, POOL_MOST),
        idle_s=_number(environment, "TODOMQ_IDLE_S", defaults.idle_s, 0.01, 1e9),
        list_memory_bytes=_whole(environment, "TODOMQ_LIST_MEMORY_BYTES", defaults.list_memory_bytes, 1 << 20, 1 << 50),
        reserve_bytes=_whole(environment, "TODOMQ_RESERVE_BYTES", defaults.reserve_bytes, 0, 1 << 50),
        lease_ms=_whole(environment, "TODOMQ_LEASE_MS", defaults.lease_ms, 200, 600_000),
        max_restarts=_whole(environment, "TODOMQ_MAX_RESTARTS", defaults.max_restarts, 0, 1_000_000),
        max_restarts_s=_number(environment, "TODOMQ_MAX_RESTARTS_S", defaults.max_restarts_s, 0.1, 1e6),
    )
    _check_reachable(settings)
    return settings


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach a TCP address."""
    return LOOPBACK.fullmatch(address.removeprefix("tcp://").rpartition(":")[0]) is not None


def _check_reachable(settings: Settings) -> None:
    """Refuse an address of the daemons at which other machines would find themselves, or nobody."""
    address = settings.stack_tcp
    is_of_no_host = address.startswith(("tcp://0.0.0.0:", "tcp://[::]:"))
    is_only_here = is_loopback(address) and settings.registry and not is_loopback(settings.registry)
    if is_of_no_host or is_only_here:
        raise SettingsError(
            f"TODOMQ_STACK_TCP is {address!r}, where other machines can't reach this one; name its address"
        )


def _tcp(environment: Mapping[str, str], name: str, ports: int = 1, *, may_be_any: bool = False) -> str:
    """Return a TCP address, the first of this many ports; one of every interface (``*``) only if that is allowed."""
    address = environment.get(name, "")
    if not address:
        return ""
    host, _, port = address.rpartition(":")
    is_any = may_be_any and host == "tcp://*" and port.isascii() and port.isdecimal()
    if not (is_address(address) or is_any) or address[:3] != "tcp":
        raise SettingsError(f"{name} is {address!r:.100} where tcp://HOST:PORT is needed, for example tcp://127.0.0.1:7447")
    if len(port) > 5 or int(port) + ports > 65_536 or int(port) < 1:
        needed = "a port from 1" if ports == 1 else f"the first of {ports} ports"
        raise SettingsError(f"{name} is {address!r:.100} where {needed} to 65535 is needed")
    return address


def _whole(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    return int(_number(environment, name, default, least, most, kind=int))


def _number(
    environment: Mapping[str, str], name: str, default: float, least: float, most: float, kind: type = float
) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value: float = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        what = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} is {text!r} where {what} from {least:.16g} to {most:.16g} is needed")
    return value
