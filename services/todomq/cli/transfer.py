"""``todomq import`` and ``todomq export``: files into lists and back.

Owns: files, formats by suffix, batches, progress. Must not know: how a line is read or written (``formats.py``).
A file is read to its end before anything is sent, so one with a bad line changes nothing (law 7). Its entries then go
in batches, each all or none, many in flight; they keep the order of the file.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from enum import Enum
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer

from todomq.cli.asking import first_failure
from todomq.cli.command import INTERRUPTS, Result, command
from todomq.cli.connection import connect
from todomq.cli.lists import ListName, is_absent
from todomq.cli.show import counted, is_terminal, safe
from todomq.errors import InvalidRequest, TodoMQError

if TYPE_CHECKING:
    from todomq.cli.formats import EntryFields
    from todomq.cli.progress import Advance, Begin
    from todomq.client import Client, Entry

BATCH_BYTES = 256 * 1024
BATCH_ENTRIES = 4_000
ENTRY_OVERHEAD_BYTES = 24
DEADLINE_S = 60.0
STANDARD_STREAM = Path("-")


class Format(Enum):
    """A format of files."""

    CSV = "csv"
    TODO_TXT = "todo.txt"


NO_PLACE = {
    Format.CSV: "csv has no place for done, priority, projects and the like",
    Format.TODO_TXT: "todo.txt has no place for values that are not a single word",
}
SUFFIXES = {".csv": Format.CSV, ".txt": Format.TODO_TXT}

FormatOption = Annotated[
    Format | None, typer.Option("--format", "-f", help="The format, if the name does not tell.", show_default=False)
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    command(app, "import")(import_file)
    command(app, "export")(export_list)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .txt file; - is standard input.")],
    list_name: ListName,
    format: FormatOption = None,
) -> Result:
    """Add a file's entries to a list. The file is CSV (YYYY-MM-DD,title without a heading) or todo.txt.

    The whole file is read first. If a line of it can't be understood, the error names the line and nothing is added.

    Example: todomq import todo.txt "Bob's list"
    """
    from todomq.cli.progress import bars

    _check_is_no_directory(file)
    if file != STANDARD_STREAM and not file.exists():
        raise typer.BadParameter(f"there is no file {safe(str(file))}")
    chosen = _format_of(file, format)
    with bars(transient=True) as begin, connect(DEADLINE_S) as todo:
        fields = read_file(file, chosen, begin)
        store(todo, list_name, fields, begin("storing", len(fields)))
    text = f"{counted(len(fields), 'entry', 'entries')} added to {safe(list_name)}."
    return Result({"list": list_name, "entries": len(fields), "format": chosen.value}, text)


def export_list(
    list_name: ListName,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Standard output if left out.", show_default=False)
    ] = None,
    format: FormatOption = None,
) -> Result:
    """Write a list's entries to a file or to standard output. The format is todo.txt, or CSV (YYYY-MM-DD,title).

    Every line of an imported todo.txt comes back, except blank ones. CSV has no place for done, projects and the like.

    Example: todomq export "Bob's list" bob.csv
    """
    if file == STANDARD_STREAM:
        file = None
    if file is not None:
        _check_is_no_directory(file)
        if not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"there is no directory {safe(str(file.parent))}")
    chosen = Format.TODO_TXT if file is None and format is None else _format_of(file, format)
    with connect(DEADLINE_S) as todo:
        entries = todo.todo_list(list_name).entries()
        lines = lines_of(entries, chosen)
        no_list = not lines and is_absent(todo, list_name)
    if no_list and file is not None:
        raise InvalidRequest(f"there is no list {list_name}; {file} was not written")
    if no_list:
        typer.echo(f"There is no list {safe(list_name)}.", err=True)
    lost = sum(map(_loses_extra, entries, lines, repeat(chosen)))
    note = f"Something is left out of {counted(lost, 'entry', 'entries')}: {NO_PLACE[chosen]}." if lost else ""
    value = {"list": list_name, "entries": len(lines), "format": chosen.value}
    if file is None:
        return Result({**value, "text": b"".join(lines).decode()}, lambda: _write_out(lines), note=note)
    try:
        write_file(file, b"".join(lines))
    except OSError as error:
        error.filename = str(file)  # an error of writing does not name the file
        raise
    text = f"{counted(len(lines), 'entry', 'entries')} written to {safe(str(file))}."
    return Result({**value, "file": str(file)}, text, note=note)


def read_file(file: Path, format: Format, begin: Begin) -> list[EntryFields]:
    """Read a whole file.

    Raises:
        FormatError: a line can't be understood; the text names it. OSError: the file can't be read.
    """
    from todomq.cli.formats import FormatError, read_csv, read_todo_txt

    read = read_csv if format is Format.CSV else read_todo_txt
    if file == STANDARD_STREAM:
        if sys.stdin is None:
            raise typer.BadParameter("standard input is closed")
        return list(read(_lines_in(sys.stdin.buffer)))
    advance = begin("reading", file.stat().st_size)
    with file.open("rb") as lines:
        try:
            return list(read(_watched(_lines_in(lines), advance)))
        except FormatError as error:
            raise FormatError(f"{file}: {error.text}") from None
        except OSError as error:
            error.filename = str(file)  # an error of reading does not name the file
            raise


def store(todo: Client, list_name: str, fields: list[EntryFields], advance: Advance) -> None:
    """Add entries to a list, in their order, many batches in flight.

    Raises:
        TodoMQError: as adding does; the text says how many entries are in the list all the same.
    """
    stored = 0

    def noted(count: int) -> Callable[[Future[Any]], None]:
        def note(future: Future[Any]) -> None:
            nonlocal stored
            if future.exception() is None:
                stored += count
                advance(count)

        return note

    try:
        try:
            with todo.pipeline() as pipeline:
                handle = pipeline.todo_list(list_name)
                for batch in batches(fields):
                    added = [(entry.title, entry.date, entry.extra, entry.done) for entry in batch]
                    handle.add_entries(added).add_done_callback(noted(len(batch)))
        except INTERRUPTS:
            known = f"{stored:,} of {counted(len(fields), 'entry', 'entries')} are known to be in {safe(list_name)}"
            typer.echo(f"Interrupted: {known}; there may be more.", err=True)
            raise
    except* TodoMQError as failures:
        _fail(failures, stored, len(fields))


def batches(fields: Iterable[EntryFields]) -> Iterator[list[EntryFields]]:
    """Divide entries into batches of a size that one request takes."""
    batch: list[EntryFields] = []
    size = 0
    for entry in fields:
        entry_size = _size_of(entry)
        is_full = size + entry_size > BATCH_BYTES or len(batch) == BATCH_ENTRIES
        if batch and is_full:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry_size
    if batch:
        yield batch


def lines_of(entries: list[Entry], format: Format) -> list[bytes]:
    """Return entries as lines of a file."""
    from todomq.cli.formats import csv_line, todo_txt_line

    line = csv_line if format is Format.CSV else todo_txt_line
    return [line(entry) for entry in entries]


def write_file(file: Path, content: bytes) -> None:
    """Write a file beside the one that is there and put it in its place: if that fails, the old one stays.

    Devices and pipes are written directly, and so is a file that may be written but not replaced. A link stays one.
    """
    try:
        target = file.resolve()
    except RuntimeError:  # what Python raises for links that lead to each other, before 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file)) from None
    may_replace = all(os.access(path, os.W_OK) for path in (target.parent, target) if path.exists())
    is_special = str(file.absolute()).startswith(("/dev/", "/proc/")) or (file.exists() and not file.is_file())
    if is_special or not may_replace:
        file.write_bytes(content)
        return
    fresh = target.with_name(f".todomq-export-{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a process that died while it wrote
    try:
        with fresh.open("xb") as made:
            if target.exists():
                shutil.copymode(target, fresh)
            made.write(content)
            made.flush()
            os.fsync(made.fileno())
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _loses_extra(entry: Entry, line: bytes, format: Format) -> bool:
    from todomq.cli.formats import LINE, says_extra

    if format is Format.CSV:
        return entry.done or bool(entry.extra.keys() - {LINE})
    return not says_extra(entry, line)


def _fail(failures: ExceptionGroup[TodoMQError], stored: int, total: int) -> NoReturn:
    first = first_failure(failures)
    text = f"{stored:,} of {counted(total, 'entry', 'entries')} are in the list; then: {first.text}"
    raise type(first)(text, retryable=first.retryable, outcome=first.outcome) from None


def _check_is_no_directory(file: Path) -> None:
    if file.is_dir():
        raise typer.BadParameter(f"{safe(str(file))} is a directory; name a file in it")


def _format_of(file: Path | None, format: Format | None) -> Format:
    if format is not None:
        return format
    suffix = "" if file is None else file.suffix.lower()
    if file == STANDARD_STREAM:
        raise typer.BadParameter("standard input has no name that tells its format; say --format csv or todo.txt")
    if suffix not in SUFFIXES:
        raise typer.BadParameter("the file's name ends with neither .csv nor .txt; say --format csv or todo.txt")
    return SUFFIXES[suffix]


def _size_of(entry: EntryFields) -> int:
    """Return about how many bytes an entry takes in a request, rather more than less."""
    size = len(entry.title.encode()) + ENTRY_OVERHEAD_BYTES
    if entry.extra:
        from todomq.protocol.codec import pack

        size += len(pack(entry.extra))
    return size


def _lines_in(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; one that is too long comes in pieces, since it may have no end."""
    from todomq.cli.formats import LINE_BYTES

    return iter(lambda: file.readline(LINE_BYTES + 1), b"")


def _watched(lines: Iterable[bytes], advance: Advance) -> Iterator[bytes]:
    seen = 0
    for line in lines:
        seen += len(line)
        if seen > BATCH_BYTES:
            advance(seen)
            seen = 0
        yield line
    advance(seen)


def _write_out(lines: list[bytes]) -> None:
    """Write lines to standard output: as they are, but harmless where that is a terminal."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed, so nothing was written")
    if is_terminal(sys.stdout):
        for line in lines:
            print(safe(line.decode().removesuffix("\n")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()
