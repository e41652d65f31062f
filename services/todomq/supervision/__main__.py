"""The restart-intensity listener as a process: ``python -m todomq.supervision``, started by supervisord."""

from __future__ import annotations

import sys

from todomq.daemons import REFUSED_TO_START
from todomq.errors import TodoMQError
from todomq.runtime.log import log
from todomq.runtime.loop import Loop
from todomq.runtime.parent import die_with_parent
from todomq.settings import read_settings
from todomq.supervision.limits import read_limits
from todomq.supervision.service import Listener


def main() -> int:
    """Listen until supervisord closes the stream, or stops this process.

    SIGTERM ends it at once, since it holds nothing; if the whole stack ends, it first removes the sockets left over.
    """
    die_with_parent()
    try:
        settings = read_settings()
        loop = Loop()
        Listener(loop, settings, read_limits(settings)).begin()
    except (TodoMQError, OSError) as error:
        log("refused_to_start", name="supervision", why=str(error))
        return REFUSED_TO_START
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
