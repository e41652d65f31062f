"""The directory of lists, whole and narrowed to what a key may read, against a naive one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_storage import MemoryStorage
from todomq.errors import InvalidRequest
from todomq.keys.rights import READ, Rights
from todomq.list_server import records
from todomq.list_server.listing import listing_of
from todomq.list_server.records import ListRecord, pack_list
from todomq.protocol import limits
from todomq.protocol.codec import pack, unpack

NAMES = st.text(st.sampled_from("ab/\U0001f600"), min_size=1, max_size=4)
PATTERNS = st.builds(lambda name, star: name + star, NAMES, st.sampled_from(["", "*"])) | st.just("*")
PAGE = 2


def read_all(names: set[str], ask: Any) -> tuple[list[str], list[Any]]:
    """Page through a listing over three workers whose pages hold ``PAGE`` names; return names and places to go on."""
    workers = [sorted(records.list_key(name) for name in names if len(name.encode()) % 3 == n) for n in range(3)]
    found: list[str] = []
    places: list[Any] = []
    after: Any = None
    for _ in range(500):
        operation, arguments = ask(after)
        listing = listing_of(operation, arguments, 3)
        if listing is None:
            assert after is None
            return [], []
        assert listing.goes_on == (after is not None)
        for keys in workers:
            page = [key for key in keys if key.startswith(listing.prefix) and key > (listing.after or b"")]
            pairs = [part for key in page[:PAGE] for part in (key, pack_list(ListRecord()))]
            listing.take(pairs, page[PAGE - 1] if len(page) > PAGE else None)
        more, after = unpack(pack(listing.page()))
        found += more
        if after is None:
            return found, places
        places.append(after)
    pytest.fail("the listing does not end")


@given(st.sets(NAMES, max_size=30), NAMES | st.just(""))
def test_the_whole_directory_is_read_in_order(names: set[str], prefix: str) -> None:
    found, _ = read_all(names, lambda after: ("list_names", [prefix, after]))
    assert found == sorted((name for name in names if name.startswith(prefix)), key=str.encode)


@pytest.mark.parametrize("workers", [5, 64])
def test_a_page_of_names_is_of_one_size_however_many_workers_there_are(workers: int) -> None:
    names = [f"{n:06}" + "x" * (limits.LIST_NAME_BYTES - 6) for n in range(8_000)]
    shards = [MemoryStorage({}) for _ in range(workers)]
    for n, name in enumerate(names):
        shards[n * 31 % 997 % workers].apply([(records.list_key(name), pack_list(ListRecord()))])
    found: list[str] = []
    after: Any = None
    for _ in range(200):
        listing = listing_of("list_names", ["", after], workers)
        assert listing is not None
        for shard in shards:
            listing.take(*shard.scan(listing.prefix, listing.after, listing.bytes_each))
        more, after = listing.page()
        assert more, "each page gets on"
        assert len(pack(more)) <= limits.PAGE_BYTES + workers * 300
        found += more
        if after is None:
            break
    assert found == names


@settings(max_examples=300)
@given(st.sets(NAMES, max_size=30), st.lists(PATTERNS, max_size=5), NAMES | st.just(""))
def test_a_key_is_shown_all_that_it_may_read_in_order_and_no_trace_of_the_rest(
    names: set[str], patterns: list[str], prefix: str
) -> None:
    rights = Rights([READ], patterns)
    found, places = read_all(
        names, lambda after: ("list_names_within", [patterns, pack(["list_names", prefix, after])])
    )
    allowed = {name for name in names if rights.covers(name.encode()) and name.startswith(prefix)}
    assert found == sorted(allowed, key=str.encode)
    for start, name in places:
        assert name is None or rights.covers(name.encode())
        assert start == prefix or start in patterns or f"{start}*" in patterns


def test_no_name_begins_with_more_than_a_name_has_and_none_goes_on_behind_it() -> None:
    longest = "é" * (limits.LIST_NAME_BYTES // 2)
    for prefix, is_one in ((longest, True), (longest + "é", False)):
        assert (listing_of("list_names", [prefix, None], 3) is not None) is is_one
        asked = pack(["list_names", prefix, None])
        assert (listing_of("list_names_within", [["*"], asked], 3) is not None) is is_one
    with pytest.raises(InvalidRequest, match="at most 255 bytes"):
        listing_of("list_names", ["", longest + "é"], 3)
    with pytest.raises(InvalidRequest, match="at most 255 bytes"):
        listing_of("list_names_within", [["*"], pack(["list_names", "", ["", longest + "é"]])], 3)


@pytest.mark.parametrize("place", ["b", ["b", None], ["a", "b"], ["a", 1], [1, None], [], 7, {"a": 1}])
def test_no_place_to_go_on_leads_out_of_the_patterns(place: Any) -> None:
    with pytest.raises(InvalidRequest):
        listing_of("list_names_within", [["a*"], pack(["list_names", "", place])], 3)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("fly", []), ("list_names", []), ("list_names", [1, None]), ("list_names", ["", 1]),
     ("list_names_within", []), ("list_names_within", [[1], b""]), ("list_names_within", [["a"], pack(["fly"])])],
)  # fmt: skip
def test_other_questions_are_refused(operation: str, arguments: list[Any]) -> None:
    with pytest.raises(InvalidRequest):
        listing_of(operation, arguments, 3)
