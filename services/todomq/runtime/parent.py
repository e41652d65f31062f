"""The end of a daemon whose process manager has ended (law 9: no orphans).

Owns: the tie to the parent process. Must not know: what supervisord is beyond the name of its program.
The kernel keeps the tie (``PR_SET_PDEATHSIG``, prctl(2)), so it holds for a daemon that hangs as well.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PARENT_IS_GONE = 1


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as the supervisord that started it is gone.

    Without effect for a process that supervisord did not start (``SUPERVISOR_ENABLED`` is not set).

    Raises:
        SystemExit: supervisord was gone before this was called.
        OSError: the kernel refused.
    """
    if not os.environ.get("SUPERVISOR_ENABLED"):
        return
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that died before the call above sends nothing: this process has been handed to another one by then.
    if not is_supervisord(os.getppid()):
        sys.stderr.write("supervisord is gone, so this daemon leaves\n")
        sys.exit(PARENT_IS_GONE)


def prctl(option: int, argument: int) -> None:
    """Set an attribute of this process (prctl(2)).

    Raises:
        OSError: the kernel refused.
    """
    import ctypes  # 3 ms, spared where there is no parent to follow

    if ctypes.CDLL(None, use_errno=True).prctl(option, int(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def is_supervisord(pid: int) -> bool:
    """Tell whether a process runs supervisord, by its command line."""
    try:
        return b"supervisord" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
