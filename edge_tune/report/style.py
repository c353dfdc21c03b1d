"""How every plot looks: colours, marks, words, axes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from edge_tune.records.accuracy import validation_top1
from edge_tune.report.data import StudyData, interval, number
from edge_tune.report.statistics import Ints
from edge_tune.report.timeline import IDLE, OTHER

LIGHT = {
    "ink": "#1f2328",
    "muted": "#69717c",
    "grid": "#e4e7eb",
    "paper": "#ffffff",
    "accent": "#1b5e9e",
    "soft": "#8fb3d6",
    "faint": "#c9d0d8",
}
DARK = {
    "ink": "#e4e7eb",
    "muted": "#9aa4b0",
    "grid": "#2e343c",
    "paper": "#15181c",
    "accent": "#74b3f0",
    "soft": "#5688bd",
    "faint": "#4a525c",
}
STAGE_COLORS = {
    "plan": "#d3dbe3",
    "prune": "#a9c8e4",
    "evaluate": "#5b93c7",
    "retrain": "#0f3a63",
    "export": "#b7c0ca",
    "queue": "#8f99a4",
    "measure": LIGHT["accent"],
    OTHER: "#69717b",
    IDLE: "#e9ecef",
}
DARK_STAGE_COLORS = dict(
    zip(
        STAGE_COLORS,
        ("#59636e", "#2f5a87", "#4a86c2", "#b5d8fb", "#7b8591", "#a1abb6", DARK["accent"], "#c6cdd5", "#2a2f36"),
        strict=True,
    )
)
MANY = 1500
"""Points beyond which a plot is drawn by WebGL."""
WORDS = {
    "latency_ratio": "latency_ratio",
    "total_latency_ratio": "total_latency_ratio",
    "throughput_fps": "throughput (fps)",
    "top1": "val top1 (%)",
    "top5": "val top5 (%)",
    "latency_ms": "latency (ms)",
    "total_latency_ms": "total latency (ms)",
    "loss": "val loss",
    "parameters": "parameters",
    "macs": "MACs",
}


@dataclass(frozen=True)
class Mark:
    """How the trials that ended in a certain way are drawn."""

    name: str
    symbol: str
    color: str
    size: int = 7
    opacity: float = 1.0


ENDING_COLORS = {
    "finished": "soft",
    "collapsed": "muted",
    "hopeless": "muted",
    "asha": "faint",
    "predicted": "faint",
    "time_limit": "grid",
    "gate": "grid",
    "failed": "ink",
}
"""Ending -> the name of a colour, where trials are counted."""

BASELINES = ("diamond", "diamond-open", "square", "square-open", "pentagon", "pentagon-open", "hexagon", "hexagon-open")
"""The symbols of baselines, in their order; a study with more begins anew."""

OTHER_RULE = "triangle-up-open"
FINISHED = Mark("finished", "circle", LIGHT["soft"], opacity=0.8)
MARKS = {  # of every way to end with figures; a trial that failed has none
    "finished": FINISHED,
    "collapsed": Mark("no better than chance", "x-thin-open", LIGHT["muted"]),
    "hopeless": Mark("stopped as hopeless", "x-thin-open", LIGHT["muted"]),
    "asha": Mark("stopped by ASHA", "circle-open", LIGHT["muted"]),
    "predicted": Mark("paused", "diamond-open", LIGHT["muted"]),
    "time_limit": Mark("stopped by its time limit", OTHER_RULE, LIGHT["muted"]),
    "gate": Mark("not trained", "circle-open-dot", LIGHT["faint"]),
}


@dataclass(frozen=True)
class Axes:
    """Ranges that all studies of a report share, so that their plots can be compared by eye.

    Attributes:
        able_top1: Of what may be best and the baselines: networks that were stopped or that guess may lie far below.
    """

    ratio: tuple[float, float]
    top1: tuple[float, float]
    able_top1: tuple[float, float]
    pruned_top1: tuple[float, float]

    @classmethod
    def of(cls, studies: Sequence[StudyData]) -> "Axes":
        """Return the ranges that hold every trial and baseline, as it is now, and every trial right after pruning."""
        baselines = [record.metrics for study in studies for record in study.baselines]
        barred = [record for study in studies for record in (*study.front, *study.baselines) if record.trial]
        bars = [one for record in barred if (one := interval(record, "latency_ratio"))]
        shown = [one for study in studies for one in (*study.baselines, study.chosen) if one]
        ends = [end for one in shown if (its := validation_top1(one)) for end in its.interval]
        ratios = [study.columns.metric("latency_ratio") for study in studies]
        top1 = [study.columns.metric("top1") for study in studies]
        able = _known(study.columns.metric("top1")[study.columns.eligible] for study in studies)
        known = _known([[number(its.get("top1"))] for its in baselines])
        pruned = [study.columns.metric("top1", pruned=True) for study in studies]
        return cls(
            padded(
                [
                    *_known(ratios),
                    *_known([[number(its.get("latency_ratio"))] for its in baselines]),
                    *(bound for one in bars for bound in (one.low, one.high)),
                    1.0,
                ]
            ),
            padded([*_known(top1), *known]),
            padded([*(able if known or able else _known(top1)), *known, *ends]),
            padded(_known(pruned)),
        )


def _known(columns: Iterable[Iterable[float]]) -> list[float]:
    return [float(value) for column in columns for value in column if math.isfinite(value)]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values with a margin on both sides; of none, that from 0 to 100."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


def rows_of(values: Any) -> Ints:
    """Return rows of the cards as a column."""
    return np.fromiter(values, dtype=np.int32)


def f4(values: Any) -> Any:
    """Return values at the precision that a plot shows; it halves the page."""
    return np.asarray(values, dtype=np.float32)


def spacing(panels: int, asked: float) -> float:
    """Return the room between panels side by side, as a share of the plot; many get less than `asked`."""
    return min(asked, 0.2 / panels)


def styled(
    figure: go.Figure, height: int, *, legend: bool = False, margin: Mapping[str, int] | None = None
) -> go.Figure:
    """Give a figure the look and the height that all have; with a legend or subplot titles above it."""
    axis = {
        "gridcolor": LIGHT["grid"],
        "linecolor": LIGHT["muted"],
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": LIGHT["muted"],
        "automargin": True,
        "title": {"standoff": 8},
    }
    figure.update_layout(
        template=go.layout.Template(layout={"xaxis": axis, "yaxis": axis}),
        height=height,
        autosize=True,
        margin=dict(margin or {"l": 8, "r": 8, "t": 58, "b": 8}),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": LIGHT["ink"]},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top", "font": {"size": 11}},
        hoverlabel={"font": {"size": 12}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": LIGHT["muted"], "activecolor": LIGHT["ink"]},
        dragmode=False,
        bargap=0.25,
    )
    for title in figure.layout.annotations:
        title.font.size = 12
    return figure
