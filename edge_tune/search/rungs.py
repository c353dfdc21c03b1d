"""ASHA by the objective of a study: the rungs, and what becomes of a trial that is not among the best of one."""

from edge_tune.experiment import Asha
from edge_tune.records.results import Record, Stop
from edge_tune.search.prediction import Outlook


class Rungs:
    """The trials that came to each rung, as they were there.

    A trial that is run again after its process was lost keeps its number, and so it counts once in each rung.
    """

    def __init__(self, rule: Asha, epochs: int, outlook: Outlook) -> None:
        self.rule, self.outlook = rule, outlook
        self._rungs: dict[int, dict[int, Record]] = {}
        milestone = rule.grace_epochs
        while milestone <= epochs:
            self._rungs[milestone] = {}
            milestone *= rule.reduction_factor

    def enter(self, record: Record) -> Stop | None:
        """Enter a trial into the highest rung that it has come to, once; say why it is to stop there, if it is."""
        if (milestone := self.put(record)) is None:
            return None
        others = [other for trial, other in self._rungs[milestone].items() if trial != record.trial]
        why = self._why_not_among_the_best(record, others, milestone)
        return Stop("asha", record.epoch, why) if why else None

    def put(self, record: Record) -> int | None:
        """Enter a trial in the same way, and compare it with no other. Returns the epoch of the rung, if it is new."""
        for milestone in sorted(self._rungs, reverse=True):
            if milestone <= record.epoch and record.trial not in self._rungs[milestone]:
                self._rungs[milestone][record.trial] = _slim(record)
                return milestone
        return None

    def _why_not_among_the_best(self, record: Record, others: list[Record], milestone: int) -> str | None:
        scorer, factor = self.outlook.scorer, self.rule.reduction_factor
        if not scorer.is_ready:
            return None
        *theirs, mine = scorer.order([self.outlook.expected(one) for one in (*others, record)])
        better = sum(its < mine for its in theirs)
        if better < max(1.0, (len(others) + 1) / factor):
            return None
        how = ", as they are expected to end" if self.outlook.forecast.expected(record) else ""
        return (
            f"asha: {better} of the {len(others)} other trials that came to epoch {milestone} are better by the "
            f"objective{how}, so that it is outside the best 1/{factor}"
        )


def _slim(record: Record) -> Record:
    return Record(
        trial=record.trial,
        epoch=record.epoch,
        pruned=record.pruned,
        metrics=record.metrics,
        curve=record.curve,
    )
