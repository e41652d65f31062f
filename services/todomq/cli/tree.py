"""``todomq probe tree`` and ``probe top``: every process with its state, memory, processor and queues.

Owns: what is gathered of each process, both drawings. Must not know: how lists are found, what is healthy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from todomq.cli.asking import ask_all, ask_names, calling, registered_in
from todomq.cli.show import coloured, counted, dim, duration, name_of, safe, size, table
from todomq.cli.stack_parts import (
    STANDS_STILL,
    Name,
    expected_daemons,
    is_here,
    processor_seconds,
    resident_bytes,
    supervised,
    uptime_s,
)
from todomq.daemons import KINDS, LISTENER, name_of_process
from todomq.errors import CorruptRecord
from todomq.runtime.local_process import is_stopped

if TYPE_CHECKING:
    from rich.table import Table

    from todomq.client import Client, Pipeline
    from todomq.settings import Settings
    from todomq.supervision.manager import Process

ASK_S = 1.0
ROUTER: Name = ("router",)
REGISTERED, UNKNOWN = "REGISTERED", "UNKNOWN"


class Row(NamedTuple):
    """One process.

    Attributes:
        group: its supervision group.
        name: its registered name; ``("supervision",)`` for the listener.
        state: supervisord's word for it. If no supervisord here knows of it ``REGISTERED`` or ``ABSENT``, or
            ``UNKNOWN`` where the registry does not answer.
        pid: 0 if it does not run, or does on another machine.
        uptime_s: seconds, or None.
        restarts: in the life of this supervisord, or None.
        stats: what it says of itself; None if it does not answer, empty if it was not asked.
    """

    group: str
    name: Name
    state: str
    pid: int
    uptime_s: int | None
    restarts: int | None
    stats: dict[str, Any] | None

    def value(self) -> dict[str, Any]:
        """Return the row as a value for programs."""
        return {**self._asdict(), "memory": memory_value(self.pid), "queue": queue(self)}


def memory_value(pid: int) -> dict[str, int] | None:
    """Return a process's memory in bytes as a value for programs, None where it can't be seen."""
    held = resident_bytes(pid) if pid else None
    return None if held is None else {"pss": held[0], "rss": held[1]}


def gather(todo: Client, settings: Settings) -> list[Row]:
    """Return every process of the stack, in the order of the tree. One that does not answer is there all the same."""
    from todomq.client.session import RouterSilent

    processes = supervised(settings, todo.endpoint)
    rows = _supervised_rows(settings, processes) if processes else _registered_rows(todo, settings, None)
    # The router is asked first and alone, or it would count the other questions among the requests in flight.
    answers = ask_all(todo, {row.name: _stats_of(row.name) for row in rows if row.name == ROUTER and _is_asked(row)})
    if any(isinstance(answer.error, RouterSilent) for answer in answers.values()):  # it says nothing of the others
        return [row._replace(stats=None if row.name == ROUTER else {}) for row in rows]
    if processes:
        of_home, registered = {row.name: row for row in rows}, _registered_rows(todo, settings, processes)
        listener = [row for row in rows if row.group == LISTENER]  # which is registered nowhere
        rows = listener + [of_home.get(row.name, row) for row in registered]
    asked = [row.name for row in rows if _is_asked(row) and row.name not in answers]
    answers |= ask_all(todo, {name: _stats_of(name) for name in asked})
    return [row._replace(stats=answers[row.name].value) if row.name in answers else row for row in rows]


def _is_asked(row: Row) -> bool:
    return row.group != LISTENER and (row.pid != 0 or row.state in (REGISTERED, UNKNOWN))


def _stats_of(name: Name) -> Callable[[Pipeline], Future[Any]]:
    return calling(name, "stats", deadline_s=ASK_S)


def queue(row: Row) -> str:
    """Return what waits in a daemon, as the daemon itself says."""
    stats = row.stats
    if stats is None and row.pid and is_stopped(row.pid):
        return STANDS_STILL
    if stats is None:
        return "does not answer" if _is_asked(row) else ""
    if not stats:
        return ""  # not asked
    match row.name[0]:
        case "router":
            moving = stats["moving_partitions"]
            more = f", {counted(moving, 'partition')} moving" if moving else ""
            return f"{stats['in_flight'] - 1:,} in flight{more}"  # less this very question
        case "cache":
            return f"{stats['waiting']:,} waiting"
        case "database_worker":
            return _waiting(stats["waiting"], "waiting", stats["waiting_bytes"])
        case "list_server":
            return _waiting(stats["uncommitted_batches"], "uncommitted", stats["uncommitted_bytes"])
        case _:
            return ""


def _waiting(count: int, what: str, held_bytes: int) -> str:
    return f"{count:,} {what}{f' ({size(held_bytes)})' if held_bytes else ''}"


def content(row: Row) -> str:
    """Return what a daemon holds, as the daemon itself says."""
    stats = row.stats or {}
    match row.name[0] if stats else "":
        case "registry":
            return counted(stats["names"], "name")
        case "cache":
            return f"{counted(sum(stats['partitions'].values()), 'partition')} placed"
        case "database_worker":
            # Its count of records is a guess. Nothing is known of a shard that was never open.
            held = [f"{size(stats['disk_bytes'] + stats['memory_bytes'])} stored"] if "disk_bytes" in stats else []
            trouble = [f"storage {stats['storage']}: {stats['trouble']}"] if stats["trouble"] else []
            return ", ".join(trouble + held)
        case "list_server":
            more = f", {stats['quarantined']} quarantined" if stats["quarantined"] else ""
            damaged = stats["damaged_partitions"]
            more += f", {counted(damaged, 'partition')} damaged" if damaged else ""
            return f"{counted(stats['lists'], 'list')} in {counted(stats['partitions'], 'partition')}{more}"
        case "router":
            return f"{stats.get('requests', 0):,} requests so far"
        case _:
            return ""


def tree_lines(rows: list[Row], settings: Settings, endpoint: str) -> list[str]:
    """Return the supervision tree as lines, safe already; columns are as narrow as they can be, so that all shows.

    Args:
        rows: what ``gather`` returns.
        settings: those of this home.
        endpoint: the router that was asked.
    """
    of_whom = "no supervisord answers" if endpoint == settings.address("router") else safe(endpoint)
    is_supervised = any(row.group == LISTENER for row in rows)
    lines = ["supervisord" if is_supervised else f"{of_whom}; this is what the registry knows"]
    groups = list(dict.fromkeys(row.group for row in rows))
    columns = {row.name: _tree_columns(row) for row in rows}
    widths = [max(map(len, column)) for column in zip(*columns.values())]
    for group in groups:
        is_last = group == groups[-1]
        lines.append(f"{'└' if is_last else '├'}─ {group}")
        members = [row for row in rows if row.group == group]
        for row in members:
            branch = "└" if row is members[-1] else "├"
            name, state, *more = (f"{each:<{width}}" for each, width in zip(columns[row.name], widths) if width)
            told = [name, coloured(state, row.state in ("RUNNING", REGISTERED)), *more, dim(safe(_work(row)))]
            stem = " " if is_last else "│"
            lines.append(f"{stem}  {branch}─ {'  '.join(told)}".rstrip())
            if _fault(row):
                lines.append(f"{stem}  {' ' if row is members[-1] else '│'}    {coloured(safe(_fault(row)), False)}")
    return lines


def _tree_columns(row: Row) -> tuple[str, ...]:
    """Return what is told of a process besides its work; empty texts if there is nothing to tell."""
    uptime = "?" if row.uptime_s is None else duration(max(row.uptime_s, 1))
    return (
        name_of(list(row.name)), row.state, f"pid {row.pid}" if row.pid else "", f"up {uptime}" if row.pid else "",
        counted(row.restarts, "restart") if row.restarts else "",
    )  # fmt: skip


def _work(row: Row) -> str:
    """Return what a process has to do and what it holds; what is wrong with it has a line of its own."""
    return "" if _fault(row) else "  ".join(part for part in (queue(row), content(row)) if part)


def _fault(row: Row) -> str:
    """Return what is wrong with a process that runs, as far as it can be seen here."""
    if row.stats is None:
        return queue(row)
    return content(row) if row.stats.get("trouble") else ""


class Sample(NamedTuple):
    """All processes at one time, in seconds of the steady clock, and of processor time by pid."""

    taken_s: float
    rows: list[Row]
    processor_s: dict[int, float | None]


def sample(todo: Client, settings: Settings) -> Sample:
    """Take a sample for ``top``."""
    rows = gather(todo, settings)
    return Sample(time.monotonic(), rows, {row.pid: processor_seconds(row.pid) for row in rows if row.pid})


def top_table(now: Sample, before: Sample, width: int) -> Table:
    """Return the table of ``top`` for a terminal of this width; rates are since the sample before."""
    columns = ("daemon", "pid", "cpu %", "memory", "work/s", "queue", "holds")
    rows = [_top_row(row, now, before) for row in now.rows]
    return table(columns, rows, right=columns[1:5], width=width)


def top_value(now: Sample, before: Sample) -> list[dict[str, Any]]:
    """Return what the table of ``top`` shows as a value for programs."""
    return [
        {
            **row.value(),
            "processor_percent": _processor_percent(row, now, before),
            "work_per_s": _work_rate(row, now, before),
        }
        for row in now.rows
    ]


def _top_row(row: Row, now: Sample, before: Sample) -> tuple[object, ...]:
    held = resident_bytes(row.pid) if row.pid else None
    processor, work = _processor_percent(row, now, before), _work_rate(row, now, before)
    return (
        name_of(list(row.name)), row.pid or row.state, "" if processor is None else f"{processor:.0f}",
        "" if held is None else size(held[0]), "" if work is None else f"{work:,.0f}", queue(row), content(row),
    )  # fmt: skip


def _processor_percent(row: Row, now: Sample, before: Sample) -> float | None:
    spent = now.processor_s.get(row.pid)
    spent_before = before.processor_s.get(row.pid)
    if spent is None or spent_before is None:
        return None
    return 100 * (spent - spent_before) / (now.taken_s - before.taken_s)


def _work_rate(row: Row, now: Sample, before: Sample) -> float | None:
    """Return requests (router), commits (worker) or messages (others) per second."""
    then = next((other for other in before.rows if other.name == row.name), None)
    counter = {"router": "requests", "database_worker": "commits"}.get(str(row.name[0]), "messages")
    if then is None or not row.stats or not then.stats or then.stats["incarnation"] != row.stats["incarnation"]:
        return None
    done: float = row.stats.get(counter, 0) - then.stats.get(counter, 0)
    return done / (now.taken_s - before.taken_s)


def _supervised_rows(settings: Settings, processes: list[Process]) -> list[Row]:
    from todomq.supervision import run_files

    try:
        restarts: dict[str, int] | None = run_files.read_restarts(settings.run)
    except CorruptRecord:
        restarts = None
    return [
        Row(
            process.group, name_of_process(process.name), process.state, process.pid, process.uptime_s,
            None if restarts is None else restarts.get(process.name, 0), None,
        )
        for process in processes
    ]  # fmt: skip


def _registered_rows(todo: Client, settings: Settings, processes: list[Process] | None) -> list[Row]:
    """Return the daemons that there should be, as the registry knows them."""
    from todomq.client.session import RouterSilent

    names = ask_names(todo, ASK_S)
    if isinstance(names.error, RouterSilent):
        raise names.error
    registered = registered_in(names)
    rows = []
    for name in expected_daemons(settings, processes, registered):
        pid = (registered or {}).get(name) or 0
        pid = pid if pid and is_here(pid, name, todo.endpoint) else 0
        state = UNKNOWN if registered is None else REGISTERED if name in registered else "ABSENT"
        rows.append(Row(KINDS[str(name[0])].group, name, state, pid, uptime_s(pid) if pid else None, None, None))
    return rows
