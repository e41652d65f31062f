"""The registry's journal: what it keeps, what a torn tail costs, what damage is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from todomq.protocol.registration import Registration
from todomq.registry import journal as journal_module
from todomq.registry.journal import SLACK_BYTES, Journal
from todomq.registry.registrations import Process, Remember

PROCESS = Process(100, 5_000)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BOOT = "this-boot"


class Opener:
    """Opens journals of one directory and closes them in the end."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"registry-{BOOT}.journal"
        self._opened: list[Journal] = []

    def __call__(self, boot: str = BOOT) -> Journal:
        self._opened.append(Journal(self.path.parent, boot))
        return self._opened[-1]

    def close(self) -> None:
        for journal in self._opened:
            journal.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(tmp_path)
    yield opener
    opener.close()


def remember(journal: Journal, *names: str) -> None:
    for name in names:
        journal.remember(kept(name))


def kept(name: str, process: Process | None = PROCESS, lease_ms: int = 0) -> Remember:
    registration = Registration([name], "ipc:///run/x", None if process is None else process.pid, b"")
    return Remember(name.encode(), registration, process, lease_ms)


def names_in(journal: Journal) -> list[str]:
    return [each.registration.name[0] for each in journal.remembered()]


def test_what_is_remembered_is_there_for_the_next_registry(opened: Opener) -> None:
    all_kept = [kept("a"), kept("b", lease_ms=3_000), kept("far", process=None, lease_ms=30_000)]
    journal = opened()
    for each in all_kept:
        journal.remember(each)
    assert opened().remembered() == all_kept


def test_what_a_registry_of_an_earlier_version_remembered_is_read_as_without_a_lease(opened: Opener) -> None:
    remember(opened(), "new")
    with opened.path.open("ab") as file:
        file.write(journal_module._framed([b"a", ["a"], "ipc:///run/x", PROCESS.pid, PROCESS.start_time, b""]))
    assert opened().remembered() == [kept("new"), kept("a")]


def test_what_is_forgotten_is_not(opened: Opener) -> None:
    journal = opened()
    remember(journal, "a", "b")
    journal.forget(b"a")
    journal.forget(b"never there")
    assert names_in(opened()) == ["b"]


def test_a_journal_that_somebody_removed_is_written_anew(opened: Opener) -> None:
    journal = opened()
    remember(journal, "a")
    assert not journal.look()
    opened.path.unlink()
    assert journal.look() and not journal.look()
    remember(journal, "b")
    assert names_in(opened()) == ["a", "b"]


def test_law_8_a_journal_that_was_removed_while_no_registry_lived_is_missed_and_that_stays_known(
    opened: Opener,
) -> None:
    remember(opened(), "a")
    opened.close()
    opened.path.unlink()
    fresh = opened()
    assert str(opened.path) in fresh.lost and "gone" in fresh.lost
    remember(fresh, "b")
    again = opened()
    assert again.lost == fresh.lost and names_in(again) == ["b"]


def test_a_directory_that_was_emptied_holds_no_journal_to_be_missed(opened: Opener) -> None:
    remember(opened(), "a")
    for path in opened.path.parent.iterdir():
        path.unlink()
    assert opened().lost == ""


def test_the_same_registration_again_writes_nothing(opened: Opener) -> None:
    journal = opened()
    remember(journal, "a")
    size = journal.size
    remember(journal, "a")
    assert journal.size == size == opened.path.stat().st_size


def test_a_torn_tail_costs_the_last_record_only(opened: Opener) -> None:
    journal = opened()
    remember(journal, "a", "b")
    before = journal.size
    remember(journal, "c")
    whole = opened.path.read_bytes()
    for size in range(before, len(whole)):
        opened.path.write_bytes(whole[:size])
        fresh = opened()
        assert names_in(fresh) == ["a", "b"] and fresh.lost == ""
        remember(fresh, "c")
        assert opened.path.read_bytes() == whole
        opened.close()


def damage_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def test_any_flipped_bit_is_damage_that_is_named_and_stays_known(opened: Opener) -> None:
    remember(opened(), "a", "b")
    intact = opened.path.read_bytes()
    for at in range(len(intact)):
        opened.path.write_bytes(intact)
        damage_a_byte(opened.path, at)
        damaged = opened()
        assert "damaged" in damaged.lost and str(opened.path) in damaged.lost
        assert names_in(damaged) == []
        remember(damaged, "c")
        again = opened()
        assert again.lost == damaged.lost and names_in(again) == ["c"]
        opened.close()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xc1 something else entirely"])
def test_a_file_that_is_no_journal_is_damage_and_put_aside(opened: Opener, content: bytes) -> None:
    opened.path.write_bytes(content)
    assert "damaged" in opened().lost
    assert opened.path.with_suffix(".damaged").read_bytes() == content


def test_the_file_stays_small_however_often_names_come_and_go(opened: Opener) -> None:
    journal = opened()
    remember(journal, "stays")
    for number in range(5_000):
        remember(journal, f"comes-{number}")
        journal.forget(f"comes-{number}".encode())
        assert journal.size < 2 * SLACK_BYTES
    assert names_in(opened()) == ["stays"]


def test_journals_of_another_boot_are_removed_unread(opened: Opener) -> None:
    remember(opened("an-earlier-boot"), "a")
    damage_a_byte(opened.path.with_name("registry-an-earlier-boot.journal"), 3)
    journal = opened()
    assert names_in(journal) == [] and journal.lost == ""
    assert {path.name for path in opened.path.parent.iterdir()} == {opened.path.name, "registry.begun"}


@pytest.mark.parametrize("is_looked_at", [True, False])
def test_a_record_that_could_not_be_written_whole_is_written_once_there_is_room_or_with_the_next(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, is_looked_at: bool
) -> None:
    journal = opened()
    remember(journal, "a")
    write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(OSError, match="space"):
        remember(journal, "b")
    with pytest.raises(OSError, match="space"):
        journal.look()
    monkeypatch.undo()
    if is_looked_at:
        assert journal.look() and not journal.look()
        assert names_in(opened()) == ["a", "b"]
    else:
        remember(journal, "c")
        assert names_in(opened()) == ["a", "b", "c"]
    assert not [path for path in opened.path.parent.iterdir() if path.suffix == ".new"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_full_disk_keeps_no_registry_from_starting_and_the_next_change_writes_the_file_anew(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    if not is_first:
        remember(opened(), "a")

    def fails(descriptor: int, data: bytes) -> None:
        raise FULL

    with monkeypatch.context() as full:
        full.setattr(journal_module, "_write", fails)
        journal = opened()
        with pytest.raises(OSError, match="No space"):
            remember(journal, "b")
    remember(journal, "c")
    assert {*names_in(opened())} >= ({"c"} if is_first else {"a", "c"})


def test_damage_is_known_still_where_the_disk_was_too_full_to_write_the_file_anew(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(opened(), "a")
    opened.path.write_bytes(b"x" * 100)

    def full(*_: object) -> None:
        raise FULL

    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "_write", full)
        assert "damaged" in opened().lost
    assert "damaged" in opened().lost
    assert "damaged" in opened().lost, "and from then on it is in the file"


def test_another_error_than_a_full_disk_still_keeps_it_from_starting(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int, data: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_module, "_write", fails)
    with pytest.raises(OSError, match="Input/output"):
        opened()


def test_what_could_not_be_written_as_the_file_was_to_be_written_anew_is_written_with_the_next_change(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened()
    remember(journal, "x", "stays")

    def fails() -> None:
        raise FULL

    with monkeypatch.context() as full:
        full.setattr(journal_module, "SLACK_BYTES", -SLACK_BYTES)  # it is to be written anew
        full.setattr(journal, "_rewrite", fails)
        with pytest.raises(OSError, match="No space"):
            journal.forget(b"x")
    remember(journal, "y")
    assert names_in(opened()) == ["stays", "y"]
