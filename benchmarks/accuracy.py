"""How well the accuracy of retrained networks is expected from few trials: with trends, and by a process alone.

python -m benchmarks.accuracy

Figures of real studies: resnet56_h200.csv are trials of ResNet-56 on CIFAR-10 of 6 epochs on 6,000 images, distilled,
of two unpruned networks (`python -m benchmarks.methods` on one NVIDIA H200, which was taken away before the studies
ended); resnet20.jsonl are random plans of ResNet-20 (`python -m benchmarks.record`). So many trials are drawn, the
others are expected. The error counts for the better half of them: nobody wants the others.

A second table says how often the top1 of the random plans keeps to a 90 % bound as `et.Predicted()` forms them, while
few others have finished; one judgement of its has more than that, 97.5 % where there are four.
"""

import csv
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks import replay
from benchmarks.record import EPOCHS
from edge_tune.command import say
from edge_tune.search.accuracy_model import AccuracyModel
from edge_tune.search.prediction import Forecast
from edge_tune.surrogate import Floats, Surrogate

HERE = Path(__file__).parent
KNOWN = (6, 8, 12, 16, 20, 30, 50)
DRAWS = 20
FINISHED = (3, 4, 6, 9, 12)
AFTER = (1, 2, 4, 8)
"""Epochs, of 12."""

LEFT = 6
"""So many others must be left to be expected."""

CONFIDENCE = 0.9
Z90 = 1.645


@dataclass(frozen=True)
class Trials:
    """Retrained networks.

    Attributes:
        gone: The share that goes of the filters of each group, and of the blocks, [trials, groups].
        blocks: How many of the last groups are of blocks.
        top1: [trials], percent.
        unpruned: The top1 of the unpruned network retrained alike.
    """

    name: str
    gone: Floats
    blocks: int
    top1: Floats
    unpruned: float

    @property
    def trends(self) -> Floats:
        """What the method's model takes for them."""
        filters = self.gone.shape[1] - self.blocks
        return np.asarray(self.gone ** np.array([3] * filters + [2] * self.blocks))


def resnet56(seed: int) -> Trials:
    """Return the trials of both methods by one seed."""
    with (HERE / "resnet56_h200.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if int(row["seed"]) == seed]
    filters = [[float(row[f"layer_{n}"]) for n in ("1", "2", "3.1", "3.2")] for row in rows]
    blocks = [[1 - float(row[f"stage_{n}"]) / most for n, most in (("1", 9), ("2", 8), ("3", 8))] for row in rows]
    top1 = np.array([float(row["top1"]) for row in rows])
    return Trials(f"ResNet-56, {seed}", np.hstack([filters, blocks]), 3, top1, float(rows[0]["unpruned_top1"]))


def resnet20() -> Trials:
    """Return the random plans."""
    lines = [json.loads(line) for line in (HERE / "resnet20.jsonl").read_text().splitlines()]
    head, rows = lines[0], [line for line in lines[1:] if line["number"] >= 0]
    filters = [[row["point"][f"layer_{n}.sparsity"] for n in (1, 2, 3)] for row in rows]
    blocks = [
        [1 - row["point"][f"{label}.keep"] / len(order) for label, order in head["orders"].items()] for row in rows
    ]
    alike = next(line for line in lines[1:] if line["number"] < 0)["top1"][-1]
    return Trials("ResNet-20", np.hstack([filters, blocks]), 3, np.array([row["top1"][-1] for row in rows]), alike)


def by_process(trials: Trials, known: Sequence[int], asked: Sequence[int]) -> tuple[Floats, Floats]:
    """Expect top1 by a Gaussian process over what stays."""
    return Surrogate(1 - trials.gone[known], trials.top1[known]).predict(1 - trials.gone[asked])


def by_trends(trials: Trials, known: Sequence[int], asked: Sequence[int]) -> tuple[Floats, Floats]:
    """Expect top1 as `Search("latency_aware")` does."""
    stays, trends = 1 - trials.gone, trials.trends
    model = AccuracyModel(stays[known], trends[known], trials.top1[known], trials.unpruned)
    return model.predict(stays[asked], trends[asked])


Expect = Callable[[Trials, Sequence[int], Sequence[int]], tuple[Floats, Floats]]


def judged(trials: Trials, count: int, expect: Expect) -> tuple[float, float, float]:
    """Return error (points), rank correlation, and how many of 90 % intervals hold the figure; medians of all draws."""
    found = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(trials.top1)).tolist()
        known, asked = order[:count], order[count:]
        mean, deviation = expect(trials, known, asked)
        top1 = trials.top1[asked]
        better, off = top1 >= np.median(top1), np.abs(mean - top1)
        inside = (off <= Z90 * deviation)[better].mean()
        found.append((np.sqrt((off[better] ** 2).mean()), spearmanr(mean, top1).statistic, inside))
    error, order_, inside = np.median(found, axis=0)
    return float(error), float(order_), float(inside)


def bounded(table: replay.Table, count: int, epoch: int) -> tuple[float, float]:
    """Return the share of the networks that keep to their bound, and how far the bound lies above, points; median."""
    above = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(table.plans)).tolist()
        forecast = Forecast(["top1"], EPOCHS)
        for record in table.baselines:
            forecast.know(record)
        for place in order[:count]:
            forecast.know(table.at(table.plans[place], place + 1, EPOCHS))
        for place in order[count:]:
            bound = forecast.best(table.at(table.plans[place], place + 1, epoch), CONFIDENCE)["top1"]
            above.append(bound - table.plans[place]["top1"][-1])
    return float(np.mean(np.array(above) >= 0)), float(np.median(above))


def main() -> int:
    """Print the tables."""
    warnings.filterwarnings("ignore", module="sklearn")
    say(f"Medians of {DRAWS} draws: error of the better half, points / rank correlation / share in the 90 % interval\n")
    say("| trials | known | Gaussian process alone | with trends |\n|---|---|---|---|")
    for trials in (resnet56(0), resnet56(1), resnet20()):
        for count in KNOWN:
            if count <= len(trials.top1) - LEFT:
                cells = [judged(trials, count, expect) for expect in (by_process, by_trends)]
                shown = " | ".join(f"{error:.2f} / {order:.2f} / {inside:.2f}" for error, order, inside in cells)
                say(f"| {trials.name} ({len(trials.top1)}) | {count} | {shown} |")
    heads = " | ".join(f"after {epoch} epochs" for epoch in AFTER)
    say(f"\nShare within the 90 % bound, and how many points above what came it lies, median\n\n| finished | {heads} |")
    say(f"|---{'|---' * len(AFTER)}|")
    for count in FINISHED:
        kept = [bounded(replay.Table.read(), count, epoch) for epoch in AFTER]
        say(f"| {count} | {' | '.join(f'{share:.2f}, {above:+.1f}' for share, above in kept)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
