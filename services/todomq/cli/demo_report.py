"""What the demo found out, for a person and for programs.

Owns: the figures that follow from the measurements, how they look. Must not know: how they were measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from todomq.cli.show import coloured, console, counted, say, size, table

MANY_LISTS, FEW_LISTS = 50_000, 10_000
"""A process grows by some megabytes when it begins to work. With fewer lists than the first number, that makes a list
look dearer than it is; with fewer than the second it outweighs the lists, and no cost is told."""


class Memory(NamedTuple):
    """What one daemon holds: process id, bytes (its share of its pages; all of them), lists loaded."""

    pid: int
    pss: int
    rss: int
    lists: int


class Report(NamedTuple):
    """What the demo found out; times in seconds, memory by daemon."""

    lists: int
    imported: int
    promised: int
    broken: int
    created_s: float
    checked_s: float
    killed: list[str]
    before: dict[str, Memory]
    after: dict[str, Memory]

    @property
    def is_good(self) -> bool:
        """Whether every add was promised and every promise kept."""
        return self.broken == 0 and self.promised == self.lists

    @property
    def bytes_per_list(self) -> float | None:
        """What one loaded list costs in the list servers; None if that can't be told.

        It can't if there are too few lists, or if one of the servers was restarted meanwhile.
        """
        servers = [name for name in self.before if name.startswith("list_server") and name in self.after]
        pairs = [(self.before[name], self.after[name]) for name in servers]
        loaded = sum(after.lists - before.lists for before, after in pairs)
        if loaded < FEW_LISTS or any(before.pid != after.pid for before, after in pairs):
            return None
        return sum(after.rss - before.rss for before, after in pairs) / loaded

    def value(self) -> dict[str, Any]:
        """Return the report as a value for programs."""
        memory = {name: held._asdict() for name, held in self.after.items()}
        found = {key: value for key, value in self._asdict().items() if key not in ("before", "after")}
        return {**found, "bytes_per_list": self.bytes_per_list, "memory": memory}

    def show(self) -> None:
        """Print the report for a person."""
        imported = counted(self.imported, "entry", "entries")
        say(f"Imported {imported} of a todo.txt; its export gives every line back but blank ones.")
        rate = self.promised / self.created_s
        created = f"Created {self.promised:,} lists of one durable entry each in {self.created_s:.1f} s"
        say(f"{created}, {rate:,.0f} a second,")
        say(f"with {' and '.join(self.killed) or 'nothing'} killed meanwhile.")
        say(f"Read them all again in {self.checked_s:.1f} s, {self.lists / self.checked_s:,.0f} a second.")
        say()
        columns = ("daemon", "pid", "memory", "resident", "before", "lists")
        console().print(table(columns, map(self._row, self.after), right=columns[1:]))
        say()
        if self.bytes_per_list is not None:
            few = "; with more lists it is less" if self.lists < MANY_LISTS else ""
            say(f"A loaded list of one entry costs {self.bytes_per_list:,.0f} bytes in its list server{few}.")
        verdict = f"{self.promised:,} of {self.lists:,} adds were promised, {self.broken:,} promises were broken."
        say(coloured(verdict, self.is_good))

    def _row(self, name: str) -> tuple[object, ...]:
        held, before = self.after[name], self.before.get(name)
        was = "" if before is None else size(before.rss) if before.pid == held.pid else "(restarted)"
        return name, held.pid, size(held.pss), size(held.rss), was, f"{held.lists:,}" if held.lists else ""
