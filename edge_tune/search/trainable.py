"""A trial in a process of its own, as Ray Tune sees it. Without the searcher: each such process imports this.

A config goes in, reports come out; what a trial does is in trial.py.
"""

import faulthandler
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from edge_tune.benchmark.cores import training_cpus, usable_cpus
from edge_tune.benchmark.measurement import Device
from edge_tune.experiment import Experiment
from edge_tune.parameters import Point
from edge_tune.records.results import Planned, Record, Report, Results
from edge_tune.records.shapes import NetworkShape
from edge_tune.search.coding import Floats
from edge_tune.search.live import Board

Config = dict[str, Any]
"""A trial as Ray Tune sees it: its number, its attempt, and its point."""


class Planner(Protocol):
    """Tells on the driver which networks points give, without a trial."""

    def __call__(self, point: Point, *, is_baseline: bool) -> Planned:
        """Return what the network of a point is."""

    def digest(self, record: Record) -> str:
        """Return the digest of the network of a trial that has ended."""

    def count(self) -> int | None:
        """Return how many different networks the points of the search space give; None: nobody has counted them."""

    def shape(self) -> NetworkShape | None:
        """Return the layers of the unpruned network; None: nobody knows them."""

    def importances(self, label: str, structure: str, importance: str) -> Mapping[str, Floats]:
        """Return the importance of each slice of a group's layers, [slices]; none where nobody knows it."""


class RunsTrials(Protocol):
    """What runs a study's trials: prunes and retrains, or simulates it."""

    @property
    def experiment(self) -> Experiment:
        """What is searched."""

    def planner(self) -> Planner:
        """Return what tells which networks points give."""

    def set_up(self, threads: int, gpus: float) -> "RunsTrials":
        """Prepare this process for trials, one after another, and return what runs them here.

        Args:
            gpus: The share of a GPU that Ray gave it.
        """

    def begin(
        self,
        point: Point,
        device: Device,
        *,
        trial: int,
        baseline: str | None,
        checkpoint: bytes | None,
        say: Callable[[str], None] | None = None,
    ) -> Iterator[Report]:
        """Begin a trial, or go on with one from a checkpoint.

        Args:
            say: Receives a line now and then on how far an epoch is.
        """

    def record_of(self, checkpoint: bytes) -> Record:
        """Return what a checkpoint knows of its trial."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in the results folder, which is on the driver's node, for trials on any node.

    Attributes:
        node_id: Ray's id of the driver's node.
        folder: On that node.
    """

    node_id: str
    folder: Path

    def of(self, trial: int) -> bytes | None:
        """Return what trial number `trial` goes on from, if anything."""
        here = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        remote: Any = ray.remote(_content).options(num_cpus=0, scheduling_strategy=here)
        content: bytes | None = ray.get(remote.remote(Results(self.folder).checkpoint_file(trial)))
        return content


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


class PrunedTrial(tune.Trainable):
    """Ray's view of a trial: a step is a report. One process serves many trials."""

    def setup(  # type: ignore[override]  # tune.with_parameters adds the rest
        self,
        config: Config,
        trials: RunsTrials,
        device: Device,
        checkpoints: Checkpoints,
        board: Board,
        alone: bool,
        gpus: float,
    ) -> None:
        """Keep what all trials share and begin the first.

        Args:
            config: The first trial's.
            trials: The study's; a node fetches them once.
            device: What measures.
            checkpoints: Where trials that were interrupted go on from.
            board: Where trials say how far they are.
            alone: Whether no other trial runs meanwhile: this one may use all cores, because it waits while its
                network is measured.
            gpus: GPUs of each trial.
        """
        self.device, self.checkpoints, self.board = device, checkpoints, board
        experiment = trials.experiment
        if not alone and experiment.benchmark.takes_cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, training_cpus(experiment.benchmark.threads, _devices_here(experiment)))
        self.trials = trials.set_up(len(usable_cpus()) if alone else experiment.search.cpus_per_trial, gpus)
        self._begin(config)

    def reset_config(self, new_config: Config) -> bool:
        """Begin the next trial in the same process, with nothing left of the last."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Go on to the next report."""
        return as_result(next_report(self.reports, self.trials.experiment.search.trial_time_limit_s))

    def _begin(self, config: Config) -> None:
        experiment = self.trials.experiment
        number = config["trial"]
        self.reports: Iterator[Report] = self.trials.begin(
            config["point"],
            self.device,
            trial=number,
            baseline=baseline_name(experiment, number),
            checkpoint=self.checkpoints.of(number) if config["attempt"] > 1 else None,
            say=self.board.writer(number),
        )


def next_report(reports: Iterator[Report], trial_time_limit_s: float | None) -> Report:
    """Return the next report, or end this process if it takes far too long; the driver then learns that it is lost."""
    if trial_time_limit_s:
        faulthandler.dump_traceback_later(2 * trial_time_limit_s + 60, exit=True, file=2)  # whatever hangs
    report = next(reports)
    faulthandler.cancel_dump_traceback_later()
    return report


def _devices_here(experiment: Experiment) -> int:
    """Return how many devices this process's node has."""
    mine = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == mine)  # type: ignore[no-untyped-call]
    return int(node["Resources"].get(experiment.benchmark.resource, 0))


def baseline_name(experiment: Experiment, number: int) -> str | None:
    """Return the name of the baseline that trial `number` is, or None: they are numbered from 1."""
    return dict(enumerate(experiment.baseline_names, 1)).get(number)


def as_result(report: Report) -> dict[str, Any]:
    """Return a report as Ray Tune wants it: flat, every metric in it, the record as one text."""
    record = report.record
    return {
        **record.metrics,
        "trial": record.trial,
        "epoch": record.epoch,
        "baseline": record.baseline is not None,
        "record": record.to_json(),
        "weights": report.weights,
        "checkpoint": report.checkpoint,
        "done": record.status != "running",
    }
