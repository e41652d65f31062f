"""What reaches the terminal: text made harmless, JSON, tables.

Owns: escaping, JSON of any value, the consoles. Must not know: the service. Every command prints through this module.

Names, titles and the texts of errors come from others. Before they are shown, whatever a terminal would act on (control
characters with their escape sequences, marks that turn the direction of writing, line and paragraph separators) is
replaced by its escape, ``\\x1b`` or ``\\u202e``. Nothing in them is read as markup. JSON is ASCII, so the same holds.
"""

from __future__ import annotations

import json
import math
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_A_PIPE = 200
LEAST_WIDTH = 12
GAP = 3
"""How many signs stand between two columns of a table."""

_HARMFUL = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_JOINERS = "\u200c\u200d"  # emoji and some scripts are spelled with them, and they move nothing


def safe(text: str) -> str:
    """Return the text with everything that a terminal would act on replaced by its escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(sign) if _is_harmful(sign) else sign for sign in text)


def name_of(value: Any) -> str:
    """Return a registered name as a person writes it: ``list_server 1`` for ``["list_server", 1]``."""
    if type(value) is list and value and type(value[0]) is str:
        return safe(" ".join(str(part) for part in value))
    return safe(value if type(value) is str else repr(value))


def json_text(value: Any) -> str:
    """Return any value of the service as one line of JSON in ASCII; bytes are written as hexadecimal text.

    Keys are written as JSON writes their values; a map in which two keys would become the same is a list of pairs.
    """
    return json.dumps(_json_value(value))


def say(text: str = "") -> None:
    """Print a text that is safe already; its colours are left out if the output is no terminal."""
    import typer

    typer.echo(text)


def say_cut(lines: Iterable[str]) -> None:
    """Print lines as ``say`` does; on a terminal each takes one line, and one that is too long is cut."""
    screen = console()
    if not screen.is_terminal:
        say("\n".join(lines))
        return
    from rich.text import Text

    for line in lines:
        text = Text.from_ansi(line)
        text.truncate(screen.width, overflow="ellipsis")
        screen.print(text)


def make_output_forgiving() -> None:
    """Show a sign's escape if the terminal can't show the sign: that must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a standard stream is a terminal. A closed stream is None."""
    return stream is not None and stream.isatty()


def dim(text: str) -> str:
    """Return the text in a weaker colour."""
    return _styled(text, dim=True)


def coloured(text: str, is_good: bool) -> str:
    """Return the text in green or in red."""
    return _styled(text, fg="green" if is_good else "red", bold=not is_good)


def console(stderr: bool = False) -> Console:
    """Return a console for what rich draws; nothing that it is given is read as markup."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    width = None if is_terminal(file) else WIDTH_OF_A_PIPE
    return Console(file=file or StringIO(), width=width, markup=False, emoji=False, highlight=False)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = (), width: int | None = None
) -> Table:
    """Return a table.

    Args:
        columns: their headings.
        rows: one value for each column; texts that are safe already.
        right: the columns that are aligned to the right.
        width: the terminal's, if each row is to take one line: a row that is too long is cut in the last column, which
            is left out if less than ``LEAST_WIDTH`` of it would be seen. None lets rows go on below.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths: Sequence[int | None] = [None] * len(columns)
    if width is not None:
        widths = _fitting([max(map(len, cells)) for cells in zip(columns, *texts)], width)
    for place, (column, cut_at) in enumerate(zip(columns, widths)):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        is_cut = cut_at is not None
        overflow: Literal["fold", "ellipsis"] = "ellipsis" if is_cut else "fold"
        made.add_column(column, justify=justify, overflow=overflow, no_wrap=is_cut or place == 0, width=cut_at)
    for row in texts:
        made.add_row(*row[: len(widths)])
    return made


def _fitting(widths: list[int], width: int) -> list[int]:
    """Return the widths of the columns that a terminal has room for, the last of them cut."""
    *before, last = widths
    left = width - sum(before) - GAP * len(before)
    if before and left < min(last, LEAST_WIDTH):
        return _fitting(before, width)
    return [*before, min(last, left)]


def duration(seconds: float) -> str:
    """Return a time span in the unit that suits it: ``0.4 ms``, ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    for unit, size, most in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 entry``, ``2,000 entries``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _styled(text: str, **style: Any) -> str:
    """Return the text in a style, unless colours are not wanted (https://no-color.org)."""
    import typer

    return text if not text or os.environ.get("NO_COLOR") else typer.style(text, **style)


def _is_harmful(sign: str) -> bool:
    return unicodedata.category(sign) in _HARMFUL and sign not in _JOINERS


def _escaped(sign: str) -> str:
    code = ord(sign)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_key(key: Any) -> str:
    written = _json_value(key)
    return written if isinstance(written, str) else json.dumps(written)


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        made = {_json_key(key): _json_value(item) for key, item in value.items()}
        return made if len(made) == len(value) else [[_json_value(key), _json_value(value[key])] for key in value]
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
