"""From an experiment to Ray Tune: the loop, and what becomes of the trials in it.

A resumed study starts a new Tune run and replays what the records say into the searcher and the
scheduler: the records are plain files and the only state (docs/decisions.md says why).
"""

import json
import re
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayError, RayTaskError
from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.stopper import CombinedStopper

from edge_tune.benchmark.measurement import Device
from edge_tune.errors import StudyError
from edge_tune.experiment import Experiment
from edge_tune.parameters import Point
from edge_tune.records.entries import Metrics
from edge_tune.records.results import Record, Report, Results, now
from edge_tune.search.earlier import numbered
from edge_tune.search.live import Board
from edge_tune.search.paused import let_go_before
from edge_tune.search.rules import Rules
from edge_tune.search.searcher import Searcher
from edge_tune.search.stopping import StudyLimits
from edge_tune.search.trainable import (
    Checkpoints,
    PrunedTrial,
    RunsTrials,
    baseline_name,
)

LOSSES = 5
"""A trial whose process is lost so often in a row, without an epoch of progress, is what ends it."""

EXCEPTION_LINE = re.compile(r"^[\w.]+: .+$", re.MULTILINE)
"""Where a traceback says what was raised; the message may go on below."""


class Listener(Protocol):
    """Who is told what becomes of the trials, on the driver. An OSError from it ends the study."""

    def on_start(self, trial: int, point: Point, expected: Metrics | None) -> None:
        """Learn that a trial begins, and what the method of search expects of it, if it says so."""

    def on_note(self, note: str) -> None:
        """Learn what the method of search says of itself."""

    def on_promoted(self, record: Record) -> None:
        """Learn that a paused trial is continued, whose record this is."""

    def on_let_go(self, trial: int) -> None:
        """Learn that a paused trial need not keep its checkpoint."""

    def on_wait(self, trial: int, point: Point, other: int) -> None:
        """Learn that a trial gives the network that another one tries now, and waits for its record."""

    def on_report(self, record: Record, checkpoint: bytes | None) -> None:
        """Learn where a trial is on its way."""

    def on_step(self) -> None:
        """Learn that the search goes on, many times a second, whether or not there is news."""

    def on_lost(self, trial: int, reason: str) -> None:
        """Learn that a trial's process was lost, and that it will be run again."""

    def on_end(self, record: Record, weights: bytes | None) -> None:
        """Learn how a trial ended; a finished one comes with its weights."""

    def on_repeat(self, record: Record) -> None:
        """Learn that a trial gave the network of another, and took its record over."""


class Recorder(tune.Callback):
    """Turns what Tune learns of trials into records, and decides what becomes of those whose process is lost."""

    def __init__(
        self,
        experiment: Experiment,
        searcher: Searcher,
        rules: Rules,
        limits: StudyLimits,
        listener: Listener,
    ) -> None:
        self.experiment, self.searcher, self.rules = experiment, searcher, rules
        self.limits, self.listener = limits, listener
        self.latest: dict[str, Report] = {}
        self.losses: dict[int, _Losses] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note the point, so that a resumed study runs it again if it does not end."""
        self._hand_over_repeats()  # they have smaller numbers
        for note in self.searcher.take_notes():
            self.listener.on_note(note)
        with self._writing():
            for record in self.searcher.take_promotions():
                self.rules.go_on(record)
                self.listener.on_promoted(record)
            number = trial.config["trial"]
            self.listener.on_start(number, trial.config["point"], self.searcher.expected.get(number))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Hand over what was taken over since."""
        self._hand_over_repeats()
        self.listener.on_step()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the report, and take what is large out of the result before Tune stores it."""
        record = Record.from_entry(json.loads(result.pop("record")))
        record = replace(record, attempts=trial.config["attempt"])
        weights, checkpoint = result.pop("weights"), result.pop("checkpoint")
        self.latest[trial.trial_id] = Report(record, weights)
        if record.status == "running":
            self.rules.foresee(record)
            with self._writing():
                self.listener.on_report(record, checkpoint)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hand over the record of a trial that finished or was stopped by a rule."""
        report = self.latest.pop(trial.trial_id, None)
        if report is None:
            return
        record = self.rules.judged(report.record, trial.trial_id)
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
                self.searcher.run_again(trial.config)
                self.listener.on_lost(record.trial, reason)
                return
            reason = f"{reason} This happened {LOSSES} times without an epoch of progress."
        record = replace(record, status="failed", reason=reason)
        self._end(record, None)
        if not self._is_finding(record):
            self.limits.add_failure(record.name, reason)
        if record.baseline in self.experiment.objective.baselines:
            self.limits.stop(f"the target compares with {record.baseline}, which failed: {reason}")

    def _is_finding(self, record: Record) -> bool:
        """Tell whether a failure only says which recipes are too much: they are searched, and others go through."""
        searched = self.experiment.retraining.parameters()
        return record.diverged and bool(searched) and self.searcher.has_retrained

    def _end(self, record: Record, weights: bytes | None) -> None:
        self.losses.pop(record.trial, None)
        record = self.rules.marked(record, self.searcher.expected.get(record.trial))
        self.rules.know(record)
        with self._writing():
            self.listener.on_end(replace(record, ended_at=record.ended_at or now()), weights)
            for trial in self.rules.paused.let_go():
                self.listener.on_let_go(trial)
        try:
            self.searcher.end(record)
        except StudyError as error:  # of a method of search of one's own
            self.limits.stop(str(error).removesuffix("."))
        self._hand_over_repeats()

    def _hand_over_repeats(self) -> None:
        waits, repeats = self.searcher.take_news()
        with self._writing():
            for wait in waits:
                self.listener.on_wait(wait.trial, wait.point, wait.of)
            for record in repeats:
                self.rules.know(record)
                self.listener.on_repeat(record)

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
        return Record(
            trial=number,
            baseline=baseline_name(self.experiment, number),
            attempts=trial.config["attempt"],
            point=trial.config["point"],
        )


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
    board: Board,
    *,
    at_once: int,
    gpus: float,
    limits: StudyLimits,
    under_way: Sequence[Record],
    listener: Listener,
) -> str | None:
    """Run the trials that have no record yet. Returns when all have ended, or at a limit.

    The text it returns says why there was no other network to try before all trials had ended, if that was so.

    Args:
        board: Where trials say how far they are.
        at_once: How many trials run at the same time; 1 may use all cores.
        gpus: GPUs of each trial.
        under_way: What is known of trials that an earlier session began and did not end.

    Raises:
        StudyError: Ray Tune itself failed.
        KeyboardInterrupt: The search was interrupted.
    """
    experiment = trials.experiment
    continued = results.promoted()
    ended = [*results.baselines(), *results.trials()]
    earlier = list(numbered(results.earlier()))
    rules = Rules(experiment, ended, under_way, continued, earlier, let_go_before(results))
    searcher = Searcher(
        experiment,
        trials.planner(),
        ended,
        results.unfinished(),
        results.attempts(),
        continued=continued,
        paused=rules.paused,
        earlier=earlier,
        expected=results.expected(),
    )
    del ended, earlier  # of a long study, they are large
    checkpoints = Checkpoints(ray.get_runtime_context().get_node_id(), results.folder.absolute())
    trainable = tune.with_parameters(
        PrunedTrial,
        trials=trials,
        device=device,
        checkpoints=checkpoints,
        board=board,
        alone=at_once == 1,
        gpus=gpus,
    )
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": experiment.search.cpus_per_trial, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=rules.scheduler,
                num_samples=-1,  # the searcher knows when there are enough
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="edge_tune",
                storage_path=scratch,
                verbose=0,
                stop=CombinedStopper(limits, *rules.stoppers),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Recorder(experiment, searcher, rules, limits, listener)],
            ),
        )
        try:
            with _ctrl_c_given_back():
                tuner.fit()
        except TuneError as error:
            raise StudyError(f"Ray Tune must run the trials, but got: {_in_a_line(error)}") from error
    return searcher.exhausted


@contextmanager
def _ctrl_c_given_back() -> Iterator[None]:
    """Let Ctrl-C mean what it meant before: Ray Tune takes it for the time it runs, and would keep it.

    Raises:
        KeyboardInterrupt: It came; Ray Tune may not have looked any more.
    """
    mine = signal.getsignal(signal.SIGINT)
    try:
        yield
        if signal.getsignal(signal.SIGINT) is mine:  # Ray Tune gives it back after the first
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, mine)


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
