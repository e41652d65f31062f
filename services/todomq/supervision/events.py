"""The event listener protocol of supervisord, read from a stream of bytes.

Owns: the framing (http://supervisord.org/events.html). Must not know: what is done about an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from todomq.errors import ProtocolError

READY = b"READY\n"
DONE = b"RESULT 2\nOK"
SHUTDOWN = "SUPERVISOR_STATE_CHANGE_STOPPING"


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a process's state; ``state`` in supervisord's words: RUNNING, EXITED, BACKOFF, STOPPED, ...

    ``SHUTDOWN`` names no process: supervisord itself has begun to stop.
    """

    state: str
    process: str
    group: str
    pid: int | None
    tries: int


class EventReader:
    """Cuts the stream into events."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the stream.

        Returns:
            the events that are complete now.

        Raises:
            ProtocolError: the stream is not one of supervisord's.
        """
        self._buffer += data
        events = []
        while (event := self._cut()) is not None:
            events.append(event)
        return events

    def _cut(self) -> Event | None:
        header, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        fields = _fields(header)
        try:
            length, name = int(fields["len"]), fields["eventname"]
        except (KeyError, ValueError):
            raise ProtocolError(f"not the header of an event: {header[:80]!r}") from None
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        if name == SHUTDOWN:
            return Event(SHUTDOWN, "", "", None, 0)
        payload = _fields(rest[:length].partition(b"\n")[0])
        try:
            return Event(
                state=name.removeprefix("PROCESS_STATE_"),
                process=payload["processname"],
                group=payload["groupname"],
                pid=int(payload["pid"]) if "pid" in payload else None,
                tries=int(payload.get("tries", "0")),
            )
        except (KeyError, ValueError):
            raise ProtocolError(f"not a process's event: {name}") from None


def _fields(line: bytes) -> dict[str, str]:
    pairs = (word.partition(":") for word in line.decode(errors="replace").split())
    return {key: value for key, _, value in pairs}
