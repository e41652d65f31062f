"""Judges a small history by trying every order: slow, and too simple to be wrong. The checker is compared with it.

Owns: the definition of a good history in the fewest words. Must not know: the checker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checking.history import Entry, Operation

Todo = tuple[int, tuple[Entry, ...]]


def explained(operations: Sequence[Operation]) -> bool:
    """Return whether some order of effects gives every answer of one list's history."""
    sent = _as_sent(operations)
    return _explained([operation for operation in sent if operation.outcome != "failed"], (1, ()), [])


def _as_sent(operations: Sequence[Operation]) -> list[Operation]:
    """Return the operations, none beginning before what its client sent earlier."""
    latest: dict[int | str, int] = {}
    sent = []
    for operation in sorted(operations, key=lambda operation: operation.sequence):
        latest[operation.client] = max(latest.get(operation.client, 0), operation.start)
        sent.append(operation._replace(start=latest[operation.client]))
    return sent


def _explained(left: list[Operation], todo: Todo, taken: list[Operation]) -> bool:
    if all(operation.outcome != "ok" for operation in left):
        return True
    for operation in left:
        if any(_must_follow(operation, earlier) for earlier in left if earlier is not operation):
            continue
        if any(_gone_by(operation, earlier) for earlier in [operation, *taken]):
            continue
        after, answer = perform(todo, operation)
        if operation.outcome == "ok" and answer != operation.result:
            continue
        if _explained([other for other in left if other is not operation], after, [*taken, operation]):
            return True
    return False


def _must_follow(operation: Operation, earlier: Operation) -> bool:
    """Return whether an operation cannot be next while the other, which must take effect, has not."""
    return earlier.outcome == "ok" and (earlier.end < operation.start or _sent_before(earlier, operation))


def _gone_by(operation: Operation, taken: Operation) -> bool:
    """Return whether what has taken effect shows that the moment for this operation is over."""
    if _sent_before(operation, taken):
        return True
    last = operation.end if operation.outcome == "ok" else operation.deadline
    return last is not None and last < taken.start


def _sent_before(first: Operation, second: Operation) -> bool:
    return first.client == second.client and first.sequence < second.sequence and first.keeps_order_with(second)


def perform(todo: Todo, operation: Operation) -> tuple[Todo, Any]:
    """Return the list after an operation, and the answer to it."""
    next_id, entries = todo
    kind, arguments = operation.kind, operation.arguments
    if kind == "add":
        return (next_id + 1, (*entries, Entry(next_id, arguments[0]))), next_id
    if kind == "add_all":
        added = tuple(Entry(identifier, title) for identifier, title in enumerate(arguments[0], next_id))
        return (next_id + len(added), entries + added), tuple(entry.id for entry in added)
    if kind == "update":
        after = tuple(entry._replace(**arguments[1]) if entry.id == arguments[0] else entry for entry in entries)
        return (next_id, after), next((entry for entry in after if entry.id == arguments[0]), None)
    if kind == "delete":
        after = tuple(entry for entry in entries if entry.id != arguments[0])
        return (next_id, after), len(after) < len(entries)
    if kind in ("clear", "drop"):
        return (1, ()), None
    return todo, entries if kind == "entries" else len(entries)
