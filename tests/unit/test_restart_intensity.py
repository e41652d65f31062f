"""Restart intensity, the event stream, the watch on the registry, the limits: no sockets, no clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todomq.daemons import GROUPS
from todomq.errors import CorruptRecord, ProtocolError
from todomq.settings import SettingsError, read_settings
from todomq.supervision import evidence, run_files
from todomq.supervision.answer_watch import STARTING_MS, AnswerWatch
from todomq.supervision.events import SHUTDOWN, Event, EventReader
from todomq.supervision.limits import read_limits
from todomq.supervision.restart_intensity import (
    EAGER_MS,
    EAGER_TICK_MS,
    PATIENT_TICK_MS,
    GiveUp,
    Limit,
    RestartIntensity,
    Wake,
)

FIVE_IN_FIVE = dict.fromkeys(GROUPS, Limit(5, 5_000))


def died(intensity: RestartIntensity, at_ms: int, process: str = "cache", group: str = "cache") -> bool:
    """Let a process die; tell whether that made the stack give up."""
    effects = intensity.exited(process, group, "terminated by SIGKILL", at_ms)
    return any(isinstance(effect, GiveUp) for effect in effects)


def test_a_death_within_the_limit_wakes_the_process_manager_and_is_counted() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)

    assert intensity.exited("cache", "cache", "exit status 1", 0) == [Wake("cache")]
    assert intensity.restarts == {"cache": 1}


def test_the_restart_past_the_limit_stops_the_stack_and_says_why() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)
    assert not any(died(intensity, at_ms) for at_ms in range(5))

    (effect,) = intensity.exited("cache", "cache", "exit status 1; its last line: no such directory", 5)

    assert isinstance(effect, GiveUp)
    for part in ("group cache", "6 times within 5 s", "exit status 1; its last line: no such directory"):
        assert part in effect.reason


def test_of_a_process_that_refuses_to_start_the_reason_is_what_it_said_and_nothing_more() -> None:
    intensity = RestartIntensity(dict.fromkeys(GROUPS, Limit(0, 5_000)))

    effects = intensity.exited("router", "edge", "refuses to start: cannot listen", 0)

    assert effects == [GiveUp("router refuses to start: cannot listen")]


def test_restarts_that_have_left_the_window_do_not_count() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)

    assert not any(died(intensity, at_ms) for at_ms in range(0, 100_000, 1_000))
    assert intensity.restarts == {"cache": 100}


def test_one_groups_restarts_never_count_for_another() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)

    assert not any(died(intensity, 0, group, group) for group in GROUPS for _ in range(5))


def test_all_processes_of_a_group_share_its_window() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)

    deaths = [died(intensity, n, f"database_worker-{n % 3 + 1}", "database") for n in range(6)]

    assert deaths == [False] * 5 + [True]


def test_a_limit_of_none_gives_up_at_the_first_death() -> None:
    assert died(RestartIntensity({"cache": Limit(0, 5_000)}), 0)


def test_giving_up_happens_once() -> None:
    intensity = RestartIntensity({"cache": Limit(0, 5_000)})
    assert died(intensity, 0)

    assert not died(intensity, 1)
    assert intensity.restarts == {"cache": 1}


@given(st.integers(0, 8), st.integers(1, 50), st.lists(st.integers(0, 40), max_size=60))
def test_it_gives_up_exactly_when_more_than_the_allowed_deaths_fall_into_one_window(
    allowed: int, within_ms: int, gaps_ms: list[int]
) -> None:
    intensity = RestartIntensity({"cache": Limit(allowed, within_ms)})
    times: list[int] = []
    for gap_ms in gaps_ms:
        times.append((times[-1] if times else 0) + gap_ms)
        in_window = sum(1 for time in times if time > times[-1] - within_ms)
        assert died(intensity, times[-1]) == (in_window > allowed)
        if in_window > allowed:
            return


def test_deaths_during_the_stop_of_the_stack_do_not_count() -> None:
    intensity = RestartIntensity({"cache": Limit(0, 5_000)})
    intensity.ending()
    assert not died(intensity, 0)
    assert intensity.restarts == {}


def test_a_program_that_cannot_be_started_is_given_up_after_that_many_tries() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)

    assert intensity.could_not_start("cache", "cache", 5, "no such file") == []
    effects = intensity.could_not_start("cache", "cache", 6, "no such file")

    assert isinstance(effects[-1], GiveUp)
    assert "could not be started 6 times" in effects[-1].reason


def test_it_wakes_the_process_manager_until_the_process_is_back() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE)
    assert intensity.next_tick_ms(0) is None
    assert intensity.vanished("router", 0) == [Wake("router")]

    assert intensity.next_tick_ms(10) == EAGER_TICK_MS
    assert intensity.tick() == [Wake("router")]
    assert intensity.next_tick_ms(EAGER_MS) == PATIENT_TICK_MS
    intensity.settled("router")

    assert intensity.tick() == []
    assert intensity.next_tick_ms(10) is None


def test_counts_go_on_from_those_of_an_earlier_listener() -> None:
    intensity = RestartIntensity(FIVE_IN_FIVE, [("cache", 3)])
    died(intensity, 0)
    assert intensity.restarts["cache"] == 4


EXITED = "processname:a groupname:b from_state:RUNNING expected:0 pid:7"


def event_bytes(state: str = "EXITED", payload: str = EXITED) -> bytes:
    header = f"ver:3.0 server:todomq serial:1 pool:supervision poolserial:1 eventname:PROCESS_STATE_{state}"
    return f"{header} len:{len(payload)}\n{payload}".encode()


@given(st.integers(1, 40))
def test_events_are_read_however_the_stream_is_cut(size: int) -> None:
    stream = event_bytes() + event_bytes("BACKOFF", "processname:a groupname:b from_state:STARTING tries:3")
    stream += f"ver:3.0 eventname:{SHUTDOWN} len:0\n".encode()
    reader = EventReader()

    events = [event for start in range(0, len(stream), size) for event in reader.feed(stream[start : start + size])]

    assert events == [
        Event("EXITED", "a", "b", 7, 0),
        Event("BACKOFF", "a", "b", None, 3),
        Event(SHUTDOWN, "", "", None, 0),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        b"hello\n",
        b"len:x eventname:y\n",
        event_bytes(payload="groupname:b"),
        event_bytes(payload="processname:a groupname:b pid:x"),
    ],
)
def test_a_stream_that_is_not_supervisords_is_an_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        EventReader().feed(stream)


def ticks(watch: AnswerWatch, start_ms: int, end_ms: int) -> int | None:
    """Tick every half second; return when the process was found to hang."""
    return next((now_ms for now_ms in range(start_ms, end_ms, 500) if watch.tick(now_ms)), None)


def test_a_process_that_stops_answering_hangs_after_the_silence_allowed() -> None:
    watch = AnswerWatch(3_000, 500)
    watch.began(0)
    watch.answered(400)
    assert ticks(watch, 500, 60_000) == 3_500


def test_who_is_asked_seldom_may_be_silent_for_as_long_as_three_questions_take() -> None:
    watch = AnswerWatch(200, 500)
    watch.began(0)
    for now_ms in range(0, 20_000, 500):
        assert not watch.tick(now_ms)
        watch.answered(now_ms + 1)
    assert not watch.tick(20_000) and not watch.tick(20_500) and watch.tick(21_001)


def test_a_process_is_given_longer_until_its_first_answer() -> None:
    watch = AnswerWatch(3_000, 500)
    watch.began(0)
    assert ticks(watch, 500, 60_000) == STARTING_MS


def test_a_process_that_has_run_for_long_before_it_was_watched_is_not_given_that_time_again() -> None:
    for age_ms, hangs_ms in [(4_000, STARTING_MS - 4_000), (STARTING_MS - 2_500, 3_000), (10 * STARTING_MS, 3_000)]:
        watch = AnswerWatch(3_000, 500)
        watch.began(0, age_ms)
        assert ticks(watch, 500, 60_000) == hangs_ms


def test_a_process_that_answers_does_not_hang() -> None:
    watch = AnswerWatch(3_000, 500)
    watch.began(0)
    for now_ms in range(500, 60_000, 500):
        watch.answered(now_ms)
        assert not watch.tick(now_ms)


def test_a_watcher_that_stood_still_itself_blames_nobody() -> None:
    watch = AnswerWatch(3_000, 500)
    watch.began(0)
    watch.answered(400)
    assert not watch.tick(60_000)
    assert ticks(watch, 60_500, 90_000) == 63_000


def test_silence_goes_on_while_nobody_can_say_and_is_judged_once_somebody_can() -> None:
    watch = AnswerWatch(6_000, 500)
    watch.began(0)
    watch.answered(400)
    for now_ms in range(500, 4_000, 500):
        watch.unknown(now_ms)
    assert ticks(watch, 4_000, 60_000) == 6_500


def test_nobody_is_watched_after_the_end() -> None:
    watch = AnswerWatch(3_000, 500)
    watch.began(0)
    watch.ended()
    watch.answered(1)
    assert ticks(watch, 500, 60_000) is None


def test_limits_come_from_the_settings_and_a_groups_own_variables() -> None:
    environment = {
        "TODOMQ_HOME": "/tmp/h",
        "TODOMQ_MAX_RESTARTS": "7",
        "TODOMQ_MAX_RESTARTS_DATABASE": "100",
        "TODOMQ_MAX_RESTARTS_S_EDGE": "1.5",
    }

    limits = read_limits(read_settings(environment), environment)

    assert limits == {
        "registry": Limit(7, 5_000),
        "cache": Limit(7, 5_000),
        "database": Limit(100, 5_000),
        "lists": Limit(7, 5_000),
        "edge": Limit(7, 1_500),
    }


def test_a_limit_that_is_no_number_is_refused_with_the_groups_name() -> None:
    environment = {"TODOMQ_HOME": "/tmp/h", "TODOMQ_MAX_RESTARTS_DATABASE": "many"}
    with pytest.raises(SettingsError, match=r"group database.*'many'"):
        read_limits(read_settings(environment), environment)


def test_the_logs_say_how_a_process_ended(tmp_path: Path) -> None:
    (tmp_path / "supervisord.log").write_text(
        "2026-11-23 08:44:21,117 WARN exited: cache (terminated by SIGKILL; not expected)\n"
        "2026-11-23 08:44:21,118 WARN exited: cache2 (exit status 3; not expected)\n"
        "2026-11-23 08:44:22,117 WARN exited: cache (exit status 78; not expected)\n"
    )
    (tmp_path / "cache2.log").write_text("started\nTypeError: why=no\n\n")
    (tmp_path / "cache.log").write_text("started\n2026-11-23T08:44:22Z refused_to_start name=cache why=no why=x\n\n")

    assert evidence.how_it_ended(tmp_path, "cache2") == "exit status 3; its last line: TypeError: why=no"
    (tmp_path / "cache2.log").write_text("Too many open files (src/ipc_listener.cpp:297)\n")
    assert evidence.how_it_ended(tmp_path, "cache2").endswith("(src/ipc_listener.cpp:297); raise ulimit -n")
    assert evidence.how_it_ended(tmp_path, "cache") == "refuses to start: no why=x"
    with (tmp_path / "supervisord.log").open("a") as log:
        log.write("2026-11-23 08:44:23,117 WARN exited: cache (terminated by SIGKILL; not expected)\n")
    (tmp_path / "cache.log").write_text("started\n")
    killed = "terminated by SIGKILL (the system does so too where memory runs out); its last line: started"
    assert evidence.how_it_ended(tmp_path, "cache") == killed
    assert evidence.how_it_ended(tmp_path, "router") == "it ended"


def test_when_a_life_of_a_process_ended_is_read_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "supervisord.log").write_text(
        "2026-11-28 10:00:00,000 INFO spawned: 'cache' with pid 7\n"
        "2026-11-28 10:00:01,000 WARN exited: cache2 (terminated by SIGKILL; not expected)\n"
        "2026-11-28 10:00:02,500 WARN exited: cache (terminated by SIGKILL; not expected)\n"
        "2026-11-28 10:00:03,000 INFO spawned: 'cache' with pid 8\n"
        "damaged 28 10:00:04,000 WARN exited: cache (terminated by SIGKILL; not expected)\n"
    )
    now = datetime(2026, 11, 28, 10, 0, 10)
    ago_ms = [evidence.ended_ms_ago(tmp_path, "cache", pid, now) for pid in (7, 8, 9, None)]
    assert ago_ms == [7_500, 0, 0, 0]
    log = tmp_path / "supervisord.log"
    log.write_text("2026-11-28 10:00:01,000 INFO reopening log file\n" * 1_000 + log.read_text())
    ago_ms = [evidence.ended_ms_ago(tmp_path, "cache", pid, now) for pid in (7, 8, 9)]
    assert ago_ms == [7_500, 0, 9_000], "of a life that the end of the log says nothing of it is as old as that end"
    assert evidence.ended_ms_ago(tmp_path, "cache", 7, now - timedelta(days=1)) == 0, "the clock was set back"


def test_deaths_count_when_they_were_in_whatever_order_they_are_heard_of() -> None:
    intensity = RestartIntensity({"cache": Limit(2, 1_000)})
    for ago_ms in (0, 9_000, 8_000, 7_000):
        intensity.exited("cache", "cache", "it ended", 10_000, ago_ms)
        assert intensity.given_up is None
    for _ in range(2):
        intensity.exited("cache", "cache", "it ended", 10_000, 0)
    assert intensity.given_up is not None


def test_the_reason_is_kept_in_the_room_that_was_reserved_for_it(tmp_path: Path) -> None:
    run_files.reserve_failure(tmp_path)
    (reserved,) = tmp_path.iterdir()
    before = reserved.stat()
    run_files.write_failure(tmp_path, "the group cache\ngave up")
    (kept,) = tmp_path.iterdir()
    after = kept.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)
    assert run_files.read_failure(tmp_path) == "the group cache gave up"


def test_deaths_that_are_heard_of_late_count_when_they_were() -> None:
    intensity = RestartIntensity({"cache": Limit(2, 1_000)})
    for ago_ms in (6_000, 4_000, 2_000, 100):
        assert intensity.exited("cache", "cache", "killed", 10_000, ago_ms) == [Wake("cache")]
    assert intensity.exited("cache", "cache", "killed", 10_000, 50) == [Wake("cache")]
    (effect,) = intensity.exited("cache", "cache", "killed", 10_000)
    assert isinstance(effect, GiveUp), "three within a second are too many"


def test_records_are_read_back_and_belong_to_one_supervisord(tmp_path: Path) -> None:
    assert run_files.read_restarts(tmp_path) == {}
    assert run_files.read_failure(tmp_path) is None

    run_files.write_restarts(tmp_path, 17, {"cache": 2})
    run_files.write_failure(tmp_path, "the group cache\ngave up")

    assert run_files.read_restarts(tmp_path) == {"cache": 2}
    assert run_files.read_restarts(tmp_path, 17) == {"cache": 2}
    assert run_files.read_restarts(tmp_path, 18) == {}
    assert run_files.read_failure(tmp_path) == "the group cache gave up"

    run_files.forget(tmp_path)
    assert run_files.read_failure(tmp_path) is None


def test_a_damaged_record_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "restarts.json").write_text("{")
    with pytest.raises(CorruptRecord, match=r"restarts\.json"):
        run_files.read_restarts(tmp_path)
