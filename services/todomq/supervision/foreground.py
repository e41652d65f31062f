"""A stack in the foreground: its supervisord as a child of this process, which ends with it.

Owns: the signals of this process meanwhile, what is shown of supervisord's log. Must not know: whether the stack may
start, what is said of its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from todomq.runtime.parent import PARENT_IS_GONE, PR_SET_PDEATHSIG, prctl

if TYPE_CHECKING:
    from todomq.supervision.stack import Stack


class Foreground:
    """A supervisord that ends whenever this process does, however that happens."""

    def __init__(self, stack: Stack) -> None:
        """Start it for a prepared stack. Its output goes to standard error."""
        self._stack = stack
        self._ending = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            self._ending.add(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._ending)  # one that comes now is passed on later
        own_pid = os.getpid()

        def before_it_begins() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._ending)
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != own_pid:  # killed before it could be followed
                os._exit(PARENT_IS_GONE)

        # It writes to its own log only, and that is shown here: writing to a reader that is gone would end it.
        self._manager = subprocess.Popen(
            stack.command("-n", "-s"), env=stack.environment(), start_new_session=True, stdout=2,
            preexec_fn=before_it_begins,
        )  # fmt: skip

    def wait(self) -> int:
        """Wait for its end; pass on what asks this process to end.

        Returns:
            its exit status; 0 where it was asked to end.
        """
        shown = _show(self._stack.settings.log / "supervisord.log", self._manager.pid)
        is_asked_to_end = False

        def end(*_: object) -> None:
            nonlocal is_asked_to_end
            is_asked_to_end = True
            self._manager.terminate()

        for number in self._ending:
            signal.signal(number, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._ending)
        code = self._manager.wait()
        if shown is not None:
            shown.wait()
        if is_asked_to_end and code == -signal.SIGTERM:  # it was not yet far enough to handle the signal
            return 0
        return code


def _show(log: Path, pid: int) -> subprocess.Popen[bytes] | None:
    """Write what comes to a log file to standard error as long as a process lives, and while anybody reads it."""
    command = ["tail", "-n", "0", "-s", "0.1", "-F", f"--pid={pid}", str(log)]
    try:
        return subprocess.Popen(command, start_new_session=True, stdout=2, stderr=subprocess.DEVNULL)
    except OSError:
        return None
