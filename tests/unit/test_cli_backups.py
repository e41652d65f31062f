"""What ``verify`` says of what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from todomq.backup import NOT_READ as UNREAD
from todomq.backup import verify
from todomq.backup.contents import Problem
from todomq.backup.verify import COUNTED, Report, ShardReport, of_backup
from todomq.cli.backups import _report_result
from todomq.cli.exit_codes import DONE, REFUSED, UNREACHABLE
from todomq.database_worker.storage import StorageFailed
from todomq.database_worker.storage.small_files import ADVICE, shard_advice

GOOD = ShardReport(1, dict.fromkeys(COUNTED, 0), [])
NOT_READ = ShardReport(2, {}, [Problem("/data/worker-2", UNREAD, "the disk is full")])
DAMAGED = ShardReport(3, {}, [Problem("/data/worker-3", "", "identity is missing")])


def test_a_shard_that_was_not_read_is_not_called_damaged_and_nothing_is_counted_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    not_read = _report_result(Report("/data", [], [GOOD, NOT_READ]))
    assert str(not_read.text).splitlines() == [
        "ok        database_worker 1  0 lists, 0 entries, 0 sessions, 0 values",
        "not read  database_worker 2",
        "          /data/worker-2: not read: the disk is full",
        "/data: could not read everything.",
    ]
    assert not_read.code == UNREACHABLE


def test_what_is_damaged_is_told_before_what_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    damaged = _report_result(Report("/data", [], [NOT_READ, DAMAGED]))
    assert "damaged   database_worker 3\n" in str(damaged.text)
    assert str(damaged.text).endswith("/data: something is wrong.") and damaged.code == REFUSED
    good = _report_result(Report("/data", [], [GOOD]))
    assert str(good.text).endswith("/data: every record can be read.") and good.code == DONE


def test_a_shard_that_cannot_be_opened_at_the_moment_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StorageFailed("Too many open files")

    monkeypatch.setattr(verify, "RocksDBStorage", fails)
    found = verify.verify_shard(tmp_path, 1, None, None, lambda what, total: lambda count: None)
    assert [problem.kind for problem in found.problems] == [UNREAD]
    assert _report_result(Report("/data", [], [found])).code == UNREACHABLE


def test_of_a_damaged_backup_it_is_not_said_to_restore_it_from_a_backup() -> None:
    shard = Path("/backup/data/worker-2")
    assert "--worker 2" in shard_advice(shard / "a.log")
    said = [f"a.log is damaged; nothing was changed; {shard_advice(shard / 'a.log')}", f"manifest is damaged; {ADVICE}"]
    told = of_backup([Problem(str(shard), "", text) for text in said])
    assert [problem.text for problem in told] == [
        "a.log is damaged; use another backup", "manifest is damaged; use another backup",
    ]  # fmt: skip
