"""The demo's way out: what it leaves, and what it says of that."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import Any

import pytest

from todomq.cli import demo_job
from todomq.cli.demo_report import FEW_LISTS, Memory, Report
from todomq.cli.progress import bars
from todomq.errors import NameNotFound, TodoMQError, Unauthorized, Unavailable

AWAY = Unavailable("its worker is away")


class Lists:
    """A client, its pipeline and its lists at once: deletes what it can."""

    def __init__(self, undeletable: str = "", error: TodoMQError = AWAY) -> None:
        self.undeletable = undeletable
        self.error = error
        self.deleted: list[str] = []
        self._name = ""

    def pipeline(self) -> Lists:
        return self

    def todo_list(self, name: str) -> Lists:
        self._name = name
        return self

    def delete(self, *, deadline_s: float) -> Future[None]:
        future: Future[None] = Future()
        if self._name == self.undeletable:
            future.set_exception(self.error)
        else:
            self.deleted.append(self._name)
            future.set_result(None)
        return future

    def __enter__(self) -> Lists:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.undeletable:
            raise ExceptionGroup("1 of 4 requests failed", [self.error])


def tidied(todo: Any, keep: bool = False, error: BaseException | None = None) -> None:
    """Leave a demo of 5 lists, of which 3 were begun."""
    promises = demo_job.Promises(5, "demo/x/")
    promises.begun = 3
    with bars() as shown, demo_job._tidying(todo, promises, keep, shown):
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Unavailable("away")])
def test_whatever_ends_the_demo_the_lists_that_were_begun_are_removed(error: BaseException) -> None:
    todo = Lists()
    with pytest.raises(type(error)):
        tidied(todo, error=error)
    assert todo.deleted == ["demo/x/sample", "demo/x/0", "demo/x/1", "demo/x/2"]


def test_lists_that_cannot_be_removed_are_named_with_how_to_remove_them(capsys: pytest.CaptureFixture[str]) -> None:
    tidied(Lists(undeletable="demo/x/1"))
    assert "todomq lists demo/x/ | xargs -r -n 1 todomq drop --yes" in capsys.readouterr().err


def test_lists_that_may_not_be_removed_could_not_be_added_and_are_not_said_to_be_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tidied(Lists(undeletable="demo/x/1", error=Unauthorized("this key does not allow that")))
    assert "are left" not in capsys.readouterr().err


def test_a_daemon_that_cannot_be_killed_is_told_and_the_demo_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(todo: Any, name: list[str | int]) -> int:
        raise NameNotFound("cache is not running: nobody is registered under this name")

    monkeypatch.setattr(demo_job, "kill_daemon", kill)
    with bars() as shown:
        assert demo_job._kill(Lists(), ["cache"], shown) == []  # type: ignore[arg-type]
    assert "cache was not killed: cache is not running" in capsys.readouterr().err


def test_an_interrupt_of_a_demo_that_keeps_its_lists_says_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    todo = Lists()
    with pytest.raises(KeyboardInterrupt):
        tidied(todo, keep=True, error=KeyboardInterrupt())
    assert todo.deleted == [] and "kept under demo/x/" in capsys.readouterr().err


@pytest.mark.parametrize(("lists", "cost"), [(500, None), (FEW_LISTS - 1, None), (FEW_LISTS, 800.0)])
def test_what_a_list_costs_is_told_only_where_the_lists_weigh_more_than_the_process(
    lists: int, cost: float | None
) -> None:
    before = {"list_server 1": Memory(17, 0, 1_000_000, 0)}
    after = {"list_server 1": Memory(17, 0, 1_000_000 + 800 * lists, lists)}
    assert Report(lists, 5, lists, 0, 1.0, 1.0, [], before, after).bytes_per_list == cost
