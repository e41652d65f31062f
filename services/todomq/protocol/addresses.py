"""Which addresses a daemon connects to when a peer names them.

Owns: their form. Must not know: sockets, who listens there. Used wherever an address comes out of a message: a socket
raises an error if it is to connect to something that is no address, and no peer's bytes may cause that (law 7).
"""

from __future__ import annotations

import re

CONNECTABLE_BYTES = 256
_IPC = re.compile(r"ipc:///[^\0]+")
SOCKET_PATH_BYTES = 107  # sun_path of Linux, less its closing zero byte
_TCP = re.compile(r"tcp://(?:[0-9A-Za-z](?:[0-9A-Za-z.-]*[0-9A-Za-z])?|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


def is_ipv6(address: str) -> bool:
    """Tell whether an address names a host by an IPv6 number, which libzmq takes only if it is told to."""
    return address.startswith("tcp://[")


def is_port(text: str) -> bool:
    """Tell whether a text is the number of a port, 1 to 65535."""
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65_535


def is_address(text: str) -> bool:
    """Tell whether a text is ``ipc:///absolute/path`` (of 107 bytes at most) or ``tcp://host:port``."""
    if len(text) > CONNECTABLE_BYTES:
        return False
    tcp = _TCP.fullmatch(text)
    if tcp is not None:
        return is_port(tcp.group(1))
    return _IPC.fullmatch(text) is not None and len(text.encode()) - len("ipc://") <= SOCKET_PATH_BYTES
