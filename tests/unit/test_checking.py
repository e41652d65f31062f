"""The checker of histories: it finds what is wrong, passes what is right, and agrees with trying every order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checking import Entry, Operation, check, load, save
from checking.bad import BAD
from checking.exhaustive import explained, perform
from checking.generate import Habits, Run, histories
from checking.good import GOOD, told, untold
from checking.ids import have_room
from checking.laws import Breaches
from checking.lives import narrowed
from checking.lookahead import Lookahead
from checking.search import Choice, Search, Verdict
from checking.steps import UNSEEN, Impossible, State, Step, chains_of, mark_of

SEEDS = st.integers(0, 1 << 32)
SMALL = Habits(
    7, clients=3, depth=3, unknown=0.15, casts=0.15, failed=0.1, resent=0.3, weights=(30, 5, 15, 15, 6, 3, 25, 6)
)
LARGE = Habits(300, clients=6, depth=3)
CLEARED = SMALL._replace(clients=4, unknown=0.3, casts=0.3, slowest=30, weights=(40, 10, 10, 10, 15, 5, 15, 8))
LIVED = Habits(
    8, clients=4, depth=3, unknown=0.2, casts=0.2, resent=0.3, slowest=40, weights=(45, 6, 8, 14, 12, 5, 26, 4)
)
"""Many lives of the list and many reads, all at once: which entry is of which life is to be found out."""
ALIKE = LIVED._replace(titles=3, weights=(40, 6, 20, 14, 6, 3, 26, 4))
"""Whose a title is can't be told."""
JAMMED = Habits(
    60, clients=8, depth=8, unknown=0.3, casts=0.3, resent=0.3, slowest=200, weights=(40, 6, 10, 10, 3, 3, 12, 8)
)
"""Everything is asked at once: what a stack under faults looks like to its clients."""
DOUBTFUL = ALIKE._replace(unknown=0.45, casts=0.3, weights=(30, 6, 20, 20, 5, 3, 10, 20))
"""What is known is little, and many counts and deletes ask."""
MISSED = JAMMED._replace(weights=(40, 6, 10, 12, 5, 4, 20, 8))
"""More is deleted, and cleared, and reads miss it."""
MISSED_SEEDS = (42, 87, 206, 236, 1569)
JAMMED_SEEDS = (73, 111, 122, 147, 206, 217, 258)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    report = check(GOOD[name])
    assert report.passed, str(report)
    assert not GOOD[name] or Breaches(GOOD[name]).all() == []
    assert set(judged_ahead(GOOD[name])) == {Verdict.EXPLAINED}
    assert set(judged_astray(GOOD[name], Random(0))) == {Verdict.EXPLAINED}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_a_violation_that_names_the_list_and_what_is_wrong(name: str) -> None:
    word, history = BAD[name]
    report = check(history)
    assert report.violations and not report.undecided
    assert any(word in violation.sentence for violation in report.violations), str(report)
    assert Verdict.EXPLAINED not in judged_ahead(history)
    for violation in report.violations:
        assert violation.list == "shared" and violation.operations
        assert all(operation in history for operation in violation.operations)


@pytest.mark.parametrize("name", [name for name in BAD if len(BAD[name][1]) <= 7])
def test_trying_every_order_finds_the_bad_samples_bad(name: str) -> None:
    assert not explained(BAD[name][1])


@pytest.mark.parametrize("name", [name for name in GOOD if len(GOOD[name]) <= 7])
def test_trying_every_order_finds_the_good_samples_good(name: str) -> None:
    assert explained(GOOD[name])


def test_lists_are_judged_each_for_itself() -> None:
    _, bad = BAD["an acknowledged add is lost"]
    good = [operation._replace(list="own") for operation in GOOD["every kind once"]]
    report = check([*good, *bad])
    assert report.lists == 2
    assert {violation.list for violation in report.violations} == {"shared"}


@given(SEEDS, st.sampled_from((SMALL, ALIKE)))
@settings(max_examples=300, deadline=None)
def test_what_happened_is_accepted(seed: int, habits: Habits) -> None:
    history = Run("list", seed, habits).history()
    assert explained(history)
    assert check(history).passed
    assert Breaches(history).all() == []


def test_what_would_change_nothing_and_was_told_nothing_is_not_tried() -> None:
    state = State()
    for operation in (
        untold("unknown", 1, 1, (0, 9), "clear"),
        untold("unknown", 1, 2, (0, 9), "delete", 1),
        untold("unknown", 1, 3, (0, 9), "update", 1, {"done": True}),
    ):
        assert state.effect(Step(operation, 0)) is None
    assert chains_of([untold("unknown", 1, 1, (0, 9), "entries")]) == []


def test_equal_marks_do_not_make_lists_equal() -> None:
    read = Step(told(1, 1, (0, 9), "entries", result=(Entry(1, "milk"),)), 0)
    state = State()
    state.mark = read.mark
    assert state.effect(read) is None


def test_a_title_that_nobody_saw_is_like_any_other() -> None:
    seen, unseen, other = (untold("unknown", 1, number, (0, 9), "add", f"{number}") for number in range(3))
    read = told(2, 1, (10, 19), "entries", result=(Entry(1, "0"),))
    chains = chains_of([seen, unseen, other, read])
    assert [step.titles for step in chains[0].steps] == [("0",), (UNSEEN,), (UNSEEN,)]


@given(st.lists(st.text("ab", max_size=3), min_size=2, max_size=2, unique=True), st.integers(1, 50), st.integers(1, 9))
def test_lists_in_which_two_entries_changed_places_have_other_marks(titles: list[str], first: int, more: int) -> None:
    one, other = ((title, False, None) for title in titles)
    second = first + more
    assert mark_of(first, one) + mark_of(second, other) != mark_of(first, other) + mark_of(second, one)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_what_happened_is_accepted_however_long_it_is(seed: int) -> None:
    history = Run("list", seed, LARGE).history()
    search = Search(chains_of(history))
    assert search.run(100_000) is Verdict.EXPLAINED
    assert Breaches(history).all() == []
    assert_gives_every_answer([step.operation for step in search.order()], history)


def assert_gives_every_answer(order: list[Operation], history: list[Operation]) -> None:
    """Check an order of effects against answers, real time and each client's order, with none of the checker's code."""
    assert len({(each.client, each.sequence) for each in order}) == len(order)
    assert all(each in history for each in order)
    assert all(each in order for each in history if each.outcome == "ok")
    todo: Any = (1, ())
    started = 0
    last: dict[Any, int] = {}
    last_change: dict[Any, int] = {}
    for operation in order:
        todo, answer = perform(todo, operation)
        assert operation.outcome != "failed"
        assert operation.outcome != "ok" or (answer == operation.result and operation.end >= started)
        assert operation.outcome == "ok" or operation.deadline is None or operation.deadline >= started
        started = max(started, operation.start)
        assert (last_change if operation.resent else last).get(operation.client, 0) < operation.sequence
        last[operation.client] = max(last.get(operation.client, 0), operation.sequence)
        if not operation.is_idle:
            last_change[operation.client] = operation.sequence


def without_an_entry(operation: Operation, random: Random) -> Operation:
    result = list(operation.result)
    if result:
        del result[random.randrange(len(result))]
    return operation._replace(result=tuple(result))


def with_a_changed_entry(operation: Operation, random: Random) -> Operation:
    result = list(operation.result)
    if result:
        place = random.randrange(len(result))
        entry = result[place]
        result[place] = random.choice(
            [entry._replace(done=not entry.done), entry._replace(title="list-1"), entry._replace(id=entry.id + 1)]
        )
    return operation._replace(result=tuple(result))


def with_an_entry_too_many(operation: Operation, random: Random) -> Operation:
    last = operation.result[-1].id if operation.result else 0
    title = random.choice([f"list-{number}" for number in range(1, 8)])
    return operation._replace(result=(*operation.result, Entry(last + random.randint(1, 2), title)))


def with_another_answer(operation: Operation, random: Random) -> Operation:
    if isinstance(operation.result, bool):
        return operation._replace(result=not operation.result)
    if isinstance(operation.result, int):
        return operation._replace(result=max(0, operation.result + random.choice([-1, 1])))
    return operation._replace(result=None) if operation.kind == "update" else operation


def with_another_outcome(operation: Operation, random: Random) -> Operation:
    outcome = random.choice(["failed", "unknown"])
    return operation._replace(outcome=outcome, result=None)  # type: ignore[arg-type]


def at_another_time(operation: Operation, random: Random) -> Operation:
    start = max(0, operation.start + random.randint(-8, 8))
    return operation._replace(start=start, end=start + random.randint(0, 3))


MUTATIONS: list[tuple[Callable[[Operation, Random], Operation], tuple[str, ...]]] = [
    (without_an_entry, ("entries",)),
    (with_a_changed_entry, ("entries",)),
    (with_an_entry_too_many, ("entries",)),
    (with_another_answer, ("add", "update", "delete", "size")),
    (with_another_outcome, ("add", "add_all", "update", "delete", "clear", "drop")),
    (at_another_time, ("add", "add_all", "update", "delete", "clear", "drop", "entries", "size")),
]


def mutated(history: list[Operation], random: Random) -> list[Operation]:
    """Return the history with something about it changed once or twice."""
    history = list(history)
    for _ in range(random.randint(1, 2)):
        mutate, kinds = random.choice(MUTATIONS)
        places = [place for place, each in enumerate(history) if each.outcome == "ok" and each.kind in kinds]
        if places:
            place = random.choice(places)
            history[place] = mutate(history[place], random)
    if random.random() < 0.2:
        one, other = random.sample(range(len(history)), 2)
        history[one], history[other] = (
            history[one]._replace(client=history[other].client, sequence=history[other].sequence),
            history[other]._replace(client=history[one].client, sequence=history[one].sequence),
        )
    return history


@given(SEEDS, st.sampled_from((SMALL, CLEARED, LIVED, ALIKE, DOUBTFUL)))
@settings(max_examples=1000, deadline=None)
def test_what_was_tampered_with_is_judged_as_trying_every_order_judges_it(seed: int, habits: Habits) -> None:
    random = Random(seed)
    history = mutated(Run("list", seed, habits).history(), random)
    report = check(history)
    assert not report.undecided
    assert report.passed == explained(history), str(report)
    if explained(history):
        assert Breaches(history).all() == []
        assert set(judged_ahead(history)) == set(judged_astray(history, random)) == {Verdict.EXPLAINED}
    else:
        assert Verdict.EXPLAINED not in judged_ahead(history)
        assert set(judged_astray(history, random)) == {Verdict.IMPOSSIBLE}


def judged_ahead(history: list[Operation]) -> list[Verdict]:
    """Search with narrowed times and a lookahead from the first step on; the checker does where a search takes long."""
    try:
        skeleton = Lookahead(history, 10_000, deletes=False)
        body = Lookahead(history, 10_000, deletes=True, ahead=Lookahead(history, 10_000, deletes=False))
        return [Search(narrowed(chains_of(history)), ahead).run(10_000) for ahead in (None, skeleton, body)]
    except Impossible:
        return [Verdict.IMPOSSIBLE]


class Astray(Search):
    """Tries in any order: what is likeliest hides what is not."""

    random: Random

    def _by_promise(self, certain: list[Choice], possible: list[Choice], observers: list[Step]) -> Iterator[Choice]:
        choices = [*super()._by_promise(certain, possible, observers)]
        self.random.shuffle(choices)
        return iter(choices)


def judged_astray(history: list[Operation], random: Random) -> list[Verdict]:
    """Search in any order, with times as they are and narrowed."""
    verdicts = []
    for narrow in (list, narrowed):
        try:
            search = Astray(narrow(chains_of(history)))
            search.random = random
            verdicts.append(search.run(100_000))
        except Impossible:
            verdicts.append(Verdict.IMPOSSIBLE)
    return verdicts


@pytest.mark.parametrize(
    ("habits", "seed"), [(CLEARED, 602), (ALIKE, 1216), (ALIKE, 5161), (DOUBTFUL, 6844), (DOUBTFUL, 7199)]
)
def test_what_misleads_a_search_that_lacks_a_rule_is_explained(habits: Habits, seed: int) -> None:
    history = Run("list", seed, habits).history()
    if seed % 2:
        history = mutated(history, Random(seed))
    for tries in range(10):
        assert set(judged_astray(history, Random(tries))) == {Verdict.EXPLAINED}


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_what_happened_is_never_impossible_however_much_was_open_at_once(seed: int) -> None:
    history = Run("list", seed, JAMMED).history()
    body = Lookahead(history, 1_000, deletes=True, ahead=Lookahead(history, 1_000, deletes=False))
    searches = [Search(narrowed(chains_of(history)), ahead) for ahead in (None, body)]
    for search in [Search(chains_of(history)), *searches]:
        verdict = search.run(1_000)
        assert verdict is not Verdict.IMPOSSIBLE
        if verdict is Verdict.EXPLAINED:
            assert_gives_every_answer([step.operation for step in search.order()], history)


@pytest.mark.parametrize("seed", JAMMED_SEEDS)
def test_a_lookahead_decides_what_the_plain_search_does_not(seed: int) -> None:
    history = Run("list", seed, JAMMED).history()
    assert Search(chains_of(history)).run(20_000) is Verdict.UNDECIDED
    assert check(history, bound=2_000).passed


@pytest.mark.parametrize("seed", MISSED_SEEDS)
def test_what_follows_from_lives_decides_what_a_lookahead_does_not(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    history = Run("list", seed, MISSED).history()
    assert check(history, bound=1_000).passed
    monkeypatch.setattr("checking.checker.narrowed", list)
    monkeypatch.setattr("checking.lookahead.narrowed", list)
    assert check(history, bound=1_000).undecided


def test_a_lookahead_that_may_try_nothing_more_says_that_all_can_be_finished() -> None:
    _, history = BAD["an acknowledged add is lost by the count"]
    assert not Lookahead(history, 100, deletes=False).can_finish()
    assert Lookahead(history, 0, deletes=False).can_finish()


@given(st.integers(1, 4), st.lists(st.integers(0, 2), max_size=4), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=500, deadline=None)
def test_ids_have_room_where_some_lives_of_the_list_give_them(
    next_id: int, counts: list[int], spare: int, clears: int
) -> None:
    wanted = [0, *counts]
    most = len(counts)
    # Where each life ends; the ids that lives give and nobody was told cost one of the spare each.
    fits = False
    for present, *later in product(range(next_id - 1, max(most, next_id - 1) + 1), *[range(most + 1)] * clears):
        given = Counter(range(next_id, present + 1)) + Counter(each for last in later for each in range(1, last + 1))
        enough = all(given[each] >= wanted[each] for each in range(1, most + 1))
        fits = fits or (enough and sum(given.values()) - sum(wanted) <= spare)
    assert have_room(next_id, wanted, spare, clears) == fits


def test_a_search_that_reaches_its_bound_says_so() -> None:
    history = [told(0, 1, (0, 9), "add", "milk", result=1), told(0, 2, (101, 109), "size", result=0)]
    for number in range(1, 40):
        done = bool(number % 2)
        history.append(told(number, 1, (10, 99), "update", 1, {"done": done}, result=Entry(1, "milk", done)))
        history.append(untold("unknown", 100 + number, 1, (10, 99), "update", 1, {"date": f"{number}"}))
    history.append(untold("unknown", 99, 1, (10, 99), "delete", 1))
    history.append(told(98, 1, (110, 119), "size", result=1))
    report = check(history, bound=100)
    assert not report.passed and not report.violations
    assert "bound" in report.undecided[0].sentence
    assert "UNDECIDED" in str(report)


def test_a_request_that_is_recorded_twice_is_not_a_history() -> None:
    with pytest.raises(ValueError, match="recorded twice"):
        check([told(1, 1, (0, 9), "add", "milk", result=1), told(1, 1, (10, 19), "add", "milk", result=1)])


def test_an_answer_before_its_question_is_not_a_history() -> None:
    with pytest.raises(ValueError, match="before it was sent"):
        check([told(1, 1, (9, 0), "add", "milk", result=1)])


def test_a_history_comes_back_from_its_file(tmp_path: Path) -> None:
    history = [*histories(2, 5, LARGE), *GOOD["every kind once"]]
    save(tmp_path / "history", history)
    assert list(load(tmp_path / "history")) == history
    shown = [each.result for each in load(tmp_path / "history") if each.kind == "update" and each.result]
    assert shown and all(isinstance(entry, Entry) for entry in shown)


def test_a_line_that_is_no_operation_is_named(tmp_path: Path) -> None:
    save(tmp_path / "history", GOOD["an unknown add happened"])
    with (tmp_path / "history").open("a") as file:
        file.write('["half a li')
    with pytest.raises(ValueError, match="line 3"):
        list(load(tmp_path / "history"))


def test_twenty_thousand_operations_are_judged_in_seconds() -> None:
    history = list(histories(20, 7, Habits(1000, clients=16, depth=1)))
    started = process_time()
    report = check(history)
    assert report.passed, str(report)
    assert process_time() - started < 20
