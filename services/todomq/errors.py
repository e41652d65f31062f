"""The errors of TodoMQ, as replies carry them and as callers catch them.

Owns: the machine codes, which of them may be tried again, and what is known of the change when one is raised.
Used by every part; knows none of them.

An error's ``outcome`` is a promise: ``"not applied"`` means the change has not taken effect and never will under this
request; ``"unknown"`` means it may have, and only ``error.retry()`` (the same request under the same number) can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

NOT_APPLIED = "not applied"
UNKNOWN = "unknown"


class TodoMQError(Exception):
    """Base of every error of TodoMQ.

    Attributes:
        code: machine-readable name of the kind of error, the same on the wire.
        text: what was wrong, for a person.
        retryable: whether the request was refused only for the moment; the client has tried again until the deadline.
        outcome: ``"not applied"`` or ``"unknown"``.
    """

    code: ClassVar[str] = "error"
    retryable_by_default: ClassVar[bool] = False

    def __init__(self, text: str, *, retryable: bool | None = None, outcome: str = NOT_APPLIED) -> None:
        super().__init__(text)
        self.text = text
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.outcome = outcome
        self._resend: Callable[[], Any] | None = None

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave what ``retry()`` calls out of copies and pickles: only the client that sent a request can retry it."""
        return _copied, (type(self), self.text, self.retryable, self.outcome)

    def with_outcome(self, outcome: str) -> TodoMQError:
        """Return the same error, but with this outcome."""
        return _copied(type(self), self.text, self.retryable, outcome)

    def can_retry_with(self, resend: Callable[[], Any]) -> None:
        """Attach the function that ``retry()`` calls; the client does so for errors whose outcome is unknown."""
        self._resend = resend

    def retry(self) -> Any:
        """Send the same request again under the same number, so that it takes effect only once.

        A change to a list can be sent again for some minutes, until the same client sends or retries a later change to
        that list: that gives up the changes before it, and the error then says so. Each retry gets as much time as the
        request had. A call by name has no number: it is sent once more, and may take effect once more. Once a retry has
        been answered, nothing is sent any more.

        Returns:
            what the request would have returned; once a retry has been answered, that same answer again.

        Raises:
            TodoMQError: as the request does; this very error if there is nothing to send again.
        """
        if self._resend is None:
            raise self
        return self._resend()


def is_refusal_for_now(error: TodoMQError | None) -> bool:
    """Tell whether the part that was asked itself says that it can't do what it was asked at the moment.

    If the part is away or was lost, nobody knows what it did, so callers wait for its next life.
    """
    return isinstance(error, Unavailable) and error.outcome == NOT_APPLIED


def _copied(kind: type[TodoMQError], text: str, retryable: bool, outcome: str) -> TodoMQError:
    return kind(text, retryable=retryable, outcome=outcome)


class InvalidRequest(TodoMQError):
    """The request breaks a rule that the text names; sent again, it fails again."""

    code = "invalid_request"


class EntryNotFound(TodoMQError):
    """The list has no entry with this id."""

    code = "entry_not_found"


class NameNotFound(TodoMQError):
    """Nobody is registered under this name."""

    code = "name_not_found"


class Overloaded(TodoMQError):
    """A queue on the way is full; the request went no further."""

    code = "overloaded"
    retryable_by_default = True


class Unavailable(TodoMQError):
    """A part that the request needs does not answer at the moment."""

    code = "unavailable"
    retryable_by_default = True


class OutOfOrder(TodoMQError):
    """An earlier change of this client to this list is missing; the client sends both again.

    Not retryable for a read: the read was sent again (its answer was lost, or it was refused for the moment), and by
    then changes sent after it had taken effect.
    """

    code = "out_of_order"
    retryable_by_default = True


class DeadlineExceeded(TodoMQError):
    """The request's deadline passed before its answer came."""

    code = "deadline_exceeded"


class Unauthorized(TodoMQError):
    """The key that the client uses does not allow this."""

    code = "unauthorized"


class QuotaExceeded(TodoMQError):
    """The key that the client uses may not store more."""

    code = "quota_exceeded"


class CorruptRecord(TodoMQError):
    """A stored record cannot be read; it was not taken for an empty one."""

    code = "corrupt_record"


class ProtocolError(TodoMQError):
    """The message could not be understood as one of this protocol."""

    code = "protocol_error"


BY_CODE: dict[str, type[TodoMQError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest, EntryNotFound, NameNotFound, Overloaded, Unavailable, OutOfOrder,
        DeadlineExceeded, Unauthorized, QuotaExceeded, CorruptRecord, ProtocolError,
    )
}  # fmt: skip


def from_wire(code: str, text: str, retryable: bool, outcome: str) -> TodoMQError:
    """Return the error that a reply describes; an unknown code becomes a plain ``TodoMQError`` that names it."""
    kind = BY_CODE.get(code)
    if kind is None:
        return TodoMQError(f"{code}: {text}", retryable=retryable, outcome=outcome)
    return kind(text, retryable=retryable, outcome=outcome)
