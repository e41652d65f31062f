"""The exit codes of the command line, which scripts go by. Owns: the numbers. Must not know: what ends with which."""

from __future__ import annotations

DONE = 0
REFUSED = 1
USAGE = 2
UNREACHABLE = 3
BY_SIGNAL = 128
"""The number of the signal that ended a command is added to this."""
