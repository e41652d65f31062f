"""The short ways of the two commonest requests: from the request to the reply in one function each.

Owns: which requests go a short way, and all that is done for them. Must not know: any other request.

A **plain add** is ``["add_entry", title, date]`` to a list that is ready, by a client whose turn it is and of which
nothing waits, where its answer may stand beside the entry (``recording.py``). A **read again** asks what the list
answered last, before it has changed. What actor, session, recording and gate do for these in some twenty calls is done
here in a few, in half the time (``docs/performance.md``). All else goes the long way, by ``ListActor.take``, and so may
these: ``tests/unit/test_short_ways.py`` sends the same requests both ways and compares all that is written, answered
and remembered.

Keeps law 1 (a reply to an add is held until its batch is on disk; nothing is read here that is not), law 3 (a client's
number stands beside the entry, in its record) and law 4 (only the next number is taken, and a read waits for those
before it). Law 5: what might fail comes before anything is changed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec.msgpack import Decoder

from todomq.list_server.actor import READY, ListActor
from todomq.list_server.gate import UNCOMMITTED_BYTES, Reply
from todomq.list_server.recording import (
    ANSWERS_IN_ENTRIES,
    ANSWERS_IN_ENTRIES_BYTES,
    NEW_LIST,
    SESSIONS_IN_ENTRIES,
    is_to_be_written,
)
from todomq.list_server.records import entry_key, pack_titled
from todomq.list_server.sessions import IN_ENTRIES, RECORDED, SESSIONS, Session
from todomq.protocol import limits
from todomq.protocol.codec import pack
from todomq.protocol.entries import is_date
from todomq.protocol.messages import OK

PLAIN_ADD = b"\x93\xa9add_entry"
"""How the body of an add with a title, a date and nothing else begins."""
_Title = Annotated[str, Meta(min_length=1, max_length=limits.TITLE_CHARACTERS)]
_read = Decoder(tuple[Literal["add_entry"], _Title, str | None]).decode


def add_plainly(actor: ListActor, peer: bytes, sender: bytes, request: Any, now_ms: int) -> bool:
    """Serve a request if it is a plain add; where many come, look first whether it begins with ``PLAIN_ADD``.

    Args:
        actor: the list's.
        peer: the router's connection.
        sender: the client.
        request: as it was forwarded, under the partition's epoch.
        now_ms: the time.

    Returns:
        whether it was; if not, nothing is done but what the long way begins with: the floor is taken.
    """
    identifier, _, deadline_ms, body, number, floor, epoch = request
    todo = actor.todo
    if (
        todo is None
        or actor.state is not READY
        or actor.sessions_to_write is not None
        or deadline_ms < now_ms
        or floor > number
    ):
        return False
    session = actor.sessions.get(sender)
    if session is None:
        session = Session(max(floor, 1), now_ms)  # remembered once the add is made
    if (
        session.next != number
        or session.waiting is not None
        or (session.kept is not IN_ENTRIES and not _may_stand_in_entries(actor, session))
    ):
        return False
    partition, answers = actor.partition, session.answers
    gate = partition.gate
    try:
        _, title, date = _read(body)
        if answers:
            session.declare(floor)
        entry_id = todo.next_id
        value = pack(entry_id)
        if (
            gate.why_refused
            or gate.bytes > UNCOMMITTED_BYTES
            or len(answers) >= ANSWERS_IN_ENTRIES
            or session.answer_bytes + len(value) > ANSWERS_IN_ENTRIES_BYTES
            or (date is not None and not is_date(date))
        ):
            return False
        added = (sender, number, answers[0][0] if answers else number, now_ms)
        packed = pack_titled(title, date, added)
        key = entry_key(actor.prefix, todo.generation, entry_id)
        reply = Reply(peer, identifier, OK, value, partition.number)
    except Exception:
        return False  # the long way tells what is wrong with it, or crashes the list's actor

    if session.kept is RECORDED:
        session.kept = IN_ENTRIES
        actor.in_entries += (sender,)
        actor.sessions[sender] = session
    todo.add(title, date)
    actor.used_ms = now_ms
    actor.last_page = actor.long_read = None
    actor.last_batch = gate.write(partition.number, epoch, key, packed)
    if actor.record is not NEW_LIST and is_to_be_written(actor.record):  # most are: that spares them the call
        actor.write_list_record(todo, False)
    gate.open.replies.append(reply)
    session.took(number, OK, value, now_ms)
    return True


def read_again(actor: ListActor, peer: bytes, sender: bytes, request: Any, now_ms: int) -> bool:
    """Answer a request if it is a read again; arguments and result as of ``add_plainly``."""
    identifier, _, deadline_ms, body, number, floor, _ = request
    last, partition = actor.last_page, actor.partition
    if (
        last is None
        or last[0] != body
        or actor.state is not READY
        or actor.last_batch > partition.gate.committed
        or deadline_ms < now_ms
        or floor > number
        or partition.snapshots.is_turn_full()
    ):
        return False
    session = actor.sessions.get(sender)
    if session is None:
        if number > max(floor, 1):
            return False
    elif session.waiting is not None or number != session.next:
        return False
    elif session.answers:
        session.declare(floor)
    page = last[1]
    actor.used_ms = now_ms
    partition.snapshots.packed(len(page))
    partition.replies.append(Reply(peer, identifier, OK, page, partition.number))
    return True


def _may_stand_in_entries(actor: ListActor, session: Session) -> bool:
    """Tell whether the answer to a client that is new, or whose record is up to date, may stand in the entry."""
    return (
        session.kept is RECORDED
        and len(actor.in_entries) < SESSIONS_IN_ENTRIES
        and len(actor.sessions) < SESSIONS
    )
