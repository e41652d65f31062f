"""Run the router of this stack."""

from __future__ import annotations

from todomq.router.service import RouterService
from todomq.runtime.daemon import main

if __name__ == "__main__":
    main(["router"], RouterService)
