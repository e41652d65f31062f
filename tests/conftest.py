"""Stacks for tests that ask for one, and which tests run side by side.

Those of stacks stay in one process, beside all others in another: a stack under load takes both processors by itself,
and two of them would be late for each other. Where a test measures time (``quiet``) the other process waits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from stacks import RunningStack, kept_running
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

STACKS = "tests/system/"
GATE, FLOOR = Path(__file__), Path(__file__).parent / "system" / "stacks.py"
"""What the processes lock to give way to each other; any two files do that are there anyway."""


class StacksTogether(LoadScopeScheduling):
    """Gives the tests of stacks to one process, in their order, and the others to whichever has nothing to do."""

    def _split_scope(self, nodeid: str) -> str:
        return STACKS if nodeid.startswith(STACKS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> StacksTogether:
    """Say to pytest-xdist how tests are shared out; it asks only where several processes are wanted."""
    return StacksTogether(config, log)


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock of flock(2) on a file: LOCK_EX, or LOCK_SH beside others who share it."""
    with path.open("rb") as file:
        fcntl.flock(file, how)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that a test has forked may have the file open still


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a ``quiet`` test while no other process runs one; a test that comes meanwhile waits for its end.

    Whoever waits for the floor holds the gate, so that nobody overtakes.
    """
    with ExitStack() as turn:
        if "PYTEST_XDIST_WORKER" in os.environ:
            is_quiet = item.get_closest_marker("quiet") is not None
            with locked(GATE, fcntl.LOCK_EX):
                turn.enter_context(locked(FLOOR, fcntl.LOCK_EX if is_quiet else fcntl.LOCK_SH))
        return (yield)


@pytest.fixture
def make_stack() -> Iterator[Callable[..., RunningStack]]:
    """Return a maker of stacks that are not started yet: ``make_stack(TODOMQ_MAX_RESTARTS="100")``."""
    made: list[RunningStack] = []

    def make(**settings: str) -> RunningStack:
        made.append(RunningStack(**settings))
        return made[-1]

    yield make
    left = [stack.discard() for stack in made]
    assert not any(left), f"left behind: {left}"


@pytest.fixture
def stack(make_stack: Callable[..., RunningStack]) -> RunningStack:
    """Return a running, healthy stack for one test."""
    running = make_stack()
    running.start()
    return running


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[RunningStack]:
    """Return a running, healthy stack for all tests of a module, with a restart limit out of their way."""
    yield from kept_running(RunningStack(TODOMQ_MAX_RESTARTS="1000000"))
