"""Columns -> plotly figures made of bars: counts, shares, times."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from edge_tune.records.endings import IN_WORDS, ending_text
from edge_tune.records.results import Record
from edge_tune.report.data import StudyData, interval, number
from edge_tune.report.importance import Importance
from edge_tune.report.statistics import bin_means
from edge_tune.report.style import ENDING_COLORS, LIGHT, STAGE_COLORS, Axes, spacing, styled
from edge_tune.report.timeline import time_unit
from edge_tune.wording import counted


def importance(found: Mapping[str, Importance]) -> go.Figure:
    """Return how much of each metric each parameter decides, as bars with the intervals."""
    figure = go.Figure()
    for (metric, one), color in zip(found.items(), (LIGHT["accent"], LIGHT["faint"]), strict=False):
        shares = list(one.shares.values())
        figure.add_bar(
            y=list(one.shares),
            x=[100 * share.middle for share in shares],
            error_x={
                "symmetric": False,
                "array": [100 * (share.high - share.middle) for share in shares],
                "arrayminus": [100 * (share.middle - share.low) for share in shares],
                "thickness": 1.5,
                "width": 3,
                "color": LIGHT["ink"],
            },
            customdata=[[100 * share.low, 100 * share.high] for share in shares],
            orientation="h",
            name=metric,
            marker={"color": color},
            hovertemplate="%{y}: %{x:.0f} % [%{customdata[0]:.0f}, %{customdata[1]:.0f}] of "
            + metric
            + "<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title="share of the variance (%)", range=[0, 104])
    return styled(figure, 120 + 46 * max(len(one.shares) for one in found.values()), legend=True)


def trials_by_latency(studies: Sequence[StudyData], axes: Axes) -> go.Figure:
    """Return how many trials there are in each 0.02-wide bin of latency_ratio, one panel a study."""
    names = [study.label for study in studies] if len(studies) > 1 else None
    figure = make_subplots(
        1, len(studies), shared_yaxes=True, horizontal_spacing=spacing(len(studies), 0.03), subplot_titles=names
    )
    highest = 0.0
    for panel, study in enumerate(studies, start=1):
        ratio = study.columns.metric("latency_ratio")
        groups = (
            ("may be best", study.columns.eligible, "accent"),
            ("stopped or ruined", ~study.columns.eligible, "faint"),
        )
        for name, rows, color in groups:
            bins = bin_means(ratio[rows], ratio[rows])
            figure.add_bar(
                x=bins.centres,
                y=bins.counts,
                width=0.018,
                name=name,
                marker={"color": LIGHT[color]},
                legendgroup=name,
                showlegend=panel == 1,
                customdata=[counted(count, "trial") for count in bins.counts.tolist()],
                hovertemplate="latency_ratio %{x:.2f} \N{PLUS-MINUS SIGN} 0.01: %{customdata}<extra></extra>",
                row=1,
                col=panel,
            )
        for place, record in enumerate(study.known_schedules):
            _add_schedule(figure, record, axes, place, panel)
        highest = max(highest, *bin_means(ratio, ratio).counts, 1)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="latency_ratio (unpruned = 1)", range=list(axes.ratio))
    figure.update_yaxes(range=[0, 1.2 * highest])  # room for the names of the schedules
    figure.update_yaxes(title="trials", col=1)
    return styled(figure, 300, legend=True)


def _add_schedule(figure: go.Figure, record: Record, axes: Axes, place: int, panel: int) -> None:
    """Add a known schedule's latency_ratio as a line in its interval; each name stands lower than the last."""
    ratio, known = number(record.metrics.get("latency_ratio")), interval(record, "latency_ratio")
    if known:
        figure.add_vrect(
            x0=known.low, x1=known.high, line_width=0, fillcolor=LIGHT["ink"], opacity=0.12, row=1, col=panel
        )
    figure.add_vline(
        x=ratio,
        line={"width": 1, "dash": "dot", "color": LIGHT["ink"]},
        annotation={
            "text": record.name,
            "font": {"size": 11},
            "y": 1 - 0.08 * (place % 4),
            "yanchor": "top",
            "xanchor": "left" if ratio < sum(axes.ratio) / 2 else "right",
        },
        row=1,
        col=panel,
    )


def endings_over_search(study: StudyData, parts: int = 10) -> go.Figure:
    """Return how the trials ended in each tenth of the search, in percent."""
    ends = study.columns.ending
    pieces = [piece for piece in np.array_split(np.arange(len(ends)), parts)]
    kinds = sorted(set(ends), key=lambda end: (list(IN_WORDS).index(end) if end in IN_WORDS else len(IN_WORDS), end))
    trials = study.columns.trial
    names = ["\N{EN DASH}".join(dict.fromkeys(f"{trials[row]:.0f}" for row in piece[[0, -1]])) for piece in pieces]
    figure = go.Figure()
    for end in kinds:
        figure.add_bar(
            x=names,
            y=[100 * sum(ends[row] == end for row in piece) / len(piece) for piece in pieces],
            name=ending_text(end),
            marker={"color": LIGHT[ENDING_COLORS.get(end, "grid")]},
            hovertemplate="trials %{x}: %{y:.0f} % " + ending_text(end) + "<extra></extra>",
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="trials", type="category")
    figure.update_yaxes(title="share (%)", range=[0, 100])
    return styled(figure, 300, legend=True)


def time_by_stage(nodes: Mapping[str, Mapping[str, float]], stages: Sequence[str]) -> go.Figure:
    """Return what each node spent its time on, as one stacked bar a node."""
    unit, seconds = time_unit(max(sum(times.values()) for times in nodes.values()))
    figure = go.Figure()
    for stage in stages:
        figure.add_bar(
            y=list(nodes),
            x=[times.get(stage, 0.0) / seconds for times in nodes.values()],
            orientation="h",
            name=stage,
            marker={"color": STAGE_COLORS.get(stage, LIGHT["muted"]), "line": {"width": 0.5, "color": LIGHT["paper"]}},
            hovertemplate="%{y}: " + stage + " %{x:.3g} " + unit + "<extra></extra>",
        )
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(title=unit)
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, 150 + 46 * len(nodes), legend=True)


def layer_times(unpruned: Mapping[str, float], chosen: Mapping[str, float], name: str) -> go.Figure:
    """Return the time of each layer of both networks, in % of the unpruned network's latency."""
    layers = list(dict.fromkeys([*unpruned, *chosen]))
    figure = go.Figure()
    for times, label, color, width in (
        (unpruned, "unpruned", "faint", 0.8),
        (chosen, name, "accent", 0.42),
    ):
        figure.add_bar(
            y=layers,
            x=[times.get(layer, 0.0) for layer in layers],
            orientation="h",
            name=label,
            width=width,
            marker={"color": LIGHT[color]},
            hovertemplate="%{y}: %{x:.2f} % of the unpruned latency<extra>" + label + "</extra>",
        )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title="% of the unpruned latency")
    figure.update_yaxes(autorange="reversed", type="category", dtick=1, tickfont={"size": 9})
    return styled(figure, 110 + 15 * len(layers), legend=True)
