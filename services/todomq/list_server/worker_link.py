"""The link from a list server to one database worker: greeting, numbered batches, claims and reads.

Owns: the sockets to one worker, whether it has been greeted, what waits until it is, which is bounded (law 6). Must not
know: lists and entries.
A worker that comes back, under whatever incarnation, is greeted with the number of the first batch that is not
committed and then gets those batches again; it knows by its mark of this list server which of them are on disk.
Law 8: it is greeted with the epochs that were granted, too. One that says that its shard is another one is asked for
nothing and gets nothing, until another process has the name, or the right data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from todomq.errors import NOT_APPLIED, CorruptRecord, Overloaded, TodoMQError, Unavailable
from todomq.list_server.gate import Batch, Gate
from todomq.protocol import messages
from todomq.protocol.addresses import is_address
from todomq.protocol.partitions import worker_of
from todomq.runtime.callee import Answer, Callee
from todomq.runtime.daemon import Daemon
from todomq.runtime.log import log, log_counted
from todomq.runtime.loop import OneTimer
from todomq.runtime.pipes import Push

GREET_AGAIN_S = 0.05
GREET_ANOTHER_S = 0.5
"""How soon to ask again a worker that has another shard."""
SILENCE_MS = 2_000
SLOW_BYTES_PER_MS = 50
"""Of the slowest network between machines that is waited for: 0.4 Mbit/s."""
SEND_AGAIN_S = 0.002
"""How soon to try again what the connection did not take."""

ASK_AGAIN_S = 0.01
ASK_AGAIN_MOST_S = 0.25
"""The first and the longest pause before a worker is asked again what it could not answer; it doubles each time."""
CALL_S = 30.0
"""How long one attempt may take."""
WAITING_CALLS = 4_096


Refused = Callable[[TodoMQError], None]


class _Asked:
    """A call that is repeated until the worker answers, or the caller's time is over."""

    __slots__ = ("body", "done", "pause_s", "refused", "until_ms")

    def __init__(
        self, body: tuple[Any, ...], done: Callable[[Answer], None], refused: Refused | None, until_ms: float
    ) -> None:
        self.body = body
        self.done = done
        self.refused = refused
        self.until_ms = until_ms
        self.pause_s = ASK_AGAIN_S


class WorkerLink:
    """One list server's connection to one worker."""

    def __init__(
        self,
        daemon: Daemon,
        number: int,
        commits_address: str,
        gate: Gate,
        granted: Callable[[], list[tuple[int, int]]],
        on_new_life: Callable[[], None],
        on_another_shard: Callable[[CorruptRecord, int], None],
    ) -> None:
        """Connect to nothing yet.

        Args:
            daemon: the list server.
            number: the worker's.
            commits_address: where the worker's words are to be sent.
            gate: has the batches that are not committed.
            granted: returns the partitions of the worker with the epochs that it has granted.
            on_new_life: is called once another life of the worker, or the right worker again, has been greeted.
            on_another_shard: is told what a worker says of which the shard is another one, and the steady clock.
        """
        self.incarnation = b""
        self.greeted = False
        self.sent_before = 0
        """The last batch that an earlier life of the worker may have got, and may have written."""
        self._daemon = daemon
        self._loop = daemon.loop
        self._name = ["database_worker", number]
        self._commits_address = commits_address
        self._gate = gate
        self._granted = granted
        self._on_new_life = on_new_life
        self._on_another_shard = on_another_shard
        self._refusal: CorruptRecord | None = None  # of a worker with another shard, until one is greeted
        self._callee: Callee | None = None
        self._address = ""
        self._push: Push | None = None
        self._unsent: list[Batch] = []
        self._waiting: list[_Asked] = []
        self._greeting = False
        self._must_greet_again = False
        self._oldest = 0
        self._silent_since_ms = 0
        self._send_again = OneTimer(daemon.loop, SEND_AGAIN_S, self._send_if_greeted)
        self._connect_again = OneTimer(daemon.loop, GREET_AGAIN_S, self.registry_changed)
        self._greet_another = OneTimer(daemon.loop, GREET_ANOTHER_S, self._greet_if_needed)

    def registry_changed(self) -> None:
        """Connect to where the worker is registered now."""
        registration = self._daemon.whereis(self._name)
        if registration is None or registration.address == self._address:
            return
        if not is_address(registration.address):  # somebody else's: the worker is away
            log_counted("registered_nowhere", name=self._name)
            return
        try:
            callee = self._daemon.connect(registration.address, on_break=self._lost, on_connect=self.greet)
        except Unavailable as error:  # no descriptor is left
            log_counted("worker_out_of_reach", name=self._name, why=error.text)
            self._connect_again.plan()
            return
        if self._callee is not None:
            self._callee.close()
            self.greeted = False  # whoever is at the new address was not
        self._address, self._callee = registration.address, callee

    def call(
        self,
        *body: Any,
        done: Callable[[Answer], None],
        refused: Refused | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Call the worker once it has been greeted, again and again until it answers.

        So it must be harmless to repeat. A claim whose answer was lost is refused then, because of its own epoch, and
        the cache has the partition claimed under the next one.

        Args:
            body: operation and arguments.
            done: gets the answer, or why there is none.
            refused: hears why there is no answer yet, at each attempt once the pause between them is at its longest.
            timeout_s: how long whoever asks waits; ``math.inf`` where that is not known.
        """
        self._ask(_Asked(body, done, refused, self._loop.steady_ms() + timeout_s * 1000))

    def _ask(self, asked: _Asked) -> None:
        if self._callee is not None and self.greeted:
            left_s = (asked.until_ms - self._loop.steady_ms()) / 1000
            self._callee.call(*asked.body, done=partial(self._answered, asked), timeout_s=min(CALL_S, max(left_s, 0)))
        elif self._refusal is not None:
            self._refuse(asked, self._refusal.with_outcome(NOT_APPLIED))
        elif len(self._waiting) < WAITING_CALLS:
            self._waiting.append(asked)
        else:
            self._refuse(asked, Overloaded(f"too much waits for database worker {self._name[1]}"))

    def _refuse(self, asked: _Asked, error: TodoMQError) -> None:
        self._loop.after(0, partial(asked.done, Answer(None, error)))  # who is told may ask for more at once

    def _answered(self, asked: _Asked, answer: Answer) -> None:
        error = answer.error
        if error is None or not error.retryable or self._loop.steady_ms() + asked.pause_s * 1000 >= asked.until_ms:
            asked.done(answer)
            return
        if asked.refused is not None and asked.pause_s == ASK_AGAIN_MOST_S:
            asked.refused(error)
        self._loop.after(asked.pause_s, partial(self._ask, asked))
        asked.pause_s = min(2 * asked.pause_s, ASK_AGAIN_MOST_S)

    def send(self, batch: Batch) -> None:
        """Send a batch, now or once the worker has been greeted."""
        self._unsent.append(batch)
        if self.greeted:
            self._send_unsent()

    def greet(self) -> None:
        """Say hello (again): the worker is to expect the first batch that is not committed."""
        self.greeted = False
        if self._callee is None:
            return
        if self._greeting:  # with what was not committed then: the worker may not have heard of a failure since
            self._must_greet_again = True
            return
        self._greeting = True
        first = min(self._gate.batches, default=self._gate.open.number)
        body = "hello", self._daemon.incarnation, self._commits_address, first, self._granted()
        self._callee.call(*body, done=self._greeted, timeout_s=2.0)

    def tick(self, steady_ms: int) -> None:
        """Greet again a worker that has said nothing of the oldest batch for ``SILENCE_MS``: a message was lost.

        Over TCP a long batch gets more time, since greeting means sending it anew. Also give up the calls that nobody
        waits for any more.
        """
        if self._waiting:
            self._give_up(steady_ms)
        oldest = next(iter(self._gate.batches), 0)
        if oldest != self._oldest or not self.greeted:
            self._oldest, self._silent_since_ms = oldest, steady_ms
        elif oldest and steady_ms - self._silent_since_ms > SILENCE_MS + self._way_ms(self._gate.batches[oldest]):
            log("worker_silent", worker=self._name[1], batch=oldest)
            self.greet()

    def _way_ms(self, batch: Batch) -> int:
        """Return how long a batch may be on its way: 0 on one machine."""
        return batch.bytes // SLOW_BYTES_PER_MS if self._commits_address.startswith("tcp:") else 0

    def _give_up(self, steady_ms: int) -> None:
        late = [asked for asked in self._waiting if asked.until_ms <= steady_ms]
        self._waiting = [asked for asked in self._waiting if asked.until_ms > steady_ms]
        for asked in late:
            asked.done(Answer(None, Unavailable(f"database worker {self._name[1]} is away")))

    def _lost(self) -> None:
        self.greeted = False

    def _greeted(self, answer: Answer) -> None:
        self._greeting = False
        if self._must_greet_again:
            self._must_greet_again = False
            self.greet()
            return
        if isinstance(answer.error, CorruptRecord):
            self._refused(answer.error)
            return
        if answer.error is not None or not _is_greeting(answer.value):
            self._loop.after(GREET_AGAIN_S, self._greet_if_needed)
            return
        before = self.incarnation
        incarnation, writes_address, *_ = answer.value
        try:
            push = self._daemon.push(writes_address)
        except Unavailable as error:  # no descriptor is left
            log_counted("worker_out_of_reach", name=self._name, why=error.text)
            self._loop.after(GREET_AGAIN_S, self._greet_if_needed)
            return
        if self._push is not None:
            self._push.close()
        if before and before != incarnation:
            self.sent_before = max(self._gate.batches, default=self.sent_before)
        is_new = bool(before and before != incarnation) or self._refusal is not None
        self.incarnation, self._push, self._refusal = incarnation, push, None
        self.greeted = True
        self._unsent = [self._gate.batches[number] for number in sorted(self._gate.batches)]
        log("greeted", worker=self._name[1], incarnation=self.incarnation, batches_again=len(self._unsent))
        self._send_unsent()
        if is_new:
            self._on_new_life()
        self._ask_what_waits()

    def _refused(self, error: CorruptRecord) -> None:
        log_counted("worker_has_another_shard", worker=self._name[1], why=error.text)
        self._refusal = error
        self._on_another_shard(error, self._loop.steady_ms())
        self._ask_what_waits()
        self._greet_another.plan()

    def _ask_what_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            self._ask(asked)

    def _greet_if_needed(self) -> None:
        if not self.greeted:
            self.greet()

    def _send_unsent(self) -> None:
        sent = 0
        for batch in self._unsent:
            message = messages.writes(batch.as_sent(self._daemon.incarnation, self.incarnation))
            if self._push is None or not self._push.send(message):
                self._send_again.plan()
                break
            sent += 1
        del self._unsent[:sent]

    def _send_if_greeted(self) -> None:
        if self.greeted:
            self._send_unsent()


def _is_greeting(value: Any) -> bool:
    """Tell whether a worker answered ``[incarnation, address, ...]``."""
    if type(value) is not list or [type(item) for item in value[:2]] != [bytes, str]:
        return False
    return is_address(value[1])


class WorkerLinks(dict[int, WorkerLink]):
    """The links to all workers, by their number."""

    def of(self, partition: int) -> WorkerLink:
        """Return the link to the worker of a partition."""
        return self[worker_of(partition, len(self))]
