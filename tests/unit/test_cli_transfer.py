"""What import and export do with files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from todomq.cli.transfer import write_file


def test_a_file_that_cannot_be_written_to_its_end_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "bob.csv"
    file.write_bytes(b",milk\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(file, b",bread\n")
    assert file.read_bytes() == b",milk\n" and list(tmp_path.iterdir()) == [file]


def test_a_link_stays_one_and_a_file_keeps_its_mode(tmp_path: Path) -> None:
    file, link = tmp_path / "bob.csv", tmp_path / "link.csv"
    file.write_bytes(b",milk\n")
    file.chmod(0o640)
    link.symlink_to("bob.csv")
    write_file(link, b",bread\n")
    assert link.is_symlink() and file.read_bytes() == b",bread\n" and file.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        write_file(Path(f"/dev/fd/{writer}"), b",milk\n")
        link = tmp_path / "link.csv"
        link.symlink_to(f"/proc/self/fd/{writer}")
        write_file(link, b",milk\n")
        assert os.read(reader, 100) == b",milk\n" * 2
    finally:
        os.close(reader)
        os.close(writer)
