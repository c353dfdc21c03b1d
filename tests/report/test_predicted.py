from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_tune.records.entries import PRUNED, SUGGESTED
from edge_tune.records.results import Record
from edge_tune.report.blocks import Note, Plot
from edge_tune.report.data import read
from edge_tune.report.predicted import comparisons, predicted
from tests.studies import record, write_files


def foreseen(trial: int, ratio: float, top1: float, pruned: float | None = None, **changes: Any) -> Record:
    """A trial of which these figures were expected; those that came are a ratio of 0.7 and a top1 of 85."""
    one = record(trial, {"layer_1": 1.0, "layer_2": 0.0}, "a", epochs=2)
    assert (one.metrics["latency_ratio"], one.metrics["top1"]) == pytest.approx((0.7, 85.0))
    predictions = {SUGGESTED: {"latency_ratio": ratio, "top1": top1}}
    if pruned is not None:
        predictions[PRUNED] = {"top1": pruned}
    return replace(one, predictions=predictions, **changes)


def test_predictions_are_compared_with_what_is_known_by_now() -> None:
    trials = [
        record(1, {}, "a"),  # nothing was predicted
        foreseen(2, 0.77, 86.0, 84.5),
        foreseen(3, 0.7, 80.0, 85.0, status="stopped", stopped_by="predicted"),
        foreseen(4, 0.63, 82.0, 82.0),
        foreseen(5, 0.1, 10.0, same_as=4),
        foreseen(6, 0.1, 10.0, metrics={}, status="failed"),
    ]
    by = {(one.metric, one.when): one for one in comparisons(trials)}
    assert {key: one.rows.tolist() for key, one in by.items()} == {
        ("latency_ratio", SUGGESTED): [1, 2, 3],  # known as soon as it was measured
        ("top1", SUGGESTED): [1, 3],  # a trial that was paused has no accuracy at the end
        ("top1", PRUNED): [1, 3],
    }
    assert by["latency_ratio", SUGGESTED].median_error == pytest.approx(10.0)  # percent: 10, 0, 10
    assert by["top1", SUGGESTED].median_error == pytest.approx(2.0)  # points: 1 and 3
    assert by["top1", PRUNED].text == (
        "1.8 points as predicted by the trials that had finished, before the network was retrained (2 trials)"
    )


def test_page_says_why_no_predictions_are_shown_or_of_how_few_trials_they_are(tmp_path: Path) -> None:
    for name, trials, said in (
        ("none", [record(1, {"layer_1": 0.5}, "a", epochs=2)], ["nothing that is known by now was predicted"]),
        (
            "few",
            [foreseen(1, 0.7, 85.0), foreseen(2, 0.7, 85.0)],
            ["latency_ratio: left out", "known of 2 trials only"],
        ),
    ):
        write_files(tmp_path / name, [], trials, epochs=2)
        blocks = predicted(read([tmp_path / name])[0], 0)
        assert all(isinstance(block, Note) for block in blocks)
        assert all(text in str(blocks) for text in said)


def test_figure_of_predictions_has_equal_axes_and_rows_of_the_cards(tmp_path: Path) -> None:
    write_files(tmp_path, [], [foreseen(n, 0.6 + n / 100, 80.0 + n) for n in range(1, 8)], epochs=2)
    plots = predicted(read([tmp_path])[0], 3)
    assert [plot.kind for plot in plots if isinstance(plot, Plot)] == ["predicted-latency_ratio", "predicted-top1"]
    for plot in plots:
        assert isinstance(plot, Plot)
        _, points = plot.figure.data
        assert points.customdata.tolist() == list(range(3, 10))
        assert plot.figure.layout.xaxis.range == plot.figure.layout.yaxis.range
        low, high = plot.figure.layout.xaxis.range
        assert low < np.min([points.x, points.y])
        assert high > np.max([points.x, points.y])
    assert "Half of the predictions miss by no more than 8.6 % as predicted by the model of the search" in str(plots[0])
