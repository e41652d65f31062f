"""What a list server is asked about partitions while its workers are away, or their disks are slow."""

from __future__ import annotations

from typing import Any

import pytest

from todomq.errors import Overloaded
from todomq.list_server import ownership
from todomq.list_server.hosting import Hosting
from todomq.list_server.ownership import Ownership
from todomq.list_server.worker_link import WorkerLinks
from todomq.runtime.calls import LATER

ME = b"list server"
MOST = 8


class Loop:
    """In the place of the runtime's loop."""

    def steady_ms(self) -> int:
        return 0


class Away:
    """In the place of the link to a worker that is away."""

    def call(self, *body: Any, **more: Any) -> None:
        return


class Asked:
    """In the place of a call."""

    def __init__(self, *arguments: int) -> None:
        self.arguments = [*arguments]


@pytest.fixture
def owning(monkeypatch: pytest.MonkeyPatch) -> Ownership:
    monkeypatch.setattr(ownership, "WAITING_OWN", MOST)
    monkeypatch.setattr(ownership, "WAITING_RELEASE", MOST)
    links = WorkerLinks({1: Away()})  # type: ignore[dict-item]
    return Ownership(ME, Loop(), Hosting(1, 600_000, 1 << 30), links, 1_000)  # type: ignore[arg-type]


@pytest.mark.parametrize("epochs", [[1] * MOST, list(range(1, MOST + 1))], ids=["one claim", "many claims"])
def test_law_6_calls_that_wait_for_claims_are_bounded(owning: Ownership, epochs: list[int]) -> None:
    own: Any = owning.operations["own"]
    for epoch in epochs:
        assert own(Asked(5, epoch, 0)) is LATER
    with pytest.raises(Overloaded):
        own(Asked(5, 1, 0))


def test_law_6_calls_that_wait_for_the_disk_are_bounded(owning: Ownership) -> None:
    hosting, release = owning._hosting, owning.operations["release"]
    hosting.own(5, 1)
    hosting.stop_serving = lambda number, epoch: False  # type: ignore[method-assign]
    for _ in range(MOST):
        assert release(Asked(5, 1)) is LATER  # type: ignore[arg-type]
    with pytest.raises(Overloaded):
        release(Asked(5, 1))  # type: ignore[arg-type]
