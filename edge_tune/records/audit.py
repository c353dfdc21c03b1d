"""What each rule that ends trials early has saved, and what that has cost, as far as trials were audited.

An audited trial is one that a rule would have ended, and that was drawn to be trained all the same. It would have won
if, when it ended, it was the best so far, or on the front that the objective asks for: then the rule was wrong.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edge_tune.objective import Objective
from edge_tune.records.endings import RULES, ending_text
from edge_tune.records.entries import CONFIRMED, Count
from edge_tune.records.proportions import wilson
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record
from edge_tune.wording import counted, verb


@dataclass(frozen=True, kw_only=True)
class Account:
    """What came of a rule.

    Attributes:
        ended: How many trials it ended, but for those that were continued later.
        epochs_saved: How many epochs of retraining that saved.
        continued: How many trials that it had paused were continued.
        audited: How many it would have ended besides; they were trained all the same, and came to an end.
        won: How many of these would have won.
    """

    rule: str
    ended: Count = 0
    epochs_saved: Count = 0
    continued: Count = 0
    audited: Count = 0
    won: Count = 0

    @property
    def false_rejects(self) -> str:
        """The share of the audited that would have won, with its interval, in words; empty if none was audited."""
        if not self.audited:
            return ""
        low, high = wilson(self.won, self.audited)
        return f"{100 * self.won / self.audited:.0f} % [{100 * low:.0f} to {100 * high:.0f} %]"

    @property
    def text(self) -> str:
        """It in a sentence."""
        saved = f"{counted(self.ended, 'trial')} {ending_text(self.rule)}, {counted(self.epochs_saved, 'epoch')} saved"
        if self.continued:
            saved += f", {self.continued} more continued later"
        if not self.audited:
            return f"{saved}; none was audited, so what that cost is not known."
        were = verb(self.audited, "was", "were")
        return (
            f"{saved}; {self.audited} more {were} audited, that is, trained all the same: {self.won} of them would "
            f"have won, so that its rate of false rejects is {self.false_rejects}."
        )


def accounts(objective: Objective, baselines: Iterable[Record], trials: Sequence[Record], epochs: int) -> list[Account]:
    """Return the account of each rule that ended trials, or would have.

    Args:
        epochs: Of a trial that comes to its end.
    """
    own = [record for record in trials if record.same_as is None]
    winners = _winners(objective, baselines, own)
    rules = dict.fromkeys([*RULES, *(record.stopped_by for record in own if record.stopped_by)])
    paused_by = Counter(stop.rule for record in own for stop in record.paused)
    found = []
    for rule in rules:
        ended = [record for record in own if record.stopped_by == rule]
        audited = [record for record in own if record.audit and record.audit.rule == rule and record.status != "failed"]
        if ended or audited or paused_by[rule]:
            found.append(
                Account(
                    rule=rule,
                    ended=len(ended),
                    epochs_saved=sum(max(0, epochs - record.epoch) for record in ended),
                    continued=paused_by[rule],
                    audited=len(audited),
                    won=sum(record.trial in winners for record in audited),
                )
            )
    return found


def _before_it_was_measured_again(record: Record) -> Record:
    """Return a record with the figures that it had when its trial ended."""
    stages = [stage for stage in record.measurements if stage != CONFIRMED]
    if CONFIRMED not in record.measurements or not stages:
        return record
    measured = record.measurements[stages[-1]].metrics
    return replace(record, metrics={**record.metrics, **measured}, confirmed=None)


def _winners(objective: Objective, baselines: Iterable[Record], trials: Iterable[Record]) -> set[int]:
    """Return the trials that were the best so far, or on the front, when they ended."""
    standing = Standing(objective, baselines, keep="best")
    found = set()
    for record in sorted(trials, key=lambda record: (record.ended_at, record.trial)):
        standing.add(_before_it_was_measured_again(record))
        if record.trial in {one.trial for one in (standing.best, *standing.front) if one}:
            found.add(record.trial)
    return found
