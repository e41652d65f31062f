"""Kills supervisord, which nobody watches, and sees that the rest leaves.

Owns: how long that may take, that nothing of it is there when the stack is started again. Used by the faults at random
and by a provocation of their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from stacks import RunningStack

LEFT_S = 10.0
"""The kernel ends the daemons in the moment of its death."""
POLL_S = 0.005


def kill_manager(stack: RunningStack) -> str:
    """Kill supervisord and start the stack again; return what stayed, the empty text where all left in time.

    What stayed is ended: the next supervisord could start no daemon beside one of its name.
    """
    os.kill(stack.manager_pid(), signal.SIGKILL)
    give_up = time.monotonic() + LEFT_S
    while (stayed := stack.living()) and time.monotonic() < give_up:
        time.sleep(POLL_S)
    for pid in stayed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stack.control.start()
    if not stayed:
        return ""
    return f"{LEFT_S:g} s after supervisord was killed {len(stayed)} processes stay: {', '.join(stayed.values())}"
