"""The exact gate: which trials cannot become the best any more, whatever training does to them.

Latency and size are known as soon as a network is pruned and measured; only accuracy has to be bought. So a network
that surely breaks a condition on latency or size is not trained. Where an objective asks for the least latency or size
under conditions, neither is one that is surely worse than the best so far that meets them. Surely means beyond the
noise: the 95 % intervals of the measured ratios do not overlap. Training changes latency by less than that, as far as
was seen; milliseconds are judged as at the fastest moment of the host that the study has seen. Throughput, which has no
interval, ends nothing.

With an objective that is a metric alone nothing is ended for being slow: whoever sets no condition on accuracy wants to
see what speed costs. Baselines are never ended, and do not end others, since they are not chosen.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from edge_tune.metrics import RATIO_OF, RATIOS, TRAINED
from edge_tune.objective import SIGNS, Condition, Minimise, Objective
from edge_tune.records.entries import Evidence
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record

SIZES = ("parameters", "macs")
"""Metrics that are counted, not measured."""


@dataclass(frozen=True)
class Known:
    """A figure that training does not change, with its 95 % interval; that of a count is the count."""

    metric: str
    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """It in words."""
        if self.low == self.high:
            return f"{self.metric} {self.value:.7g}"
        return f"{self.metric} {self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class Gate:
    """Knows the best trial so far from the records of those that have ended.

    With several trials at once, what it knows depends on which have ended; what it says holds all the same.
    """

    def __init__(self, objective: Objective, records: Iterable[Record] = ()) -> None:
        self.objective = objective
        self._standing = Standing(objective, keep="best")
        self._fastest_ms: dict[str, float] = {}
        for record in records:
            self.know(record)

    def know(self, record: Record) -> None:
        """Learn how a trial ended."""
        self._standing.add(record)
        for evidence in record.measurements.values():
            for metric, ms in evidence.reference_ms.items():
                self._fastest_ms[metric] = min(ms, self._fastest_ms.get(metric, ms))

    def why(self, record: Record) -> str | None:
        """Say why a trial under way cannot become the best, or return None."""
        if record.baseline is not None or not self._standing.scorer.is_ready:
            return None
        reason = self._why_by_a_condition(record) or self._why_beaten(record)
        return f"gate: {reason}, and training does not change that" if reason else None

    def _why_by_a_condition(self, record: Record) -> str | None:
        for condition in self.objective.conditions:
            known = None if condition.metric in TRAINED else self._known(record, condition.metric)
            if known and not self._may_hold(condition, known):
                bound = condition.bound.value(condition.metric, self._standing.scorer.baselines)
                return f"{known.text} must hold {condition.metric} {condition.sign} {bound:.7g}"
        return None

    def _may_hold(self, condition: Condition, known: Known) -> bool:
        bound = condition.bound.value(condition.metric, self._standing.scorer.baselines)
        return any(SIGNS[condition.sign](value, bound) for value in (known.low, known.high))

    def _why_beaten(self, record: Record) -> str | None:
        goal, best = self.objective.goal, self._standing.best
        if not isinstance(goal, Minimise) or not self.objective.conditions or best is None:
            return None
        metric = RATIO_OF.get(goal.metric, goal.metric)
        mine, its = self._known(record, metric), self._slowest(best, metric)
        if mine is None or its is None or mine.low <= its.high:
            return None
        return f"{mine.text} is above the {its.text} of {best.name}, which meets the conditions"

    def _slowest(self, record: Record, metric: str) -> Known | None:
        """Return that figure of a trial, before or after its training, whose interval reaches highest."""
        found = [self._known(record, metric, stage) for stage in record.measurements]
        return max((known for known in found if known), key=lambda known: known.high, default=None)

    def _known(self, record: Record, metric: str, stage: str = "pruned") -> Known | None:
        """Return a figure of a network with its interval; None if it has none."""
        if metric in SIZES and metric in record.metrics:
            return Known(metric, *[float(record.metrics[metric])] * 3)
        evidence = record.measurements.get(stage, Evidence())
        ratio = evidence.intervals.get(metric if metric in RATIOS else RATIO_OF.get(metric, ""))
        if ratio is None:
            return None
        if metric in RATIOS:
            return Known(metric, ratio.ratio, ratio.low, ratio.high)
        if metric not in evidence.reference_ms:
            return None
        own = evidence.reference_ms[metric]
        fastest = min(own, self._fastest_ms.get(metric, own))
        return Known(metric, ratio.ratio * own, ratio.low * fastest, ratio.high * own)
