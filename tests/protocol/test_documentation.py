"""What ``docs/protocol.md`` says is what the stack does: its hex examples are sent, its tables compared.

And ``docs/stats.md`` names each key of ``stats``, and the examples for Python run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack
import pytest
from running import Running, running

from todomq import Client, Via
from todomq.client import connection, session
from todomq.errors import BY_CODE
from todomq.list_server import service as list_server
from todomq.list_server import sessions, snapshots
from todomq.protocol import limits, messages
from todomq.protocol.codec import unpack
from todomq.protocol.partitions import partition_of
from todomq.router import in_flight
from todomq.runtime import calls, door, sockets

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "protocol.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    """One example: the frame to send, to which socket, and the bytes of the reply, None for one that varies."""

    name: str
    to: str
    request: bytes
    reply: list[int | None]

    @property
    def sample(self) -> bytes:
        """The reply with 0x01 for what varies."""
        return bytes(1 if byte is None else byte for byte in self.reply)


def read_examples() -> list[Example]:
    """Return the examples in the order in which they stand."""
    examples = []
    for name, to, block in re.findall(r"^```hex name=(\w+) to=([\w-]+)\n(.*?)^```$", TEXT, re.M | re.S):
        request, _, reply = block.partition("<")
        wanted = [None if byte == "??" else int(byte, 16) for byte in reply.split()]
        examples.append(Example(name, to, bytes.fromhex(request.replace(">", "")), wanted))
    return examples


EXAMPLES = read_examples()


@pytest.fixture(scope="module")
def stack() -> Iterator[Running]:
    with running() as stack:
        yield stack


def test_there_are_examples_of_every_part() -> None:
    assert {example.to for example in EXAMPLES} >= {"router", "cache", "registry", "list_server-1", "database_worker-1"}
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES) >= 25


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_plain_msgpack_reads_every_example_and_packs_it_to_the_same_bytes(example: Example) -> None:
    for frame in (example.request, example.sample) if example.reply else (example.request,):
        fields = msgpack.unpackb(frame)
        assert msgpack.packb(fields) == frame
        assert fields[1] in ("call", "reply", "forward", "writes", "committed")
        for body in (item[3] for item in fields[3] if len(item) > 3) if fields[1] == "call" else ():
            assert msgpack.packb(msgpack.unpackb(body)) == body


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_readers_of_messages_take_every_example(example: Example) -> None:
    if example.name != "wrong_version":
        kind, fields = messages.read(example.request)
        readers = {
            "call": messages.read_call, "forward": messages.read_forward,
            "writes": messages.read_writes, "committed": messages.read_committed,
        }  # fmt: skip
        assert readers[kind](fields)
    if example.reply:
        kind, fields = messages.read(example.sample)
        assert kind == "reply"
        assert messages.read_replies(fields)


def test_a_running_stack_answers_every_example_as_the_page_says(stack: Running) -> None:
    for example in EXAMPLES:
        if not example.reply:
            continue
        answered = stack.exchange(example.to, example.request)
        matches = len(answered) == len(example.reply) and all(
            wanted is None or wanted == byte for wanted, byte in zip(example.reply, answered)
        )
        assert matches, f"{example.name}: {[unpack(item[2]) for item in unpack(answered)[2]]} {answered.hex(' ')}"


def test_the_table_of_limits_is_that_of_the_code() -> None:
    in_code = {name: value for name, value in vars(limits).items() if name.isupper() and name not in ("KIB", "MIB")}
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d,]+)", TEXT, re.M)
    assert {name: int(value.replace(",", "")) for name, value in rows} == in_code


def in_mib(size: int) -> int:
    """Return a size that is a whole number of MiB in MiB."""
    count, rest = divmod(size, limits.MIB)
    assert rest == 0
    return count


@pytest.mark.parametrize(
    ("page", "sentence", "values"),
    [
        ("protocol", "0 means {} s from arrival", [calls.DEFAULT_DEADLINE_MS / 1000]),
        ("protocol", "with 0, a request that was held up on the way still has {} s", [calls.DEFAULT_DEADLINE_MS / 1e3]),
        ("protocol", "Keep at most `window` requests and {} MiB of them in flight", [in_mib(session.WINDOW_BYTES)]),
        (
            "protocol", "a connection that has {} requests or {} MiB in flight",
            [in_flight.REQUESTS_PER_CONNECTION, in_mib(in_flight.BYTES_PER_CONNECTION)],
        ),
        ("protocol", "while the router has {} or {} MiB in flight", [in_flight.REQUESTS, in_mib(in_flight.BYTES)]),
        ("stats", "they come near {} or {} MiB", [in_flight.REQUESTS, in_mib(in_flight.BYTES)]),
        ("protocol", "that is kept for {} s after each page", [snapshots.KEPT_MS / 1000]),
        ("protocol", "keeps {} long reads in all", [snapshots.SNAPSHOTS]),
        ("protocol", "once {} answers, or {} KiB of them, are", [sessions.ANSWERS, sessions.ANSWERS_BYTES // 1024]),
        ("protocol", "Once a list remembers {} senders", [sessions.SESSIONS]),
        (
            "client", "Once {} requests of a client, or {} MiB of them, are under way",
            [connection.WAIT_REQUESTS, in_mib(connection.OUTBOX_BYTES)],
        ),
        ("client", "there the bound is {}, and past it", [connection.OUTBOX_REQUESTS]),
        ("security", "a connection that sends {} MiB without completing a message", [in_mib(door.UNFINISHED_BYTES)]),
    ],
)  # fmt: skip
def test_a_number_in_a_sentence_is_that_of_the_code(page: str, sentence: str, values: list[float]) -> None:
    words = " ".join((REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8").split())
    assert sentence.format(*(f"{value:,}" for value in map(int, values))) in words
    assert values == [int(value) for value in values]


def test_what_is_said_to_happen_four_times_a_second_does() -> None:
    words = " ".join((REPOSITORY / "docs" / "storage.md").read_text(encoding="utf-8").split())
    assert "the lists in it are tried again four times a second" in words
    assert list_server.READ_AGAIN_S == 1 / 4


def test_lists_go_on_within_five_seconds_after_a_connection_between_daemons_is_lost() -> None:
    words = " ".join((REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8").split())
    assert "without a word, it is made anew, and its lists go on within about five seconds" in words
    assert sockets.UNHEARD_MS + sockets.CONNECT_AGAIN_MOST_MS < 5_000


def test_the_table_of_errors_is_that_of_the_code() -> None:
    on_page = dict(re.findall(r"^\| `([a-z_]+)` \| (true|false) \|", TEXT, re.M))
    assert on_page == {code: str(kind.retryable_by_default).lower() for code, kind in BY_CODE.items()}


def test_the_partition_that_the_page_names_is_right() -> None:
    assert f"is in partition {partition_of(b'Bob' + bytes([39]) + b's list')}." in TEXT


@pytest.mark.parametrize("part", ["router", "cache", "registry", "database_worker-1", "list_server-1"])
def test_every_operation_of_every_daemon_is_on_the_page(part: str) -> None:
    source = REPOSITORY / "services" / "todomq" / part.partition("-")[0]
    operations = set()
    for path in source.glob("*.py"):
        given = r"operations(?:: dict\[str, Operation\])? \|?= \{(.*?)\}|operation in \{(.*?)\}"
        for block in re.findall(given, path.read_text("utf-8"), re.S):
            operations |= set(re.findall(r'"([a-z_]+)":', "".join(block)))
    assert operations
    missing = {operation for operation in operations if f'["{operation}"' not in TEXT}
    assert not missing


def test_the_plain_client_adds_and_reads_an_entry(stack: Running) -> None:
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "plain_req.py"), stack.address("router"), "plain list", "milk"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "milk" in run.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/client.md"])
def test_the_examples_in_python_run(stack: Running, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    monkeypatch.setenv("TODOMQ_ENDPOINT", stack.address("router"))
    monkeypatch.delenv("TODOMQ_CREDENTIALS", raising=False)
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / page).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


# Stats


STATS = (REPOSITORY / "docs" / "stats.md").read_text(encoding="utf-8")
DAEMONS = {
    "Registry": ["registry"], "Cache": ["cache"], "Router": ["router"], "List server": ["list_server", 1],
    "Database worker": ["database_worker", 1],
}  # fmt: skip


def documented_stats(heading: str) -> set[str]:
    """Return the keys in the first column of a section's table."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", STATS, re.M | re.S)
    columns = re.findall(r"^\| (`[^|]*) \|", section, re.M)
    return {key for column in columns for key in re.findall(r"`(\w+)`", column)}


@pytest.mark.parametrize("heading", DAEMONS)
def test_the_page_of_stats_names_what_a_daemon_says_and_nothing_else(stack: Running, heading: str) -> None:
    with Client(stack.address("router")) as todo:
        said = set(todo.call(Via(DAEMONS[heading]), "stats"))
    own, shared = documented_stats(heading), documented_stats("Every daemon")
    assert said <= own | shared
    sources = "".join(path.read_text() for path in (REPOSITORY / "services").rglob("*.py"))
    not_said = [key for key in (own | shared) - said if f'"{key}"' not in sources]
    assert not_said == [], "counts that begin with what they count"
