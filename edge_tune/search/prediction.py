"""What a trial under way will come to: its accuracy at the end, from what is known of it, by the study's own trials.

Once a trial has been retrained for an epoch, the logarithm of what it loses to the unpruned network at its end is taken
to be linear in that of what it loses now, with a slope that is believed to be near 1: three finished trials of the
search (baselines are not drawn as trials are), or of those that earlier studies teach, are enough for that. Right after
pruning, a ridge regression of the final figure on that figure and the logarithm of the multiply-accumulates that are
left predicts, from ten trials on. Both are fitted for each epoch anew.

A trial is judged before it is retrained and after 1, 2, 4, ... epochs, up to half of them: each judgement may be wrong,
and a later one saves less. All of one trial's together keep the confidence that is asked for, each its part of it.

How far a prediction is off is what it misses of each of these trials when that one is left out; a trial unlike the
others gets a wider interval, by its leverage. While they are too few for that, the line's beliefs say it; right after
pruning, nothing does.

Source: for the line, Gelman et al., Bayesian Data Analysis, 2013, sections 14.2 and 14.8; Hoerl and Kennard, Ridge
Regression, 1970, the penalty by leave-one-out; for the interval, conformal prediction by leave-one-out residuals:
Barber et al., Predictive inference with the jackknife+, arXiv:1905.02928, section 1.2, with residuals studentised as in
Lei et al., arXiv:1604.04173, section 5.2; for the parts of a confidence, Bonferroni's inequality.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from edge_tune.metrics import LARGER_IS_BETTER, TRAINED
from edge_tune.objective import SIGNS, UNPRUNED, UNPRUNED_RETRAINED, FrontOf, Goal, Maximise, Objective
from edge_tune.records.entries import Metrics
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record
from edge_tune.wording import counted

Floats = npt.NDArray[np.float64]

LEAST = 10
"""So many trials must have finished before the regression predicts, and before residuals tell how far the line is off:
until then, what is believed does."""

FEW = 3
"""So many must have finished before the line predicts."""

SLOPE_DEVIATION = 0.3
"""Of the line's slope, around 1."""

NOISE, NOISE_COUNTS = 0.3, 4.0
"""What the line leaves over is believed to deviate by so much with all epochs to come, and by as much less as there are
fewer to come; as firmly as so many trials would say it."""

NEAR = 0.4
"""Losses below this share of the median one differ by little."""

PENALTIES = (0.1, 1.0, 10.0, 100.0)
"""Of the squared coefficients, each of a standardised figure: what misses least of the trials left out is taken."""

LATEST = -2
"""Where the latest figure stands among the features; the multiply-accumulates come last."""


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
        place = (features - self.middle) / self.scale
        leverage = 1 / len(self.residuals) + place @ self.inverse @ place
        return self.expected(features) + quantile(self.residuals, confidence) * math.sqrt(1 + leverage)


def quantile(residuals: Floats, confidence: float) -> float:
    """Return what another residual does not exceed, with this confidence; infinite if so few do not tell.

    Args:
        residuals: [trials], ascending.
    """
    nth = math.ceil((len(residuals) + 1) * confidence - 1e-9)
    return float(residuals[nth - 1]) if nth <= len(residuals) else math.inf


@dataclass(frozen=True)
class LossLine:
    """The logarithm of what is lost at the end, linear in that of what is lost now. The slope is believed to be near 1.

    Attributes:
        best: The figure from which losses count.
        near: Added to each loss.
        middle: The mean of the logarithms now.
        level: The logarithm at the end that is expected there.
        slope: Of the line.
        spread: Of the logarithms now, by which the slope is known.
        deviation: Of what the line leaves over.
        residuals: [trials], ascending: prediction - logarithm at the end of each trial left out, studentised.
    """

    best: float
    near: float
    middle: float
    level: float
    slope: float
    spread: float
    deviation: float
    residuals: Floats

    @classmethod
    def fitted(cls, features: Floats, figures: Floats, best: float, to_come: float) -> "LossLine":
        """Return the line through figures [trials] over features [trials, features].

        Args:
            best: The figure of the unpruned network, retrained alike if it was.
            to_come: The share of the epochs that is to come.
        """
        best = max(best, float(figures.max()))
        now, then = np.maximum(0.0, best - features[:, LATEST]), best - figures
        near = max(NEAR * float(np.median([now, then])), 1e-6)
        x, y = np.log(now + near), np.log(then + near)
        middle, level, noise = float(x.mean()), float(y.mean()), NOISE * to_come
        firmness = (noise / SLOPE_DEVIATION) ** 2
        spread = float(((x - middle) ** 2).sum()) + firmness
        slope = (float(((x - middle) * (y - level)).sum()) + firmness) / spread
        left = y - level - slope * (x - middle)
        variance = (float((left**2).sum()) + NOISE_COUNTS * noise**2) / (len(left) + NOISE_COUNTS)
        leverage = 1 / len(left) + (x - middle) ** 2 / spread
        residuals = np.sort(-left / np.sqrt(1 - leverage))
        return cls(best, near, middle, level, slope, spread, math.sqrt(variance), residuals)

    def expected(self, features: Floats) -> float:
        """Return the figure that is expected of a trial with these features, [features]."""
        return self._figure(self.level + self.slope * self._place(features))

    def most(self, features: Floats, confidence: float) -> float:
        """Return what the figure of such a trial does not exceed, with this confidence."""
        place, trials = self._place(features), len(self.residuals)
        off = quantile(self.residuals, confidence) if trials >= LEAST else math.inf
        if math.isinf(off):
            off = self.deviation * float(stdtrit(trials + NOISE_COUNTS - 1, confidence))
        leverage = 1 / trials + place**2 / self.spread
        return self._figure(self.level + self.slope * place - off * math.sqrt(1 + leverage))

    def _figure(self, logarithm: float) -> float:
        return self.best + self.near - math.exp(logarithm)

    def _place(self, features: Floats) -> float:
        return math.log(max(0.0, self.best - float(features[LATEST])) + self.near) - self.middle


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
        self._unpruned: dict[str, Metrics] = {}
        self._fits: dict[tuple[str, int], Ridge | LossLine | None] = {}

    @property
    def trials(self) -> int:
        """How many finished trials it knows."""
        return len(self._finished)

    def know(self, record: Record) -> None:
        """Learn from a trial of the search if it has come to its end; of the unpruned network, what is not lost."""
        if record.baseline in (UNPRUNED, UNPRUNED_RETRAINED) and record.status == "finished":
            self._unpruned[record.baseline] = record.metrics
            self._fits.clear()
        own = record.baseline is None and record.same_as is None
        if own and record.status == "finished" and record.epoch == self.epochs:
            self._finished[record.trial] = replace(record, layers=(), measurements={}, plan=())
            self._fits.clear()

    def expected(self, record: Record) -> dict[str, float]:
        """Return metric -> its expected figure at the end, for as many as can be predicted."""
        found = {}
        for metric in self.metrics:
            features = _features(record, metric)
            if features is not None and (fit := self._fit(metric, record.epoch)):
                found[metric] = _turned(metric, fit.expected(features))
        return found

    def best(self, record: Record, confidence: float) -> dict[str, float]:
        """Return metric -> the best figure that it can have at the end, with this confidence."""
        found = {}
        for metric in self.metrics:
            features = _features(record, metric)
            if features is not None and (fit := self._fit(metric, record.epoch)):
                most = fit.most(features, confidence)
                if math.isfinite(most):
                    found[metric] = _possible(metric, _turned(metric, most))
        return found

    def _fit(self, metric: str, epoch: int) -> Ridge | LossLine | None:
        """Return what predicts from what is known after `epoch` epochs; None: too few trials, or nothing to predict."""
        if epoch >= self.epochs:
            return None
        key = metric, epoch
        if key not in self._fits:
            known = [
                (features, _turned(metric, float(record.metrics[metric])))
                for _, record in sorted(self._finished.items())
                if (features := _features(record, metric, epoch)) is not None and metric in record.metrics
            ]
            rows = (np.array([row for row, _ in known]), np.array([figure for _, figure in known]))
            fit: Ridge | LossLine | None = None
            if epoch and len(known) >= FEW:
                fit = LossLine.fitted(*rows, self._best(metric), 1 - epoch / self.epochs)
            elif not epoch and len(known) >= LEAST:
                fit = Ridge.fitted(*rows)
            self._fits[key] = fit
        return self._fits[key]

    def _best(self, metric: str) -> float:
        """Return the figure of the unpruned network, retrained alike if it was; below all figures if nobody knows."""
        known = (self._unpruned.get(name, {}).get(metric) for name in (UNPRUNED_RETRAINED, UNPRUNED))
        return next((_turned(metric, float(figure)) for figure in known if figure is not None), -math.inf)


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


def _possible(metric: str, figure: float) -> float:
    """Return the figure, or the best that there is: percents end at 100, and no loss is negative."""
    return min(figure, 100.0) if metric in LARGER_IS_BETTER else max(figure, 0.0)


def judged_after(epochs: int) -> list[int]:
    """Return after how many of a trial's epochs it is judged: none, 1, 2, 4, ..., no more than half of them."""
    return [0, *(2**power for power in range(epochs.bit_length()) if 2 * 2**power <= epochs)]


class Outlook:
    """Says of trials under way what they will come to by the objective, from the records of those that have ended.

    Attributes:
        judged_after: The epochs after which a trial is judged.

    Args:
        earlier: Records of earlier studies: they teach what to expect, and are compared with nothing.
    """

    def __init__(
        self, objective: Objective, epochs: int, records: Iterable[Record] = (), earlier: Iterable[Record] = ()
    ) -> None:
        self.objective = objective
        self.forecast = Forecast(objective.metrics, epochs)
        self.judged_after = judged_after(epochs)
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
        """Say why a trial under way cannot reach the objective, or return None.

        Args:
            confidence: That all judgements of a trial together are to have, each of all accuracies that are asked for.
        """
        if record.baseline is not None or record.epoch not in self.judged_after or not self.scorer.is_ready:
            return None
        judgements = len(self.judged_after)
        bounds = judgements * max(1, len(self.forecast.metrics))
        best = self.forecast.best(record, 1 - (1 - confidence) / bounds)
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
            f"predicted: {figures} at its end, with {100 * confidence:g} % confidence in "
            f"{counted(judgements, 'judgement')}, by {self.forecast.trials} finished trials, but {reason}"
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
