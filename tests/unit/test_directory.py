"""The directory of partitions: where each belongs, under which epoch, whatever dies, joins, is granted or refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from todomq.cache.directory import Directory, Own, Owner, Release, Server, first_homes, rank
from todomq.protocol.messages import EPOCH_STEP
from todomq.protocol.partitions import PARTITIONS, worker_of

ONE, TWO, THREE = (Server(number, b"life of %d" % number, f"ipc:///run/{number}") for number in (1, 2, 3))
ONE_AGAIN = ONE._replace(incarnation=b"another life of 1")
RANKS = [14689736157764735821, 9668295472470170137]
"""Of server 1 for partition 0 and server 2 for partition 255: a new version that ranks otherwise moves everything."""


def placed(*servers: Server) -> Directory:
    """Return a directory whose partitions are all at home on servers that owned nothing before."""
    directory = Directory(3, 3)
    directory.servers_are(list(servers))
    for server in servers:
        directory.reported(server, [])
    carry_out(directory)
    return directory


def carry_out(directory: Directory) -> list[Own | Release]:
    """Have every effect done at once, as often as new ones follow; return them all."""
    done: list[Own | Release] = []
    while effects := directory.plan(placing=True):
        done += effects
        for effect in effects:
            if isinstance(effect, Own):
                directory.claimed(effect, True, effect.epoch, effect.epoch)
            else:
                directory.released(effect)
    return done


def servers_of(directory: Directory) -> list[int]:
    return [owner.server.number for _, owner in directory.all_rows()]


def test_every_partition_finds_an_owner_and_the_load_is_about_even() -> None:
    shares = Counter(servers_of(placed(ONE, TWO, THREE)))
    assert sum(shares.values()) == PARTITIONS
    assert set(shares.values()) == {85, 86}


def test_what_the_router_knows_under_a_higher_epoch_is_claimed_above_that() -> None:
    directory = placed(ONE, TWO)
    partition, owner = directory.changes()[0]
    directory.outdated(partition, owner.epoch - 1)  # of before
    assert directory.owners[partition] == owner
    directory.outdated(partition, owner.epoch + 5)
    rows = [(each, known.epoch, 0) for each, known in directory.all_rows()]
    directory.reported(owner.server, [*rows, (partition, 1, 0)])
    assert directory.owners[partition] is None
    carry_out(directory)
    assert directory.changes() == [(partition, Owner(owner.server, owner.epoch + 6))]


@pytest.mark.parametrize("list_servers", [1, 2, 3, 4, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_a_list_server_has_no_more_workers_to_write_to_than_it_must(list_servers: int, workers: int) -> None:
    homes = first_homes(list_servers, workers)
    shares = Counter(homes)
    assert sorted(shares) == list(range(1, list_servers + 1))
    assert max(shares.values()) - min(shares.values()) <= 1
    pairs = {(home, worker_of(partition, workers)) for partition, home in enumerate(homes)}
    assert len(pairs) <= list_servers + workers - 1


def test_the_place_of_a_partition_is_the_same_for_every_cache() -> None:
    assert servers_of(placed(ONE, TWO)) == servers_of(placed(TWO, ONE))
    assert [rank(1, 0), rank(2, 255)] == RANKS
    assert first_homes(2, 3)[:8] == [1, 1, 2, 1, 1, 2, 1, 1]


def test_a_death_moves_only_what_the_dead_server_had() -> None:
    directory = placed(ONE, TWO, THREE)
    before = directory.all_rows()
    directory.servers_are([TWO, THREE])
    moved = {effect.partition for effect in carry_out(directory)}
    assert moved == {partition for partition, owner in before if owner.server == ONE}
    after = dict(directory.all_rows())
    assert all(after[partition] == owner for partition, owner in before if owner.server != ONE)


def test_a_return_brings_back_just_what_the_dead_server_had() -> None:
    directory = placed(ONE, TWO, THREE)
    before = servers_of(directory)
    directory.servers_are([TWO, THREE])
    carry_out(directory)
    directory.servers_are([ONE_AGAIN, TWO, THREE])
    directory.reported(ONE_AGAIN, [])
    effects = carry_out(directory)
    assert servers_of(directory) == before
    assert {effect.partition for effect in effects} == {p for p, number in enumerate(before) if number == 1}


def test_a_server_that_joins_beside_those_of_the_stack_takes_its_share_and_its_death_gives_back_just_that() -> None:
    directory = placed(ONE, TWO, THREE)
    before = directory.all_rows()
    four = Server(4, b"life of 4", "ipc:///run/4")
    directory.servers_are([ONE, TWO, THREE, four])
    directory.reported(four, [])
    joined = {effect.partition for effect in carry_out(directory)}
    assert servers_of(directory).count(4) == len(joined) > PARTITIONS // 4 - 30
    directory.servers_are([ONE, THREE, four])
    moved = {effect.partition for effect in carry_out(directory)}
    assert moved == {partition for partition, owner in before if owner.server == TWO} - joined
    directory.servers_are([ONE, TWO, THREE])
    directory.reported(TWO, [])
    carry_out(directory)
    assert servers_of(directory) == [owner.server.number for _, owner in before]


def test_a_partition_is_released_before_another_server_is_asked_to_own_it() -> None:
    directory = placed(ONE)
    directory.servers_are([ONE, TWO])
    directory.reported(TWO, [])
    effects = directory.plan(placing=True)
    assert effects
    assert all(isinstance(effect, Release) and effect.server == ONE for effect in effects)
    assert directory.plan(placing=True) == [], "nothing is asked twice"
    released = effects[0]
    assert isinstance(released, Release)
    directory.released(released)
    assert directory.plan(placing=True) == [Own(TWO, released.partition, released.epoch + 1, released.epoch)]


def test_epochs_rise_with_every_owner() -> None:
    directory = placed(ONE, TWO)
    before = dict(directory.all_rows())
    directory.servers_are([TWO])
    carry_out(directory)
    for partition, owner in directory.all_rows():
        moved = owner.server != before[partition].server
        assert owner.epoch == before[partition].epoch + moved


def test_a_refused_claim_is_made_again_above_the_stored_epoch() -> None:
    directory = Directory(3, 3)
    directory.servers_are([ONE])
    directory.reported(ONE, [])
    effect = directory.plan(placing=True)[0]
    assert isinstance(effect, Own)
    directory.claimed(effect, False, 41, 41)
    assert directory.owners[effect.partition] is None
    assert directory.plan(placing=True) == [Own(ONE, effect.partition, 42, 41)]


def test_law_8_whoever_is_to_own_a_partition_hears_what_was_granted_before_and_nothing_higher() -> None:
    directory = Directory(1, 3)
    directory.servers_are([ONE])
    directory.reported(ONE, [])
    for effect in directory.plan(placing=True):
        assert isinstance(effect, Own) and effect.known == 0
        directory.claimed(effect, True, effect.epoch, 0)  # it answers for what it could not claim
    directory.servers_are([ONE_AGAIN])
    directory.reported(ONE_AGAIN, [])
    claims = directory.plan(placing=True)
    assert {(effect.epoch, effect.known) for effect in claims if isinstance(effect, Own)} == {(2, 0)}
    for effect in claims:
        assert isinstance(effect, Own)
        directory.claimed(effect, True, 2, 2)
    directory.servers_are([])
    directory.servers_are([ONE])
    directory.reported(ONE, [])
    assert {each.known for each in directory.plan(placing=True) if isinstance(each, Own)} == {2}


def test_law_8_a_cache_that_starts_hears_of_what_was_granted_from_whoever_owns_it() -> None:
    directory = Directory(1, 3)
    directory.servers_are([ONE])
    directory.reported(ONE, [(7, 9, 4)])
    directory.servers_are([])
    directory.servers_are([ONE_AGAIN])
    directory.reported(ONE_AGAIN, [])
    assert Own(ONE_AGAIN, 7, 10, 4) in directory.plan(placing=True)


def test_a_report_that_no_claim_can_have_led_to_is_not_believed() -> None:
    directory, liar = placed(ONE), Server(9, b"liar", "ipc:///liar")
    directory.servers_are([ONE, liar])
    before = directory.owners[7]
    directory.reported(liar, [(7, (1 << 63) - 1, (1 << 63) - 1)])
    assert directory.owners[7] == before and before is not None and before.server == ONE
    for step in range(1, 10):
        directory.reported(liar, [(7, before.epoch + step * (EPOCH_STEP - 1), 0)])
    directory.servers_are([ONE])
    (own,) = (each for each in directory.plan(placing=True) if each.partition == 7)
    assert isinstance(own, Own) and own.epoch <= before.epoch + EPOCH_STEP and own.known == before.epoch


def test_what_a_claim_is_impossible_for_is_forgotten_and_storage_tells_anew() -> None:
    directory = Directory(1, 3)
    directory.servers_are([ONE])
    directory.reported(ONE, [])
    stored = 3 * EPOCH_STEP
    (own,) = (each for each in directory.plan(placing=True) if each.partition == 7)
    assert isinstance(own, Own)
    directory.claimed(own, False, (1 << 63) - 1, (1 << 63) - 1)  # a lie
    (too_high,) = directory.plan(placing=True)
    assert isinstance(too_high, Own) and too_high.epoch == 1 << 63
    directory.impossible(too_high)
    (anew,) = directory.plan(placing=True)
    assert isinstance(anew, Own) and (anew.epoch, anew.known) == (1, 0)
    directory.claimed(anew, False, stored, stored)
    assert directory.plan(placing=True) == [Own(ONE, 7, stored + 1, stored)]


def test_an_effect_that_was_not_answered_is_planned_again() -> None:
    directory = Directory(3, 3)
    directory.servers_are([ONE])
    directory.reported(ONE, [])
    effects = directory.plan(placing=True)
    directory.failed(effects[7])
    assert directory.plan(placing=True) == [effects[7]]


def test_nothing_is_planned_before_every_living_server_has_said_what_it_owns() -> None:
    directory = Directory(3, 3)
    directory.servers_are([ONE, TWO])
    directory.reported(ONE, [])
    assert directory.to_be_asked() == [TWO]
    assert directory.plan(placing=True) == []
    directory.reported(TWO, [])
    assert len(directory.plan(placing=True)) == PARTITIONS


def test_a_server_that_does_not_say_what_it_owns_holds_up_nobody_and_gets_nothing() -> None:
    directory = Directory(3, 3)
    directory.servers_are([ONE, TWO])
    directory.reported(ONE, [])
    directory.silent(TWO)
    assert directory.to_be_asked() == []
    carry_out(directory)
    assert servers_of(directory) == [1] * PARTITIONS
    directory.reported(TWO, [])
    carry_out(directory)
    assert servers_of(directory) == servers_of(placed(ONE, TWO)), "once it answers it gets what is its own"


def test_a_silent_server_keeps_what_it_owns_and_what_it_was_asked_to_own_goes_to_another() -> None:
    directory = placed(ONE, TWO)
    of_two = [row for row in directory.all_rows() if row[1].server == TWO]
    directory.servers_are([TWO])
    asked = directory.plan(placing=True)
    assert {effect.server for effect in asked} == {TWO}
    directory.servers_are([ONE_AGAIN, TWO])
    directory.reported(ONE_AGAIN, [])
    assert directory.plan(placing=True) == [], "server 2 was asked, and may be about to claim"
    directory.silent(TWO)
    above = [Own(ONE_AGAIN, effect.partition, effect.epoch + 1, 1) for effect in asked]
    assert directory.plan(placing=True) == above, "higher than what server 2 may claim yet"
    assert directory.all_rows() == of_two


def test_of_silent_servers_alone_nothing_is_asked() -> None:
    directory = placed(ONE)
    directory.silent(ONE)
    directory.reported(ONE, [])
    directory.silent(ONE)
    directory.silent(ONE_AGAIN)
    assert directory.plan(placing=True) == []
    directory.servers_are([ONE_AGAIN])
    assert directory.to_be_asked() == [ONE_AGAIN], "another life of it has not been asked yet"


def test_nothing_is_planned_while_it_is_not_known_who_lives() -> None:
    directory = Directory(3, 3)
    directory.servers_are([ONE])
    directory.reported(ONE, [])
    assert directory.plan(placing=False) == []


def test_nothing_is_planned_where_nobody_lives() -> None:
    directory = placed(ONE)
    directory.servers_are([])
    assert directory.plan(placing=True) == []
    assert directory.all_rows() == []


def test_a_cache_that_starts_learns_what_is_owned_and_moves_nothing() -> None:
    known = placed(ONE, TWO)
    directory = Directory(3, 3)
    directory.servers_are([ONE, TWO])
    for server in (ONE, TWO):
        rows = [(number, owner.epoch, owner.epoch) for number, owner in known.all_rows() if owner.server == server]
        directory.reported(server, rows)
    assert directory.plan(placing=True) == []
    assert directory.all_rows() == known.all_rows()
    assert len(directory.changes()) == PARTITIONS


def test_of_two_who_report_the_same_partition_the_higher_epoch_counts_in_either_order() -> None:
    for first, second in (((ONE, 5), (TWO, 6)), ((TWO, 6), (ONE, 5))):
        directory = Directory(3, 3)
        directory.servers_are([ONE, TWO])
        for server, epoch in (first, second):
            directory.reported(server, [(7, epoch, epoch)])
        assert directory.owners[7] == Owner(TWO, 6)


def test_a_server_that_no_longer_names_a_partition_has_lost_it() -> None:
    directory = placed(ONE)
    epoch = directory.all_rows()[7][1].epoch
    directory.reported(ONE, [(partition, epoch, epoch) for partition in range(PARTITIONS) if partition != 7])
    assert directory.owners[7] is None
    assert directory.plan(placing=True) == [Own(ONE, 7, epoch + 1, epoch)]


def test_a_report_that_does_not_name_what_is_being_released_takes_nothing_away_by_itself() -> None:
    directory = placed(ONE)
    directory.servers_are([ONE, TWO])
    directory.reported(TWO, [])
    effect = directory.plan(placing=True)[0]
    directory.reported(ONE, [])
    assert directory.owners[effect.partition] is not None
    assert effect.partition not in {other.partition for other in directory.plan(placing=True)}


def test_the_report_of_a_life_that_is_over_is_ignored() -> None:
    directory = placed(ONE_AGAIN)
    before = directory.all_rows()
    directory.reported(ONE, [(7, 99, 99)])
    assert directory.all_rows() == before


def test_what_was_asked_of_a_server_that_died_is_dropped_and_its_late_answer_ignored() -> None:
    directory = Directory(3, 3)
    directory.servers_are([ONE, TWO])
    for server in (ONE, TWO):
        directory.reported(server, [])
    late = next(effect for effect in directory.plan(placing=True) if effect.server == ONE)
    assert isinstance(late, Own)
    directory.servers_are([TWO])
    assert Own(TWO, late.partition, late.epoch, late.known) in directory.plan(placing=True)
    directory.claimed(late, True, late.epoch, late.epoch)
    assert directory.owners[late.partition] is None
    directory.claimed(Own(TWO, late.partition, late.epoch, late.known), False, late.epoch, late.epoch)
    assert directory.plan(placing=True) == [Own(TWO, late.partition, late.epoch + 1, late.epoch)]


def test_changes_are_told_once_and_only_those_that_have_an_owner() -> None:
    directory = placed(ONE, TWO)
    assert len(directory.changes()) == PARTITIONS
    assert directory.changes() == []
    directory.servers_are([TWO])
    assert directory.changes() == []
    moved = {effect.partition for effect in carry_out(directory)}
    assert {partition for partition, _ in directory.changes()} == moved


class Placement(RuleBasedStateMachine):
    """Servers come and go; each claims at a storage that grants only higher epochs. In the end all is at home."""

    PARTITIONS_SEEN = st.integers(0, PARTITIONS - 1)

    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory(3, 3)
        self.lives = 0
        self.living: dict[int, Server] = {}
        self.owned: dict[Server, dict[int, int]] = {}
        self.stored = dict.fromkeys(range(PARTITIONS), 0)
        self.asked: list[Own | Release] = []

    def tell(self) -> None:
        self.directory.servers_are(list(self.living.values()))

    @rule(number=st.integers(1, 4))
    def joins(self, number: int) -> None:
        self.lives += 1
        server = Server(number, b"%d" % self.lives, f"ipc:///run/{number}")
        self.living[number] = server
        self.owned[server] = {}
        self.tell()

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        del self.living[data.draw(st.sampled_from(sorted(self.living)))]
        self.tell()

    @rule()
    def the_cache_starts_again(self) -> None:
        self.directory = Directory(3, 3)
        self.asked = []
        self.tell()

    @rule()
    def all_report(self) -> None:
        for server in self.living.values():
            self.directory.reported(server, [(each, epoch, epoch) for each, epoch in self.owned[server].items()])

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def does_not_answer(self, data: st.DataObject) -> None:
        self.directory.silent(self.living[data.draw(st.sampled_from(sorted(self.living)))])

    @rule()
    def plan(self) -> None:
        self.asked += self.directory.plan(placing=True)

    @rule(fails=st.integers(0, 5))
    def what_was_asked_is_answered(self, fails: int) -> None:
        asked, self.asked = self.asked, []
        for place, effect in enumerate(asked):
            if effect.server not in self.living.values() or (fails and place % fails == 1):
                self.directory.failed(effect)
            elif isinstance(effect, Release):
                if self.owned[effect.server].get(effect.partition) == effect.epoch:
                    del self.owned[effect.server][effect.partition]
                self.directory.released(effect)
            else:
                assert effect.known <= self.stored[effect.partition], "else the right shard is taken for another one"
                granted = effect.epoch > self.stored[effect.partition]
                if granted:
                    self.stored[effect.partition] = effect.epoch
                    self.owned[effect.server][effect.partition] = effect.epoch
                stored = self.stored[effect.partition]
                self.directory.claimed(effect, granted, stored, stored)

    @rule(partition=PARTITIONS_SEEN)
    def a_server_is_refused_by_a_worker(self, partition: int) -> None:
        for server in self.living.values():
            if self.owned[server].get(partition, self.stored[partition]) != self.stored[partition]:
                del self.owned[server][partition]

    def teardown(self) -> None:
        if not self.living:
            self.joins(1)
        for _ in range(12):
            self.what_was_asked_is_answered(0)
            self.all_report()
            self.plan()
        assert self.asked == []
        for partition, owner in self.directory.all_rows():
            number = max({1, 2, 3, *self.living}, key=lambda number: rank(number, partition))
            first = number if number > 3 else first_homes(3, 3)[partition]
            home = first if first in self.living else max(self.living, key=lambda number: rank(number, partition))
            assert owner.server == self.living[home]
            assert owner.epoch == self.stored[partition] == self.owned[owner.server][partition]
        assert len(self.directory.all_rows()) == PARTITIONS


TestPlacement = Placement.TestCase
TestPlacement.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
