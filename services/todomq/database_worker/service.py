"""The database worker's requests and batches.

Owns: the PULL socket that batches come in on; the checks of what is asked; the stop. Must not know: lists and entries;
which engine is used. Talks to: list servers (hello, claim, read, batches), the router (store, get), the probe (check),
backups (checkpoint).

Law 4: a get sees the stores sent before it and none sent after. Law 7: whatever comes in on the PULL socket and is not
a batch is counted, logged and dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from todomq.database_worker import records
from todomq.database_worker.checkpoints import NEW_S, check_name, make_checkpoint, remove_forgotten
from todomq.database_worker.group import Told
from todomq.database_worker.shard import Shard
from todomq.database_worker.storage import OpenStorage, Storage, StorageFailed, Write
from todomq.database_worker.storage.manifest import shard_name
from todomq.database_worker.words import Words
from todomq.errors import (
    NOT_APPLIED,
    CorruptRecord,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    TodoMQError,
    Unavailable,
)
from todomq.protocol import limits, messages
from todomq.protocol.addresses import is_address
from todomq.protocol.codec import canonical, check_plain, pack, unpack
from todomq.protocol.partitions import PARTITIONS, worker_of
from todomq.runtime.backlog import UNREAD_BYTES
from todomq.runtime.calls import LATER, Call, Operation, Service
from todomq.runtime.daemon import Daemon
from todomq.runtime.log import log_counted

PAGE_OVERHEAD_BYTES = 16
LOOK_S = 1.0


class DatabaseWorkerService(Service):
    """One worker: the ``number``-th of the pool, with the shard that ``open_storage`` opens."""

    def __init__(self, daemon: Daemon, number: int, open_storage: OpenStorage) -> None:
        """Open storage and bind the address for batches. If the shard can't be opened, whoever asks is told.

        Raises:
            SettingsError: the settings don't go with what is stored.
        """
        super().__init__()
        self._loop = daemon.loop
        self._incarnation = daemon.incarnation
        self._number = number
        self._directory = daemon.settings.data / shard_name(number)
        self._pool_size = daemon.settings.database_workers
        self._stopped: Callable[[], None] | None = None
        self._malformed = 0
        mine = frozenset(p for p in range(PARTITIONS) if worker_of(p, self._pool_size) == number)
        self._shard = Shard(daemon.loop, daemon.incarnation, self._directory, mine, open_storage)
        self._words = Words(daemon.loop, daemon.push)
        self._address = daemon.settings.reached_at(f"database_worker-{number}.writes")
        self._writes = daemon.pull(self._address, self._take_writes)
        daemon.loop.at_turn_end(self._end_turn)
        daemon.loop.every(LOOK_S, self._words.look)
        self._clear_checkpoints()
        daemon.loop.every(NEW_S, self._clear_checkpoints)
        self.operations["hello"] = self._hello
        for name, operation in {
            "claim": self._claim, "read": self._read, "read_many": self._read_many,
            "store": self._store, "get": self._get, "check": self._check,
        }.items():  # fmt: skip
            self.operations[name] = self._while_open(operation)
        self.operations["checkpoint"] = self._unless_stopping(self._checkpoint)

    def stats(self) -> dict[str, Any]:
        """Return counters, depths of queues and what storage says of itself."""
        malformed = self._malformed + self._writes.malformed
        return {**self._shard.stats(), "words_dropped": self._words.dropped, "malformed_batches": malformed}

    def finish(self, done: Callable[[], None]) -> None:
        """Commit and answer what was taken in, and a bounded number of the batches that have arrived since.

        The senders keep the others. Then close storage, and call ``done``.
        """
        self._writes.drain()
        self._writes.stop()
        self._stopped = done

    def _end_turn(self) -> None:
        for word in self._shard.end_turn():
            self._words.add(word)
        for gone in self._words.flush():
            self._shard.commits.forget(gone)
        if self._stopped is not None and self._shard.is_quiet:
            done, self._stopped = self._stopped, None
            self._shard.close(done)

    def _take_writes(self, message: bytes) -> None:
        try:
            kind, fields = messages.read(message)
            if kind != "writes":
                raise ProtocolError(f"a {kind[:20]!r} message where batches of writes come in")
            batch = messages.read_writes(fields)
        except ProtocolError as error:
            self._malformed += 1
            log_counted("malformed_batch", at=self._address.rsplit("/", 1)[-1], why=error.text)
            return
        self._shard.take_batch(batch, len(message))

    def _while_open(self, operation: Operation) -> Operation:
        def guarded(call: Call) -> None:
            self._shard.check_readable()
            operation(call)

        return self._unless_stopping(guarded)

    def _unless_stopping(self, operation: Operation) -> Operation:
        def guarded(call: Call) -> Any:
            if self._stopped is not None:
                raise Unavailable("this database worker is stopping")
            operation(call)
            return LATER

        return guarded

    def _hello(self, call: Call) -> Any:
        incarnation, address, next_number, granted = _arguments(call, bytes, str, int, list)
        is_incarnation = 1 <= len(incarnation) <= limits.SENDER_BYTES
        if not is_incarnation or not is_address(address) or not 0 <= next_number < messages.LIMIT:
            raise InvalidRequest(
                f"hello has an incarnation (1-{limits.SENDER_BYTES} bytes), an ipc or tcp address and a number"
            )
        if not all(map(messages.is_partition_and_epoch, granted)):
            raise InvalidRequest("what was granted is [[partition, epoch], ...]")
        self._shard.check_granted(granted)
        forgotten = self._shard.commits.hello(incarnation, next_number)
        if forgotten is not None:
            self._words.disconnect(forgotten)
        replaced = self._words.connect(incarnation, address)
        if replaced is not None:
            self._shard.commits.forget(replaced)
        return [self._incarnation, self._address, self._number, self._pool_size]

    def _claim(self, call: Call) -> None:
        partition, epoch, known = _arguments(call, int, int, int)
        if not messages.is_epoch(epoch):
            raise InvalidRequest("an epoch is a number from 1")
        if not 0 <= known < epoch:
            raise InvalidRequest("a claim is made under an epoch above the one that is known")
        self._shard.check_writable()
        self._shard.check_granted([[partition, known]])
        self._shard.commits.take_claim(partition, epoch, _answering(call))

    def _read(self, call: Call) -> None:
        key, prefix, after, limit_bytes = _arguments(call, bytes | None, bytes | None, bytes | None, int)
        most_bytes = min(max(limit_bytes, 1), limits.PAGE_BYTES)
        size = sum(len(part or b"") for part in (key, prefix, after))
        self._shard.read(lambda storage: _page(storage, key, prefix, after, most_bytes), _answering(call), size)

    def _read_many(self, call: Call) -> None:
        """Answer as many of the pages as fit into one answer, the first in any case; one that can't be read says why.

        Law 5: such a page concerns its own list only; those asked for with it are read all the same.
        """
        pages, limit_bytes = _arguments(call, list, int)
        if not 1 <= len(pages) <= limits.MESSAGE_REQUESTS or not all(map(_is_page, pages)):
            raise InvalidRequest("read_many has pages [key or nil, prefix, after or nil] and a limit in bytes")
        most_bytes = min(max(limit_bytes, 1), limits.PAGE_BYTES)

        def read(storage: Storage) -> list[Any]:
            results: list[Any] = []
            left_bytes = most_bytes
            for key, prefix, after in pages:
                try:
                    value, items, last = _page(storage, key, prefix, after, left_bytes)
                    results.append([value, items, last])
                    left_bytes -= len(value or b"") + sum(map(len, items)) + PAGE_OVERHEAD_BYTES
                except TodoMQError as error:
                    results.append(messages.error_value(error))
                    left_bytes -= len(results[-1])
                if left_bytes <= 0:
                    break
            return results

        size = sum(PAGE_OVERHEAD_BYTES + sum(len(part or b"") for part in page) for page in pages)
        self._shard.read(read, _answering(call), size)

    def _store(self, call: Call) -> None:
        if len(call.arguments) != 2:
            raise InvalidRequest("store takes two arguments, a key and a value")
        key, value = self._canonical_key(call), call.arguments[1]
        check_plain(value)
        writes: list[Write] = [(records.stored_key(key), pack(value))]
        once = None
        if call.number and call.sender:
            once = records.once_key(call.sender, call.number)
            writes.append((once, records.packed_number(self._loop.now_ms() + limits.REMEMBERED_MS)))
        self._shard.commits.take_change(writes, once, _answering(call), None, call.sender)

    def _get(self, call: Call) -> None:
        if len(call.arguments) != 1:
            raise InvalidRequest("get takes one argument, a key")
        key = records.stored_key(self._canonical_key(call))

        def found(outcome: Any) -> None:
            if isinstance(outcome, TodoMQError):
                call.refuse(outcome)
                return
            if call.backlog_bytes() > UNREAD_BYTES:
                call.refuse(Overloaded("the answers of this database worker are not taken at the moment"))
                return
            try:
                call.answer(None if outcome is None else unpack(outcome))
            except ProtocolError as error:
                call.refuse(CorruptRecord(f"the value stored under this key is damaged: {error.text}"))

        self._shard.commits.take_get(key, found, call.sender, call.deadline_ms)

    def _check(self, call: Call) -> None:
        """Write and read a record of the worker's own, for real; the answer is how many microseconds it took."""
        started_ns = time.perf_counter_ns()
        written = records.packed_number(started_ns)

        def read(storage: Storage) -> int:
            found = storage.get(records.PROBE_KEY)
            if found is None or found < written:  # another check may have written a later one
                raise CorruptRecord("what the check wrote is not what storage gave back")
            return (time.perf_counter_ns() - started_ns) // 1_000

        answer = _answering(call)

        def wrote(outcome: Any) -> None:
            if isinstance(outcome, TodoMQError):
                answer(outcome)
            else:
                self._shard.read(read, answer)

        self._shard.commits.take_change([(records.PROBE_KEY, written)], None, wrote, None)

    def _checkpoint(self, call: Call) -> None:
        """Copy the shard as it is now into ``checkpoints/NAME`` of its directory; the answer is that directory.

        Callers wait long for a copy. If storage says why it can't make one they hear it at once: it is not retryable.
        """
        (name,) = _arguments(call, str)
        check_name(name)
        answer = _answering(call)

        def made(outcome: Any) -> None:
            is_failure = isinstance(outcome, StorageFailed)
            answer(StorageFailed(outcome.text, retryable=False, outcome=NOT_APPLIED) if is_failure else outcome)

        self._shard.beside(lambda storage: make_checkpoint(storage, self._directory, name), made)

    def _clear_checkpoints(self) -> None:
        self._shard.beside(lambda storage: remove_forgotten(self._directory), lambda outcome: None)

    def _canonical_key(self, call: Call) -> bytes:
        key = canonical(call.arguments[0], limits.KEY_BYTES, "key")
        if type(call.target) is bytes and call.target != key:
            raise InvalidRequest("the request's target is not the canonical packing of its key")
        return key


def _page(
    storage: Storage, key: bytes | None, prefix: bytes | None, after: bytes | None, limit_bytes: int
) -> list[Any]:
    """Return the value under a key and a page of the records of a prefix, where each is asked for.

    Raises:
        CorruptRecord, StorageFailed: as the storage does.
    """
    value = None if key is None else storage.get(key)
    return [value, [], None] if prefix is None else [value, *storage.scan(prefix, after, limit_bytes)]


def _is_page(page: Any) -> bool:
    if type(page) is not list or len(page) != 3 or type(page[1]) is not bytes:
        return False
    return all(part is None or type(part) is bytes for part in (page[0], page[2]))


def _answering(call: Call) -> Told:
    def answer(outcome: Any) -> None:
        if isinstance(outcome, TodoMQError):
            call.refuse(outcome)
        else:
            call.answer(outcome)

    return answer


def _arguments(call: Call, *kinds: Any) -> list[Any]:
    """Return the call's arguments, checked for number and types."""
    messages.check_count(call.arguments, len(kinds), len(kinds))
    for place, (argument, kind) in enumerate(zip(call.arguments, kinds), 1):
        if not isinstance(argument, kind) or type(argument) is bool:
            raise InvalidRequest(f"argument {place} of this operation is of another type; see docs/protocol.md")
    return call.arguments
