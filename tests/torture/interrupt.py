"""A signal that asks a run to end, as an exception: whatever a run has made it removes on its way out.

Owns: which signals those are. Must not know: what is to be removed.
"""

from __future__ import annotations

import signal
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the run to end."""

    @property
    def signal(self) -> signal.Signals:
        """Which one."""
        return signal.Signals(self.args[0])

    @property
    def status(self) -> int:
        """With what the process leaves, as a shell says it."""
        return 128 + self.signal


def raise_on_signals() -> None:
    """Have SIGINT and SIGTERM raise ``Interrupted``, once."""
    for number in _ENDING:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in _ENDING:  # a second one would end the cleaning up
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
