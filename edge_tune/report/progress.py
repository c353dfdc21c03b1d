"""How far a search has come with what it has spent: the best so far, or the area that the front beats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from edge_tune.objective import UNPRUNED, FrontOf
from edge_tune.records.fronts import REFERENCE, Losses, front_numbers, hypervolume
from edge_tune.report.data import StudyData
from edge_tune.report.statistics import Floats, Ints, Mask, best_so_far
from edge_tune.report.style import LIGHT, MANY, WORDS, f4, styled
from edge_tune.report.timeline import time_unit

FEWEST = 3
"""So many trials that may be best are needed to see anything grow."""


@dataclass(frozen=True)
class Spent:
    """What the trials of a study had cost when each of them ended, and in which unit."""

    title: str
    values: Sequence[Floats]


def spent(studies: Sequence[StudyData]) -> list[Spent]:
    """Return the axes to show progress on: epochs, or trials where none was retrained; and time, if it is known."""
    if any(study.retrained for study in studies):
        found = [Spent("epochs spent", [study.columns.epochs_spent for study in studies])]
    else:
        found = [Spent("trials", [study.columns.trial for study in studies])]
    hours = [study.columns.hours for study in studies]
    longest = max((float(np.nanmax(one)) for one in hours if np.isfinite(one).any()), default=0.0)
    if longest:
        unit, seconds = time_unit(3600 * longest)
        found.append(Spent(unit, [one * 3600 / seconds for one in hours]))
    return found


def over_what_was_spent(studies: Sequence[StudyData], first_rows: Sequence[int]) -> go.Figure:
    """Return what the target has come to over epochs and time; one row for each study.

    Of a front that is the area that it beats; else the figure of each trial, and the best so far that keeps the
    conditions. Studies of one target have the same axes.

    Args:
        first_rows: Row of each study's first trial in the cards.
    """
    axes = spent(studies)
    figure = make_subplots(
        len(studies),
        len(axes),
        shared_xaxes=True,
        shared_yaxes="all" if len({study.target.text for study in studies}) == 1 else "rows",
        horizontal_spacing=0.03,
        vertical_spacing=0.25 / len(studies),
    )
    areas = front_areas(studies)
    for row, (study, first, area) in enumerate(zip(studies, first_rows, areas, strict=True), start=1):
        for panel, axis in enumerate(axes, start=1):
            x = axis.values[row - 1]
            order = np.argsort(x, kind="stable")[: np.isfinite(x).sum()]
            if area is None:
                _add_best(figure, study, x, order, first, (row, panel))
            else:
                _add_area(figure, area, x, order, first, (row, panel))
        title = "area beaten (%)" if area is not None else WORDS.get(study.target.label, study.target.label)
        figure.update_yaxes(title=f"{study.label}<br>{title}" if len(studies) > 1 else title, row=row, col=1)
        if area is not None:
            figure.update_yaxes(range=[0, 104], row=row)
    for panel, axis in enumerate(axes, start=1):
        figure.update_xaxes(title=axis.title, rangemode="tozero", nticks=5, row=len(studies), col=panel)
    return styled(figure, 90 + 230 * len(studies), legend=True)


def front_areas(studies: Sequence[StudyData]) -> list[Floats | None]:
    """Return of each study that looks for a front, after each of its trials, the area that the front beats in percent.

    100 is the largest area of the studies of the same target. Both metrics count from the worst figure of a trial that
    may be best, or of the unpruned network, and a tenth of the range beyond; row i belongs to trial i, which comes
    after those that ended before. NaN before the first; None where the target is no front.
    """
    losses = [_losses(study) if isinstance(study.target.goal, FrontOf) else None for study in studies]
    found: list[Floats | None] = []
    for study, own in zip(studies, losses, strict=True):
        if own is None:
            found.append(None)
            continue
        alike = [
            (one, its)
            for one, its in zip(studies, losses, strict=True)
            if its is not None and one.target.text == study.target.text
        ]
        low, scale = _ranges(alike)
        most = max((_areas(one, its, low, scale)[-1:].max(initial=0.0) for one, its in alike), default=0.0)
        in_order = _areas(study, own, low, scale)
        areas = np.full(len(own), np.nan)
        areas[_order(study)] = 100 * in_order / (most or 1.0)
        found.append(areas)
    return found


def _order(study: StudyData) -> Ints:
    """Return the rows of the trials in the order in which they ended."""
    return np.argsort(study.columns.ended, kind="stable")


def _losses(study: StudyData) -> Floats:
    """Return both losses of each trial that may be best and meets the conditions, [trials, 2]; NaN of the others."""
    goal = study.target.goal
    assert isinstance(goal, FrontOf)
    _, losses = figures_of_target(study)
    found = np.full((len(study.trials), 2), np.nan)
    for place in np.flatnonzero(study.columns.eligible & np.isfinite(losses)).tolist():
        found[place] = goal.losses(study.trials[place].metrics)
    return found


def _ranges(studies: Sequence[tuple[StudyData, Floats]]) -> tuple[Floats, Floats]:
    """Return the least of each loss, and how far the largest is from it."""
    known = [losses[np.isfinite(losses[:, 0])] for _, losses in studies]
    for study, _ in studies:
        goal, unpruned = study.target.goal, study.scorer.baselines.get(UNPRUNED, {})
        if isinstance(goal, FrontOf) and goal.weights.keys() <= unpruned.keys():
            known.append(np.array([goal.losses(unpruned)]))
    every = np.vstack([*known, np.zeros((0, 2))])
    if not len(every):
        return np.zeros(2), np.ones(2)
    low, high = every.min(axis=0), every.max(axis=0)
    return low, np.where(high > low, high - low, 1.0)


def _areas(study: StudyData, losses: Floats, low: Floats, scale: Floats) -> Floats:
    """Return the area that the front beats after each trial, in the order in which they ended."""
    areas, front = np.full(len(losses), np.nan), list[Losses]()
    for nth, row in enumerate(_order(study)):
        if np.isfinite(losses[row, 0]):
            first, second = ((losses[row] - low) / scale).tolist()
            front.append((first, second))
            front = [point for point, number in zip(front, front_numbers(front), strict=True) if number == 0]
        if front:
            areas[nth] = hypervolume(front, REFERENCE)
    return areas


def figures_of_target(study: StudyData) -> tuple[Floats, Floats]:
    """Return of each trial the figure that the target looks at, and its loss; NaN where there is none.

    A trial that breaks a condition has a figure, but no loss: it is never the best so far.
    """
    values, losses = np.full(len(study.trials), np.nan), np.full(len(study.trials), np.nan)
    for place, record in enumerate(study.trials):
        if study.scorer.is_ready and study.target.metrics_in(record.metrics):
            values[place] = study.scorer.shown(record.metrics)
            score = study.scorer.score(record)
            losses[place] = score.loss if score.rank == 0 else np.nan
    return values, losses


def _add_best(figure: go.Figure, study: StudyData, x: Floats, order: Ints, first: int, cell: tuple[int, int]) -> None:
    values, losses = figures_of_target(study)
    able = study.columns.eligible & np.isfinite(values)
    kept = able & np.isfinite(losses)
    _add_points(figure, x, values, kept, first, cell, "trial that may be best", "circle")
    if study.target.conditions:
        _add_points(figure, x, values, able & ~kept, first, cell, "breaks a condition", "circle-open")
    steps = best_so_far(losses[order], kept[order])
    changes = _changes(steps)
    best = [study.target.figure(loss) for loss in steps[changes]]
    _add_line(figure, x[order][changes], np.array(best), "best so far", cell)


def _add_area(figure: go.Figure, areas: Floats, x: Floats, order: Ints, first: int, cell: tuple[int, int]) -> None:
    """Add the area over what was spent, with a point for each trial that has made it larger."""
    in_order = np.fmax.accumulate(areas[order]) if len(order) else areas[order]
    changes = _changes(-in_order)
    grown = np.zeros(len(areas), dtype=np.bool_)
    grown[order[changes[in_order[changes] > np.append(0.0, in_order[changes][:-1])]]] = True
    _add_line(figure, x[order][changes], in_order[changes], "area that the front beats", cell)
    _add_points(figure, x, areas, grown, first, cell, "trial that came to the front", "circle")


def _add_line(figure: go.Figure, x: Floats, y: Floats, name: str, cell: tuple[int, int]) -> None:
    figure.add_scatter(
        x=f4(x),
        y=f4(y),
        mode="lines",
        line={"shape": "hv", "width": 2, "color": LIGHT["accent"]},
        hoverinfo="skip",
        name=name,
        legendgroup=name,
        showlegend=cell == (1, 1),
        row=cell[0],
        col=cell[1],
    )


def _add_points(
    figure: go.Figure, x: Floats, y: Floats, shown: Mask, first: int, cell: tuple[int, int], name: str, symbol: str
) -> None:
    figure.add_trace(
        (go.Scattergl if len(x) > MANY else go.Scatter)(
            x=f4(x[shown]),
            y=f4(y[shown]),
            customdata=first + np.flatnonzero(shown).astype(np.int32),
            mode="markers",
            marker={"size": 6, "symbol": symbol, "color": LIGHT["soft"], "opacity": 0.4 if len(x) > MANY else 0.8},
            name=name,
            hoverinfo="none",
            legendgroup=name,
            showlegend=cell == (1, 1) and bool(shown.any()),
        ),
        *cell,
    )


def _changes(steps: Floats) -> Ints:
    """Return the places where a step curve begins, falls, and ends."""
    known = np.flatnonzero(np.isfinite(steps))
    if not len(known):
        return known
    falls = known[np.flatnonzero(np.diff(steps[known])) + 1]
    return np.unique(np.concatenate([known[:1], falls, known[-1:]]))
