"""Histories of one list that break a promise: for each, in its name, which, and a word that the verdict must say."""

from __future__ import annotations

from checking.good import BREAD, MILK, told, untold
from checking.history import Entry, Operation

ADDED = told(1, 1, (0, 9), "add", "milk", result=1)
SECOND = told(1, 2, (10, 19), "add", "bread", result=2)

BAD: dict[str, tuple[str, list[Operation]]] = {
    "an acknowledged add is lost": ("lost", [ADDED, told(2, 1, (10, 19), "entries", result=())]),
    "an acknowledged add is lost to an update": (
        "lost", [ADDED, told(2, 1, (10, 19), "update", 1, {"done": True}, result=None)],
    ),
    "an acknowledged add is lost by the count": ("no order", [ADDED, told(2, 1, (10, 19), "size", result=0)]),
    "an entry that was read is lost": (
        "lost",
        [
            untold("unknown", 1, 1, (0, 9), "add", "milk"),
            told(2, 1, (10, 19), "entries", result=(MILK,)),
            told(3, 1, (20, 29), "entries", result=()),
        ],
    ),
    "an add took effect twice": (
        "twice", [ADDED, told(2, 1, (10, 19), "entries", result=(MILK, Entry(2, "milk")))],
    ),
    "an unknown add took effect twice": (
        "once",
        [
            untold("unknown", 1, 1, (0, 9), "add", "milk"),
            told(2, 1, (10, 19), "entries", result=(MILK, Entry(2, "milk"))),
        ],
    ),
    "a cast took effect twice": (
        "once",
        [
            untold("cast", 1, 1, (0, 0), "add", "milk"),
            told(2, 1, (10, 19), "entries", result=(MILK,)),
            told(2, 2, (20, 29), "entries", result=(Entry(2, "milk"),)),
        ],
    ),
    "the answer to an add named the wrong id": (
        "twice", [ADDED, told(2, 1, (10, 19), "entries", result=(Entry(2, "milk"),))],
    ),
    "a dedupe that answered another id": ("no order", [told(1, 1, (0, 9), "add", "milk", result=2)]),
    "a read is stale": (
        "lost", [ADDED, SECOND, told(2, 1, (20, 29), "entries", result=(MILK,))],
    ),
    "two reads disagree about the order of two adds": (
        "no order",
        [
            told(1, 1, (0, 99), "update", 1, {"done": True}, result=Entry(1, "milk", True)),
            told(2, 1, (0, 9), "add", "milk", result=1),
            told(2, 2, (10, 99), "add", "bread", result=2),
            told(3, 1, (20, 90), "entries", result=(Entry(1, "milk", True),)),
            told(4, 1, (20, 90), "entries", result=(MILK, BREAD)),
        ],
    ),
    "an id was given twice": ("given twice", [ADDED, told(2, 1, (10, 19), "add", "bread", result=1)]),
    "an id was given again after a delete": (
        "given twice",
        [ADDED, told(1, 2, (10, 19), "delete", 1, result=True), told(1, 3, (20, 29), "add", "bread", result=1)],
    ),
    "ids go against real time": (
        "lower", [told(1, 1, (0, 9), "add", "bread", result=2), told(2, 1, (10, 19), "add", "milk", result=1)],
    ),
    "ids left out": ("no order", [ADDED, told(1, 2, (10, 19), "add", "bread", result=3)]),
    "entries added together are parted": (
        "follow one another",
        [
            told(1, 1, (0, 50), "add_all", ("milk", "bread"), result=(1, 3)),
            told(2, 1, (0, 50), "add", "salt", result=2),
        ],
    ),
    "half of what was added together": (
        "no order",
        [
            untold("unknown", 1, 1, (0, 9), "add_all", ("milk", "bread")),
            told(2, 1, (10, 19), "entries", result=(MILK,)),
        ],
    ),
    "a read shows an entry that nobody made": ("nobody", [told(1, 1, (0, 9), "entries", result=(MILK,))]),
    "a read shows an entry before it was sent": (
        "before it was sent",
        [told(2, 1, (0, 9), "entries", result=(MILK,)), told(1, 1, (10, 19), "add", "milk", result=1)],
    ),
    "a read shows ids that descend": (
        "ascend", [ADDED, SECOND, told(1, 3, (20, 29), "entries", result=(BREAD, MILK))],
    ),
    "a clear is ignored": (
        "undone", [ADDED, told(1, 2, (10, 19), "clear"), told(1, 3, (20, 29), "entries", result=(MILK,))],
    ),
    "a drop is ignored": (
        "undone", [ADDED, told(1, 2, (10, 19), "drop"), told(1, 3, (20, 29), "entries", result=(MILK,))],
    ),
    "ids go on after a clear": (
        "no order", [ADDED, told(1, 2, (10, 19), "clear"), told(1, 3, (20, 29), "add", "bread", result=2)],
    ),
    "a delete is undone": (
        "undone",
        [ADDED, told(1, 2, (10, 19), "delete", 1, result=True), told(2, 1, (20, 29), "entries", result=(MILK,))],
    ),
    "a delete took effect twice": (
        "no order",
        [ADDED, told(1, 2, (10, 19), "delete", 1, result=True), told(2, 1, (10, 19), "delete", 1, result=True)],
    ),
    "an update is lost": (
        "lost",
        [
            ADDED,
            told(1, 2, (10, 19), "update", 1, {"done": True}, result=Entry(1, "milk", True)),
            told(2, 1, (20, 29), "entries", result=(MILK,)),
        ],
    ),
    "an update overwrote what it did not name": (
        "lost",
        [
            ADDED,
            told(1, 2, (10, 19), "update", 1, {"done": True}, result=Entry(1, "milk", True)),
            told(2, 1, (20, 29), "update", 1, {"date": "2026-12-01"}, result=Entry(1, "milk", False, "2026-12-01")),
        ],
    ),
    "an entry is shown done though nobody did it": (
        "nobody", [ADDED, told(2, 1, (10, 19), "entries", result=(Entry(1, "milk", True),))],
    ),
    "an unknown change took effect after its deadline": (
        "no order",
        [
            untold("unknown", 1, 1, (0, 9), "add", "milk", deadline=60),
            told(2, 1, (70, 79), "entries", result=()),
            told(2, 2, (80, 89), "entries", result=(MILK,)),
        ],
    ),
    "an unknown change took effect after its client's next": (
        "no order",
        [
            untold("unknown", 1, 1, (0, 9), "add", "bread"),
            told(1, 2, (10, 19), "add", "milk", result=1),
            told(2, 1, (20, 29), "entries", result=(MILK, BREAD)),
        ],
    ),
    "an unknown change came and went": (
        "no order",
        [
            told(1, 1, (0, 9), "add", "milk", result=1),
            untold("unknown", 1, 2, (10, 19), "update", 1, {"title": "bread"}),
            told(2, 1, (20, 29), "entries", result=(Entry(1, "bread"),)),
            told(2, 2, (30, 39), "entries", result=(MILK,)),
        ],
    ),
    "pipelined requests changed places": (
        "lower", [told(1, 1, (0, 50), "add", "bread", result=2), told(1, 2, (0, 50), "add", "milk", result=1)],
    ),
    "a client does not read its own write": (
        "lost", [told(1, 1, (0, 50), "add", "milk", result=1), told(1, 2, (0, 50), "entries", result=())],
    ),
    "a read that was not sent again shows a later change of its client": (
        "before it was sent",
        [told(1, 1, (0, 50), "entries", result=(MILK,)), told(1, 2, (0, 50), "add", "milk", result=1)],
    ),
    "a read that was sent again shows a later change of its client": (
        "before it was sent",
        [told(1, 1, (0, 90), "entries", result=(MILK,), resent=True), told(1, 2, (1, 20), "add", "milk", result=1)],
    ),
    "a read that was sent again shows a later delete of its client": (
        "lost",
        [
            ADDED,
            told(1, 2, (10, 90), "entries", result=(), resent=True),
            told(1, 3, (11, 20), "delete", 1, result=True),
        ],
    ),
    "a read that was sent again shows what another did behind a later change of its client": (
        "no order",
        [
            told(1, 1, (0, 90), "size", result=2, resent=True),
            told(1, 2, (1, 20), "add", "milk", result=1),
            told(2, 1, (30, 40), "add", "bread", result=2),
        ],
    ),
    "a refused add is there": (
        "refused",
        [untold("failed", 1, 1, (0, 9), "add", "milk"), told(2, 1, (10, 19), "entries", result=(MILK,))],
    ),
    "a refused add took an id": (
        "no order",
        [untold("failed", 1, 1, (0, 9), "add", "milk"), told(1, 2, (10, 19), "add", "bread", result=2)],
    ),
    "a refused delete took effect": (
        "lost",
        [ADDED, untold("failed", 1, 2, (10, 19), "delete", 1), told(1, 3, (20, 29), "entries", result=())],
    ),
    "an acknowledged add is lost to a delete": (
        "lost", [ADDED, told(2, 1, (10, 19), "delete", 1, result=False)],
    ),
    "an entry that was updated is lost": (
        "lost",
        [
            untold("unknown", 1, 1, (0, 9), "add", "milk"),
            told(2, 1, (10, 19), "update", 1, {"done": True}, result=Entry(1, "milk", True)),
            told(3, 1, (20, 29), "entries", result=()),
        ],
    ),
    "an entry is lost when the moment for the only delete is over": (
        "lost",
        [
            ADDED,
            untold("unknown", 1, 2, (10, 19), "delete", 1, deadline=30),
            told(2, 1, (40, 49), "entries", result=(MILK,)),
            told(2, 2, (50, 59), "entries", result=()),
        ],
    ),
    "an update took effect on another entry": (
        "no order",
        [
            ADDED,
            SECOND,
            told(1, 3, (20, 29), "update", 1, {"title": "salt"}, result=Entry(1, "salt")),
            told(2, 1, (20, 29), "entries", result=(MILK, Entry(2, "salt"))),
        ],
    ),
    "an id was given twice behind a clear": (
        "given twice",
        [
            told(1, 1, (0, 9), "clear"),
            told(1, 2, (10, 19), "add", "milk", result=1),
            told(1, 3, (20, 29), "add", "bread", result=1),
        ],
    ),
    "an id was given twice before a clear": (
        "given twice", [ADDED, told(1, 2, (10, 19), "add", "bread", result=1), told(1, 3, (20, 29), "clear")],
    ),
    "ids go against real time behind a clear": (
        "lower",
        [
            told(1, 1, (0, 9), "add_all", ("milk", "bread", "salt"), result=(1, 2, 3)),
            told(1, 2, (10, 19), "clear"),
            told(2, 1, (20, 29), "add", "eggs", result=2),
            told(3, 1, (30, 39), "add", "oil", result=1),
        ],
    ),
    "an entry is lost before it was deleted": (
        "lost",
        [
            ADDED,
            told(2, 1, (10, 19), "entries", result=()),
            told(1, 2, (20, 29), "delete", 1, result=True),
        ],
    ),
    "a read shows what was added after its client sent it something later": (
        "no order",
        [
            untold("cast", 1, 1, (20, 20), "add", "salt"),
            told(1, 2, (5, 40), "add", "milk", result=1),
            told(2, 1, (0, 10), "entries", result=(MILK,)),
        ],
    ),
}  # fmt: skip
