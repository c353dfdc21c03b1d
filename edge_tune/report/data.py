"""A results folder -> what the report is made of: its records, and the trials as columns of numbers.

Forgiving, since a report is also wanted of a study that crashed or that another version wrote: a figure that a
record lacks is NaN, a file that is not there is empty, and what could not be read is left out and said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_tune.errors import ExperimentError
from edge_tune.loading import as_text, objective_from_json
from edge_tune.objective import UNPRUNED_RETRAINED, Objective
from edge_tune.parameters import Axis, Choice, from_json
from edge_tune.records.accuracy import unsure_line
from edge_tune.records.alternatives import settled_line
from edge_tune.records.choosing import Ranking, rank
from edge_tune.records.endings import RAN_TO_THE_END, ending
from edge_tune.records.entries import Evidence, Ratio, Run, Session, Settings
from edge_tune.records.jsonfiles import content
from edge_tune.records.ranking import (
    FRONT,
    better_in_both,
    eligible,
    last_measurement,
    pareto_front,
    without_repeats,
)
from edge_tune.records.results import Record, Results
from edge_tune.records.scoring import Scorer
from edge_tune.records.verdict import Verdict, read_verdict
from edge_tune.report.statistics import Floats, Ints, Mask
from edge_tune.report.timeline import hours_of_work


@dataclass(frozen=True)
class StudyData:
    """One study.

    Attributes:
        label: A short name that tells it from the other studies of the report.
        verdict: As it was written at the end; None if the study did not come to its end.
        source: The experiment file's text.
        trials: Without those that took the record of another trial over: each network is shown and counted once.
        dropped: Those.
        problems: What is left out because it is damaged, a sentence each.
        objective: What to choose by, instead of the experiment's target.
    """

    label: str
    folder: Path
    run: Run
    verdict: Verdict | None
    source: str
    baselines: Sequence[Record]
    trials: Sequence[Record]
    dropped: Sequence[Record] = ()
    problems: Sequence[str] = ()
    objective: Objective | None = None

    @property
    def settings(self) -> Settings:
        """The experiment, as far as it is shown."""
        return self.run.settings

    @cached_property
    def axes(self) -> Mapping[str, Axis]:
        """The axis of each parameter that is a number, as far as run.json says it from the values that occur."""
        stored = self.run.parameters
        axes = {}
        for name, values in self.columns.parameters.items():
            known = from_json(stored.get(name))
            found = Choice(values[np.isfinite(values)].tolist())
            axes[name] = known.axis if known and known.axis else found.axis or Axis(0.0, 1.0)
        return axes

    @property
    def sessions(self) -> Sequence[Session]:
        """What is known of each start of the study: of one at least."""
        return self.run.sessions or [Session()]

    @property
    def simulated(self) -> bool:
        """Whether its figures follow from formulas."""
        return self.run.simulated

    @cached_property
    def target(self) -> Objective:
        """What the search looked for."""
        return objective_from_json(self.settings.target)

    @cached_property
    def scorer(self) -> Scorer:
        """What scores the trials by the target."""
        return Scorer(self.target, self.baselines)

    @cached_property
    def records(self) -> list[Record]:
        """The baselines, then the trials."""
        return [*self.baselines, *self.trials]

    @cached_property
    def tried(self) -> int:
        """How many networks the search tried."""
        return sum(record.same_as is None for record in self.trials)

    @property
    def repeats(self) -> int:
        """How many trials took a record over, that of a baseline included."""
        return len(self.trials) + len(self.dropped) - self.tried

    @property
    def has_ended(self) -> bool:
        """Whether what its end wrote is of all its trials: a study that is resumed goes on beyond that."""
        ended = len(self.trials) + len(self.dropped)
        return self.verdict is not None and sum(self.verdict.endings.values()) >= ended

    @cached_property
    def unpruned(self) -> Record | None:
        """The network that was pruned, as it was measured before."""
        return next((record for record in self.baselines if record.trial == 0), None)

    @cached_property
    def unpruned_retrained(self) -> Record | None:
        """The same network, retrained as the pruned ones are; None if it was not."""
        return next((record for record in self._retrained_baselines if record.baseline == UNPRUNED_RETRAINED), None)

    @cached_property
    def known_schedules(self) -> list[Record]:
        """The baselines with figures, but for the unpruned network."""
        return [record for record in self._retrained_baselines if record.baseline != UNPRUNED_RETRAINED]

    @cached_property
    def _retrained_baselines(self) -> list[Record]:
        return [record for record in self.baselines if record.trial and record.status == "finished"]

    @cached_property
    def ranking(self) -> Ranking | None:
        """What the objective makes of the trials, or a target with conditions; None for a metric alone.

        Of a study that runs, the baselines that the target compares with may not be known yet.
        """
        if self.objective:
            return rank(self.objective, self.records)
        return None if self.target.is_a_metric or not self.scorer.is_ready else rank(self.target, self.records)

    @cached_property
    def _by_any(self) -> Ranking | None:
        """What the objective, or the target, makes of the trials; None while baselines are missing."""
        if self.ranking or not self.scorer.is_ready:
            return self.ranking
        return rank(self.target, self.records)

    @property
    def chosen(self) -> Record | None:
        """The network to take: the objective's first, or the best by the target."""
        return self._by_any.best if self._by_any else None

    @cached_property
    def unsure(self) -> str | None:
        """Which conditions the chosen network may break within its interval, in a sentence."""
        return unsure_line(self._by_any, self.baselines) if self._by_any else None

    @cached_property
    def settled(self) -> str | None:
        """That the search found nothing better for long, in a sentence."""
        return settled_line(self._by_any, self.trials) if self._by_any else None

    @cached_property
    def front(self) -> list[Record]:
        """The trials that no other one beats in both latency_ratio and top1, the fastest first."""
        return sorted(pareto_front(self.trials, FRONT), key=_by_latency)

    def better_in_both(self, baseline: Record) -> list[Record]:
        """Return the eligible trials with less latency_ratio and more top1 than a baseline, the fastest first."""
        return sorted(better_in_both(self.trials, baseline), key=_by_latency)

    @cached_property
    def tells_top5(self) -> bool:
        """Whether any network misses a top5: with 5 classes or fewer none can, and it is not shown."""
        return any(metrics.get("top5", 100.0) < 100 for one in self.records for metrics in (one.pruned, one.metrics))

    @property
    def measured(self) -> int:
        """How many trials have a latency_ratio."""
        return int(np.isfinite(self.columns.metric("latency_ratio")).sum())

    @cached_property
    def retrained(self) -> bool:
        """Whether trials were retrained."""
        return any(record.epoch for record in self.trials)

    @cached_property
    def columns(self) -> "Columns":
        """The trials as columns."""
        return Columns.of(self.trials, hours_of_work(self.records, [session.started_at for session in self.sessions]))


@dataclass(frozen=True)
class Columns:
    """The trials of a study; row i of every column is the same trial.

    Attributes:
        ending: As `endings.ending` names it.
        eligible: Whether it may be best.
        parameters: Those that are numbers.
        pruned: Metric -> right after pruning.
        metrics: Metric -> now.
        hours: Of work on the study, at which it ended.
        ended: The place of each in the order in which they ended.
        epochs_spent: Epochs of retraining of the trials that had ended by then, itself included; baselines not counted.
    """

    trial: Floats
    ending: Sequence[str]
    eligible: Mask
    epoch: Floats
    parameters: Mapping[str, Floats]
    pruned: Mapping[str, Floats]
    metrics: Mapping[str, Floats]
    hours: Floats
    ended: Ints
    epochs_spent: Floats

    @classmethod
    def of(cls, records: Sequence[Record], hours: Mapping[int, float]) -> "Columns":
        """Return the columns of these records."""
        order = sorted(range(len(records)), key=lambda row: (records[row].ended_at, records[row].trial))
        own = [records[row].epochs_trained if records[row].same_as is None else 0 for row in order]
        ended = np.argsort(np.array(order, dtype=np.int64), kind="stable")
        return cls(
            trial=numbers(record.trial for record in records),
            ending=[ending(record) for record in records],
            eligible=np.array([bool(eligible([record])) for record in records], dtype=bool),
            epoch=numbers(record.epoch for record in records),
            parameters=columns_of([numbers_of(record) for record in records]),
            pruned=columns_of([record.pruned for record in records]),
            metrics=columns_of([record.metrics for record in records]),
            hours=numbers(hours.get(record.trial) for record in records),
            ended=ended,
            epochs_spent=np.cumsum(np.array(own, dtype=np.int64))[ended].astype(np.float64),
        )

    def metric(self, name: str, *, pruned: bool = False) -> Floats:
        """Return a metric's column; all NaN where no trial has it."""
        return (self.pruned if pruned else self.metrics).get(name, np.full(len(self.trial), np.nan))

    def final(self, name: str) -> Floats:
        """Return a metric of the trials that ran to their end, and NaN for the others."""
        done = np.array([end in RAN_TO_THE_END for end in self.ending], dtype=bool)
        return np.where(done, self.metric(name), np.nan)

    def where(self, *endings: str) -> Mask:
        """Return which trials ended in one of these ways."""
        return np.array([end in endings for end in self.ending], dtype=bool)


def read(folders: Sequence[Path], objective: Objective | None = None) -> list[StudyData]:
    """Return the studies in these folders, in their order.

    Raises:
        ExperimentError: A folder holds no study, or one that does not say what it looked for.
    """
    for folder in folders:
        Results(folder).require()
    unique = len({folder.resolve().name for folder in folders}) == len(folders)
    return [_read(folder, folder.resolve().name if unique else str(folder), objective) for folder in folders]


def _read(folder: Path, label: str, objective: Objective | None) -> StudyData:
    results = Results(folder)
    run, verdict, problems = results.run(), None, results.problems()
    try:
        verdict = read_verdict(results)
    except ExperimentError as error:
        problems += error.problems
    every = results.trials()
    trials = without_repeats(every)
    shown = {record.trial for record in trials}
    study = StudyData(
        label=f"{label} (simulated)" if run.simulated else label,
        folder=folder,
        run=run,
        verdict=verdict,
        source=as_text(content(folder / "experiment.py") or b""),
        baselines=results.baselines(),
        trials=trials,
        dropped=[record for record in every if record.trial not in shown],
        problems=problems,
        objective=objective,
    )
    try:
        assert study.target
    except ExperimentError as error:
        raise ExperimentError(f"{folder / 'run.json'}: {error}") from error
    return study


def _by_latency(record: Record) -> float:
    return record.metrics[FRONT[0].metric]


def interval(record: Record, metric: str, stage: str | None = None) -> Ratio | None:
    """Return a ratio with its interval as the device's evidence has it, of one stage or of the last one."""
    return measurement(record, stage).intervals.get(metric)


def measurement(record: Record, stage: str | None = None) -> Evidence:
    """Return the device's evidence of one stage or of the last one; one that says nothing if there is none."""
    return record.measurements.get(stage, Evidence()) if stage else last_measurement(record)


def number(value: object) -> float:
    """Return a value that may be missing as a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def numbers(values: Iterable[object]) -> Floats:
    """Return values, of which some may be missing, as a column."""
    return np.array([number(value) for value in values], dtype=np.float64)


def numbers_of(record: Record) -> dict[str, float]:
    """Return the parameters of a trial that are numbers."""
    return {name: value for name, value in record.point.items() if not isinstance(value, str)}


def columns_of(mappings: Sequence[Mapping[str, object]]) -> dict[str, Floats]:
    """Return one column for each key that any of the mappings has."""
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return {key: numbers(mapping.get(key) for mapping in mappings) for key in keys}
