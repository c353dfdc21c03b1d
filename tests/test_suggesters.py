"""What every method of search must do. One of your own is tested by adding it to METHODS."""

import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import hyperopt
import pytest

import edge_tune as et
from edge_tune.errors import ExperimentError, StudyError
from edge_tune.experiment import METHODS as KNOWN
from edge_tune.parameters import Parameter, Point
from edge_tune.records.results import Record
from edge_tune.records.scoring import Score
from edge_tune.search import searcher as module
from edge_tune.search import suggesters
from edge_tune.search.suggesters import tpe
from edge_tune.search.suggesters.protocol import Outcome, Suggester
from tests.networks import experiment
from tests.searching import finished, run_on, searching, study

METHODS = [*KNOWN, "tests.exercises.halton:Halton"]
CHOICES: dict[str, Parameter] = {
    "a.sparsity": et.Choice([0.0, 0.25, 0.5, 0.75]),
    "b.keep": et.Integer(2, 8),
    "a.structure": et.Choice(["filters", "channels"]),
    "fixed": et.Choice(["one"]),
}
RANGES: dict[str, Parameter] = {**CHOICES, "b.sparsity": et.Uniform(0.0, 0.99), "recipe.lr": et.LogUniform(1e-4, 0.3)}
Make = Callable[..., Suggester]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(method: str, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make one of the method over CHOICES, and RANGES too if it takes them."""
    space = CHOICES if method == "grid" else RANGES

    def make(seed: int = 0, trials: int = 40) -> Suggester:
        monkeypatch.setattr(et.Experiment, "parameters", space)
        return suggesters.make(experiment(search=et.Search(method, trials=trials, seed=seed)))

    return make


def outcome(trial: int, point: Point, **changes: Any) -> Outcome:
    """How a trial ended: now and then it failed, or broke a condition; if not, the smaller its numbers the better."""
    loss = sum(value for value in point.values() if not isinstance(value, str))
    fate = random.Random(trial).random()
    record = Record(
        trial=trial, status="failed" if fate < 0.1 else "finished", metrics={"latency_ms": loss}, point=point
    )
    score = None if fate < 0.1 else Score(1, loss) if fate < 0.3 else Score(0, loss)
    return Outcome(**{"trial": trial, "record": record, "score": score, **changes})


def tell(suggester: Suggester, trial: int, point: Point, **changes: Any) -> None:
    """Tell that a trial began and how it ended."""
    suggester.tell(point, Outcome(trial=trial, **changes))
    suggester.tell(point, outcome(trial, point, **changes))


def run(suggester: Suggester, trials: int, first: int = 1) -> list[Point]:
    points = []
    for trial in range(first, first + trials):
        point = suggester.suggest()
        assert point is not None
        points.append(point)
        tell(suggester, trial, point)
    return points


def test_every_suggestion_is_a_point_of_the_space_and_json_can_hold_it(make: Make, method: str) -> None:
    space = CHOICES if method == "grid" else RANGES
    points = run(make(), 50)
    assert all(point.keys() == space.keys() for point in points)
    assert all(value in space[name] for point in points for name, value in point.items())
    assert {type(value) for point in points for value in point.values()} <= {float, int, str}
    assert len({tuple(point.values()) for point in points}) > 25


def test_the_seed_decides(make: Make) -> None:
    assert run(make(seed=4), 30) == run(make(seed=4), 30) != run(make(seed=5), 30)


def test_asked_again_it_suggests_the_same(make: Make) -> None:
    suggester = make()
    run(suggester, 12)
    assert suggester.suggest() == suggester.suggest()


@pytest.mark.parametrize("interrupted_after", [1, 11, 30])
def test_a_new_one_that_is_told_what_came_goes_on_with_the_very_points(make: Make, interrupted_after: int) -> None:
    whole = run(make(), 38)
    resumed = make()
    for trial, point in enumerate(whole[:interrupted_after], 1):
        tell(resumed, trial, point)
    assert run(resumed, 38 - interrupted_after, first=interrupted_after + 1) == whole[interrupted_after:]


def test_the_order_in_which_trials_end_does_not_matter(make: Make) -> None:
    at_once, in_order = make(), make()
    points = []
    for trial in range(1, 9):  # eight begin before one ends
        points.append(at_once.suggest())
        at_once.tell(points[-1], Outcome(trial=trial))
    for trial, point in random.Random(1).sample(list(enumerate(points, 1)), 8):
        at_once.tell(point, outcome(trial, point))
    for trial, point in enumerate(points, 1):
        tell(in_order, trial, point)
    assert at_once.suggest() == in_order.suggest()


def test_baselines_and_points_of_others_are_taken_and_do_not_count_as_suggestions(make: Make, method: str) -> None:
    suggester = make()
    known = suggester.suggest()
    assert known is not None
    tell(suggester, 1, known, is_baseline=True)
    first = suggester.suggest()
    assert first is not None
    if method != "hyperopt":  # which learns from it
        assert first == known
    tell(suggester, 2, {**first, "a.sparsity": 0.75})
    assert run(suggester, 10, first=3)


def test_what_failed_or_broke_a_condition_is_taken(make: Make) -> None:
    suggester = make()
    for trial in range(1, 40):
        point = suggester.suggest()
        assert point is not None
        suggester.tell(point, Outcome(trial=trial))
        record = Record(trial=trial, status="failed" if trial % 2 else "finished", point=point)
        score = None if trial % 2 else Score(1, float("inf"))
        suggester.tell(point, Outcome(trial=trial, record=record, score=score))


def test_what_a_suggestion_costs_grows_no_worse_than_linearly(make: Make) -> None:
    """Counted in calls of functions, which no other program on the host changes."""
    suggester, costs = make(trials=2000), {}
    points: list[Point] = []
    for trial in range(1, 49):
        points += run(suggester, 1, first=trial)
    for told in (48, 192, 768):
        for trial in range(len(points) + 1, told + 1):
            point = points[trial % 48]
            tell(suggester, trial, point)
            points.append(point)
        if suggester.suggest() is not None:  # a grid may be at its end
            costs[told] = calls(suggester.suggest)
    for few, many in itertools.pairwise(costs):
        assert costs[many] <= 1.1 * costs[few] * many / few + 1000


def calls(function: Callable[[], object]) -> int:
    """Return how many functions a call calls."""
    count = 0

    def hook(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(hook)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_a_grid_comes_to_its_end_after_each_point_once() -> None:
    grid = suggesters.KNOWN["grid"](CHOICES, seed=0, trials=100)
    points = run(grid, 4 * 7 * 2)
    assert len({tuple(point.values()) for point in points}) == 4 * 7 * 2
    assert grid.suggest() is None


def test_hyperopt_finds_small_losses_more_often_than_random() -> None:
    def sums(method: str) -> float:
        points = run(suggesters.KNOWN[method](RANGES, seed=1, trials=60), 60)[30:]
        return sum(float(value) for point in points for value in point.values() if not isinstance(value, str))

    assert sums("hyperopt") < 0.85 * sums("random")


def test_hyperopt_learns_nothing_of_a_parameter_that_made_no_difference() -> None:
    space: dict[str, Parameter] = {"a.keep": et.Integer(0, 1), "b.sparsity": et.Uniform(0.0, 0.9)}

    def suggestions(told: float, inactive: frozenset[str]) -> list[Point]:
        one = tpe.Tpe(space, seed=0, trials=20)
        for trial in range(1, 13):
            point = {"a.keep": trial % 2, "b.sparsity": 0.05 * trial if trial % 2 else told}
            outcome_ = outcome(trial, point)
            score = Score(0, float(trial % 2))  # without the block it is good, whatever the width was
            one.tell(point, Outcome(trial=trial))
            one.tell(point, replace(outcome_, score=score, inactive=frozenset() if trial % 2 else inactive))
        found = []
        for trial in range(13, 19):
            found.append(one.suggest())
            one.tell(found[-1], Outcome(trial=trial))  # type: ignore[arg-type]
        return found  # type: ignore[return-value]

    assert suggestions(0.1, frozenset({"b.sparsity"})) == suggestions(0.8, frozenset({"b.sparsity"}))
    assert suggestions(0.1, frozenset()) != suggestions(0.8, frozenset())


def test_hyperopt_looks_at_the_best_and_the_latest_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "OBSERVED", 20)
    monkeypatch.setattr(tpe, "BEST", 5)
    seen: list[list[int]] = []
    suggest = hyperopt.tpe.suggest
    monkeypatch.setattr(
        hyperopt.tpe,
        "suggest",
        lambda ids, domain, trials, *rest, **more: (
            seen.append(trials.tids) or suggest(ids, domain, trials, *rest, **more)
        ),
    )
    suggester = suggesters.KNOWN["hyperopt"](RANGES, seed=1, trials=60)
    points = run(suggester, 61)
    losses = {trial: outcome(trial, point).score for trial, point in enumerate(points[:60], 1)}
    ended = {trial: score.for_search for trial, score in losses.items() if score}
    best = sorted(ended, key=ended.__getitem__)[:5]
    others = [trial for trial in ended if trial not in best]
    assert seen[-1] == sorted([*best, *others[-15:]])


def test_a_study_is_searched_by_a_sampler_of_ones_own_and_resumed() -> None:
    one = study(method="tests.exercises.halton:Halton")
    whole = run_on(searching(one), one, 20)
    assert len({tuple(record.point.values()) for record in whole}) == 20
    assert run_on(searching(one, ended=whole[:7]), one, 13) == whole[7:]


class Broken:
    """Suggests what `point` is, or raises it."""

    is_exhaustive = False
    point: ClassVar[Any] = None

    def __init__(self, parameters: object, *, seed: int, trials: int) -> None:
        self.good = {name: parameter.default for name, parameter in parameters.items()}  # type: ignore[attr-defined]

    def suggest(self) -> Any:
        if isinstance(self.point, Exception):
            raise self.point
        return {**self.good, **self.point} if self.point else self.point

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Forget it."""


@pytest.mark.parametrize(
    ("point", "problem"),
    [
        (
            RuntimeError("no idea"),
            r"'tests.test_suggesters:Broken' must suggest a point, but raised RuntimeError: no idea",
        ),
        ({"first.sparsity": 1.5}, r"must suggest first.sparsity within Uniform\(.*\), but suggested 1.5"),
        ({"first.sparsity": float("nan")}, r"must suggest first.sparsity within Uniform\(.*\), but suggested nan"),
        ({"third.sparsity": 0.5}, r"must suggest a value for each of \['first.sparsity', .*\], but suggested {"),
    ],
)
def test_what_is_no_point_ends_the_search_in_a_sentence(
    point: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "point", point)
    one = study(method="tests.test_suggesters:Broken", baselines={})
    with pytest.raises(StudyError, match=problem):
        searching(one).suggest("a")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "no.such:Sampler",
            r"search method 'no.such:Sampler': 'no.such' must be importable, but got ModuleNotFoundError",
        ),
        ("tests.networks:nothing", r"tests.networks must define 'nothing'"),
        ("tests.networks:Small", r"must take \(parameters, seed=..., trials=...\) .*, but raised TypeError"),
        ("builtins:dict", r"must return a sampler with suggest\(\), tell\(point, outcome\) and is_exhaustive"),
    ],
)
def test_what_is_no_sampler_is_refused(name: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        suggesters.make(study(method=name))


class Same(Broken):
    """Says that it suggests each point once, and does not."""

    is_exhaustive = True
    point: ClassVar[Any] = {"first.sparsity": 0.5}


def test_a_sampler_that_repeats_itself_for_ever_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SKIPPED", 20)
    one = study(method="tests.test_suggesters:Same", baselines={})
    searcher = searching(one)
    assert len([record for record in run_on(searcher, one, 5) if record.same_as is None]) == 1
    assert searcher.exhausted is not None
    assert "20 points in a row gave networks that were tried" in searcher.exhausted


class Emptying(Broken):
    """Does with the points that it is told what it likes, and fails at the second outcome."""

    point: ClassVar[Any] = {"first.sparsity": 0.5}
    ended = 0

    def tell(self, point: Point, outcome: Outcome) -> None:
        point.clear()  # type: ignore[attr-defined]
        self.ended += outcome.record is not None
        if self.ended == 2:
            raise SystemExit(3)


def test_what_a_sampler_does_with_what_it_is_told_is_its_own_until_it_fails() -> None:
    one = study(method="tests.test_suggesters:Emptying", baselines={"half": {"first": 0.5, "second": 0.5}})
    searcher = searching(one)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    assert config["point"] == one.point({"first": 0.5, "second": 0.5})
    searcher.end(finished(1, config["point"], one))
    config = searcher.suggest("b")
    assert isinstance(config, dict)
    with pytest.raises(StudyError, match=r"Emptying' must take what is told of trial 2, but raised SystemExit: 3\."):
        searcher.end(finished(2, config["point"], one))
