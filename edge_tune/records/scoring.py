"""How good a record is by an objective: the one order of a study, for the search while it runs and for the end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.objective import UNPRUNED, FrontOf, Objective
from edge_tune.records.endings import GATE
from edge_tune.records.entries import Metrics
from edge_tune.records.fronts import places
from edge_tune.records.results import Record

BEATEN = 5e10
"""Added to the loss of a network that was not trained, since a better one was known that meets the conditions."""

BREAKS = 1e11
"""From here on lie the losses of networks that break a condition, up to ten times as much."""

WORST = 1e12
"""Added to the loss of a trial that did not finish or that is at chance."""


@dataclass(frozen=True, order=True)
class Score:
    """Smaller is better.

    Attributes:
        rank: 0 for a network that may be best. 1 for one that the gate did not train because a better one was known: it
            lies behind all that may be best, by its own loss, whatever its accuracy would have been; so a method of
            search is neither drawn to where it lies, nor told that it breaks a condition, which nobody knows. 2 for one
            that breaks a condition, trained or not. 3 for one whose trial did not finish, or no better than chance.
        loss: Of networks with the same rank: the objective's loss; in rank 2 by how much the conditions are missed, of
            one that was not trained those alone that training has no part in.
    """

    rank: int
    loss: float

    @property
    def for_search(self) -> float:
        """One number in the same order, for a method of search that knows no conditions."""
        if self.rank == 1:
            return BEATEN + min(self.loss, BEATEN / 2)
        if self.rank == 2:
            return BREAKS * (1 + min(self.loss, 8.0))
        return self.loss + WORST * (self.rank == 3)


class Scorer:
    """Scores the records of a study by its objective, as soon as the baselines are known that it compares with."""

    def __init__(self, objective: Objective, records: Iterable[Record] = ()) -> None:
        """Take the baselines among `records` into account."""
        self.objective = objective
        self.baselines: dict[str, Metrics] = {}
        for record in records:
            self.know(record)

    def know(self, record: Record) -> None:
        """Take a record into account if it is a baseline's. The unpruned network's ratios are 1 by definition."""
        if not record.baseline:
            return
        ratios = {metric: 1.0 for metric in record.metrics if metric.endswith("_ratio")}
        self.baselines[record.name] = {**record.metrics, **(ratios if record.name == UNPRUNED else {})}

    @property
    def is_ready(self) -> bool:
        """Whether all baselines are known that the objective compares with, with the metrics that it asks for."""
        return all(
            set(metrics) <= self.baselines.get(name, {}).keys() for name, metrics in self.objective.baselines.items()
        )

    def score(self, record: Record) -> Score:
        """Return how good a record is that holds the objective's metrics; the scorer must be ready."""
        loss = self.objective.loss(record.metrics, self.baselines)
        if record.stopped_by == GATE:
            known = self.objective.shortfall_before_training(record.metrics, self.baselines)
            return Score(2, known) if known else Score(1, loss)
        if record.status != "finished" or record.collapsed:
            return Score(3, loss)
        if shortfall := self.objective.shortfall(record.metrics, self.baselines):
            return Score(2, shortfall)
        return Score(0, loss)

    def scores(self, records: Sequence[Record]) -> dict[int, Score]:
        """Return trial -> how good it is among these, which is what a method of search is told.

        Of a front, those that meet the conditions are ranked against each other, so that each score is as good as the
        others let it be: `fronts.places` says how. Else it is the score that each has alone.
        """
        found = {record.trial: self.score(record) for record in records}
        if isinstance(goal := self.objective.goal, FrontOf):
            able = [record for record in records if found[record.trial].rank == 0]
            ranked = places([goal.losses(record.metrics) for record in able])
            found |= {record.trial: Score(0, place) for record, place in zip(able, ranked, strict=True)}
        return found

    def order(self, metrics: Sequence[Metrics]) -> list[tuple[int, float]]:
        """Return how networks with these metrics compare by the objective, the smaller the better, each as a key.

        First come those that meet the conditions, by the objective's loss, or by their places on the front; then the
        others, by how far they miss them. The scorer must be ready.
        """
        missed = [self.objective.shortfall(one, self.baselines) for one in metrics]
        losses = [self.objective.loss(one, self.baselines) for one in metrics]
        if isinstance(goal := self.objective.goal, FrontOf):
            able = [nth for nth, shortfall in enumerate(missed) if not shortfall]
            for nth, place in zip(able, places([goal.losses(metrics[nth]) for nth in able]), strict=True):
                losses[nth] = place
        return [(1, miss) if miss else (0, loss) for miss, loss in zip(missed, losses, strict=True)]

    def shown(self, metrics: Mapping[str, float]) -> float:
        """Return the figure that the objective looks at, in its own direction: a metric, or a hybrid's score."""
        return self.objective.figure(self.objective.loss(metrics, self.baselines))
