"""What lists have left in storage though perhaps nobody asks for it again: found later, by the notes made of it.

A clear is swept, and a session forgotten, by the list's actor. Where its list server dies first, or the list leaves
memory before its sessions are over, that is left to whoever asks for the list next. Perhaps nobody does: so each change
that leaves something leaves a note beside it (``recording.py``). Once a note's time has come, the list is loaded where
it is not in memory, which begins whatever is to be done; when nothing is left, the note goes.

Owns: when notes are looked for, which have been taken up. Must not know: how lists are swept, sockets (the links call).
A note outlives any death: whoever owns the partition next finds it. Law 6: so many are taken up at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from todomq.errors import CorruptRecord
from todomq.list_server import records
from todomq.list_server.actor import QUARANTINED, ListActor
from todomq.list_server.hosting import Hosting
from todomq.list_server.partition import Partition
from todomq.list_server.reading import AskWorker, is_page
from todomq.protocol import limits
from todomq.runtime.callee import Answer
from todomq.runtime.log import log_counted

LOOK_MS = 60_000
"""How often each partition's notes are looked at."""
NOTES_PAGE_BYTES = 4 * limits.KIB
NOTES = 1_024
"""How many are taken up at a time: for each a list may have to be loaded."""


class Remains:
    """The notes of one list server's partitions."""

    def __init__(self, hosting: Hosting, calls: Mapping[int, AskWorker]) -> None:
        """Look for nothing yet.

        Args:
            hosting: loads the lists.
            calls: the call of each worker's link, by the worker's number.
        """
        self._hosting = hosting
        self._calls = calls
        self._look_ms = 0
        self._ahead: dict[Partition, bytes | None] = {}
        """Partitions to be looked at in this round, with the note after which."""
        self._taken: dict[bytes, ListActor] = {}

    def tick(self, now_ms: int, steady_ms: int) -> None:
        """End the notes of which nothing is left to do; look for others where it is time.

        Args:
            now_ms: the time that notes go by.
            steady_ms: the time of the steady clock.
        """
        if self._taken:
            self._end_notes(now_ms)
        if steady_ms >= self._look_ms:
            self._look_ms = steady_ms + LOOK_MS
            self._taken.clear()  # whatever could not be ended is found again
            self._ahead = dict.fromkeys(filter(None, self._hosting.partitions))
        if self._ahead and len(self._taken) < NOTES:
            ahead, self._ahead = self._ahead, {}
            for looked_at, after in ahead.items():
                self._look(looked_at, after, now_ms)

    def _look(self, looked_at: Partition, after: bytes | None, now_ms: int) -> None:
        if self._is_owned(looked_at) and looked_at.refusal is None:
            prefix = records.remains_prefix(looked_at.number)
            done = partial(self._found, looked_at, after, now_ms)
            self._calls[looked_at.worker]("read", None, prefix, after, NOTES_PAGE_BYTES, done=done)

    def _found(self, looked_at: Partition, after: bytes | None, now_ms: int, answer: Answer) -> None:
        if answer.error is not None or not is_page(answer.value) or not self._is_owned(looked_at):
            return  # the next round is soon enough
        _, pairs, last = answer.value
        for key in pairs[::2]:
            if len(self._taken) >= NOTES:
                self._ahead[looked_at] = after
                return
            if not self._take_up(looked_at, key, now_ms):
                return
            after = key
        if last is not None:
            self._ahead[looked_at] = last

    def _take_up(self, looked_at: Partition, key: bytes, now_ms: int) -> bool:
        """Take up a note; return False if it is not due yet, and so none of those behind it is."""
        try:
            due_ms, name = records.read_remains_key(key)
        except CorruptRecord as error:
            log_counted("note_damaged", partition=looked_at.number, why=error.text)
            return True
        if due_ms > self._hosting.forgetting.ms(now_ms):
            return False
        self._taken[key] = self._hosting.activate(looked_at, name, now_ms)
        return True

    def _end_notes(self, now_ms: int) -> None:
        for key, actor in list(self._taken.items()):
            kept_by, gate = actor.partition, actor.partition.gate
            is_current = self._is_owned(kept_by) and kept_by.actors.get(actor.name) is actor
            if not is_current or actor.state is QUARANTINED:
                del self._taken[key]  # it stays for another look
            elif actor.is_at_rest and not actor.is_to_be_swept and not gate.why_refused and not gate.is_full():
                del self._taken[key]
                actor.end_note(key, now_ms)
                kept_by.close_batch_if_full(now_ms)

    def _is_owned(self, looked_at: Partition) -> bool:
        return self._hosting.partitions[looked_at.number] is looked_at
