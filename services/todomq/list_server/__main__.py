"""Run list server N of this stack: ``python -m todomq.list_server N``."""

from __future__ import annotations

import sys

from todomq.list_server.service import ListServerService
from todomq.runtime.daemon import main

if __name__ == "__main__":
    main(["list_server", int(sys.argv[1])], ListServerService)
