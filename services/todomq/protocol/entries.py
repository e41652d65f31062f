"""What an entry and a list's name may be: callers' words on them are checked here before anything changes (law 7).

Owns: the rules for names of lists, titles, dates, ``extra`` and sizes; the numbers are in ``protocol/limits.py``.
Must not know: lists, storage, sockets. ``list_server/operations.py`` checks requests with it; the client and the
command line check before they send.
Each check raises ``InvalidRequest`` with a text that says what was wrong and the limit, and returns the value typed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from todomq.errors import InvalidRequest
from todomq.protocol import limits
from todomq.protocol.codec import check_plain, pack

NO_FIELDS: dict[str, Any] = {}
"""The ``extra`` of every entry without open fields: one for all, so nobody may change it."""
NOT_UNICODE = "title: a text of valid Unicode is needed"


def check_list_name(name: Any) -> str:
    """Check a list's name: 1 to 255 bytes of UTF-8, any characters."""
    try:
        length = len(str.encode(name))
    except TypeError:
        raise InvalidRequest(f"list name: a text is needed, not {_shown(name)}") from None
    except UnicodeEncodeError:
        raise InvalidRequest("list name: a text of valid Unicode is needed") from None
    if not 1 <= length <= limits.LIST_NAME_BYTES:
        raise InvalidRequest(f"list name: {length} bytes of UTF-8 where 1 to {limits.LIST_NAME_BYTES} are allowed")
    return str.__str__(name)  # of a subclass, which could not be packed, the text itself


def check_id(identifier: Any) -> int:
    """Check an entry's id: an integer from 1, below 2**63."""
    if type(identifier) is not int or identifier < 1:
        raise InvalidRequest(f"id: an integer from 1 is needed, not {_shown(identifier)}")
    if identifier >= 1 << 63:
        raise InvalidRequest("id: an integer below 2**63 is needed")
    return identifier


def check_title(title: Any) -> str:
    """Check a title: 1 to 10,000 characters, any characters."""
    if not isinstance(title, str):
        raise InvalidRequest(f"title: a text is needed, not {_shown(title)}")
    if not 1 <= len(title) <= limits.TITLE_CHARACTERS:
        raise InvalidRequest(f"title: {len(title)} characters where 1 to {limits.TITLE_CHARACTERS} are allowed")
    return title if type(title) is str else str.__str__(title)  # a subclass could not be packed


def are_titles(titles: Sequence[Any]) -> bool:
    """Tell whether all of these titles (at least one) are valid; checking a whole column costs little."""
    if set(map(type, titles)) != {str}:
        return False
    lengths = list(map(len, titles))
    return min(lengths) > 0 and max(lengths) <= limits.TITLE_CHARACTERS


def check_date(text: Any) -> str | None:
    """Check a date: a day of the calendar as ``YYYY-MM-DD``, or None for an entry without a date."""
    if text is None:
        return None
    if type(text) is not str or not is_date(text):
        raise InvalidRequest(f"date: a calendar date YYYY-MM-DD or none is needed, not {_shown(text)}")
    return text


def is_date(text: str) -> bool:
    """Tell whether a text is a day of the calendar written exactly ``YYYY-MM-DD``."""
    return len(text) == 10 and _is_day(text)


@lru_cache(maxsize=4096)
def _is_day(text: str) -> bool:
    try:
        # fromisoformat also takes week dates; only the form YYYY-MM-DD comes back unchanged.
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def check_done(done: Any) -> bool:
    """Check whether an entry is done: true or false, nothing that merely counts as one."""
    if type(done) is not bool:
        raise InvalidRequest(f"done: true or false is needed, not {_shown(done)}")
    return done


def check_extra(extra: Any) -> dict[str, Any]:
    """Check the open fields: a map from text to plain values, nested at most 16 deep; None is an empty one."""
    if extra is None:
        return NO_FIELDS
    if type(extra) is not dict:
        raise InvalidRequest(f"extra: a map or none is needed, not {_shown(extra)}")
    for key in extra:
        if type(key) is not str:
            raise InvalidRequest(f"extra: its keys are texts, not {_shown(key)}")
    check_plain(extra, what="extra")
    return extra


def check_entry_size(title: str, date: str | None, done: bool, extra: dict[str, Any]) -> None:
    """Check that an entry whose fields are each valid fits into 64 KiB packed."""
    if not extra:
        return  # the longest title alone has 40,000 bytes
    try:
        size = len(pack((title, date, done, extra)))
    except UnicodeEncodeError:  # in the title: the texts in ``extra`` were checked before
        raise InvalidRequest(NOT_UNICODE) from None
    if size > limits.ENTRY_BYTES:
        raise InvalidRequest(f"entry: {size} bytes packed where at most {limits.ENTRY_BYTES} are allowed")


def check_new_entry(
    title: Any, date: Any = None, extra: Any = None, done: Any = False
) -> tuple[str, str | None, dict[str, Any], bool]:
    """Check all that a caller says about an entry to add.

    Returns:
        ``(title, date, extra, done)``, as ``TodoList.add`` takes them.
    """
    if type(title) is str and 0 < len(title) <= limits.TITLE_CHARACTERS and date is extra is None and done is False:
        return title, None, NO_FIELDS, False  # what most are
    checked = check_title(title), check_date(date), check_extra(extra), check_done(done)
    check_entry_size(checked[0], checked[1], checked[3], checked[2])
    return checked


CHANGEABLE: dict[str, Callable[[Any], Any]] = {
    "title": check_title,
    "date": check_date,
    "done": check_done,
    "extra": check_extra,
}
"""The fields of an entry that an update may change, and the check of each."""


def check_changes(changes: Any) -> dict[str, Any]:
    """Check the fields of an update, each by itself; ``TodoList.update`` checks the size of the changed entry.

    Args:
        changes: a map from ``title``, ``date``, ``done``, ``extra`` (those left out stay) to their new values.

    Returns:
        the values by field, as an entry holds them.
    """
    if type(changes) is not dict:
        raise InvalidRequest(f"changes: a map is needed, not {_shown(changes)}")
    for field in changes:
        if field not in CHANGEABLE:
            raise InvalidRequest(f"changes: an entry has {', '.join(CHANGEABLE)} to change, not {_shown(field)}")
    return {field: CHANGEABLE[field](value) for field, value in changes.items()}


def _shown(value: Any) -> str:
    """Return a short form of a caller's value for an error text: only its type, if the value may be long."""
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if type(value) is str and len(value) <= 32:
        return ascii(value)
    return type(value).__name__
