"""Latency aware: latency is predicted from a network's widths, and only accuracy has to be learned.

After some plans for a ladder of latencies (../ladder.py), or, where nobody knows the layers, some points that fill the
space evenly, come those of which most is expected by the objective: a Gaussian process says what accuracy to expect, a
latency model what everything else will be (../latency_model.py, ../../surrogate.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

from edge_tune.metrics import LARGER_IS_BETTER, RATIO_OF, TRAINED
from edge_tune.objective import UNPRUNED, UNPRUNED_RETRAINED, FrontOf, Goal, Hybrid, Maximise
from edge_tune.parameters import Parameter, Point
from edge_tune.records.endings import GATE
from edge_tune.records.fronts import front_numbers
from edge_tune.records.results import Record
from edge_tune.search.accuracy_model import AccuracyModel
from edge_tune.search.coding import Coding, Columns, Costs, Floats
from edge_tune.search.ladder import Ladder, rung
from edge_tune.search.latency_model import LEAST_PLANS, CostModel, Observed, fit
from edge_tune.search.suggesters.protocol import Outcome, Problem
from edge_tune.surrogate import area_improvement, improvement

DRAWN = 1500
"""So many random points are looked at for each suggestion."""

PARENTS = 10
"""So many of the best points, and of those that promise most, are changed a little."""

CHILDREN = 50
"""Points made of each of them."""

STEP = 0.1
"""How far a parameter is changed, as a standard deviation on its axis from 0 to 1."""

FIRST = 5
"""So many plans of the ladder, or points that fill the space, come first."""

LEAST = 3
"""So many accuracies are needed before one is expected anywhere."""

Expected = tuple[Floats, Floats]
"""Mean and standard deviation of a figure, each [points]."""


@dataclass(frozen=True)
class _Told:
    """A trial as it was told of last; `metrics` are those that count, none while it runs.

    Attributes:
        as_asked: Whether its kept counts are aligned to nothing, as a baseline's.
        is_own: Whether it is of this study, not of an earlier one.
        trained: Whether its accuracy is that of a retrained network.
        diverged: Whether its retraining diverged, so that its accuracy is none.
        is_met: Whether it may be best.
        counters: Of its layers, as `Coding.counters` has them.
    """

    point: Point
    metrics: Mapping[str, float]
    as_asked: bool = False
    is_own: bool = True
    trained: bool = False
    diverged: bool = False
    is_met: bool = False
    counters: Floats | None = None
    has_ended: bool = False


class LatencyAware:
    """Points of which most is expected, judged by a model of latency and one of accuracy.

    A trial that the gate did not train teaches latency alone. One that was stopped teaches the accuracy that it had;
    one that diverged teaches the least accuracy there is. Trials that failed teach nothing.

    Attributes:
        notes: Sentences for the user that nobody has taken yet: what latency is predicted by, when that changes.
        expected: Metric -> what is expected of the point that was suggested last; empty while nothing is.
    """

    is_exhaustive = False

    def __init__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int, problem: Problem) -> None:
        self.parameters, self.seed, self.problem = parameters, seed, problem
        self.searched = sum(not parameter.is_fixed for parameter in parameters.values())
        self.suggested: set[int] = set()
        self.told: dict[int, _Told] = {}
        self.notes: list[str] = []
        self.expected: dict[str, float] = {}
        self._terms: str | None = None
        self._coding: Coding | None = None

    @property
    def coding(self) -> Coding:
        """The numbers that points stand for; made when the first point is asked for, or told of."""
        if self._coding is None:
            self._coding = Coding(self.problem.experiment, self.parameters, self.problem.shape())
        return self._coding

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Learn of a trial."""
        if not outcome.is_baseline:
            self.suggested.add(outcome.trial)
        record = outcome.record
        if record is None:
            self.told.setdefault(outcome.trial, _Told(dict(point), {}, as_asked=outcome.is_baseline))
            return
        before = self.told.get(outcome.trial)
        if outcome.has_failed:
            self.told.pop(outcome.trial, None)
        elif before and before.has_ended and not record.curve:  # told again: its score alone is new
            self.told[outcome.trial] = replace(before, is_met=outcome.score is not None and outcome.score.rank == 0)
        else:
            told = self._ended(point, record, is_own=outcome.trial > 0)
            self.told[outcome.trial] = replace(told, is_met=outcome.score is not None and outcome.score.rank == 0)

    def tell_part(self, point: Point, record: Record) -> None:
        """Learn of the latency or the accuracy of a trial of an earlier study."""
        self.told[record.trial] = self._ended(point, record, is_own=False)

    def _ended(self, point: Point, record: Record, *, is_own: bool) -> _Told:
        metrics = {name: float(value) for name, value in record.metrics.items()}
        return _Told(
            dict(point),
            metrics,
            as_asked=record.baseline is not None,
            is_own=is_own,
            trained=record.status == "finished" or record.stopped_by == "hopeless" or _was_trained(record),
            diverged=record.diverged,
            counters=self.coding.counters(record) if "latency_ratio" in metrics else None,
            has_ended=True,
        )

    def suggest(self) -> Point | None:
        """Return a point; there is always another."""
        number = len(self.suggested)
        if number < FIRST - self._taught() or (models := self._models()) is None:
            self.expected = {}
            return self._filling(number)
        generator = np.random.default_rng([self.seed, number])
        units = generator.random((DRAWN, self.searched))
        worth = models.worth(units)
        parents = np.vstack([units[np.argsort(-worth, kind="stable")[:PARENTS]], models.best_units(PARENTS)])
        children = _changed(np.repeat(parents, CHILDREN, axis=0), generator)
        units, worth = np.vstack([units, children]), np.concatenate([worth, models.worth(children)])
        if models.terms != self._terms:
            self._terms = models.terms
            self.notes.append(models.text)
        best = units[[int(np.argmax(worth))]]
        self.expected = models.expected(best)
        return self.coding.point(self.coding.from_units(best), 0)

    def _filling(self, number: int) -> Point:
        """Return a point of a sequence that fills the space evenly; its sizes are those of a rung of the ladder."""
        sequence = qmc.Sobol(self.searched, scramble=True, rng=np.random.default_rng(self.seed))
        if number:
            sequence.fast_forward(number)
        columns = self.coding.from_units(sequence.random(1))
        if self.coding.kinds and self.coding.sizes:
            plans = Ladder(self.coding, self.problem.importances, self._time(), self._most())
            columns = plans.plan(columns, rung(number))
        return self.coding.point(columns, 0)

    def _time(self) -> Callable[[Costs], Floats]:
        """Return what tells the time of networks as a share of the unpruned network's: MACs while few are measured."""
        told = [self.told[trial] for trial in sorted(self.told)]
        measured = [one for one in told if one.counters is not None]
        if len(measured) < LEAST_PLANS:
            return lambda costs: costs.macs
        columns = _columns(self.coding, measured)
        values = np.array([one.metrics["latency_ratio"] for one in measured])
        counters = np.stack([one.counters for one in measured if one.counters is not None])
        return fit(Observed(self.coding.costs(columns), values, counters, 1.0)).predict

    def _most(self) -> float:
        """Return the greatest time that the objective allows, as a share of the unpruned network's."""
        baselines = self.problem.scorer.baselines
        bounds = [1.0]
        for condition in self.problem.experiment.objective.conditions:
            own = baselines.get(UNPRUNED, {}).get(condition.metric)
            if condition.metric in ("latency_ratio", "latency_ms") and own and condition.sign.startswith("<"):
                bounds.append(condition.bound.value(condition.metric, baselines) / own)
        return min(bounds)

    def _taught(self) -> int:
        """Return how many trials of earlier studies teach accuracy, as the first points would."""
        wanted = TRAINED & set(self.problem.experiment.objective.metrics)
        return sum(not one.is_own and one.trained and wanted <= one.metrics.keys() for one in self.told.values())

    def _models(self) -> "_Models | None":
        """Return what is expected of points; None while too little is known."""
        told = [self.told[trial] for trial in sorted(self.told)]
        models = _Models(self.coding, self.problem, told)
        return models.believing([one for one in told if not one.has_ended]) if models.can_tell else None


def _was_trained(record: Record) -> bool:
    """Tell whether a trial that did not come to its end has an accuracy that retraining gave it, or has diverged."""
    return record.diverged or (record.epoch > 0 and record.stopped_by != GATE)


def _changed(units: Floats, generator: np.random.Generator) -> Floats:
    """Return points of which one or two parameters were changed a little, or drawn anew."""
    count, searched = units.shape
    which = generator.random((count, searched)) < min(1.0, 1.5 / searched)
    which[np.arange(count), generator.integers(searched, size=count)] = True
    moved = np.clip(units + generator.normal(scale=STEP, size=units.shape), 0, 1 - 1e-9)
    anew = generator.random(units.shape)
    return np.where(which, np.where(generator.random(units.shape) < 0.1, anew, moved), units)


def _columns(coding: Coding, told: Sequence[_Told]) -> Columns:
    return coding.columns([one.point for one in told], [one.as_asked for one in told])


class _Models:
    """What is expected of points, from the trials that have ended.

    Attributes:
        known: Trials with all metrics of the objective.
        learned: Those that teach accuracy.
        sized: Those that teach what training does not change.
    """

    def __init__(self, coding: Coding, problem: Problem, told: Sequence[_Told]) -> None:
        self.coding, self.objective = coding, problem.experiment.objective
        self.baselines, self.is_ready = problem.scorer.baselines, problem.scorer.is_ready
        wanted = set(self.objective.metrics)
        self.known = [one for one in told if wanted <= one.metrics.keys()]
        self.learned = [one for one in told if one.trained and wanted & TRAINED <= one.metrics.keys()]
        self.sized = [one for one in told if one.metrics and wanted - TRAINED <= one.metrics.keys()]
        self.trained, self.untrained = wanted & TRAINED, wanted - TRAINED
        self.met = [dict(one.metrics) for one in self.known if one.is_met and one.is_own]

    @property
    def can_tell(self) -> bool:
        """Whether enough is known."""
        enough = (not self.trained or len(self.learned) >= LEAST) and (not self.untrained or len(self.sized) >= LEAST)
        return self.is_ready and enough

    def believing(self, running: Sequence[_Told]) -> "_Models":
        """Fit all models; what runs is believed to come as expected."""
        columns = _columns(self.coding, self.known)
        self.units = self.coding.units(columns)
        self.costs = self.coding.costs(_columns(self.coding, self.sized))
        self.accuracies = {metric: self._accuracy(metric) for metric in self.objective.metrics if metric in TRAINED}
        self.models = {metric: self._cost_model(metric) for metric in self.objective.metrics if metric not in TRAINED}
        own = [one.is_own for one in self.known]
        self.taken = {tuple(row) for row in np.round(self.coding.inputs(columns)[np.array(own, dtype=bool)], 6)}
        if running:
            self._believe(_columns(self.coding, running))
        return self

    @property
    def terms(self) -> str:
        """What the first figure that training does not change is predicted by."""
        return next((model.terms for model in self.models.values()), "")

    @property
    def text(self) -> str:
        """The same in a sentence."""
        found = [f"{metric} is predicted by {model.text}" for metric, model in self.models.items()]
        return f"latency_aware: {found[0] if found else 'the objective speaks of accuracy alone'}."

    def expected(self, units: Floats) -> dict[str, float]:
        """Return metric -> the figure that is expected of one point, [1, searched parameters]."""
        columns = self.coding.from_units(units)
        expected = self._expected(self.coding.inputs(columns), self.coding.costs(columns))
        return {metric: float(mean[0]) for metric, (mean, _) in expected.items()}

    def worth(self, units: Floats) -> Floats:
        """Return how much is expected of points, [points]; less than nothing where the network was tried."""
        columns = self.coding.from_units(units)
        inputs = self.coding.inputs(columns)
        expected = self._expected(inputs, self.coding.costs(columns))
        worth = self._improvement(expected) * self._chance(expected)
        if not self.met and self.objective.conditions:
            worth = self._chance(expected)  # first of all, one that meets the conditions
        tried = np.array([tuple(row) in self.taken for row in np.round(inputs, 6)])
        return np.where(tried, -math.inf, worth)

    def best_units(self, most: int) -> Floats:
        """Return where the best trials lie: those that may be best, by the objective, then the others by number."""
        losses = [self.objective.loss(one.metrics, self.baselines) for one in self.known]
        order = sorted(range(len(self.known)), key=lambda place: (not self.known[place].is_met, losses[place], place))
        if isinstance(goal := self.objective.goal, FrontOf):
            numbers = front_numbers([goal.losses(one.metrics) for one in self.known])
            order.sort(key=lambda place: (not self.known[place].is_met, numbers[place]))
        return self.units[order[:most]]

    def _believe(self, columns: Columns) -> None:
        """Take what runs for what is expected of it, so that others are tried beside it."""
        inputs, costs = self.coding.inputs(columns), self.coding.costs(columns)
        expected, trends = self._expected(inputs, costs), self.coding.trends(costs)
        self.accuracies = {metric: one.with_believed(inputs, trends) for metric, one in self.accuracies.items()}
        self.taken |= {tuple(row) for row in np.round(inputs, 6)}
        for row in range(len(inputs)):
            metrics = {metric: float(mean[row]) for metric, (mean, _) in expected.items()}
            if not self.objective.shortfall(metrics, self.baselines):
                self.met.append(metrics)

    def _accuracy(self, metric: str) -> AccuracyModel:
        sign = 1.0 if metric in LARGER_IS_BETTER else -1.0
        figures = np.array([sign * one.metrics[metric] for one in self.learned])
        figures[[one.diverged for one in self.learned]] = figures.min()
        columns = _columns(self.coding, self.learned)
        known = (self.baselines.get(name, {}).get(metric) for name in (UNPRUNED_RETRAINED, UNPRUNED))
        unpruned = next((sign * figure for figure in known if figure is not None), figures.max())
        trends = self.coding.trends(self.coding.costs(columns))
        return AccuracyModel(self.coding.inputs(columns), trends, figures, float(unpruned))

    def _cost_model(self, metric: str) -> CostModel:
        """Return what tells a figure that training does not change; milliseconds by their ratio."""
        values = np.array([one.metrics[metric] for one in self.sized])
        ratio = RATIO_OF.get(metric, metric)
        unpruned = self.baselines.get(UNPRUNED, {})
        if metric in LARGER_IS_BETTER:  # images a second: what an image takes follows from what stays
            own = unpruned.get(metric)
            model = fit(Observed(self.costs, 1 / values, unpruned=1 / own if own else None))
            return replace(model, predict=lambda costs: 1 / np.maximum(model.predict(costs), 1e-12))
        if ratio == metric or ratio not in unpruned or any(ratio not in one.metrics for one in self.sized):
            counters = None
            if metric == "latency_ratio":
                nothing = np.zeros(len(self.coding.kinds) + 1)
                counters = np.stack([nothing if one.counters is None else one.counters for one in self.sized])
            return fit(Observed(self.costs, values, counters, unpruned.get(metric)))
        model = self._cost_model(ratio)
        return replace(model, predict=lambda costs: unpruned[metric] * model.predict(costs))

    def _expected(self, inputs: Floats, costs: Costs) -> dict[str, Expected]:
        found: dict[str, Expected] = {}
        for metric, model in self.models.items():
            mean = model.predict(costs)
            found[metric] = mean, model.error * np.abs(mean)
        trends = self.coding.trends(costs)
        for metric, accuracy in self.accuracies.items():
            mean, deviation = accuracy.predict(inputs, trends)
            found[metric] = mean if metric in LARGER_IS_BETTER else -mean, deviation
        return found

    def _improvement(self, expected: Mapping[str, Expected]) -> Floats:
        goal = self.objective.goal
        if isinstance(goal, FrontOf):
            return self._area(goal, expected)
        mean, deviation = self._loss(goal, expected)
        losses = [self.objective.loss(metrics, self.baselines) for metrics in self.met]
        best = min(losses, default=float(mean.max()))
        return improvement(best, mean, deviation)

    def _loss(self, goal: Goal | Hybrid, expected: Mapping[str, Expected]) -> Expected:
        """Return the objective's loss, which is linear in the metrics."""
        if isinstance(goal, Goal):
            mean, deviation = expected[goal.metric]
            return (-mean if isinstance(goal, Maximise) else mean), deviation
        unpruned = self.baselines[UNPRUNED]
        parts = []
        for metric, weight in goal.weights.items():
            mean, deviation = expected[metric]
            share = weight / unpruned[metric] * (-1 if metric in LARGER_IS_BETTER else 1)
            parts.append((share * (mean - unpruned[metric]), abs(share) * deviation))
        return sum(mean for mean, _ in parts), np.sqrt(sum(deviation**2 for _, deviation in parts))  # type: ignore[return-value]

    def _area(self, goal: FrontOf, expected: Mapping[str, Expected]) -> Floats:
        """Return the area that is expected to be added to the front: the loss that is less sure is the normal one."""
        first, second = goal.goals
        swapped = first.metric in TRAINED and second.metric not in TRAINED
        known, (mean, deviation) = (
            self._loss(one, expected) for one in ((second, first) if swapped else (first, second))
        )
        pairs = [goal.losses(metrics) for metrics in self.met]
        pairs = [(other, one) for one, other in pairs] if swapped else pairs
        if not pairs:
            return np.ones(len(mean))
        reference = (max(one for one, _ in pairs), max(other for _, other in pairs))
        if UNPRUNED in self.baselines:
            own = goal.losses(self.baselines[UNPRUNED])
            own = (own[1], own[0]) if swapped else own
            reference = (max(reference[0], own[0]), max(reference[1], own[1]))
        front = [pair for pair, number in zip(pairs, front_numbers(pairs), strict=True) if number == 0]
        return area_improvement(sorted(set(front)), reference, known[0], mean, deviation)

    def _chance(self, expected: Mapping[str, Expected]) -> Floats:
        """Return with which probability a point's network meets every condition."""
        chance = np.ones(1)
        for condition in self.objective.conditions:
            mean, deviation = expected[condition.metric]
            room = mean - condition.bound.value(condition.metric, self.baselines)
            room = room if condition.sign.startswith(">") else -room
            chance = chance * ndtr(room / np.maximum(deviation, 1e-9))
        return chance
