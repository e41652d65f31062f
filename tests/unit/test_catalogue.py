"""The catalogue of a backup: what names impossible files, or lacks a shard's, is no whole backup (law 8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from todomq.backup.catalogue import CATALOGUE, NEEDED, Catalogue, read_catalogue, write_catalogue
from todomq.database_worker.storage.small_files import write_file
from todomq.errors import CorruptRecord

FILES = dict.fromkeys(("manifest", *(f"worker-{n}/{file}" for n in (1, 2) for file in NEEDED)), (1, "digest"))
WHOLE = Catalogue("stack", 2, "2026-12-01T00:00:00+00:00", FILES)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_catalogue(tmp_path, WHOLE)
    assert read_catalogue(tmp_path) == WHOLE


@pytest.mark.parametrize("missing", list(FILES))
def test_a_backup_without_a_file_that_every_shard_has_is_not_whole(tmp_path: Path, missing: str) -> None:
    write_catalogue(tmp_path, WHOLE._replace(files={name: held for name, held in FILES.items() if name != missing}))
    with pytest.raises(CorruptRecord, match=f"{missing} is not in the backup"):
        read_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("name", "held"),
    [("worker-1/x", [1]), ("worker-1/x", ["1", "digest"]), ("worker-1/x", 5), ("worker-1/x", None),
     ("worker-1/x", [True, "digest"]), ("../x", [1, "digest"]), ("worker-1/../../x", [1, "digest"]),
     ("/x", [1, "digest"]), ("", [1, "digest"])],
)  # fmt: skip
def test_files_that_cannot_be_are_told_and_never_looked_for(tmp_path: Path, name: str, held: Any) -> None:
    write_file(tmp_path / CATALOGUE, {**WHOLE._asdict(), "files": {**FILES, name: held}})
    with pytest.raises(CorruptRecord, match="is damaged"):
        read_catalogue(tmp_path)
