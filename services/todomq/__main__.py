"""The ``todomq`` command. Owns: what is said where only the client is installed. Must not know: the commands."""

from __future__ import annotations

import signal
import sys

from todomq.cli.exit_codes import BY_SIGNAL, USAGE

NEEDED = ("typer", "rich")


def main() -> int:
    """Run the command that the arguments name.

    Returns:
        the exit status.
    """
    try:
        from todomq.cli.__main__ import main as run
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        print(
            "error: this installation of TodoMQ is the client library only\n"
            "for this command:                 pip install 'todomq[cli]'\n"
            "to run the service here as well:  pip install 'todomq[server]'",
            file=sys.stderr,
        )
        return USAGE
    run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
