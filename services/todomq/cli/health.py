"""Whether a stack is healthy: a real add and read through every database worker, and which part is at fault.

Owns: what is asked of each part, the judgement, the wait for a good one. Must not know: the terminal.
An add goes through the router, a list server and a worker, so its failure alone names nobody. Each part is also asked
by itself at the same time: a part that fails then is at fault. A worker that passes then while its add fails is
*blocked*, by the list server that does not answer if there is one.

The lists are named ``todomq/health/...`` and deleted again; what an interrupted check leaves is deleted by a later one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from todomq.cli.asking import Answer, ask_all, ask_names, calling, registered_in, why_no_answer
from todomq.cli.connection import connect, unreachable
from todomq.cli.show import counted
from todomq.cli.stack_parts import STANDS_STILL, Name, expected_daemons
from todomq.daemons import LISTENER, name_of_process
from todomq.errors import UNKNOWN, CorruptRecord, Unavailable
from todomq.protocol.partitions import PARTITIONS, partition_of, worker_of
from todomq.runtime.local_process import is_stopped

if TYPE_CHECKING:
    from todomq.client import Client, Pipeline
    from todomq.settings import Settings
    from todomq.supervision.manager import Process
    from todomq.supervision.stack import Stack

OK, FAILED, BLOCKED = "ok", "failed", "blocked"
PREFIX = "todomq/health/"
_NAME = re.compile(re.escape(PREFIX) + "([0-9]{9,12})-[0-9]+-[0-9]+")
TITLE = "health"
CHECK_S = 2.0
AGAIN_S = 0.02
HEALTHY_S = 30.0
HEALTHY_EACH_S = 1.0
SAY_AFTER_S = 3.0
LEFTOVER_S = 120

Begin = Callable[["Pipeline"], Future[Any]]


class Part(NamedTuple):
    """The judgement on one part of the stack; ``state`` is OK, FAILED or BLOCKED (by another)."""

    name: Name
    state: str
    text: str


class Health(NamedTuple):
    """The judgement on a stack.

    Attributes:
        parts: on each part.
        is_reachable: whether the router answered.
        is_lasting: whether waiting won't help, because what is at fault is damaged.
    """

    parts: list[Part]
    is_reachable: bool = True
    is_lasting: bool = False

    @property
    def at_fault(self) -> list[Name]:
        """The names of the parts that failed."""
        return [part.name for part in self.parts if part.state == FAILED]

    @property
    def is_healthy(self) -> bool:
        """Whether every part did what it is there for."""
        return all(part.state == OK for part in self.parts)

    def in_one_line(self) -> str:
        """Return what is at fault; a fault that several parts of a kind share is said once."""
        same: dict[tuple[str, str], list[str]] = {}
        for part in self.parts:
            if part.state == FAILED:
                same.setdefault((str(part.name[0]), part.text), []).append("".join(map(str, part.name[1:])))
        return "; ".join(f"{f'{kind} {_listed(numbers)}'.strip()}: {text}" for (kind, text), numbers in same.items())


def wait_healthy(
    stack: Stack, timeout_s: float | None = None, say: Callable[[str], None] = lambda line: None
) -> None:
    """Wait until the stack of a home is healthy.

    Args:
        stack: it has been started.
        timeout_s: how long to go on checking; None for as long as this many processes may take to start.
        say: if it takes long, is told once what is being waited for.

    Raises:
        Unavailable: the stack has given up, or is not healthy in time; the text says why.
    """
    say_at = time.monotonic() + SAY_AFTER_S
    wait_s = timeout_s or max(HEALTHY_S, HEALTHY_EACH_S * len(stack.settings.daemon_names()))

    def check() -> Health:
        nonlocal say_at
        with connect(CHECK_S, stack.settings.address("router")) as todo:
            found = check_health(todo, stack.settings)
        if not found.is_healthy and time.monotonic() >= say_at:
            say(f"not healthy yet: {found.in_one_line()}; waiting up to {wait_s:g} s for that")
            say_at = inf
        return found

    found = check_until_healthy(check, wait_s, lambda: stack.failure() is not None)
    if not found.is_healthy:
        fault = f"the stack is not healthy: {found.in_one_line()} (what runs of it goes on; todomq down stops it)"
        raise Unavailable(stack.wait_for_failure() or fault)


def check_until_healthy(
    check: Callable[[], Health], timeout_s: float, is_over: Callable[[], bool] = lambda: False
) -> Health:
    """Check a stack until it is healthy, or until waiting won't help.

    Args:
        check: looks once.
        timeout_s: how long to go on.
        is_over: tells that the stack has given up.

    Returns:
        The last judgement.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        found = check()
        if found.is_healthy or found.is_lasting or is_over() or time.monotonic() >= give_up:
            return found
        time.sleep(AGAIN_S)


def check_health(todo: Client, settings: Settings, variable: str = "", check_s: float = CHECK_S) -> Health:
    """Check every part of a stack.

    Args:
        todo: the client.
        settings: the stack's, for what should be there.
        variable: the environment's variable that names its router; empty for the stack of the home.
        check_s: how long one request may take.
    """
    from todomq.client.session import RouterSilent

    processes, manager = (None, "") if variable else _ask_supervisord(settings)
    names = ask_names(todo, check_s)
    daemons = expected_daemons(settings, processes, registered_in(names))
    workers = [int(name[1]) for name in daemons if name[0] == "database_worker"]
    lists = {worker: _list_of(worker, max(workers)) for worker in workers}
    questions: dict[Any, Begin] = {name: _stats_of(name, check_s) for name in daemons}
    questions |= {("check", worker): _check_of(worker, check_s) for worker in workers}
    questions |= {("server", worker): _server_of(name, check_s) for worker, name in lists.items()}
    questions |= {("add", worker): _add_to(name, check_s) for worker, name in lists.items()}
    answers = {"names": names} | ask_all(todo, questions)
    if all(isinstance(answer.error, RouterSilent) for answer in answers.values()):
        return Health([_unreachable_router(todo, variable, processes, manager)], is_reachable=False)
    answers |= _read_back(todo, lists, answers, check_s)
    health = judge(daemons, lists, answers)
    health = health._replace(parts=[*_judge_supervision(processes, manager), *health.parts])
    if health.is_healthy:
        _delete_leftovers(todo, check_s)
    return health


def judge(daemons: list[Name], lists: dict[int, str], answers: dict[Any, Answer]) -> Health:
    """Judge the parts of a stack by their answers.

    Args:
        daemons: the parts that should be there.
        lists: the list that was tried for each database worker.
        answers: to ``stats`` by the daemon's name, to ``"names"``, and by ``(step, worker)`` to the steps ``check``,
            ``server``, ``add``, ``read``, ``delete``.
    """
    judged = [_judge_daemon(name, answers) for name in daemons]
    failed = {part.name for part in judged if part.state == FAILED}
    judged = [_judge_placement(part, answers, failed) for part in judged]
    judged = [_judge_adds(part, lists, answers, failed) for part in judged]
    damaged = {name for name in failed if _is_damaged(name, answers)}
    is_lasting = bool(damaged) and all(part.state == OK or part.name in damaged for part in judged)
    return Health(judged, is_lasting=is_lasting)


# What is asked.


def _list_of(worker: int, pool_size: int) -> str:
    """Return the name of a list that the worker keeps and that nobody else has."""
    names = (f"{PREFIX}{int(time.time())}-{os.getpid()}-{n}" for n in count())
    return next(name for name in names if worker_of(partition_of(name.encode()), pool_size) == worker)


def _stats_of(name: Name, check_s: float) -> Begin:
    return calling(name, "stats", deadline_s=check_s)


def _check_of(worker: int, check_s: float) -> Begin:
    return calling(["database_worker", worker], "check", deadline_s=check_s)


def _server_of(list_name: str, check_s: float) -> Begin:
    return calling(["cache"], "whereis_list", list_name, deadline_s=check_s)


def _add_to(list_name: str, check_s: float) -> Begin:
    return lambda pipeline: pipeline.todo_list(list_name).add_entry(TITLE, deadline_s=check_s)


def _read_back(todo: Client, lists: dict[int, str], answers: dict[Any, Answer], check_s: float) -> dict[Any, Answer]:
    """Read what was added, then delete it."""
    added = {worker: name for worker, name in lists.items() if answers["add", worker].error is None}
    read = ask_all(todo, {("read", worker): _read_of(name, check_s) for worker, name in added.items()})
    return read | ask_all(todo, {("delete", worker): _deletion_of(name, check_s) for worker, name in added.items()})


def _read_of(list_name: str, check_s: float) -> Begin:
    return lambda pipeline: pipeline.todo_list(list_name).entries(deadline_s=check_s)


def _deletion_of(list_name: str, check_s: float) -> Begin:
    return lambda pipeline: pipeline.todo_list(list_name).delete(deadline_s=check_s)


def _delete_leftovers(todo: Client, check_s: float) -> None:
    """Delete what interrupted checks have left, but no list to which somebody else gave such a name."""
    listed = ask_all(todo, {"": lambda pipeline: pipeline.list_names(PREFIX, deadline_s=check_s)})[""]
    old = [name for name in listed.value or () if _age_s(name) > LEFTOVER_S]
    read = ask_all(todo, {name: _read_of(name, check_s) for name in old})
    left = [name for name, answer in read.items() if [each.title for each in answer.value or ()] == [TITLE]]
    ask_all(todo, {name: _deletion_of(name, check_s) for name in left})


def _age_s(list_name: str) -> float:
    """Return how long ago a check made a list of this name; 0 for a name that no check gives."""
    named = _NAME.fullmatch(list_name)
    return time.time() - int(named[1]) if named else 0


# What follows from the answers.


def _ask_supervisord(settings: Settings) -> tuple[list[Process] | None, str]:
    """Return the processes of the home's stack, or None and what its supervisord, if there is one, does instead."""
    from todomq.supervision.manager import Ending, Manager

    manager = Manager(settings)
    try:
        return manager.processes(), ""
    except Ending:
        return None, "is stopping the stack"
    except Unavailable:
        pid = manager.living_pid()
    return None, "" if pid is None else f"does not answer, pid {pid}: todomq up ends it and starts the stack again"


def _unreachable_router(todo: Client, variable: str, processes: list[Process] | None, manager: str) -> Part:
    if variable:  # the stack of this machine has no say in it
        return Part(("router",), FAILED, unreachable(todo.endpoint, variable))
    where = f"does not answer at {todo.endpoint}"
    if manager:
        return Part(("router",), FAILED, f"{where}, and supervisord {manager}")
    if processes is None:
        return Part(("router",), FAILED, f"{where}, and no supervisord runs the stack; start it with: todomq up")
    router = next((process for process in processes if process.name == "router"), None)
    if router is None or not router.pid:
        return Part(("router",), FAILED, f"{where}; supervisord says {router.state if router else 'it has none'}")
    return Part(("router",), FAILED, f"{where}, though it runs as pid {router.pid}")


def _judge_supervision(processes: list[Process] | None, manager: str) -> list[Part]:
    """Judge supervisord if it does not answer, and the restart-intensity listener, which nobody can ask."""
    if manager:
        return [Part(("supervisord",), FAILED, f"{manager}; what dies stays dead until then")]
    return [
        Part(
            name_of_process(process.name),
            FAILED,
            f"{trouble}: what dies comes back late, and no restart is limited; {what_to_do}",
        )
        for process in processes or ()
        if process.group == LISTENER
        for trouble, what_to_do in _trouble_of_listener(process)
    ]


def _trouble_of_listener(process: Process) -> list[tuple[str, str]]:
    """Return what is wrong with the listener and what to do about it, if anything is."""
    from todomq.supervision.manager import BACKOFF, EXITED, FATAL, STOPPED

    if process.pid and is_stopped(process.pid):
        return [(STANDS_STILL, f"let it go on with: kill -CONT {process.pid}")]
    if process.state in (STOPPED, EXITED, BACKOFF, FATAL):
        return [(f"does not run ({process.state})", "start it with: todomq up")]
    return []


def _judge_daemon(name: Name, answers: dict[Any, Answer]) -> Part:
    """Judge a daemon by its own answers."""
    answer = answers[name]
    if answer.error is not None:
        return Part(name, FAILED, why_no_answer(name, answer.error, registered_in(answers["names"])))
    closed = answer.value.get("door_closed")
    if closed:
        return Part(name, FAILED, f"lets nobody in over TCP: {closed}")
    if name[0] == "database_worker":
        check = answers["check", name[1]]
        if isinstance(check.error, CorruptRecord):
            return Part(name, FAILED, f"its storage is damaged: {check.error}")
        if check.error is not None and check.error.outcome == UNKNOWN:
            return Part(name, FAILED, f"what became of the check of its storage is not known: {check.error}")
        if check.error is not None:
            return Part(name, FAILED, f"its storage can't be written: {check.error}")
    return Part(name, OK, _good_news(name, answer))


def _is_damaged(name: Name, answers: dict[Any, Answer]) -> bool:
    return name[0] == "database_worker" and isinstance(answers["check", name[1]].error, CorruptRecord)


def _judge_placement(part: Part, answers: dict[Any, Answer], failed: set[Name]) -> Part:
    """Complete the judgement on the cache, which can place no partition whose worker is away."""
    if part.name != ("cache",) or part.state != OK:
        return part
    homeless = PARTITIONS - sum(answers[part.name].value["partitions"].values())
    if homeless == 0:
        return part
    is_blocked = any(name[0] in ("database_worker", "list_server") for name in failed)
    text = f"{homeless} of {PARTITIONS} partitions {'has' if homeless == 1 else 'have'} no list server"
    return part._replace(state=BLOCKED if is_blocked else FAILED, text=text)


def _good_news(name: Name, answer: Answer) -> str:
    if name[0] != "list_server":
        return ""
    quarantined = answer.value["quarantined"]
    held = f"{counted(answer.value['partitions'], 'partition')}, {counted(answer.value['lists'], 'list')} loaded"
    if answer.value["damaged_partitions"]:
        held += f", {counted(answer.value['damaged_partitions'], 'partition')} refused: the shard is damaged"
    return f"{held}, {quarantined} quarantined, since they can't be read" if quarantined else held


def _judge_adds(part: Part, lists: dict[int, str], answers: dict[Any, Answer], failed: set[Name]) -> Part:
    """Complete the judgement on a worker by the outcome of the add and the read."""
    if part.name[0] != "database_worker" or part.state != OK:
        return part
    worker = int(part.name[1])
    steps = [(step, answers[step, worker]) for step in ("add", "read", "delete") if (step, worker) in answers]
    broken = next(((step, answer.error) for step, answer in steps if answer.error is not None), None)
    if broken is None:
        if [entry.title for entry in answers["read", worker].value] != [TITLE]:
            return part._replace(state=FAILED, text=f"the entry added to {lists[worker]} is not there")
        took_ms = sum(answer.took_s for _, answer in steps[:2]) * 1000
        check_ms = answers["check", worker].value / 1000
        return part._replace(text=f"add and read {took_ms:.1f} ms, of it storage {check_ms:.1f} ms")
    step, error = broken
    where = answers["server", worker]
    server = ("list_server", where.value[2]) if where.error is None and where.value[2] is not None else None
    told = f"{step} failed: {error}"
    if server is not None and server not in failed:
        told += f"; worker and list_server {server[1]} answer, so ask: todomq probe why {lists[worker]}"
    elif server is not None:
        told += f"; its list lives on list_server {server[1]}"
    return part._replace(state=BLOCKED if failed else FAILED, text=told)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
