"""What is looked for among networks: a goal, and conditions that must be met. objective_text.py reads it from text.

The goal is a metric, a hybrid, or a front. A hybrid is a weighted sum of normalised metrics. Normalised means: how much
worse than the unpruned network's the metric is, as a share of the unpruned network's figure; (value - unpruned) /
unpruned where smaller is better, and the negative of that where larger is (top1, top5, throughput_fps). So the unpruned
network scores 0, less is better, and no trial's score depends on which other trials there are. In 0.7 * latency_ratio +
0.3 * top1, 1 % of the unpruned latency is worth 0.7 / 0.3 = 2.3 % of the unpruned top1. A ratio of the unpruned network
is 1 by definition. A front is all networks that no other one beats in both its metrics; where one of them has to be
named, it is the knee.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.metrics import LARGER_IS_BETTER, METRICS, RATIO_OF, TRAINED

Metrics = Mapping[str, float]

UNPRUNED = "unpruned"
UNPRUNED_RETRAINED = "unpruned_retrained"
"""The baselines that every study has of itself: the unpruned network as it is, and retrained as the pruned ones are."""

SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Goal:
    """A recorded metric and the direction in which it is better. Write `Minimise` or `Maximise`.

    Attributes:
        metric: Its name, one of `metrics.METRICS`.
    """

    metric: str

    def is_better(self, value: float, than: float) -> bool:
        """Tell whether `value` is strictly better."""
        return self.loss(value) < self.loss(than)

    def loss(self, value: float) -> float:
        """Return `value` turned so that smaller is better."""
        raise NotImplementedError("write Minimise(metric) or Maximise(metric)")

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this goal."""
        if type(self) not in (Minimise, Maximise):
            yield f"a goal must be Minimise(metric) or Maximise(metric), but got {self!r}."
        if not isinstance(self.metric, str) or self.metric not in METRICS:
            yield f"a metric must be one of {list(METRICS)}, but got {self.metric!r}."


@dataclass(frozen=True)
class Minimise(Goal):
    """Smaller is better.

    Attributes:
        metric: The name of a metric, such as "latency_ratio".
    """

    def loss(self, value: float) -> float:
        """Return `value`."""
        return value


@dataclass(frozen=True)
class Maximise(Goal):
    """Larger is better.

    Attributes:
        metric: The name of a metric, such as "top1".
    """

    def loss(self, value: float) -> float:
        """Return `-value`."""
        return -value


@dataclass(frozen=True)
class Hybrid:
    """A weighted sum of normalised metrics, metric -> weight; smaller is better."""

    weights: Mapping[str, float]

    def loss(self, metrics: Metrics, unpruned: Metrics) -> float:
        """Return the sum; 0 for the unpruned network itself."""
        return sum(weight * normalised(name, metrics, unpruned) for name, weight in self.weights.items())


@dataclass(frozen=True)
class FrontOf(Hybrid):
    """The networks that no other one beats in both of two metrics: as good in both, better in one.

    As a hybrid, whose weights are 1, it names one of them: the knee, from which a further 1 % off the unpruned
    network's figure of one metric would cost more than 1 % of the other's.
    """

    @classmethod
    def of(cls, *names: str) -> "FrontOf":
        """Return the front of two metrics."""
        return cls(dict.fromkeys(names, 1.0))

    @property
    def goals(self) -> tuple[Goal, Goal]:
        """The two metrics, each in the direction in which it is better."""
        one, other = (Maximise(name) if name in LARGER_IS_BETTER else Minimise(name) for name in self.weights)
        return one, other

    def losses(self, metrics: Metrics) -> tuple[float, float]:
        """Return both figures turned so that smaller is better."""
        one, other = self.goals
        return one.loss(metrics[one.metric]), other.loss(metrics[other.metric])


@dataclass(frozen=True)
class Bound:
    """`factor` times what baseline `of` has of the metric, plus `offset`; the offset alone without a baseline."""

    offset: float = 0.0
    of: str | None = None
    factor: float = 1.0

    def value(self, metric: str, baselines: Mapping[str, Metrics]) -> float:
        """Return the bound of `metric` as a number."""
        return self.offset + (self.factor * baselines[self.of][metric] if self.of else 0.0)

    @property
    def text(self) -> str:
        """The bound as it is written in an objective."""
        if self.of is None:
            return f"{self.offset:g}"
        scaled = self.of if self.factor == 1 else f"{self.factor:g} * {self.of}"
        return f"{scaled} {'-' if self.offset < 0 else '+'} {abs(self.offset):g}" if self.offset else scaled


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

    @classmethod
    def of(cls, goal: Goal) -> "Objective":
        """Return the objective that is this goal alone."""
        return cls(f"{type(goal).__name__.lower()} {goal.metric}", goal)

    @property
    def label(self) -> str:
        """The name of the figure that it looks at."""
        return self.goal.metric if isinstance(self.goal, Goal) else "score"

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

    def metrics_in(self, metrics: Metrics) -> bool:
        """Tell whether these hold every metric that it speaks of."""
        return all(name in metrics for name in self.metrics)

    @property
    def is_a_metric(self) -> bool:
        """Whether it is one metric without conditions, which needs no words to be explained."""
        return isinstance(self.goal, Goal) and not self.conditions

    def problems(self, baselines: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong with it for a study with these baselines, the unpruned network not counted."""
        if isinstance(self.goal, Goal):
            yield from self.goal.problems()
        checked = self.goal.metric if isinstance(self.goal, Goal) else None
        for metric in self.metrics:
            if metric not in METRICS and metric != checked:
                yield f"a metric must be one of {list(METRICS)}, but got {metric!r}."
        for name in self.baselines:
            if name not in (UNPRUNED, *baselines):
                yield (
                    f"a bound must be a number or one of the study's baselines, {[UNPRUNED, *baselines]}, but got "
                    f"{name!r}{'; put spaces around -.' if '-' in name else '.'}"
                )

    def loss(self, metrics: Metrics, baselines: Mapping[str, Metrics]) -> float:
        """Return what is ranked by; smaller is better."""
        if isinstance(self.goal, Hybrid):
            return self.goal.loss(metrics, baselines[UNPRUNED])
        return self.goal.loss(metrics[self.goal.metric])

    def figure(self, loss: float) -> float:
        """Return the figure whose loss this is: a metric, or a hybrid's score."""
        return self.goal.loss(loss) if isinstance(self.goal, Goal) else loss

    def shortfall(self, metrics: Metrics, baselines: Mapping[str, Metrics]) -> float:
        """Return by how much the conditions are missed in all, each as a share of its bound."""
        return sum(condition.shortfall(metrics, baselines) for condition in self.conditions)

    def shortfall_before_training(self, metrics: Metrics, baselines: Mapping[str, Metrics]) -> float:
        """Return the same of those conditions alone that training has no part in."""
        known = (condition for condition in self.conditions if condition.metric not in TRAINED)
        return sum(condition.shortfall(metrics, baselines) for condition in known)


def normalised(metric: str, metrics: Metrics, unpruned: Metrics) -> float:
    """Return how much worse than the unpruned network's a metric is, as a share of that.

    Of milliseconds, whose difference would be one of different moments, that is what their ratio says.
    """
    ratio = RATIO_OF.get(metric, metric)
    metric = ratio if ratio in metrics and ratio in unpruned else metric
    worse = (metrics[metric] - unpruned[metric]) / unpruned[metric]
    return -worse if metric in LARGER_IS_BETTER else worse
