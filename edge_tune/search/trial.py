"""One trial: prune, evaluate, measure, retrain, export, measure. An interrupted one goes on from its checkpoint."""

import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from threading import Thread

import torch
from torch import nn

from edge_tune.benchmark import layers
from edge_tune.benchmark.measurement import Device, Measured
from edge_tune.errors import PruningError, RetrainingError
from edge_tune.experiment import RETRAINING, Experiment, Hopeless
from edge_tune.networks import onnx_export, pruning, stored
from edge_tune.networks.compute import CPU, SMALLER_BATCH, Compute, enough_memory, take
from edge_tune.networks.evaluation import Evaluation, evaluate
from edge_tune.networks.layer_shapes import network_shape
from edge_tune.networks.pruning import Plan
from edge_tune.networks.retraining import Epoch, State, make_state, retrain
from edge_tune.parameters import Point, Value, of_part
from edge_tune.records.entries import Computed, EpochEntry, left_out
from edge_tune.records.results import Planned, Record, Report, now
from edge_tune.records.shapes import NetworkShape
from edge_tune.search.checkpoint import Checkpoint
from edge_tune.search.coding import Floats
from edge_tune.search.points import count_points, grid_point
from edge_tune.search.stopping import why_collapsed, why_hopeless, why_too_long
from edge_tune.search.study import Study

Say = Callable[[str], None]

PARTS = 4096
"""So many plans of a group are remembered: those of a list of sparsities come again and again."""

SHORTENED = 64
"""So many networks without some of their blocks are remembered."""


@dataclass(frozen=True)
class Trials:
    """The trials of a study, as the search runs them.

    Attributes:
        compute: What this process computes with.
    """

    study: Study
    compute: Compute = CPU

    @property
    def experiment(self) -> Experiment:
        """What is searched."""
        return self.study.experiment

    def planner(self) -> "Planner":
        """Return what tells which networks points give."""
        return Planner(self.study)

    def set_up(self, threads: int, gpus: float) -> "Trials":
        """Prepare this process for trials, one after another, and return those that it runs.

        Raises:
            ComputeError: PyTorch cannot use the GPU that Ray gave it.
        """
        compute = take(threads, gpus)
        study = self.study
        here = replace(study, train=compute.images(study.train), validation=compute.images(study.validation))
        return Trials(here, compute)

    def record_of(self, checkpoint: bytes) -> Record:
        """Return what a checkpoint knows of its trial."""
        return Checkpoint.from_bytes(checkpoint).record

    def begin(
        self,
        point: Point,
        device: Device,
        *,
        trial: int,
        baseline: str | None,
        checkpoint: bytes | None,
        say: Say | None = None,
    ) -> Iterator[Report]:
        """Begin a trial, or go on with one. Number 0 is the unpruned network, which is not retrained."""
        torch.manual_seed(self.experiment.search.seed)
        epochs = self.experiment.retraining.epochs if trial else 0
        return run_trial(
            self.study,
            point,
            device,
            epochs=epochs,
            trial=trial,
            baseline=baseline,
            checkpoint=checkpoint,
            compute=self.compute,
            say=say,
        )


class Planner:
    """Tells which networks points give, without pruning any."""

    def __init__(self, study: Study) -> None:
        self.study, self.network = study, study.network()
        self.groups = study.experiment.groups
        self._part = lru_cache(PARTS)(self._make_part)
        self.unpruned = pruning.Traced(self.network, study.coupled)
        self._shortened = lru_cache(SHORTENED)(lambda blocks: pruning.shortened(self.unpruned, blocks))

    def __call__(self, point: Point, *, is_baseline: bool) -> Planned:
        """Return what the network of a point is. One that has no plan is its own; its trial then says why."""
        blocks = pruning.plan_blocks(self.groups, point)
        try:
            parts = {
                label: self._part(blocks, label, *of_part(point, label).items(), is_baseline=is_baseline)
                for label in self.study.experiment.pruners
            }
        except PruningError:
            return Planned(json.dumps(dict(point), sort_keys=True), ())
        plan = tuple(itertools.chain(blocks, *parts.values()))
        gone = [label for label, part in parts.items() if left_out(blocks) and not part]
        inactive = frozenset(f"{label}.{name}" for label in gone for name in self.groups[label].parameters())
        return Planned(_digest(plan, point), plan, inactive)

    def digest(self, record: Record) -> str:
        """Return the digest of the network of a trial that has ended; its record holds the plan, once it was made."""
        if record.plan:
            return _digest(record.plan, record.point)
        return self(record.point, is_baseline=record.baseline is not None).digest

    def count(self) -> int | None:
        """Return how many different networks the points of the search space give.

        None if they cannot be counted: there are too many ways to leave out blocks, each of which is a network of its
        own to count the slices of.
        """
        experiment = self.study.experiment
        recipes = count_points(experiment.retraining.parameters())
        kept = {f"{label}.keep": group.keep for label, group in experiment.block_groups.items()}
        ways = count_points(kept)
        if recipes is None or count_points(experiment.parameters) is None or ways is None or ways > SHORTENED:
            return None
        plans = [pruning.plan_blocks(self.groups, grid_point(kept, number)) for number in range(ways)]
        return recipes * sum(
            math.prod(len(set(self._digests(plan, label))) for label in experiment.pruners) for plan in plans
        )

    def shape(self) -> NetworkShape:
        """Return the layers of the unpruned network."""
        study = self.study
        return network_shape(self.network, study.experiment.pruners, study.coupled, study.granularity)

    def importances(self, label: str, structure: str, importance: str) -> Mapping[str, Floats]:
        """Return the importance of each slice of a group's layers, [slices]; none if the criterion cannot rank them."""
        asked: Point = {"structure": structure, "importance": importance, "sparsity": 0.0}
        pruner = self.study.experiment.pruners[label]
        try:
            return pruning.importances(self.unpruned, pruner, asked, self.study.basis)
        except PruningError:
            return {}

    def _digests(self, blocks: Plan, label: str) -> Iterator[str]:
        """Yield the digest of what each point of one group makes of its weights, without some blocks."""
        parameters = self.groups[label].parameters()
        for number in range(count_points(parameters) or 0):
            point = grid_point(parameters, number)
            try:
                plan = self._part(blocks, label, *point.items(), is_baseline=False)
            except PruningError:
                yield json.dumps(dict(point), sort_keys=True)
            else:
                yield pruning.digest(plan)

    def _make_part(self, blocks: Plan, label: str, *asked: tuple[str, Value], is_baseline: bool) -> Plan:
        """Return the plan of one group of weights without some blocks; other such groups have nothing to do with it."""
        point = {f"{label}.{name}": value for name, value in asked}
        left = self._shortened(blocks)
        granularity = _granularity(self.study, is_baseline=is_baseline)
        return pruning.plan_slices(self.unpruned, left, self.groups, point, granularity, self.study.basis)


def _digest(plan: Plan, point: Point) -> str:
    """Return a text that is equal for points that give the same network, trained by the same recipe."""
    recipe = of_part(point, RETRAINING)
    return f"{pruning.digest(plan)} {json.dumps(recipe, sort_keys=True)}" if recipe else pruning.digest(plan)


def _granularity(study: Study, *, is_baseline: bool) -> int:
    return 1 if is_baseline else study.granularity  # a baseline is a known schedule, and stays one


def run_trial(
    study: Study,
    point: Point,
    device: Device,
    *,
    epochs: int,
    trial: int,
    baseline: str | None = None,
    checkpoint: bytes | None = None,
    compute: Compute = CPU,
    say: Say | None = None,
) -> Iterator[Report]:
    """Yield the record after pruning (when retraining follows) and after every epoch.

    The last report says "finished", and brings the weights; or it says "stopped", by the study's Hopeless rule or by
    the limit of time. Neither stops a baseline. Every report holds every metric, and each metric is finite.

    Args:
        checkpoint: Of an earlier report of the same trial, to go on from.
        compute: What it retrains and classifies with.
        say: Receives a line now and then on how far an epoch is.

    Raises:
        PruningError, RetrainingError, ComputeError, ExportError, BenchmarkError: The trial failed.
    """
    compute.tidy()
    started_at, clock = now(), _Clock()
    with clock.stage("plan"):
        network = study.network()
        granularity = _granularity(study, is_baseline=baseline is not None)
        plan = pruning.make_plan(network, study.experiment.groups, point, study.coupled, granularity, study.basis)
    with clock.stage("prune"):
        network = compute.network(pruning.prune(network, plan, study.coupled))
    precision = study.experiment.retraining.precision
    record = Record(
        trial=trial,
        baseline=baseline,
        point=point,
        plan=tuple(plan),
        node=platform.node(),
        compute=Computed(
            compute.device,
            compute.name,
            "bf16" if compute.computes_in_bf16(precision) else "f32",
            compute.varies,
        ),
        started_at=started_at,
    )
    run = _UnderWay(study, device, network, plan, record, clock, compute, epochs=epochs)
    if checkpoint:
        run.go_on(Checkpoint.from_bytes(checkpoint))  # which was reported
    else:
        if trial:
            run.evaluate_and_measure(pruning.digest(plan))
        else:  # in the command's own process, whose threads would outlive an interruption
            run.evaluate()
            run.measure("pruned", remember=pruning.digest(plan))
        run.decide()
        if not run.is_over:
            yield run.report()
    for epoch in () if run.is_over else run.retrain(say):
        run.evaluate(epoch)
        run.decide()
        if run.is_over:
            break
        if study.measures_after(epoch.epoch):
            run.measure(f"epoch_{epoch.epoch}")
        yield run.report()
    if run.record.epoch and not run.stop:
        run.measure("retrained")
    yield run.end()


class _Clock:
    """The seconds that were spent in each stage of a trial."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to those of stage `name`."""
        started = time.perf_counter()
        yield
        self.spend(name, time.perf_counter() - started)

    def spend(self, stage: str, seconds: float) -> None:
        """Add seconds to those of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class _UnderWay:
    """The state of a trial between two reports.

    Attributes:
        stop: The rule that ended the trial, as `Record.stopped_by` names it, and the reason; None while none has.
    """

    def __init__(
        self,
        study: Study,
        device: Device,
        network: nn.Module,
        plan: Plan,
        record: Record,
        clock: _Clock,
        compute: Compute,
        *,
        epochs: int,
    ) -> None:
        self.study, self.device, self.network, self.record, self.clock = study, device, network, record, clock
        self.compute = compute
        self.epochs = epochs
        self.stop: tuple[str, str] | None = None
        self.recipe = study.experiment.retraining.at(of_part(record.point, RETRAINING))
        self.is_unpruned = pruning.digest(plan) == pruning.digest(())

    @cached_property
    def state(self) -> State:
        """Made only for retraining: the first of a process has PyTorch import its compiler, about a second."""
        return make_state(self.network, self.recipe)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take up the state of an earlier attempt, whose seconds count too."""
        with enough_memory("retraining", SMALLER_BATCH):
            self.network.load_state_dict(checkpoint.weights)
            self.state.load_state_dict(checkpoint.state)
        self.record = replace(checkpoint.record, node=self.record.node, compute=self.record.compute)
        for stage, seconds in checkpoint.record.seconds.items():
            self.clock.spend(stage, seconds)

    def evaluate(self, epoch: Epoch | None = None) -> None:
        """Classify the validation split; `epoch` is what came before, if anything did."""
        with self.clock.stage("evaluate"):
            evaluation = evaluate(self.network, self.study.validation, compute=self.compute)
        if not math.isfinite(evaluation.loss):
            when = f"after epoch {epoch.epoch}" if epoch else "before any retraining"
            raise RetrainingError(f"{when}: the validation loss must be finite, but got {evaluation.loss}.")
        self.record = replace(
            self.record,
            collapsed=why_collapsed(evaluation),
            metrics={**self.record.metrics, **_accuracy(evaluation)},
            answers=evaluation.answers,
        )
        if epoch:
            entry = EpochEntry(**asdict(epoch), metrics=_accuracy(evaluation))
            self.record = replace(self.record, epoch=epoch.epoch, curve=(*self.record.curve, entry))

    def evaluate_and_measure(self, remember: str) -> None:
        """Classify with the pruned network while the device, which is not this process's, measures it."""
        onnx = self._export()
        answer: Future[Measured] = Future()

        def ask() -> None:
            try:
                answer.set_result(self.device.measure(onnx, remember))
            except BaseException as error:  # is raised where the answer is taken
                answer.set_exception(error)

        Thread(target=ask, daemon=True).start()  # not waited for by a process that is to end
        started = time.perf_counter()
        self.evaluate()
        meanwhile_s = time.perf_counter() - started
        self._note("pruned", onnx, answer.result(), meanwhile_s)

    def measure(self, stage: str, remember: str | None = None) -> None:
        """Have the network measured on the device."""
        onnx = self._export()
        self._note(stage, onnx, self.device.measure(onnx, remember))

    def _export(self) -> bytes:
        with self.clock.stage("export"):
            return onnx_export.to_onnx(self.network, self.study.input_shape)

    def _note(self, stage: str, onnx: bytes, answer: Measured, meanwhile_s: float = 0.0) -> None:
        """Record what the device says of the network.

        Args:
            meanwhile_s: Seconds for which the trial did something else than wait for it.
        """
        self.clock.spend("queue", max(0.0, answer.queue_s - meanwhile_s))
        self.clock.spend("measure", max(0.0, answer.measure_s - max(0.0, meanwhile_s - answer.queue_s)))
        measurement = answer.measurement
        if self.is_unpruned and self.record.trial:
            measurement = measurement.of_reference()  # its layers are those of the unpruned network, trained or not
        measured = measurement.metrics
        metrics = {**self.record.metrics, **measured, **self._size()}
        evidence = replace(measurement.evidence, metrics=measured, remembered=answer.remembered)
        self.record = replace(
            self.record,
            layers=layers.rows(measurement.layers, onnx),
            metrics=metrics,
            pruned=self.record.pruned or metrics,
            measurements={**self.record.measurements, stage: evidence},
        )
        if self.record.epoch and self.study.measures_after(self.record.epoch):
            *earlier, last = self.record.curve
            last = replace(last, metrics={**last.metrics, **measured})
            self.record = replace(self.record, curve=(*earlier, last))

    def decide(self) -> None:
        """Look whether a rule ends the trial here. None ends a baseline."""
        experiment, epoch = self.study.experiment, self.record.epoch
        if self.record.baseline is not None:
            return
        if reason := why_hopeless(experiment.rule(Hopeless), self.record.collapsed, epoch=epoch, epochs=self.epochs):
            self.stop = "hopeless", reason
        elif epoch < self.epochs and (reason := why_too_long(experiment.search.trial_time_limit_s, self._worked_s())):
            self.stop = "time_limit", reason

    @property
    def is_over(self) -> bool:
        """Whether a rule ended the trial, or its last epoch is done."""
        return bool(self.stop) or self.record.epoch >= self.epochs

    def retrain(self, say: Say | None) -> Iterator[Epoch]:
        study = self.study
        for epoch in retrain(
            self.network,
            study.train,
            self.recipe,
            augmentation=study.augmentation,
            seed=study.experiment.search.seed,
            teacher=study.network() if self.recipe.distillation else None,
            state=self.state,
            epochs_done=self.record.epoch,
            compute=self.compute,
            say=say,
        ):
            self.clock.spend("retrain", epoch.seconds)
            yield epoch

    def report(self) -> Report:
        """Return where the trial is; after an epoch, with all that it needs to go on from there."""
        record = replace(self.record, seconds=dict(self.clock.seconds))
        if not record.epoch:
            return Report(record)
        checkpoint = Checkpoint(record, self.network.state_dict(), self.state.state_dict())
        return Report(record, checkpoint=checkpoint.to_bytes())

    def end(self) -> Report:
        """Return the last report: stopped and why, or finished and with the weights."""
        ended = replace(self.record, seconds=dict(self.clock.seconds), ended_at=now())
        if self.stop:
            rule, reason = self.stop
            return Report(replace(ended, status="stopped", stopped_by=rule, reason=reason))
        return Report(replace(ended, status="finished"), stored.to_bytes(self.network))

    def _worked_s(self) -> float:
        """Return the seconds of work so far; others were measured while this trial waited for the device."""
        return sum(seconds for stage, seconds in self.clock.seconds.items() if stage != "queue")

    def _size(self) -> Mapping[str, float]:
        if self.record.pruned:
            return {}
        with self.clock.stage("plan"):
            parameters, macs = pruning.size(onnx_export.on_cpu(self.network), self.study.input_shape)
        return {"parameters": parameters, "macs": macs}


def _accuracy(evaluation: Evaluation) -> dict[str, float]:
    return {"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss}
