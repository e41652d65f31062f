"""The one file that a client is given: where the router is, the router's key, the client's keys.

Owns: its form (``docs/protocol.md`` has it) and its reading. Must not know: sockets, the keys of anybody else.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from todomq.errors import InvalidRequest
from todomq.keys.files import read_private, write_private
from todomq.protocol.addresses import is_address

FORMAT = "todomq credentials"
VERSION = 1
KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
"""A Curve25519 key in Z85 (https://rfc.zeromq.org/spec/32/)."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client connects with. Its ``repr`` does not show the secret key."""

    name: str
    endpoint: str
    server_public_key: str
    public_key: str
    secret_key: str = field(repr=False)


def read_credentials(path: str | os.PathLike[str]) -> Credentials:
    """Read a file made by ``todomq keys new``.

    Raises:
        InvalidRequest: the file can't be read, other users may read it, or it holds no credentials.
    """
    fields = read_private(Path(path), FORMAT, VERSION)
    texts = [fields.get(name) for name in Credentials.__dataclass_fields__]
    if not all(type(text) is str for text in texts):
        raise InvalidRequest(f"{path}: name, endpoint and three keys are needed, all of them texts")
    credentials = Credentials(*texts)  # type: ignore[arg-type]
    for key in (credentials.server_public_key, credentials.public_key, credentials.secret_key):
        if not KEY.fullmatch(key):
            raise InvalidRequest(f"{path}: a key has 40 characters of Z85")
    if not credentials.endpoint.startswith("tcp://") or not is_address(credentials.endpoint):
        raise InvalidRequest(f"{path}: the endpoint is tcp://HOST:PORT, not {credentials.endpoint!r:.80}")
    return credentials


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Write the file, mode 0600.

    Raises:
        InvalidRequest: it is there already, or can't be written.
    """
    fields: dict[str, Any] = {name: getattr(credentials, name) for name in Credentials.__dataclass_fields__}
    write_private(path, FORMAT, VERSION, fields, replace=False)
