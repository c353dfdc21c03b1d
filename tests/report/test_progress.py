import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from edge_tune.records.results import Record
from edge_tune.report import progress
from edge_tune.report.data import StudyData, read
from tests.studies import record, run, write_files, write_study


@pytest.fixture
def study(tmp_path: Path) -> StudyData:
    write_study(tmp_path, 60)
    return read([tmp_path])[0]


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def test_best_so_far_falls_at_every_better_trial_and_reaches_to_the_last(study: StudyData) -> None:
    expected, best = [], np.inf
    finished = [t for t in study.trials if t.status == "finished"]
    for trial in finished:
        if trial.metrics["latency_ratio"] < best:
            best = trial.metrics["latency_ratio"]
            expected.append((trial.trial, best))
    over_trials, over_time = traces(progress.over_what_was_spent([study], [2]), "best so far")
    steps = list(zip(over_trials.x, over_trials.y, strict=True))
    assert steps[: len(expected)] == [pytest.approx(step, rel=1e-6) for step in expected]
    assert steps[-1] == pytest.approx((study.trials[-1].trial, best), rel=1e-6)
    assert over_time.y.tolist() == over_trials.y.tolist()  # one after another, so the order is the same


def test_best_so_far_of_studies_of_one_target_has_the_same_axes(tmp_path: Path) -> None:
    for name, target in (("a", "latency_ratio"), ("b", "latency_ratio"), ("c", "latency_ms")):
        write_study(tmp_path / name, 10, target=target)
    for names, shared in (("ab", True), ("ac", False)):
        figure = progress.over_what_was_spent(read([tmp_path / name for name in names]), [2, 14])
        assert (next(figure.select_yaxes(row=1, col=1)).matches == "y3") == shared  # y3 is the second row's
        assert next(figure.select_xaxes(row=1, col=1)).matches == "x3"  # both rows: the same trials below each other


def at(trial: int, ratio: float, top1: float, *, ended: int, epoch: int = 2, **changes: Any) -> Record:
    one = record(trial, {"layer_1": 0.5}, "a", epochs=epoch)
    metrics = {**one.metrics, "latency_ratio": ratio, "top1": top1}
    return replace(one, metrics=metrics, ended_at=f"2026-11-25T12:0{ended}:00+00:00", **changes)


def studied(folder: Path, target: str, trials: list[Record]) -> StudyData:
    unpruned = at(0, 1.0, 90.0, ended=0, baseline="unpruned")
    folder.mkdir()
    write_files(folder, [unpruned], trials, epochs=2)
    entry = run(epochs=2)
    entry["identity"]["target"] = target
    (folder / "run.json").write_text(json.dumps(entry))
    return read([folder])[0]


FRONT = "front of latency_ratio and top1"
TRIALS = [
    at(1, 0.6, 80.0, ended=2),
    at(2, 0.5, 70.0, ended=1),
    at(3, 0.55, 60.0, ended=3),  # beaten by the second
    at(4, 0.4, 50.0, ended=4),
    at(5, 0.1, 99.0, ended=5, epoch=1, status="stopped", stopped_by="asha"),
]


def test_epochs_are_spent_in_the_order_in_which_trials_ended(tmp_path: Path) -> None:
    trials = [*TRIALS, at(6, 0.6, 80.0, ended=6, same_as=0)]  # took a baseline's record over
    assert studied(tmp_path / "a", FRONT, trials).columns.epochs_spent.tolist() == [4, 2, 6, 8, 9, 9]


def test_area_of_a_front_is_that_of_its_steps_in_percent_of_the_last(tmp_path: Path) -> None:
    study = studied(tmp_path / "a", FRONT, TRIALS)
    (areas,) = progress.front_areas([study])
    assert areas is not None
    # Latency from 0.4 to 1 and top1 from 50 to 90, each with a tenth beyond: up to 1.06 and down to 46.
    second = (1.06 - 0.5) * (70 - 46)
    first = second + (1.06 - 0.6) * (80 - 70)
    fourth = first + (0.5 - 0.4) * (50 - 46)
    assert areas == pytest.approx([100 * area / fourth for area in (first, second, first, fourth, fourth)])


def test_areas_of_studies_of_one_target_have_one_measure(tmp_path: Path) -> None:
    studies = [studied(tmp_path / name, FRONT, trials) for name, trials in (("a", TRIALS), ("b", TRIALS[1:3]))]
    whole, part = progress.front_areas(studies)
    assert whole is not None
    assert part is not None
    assert part[0] == pytest.approx(whole[1])
    assert whole[-1] == pytest.approx(100.0)


def test_trials_that_break_a_condition_are_shown_and_never_the_best(tmp_path: Path) -> None:
    study = studied(tmp_path / "a", "minimise latency_ratio where top1 >= unpruned - 15", TRIALS)
    figure = progress.over_what_was_spent([study], [1])
    assert traces(figure, "trial that may be best")[0].y == pytest.approx([0.6])
    assert traces(figure, "breaks a condition")[0].y == pytest.approx([0.5, 0.55, 0.4])
    assert traces(figure, "best so far")[0].x.tolist() == [4.0, 9.0]


@pytest.mark.parametrize(("hours", "title"), [(0.003, "seconds"), (0.5, "minutes"), (5, "hours")])
def test_time_has_the_unit_that_suits_it(study: StudyData, hours: float, title: str) -> None:
    vars(study)["columns"] = replace(study.columns, hours=study.columns.hours / study.columns.hours[-1] * hours)
    assert [axis.title for axis in progress.spent([study])] == ["trials", title]
