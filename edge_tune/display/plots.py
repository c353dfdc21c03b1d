"""The main plots of a study as pictures, for what shows pictures and no pages."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_tune.objective import Objective
from edge_tune.records.ranking import FRONT, eligible, pareto_front, without_repeats
from edge_tune.records.results import Record
from edge_tune.records.scoring import Scorer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picture = NDArray[np.uint8]
"""[height, width, 3], RGB."""

BLUE, RED, GREY, BLACK = "#4477aa", "#cc3311", "#aaaaaa", "#222222"
MARKERS = "*Pdv^<>"
LINES = ("-", "--", ":", "-.")
LATENCY, TOP1 = FRONT[0].metric, FRONT[1].metric


def pictures(records: Sequence[Record], objective: Objective) -> dict[str, Picture]:
    """Return the plots that the records of a study give, under names that sort; none where nothing is to be shown."""
    trials = without_repeats(record for record in records if not record.baseline)
    measured = _with(trials, LATENCY, TOP1)
    baselines = [record for record in records if record.baseline]
    drawn = _with(baselines, LATENCY, TOP1)
    scorer = Scorer(objective, baselines)
    able = _with(eligible(trials), *objective.metrics) if scorer.is_ready else []
    plots: dict[str, Picture] = {}
    if measured:
        plots["1_pareto_front"] = _picture(lambda axes: draw_front(axes, measured, drawn))
    if able:
        plots["2_best_so_far"] = _picture(
            lambda axes: draw_best_so_far(axes, able, _with(baselines, *objective.metrics), scorer)
        )
    if measured:
        plots["3_latencies"] = _picture(lambda axes: draw_latencies(axes, measured, drawn))
    return plots


def best_so_far(trials: Sequence[Record], scorer: Scorer) -> list[float]:
    """Return for each trial the figure of the best up to it; NaN before the first that meets the conditions."""
    best: Record | None = None
    found = []
    for trial in trials:
        score = scorer.score(trial)
        if score.rank == 0 and (best is None or score < scorer.score(best)):
            best = trial
        found.append(scorer.shown(best.metrics) if best else math.nan)
    return found


def draw_front(axes: "Axes", trials: Sequence[Record], baselines: Sequence[Record]) -> None:
    """Draw latency_ratio against top1: every trial a point, the Pareto front a line, the baselines by name."""
    able = eligible(trials)
    numbers = {trial.trial for trial in able}
    out = [trial for trial in trials if trial.trial not in numbers]
    front = sorted(pareto_front(trials, FRONT), key=lambda trial: trial.metrics[LATENCY])
    axes.scatter(*_points(out), c=GREY, marker="x", s=28, label=f"stopped or at chance ({len(out)})")
    axes.scatter(*_points(able), c=BLUE, s=28, label=f"trials ({len(able)})")
    axes.plot(*_points(front), c=RED, marker="o", ms=6, drawstyle="steps-post", label=f"Pareto front ({len(front)})")
    for number, baseline in enumerate(baselines):
        marker = MARKERS[number % len(MARKERS)]
        axes.scatter(*_points([baseline]), c=BLACK, marker=marker, s=110, label=baseline.label, zorder=3)
    axes.set(xlabel=LATENCY, ylabel=f"val_{TOP1} (%)", title="Latency against accuracy")


def draw_best_so_far(axes: "Axes", trials: Sequence[Record], baselines: Sequence[Record], scorer: Scorer) -> None:
    """Draw the target's figure of each eligible trial, by number, and the best up to it; the baselines as lines."""
    trials = sorted(trials, key=lambda trial: trial.trial)
    numbers = [trial.trial for trial in trials]
    axes.scatter(numbers, [scorer.shown(trial.metrics) for trial in trials], c=BLUE, s=24, label="finished trials")
    axes.step(numbers, best_so_far(trials, scorer), c=RED, where="post", marker=".", label="best so far")
    for number, baseline in enumerate(baselines):
        line = LINES[number % len(LINES)]
        axes.axhline(scorer.shown(baseline.metrics), color=BLACK, linestyle=line, lw=1, label=baseline.label)
    axes.set_xlim(0, numbers[-1] + 1)
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="trial", ylabel=scorer.objective.label, title=f"Best so far: {scorer.objective.text}")


def draw_latencies(axes: "Axes", trials: Sequence[Record], baselines: Sequence[Record]) -> None:
    """Draw how many trials have which latency_ratio, the baselines as lines."""
    axes.hist([trial.metrics[LATENCY] for trial in trials], bins="auto", color=BLUE, edgecolor="white")
    for number, baseline in enumerate(baselines):
        line = LINES[number % len(LINES)]
        axes.axvline(baseline.metrics[LATENCY], color=BLACK, linestyle=line, label=baseline.label)
    axes.locator_params(axis="y", integer=True)
    axes.set(xlabel=LATENCY, ylabel="trials", title=f"Trials by latency ({len(trials)})")


def _points(records: Sequence[Record]) -> tuple[list[float], list[float]]:
    return [record.metrics[LATENCY] for record in records], [record.metrics[TOP1] for record in records]


def _with(records: Sequence[Record], *metrics: str) -> list[Record]:
    return [record for record in records if all(metric in record.metrics for metric in metrics)]


def _picture(draw: Callable[["Axes"], None]) -> Picture:
    """Return what `draw` draws on an empty pair of axes, legible at 300 pixels: TensorBoard's cards are small."""
    # Only now: importing matplotlib takes a second, and the first time it says that it builds a font cache.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.9), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    draw(axes)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3]  # type: ignore[no-untyped-call]
