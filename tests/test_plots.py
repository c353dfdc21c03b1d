import math
from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import edge_tune as et
from edge_tune.display import plots
from edge_tune.objective import Goal, Objective
from edge_tune.objective_text import parse
from edge_tune.records.results import Record
from edge_tune.records.scoring import Scorer


def record(trial: int, latency_ratio: float, top1: float, **changes: object) -> Record:
    metrics = {"latency_ms": 2 * latency_ratio, "latency_ratio": latency_ratio, "top1": top1}
    return Record(**{"trial": trial, "status": "finished", "metrics": metrics, **changes})  # type: ignore[arg-type]


UNPRUNED, HALF = record(0, 1.0, 90.0, baseline="unpruned"), record(1, 0.7, 80.0, baseline="half")
FAST, BEATEN, GOOD = record(2, 0.5, 60.0), record(3, 0.6, 55.0), record(5, 0.8, 85.0)
STOPPED = record(4, 0.4, 20.0, status="stopped", stopped_by="asha")
TRIALS = [FAST, BEATEN, STOPPED, GOOD]


def scorer(goal: Goal) -> Scorer:
    return Scorer(Objective.of(goal))


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Label -> the points that stand under it in the legend."""
    scattered = {
        str(dots.get_label()): [tuple(map(float, xy)) for xy in dots.get_offsets()] for dots in axes.collections
    }
    lines = {str(line.get_label()): [tuple(map(float, xy)) for xy in line.get_xydata()] for line in axes.lines}
    return {**scattered, **lines}  # type: ignore[dict-item]


def test_draw_front_shows_every_trial_the_front_and_the_baselines(axes: Axes) -> None:
    plots.draw_front(axes, TRIALS, [UNPRUNED, HALF])
    assert points(axes) == {
        "stopped or at chance (1)": [(0.4, 20.0)],
        "trials (3)": [(0.5, 60.0), (0.6, 55.0), (0.8, 85.0)],
        "Pareto front (2)": [(0.5, 60.0), (0.8, 85.0)],
        "unpruned": [(1.0, 90.0)],
        "half": [(0.7, 80.0)],
    }


def test_draw_best_so_far_goes_by_the_number_of_the_trial(axes: Axes) -> None:
    plots.draw_best_so_far(axes, [GOOD, BEATEN, FAST], [HALF], scorer(et.Maximise("top1")))
    shown = points(axes)
    assert shown["finished trials"] == [(2.0, 60.0), (3.0, 55.0), (5.0, 85.0)]
    assert shown["best so far"] == [(2.0, 60.0), (3.0, 60.0), (5.0, 85.0)]
    assert shown["half"] == [(0.0, 80.0), (1.0, 80.0)]  # across the whole width


def test_best_so_far_keeps_the_direction_of_the_goal() -> None:
    trials = [record(number, 1.0, top1) for number, top1 in enumerate((3.0, 4.0, 1.0, 2.0), 2)]
    assert plots.best_so_far(trials, scorer(et.Minimise("top1"))) == [3.0, 3.0, 1.0, 1.0]
    assert plots.best_so_far(trials, scorer(et.Maximise("top1"))) == [3.0, 4.0, 4.0, 4.0]
    assert plots.best_so_far([], scorer(et.Maximise("top1"))) == []


def test_best_so_far_begins_with_the_first_that_meets_the_conditions() -> None:
    conditional = Scorer(parse("minimise latency_ratio where top1 >= unpruned - 31"), [UNPRUNED])
    assert plots.best_so_far([BEATEN, FAST, GOOD], conditional)[1:] == [0.5, 0.5]
    assert math.isnan(plots.best_so_far([BEATEN], conditional)[0])


def test_draw_latencies_counts_every_trial(axes: Axes) -> None:
    plots.draw_latencies(axes, TRIALS, [UNPRUNED])
    assert sum(bar.get_height() for bar in axes.patches) == len(TRIALS)  # type: ignore[attr-defined]
    assert points(axes)["unpruned"][0][0] == 1.0


def test_pictures_show_what_there_is() -> None:
    every = ["1_pareto_front", "2_best_so_far", "3_latencies"]
    target = Objective.of(et.Minimise("latency_ratio"))
    shown = plots.pictures([UNPRUNED, HALF, *TRIALS], target)
    assert list(shown) == every
    assert {picture.shape for picture in shown.values()} == {(780, 960, 3)}
    assert list(plots.pictures([UNPRUNED, STOPPED], target)) == ["1_pareto_front", "3_latencies"]
    assert plots.pictures([UNPRUNED, Record(trial=2, status="failed")], target) == {}
    assert list(plots.pictures([replace(GOOD, metrics={"top1": 9.0})], Objective.of(et.Maximise("top1")))) == [
        "2_best_so_far"
    ]
