"""The directories of a stack's shards: made once, and refused whenever they are not what they must be."""

from __future__ import annotations

import json
import shutil
import threading
import zlib
from pathlib import Path

import pytest

from todomq.database_worker.storage.manifest import shard_directory
from todomq.database_worker.storage.small_files import NewerFormat
from todomq.errors import CorruptRecord
from todomq.settings import SettingsError


def note_of(data: Path) -> Path:
    return data.with_name(f"{data.name}.note")


def fill(directory: Path) -> None:
    (directory / "shard").touch()


def refuse_to_fill(directory: Path) -> None:
    raise AssertionError(f"{directory} must not be made anew")


def start(data: Path, worker: int = 1, pool_size: int = 2) -> Path:
    return shard_directory(data, worker, pool_size, fill, note_of(data))


def start_again(data: Path, worker: int = 1, pool_size: int = 2) -> Path:
    return shard_directory(data, worker, pool_size, refuse_to_fill, note_of(data))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the data directory of a stack of two workers that has run once."""
    for worker in (1, 2):
        start(tmp_path / "data", worker)
    return tmp_path / "data"


def change(path: Path, **fields: object) -> None:
    value = json.loads(path.read_text()) | fields
    del value["checksum"]
    path.write_text(json.dumps(value | {"checksum": zlib.crc32(json.dumps(value, sort_keys=True).encode())}))


def test_the_first_start_makes_the_directory_and_later_ones_find_it(tmp_path: Path) -> None:
    directory = start(tmp_path / "data")
    assert (directory / "shard").exists()
    assert start_again(tmp_path / "data") == directory


def test_workers_that_start_at_once_agree_on_one_manifest(tmp_path: Path) -> None:
    starts = [threading.Thread(target=start, args=(tmp_path / "data", worker, 4)) for worker in (1, 2, 3, 4)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join(30)
        assert not thread.is_alive()
    for worker in (1, 2, 3, 4):
        start_again(tmp_path / "data", worker, 4)


def test_another_pool_size_is_refused_and_the_error_says_what_to_set(data: Path) -> None:
    with pytest.raises(SettingsError, match="TODOMQ_DATABASE_WORKERS=2"):
        start_again(data, pool_size=3)
    start_again(data)


def test_a_missing_manifest_beside_shards_is_refused(data: Path) -> None:
    (data / "manifest").unlink()
    with pytest.raises(CorruptRecord, match="manifest is missing though worker-1, worker-2"):
        start_again(data)


def test_a_missing_directory_is_refused_and_the_other_worker_goes_on(data: Path) -> None:
    shutil.rmtree(data / "worker-1")
    with pytest.raises(CorruptRecord, match=r"worker-1 is missing"):
        start_again(data)
    start_again(data, worker=2)


def test_a_file_in_place_of_the_directory_is_refused(data: Path) -> None:
    shutil.rmtree(data / "worker-1")
    (data / "worker-1").touch()
    with pytest.raises(CorruptRecord, match=r"worker-1"):
        start_again(data)


def test_directories_that_changed_places_are_refused(data: Path) -> None:
    (data / "worker-1").rename(data / "x")
    (data / "worker-2").rename(data / "worker-1")
    (data / "x").rename(data / "worker-2")
    with pytest.raises(CorruptRecord, match="is the shard of worker 2"):
        start_again(data)


def test_a_directory_of_another_stack_is_refused(data: Path, tmp_path: Path) -> None:
    other = start(tmp_path / "other")
    shutil.rmtree(data / "worker-1")
    other.rename(data / "worker-1")
    with pytest.raises(CorruptRecord, match="belongs to another stack"):
        start_again(data)


def test_a_directory_without_identity_is_refused(data: Path) -> None:
    (data / "worker-1" / "identity").unlink()
    with pytest.raises(CorruptRecord, match="not known to be ours"):
        start_again(data)


@pytest.mark.parametrize("file", ["manifest", "worker-1/identity"])
def test_a_newer_format_is_refused_and_both_versions_are_named(data: Path, file: str) -> None:
    change(data / file, format=3)
    with pytest.raises(NewerFormat, match="has format 3 and this version of TodoMQ reads formats 1 to 2"):
        start_again(data)


@pytest.mark.parametrize("file", ["manifest", "worker-1/identity"])
def test_format_1_which_had_no_checksum_is_still_read(data: Path, file: str) -> None:
    value = json.loads((data / file).read_bytes())
    del value["checksum"]
    (data / file).write_text(json.dumps(value | {"format": 1}))
    start_again(data)


@pytest.mark.parametrize("file", ["manifest", "worker-1/identity"])
def test_a_byte_flipped_anywhere_in_a_file_of_ours_is_an_error_that_names_it(data: Path, file: str) -> None:
    whole = (data / file).read_bytes()
    for at in range(len(whole)):
        for mask in (1, 1 << at % 8, 0x20, 0xFF):
            flipped = whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]
            (data / file).write_bytes(flipped)
            with pytest.raises(CorruptRecord, match=file):
                start_again(data)


@pytest.mark.parametrize("file", ["manifest", "worker-1/identity"])
def test_a_damaged_file_is_refused(data: Path, file: str) -> None:
    whole = (data / file).read_bytes()
    for damaged in (b"", whole[:-5], b"[]", b"\xff" + whole, whole.replace(b'"stack"', b'"stuck"')):
        (data / file).write_bytes(damaged)
        with pytest.raises(CorruptRecord, match=file):
            start_again(data)
    (data / file).write_bytes(whole)
    start_again(data)


def test_a_crash_while_the_directory_is_made_leaves_nothing_behind(tmp_path: Path) -> None:
    def crash(directory: Path) -> None:
        (directory / "half").touch()
        raise OSError("the power is gone")

    with pytest.raises(OSError, match="power"):
        shard_directory(tmp_path, 1, 2, crash, note_of(tmp_path))
    directory = start(tmp_path)
    assert not (directory / "half").exists()


def test_a_crash_before_the_manifest_knows_the_directory_keeps_it(data: Path) -> None:
    change(data / "manifest", made=[2])
    (data / "worker-1" / "shard").write_text("acknowledged")
    assert (start_again(data) / "shard").read_text() == "acknowledged"
    shutil.rmtree(data / "worker-1")
    with pytest.raises(CorruptRecord, match="is missing"):
        start_again(data)


@pytest.mark.parametrize("how", ["gone", "empty", "a link to nowhere"])
def test_law_8_data_that_is_gone_is_not_taken_for_a_new_stack(data: Path, how: str) -> None:
    away = data.rename(data.with_name("away"))
    if how == "empty":
        data.mkdir()
    elif how == "a link to nowhere":
        data.symlink_to(data.with_name("nowhere"))
    for _ in range(2):
        with pytest.raises(CorruptRecord, match=str(data)):
            start_again(data)
    assert not list(data.glob("worker-*")) and not (data / "manifest").exists()
    if how == "a link to nowhere":
        data.unlink()
    else:
        shutil.rmtree(data)
    away.rename(data)
    start_again(data)


def test_law_8_the_data_of_another_stack_is_not_taken_for_this_ones(data: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "data"
    start(other)
    data.rename(data.with_name("away"))
    other.rename(data)
    with pytest.raises(CorruptRecord, match="another stack"):
        start_again(data)
    note_of(data).unlink()
    start_again(data)


def test_data_of_before_there_was_a_note_is_noted_when_it_is_used(data: Path) -> None:
    note_of(data).unlink()
    start_again(data)
    shutil.rmtree(data)
    with pytest.raises(CorruptRecord, match="there was some"):
        start_again(data)


def test_law_8_a_damaged_note_is_named(data: Path) -> None:
    note_of(data).write_bytes(b"damaged")
    with pytest.raises(CorruptRecord, match=str(note_of(data))):
        start_again(data)
