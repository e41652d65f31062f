"""Which partitions are this list server's: claimed before they are served, asked about meanwhile, given away whole.

Owns: claims under way, releases that wait for the disk, when the workers are asked again. Must not know: requests, what
a list holds. Talks to: the cache (own, release, owned), database workers (claim).

Law 2: a partition is served once its worker has granted the claim, and no sooner; it is given away once every write of
it is on disk. While a worker says why it can't grant a claim, the partition is answered for with that reason, and the
claim goes on being tried, under the same epoch: once it is granted, nobody but this list server need know.
Law 8: a claim says what is known to be granted, and whoever is told of a partition hears it. So a worker with another
shard, or an older copy, grants nothing as long as anybody knows better.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from todomq.errors import (
    CorruptRecord,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    TodoMQError,
    Unavailable,
    is_refusal_for_now,
)
from todomq.list_server.hosting import Hosting
from todomq.list_server.worker_link import WorkerLinks
from todomq.protocol.messages import is_epoch, is_partition
from todomq.protocol.partitions import PARTITIONS
from todomq.runtime.callee import Answer
from todomq.runtime.calls import LATER, Call, Operation
from todomq.runtime.log import log_counted
from todomq.runtime.loop import Loop

CLAIM_S = 30.0
"""How long a claim is tried. The cache waits less long, and asks again: what takes a slow worker longer counts then."""
WAITING_OWN = WAITING_RELEASE = 4 * PARTITIONS
"""Calls that wait for a claim, or for the disk: the cache has one of each kind for a partition."""
CHECK_MS = 1_000
"""How often the workers are asked whether the owned partitions are still this server's."""


class Ownership:
    """The partitions of one life of a list server."""

    def __init__(self, incarnation: bytes, loop: Loop, hosting: Hosting, links: WorkerLinks, stall_ms: int) -> None:
        """Own nothing yet.

        Args:
            incarnation: of this list server; what another life of it was asked is refused.
            stall_ms: whoever has stood still for longer may have been taken for dead.
        """
        self.operations: dict[str, Operation] = {"own": self._own, "release": self._release, "owned": self._owned}
        self._incarnation = incarnation
        self._loop = loop
        self._hosting = hosting
        self._links = links
        self._claims: dict[tuple[int, int], list[Call]] = {}
        self._releases: list[tuple[int, int, Call]] = []
        self._left: Callable[[], None] | None = None
        self._stall_ms = stall_ms
        self._seen_ms = self._checked_ms = loop.steady_ms()

    def leave(self, left: Callable[[], None]) -> None:
        """Take nothing more, and call ``left`` once all is given away."""
        self._left = left
        for number, epoch in self._hosting.owned():
            self._hosting.stop_serving(number, epoch)

    def check_epochs(self) -> None:
        """Have the workers asked whether all is still this server's, now and then, and after having stood still."""
        steady_ms = self._loop.steady_ms()
        is_stalled = steady_ms - self._seen_ms > self._stall_ms
        self._seen_ms = steady_ms
        if is_stalled:
            self._hosting.doubt_epochs()
        elif steady_ms - self._checked_ms >= CHECK_MS:
            self._hosting.check_epochs()
        else:
            return
        self._checked_ms = steady_ms

    def end_turn(self) -> None:
        """Give away what can be given away now."""
        if self._releases:
            self._end_releases()
        if self._left is not None:
            owned = [each for each in self._hosting.partitions if each is not None]
            if all(self._hosting.stop_serving(each.number, each.epoch) for each in owned):
                left, self._left = self._left, None
                left()

    def _owned(self, call: Call) -> list[tuple[int, int, int]]:
        self._check_incarnation(call, 0)
        return self._hosting.owned_and_granted()

    def _check_incarnation(self, call: Call, place: int) -> None:
        """Refuse what another life of this list server was asked: a connection goes on to the next one unasked.

        Otherwise the cache would take a claim of this life for one of the life before (law 2). Whoever does not say
        which life is meant means any.
        """
        is_named = len(call.arguments) == place + 1 and type(call.arguments[place]) is bytes
        if is_named and call.arguments.pop() != self._incarnation:
            raise Unavailable("another life of this list server was asked")

    def _own(self, call: Call) -> object:
        self._check_incarnation(call, 3)
        known = call.arguments.pop() if len(call.arguments) == 3 else None
        number, epoch = _partition_and_epoch(call)
        if type(known) is not int or not 0 <= known < epoch:
            raise InvalidRequest("the highest epoch that is known to be granted is needed, 0 for none, below this one")
        if self._left is not None:
            raise Unavailable("this list server is leaving")
        owned = self._hosting.partitions[number]
        if owned is not None and owned.epoch == epoch and not owned.releasing:
            return [True, epoch, self._hosting.granted[number]]

        if sum(map(len, self._claims.values())) >= WAITING_OWN or len(self._claims) >= WAITING_OWN:
            raise Overloaded("too many calls wait for claims of partitions")
        calls = self._claims.get((number, epoch))
        if calls is not None:  # the claim is under way: made twice it would be refused, for its own epoch
            calls.append(call)
        else:
            self._claims[number, epoch] = [call]
            self._claim(number, epoch, known)
        return LATER

    def _claim(self, number: int, epoch: int, known: int) -> None:
        claimed, refused = partial(self._claimed, number, epoch, known), partial(self._claim_refused, number, epoch)
        self._links.of(number).call("claim", number, epoch, known, done=claimed, refused=refused, timeout_s=CLAIM_S)

    def _claim_refused(self, number: int, epoch: int, error: TodoMQError) -> None:
        """Take the word that a claim has not been granted yet: if the worker itself says so, whoever asks hears why."""
        calls = self._claims[number, epoch]
        is_wanted = calls or self._hosting.is_unclaimed(number, epoch)  # else it was given away meanwhile
        if not is_wanted or self._is_overtaken(number, epoch) or not is_refusal_for_now(error):
            return
        self._hosting.own_unclaimed(number, epoch, error)
        if calls:
            log_counted("partition_unclaimed", partition=number, why=error.text)
        for call in calls:
            call.answer([True, epoch, self._hosting.granted[number]])
        calls.clear()

    def _claimed(self, number: int, epoch: int, known: int, answer: Answer) -> None:
        is_unclaimed = self._hosting.is_unclaimed(number, epoch)
        if is_unclaimed and is_refusal_for_now(answer.error):
            self._claim(number, epoch, known)
            return
        calls = self._claims.pop((number, epoch))
        if is_unclaimed:
            self._hosting.disown(number)  # unless it is granted now, the cache sees it, and has it claimed anew
        elif not calls:
            return  # it was given away meanwhile
        elif self._is_overtaken(number, epoch):
            answer = Answer(None, Unavailable("the partition was asked for under a higher epoch since"))
        try:
            grant = self._grant(number, epoch, known, answer)
        except TodoMQError as error:
            for call in calls:
                call.refuse(error)
        else:
            for call in calls:
                call.answer(grant)

    def _is_overtaken(self, number: int, epoch: int) -> bool:
        owned = self._hosting.partitions[number]
        return owned is not None and owned.epoch > epoch

    def _grant(self, number: int, epoch: int, known: int, answer: Answer) -> list[Any]:
        """Take a worker's answer to a claim; return what ``own`` answers, or raise why it is not known."""
        granted_to = self._hosting.granted
        if isinstance(answer.error, CorruptRecord):
            log_counted("partition_damaged", partition=number, why=answer.error.text)
            self._hosting.own_unclaimed(number, epoch, answer.error)
            if known > granted_to[number]:  # the shard may be another one: all that is the worker's is refused then
                granted_to[number] = known
                self._links.of(number).greet()
            return [True, epoch, granted_to[number]]
        if answer.error is not None:
            raise answer.error
        if not _is_grant(answer.value):
            raise Unavailable("the database worker's answer to claim is malformed")
        granted, stored = answer.value
        granted_to[number] = max(stored, granted_to[number])
        if granted:
            self._hosting.own(number, epoch)
        return [granted, stored, granted_to[number]]

    def _release(self, call: Call) -> object:
        self._check_incarnation(call, 2)
        number, epoch = _partition_and_epoch(call)
        if self._hosting.stop_serving(number, epoch):
            return True
        if len(self._releases) >= WAITING_RELEASE:
            raise Overloaded("too many calls wait for partitions to be released")
        self._releases.append((number, epoch, call))
        return LATER

    def _end_releases(self) -> None:
        now_ms = self._loop.now_ms()
        releases, self._releases = self._releases, []
        for number, epoch, call in releases:
            if now_ms > call.deadline_ms:
                call.refuse(DeadlineExceeded("the partition's writes were not on disk in time"))
            elif self._hosting.stop_serving(number, epoch):
                call.answer(True)
            else:
                self._releases.append((number, epoch, call))


def _partition_and_epoch(call: Call) -> tuple[int, int]:
    arguments = call.arguments
    if len(arguments) != 2 or not is_partition(arguments[0]) or not is_epoch(arguments[1]):
        raise InvalidRequest(f"a partition (0-{PARTITIONS - 1}) and an epoch (from 1) are needed")
    return arguments[0], arguments[1]


def _is_grant(value: Any) -> bool:
    return type(value) is list and [type(item) for item in value] == [bool, int] and is_epoch(value[1])
