"""Where a stack lives and how it is tuned: read from the environment once, at start.

Owns: every ``TODOMQ_*`` variable, its default and its check; the addresses of the daemons; the directories.
Used by every daemon, the client (for the default endpoint) and the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from todomq.errors import InvalidRequest
from todomq.protocol.addresses import SOCKET_PATH_BYTES

LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}|\[::1\]")


class SettingsError(InvalidRequest):
    """A setting that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One stack's settings. Times in milliseconds or, where named so, seconds; sizes in bytes.

    ``endpoint`` is where clients find the router; ``tcp`` where it listens besides its ipc socket, empty for nowhere.
    """

    home: Path
    endpoint: str
    tcp: str = ""
    list_servers: int = 2
    database_workers: int = 3
    idle_s: float = 600.0
    list_memory_bytes: int = 4 << 30
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
    def log(self) -> Path:
        """Directory of the daemons' logs."""
        return self.home / "log"

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
        workers: list[list[str | int]] = [["database_worker", n] for n in range(1, self.database_workers + 1)]
        servers: list[list[str | int]] = [["list_server", n] for n in range(1, self.list_servers + 1)]
        return [["registry"], ["cache"], *workers, *servers, ["router"]]


def socket_name(name: list[str | int]) -> str:
    """Return the file name of a daemon's socket: ``["list_server", 1]`` listens at ``list_server-1``."""
    return "-".join(str(part) for part in name)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of this stack.

    Args:
        environment: the variables, ``os.environ`` by default.

    Raises:
        SettingsError: a variable has no usable value; the text names it.
    """
    home = Path(environment.get("TODOMQ_HOME") or "~/.todomq").expanduser().absolute()
    defaults = Settings(home, "")
    return Settings(
        home=home,
        endpoint=environment.get("TODOMQ_ENDPOINT") or defaults.address("router"),
        tcp=_loopback(environment, "TODOMQ_TCP"),
        list_servers=_whole(environment, "TODOMQ_LIST_SERVERS", defaults.list_servers, 1, 64),
        database_workers=_whole(environment, "TODOMQ_DATABASE_WORKERS", defaults.database_workers, 1, 64),
        idle_s=_number(environment, "TODOMQ_IDLE_S", defaults.idle_s, 0.01, 1e9),
        list_memory_bytes=_whole(environment, "TODOMQ_LIST_MEMORY_BYTES", defaults.list_memory_bytes, 1 << 20, 1 << 50),
        reserve_bytes=_whole(environment, "TODOMQ_RESERVE_BYTES", defaults.reserve_bytes, 0, 1 << 50),
        lease_ms=_whole(environment, "TODOMQ_LEASE_MS", defaults.lease_ms, 200, 600_000),
        max_restarts=_whole(environment, "TODOMQ_MAX_RESTARTS", defaults.max_restarts, 0, 1_000_000),
        max_restarts_s=_number(environment, "TODOMQ_MAX_RESTARTS_S", defaults.max_restarts_s, 0.1, 1e6),
    )


def _loopback(environment: Mapping[str, str], name: str) -> str:
    address = environment.get(name, "")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if address and not (address.startswith("tcp://") and port.isdecimal() and LOOPBACK.fullmatch(host)):
        raise SettingsError(
            f"{name} is {address!r} where tcp://127.0.0.1:PORT (or [::1]) is needed: "
            "the router lets everybody in who reaches it, so it listens on this machine only"
        )
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
        raise SettingsError(f"{name} is {text!r} where {what} from {least:g} to {most:g} is needed")
    return value
