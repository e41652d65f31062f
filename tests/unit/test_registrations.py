"""The registrations, each rule as a sentence. No socket, no clock: time is a number."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from todomq.errors import CorruptRecord, InvalidRequest, Overloaded, Unavailable
from todomq.protocol import limits
from todomq.protocol.codec import canonical
from todomq.protocol.registration import Registration, is_same
from todomq.registry.registrations import (
    Effect,
    Forget,
    Kill,
    Process,
    Registrations,
    Release,
    Remember,
)

LEASE_MS = 1_000
ALICE = Process(100, 5_000)
BOB = Process(200, 6_000)
NAME = ["my", "job"]
ADDRESS = "ipc:///run/job"


def settled(lost: str = "") -> Registrations:
    names = Registrations(LEASE_MS, 0, lost=lost)
    for now_ms in range(0, LEASE_MS + 1, LEASE_MS // 4):
        names.tick(now_ms)
    assert names.settled
    return names


def register(
    names: Registrations,
    process: Process | None = ALICE,
    incarnation: bytes = b"",
    lease_ms: int = 0,
    now_ms: int = LEASE_MS,
    name: Any = NAME,
    address: str = ADDRESS,
) -> bool:
    return names.register(name, address, process, incarnation, lease_ms, now_ms)


def pass_time(names: Registrations, begin_ms: int, end_ms: int) -> list[Effect]:
    """Tick as a healthy registry does, often, from one time to another."""
    for now_ms in range(begin_ms, end_ms + 1, LEASE_MS // 10):
        names.tick(now_ms)
    return ends(names)


def ends(names: Registrations) -> list[Effect]:
    """Return what is to be done since the last call, but for what the next registry is to know."""
    return [effect for effect in names.effects() if not isinstance(effect, Remember)]


class TestHolding:
    def test_a_registered_name_is_found(self) -> None:
        names = settled()
        assert register(names)
        assert names.whereis(NAME, LEASE_MS) == Registration(NAME, ADDRESS, ALICE.pid, b"")

    def test_a_name_that_nobody_has_is_none(self) -> None:
        assert settled().whereis(NAME, LEASE_MS) is None

    def test_a_name_held_by_another_living_process_is_refused(self) -> None:
        names = settled()
        register(names, ALICE)
        assert not register(names, BOB)
        found = names.whereis(NAME, LEASE_MS)
        assert found is not None and found.pid == ALICE.pid

    def test_the_very_same_registration_sent_again_is_accepted(self) -> None:
        names = settled()
        register(names, ALICE)
        version = names.version
        assert register(names, ALICE)
        assert names.version == version

    def test_a_process_without_incarnation_cannot_take_its_own_name_to_another_address(self) -> None:
        names = settled()
        register(names, ALICE)
        assert not register(names, ALICE, address="ipc:///run/other")

    def test_the_same_incarnation_may_move_to_another_address(self) -> None:
        names = settled()
        register(names, ALICE, b"one")
        assert register(names, ALICE, b"one", address="ipc:///run/other")
        found = names.whereis(NAME, LEASE_MS)
        assert found is not None and found.address == "ipc:///run/other"
        assert len(names) == 1 and names.holds_any(ALICE)

    def test_another_incarnation_of_a_living_process_is_refused(self) -> None:
        names = settled()
        register(names, ALICE, b"one")
        assert not register(names, ALICE, b"two")

    def test_a_reused_pid_is_another_process(self) -> None:
        names = settled()
        register(names, ALICE)
        later = Process(ALICE.pid, ALICE.start_time + 1)
        assert not register(names, later)
        names.process_died(ALICE)
        assert register(names, later)
        names.process_died(ALICE)
        assert names.whereis(NAME, LEASE_MS) is not None

    def test_neither_process_nor_lease_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="needs a lease"):
            register(settled(), None)

    @pytest.mark.parametrize(
        ("one", "other"),
        [(1, 1.0), ("a", b"a"), (["a"], "a"), (1, True), ("", None), ([1, [2]], [[1], 2]), ({}, []), (0.0, -0.0)],
    )
    def test_different_values_are_different_names(self, one: Any, other: Any) -> None:
        names = settled()
        assert register(names, ALICE, name=one) and register(names, BOB, name=other)
        assert len(names) == 2

    def test_maps_in_another_order_are_the_same_name(self) -> None:
        names = settled()
        register(names, ALICE, name={"a": 1, "b": {"c": 2, "d": 3}})
        assert not register(names, BOB, name={"b": {"d": 3, "c": 2}, "a": 1})

    def test_a_name_over_the_limit_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="1024"):
            register(settled(), name="n" * 1024)


class TestEnding:
    def test_a_death_frees_every_name_of_the_process_and_no_other(self) -> None:
        names = settled()
        register(names, ALICE, name="a")
        register(names, ALICE, name="b", lease_ms=LEASE_MS)
        register(names, BOB, name="c")
        names.process_died(ALICE)
        assert [registration.name for registration in names.names()] == ["c"]
        assert not names.holds_any(ALICE) and names.holds_any(BOB)

    def test_an_unregistered_name_is_free(self) -> None:
        names = settled()
        register(names, ALICE)
        assert names.unregister(NAME, None, LEASE_MS)
        assert names.whereis(NAME, LEASE_MS) is None
        assert register(names, BOB)

    def test_unregistering_what_nobody_has_is_false(self) -> None:
        assert not settled().unregister(NAME, None, LEASE_MS)

    def test_an_old_incarnation_cannot_unregister_a_new_one(self) -> None:
        names = settled()
        register(names, BOB, b"new")
        assert not names.unregister(NAME, b"old", LEASE_MS)
        assert not names.unregister(NAME, b"", LEASE_MS)
        with pytest.raises(InvalidRequest, match="belongs to an incarnation"):
            names.unregister(NAME, None, LEASE_MS)
        assert names.whereis(NAME, LEASE_MS) is not None
        assert names.unregister(NAME, b"new", LEASE_MS)

    def test_a_name_without_lease_outlives_any_time(self) -> None:
        names = settled()
        register(names, ALICE)
        list(names.effects())
        assert pass_time(names, LEASE_MS, 20 * LEASE_MS) == []
        assert names.whereis(NAME, 20 * LEASE_MS) is not None

    def test_a_remote_name_ends_with_its_lease(self) -> None:
        names = settled()
        register(names, None, b"far", LEASE_MS)
        pass_time(names, LEASE_MS, 2 * LEASE_MS - 1)
        assert names.whereis(NAME, 2 * LEASE_MS - 1) is not None
        names.tick(2 * LEASE_MS)
        assert names.whereis(NAME, 2 * LEASE_MS) is None

    def test_a_renewed_lease_does_not_end(self) -> None:
        names = settled()
        for now_ms in range(LEASE_MS, 10 * LEASE_MS, LEASE_MS // 4):
            assert register(names, ALICE, b"one", LEASE_MS, now_ms)
            names.tick(now_ms)
        assert not ends(names)

    def test_a_lease_is_never_shorter_than_the_registrys(self) -> None:
        names = settled()
        register(names, None, b"far", 1)
        pass_time(names, LEASE_MS, 2 * LEASE_MS - 1)
        assert names.whereis(NAME, 2 * LEASE_MS - 1) is not None

    def test_a_hung_process_is_killed_once_and_keeps_its_name_until_it_is_dead(self) -> None:
        names = settled()
        register(names, ALICE, b"one", LEASE_MS)
        assert pass_time(names, LEASE_MS, 4 * LEASE_MS) == [Kill(ALICE)]
        assert names.whereis(NAME, 4 * LEASE_MS) is not None
        assert not register(names, BOB, b"two", LEASE_MS, 4 * LEASE_MS)
        names.process_died(ALICE)
        assert register(names, BOB, b"two", LEASE_MS, 4 * LEASE_MS)

    def test_a_renewal_that_comes_too_late_does_not_undo_the_kill(self) -> None:
        names = settled()
        register(names, ALICE, b"one", LEASE_MS)
        assert pass_time(names, LEASE_MS, 2 * LEASE_MS) == [Kill(ALICE)]
        register(names, ALICE, b"one", LEASE_MS, 2 * LEASE_MS, address="ipc:///run/other")
        assert pass_time(names, 2 * LEASE_MS, 5 * LEASE_MS) == []
        names.process_died(ALICE)
        assert names.whereis(NAME, 5 * LEASE_MS) is None


class TestAbsenceIsUnknown:
    def test_after_a_start_an_absent_name_is_unknown_for_one_lease(self) -> None:
        names = Registrations(LEASE_MS, 0)
        for ask in (lambda: names.whereis(NAME, 10), lambda: names.unregister(NAME, None, 10)):
            with pytest.raises(Unavailable) as refusal:
                ask()
            assert refusal.value.retryable
        pass_time(names, 0, LEASE_MS)
        assert names.whereis(NAME, LEASE_MS) is None

    def test_after_a_start_whoever_comes_back_is_accepted_and_found_at_once(self) -> None:
        names = Registrations(LEASE_MS, 0)
        assert register(names, ALICE, b"one", LEASE_MS, 10)
        assert names.whereis(NAME, 10) is not None

    def test_a_stall_kills_nobody_and_gives_everyone_one_more_lease(self) -> None:
        names = settled()
        register(names, ALICE, b"one", LEASE_MS)
        register(names, None, b"far", LEASE_MS, name="far")
        woken_ms = 50 * LEASE_MS
        names.tick(woken_ms)
        assert not ends(names) and len(names) == 2
        assert pass_time(names, woken_ms, woken_ms + LEASE_MS - 1) == []
        assert Kill(ALICE) in pass_time(names, woken_ms + LEASE_MS, woken_ms + LEASE_MS)
        assert names.whereis("far", woken_ms + LEASE_MS) is None

    def test_after_a_stall_an_absent_name_is_unknown_even_before_the_next_tick(self) -> None:
        names = settled()
        with pytest.raises(Unavailable):
            names.whereis(NAME, 50 * LEASE_MS)
        assert not names.settled

    def test_a_clock_that_goes_back_ends_nobody(self) -> None:
        names = settled()
        register(names, ALICE, b"one", LEASE_MS)
        assert pass_time(names, -10 * LEASE_MS, -9 * LEASE_MS - 1) == []
        assert pass_time(names, -9 * LEASE_MS, -9 * LEASE_MS) == [Kill(ALICE)]

    def test_names_lost_with_the_journal_are_unknown_for_good(self) -> None:
        names = settled(lost="the record at byte 20 is damaged")
        with pytest.raises(CorruptRecord, match="byte 20"):
            names.whereis(NAME, LEASE_MS)
        assert register(names) and names.whereis(NAME, LEASE_MS) is not None


class TestVersionAndEffects:
    def test_every_visible_change_has_a_higher_version(self) -> None:
        names = Registrations(LEASE_MS, 0, first_version=7)
        seen = [names.version]

        def changed() -> bool:
            seen.append(names.version)
            return seen[-1] > seen[-2]

        register(names, ALICE, b"one", LEASE_MS, 0)
        assert seen == [7] and changed()
        register(names, ALICE, b"one", LEASE_MS, 1)
        assert not changed()
        register(names, ALICE, b"one", LEASE_MS, 1, address="ipc:///run/other")
        assert changed()
        pass_time(names, 0, LEASE_MS - 1)
        assert not changed()
        names.tick(LEASE_MS)
        assert names.settled and changed()
        names.unregister(NAME, b"one", LEASE_MS)
        assert changed()
        register(names, BOB)
        names.process_died(BOB)
        assert changed()
        names.tick(90 * LEASE_MS)
        assert not names.settled and changed()

    def test_every_name_is_journaled_with_its_lease_until_it_is_given_up(self) -> None:
        names = settled()
        register(names, ALICE, name="script")
        register(names, BOB, b"one", LEASE_MS, name="daemon")
        register(names, None, b"far", 9 * LEASE_MS, name="far")
        remembered = [effect for effect in names.effects() if isinstance(effect, Remember)]
        assert [(each.registration.name, each.process, each.lease_ms) for each in remembered] == [
            ("script", ALICE, 0), ("daemon", BOB, LEASE_MS), ("far", None, 9 * LEASE_MS),
        ]  # fmt: skip
        names.unregister("script", None, LEASE_MS)
        assert list(names.effects()) == [Forget(remembered[0].key), Release(ALICE)]

    def test_a_renewal_is_journaled_only_where_the_lease_is_another(self) -> None:
        names = settled()
        register(names, ALICE, b"one", LEASE_MS)
        list(names.effects())
        register(names, ALICE, b"one", LEASE_MS)
        assert list(names.effects()) == []
        register(names, ALICE, b"one", 2 * LEASE_MS)
        assert [effect.lease_ms for effect in names.effects() if isinstance(effect, Remember)] == [2 * LEASE_MS]
        register(names, ALICE, b"one")
        assert [type(effect) for effect in names.effects()] == [Forget, Release, Remember]
        assert names.holds_any(ALICE)  # by which the release is void

    @pytest.mark.parametrize(
        ("process", "incarnation", "end"),
        [(None, b"far", Forget), (ALICE, b"one", Kill), (ALICE, b"", Forget)],
        ids=["far", "daemon", "given up, perhaps, when that could not be written"],
    )
    def test_a_name_of_the_registry_before_is_held_for_its_lease_from_now_on(
        self, process: Process | None, incarnation: bytes, end: type[Effect]
    ) -> None:
        names = settled()
        registration = Registration(NAME, ADDRESS, None if process is None else process.pid, incarnation)
        names.restore(canonical(NAME), registration, process, 5 * LEASE_MS, LEASE_MS)
        assert not register(names, BOB, b"two", LEASE_MS)
        assert pass_time(names, LEASE_MS, 5 * LEASE_MS) == []
        assert names.whereis(NAME, 5 * LEASE_MS) == registration
        assert end in {type(effect) for effect in pass_time(names, 5 * LEASE_MS, 7 * LEASE_MS)}

    def test_a_name_of_the_registry_before_is_renewed_as_any(self) -> None:
        names = settled()
        names.restore(canonical(NAME), Registration(NAME, ADDRESS, ALICE.pid, b""), ALICE, LEASE_MS, LEASE_MS)
        assert register(names, ALICE, b"", LEASE_MS)
        assert Kill(ALICE) in pass_time(names, LEASE_MS, 3 * LEASE_MS)

    def test_a_process_is_released_with_its_last_name(self) -> None:
        names = settled()
        register(names, ALICE, name="a")
        register(names, ALICE, name="b")
        list(names.effects())
        names.unregister("a", None, LEASE_MS)
        assert Release(ALICE) not in list(names.effects())
        names.unregister("b", None, LEASE_MS)
        assert Release(ALICE) in list(names.effects())

    def test_past_the_limit_a_registration_is_overloaded_and_changes_nothing(self) -> None:
        names = settled()
        for number in range(800):
            register(names, ALICE, name=number, address="a" * 1000)
        with pytest.raises(Overloaded) as refusal:
            [register(names, ALICE, name=number, address="a" * 1000) for number in range(800, 1_100)]
        assert refusal.value.retryable
        full, version = len(names), names.version
        with pytest.raises(Overloaded):
            register(names, ALICE, name="one more", address="a" * 1000)
        assert (len(names), names.version) == (full, version)
        assert names.unregister(0, None, LEASE_MS) and register(names, name="one more", address="a" * 1000)

    def test_a_name_that_is_held_stays_so_where_its_holder_asks_for_more_and_there_is_no_room(self) -> None:
        names = settled()
        register(names, ALICE, name="without a lease")
        register(names, ALICE, b"one", name="near")
        with pytest.raises(Overloaded):
            [register(names, BOB, name=number, address="a" * 1000) for number in range(1_100)]
        with pytest.raises(Overloaded):
            [register(names, BOB, b"two", name=[number], address="a" * 1000) for number in range(1_100)]
        assert register(names, ALICE, lease_ms=LEASE_MS, name="without a lease")
        with pytest.raises(Overloaded):
            register(names, ALICE, b"one", name="near", address="f" * 2000)
        assert names.is_held("without a lease") and names.is_held("near")

    @pytest.mark.parametrize("part", [[], 1, {}, [[1], {2: 3}]])
    def test_law_6_names_of_many_values_fill_it_before_a_reader_can_take_no_more(self, part: Any) -> None:
        names = settled()
        with pytest.raises(Overloaded):
            [register(names, ALICE, name=[number, *[part] * 150]) for number in range(1_000)]
        assert 150 * len(names) < limits.DECODED_ITEMS

    def test_what_needs_no_more_room_is_taken_by_a_full_registry(self) -> None:
        names = settled()
        register(names, ALICE, b"one", LEASE_MS, name="kept", address="a" * 100)
        with pytest.raises(Overloaded):
            [register(names, ALICE, b"one", name=number, address="a" * 1000) for number in range(1_100)]
        assert register(names, ALICE, b"one", name="kept", address="a" * 100)

    def test_the_names_of_the_registry_before_have_room_in_whatever_order_they_come(self) -> None:
        names, kept = settled(), []
        with pytest.raises(Overloaded):
            [register(names, ALICE, name=number, address="a" * 1000) for number in range(1_100)]
        with pytest.raises(Overloaded):
            [register(names, ALICE, b"one", name=[number], address="a" * 1000) for number in range(1_100)]
        kept = [effect for effect in names.effects() if isinstance(effect, Remember)]
        fresh = Registrations(LEASE_MS, 0)
        for each in reversed(kept):
            fresh.restore(each.key, each.registration, each.process, each.lease_ms, 0)
        assert len(fresh) == len(names)

    def test_law_9_a_daemon_comes_back_to_a_registry_that_others_have_filled(self) -> None:
        names = settled()
        with pytest.raises(Overloaded):
            [register(names, ALICE, name=number, address="a" * 1000) for number in range(1_100)]
        assert register(names, BOB, name=["list_server", 1], address="a" * 100, incarnation=b"i" * 16)

def test_a_registration_is_the_same_whatever_its_name_is_equal_to() -> None:
    def registration(address: str) -> Registration:
        return Registration([float("nan")], address, 1, b"")

    assert is_same(registration("here"), registration("here")) and is_same(None, None)
    assert not is_same(registration("here"), registration("there")) and not is_same(registration("here"), None)


class Interleavings(RuleBasedStateMachine):
    """Any order of requests, deaths and time, against a model that is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.names = Registrations(LEASE_MS, 0)
        self.model: dict[str, tuple[Process | None, bytes]] = {}
        self.journal: dict[bytes, Remember] = {}
        self.renewed_ms: dict[str, int] = {}

    names_of = st.sampled_from(["a", "b", "c"])
    incarnations = st.sampled_from([b"one", b"two"])
    processes = st.sampled_from([ALICE, BOB, Process(ALICE.pid, 9_000)])

    @rule(name=names_of, process=st.none() | processes, incarnation=incarnations, has_lease=st.booleans())
    def register(self, name: str, process: Process | None, incarnation: bytes, has_lease: bool) -> None:
        lease_ms = LEASE_MS if has_lease or process is None else 0
        accepted = self.names.register(name, ADDRESS, process, incarnation, lease_ms, self.now_ms)
        assert accepted is (self.model.setdefault(name, (process, incarnation)) == (process, incarnation))
        if accepted:
            self.renewed_ms[name] = self.now_ms
        self.carry_out()

    @rule(name=names_of, incarnation=incarnations)
    def unregister(self, name: str, incarnation: bytes) -> None:
        held = self.model.get(name)
        if held is None:
            return
        is_freed = self.names.unregister(name, incarnation, self.now_ms)
        assert is_freed is (incarnation == held[1])
        if is_freed:
            del self.model[name]
        self.carry_out()

    @rule(process=processes)
    def die(self, process: Process) -> None:
        self.names.process_died(process)
        self.model = {name: held for name, held in self.model.items() if held[0] != process}
        self.carry_out()

    @rule(milliseconds=st.integers(0, LEASE_MS // 2))
    def pass_time(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.names.tick(self.now_ms)
        known = {registration.name for registration in self.names.names()}
        for name in set(self.model) - known:
            process, _ = self.model.pop(name)
            assert process is None and self.now_ms - self.renewed_ms[name] >= LEASE_MS
        self.carry_out()

    @rule(milliseconds=st.integers(LEASE_MS // 2 + 1, 100 * LEASE_MS))
    def stall(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.names.tick(self.now_ms)
        assert not list(self.names.effects()) and not self.names.settled

    @rule()
    def the_registry_is_another(self) -> None:
        self.names = Registrations(LEASE_MS, self.now_ms)
        for kept in list(self.journal.values()):
            self.names.restore(*kept, self.now_ms)
        self.renewed_ms = dict.fromkeys(self.renewed_ms, self.now_ms)
        self.carry_out()

    def carry_out(self) -> None:
        for effect in self.names.effects():
            match effect:
                case Kill(process):
                    own = [name for name, held in self.model.items() if held[0] == process]
                    assert any(self.now_ms - self.renewed_ms[name] >= LEASE_MS for name in own)
                case Remember(key):
                    self.journal[key] = effect
                case Forget(key):
                    del self.journal[key]

    @invariant()
    def each_name_has_the_holder_that_was_told_so(self) -> None:
        found = {one.name: (one.pid, one.incarnation) for one in self.names.names()}
        assert found == {
            name: (process.pid if process else None, incarnation)
            for name, (process, incarnation) in self.model.items()
        }

    @invariant()
    def processes_are_watched_exactly_while_they_hold_names(self) -> None:
        for process in (ALICE, BOB, Process(ALICE.pid, 9_000)):
            assert self.names.holds_any(process) is any(held[0] == process for held in self.model.values())

    @invariant()
    def the_journal_names_what_is_held(self) -> None:
        assert {kept.registration.name for kept in self.journal.values()} == set(self.model)


TestInterleavings = Interleavings.TestCase
