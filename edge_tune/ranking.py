"""Which records are best, which to keep, and what a study's verdict consists of."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_tune.experiment import Goal, KeepWeights, Maximise, Minimise
from edge_tune.results import Metrics, Record

FRONT = (Minimise("latency_ratio"), Maximise("top1"))
"""The goals whose Pareto front keeps its weights. The ratio tells networks apart that were measured an hour apart."""

RATIOS = ("latency_ratio", "total_latency_ratio")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of the verdict.

    Attributes:
        name: As in the records, with what was done to it.
        metrics: Accuracy on validation and the device's measurements.
        test: top1, top5 and loss on the test split.
        device_test_top1: Of the exported network on the device; None where that was not asked.
        ratios: latency_ratio and total_latency_ratio as measured: ratio, low, high. Those of the
            unpruned network are to itself, and so the noise floor.
    """

    name: str
    trial: int
    metrics: Metrics
    test: Metrics
    device_test_top1: float | None = None
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The networks to compare, the chosen one last if there is one, and how the trials ended.

    Attributes:
        simulated: Whether the figures follow from formulas.
    """

    rows: Sequence[Row]
    chosen: int | None
    better_in_both: Mapping[str, Sequence[int]]
    endings: Mapping[str, int]
    simulated: bool = False


def eligible(records: Iterable[Record]) -> list[Record]:
    """Return the records that may be best: finished, and better than chance."""
    return [record for record in records if record.status == "finished" and not record.collapsed]


def best(records: Iterable[Record], target: Goal) -> Record | None:
    """Return the eligible record with the best `target`; the earliest among equals."""
    return min(eligible(records), key=lambda record: target.loss(record.metrics[target.metric]), default=None)


def pareto_front(records: Iterable[Record], goals: tuple[Goal, Goal]) -> list[Record]:
    """Return the eligible records that no other one beats: as good in both `goals`, better in one."""
    candidates = eligible(records)
    losses = [tuple(goal.loss(record.metrics[goal.metric]) for goal in goals) for record in candidates]
    members: set[tuple[float, ...]] = set()
    least = math.inf  # of the second loss, among those whose first is no larger
    for mine in sorted(set(losses)):
        if mine[1] < least:
            members.add(mine)
            least = mine[1]
    return [record for record, mine in zip(candidates, losses, strict=True) if mine in members]


class Standing:
    """What a study has come to so far. What adding a record costs grows with the Pareto front, not with the study.

    Attributes:
        target: What the search looks for.
        ended: Trials that have ended, baselines included but for the unpruned network.
        hopeless: How many of them were stopped as hopeless.
        best: The best trial of the search, or None.
        keep: Which trials' weights are kept.
    """

    def __init__(self, target: Goal, records: Iterable[Record] = (), keep: KeepWeights = "front") -> None:
        self.target = target
        self.keep = keep
        self.ended = self.hopeless = 0
        self.best: Record | None = None
        self._baselines: list[Record] = []
        self._others: list[Record] = []
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take a record into account."""
        self.ended += record.trial > 0
        self.hopeless += record.stopped_by == "hopeless"
        if record.baseline:
            self._baselines.append(record)
            return
        self.best = best([*([self.best] if self.best else []), record], self.target)
        if self.keep == "front":
            self._others = pareto_front([*self._others, record], FRONT)
        if self.keep == "all" and record.status == "finished":
            self._others.append(record)

    @property
    def kept(self) -> list[Record]:
        """The records whose weights are kept: baselines, the best, and the Pareto front or all that finished."""
        return [*self._baselines, *([self.best] if self.best else []), *self._others]


def ratios(measurement: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return the ratios to the unpruned network that a measurement's evidence holds: ratio, low, high."""
    measured = measurement.get("ratios", {})
    return {name: measured[name] for name in RATIOS if name in measured}


def better_in_both(trials: Sequence[Record], baseline: Record) -> list[Record]:
    """Return the trials with a lower latency and a higher validation top1 than a baseline."""
    return [
        trial
        for trial in trials
        if trial.status == "finished"
        and not trial.collapsed
        and baseline.status == "finished"
        and all(goal.is_better(trial.metrics[goal.metric], baseline.metrics[goal.metric]) for goal in FRONT)
    ]


def endings(trials: Sequence[Record]) -> dict[str, int]:
    """Count the trials by how they ended: finished, failed, or the rule that stopped them."""
    counts = {"finished": 0, "hopeless": 0, "asha": 0, "time_limit": 0, "failed": 0}
    for trial in trials:
        ending = trial.stopped_by or trial.status
        counts[ending] = counts.get(ending, 0) + 1  # a newer version may know other rules
    return counts
