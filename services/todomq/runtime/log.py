"""Log lines of daemons: one event a line on standard error, where supervisord collects them.

Never logs keys or contents of entries at this level. A tiny writer instead of ``logging``: daemons restart often.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

_seen: dict[str, tuple[float, int]] = {}


def log(event: str, **fields: object) -> None:
    """Write one line: time, event, ``key=value`` fields; control characters are escaped, so no peer forges one.

    If it can't be written (a full disk, a broken pipe) the line is lost, but no request is.
    """
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    details = "".join(f" {name}={_visible(value)}" for name, value in fields.items())
    with suppress(OSError):
        sys.stderr.write(f"{stamp}Z {event}{details}\n")
        sys.stderr.flush()


def log_counted(event: str, **fields: object) -> None:
    """Write at most one line a second for this event; the line says how many were left out before it."""
    now = time.monotonic()
    last, hidden = _seen.get(event, (-1.0, 0))
    if now - last < 1.0:
        _seen[event] = (last, hidden + 1)
        return
    _seen[event] = (now, 0)
    log(event, **fields, **({"more_like_it": hidden} if hidden else {}))


def _visible(value: object) -> str:
    text = value.hex()[:12] if isinstance(value, bytes) else str(value)
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text[:500])
