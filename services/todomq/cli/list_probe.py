"""``todomq probe`` on one list: where it lives, what it waits for, the end of its actor.

Owns: how that looks. Must not know: which hop is asked what (``whereabouts.py``).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from todomq.cli.command import Result
from todomq.cli.connection import connect_to_look_in
from todomq.cli.exit_codes import DONE, REFUSED
from todomq.cli.lists import ListName, is_absent
from todomq.cli.show import coloured, dim, duration, name_of, safe, size
from todomq.settings import read_settings

if TYPE_CHECKING:
    from todomq.cli.whereabouts import Whereabouts
    from todomq.client import Client


def show_list(list_name: ListName) -> Result:
    """Show where a list lives, and its state. It names partition, epoch, list server, database worker, what waits.

    Example: todomq probe list "Bob's list"
    """
    from todomq.cli.whereabouts import find

    with connect_to_look_in() as todo:
        found = find(todo, read_settings(), list_name)
        no_list = _is_absent(todo, found)
    value = {
        **found.description, "exists": not no_list,
        "list": list_name, "partition": found.partition, "list_server": found.server, "worker": found.worker,
    }  # fmt: skip
    return Result(value, _whereabouts_text(found, no_list))


def why(list_name: ListName) -> Result:
    """Say what a list's requests wait for, and since when. The exit code is 1 if that part is at fault.

    Example: todomq probe why "Bob's list"
    """
    from todomq.cli.whereabouts import explain, find, is_at_fault

    with connect_to_look_in() as todo:
        found = find(todo, read_settings(), list_name)
        reason = explain(found)
        no_list = reason.hop is None and _is_absent(todo, found)
    hop = None if reason.hop is None else list(reason.hop)
    value = {"list": list_name, "waits_for": hop, "reason": reason.text, "since_ms": reason.since_ms}
    since = "" if reason.since_ms is None else f", for {duration(reason.since_ms / 1000)}"
    where = f"{coloured(name_of(hop), False)}{since}: " if hop else ""
    missing = "; there is no such list" if no_list else ""
    text = f"{safe(list_name)} waits for {where}{safe(reason.text)}{missing}"
    return Result(value, text, REFUSED if is_at_fault(found, reason) else DONE)


def kill_list(list_name: str) -> Result:
    """End a list's actor; its next request finds the same entries under another activation."""
    from todomq.client.values import Via

    with connect_to_look_in() as todo:
        was_loaded = todo.call(Via(["cache"]), "kill_list", list_name)
    told = "is ended; its next request loads it again" if was_loaded else "was not loaded, so there was nothing to end"
    return Result({"list": list_name, "was_loaded": was_loaded}, f"The actor of {safe(list_name)} {told}.")


def _is_absent(todo: Client, found: Whereabouts) -> bool:
    return not found.description.get("entries") and is_absent(todo, found.list_name)


def _no_server(found: Whereabouts) -> str:
    return f"none serves it at the moment; todomq probe why {safe(shlex.quote(found.list_name))} says why"


def _whereabouts_text(found: Whereabouts, no_list: bool) -> str:
    said = found.description
    epoch = f", epoch {said['epoch']}" if said else ""
    lines = [
        ("partition", f"{found.partition}{epoch}"),
        ("list server", _no_server(found) if found.server is None else f"list_server {found.server}"),
        ("database worker", f"database_worker {found.worker}"),
    ]
    if said:
        since = f" for {duration(said['state_since_ms'] / 1000)}" if "state_since_ms" in said else ""
        lines.append(("state", f"{said['state']}{since}"))
    if "entries" in said:
        is_loaded = said["entries"] is not None
        entries = f"{said['entries']:,}" if is_loaded else "unknown until it is loaded"
        waiting = f"{said['queued']} queued, {said['out_of_turn']} out of turn"
        lines += [
            ("activation", str(said["activation"])),
            ("entries", entries),
            *([("size", f"about {size(said['bytes'])} stored")] if is_loaded else []),
            ("clients", str(said["clients"])),
            ("waiting", f"{waiting}, {'some' if said['uncommitted'] else 'nothing'} uncommitted"),
        ]
    if said.get("error"):
        lines.append(("error", safe(said["error"])))
    missing = ": there is no such list; this is where it would live" if no_list else ""
    return "\n".join([safe(found.list_name) + missing, *(f"  {dim(f'{label:<16}')}{text}" for label, text in lines)])
