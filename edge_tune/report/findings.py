"""The sections on what the search found: the front, the parameters, what retraining made of it."""

from collections.abc import Sequence
from html import escape

import numpy as np

from edge_tune.objective import FrontOf
from edge_tune.parameters import short_names
from edge_tune.records.endings import RUINED, ending
from edge_tune.report import bars, figures
from edge_tune.report.blocks import DASH, Block, Note, Plot, Table, Text
from edge_tune.report.data import StudyData
from edge_tune.report.importance import importance as of_a_metric
from edge_tune.report.progress import FEWEST, over_what_was_spent
from edge_tune.report.statistics import MIN_TRIALS, Correlation, Floats, correlation
from edge_tune.report.style import WORDS, Axes
from edge_tune.report.verdict import signed
from edge_tune.wording import counted, verb

LEAST_EXPLAINED = 0.2
"""What a model predicts less of says nothing of what decides it."""

CLICK = "Point at a trial for its figures; click it for its card."


def front(studies: Sequence[StudyData], axes: Axes, first_rows: Sequence[int]) -> list[Block]:
    """Return the plot of latency against top1."""
    plotted = sum(int(np.isfinite(study.columns.metric("latency_ratio")).sum()) for study in studies)
    missing = sum(len(study.trials) for study in studies) - plotted
    if not plotted:
        return [Note("Left out: no trial has been measured.")]
    are = verb(missing, "is", "are")
    low = figures.lowest(axes)
    shown_top1 = [study.columns.metric("top1")[np.isfinite(study.columns.metric("latency_ratio"))] for study in studies]
    below = any((top1 < low).any() for top1 in shown_top1)
    edge = " Those at the lower edge lie at it or below." if below else ""
    shown = f" {counted(missing, 'trial')} without a measurement, such as a failed one, {are} not shown."
    return [
        Plot(
            figures.pareto(studies, axes, first_rows),
            "pareto",
            "Latency against top1 of every trial",
            "Left and up is better. Filled points finished; crosses are networks whose predictions had collapsed, open "
            "circles were stopped because they fell behind. No trial beats those on the line in both. Bars are 95 % "
            "intervals: of the ratio, and, as far as they are known, of top1 those of the baselines and the chosen "
            "network."
            f"{edge} {CLICK}{shown if missing else ''}",
            min_width=300 * len(studies) if len(studies) > 1 else 0,
        )
    ]


def progress(studies: Sequence[StudyData], first_rows: Sequence[int]) -> list[Block]:
    """Return what the target has come to over epochs and time."""
    most = max(int(study.columns.eligible.sum()) for study in studies)
    if most < FEWEST:
        finished = f"{counted(most, 'trial')} {verb(most, 'has', 'have')} finished better than chance"
        return [Note(f"Left out: {finished}, and it takes {FEWEST} to see anything grow.")]
    spent = "epochs" if any(study.retrained for study in studies) else "trials"
    told = dict.fromkeys(_what_grows(study, len(studies)) for study in studies)
    return [
        Plot(
            over_what_was_spent(studies, first_rows),
            "best",
            f"How far the search came with the {spent} that it spent",
            f"{' '.join(told)} Where the line has been flat for long, more {spent} promise little. Epochs of "
            f"baselines, and the time between sessions, do not count. {CLICK}",
            min_width=300,
        )
    ]


def _what_grows(study: StudyData, studies: int) -> str:
    """Return what the line of a study is."""
    if isinstance(goal := study.target.goal, FrontOf):
        metrics = " and ".join(goal.weights)
        end = "what it beats at the end" if studies == 1 else "the largest at the end of a study"
        return (
            f"The line is how much the front of {metrics} beats so far: the area between it and the worst figures that "
            f"were seen (its hypervolume), in percent of {end}; a point is a trial that made it larger."
        )
    condition = " that keeps the conditions" if study.target.conditions else ""
    return (
        "Each point is a trial that finished better than chance; the line is the best "
        f"{WORDS.get(study.target.label, study.target.label)}{condition} so far."
    )


def latencies(studies: Sequence[StudyData], axes: Axes) -> list[Block]:
    """Return the number of trials by latency."""
    most = max(study.measured for study in studies)
    if most < MIN_TRIALS:
        return [_too_few(most, "counts by latency")]
    return [
        Plot(
            bars.trials_by_latency(studies, axes),
            "latencies",
            "Number of trials by latency_ratio",
            "Bins are 0.02 wide. Blue bars may be best; grey ones were stopped or are no better than chance. "
            "Dotted lines are the known schedules, each in its 95 % interval.",
            min_width=300 * len(studies) if len(studies) > 1 else 0,
        )
    ]


def _metric_columns(study: StudyData) -> list[tuple[str, str, Floats]]:
    """Return what a parameter is set against: a short title, what it is, and the column."""
    columns = study.columns
    found = [
        (name.replace("_fps", " (fps)"), WORDS[name], columns.metric(name))
        for name in ("latency_ratio", "total_latency_ratio", "throughput_fps")
    ]
    for name in ("top1", "top5") if study.tells_top5 else ("top1",):
        found.append((f"{name}, pruned", f"val {name} right after pruning", columns.metric(name, pruned=True)))
        if study.retrained:
            found.append((f"{name}, retrained", f"val {name} after retraining", columns.final(name)))
    return [one for one in found if np.isfinite(one[2]).any()]


def parameters(study: StudyData, axes: Axes, first: int) -> list[Block]:
    """Return how each parameter that is a number goes with each metric."""
    metrics = _metric_columns(study)
    names = study.columns.parameters
    if not metrics or not names:
        return [Note("Left out: no trial has been measured.")]
    width = 130 + 130 * len(names)
    enough = study.measured >= MIN_TRIALS
    told: list[Block] = [_correlations_table(study, metrics)] if enough else [_too_few(study.measured, "correlations")]
    means = [
        Plot(
            figures.latency_bins(study, axes),
            "bins",
            "Mean latency_ratio by parameter",
            "The mean over the trials in each bin of a parameter, a fiftieth of its axis, whatever the others were. "
            "Steps show where a device gains only with whole blocks of channels.",
            min_width=width,
        )
    ]
    return [
        *told,
        Plot(
            figures.parameter_matrix(study, [(title, values) for title, _, values in metrics], first),
            "matrix",
            "Each parameter against each metric",
            "A column of panels is a parameter, a row a metric; marks as in the first figure. A cloud without slope "
            f"means that the parameter alone does not decide the metric. {CLICK}",
            min_width=width,
        ),
        *(means if enough else []),
        Plot(
            figures.parallel_coordinates(study),
            "parallel",
            "Every trial as a line through its parameters and what came of them",
            "The colour is the latency_ratio: the stronger, the faster. Drag along an axis to keep only the lines that "
            "pass there; click the axis to let all back in.",
            min_width=120 * (len(names) + 2),
        ),
    ]


def _too_few(trials: int, what: str) -> Note:
    return Note(f"Left out: {what}. It takes {MIN_TRIALS} measured trials to say anything, and there {_are(trials)}.")


def _are(count: int) -> str:
    return f"{verb(count, 'is', 'are')} {count or 'none'}"


def _correlations_table(study: StudyData, metrics: Sequence[tuple[str, str, Floats]]) -> Table:
    rows, shades = [], {}
    names = short_names(study.columns.parameters)
    for row, (name, column_of) in enumerate(study.columns.parameters.items()):
        found = [correlation(column_of, values) for _, _, values in metrics]
        rows.append([escape(names[name]), *map(_correlation, found)])
        for column, one in enumerate(found, start=1):
            if np.isfinite(one.spearman):
                shades[row, column] = abs(one.spearman)
    counts = [int(np.isfinite(values).sum()) for _, _, values in metrics]
    pairs = f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    return Table(
        "Correlation of parameter and metric",
        "Pearson's r (linear), below it Spearman's \N{GREEK SMALL LETTER RHO} (monotone), from \N{MINUS SIGN}1 to +1; "
        f"the stronger the shade, the larger \N{GREEK SMALL LETTER RHO}. Over {pairs} trials with both figures. A "
        "search that prefers good regions does not draw parameters evenly, which these figures do not correct.",
        ["parameter", *(escape(title) for title, _, _ in metrics)],
        rows,
        shades=shades,
    )


def _correlation(one: Correlation) -> str:
    if not np.isfinite(one.pearson):
        return DASH
    return f"{signed(one.pearson, 2)}<small>{signed(one.spearman, 2)}</small>"


def importance(study: StudyData) -> list[Block]:
    """Return which parameters decide latency and top1."""
    columns, names = study.columns, short_names(study.columns.parameters)
    parameters = {names[name]: values for name, values in columns.parameters.items()}
    axes = {names[name]: axis for name, axis in study.axes.items()}
    top1 = columns.final("top1") if study.retrained else columns.metric("top1", pruned=True)
    candidates = {"latency_ratio": columns.metric("latency_ratio"), "val top1": top1}
    known = {name: of_a_metric(parameters, axes, values) for name, values in candidates.items() if parameters}
    found = {name: one for name, one in known.items() if one}
    if not found:
        return [Note(f"Left out: it takes at least {MIN_TRIALS} measured trials that differ.")]
    told = {name: one for name, one in found.items() if one.explained >= LEAST_EXPLAINED}
    vague = [
        Note(
            f"What decides {name} cannot be told: fitted to {counted(one.n, 'trial')}, the model predicts "
            f"{100 * max(0.0, one.explained):.0f} % of its variance for trials that are left out."
        )
        for name, one in found.items()
        if name not in told
    ]
    if not told:
        return [*vague]
    trust = " and ".join(
        f"{100 * one.explained:.0f} % of the variance of {name} ({counted(one.n, 'trial')})"
        for name, one in told.items()
    )
    return [
        Plot(
            bars.importance(told),
            "importance",
            "How much of a metric each parameter decides",
            "How much less a metric would vary if the parameter were fixed, over the values that were tried, by a "
            "Gaussian process fitted to the trials (total Sobol index); the whiskers are 95 % intervals. What two "
            f"parameters decide together counts for both. Of trials that are left out, the process predicts {trust}; "
            "the less that is, the less the bars say.",
        ),
        *vague,
    ]


def retraining(study: StudyData, axes: Axes, first: int) -> list[Block]:
    """Return top1 before and after retraining."""
    if not study.retrained:
        return [Note("Left out: no trial was retrained.")]
    before, after = study.columns.metric("top1", pruned=True), study.columns.final("top1")
    found = correlation(before, after)
    predicts = (
        f"Over the {found.n} that finished, Pearson's r is {signed(found.pearson, 2)} and Spearman's rho "
        f"{signed(found.spearman, 2)}: the nearer to 1, the better top1 right after pruning predicts what retraining "
        "makes of it."
        if found.n >= MIN_TRIALS and np.isfinite(found.pearson)
        else "Too few trials finished to say whether one predicts the other."
    )
    return [
        Plot(
            figures.before_and_after(study, axes, first),
            "before-after",
            "Validation top1 before and after retraining",
            f"Points above the dotted line gained. {predicts} {CLICK}",
        )
    ]


def ruined(study: StudyData) -> list[Block]:
    """Return how many networks were ruined, and when in the search."""
    if not study.trials:
        return [Note("Left out: no trial has come to an end.")]
    ruined = [record for record in study.trials if ending(record) in RUINED]
    enough = len(study.trials) >= MIN_TRIALS
    share = f" ({100 * len(ruined) / len(study.trials):.1f} %)" if enough else ""
    told = Text(
        [
            f"{len(ruined)} of {counted(len(study.trials), 'trial')}{share} ended no better than chance: "
            "their predictions had collapsed."
        ]
    )
    if not enough or len(set(study.columns.ending)) == 1:
        return [told]
    return [
        told,
        Plot(
            bars.endings_over_search(study),
            "endings",
            "How the trials ended, in the course of the search",
            "Each bar is a tenth of the trials. A search that learns has fewer ruined networks to the right.",
        ),
    ]
