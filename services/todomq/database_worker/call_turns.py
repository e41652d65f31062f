"""Whose stores and gets are in the next commit: clients take turns, so nobody waits for all that one of them asked.

Owns: the stores and gets that wait, by client, in order. Must not know: what is committed, in which group.
Law 4: what one client asks stays in order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from todomq.database_worker.group import Change, Get

Asked = Change | Get


class CallTurns:
    """Stores and gets that wait."""

    def __init__(self) -> None:
        self._clients: OrderedDict[bytes, deque[Asked]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Asked) -> None:
        """Let an item wait, behind those of the same client that do."""
        self._clients.setdefault(item.client, deque()).append(item)
        self._count += 1

    def take(self) -> Asked:
        """Return and forget the first item of the client whose turn it is."""
        client, items = self._clients.popitem(last=False)
        item = items.popleft()
        if items:
            self._clients[client] = items
        self._count -= 1
        return item

    def put_back(self, items: Iterable[Asked]) -> None:
        """Let items that were taken last wait again, as if they had not been."""
        taken: OrderedDict[bytes, deque[Asked]] = OrderedDict()
        for item in items:
            taken.setdefault(item.client, deque()).append(item)
            self._count += 1
        for client, before in reversed(taken.items()):
            before.extend(self._clients.pop(client, ()))
            self._clients[client] = before
            self._clients.move_to_end(client, last=False)

    def take_all(self) -> list[Asked]:
        """Return and forget everything."""
        everything = [item for items in self._clients.values() for item in items]
        self._clients.clear()
        self._count = 0
        return everything
