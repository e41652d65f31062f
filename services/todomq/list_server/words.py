"""What database workers say of batches: committed, refused, failed, wanted.

Owns: which word is believed and what comes of it. Must not know: what the batches hold, the sockets.
Law 1: a word is believed of the worker's life that batches were sent to, and of batches that were sent.
"""

from __future__ import annotations

from collections.abc import Callable

from todomq.errors import NOT_APPLIED, UNKNOWN, ProtocolError
from todomq.list_server.hosting import Hosting
from todomq.list_server.worker_link import WorkerLinks
from todomq.protocol import messages
from todomq.protocol.partitions import worker_of
from todomq.runtime.log import log, log_counted


class Words:
    """The words to one life of a list server."""

    def __init__(self, incarnation: bytes, hosting: Hosting, links: WorkerLinks, steady_ms: Callable[[], int]) -> None:
        """Believe what is said to this ``incarnation``; ``steady_ms`` tells the time since some moment."""
        self._incarnation = incarnation
        self._hosting = hosting
        self._links = links
        self._steady_ms = steady_ms

    def take(self, message: bytes) -> None:
        """Do what a message asks for; one that can't be read, or can't be true, is logged and dropped."""
        try:
            kind, fields = messages.read(message)
            if kind != "committed":
                raise ProtocolError(f"a {kind[:20]!r} message where committed was expected")
            self._take_word(messages.read_committed(fields))
        except ProtocolError as error:
            log_counted("malformed_commit", why=error.text)

    def _take_word(self, word: messages.Committed) -> None:
        if word.sender != self._incarnation:
            return
        for number, link in self._links.items():
            if link.incarnation == word.receiver:
                self._check(number, word)
                self._believe(number, word)

    def _believe(self, number: int, word: messages.Committed) -> None:
        """Do what a word of a worker asks for."""
        committed_to = self._hosting.gates[number].committed
        has_gap = word.first > committed_to + 1  # a word before this one was lost
        if word.outcome == messages.COMMITTED and not has_gap:
            self._log_lost(number, self._hosting.committed(number, word.last, word.refused))
            return
        if word.outcome in (messages.FAILED, NOT_APPLIED):
            if word.last <= committed_to:
                return  # these batches were given up when their failure was first heard of
            log_counted("commit_failed", worker=number, why=word.text)
            is_new = not has_gap and word.first > self._links[number].sent_before
            outcome = NOT_APPLIED if word.outcome == NOT_APPLIED and is_new else UNKNOWN
            lost = self._hosting.failed(number, word.text, outcome, self._steady_ms(), word.refused)
            self._log_lost(number, lost)
        self._links[number].greet()  # what is not committed is sent again, or begins anew

    def _log_lost(self, worker: int, partitions: set[int]) -> None:
        for partition in partitions:
            log("partition_lost", partition=partition, worker=worker)

    def _check(self, worker: int, word: messages.Committed) -> None:
        if word.outcome == messages.COMMITTED and not word.first <= word.last < self._hosting.gates[worker].open.number:
            raise ProtocolError("a word about batches that were never sent")
        if any(worker_of(partition, len(self._links)) != worker for _, partition, _ in word.refused):
            raise ProtocolError("a word about partitions of another worker")
