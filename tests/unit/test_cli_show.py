"""What reaches the terminal: nothing that it would act on, whoever wrote it."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from todomq.cli.lists import entry_line
from todomq.cli.show import counted, duration, json_text, name_of, safe, size, table
from todomq.client.values import Entry

HARMFUL = [
    "\x1b[2J", "\x07", "\r", "\n", "\x7f", "\x9b31m", "\u202e", "\u2066", "\u2028", "\u200b", "\U000e0041", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMFUL)
def test_what_a_terminal_would_act_on_is_shown_as_its_escape(text: str) -> None:
    shown = safe(f"milk{text}bread")
    assert shown.startswith("milk\\") and shown.isprintable()


@pytest.mark.parametrize("text", ["milk", "Käse & Brot", "買い物", "[red]not red[/red]", "\\x1b", "👩‍👧", "نامه‌ای"])
def test_what_a_person_writes_is_shown_as_it_is(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize("text", HARMFUL)
def test_json_is_printable_ascii_and_gives_the_text_back(text: str) -> None:
    written = json_text({"title": text})
    assert written.isascii() and written.isprintable()
    assert json.loads(written) == {"title": text}


def test_json_takes_every_value_that_an_entry_may_hold() -> None:
    value = {1: b"\x00\xff", "nan": float("nan"), "deep": [{"a": (1, None, True)}]}
    assert json.loads(json_text(value)) == {"1": "00ff", "nan": "nan", "deep": [{"a": [1, None, True]}]}


def test_json_writes_keys_as_it_writes_values_and_loses_none() -> None:
    assert json_text({1: 2, None: 3, False: 4}) == '{"1": 2, "null": 3, "false": 4}'
    assert json_text({"map": {1: "a", "1": "b"}}) == '{"map": [[1, "a"], ["1", "b"]]}'
    assert json_text({float("inf"): b"\x00", "inf": float("-inf")}) == '[["inf", "00"], ["inf", "-inf"]]'


@pytest.mark.parametrize(
    ("name", "shown"),
    [(["list_server", 1], "list_server 1"), ("job", "job"), (7, "7"), (["a\x1b"], "a\\x1b"), ({"a": 1}, "{'a': 1}")],
)
def test_a_registered_name_is_shown_as_a_person_writes_it(name: object, shown: str) -> None:
    assert name_of(name) == shown


def test_a_title_of_spaces_can_be_seen() -> None:
    assert entry_line(Entry(1, "  "), has_dates=False) == '1  [ ]  "  "'


def test_spans_sizes_and_counts_have_the_unit_that_suits_them() -> None:
    assert [duration(seconds) for seconds in (0.0004, 12, 119, 180, 7_200, 200_000)] == [
        "0.4 ms", "12 s", "119 s", "3 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [size(count) for count in (0, 2048, 3 << 20, 5 << 30)] == ["0 B", "2.0 KiB", "3.0 MiB", "5.0 GiB"]
    assert [counted(1, "entry", "entries"), counted(2_000, "list")] == ["1 entry", "2,000 lists"]


@pytest.mark.parametrize("width", range(10, 70))
def test_a_table_of_one_line_a_row_shows_a_number_whole_or_not_and_marks_what_it_cuts(width: int) -> None:
    row = ("database_worker 1", "50,031", "0 waiting (0 B)", "1.2 GiB stored, 300 lists")
    drawn = StringIO()
    Console(file=drawn, width=width).print(table(("daemon", "work/s", "queue", "holds"), [row], width=width))
    shown = drawn.getvalue().splitlines()[2].split("   ")
    cells = [cell.strip() for cell in shown]
    assert cells[:-1] == list(row[: len(cells) - 1])
    assert cells[-1] == row[len(cells) - 1] or (cells[-1][-1] == "…" and row[len(cells) - 1].startswith(cells[-1][:-1]))
    assert len(cells) == 1 or cells[-1] == row[len(cells) - 1] or len(cells[-1]) >= 11
    assert "50,031" in cells or not [cell for cell in cells if cell.startswith("5")]
