"""The restart limits of a stack's groups, from its settings.

Owns: ``TODOMQ_MAX_RESTARTS_<GROUP>`` and ``TODOMQ_MAX_RESTARTS_S_<GROUP>``, which override the limit for one group.
Used by the listener and, before anything is started, by ``stack.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from todomq.daemons import GROUPS
from todomq.settings import Settings, SettingsError, read_settings
from todomq.supervision.restart_intensity import Limit

LIMIT_VARIABLES = frozenset(
    f"TODOMQ_{limit}_{group.upper()}" for limit in ("MAX_RESTARTS", "MAX_RESTARTS_S") for group in GROUPS
)
"""The variables that are read here."""


def read_limits(settings: Settings, environment: Mapping[str, str] = os.environ) -> dict[str, Limit]:
    """Return the limit of every group.

    Raises:
        SettingsError: a variable has no usable value; the text names it.
    """
    return {group: _limit(settings, environment, group) for group in GROUPS}


def _limit(settings: Settings, environment: Mapping[str, str], group: str) -> Limit:
    overridden = {
        variable: text
        for variable in ("TODOMQ_MAX_RESTARTS", "TODOMQ_MAX_RESTARTS_S")
        if (text := environment.get(f"{variable}_{group.upper()}"))
    }
    try:
        own = read_settings({"TODOMQ_HOME": str(settings.home), **overridden})
    except SettingsError as error:
        raise SettingsError(f"for the group {group}: {error.text}") from None
    max_restarts = own.max_restarts if "TODOMQ_MAX_RESTARTS" in overridden else settings.max_restarts
    seconds = own.max_restarts_s if "TODOMQ_MAX_RESTARTS_S" in overridden else settings.max_restarts_s
    return Limit(max_restarts, int(seconds * 1000))
