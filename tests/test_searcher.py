import random
from dataclasses import replace
from typing import Any

import pytest
from ray import cloudpickle

import edge_tune as et
from edge_tune.networks.pruning import digest, make_plan
from edge_tune.parameters import Point
from edge_tune.records.results import Planned, Record
from edge_tune.records.scoring import WORST
from edge_tune.search import searcher as module
from edge_tune.search.points import count_points
from edge_tune.search.searcher import Searcher
from tests.asked import asked, sparsities
from tests.networks import BLOCKS, small
from tests.searching import CHOICES, HALF, finished, run_on, searching, study
from tests.test_pruning import COUPLED

KINDS = ("filters", "channels")


def test_searcher_begins_with_the_baselines_and_numbers_from_one() -> None:
    records = run_on(searching(study()), study(), 4)
    assert [record.trial for record in records] == [1, 2, 3, 4]
    assert [record.baseline for record in records] == ["half", None, None, None]
    assert records[0].point == asked({"first": 0.5, "second": 0.5})


def test_searcher_suggestions_depend_on_the_seed() -> None:
    one, other = study(), replace(study(), search=et.Search("hyperopt", trials=40, seed=4))
    assert run_on(searching(one), one, 12) == run_on(searching(one), one, 12)
    assert run_on(searching(one), one, 3)[1:] != run_on(searching(other), other, 3)[1:]


@pytest.mark.parametrize("method", ["hyperopt", "random"])
@pytest.mark.parametrize("interrupted_after", [0, 1, 7, 30])
def test_searcher_resumed_goes_on_as_if_it_had_not_been_interrupted(method: str, interrupted_after: int) -> None:
    one = study(method=method, pruner_groups={**BLOCKS, "second": CHOICES["second"]}, baselines=HALF)
    whole = run_on(searching(one), one, 38)
    resumed = searching(one, ended=whole[:interrupted_after])
    assert run_on(resumed, one, 38 - interrupted_after) == whole[interrupted_after:]


def test_searcher_runs_unfinished_points_again_under_their_numbers() -> None:
    one = study()
    whole = run_on(searching(one), one, 8)
    left = whole.pop(4)
    resumed = searching(one, whole, {left.trial: left.point})
    again, new = run_on(resumed, one, 2)
    assert again == left
    assert new.trial == 9
    assert new.point not in [record.point for record in (*whole, left)]


def test_searcher_suggests_a_lost_trial_again_before_any_new_one() -> None:
    one = study()
    undisturbed = run_on(searching(one), one, 5)
    searcher = searching(one)
    run_on(searcher, one, 2)
    config = searcher.suggest("lost")
    assert isinstance(config, dict)
    searcher.on_trial_complete("lost", error=True)
    searcher.run_again(config)
    again = searcher.suggest("again")
    assert (config["trial"], config["attempt"]) == (3, 1)
    assert again == {**config, "attempt": 2}
    record = finished(again["trial"], again["point"], one)
    searcher.end(record)
    assert [record, *run_on(searcher, one, 2)] == undisturbed[2:]  # for HyperOpt, nothing happened


def test_searcher_ends_when_all_trials_have_ended_and_not_before() -> None:
    one = study(trials=2)
    searcher = searching(one)
    configs = {name: searcher.suggest(name) for name in ("a", "b", "c")}
    assert [config["trial"] for config in configs.values()] == [1, 2, 3]
    assert searcher.suggest("d") is None
    for name in ("a", "b"):
        searcher.end(finished(configs[name]["trial"], configs[name]["point"], one))
    searcher.on_trial_complete("c", error=True)
    searcher.run_again(configs["c"])
    assert searcher.suggest("e")["attempt"] == 2
    searcher.end(finished(3, configs["c"]["point"], one, status="failed", metrics={}))
    assert searcher.suggest("f") == Searcher.FINISHED


def test_searcher_finds_the_bottom_of_a_bowl_better_than_random() -> None:
    best = {}
    for method in ("hyperopt", "random"):
        one = study(trials=60, method=method)
        best[method] = min(record.metrics["latency_ms"] for record in run_on(searching(one), one, 61))
    assert best["hyperopt"] < best["random"]


def test_searcher_tries_the_unpruned_network_after_the_baselines_and_tells_no_method_of_it() -> None:
    one = study(trials=2, retraining=et.Retraining(epochs=1, lr=0.1))
    searcher = searching(one)
    first, second, third = (searcher.suggest(name) for name in "abc")
    assert [config["point"] for config in (first, second)] == [one.point(one.baselines["half"]), {}]  # type: ignore[index]
    assert third["trial"] == 3  # type: ignore[index]
    searcher.end(finished(2, {}, one, metrics={"latency_ms": 1.0, "top1": 90.0}))
    assert sorted(searcher.suggester.documents) == [1, 3]  # type: ignore[attr-defined]


def test_searcher_takes_the_retrained_unpruned_network_for_a_point_that_removes_nothing() -> None:
    nothing = {"first": 0.0, "second": 0.0}
    choices = {label: replace(group, sparsity=et.Choice([0.0, 0.5])) for label, group in BLOCKS.items()}
    recipe = et.Retraining(epochs=1, lr=0.1)
    one = study(trials=4, method="grid", pruner_groups=choices, baselines={}, retraining=recipe)
    searcher = searching(one, planner=PlansOfSmall(one, None))
    config: Any = searcher.suggest("a")
    assert config["point"] == {}
    record = finished(1, {}, one, metrics={"latency_ms": 1.0, "top1": 90.0})
    searcher.end(record)
    seen = [searcher.suggest(str(number)) for number in range(4)]
    assert asked(nothing) not in [its["point"] for its in seen if isinstance(its, dict)]
    (taken,) = searcher.take_news()[1]
    assert (taken.point, taken.same_as, taken.metrics) == (asked(nothing), 1, record.metrics)


def test_searcher_is_told_that_a_trial_that_diverged_is_worse_than_any_other_and_nothing_of_one_that_failed() -> None:
    one = study(trials=3, baselines={})
    for reason, is_told in (("RetrainingError: the loss is nan", True), ("BenchmarkError: no stick", False)):
        searcher = searching(one)
        config: Any = searcher.suggest("a")
        searcher.end(finished(config["trial"], config["point"], one, status="failed", reason=reason))
        documents = searcher.suggester.documents
        assert list(documents) == ([config["trial"]] if is_told else [])
        assert all(document["result"]["loss"] >= WORST for document in documents.values())


def test_searcher_keeps_away_from_where_networks_collapse() -> None:
    """The best latency lies at 0.3, below the 0.5 where networks collapse: only the penalty tells."""
    one, late = study(trials=60), {True: 0, False: 0}
    for collapses in late:
        searcher = searching(one)
        for number in range(61):
            point = searcher.suggest(str(number))["point"]
            below = point["first.sparsity"] < 0.5
            record = finished(number + 1, point, one, collapsed="one class" if below and collapses else None)
            searcher.end(record)
            late[collapses] += below and number > 30
    assert late[True] < 0.7 * late[False]


def test_searcher_tries_a_grid_in_the_order_of_its_seed_after_the_baselines() -> None:
    one = study(trials=100, method="grid", pruner_groups=CHOICES, baselines=HALF)
    records = run_on(searching(one), one, 100)
    points = [tuple(record.point.values())[:4] for record in records[1:]]
    every = [(a, b, c, d) for a in (0.0, 0.5, 0.9) for b in (0.0, 0.5, 0.9) for c in KINDS for d in KINDS]
    random.Random(3).shuffle(every)
    assert points == every
    (repeat,) = [record for record in records if record.same_as is not None]
    assert (repeat.same_as, repeat.point) == (1, asked(HALF["half"]))


def test_searcher_tries_few_points_of_a_grid_that_is_too_large_to_list() -> None:
    groups = {
        f"group_{n}": et.PrunerGroup("filters", [f"w{n}"], sparsity=et.Choice([i / 100 for i in range(100)]))
        for n in range(5)
    }
    one = study(trials=2, method="grid", pruner_groups=groups, baselines={})
    assert count_points(one.parameters) == 10**10
    assert module.count_trials(one) == 2
    searcher = searching(one)
    first, second = (searcher.suggest(name) for name in ("a", "b"))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["trial"], second["trial"]) == (1, 2)
    assert first["point"] != second["point"]


class PlansOfSmall:
    """The plans of a network whose weights have 8 filters; it says that there are `size`."""

    def __init__(self, one: et.Experiment, size: int | None) -> None:
        self.groups, self.size, self.network = one.pruner_groups, size, small(10)

    def __call__(self, point: Point, *, is_baseline: bool) -> Planned:
        plan = make_plan(self.network, self.groups, point, COUPLED)
        return Planned(digest(plan), plan)

    def digest(self, record: Record) -> str:
        return self(record.point, is_baseline=False).digest

    def count(self) -> int | None:
        return self.size

    def shape(self) -> None:
        """Nobody asks."""

    def importances(self, label: str, structure: str, importance: str) -> Any:
        """Nobody asks for these either."""


def narrow(low: float = 0.0, high: float = 0.3) -> dict[str, et.PrunerGroup]:
    """Groups of 8 filters each, of which up to 2 go: 3 x 3 networks."""
    return {label: et.PrunerGroup("filters", BLOCKS[label].weights, sparsity=et.Uniform(low, high)) for label in BLOCKS}


def kept(record: Record) -> tuple[int, ...]:
    """The filters that stay, worked out from the sparsities."""
    return tuple(8 - int(sparsity * 8) for sparsity in sparsities(record.point).values())


@pytest.mark.parametrize("method", ["hyperopt", "random"])
@pytest.mark.parametrize("size", [9, None])
def test_searcher_tries_each_network_of_a_small_space_once_and_then_ends(method: str, size: int | None) -> None:
    one = study(trials=40, method=method, pruner_groups=narrow(), baselines={})
    searcher = searching(one, planner=PlansOfSmall(one, size))
    records = run_on(searcher, one, 40)
    own = [record for record in records if record.same_as is None]
    assert sorted(map(kept, own)) == [(a, b) for a in (6, 7, 8) for b in (6, 7, 8)]
    assert searcher.exhausted is not None
    expected = "9 in all" if size else "each of 200 points drawn at random gave a network that was tried"
    assert expected in searcher.exhausted
    assert [record.trial for record in records] == list(range(1, len(records) + 1))


def test_record_that_is_taken_over_is_that_of_the_equal_network_at_the_own_point() -> None:
    one = study(trials=40, pruner_groups=narrow(), baselines={})
    records = run_on(searching(one, planner=PlansOfSmall(one, 9)), one, 40)
    repeats = [record for record in records if record.same_as is not None]
    assert repeats
    by_number = {record.trial: record for record in records}
    for repeat in repeats:
        original = by_number[repeat.same_as or 0]
        assert original.same_as is None
        assert kept(repeat) == kept(original)
        assert repeat.metrics == original.metrics
        assert repeat.point != original.point
        assert [cut.sparsity for cut in repeat.plan] == list(sparsities(repeat.point).values())
        assert not repeat.seconds


@pytest.mark.parametrize("method", ["hyperopt", "random", "grid"])
@pytest.mark.parametrize("interrupted_after", [1, 5, 12, 20])
def test_searcher_resumed_among_repeats_goes_on_as_if_it_had_not_been_interrupted(
    method: str, interrupted_after: int
) -> None:
    values = et.Choice([i / 20 for i in range(8)])
    grid = {label: et.PrunerGroup("filters", BLOCKS[label].weights, sparsity=values) for label in BLOCKS}
    groups = grid if method == "grid" else narrow()
    one = study(trials=40, method=method, pruner_groups=groups, baselines={"some": {"first": 0.2, "second": 0.2}})
    whole = run_on(searching(one, planner=PlansOfSmall(one, None)), one, 41)
    assert sum(record.same_as is not None for record in whole) > 5
    resumed = searching(one, ended=whole[:interrupted_after], planner=PlansOfSmall(one, None))
    assert [point_of(one) for one in run_on(resumed, one, 41)] == [point_of(one) for one in whole[interrupted_after:]]


def point_of(record: Record) -> tuple[object, ...]:
    """What a suggestion decides, without the time."""
    return record.trial, record.same_as, dict(record.point)


def test_trial_whose_network_is_tried_now_waits_for_its_record() -> None:
    one = study(trials=3, pruner_groups=narrow(0.0, 0.1), baselines={})  # up to 0.1 of 8 filters: none goes
    searcher = searching(one, planner=PlansOfSmall(one, None))
    first = searcher.suggest("a")
    assert isinstance(first, dict)
    assert searcher.suggest("b") is None
    waits, repeats = searcher.take_news()
    assert {wait.of for wait in waits} == {1}
    assert repeats == []
    searcher.end(finished(1, first["point"], one))
    assert [(record.trial, record.same_as) for record in searcher.take_news()[1]] == [(wait.trial, 1) for wait in waits]
    assert searcher.suggest("c") == Searcher.FINISHED


def test_trial_that_waited_when_the_study_was_killed_waits_again() -> None:
    one = study(trials=3, pruner_groups=narrow(0.0, 0.1), baselines={})
    searcher = searching(one, planner=PlansOfSmall(one, None))
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    searcher.suggest("b")
    (wait, *_), _ = searcher.take_news()
    unfinished = {1: config["point"], wait.trial: wait.point}
    resumed = searching(one, (), unfinished, planner=PlansOfSmall(one, None))
    again = resumed.suggest("c")
    assert isinstance(again, dict)
    assert again["trial"] == 1
    resumed.suggest("d")
    assert resumed.take_news()[0][0] == wait


def test_failed_trial_is_not_run_again_by_an_equal_point() -> None:
    one = study(trials=3, pruner_groups=narrow(0.0, 0.1), baselines={})
    searcher = searching(one, planner=PlansOfSmall(one, 1))
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    searcher.end(finished(1, config["point"], one, status="failed", reason="no stick."))
    assert searcher.suggest("b") == Searcher.FINISHED
    assert searcher.exhausted is not None


def test_ray_tune_can_write_a_searcher_down_and_gets_nothing_of_it() -> None:
    one = study(trials=40, method="grid", pruner_groups=CHOICES, baselines=HALF)
    assert len(cloudpickle.dumps(searching(one))) < 1000


@pytest.mark.parametrize("method", ["hyperopt", "latency_aware", "random", "tests.exercises.halton:Halton"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (et.Uniform(0.0, 0.9), et.Uniform(0.2, 0.7)),
        (et.Uniform(0.2, 0.7), et.Uniform(0.0, 0.9)),
        (et.Uniform(0.0, 0.9), et.Choice([0.1, 0.3, 0.45, 0.6])),
        (et.Choice([0.0, 0.3, 0.6, 0.9]), et.Choice([0.25, 0.3, 0.35, 0.4, 0.5, 0.6])),
    ],
)
def test_searcher_goes_on_within_other_ranges_with_what_lies_outside_as_observed(
    method: str, before: et.Uniform | et.Choice, after: et.Uniform | et.Choice
) -> None:
    def within(sparsity: et.Uniform | et.Choice) -> et.Experiment:
        groups = {label: replace(group, sparsity=sparsity) for label, group in BLOCKS.items()}
        return study(trials=24, method=method, pruner_groups=groups, baselines={})

    ended = run_on(searching(within(before)), within(before), 8)
    one = within(after)
    records = run_on(searching(one, ended), one, 10)
    assert [record.trial for record in records] == list(range(ended[-1].trial + 1, records[-1].trial + 1))
    assert all(value in after for record in records for value in sparsities(record.point).values())
    assert {type(value) for record in records for value in sparsities(record.point).values()} == {float}
    resumed = run_on(searching(one, [*ended, *records[:4]]), one, 3)
    assert [(record.trial, record.point) for record in resumed] == [
        (record.trial, record.point) for record in records[4 : 4 + len(resumed)]
    ]


def test_hyperopt_learns_from_points_outside_of_a_range() -> None:
    groups = {label: replace(group, sparsity=et.Uniform(0.2, 0.5)) for label, group in BLOCKS.items()}
    one = study(trials=24, method="hyperopt", pruner_groups=groups, baselines={})
    wide = study(trials=24, method="hyperopt", baselines={})
    ended = run_on(searching(wide), wide, 12)
    without = [replace(record, status="failed") for record in ended]
    assert run_on(searching(one, ended), one, 3) != run_on(searching(one, without), one, 3)
