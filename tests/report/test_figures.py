from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from edge_tune.records.entries import LayerEntry
from edge_tune.records.remaining import shares_by_layer
from edge_tune.records.results import Record
from edge_tune.report import bars, figures, style
from edge_tune.report.data import StudyData, read
from tests.studies import answered, record, write_files, write_study


@pytest.fixture
def study(tmp_path: Path) -> StudyData:
    write_study(tmp_path, 60, epochs=2)
    return read([tmp_path])[0]


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def test_points_of_trials_carry_their_row_in_the_cards(study: StudyData) -> None:
    first = 100
    figure = figures.pareto([study], style.Axes.of([study]), [first])
    bottom, top = figure.layout.yaxis.range
    lowest, shown = bottom + 0.015 * (top - bottom), 0
    for trace in figure.data:
        for x, y, row in zip(trace.x, trace.y, trace.customdata, strict=True):
            mine = study.records[row - first + len(study.baselines)]
            expected = 1.0 if mine.trial == 0 else mine.metrics["latency_ratio"]
            top1 = max(mine.metrics["top1"], lowest)  # ruined ones stand at the edge of what is drawn
            assert (x, y) == pytest.approx((expected, top1), rel=1e-6)
            shown += 1
    assert shown > len(study.front)


def test_bars_on_the_front_are_the_intervals(study: StudyData) -> None:
    (front,) = traces(figures.pareto([study], style.Axes.of([study]), [2]), "Pareto front")
    assert front.error_x.array == pytest.approx([0.01] * len(study.front))
    assert front.error_x.arrayminus == pytest.approx([0.01] * len(study.front))


def test_chosen_and_baselines_have_the_intervals_of_top1_within_the_axis(tmp_path: Path) -> None:
    """Wilson's of 36 and 30 of 40 images, which solve |share - p| = 1.96 (p (1 - p) / 40) ** 0.5."""
    unpruned, trial = record(0, {}, "a", baseline="unpruned"), record(2, {"layer_1": 0.5, "layer_2": 0.5}, "a")
    records = [answered(one, np.arange(40) < right) for one, right in ((unpruned, 36), (trial, 30))]
    write_files(tmp_path, records[:1], records[1:])
    (study,) = read([tmp_path])
    axes = style.Axes.of([study])
    figure = figures.pareto([study], axes, [1])
    for name, low, high in (("unpruned", 76.95, 96.04), ("trial_0002, chosen", 59.81, 85.81)):
        (trace,) = traces(figure, name)
        ends = (trace.y[0] - trace.error_y.arrayminus[0], trace.y[0] + trace.error_y.array[0])
        assert ends == pytest.approx((low, high), abs=0.005)
        assert axes.able_top1[0] < low < high < axes.able_top1[1]


def test_axes_hold_every_trial_of_all_studies(study: StudyData) -> None:
    wide = replace(study, trials=[*study.trials, Record(trial=99, metrics={"latency_ratio": 3.0, "top1": 5.0})])
    axes = style.Axes.of([study, wide])
    assert axes.ratio[0] < min(t.metrics["latency_ratio"] for t in study.trials if t.metrics)
    assert axes.ratio[1] > 3.0
    assert axes.top1[0] < 5.0
    assert axes.top1[1] > max(t.metrics["top1"] for t in study.records if t.metrics)
    assert axes.pruned_top1[0] < min(t.pruned["top1"] for t in study.trials if t.pruned)


def test_axes_fit_what_is_shown(tmp_path: Path) -> None:
    trials = [record(n, {"layer_1": n / 20, "layer_2": n / 20}, "a", epochs=2) for n in range(2, 9)]
    write_files(tmp_path, [record(0, {}, "a", baseline="unpruned")], trials, epochs=2)
    axes = style.Axes.of(read([tmp_path]))
    assert axes.top1 == pytest.approx((87.0 - 0.44, 98.0 + 0.44))  # 95 - 20 * 0.4, and the unpruned network's
    assert axes.ratio == pytest.approx((0.75 - 0.01, 1 + 0.01))  # the fastest's interval begins at 0.75
    ruined = record(9, {"layer_1": 0.9, "layer_2": 0.9}, "a", collapsed="why", status="stopped", stopped_by="hopeless")
    write_files(tmp_path / "ruined", [record(0, {}, "a", baseline="unpruned")], [*trials, ruined], epochs=2)
    (study,) = read([tmp_path / "ruined"])
    assert style.Axes.of([study]).able_top1 == pytest.approx(axes.top1)
    assert style.Axes.of([study]).top1[0] < 30
    assert style.Axes.of([]).top1 == (-4.0, 104.0)


def test_baselines_have_their_intervals_and_are_told_apart_without_labels(study: StudyData) -> None:
    figure = figures.pareto([study], style.Axes.of([study]), [2])
    unpruned, schedule = (traces(figure, name)[0] for name in ("unpruned", "off_the_shelf"))
    assert (unpruned.error_x.array, unpruned.error_x.arrayminus) == ((0.0,), (0.0,))  # 1 by definition
    assert schedule.error_x.array == pytest.approx([0.01])
    assert schedule.error_x.arrayminus == pytest.approx([0.01])
    assert schedule.error_y.array is None  # a made-up study does not say of how many images its accuracies are
    assert unpruned.marker.symbol != schedule.marker.symbol
    assert all("text" not in str(trace.mode) for trace in figure.data)


def test_many_trials_are_drawn_by_webgl(tmp_path: Path) -> None:
    for count, kind in ((20, "scatter"), (style.MANY + 1, "scattergl")):
        folder = tmp_path / str(count)
        write_files(folder, [], [record(n, {"layer_1": 0.5, "layer_2": 0.5}, "a") for n in range(2, count + 2)])
        (study,) = read([folder])
        figure = figures.before_and_after(study, style.Axes.of([study]), 0)
        assert figure.data[-1].type == kind


def test_shares_by_layer_sum_to_the_ratio() -> None:
    # A reorder for conv1 counts as conv1's: 1 + 2 of 4 ms, and 1 of 4.
    times = (("conv1", 1.0), ("conv1", 2.0), ("fc", 1.0))
    layers = [LayerEntry(name, "Convolution", "k", ms, ms / 4) for name, ms in times]
    found = shares_by_layer(Record(trial=1, layers=layers), 0.6)
    assert found == pytest.approx({"conv1": 45.0, "fc": 15.0})
    assert shares_by_layer(Record(trial=1), 0.6) == {}


def test_endings_over_search_add_up_to_all(study: StudyData) -> None:
    figure = bars.endings_over_search(study)
    assert np.sum([trace.y for trace in figure.data], axis=0) == pytest.approx([100.0] * 10)
    hopeless = traces(figure, "stopped as hopeless")[0].y
    first_six = [trial.stopped_by == "hopeless" for trial in study.trials[:6]]
    assert hopeless[0] == pytest.approx(100 * sum(first_six) / 6)


def test_counts_of_trials_are_in_words_that_fit_one_too(study: StudyData) -> None:
    texts = {text for trace in figures.latency_bins(study, style.Axes.of([study])).data for text in trace.customdata}
    texts |= {
        text for trace in bars.trials_by_latency([study], style.Axes.of([study])).data for text in trace.customdata
    }
    assert {"1 trial", "2 trials"} <= texts


def test_every_colour_has_a_dark_one() -> None:
    assert style.LIGHT.keys() == style.DARK.keys()
    assert style.STAGE_COLORS.keys() == style.DARK_STAGE_COLORS.keys()
    colors = [*style.LIGHT.values(), *style.STAGE_COLORS.values()]
    assert len(set(colors)) == len(colors) - 1  # measure is the accent


def test_a_plot_has_room_for_the_groups_of_every_convolution(study: StudyData) -> None:
    """As many as ResNet-110 has in its blocks; plotly refuses panels whose gaps take more than there is."""
    sparsity = next(iter(study.columns.parameters.values()))
    many = replace(study)
    labels = [f"group_{number}.sparsity" for number in range(108)]
    vars(many)["columns"] = replace(study.columns, parameters=dict.fromkeys(labels, sparsity))
    for figure in (
        figures.parameter_matrix(many, [("top1", study.columns.metric("top1"))], 0),
        figures.latency_bins(many, style.Axes.of([study])),
    ):
        lefts = sorted(axis.domain[0] for axis in figure.select_xaxes())
        assert len(lefts) == 108
        assert np.diff(lefts).min() > 0
