"""What was expected of trials before it was known, against what came of them.

The figures are those that each record keeps from the moment at which they were predicted; nothing is predicted anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from edge_tune.metrics import TRAINED
from edge_tune.records.endings import RAN_TO_THE_END, ending
from edge_tune.records.entries import PRUNED, SUGGESTED
from edge_tune.records.results import Record
from edge_tune.report.blocks import Block, Note, Plot
from edge_tune.report.data import StudyData
from edge_tune.report.statistics import Floats, Ints
from edge_tune.report.style import LIGHT, WORDS, f4, padded, styled
from edge_tune.wording import counted

FEWEST = 5
"""Of so many trials at least the predictions are shown: the error of fewer tells nothing."""

WHO = {
    SUGGESTED: "the model of the search, before the network was made",
    PRUNED: "the trials that had finished, before the network was retrained",
}
MARKS = {SUGGESTED: ("circle", "accent"), PRUNED: ("diamond-open", "muted")}


@dataclass(frozen=True)
class Compared:
    """What was expected of a metric at one moment, and what came; row i is the same trial everywhere.

    Attributes:
        when: SUGGESTED or PRUNED.
        rows: The trials' rows in the study.
    """

    metric: str
    when: str
    rows: Ints
    expected: Floats
    found: Floats

    @property
    def median_error(self) -> float:
        """By how much a prediction misses, in the middle: in points of an accuracy, of others in percent of the figure.

        Of the loss, in nats.
        """
        misses = np.abs(self.expected - self.found)
        with np.errstate(divide="ignore", invalid="ignore"):  # of a figure of 0, which a damaged record may hold
            return float(np.median(misses if self.metric in TRAINED else 100 * misses / self.found))

    @property
    def text(self) -> str:
        """It in words."""
        unit = {"loss": "nats", **dict.fromkeys(("top1", "top5"), "points")}.get(self.metric, "%")
        return f"{self.median_error:.2g} {unit} as predicted by {WHO[self.when]} ({counted(len(self.rows), 'trial')})"


def comparisons(trials: Sequence[Record]) -> list[Compared]:
    """Return what was predicted of each metric at each moment, for the trials of which the figure is known.

    What training changes is known of trials that came to their end; all else as soon as they were measured.
    """
    found = []
    metrics = dict.fromkeys(metric for record in trials for one in record.predictions.values() for metric in one)
    for metric in metrics:
        for when in WHO:
            rows = [
                row
                for row, record in enumerate(trials)
                if record.same_as is None
                and metric in record.predictions.get(when, {})
                and record.metrics.get(metric) is not None
                and (metric not in TRAINED or ending(record) in RAN_TO_THE_END)
            ]
            if rows:
                expected = [float(trials[row].predictions[when][metric]) for row in rows]
                came = [float(trials[row].metrics[metric]) for row in rows]
                found.append(Compared(metric, when, np.array(rows), np.array(expected), np.array(came)))
    return found


def predicted(study: StudyData, first: int) -> list[Block]:
    """Return a figure for each metric that was predicted.

    Args:
        first: Row of the study's first trial in the cards.
    """
    found = comparisons(study.trials)
    if not found:
        return [
            Note(
                'Left out: nothing that is known by now was predicted. Search("latency_aware") predicts, once it has '
                "some trials, every network that it suggests; and what training makes of a network is predicted right "
                "after its pruning, once ten trials have finished, if the objective speaks of accuracy."
            )
        ]
    blocks: list[Block] = []
    for metric in dict.fromkeys(one.metric for one in found):
        mine = [one for one in found if one.metric == metric]
        enough = [one for one in mine if len(one.rows) >= FEWEST]
        if enough:
            blocks.append(_plot(metric, enough, first))
        else:
            known = counted(max(len(one.rows) for one in mine), "trial")
            blocks.append(
                Note(f"{WORDS.get(metric, metric)}: left out, since it was predicted and then known of {known} only.")
            )
    return blocks


def _plot(metric: str, compared: Sequence[Compared], first: int) -> Plot:
    trained = metric in TRAINED
    unseen = (
        " Trials that were ended early have no figure at the end and are not shown; those that were audited or "
        "continued are."
        if trained
        else ""
    )
    return Plot(
        _against(metric, compared, first),
        f"predicted-{metric}",
        f"{WORDS.get(metric, metric)}, predicted and {'at the end' if trained else 'measured'}",
        "Each point is a trial: on the dotted line, what came is what was predicted. Half of the predictions miss by "
        f"no more than {'; '.join(one.text for one in compared)}. Each was stored before the trial came to this "
        f"figure, which had no part in it.{unseen}",
    )


def _against(metric: str, compared: Sequence[Compared], first: int) -> go.Figure:
    figure = go.Figure()
    low, high = padded([float(value) for one in compared for value in (*one.expected, *one.found)])
    figure.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"width": 1, "dash": "dot", "color": LIGHT["muted"]},
        hoverinfo="skip",
        name="as predicted",
    )
    for one in compared:
        symbol, color = MARKS[one.when]
        figure.add_scatter(
            x=f4(one.expected),
            y=f4(one.found),
            customdata=(first + one.rows).astype(np.int32),
            mode="markers",
            marker={"symbol": symbol, "color": LIGHT[color], "size": 7},
            name={SUGGESTED: "when suggested", PRUNED: "right after pruning"}[one.when],
            hoverinfo="none",
        )
    word = WORDS.get(metric, metric)
    figure.update_xaxes(title=f"{word}, predicted", range=[low, high], nticks=6)
    figure.update_yaxes(
        title=f"{word}, {'at the end' if metric in TRAINED else 'measured'}", range=[low, high], nticks=6
    )
    return styled(figure, 400, legend=True)
