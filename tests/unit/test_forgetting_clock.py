"""The clock by which what is remembered is forgotten: late for a while where the wall clock was set forward."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from todomq.protocol.forgetting_clock import ForgettingClock
from todomq.protocol.limits import REMEMBERED_MS

WALL_MS, STEADY_MS = 1_800_000_000_000, 5_000
HOUR_MS = 3_600_000

looks = st.lists(st.tuples(st.integers(1, 2 * REMEMBERED_MS), st.integers(-HOUR_MS, HOUR_MS)), max_size=30)


@given(looks)
@example([(50, HOUR_MS)] + [(60_000, 0)] * 21)
@example([(50, -HOUR_MS), (300_000, HOUR_MS), (300_000, 0), (299_000, 0)])
def test_law_3_it_shows_the_lowest_setting_of_ten_to_twenty_minutes(steps: list[tuple[int, int]]) -> None:
    """Each step is how much time passes until the next look, and by how much the wall clock is set meanwhile."""
    clock, passed_ms, set_by_ms = ForgettingClock(), 0, 0
    seen = [(0, 0)]
    clock.tick(WALL_MS, STEADY_MS)
    for pass_ms, set_ms in steps:
        passed_ms += pass_ms
        set_by_ms += set_ms
        seen.append((passed_ms, set_by_ms))
        clock.tick(WALL_MS + passed_ms + set_by_ms, STEADY_MS + passed_ms)
        shown_ms = clock.ms(0) - WALL_MS - passed_ms
        # A setting holds until the next look: it was the clock's for some of the time if that came within it.
        settings = [(until, setting) for (_, setting), (until, _) in pairwise([*seen, (passed_ms, 0)])]
        assert shown_ms <= min(setting for until, setting in settings if until > passed_ms - REMEMBERED_MS)
        since_ms = passed_ms - 2 * REMEMBERED_MS - max(pass_ms for pass_ms, _ in steps)
        assert shown_ms >= min(setting for until, setting in settings if until >= since_ms)


def test_it_is_the_wall_clock_before_the_first_look() -> None:
    assert ForgettingClock().ms(WALL_MS) == WALL_MS
