"""The restart-intensity listener where the system refuses it something: it still does what only it can do."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from todomq.runtime.loop import Loop
from todomq.settings import Settings
from todomq.supervision import run_files, service
from todomq.supervision.events import Event
from todomq.supervision.restart_intensity import GiveUp
from todomq.supervision.service import Listener

BOUND_S = 10.0


class Manager:
    """In the place of supervisord."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def shutdown(self) -> None:
        self.asked.append("shutdown")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    (tmp_path / "run").mkdir()
    listener = Listener(Loop(), Settings(tmp_path, ""), {})
    listener._manager = Manager()  # type: ignore[assignment]
    yield listener
    listener._registry.close()


def give_up(listener: Listener) -> list[str]:
    listener._carry_out([GiveUp("cache was restarted too often")])
    asked: list[str] = listener._manager.asked  # type: ignore[attr-defined]
    latest_s = time.monotonic() + BOUND_S
    while "shutdown" not in asked and time.monotonic() < latest_s:
        listener._loop.turn(0.02)
    return asked


def test_law_9_the_stack_is_stopped_also_where_the_reason_cannot_be_kept(listener: Listener) -> None:
    (listener._settings.run / "failure").mkdir()  # nothing can take its place
    assert give_up(listener) == ["shutdown"]


def test_who_did_not_hear_that_it_is_to_stop_is_asked_again_and_no_stranger_is(listener: Listener) -> None:
    listener._manager_pid = os.getpid()
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        listener._take_event(Event("STOPPING", "router", "edge", children[0].pid, 0))
        latest_s = time.monotonic() + BOUND_S
        while children[0].poll() is None and time.monotonic() < latest_s:
            listener._loop.turn(0.02)
        assert children[0].returncode == -signal.SIGTERM
        listener._manager_pid = os.getppid()
        planned = len(listener._loop._timers)
        listener._take_event(Event("STOPPING", "router", "edge", children[1].pid, 0))
        listener._take_event(Event("STOPPING", "router", "edge", children[0].pid, 0))
        assert len(listener._loop._timers) == planned and children[1].poll() is None
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_the_reason_is_kept_where_it_can_be(listener: Listener) -> None:
    assert give_up(listener) == ["shutdown"]
    assert run_files.read_failure(listener._settings.run) == "cache was restarted too often"


def test_law_9_a_listener_that_hangs_is_ended(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HANG_S", 0.2)
    pid = os.fork()
    if not pid:
        try:
            listener._watch()
            while True:
                pass
        finally:
            os._exit(1)
    pidfd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert poller.poll(BOUND_S * 1000)
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGALRM
