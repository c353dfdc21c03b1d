import json
from dataclasses import replace
from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.objective import Objective
from edge_tune.records.choosing import rank
from edge_tune.records.jsonfiles import plain
from edge_tune.records.results import Results
from edge_tune.records.verdict import Row, Verdict, read_verdict, row_of, rows_of, verdict_of, with_test_figures
from tests.studies import record

UNPRUNED = record(0, {}, "a", baseline="unpruned")
HALF = record(1, {"layer_1": 0.5, "layer_2": 0.5}, "a", baseline="half", epochs=2)
CHOSEN = record(2, {"layer_1": 0.7, "layer_2": 0.7}, "a", epochs=2)
FAILED = record(3, {"layer_1": 0.9, "layer_2": 0.9}, "a", baseline="most", status="failed")


def test_rows_are_the_baselines_before_and_after_retraining_and_the_chosen_network() -> None:
    rows = rows_of([UNPRUNED, HALF, FAILED], CHOSEN)
    assert [(row.name, row.key) for row in rows] == [
        ("unpruned", (0, 0)),
        ("half, not retrained", (1, 0)),
        ("half, 2 epochs", (1, 2)),
        ("best: trial_0002", (2, 2)),
    ]
    assert [row.metrics for row in rows[1:]] == [HALF.pruned, HALF.metrics, CHOSEN.metrics]
    assert rows[-1].ratios == CHOSEN.measurements["retrained"].intervals
    assert rows_of([], None) == []


def test_unpruned_network_that_was_retrained_stands_beside_itself() -> None:
    alike = record(2, {}, "a", baseline="unpruned_retrained", epochs=2)
    rows = rows_of([UNPRUNED, HALF, alike], None)
    assert [(row.name, row.key) for row in rows] == [
        ("unpruned", (0, 0)),
        ("unpruned, 2 epochs", (2, 2)),
        ("half, not retrained", (1, 0)),
        ("half, 2 epochs", (1, 2)),
    ]
    assert rows[1].metrics == alike.metrics


def test_test_figures_are_found_whatever_a_row_is_called() -> None:
    found = Row(name="another name", trial=1, epoch=2, metrics={}, test={"top1": 88.0}, device_test_top1=87.0)
    verdict = Verdict(rows=[found], better_in_both={}, endings={})
    rows = with_test_figures(rows_of([HALF], CHOSEN), verdict)
    assert [(row.test, row.device_test_top1) for row in rows] == [({}, None), ({"top1": 88.0}, 87.0), ({}, None)]
    assert with_test_figures([row_of(HALF, "half")], None) == [row_of(HALF, "half")]


def test_a_verdict_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert read_verdict(results) is None
    ranking = rank(Objective.of(et.Minimise("latency_ratio")), [UNPRUNED, HALF, CHOSEN])
    rows = [replace(row, test={"top1": 50.0}) for row in rows_of([UNPRUNED, HALF], ranking.best)]
    verdict = verdict_of([UNPRUNED, HALF], [CHOSEN], ranking, rows, epochs=2)
    results.write_json("summary.json", verdict)
    assert read_verdict(results) == verdict
    assert json.loads((tmp_path / "summary.json").read_text()) == plain(verdict)
    assert (verdict.chosen, verdict.trials, verdict.objective) == (2, 1, None)


@pytest.mark.parametrize(
    ("endings", "all_failed"),
    [({"finished": 0, "failed": 3, "repeat": 2}, True), ({"finished": 1, "failed": 3}, False), ({"failed": 0}, False)],
)
def test_all_failed_needs_trials_and_no_other_end(endings: dict[str, int], all_failed: bool) -> None:
    assert Verdict(rows=[], better_in_both={}, endings=endings).all_failed == all_failed
