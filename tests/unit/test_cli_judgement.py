"""What the probe concludes from what the parts answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from stacks import wait_until

from todomq.cli.asking import Answer
from todomq.cli.command import exit_code
from todomq.cli.connection import named_by, unreachable
from todomq.cli.exit_codes import REFUSED, UNREACHABLE, USAGE
from todomq.cli.formats import EntryFields
from todomq.cli.health import Health, Part, check_until_healthy, judge
from todomq.cli.killing import kill_daemon
from todomq.cli.stack_parts import expected_daemons, is_here, read_daemon_name
from todomq.cli.transfer import BATCH_BYTES, BATCH_ENTRIES, batches
from todomq.cli.tree import REGISTERED, Row, Sample, top_value
from todomq.cli.whereabouts import Whereabouts, explain, is_at_fault
from todomq.client.values import Entry, Registration
from todomq.errors import (
    CorruptRecord,
    DeadlineExceeded,
    EntryNotFound,
    InvalidRequest,
    NameNotFound,
    Overloaded,
    TodoMQError,
    Unavailable,
)
from todomq.protocol import limits
from todomq.settings import SettingsError, read_settings

SERVER, WORKER = ("list_server", 1), ("database_worker", 2)
IDLE = {
    "epoch": 1, "state": "ready", "state_since_ms": 5_000, "worker_greeted": True, "uncommitted_since_ms": None,
    "uncommitted": False, "out_of_turn": 0, "queued": 0, "error": None,
}  # fmt: skip
FULL = Unavailable("the disk is full")
DAMAGE = CorruptRecord("000012.log is damaged")
SILENCE = DeadlineExceeded("no answer before the deadline")


Names = tuple[tuple[Any, ...], ...]


def test_what_the_registry_knows_besides_belongs_to_the_stack() -> None:
    settings = read_settings({"TODOMQ_HOME": "/tmp/h", "TODOMQ_DATABASE_WORKERS": "2", "TODOMQ_LIST_SERVERS": "1"})
    known = [("registry",), ("database_worker", 3), ("list_server", 9), ("list_server", 2), ("job", 1)]
    found = expected_daemons(settings, None, known)
    assert found == [
        ("registry",), ("cache",), ("database_worker", 1), ("database_worker", 2), ("database_worker", 3),
        ("list_server", 1), ("list_server", 2), ("list_server", 9), ("router",),
    ]  # fmt: skip
    assert expected_daemons(settings, None) == expected_daemons(settings, None, [("registry",)])
    assert ("list_server", 9) in expected_daemons(settings, [], known)
    assert ("database_worker", 3) not in expected_daemons(settings, [], known), "its supervisord knows its workers"


def found(
    described: dict[str, Any] | None = None,
    silent: Names = (),
    dead: Names = (),
    moving: Sequence[int] = (),
    refused: dict[Any, TodoMQError] | None = None,
) -> Whereabouts:
    """Return the whereabouts of a list whose partition's hops answer, but for those that are silent, dead or refuse."""
    everybody: list[Any] = [("router",), ("cache",), SERVER, WORKER]
    errors: dict[Any, TodoMQError] = {**dict.fromkeys((*silent, *dead), SILENCE), **(refused or {})}
    if described is None:
        errors.setdefault(SERVER, NameNotFound("this list server does not own the list's partition"))
    answers = {name: Answer({"moving": moving}, errors.get(name), 0.001) for name in everybody}
    registered: dict[Any, int | None] = {name: 17 for name in everybody if name not in dead}
    return Whereabouts("Bob", 7, 2, None if described is None else 1, described or {}, answers, registered)


@pytest.mark.parametrize(
    ("whereabouts", "hop", "words"),
    [
        (found(IDLE), None, "nothing"),
        (found({**IDLE, "state": "loading"}), WORKER, "reading it"),
        (found({**IDLE, "state": "loading"}, dead=(WORKER,)), WORKER, "is not running"),
        (found({**IDLE, "uncommitted": True, "uncommitted_since_ms": 90}), WORKER, "not committed"),
        (found({**IDLE, "uncommitted": True, "uncommitted_since_ms": 90}, silent=(WORKER,)), WORKER, "does not answer"),
        (found({**IDLE, "state": "loading", "worker_greeted": False}), WORKER, "greeting"),
        (found({**IDLE, "state": "quarantined", "error": "no record"}), SERVER, "no record"),
        (found({**IDLE, "out_of_turn": 3}), SERVER, "3 changes"),
        (found(None), ("router",), "moving"),
        (found(IDLE, moving=[6, 7]), ("router",), "partition 7 is moving"),
        (found(IDLE, moving=[6]), None, "nothing"),
        (found(None, dead=(("cache",),)), ("cache",), "is not running"),
        (found(None, silent=(SERVER,)), SERVER, "pid 17"),
        (found(None, dead=(WORKER,)), WORKER, "can claim partition 7: database_worker 2 is not"),
        (found(None, refused={SERVER: FULL, WORKER: FULL}), WORKER, "partition 7: database_worker 2 answers: the disk"),
        (found(IDLE, refused={WORKER: FULL}), WORKER, "changes would: database_worker 2 answers: the disk is full"),
        (found(None, refused={SERVER: DAMAGE, WORKER: DAMAGE}), WORKER, "partition 7 can't be read: 000012.log is"),
        (found(None, refused={("cache",): FULL}), ("cache",), "the cache, which would place it, answers: "),
    ],
)
def test_the_reason_names_the_hop_that_a_list_waits_for(whereabouts: Whereabouts, hop: Any, words: str) -> None:
    reason = explain(whereabouts)
    assert reason.hop == hop
    assert words in reason.text


@pytest.mark.parametrize(
    ("whereabouts", "is_fault"),
    [
        (found(IDLE), False),
        (found({**IDLE, "state": "loading"}), False),
        (found(None), False),
        (found({**IDLE, "state": "loading"}, dead=(WORKER,)), True),
        (found({**IDLE, "state": "quarantined", "error": "no record"}), True),
        (found(None, silent=(SERVER,)), True),
        (found(None, refused={SERVER: DAMAGE, WORKER: DAMAGE}), True),
    ],
)
def test_what_a_list_waits_for_is_at_fault_where_it_fails_and_not_where_it_works(
    whereabouts: Whereabouts, is_fault: bool
) -> None:
    assert is_at_fault(whereabouts, explain(whereabouts)) == is_fault


DAEMONS: list[Any] = [
    ("registry",), ("cache",), ("database_worker", 1), ("database_worker", 2), ("list_server", 1), ("list_server", 2),
    ("router",),
]  # fmt: skip


@pytest.mark.parametrize(
    ("registration", "kind", "words"),
    [
        (None, NameNotFound, "nobody is registered"),
        (Registration(["list_server", 3], "tcp://192.0.2.1:7001", None, b"i"), InvalidRequest, "on another machine"),
    ],
)
def test_a_daemon_that_cannot_be_killed_is_not_said_to_be_away_where_it_runs_elsewhere(
    registration: Registration | None, kind: type[TodoMQError], words: str
) -> None:
    todo: Any = SimpleNamespace(
        registry=SimpleNamespace(whereis_name=lambda name: registration), endpoint="ipc:///tmp/h/run/router"
    )
    with pytest.raises(kind, match=words):
        kill_daemon(todo, ["list_server", 3])


def test_a_process_is_a_daemon_of_this_machine_by_its_whole_command() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "todomq.list_server", "2", "/log/todomq.cache.log"]
    ) as process:
        try:
            wait_until(lambda: is_here(process.pid, ("list_server", 2), "ipc:///tmp/h/run/router"), 10, "it runs")
            assert is_here(process.pid, ("list_server", 2), "tcp://127.0.0.1:7447")
            assert not is_here(process.pid, ("list_server", 2), "tcp://10.0.0.1:7447")
            assert not is_here(process.pid, ("list_server", 1), "ipc:///tmp/h/run/router")
            assert not is_here(process.pid, ("cache",), "ipc:///tmp/h/run/router")
        finally:
            process.kill()
    assert not is_here(process.pid, ("list_server", 2), "ipc:///tmp/h/run/router")


def row_of(incarnation: bytes, **counts: int) -> Row:
    stats = {"incarnation": incarnation, "names": 9, **counts} if counts else {}
    return Row("registry", ("registry",), REGISTERED, 0, None, None, stats)


@pytest.mark.parametrize(
    ("before", "now", "rate"),
    [
        (row_of(b"a", messages=100), row_of(b"a", messages=150), 25.0),
        (row_of(b"a", messages=100), row_of(b"b", messages=50), None),
        (row_of(b"a", messages=100), row_of(b"a"), None),
        (row_of(b"a"), row_of(b"a", messages=100), None),
    ],
)
def test_work_per_second_is_that_of_one_life_of_a_daemon(before: Row, now: Row, rate: float | None) -> None:
    (shown,) = top_value(Sample(12.0, [now], {}), Sample(10.0, [before], {}))
    assert shown["work_per_s"] == rate


def healthy_answers() -> dict[Any, Answer]:
    """Return what a healthy stack answers to all that the check asks."""
    stats = {
        "registry": {}, "cache": {"partitions": {1: 100, 2: 156}}, "database_worker": {}, "router": {},
        "list_server": {"quarantined": 0, "damaged_partitions": 0, "partitions": 128, "lists": 0},
    }  # fmt: skip
    values: dict[Any, Any] = {name: stats[name[0]] for name in DAEMONS}
    values["names"] = [Registration(list(name), "ipc:///x", 17, b"i") for name in DAEMONS]
    for worker in (1, 2):
        values["check", worker] = 800
        values["server", worker] = [worker, 1, worker, worker]
        values["add", worker] = values["delete", worker] = None
        values["read", worker] = [Entry(1, "health")]
    return {key: Answer(value, None, 0.001) for key, value in values.items()}


def judged(changes: dict[Any, Answer], unregistered: Any = None) -> tuple[list[Any], dict[Any, str]]:
    """Return who is at fault, and the state of each part, where some answers differ from a healthy stack's."""
    answers = {**healthy_answers(), **changes}
    answers["names"] = Answer([entry for entry in answers["names"].value if entry.name != unregistered], None, 0.001)
    health = judge(DAEMONS, {1: "one", 2: "two"}, answers)
    return health.at_fault, {part.name: part.state for part in health.parts}


NO_ANSWER = Answer(None, SILENCE, 2.0)


def test_a_start_that_fails_says_once_what_is_wrong_with_several_parts() -> None:
    parts = [
        Part(name, state, text)
        for name, state, text in (
            (("database_worker", 1), "failed", "no data"), (("cache",), "failed", "no data"),
            (("database_worker", 2), "failed", "no data"), (("database_worker", 3), "failed", "no data"),
            (("list_server", 1), "failed", "is not running"), (("router",), "blocked", "waits"),
        )
    ]  # fmt: skip
    faults = "database_worker 1, 2 and 3: no data; cache: no data; list_server 1: is not running"
    assert Health(parts).in_one_line() == faults


def test_a_stack_whose_every_part_answers_is_healthy() -> None:
    assert judged({})[0] == []


def test_a_dead_worker_is_at_fault_and_the_cache_that_cannot_place_for_it_is_not() -> None:
    homeless = Answer({"partitions": {1: 90, 2: 90}}, None, 0.001)
    dead = {("database_worker", 2): NO_ANSWER, ("check", 2): NO_ANSWER, ("add", 2): NO_ANSWER, ("cache",): homeless}
    at_fault, states = judged(dead, unregistered=["database_worker", 2])
    assert at_fault == [("database_worker", 2)]
    assert states["cache",] == "blocked"


def test_a_worker_behind_a_dead_list_server_is_not_at_fault() -> None:
    at_fault, states = judged({("list_server", 1): NO_ANSWER, ("add", 1): NO_ANSWER})
    assert at_fault == [("list_server", 1)]
    assert states["database_worker", 1] == "blocked"


def test_a_worker_whose_storage_fails_is_at_fault_though_it_answers() -> None:
    assert judged({("check", 1): Answer(None, Unavailable("no space"), 0.1)})[0] == [("database_worker", 1)]


def test_waiting_is_said_to_be_useless_only_where_all_but_what_is_damaged_is_well() -> None:
    def is_lasting(changes: dict[Any, Answer]) -> bool:
        return judge(DAEMONS, {1: "one", 2: "two"}, {**healthy_answers(), **changes}).is_lasting

    damaged = {("check", 1): Answer(None, CorruptRecord("000012.log is damaged"), 0.1), ("add", 1): NO_ANSWER}
    starting: dict[Any, Answer] = {("cache",): Answer({"partitions": {1: 100}}, None, 0.001)}
    assert not is_lasting({}) and not is_lasting(starting)
    assert is_lasting(damaged)
    assert not is_lasting({**damaged, **starting}) and not is_lasting({**damaged, ("router",): NO_ANSWER})


def test_nobody_waits_where_waiting_is_useless_and_else_until_it_is_healthy() -> None:
    damaged = Health([Part(WORKER, "failed", "its storage is damaged")], is_lasting=True)
    starting, good = Health([Part(WORKER, "failed", "no answer")]), Health([Part(WORKER, "ok", "")])
    for judgements, last in (([damaged], damaged), ([starting, damaged], damaged), ([starting, starting, good], good)):
        left = iter(judgements)
        assert check_until_healthy(lambda left=left: next(left), 60) is last  # type: ignore[misc]
        assert next(left, None) is None


def test_partitions_without_a_server_are_the_fault_of_the_cache_when_all_others_answer() -> None:
    assert judged({("cache",): Answer({"partitions": {1: 100}}, None, 0.001)})[0] == [("cache",)]


def test_an_added_entry_that_is_not_there_is_a_fault() -> None:
    assert judged({("read", 1): Answer([], None, 0.001)})[0] == [("database_worker", 1)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), REFUSED), (EntryNotFound("x"), REFUSED), (Overloaded("x"), REFUSED),
        (CorruptRecord("x"), REFUSED), (Unavailable("x"), UNREACHABLE), (DeadlineExceeded("x"), UNREACHABLE),
        (SettingsError("x"), USAGE),
    ],
)  # fmt: skip
def test_the_exit_code_says_who_is_to_act(error: TodoMQError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("variables", "endpoint", "wanted", "unwanted"),
    [
        ({}, "ipc:///nowhere/router", "todomq up", "TODOMQ_"),
        ({"TODOMQ_ENDPOINT": "x"}, "ipc:///nowhere/router", "TODOMQ_ENDPOINT names", "todomq "),
        ({"TODOMQ_ENDPOINT": "x"}, "tcp://127.0.0.1:1", "TODOMQ_CREDENTIALS", "todomq "),
        ({"TODOMQ_ENDPOINT": "x", "TODOMQ_CREDENTIALS": "y"}, "tcp://127.0.0.1:1", "TODOMQ_CREDENTIALS names", "only"),
    ],
)
def test_who_is_not_answered_hears_what_set_the_address_and_no_advice_on_another_stack(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str, wanted: str, unwanted: str
) -> None:
    for variable in ("TODOMQ_ENDPOINT", "TODOMQ_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    said = unreachable(endpoint, named_by())
    assert endpoint in said and wanted in said and unwanted not in said


@pytest.mark.parametrize("words", [["list_server", "1"], ["list_server-1"]])
def test_a_daemon_is_named_as_it_is_registered_or_as_its_process(words: list[str]) -> None:
    assert read_daemon_name(words) == ["list_server", 1]


@pytest.mark.parametrize("words", [["foo"], ["cache", "1"], ["list_server"], ["list_server", "x"], ["cache-1"], [""]])
def test_what_is_no_daemon_is_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        read_daemon_name(words)


def test_batches_keep_the_order_and_what_is_done() -> None:
    fields = [EntryFields(str(n), done=n in (2, 3)) for n in range(6)]
    assert [entry for batch in batches(fields) for entry in batch] == fields


def test_no_batch_is_larger_than_a_request_may_be() -> None:
    large = [EntryFields("ä" * 10_000, extra={"note": "x" * 40_000}) for _ in range(100)]
    small = [EntryFields("milk")] * (2 * BATCH_ENTRIES + 1)
    sizes = [sum(len(entry.title.encode()) + 40_000 for entry in batch) for batch in batches(large)]
    assert max(sizes) <= BATCH_BYTES < limits.REQUEST_BYTES
    assert [len(batch) for batch in batches(small)] == [BATCH_ENTRIES, BATCH_ENTRIES, 1]
