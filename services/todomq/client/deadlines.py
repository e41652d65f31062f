"""How long a request may take, and the clock by which that is measured.

Owns: the client's clock, the bound of deadlines. Must not know: what becomes of a request that is late.
"""

from __future__ import annotations

import time

from todomq.errors import InvalidRequest
from todomq.protocol import limits

DEADLINE_MOST_S = limits.DEADLINE_AHEAD_MS / 1000


def awake_ms() -> int:
    """Return the milliseconds of the clock that sessions and deadlines run by.

    It never goes back, and stands still while the machine sleeps, as the daemons' ``Loop.awake_ms`` does.
    """
    return time.monotonic_ns() // 1_000_000


def check_deadline(deadline_s: float) -> float:
    """Check how long a request may take: more than 0, at most 60 seconds.

    Raises:
        InvalidRequest: it is not that.
    """
    if not isinstance(deadline_s, int | float) or isinstance(deadline_s, bool) or not 0 < deadline_s <= DEADLINE_MOST_S:
        given = "an integer of very many digits" if _is_huge(deadline_s) else f"{deadline_s!r:.40}"
        raise InvalidRequest(f"deadline_s: a float over 0 and at most {DEADLINE_MOST_S:g} is needed, not {given}")
    return deadline_s


def _is_huge(number: object) -> bool:
    return isinstance(number, int) and number.bit_length() > 64
