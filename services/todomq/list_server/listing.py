"""The directory of lists: the names of all stored lists, merged from every database worker in pages.

Owns: one listing in progress. Must not know: sockets, actors. Shows what is on disk: a list that is stored.
"""

from __future__ import annotations

from typing import Any

from todomq.errors import InvalidRequest
from todomq.list_server import records


class Listing:
    """One page of names: asked of every worker, answered when all have."""

    def __init__(self, arguments: list[Any], workers: int) -> None:
        """Read ``[prefix, after]``: names that begin with ``prefix``, behind the name ``after`` if there is one.

        Raises:
            InvalidRequest: other arguments.
        """
        if len(arguments) != 2 or type(arguments[0]) is not str or not isinstance(arguments[1], str | None):
            raise InvalidRequest('list_names takes a prefix (a text) and the name to go on after (a text or nil)')
        self.prefix = records.LISTS_PREFIX + arguments[0].encode()
        self.after = None if arguments[1] is None else records.list_key(arguments[1])
        self._missing = workers
        self._keys: list[bytes] = []
        self._end: bytes | None = None

    def take(self, pairs: list[bytes], last: bytes | None) -> bool:
        """Take one worker's page; return whether all have answered.

        Raises:
            CorruptRecord: a list's record cannot be read.
        """
        for key, value in zip(pairs[::2], pairs[1::2]):
            if not records.read_list(records.name_of(key), value).deleted:
                self._keys.append(key)
        if last is not None:
            self._end = last if self._end is None else min(self._end, last)
        self._missing -= 1
        return self._missing == 0

    def page(self) -> tuple[list[str], str | None]:
        """Return the names in order of their bytes, and the name to go on after (None at the end)."""
        end = self._end
        keys = sorted(key for key in self._keys if end is None or key <= end)
        return [records.name_of(key) for key in keys], None if end is None else records.name_of(end)
