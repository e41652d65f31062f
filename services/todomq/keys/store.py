"""The keys of one stack: the directory ``keys`` in its home, with the stack's own pair and everybody it lets in.

Owns: ``server.json`` (the stack's pair), ``clients.json`` (public keys, rights, quotas; no secret of a client), the
``lock`` beside them, and ``has-keys`` beside the directory, so that a directory that is gone is not taken for one never
made (law 8). Must not know: sockets, who is connected. The command line writes it, the daemons read it. Each
change replaces a file whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from todomq.errors import InvalidRequest
from todomq.keys.credentials import KEY
from todomq.keys.files import read_private, write_private
from todomq.keys.rights import RIGHTS, Rights, check_patterns
from todomq.protocol import limits
from todomq.runtime.locks import hold, private_directory

SERVER_FORMAT = "todomq server key"
CLIENTS_FORMAT = "todomq clients"
VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Stamp = tuple[int, int, int, int]
"""A file's inode, the times of the last change of its content and of itself (ns), and its size."""

NO_KEYS = "this stack has no keys; make them with: todomq keys init"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A Curve25519 pair in Z85. Its ``repr`` does not show the secret."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of the service one key may use; 0 is no limit.

    ``requests_in_flight`` and ``bytes_in_flight`` count over all its connections, ``lists`` the stored lists that its
    patterns cover, ``entries_per_list`` the entries of each of them.
    """

    requests_in_flight: int = 4_096
    bytes_in_flight: int = 16 * limits.MIB
    requests_per_s: int = 0
    connections: int = 64
    lists: int = 0
    entries_per_list: int = 0


@dataclass(frozen=True, slots=True)
class ClientKey:
    """One client that is let in."""

    name: str
    public_key: str
    rights: Rights
    quota: Quota


class KeyStore:
    """The keys of one stack. Making it reads nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.note = directory.with_name("has-keys")
        self.server_path = directory / "server.json"
        self.clients_path = directory / "clients.json"

    def exists(self) -> bool:
        """Tell whether keys were made; a directory in which a file is missing counts, and so does a dangling link."""
        return os.path.lexists(self.directory)

    def were_made(self) -> bool:
        """Tell whether keys were ever made, which is noted beside them: keys that are gone are not "no keys"."""
        return os.path.lexists(self.note)

    def remember(self) -> None:
        """Note that there are keys; if an earlier version made them, that is noted when they are used."""
        with suppress(OSError):  # on a full disk, say: another time will do
            self.note.touch(mode=0o600)

    def init(self, pair: KeyPair) -> None:
        """Make the directory with the stack's pair and nobody else.

        Raises:
            InvalidRequest: there are keys already.
        """
        private_directory(self.directory)
        with self._locked():
            if not os.path.lexists(self.server_path):
                self._write([])
            # Last: if this ends before, it can be done again.
            write_private(self.server_path, SERVER_FORMAT, VERSION, asdict(pair), replace=False)
        self.remember()

    def server(self) -> KeyPair:
        """Return the stack's pair.

        Raises:
            InvalidRequest: there is none, or it can't be used.
        """
        if not self.exists():
            raise InvalidRequest(NO_KEYS)
        pair = read_private(self.server_path, SERVER_FORMAT, VERSION)
        texts = [pair.get("public"), pair.get("secret")]
        if not all(type(text) is str and KEY.fullmatch(text) for text in texts):
            raise InvalidRequest(f"{self.server_path} is damaged: it has no pair of keys")
        return KeyPair(*texts)  # type: ignore[arg-type]

    def clients(self) -> list[ClientKey]:
        """Return all clients that are let in, in the order of their names.

        Raises:
            InvalidRequest: there are no keys, or the file can't be used.
        """
        if not self.exists():
            raise InvalidRequest(NO_KEYS)
        records = read_private(self.clients_path, CLIENTS_FORMAT, VERSION).get("clients")
        try:
            if type(records) is not list:
                raise TypeError
            return sorted((_read_client(record) for record in records), key=lambda client: client.name)
        except (TypeError, KeyError, ValueError, InvalidRequest):
            raise InvalidRequest(f"{self.clients_path} is damaged: it can't be read as a list of clients") from None

    def add(self, client: ClientKey) -> None:
        """Let a client in from now on.

        Raises:
            InvalidRequest: not a usable name, pattern, right or quota, or the name is taken.
        """
        check_client(client)
        with self._locked():
            known = self.clients()
            if any(other.name == client.name for other in known):
                raise InvalidRequest(f"there is a key named {client.name} already; revoke it, or take another name")
            self._write([*known, client])

    def revoke(self, name: str) -> ClientKey:
        """Stop letting a client in; a running router cuts it off.

        Raises:
            InvalidRequest: nobody has this name.
        """
        with self._locked():
            known = self.clients()
            revoked = [client for client in known if client.name == name]
            if not revoked:
                raise InvalidRequest(f"there is no key named {name!r:.80}; see: todomq keys list")
            self._write([client for client in known if client.name != name])
            return revoked[0]

    def stamp(self) -> Stamp | None:
        """Return a stamp that changes whenever the clients do; None if the file is gone."""
        return _stamp_of(self.clients_path)

    def stamp_of_pair(self) -> Stamp | None:
        """Return a stamp that changes whenever the stack's pair does; None if the file is gone."""
        return _stamp_of(self.server_path)

    def _write(self, clients: list[ClientKey]) -> None:
        records = [client_value(client) for client in clients]
        write_private(self.clients_path, CLIENTS_FORMAT, VERSION, {"clients": records}, replace=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.exists():
            raise InvalidRequest(NO_KEYS)
        descriptor = hold(self.directory / "lock")
        try:
            yield
        finally:
            os.close(descriptor)


def _stamp_of(path: Path) -> Stamp | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size  # a change of its mode changes the third


def client_value(client: ClientKey) -> dict[str, Any]:
    """Return a client as a value for JSON; there is no secret in it."""
    return {
        "name": client.name,
        "public_key": client.public_key,
        "rights": sorted(client.rights.rights),
        "lists": list(client.rights.patterns),
        "quota": asdict(client.quota),
    }


def check_client(client: ClientKey) -> None:
    """Check what a person wrote about a client.

    Raises:
        InvalidRequest: the text says what is wrong.
    """
    if not NAME.fullmatch(client.name):
        raise InvalidRequest(f"a key's name has 1 to 64 letters, digits, dots, - and _, not {client.name!r:.80}")
    unknown = client.rights.rights - set(RIGHTS)
    if unknown or not client.rights.rights:
        raise InvalidRequest(f"the rights are {', '.join(RIGHTS)}; {', '.join(sorted(unknown)) or 'none'} was given")
    check_patterns(client.rights.patterns)
    if client.rights.is_admin == bool(client.rights.patterns):
        raise InvalidRequest("an admin's key covers every list, so name no patterns" if client.rights.is_admin
                             else "name the lists that the key is for, for example: --lists 'alice/*'")  # fmt: skip
    if not KEY.fullmatch(client.public_key):
        raise InvalidRequest("a public key has 40 characters of Z85")
    for quota in fields(Quota):
        value = getattr(client.quota, quota.name)
        if type(value) is not int or not 0 <= value < 1 << 53:
            raise InvalidRequest(f"{quota.name} is a whole number from 0 (no limit), not {value!r:.40}")


def _read_client(record: Any) -> ClientKey:
    rights, patterns = record["rights"], record["lists"]
    if type(rights) is not list or type(patterns) is not list:  # a text would be taken for its characters, * among them
        raise TypeError
    if not all(type(text) is str for text in (*rights, *patterns, record["name"], record["public_key"])):
        raise TypeError
    client = ClientKey(record["name"], record["public_key"], Rights(rights, patterns), Quota(**record["quota"]))
    check_client(client)
    return client
