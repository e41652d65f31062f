"""The sweep of what a clear left behind: entries of older generations, deleted a page at a time.

A clear costs the same however long the list is: it begins a new generation, and this deletes the old ones afterwards.
Owns: where the sweep of one list has got to. Must not know: workers, sockets.
"""

from __future__ import annotations

from todomq.list_server import records
from todomq.list_server.actor import ListActor
from todomq.list_server.loading import Wanted
from todomq.list_server.recording import NEW_LIST


class Sweeping:
    """One sweep of one list, begun when none of its writes was uncommitted."""

    def __init__(self, actor: ListActor) -> None:
        assert actor.todo is not None
        self._generation = actor.todo.generation
        self._prefix = actor.prefix
        actor.partition.to_sweep.pop(actor.name)

    def first_page(self) -> Wanted:
        """Return what to read first: what stands behind the present generation's entries."""
        behind = records.behind_generation(self._prefix, self._generation)
        return Wanted(None, records.all_entries_prefix(self._prefix), behind)

    def take(self, actor: ListActor, pairs: list[bytes], last: bytes | None) -> Wanted | None:
        """Delete what a page brought.

        Args:
            actor: the list.
            pairs: keys and values in turn.
            last: the last key of the page if there is more, else None.

        Returns:
            what to read next, or None when everything is swept.
        """
        partition = actor.partition
        for key in pairs[::2]:
            actor.last_batch = partition.gate.write(partition.number, partition.epoch, key, None)
        if last is not None:
            return Wanted(None, records.all_entries_prefix(self._prefix), last)
        self._finish(actor)
        return None

    def _finish(self, actor: ListActor) -> None:
        partition, record = actor.partition, actor.record
        if record is None or actor.todo is None or not actor.is_to_be_swept:
            return  # another sweep, begun when it was deleted meanwhile, has seen to all
        if actor.todo.generation != self._generation:
            partition.to_sweep[actor.name] = actor  # cleared again meanwhile
            return
        if record.deleted and not actor.todo.entries:
            actor.record, value = None, None
        else:
            record = record._replace(swept_generation=self._generation)
            actor.record = NEW_LIST if record == NEW_LIST else record
            value = records.pack_list(record)
        key = records.list_key(actor.name)
        actor.last_batch = partition.gate.write(partition.number, partition.epoch, key, value)
