"""Which stored trial to choose: records are ranked anew by an objective; nothing runs.

An objective is a goal and conditions, in the words of objective_text.py. Its goal may be a hybrid: a weighted sum of
normalised metrics. Normalised means: how much worse than the unpruned network's the metric is, as a share of the
unpruned network's figure; (value - unpruned) / unpruned where smaller is better, and the negative of that where
larger is (top1, top5, throughput_fps). So the unpruned network scores 0, less is better, and no trial's score
depends on which other trials there are. In 0.7 * latency_ratio + 0.3 * top1, 1 % of the unpruned latency is worth
0.7 / 0.3 = 2.3 % of the unpruned top1. A ratio of the unpruned network is 1 by definition.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.errors import ExperimentError
from edge_tune.experiment import Goal
from edge_tune.records.entries import Metrics
from edge_tune.records.ranking import eligible
from edge_tune.records.results import Record
from edge_tune.wording import counted, verb

UNPRUNED = "unpruned"
RATIO_OF = {"latency_ms": "latency_ratio", "total_latency_ms": "total_latency_ratio"}
LARGER_IS_BETTER = frozenset({"top1", "top5", "throughput_fps"})
SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Hybrid:
    """A weighted sum of normalised metrics, metric -> weight; smaller is better."""

    weights: Mapping[str, float]

    def loss(self, metrics: Metrics, unpruned: Metrics) -> float:
        """Return the sum; 0 for the unpruned network itself."""
        return sum(weight * normalised(name, metrics, unpruned) for name, weight in self.weights.items())


@dataclass(frozen=True)
class Bound:
    """`factor` times what baseline `of` has of the metric, plus `offset`; the offset alone without a baseline."""

    offset: float = 0.0
    of: str | None = None
    factor: float = 1.0

    def value(self, metric: str, baselines: Mapping[str, Metrics]) -> float:
        """Return the bound of `metric` as a number."""
        return self.offset + (self.factor * baselines[self.of][metric] if self.of else 0.0)


@dataclass(frozen=True)
class Condition:
    """What a trial's `metric` must hold to be chosen."""

    metric: str
    sign: str
    bound: Bound

    def shortfall(self, metrics: Metrics, baselines: Mapping[str, Metrics]) -> float:
        """Return by how much it is missed, as a share of the bound (of 1 where that is 0); 0: it is met."""
        value, bound = metrics[self.metric], self.bound.value(self.metric, baselines)
        if SIGNS[self.sign](value, bound):
            return 0.0
        return max(abs(value - bound) / (abs(bound) or 1.0), math.ulp(1.0))  # an equal value misses > and < too


@dataclass(frozen=True)
class Objective:
    """What to look for among the trials that meet every condition; `text` as it was written."""

    text: str
    goal: Goal | Hybrid
    conditions: Sequence[Condition] = ()

    @property
    def metrics(self) -> list[str]:
        """Every metric that it speaks of, once."""
        of_goal = list(self.goal.weights) if isinstance(self.goal, Hybrid) else [self.goal.metric]
        return list(dict.fromkeys([*of_goal, *(condition.metric for condition in self.conditions)]))

    @property
    def baselines(self) -> dict[str, list[str]]:
        """The baselines that it speaks of, each with the metrics that are asked of it."""
        asked = {UNPRUNED: list(self.goal.weights)} if isinstance(self.goal, Hybrid) else {}
        for condition in self.conditions:
            if condition.bound.of:
                asked.setdefault(condition.bound.of, []).append(condition.metric)
        return asked

    def loss(self, metrics: Metrics, baselines: Mapping[str, Metrics]) -> float:
        """Return what is ranked by; smaller is better."""
        if isinstance(self.goal, Hybrid):
            return self.goal.loss(metrics, baselines[UNPRUNED])
        return self.goal.loss(metrics[self.goal.metric])

    def shortfall(self, metrics: Metrics, baselines: Mapping[str, Metrics]) -> float:
        """Return by how much the conditions are missed in all, each as a share of its bound."""
        return sum(condition.shortfall(metrics, baselines) for condition in self.conditions)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What an objective makes of a study.

    Attributes:
        records: The trials that meet it, best first; the earlier first among equals.
        losses: Trial -> what it was ranked by, for each of `records`; smaller is better.
        eligible: How many trials might have been chosen: finished, better than chance, with the metrics asked for.
        without: Trials that are left out because they lack a metric that was asked for.
        nearest: Where none meets the conditions, the trial that misses them by the smallest shares.
        baselines: Name -> metrics, as the conditions were judged by.
    """

    objective: Objective
    records: Sequence[Record]
    losses: Mapping[int, float]
    eligible: int
    without: Sequence[Record]
    nearest: Record | None
    baselines: Mapping[str, Metrics]


def rank(objective: Objective, records: Sequence[Record]) -> Ranking:
    """Return the trials among `records` (baselines and trials of one study) in the order of `objective`.

    Raises:
        ExperimentError: It speaks of a baseline that is not there, or of a metric that no trial recorded.
    """
    candidates = eligible(record for record in records if not record.baseline)
    ExperimentError.raise_if(f"objective {objective.text!r}: {problem}" for problem in _problems(objective, records))
    baselines = _baselines(records)
    asked = set(objective.metrics)
    able = [record for record in candidates if asked <= record.metrics.keys()]
    met = [record for record in able if not objective.shortfall(record.metrics, baselines)]
    losses = {record.trial: objective.loss(record.metrics, baselines) for record in met}
    return Ranking(
        objective=objective,
        records=sorted(met, key=lambda record: (losses[record.trial], record.trial)),
        losses=losses,
        eligible=len(able),
        without=[record for record in candidates if not asked <= record.metrics.keys()],
        nearest=None if met else min(able, key=lambda r: objective.shortfall(r.metrics, baselines), default=None),
        baselines=baselines,
    )


def ranking_line(ranking: Ranking) -> str:
    """Return what came of an objective: the trial to choose, or which one came nearest."""
    objective = ranking.objective
    if ranking.records:
        best, met = ranking.records[0], len(ranking.records)
        what = f"{best.name}, {_figures(best, objective)}"
        if isinstance(objective.goal, Hybrid):
            what += f", score {ranking.losses[best.trial]:.4g} (unpruned: 0, less is better)"
        what += f"; {met} of {counted(ranking.eligible, 'eligible trial')} {verb(met, 'meets', 'meet')} it."
    elif ranking.nearest:
        missed = [c for c in objective.conditions if c.shortfall(ranking.nearest.metrics, ranking.baselines)]
        bounds = [f"{c.metric} {c.sign} {c.bound.value(c.metric, ranking.baselines):.4g}" for c in missed]
        what = (
            f"no trial of {ranking.eligible} meets it; nearest came {ranking.nearest.name}, "
            f"{_figures(ranking.nearest, objective)}, which misses {' and '.join(bounds)}."
        )
    else:
        what = "no trial finished better than chance with these metrics, so there is none to choose."
    if ranking.without:
        number = len(ranking.without)
        lack, are = verb(number, "lacks", "lack"), verb(number, "is", "are")
        what += f" {counted(number, 'trial')} {lack} a metric and {are} left out."
    return f"{objective.text}: {what}"


def normalised(metric: str, metrics: Metrics, unpruned: Metrics) -> float:
    """Return how much worse than the unpruned network's a metric is, as a share of that.

    Of milliseconds, whose difference would be one of different moments, that is what their ratio says.
    """
    ratio = RATIO_OF.get(metric, metric)
    metric = ratio if ratio in metrics and ratio in unpruned else metric
    worse = (metrics[metric] - unpruned[metric]) / unpruned[metric]
    return -worse if metric in LARGER_IS_BETTER else worse


def _baselines(records: Sequence[Record]) -> dict[str, Metrics]:
    """Return name -> metrics of the baselines; the unpruned network's ratios are 1 by definition."""
    found: dict[str, Metrics] = {record.name: record.metrics for record in records if record.baseline}
    if UNPRUNED in found:
        ratios = {metric: 1.0 for metric in found[UNPRUNED] if metric.endswith("_ratio")}
        found[UNPRUNED] = {**found[UNPRUNED], **ratios}
    return found


def _problems(objective: Objective, records: Sequence[Record]) -> Iterator[str]:
    """Yield what the objective asks for and the records do not hold."""
    candidates = eligible(record for record in records if not record.baseline)
    recorded = list(dict.fromkeys(metric for record in candidates for metric in record.metrics))
    for metric in objective.metrics:
        if candidates and metric not in recorded:
            yield f"a metric must be one that the trials recorded, {recorded}, but got {metric!r}."
    baselines = _baselines(records)
    for name, metrics in objective.baselines.items():
        if name not in baselines:
            yield (
                f"a bound must be a number or one of the study's baselines, {list(baselines)}, but got {name!r}"
                f"{'; put spaces around -.' if '-' in name else '.'}"
            )
        elif missing := [metric for metric in metrics if metric not in baselines[name]]:
            yield f"baseline {name!r} must have {' and '.join(missing)} to compare with, but lacks it."
    if isinstance(objective.goal, Hybrid):
        for metric in objective.goal.weights:
            if baselines.get(UNPRUNED, {}).get(metric) == 0:
                yield f"a hybrid divides by the unpruned network's {metric}, which must not be 0, but is."


def _figures(record: Record, objective: Objective) -> str:
    return ", ".join(f"{metric} {record.metrics[metric]:.4g}" for metric in objective.metrics)
