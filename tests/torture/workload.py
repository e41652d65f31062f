"""What the clients ask: seeded choices of lists and operations.

Owns: the mix, how many requests are open at once, how long each may take. Must not know: faults, how answers are kept.
Every title is unique. A round's lists are used for ``ROUND_S`` seconds, then come new ones, so no list grows for ever
and each history is small. On a shared list few requests are open at once: beyond some tens no checker decides.
"""

from __future__ import annotations

import time
from random import Random
from typing import Any

from torture.recorder import Wish

ROUND_S = 15.0
SHARED_LISTS = 8
SHARED_BURST = 4
OWN_BURST = 40
OWN_LISTS = 2
PAUSE_S = 0.05
DEADLINES_S = (0.4, 2.0, 15.0, 15.0, 15.0, 15.0)
KNOWN_IDS = 30

KINDS = {
    "add": 44, "add_all": 6, "cast": 10, "update": 12, "delete": 8, "entries": 6, "size": 10, "clear": 0.15,
    "drop": 0.15,
}  # fmt: skip


class Chooser:
    """One client's wishes.

    Args:
        client: its name, which makes its lists and titles its own.
        began: when the run began, ``time.monotonic``.
    """

    def __init__(self, client: str, random: Random, began: float) -> None:
        self.random = random
        self._client = client
        self._began = began
        self._titles = 0
        self._ids: dict[str, list[int]] = {}

    def round(self) -> int:
        """Return the number of the round that goes on now."""
        return int((time.monotonic() - self._began) / ROUND_S)

    def pause_s(self) -> float:
        """Return how long to wait before the next burst, seconds."""
        return min(self.random.expovariate(1 / PAUSE_S), 1.0)

    def deadline_s(self) -> float:
        """Return how long the next request may take."""
        return self.random.choice(DEADLINES_S)

    def burst(self, is_pipelined: bool) -> list[Wish]:
        """Return what to ask next: one thing or, pipelined, several."""
        random, round = self.random, self.round()
        is_shared = random.random() < 0.6
        most = (SHARED_BURST if is_shared else OWN_BURST) if is_pipelined else 1
        shared = [f"shared/{round}/{random.randrange(SHARED_LISTS)}"]
        own = [f"{self._client}/{round}/{n}" for n in range(OWN_LISTS)]
        lists = shared if is_shared else own
        return [self._wish(round, random.choice(lists)) for _ in range(random.randint(1, most))]

    def learn(self, wish: Wish, value: Any) -> None:
        """Take note of ids that were given, to be used by updates and deletes."""
        if wish.kind == "add":
            self._known(wish.list).append(value.id)
        elif wish.kind == "add_all":
            self._known(wish.list).extend(entry.id for entry in value)
        elif wish.kind == "entries":
            self._ids[wish.list] = [entry.id for entry in value[-KNOWN_IDS:]]

    def _known(self, list_name: str) -> list[int]:
        if list_name not in self._ids and len(self._ids) > 2 * (SHARED_LISTS + OWN_LISTS):
            self._ids.clear()  # of earlier rounds
        return self._ids.setdefault(list_name, [])

    def _wish(self, round: int, list_name: str) -> Wish:
        (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
        match kind:
            case "add" | "cast":
                return Wish(round, list_name, kind, self._title())
            case "add_all":
                return Wish(round, list_name, kind, tuple(self._title() for _ in range(self.random.randint(1, 5))))
            case "update":
                change: dict[str, Any] = {"title": self._title()} if self.random.random() < 0.5 else {"done": True}
                return Wish(round, list_name, kind, self._some_id(list_name), change)
            case "delete":
                return Wish(round, list_name, kind, self._some_id(list_name))
        return Wish(round, list_name, kind)

    def _title(self) -> str:
        self._titles += 1
        return f"{self._client}.{self._titles}"

    def _some_id(self, list_name: str) -> int:
        ids = self._ids.get(list_name, [])[-KNOWN_IDS:]
        return self.random.choice(ids) if ids and self.random.random() < 0.9 else self.random.randint(1, 20)


def ask(todo_list: Any, wish: Wish, deadline_s: float) -> Any:
    """Ask a list's handle, of whichever face: return the result, a future of it, or something to await.

    Raises:
        TodoMQError: the handle refused at once, or waited for the answer and it was an error.
    """
    match wish.kind:
        case "add":
            return todo_list.add_entry(*wish.arguments, deadline_s=deadline_s)
        case "cast":
            return todo_list.cast_add_entry(*wish.arguments, deadline_s=deadline_s)
        case "add_all":
            return todo_list.add_entries([(title, None) for title in wish.arguments[0]], deadline_s=deadline_s)
        case "update":
            identifier, change = wish.arguments
            return todo_list.update_entry(identifier, **change, deadline_s=deadline_s)
        case "delete":
            return todo_list.delete_entry(*wish.arguments, deadline_s=deadline_s)
        case "clear":
            return todo_list.clear(deadline_s=deadline_s)
        case "drop":
            return todo_list.delete(deadline_s=deadline_s)
        case "entries":
            return todo_list.entries(deadline_s=deadline_s)
        case "size":
            return todo_list.size(deadline_s=deadline_s)
    raise AssertionError(wish.kind)
