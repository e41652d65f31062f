"""A minute of torture: nothing acknowledged is lost, doubled or wrong, nothing is left behind; `make torture` for more.

``TODOMQ_TORTURE_SEED`` chooses other faults and requests than seed 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from stacks import RunningStack, wait_until

from checking import Operation
from checking.history import to_line
from todomq import Client
from torture.damage import Flip
from torture.nemesis import Nemesis
from torture.probe import Probe
from torture.provoke import CUT_SHORT, PROVOCATIONS, Provoked, provoke
from torture.report import Report, as_markdown
from torture.torture import torture

SECONDS = 20.0
"""Of faults at random; with the provocations, the flips and the reading it is about a minute."""
FLIPS = 3


def test_a_minute_of_torture_breaks_no_promise(tmp_path: Path) -> None:
    seed = int(os.environ.get("TODOMQ_TORTURE_SEED", "1"))
    report = torture(tmp_path, SECONDS, seed, print, flips=FLIPS, fills_disk=True)
    print(report)
    assert report.passed
    # One that did nothing would pass as well.
    assert report.outcomes["ok"] > 2_000 and len({fault.kind for fault in report.faults}) >= 5
    assert len(report.flips) == FLIPS
    assert {each.name for each in report.provoked} == set(PROVOCATIONS)


def test_of_a_restart_it_counts_how_long_adds_took(shared_stack: RunningStack, tmp_path: Path) -> None:
    began = time.monotonic()
    probe = Probe(shared_stack.control.settings, tmp_path, 1, began)
    before = shared_stack.pids()
    try:
        fault = Nemesis(shared_stack, probe, Random(1)).strike("restart")
    finally:
        probe.close()
    took_s = time.monotonic() - began
    after = shared_stack.pids()
    assert all(before[name] != after[name] for name in before)
    # Ten processes are restarted, each looked after by a health check; an add waits for one of them at most.
    assert fault.trouble is None and fault.served_s is not None and fault.served_s < took_s / 2


def marked(mark: str) -> dict[int, str]:
    """Return the home of the stack (or nothing) of every process that has this mark in its environment, by pid."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_text(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if mark in variables:
            homes = [each.partition("=")[2] for each in variables if each.startswith("TODOMQ_HOME=")]
            found[int(directory.name)] = homes[0] if homes else ""
    return found


def answers_recorded_in(directory: Path) -> int:
    """Return how many bytes of the record a run has written so far."""
    return sum(path.stat().st_size for path in directory.glob("*/round-*/*.jsonl"))


TORTURE = ["torture", "--minutes", "5", "--seed", "3"]
MUTANTS = ["mutations", "--stack", "--only", "takes_any_number"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory in which a stack can live: the paths of sockets have 107 bytes, and pytest's are long."""
    with tempfile.TemporaryDirectory(prefix="tq-", dir="/tmp") as path:
        yield Path(path)


@pytest.mark.parametrize(
    ("number", "command"), [(signal.SIGINT, TORTURE), (signal.SIGTERM, MUTANTS)], ids=["torture", "mutants"]
)
def test_a_run_that_a_signal_ends_leaves_nothing_behind(
    short_path: Path, number: signal.Signals, command: list[str]
) -> None:
    mark = f"TORTURE_TEST_MARK={short_path}"
    tests = Path(__file__).parents[1]
    paths = f"{tests}{os.pathsep}{tests / 'system'}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TODOMQ_")}
    environment = {**inherited, "PYTHONPATH": paths, "TMPDIR": str(short_path), "TORTURE_TEST_MARK": str(short_path)}
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as run:  # fmt: skip
        try:
            wait_until(lambda: answers_recorded_in(short_path), 60.0, "clients and daemons are at work")
            (home,) = set(marked(mark).values()) - {""}
            os.killpg(run.pid, number)  # as a terminal does
            said = run.communicate(timeout=60.0)[0]
        finally:
            run.kill()
    assert run.returncode == 128 + number and "Traceback" not in said, said
    assert not marked(mark) and not Path(home).exists() and home not in Path("/proc/mounts").read_text()
    assert not list(short_path.iterdir())


TRIES = 8


@pytest.mark.parametrize(
    ("switch", "provocation"),
    [
        ("gives_ids_again", "reloaded"), ("skips_the_fence", "woken"), ("serves_before_the_claim", "claimed"),
        ("session_in_the_next_batch", "storm"), ("accepts_past_deadline", "late"),
    ],
)
def test_a_provocation_finds_a_law_that_is_broken(
    make_stack: Callable[..., RunningStack], switch: str, provocation: str
) -> None:
    """`make mutants STACK=1` tries all switches; here are some that nothing else finds.

    A provocation races with daemons that run, so it may come too late, or be cut short; hardly so many times.
    """
    tests = Path(__file__).parents[1]
    stack = make_stack(
        TODOMQ_MAX_RESTARTS="1000000", TODOMQ_TEST_MUTATION=switch,
        PYTHONPATH=f"{tests / 'mutations' / 'entry'}{os.pathsep}{tests}",
    )  # fmt: skip
    stack.start()
    random = Random(1)
    tries = (provoke(stack, random, print, [provocation])[-1].problems for _ in range(TRIES))
    assert any(not problem.startswith(CUT_SHORT) for problems in tries for problem in problems)


def test_an_answer_that_no_order_explains_fails_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "round-00000"
    directory.mkdir()
    told = [
        Operation("a", "milk", 1, "add", ("milk",), 0, 9, "ok", 1),
        Operation("b", "milk", 1, "entries", (), 10, 19, "ok", ()),
    ]
    (directory / "a.jsonl").write_text("".join(map(to_line, told)))
    report = Report(1, 1.0, [])
    report.judge(tmp_path)
    assert not report.passed and report.found["lost"] == 1


def test_a_provocation_that_finds_something_fails_the_run(tmp_path: Path) -> None:
    report = Report(1, 1.0, [], provoked=[Provoked("late", 1.0, []), Provoked("early", 1.0, ["it came too early"])])
    report.judge(tmp_path)
    assert not report.passed and report.troubles == ["provoked early: it came too early"]


def test_a_flipped_byte_that_nobody_reports_fails_the_run(tmp_path: Path) -> None:
    reported = Flip("data/worker-1/rocksdb/1.sst", 7, 3, 2, "")
    flips = [reported, Flip("data/worker-2/rocksdb/2.log", 9, 0, 4, "'a' answers []")]
    report = Report(1, 1.0, [], flips=flips)
    report.judge(tmp_path)
    assert not report.passed and len(report.troubles) == 1
    assert "| data/worker-1/rocksdb/1.sst at 7 | 3 | 2 |" in as_markdown(report, "make torture")


@pytest.mark.parametrize("daemon", ["router", "registry", "cache", "list_server-1", "database_worker-1"])
def test_the_socket_of_a_daemon_is_there_again_after_it_was_removed(shared_stack: RunningStack, daemon: str) -> None:
    path = shared_stack.home / "run" / daemon
    pid = shared_stack.pid(daemon)
    path.unlink()
    wait_until(path.exists, 10.0, "the socket is there again")
    assert shared_stack.ask(daemon, "stats")["pid"] == pid
    with Client(shared_stack.endpoint) as todo:
        todo.todo_list(f"socket of {daemon}").add_entry("milk")
