"""The command line against a real stack."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from stacks import RunningStack, kept_running, wait_until

from todomq import Client
from todomq.protocol.partitions import partition_of, worker_of

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
REAL_FILE = Path(__file__).parents[2] / ".." / "shared" / "data" / "qtodotxt-example.todo.txt"
NASTY = "a\x1b[2J\u202eb [red]c[/red] :smile: \x9b31m"


@pytest.fixture
def cli(shared_stack: RunningStack) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs ``todomq`` against the module's stack."""
    return lambda *arguments: shared_stack.run("todomq.cli", *arguments)


@pytest.fixture(scope="module")
def patient_stack() -> Iterator[RunningStack]:
    """Return a stack that leaves a process that hangs as it is."""
    yield from kept_running(RunningStack(TODOMQ_LEASE_MS="600000"))


Cli = Callable[..., subprocess.CompletedProcess[str]]


def value_of(finished: subprocess.CompletedProcess[str], code: int = DONE) -> Any:
    """Return the one JSON value that a command printed."""
    assert finished.returncode == code, finished.stderr
    return json.loads(finished.stdout)


def on_a_terminal(stack: RunningStack, *arguments: str, term: str = "xterm-256color") -> str:
    """Run a command on a pseudo-terminal and return all that it wrote there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "todomq.cli", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**stack.environment, "TERM": term},
    ) as process:  # fmt: skip
        os.close(theirs)
        written, give_up = b"", time.monotonic() + 30
        with suppress(OSError):  # EIO: the other end is closed
            while (left_s := give_up - time.monotonic()) > 0 and select.select([ours], [], [], left_s)[0]:
                written += os.read(ours, 65_536)
        try:
            process.wait(30)
        finally:
            process.kill()
    os.close(ours)
    return written.decode()


def test_an_entry_lives_its_life(cli: Cli) -> None:
    added = value_of(cli("add", "life", "dentist", "--date", "2026-12-01", "--json"))
    assert added == {"id": 1, "title": "dentist", "date": "2026-12-01", "done": False, "extra": {}}
    assert cli("ls", "life").stdout == "1  [ ]  2026-12-01  dentist\n"
    assert value_of(cli("done", "life", "1", "--json"))["done"] is True
    assert value_of(cli("done", "life", "1", "--undo", "--json"))["done"] is False
    assert cli("ls", "life").stdout == "1  [ ]  2026-12-01  dentist\n"
    assert value_of(cli("done", "life", "1", "--json"))["done"] is True
    assert value_of(cli("edit", "life", "1", "--title", "dentist at 9", "--no-date", "--json"))["date"] is None
    assert cli("ls", "life").stdout == "1  [x]  dentist at 9\n"
    assert value_of(cli("ls", "life", "--date", "2026-12-01", "--json")) == []
    assert len(value_of(cli("ls", "life", "--undated", "--json"))) == 1
    assert value_of(cli("rm", "life", "1", "--json")) == {"id": 1, "deleted": True}
    assert value_of(cli("add", "life", "milk", "--json"))["id"] == 2
    assert cli("clear", "life", "--yes").returncode == DONE
    assert value_of(cli("add", "life", "milk", "--json"))["id"] == 1
    assert "life" in value_of(cli("lists", "--json"))
    assert cli("drop", "life").returncode == DONE
    assert "life" not in value_of(cli("lists", "life", "--json"))


def test_where_no_list_begins_so_that_is_said_and_not_that_there_are_none(cli: Cli) -> None:
    cli("add", "prefixed", "milk")
    none = cli("lists", "prefiy")
    assert (none.stdout, none.stderr) == ("", "No list begins with prefiy.\n")  # a pipe must not take it for a name


@pytest.mark.parametrize(
    "arguments", [["ls"], ["drop", "--yes"], ["export"], ["probe", "list"], ["probe", "why"]]
)  # fmt: skip
def test_a_list_that_is_not_there_is_said_to_be_none_and_an_empty_one_is_not(cli: Cli, arguments: list[str]) -> None:
    cli("add", "emptied", "milk")
    cli("rm", "emptied", "1")
    there, none = cli(*arguments, "emptied"), cli(*arguments, "emptie")
    assert there.returncode == none.returncode == DONE
    assert re.search("no (such )?list", none.stdout + none.stderr)
    assert "no list" not in there.stdout + there.stderr and "no such list" not in there.stdout
    assert cli(*arguments, "emptie", "--json").returncode == DONE


@pytest.mark.parametrize(
    "arguments", [["done", "nothing", "7"], ["edit", "nothing", "7", "--title", "x"], ["rm", "nothing", "7"]]
)
def test_an_entry_that_is_not_there_is_refused(cli: Cli, arguments: list[str]) -> None:
    finished = cli(*arguments)
    assert (finished.returncode, finished.stdout) == (REFUSED, "")
    assert "no entry 7" in finished.stderr
    assert value_of(cli(*arguments, "--json"), REFUSED)["error"]["code"] == "entry_not_found"


@pytest.mark.parametrize(
    "arguments",
    [
        ["add"], ["add", "x", "y", "--date", "tuesday"], ["done", "x", "zero"], ["done", "x", "0"], ["nonsense"],
        ["done", "x", "9" * 20], ["done", "x", str(1 << 63)],
        ["edit", "x", "1"], ["edit", "x", "1", "--date", "today", "--no-date"], ["import", "/nowhere.csv", "x"],
        ["import", __file__, "x"], ["probe", "kill", "foo"], ["probe", "kill", "list"], ["probe", "ping", "cache", "1"],
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_usage_error(cli: Cli, arguments: list[str]) -> None:
    finished = cli(*arguments)
    assert (finished.returncode, finished.stdout) == (USAGE, "")
    assert finished.stderr


def test_a_name_or_title_past_its_limit_is_refused_with_the_limit(cli: Cli) -> None:
    assert "255" in cli("add", "x" * 256, "y").stderr
    assert "10,000" in cli("add", "x", "y" * 10_001).stderr.replace("10000", "10,000")
    assert cli("add", "x", b"\xff".decode(errors="surrogateescape")).returncode == REFUSED


def test_a_stack_that_is_not_there_is_unreachable(shared_stack: RunningStack, tmp_path: Path) -> None:
    nowhere = {"TODOMQ_HOME": str(tmp_path), "TODOMQ_ENDPOINT": ""}
    finished = shared_stack.run("todomq.cli", "ls", "x", settings=nowhere)
    assert (finished.returncode, finished.stdout) == (UNREACHABLE, "")
    assert "todomq up" in finished.stderr
    as_json = shared_stack.run("todomq.cli", "probe", "health", "--json", settings=nowhere)
    assert value_of(as_json, UNREACHABLE)["at_fault"] == [["router"]]
    pinged = shared_stack.run("todomq.cli", "probe", "ping", settings=nowhere)
    assert (pinged.returncode, pinged.stdout) == (UNREACHABLE, "")
    assert "todomq up" in pinged.stderr and len(pinged.stderr.splitlines()) == 1


@pytest.mark.parametrize("setting", [{"TODOMQ_DATABASE_WORKERS": "many"}, {"TODOMQ_ENDPOINT": "smoke://signal"}])
def test_a_setting_that_cannot_be_used_is_a_usage_error(shared_stack: RunningStack, setting: dict[str, str]) -> None:
    assert shared_stack.run("todomq.cli", "ls", "x", settings=setting).returncode == USAGE


def test_what_is_in_titles_and_names_is_neither_obeyed_nor_read_as_markup(cli: Cli, shared_stack: RunningStack) -> None:
    name = "nasty \x1b]0;x\x07"
    cli("add", name, NASTY)
    screens = [
        on_a_terminal(shared_stack, *arguments)
        for arguments in (["ls", name], ["lists"], ["export", name], ["probe", "list", name], ["probe", "why", name])
    ]
    for screen in screens:
        assert "\x1b[2J" not in screen and "\x1b]0" not in screen and "\x9b" not in screen and "\u202e" not in screen
    assert "a\\x1b[2J\\u202eb [red]c[/red] :smile: \\x9b31m" in screens[0]
    assert "\\x1b]0;x\\x07" in screens[1]
    assert value_of(cli("ls", name, "--json"))[0]["title"] == NASTY
    assert "\x1b" not in cli("ls", name).stdout + cli("done", name, "8" * 3, "--json").stdout


def test_a_clear_on_a_terminal_asks_first(cli: Cli, shared_stack: RunningStack) -> None:
    cli("add", "asked", "milk")
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    finished = subprocess.run(
        [sys.executable, "-m", "todomq.cli", "clear", "asked"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=shared_stack.environment, timeout=30, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert finished.returncode == REFUSED
    assert len(value_of(cli("ls", "asked", "--json"))) == 1


@pytest.mark.skipif(not REAL_FILE.exists(), reason="the real file lies beside the repository")
def test_a_real_todo_txt_comes_back_byte_for_byte(cli: Cli, tmp_path: Path) -> None:
    assert value_of(cli("import", str(REAL_FILE), "real", "--json"))["entries"] == 13
    assert sum(entry["done"] for entry in value_of(cli("ls", "real", "--json"))) == 1
    copy = tmp_path / "copy.txt"
    assert cli("export", "real", str(copy)).returncode == DONE
    assert copy.read_bytes() == REAL_FILE.read_bytes()
    assert cli("export", "real").stdout.encode() == REAL_FILE.read_bytes()
    assert value_of(cli("export", "real", "--json"))["text"].encode() == REAL_FILE.read_bytes()


def test_an_export_of_no_list_leaves_the_file_as_it_was(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bob.csv"
    file.write_text(",milk\n")
    refused = cli("export", "mistyped", str(file))
    assert (refused.returncode, refused.stdout) == (REFUSED, "")
    assert refused.stderr == f"Error: there is no list mistyped; {file} was not written\n"
    assert file.read_text() == ",milk\n"


def test_an_export_to_links_that_lead_to_each_other_says_so_in_one_line(cli: Cli, tmp_path: Path) -> None:
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    cli("add", "exported in a loop", "milk")
    refused = cli("export", "exported in a loop", str(loop))
    assert refused.returncode == REFUSED and refused.stderr == f"Error: {loop}: Too many levels of symbolic links\n"


def test_an_export_says_of_how_many_entries_something_has_no_place(cli: Cli, shared_stack: RunningStack) -> None:
    with Client(shared_stack.endpoint) as todo:
        handle = todo.todo_list("extra")
        handle.add_entry("milk", extra={"note": "two words"})
        handle.add_entry("bread", extra={"rec": "1w"})
        handle.add_entry("salt", done=True)
    words, csv = cli("export", "extra").stderr, cli("export", "extra", "--format", "csv").stderr
    assert words == "Something is left out of 1 entry: todo.txt has no place for values that are not a single word.\n"
    assert csv == "Something is left out of 3 entries: csv has no place for done, priority, projects and the like.\n"


def test_a_line_without_an_end_is_refused_and_not_read_whole(cli: Cli) -> None:
    for format in ("csv", "todo.txt"):
        refused = cli("import", "/dev/zero", "endless", "--format", format)
        assert refused.returncode == REFUSED and "line 1: over 4194304 bytes" in refused.stderr


def test_a_large_csv_comes_back_byte_for_byte_in_its_order(cli: Cli, tmp_path: Path) -> None:
    file, copy = tmp_path / "large.csv", tmp_path / "copy.csv"
    lines = [f'2026-12-{n % 28 + 1:02},"n, ""{n}"""\n' if n % 3 else f",{n} {'ä' * 200}\n" for n in range(9_000)]
    file.write_text("".join(lines))
    assert value_of(cli("import", str(file), "large", "--json"))["entries"] == 9_000
    assert [entry["id"] for entry in value_of(cli("ls", "large", "--json"))] == list(range(1, 9_001))
    assert cli("export", "large", str(copy)).returncode == DONE
    assert copy.read_bytes() == file.read_bytes()


def test_standard_input_is_a_file_like_any_other(shared_stack: RunningStack) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "todomq.cli", "import", "-", "piped", "--format", "todo.txt", "--json"],
        input="x done already\nmilk due:2026-12-01\n", text=True, capture_output=True, env=shared_stack.environment,
        timeout=30, check=False,
    )  # fmt: skip
    assert value_of(finished)["entries"] == 2
    entries = value_of(shared_stack.run("todomq.cli", "ls", "piped", "--json"))
    assert [(entry["title"], entry["done"]) for entry in entries] == [("done already", True), ("milk", False)]


def test_a_file_with_a_bad_line_names_the_line_and_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("2026-12-01,good\n2026-13-01,bad\n")
    finished = cli("import", str(file), "bad")
    assert finished.returncode == REFUSED
    assert finished.stderr.startswith(f"Error: {file}: line 2: ")
    assert value_of(cli("ls", "bad", "--json")) == []


def test_a_healthy_stack_is_healthy_and_the_check_leaves_no_list(cli: Cli) -> None:
    found = value_of(cli("probe", "health", "--wait", "10", "--json"))
    assert found["healthy"] and found["at_fault"] == []
    assert [part["name"] for part in found["parts"]].count(["database_worker", 3]) == 1
    assert value_of(cli("lists", "todomq/health/", "--json")) == []


def test_law_1_a_check_deletes_what_an_interrupted_one_has_left_and_no_list_that_is_called_alike(cli: Cli) -> None:
    old = f"todomq/health/{int(time.time()) - 1_000}"
    left, *others = f"{old}-1-1", old, f"{old}-plan", f"{old}-1-2", f"{old}-1-3"
    for name, titles in zip([left, *others], [["health"], ["health"], ["health"], ["dentist"], ["health", "dentist"]]):
        for title in titles:
            cli("add", name, title)
    cli("probe", "health", "--wait", "10")
    assert value_of(cli("lists", "todomq/health/", "--json")) == sorted(others)
    for name in others:
        cli("drop", name, "--yes")


@pytest.mark.parametrize("name", ["database_worker-2", "list_server-1", "cache", "registry", "supervision"])
def test_health_names_the_part_that_hangs_and_no_other(patient_stack: RunningStack, name: str) -> None:
    pid = patient_stack.kill(name, signal.SIGSTOP)
    try:
        finished = patient_stack.run("todomq.cli", "probe", "health", "--json")
        found = value_of(finished, REFUSED)
        status = patient_stack.run("todomq.cli", "status").stdout.splitlines()
        tree = patient_stack.run("todomq.cli", "probe", "tree").stdout.splitlines()
    finally:
        os.kill(pid, signal.SIGCONT)
    (still,) = [line for line in status if "stands still, stopped by a signal" in line]
    assert f"pid {pid} " in still
    (before,) = [before for before, line in pairwise(tree) if "stands still, stopped by a signal" in line]
    assert f"pid {pid} " in before
    kind, _, number = name.partition("-")
    assert found["at_fault"] == [[kind, int(number)] if number else [kind]]
    patient_stack.wait_healthy()


def said_without(stack: RunningStack, process: str, *command: str) -> str:
    """Stop a process and return what a command, which sees a fault in that, says then."""
    with stack.control.alone():  # else the listener starts it
        stack.control.manager.stop(stack.processes()[process], 10.0)
        finished = stack.run("todomq.cli", *command)
    assert finished.returncode == REFUSED
    return finished.stdout


def test_health_names_a_listener_that_does_not_run_and_up_starts_it(cli: Cli, shared_stack: RunningStack) -> None:
    try:
        said = said_without(shared_stack, "supervision", "probe", "health")
    finally:
        up = cli("up")
    assert "does not run (STOPPED): what dies comes back late" in said
    assert up.returncode == DONE
    shared_stack.wait_healthy()


def test_the_tree_blames_nobody_who_was_not_asked(patient_stack: RunningStack) -> None:
    pid = patient_stack.kill("router", signal.SIGSTOP)
    try:
        lines = patient_stack.run("todomq.cli", "probe", "tree").stdout.splitlines()
    finally:
        os.kill(pid, signal.SIGCONT)
    (silent,) = [before for before, line in pairwise(lines) if "stands still" in line]
    assert "router" in silent
    patient_stack.wait_healthy()


def test_health_names_a_supervisord_that_hangs_though_every_daemon_answers(shared_stack: RunningStack) -> None:
    pid, router = shared_stack.manager_pid(), shared_stack.pids()["router"]
    os.kill(pid, signal.SIGSTOP)
    try:
        finished = shared_stack.run("todomq.cli", "probe", "health")
        os.kill(router, signal.SIGKILL)
        unreachable = shared_stack.run("todomq.cli", "probe", "health")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert finished.returncode == REFUSED
    assert f"does not answer, pid {pid}: todomq up ends it" in finished.stdout
    assert unreachable.returncode == UNREACHABLE
    assert f"and supervisord does not answer, pid {pid}" in unreachable.stdout + unreachable.stderr
    shared_stack.wait_healthy()


def test_health_names_the_worker_that_does_not_run(shared_stack: RunningStack) -> None:
    try:
        said = said_without(shared_stack, "database_worker-2", "probe", "health")
    finally:
        shared_stack.start()
    assert "At fault: database_worker 2\n" in said
    assert "is not running" in said


def test_status_exits_with_1_while_a_process_does_not_run_and_shows_which(cli: Cli, shared_stack: RunningStack) -> None:
    assert cli("status").returncode == DONE
    try:
        lines = said_without(shared_stack, "list_server-2", "status").splitlines()
    finally:
        shared_stack.start()
    (stopped,) = [line for line in lines if "RUNNING" not in line]
    assert "list_server 2" in stopped and "STOPPED" in stopped and "pid" not in stopped


def test_why_names_the_worker_that_a_list_waits_for(patient_stack: RunningStack) -> None:
    stack = patient_stack
    worker = value_of(stack.run("todomq.cli", "probe", "list", "Bob", "--json"))["worker"]
    assert value_of(stack.run("todomq.cli", "probe", "why", "Bob", "--json"))["waits_for"] is None

    def waiting() -> Any:
        said = value_of(stack.run("todomq.cli", "probe", "why", "Bob", "--json"), REFUSED)
        return said if said["since_ms"] is not None else None

    with Client(stack.endpoint, deadline_s=60) as todo:
        pid = stack.kill(f"database_worker-{worker}", signal.SIGSTOP)
        try:
            adding = todo.pipeline().todo_list("Bob").add_entry("milk")
            said = wait_until(waiting, 30, "the add waits")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert adding.result(60).title == "milk"
    assert said["waits_for"] == ["database_worker", worker]


def test_a_killed_list_is_there_again_under_another_activation(cli: Cli) -> None:
    cli("add", "phoenix", "milk")
    before = value_of(cli("probe", "list", "phoenix", "--json"))
    assert value_of(cli("probe", "kill", "list", "phoenix", "--json"))["was_loaded"] is True
    assert len(value_of(cli("ls", "phoenix", "--json"))) == 1
    after = value_of(cli("probe", "list", "phoenix", "--json"))
    assert after["activation"] != before["activation"]
    assert after["entries"] == 1


def test_a_killed_daemon_is_back_and_the_tree_counts_the_restart(cli: Cli, shared_stack: RunningStack) -> None:
    killed = value_of(cli("probe", "kill", "list_server", "2", "--json"))
    shared_stack.wait_restarted("list_server-2", killed["pid"])
    rows = value_of(cli("probe", "tree", "--json"))
    row = next(row for row in rows if row["name"] == ["list_server", 2])
    assert row["state"] == "RUNNING" and row["pid"] != killed["pid"] and row["restarts"] >= 1
    assert cli("probe", "health", "--wait", "10").returncode == DONE


def test_the_tree_shows_every_process_and_its_queue(cli: Cli, shared_stack: RunningStack) -> None:
    text = cli("probe", "tree").stdout
    for process in shared_stack.processes().values():
        assert f"pid {process.pid}" in text
    assert "in flight" in text and "uncommitted" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_the_tree_of_another_stack_shows_its_processes_and_none_of_this_home(
    shared_stack: RunningStack, patient_stack: RunningStack
) -> None:
    other = {"TODOMQ_ENDPOINT": patient_stack.endpoint}
    text = shared_stack.run("todomq.cli", "probe", "tree", settings=other).stdout
    assert text.startswith(f"{patient_stack.endpoint}; this is what the registry knows\n")
    for name in patient_stack.daemons:
        assert f"REGISTERED  pid {patient_stack.pid(name)} " in text
    rows = value_of(shared_stack.run("todomq.cli", "probe", "tree", "--json", settings=other))
    assert all(row["memory"] is not None and row["stats"] is not None for row in rows)
    assert not {row["pid"] for row in rows} & set(shared_stack.pids().values())
    silent = patient_stack.kill("registry", signal.SIGSTOP)
    try:
        text = shared_stack.run("todomq.cli", "probe", "tree", settings=other).stdout
    finally:
        os.kill(silent, signal.SIGCONT)
    assert re.search(r"registry +UNKNOWN\n.*does not answer", text)
    assert re.search(r"router +UNKNOWN .*in flight", text)
    patient_stack.wait_healthy()


def test_the_worker_of_a_list_is_that_of_the_stack_that_is_asked(
    shared_stack: RunningStack, patient_stack: RunningStack
) -> None:
    """However many workers the settings of this home name."""
    partitions = {name: partition_of(name.encode()) for name in (f"list {n}" for n in range(100))}
    name = next(name for name, partition in partitions.items() if worker_of(partition, 5) != worker_of(partition, 3))
    other = {"TODOMQ_ENDPOINT": patient_stack.endpoint, "TODOMQ_DATABASE_WORKERS": "5"}
    found = value_of(shared_stack.run("todomq.cli", "probe", "list", name, "--json", settings=other))
    assert found["worker"] == worker_of(partitions[name], 3)
    assert shared_stack.run("todomq.cli", "probe", "why", name, settings=other).returncode == DONE


def test_each_process_of_the_tree_is_one_line_of_the_terminal(shared_stack: RunningStack) -> None:
    lines = re.sub(r"\x1b\[[\d;]*m", "", on_a_terminal(shared_stack, "probe", "tree")).splitlines()
    assert len(lines) == len(shared_stack.run("todomq.cli", "probe", "tree").stdout.splitlines())
    assert max(map(len, lines)) == 80 and [line for line in lines if line.endswith("…")]


@pytest.mark.parametrize("arguments", [["ping"], ["ping", "cache"], ["top", "--once", "--every", "0.1"], ["registry"]])
def test_the_other_probes_answer_for_people_and_for_programs(cli: Cli, arguments: list[str]) -> None:
    assert "cache" in cli("probe", *arguments).stdout
    assert value_of(cli("probe", *arguments, "--json"))


def test_top_is_shown_once_on_a_terminal_that_cannot_move_its_cursor(shared_stack: RunningStack) -> None:
    assert "router" in on_a_terminal(shared_stack, "probe", "top", "--every", "0.1", term="dumb")


def test_top_once_prints_once_on_a_terminal_and_ends(shared_stack: RunningStack) -> None:
    screen = on_a_terminal(shared_stack, "probe", "top", "--once", "--every", "0.1")
    assert screen.count("router") == 1 and "\x1b[?1049h" not in screen, "it must not vanish with a screen of its own"


def test_ping_says_of_a_daemon_that_is_not_there_what_kill_says(cli: Cli) -> None:
    said = "is not running: nobody is registered under this name"

    def is_known_to_be_away() -> bool:  # the registry has heard of all who were there before it began
        pinged = cli("probe", "ping", "list_server", "9")
        assert pinged.returncode == UNREACHABLE
        return pinged.stdout == f"list_server 9      {said}\n"

    wait_until(is_known_to_be_away, 30, "ping says that nobody is registered")
    assert said in cli("probe", "kill", "list_server", "9").stderr


def test_the_demo_finds_every_promise_kept(cli: Cli) -> None:
    before = value_of(cli("lists", "--json"))
    report = value_of(cli("demo", "--lists", "2000", "--json"))
    assert (report["promised"], report["broken"]) == (2_000, 0)
    assert len(report["killed"]) == 2
    assert report["memory"]["list_server 1"]["rss"] > 0
    assert value_of(cli("lists", "--json")) == before


LONG_DEMO = (sys.executable, "-m", "todomq.cli", "demo", "--lists", "1000000", "--no-kills")


def lists_of_demos(stack: RunningStack) -> list[str]:
    with Client(stack.endpoint) as todo:
        return todo.list_names("demo/")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_demo_says_so_and_leaves_no_list(shared_stack: RunningStack, number: signal.Signals) -> None:
    with subprocess.Popen(
        LONG_DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=shared_stack.environment
    ) as demo:
        wait_until(lambda: len(lists_of_demos(shared_stack)) > 100, 20, "lists are created")
        demo.send_signal(number)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 128 + number
    assert "interrupted; the lists are being removed" in said and "left" not in said
    assert lists_of_demos(shared_stack) == []


def test_a_demo_whose_terminal_is_closed_leaves_no_list(shared_stack: RunningStack) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", *LONG_DEMO], stdin=theirs, stdout=theirs, stderr=theirs, env=shared_stack.environment
    ) as demo:
        os.close(theirs)
        try:
            wait_until(lambda: len(lists_of_demos(shared_stack)) > 100, 20, "lists are created")
        finally:
            os.close(ours)
        assert demo.wait(60) in (128 + signal.SIGHUP, REFUSED)  # where it could not write before it heard the signal
    assert lists_of_demos(shared_stack) == []


def test_what_ends_a_picture_that_goes_on_gives_the_terminal_back(shared_stack: RunningStack) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "todomq.cli", "probe", "top", "--every", "60"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**shared_stack.environment, "TERM": "xterm-256color"},
    ) as top:  # fmt: skip
        os.close(theirs)
        written, is_asked_to_end = b"", False
        with suppress(OSError):  # EIO: the other end is closed
            while select.select([ours], [], [], 30)[0] and (chunk := os.read(ours, 65_536)):
                written += chunk
                if b"router" in written and not is_asked_to_end:
                    is_asked_to_end = True
                    top.terminate()
        assert top.wait(30) == 128 + signal.SIGTERM
    os.close(ours)
    assert b"\x1b[?1049h" in written and written.rindex(b"\x1b[?1049l") > written.rindex(b"\x1b[?1049h")


def in_a_shell(stack: RunningStack, words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell runs it, redirections and all; ``todomq`` stands for the command line."""
    command = words.replace("todomq", f"{sys.executable} -m todomq.cli")
    return subprocess.run(
        ["sh", "-c", command], env=stack.environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("todomq clear closed <&-", DONE, ""),
        ("todomq drop closed <&-", DONE, ""),
        ("todomq import - closed --format csv <&-", USAGE, "standard input is closed"),
        ("todomq lists >/dev/full", REFUSED, "standard output: No space left on device"),
        ("todomq ls long >/dev/full", REFUSED, "standard output: No space left on device"),
        ("todomq lists --json >/dev/full", REFUSED, "standard output: No space left on device"),
        ("todomq probe tree >/dev/full", REFUSED, "standard output: No space left on device"),
        ("todomq export long >/dev/full", REFUSED, "standard output: No space left on device"),
        ("todomq export long /dev/full --format csv", REFUSED, "/dev/full: No space left on device"),
        ("todomq export long >&-", REFUSED, "standard output: it is closed, so nothing was written"),
        ("todomq export long . ", USAGE, ". is a directory; name a file in it"),
        ("todomq probe registry >&-", DONE, ""),
        ("todomq probe top --once >&-", DONE, ""),
        ("printf 'x' | todomq import - piped --format todo.txt 2>&-", DONE, ""),
        ("todomq export long - | head -1", DONE, ""),
        ("todomq lists nothing-begins-so | grep -q .", 1, "No list begins with nothing-begins-so."),
        ("todomq ls nothing-is-called-so | grep -q .", 1, "There is no list nothing-is-called-so."),
        ("todomq ls long | head -1", DONE, ""),
        ("todomq logs --follow | head -1", DONE, ""),
        ("todomq logs --follow --json | python3 -m json.tool >/dev/null", DONE, ""),
    ],
)
def test_closed_and_full_streams_are_told_in_a_line(
    shared_stack: RunningStack, words: str, code: int, said: str
) -> None:
    with Client(shared_stack.endpoint) as todo:
        long = todo.todo_list("long")
        if not long.size():
            long.add_entries(["a title that is somewhat long"] * 4_000)
    finished = in_a_shell(shared_stack, words)
    assert finished.returncode == code, finished.stderr
    if said and code == REFUSED and "|" not in words:
        assert finished.stderr == f"Error: {said}\n"
    assert said in finished.stderr and "Traceback" not in finished.stderr and "Exception" not in finished.stderr


@pytest.mark.parametrize(
    ("words", "mode", "said"),
    [
        (["import", "{}/closed.txt", "x"], 0, "'{}/closed.txt' is not readable"),
        (["export", "x", "{}/closed.txt"], 0o400, "{}/closed.txt: Permission denied"),
        (["export", "x", "{}/nowhere/x.txt"], 0o600, "there is no directory {}/nowhere"),
    ],
)
def test_a_path_that_cannot_be_used_is_a_matter_of_usage(
    shared_stack: RunningStack, tmp_path: Path, words: list[str], mode: int, said: str
) -> None:
    assert shared_stack.run("todomq.cli", "add", "x", "a title").returncode == DONE
    (tmp_path / "closed.txt").touch(mode)
    done = shared_stack.run_bound_by_permissions("todomq.cli", *[word.format(tmp_path) for word in words])
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert said.format(tmp_path) in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_import_that_is_interrupted_says_how_much_is_there(
    shared_stack: RunningStack, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "many.csv"
    file.write_text("".join(f",entry {n}\n" for n in range(200_000)))
    with (
        Client(shared_stack.endpoint) as todo,
        subprocess.Popen(
            [sys.executable, "-m", "todomq.cli", "import", str(file), f"interrupted by {number.name}"],
            env=shared_stack.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        interrupted = todo.todo_list(f"interrupted by {number.name}")
        wait_until(lambda: interrupted.size() > 0, 30, "the first entries are there")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        told = re.search(r"Interrupted: ([\d,]+) of 200,000 entries are known to be in interrupted by", said)
        assert told is not None, said
        assert 0 <= int(told[1].replace(",", "")) <= interrupted.size()


def test_colours_are_left_out_where_they_are_not_wanted(patient_stack: RunningStack) -> None:
    assert "\x1b[32m" in on_a_terminal(patient_stack, "probe", "tree")
    patient_stack.environment["NO_COLOR"] = "1"
    try:
        assert "\x1b[32m" not in on_a_terminal(patient_stack, "probe", "tree")
    finally:
        del patient_stack.environment["NO_COLOR"]


def test_data_is_not_removed_unasked_where_only_the_output_is_no_terminal(patient_stack: RunningStack) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "todomq.cli", "down", "--remove-data"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=patient_stack.environment, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"n\n")
        said, _ = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == REFUSED and "Nothing was changed." in said
    patient_stack.wait_healthy()
