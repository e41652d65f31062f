"""Run one database worker: ``python -m todomq.database_worker NUMBER``."""

from __future__ import annotations

import sys

from todomq.database_worker.service import DatabaseWorkerService
from todomq.database_worker.storage.manifest import MANIFEST, shard_directory
from todomq.database_worker.storage.rocksdb import RocksDBStorage
from todomq.runtime.daemon import Daemon, main
from todomq.settings import SettingsError

SWITCH_S = 0.0005  # a commit that comes back from its fsync waits no longer than this for the interpreter


def make_worker(daemon: Daemon) -> DatabaseWorkerService:
    """Return the service with its shard open, or with the reason why it can't be opened.

    Raises:
        SettingsError: the settings don't go with what is stored; the text says what to do.
    """
    number, settings = int(daemon.name[1]), daemon.settings
    if not 1 <= number <= settings.database_workers:
        raise SettingsError(f"no database worker {number} where TODOMQ_DATABASE_WORKERS={settings.database_workers}")

    def open_storage(read_only: bool) -> RocksDBStorage:
        workers, create = settings.database_workers, RocksDBStorage.create
        if settings.registry and not (settings.data / MANIFEST).exists():
            raise SettingsError(
                f"TODOMQ_REGISTRY names another machine's stack, of which {settings.data} holds no shard: "
                "a worker that joins a stack brings its shard along"
            )
        directory = shard_directory(settings.data, number, workers, create, settings.note_of_data)
        return RocksDBStorage(directory, settings.reserve_bytes, read_only=read_only)

    return DatabaseWorkerService(daemon, number, open_storage)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m todomq.database_worker NUMBER")
    sys.setswitchinterval(SWITCH_S)
    main(["database_worker", int(sys.argv[1])], make_worker)
