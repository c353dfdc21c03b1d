"""What a trial under way will come to: its accuracy at the end, from what is known of it, by the study's own trials.

A ridge regression of the final figure on what a trial has shown so far: the figure right after pruning and after each
epoch, and the logarithm of the multiply-accumulates that are left. It is fitted to the finished trials of the search
(baselines are not drawn as trials are), and to those that earlier studies teach, for each epoch anew. How far it is off
is what it misses of each of these trials when that one is left out; a trial unlike the others gets a wider interval, by
its leverage.

Source: Hoerl and Kennard, Ridge Regression, 1970, the penalty by leave-one-out; for the interval, conformal prediction
by leave-one-out residuals: Barber et al., Predictive inference with the jackknife+, arXiv:1905.02928, section 1.2, with
residuals studentised as in Lei et al., arXiv:1604.04173, section 5.2.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_tune.metrics import LARGER_IS_BETTER, TRAINED
from edge_tune.objective import SIGNS, FrontOf, Goal, Maximise, Objective
from edge_tune.records.entries import Metrics
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record

Floats = npt.NDArray[np.float64]

LEAST = 10
"""So many trials must have finished before anything is predicted."""

PENALTIES = (0.1, 1.0, 10.0, 100.0)
"""Of the squared coefficients, each of a standardised figure: what misses least of the trials left out is taken."""


@dataclass(frozen=True)
class Ridge:
    """A regression that was fitted to some trials.

    Attributes:
        middle, scale: [features], by which features are standardised.
        inverse: [features, features], of the penalised covariance.
        coefficients: [features], of the standardised features.
        mean: Of the figures.
        residuals: [trials], ascending: figure - prediction of each trial left out, studentised.
    """

    middle: Floats
    scale: Floats
    inverse: Floats
    coefficients: Floats
    mean: float
    residuals: Floats

    @classmethod
    def fitted(cls, features: Floats, figures: Floats) -> "Ridge":
        """Return the regression of figures [trials] on features [trials, features]."""
        middle, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        known, mean = (features - middle) / scale, float(figures.mean())
        found = []
        for penalty in PENALTIES:
            inverse = np.linalg.inv(known.T @ known + penalty * np.eye(known.shape[1]))
            coefficients = inverse @ known.T @ (figures - mean)
            leverage = 1 / len(known) + np.einsum("tf,fg,tg->t", known, inverse, known)
            left_out = (figures - mean - known @ coefficients) / (1 - leverage)
            residuals = np.sort(left_out * np.sqrt(1 - leverage))
            found.append((float((left_out**2).sum()), cls(middle, scale, inverse, coefficients, mean, residuals)))
        return min(found, key=lambda one: one[0])[1]

    def expected(self, features: Floats) -> float:
        """Return the figure that is expected of a trial with these features, [features]."""
        return float(self.mean + (features - self.middle) / self.scale @ self.coefficients)

    def most(self, features: Floats, confidence: float) -> float:
        """Return what the figure of such a trial does not exceed, with this confidence; infinite if that is unknown."""
        nth = math.ceil((len(self.residuals) + 1) * confidence - 1e-9)
        if nth > len(self.residuals):
            return math.inf
        place = (features - self.middle) / self.scale
        leverage = 1 / len(self.residuals) + place @ self.inverse @ place
        return self.expected(features) + float(self.residuals[nth - 1]) * math.sqrt(1 + leverage)


class Forecast:
    """Predicts the figures that training changes, each turned so that larger is better; says nothing of others.

    Args:
        metrics: Those that are asked for.
        epochs: Of a trial that comes to its end.
    """

    def __init__(self, metrics: Collection[str], epochs: int) -> None:
        self.metrics = [metric for metric in metrics if metric in TRAINED]
        self.epochs = epochs
        self._finished: dict[int, Record] = {}
        self._fits: dict[tuple[str, int], Ridge | None] = {}

    @property
    def trials(self) -> int:
        """How many finished trials it knows."""
        return len(self._finished)

    def know(self, record: Record) -> None:
        """Learn from a trial of the search if it has come to its end."""
        own = record.baseline is None and record.same_as is None
        if own and record.status == "finished" and record.epoch == self.epochs:
            self._finished[record.trial] = replace(record, layers=(), measurements={}, plan=())
            self._fits.clear()

    def expected(self, record: Record) -> dict[str, float]:
        """Return metric -> its expected figure at the end, for as many as can be predicted."""
        found = {}
        for metric in self.metrics:
            features = _features(record, metric)
            if features is not None and (ridge := self._fit(metric, record.epoch)):
                found[metric] = _turned(metric, ridge.expected(features))
        return found

    def best(self, record: Record, confidence: float) -> dict[str, float]:
        """Return metric -> the best figure that it can have at the end, with this confidence."""
        found = {}
        for metric in self.metrics:
            features = _features(record, metric)
            if features is not None and (ridge := self._fit(metric, record.epoch)):
                most = ridge.most(features, confidence)
                if math.isfinite(most):
                    found[metric] = _turned(metric, most)
        return found

    def _fit(self, metric: str, epoch: int) -> Ridge | None:
        """Return the regression on what is known after `epoch` epochs; None: too few trials, or nothing to predict."""
        if epoch >= self.epochs:
            return None
        key = metric, epoch
        if key not in self._fits:
            known = [
                (features, _turned(metric, float(record.metrics[metric])))
                for _, record in sorted(self._finished.items())
                if (features := _features(record, metric, epoch)) is not None and metric in record.metrics
            ]
            enough = len(known) >= LEAST
            rows = (np.array([row for row, _ in known]), np.array([figure for _, figure in known]))
            self._fits[key] = Ridge.fitted(*rows) if enough else None
        return self._fits[key]


def _features(record: Record, metric: str, epoch: int | None = None) -> Floats | None:
    """Return what is known of a trial after so many epochs, or after its last; None if something is missing."""
    curve = record.curve[: record.epoch if epoch is None else epoch]
    figures = [record.pruned.get(metric), *(entry.metrics.get(metric) for entry in curve)]
    macs = record.pruned.get("macs")
    known = [float(figure) for figure in figures if figure is not None]
    if not macs or len(known) < len(figures):
        return None
    return np.array([*(_turned(metric, figure) for figure in known), math.log(macs)])


def _turned(metric: str, figure: float) -> float:
    return figure if metric in LARGER_IS_BETTER else -figure


class Outlook:
    """Says of trials under way what they will come to by the objective, from the records of those that have ended.

    Args:
        earlier: Records of earlier studies: they teach what to expect, and are compared with nothing.
    """

    def __init__(
        self, objective: Objective, epochs: int, records: Iterable[Record] = (), earlier: Iterable[Record] = ()
    ) -> None:
        self.objective = objective
        self.forecast = Forecast(objective.metrics, epochs)
        self._standing = Standing(objective, keep="best")
        self.scorer = self._standing.scorer
        for record in earlier:
            self.forecast.know(record)
        for record in records:
            self.know(record)

    def know(self, record: Record) -> None:
        """Learn how a trial ended."""
        self._standing.add(record)
        self.forecast.know(record)

    def expected(self, record: Record) -> Metrics:
        """Return a trial's metrics as they are expected at its end; as they are now where nothing is predicted."""
        return {**record.metrics, **self.forecast.expected(record)}

    def why_not(self, record: Record, confidence: float) -> str | None:
        """Say why a trial under way cannot reach the objective, with this confidence, or return None."""
        if record.baseline is not None or not self.scorer.is_ready:
            return None
        best = self.forecast.best(record, confidence)
        if not best:
            return None
        metrics = {**record.metrics, **best}
        reason = self._why_by_a_condition(metrics, best) or self._why_beaten(metrics, best)
        if reason is None:
            return None
        figures = " and ".join(
            f"{metric} {'at most' if metric in LARGER_IS_BETTER else 'at least'} {figure:.4g}"
            for metric, figure in best.items()
        )
        return (
            f"predicted: {figures} at its end, with {100 * confidence:g} % confidence by "
            f"{self.forecast.trials} finished trials, but {reason}"
        )

    def _why_by_a_condition(self, metrics: Metrics, best: Metrics) -> str | None:
        """Say which condition will be missed; of one that a better figure breaks, the best one says nothing."""
        for condition in self.objective.conditions:
            asks_for_more = condition.sign in (">=", ">")
            if condition.metric in best and asks_for_more == (condition.metric in LARGER_IS_BETTER):
                bound = condition.bound.value(condition.metric, self.scorer.baselines)
                if not SIGNS[condition.sign](metrics[condition.metric], bound):
                    return f"{condition.metric} {condition.sign} {bound:.4g} must hold"
        return None

    def _why_beaten(self, metrics: Metrics, best: Metrics) -> str | None:
        """Say which trial is better, if accuracy has a part in that: who is slower, the gate knows."""
        goal, known = self.objective.goal, self._standing.best
        of_goal = [goal.metric] if isinstance(goal, Goal) else list(goal.weights)
        if known is None or not set(of_goal) & best.keys():
            return None
        if isinstance(goal, Goal) and isinstance(goal, Maximise) != (goal.metric in LARGER_IS_BETTER):
            return None  # the best figure is the worst for such a goal, and says nothing
        if isinstance(goal, FrontOf):
            mine = goal.losses(metrics)
            return next(
                (
                    f"{record.name} is better in {' and '.join(of_goal)}"
                    for record in self._standing.front
                    if (its := goal.losses(record.metrics)) != mine and its[0] <= mine[0] and its[1] <= mine[1]
                ),
                None,
            )
        loss, least = (self.objective.loss(one, self.scorer.baselines) for one in (metrics, known.metrics))
        if loss <= least:
            return None
        return f"{known.name} has {self.objective.label} {self.objective.figure(least):.4g}"
