"""Import and export: every line comes back byte for byte; what was edited since reads as it was edited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from todomq.cli.formats import (
    LINE,
    EntryFields,
    FormatError,
    csv_line,
    read_csv,
    read_todo_txt,
    says_extra,
    todo_txt_line,
)

REAL_SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "qtodotxt-example.todo.txt"

SAMPLE = b"""\
(A) Thank Mom for the meatballs @phone
(B) 2025-03-02 Schedule the pickup +GarageSale @phone due:2025-04-01
Post signs around the neighbourhood +GarageSale
@GroceryStore Eskimo pies
x 2025-03-03 2025-03-01 Review Tim's pull request +TodoTxt @github pri:A
x (C) 2025-03-03 2025-03-01 priority first
x 2025-03-03 (C) 2025-03-01 priority between the dates
x no day of completion
xylophone lesson
X 2025-01-01 Make resolutions
(b) Get back to the boss
(B)->Submit the report
Learn how to add 2+2 at 12:30 with someone@example.com
Ask @bob about +offer due:2025-05-05 before noon rec:1w
due:tomorrow due:2025-05-05 rec:1d rec:2d twice
 two  spaces\tand a tab 
+only @marks key:value due:2025-05-05
(A) 2025-99-99 no such day
x 2025-01-01
(A) 
priority:A projects:none todo.txt:odd created:2025-01-01 completed:2025-01-02 own names
\xe2\x98\x95 caf\xc3\xa9 \x1b[31m\x00\xc2\x85 \xe2\x80\xa8 signs\r
"""  # noqa: W291


def read_one(line: str) -> EntryFields:
    (fields,) = read_todo_txt([line.encode()])
    return fields


def without_line(fields: EntryFields) -> EntryFields:
    extra = {key: value for key, value in (fields.extra or {}).items() if key != LINE}
    return fields._replace(extra=extra or None)


def exported(fields: EntryFields) -> str:
    return todo_txt_line(fields).decode().removesuffix("\n")


# todo.txt


def test_every_line_of_the_sample_comes_back_byte_for_byte() -> None:
    entries = list(read_todo_txt(BytesIO(SAMPLE)))
    assert b"".join(map(todo_txt_line, entries)) == SAMPLE.replace(b"\r\n", b"\n")


@pytest.mark.skipif(not REAL_SAMPLE.exists(), reason="the real sample is not beside this repository")
def test_every_line_of_the_real_sample_comes_back_byte_for_byte() -> None:
    with REAL_SAMPLE.open("rb") as file:
        entries = list(read_todo_txt(file))
    assert len(entries) == 13
    assert b"".join(map(todo_txt_line, entries)) == REAL_SAMPLE.read_bytes()


def test_a_line_becomes_what_it_says() -> None:
    assert read_one("(B) 2025-03-02 Call  about the +offer today +Sale @phone rec:+1b due:2025-04-01") == EntryFields(
        "Call about the +offer today",
        date(2025, 4, 1),
        False,
        {
            "priority": "B",
            "created": "2025-03-02",
            "projects": ["offer", "Sale"],
            "contexts": ["phone"],
            "rec": "+1b",
            LINE: "(B) 2025-03-02 Call  about the +offer today +Sale @phone rec:+1b due:2025-04-01",
        },
    )


@pytest.mark.parametrize(
    "line",
    [
        "x 2025-03-03 2025-03-01 (C) task",
        "x (C) 2025-03-03 2025-03-01 task",
        "x 2025-03-03 (C) 2025-03-01 task",
    ],
)
def test_a_done_line_has_its_dates_and_its_priority_in_any_usual_order(line: str) -> None:
    extra = {"completed": "2025-03-03", "created": "2025-03-01", "priority": "C"}
    assert without_line(read_one(line)) == EntryFields("task", None, True, extra)


@pytest.mark.parametrize(
    "line",
    [
        "Buy milk",
        "X 2025-01-01 Make resolutions",
        "xylophone lesson",
        "Really call Mom (A) today",
        "(b) Get back to the boss",
        "(B)->Submit the report",
        "2025-99-99 no such day",
        "Meet at 12:30 a:b:c",
        "See https://example.com/a",
        "due:tomorrow",
        "x 2025-01-01",
        "1 + 1 @ home",
    ],
)
def test_what_only_looks_like_a_sign_is_text(line: str) -> None:
    fields = read_one(line)
    done = line.startswith("x ")
    assert fields == EntryFields(line.removeprefix("x ") if done else line, None, done)


def test_of_a_key_that_comes_twice_the_last_counts_and_the_other_is_text() -> None:
    fields = read_one("rec:1d twice due:2025-01-01 rec:2d due:2025-02-02")
    assert fields.date == date(2025, 2, 2)
    assert fields.title == "rec:1d twice due:2025-01-01"
    assert (fields.extra or {})["rec"] == "2d"


def test_a_line_of_nothing_but_marks_has_them_as_its_title() -> None:
    fields = read_one("h:1 @home due:2025-05-05")
    assert fields.title == "h:1 @home due:2025-05-05"
    assert fields.date == date(2025, 5, 5)
    assert exported(fields) == "h:1 @home due:2025-05-05"


def test_blank_lines_are_no_entries_and_the_byte_order_mark_is_no_text() -> None:
    assert [fields.title for fields in read_todo_txt([b"\xef\xbb\xbfa\r\n", b"\r\n", b" \t\n", b"b"])] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"done": True}, "x +Sale Call Bob due:2025-04-01 rec:1w created:2025-03-02"),
        ({"title": "Call Eve"}, "2025-03-02 Call Eve +Sale rec:1w due:2025-04-01"),
        ({"date": date(2025, 6, 1)}, "2025-03-02 Call Bob +Sale rec:1w due:2025-06-01"),
        ({"date": None}, "2025-03-02 Call Bob +Sale rec:1w"),
        ({"extra": None}, "Call Bob due:2025-04-01"),
        ({"title": "two\nlines\r\n"}, "2025-03-02 two lines +Sale rec:1w due:2025-04-01"),
    ],
)
def test_of_an_edited_entry_only_what_changed_is_written_anew(change: dict[str, Any], line: str) -> None:
    fields = read_one("2025-03-02 +Sale Call Bob due:2025-04-01 rec:1w")
    assert exported(fields._replace(**change)) == line


def test_undone_and_done_again_is_the_line_as_it_was() -> None:
    line = "x (C) 2025-03-03 2025-03-01 +Sale task"
    fields = read_one(line)
    assert exported(fields._replace(done=False)) == "(C) 2025-03-01 +Sale task"
    assert exported(fields._replace(done=False)._replace(done=True)) == line


def test_an_entry_that_never_was_a_line_is_written_as_far_as_the_format_goes() -> None:
    extra = {"room": 4, "note": "two words", "nested": {"a": 1}, "projects": ["a b", "c", 5], "contexts": "no list"}
    assert exported(EntryFields("dentist", date(2026, 12, 1), True, extra)) == "x dentist +c room:4 due:2026-12-01"
    assert exported(EntryFields(" \n ")) == "(untitled)"


@pytest.mark.parametrize(
    ("extra", "is_said"),
    [
        ({}, True),
        ({"priority": "A", "projects": ["a", "b"], "contexts": [], "room": 4, LINE: "something else"}, True),
        ({"note": "two words"}, False),
        ({"projects": ["a b"]}, False),
        ({"nested": {"a": 1}}, False),
        ({"completed": "2026-01-01"}, False),
        ({5: "x"}, False),
    ],
)
def test_it_is_known_of_which_entries_todo_txt_does_not_say_all(extra: dict[Any, Any], is_said: bool) -> None:
    entry = EntryFields("call +x", None, False, extra)
    assert says_extra(entry, todo_txt_line(entry)) == is_said


def test_a_kept_line_that_says_something_else_or_is_none_is_not_believed() -> None:
    for kept in ("something else", "a\nb", "", " ", 5, None):
        assert exported(EntryFields("a b", None, False, {LINE: kept})) == "a b"


def test_a_line_that_makes_too_large_an_entry_is_named_by_its_number() -> None:
    with pytest.raises(FormatError, match=r"^line 2: title: 10001 characters where 1 to 10000 are allowed$"):
        list(read_todo_txt([b"a\n", b"b" * 10_001]))
    with pytest.raises(FormatError, match=r"^line 1: entry: \d+ bytes packed where at most 65536 are allowed$"):
        list(read_todo_txt([b"a " + b" +b" * 30_000]))


def test_a_line_that_is_not_utf_8_is_named_by_its_number() -> None:
    entries = read_todo_txt([b"a\n", b"caf\xe9\n"])
    assert next(entries).title == "a"
    with pytest.raises(FormatError, match=r"^line 2: byte 4 is not UTF-8; save the file as UTF-8$"):
        next(entries)


WORDS = st.sampled_from(
    ["x", "(A)", "(Z)", "milk", "2025-01-02", "2024-02-29", "2025-02-29", "+p", "+p", "@c", "@d", "+", "@", "k:v",
     "k:w", "due:2025-05-05", "due:2024-02-29", "due:no", "created:2025-01-01", "completed:2025-01-01", "priority:B",
     "projects:x", "http://a.b", "todo.txt:a", "12:30", "", "é☕", "a\tb", "\x1b[0m", "\x85", "\xa0", "t:2025-01-02"]
)  # fmt: skip
LINES = st.lists(WORDS, min_size=1, max_size=9).map(" ".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=40
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(LINES, max_size=4))
def test_any_lines_come_back_byte_for_byte(lines: list[str]) -> None:
    raw = [f"{line}\n".encode() for line in lines if line.strip() and not line.startswith("\ufeff")]
    assert [todo_txt_line(fields) for fields in read_todo_txt(raw)] == raw


TAME = st.text("abcdefgé", min_size=1, max_size=6)
DAYS = st.dates(date(1900, 1, 1), date(2100, 1, 1))
TITLES = st.lists(TAME, min_size=1, max_size=4).map(" ".join)


@st.composite
def tame_entries(draw: st.DrawFn) -> EntryFields:
    """Entries of which todo.txt can say everything."""
    extra: dict[str, Any] = {}
    done = draw(st.booleans())
    if draw(st.booleans()):
        extra["priority"] = draw(st.sampled_from("AMZ"))
    if done and draw(st.booleans()):
        extra["completed"] = draw(DAYS).isoformat()
    if draw(st.booleans()):
        extra["created"] = draw(DAYS).isoformat()
    for kind in ("projects", "contexts"):
        names = draw(st.lists(TAME, max_size=3, unique=True))
        if names:
            extra[kind] = names
    extra.update(draw(st.dictionaries(TAME.map(lambda key: f"k{key}"), TAME, max_size=3)))
    return EntryFields(draw(TITLES), draw(st.none() | DAYS), done, extra or None)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(tame_entries())
def test_what_todo_txt_can_say_is_read_again_as_it_was(fields: EntryFields) -> None:
    assert without_line(read_one(exported(fields))) == fields


@settings(max_examples=100, derandomize=True, deadline=None)
@given(tame_entries(), tame_entries(), st.sampled_from(["title", "date", "done"]))
def test_an_edit_survives_export_and_import(fields: EntryFields, other: EntryFields, field: str) -> None:
    words = exported(fields).split(" ")
    fields = read_one(" ".join([*words[:-1], "", *words[-1:]]))  # two spaces, so that the line is kept
    edited = fields._replace(**{field: getattr(other, field)})
    again = without_line(read_one(exported(edited)))
    expected = without_line(edited)
    if not edited.done and expected.extra:
        # An open line has no place for the day of completion.
        expected = expected._replace(extra={k: v for k, v in expected.extra.items() if k != "completed"} or None)
    assert again == expected


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.none() | DAYS, st.booleans())
def test_any_entry_is_one_line(title: str, day: date | None, done: bool) -> None:
    line = todo_txt_line(EntryFields(title, day, done))
    assert line.count(b"\n") == 1 and line.endswith(b"\n") and line.strip()


# CSV


def test_csv_lines_become_entries() -> None:
    lines = [b"\xef\xbb\xbf2026-12-01,dentist\r\n", b",milk\n", b"\n", b'2024-02-29,"a ""b"", c\n', b'd"\n', b",last"]
    assert list(read_csv(lines)) == [
        EntryFields("dentist", date(2026, 12, 1)),
        EntryFields("milk"),
        EntryFields('a "b", c\nd', date(2024, 2, 29)),
        EntryFields("last"),
    ]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([b",a\n", b"2026-12-01\n"], "line 2: a line is YYYY-MM-DD,title, and this one has no comma"),
        ([b",milk, bread\n"], "line 1: YYYY-MM-DD,title has 2 fields, not 3; a title with a comma stands in quotes"),
        ([b"\n", b"\n", b"2025-02-29,a\n"], "line 3: '2025-02-29' is not a calendar date YYYY-MM-DD"),
        ([b"20250101,a\n"], "line 1: '20250101' is not a calendar date"),
        ([b"2025-W01-1,a\n"], "line 1: '2025-W01-1' is not a calendar date"),
        ([b"date,title\n"], "line 1: 'date' is not a calendar date YYYY-MM-DD; a file has no heading"),
        ([b"1.12.2026,title\n"], "line 1: '1.12.2026' is not a calendar date YYYY-MM-DD"),
        ([b",a\r,b\r"], "line 1: a lone carriage return; save the file with LF or CRLF line ends"),
        ([b"a;b\n"], "line 1: a line is YYYY-MM-DD,title, and this one has no comma"),
        ([b"\x1b[31m,a\n"], "line 1: '\\x1b[31m' is not a calendar date"),
        ([b",\n"], "line 1: title: 0 characters where 1 to 10000 are allowed"),
        ([b"," + b"a" * 10_001], "line 1: title: 10001 characters"),
        ([b"," + b"a" * 200_000], "line 1: title: 200000 characters"),
        ([b",a\n", b',"never\n', b"closed\n"], "line 2: the quoted title that begins here is never closed"),
        ([b',"a"b\n'], "line 1: a quoted title ends before its line does; a quote in it is written twice"),
        ([b',"' + b"a" * 1_100_000], "line 1: a field of more than 1,"),
        ([b",a\n", b",\xff\n"], "line 2: byte 2 is not UTF-8"),
    ],
)
def test_a_malformed_csv_line_is_named_by_its_number_and_its_fault(lines: list[bytes], text: str) -> None:
    with pytest.raises(FormatError, match=re.escape(text)):
        list(read_csv(lines))


def test_what_came_before_a_malformed_line_has_been_yielded() -> None:
    entries: Iterator[EntryFields] = read_csv([b",a\n", b"b\n"])
    assert next(entries) == EntryFields("a")
    with pytest.raises(FormatError):
        next(entries)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(
        st.builds(
            EntryFields,
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
            | st.text('",\r\n \0a', min_size=1, max_size=8),
            st.none() | st.dates(),
            st.just(False),
            st.none(),
        ),
        max_size=4,
    )
)
def test_csv_gives_any_titles_and_dates_back(entries: list[EntryFields]) -> None:
    raw = b"".join(map(csv_line, entries))
    assert list(read_csv(BytesIO(raw))) == entries
