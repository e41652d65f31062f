"""What the listener leaves in the run directory for others to read: counts of restarts, and why the stack gave up.

Owns: the files ``restarts.json`` and ``failure``. Read by ``stack.py`` and the probe, and by the next listener.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from todomq.errors import CorruptRecord

REASON_BYTES = 4_096


def read_restarts(run: Path, manager_pid: int | None = None) -> dict[str, int]:
    """Return how often each process was restarted in the life of one supervisord.

    Args:
        run: the stack's run directory.
        manager_pid: count only what happened under this supervisord.

    Raises:
        CorruptRecord: the file cannot be read.
    """
    path = run / "restarts.json"
    try:
        content = json.loads(path.read_bytes())
        counts = {str(name): int(count) for name, count in content["restarts"].items()}
        pid = int(content["manager_pid"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRecord(f"{path} cannot be read: {error}") from None
    return counts if manager_pid in (None, pid) else {}


def write_restarts(run: Path, manager_pid: int, counts: Mapping[str, int]) -> None:
    """Keep the counts of this supervisord's life."""
    content = {"manager_pid": manager_pid, "restarts": dict(counts)}
    _replace(run / "restarts.json", json.dumps(content))


def read_failure(run: Path) -> str | None:
    """Return why the stack gave up, one line, or None if it did not."""
    try:
        return (run / "failure").read_text(errors="replace").strip()
    except FileNotFoundError:
        return None


def reserve_failure(run: Path) -> None:
    """Reserve room on disk for a reason: it may have to be written when the disk is full."""
    _spare(run).write_text(" " * REASON_BYTES)


def write_failure(run: Path, reason: str) -> None:
    """Keep the reason until the stack is started again; in the room that was reserved, if it was."""
    spare = _spare(run)
    line = reason.replace("\n", " ").encode()[:REASON_BYTES]
    with spare.open("r+b" if spare.exists() else "wb") as file:
        file.write(line.ljust(REASON_BYTES))
    spare.replace(run / "failure")


def forget(run: Path) -> None:
    """Remove both: the stack is being started anew."""
    for name in ("failure", "restarts.json"):
        (run / name).unlink(missing_ok=True)


def _spare(run: Path) -> Path:
    return run / "failure.new"


def _replace(path: Path, content: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(content)
    os.replace(fresh, path)
