"""Which records are best, which to keep, and how many came to what."""

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from edge_tune.experiment import KeepWeights
from edge_tune.metrics import RATIO_OF
from edge_tune.objective import FrontOf, Goal, Maximise, Minimise, Objective
from edge_tune.records.endings import GATE, REPEAT, RULES
from edge_tune.records.entries import CONFIRMED, Evidence
from edge_tune.records.results import Record
from edge_tune.records.scoring import Score, Scorer

FRONT = (Minimise("latency_ratio"), Maximise("top1"))
"""The goals whose Pareto front keeps its weights. The ratio tells networks apart that were measured an hour apart."""


RIVALS = 4
"""So many trials may be measured again before one of them is named the best."""


def with_metrics(records: Iterable[Record], *goals: Goal) -> list[Record]:
    """Return the records that hold the metrics of these goals: those of another version, or damaged, may not."""
    return [record for record in records if all(goal.metric in record.metrics for goal in goals)]


def without_repeats(records: Iterable[Record]) -> list[Record]:
    """Return the records that were not taken over from another of them: one for each network."""
    records = list(records)
    trials = {record.trial for record in records}
    return [record for record in records if record.same_as not in trials]


def eligible(records: Iterable[Record]) -> list[Record]:
    """Return the records that may be best: finished, better than chance, and not taken over from another of them."""
    return [record for record in without_repeats(records) if record.status == "finished" and not record.collapsed]


def is_confirmed(record: Record, objective: Objective) -> bool:
    """Tell whether a trial was measured again because it might have been the best by this objective."""
    return record.confirmed is not None and record.confirmed.objective == objective.text


class Front:
    """The records that no other one beats: as good in both `goals`, better in one.

    What adding a record costs grows with how many others it beats, not with how many there are.
    """

    def __init__(self, goals: tuple[Goal, Goal]) -> None:
        self.goals = goals
        self._losses: list[tuple[float, ...]] = []  # the first loss rises from one to the next, the second falls
        self._records: dict[tuple[float, ...], list[Record]] = {}

    def add(self, record: Record) -> list[Record]:
        """Take an eligible record into account. Returns those that are beaten now; itself, if it is."""
        mine = self._losses_of(record)
        if mine in self._records:
            self._records[mine].append(record)
            return []
        begin = bisect_left(self._losses, mine)
        if begin and self._losses[begin - 1][1] <= mine[1]:
            return [record]
        end = begin
        while end < len(self._losses) and self._losses[end][1] >= mine[1]:
            end += 1
        beaten = [one for losses in self._losses[begin:end] for one in self._records.pop(losses)]
        self._losses[begin:end] = [mine]
        self._records[mine] = [record]
        return beaten

    def __contains__(self, record: Record) -> bool:
        return self._losses_of(record) in self._records

    @property
    def records(self) -> list[Record]:
        """All of them, by number."""
        return sorted(itertools.chain(*self._records.values()), key=lambda record: record.trial)

    def _losses_of(self, record: Record) -> tuple[float, ...]:
        return tuple(goal.loss(record.metrics[goal.metric]) for goal in self.goals)


def pareto_front(records: Iterable[Record], goals: tuple[Goal, Goal]) -> list[Record]:
    """Return the eligible records that no other one beats: as good in both `goals`, better in one."""
    front, candidates = Front(goals), with_metrics(eligible(records), *goals)
    for record in candidates:
        front.add(record)
    return [record for record in candidates if record in front]


class Standing:
    """What a study has come to so far. What adding a record costs does not grow with the study.

    Attributes:
        hopeless: How many of them were stopped as hopeless.
        gated: How many of them the gate did not train.
        repeats: Trials that took the record of an equal network over.
        best: The best trial of the search that meets the objective's conditions, or None; of a front, its knee. Once
            trials are confirmed, one of them.
        nearest: While there is none, the finished trial that comes nearest to them, or None.
        keep: Which trials' weights are kept.
        rivals: The RIVALS best of the trials that ended after `rivals_since`, and the one that is best at the worse end
            of its interval. Their weights are kept too, until they are measured again.
    """

    def __init__(
        self,
        objective: Objective,
        records: Iterable[Record] = (),
        keep: KeepWeights = "front",
        rivals_since: str | None = None,
    ) -> None:
        """Take these records into account.

        Args:
            rivals_since: A time as records hold it; None: there are no rivals.
        """
        self.scorer = Scorer(objective)
        self.keep = keep
        self.rivals_since = rivals_since
        self.rivals: list[Record] = []
        self._has_confirmed = False
        self.hopeless = self.gated = self.repeats = 0
        self._ended: set[int] = set()
        self.best: Record | None = None
        self.nearest: Record | None = None
        self._baselines: list[Record] = []
        self._undecided: list[Record] = []
        self._finished: list[Record] = []
        goal = objective.goal
        self._own_front = goal.goals if isinstance(goal, FrontOf) else None
        self._front = Front(self._own_front or FRONT)
        for record in records:
            self.add(record)

    @property
    def ended(self) -> int:
        """How many networks' trials have ended, baselines included but for the unpruned network."""
        return len(self._ended)

    def add(self, record: Record) -> list[Record]:
        """Take a record into account. Returns those whose weights are not kept from now on; itself, if its are not."""
        self._count(record)
        if record.baseline:
            self._baselines.append(record)
            self.scorer.know(record)
            return self._decide()
        if record.same_as is not None and record.same_as not in {baseline.trial for baseline in self._baselines}:
            return []  # the trial that it repeats has its place already; a baseline has none
        if self.keep == "all" and record.status == "finished":
            self._finished.append(record)
        beaten = [record]
        if self.keep == "front" and eligible([record]) and not self._own_front:
            beaten += self._front.add(record)
        self._undecided.append(record)
        return self._dropped(beaten) + self._decide()

    def _decide(self) -> list[Record]:
        """Find the best among the trials that have waited for the baselines that the objective compares with."""
        if not self.scorer.is_ready:
            return []
        decided, self._undecided = self._undecided, []
        before = [*([self.best] if self.best else []), *self.rivals, *decided]
        for record in decided:
            before += self._take(record)
        return self._dropped(before)

    def _take(self, record: Record) -> list[Record]:
        """Find what place a trial has. Returns those that it beats on the front that the objective asks for."""
        if not eligible([record]) or not self.scorer.objective.metrics_in(record.metrics):
            return []
        score = self.scorer.score(record)
        if is_confirmed(record, self.scorer.objective):
            if not self._has_confirmed:
                self._has_confirmed, self.best, self.nearest = True, None, None
        else:
            if score.rank == 0 and self.rivals_since is not None and record.ended_at > self.rivals_since:
                self._add_rival(record)
            if self._has_confirmed:
                return []
        if score.rank == 0 and self._is_before(record, self.best):
            self.best, self.nearest = record, None
        elif self.best is None and self._is_before(record, self.nearest):
            self.nearest = record
        return self._front.add(record) if self._own_front and score.rank == 0 else []

    def _add_rival(self, record: Record) -> None:
        known = sorted([*self.rivals, record], key=lambda one: (self.scorer.score(one), one.trial))
        surest = min(known, key=lambda one: _reach(self.scorer, one)[1])
        self.rivals = [one for place, one in enumerate(known) if place < RIVALS or one is surest]

    def _is_before(self, record: Record, other: Record | None) -> bool:
        """Tell whether a trial is the better one, or as good with the smaller number, whichever of them ended first."""
        if other is None:
            return True
        return (self.scorer.score(record), record.trial) < (self.scorer.score(other), other.trial)

    def _dropped(self, records: Iterable[Record]) -> list[Record]:
        return [record for record in records if not self._keeps(record)]

    def _count(self, record: Record) -> None:
        if record.same_as is not None:
            self.repeats += 1
            return
        if record.trial > 0:
            self._ended.add(record.trial)  # again, if it was continued
        self.hopeless += record.stopped_by == "hopeless"
        self.gated += record.stopped_by == GATE

    def _keeps(self, record: Record) -> bool:
        on_front = self.keep == "front" and bool(eligible([record])) and record in self._front
        is_finished = self.keep == "all" and record.status == "finished"
        is_rival = any(record is rival for rival in self.rivals)
        return record is self.best or is_rival or record in self._undecided or on_front or is_finished

    @property
    def front(self) -> list[Record]:
        """The networks of the front that the objective asks for, by number; none if it asks for something else."""
        return self._front.records if self._own_front else []

    @property
    def kept(self) -> list[Record]:
        """The records whose weights are kept: baselines, best and rivals, and the Pareto front or all that finished."""
        front = self._front.records if self.keep == "front" else []
        found = [*([self.best] if self.best else []), *self.rivals, *self._undecided, *front, *self._finished]
        return [*self._baselines, *found]


def last_measurement(record: Record) -> Evidence:
    """Return the evidence for the latencies that a record has now; one that says nothing if there is none."""
    return next(reversed(list(record.measurements.values())), Evidence())


def may_be_best(scorer: Scorer, records: Iterable[Record]) -> list[Record]:
    """Return the best of those that meet the conditions, and those whose order to it their intervals do not tell."""
    met = sorted(
        (record for record in records if scorer.score(record).rank == 0),
        key=lambda record: (scorer.score(record), record.trial),
    )
    return [record for record in met if _reach(scorer, record)[0] <= _reach(scorer, met[0])[1]]


def _reach(scorer: Scorer, record: Record) -> tuple[Score, Score]:
    """Return how good, and how bad, a record may be within the intervals of its latencies."""
    at_ends = []
    for end in ("low", "high"):
        metrics = dict(record.metrics)
        for metric, ratio in RATIO_OF.items():
            if interval := last_measurement(record).intervals.get(ratio):
                share = getattr(interval, end) / interval.ratio
                metrics |= {name: share * metrics[name] for name in (metric, ratio) if name in metrics}
        at_ends.append(scorer.score(replace(record, metrics=metrics)))
    return min(at_ends), max(at_ends)


def confirmed_line(records: Iterable[Record]) -> str | None:
    """Return whose latencies are those of several measurements, and of how many; None if nobody's are."""
    measured = [record for record in without_repeats(records) if CONFIRMED in record.measurements]
    found = {record.label: record.measurements[CONFIRMED] for record in measured}
    if not found:
        return None
    counts = sorted({len(evidence.repetitions or ()) for evidence in found.values()})
    return (
        f"Measured again at the end, in turns with each other: {', '.join(found)}. Their latencies are medians over "
        f"{' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} measurements each, with the "
        f"interval over these; each other trial's are of one measurement."
    )


def imprecise_line(records: Iterable[Record]) -> str | None:
    """Return a warning that counts the measurements whose time was over before their ratios were known; or None."""
    every = [one for record in records for one in record.measurements.values()]
    imprecise = sum(not one.is_precise for one in every)
    if not imprecise:
        return None
    return (
        f"{imprecise} of {len(every)} measurements are imprecise, marked ~: their time was over before the ratios were "
        f"known to 1 %. Compare by the intervals; give the device's host less to do, or raise Benchmark(max_s=...)."
    )


def better_in_both(trials: Sequence[Record], baseline: Record) -> list[Record]:
    """Return the trials with a lower latency and a higher validation top1 than a baseline."""
    if baseline.status != "finished" or not with_metrics([baseline], *FRONT):
        return []
    return [
        trial
        for trial in with_metrics(eligible(trials), *FRONT)
        if all(goal.is_better(trial.metrics[goal.metric], baseline.metrics[goal.metric]) for goal in FRONT)
    ]


def endings(trials: Sequence[Record]) -> dict[str, int]:
    """Count the trials by how they ended: finished, failed, the rule that stopped them, or as the repeat of another."""
    counts = dict.fromkeys(("finished", *RULES, "failed"), 0)
    for trial in trials:
        ending = REPEAT if trial.same_as is not None else trial.stopped_by or trial.status
        counts[ending] = counts.get(ending, 0) + 1  # a newer version may know other rules
    return counts


def epochs_saved(trials: Iterable[Record], epochs: int) -> int:
    """Return how many epochs of retraining, of `epochs` a trial, the gate has saved."""
    return sum(max(0, epochs - trial.epoch) for trial in trials if trial.stopped_by == GATE and trial.same_as is None)


def failures(trials: Sequence[Record]) -> dict[str, int]:
    """Count the trials that failed by their reasons, the most frequent first."""
    failed = (trial for trial in trials if trial.status == "failed" and trial.same_as is None)
    return dict(Counter(trial.reason or "no reason is known" for trial in failed).most_common())
