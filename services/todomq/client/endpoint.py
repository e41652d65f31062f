"""Where the client connects, with which key, and what it says if nobody answers there.

It connects to the endpoint that its argument gives, else the file that ``TODOMQ_CREDENTIALS`` names, else
``TODOMQ_ENDPOINT``; else to this machine's stack.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from todomq.errors import InvalidRequest
from todomq.protocol.addresses import SOCKET_PATH_BYTES, is_port
from todomq.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from todomq.keys.credentials import Credentials


def choose(endpoint: str | None, credentials: Credentials | None = None) -> tuple[str, Credentials | None]:
    """Return the router's address, and the credentials to connect with, if there are any.

    Args:
        endpoint: as for ``choose_endpoint``.
        credentials: those given to this client, if any; they name the endpoint where none is given.

    Raises:
        InvalidRequest: no usable endpoint (keys are for TCP only), or credentials that can't be read.
    """
    path = read_settings().credentials if credentials is None and endpoint is None else ""
    if path:
        from todomq.keys.credentials import read_credentials

        try:
            credentials = read_credentials(path)
        except InvalidRequest as error:
            raise InvalidRequest(f"TODOMQ_CREDENTIALS: {error.text}") from None
    if credentials is None:
        return choose_endpoint(endpoint), None
    if endpoint is None:
        return credentials.endpoint, credentials
    chosen = choose_endpoint(endpoint)
    if not chosen.startswith("tcp://"):
        raise InvalidRequest(f"endpoint: with credentials tcp://HOST:PORT is needed, not {chosen!r:.160}")
    return chosen, credentials


def choose_endpoint(endpoint: str | None) -> str:
    """Return the router's address.

    Args:
        endpoint: ``ipc://PATH`` or ``tcp://HOST:PORT``; None for what the environment says.

    Raises:
        InvalidRequest: it is no such address, or its path is longer than a socket's path may be.
    """
    chosen = read_settings().endpoint if endpoint is None else endpoint
    said = "TODOMQ_ENDPOINT" if endpoint is None and os.environ.get("TODOMQ_ENDPOINT") else "endpoint"
    if not isinstance(chosen, str) or not chosen.startswith(("ipc://", "tcp://")):
        raise InvalidRequest(f"{said}: ipc://PATH or tcp://HOST:PORT is needed, not {chosen!r:.60}")
    if any("\ud800" <= character <= "\udfff" for character in chosen):  # as in a path whose bytes are not UTF-8
        raise InvalidRequest(f"{said}: a text of valid Unicode is needed, not {chosen!a:.160}")
    if "\0" in chosen:  # which would end the path, or the host, for the system
        raise InvalidRequest(f"{said}: an address can't contain a NUL, as {chosen!r:.160} does")
    host, _, port = chosen[6:].rpartition(":")
    if chosen.startswith("tcp://") and not (host not in ("", "*") and is_port(port)):
        needed = "tcp://HOST:PORT with a host to connect to and a port from 1 to 65535 is needed"
        raise InvalidRequest(f"{said}: {needed}, not {chosen!r:.160}")
    if chosen.startswith("ipc://") and not 1 <= len(os.fsencode(chosen[6:])) <= SOCKET_PATH_BYTES:
        raise InvalidRequest(f"{said}: a socket path has 1 to {SOCKET_PATH_BYTES} bytes, not as in {chosen:.160}")
    return chosen


def silence_at(endpoint: str) -> str:
    """Return what to tell callers if the router does not answer at this address."""
    said = f"the router does not answer at {endpoint}"
    if endpoint.startswith("tcp://"):
        return f"{said}; is one running there? A stack with keys answers only clients that have one"
    try:
        is_ours = endpoint == read_settings().address("router")
    except SettingsError:  # whoever names the endpoint needs no settings
        is_ours = False
    return f"{said}; todomq up starts the stack of this machine" if is_ours else said
