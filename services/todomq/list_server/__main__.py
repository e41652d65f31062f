"""Run list server N of this stack: ``python -m todomq.list_server N``."""

from __future__ import annotations

import sys

from todomq.list_server.service import ListServerService
from todomq.runtime.daemon import main

if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or not int(sys.argv[1]):
        sys.exit("usage: python -m todomq.list_server NUMBER, from 1")
    main(["list_server", int(sys.argv[1])], ListServerService)
