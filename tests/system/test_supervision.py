"""The real stack under supervisord: kill -9 anything, any number of times (law 9)."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from load import DAEMONS, Stalls
from stacks import RunningStack, is_gone, kept_running, wait_until

import todomq
from todomq import Client
from todomq.cli.show import name_of
from todomq.daemons import name_of_process, socket_name
from todomq.errors import Unavailable
from todomq.runtime.local_process import age_ms, has_ended
from todomq.runtime.locks import STACK_LOCK
from todomq.supervision import run_files
from todomq.supervision.manager import ANSWERS, ENDING, SILENT, Manager, Process
from todomq.supervision.service import registered_within_ms

MakeStack = Callable[..., RunningStack]

STACK = "todomq"
SMALL = {"TODOMQ_LIST_SERVERS": "1", "TODOMQ_DATABASE_WORKERS": "1"}


@pytest.fixture
def shared_stack(shared_stack: RunningStack) -> RunningStack:
    """Return the module's stack, started again where the test before has ended it."""
    if shared_stack.control.manager.state() != ANSWERS:
        shared_stack.start()
    return shared_stack


@pytest.fixture(scope="module")
def impatient_stack() -> Iterator[RunningStack]:
    """Return a stack that soon takes for hung whoever says nothing."""
    yield from kept_running(RunningStack(TODOMQ_LEASE_MS="1000", TODOMQ_MAX_RESTARTS="1000000"))


def kill_and_time(stack: RunningStack, name: str) -> float:
    """Kill a daemon; return after how many seconds its successor began. Nothing here wakes supervisord meanwhile.

    How long Python then takes to start is the machine's matter; ``test_recovery.py`` measures all of it.
    """
    killed = stack.kill(name)
    killed_s = time.monotonic()
    stack.wait_restarted(name, killed)
    return time.monotonic() - age_ms(stack.pid(name)) / 1000 - killed_s


@pytest.mark.parametrize("name", DAEMONS)
def test_a_killed_daemon_is_back_at_once_and_no_other_is_touched(shared_stack: RunningStack, name: str) -> None:
    before = shared_stack.pids()

    with Stalls() as stalls:
        seconds = [kill_and_time(shared_stack, name) for _ in range(3)]

    after = shared_stack.pids()
    assert {process for process in before if before[process] != after[process]} == {name}
    assert statistics.median(seconds) - stalls.longest_s < 0.3, seconds
    assert max(seconds) - stalls.longest_s < 1.0, seconds
    shared_stack.wait_healthy()


def test_a_killed_listener_is_back_and_goes_on_hurrying_and_counting(shared_stack: RunningStack) -> None:
    kill_and_time(shared_stack, "cache")
    counted = run_files.read_restarts(shared_stack.home / "run")["cache"]
    killed = shared_stack.kill("supervision")
    wait_until(lambda: shared_stack.pid("supervision") not in (0, killed), 20, "the listener is back")

    with Stalls() as stalls:
        seconds = [kill_and_time(shared_stack, "cache") for _ in range(3)]

    assert statistics.median(seconds) - stalls.longest_s < 0.3, seconds
    run = shared_stack.home / "run"
    wait_until(lambda: run_files.read_restarts(run)["cache"] == counted + 3, 20, "all restarts are counted")


def test_a_deliberate_restart_is_not_counted_and_names_what_settings_it_does_not_take(
    shared_stack: RunningStack,
) -> None:
    before, counted = shared_stack.pids(), run_files.read_restarts(shared_stack.home / "run")
    assert shared_stack.control.settings_not_taken() == []
    changed = {"TODOMQ_TCP": "tcp://127.0.0.1:17447", "TODOMQ_MAX_RESTARTS": "", "TODOMQ_ENDPOINT": "ipc:///x"}

    result = shared_stack.run(STACK, "restart", settings=changed)

    assert result.returncode == 0, result.stderr
    after = shared_stack.pids()
    assert all(before[name] != after[name] for name in before)
    assert run_files.read_restarts(shared_stack.home / "run") == counted
    assert "it was started with; set otherwise here: TODOMQ_MAX_RESTARTS, TODOMQ_TCP." in result.stdout
    assert "down; " in result.stdout


def test_the_status_names_every_process(shared_stack: RunningStack) -> None:
    result = shared_stack.run(STACK, "status")

    assert result.returncode == 0, result.stdout
    for process, pid in shared_stack.pids().items():
        name = f" {name_of(list(name_of_process(process)))} "
        assert any(name in line and str(pid) in line and "RUNNING" in line for line in result.stdout.splitlines())


def test_starting_again_what_runs_is_harmless(shared_stack: RunningStack) -> None:
    before = shared_stack.pids()
    result = shared_stack.run(STACK, "up", settings={"TODOMQ_IDLE_S": "5"})
    assert result.returncode == 0, result.stderr
    already, not_taken = result.stdout.splitlines()
    assert already == f"TodoMQ was up already; its home is {shared_stack.home}"
    assert "set otherwise here: TODOMQ_IDLE_S." in not_taken
    assert shared_stack.pids() == before


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_that_is(shared_stack: RunningStack) -> None:
    meant = {"TODOMQ_MAX_RESTARTS_CACHE": shared_stack.environment.get("TODOMQ_MAX_RESTARTS_CACHE", "")}
    wrong = {"TODOMQ_LISTSERVERS": "4", "TODOMQ_MAX_RESTARTS_LIST": "9", "TODOMQ_ZZZ": "1"}
    result = shared_stack.run(STACK, "up", settings={**wrong, **meant})
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stdout.splitlines() if "is no setting" in line]
    assert told == [
        "TODOMQ_LISTSERVERS is no setting of TodoMQ and changes nothing; did you mean TODOMQ_LIST_SERVERS?",
        "TODOMQ_MAX_RESTARTS_LIST is no setting of TodoMQ and changes nothing; did you mean TODOMQ_MAX_RESTARTS_LISTS?",
        "TODOMQ_ZZZ is no setting of TodoMQ and changes nothing",
    ]


def test_starting_again_starts_what_was_stopped_of_what_runs(shared_stack: RunningStack) -> None:
    shared_stack.wait_healthy()
    stopped = ["list_server-1", "supervision"]
    with shared_stack.control.alone():
        for name in stopped:
            shared_stack.control.manager.stop(shared_stack.processes()[name], 20.0)
        assert {shared_stack.processes()[name].state for name in stopped} == {"STOPPED"}
    result = shared_stack.run(STACK, "up")
    assert result.returncode == 0, result.stderr
    assert {process.state for process in shared_stack.processes().values()} == {"RUNNING"}


def test_a_restart_starts_what_was_stopped_before_it(shared_stack: RunningStack) -> None:
    shared_stack.wait_healthy()
    said: list[str] = []
    with shared_stack.control.alone():
        shared_stack.control.manager.stop(shared_stack.processes()["database_worker-1"], 20.0)
        shared_stack.control.restart(shared_stack.wait_healthy, said.append)
    assert len(said) == len(shared_stack.processes())
    assert {process.state for process in shared_stack.processes().values()} == {"RUNNING"}


@pytest.mark.parametrize("moment", ["stop", "start"])
def test_a_restart_that_is_interrupted_leaves_nothing_stopped(
    shared_stack: RunningStack, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    shared_stack.wait_healthy()
    control = shared_stack.control
    manager = control.manager
    undisturbed = getattr(manager, moment)

    def interrupted(process: Process, timeout_s: float) -> None:
        monkeypatch.setattr(manager, moment, undisturbed)
        if moment == "stop":  # supervisord goes on with what it was asked
            undisturbed(process, timeout_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(manager, moment, interrupted)
    with pytest.raises(KeyboardInterrupt), control.alone():
        control.restart(shared_stack.wait_healthy, lambda line: None)
    assert {process.state for process in manager.processes()} == {"RUNNING"}
    shared_stack.wait_healthy()


@pytest.mark.parametrize("name", ["supervision", "database_worker-2"])
def test_law_9_a_restart_that_is_killed_leaves_nothing_stopped(shared_stack: RunningStack, name: str) -> None:
    shared_stack.wait_healthy()
    pid = shared_stack.pids()[name]
    pidfd = os.pidfd_open(pid)
    command = [sys.executable, "-P", "-m", STACK, "restart"]
    with subprocess.Popen(command, env=shared_stack.environment, stderr=subprocess.DEVNULL) as restart:
        try:
            assert has_ended(pidfd, 60.0), "it is stopped by now"
        finally:
            restart.kill()
            os.close(pidfd)

    def runs() -> bool:
        found = shared_stack.processes().values()
        return {process.state for process in found} == {"RUNNING"} and pid not in {process.pid for process in found}

    wait_until(runs, 20, "every process is back")
    shared_stack.wait_healthy()


def test_running_again_what_runs_is_refused_with_its_home(shared_stack: RunningStack) -> None:
    result = shared_stack.run(STACK, "run")
    assert result.returncode == 1
    assert f"the stack of {shared_stack.home} runs already" in result.stderr


@pytest.mark.parametrize("command", ["status", "restart"])
def test_that_nothing_runs_is_told_with_the_home_and_how_to_start_it(make_stack: MakeStack, command: str) -> None:
    stack = make_stack()
    result = stack.run(STACK, command)
    assert result.returncode == 3
    assert f"TodoMQ is not running in {stack.home}; start it with: " in result.stdout + result.stderr


@pytest.mark.parametrize("options", [[], ["--remove-data", "--yes"]])
def test_down_makes_no_home_and_tells_of_no_data_where_there_is_none(make_stack: MakeStack, options: list[str]) -> None:
    stack = make_stack()
    home = stack.home / "none"
    result = stack.run(STACK, "down", *options, settings={"TODOMQ_HOME": str(home)})
    assert (result.returncode, result.stdout) == (0, f"TodoMQ is not running; there is no {home}, so no data either.\n")
    assert not home.exists()
    empty = stack.run(STACK, "down", *options)
    assert empty.stdout == f"TodoMQ is not running; there is no data in {stack.home}/data\n"


def kill_registry_with_its_journal(stack: RunningStack) -> None:
    """Kill the registry; the next one misses the journal, and knows of nobody who does not register."""
    registry = stack.kill("registry", signal.SIGSTOP)  # else it would write the journal anew
    for journal in (stack.home / "run").glob("registry-*.journal"):
        journal.unlink()
    os.kill(registry, signal.SIGKILL)


def test_law_9_a_daemon_that_hangs_is_replaced_soon_though_neither_registry_nor_listener_knew_of_it(
    impatient_stack: RunningStack,
) -> None:
    victim = impatient_stack.pid("database_worker-2")
    young_ms = registered_within_ms(impatient_stack.control.settings.lease_ms)
    wait_until(lambda: age_ms(victim) > young_ms, 2 * young_ms / 1000, "the worker is no longer young")

    hung = impatient_stack.kill("database_worker-2", signal.SIGSTOP)
    kill_registry_with_its_journal(impatient_stack)
    impatient_stack.kill("supervision")

    # Two leases from when the listener is back, of which the registry says nothing in the first; were its time to
    # register to begin anew, it would be ten seconds more.
    impatient_stack.wait_restarted("database_worker-2", hung, timeout_s=10)
    assert hung == victim and is_gone(hung)
    impatient_stack.wait_healthy()


def test_law_9_a_daemon_that_hangs_is_replaced_though_the_registry_never_knew_of_it(
    impatient_stack: RunningStack,
) -> None:
    hung = impatient_stack.kill("database_worker-3", signal.SIGSTOP)
    kill_registry_with_its_journal(impatient_stack)

    # Two leases, with the one in which the registry says nothing; ten seconds from its start where the listener had not
    # seen it.
    impatient_stack.wait_restarted("database_worker-3", hung, timeout_s=25)
    assert is_gone(hung)
    impatient_stack.wait_healthy()


def test_law_9_a_daemon_that_hangs_is_ended_by_the_registry_that_comes_after_the_one_that_knew_it(
    impatient_stack: RunningStack,
) -> None:
    hung = impatient_stack.kill("database_worker-1", signal.SIGSTOP)
    impatient_stack.kill("registry")
    impatient_stack.wait_restarted("database_worker-1", hung)
    assert is_gone(hung) and impatient_stack.ask("registry", "stats")["killed"] == 1
    impatient_stack.wait_healthy()


def test_law_9_a_listener_that_stood_still_counts_deaths_when_they_were(make_stack: MakeStack) -> None:
    stack = make_stack(**SMALL, TODOMQ_MAX_RESTARTS_CACHE="2", TODOMQ_MAX_RESTARTS_S_CACHE="2")
    stack.start()
    counted = run_files.read_restarts(stack.home / "run").get("cache", 0)
    listener = stack.pid("supervision")
    os.kill(listener, signal.SIGSTOP)
    try:
        for _ in range(4):
            again_s = time.monotonic() + 1.1
            stack.wait_restarted("cache", stack.kill("cache"))
            wait_until(partial(_is_past, again_s), 5, "no more than two fall within two seconds")
    finally:
        os.kill(listener, signal.SIGCONT)
    wait_until(
        lambda: run_files.read_restarts(stack.home / "run").get("cache") == counted + 4, 20, "all restarts are counted"
    )
    assert stack.control.failure() is None
    stack.wait_healthy()


def _is_past(end_s: float) -> bool:
    return time.monotonic() > end_s


def test_too_many_restarts_stop_the_stack_with_a_reason_and_in_order(make_stack: MakeStack) -> None:
    """In that order what is under way is still committed."""
    stack = make_stack(TODOMQ_MAX_RESTARTS_CACHE="1", TODOMQ_MAX_RESTARTS_S_CACHE="60")
    stack.start()
    manager = stack.manager_pid()
    kill_and_time(stack, "cache")
    assert stack.control.failure() is None

    stack.kill("cache")

    wait_until(lambda: is_gone(manager), 20, "supervisord has ended")
    assert stack.living() == {} and stack.sockets() == []
    stopped = re.findall(r"stopped: (\S+)", (stack.home / "log" / "supervisord.log").read_text())
    assert [name.partition("-")[0] for name in stopped] == [
        "router", *["list_server"] * 2, *["database_worker"] * 3, "cache", "registry", "supervision",
    ]  # fmt: skip
    status = stack.run(STACK, "status")
    assert status.returncode != 0
    for part in ("group cache gave up", "2 times within 60 s", "terminated by SIGKILL"):
        assert part in status.stdout
    stack.start()
    assert stack.control.failure() is None


def test_a_daemon_that_refuses_its_settings_ends_the_start_with_what_it_says_of_them(make_stack: MakeStack) -> None:
    stack = make_stack(**SMALL)
    stack.start()
    stack.stop()

    result = stack.run(STACK, "up", settings={"TODOMQ_DATABASE_WORKERS": "2"})

    assert result.returncode != 0
    assert re.fullmatch(
        r"(not healthy yet: .*\n)?"  # where the machine is slow
        r"Error: database_worker-\d refuses to start: .*: set TODOMQ_DATABASE_WORKERS=1, .*\n",
        result.stderr,
    )
    assert "refuses to start" in stack.run(STACK, "status").stdout
    assert stack.living() == {}


def test_in_the_foreground_giving_up_is_an_exit_status_that_is_not_0(make_stack: MakeStack) -> None:
    stack = make_stack(**SMALL, TODOMQ_MAX_RESTARTS="0")
    command = [sys.executable, "-m", STACK, "run"]
    with subprocess.Popen(command, env=stack.environment, stdout=DEVNULL, stderr=PIPE, text=True) as foreground:
        wait_until(lambda: stack.ask("cache", timeout_s=0.1) == "pong", 30, "the cache answers")
        stack.kill("cache")
        _, said = foreground.communicate(timeout=30)

    assert foreground.returncode == 1
    assert "group cache gave up" in said
    assert stack.sockets() == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL], ids=lambda number: number.name)
def test_law_9_whatever_ends_the_foreground_ends_what_runs_in_it(
    make_stack: MakeStack, number: signal.Signals
) -> None:
    stack = make_stack(**SMALL)
    command = [sys.executable, "-m", STACK, "run"]
    with subprocess.Popen(command, env=stack.environment, stdout=DEVNULL, stderr=DEVNULL) as foreground:
        wait_until(lambda: stack.ask("cache", timeout_s=0.1) == "pong", 30, "the cache answers")
        foreground.send_signal(number)
        foreground.wait(timeout=30)
    wait_until(lambda: stack.living() == {}, 30, "all have left")
    assert "SIGKILL" not in (stack.home / "log" / "supervisord.log").read_text()


def test_law_9_a_stack_in_the_foreground_goes_on_where_nobody_reads_what_it_says(make_stack: MakeStack) -> None:
    stack = make_stack(**SMALL)
    command = [sys.executable, "-m", STACK, "run"]
    with subprocess.Popen(command, env=stack.environment, stdout=DEVNULL, stderr=PIPE) as foreground:
        assert foreground.stderr is not None
        wait_until(lambda: stack.ask("cache", timeout_s=0.1) == "pong", 30, "the cache answers")
        foreground.stderr.close()
        stack.wait_restarted("cache", stack.kill("cache"))
        stack.wait_restarted("router", stack.kill("router"))
        foreground.terminate()
        assert foreground.wait(timeout=30) == 0


def test_law_9_a_stack_whose_logs_were_removed_starts_again_what_dies(shared_stack: RunningStack) -> None:
    _remove(shared_stack.home / "log")
    shared_stack.wait_restarted("cache", shared_stack.kill("cache"))
    _remove(shared_stack.home / "log")
    restarted = shared_stack.run(STACK, "restart")
    assert restarted.returncode == 0, restarted.stderr
    assert "database_worker 1 restarted" in restarted.stderr


def test_a_home_that_is_no_text_is_refused_before_anything_is_started(make_stack: MakeStack) -> None:
    result = make_stack(TODOMQ_HOME="/tmp/\udcff").run(STACK, "up")

    assert result.returncode == 2
    assert "is no UTF-8" in result.stderr and len(result.stderr.splitlines()) == 1


def test_down_removes_no_socket_of_another_program(make_stack: MakeStack) -> None:
    stack = make_stack()
    (stack.home / "run").mkdir(mode=0o700)
    foreign = stack.home / "run" / "docker.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(foreign))
        assert stack.run(STACK, "down").returncode == 0
        assert foreign.exists()
    foreign.unlink()


def test_law_9_a_stack_whose_run_directory_was_removed_is_still_the_only_one(shared_stack: RunningStack) -> None:
    with Client(shared_stack.endpoint) as todo:
        todo.todo_list("before").add_entry("kept")
    before = set(shared_stack.living())
    _remove(shared_stack.home / "run")

    assert "runs, but its supervisord" in shared_stack.run(STACK, "status").stdout
    assert shared_stack.run(STACK, "up").returncode == 0

    assert not before & set(shared_stack.living()) and len(shared_stack.living()) == len(before)
    with Client(shared_stack.endpoint) as todo:
        todo.todo_list("before").add_entry("goes on")
        assert [entry.title for entry in todo.todo_list("before").entries()] == ["kept", "goes on"]
    _remove(shared_stack.home / "run")
    assert shared_stack.run(STACK, "down").returncode == 0
    assert shared_stack.living() == {}


def test_law_9_a_stack_whose_home_was_removed_is_known_by_its_path_and_ended(make_stack: MakeStack) -> None:
    stack = make_stack(**SMALL)
    stack.start()
    _remove(stack.home)

    assert "runs, but its supervisord" in stack.run(STACK, "status").stdout
    ended = stack.run(STACK, "down")

    assert ended.returncode == 0 and "TodoMQ is down" in ended.stdout
    assert stack.living() == {}


def test_law_9_what_is_no_supervisord_of_this_stack_is_left_alone(
    make_stack: MakeStack, shared_stack: RunningStack
) -> None:
    other, third_stack = make_stack(), make_stack(**SMALL)
    (other.home / "log").mkdir()
    log = other.home / "log" / "supervisord.log"
    log.touch()
    command = [sys.executable, "-m", STACK, "run"]
    with (
        subprocess.Popen(["tail", "-f", str(log)], cwd=other.home, stdout=DEVNULL) as reader,
        subprocess.Popen(command, cwd=other.home, env=third_stack.environment, stdout=DEVNULL, stderr=PIPE) as third,
    ):
        wait_until(lambda: len(_supervisords_in(other.home)) == 1, 30, "the third stack has been started")
        try:
            assert "is not running" in other.run(STACK, "status").stdout
            assert other.run(STACK, "down").returncode == 0
            assert reader.poll() is None and third.poll() is None
            shared_stack.wait_healthy()
            third_stack.wait_healthy()
        finally:
            reader.terminate()
            third.send_signal(signal.SIGINT)
        _, said = third.communicate(timeout=30)
    assert third.returncode == 0, said


def test_a_start_in_the_foreground_ends_a_supervisord_that_hangs(shared_stack: RunningStack) -> None:
    hung = shared_stack.manager_pid()
    os.kill(hung, signal.SIGSTOP)
    command = [sys.executable, "-m", STACK, "run"]
    with subprocess.Popen(command, env=shared_stack.environment, stdout=DEVNULL, stderr=DEVNULL) as foreground:
        try:
            wait_until(lambda: shared_stack.control.manager.state() == ANSWERS, 30, "another supervisord answers")
        finally:
            foreground.terminate()
    assert is_gone(hung) and foreground.returncode == 0
    assert shared_stack.living() == {}


def _remove(directory: Path) -> None:
    """Remove a directory in which living processes make files meanwhile."""

    def is_removed() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    wait_until(is_removed, 20, f"{directory} is removed")


def _supervisords_in(directory: Path) -> list[Path]:
    """Return the processes that work in a directory and run supervisord."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_there = (process / "cwd").readlink() == directory
            if is_there and b"supervisor.supervisord" in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:
            continue  # it has ended
    return found


def test_law_9_a_stack_in_the_foreground_whose_run_directory_was_removed_is_still_known(make_stack: MakeStack) -> None:
    stack = make_stack(**SMALL)
    command = [sys.executable, "-m", STACK, "run"]
    with subprocess.Popen(command, cwd="/", env=stack.environment, stdout=DEVNULL, stderr=DEVNULL) as foreground:
        wait_until(lambda: stack.ask("cache", timeout_s=0.1) == "pong", 30, "the cache answers")
        _remove(stack.home / "run")
        assert stack.run(STACK, "down").returncode == 0
        foreground.wait(30)
    assert stack.living() == {}


def test_what_is_set_for_a_python_that_somebody_tries_things_in_does_not_reach_the_stack(make_stack: MakeStack) -> None:
    stack = make_stack(PYTHONINSPECT="1", PYTHONWARNINGS="error", **SMALL)
    stack.start()
    for name in ("cache", "supervision"):
        environment = Path(f"/proc/{stack.pid(name)}/environ").read_bytes()
        assert b"PYTHONINSPECT" not in environment and b"PYTHONWARNINGS" not in environment


def test_a_python_without_todomq_is_refused_with_its_own_words(make_stack: MakeStack) -> None:
    stack = make_stack(TODOMQ_PYTHON="/usr/bin/python3", PYTHONPATH="")
    result = stack.run(STACK, "up")
    assert result.returncode == 2
    assert "TODOMQ_PYTHON is /usr/bin/python3, which does not have TodoMQ: ModuleNotFoundError" in result.stderr
    assert stack.living() == {}


@pytest.mark.parametrize("directory", ["data", "data/worker-1", "log"])
def test_a_directory_that_cannot_be_written_is_named_before_anything_starts(
    make_stack: MakeStack, directory: str
) -> None:
    stack = make_stack()
    (stack.home / directory).mkdir(parents=True)
    (stack.home / directory).chmod(0o500)

    result = stack.run_bound_by_permissions(STACK, "up")

    assert result.returncode == 2
    assert f"{stack.home / directory} can't be written" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert stack.living() == {}


def test_a_home_that_cannot_be_made_is_told_with_what_to_do(make_stack: MakeStack) -> None:
    result = make_stack(TODOMQ_HOME="/proc/nowhere").run(STACK, "up")

    assert result.returncode == 2
    assert "No such file or directory; run this as the stack's user, or set TODOMQ_HOME" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["up"], ["status"], ["add", "x", "y"]])
def test_a_home_that_is_not_ones_own_is_told_with_what_to_do(make_stack: MakeStack, command: list[str]) -> None:
    stack = make_stack()
    (stack.home / "run").mkdir()
    stack.home.chmod(0)
    try:
        result = stack.run_bound_by_permissions(STACK, *command)
    finally:
        stack.home.chmod(0o700)

    assert result.returncode == 2
    assert "Permission denied; run this as the stack's user, or set TODOMQ_HOME" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_start_that_is_not_healthy_names_what_is_at_fault_in_one_line(shared_stack: RunningStack) -> None:
    worker = shared_stack.processes()["database_worker-2"]
    with shared_stack.control.alone(), pytest.raises(Unavailable) as caught:  # noqa: PT012
        shared_stack.control.manager.stop(worker, 10.0)
        shared_stack.wait_healthy(timeout_s=1)

    assert caught.value.text.startswith("the stack is not healthy: database_worker 2: is not running")
    assert caught.value.text.endswith(" (what runs of it goes on; todomq down stops it)")
    assert "cache" not in caught.value.text and len(caught.value.text.splitlines()) == 1
    shared_stack.start()


def test_a_start_that_takes_long_says_what_it_waits_for(make_stack: MakeStack) -> None:
    stack = make_stack(TODOMQ_LEASE_MS="600000")  # nothing is ended because it hangs
    stack.start()
    worker = stack.kill("database_worker-2", signal.SIGSTOP)
    with subprocess.Popen(
        [sys.executable, "-m", STACK, "up"], env=stack.environment, stdout=DEVNULL, stderr=PIPE, text=True
    ) as up:
        assert up.stderr is not None and select.select([up.stderr], [], [], 60)[0]
        said = up.stderr.readline()
        os.kill(worker, signal.SIGCONT)
        _, more = up.communicate(timeout=60)
    assert re.fullmatch(r"not healthy yet: database_worker 2: .*; waiting up to 30 s for that\n", said), said
    assert (up.returncode, more) == (0, "")


def test_nothing_outlives_a_killed_supervisord_and_no_socket_is_left_of_a_daemon_that_is_none_any_more(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(TODOMQ_LIST_SERVERS="3", TODOMQ_DATABASE_WORKERS="1")
    stack.start()
    pids = [stack.manager_pid(), *stack.pids().values()]
    stack.kill("list_server-1", signal.SIGSTOP)  # one that hangs can't leave by itself

    os.kill(pids[0], signal.SIGKILL)

    wait_until(lambda: all(is_gone(pid) for pid in pids), 20, "all have left")
    unused = stack.home / "run" / "supervisor.sock.1"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(unused))  # as of a supervisord that was killed as it began
    stack.start(TODOMQ_LIST_SERVERS="2")
    assert sorted(stack.pids()) == sorted([*stack.daemons, "supervision"])
    names = set(stack.sockets())
    assert "list_server-2" in names and not names & {"list_server-3", "list_server-3.commits", unused.name}


class _SlowToLook(Manager):
    """A supervisord that goes into the background when it was just found, or is just about to be."""

    is_found = True

    def _is_it(self, pid: int) -> bool:
        if not super()._is_it(pid):
            return False
        wait_until(lambda: is_gone(pid) or self.state() == ANSWERS, 10, "it is in the background")
        return self.is_found or super()._is_it(pid)


@pytest.mark.parametrize("is_found", [True, False])
def test_law_9_a_supervisord_left_by_a_killed_up_is_ended_also_while_it_goes_into_the_background(
    make_stack: MakeStack, is_found: bool
) -> None:
    stack = make_stack(**SMALL)
    control = stack.control
    control.manager = manager = _SlowToLook(control.settings)
    manager.is_found = is_found
    control.prepare(SILENT)
    with subprocess.Popen(control.command(), env=control.environment()):
        wait_until(stack.living, 20, "it can be told from others")
        control.stop()
    wait_until(lambda: not stack.living(), 20, "what it has just started has left, too")
    with subprocess.Popen(control.command(), env=control.environment()):
        wait_until(stack.living, 20, "it can be told from others")
        control.start()
    stack.wait_healthy()


def test_down_leaves_no_process_and_no_socket_and_keeps_the_data(shared_stack: RunningStack) -> None:
    result = shared_stack.run(STACK, "down")

    assert result.returncode == 0, result.stderr
    assert shared_stack.living() == {}
    assert shared_stack.sockets() == []
    assert any((shared_stack.home / "data").iterdir())
    assert shared_stack.run(STACK, "down").returncode == 0
    assert shared_stack.run(STACK, "status").returncode == 3
    shared_stack.start()


def test_what_todomq_did_not_make_is_neither_removed_nor_closed_to_others(make_stack: MakeStack) -> None:
    stack = make_stack()
    precious = stack.home / "data" / "precious.db"
    precious.parent.mkdir()
    precious.write_text("precious")
    refused = stack.run(STACK, "down", "--remove-data", "--yes")
    assert refused.returncode == 1 and precious.read_text() == "precious"
    assert f"{precious.parent} holds precious.db that TodoMQ did not make; remove it by hand" in refused.stderr

    run = stack.home / "run"
    run.mkdir()
    run.chmod(0o755)
    (run / "other.pid").touch()
    refused = stack.run(STACK, "up")
    assert refused.returncode == 2 and f"{run} is not TodoMQ's and would be closed to others" in refused.stderr
    assert run.stat().st_mode & 0o777 == 0o755 and stack.living() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("command", [("status",), ("restart",), ("down",), ("demo", "--lists", "1")])
def test_of_another_users_stack_it_is_not_said_that_it_does_not_run(
    shared_stack: RunningStack, command: tuple[str, ...]
) -> None:
    shared_stack.home.chmod(0o755)
    result = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", sys.executable, "-m", STACK, *command],
        env=shared_stack.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and "; run this as the stack's user" in result.stderr, result
    assert shared_stack.run(STACK, "status").returncode == 0


def test_what_starts_is_stopped_soon_whenever_that_is(make_stack: MakeStack) -> None:
    """What is forked and has not begun yet takes no notice of a signal; supervisord waits ten seconds for it."""
    stack = make_stack()
    with subprocess.Popen(
        [sys.executable, "-m", STACK, "run"], env=stack.environment, stdout=DEVNULL, stderr=DEVNULL
    ) as foreground:
        log = stack.home / "log" / "supervisord.log"
        wait_until(lambda: log.exists() and "spawned: 'registry'" in log.read_text(), 30, "it starts")
        foreground.send_signal(signal.SIGTERM)
        assert foreground.wait(30) == 0
    assert stack.living() == {} and "SIGKILL" not in log.read_text()


@pytest.mark.parametrize("command", ["up", "down", "restart"])
def test_what_is_interrupted_says_how_to_go_on(shared_stack: RunningStack, command: str) -> None:
    lock = shared_stack.home / "run" / STACK_LOCK
    with (
        shared_stack.control.alone(),
        subprocess.Popen(
            [sys.executable, "-m", STACK, command], env=shared_stack.environment, stderr=PIPE, text=True
        ) as waiting,
    ):
        wait_until(lambda: lock in _files_of(waiting.pid), 30, "it waits for the other command")
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 130 and said.startswith("Interrupted: ") and "status says what runs" in said
    assert len(said.splitlines()) == 1


def _files_of(pid: int) -> list[Path]:
    """Return what a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(each.readlink())
    return found


def test_down_ends_a_supervisord_that_hangs(shared_stack: RunningStack) -> None:
    pid = shared_stack.manager_pid()
    os.kill(pid, signal.SIGSTOP)
    status = shared_stack.run(STACK, "status")
    assert status.returncode == 3 and f"its supervisord (pid {pid}) does not answer" in status.stdout + status.stderr
    assert shared_stack.run(STACK, "down").returncode == 0
    assert shared_stack.living() == {}


def test_down_lets_daemons_go_on_that_stand_still_so_that_each_ends_by_itself(make_stack: MakeStack) -> None:
    stack = make_stack(TODOMQ_LEASE_MS="600000")  # nothing is ended because it hangs
    stack.start()
    for name in stack.daemons:
        stack.kill(name, signal.SIGSTOP)

    assert stack.run(STACK, "down").returncode == 0

    assert stack.living() == {}
    assert "SIGKILL" not in (stack.home / "log" / "supervisord.log").read_text()


def test_down_waits_for_a_supervisord_that_is_stopping_the_stack_already(make_stack: MakeStack) -> None:
    stack = make_stack(TODOMQ_LEASE_MS="600000")  # nothing is ended because it hangs
    stack.start()
    pid = stack.manager_pid()
    standing = stack.kill("database_worker-2", signal.SIGSTOP)
    stack.control.manager.shutdown()
    wait_until(lambda: stack.control.manager.state() == ENDING, 20, "it stops the others")
    assert not is_gone(standing)

    assert stack.run(STACK, "down").returncode == 0

    assert is_gone(pid) and stack.living() == {}
    log = (stack.home / "log" / "supervisord.log").read_text()
    assert "SIGKILL" not in log and "stopped: supervision" in log


def test_two_stacks_run_side_by_side(shared_stack: RunningStack, make_stack: MakeStack) -> None:
    before = shared_stack.pids()
    other = make_stack(**SMALL)
    other.start()
    assert sorted(other.pids()) == sorted(
        [*(socket_name(name) for name in other.control.settings.daemon_names()), "supervision"]
    )
    other.stop()
    assert shared_stack.pids() == before


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("TODOMQ_MAX_RESTARTS_DATABASE", "many", "group database"),
        ("TODOMQ_LIST_SERVERS", "0", "TODOMQ_LIST_SERVERS"),
        ("TODOMQ_HOME", "/tmp/" + 100 * "x", "TODOMQ_HOME"),
        ("TODOMQ_REGISTRY", "tcp://127.0.0.1:20000", "by hand"),
        ("TODOMQ_PYTHON", "/nowhere/python", "TODOMQ_PYTHON is /nowhere/python"),
        ("TODOMQ_HOME", "/tmp/100%", "no path with %"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_clear_line(
    make_stack: MakeStack, variable: str, value: str, complaint: str
) -> None:
    stack = make_stack()

    more = {"TODOMQ_STACK_TCP": "tcp://127.0.0.1:20100"} if variable == "TODOMQ_REGISTRY" else {}
    result = stack.run(STACK, "up", settings={variable: value, **more})

    assert result.returncode == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert stack.living() == {}


def test_a_daemon_is_imported_from_where_the_tests_import(shared_stack: RunningStack) -> None:
    pid = shared_stack.pid("cache")
    variables = (Path("/proc") / str(pid) / "environ").read_bytes().decode().split("\0")
    environment = dict(variable.split("=", 1) for variable in variables if variable)
    program = [environment["TODOMQ_PYTHON"], "-P", "-c", "import todomq; print(todomq.__file__)"]
    told = subprocess.run(program, env=environment, cwd=f"/proc/{pid}/cwd", capture_output=True, text=True, check=True)
    assert told.stdout.strip() == todomq.__file__
