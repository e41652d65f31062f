"""``todomq logs``: the last lines of each file, and nothing in them that a terminal would act on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from todomq.cli.__main__ import make_app

BOUND_S = 30.0
NASTY, SHOWN = "a\x1b[2J\x9b31m\x07\r\x85\u2028b", "a\\x1b[2J\\x9b31m\\x07\\x0d\\x85\\u2028b"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home whose only log has one line more than is shown."""
    (tmp_path / "log").mkdir()
    lines = [f"line {number}" for number in range(20)] + [NASTY]
    (tmp_path / "log" / "cache.log").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return tmp_path


def followed(home: Path, last: str) -> list[str]:
    """Return what ``logs --follow`` writes until a line of it is ``last``."""
    written, give_up = b"", time.monotonic() + BOUND_S
    with subprocess.Popen(
        [sys.executable, "-m", "todomq.cli", "logs", "--follow"],
        env={**os.environ, "TODOMQ_HOME": str(home)}, stdout=subprocess.PIPE,
    ) as logs:  # fmt: skip
        assert logs.stdout is not None
        try:
            while last.encode() not in written.split(b"\n")[:-1]:
                assert select.select([logs.stdout], [], [], max(0, give_up - time.monotonic()))[0], written
                chunk = os.read(logs.stdout.fileno(), 65_536)
                assert chunk, written
                written += chunk
            logs.terminate()
            assert logs.wait(BOUND_S) == 128 + signal.SIGTERM
        finally:
            logs.kill()
    return written.decode().splitlines()


def test_the_last_20_lines_of_a_log_are_shown_and_a_terminal_acts_on_none(home: Path) -> None:
    shown = CliRunner().invoke(make_app(), ["logs"], prog_name="todomq", env={"TODOMQ_HOME": str(home)})
    assert shown.stdout.split("\n") == ["==> cache.log <==", *(f"line {n}" for n in range(1, 20)), SHOWN, ""]


def test_a_terminal_acts_on_no_line_that_is_followed_either(home: Path) -> None:
    assert followed(home, SHOWN) == [*(f"line {n}" for n in range(1, 20)), SHOWN]
