"""What leaves at the end of a turn, of all lists of this process together: replies and batches.

Owns: one gate per database worker, the replies that may leave, the batches that were closed within the turn. Must not
know: partitions, how a list is found or loaded, sockets.
Law 3: the session that a change belongs to is written into the same batch as the change.
"""

from __future__ import annotations

from todomq.list_server.gate import Batch, Gate, Reply
from todomq.list_server.recording import RecordedList


class Outgoing:
    """Gathers replies and batches until a turn ends.

    Attributes:
        gates: by the number of the worker.
        replies: which may leave now.
        lists_to_write: those of which a session changed and is not in the batch yet.
    """

    def __init__(self, workers: int) -> None:
        self.gates = {number: Gate() for number in range(1, workers + 1)}
        self.replies: list[Reply] = []
        self.lists_to_write: list[RecordedList] = []
        self._closed: list[tuple[int, Batch]] = []

    def close_batch(self, worker: int, now_ms: int) -> None:
        """Close a worker's batch within the turn; to be called between two changes only."""
        write_sessions(self.lists_to_write)
        batch = self.gates[worker].close(now_ms)
        if batch is not None:
            self._closed.append((worker, batch))

    def drop_batches(self, worker: int) -> None:
        """Leave out what was closed within the turn for a worker of which nothing may be sent any more."""
        self._closed = [item for item in self._closed if item[0] != worker]

    def take_batches(self, now_ms: int) -> list[tuple[int, Batch]]:
        """Close all that is open and return the batches of the turn by worker, each of them once."""
        for worker in self.gates:
            self.close_batch(worker, now_ms)
        batches, self._closed = self._closed, []
        return batches

    def take_replies(self) -> list[Reply]:
        """Return the replies that may leave, each of them once."""
        replies = self.replies[:]
        self.replies.clear()
        return replies


def write_sessions(lists: list[RecordedList]) -> None:
    """Write the records of the sessions that changed, of all these lists, and forget the lists."""
    for each in lists:
        each.write_sessions()
    lists.clear()
