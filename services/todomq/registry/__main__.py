"""The registry as a process: ``python -m todomq.registry``. It registers in itself."""

from __future__ import annotations

from todomq.registry.service import RegistryService
from todomq.runtime.daemon import main

if __name__ == "__main__":
    main(["registry"], RegistryService, registers=False)
