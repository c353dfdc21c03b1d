"""Fronts as what is looked for: their arithmetic by brute force, then what the search, verdict and files get."""

import random
from dataclasses import replace

import pytest

import edge_tune as et
from edge_tune.errors import ExperimentError
from edge_tune.objective import FrontOf
from edge_tune.objective_text import parse
from edge_tune.records import fronts
from edge_tune.records.choosing import rank, ranking_line
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record
from edge_tune.records.scoring import Scorer
from edge_tune.search.suggesters.protocol import Outcome
from tests.asked import sparsities
from tests.searching import finished, searching, study

Points = list[tuple[float, float]]


def drawn(seed: int, count: int = 60) -> Points:
    """Points of which some are equal, and some have one loss in common."""
    generator = random.Random(seed)
    return [(generator.randrange(12) / 4, generator.randrange(12) / 4) for _ in range(count)]


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@pytest.mark.parametrize("seed", range(20))
def test_front_numbers_are_those_of_peeling_off_front_after_front(seed: int) -> None:
    points = drawn(seed)
    expected, left, number = {}, set(points), 0
    while left:
        front = {point for point in left if not any(beats(other, point) for other in left)}
        expected |= dict.fromkeys(front, number)
        left, number = left - front, number + 1
    assert fronts.front_numbers(points) == [expected[point] for point in points]


@pytest.mark.parametrize("seed", range(20))
def test_a_contribution_is_the_area_that_is_lost_without_the_point(seed: int) -> None:
    points = [point for point in drawn(seed) if point in dict.fromkeys(drawn(seed))]
    front = [one for one, number in zip(points, fronts.front_numbers(points), strict=True) if number == 0]
    whole = cells(front)
    assert fronts.hypervolume(points, (3.0, 3.0)) == whole / 16
    for place, added in enumerate(fronts.contributions(front, (3.0, 3.0))):
        assert added == (whole - cells([*front[:place], *front[place + 1 :]])) / 16


def cells(points: Points) -> int:
    """Count the cells of a grid of quarters, up to 3, that some point beats."""
    return sum(any(4 * a <= x and 4 * b <= y for a, b in points) for x in range(12) for y in range(12))


def test_places_put_front_after_front_and_in_each_those_first_that_add_most() -> None:
    points = [(0.0, 1.0), (1.0, 0.0), (0.2, 0.2), (0.9, 0.15), (1.0, 1.0)]
    found = fronts.places(points)
    assert found[2] == 0
    assert sorted(found[:4]) == [0, 0.25, 0.5, 0.75]
    assert found[3] == 0.75
    assert found[4] == 1
    assert fronts.places([]) == []
    assert fronts.places([(1.0, 1.0)]) == [0]


def record(trial: int, ratio: float, top1: float, **changes: object) -> Record:
    metrics = {"latency_ratio": ratio, "top1": top1, "parameters": 1e6 * ratio}
    return Record(**{"trial": trial, "status": "finished", "metrics": metrics, **changes})  # type: ignore[arg-type]


UNPRUNED = record(0, 1.0, 90.0, baseline="unpruned")
STUDY = [
    record(2, 0.9, 89.0),
    record(3, 0.5, 86.0),
    record(4, 0.3, 60.0),
    record(5, 0.6, 80.0),  # beaten by 3
    record(6, 0.1, 88.0, status="stopped", stopped_by="asha"),
]
TARGET = parse("front of latency_ratio and top1")


def test_scores_of_a_front_depend_on_the_other_trials() -> None:
    scorer = Scorer(TARGET, [UNPRUNED])
    scores = scorer.scores(STUDY)
    assert scores[3].loss == 0
    assert [scores[trial].rank for trial in (2, 3, 4, 5, 6)] == [0, 0, 0, 0, 3]
    assert int(scores[2].loss) == int(scores[4].loss) == 0
    assert scores[5].loss == 1
    better = record(7, 0.25, 89.5)
    assert [int(score.loss) for trial, score in scorer.scores([*STUDY, better]).items() if trial < 6] == [1, 1, 1, 2]


def test_verdict_of_a_front_names_its_networks_and_the_knee() -> None:
    ranking = rank(TARGET, [UNPRUNED, *STUDY])
    assert [one.trial for one in ranking.front] == [4, 3, 2]
    assert ranking.best is STUDY[1]
    assert ranking_line(ranking) == (
        "front of latency_ratio and top1: 3 networks: trial_0004 (latency_ratio 0.3, top1 60), trial_0003 "
        "(latency_ratio 0.5, top1 86), trial_0002 (latency_ratio 0.9, top1 89). Chosen is the knee, trial_0003, "
        "latency_ratio 0.5, top1 86, score -0.4556 (unpruned: 0, less is better); 4 of 4 eligible trials meet it."
    )
    conditional = rank(parse("front of latency_ratio and top1 where parameters >= 550000"), [UNPRUNED, *STUDY])
    assert [one.trial for one in conditional.front] == [5, 2]


def test_weights_that_are_kept_are_those_of_the_front_that_is_asked_for() -> None:
    target = parse("front of parameters and top1 where latency_ratio <= 0.8")
    standing = Standing(target)
    light = [
        replace(one, metrics={**one.metrics, "parameters": 1e6 * parameters})
        for one, parameters in zip(STUDY, (0.1, 0.5, 0.3, 0.2, 0.1), strict=True)
    ]
    assert standing.add(light[0]) == []  # nobody knows yet what it is compared with
    assert standing.add(UNPRUNED) == [light[0]]
    assert [standing.add(one) for one in light[1:4]] == [[], [], [light[2]]]
    assert standing.add(light[4]) == [light[4]]
    assert [one.trial for one in standing.front] == [3, 5]
    assert [one.trial for one in standing.kept] == [0, standing.best.trial if standing.best else None, 3, 5]
    assert Standing(target, [UNPRUNED, *light], "best").kept == [UNPRUNED, standing.best]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("front latency_ratio", "after 'front' must come 'of', but got 'latency_ratio'"),
        ("front of speed and top1", "after 'of' must come a metric of .*, but got 'speed'"),
        ("front of top1 and top1", "after 'and' must come a metric of .* that is another, but got 'top1'"),
        ("front of top1", "after 'top1' must come 'and', but got the end"),
        ("front of top1 and macs and loss", "after 'macs' must come 'where', but got 'and'"),
    ],
)
def test_what_is_no_front_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        parse(text)


def test_front_is_read_with_conditions_and_directions() -> None:
    objective = parse("front of top1 and latency_ms where parameters <= 0.5 * unpruned")
    assert isinstance(objective.goal, FrontOf)
    assert objective.goal.goals == (et.Maximise("top1"), et.Minimise("latency_ms"))
    assert objective.metrics == ["top1", "latency_ms", "parameters"]


def on_front(one: Record) -> Record:
    """Latency falls with the first sparsity and top1 with the second one and, a little, with the first."""
    first, second = sparsities(one.point).values()
    metrics = {"latency_ratio": 1 - 0.8 * first, "top1": 90 - 40 * second - 20 * first**2, "latency_ms": 1.0}
    return replace(one, metrics=metrics)


def searched(target: str | et.Maximise, method: str = "hyperopt") -> list[Record]:
    one = study(trials=60, method=method, target=target, baselines={})
    searcher, records = searching(one, [UNPRUNED]), []
    for number in range(60):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        records.append(on_front(finished(config["trial"], config["point"], one)))
        searcher.end(records[-1])
    return records


def test_hyperopt_finds_more_of_a_front_than_random_points_do() -> None:
    def area(method: str) -> float:
        goal = TARGET.goal
        assert isinstance(goal, FrontOf)
        return fronts.hypervolume([goal.losses(one.metrics) for one in searched(TARGET.text, method)], (1.0, 0.0))

    assert area("hyperopt") > area("random")


def test_method_of_search_is_told_again_when_a_score_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = study(trials=60, target=TARGET.text, baselines={})
    searcher, told = searching(one, [UNPRUNED]), list[Outcome]()
    tell = searcher.suggester.tell
    monkeypatch.setattr(searcher.suggester, "tell", lambda point, outcome: (told.append(outcome), tell(point, outcome)))
    for number in range(12):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        searcher.end(on_front(finished(config["trial"], config["point"], one)))
    searcher.suggest("last")
    latest = {outcome.trial: outcome.score for outcome in told if outcome.record}
    records = {outcome.trial: outcome.record for outcome in told if outcome.record}
    assert latest == searcher.scorer.scores(list(records.values()))
    assert len([outcome for outcome in told if outcome.record]) > 12


def test_search_for_a_front_goes_on_with_the_very_points_when_it_is_resumed() -> None:
    whole = searched(TARGET.text)
    one = study(trials=60, target=TARGET.text, baselines={})
    resumed = searching(one, [UNPRUNED, *whole[:25]])
    for number in range(25, 40):
        config = resumed.suggest(str(number))
        assert isinstance(config, dict)
        assert config["point"] == whole[number].point
        resumed.end(whole[number])
