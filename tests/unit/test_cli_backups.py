"""What ``verify`` says of what it found."""

from __future__ import annotations

import pytest

from todomq.backup.contents import Problem
from todomq.backup.verify import COUNTED, Report, ShardReport
from todomq.cli.backups import UNANSWERED, _report_text

GOOD = ShardReport(1, dict.fromkeys(COUNTED, 0), [])
NOT_READ = ShardReport(2, {}, [Problem("/data/worker-2", UNANSWERED, "the disk is full")])
DAMAGED = ShardReport(3, {}, [Problem("/data/worker-3", "", "identity is missing")])


def test_a_shard_that_was_not_read_is_not_called_damaged_and_nothing_is_counted_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert _report_text(Report("/data", [], [GOOD, NOT_READ])).splitlines() == [
        "ok        database_worker 1  0 lists, 0 entries, 0 sessions, 0 values",
        "not read  database_worker 2",
        "          /data/worker-2: not read: the disk is full",
        "/data: could not read everything.",
    ]
    text = _report_text(Report("/data", [], [NOT_READ, DAMAGED]))
    assert "damaged   database_worker 3\n" in text and text.endswith("/data: something is wrong.")
    assert _report_text(Report("/data", [], [GOOD])).endswith("/data: every record can be read.")
