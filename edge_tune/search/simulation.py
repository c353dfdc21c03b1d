"""A study by closed formulas: nothing is trained, classified or measured. For trying out an experiment or a cluster.

What the experiment names must be there and fit, as for a real study; images are neither decoded nor downloaded, weights
are not downloaded, and the device is not looked for. Everything around the trials is the real thing: Ray, the searcher,
ASHA, the queue, the records, a resume. With s the mean of a point's sparsities, n classes and e of E epochs done, the
formulas are

    latency_ms = 0.1 + 0.1 (1 - 0.6 s)                  the fake device's, of a network of 100 kB (1 - 0.6 s)
    top1       = 10 + 80 (1 - s^4) (1 - s 2^-e)         falls with s, and comes back halfway with each epoch
    parameters = 1,000,000 (1 - s)
"""

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edge_tune.benchmark.measurement import Device
from edge_tune.experiment import RETRAINING, Experiment
from edge_tune.parameters import Parameter, Point, of_part
from edge_tune.records.choosing import rank
from edge_tune.records.entries import Effect, EpochEntry
from edge_tune.records.results import Planned, Record, Report, Results, now
from edge_tune.records.verdict import Row, Verdict, rows_of, verdict_of
from edge_tune.search.coding import Floats
from edge_tune.search.points import count_points

BYTES = 100_000
PARAMETERS = 1_000_000


@dataclass(frozen=True)
class Simulation:
    """Stands where a study's `Trials` stand.

    Attributes:
        experiment: What is searched; its device is "fake".
        epoch_s: Seconds that an epoch of retraining is to take.
    """

    experiment: Experiment
    epoch_s: float = 0.0

    simulated = True
    digest = "simulated"
    effects: ClassVar[Mapping[str, Effect]] = {}

    @property
    def network_digest(self) -> str:
        """What stands for the unpruned network: the formulas know its name."""
        return self.experiment.model

    @property
    def images(self) -> str:
        """What stands for the images."""
        return str(self.experiment.data.name)

    @property
    def trials(self) -> "Simulation":
        """What runs the trials: this."""
        return self

    def planner(self) -> "PointsAsPlans":
        """Return what tells networks apart: by their points, since the formulas know no filters to count."""
        return PointsAsPlans(self.experiment.parameters)

    def set_up(self, threads: int, gpus: float) -> "Simulation":
        """Return this: nothing is computed."""
        return self

    def reference(self) -> bytes:
        """Return what stands for the unpruned network."""
        return bytes(BYTES)

    def record_of(self, checkpoint: bytes) -> Record:
        """Return what a checkpoint knows of its trial: it is the record."""
        return Record.from_entry(json.loads(checkpoint))

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
        """Report as a real trial does; of an epoch there is nothing to say."""
        sparsity = _mean_sparsity(point, self.experiment)
        epochs = self.experiment.retraining.epochs if trial else 0
        if checkpoint:
            record = replace(self.record_of(checkpoint), node=platform.node())
        else:
            answer = device.measure(bytes(round(BYTES * (1 - 0.6 * sparsity))))
            seconds = {"queue": answer.queue_s, "measure": answer.measure_s}
            metrics = {**_accuracy(sparsity, 0), **answer.measurement.metrics, **_size(sparsity)}
            record = Record(
                trial=trial,
                baseline=baseline,
                point=point,
                metrics=metrics,
                pruned=metrics,
                measurements={"pruned": answer.measurement.evidence},
                seconds=seconds,
                node=platform.node(),
                started_at=now(),
            )
            if epochs:
                yield Report(record)
        for epoch in range(record.epoch + 1, epochs + 1):
            time.sleep(self.epoch_s)
            record = self._after(record, epoch, sparsity)
            if epoch < epochs:
                yield Report(record, checkpoint=record.to_json().encode())
        yield Report(replace(record, status="finished", ended_at=now()))

    def conclude(self, results: Results, device: Any) -> Verdict:
        """Return the verdict on what the formulas gave; there is no network to test or to keep."""
        trials, baselines = results.trials(), results.baselines()
        ranking = rank(self.experiment.objective, [*baselines, *trials])
        epochs = self.experiment.retraining.epochs
        rows = [_as_if_tested(row) for row in rows_of(baselines, ranking.best)]
        verdict = verdict_of(baselines, trials, ranking, rows, epochs=epochs, simulated=True)
        results.write_json("summary.json", verdict)
        return verdict

    def _after(self, record: Record, epoch: int, sparsity: float) -> Record:
        accuracy = _accuracy(sparsity, epoch)
        entry = EpochEntry(
            epoch=epoch,
            lr=self.experiment.retraining.at(of_part(record.point, RETRAINING)).lr_at(epoch - 1),
            train_loss=accuracy["loss"],
            seconds=self.epoch_s,
            metrics=accuracy,
        )
        seconds = {**record.seconds, "retrain": record.seconds.get("retrain", 0.0) + self.epoch_s}
        metrics = {**record.metrics, **accuracy}
        return replace(record, epoch=epoch, metrics=metrics, curve=(*record.curve, entry), seconds=seconds)


@dataclass(frozen=True)
class PointsAsPlans:
    """Takes points for the same network if they are equal, and for different ones if not."""

    parameters: Mapping[str, Parameter]

    def __call__(self, point: Point, *, is_baseline: bool) -> Planned:
        """Return what the network of a point is."""
        return Planned(json.dumps(dict(point), sort_keys=True), ())

    def digest(self, record: Record) -> str:
        """Return the digest of the network of a trial that has ended."""
        return self(record.point, is_baseline=record.baseline is not None).digest

    def count(self) -> int | None:
        """Return how many points there are; None if they cannot be counted."""
        return count_points(self.parameters)

    def shape(self) -> None:
        """Return None: the formulas know no layers."""

    def importances(self, label: str, structure: str, importance: str) -> Mapping[str, Floats]:
        """Return nothing, for the same reason."""
        return {}


def _mean_sparsity(point: Point, experiment: Experiment) -> float:
    """Return the mean share that goes, of weights and of blocks."""
    sparsities = [float(value) for name, value in point.items() if name.endswith(".sparsity")]
    sparsities += [
        1 - float(point[f"{label}.keep"]) / len(group.blocks)
        for label, group in experiment.block_groups.items()
        if f"{label}.keep" in point
    ]
    return sum(sparsities) / max(1, len(sparsities))


def _accuracy(sparsity: float, epoch: int) -> dict[str, float]:
    top1 = 10 + 80 * (1 - sparsity**4) * (1 - sparsity * 0.5**epoch)
    return {"top1": top1, "top5": (100 + top1) / 2, "loss": (100 - top1) / 40}


def _size(sparsity: float) -> dict[str, float]:
    parameters = round(PARAMETERS * (1 - sparsity))
    return {"parameters": parameters, "macs": 100 * parameters}


def _as_if_tested(row: Row) -> Row:
    return replace(row, test={metric: row.metrics[metric] for metric in ("top1", "top5", "loss")})
