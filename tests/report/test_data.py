import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge_tune.errors import ExperimentError
from edge_tune.objective_text import parse
from edge_tune.records.endings import IN_WORDS, RULES, ending, ending_text
from edge_tune.records.entries import Ratio
from edge_tune.records.results import Record
from edge_tune.report import data
from edge_tune.report.style import ENDING_COLORS, MARKS
from tests.studies import evidence, record, run, write_files, write_study


def test_read_gives_the_records_as_columns(tmp_path: Path) -> None:
    trials = write_study(tmp_path / "study", 40)
    (study,) = data.read([tmp_path / "study"])
    assert study.label == "study"
    assert [one.to_json() for one in study.trials] == [one.to_json() for one in trials]
    columns = study.columns
    for row, trial in enumerate(trials):
        assert columns.trial[row] == trial.trial
        assert columns.parameters["layer_1.sparsity"][row] == trial.point["layer_1.sparsity"]
        expected = trial.metrics.get("top1", math.nan)
        assert columns.metric("top1")[row] == pytest.approx(expected, nan_ok=True)
        assert columns.eligible[row] == (trial.status == "finished")
    assert np.isnan(columns.metric("unheard_of")).all()


def test_final_metrics_are_those_of_trials_that_ran_to_their_end(tmp_path: Path) -> None:
    trials = write_study(tmp_path, 40)
    columns = data.read([tmp_path])[0].columns
    known = np.isfinite(columns.final("top1"))
    assert known.tolist() == [trial.status == "finished" for trial in trials]


def test_front_and_better_in_both_agree_with_brute_force(tmp_path: Path) -> None:
    write_study(tmp_path, 60)
    (study,) = data.read([tmp_path])
    able = [t for t in study.trials if t.status == "finished"]

    def figures(one: Record) -> tuple[float, float]:
        return one.metrics["latency_ratio"], -one.metrics["top1"]

    def beaten(one: Record, by: Record) -> bool:
        return figures(by) != figures(one) and all(b <= a for a, b in zip(figures(one), figures(by), strict=True))

    expected = sorted((t for t in able if not any(beaten(t, o) for o in able)), key=figures)
    assert study.front == expected
    (schedule,) = study.known_schedules
    both = [t for t in able if all(a < b for a, b in zip(figures(t), figures(schedule), strict=True))]
    assert study.better_in_both(schedule) == sorted(both, key=figures)
    assert study.better_in_both(Record(trial=1, baseline="unmeasured")) == []


def test_chosen_follows_the_target_and_then_the_objective(tmp_path: Path) -> None:
    trials = [record(n, {"layer_1": s, "layer_2": s}, "a") for n, s in ((2, 0.2), (3, 0.8), (4, 0.5))]
    write_files(tmp_path, [record(0, {}, "a", baseline="unpruned")], trials)
    assert data.read([tmp_path])[0].chosen == trials[1]
    (study,) = data.read([tmp_path], parse("maximise top1"))
    assert study.chosen == trials[0]
    assert data.read([tmp_path], parse("minimise latency_ratio where top1 >= 99"))[0].chosen is None
    with pytest.raises(ExperimentError, match=r"a metric must be one that the trials recorded, .* but got 'speed'"):
        assert data.read([tmp_path], parse("minimise speed"))[0].chosen


def test_read_takes_missing_and_extra_fields_and_an_unfinished_line(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write(json.dumps({"trial": 90}) + "\n")
        file.write(json.dumps({"trial": 91, "status": "finished", "metrics": {"top1": "much"}, "news": [1]}) + "\n")
        file.write(json.dumps({"trial": 92, "status": "stopped", "stopped_by": "time_limit", "metrics": None}) + "\n")
        file.write('{"trial": 93, "status": "fin')
    (study,) = data.read([tmp_path])
    assert [trial.trial for trial in study.trials] == [2, 3, 4, 90, 92]
    much, cut = study.problems
    assert "trials.jsonl:5: must hold what a study wrote there, but got: expected `int | float`, got `str`" in much
    assert "trials.jsonl:7: must hold what a study wrote there, but got: input data was truncated; left out." in cut
    assert study.columns.ending[-1] == "time_limit"
    assert np.isnan(study.columns.metric("top1")[-2:]).all()


def test_read_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"must be the results folder of a study, but holds no run.json; give"):
        data.read([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "run.json: must hold what .* but got: input data was truncated"),
        ('{"form": 2}', "run.json: a stored target must be a Minimise or Maximise"),
    ],
)
def test_read_refuses_a_run_that_it_cannot_make_sense_of(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ExperimentError, match=problem):
        data.read([tmp_path])


def test_labels_tell_studies_of_one_name_apart(tmp_path: Path) -> None:
    for folder in ("a/study", "b/study", "b/other"):
        write_study(tmp_path / folder, 1)
    assert [study.label for study in data.read([tmp_path / "a/study", tmp_path / "b/other"])] == ["study", "other"]
    alike = [tmp_path / "a/study", tmp_path / "b/study"]
    assert [study.label for study in data.read(alike)] == [str(folder) for folder in alike]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Record(trial=1, status="finished"), "finished"),
        (Record(trial=1, status="finished", collapsed="why"), "finished, but no better than chance"),
        (Record(trial=1, status="stopped", stopped_by="hopeless"), "stopped as hopeless"),
        (Record(trial=1, status="stopped", stopped_by="time_limit"), "stopped by its time limit"),
        (Record(trial=1, status="stopped", stopped_by="another"), "stopped by another"),  # type: ignore[arg-type]
        (Record(trial=1, status="stopped"), "stopped"),
        (Record(trial=1, status="failed"), "failed"),
    ],
)
def test_ending_is_said_in_words(one: Record, expected: str) -> None:
    assert ending_text(ending(one)) == expected


def test_interval_is_that_of_the_last_measurement() -> None:
    stages = {
        "pruned": evidence(ratios={"latency_ratio": {"ratio": 0.5, "low": 0.4, "high": 0.6}}),
        "retrained": evidence(ratios={"latency_ratio": {"ratio": 0.7, "low": 0.6, "high": 0.8}}),
    }
    one = Record(trial=1, measurements=stages)
    assert data.interval(one, "latency_ratio") == Ratio(0.7, 0.6, 0.8)
    assert data.interval(one, "latency_ratio", "pruned") == Ratio(0.5, 0.4, 0.6)
    assert data.interval(one, "total_latency_ratio") is None
    assert data.interval(Record(trial=1, measurements={"pruned": evidence()}), "latency_ratio") is None


def test_empty_study_has_no_choice(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run()))
    (study,) = data.read([tmp_path])
    assert (study.chosen, study.front, study.unpruned, study.retrained) == (None, [], None, False)
    assert not len(study.columns.metric("top1"))


def test_every_ending_is_drawn() -> None:
    assert IN_WORDS.keys() == ENDING_COLORS.keys()
    assert IN_WORDS.keys() - {"failed"} == MARKS.keys()  # a trial that failed has no figures
    assert set(RULES) <= IN_WORDS.keys()
