"""Histories of one list that keep every promise, though some look odd: for each, in its name, what it shows."""

from __future__ import annotations

from typing import Any

from checking.history import Entry, Kind, Operation, Outcome


def told(
    client: int, sequence: int, times: tuple[int, int], kind: Kind, *arguments: Any, result: Any = None, **more: Any
) -> Operation:
    """Return an operation that was answered."""
    return Operation(client, "shared", sequence, kind, arguments, *times, "ok", result, **more)


def untold(
    outcome: Outcome, client: int, sequence: int, times: tuple[int, int], kind: Kind, *arguments: Any, **more: Any
) -> Operation:
    """Return an operation that was refused, is a cast, or of which nobody knows."""
    return Operation(client, "shared", sequence, kind, arguments, *times, outcome, **more)


MILK = Entry(1, "milk")
BREAD = Entry(2, "bread")
DAY = "2026-12-01"

GOOD: dict[str, list[Operation]] = {
    "nothing happened": [],
    "every kind once": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        told(1, 2, (10, 19), "add_all", ("bread", "salt"), result=(2, 3)),
        told(1, 3, (20, 29), "update", 1, {"done": True, "date": DAY}, result=Entry(1, "milk", True, DAY)),
        told(1, 4, (30, 39), "delete", 2, result=True),
        told(1, 5, (40, 49), "delete", 2, result=False),
        told(1, 6, (50, 59), "update", 2, {"done": True}, result=None),
        told(1, 7, (60, 69), "size", result=2),
        told(1, 8, (70, 79), "entries", result=(Entry(1, "milk", True, DAY), Entry(3, "salt"))),
        told(1, 9, (80, 89), "clear"),
        told(1, 10, (90, 99), "add", "eggs", result=1),
        told(1, 11, (100, 109), "drop"),
        told(1, 12, (110, 119), "entries", result=()),
    ],
    "an id is not given again after the highest was deleted": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        told(1, 2, (10, 19), "delete", 1, result=True),
        told(1, 3, (20, 29), "add", "bread", result=2),
    ],
    "a read beside an add may miss it": [
        told(1, 1, (0, 30), "add", "milk", result=1),
        told(2, 1, (10, 20), "entries", result=()),
    ],
    "a read beside an add may show it": [
        told(1, 1, (0, 30), "add", "milk", result=1),
        told(2, 1, (10, 20), "entries", result=(MILK,)),
    ],
    "adds at once get their ids in either order": [
        told(1, 1, (0, 30), "add", "bread", result=2),
        told(2, 1, (10, 20), "add", "milk", result=1),
        told(2, 2, (40, 50), "entries", result=(MILK, BREAD)),
    ],
    "an unknown add happened": [
        untold("unknown", 1, 1, (0, 9), "add", "milk"),
        told(2, 1, (20, 29), "entries", result=(MILK,)),
    ],
    "an unknown add did not happen": [
        untold("unknown", 1, 1, (0, 9), "add", "milk"),
        told(2, 1, (20, 29), "add", "eggs", result=1),
    ],
    "an unknown add happened late": [
        untold("unknown", 1, 1, (0, 9), "add", "milk", deadline=100),
        told(2, 1, (20, 29), "entries", result=()),
        told(2, 2, (90, 120), "entries", result=(MILK,)),
    ],
    "an unknown add shows by nothing but the id it took": [
        untold("unknown", 1, 1, (0, 9), "add", "milk"),
        told(2, 1, (20, 29), "add", "bread", result=2),
        told(2, 2, (30, 39), "delete", 1, result=True),
        told(2, 3, (40, 49), "entries", result=(BREAD,)),
    ],
    "an unknown add happened just before its deadline": [
        untold("unknown", 1, 1, (0, 9), "add", "salt", deadline=30),
        told(2, 1, (0, 60), "add", "milk", result=2),
        told(3, 1, (40, 60), "delete", 7, result=False),
        told(3, 2, (61, 70), "size", result=2),
    ],
    "an unknown delete happened late": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        untold("unknown", 1, 2, (10, 19), "delete", 1),
        told(2, 1, (20, 29), "entries", result=(MILK,)),
        told(2, 2, (30, 39), "entries", result=()),
    ],
    "an unknown clear happened between two adds": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        untold("unknown", 2, 1, (10, 19), "clear"),
        told(1, 2, (20, 29), "add", "bread", result=2),
        told(1, 3, (30, 39), "add", "eggs", result=1),
    ],
    "a refused add is not there": [
        untold("failed", 1, 1, (0, 9), "add", "milk"),
        told(1, 2, (10, 19), "entries", result=()),
    ],
    "one cast arrived and the next was dropped": [
        untold("cast", 1, 1, (0, 0), "add", "milk"),
        untold("cast", 1, 2, (1, 1), "add", "salt"),
        told(1, 3, (10, 19), "add", "bread", result=2),
        told(1, 4, (20, 29), "entries", result=(MILK, BREAD)),
    ],
    "a cast shows by nothing but its id, and its client's next request, which changes nothing, is early": [
        untold("cast", 1, 1, (4, 4), "add", "salt"),
        told(1, 2, (10, 15), "update", 2, {"done": True}, result=None),
        told(2, 1, (11, 19), "update", 1, {"title": "milk"}, result=MILK),
        told(3, 1, (19, 28), "add", "bread", result=2),
    ],
    "of two casts that do the same the one that must be sooner was sent too late for a change between": [
        untold("cast", 1, 1, (0, 0), "add", "salt", deadline=100),
        untold("cast", 2, 1, (50, 50), "add", "eggs", deadline=60),
        untold("unknown", 3, 1, (0, 9), "delete", 1, deadline=40),
        told(4, 1, (0, 200), "add", "bread", result=2),
        told(4, 2, (201, 210), "entries", result=(BREAD,)),
    ],
    "pipelined requests take effect in the order sent": [
        told(1, 1, (0, 50), "add", "milk", result=1),
        told(1, 2, (0, 40), "update", 1, {"done": True}, result=Entry(1, "milk", True)),
        told(1, 3, (0, 30), "delete", 1, result=True),
        told(1, 4, (0, 20), "entries", result=()),
    ],
    "a read that was sent again shows what another client did after its client's later read": [
        told(1, 1, (0, 90), "entries", result=(MILK,), resent=True),
        told(1, 2, (1, 20), "size", result=0),
        told(1, 3, (1, 20), "delete", 9, result=False),
        told(2, 1, (30, 40), "add", "milk", result=1),
        told(1, 4, (1, 90), "add", "bread", result=2),
    ],
    "a read that was sent again comes before what its client sent later, though that was answered before it": [
        told(1, 1, (0, 90), "entries", result=(), resent=True),
        told(1, 2, (1, 20), "add", "milk", result=1),
    ],
    "what was deleted on one side of a clear is not what is there on the other": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        told(1, 2, (10, 50), "clear"),
        told(2, 1, (10, 50), "delete", 1, result=False),
        told(2, 2, (10, 60), "add", "salt", result=1),
        told(3, 1, (60, 70), "entries", result=(Entry(1, "salt"),)),
    ],
    "entries that were added together have one title": [
        told(1, 1, (0, 9), "add_all", ("milk", "milk"), result=(1, 2)),
        told(1, 2, (10, 19), "entries", result=(MILK, Entry(2, "milk"))),
    ],
    "a title is given again after a clear": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        told(1, 2, (10, 19), "entries", result=(MILK,)),
        told(1, 3, (20, 29), "clear"),
        told(1, 4, (30, 39), "add", "milk", result=1),
        told(1, 5, (40, 49), "entries", result=(MILK,)),
    ],
    "a title that an unknown add may have given was given by an update": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        untold("unknown", 2, 1, (0, 9), "add", "salt"),
        told(1, 2, (10, 19), "update", 1, {"title": "salt"}, result=Entry(1, "salt")),
        told(1, 3, (20, 29), "entries", result=(Entry(1, "salt"),)),
    ],
    "an unknown add gave a title once and an unknown update gave it to another": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        untold("unknown", 2, 1, (0, 9), "add", "salt"),
        untold("unknown", 3, 1, (0, 9), "update", 1, {"title": "salt"}),
        told(1, 2, (20, 29), "entries", result=(Entry(1, "salt"), Entry(2, "salt"))),
        told(1, 3, (30, 39), "delete", 2, result=True),
        told(1, 4, (40, 49), "entries", result=(Entry(1, "salt"),)),
    ],
    "a read that nobody heard of": [
        untold("unknown", 1, 1, (0, 9), "entries"),
        told(1, 2, (10, 19), "add", "milk", result=1),
    ],
    "of entries that an unknown request added together only the last was seen": [
        untold("unknown", 1, 1, (0, 9), "add_all", ("milk", "bread")),
        told(2, 1, (10, 19), "delete", 1, result=True),
        told(2, 2, (20, 29), "entries", result=(BREAD,)),
    ],
    "nothing was added together": [
        told(1, 1, (0, 9), "add_all", (), result=()),
        told(1, 2, (10, 19), "add", "milk", result=1),
    ],
    "of two deletes of an id the one that was sent first is of an earlier entry": [
        told(1, 1, (0, 99), "delete", 1, result=True),
        told(1, 2, (0, 99), "size", result=0),
        told(2, 1, (1, 99), "add", "salt", result=1),
        told(2, 2, (1, 99), "clear"),
        told(2, 3, (1, 99), "add_all", ("milk", "bread"), result=(1, 2)),
        told(3, 1, (2, 99), "delete", 1, result=True),
        told(4, 1, (3, 99), "entries", result=(BREAD,)),
    ],
    "of two reads that were sent again the one that was sent first is late": [
        told(1, 1, (0, 90), "entries", result=(MILK, BREAD), resent=True),
        told(2, 1, (1, 20), "entries", result=(), resent=True),
        told(3, 1, (2, 10), "add", "milk", result=1),
        told(4, 1, (50, 60), "add", "bread", result=2),
    ],
    "two unknown adds show by nothing but the deletes of their entries": [
        untold("unknown", 1, 1, (0, 9), "add", "milk"),
        untold("unknown", 2, 1, (0, 9), "add", "bread"),
        told(3, 1, (20, 29), "delete", 2, result=True),
        told(3, 2, (30, 39), "delete", 1, result=True),
    ],
    "an unknown update happened just before its deadline": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        untold("unknown", 2, 1, (10, 19), "update", 1, {"done": True}, deadline=30),
        told(1, 2, (40, 49), "add", "bread", result=2),
        told(1, 3, (50, 59), "entries", result=(Entry(1, "milk", True), BREAD)),
    ],
    "an unknown update happened before its client's read that was sent again": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        untold("unknown", 2, 1, (10, 19), "update", 1, {"done": True}),
        told(2, 2, (20, 29), "size", result=1, resent=True),
        untold("unknown", 3, 1, (0, 9), "add", "salt", deadline=15),
        told(4, 1, (30, 39), "entries", result=(Entry(1, "milk", True),)),
    ],
    "a read shows a title that was given again after a clear": [
        told(1, 1, (0, 9), "add", "milk", result=1),
        told(2, 1, (10, 90), "add", "bread", result=2),
        told(2, 2, (10, 90), "entries", result=(MILK,)),
        told(3, 1, (20, 90), "clear"),
        told(3, 2, (20, 90), "add", "milk", result=1),
    ],
}
