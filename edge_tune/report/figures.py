"""Columns -> plotly figures in which a point is a trial. A figure is whole in itself: plotly alone can show it.

Every point of a trial carries its row in the page's cards as `customdata`. Colours are those of LIGHT; the page
puts DARK in their place where the reader's system is dark.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from edge_tune.parameters import Axis, short_names
from edge_tune.records.accuracy import validation_top1
from edge_tune.records.endings import ending_text
from edge_tune.records.results import Record
from edge_tune.report.data import StudyData, interval, number
from edge_tune.report.statistics import Floats, Mask, bin_means
from edge_tune.report.style import BASELINES, LIGHT, MANY, MARKS, Axes, Mark, f4, padded, rows_of, spacing, styled
from edge_tune.wording import counted

BINS = 50
"""So many bins a parameter's axis has."""


def pareto(studies: Sequence[StudyData], axes: Axes, first_rows: Sequence[int]) -> go.Figure:
    """Return latency_ratio against top1, one panel a study: trials, front, baselines, the chosen network.

    Args:
        first_rows: Row of each study's first trial in the cards; its baselines stand before.
    """
    names = [study.label for study in studies] if len(studies) > 1 else None
    figure = make_subplots(
        1, len(studies), shared_yaxes=True, horizontal_spacing=spacing(len(studies), 0.03), subplot_titles=names
    )
    for number_, (study, first) in enumerate(zip(studies, first_rows, strict=True), start=1):
        _add_pareto(figure, study, first, number_, lowest(axes))
        if study.chosen and "top1" in study.chosen.metrics:
            row = first + study.trials.index(study.chosen)
            _add_chosen(figure, study.chosen, row, number_, "chosen" if names else f"{study.chosen.name}, chosen")
    figure.update_xaxes(title="latency_ratio (unpruned = 1)", range=list(axes.ratio))
    figure.update_yaxes(range=list(axes.able_top1))
    figure.update_yaxes(title="val top1 (%)", col=1)
    return styled(figure, 460, legend=True)


def lowest(axes: Axes) -> float:
    """Return the top1 where those stand that lie below the axis of the first figure."""
    low, high = axes.able_top1
    return low + 0.015 * (high - low)


def _add_pareto(figure: go.Figure, study: StudyData, first: int, panel: int, low: float) -> None:
    columns = study.columns
    top1 = np.maximum(columns.metric("top1"), low)
    _add_trials(figure, study, columns.metric("latency_ratio"), top1, first, (1, panel), legend=panel == 1)
    rows = {record.trial: first + row for row, record in enumerate(study.trials)}
    front = study.front
    x, y = ([number(record.metrics[metric]) for record in front] for metric in ("latency_ratio", "top1"))
    figure.add_scatter(
        x=f4(x),
        y=f4(y),
        error_x=_intervals(front, x),
        customdata=rows_of(rows[record.trial] for record in front),
        mode="lines+markers",
        line={"shape": "hv", "width": 1.2, "color": LIGHT["accent"]},
        marker={"size": 8, "color": LIGHT["accent"]},
        name="Pareto front",
        hoverinfo="none",
        legendgroup="front",
        showlegend=panel == 1,
        row=1,
        col=panel,
    )
    shown = {trace.name for trace in figure.data}
    for row, record in enumerate(study.baselines):
        if "top1" in record.metrics:
            ratio = 1.0 if record.trial == 0 else number(record.metrics.get("latency_ratio"))
            figure.add_scatter(
                x=[ratio],
                y=[number(record.metrics["top1"])],
                error_x=_intervals([record], [ratio]),
                error_y=_top1_bars(record),
                customdata=rows_of([first - len(study.baselines) + row]),
                mode="markers",
                cliponaxis=False,
                marker={"symbol": BASELINES[row % len(BASELINES)], "size": 10, "color": LIGHT["ink"]},
                name=record.label,
                hoverinfo="none",
                legendgroup=record.label,
                showlegend=record.label not in shown,
                row=1,
                col=panel,
            )


def _add_chosen(figure: go.Figure, chosen: Record, row: int, panel: int, name: str) -> None:
    figure.add_scatter(
        x=[number(chosen.metrics.get("latency_ratio"))],
        y=[number(chosen.metrics["top1"])],
        error_y=_top1_bars(chosen),
        customdata=rows_of([row]),
        mode="markers",
        cliponaxis=False,
        marker={"symbol": "star", "size": 15, "color": LIGHT["accent"], "line": {"width": 1, "color": LIGHT["paper"]}},
        name=name,
        hoverinfo="none",
        legendgroup="chosen",
        showlegend=name not in {trace.name for trace in figure.data},
        row=1,
        col=panel,
    )


def _intervals(records: Sequence[Record], ratios: Sequence[float]) -> dict[str, Any]:
    """Return the bars of latency_ratios: their 95 % intervals, if they are known; the unpruned network's is 1."""
    found = [None if record.trial == 0 else interval(record, "latency_ratio") for record in records]
    return {
        "symmetric": False,
        "array": [one.high - ratio if one else 0.0 for one, ratio in zip(found, ratios, strict=True)],
        "arrayminus": [ratio - one.low if one else 0.0 for one, ratio in zip(found, ratios, strict=True)],
        "thickness": 1,
        "width": 0,
        "color": LIGHT["muted"],
    }


def _top1_bars(record: Record) -> dict[str, Any] | None:
    """Return the bars of a top1: its 95 % interval, if it is known of how many images it is."""
    known = validation_top1(record)
    if known is None:
        return None
    low, high = known.interval
    return {
        "symmetric": False,
        "array": [high - known.top1],
        "arrayminus": [known.top1 - low],
        "thickness": 1,
        "width": 0,
        "color": LIGHT["muted"],
    }


def _add_trials(
    figure: go.Figure,
    study: StudyData,
    x: Floats,
    y: Floats,
    first: int,
    cell: tuple[int, int],
    *,
    legend: bool,
    size: int | None = None,
) -> None:
    """Add one trace for each way to end that has points, so that the legend can hide it."""
    columns = study.columns
    for end in dict.fromkeys(columns.ending):
        mark = MARKS.get(end, Mark(ending_text(end), "triangle-up-open", LIGHT["muted"]))
        shown: Mask = columns.where(end) & np.isfinite(x) & np.isfinite(y)
        if not shown.any():
            continue
        many = len(x) > MANY
        trace = (go.Scattergl if many else go.Scatter)(
            x=f4(x[shown]),
            y=f4(y[shown]),
            customdata=first + np.flatnonzero(shown).astype(np.int32),
            mode="markers",
            marker={
                "symbol": mark.symbol,
                "color": mark.color,
                "size": (size or mark.size) - (2 if many else 0),
                "opacity": 0.4 if many else mark.opacity,
            },
            name=mark.name,
            hoverinfo="none",
            legendgroup=mark.name,
            showlegend=legend,
        )
        figure.add_trace(trace, *cell)


def parameter_matrix(study: StudyData, metrics: Sequence[tuple[str, Floats]], first: int) -> go.Figure:
    """Return each parameter (columns of panels) against each metric (rows of panels)."""
    names = short_names(study.columns.parameters)
    labels = list(names.values())
    figure = make_subplots(
        len(metrics),
        len(labels),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=spacing(len(labels), 0.02),
        vertical_spacing=0.16 / len(metrics),
        column_titles=labels,
    )
    for row, (name, values) in enumerate(metrics, start=1):
        for column, x in enumerate(study.columns.parameters.values(), start=1):
            _add_trials(figure, study, x, values, first, (row, column), legend=row == column == 1, size=5)
        known = values[np.isfinite(values)].tolist()
        figure.update_yaxes(range=list(padded(known)), nticks=5, row=row)
        figure.update_yaxes(title=name, title_font_size=11, row=row, col=1)
    for column, name in enumerate(names, start=1):
        figure.update_xaxes(**_axis(study.axes[name]), col=column)
        figure.update_xaxes(title=name.rpartition(".")[2], row=len(metrics), col=column)
    return styled(figure, 130 * len(metrics) + 110, legend=True)


def _axis(axis: Axis) -> dict[str, Any]:
    """Return plotly's settings of an axis, a little longer at both ends."""
    low, high = _placed(np.array([axis.low, axis.high]), axis)
    margin = 0.03 * (high - low) or 0.5
    settings: dict[str, Any] = {"range": [low - margin, high + margin]}
    if axis.is_logarithmic:
        settings["type"] = "log"
    elif (axis.low, axis.high) == (0.0, 1.0):
        settings["dtick"] = 0.25
    return settings


def _placed(values: Floats, axis: Axis) -> Floats:
    """Return where values stand on an axis, as plotly counts: a logarithmic one in powers of 10."""
    return np.log10(values) if axis.is_logarithmic else values


def _dimension(values: Floats, axis: Axis) -> dict[str, Any]:
    """Return an axis of parallel coordinates, which plotly cannot draw on a logarithmic scale by itself."""
    low, high = _placed(np.array([axis.low, axis.high]), axis).tolist()
    settings: dict[str, Any] = {"values": f4(_placed(values, axis)), "range": [low, high]}
    if axis.is_logarithmic:
        ticks = np.linspace(low, high, 5)
        settings |= {"tickvals": ticks.tolist(), "ticktext": [f"{10**tick:.2g}" for tick in ticks.tolist()]}
    return settings


def latency_bins(study: StudyData, axes: Axes) -> go.Figure:
    """Return the mean latency_ratio of the trials in each of the bins of each parameter: a fiftieth of its axis."""
    names = short_names(study.columns.parameters)
    labels = list(names.values())
    figure = make_subplots(
        1, len(labels), shared_yaxes=True, horizontal_spacing=spacing(len(labels), 0.02), subplot_titles=labels
    )
    for column, (name, values) in enumerate(study.columns.parameters.items(), start=1):
        axis = study.axes[name]
        low, high = _placed(np.array([axis.low, axis.high]), axis)
        bins = bin_means(_placed(values, axis), study.columns.metric("latency_ratio"), (high - low) / BINS or 1.0)
        kind = name.rpartition(".")[2]
        figure.add_scatter(
            x=10**bins.centres if axis.is_logarithmic else bins.centres,
            y=bins.means,
            customdata=[counted(count, "trial") for count in bins.counts.tolist()],
            mode="lines+markers",
            line={"width": 1, "color": LIGHT["soft"]},
            marker={"size": np.minimum(3 + 2 * np.sqrt(bins.counts), 14), "color": LIGHT["accent"], "opacity": 1},
            hovertemplate=f"{kind} about %{{x:.3g}}<br>" + "mean %{y:.3f}<br>%{customdata}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title=kind, **_axis(axis), col=column)
    figure.update_yaxes(range=list(axes.ratio))
    figure.update_yaxes(title="mean latency_ratio", col=1)
    return styled(figure, 300)


def parallel_coordinates(study: StudyData) -> go.Figure:
    """Return one line for each trial, through its parameters and what came of them, coloured by latency_ratio."""
    columns = study.columns
    ratio, top1 = columns.metric("latency_ratio"), columns.metric("top1")
    shown = np.isfinite(ratio) & np.isfinite(top1)
    names = short_names(columns.parameters)
    dimensions = [
        {"label": names[name], **_dimension(values[shown], study.axes[name])}
        for name, values in columns.parameters.items()
    ]
    dimensions += [
        {"label": "latency_ratio", "values": f4(ratio[shown])},
        {"label": "val top1 (%)", "values": f4(top1[shown])},
    ]
    line = {
        "color": f4(ratio[shown]),
        "colorscale": [[0, LIGHT["accent"]], [0.5, LIGHT["soft"]], [1, LIGHT["faint"]]],
        "showscale": True,
        "colorbar": {"title": {"text": "latency_ratio"}, "thickness": 10, "outlinewidth": 0, "x": 1.03},
    }
    figure = go.Figure(
        go.Parcoords(dimensions=dimensions, line=line, unselected={"line": {"color": LIGHT["faint"], "opacity": 0.1}})
    )
    return styled(figure, 380, margin={"l": 60, "r": 60, "t": 60, "b": 30})


def before_and_after(study: StudyData, axes: Axes, first: int) -> go.Figure:
    """Return top1 right after pruning against top1 after retraining."""
    figure = make_subplots(1, 1)
    before, after = study.columns.metric("top1", pruned=True), study.columns.metric("top1")
    same = [max(axes.pruned_top1[0], axes.top1[0]), min(axes.pruned_top1[1], axes.top1[1])]
    figure.add_scatter(
        x=same if same[0] < same[1] else [],
        y=same if same[0] < same[1] else [],
        mode="lines",
        line={"width": 1, "dash": "dot", "color": LIGHT["muted"]},
        hoverinfo="skip",
        name="no change",
    )
    _add_trials(figure, study, before, after, first, (1, 1), legend=True)
    figure.update_xaxes(title="val top1 right after pruning (%)", range=list(axes.pruned_top1))
    figure.update_yaxes(title="val top1 after retraining (%)", range=list(axes.top1))
    return styled(figure, 400, legend=True)
