"""All that ends a trial from outside, on the driver: the gate, the prediction, ASHA, and what they know together.

The rules that a trial asks itself, whether it is hopeless or takes too long, are asked where it runs (trial.py).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from edge_tune.experiment import Asha, Experiment, Predicted
from edge_tune.records.endings import GATE, PREDICTED
from edge_tune.records.entries import PRUNED, SUGGESTED, Metrics
from edge_tune.records.results import Record, Stop
from edge_tune.search.gate import Gate
from edge_tune.search.paused import Paused, stops_of
from edge_tune.search.prediction import Outlook
from edge_tune.search.stopping import (
    AshaByObjective,
    AshaScheduler,
    Audits,
    GateStopper,
    PredictedStopper,
    make_scheduler,
)


class Rules:
    """The rules of a study, which know its records.

    With one trial at a time what they say follows from the records, so a resumed study does the same; with several at
    once it depends on which ended first. A trial whose end by a rule was not recorded yet when the study was killed
    goes on until a rule looks at it again.

    Args:
        ended: Records of an earlier session, those `continued` as they were paused.
        under_way: What is known of trials that an earlier session began and did not end.
        continued: Number -> record of those trials that were paused, and are under way again.
        earlier: Of earlier studies, with numbers below 0; they teach the prediction alone.
        let_go: The trials whose checkpoint was let go when they were paused.

    Attributes:
        paused: The trials that may be continued.
    """

    def __init__(
        self,
        experiment: Experiment,
        ended: Sequence[Record] = (),
        under_way: Iterable[Record] = (),
        continued: Mapping[int, Record] | None = None,
        earlier: Iterable[Record] = (),
        let_go: Collection[int] = (),
    ) -> None:
        objective, epochs = experiment.objective, experiment.retraining.epochs
        self.audits = Audits(experiment.search.seed)
        self.outlook = Outlook(objective, epochs, ended, earlier)
        gate = Gate(objective, ended)
        self.paused = Paused(self.outlook, gate, ended, let_go)
        self._stops: dict[int, tuple[Stop, ...]] = {}
        self._foreseen: dict[int, Metrics] = {}
        self.gate = GateStopper(gate)
        rule = experiment.rule(Predicted)
        self.predicted = PredictedStopper(rule, self.outlook, self.audits) if rule else None
        for record in (continued or {}).values():
            self.go_on(record)
        trials = (record for record in ended if record.trial)  # the unpruned network is no trial
        self.scheduler = make_scheduler(experiment.rule(Asha), epochs, trials, self.outlook, self.audits)
        for record in under_way:
            self._replay(record)

    @property
    def stoppers(self) -> list[GateStopper | PredictedStopper]:
        """Those that Ray Tune asks before ASHA, in their order."""
        return [self.gate, *([self.predicted] if self.predicted else [])]

    def know(self, record: Record) -> None:
        """Learn how a trial ended, whose last epoch enters its rung."""
        self.gate.gate.know(record)
        self.outlook.know(record)
        self.paused.know(record)
        if isinstance(self.scheduler, AshaByObjective):
            self.scheduler.remember([record])

    def go_on(self, record: Record) -> None:
        """Let a paused trial go on to its end; the gate alone may end it."""
        self._stops[record.trial] = stops_of(record, anew=self.paused.begins_anew(record.trial))
        self._foreseen[record.trial] = record.predictions.get(PRUNED, {})
        self.audits.continued.add(record.trial)
        self.paused.forget(record.trial)

    def foresee(self, record: Record) -> None:
        """Keep what is expected of a trial right after pruning, which its record is to say."""
        if record.epoch == 0 and record.baseline is None and record.trial not in self._foreseen:
            self._foreseen[record.trial] = self.outlook.forecast.expected(record)

    def marked(self, record: Record, suggested: Metrics | None = None) -> Record:
        """Return a record that says what the rules know of its trial.

        That is: what would have ended it, if it is audited; what had paused it; and what was expected of it.

        Args:
            suggested: What the method of search expected.
        """
        stops = self._stops.get(record.trial, ())
        expected = {SUGGESTED: suggested, PRUNED: self._foreseen.pop(record.trial, None)}
        return replace(
            record,
            audit=self.audits.stops.get(record.trial),
            paused=stops,
            attempts=max(1, record.attempts - len(stops)),
            predictions={when: metrics for when, metrics in expected.items() if metrics},
        )

    def judged(self, record: Record, trial_id: str) -> Record:
        """Return the record of a trial that ended here by one of these rules as stopped; another one as it is."""
        if reason := self.gate.reasons.pop(record.trial, None):
            return replace(record, status="stopped", stopped_by=GATE, reason=reason)
        if self.predicted and (reason := self.predicted.reasons.pop(record.trial, None)):
            return replace(record, status="stopped", stopped_by=PREDICTED, reason=reason)
        if record.status != "running" or not isinstance(self.scheduler, AshaScheduler | AshaByObjective):
            return record
        reason = self.scheduler.reasons.pop(trial_id, None)
        return replace(record, status="stopped", stopped_by="asha", reason=reason) if reason else record

    def _replay(self, record: Record) -> None:
        """Look at a trial after each of its epochs, as was done before: it may be audited, and is in its rungs."""
        for epoch in range(record.epoch + 1):
            then = record.as_of(epoch)
            self.foresee(then)
            if self.predicted:
                self.predicted.stop_of(then)
            if epoch and isinstance(self.scheduler, AshaScheduler | AshaByObjective):
                self.scheduler.stop_of(then)
