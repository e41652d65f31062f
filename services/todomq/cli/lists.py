"""The commands on lists: add, ls, done, edit, rm, clear, drop, lists.

Owns: their arguments and how entries look. Must not know: files, the parts of a stack.
"""

from __future__ import annotations

import datetime
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from todomq.cli.command import Result, command
from todomq.cli.connection import connect
from todomq.cli.exit_codes import REFUSED
from todomq.cli.show import dim, is_terminal, json_text, safe
from todomq.errors import EntryNotFound, TodoMQError
from todomq.protocol.entries import is_date

if TYPE_CHECKING:
    from todomq.client import Client, Entry

HIDDEN_FIELDS = ("todo.txt",)
"""Fields of ``extra`` that are kept for export only."""

COMPLETION_S = 0.5
LOOK_S = 1.0
"""How long to check whether there is such a list: only the wording depends on it."""


def complete_list(incomplete: str) -> list[str]:
    """Return the lists whose names begin with this, for the shell's completion; none if nobody answers."""
    try:
        with connect(COMPLETION_S) as todo:
            names = [name for name in todo.list_names(incomplete) if safe(name) == name]
    except TodoMQError:
        return []
    return [quoted for name in names if (quoted := _as_typed(name))]


class _Typed(str):
    """A name as it is typed. typer would leave it out, since it does not begin with the word as the shell reads it."""

    __slots__ = ()

    def startswith(self, *_: object) -> bool:
        return True


def _as_typed(name: str) -> str:
    """Return how a name is written in the word that is being completed: bash leaves the quoting to us, others do it."""
    if os.environ.get("_TODOMQ_COMPLETE") != "complete_bash":
        return name
    word = os.environ["COMP_WORDS"].split("\n")[int(os.environ["COMP_CWORD"]) :][:1]
    if word and word[0][:1] in ("'", '"'):  # bash adds the closing quote
        special = "'" if word[0][0] == "'" else '"$`\\!'
        return "" if set(special) & set(name) else _Typed(name)
    return _Typed(re.sub(r"([^\w@%+=:,./-])", r"\\\1", name))


def read_date(text: str) -> datetime.date:
    """Return the day that ``YYYY-MM-DD``, ``today`` or ``tomorrow`` names."""
    today = datetime.date.today()
    named = {"today": today, "tomorrow": today + datetime.timedelta(days=1)}
    if text in named:
        return named[text]
    if not is_date(text):
        raise typer.BadParameter(f"{safe(text)!r} is no day; write YYYY-MM-DD, today or tomorrow")
    return datetime.date.fromisoformat(text)


def read_id(text: str) -> int:
    """Return a text as an entry's id."""
    from todomq.protocol.messages import LIMIT

    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) < LIMIT):
        raise typer.BadParameter(f"{safe(text)!r} is no id; todomq ls shows the ids")
    return int(text)


ListName = Annotated[str, typer.Argument(metavar="LIST", help="The list's name.", autocompletion=complete_list)]
Title = Annotated[str, typer.Argument(metavar="TITLE", help="What is to be done.")]
EntryId = Annotated[int, typer.Argument(metavar="ID", parser=read_id, help="The entry's id, as ls shows it.")]
Day = Annotated[
    datetime.date | None,
    typer.Option("--date", "-d", metavar="DAY", parser=read_date, help="YYYY-MM-DD, today or tomorrow."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.", show_default=False)]


def entry_value(entry: Entry) -> dict[str, Any]:
    """Return an entry as a value for programs."""
    day = None if entry.date is None else entry.date.isoformat()
    return {"id": entry.id, "title": entry.title, "date": day, "done": entry.done, "extra": entry.extra}


def entry_line(entry: Entry, id_width: int = 1, has_dates: bool = True) -> str:
    """Return an entry as a line for a person."""
    day = "" if entry.date is None else entry.date.isoformat()
    title = safe(entry.title) if entry.title.strip() else f'"{safe(entry.title)}"'
    date_column = f"{day:<10}  " if has_dates else ""
    extra = {key: value for key, value in entry.extra.items() if key not in HIDDEN_FIELDS}
    more = dim(f"  {_extra_text(extra)}") if extra else ""
    mark = "[x]" if entry.done else "[ ]"
    return f"{entry.id:>{id_width}}  {mark}  {date_column}{dim(title) if entry.done else title}{more}"


def entries_text(entries: list[Entry]) -> str:
    """Return entries as lines whose columns are aligned."""
    id_width = max((len(str(entry.id)) for entry in entries), default=1)
    has_dates = any(entry.date is not None for entry in entries)
    return "\n".join(entry_line(entry, id_width, has_dates) for entry in entries)


def is_absent(todo: Client, list_name: str) -> bool:
    """Tell whether there is no list of this name, False if that can't be seen; to be asked if it has no entries."""
    try:
        return list_name not in todo.list_names(list_name, deadline_s=LOOK_S)
    except TodoMQError:
        return False


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for function in (add, ls, done, edit, rm, clear, drop, lists):
        command(app)(function)


def add(list_name: ListName, title: Title, date: Day = None) -> Result:
    """Add an entry. When the command returns, it is on disk.

    Example: todomq add "Bob's list" dentist --date 2026-12-01
    """
    with connect() as todo:
        entry = todo.todo_list(list_name).add_entry(title, date)
    return Result(entry_value(entry), entry_line(entry, has_dates=date is not None))


def ls(
    list_name: ListName,
    date: Day = None,
    undated: Annotated[bool, typer.Option("--undated", help="Only those without a date.", show_default=False)] = False,
) -> Result:
    """Show a list's entries: all, a day's, or those without a date.

    Example: todomq ls "Bob's list" --date today
    """
    if undated and date is not None:
        raise typer.BadParameter("--date and --undated exclude each other")
    with connect() as todo:
        handle = todo.todo_list(list_name)
        entries = handle.undated_entries() if undated else handle.entries(date)
        no_list = not entries and is_absent(todo, list_name)
    if entries:
        return Result([entry_value(entry) for entry in entries], entries_text(entries))
    note = f"No entries{' of that kind' if undated or date else ''} in {safe(list_name)}."
    return Result([], "", note=dim(f"There is no list {safe(list_name)}." if no_list else note))


def done(
    list_name: ListName,
    id: EntryId,
    undo: Annotated[bool, typer.Option("--undo", help="It is not done after all.", show_default=False)] = False,
) -> Result:
    """Mark an entry as done.

    Example: todomq done "Bob's list" 1
    """
    with connect() as todo:
        entry = todo.todo_list(list_name).update_entry(id, done=not undo)
    return Result(entry_value(entry), entry_line(entry, has_dates=entry.date is not None))


def edit(
    list_name: ListName,
    id: EntryId,
    title: Annotated[str | None, typer.Option("--title", "-t", metavar="TITLE", help="The new title.")] = None,
    date: Day = None,
    no_date: Annotated[bool, typer.Option("--no-date", help="Remove the date.", show_default=False)] = False,
) -> Result:
    """Change an entry's title or date. What is left out stays as it is.

    Example: todomq edit "Bob's list" 1 --title "dentist at 9" --date tomorrow
    """
    if no_date and date is not None:
        raise typer.BadParameter("--date and --no-date exclude each other")
    changes: dict[str, Any] = {}
    if title is not None:
        changes["title"] = title
    if no_date or date is not None:
        changes["date"] = date
    if not changes:
        raise typer.BadParameter("nothing to change: give --title, --date or --no-date")
    with connect() as todo:
        entry = todo.todo_list(list_name).update_entry(id, **changes)
    return Result(entry_value(entry), entry_line(entry, has_dates=entry.date is not None))


def rm(list_name: ListName, id: EntryId) -> Result:
    """Delete an entry. Its id is not given again.

    Example: todomq rm "Bob's list" 1
    """
    with connect() as todo:
        if not todo.todo_list(list_name).delete_entry(id):
            raise EntryNotFound(f"the list has no entry {id}")
    return Result({"id": id, "deleted": True}, f"Entry {id} is deleted.")


def clear(list_name: ListName, yes: Yes = False) -> Result:
    """Delete all entries of a list. Ids start at 1 again.

    Example: todomq clear "Bob's list" --yes
    """
    if not _is_wanted(f"Delete all entries of {safe(list_name)}?", yes):
        return _not_done(list_name, "cleared")
    with connect() as todo:
        todo.todo_list(list_name).clear()
    return Result({"list": list_name, "cleared": True}, f"{safe(list_name)} is empty.")


def drop(list_name: ListName, yes: Yes = False) -> Result:
    """Delete a list and all that is in it. If there is no such list, nothing is done.

    Example: todomq drop "Bob's list" --yes
    """
    if not _is_wanted(f"Delete the list {safe(list_name)} with all that is in it?", yes):
        return _not_done(list_name, "deleted")
    with connect() as todo:
        no_list = is_absent(todo, list_name)
        todo.todo_list(list_name).delete()  # all the same: somebody may be just creating it
    told = f"There was no list {safe(list_name)}." if no_list else f"{safe(list_name)} is deleted."
    return Result({"list": list_name, "deleted": not no_list}, told)


def lists(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="How the names begin.", show_default=False)] = "",
) -> Result:
    """Show the names of all lists, sorted.

    Example: todomq lists Bob
    """
    with connect() as todo:
        names = todo.list_names(prefix)
    none = "There are no lists yet; add an entry to one to create it."
    if prefix:
        none = f"No list begins with {safe(prefix)}."
    return Result(names, _lines(names), note="" if names else dim(none))


def _lines(names: Iterable[str]) -> str:
    return "\n".join(map(safe, names))


def _is_wanted(question: str, yes: bool) -> bool:
    """Ask if somebody sits at a terminal; a script has already said what it wants."""
    if yes or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        return True
    return typer.confirm(question)


def _not_done(list_name: str, what: str) -> Result:
    return Result({"list": list_name, what: False}, "Nothing was changed.", REFUSED)


def _extra_text(extra: dict[str, Any]) -> str:
    return "  ".join(f"{safe(key)}={_plain(value)}" for key, value in extra.items())


def _plain(value: Any) -> str:
    return safe(value) if type(value) is str else json_text(value)
