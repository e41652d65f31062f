"""The file formats of import and export: CSV and todo.txt. Pure: lines of bytes in, fields out, and back.

Owns: both formats. Must not know: files, the service, the terminal. The commands ``import`` and ``export`` use it.
Lines are UTF-8; a byte order mark and ``\\r\\n`` are understood, ``\\n`` alone is written. Blank lines are no entries.

**CSV**: ``YYYY-MM-DD,title`` a line, quoted as RFC 4180 says; an entry without a date has nothing before the comma.
It has no place for ``done`` and ``extra``.

**todo.txt** (http://todotxt.org, https://github.com/todotxt/todo.txt): what a line says becomes

- ``done``: ``x `` stands at the beginning.
- ``date``: the last ``due:YYYY-MM-DD``.
- ``extra``: ``priority`` ("A"), ``projects``, ``contexts`` (lists without ``+`` and ``@``), ``created``, ``completed``
  (dates), and each other ``key:value`` under its key. A key begins with a letter and a value never with ``//``, so a
  time of day or a URL is no ``key:value``. If a key comes twice the last one counts; the earlier word is text, and so
  is one whose key is among the names above.
- ``title``: the words of the description without ``due:`` and without projects, contexts and ``key:value`` at either
  end; in the middle they stay, since the sentence may need them. If the description has nothing else, all of it is the
  title.

Export gives the same line back, byte for byte: if these fields alone would not, the line itself is kept in
``extra["todo.txt"]``, and counts for as long as reading it gives the entry as it is. If the entry was changed since,
the beginning (done, priority, dates) is made anew. The description stays as it was if title, date and the rest are as
they were; otherwise it is title, projects, contexts, ``key:value``, ``due:``. What todo.txt can't say is left out (in
``extra``: values that are not a single word); a creation date that has no place, because the day of completion is not
known, becomes ``created:``. A title that itself looks like todo.txt (``x ``, ``+word``) is written as it is, and
readers will take it for todo.txt.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any, NamedTuple, Protocol

from todomq.errors import InvalidRequest
from todomq.protocol import limits
from todomq.protocol.entries import check_entry_size, check_title, is_date

LINE = "todo.txt"
"""The field of ``extra`` that keeps a line if the other fields would not give it back."""

LINE_BYTES = 4 * limits.REQUEST_BYTES
"""The longest line that is read at all."""

_HEAD_FIELDS = ("priority", "created", "completed")
_TAKEN = ("priority", "completed", "projects", "contexts", LINE)  # by what is no key:value
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PRIORITY = re.compile(r"\(([A-Z])\) ")
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2}) ")
_KEY_VALUE = re.compile(r"([A-Za-z][^\s:]*):((?!//)[^\s:]+)")


_CSV_FAULTS = {
    "new-line character": "a lone carriage return; save the file with LF or CRLF line ends",
    "unexpected end of data": "the quoted title that begins here is never closed",
    "expected after": "a quoted title ends before its line does; a quote in it is written twice",
    "field larger": f"a field of more than {limits.REQUEST_BYTES:,} characters",
}
"""What the errors of the csv module mean here, by some words of the error."""


class FormatError(InvalidRequest):
    """A line that the format does not allow; the text names its number and what is wrong."""


class EntryFields(NamedTuple):
    """What a file says of one entry: an entry without its id."""

    title: str
    date: date | None = None
    done: bool = False
    extra: dict[str, Any] | None = None


class HasFields(Protocol):
    """What can be exported: an ``Entry`` of the client or ``EntryFields``."""

    @property
    def title(self) -> str: ...
    @property
    def date(self) -> date | None: ...
    @property
    def done(self) -> bool: ...
    @property
    def extra(self) -> dict[str, Any] | None: ...


def read_csv(lines: Iterable[bytes]) -> Iterator[EntryFields]:
    """Yield what the lines of a CSV file say, one by one.

    Args:
        lines: the file's lines as ``open(path, "rb")`` gives them.

    Raises:
        FormatError: at the first line that is not ``YYYY-MM-DD,title``; what came before has been yielded.
    """
    csv.field_size_limit(limits.REQUEST_BYTES)  # a title that is too long is refused as one
    rows = csv.reader(_decoded(lines), strict=True)
    while True:
        number = rows.line_num + 1  # of the first line where a quoted title has several
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            said = next((text for words, text in _CSV_FAULTS.items() if words in str(error)), str(error))
            raise FormatError(f"line {number}: {said}") from None
        if row:
            yield _csv_fields(number, row)


def csv_line(entry: HasFields) -> bytes:
    """Return an entry as a line of CSV."""
    title = entry.title
    if any(sign in title for sign in ',"\r\n'):
        title = '"' + title.replace('"', '""') + '"'
    return f"{'' if entry.date is None else entry.date.isoformat()},{title}\n".encode()


def read_todo_txt(lines: Iterable[bytes]) -> Iterator[EntryFields]:
    """Yield what the lines of a todo.txt file say, one by one.

    Args:
        lines: the file's lines as ``open(path, "rb")`` gives them.

    Raises:
        FormatError: at the first line that is no UTF-8 or makes too large an entry; what came before has been yielded.
    """
    for number, text in enumerate(_decoded(lines), 1):
        line = text.removesuffix("\n").removesuffix("\r")
        if not line.strip():
            continue
        fields = _read_line(line)
        if _write_line(fields, _description_of(fields)) != line:
            fields = fields._replace(extra={**(fields.extra or {}), LINE: line})
        _check_fields(number, fields)
        yield fields


def todo_txt_line(entry: HasFields) -> bytes:
    """Return an entry as a line of todo.txt: the very line it was read from, if nothing has changed since."""
    extra = {key: value for key, value in (entry.extra or {}).items() if key != LINE}
    fields = EntryFields(entry.title, entry.date, entry.done, extra or None)
    kept = (entry.extra or {}).get(LINE)
    description = _description_of(fields)
    if type(kept) is str and kept.strip() and "\n" not in kept:
        before = _read_line(kept)
        if before == fields:
            return f"{kept}\n".encode()
        if _without_head(before) == _without_head(fields):
            description = _split_head(kept)[2]
    return f"{_write_line(fields, description)}\n".encode()


def says_extra(entry: HasFields, line: bytes) -> bool:
    """Tell whether an entry's line of todo.txt says all of its ``extra``; digits count as saying a number."""
    extra = {key: value for key, value in (entry.extra or {}).items() if key != LINE}
    if not extra:
        return True
    said = _read_line(line.decode().removesuffix("\n")).extra or {}
    return all(_is_said(value, said.get(key)) for key, value in extra.items())


def _is_said(value: Any, said: object) -> bool:
    if type(value) is list:
        return all(name in (said if type(said) is list else ()) for name in value)
    return str(value) == said


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_BYTES:
            raise FormatError(f"line {number}: over {LINE_BYTES} bytes, and no entry has so many")
        try:
            yield (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"line {number}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None


def _csv_fields(number: int, row: list[str]) -> EntryFields:
    if len(row) == 1:
        raise FormatError(f"line {number}: a line is YYYY-MM-DD,title, and this one has no comma")
    if len(row) != 2:
        raise FormatError(
            f"line {number}: YYYY-MM-DD,title has 2 fields, not {len(row)}; a title with a comma stands in quotes"
        )
    day, title = row
    if day and not is_date(day):
        heading = "; a file has no heading" if number == 1 and not any(map(str.isdigit, day)) else ""
        raise FormatError(f"line {number}: {day[:32]!a} is not a calendar date YYYY-MM-DD{heading}")
    fields = EntryFields(title, date.fromisoformat(day) if day else None)
    _check_fields(number, fields)
    return fields


def _check_fields(number: int, fields: EntryFields) -> None:
    try:
        check_title(fields.title)
        day = None if fields.date is None else fields.date.isoformat()
        check_entry_size(fields.title, day, fields.done, fields.extra or {})
    except InvalidRequest as error:
        raise FormatError(f"line {number}: {error}") from None


def _read_line(line: str) -> EntryFields:
    """Return what a todo.txt line that is not blank says, without the line itself."""
    done, head, description = _split_head(line)
    words = description.split()
    pairs = _pairs_of(words, taken={*_TAKEN, *head})
    said = dict(pairs.values())
    due = said.pop("due", None)
    projects = list(dict.fromkeys(word[1:] for word in words if _is_name(word) and word[0] == "+"))
    contexts = list(dict.fromkeys(word[1:] for word in words if _is_name(word) and word[0] == "@"))
    lists = {"projects": projects, "contexts": contexts}
    extra = {**head, **{key: names for key, names in lists.items() if names}, **said}
    return EntryFields(_title_of(words, pairs), date.fromisoformat(due) if due else None, done, extra or None)


def _split_head(line: str) -> tuple[bool, dict[str, str], str]:
    """Return whether a line is done, the priority and dates it begins with, and the description behind them.

    The format puts a done line's dates right after the ``x``. It would drop the priority there, but programs write one
    before or behind the dates, so it is read in both places. A line with nothing behind such a beginning has no
    beginning: all of it is the description.
    """
    head: dict[str, str] = {}
    done, rest = line.startswith("x "), line.removeprefix("x ")
    for field in ("priority", "completed", "created", "priority", "created") if done else ("priority", "created"):
        match = None if field in head else (_PRIORITY if field == "priority" else _DAY).match(rest)
        if match and (field == "priority" or is_date(match[1])):
            head[field] = match[1]
            rest = rest[match.end() :]
    return (done, head, rest) if rest.strip() else (False, {}, line)


def _pairs_of(words: list[str], taken: set[str]) -> dict[int, tuple[str, str]]:
    """Return each ``key:value`` that counts, by its place among the words: the last of every key."""
    pairs: dict[int, tuple[str, str]] = {}
    for place in reversed(range(len(words))):
        match = _KEY_VALUE.fullmatch(words[place])
        if match and match[1] not in taken and (match[1] != "due" or is_date(match[2])):
            taken.add(match[1])
            pairs[place] = (match[1], match[2])
    return dict(reversed(pairs.items()))


def _is_name(word: str) -> bool:
    return len(word) > 1 and word[0] in "+@"


def _title_of(words: list[str], pairs: dict[int, tuple[str, str]]) -> str:
    due = next((place for place, (key, _) in pairs.items() if key == "due"), None)
    places = [place for place in range(len(words)) if place != due]
    text = [place for place in places if place not in pairs and not _is_name(words[place])]
    if not text:
        return " ".join(words)
    return " ".join(words[place] for place in places if text[0] <= place <= text[-1])


def _write_line(fields: EntryFields, description: str) -> str:
    """Return the line of a done or open entry with this description."""
    extra = fields.extra or {}
    priority, created, completed = (extra.get(field) for field in _HEAD_FIELDS)
    priority = f"({priority}) " if type(priority) is str and _PRIORITY.match(f"({priority}) ") else ""
    created = created if _is_day(created) and f"created:{created}" not in description.split() else ""
    if not fields.done:
        return f"{priority}{created} {description}" if created else f"{priority}{description}"
    if not _is_day(completed):  # the first date behind x would be taken for the day of completion
        return f"x {priority}{description}" + (f" created:{created}" if created else "")
    return f"x {completed} {created} {priority}{description}" if created else f"x {completed} {priority}{description}"


def _description_of(fields: EntryFields) -> str:
    """Return title, projects, contexts, ``key:value`` and ``due:`` as one line, each word of them once."""
    extra = fields.extra or {}
    words = fields.title.split() or ["(untitled)"]
    marks = [f"+{name}" for name in _names(extra.get("projects"))]
    marks += [f"@{name}" for name in _names(extra.get("contexts"))]
    for key, value in extra.items():
        mark = f"{key}:{value}" if type(value) in (str, int, float, bool) else ""
        if _KEY_VALUE.fullmatch(mark) and key not in _TAKEN and not (key == "created" and _is_day(value)):
            marks.append(mark)
    words += [mark for mark in marks if mark not in words]
    # The last due: counts, so it stands behind one that the title holds.
    return " ".join(words if fields.date is None else [*words, f"due:{fields.date.isoformat()}"])


def _names(value: Any) -> list[str]:
    if type(value) is not list:
        return []
    return [name for name in value if type(name) is str and name and not re.search(r"\s", name)]


def _is_day(value: Any) -> bool:
    return type(value) is str and is_date(value)


def _without_head(fields: EntryFields) -> tuple[Any, ...]:
    extra = fields.extra or {}
    return fields.title, fields.date, {key: value for key, value in extra.items() if key not in _HEAD_FIELDS}
