"""When a trial ends early: pure rules first, Ray's adapter below.

The rules speak of one network; ASHA compares a network with the others of its rung.
"""

import json
import random
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from scipy.special import bdtrc

from edge_tune.experiment import Asha, Hopeless, Predicted
from edge_tune.objective import Maximise
from edge_tune.records.endings import PREDICTED
from edge_tune.records.results import Record, Stop
from edge_tune.search.gate import Gate
from edge_tune.search.prediction import Outlook
from edge_tune.search.rungs import Rungs
from edge_tune.wording import counted

if TYPE_CHECKING:
    from edge_tune.networks.evaluation import (
        Evaluation,  # brings torch, which the driver's side of a simulation does without
    )

LUCK = 1e-3
"""A top1 that guessing reaches with at least this probability is chance."""


def why_collapsed(evaluation: "Evaluation") -> str | None:
    """Say why these predictions are no better than chance, or return None."""
    images, num_classes = evaluation.images, len(evaluation.predicted)
    favourite = max(range(num_classes), key=evaluation.predicted.__getitem__)
    if evaluation.predicted[favourite] == images:
        return f"all {images} validation images are predicted as class {favourite}"
    if bdtrc(evaluation.correct - 1, images, 1 / num_classes) >= LUCK:  # that guessing does as well or better
        return f"top1 {evaluation.top1:.2f} is what guessing gives on {images} images of {num_classes} classes"
    return None


def why_hopeless(rule: Hopeless | None, collapsed: str | None, *, epoch: int, epochs: int) -> str | None:
    """Say why a network is to be stopped after `epoch` of `epochs` epochs of retraining, or None.

    A collapsed network gets `rule.after_epochs` epochs to recover, or all there are if fewer.
    """
    if rule is None or collapsed is None or epoch < min(rule.after_epochs, epochs):
        return None
    when = f"after {epoch} epoch{'s'[: epoch > 1]} of retraining" if epoch else "right after pruning"
    return f"hopeless: {collapsed}, {when}"


def why_too_long(limit_s: float | None, seconds: float) -> str | None:
    """Say why a trial that has taken `seconds` is to be stopped before its next epoch, or None."""
    if limit_s is None or seconds <= limit_s:
        return None
    return f"time limit: {seconds:.0f} s of work, of {limit_s:g} s that a trial may take"


class StudyLimits(Stopper):
    """Ends a study when its time is over or when too many trials failed, or for a reason given from outside.

    Attributes:
        reason: Why the study was ended, or None.
        time_is_over: Whether that is what ended it.
    """

    def __init__(self, time_budget_s: float | None, max_failed_trials: int) -> None:
        self.end = None if time_budget_s is None else time.monotonic() + time_budget_s
        self.time_budget_s = time_budget_s
        self.max_failed_trials = max_failed_trials
        self.failures: list[str] = []
        self.reason: str | None = None
        self.time_is_over = False

    def add_failure(self, name: str, reason: str) -> None:
        """Count a trial that failed."""
        self.failures.append(f"{name}: {reason}")
        if len(self.failures) >= self.max_failed_trials:
            self.stop(
                f"{counted(len(self.failures), 'trial')} failed, and search.max_failed_trials ends a study at "
                f"{self.max_failed_trials}: {' '.join(dict.fromkeys(self.failures))}"
            )

    def stop(self, reason: str) -> None:
        """End the study; the first reason counts."""
        self.reason = self.reason or reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single trials to their own rules."""
        return False

    def stop_all(self) -> bool:
        """Tell Ray whether the study is to end now."""
        if self.reason is None and self.end is not None and time.monotonic() > self.end:
            self.time_is_over = True
            self.stop(f"the time budget of {self.time_budget_s:g} s is used up")
        return self.reason is not None


class GateStopper(Stopper):
    """Ends a trial, after any of its reports, that cannot become the best any more.

    Attributes:
        reasons: Trial -> why it was ended.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.reasons: dict[int, str] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tell Ray whether a trial is to end here."""
        if result["done"]:
            return False
        record = Record.from_entry(json.loads(result["record"]))
        if reason := self.gate.why(record):
            self.reasons[record.trial] = reason
        return reason is not None

    def stop_all(self) -> bool:
        """Leave the study to its own limits."""
        return False


class Audits:
    """The trials that a rule would have ended and that were drawn to be trained all the same. No rule ends them then.

    Whether a trial is drawn follows from its number and the study's seed.

    Attributes:
        stops: Trial -> what would have ended it.
        continued: Trials that were paused before and are continued: no rule ends these either.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.continued: set[int] = set()
        self.stops: dict[int, Stop] = {}

    def spare(self, trial: int, stop: Stop, share: float) -> bool:
        """Tell whether a trial that a rule would end is trained all the same, a `share` of those being drawn."""
        if trial not in self.stops and random.Random(f"audit {self.seed} {trial}").random() < share:
            self.stops[trial] = stop
        return trial in self.stops

    def unless_spared(self, record: Record, stop: Stop | None, share: float) -> Stop | None:
        """Return the stop of a trial; None if there is none, or if it is a baseline, continued, or audited."""
        if stop is None or record.baseline is not None or record.trial in self.continued:
            return None
        return None if self.spare(record.trial, stop, share) else stop


class PredictedStopper(Stopper):
    """Pauses a trial, after any of its reports, that is predicted not to reach the objective.

    Attributes:
        reasons: Trial -> why it was paused.
    """

    def __init__(self, rule: Predicted, outlook: Outlook, audits: Audits) -> None:
        self.rule, self.outlook, self.audits = rule, outlook, audits
        self.reasons: dict[int, str] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tell Ray whether a trial is to end here."""
        if result["done"]:
            return False
        record = Record.from_entry(json.loads(result["record"]))
        if stop := self.stop_of(record):
            self.reasons[record.trial] = stop.reason
        return stop is not None

    def stop_of(self, record: Record) -> Stop | None:
        """Say why a trial is paused here; None if it goes on, because it may reach the objective or is audited."""
        reason = self.outlook.why_not(record, self.rule.confidence)
        stop = Stop(PREDICTED, record.epoch, reason) if reason else None
        return self.audits.unless_spared(record, stop, self.rule.audit)

    def stop_all(self) -> bool:
        """Leave the study to its own limits."""
        return False


class InOrder(FIFOScheduler):
    """First come, first served, as Ray's own, but what it looks at are the trials that have not ended, not all."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the trial that waits and has the least number, or None."""
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        return min(waiting, key=lambda trial: trial.config["trial"], default=None)


class AshaScheduler(InOrder, AsyncHyperBandScheduler):
    """Ray's ASHA by one metric, which gives the reason for each stop and knows earlier sessions.

    Baselines are in no rung: they were not drawn as trials are, and few trials are as accurate as the unpruned network.
    Each rung keeps the results by the numbers of the trials. A trial that is run again after its process was lost
    keeps its number, and so it counts once in each rung.
    """

    def __init__(self, rule: Asha, epochs: int, audits: Audits | None = None) -> None:
        assert rule.goal is not None
        self.goal = rule.goal
        super().__init__(
            time_attr="epoch",
            metric=self.goal.metric,
            mode="max" if isinstance(self.goal, Maximise) else "min",
            grace_period=rule.grace_epochs,
            reduction_factor=rule.reduction_factor,
            max_t=epochs + 1,  # ASHA stops at max_t, but the last epoch is the trial's to report
        )
        self.rule, self.audits = rule, audits or Audits(0)
        self.reasons: dict[str, str] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide as Ray does, but let a baseline run to its end, and a trial that is audited."""
        if result["baseline"]:
            return TrialScheduler.CONTINUE
        number, epoch, value = result["trial"], result["epoch"], result[self.goal.metric]
        stop = self._enter(number, epoch, value)
        if stop is None or number in self.audits.continued or self.audits.spare(number, stop, self.rule.audit):
            return TrialScheduler.CONTINUE
        self.reasons[trial.trial_id] = stop.reason
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enter the last result of a trial."""
        if not result["baseline"]:
            self._enter(result["trial"], result["epoch"], result[self.goal.metric])

    def remember(self, records: Iterable[Record]) -> None:
        """Enter the epochs of trials into the rungs, as they were before a resume; a record taken over is in none."""
        for record in (record for record in records if record.same_as is None):
            for entry in record.curve:
                self.look(record.as_of(entry.epoch))

    def look(self, record: Record) -> Stop | None:
        """Enter a trial as it is after an epoch; say why it is outside the best of its rung, if it is."""
        if record.baseline is not None or self.goal.metric not in record.metrics:
            return None
        return self._enter(record.trial, record.epoch, record.metrics[self.goal.metric])

    def stop_of(self, record: Record) -> Stop | None:
        """Enter a trial; say why it ends there. None: it goes on, as a baseline does, and one that is audited."""
        return self.audits.unless_spared(record, self.look(record), self.rule.audit)

    def _enter(self, trial: int, epoch: int, value: float) -> Stop | None:
        bracket: Any = self._brackets[0]
        decision = bracket.on_result(SimpleNamespace(trial_id=trial), epoch, -self.goal.loss(value))
        if decision != TrialScheduler.STOP:
            return None
        return Stop(
            "asha",
            epoch,
            f"asha: {self.goal.metric} {value:.4g} at epoch {epoch} is outside the best "
            f"1/{self.rule.reduction_factor} of the trials that came so far",
        )


class AshaByObjective(InOrder):
    """ASHA whose rungs compare by the study's objective, and know earlier sessions; baselines are in none."""

    def __init__(self, rule: Asha, epochs: int, outlook: Outlook, audits: Audits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rule, self.audits = rule, audits
        self.rungs = Rungs(rule, epochs, outlook)
        self.reasons: dict[str, str] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial stays among the best of its rung; let a baseline go on, and one that is audited."""
        stop = self.stop_of(Record.from_entry(json.loads(result["record"])))
        if stop is None:
            return TrialScheduler.CONTINUE
        self.reasons[trial.trial_id] = stop.reason
        return TrialScheduler.STOP

    def remember(self, records: Iterable[Record]) -> None:
        """Enter the epochs of trials into the rungs, as they were; a record taken over is in none, nor a baseline's."""
        for record in records:
            if record.same_as is None and record.baseline is None:
                for entry in record.curve:
                    self.rungs.put(record.as_of(entry.epoch))

    def look(self, record: Record) -> Stop | None:
        """Enter a trial as it is after an epoch; say why it is outside the best of its rung, if it is."""
        return None if record.baseline is not None else self.rungs.enter(record)

    def stop_of(self, record: Record) -> Stop | None:
        """Enter a trial; say why it ends there. None: it goes on, as a baseline does, and one that is audited."""
        return self.audits.unless_spared(record, self.look(record), self.rule.audit)


def make_scheduler(
    rule: Asha | None,
    epochs: int,
    earlier: Iterable[Record],
    outlook: Outlook | None = None,
    audits: Audits | None = None,
) -> AshaScheduler | AshaByObjective | InOrder:
    """Return ASHA with the rungs of the trials of `earlier` sessions, or plain first come first served.

    Args:
        outlook: What an ASHA by the study's objective compares by; another one needs none.
    """
    if rule is None or rule.grace_epochs >= epochs:
        return InOrder()  # type: ignore[no-untyped-call]
    audits = audits or Audits(0)
    scheduler: AshaScheduler | AshaByObjective
    if rule.goal is None:
        assert outlook is not None
        scheduler = AshaByObjective(rule, epochs, outlook, audits)
    else:
        scheduler = AshaScheduler(rule, epochs, audits)
    scheduler.remember(earlier)
    return scheduler
