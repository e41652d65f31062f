"""The JavaScript client of ``examples/``, which was written from ``docs/protocol.md`` alone, against the real stack."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import zmq
from keyed import KeyedStack
from stacks import RunningStack, kept_running, wait_until

from todomq import Client, Entry, errors
from todomq.client.greeting import CLOCK_SLACK_MS
from todomq.protocol import limits, messages
from todomq.protocol.codec import pack

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "javascript"
SCENARIOS = Path(__file__).with_name("javascript_scenarios.mjs")
NODE_MAJOR = 18
TIMEOUT_S = 120

MakeStack = Callable[..., RunningStack]


def _what_is_missing() -> str | None:
    if not (shutil.which("node") and shutil.which("npm")):
        return "node and npm are not installed; on Debian or Ubuntu: apt-get install nodejs npm"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < NODE_MAJOR:
        return f"node is {version} where {NODE_MAJOR} or newer is needed"
    return None


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """See that node has what the client needs: exactly the versions that its package.json names."""
    missing = _what_is_missing()
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    wanted = json.loads((EXAMPLE / "package.json").read_text())["dependencies"]
    if {name: _installed(name) for name in wanted} != wanted:
        command = ["npm", "install", "--no-progress"]
        installed = subprocess.run(
            command, cwd=EXAMPLE, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert installed.returncode == 0, installed.stderr


def _installed(name: str) -> str | None:
    try:
        version: str = json.loads((EXAMPLE / "node_modules" / name / "package.json").read_text())["version"]
    except FileNotFoundError:
        return None
    return version


class Scenario:
    """One scenario that runs in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> Any:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else pytest.fail(f"it has ended: {self._process.communicate()[1]}")

    def go_on(self) -> None:
        """Let it do its next step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> list[Any]:
        """Wait for its end and return what else it said."""
        said, errors = self._process.communicate(timeout=TIMEOUT_S)
        assert self._process.returncode == 0, f"{said}\n{errors}"
        return [json.loads(line) for line in said.splitlines()]


@contextmanager
def scenario(stack: RunningStack, *arguments: object, **variables: str) -> Iterator[Scenario]:
    """Start a scenario and see that its process ends, however long it would wait for something."""
    process = subprocess.Popen(
        ["node", str(SCENARIOS), *map(str, arguments)], env={**stack.environment, **variables},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out_of_time = threading.Timer(TIMEOUT_S, process.kill)
    out_of_time.start()
    try:
        with process:
            try:
                yield Scenario(process)
            finally:
                process.kill()
    finally:
        out_of_time.cancel()
        process.wait(TIMEOUT_S)


def run(stack: RunningStack, *arguments: object, **variables: str) -> list[Any]:
    """Run a scenario to its end and return what it said."""
    with scenario(stack, *arguments, **variables) as running:
        return running.end()


def test_every_operation_does_what_the_page_says(shared_stack: RunningStack) -> None:
    dentist = {
        "id": 1, "title": "dentist", "date": "2026-12-01", "done": False,
        "extra": {"room": 4, "tags": ["a", None, 2.5]},
    }  # fmt: skip
    milk = {"id": 2, "title": "milk", "date": None, "done": False, "extra": {}}
    bread = {"id": 3, "title": "bröd 🍞", "date": "2026-12-01", "done": True, "extra": {}}
    oat = {"id": 2, "title": "oat milk", "date": "2026-12-02", "done": True, "extra": {"shop": "corner"}}

    assert run(shared_stack, "everything", "från javascript") == [
        dentist, [milk, bread], oat, True, False, 2, [oat, bread], [bread], [], ["från javascript"],
    ]  # fmt: skip

    with Client(shared_stack.endpoint) as todo:
        assert todo.todo_list("från javascript").entries() == [
            Entry(2, "oat milk", date(2026, 12, 2), True, {"shop": "corner"}),
            Entry(3, "bröd 🍞", date(2026, 12, 1), True, {}),
        ]


class ScriptedRouter:
    """A router in the test's hands: greets, and leaves every other request to the test."""

    def __init__(self, address: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 1_000)
        self._socket.bind(address)

    def __enter__(self) -> ScriptedRouter:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def take(self) -> tuple[bytes, list[Any]]:
        """Return the next request that is no greeting, and who sent it."""
        while True:
            assert self._socket.poll(1000 * TIMEOUT_S), "nothing is asked"
            peer, _, message = self._socket.recv_multipart()
            for request in messages.read_call(messages.read(message)[1])[1]:
                if request[messages.TARGET] is not None:
                    return peer, list(request)
                greeting = [messages.VERSION, time.time_ns() // 1_000_000, b"incarnation", 100]
                self.reply(peer, request, messages.OK, pack(greeting))

    def reply(self, peer: bytes, request: Sequence[Any], status: int, value: bytes) -> None:
        """Answer a request."""
        self._socket.send_multipart([peer, b"", messages.reply([(request[messages.ID], status, value)])])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.DeadlineExceeded("the deadline had passed when the request arrived"), "unknown"),
        (errors.EntryNotFound("no such entry"), "not applied"),
        (errors.InvalidRequest(messages.TOO_FAR_AHEAD), "unknown"),
    ],
)
def test_law_3_what_is_said_of_a_second_sending_tells_of_the_first_only_where_it_is_said_of_the_number(
    shared_stack: RunningStack, error: errors.TodoMQError, outcome: str
) -> None:
    address = f"ipc://{shared_stack.home}/run/scripted"
    with scenario(shared_stack, "refused", "list", TODOMQ_ENDPOINT=address) as running:
        with ScriptedRouter(address) as router:
            _, sent = router.take()
        with ScriptedRouter(address) as router:
            peer, again = router.take()
            assert again[messages.BODY :] == sent[messages.BODY :]
            router.reply(peer, again, messages.ERROR, messages.error_value(error))
            (said,) = running.end()
    assert (said["code"], said["outcome"]) == (error.code, outcome)


def test_law_4_a_read_that_is_sent_again_keeps_its_number_and_is_over_once_later_changes_have_taken_effect(
    shared_stack: RunningStack,
) -> None:
    address = f"ipc://{shared_stack.home}/run/scripted"
    with (
        scenario(shared_stack, "overtaken", "list", TODOMQ_ENDPOINT=address) as running,
        ScriptedRouter(address) as router,
    ):
        _, read = router.take()
        running.go_on()
        peer, change = router.take()
        router.reply(peer, change, messages.OK, pack(1))
        router.reply(peer, read, messages.ERROR, messages.error_value(errors.Overloaded("full")))
        _, again = router.take()
        assert again[messages.BODY :] == read[messages.BODY :]
        too_late = errors.OutOfOrder("later changes have taken effect", retryable=False)
        router.reply(peer, again, messages.ERROR, messages.error_value(too_late))
        (said,) = running.end()
    assert (said["code"], said["outcome"]) == ("out_of_order", "not applied")


def test_the_longest_deadline_is_not_too_far_ahead_of_the_routers_clock(shared_stack: RunningStack) -> None:
    address = f"ipc://{shared_stack.home}/run/scripted"
    with (
        scenario(shared_stack, "overtaken", "list", TODOMQ_ENDPOINT=address, TIMEOUT_MS="60000.5") as running,
        ScriptedRouter(address) as router,
    ):
        peer, read = router.take()
        running.go_on()
        _, change = router.take()  # asked for and sent at once
        assert change[messages.DEADLINE_MS] <= time.time_ns() // 1_000_000 + limits.DEADLINE_AHEAD_MS - CLOCK_SLACK_MS
        router.reply(peer, read, messages.OK, pack([[], None]))
        router.reply(peer, change, messages.OK, pack(1))
        assert running.end() == [{"value": []}]


def test_clear_begins_the_ids_again_and_delete_takes_the_name_away(shared_stack: RunningStack) -> None:
    entry = {"id": 1, "title": "first again", "date": None, "done": False, "extra": {}}
    assert run(shared_stack, "erase", "erased") == [entry, [0, []]]


def test_errors_carry_code_and_outcome_and_the_numbers_go_on(shared_stack: RunningStack) -> None:
    *errors, added = run(shared_stack, "errors", "refused")
    assert [error["code"] for error in errors] == ["entry_not_found", *["invalid_request"] * 4]
    assert {(error["retryable"], error["outcome"]) for error in errors} == {(False, "not applied")}
    assert added["id"] == 2


def test_law_5_what_is_wrong_with_one_request_is_told_of_that_one_and_the_client_goes_on(
    shared_stack: RunningStack,
) -> None:
    with Client(shared_stack.endpoint) as todo:
        todo.todo_list("alone").add_entry("x", extra={"__proto__": 1})
    unreadable, names, numbers, time_left, endpoint, added = run(shared_stack, "alone", "alone")
    assert (unreadable["code"], unreadable["outcome"]) == ("protocol_error", "not applied")
    refused = [*names, *numbers, time_left, endpoint]
    assert {(error["code"], error["outcome"]) for error in refused} == {("invalid_request", "not applied")}
    assert added["id"] == 1


def test_thousands_in_flight_keep_their_order_and_come_back_in_pages(shared_stack: RunningStack) -> None:
    count = 20_000
    ((ids, titles),) = run(shared_stack, "pages", "long", count)
    assert ids == list(range(1, count + 1))
    assert titles == [f"entry {place}" for place in range(count)]


def test_integers_of_64_bits_come_back_as_they_were(shared_stack: RunningStack) -> None:
    assert run(shared_stack, "integers", "numbers") == [
        {"least": str(-(2**63)), "most": str(2**64 - 1), "small": 7, "float": 0.5}
    ]


def test_the_command_line_of_the_example(shared_stack: RunningStack) -> None:
    def todo(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", str(EXAMPLE / "todo.js"), *arguments], env=shared_stack.environment,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    assert todo().returncode == 2
    assert todo("add", "shown", "\x1b]0;x\x07\x9b", "2026-12-01").returncode == 0
    shown = todo("ls", "shown")
    assert json.loads(shown.stdout)["title"] == "\x1b]0;x\x07\x9b"
    assert not set("\x1b\x07\x9b") & set(shown.stdout)
    refused = todo("done", "shown", "9")
    assert (refused.returncode, refused.stdout) == (1, "") and refused.stderr.startswith("entry_not_found")


@pytest.fixture(scope="module")
def one_of_each() -> Iterator[RunningStack]:
    """Return a running stack of one list server and one worker, which may be paused; every test leaves it healthy."""
    one = {"TODOMQ_LIST_SERVERS": "1", "TODOMQ_DATABASE_WORKERS": "1"}
    yield from kept_running(RunningStack(TODOMQ_LEASE_MS="60000", TODOMQ_MAX_RESTARTS="1000000", **one))


@contextmanager
def paused(stack: RunningStack, daemon: str) -> Iterator[int]:
    """Have a daemon do nothing for a while; give its pid. Something else may end it meanwhile."""
    pid = stack.kill(daemon, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("victim", ["router", "list_server-1", "database_worker-1"])
def test_a_change_in_flight_when_a_daemon_is_killed_takes_effect_once(one_of_each: RunningStack, victim: str) -> None:
    stack = one_of_each
    with scenario(stack, "again", f"in flight at {victim}") as client:
        assert client.read()["id"] == 1
        with paused(stack, "database_worker-1"):  # so that the change stays on its way
            client.go_on()
            timed_out = client.read()
            assert (timed_out["code"], timed_out["outcome"]) == ("deadline_exceeded", "unknown")
            killed = stack.kill(victim)
        stack.wait_restarted(victim, killed)
        stack.wait_healthy()
        client.go_on()
        assert client.end() == [
            2, [[1, "before"], [2, "in flight"]],
            {"code": "invalid_request", "text": "this change was given up already", "retryable": False,
             "outcome": "unknown"},
        ]  # fmt: skip


def test_a_change_in_flight_when_the_router_is_killed_is_answered_all_the_same(one_of_each: RunningStack) -> None:
    stack = one_of_each
    with scenario(stack, "unnoticed", "unnoticed") as client:
        assert client.read()["id"] == 1
        with paused(stack, "database_worker-1"):
            client.go_on()
            wait_until(lambda: stack.ask("router", "stats")["in_flight"], 10, "the router has the change")
            stack.kill("router")
        assert client.end() == [2, [[1, "before"], [2, "in flight"]]]


def test_a_change_that_was_given_up_does_not_appear_after_the_next_read(one_of_each: RunningStack) -> None:
    with scenario(one_of_each, "givenUp", "given up") as client:
        assert client.read()["id"] == 1
        with paused(one_of_each, "router"):
            client.go_on()
            assert client.read()["outcome"] == "unknown"
        client.go_on()
        refused, (at_first, next_id, at_last) = client.end()
        assert refused["text"] == "this change was given up already"
        assert (next_id, at_last) == (at_first + 1, at_first + 1)


def test_every_change_takes_effect_once_whatever_is_killed_meanwhile(shared_stack: RunningStack) -> None:
    count, killed_at = 4000, {500: "router", 1200: "list_server-1", 1900: "list_server-2", 2600: "router"}
    answered: dict[int, int] = {}
    with scenario(shared_stack, "steady", "steady", count, TIMEOUT_MS="3000") as client:
        while len(answered) < count:
            place, entry_id = client.read()
            answered[place] = entry_id
            if victim := killed_at.get(len(answered)):
                shared_stack.wait_restarted(victim, shared_stack.kill(victim))
        (entries,) = client.end()
    assert len(entries) == count
    assert {f"entry {place}": entry_id for place, entry_id in answered.items()} == {title: id for id, title in entries}


def test_a_client_waits_for_a_stack_that_is_not_there_yet(make_stack: MakeStack) -> None:
    stack = make_stack()
    with scenario(stack, "erase", "early") as client:
        stack.start()
        assert client.read()["id"] == 1
        client.end()


@pytest.fixture(scope="module")
def keyed_stack() -> Iterator[KeyedStack]:
    """Return a running stack that is reached over TCP by those who have a key."""
    yield from kept_running(KeyedStack())


def new_key(stack: KeyedStack, name: str) -> Path:
    """Make a key for the lists below its name and return its credentials file."""
    return stack.new_key(name, "--lists", f"{name}/*", "--rights", "read,write")


def test_a_client_with_a_key_reaches_its_lists_and_no_others(keyed_stack: KeyedStack) -> None:
    key = str(new_key(keyed_stack, "alice"))
    *_, undated, names = run(keyed_stack, "everything", "alice/list", TODOMQ_CREDENTIALS=key)
    assert (undated, names) == ([], ["alice/list"])
    ((refused),) = run(keyed_stack, "refused", "bob/list", TODOMQ_CREDENTIALS=key)
    assert (refused["code"], refused["retryable"], refused["outcome"]) == ("unauthorized", False, "not applied")


def test_a_key_of_ones_own_making_is_told_so_at_once(keyed_stack: KeyedStack) -> None:
    path = new_key(keyed_stack, "carol")
    public, secret = zmq.curve_keypair()
    own = {**json.loads(path.read_text()), "public_key": public.decode(), "secret_key": secret.decode()}
    path.write_text(json.dumps(own))
    (refused,) = run(keyed_stack, "refused", "carol/list", TODOMQ_CREDENTIALS=str(path))
    assert (refused["code"], refused["text"]) == ("unauthorized", "the stack does not know this key")


def test_a_client_without_a_key_is_told_so_at_once(keyed_stack: KeyedStack) -> None:
    endpoint = json.loads(new_key(keyed_stack, "frank").read_text())["endpoint"]
    (refused,) = run(keyed_stack, "refused", "frank/list", TODOMQ_ENDPOINT=endpoint)
    assert (refused["code"], refused["outcome"]) == ("unauthorized", "not applied")


def test_another_server_than_the_one_in_the_file_is_not_talked_to(keyed_stack: KeyedStack) -> None:
    path = new_key(keyed_stack, "dave")
    path.write_text(json.dumps({**json.loads(path.read_text()), "server_public_key": zmq.curve_keypair()[0].decode()}))
    (refused,) = run(keyed_stack, "refused", "dave/list", TODOMQ_CREDENTIALS=str(path), TIMEOUT_MS="1000")
    assert (refused["code"], refused["outcome"]) == ("deadline_exceeded", "not applied")


def test_a_revoked_key_is_cut_off_while_it_works(keyed_stack: KeyedStack) -> None:
    key = str(new_key(keyed_stack, "erin"))
    with scenario(keyed_stack, "revoked", "erin/list", TODOMQ_CREDENTIALS=key) as client:
        assert client.read()["id"] == 1
        keyed_stack.keys("revoke", "erin")
        (refused,) = client.end()
    assert (refused["code"], refused["text"]) == ("unauthorized", "the stack does not know this key")


def test_a_credentials_file_that_others_can_read_is_refused(shared_stack: RunningStack, tmp_path: Path) -> None:
    path = tmp_path / "open.credentials"
    path.write_text("{}")
    for mode, complaint in ((0o644, "can be read by others"), (0o600, "no credentials file")):
        path.chmod(mode)
        environment = {**shared_stack.environment, "TODOMQ_CREDENTIALS": str(path)}
        command = ["node", str(EXAMPLE / "todo.js"), "lists"]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert told.returncode == 1 and complaint in told.stderr and "    at " not in told.stderr
