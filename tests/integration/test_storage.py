"""One suite over every storage, and what only RocksDB can suffer: damage, a torn tail, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from memory_storage import MemoryStorage
from todomq.backup.verify import verify_shard
from todomq.database_worker.records import epoch_key, packed_number, stored_key
from todomq.database_worker.storage import Page, Storage, StorageFailed, StorageInUse, Write, rocksdb, room
from todomq.database_worker.storage.acknowledged import NOTHING
from todomq.database_worker.storage.live_logs import _needed
from todomq.database_worker.storage.log_files import BLOCK_BYTES, damage_in
from todomq.database_worker.storage.rocksdb import RocksDBStorage
from todomq.errors import UNKNOWN, CorruptRecord
from todomq.protocol.codec import canonical, pack

Open = Callable[[], Storage]


@pytest.fixture(params=["memory", "rocksdb"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens the same shard each time; what is open at the end is closed."""
    opened: list[Storage] = []
    disk: dict[bytes, bytes] = {}
    if request.param == "rocksdb":
        RocksDBStorage.create(tmp_path)

    def open_shard() -> Storage:
        for storage in opened:
            storage.close()
        opened.append(MemoryStorage(disk) if request.param == "memory" else RocksDBStorage(tmp_path))
        return opened[-1]

    yield open_shard
    for storage in opened:
        storage.close()


def test_what_was_applied_is_read_and_still_there_when_opened_again(opens: Open) -> None:
    storage = opens()
    storage.apply([(b"a", b"1"), (b"b", b""), (b"c", b"3"), (b"c", None), (b"\xff\x00", b"x" * 100_000)])
    for _ in range(2):
        assert storage.get(b"a") == b"1"
        assert storage.get(b"b") == b""
        assert storage.get(b"c") is None
        assert storage.get(b"never") is None
        assert storage.get(b"\xff\x00") == b"x" * 100_000
        storage = opens()


def test_the_last_write_of_a_key_in_a_group_wins(opens: Open) -> None:
    storage = opens()
    storage.apply([(b"a", b"1"), (b"a", None), (b"a", b"2")])
    storage.apply([])
    assert storage.get(b"a") == b"2"


def test_a_scan_is_ordered_bounded_by_its_prefix_and_goes_on_where_a_page_ended(opens: Open) -> None:
    storage = opens()
    keys = [b"l" + bytes([n]) for n in (0, 1, 2, 254, 255)]
    storage.apply([(key, b"v" * 10) for key in reversed(keys)])
    storage.apply([(b"k", b"before"), (b"m", b"behind"), (b"l", b"itself"), (b"\xff\xff", b"last"), (b"\xff", b"")])
    found: list[bytes] = []
    after: bytes | None = None
    pages = 0
    while True:
        page = storage.scan(b"l", after, 20)
        found += page.items[::2]
        pages += 1
        after = page.last
        if after is None:
            break
    assert found == [b"l", *keys]
    assert pages > 2
    assert storage.scan(b"\xff", None, 1_000).items == [b"\xff", b"", b"\xff\xff", b"last"]
    assert storage.scan(b"", None, 1_000).items[::2] == [b"k", b"l", *keys, b"m", b"\xff", b"\xff\xff"]
    assert storage.scan(b"none", None, 1_000) == ([], None)


def test_a_page_holds_at_least_one_record(opens: Open) -> None:
    storage = opens()
    storage.apply([(b"a1", b"x" * 1_000), (b"a2", b"y")])
    page = storage.scan(b"a", None, 1)
    assert page.items == [b"a1", b"x" * 1_000]
    assert storage.scan(b"a", page.last, 1) == ([b"a2", b"y"], None)


def test_a_closed_storage_says_so_and_closes_again(opens: Open) -> None:
    storage = opens()
    storage.close()
    storage.close()
    with pytest.raises(StorageFailed):
        storage.apply([(b"a", b"1")])
    with pytest.raises(StorageFailed):
        storage.get(b"a")
    with pytest.raises(StorageFailed):
        storage.scan(b"a", None, 1)


# RocksDB alone

GROUPS = 8


def test_reads_and_writes_of_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    storage.apply([(b"n", b"0"), (b"m", b"0")])
    unequal: list[list[bytes]] = []

    def read() -> None:
        for _ in range(200):
            page = storage.scan(b"", None, 1_000)
            if page.items[1] != page.items[3]:
                unequal.append(page.items)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(100):
        storage.apply([(b"n", b"%d" % number), (b"m", b"%d" % number)])
    for reader in readers:
        reader.join()
    storage.close()
    assert unequal == []


def crashed_image(directory: Path, image: Path, flush_after: int | None = None) -> None:
    """Make in ``image`` what a killed worker leaves: eight acknowledged commits of three records, not closed."""
    directory.mkdir()
    RocksDBStorage.create(directory)
    storage = RocksDBStorage(directory)
    for group in range(GROUPS):
        storage.apply([(b"%d-%d" % (group, n), b"v" * 20) for n in range(3)])
        if group == flush_after:
            assert storage._db is not None
            storage._db.flush()
    shutil.copytree(directory, image)
    storage.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    crashed_image(tmp_path / "living", tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture
def flushed_image(tmp_path: Path) -> Path:
    crashed_image(tmp_path / "living", tmp_path / "image", flush_after=3)
    return tmp_path / "image"


def records_or_error(image: Path, damage: Callable[[Path], None], read_only: bool = False) -> int | str:
    """Return how many records a damaged copy of the image gives, or the error's text."""
    copy = image.with_name("copy")
    shutil.copytree(image, copy)
    try:
        damage(copy / "rocksdb")
        try:
            storage = RocksDBStorage(copy, read_only=read_only)
        except CorruptRecord as error:
            return error.text
        try:
            return len(storage.scan(b"", None, 1 << 30).items) // 2
        except CorruptRecord as error:
            return error.text
        finally:
            storage.close()
    finally:
        shutil.rmtree(copy)


def flip(path: Path, at: int, mask: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def log_of(image: Path) -> Path:
    logs = [path for path in sorted((image / "rocksdb").glob("*.log")) if path.stat().st_size]
    return logs[-1]


def test_a_killed_worker_loses_nothing(image: Path) -> None:
    assert records_or_error(image, lambda path: None) == 3 * GROUPS


def test_a_byte_flipped_anywhere_in_the_tail_of_the_log_is_an_error_and_never_fewer_records(image: Path) -> None:
    log = log_of(image)
    size = log.stat().st_size
    for at in range(size - 2 * size // GROUPS, size):
        for mask in (1 << at % 8, 0xFF):
            found = records_or_error(image, lambda path, at=at, mask=mask: flip(path / log.name, at, mask))  # type: ignore[misc]
            assert isinstance(found, str), f"byte {at} of {size} flipped by {mask}: {found} records and no error"
            assert str(image.with_name("copy")) in found


@pytest.mark.parametrize("kind", [5, 6, 7, 8, 9, 10, 11, 255])
def test_law_8_a_type_that_is_never_written_is_found_before_the_engine_turns_on_it_without_end(
    image: Path, kind: int
) -> None:
    for log in (log_of(image), image / "rocksdb" / (image / "rocksdb" / "CURRENT").read_text().strip()):
        assert damage_in(log) is None
        second = 7 + int.from_bytes(log.read_bytes()[4:6], "little")  # a head is checksum, length and type: 4, 2, 1
        for at in (0, second):
            change = log.read_bytes()[at + 6] ^ kind
            flip(log, at + 6, change)
            assert damage_in(log) == f"a record of no known kind, at byte {at}"
            flip(log, at + 6, change)


def test_law_8_which_log_is_damaged_is_told_at_once_however_long_it_is(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    for group in range(12):
        storage.apply([(b"%d %d" % (group, number), bytes(500)) for number in range(1_000)])
    image = tmp_path / "image"
    shutil.copytree(tmp_path, image, ignore=shutil.ignore_patterns("image"))
    storage.close()
    log = log_of(image)
    flip(log, log.stat().st_size - 1_000, 1)
    began_s = time.process_time()
    with pytest.raises(CorruptRecord, match=rf"{log.name} is damaged"):
        RocksDBStorage(image)
    assert time.process_time() - began_s < 0.5
    with pytest.raises(CorruptRecord, match=rf"{log.name} is damaged at byte"):  # a verification has the time
        RocksDBStorage(image, read_only=True, untouched=True)


def test_a_flipped_bit_in_a_record_length_is_told_from_a_torn_write(image: Path) -> None:
    log = log_of(image)
    size = log.stat().st_size
    for record in (0, size // GROUPS * (GROUPS - 1)):
        for bit in range(16):
            at, mask = record + 4 + bit // 8, 1 << bit % 8
            found = records_or_error(image, lambda path, at=at, mask=mask: flip(path / log.name, at, mask))  # type: ignore[misc]
            assert isinstance(found, str), (record, bit, found)


def test_zeroes_in_the_log_are_an_error(image: Path) -> None:
    log = log_of(image)

    def wipe(path: Path) -> None:
        with open(path / log.name, "r+b") as file:
            file.seek(200)
            file.write(bytes(150))

    assert isinstance(records_or_error(image, wipe), str)


def test_a_torn_write_that_was_never_acknowledged_opens_by_itself(image: Path) -> None:
    log = log_of(image)
    whole = log.read_bytes()
    one = whole[-(len(whole) // GROUPS) :]
    for length in (1, 6, 7, 8, len(one) // 2, len(one) - 1):
        torn = one[:length]

        def tear(path: Path, torn: bytes = torn) -> None:
            with open(path / log.name, "ab") as file:
                file.write(torn)

        assert records_or_error(image, tear) == 3 * GROUPS, length


@pytest.mark.parametrize("lost", [1, 20, 97, 98, 300, 700])
def test_a_log_that_lost_acknowledged_records_at_its_end_is_an_error(image: Path, lost: int) -> None:
    log = log_of(image)
    size = log.stat().st_size

    def cut(path: Path) -> None:
        os.truncate(path / log.name, size - lost)

    def wipe(path: Path) -> None:
        cut(path)
        os.truncate(path / log.name, size)

    assert "were acknowledged" in str(records_or_error(image, cut))
    assert isinstance(records_or_error(image, wipe), str)


WRITTEN_QUICKLY_AND_KILLED = """
import os, sys
from pathlib import Path
from todomq.database_worker.storage.rocksdb import RocksDBStorage
storage, directory = RocksDBStorage(Path(sys.argv[1])), Path(sys.argv[1], "rocksdb")
for number in range(200):
    storage.apply([(b"%d %d" % (number, place), os.urandom(900_000)) for place in range(10)])
    storage.apply([(b"%d" % number, b"small")])
    if len(list(directory.glob("*.log"))) > 1:
        break
os.kill(os.getpid(), 9)
"""


def needs_two_logs(shard: Path) -> bool:
    """Tell whether a shard needs an earlier log than its last: without it records are lost."""
    logs = sorted((shard / "rocksdb").glob("*.log"))
    (named,) = (shard / "rocksdb").glob("MANIFEST-*")
    return len(logs) > 1 and logs[-1].stat().st_size > 0 and int(logs[-2].stem) >= _needed(named).log


@pytest.fixture
def image_of_two_logs(tmp_path: Path) -> Path:
    """Return a shard that was killed before what one log holds was in a table, while the next one was written."""
    for number in range(20):
        shard = tmp_path / str(number)
        shard.mkdir()
        RocksDBStorage.create(shard)
        subprocess.run([sys.executable, "-c", WRITTEN_QUICKLY_AND_KILLED, str(shard)], check=False, timeout=60)
        if needs_two_logs(shard):
            return shard
    pytest.fail("each table was written before the kill")


@pytest.mark.parametrize("read_only", [False, True])
def test_an_earlier_log_that_lost_records_is_an_error_though_the_last_one_is_whole(
    image_of_two_logs: Path, read_only: bool
) -> None:
    logs = sorted((image_of_two_logs / "rocksdb").glob("*.log"))
    kept = records_or_error(image_of_two_logs, lambda path: None, read_only)
    assert isinstance(kept, int)
    for log in logs:
        size = log.stat().st_size
        damages: list[Callable[[Path], None]] = [Path.unlink]
        for left in (0, 7, size // 2, size - 100_000, size - 1):
            damages.append(lambda path, left=left: os.truncate(path, max(0, left)))  # type: ignore[misc]
        for number, damage in enumerate(damages):
            found = records_or_error(
                image_of_two_logs, lambda path, log=log, damage=damage: damage(path / log.name), read_only  # type: ignore[misc]
            )  # fmt: skip
            assert isinstance(found, str) or found == kept, (log.name, number, found, kept)
            assert isinstance(found, str) or log != logs[-2], (log.name, number)


def test_a_shard_of_two_logs_that_was_opened_and_killed_again_has_everything(image_of_two_logs: Path) -> None:
    before = records_or_error(image_of_two_logs, lambda path: None)
    for life in range(1, 4):  # each begins with tables made of the logs of the one before, and a log of its own
        subprocess.run([sys.executable, "-c", WRITTEN_AND_KILLED, str(image_of_two_logs)], check=False, timeout=60)
        for read_only in (False, True):
            assert records_or_error(image_of_two_logs, lambda path: None, read_only) == int(before) + 1, life


def test_zeroes_behind_the_last_acknowledged_record_are_a_torn_write(image: Path) -> None:
    log = log_of(image)
    assert records_or_error(image, lambda path: os.truncate(path / log.name, log.stat().st_size + 500)) == 3 * GROUPS


def test_a_flip_or_a_cut_in_the_manifest_is_never_fewer_records(flushed_image: Path) -> None:
    name = (flushed_image / "rocksdb" / "CURRENT").read_text().strip()
    size = (flushed_image / "rocksdb" / name).stat().st_size
    for at in range(size):
        found = records_or_error(flushed_image, lambda path, at=at: flip(path / name, at, 0x40))  # type: ignore[misc]
        assert isinstance(found, str) or found == 3 * GROUPS, f"byte {at} of {size}: {found}"
    for cut in range(0, size, 7):
        found = records_or_error(flushed_image, lambda path, cut=cut: os.truncate(path / name, cut))  # type: ignore[misc]
        assert isinstance(found, str), f"cut to {cut} of {size}: {found}"


def test_a_flip_in_a_table_is_an_error_or_changes_nothing(flushed_image: Path) -> None:
    (table,) = (flushed_image / "rocksdb").glob("*.sst")
    for at in range(0, table.stat().st_size, 5):
        found = records_or_error(flushed_image, lambda path, at=at: flip(path / table.name, at, 0x40))  # type: ignore[misc]
        assert isinstance(found, str) or found == 3 * GROUPS, f"byte {at}: {found}"


def test_any_file_removed_or_emptied_is_never_fewer_records(flushed_image: Path) -> None:
    for file in sorted((flushed_image / "rocksdb").iterdir()):
        for damage in (Path.unlink, lambda path: os.truncate(path, 0)):
            found = records_or_error(flushed_image, lambda path, file=file, damage=damage: damage(path / file.name))  # type: ignore[misc]
            assert isinstance(found, str) or found == 3 * GROUPS, (file.name, found)


def test_the_file_that_says_what_was_acknowledged_must_be_there_and_whole(image: Path) -> None:
    def on_mark(damage: Callable[[Path], None]) -> int | str:
        return records_or_error(image, lambda path: damage(path.parent / "acknowledged"))

    assert "acknowledged" in str(on_mark(Path.unlink))
    assert "acknowledged" in str(on_mark(lambda path: flip(path, 3, 1)))
    assert "acknowledged" in str(on_mark(lambda path: os.truncate(path, 5)))


def test_a_missing_shard_is_not_made_anew(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    shutil.rmtree(tmp_path / "rocksdb")
    with pytest.raises(CorruptRecord, match="rocksdb"):
        RocksDBStorage(tmp_path)
    with pytest.raises(CorruptRecord):
        RocksDBStorage(tmp_path / "nowhere")


def test_a_framing_walk_sees_through_whole_blocks(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    for _ in range(20):
        storage.apply([(os.urandom(8), b"v" * 9_000)])
    log = sorted((tmp_path / "rocksdb").glob("*.log"))[-1]
    assert log.stat().st_size > 4 * BLOCK_BYTES
    assert damage_in(log) is None
    with open(log, "r+b") as file:
        file.seek(2 * BLOCK_BYTES)
        file.write(bytes(512))
    assert "zeroes" in str(damage_in(log))
    storage.close()


def test_a_flip_in_any_file_of_a_shard_is_an_error_or_changes_nothing(flushed_image: Path) -> None:
    seen = 0
    for file in sorted(path for path in flushed_image.rglob("*") if path.is_file()):
        if file.suffix in (".sst", ".log") or file.name.startswith(("MANIFEST", "LOG", "LOCK")):
            continue  # tried above; or nothing is read from it
        size = file.stat().st_size
        for at in range(0, size, max(1, size // 10)):
            name = file.relative_to(flushed_image)
            found = records_or_error(flushed_image, lambda path, at=at, name=name: flip(path.parent / name, at, 0x10))  # type: ignore[misc]
            assert isinstance(found, str) or found == 3 * GROUPS, f"{name}, byte {at}: {found}"
            seen += 1
    assert seen > 40


def make_mark_lag(image: Path) -> None:
    """Leave of the mark what a power cut may: an older one, here the very first."""
    (image / "acknowledged").write_bytes(NOTHING.packed())


def test_after_a_power_cut_a_flipped_byte_in_the_log_is_an_error_though_the_mark_lags(image: Path) -> None:
    log = log_of(image)
    make_mark_lag(image)
    size = log.stat().st_size
    for at in range(size - size // GROUPS, size):
        mask = 1 << at % 8
        found = records_or_error(image, lambda path, at=at, mask=mask: flip(path / log.name, at, mask))  # type: ignore[misc]
        assert isinstance(found, str), f"byte {at} of {size} flipped by {mask}: {found} records and no error"


def test_the_mark_is_synced_when_there_is_something_new_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    storage.tend()
    storage.tend()
    assert len(synced) == 1
    storage.apply([(b"a", b"1")])
    storage.tend()
    storage.tend()
    assert len(synced) == 2
    storage.close()
    storage.tend()
    assert len(synced) == 2


def test_a_shard_opened_for_reading_only_has_everything_and_changes_no_file_that_counts(image: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in image.rglob("*") if path.is_file() and not path.name.startswith("LOG"))
        return {str(path): path.read_bytes() for path in files}

    before = contents()
    storage = RocksDBStorage(image, read_only=True)
    assert len(storage.scan(b"", None, 1 << 20).items) // 2 == 3 * GROUPS
    with pytest.raises(StorageFailed):
        storage.apply([(b"a", b"1")])
    storage.close()
    assert contents() == before


def test_a_verified_shard_counts_every_kind_in_one_order_what_there_is_not_with_0(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    storage.apply([(epoch_key(0), packed_number(1)), (stored_key(canonical(["k"])), pack("v"))])
    storage.close()
    report = verify_shard(tmp_path, 1, None, None, lambda step, size: lambda done: None)
    expected = {"lists": 0, "deleted": 0, "entries": 0, "sessions": 0, "values": 1}
    assert list(report.counts.items()) == list(expected.items()) and not report.problems


def test_a_checkpoint_is_a_shard_of_its_own_with_all_that_was_applied_and_atomic(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    stop = threading.Event()
    applied = 0

    def write() -> None:
        nonlocal applied
        while not stop.is_set():
            storage.apply([(b"a", b"%d" % (applied + 1)), (b"b", b"%d" % (applied + 1))])
            applied += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            seen = applied
            storage.checkpoint(tmp_path / "copies" / str(number))
            copy = RocksDBStorage(tmp_path / "copies" / str(number))
            found = [copy.get(b"a"), copy.get(b"b")]
            copy.close()
            assert found[0] == found[1] and int(found[0] or b"0") >= seen
    finally:
        stop.set()
        writer.join()
    with pytest.raises(StorageFailed, match="no checkpoint was made"):
        storage.checkpoint(tmp_path / "copies" / "1")
    storage.close()


WRITTEN_AND_KILLED = """
import os, sys
from pathlib import Path
from todomq.database_worker.storage.rocksdb import RocksDBStorage
RocksDBStorage(Path(sys.argv[1])).apply([(b"a", b"1")])
os.kill(os.getpid(), 9)
"""


def test_law_8_a_checkpoint_of_what_is_open_for_reading_only_holds_what_lies_in_the_log(tmp_path: Path) -> None:
    shard, copy = tmp_path / "shard", tmp_path / "copy"
    shard.mkdir()
    RocksDBStorage.create(shard)
    written = subprocess.run([sys.executable, "-c", WRITTEN_AND_KILLED, str(shard)], timeout=60, check=False)
    assert written.returncode == -signal.SIGKILL
    storage = RocksDBStorage(shard, read_only=True)
    storage.checkpoint(copy)
    storage.close()
    for directory in (copy, shard):  # and what is written to one is not in the other
        opened = RocksDBStorage(directory)
        assert opened.get(b"a") == b"1" and opened.get(b"b") is None
        opened.apply([(b"b", b"2")])
        opened.close()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RocksDBStorage]:
    """Return a new shard in the test's directory, closed at the end."""
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path)
    yield storage
    storage.close()


def test_a_checkpoint_for_which_there_is_no_room_is_refused_and_leaves_the_shard_open(
    storage: RocksDBStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.apply([(b"a", b"1")])
    monkeypatch.setattr(room, "_free_bytes", lambda directory: 1 << 20)
    with pytest.raises(StorageFailed, match=r"the disk is full: 1\.0 MiB are left .* to copy the shard") as refusal:
        storage.checkpoint(tmp_path / "copy")
    assert not refusal.value.retryable
    storage.apply([(b"a", b"2")])
    assert storage.get(b"a") == b"2"


def test_a_shard_for_which_there_is_no_room_is_refused_before_its_logs_are_read(
    storage: RocksDBStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.apply([(b"a", b"1")])
    storage.close()
    looks: list[Path] = []
    monkeypatch.setattr(rocksdb, "damage_in", lambda path, acknowledged_bytes: looks.append(path))
    with monkeypatch.context() as full:
        full.setattr(room, "_free_bytes", lambda directory: 1 << 10)
        with pytest.raises(StorageFailed, match=r"the disk is full: .* to take changes again") as refusal:
            RocksDBStorage(tmp_path)
    assert refusal.value.retryable and not looks
    RocksDBStorage(tmp_path).close()
    assert looks


@pytest.mark.usefixtures("storage")
def test_law_1_what_another_has_open_is_not_opened_and_not_read_beside_it(tmp_path: Path) -> None:
    with pytest.raises(StorageInUse):
        RocksDBStorage(tmp_path)


def test_laws_1_and_8_a_directory_that_is_moved_away_and_replaced_takes_no_more_changes(tmp_path: Path) -> None:
    shard, aside = tmp_path / "shard", tmp_path / "aside"
    shard.mkdir()
    RocksDBStorage.create(shard)
    storage = RocksDBStorage(shard)
    storage.apply([(b"a", b"1")])
    shard.rename(aside)
    shutil.copytree(aside, shard)
    with pytest.raises(StorageFailed, match="was replaced while it was open") as failure:
        storage.apply([(b"a", b"2")])
    assert failure.value.outcome == UNKNOWN
    storage.close()
    storage = RocksDBStorage(shard)
    assert storage.get(b"a") in (b"1", b"2")
    storage.close()


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "killed a second later"])
def test_law_8_an_older_copy_of_a_shard_is_not_taken_for_all_there_was(tmp_path: Path, is_closed: bool) -> None:
    shard, older, newer = tmp_path / "worker-1", tmp_path / "older", tmp_path / "newer"
    shard.mkdir()
    RocksDBStorage.create(shard)
    storage = RocksDBStorage(shard)
    storage.apply([(b"a", b"1")])
    storage.close()
    shutil.copytree(shard, older)
    storage = RocksDBStorage(shard)
    storage.apply([(b"b", b"2")])
    storage.close() if is_closed else storage.tend()
    copy = tmp_path / "acknowledged.worker-1"
    whole = copy.read_bytes()
    shutil.copytree(shard, newer)
    storage.close()
    copy.write_bytes(whole)
    shutil.rmtree(shard)
    shutil.copytree(older, shard)
    for read_only in (False, True):
        with pytest.raises(CorruptRecord, match=r"worker-1 is an older copy: .* by .*acknowledged\.worker-1; put back"):
            RocksDBStorage(shard, read_only=read_only)
    copy.write_bytes(whole[:-1])
    with pytest.raises(CorruptRecord, match=r"acknowledged\.worker-1 is damaged; where .*worker-1 is whole, remove it"):
        RocksDBStorage(shard)
    copy.write_bytes(whole)
    shutil.rmtree(shard)
    newer.rename(shard)
    storage = RocksDBStorage(shard)
    assert (storage.get(b"a"), storage.get(b"b")) == (b"1", b"2")
    storage.close()
    shutil.rmtree(shard)
    shutil.copytree(older, shard)
    copy.unlink()
    storage = RocksDBStorage(shard)
    assert (storage.get(b"a"), storage.get(b"b")) == (b"1", None), "it is meant"
    storage.close()


def test_law_8_a_record_that_the_disk_cannot_read_is_damaged_and_no_other(
    storage: RocksDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = rocksdb._page

    def failing(db: Any, bounds: Any, start: bytes, limit_bytes: int) -> Page:
        if start.startswith(b"bad"):
            raise Exception("IO error: While pread offset 0 len 4096: 000012.sst: Input/output error")
        return page(db, bounds, start, limit_bytes)

    monkeypatch.setattr(rocksdb, "_page", failing)
    with pytest.raises(CorruptRecord, match=r"000012\.sst: Input/output error"):
        storage.scan(b"bad", None, 100)
    assert storage.scan(b"good", None, 100).items == []


@pytest.mark.parametrize("name", ["acknowledged", "rocksdb/CURRENT"])
def test_law_8_a_file_that_may_not_be_read_is_not_told_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    RocksDBStorage.create(tmp_path)
    opened = os.open

    def forbidden(path: object, *rest: int, **named: int) -> int:
        if str(path) == str(tmp_path / name):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", forbidden)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: os.fdopen(forbidden(path, os.O_RDONLY)).read())
    with pytest.raises((StorageFailed, OSError), match="Permission denied"):
        RocksDBStorage(tmp_path)


def test_damage_that_the_engine_meets_while_it_tidies_up_ends_the_writing_with_the_file_named(
    flushed_image: Path,
) -> None:
    (table,) = (flushed_image / "rocksdb").glob("*.sst")
    flip(table, 12, 0x40)
    storage = RocksDBStorage(flushed_image)
    assert storage._db is not None
    damage = None
    give_up = time.monotonic() + 20
    while damage is None:  # enough tables over the damaged one make the engine put them into one
        assert time.monotonic() < give_up
        try:
            storage.apply([(b"0-0", b"over"), (b"3-2", b"over")])
        except CorruptRecord as error:
            damage = error
        with suppress(Exception):  # the damage may show here first, and in the next apply then
            storage._db.flush()
    assert table.name in damage.text and damage.outcome == "unknown"
    assert "restore this worker's shard" in damage.text and "nothing was changed" not in damage.text
    storage.close()


def test_lack_of_room_is_told_with_figures_before_anything_is_written(tmp_path: Path) -> None:
    RocksDBStorage.create(tmp_path)
    storage = RocksDBStorage(tmp_path, 1 << 60)
    assert "TODOMQ_RESERVE_BYTES" in storage.lack_of_room() and str(tmp_path) in storage.lack_of_room()
    storage.close()
    storage = RocksDBStorage(tmp_path, 0)
    assert storage.lack_of_room() == ""
    storage.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from todomq.database_worker.storage import StorageFailed
from todomq.database_worker.storage.rocksdb import RocksDBStorage

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
directory = Path(sys.argv[1])
RocksDBStorage.create(directory)
storage = RocksDBStorage(directory)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        storage.apply([(b"%08d" % written, b"v" * 1000)])
        written += 1
except StorageFailed as error:
    assert error.outcome == "unknown", error.outcome
try:
    storage.get(b"00000000")
    sys.exit("a failed storage must not be read: what it holds may not be on disk")
except StorageFailed:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
storage.close()
storage = RocksDBStorage(directory)
assert written > 50, written
assert all(storage.get(b"%08d" % number) == b"v" * 1000 for number in range(written))
storage.apply([(b"again", b"works")])
storage.close()
"""


def test_a_full_disk_fails_the_write_and_opening_again_has_everything_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_failing_memory_storage_has_written_all_or_nothing() -> None:
    for when, expected in (("before", None), ("after", b"1")):
        disk: dict[bytes, bytes] = {}
        storage = MemoryStorage(disk)
        storage.fail_next = when
        write: Write = (b"a", b"1")
        with pytest.raises(StorageFailed):
            storage.apply([write])
        with pytest.raises(StorageFailed):
            storage.get(b"a")
        assert MemoryStorage(disk).get(b"a") == expected
