"""Law 7: a little of what `make fuzz` does: known inputs, random ones, real sockets; and that it finds breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import corpus, shapes
from fuzzing.daemons import fuzz
from fuzzing.targets import STACK, TARGETS
from fuzzing.world import GREETING, LISTING, PAGE, Breach
from todomq.errors import ProtocolError
from todomq.list_server import reading, records, worker_link
from todomq.protocol import messages
from todomq.protocol.codec import pack
from todomq.runtime import registry_link

SECONDS = 3.0
EXAMPLES = 400
INPUTS_TO_FIND = 4_000
QUIET = settings(
    deadline=None, derandomize=True, database=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck)
)
"""The same inputs every time, however busy the machine."""


@pytest.fixture(autouse=True)
def _real_clocks_and_sockets() -> Iterator[None]:
    """Whatever a target put in the place of clocks and sockets is put back."""
    yield
    STACK.close()


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_target(name: str) -> None:
    target = TARGETS[name]
    for data in corpus.load(name):
        target(data)

    @QUIET
    @given(st.binary(min_size=1, max_size=120))
    def all_are_taken(data: bytes) -> None:
        target(data)

    all_are_taken()


def test_no_message_to_a_real_socket_ends_a_daemon_or_makes_it_grow() -> None:
    fuzz(SECONDS, 1)


ODD_ANSWERS: list[Any] = [
    None, 1, "x", b"x", [], [1], [1, True], [1, True, [[]]], [1, True, [[["x"], 5, None, b""]]], [b"i"],
    [b"i", "no address"], [b"i", 5], [[]], [[None, [b"k"], None]], [[None, ["k", "v"], None]], [[None, 5, None]],
    [None, 5, None], {}, [[1, 2, 3]] * 3,
]  # fmt: skip


@pytest.mark.parametrize("answer", ODD_ANSWERS, ids=str)
def test_law_7_an_answer_of_another_shape_ends_no_daemon(answer: Any) -> None:
    """Whoever is registered under a daemon's name is a peer like any other: its answers are checked as well."""
    for provoked in (0, GREETING, PAGE, LISTING) * 5:
        STACK.get().answer(bytes([provoked]) + shapes.AS_PACKED + pack(answer))


BREAKS: list[tuple[Any, str, Callable[..., Any], str]] = [
    (registry_link, "_is_news", lambda value: True, "answers"),
    (worker_link, "_is_greeting", lambda value: True, "answers"),
    (reading, "_are_pages", lambda value, most: True, "answers"),
    (messages, "is_request", lambda request: True, "router"),
]


@pytest.mark.parametrize(("owner", "name", "broken", "target"), BREAKS, ids=[name for _, name, _, _ in BREAKS])
def test_a_check_that_is_left_out_is_found(
    owner: Any, name: str, broken: Callable[..., Any], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)

    random = Random(1)

    def send_many() -> None:
        for _ in range(INPUTS_TO_FIND):
            TARGETS[target](random.randbytes(random.randrange(1, 60)))

    with pytest.raises(Breach):
        send_many()


def test_a_decoder_that_raises_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_run(name: str, first: int, value: bytes) -> Any:
        raise ProtocolError("not what a damaged record is")

    monkeypatch.setattr(records, "read_run", read_run)
    with pytest.raises(ProtocolError):
        TARGETS["stored"](b"\x91\xa1x")
