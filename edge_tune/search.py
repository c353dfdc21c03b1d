"""From an experiment to Ray Tune: the space, the searcher, the loop.

A resumed study starts a new Tune run and replays what the records say into the searcher and the
scheduler: the records are plain files and the only state (docs/decisions.md says why).
"""

import itertools
import json
import random
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ray
from hyperopt.fmin import generate_trial
from ray import cloudpickle, tune
from ray.exceptions import RayError, RayTaskError
from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.search.hyperopt import HyperOptSearch

from edge_tune.benchmark.measurement import Device
from edge_tune.errors import StudyError
from edge_tune.experiment import Asha, Choice, Experiment, Point, PrunerGroup, Uniform
from edge_tune.results import Record, Report, Results, now
from edge_tune.stopping import AshaScheduler, StudyLimits, make_scheduler
from edge_tune.trainable import (
    OBJECTIVE,
    Checkpoints,
    Config,
    PrunedTrial,
    RunsTrials,
    baseline_name,
    objective,
    split_config,
    to_point,
)

LOSSES = 5
"""A trial whose process is lost so often in a row, without an epoch of progress, is what ends it."""

EXCEPTION_LINE = re.compile(r"^[\w.]+: .+$", re.MULTILINE)
"""Where a traceback says what was raised; the message may go on below."""


def space(groups: Mapping[str, PrunerGroup]) -> dict[str, Any]:
    """Return the parameters that are left to search, in Ray Tune's terms."""
    parameters: dict[str, Any] = {}
    for label, group in groups.items():
        if isinstance(group.sparsity, Uniform) and group.sparsity.low < group.sparsity.high:
            parameters[label] = tune.uniform(group.sparsity.low, group.sparsity.high)
        if isinstance(group.sparsity, Choice) and len(group.sparsity.values) > 1:
            parameters[label] = tune.choice(list(group.sparsity.values))
        if len(group.structures) > 1:
            parameters[f"{label}:structure"] = tune.choice(list(group.structures))
    return parameters


def to_config(point: Point, groups: Mapping[str, PrunerGroup]) -> Config:
    """Return the config of a point: `to_point` backwards."""
    values = {**point.sparsities, **{f"{label}:structure": kind for label, kind in point.structures.items()}}
    return {key: values[key] for key in space(groups)}


def planned_points(experiment: Experiment) -> list[Point]:
    """Return the points that do not depend on results: the baselines', then a grid's, shuffled by seed."""
    groups = experiment.pruner_groups
    structures = {label: group.structures[0] for label, group in groups.items()}
    points = [Point(sparsities, structures) for sparsities in experiment.baselines.values()]
    if experiment.search.method == "grid":
        grid = list(_grid(groups))
        random.Random(experiment.search.seed).shuffle(grid)
        points += grid[: experiment.search.trials]
    return points


def count_trials(experiment: Experiment) -> int:
    """Return how many trials a study has in all, baselines included; a grid may have fewer than asked."""
    planned = len(planned_points(experiment))
    return planned if experiment.search.method == "grid" else planned + experiment.search.trials


class Searcher(HyperOptSearch):
    """HyperOpt's TPE in Ray Tune, that starts from planned points and from an earlier session.

    Suggestions depend on the seed and the results only: a study that was interrupted and resumed
    between two trials goes on with the very suggestions that it would have made. A trial whose
    process was lost is suggested again, under its number; for HyperOpt it never ended.

    Args:
        ended: Records of an earlier session; they teach, and are not suggested again.
        unfinished: Number -> config of the trials that an earlier session began and did not end.
        attempts: Number -> how often an earlier session began the trial.
    """

    def __init__(
        self,
        experiment: Experiment,
        ended: Sequence[Record] = (),
        unfinished: Mapping[int, Config] | None = None,
        attempts: Mapping[int, int] | None = None,
    ) -> None:
        search, groups = experiment.search, experiment.pruner_groups
        super().__init__(
            space=self.convert_search_space(space(groups)),
            metric=OBJECTIVE,
            mode="min",
            n_initial_points=2**31 if search.method == "random" else min(20, max(5, search.trials // 4)),
            random_state_seed=search.seed,
        )
        self.total = count_trials(experiment)
        self.attempts = Counter(attempts or {})
        self.lost: dict[int, Any] = {}
        planned = {number: to_config(point, groups) for number, point in enumerate(planned_points(experiment), 1)}
        done = {record.trial for record in ended}
        waiting = {**planned, **(unfinished or {})}
        self.waiting = deque(sorted((number, config) for number, config in waiting.items() if number not in done))
        self.next_number = max([0, *planned, *done, *waiting]) + 1
        for record in sorted(ended, key=lambda record: record.trial):
            self._replay(record, experiment)
        for _ in range(self.next_number - 1 - len(planned)):
            self.rstate.randint(2**31 - 1)

    def suggest(self, trial_id: str) -> Config | str | None:  # type: ignore[override]  # its annotation forgets two
        """Return the next point, its number and attempt; None while the last ones run, then FINISHED."""
        if self.waiting:
            number, config = self.waiting.popleft()
            if number in self.lost:
                self._live_trial_mapping[trial_id] = self.lost.pop(number)
            else:
                self._begin(trial_id, config)
        elif self.next_number <= self.total:
            number, config = self.next_number, super().suggest(trial_id) or {}
            self.next_number += 1
        else:
            return None if self._live_trial_mapping else self.FINISHED
        self.attempts[number] += 1
        return {**config, "trial": number, "attempt": self.attempts[number]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from a trial that ended; one that ended with an error waits for `run_again` or `give_up`."""
        if not error:
            super().on_trial_complete(trial_id, result)

    def run_again(self, trial_id: str, config: Config) -> None:
        """Have the trial of a lost process begin once more, before any new one."""
        number, point = split_config(config)
        self.lost[number] = self._live_trial_mapping.pop(trial_id)
        self.waiting.appendleft((number, point))

    def give_up(self, trial_id: str) -> None:
        """Learn that a trial failed."""
        super().on_trial_complete(trial_id, error=True)

    def _replay(self, record: Record, experiment: Experiment) -> None:
        groups = experiment.pruner_groups
        self._begin(record.name, to_config(Point(record.sparsities, record.structures), groups))
        if record.status == "failed":
            self.give_up(record.name)
        else:
            self.on_trial_complete(record.name, {OBJECTIVE: objective(record, experiment.target)})

    def _begin(self, trial_id: str, config: Config) -> None:
        """Enter a point that HyperOpt did not suggest, as if it had."""
        values = dict(config)
        self._convert_categories_to_indices(values)
        (number,) = self._hpopt_trials.new_trial_ids(1)
        document = generate_trial(number, values)
        self._hpopt_trials.insert_trial_doc(document)
        self._hpopt_trials.refresh()
        self._live_trial_mapping[trial_id] = (number, document)


class Listener(Protocol):
    """Who is told what becomes of the trials, on the driver. An OSError from it ends the study."""

    def on_start(self, trial: int, point: Config) -> None:
        """Learn that a trial begins."""

    def on_report(self, record: Record, checkpoint: bytes | None) -> None:
        """Learn where a trial is on its way."""

    def on_lost(self, trial: int, reason: str) -> None:
        """Learn that a trial's process was lost, and that it will be run again."""

    def on_end(self, record: Record, weights: bytes | None) -> None:
        """Learn how a trial ended; a finished one comes with its weights."""


class Recorder(tune.Callback):
    """Turns what Tune learns of trials into records, and decides what becomes of those whose process is lost."""

    def __init__(
        self, experiment: Experiment, searcher: Searcher, scheduler: Any, limits: StudyLimits, listener: Listener
    ) -> None:
        self.experiment, self.searcher, self.scheduler = experiment, searcher, scheduler
        self.limits, self.listener = limits, listener
        self.latest: dict[str, Report] = {}
        self.losses: dict[int, _Losses] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note the point, so that a resumed study runs it again if it does not end."""
        with self._writing():
            self.listener.on_start(*split_config(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the report, and take what is large out of the result before Tune stores it."""
        record = Record.from_entry(json.loads(result.pop("record")))
        record = replace(record, attempts=trial.config["attempt"])
        weights, checkpoint = result.pop("weights"), result.pop("checkpoint")
        self.latest[trial.trial_id] = Report(record, weights)
        if record.status == "running":
            with self._writing():
                self.listener.on_report(record, checkpoint)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hand over the record of a trial that finished or was stopped by a rule."""
        report = self.latest.pop(trial.trial_id, None)
        if report is None:
            return
        record = report.record
        if record.status == "running" and isinstance(self.scheduler, AshaScheduler):
            reason = self.scheduler.reasons.pop(trial.trial_id, None)
            record = replace(record, status="stopped", stopped_by="asha", reason=reason) if reason else record
        if record.status != "running":  # else the study itself was interrupted
            self._end(record, report.weights)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hand over the record of a trial that failed, or have it run again if only its process was lost."""
        report = self.latest.pop(trial.trial_id, None)
        record = report.record if report else self._record_of(trial)
        error = _error(trial)
        if (reason := _own_error(error)) is None:
            losses = self.losses.setdefault(record.trial, _Losses())
            reason = f"its process was lost: {_in_a_line(error)}"
            if not losses.are_too_many(record.epoch):
                self.searcher.run_again(trial.trial_id, trial.config)
                self.listener.on_lost(record.trial, reason)
                return
            reason = f"{reason} This happened {LOSSES} times without an epoch of progress."
        self.searcher.give_up(trial.trial_id)
        self._end(replace(record, status="failed", reason=reason), None)
        self.limits.add_failure(record.name, reason)

    def _end(self, record: Record, weights: bytes | None) -> None:
        self.losses.pop(record.trial, None)
        with self._writing():
            self.listener.on_end(replace(record, ended_at=record.ended_at or now()), weights)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """End the study when its results cannot be written: what is not written would be lost."""
        try:
            yield
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self.limits.stop(f"{where}results must be written as they come, but got {error.strerror or error}.")

    def _record_of(self, trial: Trial) -> Record:
        """Return what is known of a trial that ended before its first report."""
        number = trial.config["trial"]
        point = to_point(trial.config, self.experiment.pruner_groups)
        baseline = baseline_name(self.experiment, number)
        return Record(trial=number, baseline=baseline, attempts=trial.config["attempt"], **asdict(point))


@dataclass
class _Losses:
    """How often a trial's process was lost in a row, without an epoch of progress in between."""

    count: int = 0
    epoch: int = -1

    def are_too_many(self, epoch: int) -> bool:
        """Count one more, after which the trial had got to `epoch`."""
        self.count = self.count + 1 if epoch <= self.epoch else 1
        self.epoch = max(self.epoch, epoch)
        return self.count >= LOSSES


def run_search(
    trials: RunsTrials,
    results: Results,
    device: Device,
    *,
    at_once: int,
    limits: StudyLimits,
    under_way: Sequence[Record],
    listener: Listener,
) -> None:
    """Run the trials that have no record yet. Returns when all have ended, at a limit, or after Ctrl-C.

    Args:
        at_once: How many trials run at the same time; 1 may use all cores.
        under_way: What is known of trials that an earlier session began and did not end.

    Raises:
        StudyError: Ray Tune itself failed.
    """
    experiment = trials.experiment
    ended = [record for record in (*results.baselines(), *results.trials()) if record.trial > 0]
    searcher = Searcher(experiment, ended, results.unfinished(), results.attempts())
    scheduler = make_scheduler(experiment.rule(Asha), experiment.retraining.epochs, [*ended, *under_way])
    del ended  # of a long study, they are large
    checkpoints = Checkpoints(ray.get_runtime_context().get_node_id(), results.folder.absolute())
    trainable = tune.with_parameters(
        PrunedTrial,
        trials=trials,
        device=device,
        checkpoints=checkpoints,
        alone=at_once == 1,
    )
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": experiment.search.cpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,  # the searcher knows when there are enough
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="edge_tune",
                storage_path=scratch,
                verbose=0,
                stop=limits,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Recorder(experiment, searcher, scheduler, limits, listener)],
            ),
        )
        try:
            tuner.fit()
        except TuneError as error:
            raise StudyError(f"Ray Tune must run the trials, but got: {_in_a_line(error)}") from error


def _grid(groups: Mapping[str, PrunerGroup]) -> Iterator[Point]:
    labels = list(groups)
    values = [group.sparsity.values for group in groups.values() if isinstance(group.sparsity, Choice)]
    for sparsities in itertools.product(*values):
        for structures in itertools.product(*(group.structures for group in groups.values())):
            yield Point(dict(zip(labels, sparsities, strict=True)), dict(zip(labels, structures, strict=True)))


def _error(trial: Trial) -> Exception:
    """Return what ended a trial: its own error, or what Ray says of its process."""
    if not trial.pickled_error_file:
        return RuntimeError("Ray gave no reason.")
    error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


def _own_error(error: Exception) -> str | None:
    """Return what a trial itself raised, in a line; None if its process, or one that worked for it, was lost."""
    if isinstance(error, RayTaskError):
        return None if isinstance(error.cause, RayError) else _in_a_line(error.cause)
    if "error raised in its creation task" in str(error):  # the first trial of a process begins there
        *_, raised = [str(error), *EXCEPTION_LINE.findall(str(error))]
        return None if raised.startswith(RayError.__module__) else raised
    return None


def _in_a_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
