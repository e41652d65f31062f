"""Stacks for tests that ask for one, and which tests run side by side.

Those of stacks stay in one process, beside all others in another: a stack under load takes both processors by itself,
and two of them would be late for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from stacks import RunningStack, kept_running
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

STACKS = "tests/system/"


class StacksTogether(LoadScopeScheduling):
    """Gives the tests of stacks to one process, in their order, and the others to whichever has nothing to do."""

    def _split_scope(self, nodeid: str) -> str:
        return STACKS if nodeid.startswith(STACKS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> StacksTogether:
    """Say to pytest-xdist how tests are shared out; it asks only where several processes are wanted."""
    return StacksTogether(config, log)


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
