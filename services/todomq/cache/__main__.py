"""Run the cache of this stack."""

from __future__ import annotations

from todomq.cache.service import CacheService
from todomq.runtime.daemon import main

if __name__ == "__main__":
    main(["cache"], CacheService)
