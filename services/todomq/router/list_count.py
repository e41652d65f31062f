"""A count of the stored lists that one key may see: for a quota of lists, asked for page by page.

Owns: one count, from its first page to its last. Must not know: when one is due (``key_use.py``), where lists are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from todomq.errors import ProtocolError
from todomq.protocol import messages
from todomq.protocol.codec import pack, unpack
from todomq.router.key_use import StoredLists
from todomq.runtime.calls import OwnPeer, Replies


class ListCount(OwnPeer):
    """Takes the place of a client: the names of the lists come to it as answers to its requests."""

    _lists: StoredLists
    _patterns: Sequence[str]
    _most: int
    _steady_ms: Callable[[], int]
    _ask: Callable[[ListCount, list[Any]], None]
    _names: list[str]

    def __new__(
        cls,
        lists: StoredLists,
        patterns: Sequence[str],
        most: int,
        steady_ms: Callable[[], int],
        ask: Callable[[ListCount, list[Any]], None],
    ) -> ListCount:
        """Begin with nothing asked.

        Args:
            lists: hears of the end; others count once the key may see others.
            patterns: of the names that the key may see; none for all.
            most: how many lists the key may have.
            steady_ms: the time by which lists are counted.
            ask: sends a request of this count to the directory of lists.
        """
        made = super().__new__(cls, b"")
        made._lists, made._patterns, made._most = lists, patterns or ("*",), most
        made._steady_ms, made._ask = steady_ms, ask
        made._names = []
        return made

    def ask(self, after: Any) -> None:
        """Ask for the page behind this place (None: the first)."""
        body = pack(["list_names_within", self._patterns, pack(["list_names", "", after])])
        self._ask(self, [1, "", 0, body, 0, 0])

    def take_replies(self, items: Replies) -> None:
        """Take a page. The count ends at as many names as the key may have: it can get no other list then."""
        steady_ms = self._steady_ms()
        for _, status, value in items:
            if status != messages.OK:
                self._lists.count_ended(steady_ms)
                continue
            try:
                names, after = unpack(value)
                self._names += map(_text, names)
            except (ProtocolError, ValueError, TypeError):
                self._lists.count_ended(steady_ms)
                continue
            if after is None or len(self._names) >= self._most:
                self._lists.counted(self._names, steady_ms)
            else:
                self._go_on(after, steady_ms)

    def _go_on(self, after: Any, steady_ms: int) -> None:
        try:
            self.ask(after)
        except RecursionError:  # what was unpacked may be nested too deeply to be packed
            self._lists.count_ended(steady_ms)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value
