"""One measurement: a network on the device, in turns with its reference, and the evidence for each figure."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_tune.benchmark import answers
from edge_tune.benchmark.answers import Begun, Counters
from edge_tune.benchmark.child import Child
from edge_tune.benchmark.statistics import (
    ENOUGH,
    PRECISION,
    Share,
    are_running_means,
    device_ratio,
    layer_means,
    paired_ratio,
    share_noise,
    summary,
)
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import DeviceEntry, Evidence, Layer, Ratio, Ratios, Reference, TimeSummary

RUNS_A_TURN = 5
"""The fastest of a turn counts. One or two are slow, since the other network's weights are in the cache, and on a busy
host more are interrupted: there, the interval of the turns' medians is twice as wide as that of their minima."""

FEW_ROUNDS = 10
"""A network so slow that not even so many rounds fit in the time has fewer runs in each turn, for more of them."""

MOST_ROUNDS = 1000
"""That one request asks for."""

BATCH_S = 0.25
"""Seconds of rounds between two looks at the interval."""

SEED = 0

LOST_MS = 1e-3
"""What the counters of the CPU plugin lose of each layer's time: half a microsecond by rounding each run down, half
a one by rounding their mean down. Of a ratio of 0.75 that would be 1 % on a network of 60 layers and 1.4 ms."""

StoppedBy = Literal["interval", "time", "runs"]


@dataclass(frozen=True)
class Measurement:
    """What one network took on the device, in the words of STYLE.md.

    Attributes:
        latency_ms: Summed device time of the executed layers, one image: latency_ratio times the reference's median
            over its runs in the same turns, so that the two never contradict each other. Without a reference, the
            network's own median.
        total_latency_ms: The same of the end-to-end time of one synchronous inference, copies included.
        throughput_fps: Images a second with the device kept full.
        latency_ratio: Device time in proportion to that of the reference measured in turns with it,
            below 1 when faster; 1 for the reference itself, None when there was no reference.
        total_latency_ratio: The same of the end-to-end time.
        evidence: Device, settings as read back, samples' summaries, load.
        layers: With their parts of `latency_ms`; none of a formula.
    """

    latency_ms: float
    total_latency_ms: float
    throughput_fps: float
    latency_ratio: float | None
    total_latency_ratio: float | None
    evidence: Evidence
    layers: Sequence[Layer] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that there are, under the names that records have for them."""
        found = {
            "latency_ms": self.latency_ms,
            "total_latency_ms": self.total_latency_ms,
            "latency_ratio": self.latency_ratio,
            "total_latency_ratio": self.total_latency_ratio,
            "throughput_fps": self.throughput_fps,
        }
        return {metric: value for metric, value in found.items() if value is not None}

    def of_reference(self) -> "Measurement":
        """Return it as a measurement of the reference itself: the ratios are 1, whatever came of the turns."""
        if self.evidence.ratios is None:
            return self
        same = Ratio(1.0, 1.0, 1.0)
        ratios = replace(
            self.evidence.ratios, latency_ratio=same, total_latency_ratio=same, is_precise=True, to_itself=True
        )
        reference_ms = self.evidence.reference_ms
        return replace(
            self,
            latency_ms=reference_ms["latency_ms"],
            total_latency_ms=reference_ms["total_latency_ms"],
            latency_ratio=1.0,
            total_latency_ratio=1.0,
            evidence=replace(self.evidence, ratios=ratios),
        )


class Measured(Protocol):
    """What came of one request to the device."""

    @property
    def measurement(self) -> Measurement:
        """What the device said."""

    @property
    def queue_s(self) -> float:
        """Seconds spent waiting for the device."""

    @property
    def measure_s(self) -> float:
        """Seconds the device was busy with the request."""

    @property
    def remembered(self) -> bool:
        """Whether an equal network had been measured before."""


class Device(Protocol):
    """Whoever measures: the benchmark actor's client, or something that stands in for it."""

    def measure(self, onnx: bytes, remember: str | None = None) -> Measured:
        """Measure a network in turns with the unpruned one; one with the same `remember` text is measured once."""


@dataclass(frozen=True)
class Samples:
    """What the runner said.

    Attributes:
        begin: What it found before the turns.
        counters: Of each network; the candidate comes first.
        total_ms: Of each inference, by the clock, [rounds, networks, runs].
        wall_ms: The same on the wall, which the device's counters go by.
        stopped_by: What ended the rounds.
    """

    begin: Begun
    counters: Sequence[Counters]
    total_ms: NDArray[np.float64]
    wall_ms: NDArray[np.float64]
    stopped_by: StoppedBy


def take_samples(child: Child, networks: Sequence[Path], settings: Benchmark, folder: Path) -> Samples:
    """Have the runner measure a network, in turns with its reference if `networks` holds one too.

    The networks run for at most `settings.max_s` seconds in all, warm-up included, but each at least once. Within that
    time they run at least `settings.runs` times, and with a reference on until every ratio is known well enough.
    """
    started = time.monotonic()
    begin = _begin(child, networks, settings)
    end = time.monotonic() + settings.max_s - sum(s for stage, s in begin.seconds.items() if stage != "compile")
    runs = _runs_a_turn(begin.run_ms, end - time.monotonic())
    due = math.ceil(settings.runs / runs)
    taken_ms = np.empty((0, len(networks), runs, 2))
    first_round = time.monotonic()

    def taken(stopped_by: StoppedBy) -> Samples:
        answer = child.ask("read", folder=str(folder))
        passed = time.monotonic() - started
        counters = answers.counters(answer, folder, len(networks), len(taken_ms), runs, passed)
        return Samples(begin, counters, taken_ms[..., 0], taken_ms[..., 1], stopped_by)

    while True:
        asked = time.monotonic()
        count = _rounds_to_take(due, len(taken_ms), asked - first_round)
        answer = child.ask("rounds", count=count, runs=runs, max_s=max(0.0, end - asked))
        rounds = answers.rounds(answer, count, len(networks), runs, time.monotonic() - asked)
        taken_ms = np.concatenate([taken_ms, rounds])
        if len(taken_ms) >= due and (samples := _complete(taken_ms[..., 0], taken)):
            break
        if time.monotonic() >= end:
            samples = taken("time")
            break
    child.ask("end")
    return samples


def _begin(child: Child, networks: Sequence[Path], settings: Benchmark) -> Begun:
    asked = time.monotonic()
    answer = child.ask(
        "begin",
        networks=[str(path) for path in networks],
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        runs=settings.runs,
        seed=SEED,
        max_s=settings.max_s,
    )
    return answers.begun(answer, len(networks), time.monotonic() - asked)


def _runs_a_turn(run_ms: Sequence[float], seconds: float) -> int:
    """Return RUNS_A_TURN, or fewer if FEW_ROUNDS rounds of as many would not fit in the seconds."""
    return min(RUNS_A_TURN, max(1, int(1e3 * seconds / (FEW_ROUNDS * sum(run_ms)))))


def _rounds_to_take(due: int, taken: int, seconds: float) -> int:
    """Return how many rounds the next batch takes: those that are due anyway, then those of BATCH_S."""
    wanted = due - taken if taken < due else int(BATCH_S * taken / seconds)
    return min(MOST_ROUNDS, max(1, wanted))


def _complete(total_ms: NDArray[np.float64], taken: Callable[[StoppedBy], Samples]) -> Samples | None:
    """Return the samples if they are enough; the counters are not asked before the total times are."""
    if total_ms.shape[1] == 1:
        return taken("runs")
    if not _total_ratio(total_ms).half_width <= ENOUGH:
        return None
    samples = taken("interval")
    return samples if are_known(samples, ENOUGH) else None


def are_known(samples: Samples, half_width: float) -> bool:
    """Tell whether every ratio that will be recorded is known that well."""
    ratios = _ratios(samples, *(_Timed(samples, index) for index in range(2)))
    return all(ratio.half_width <= half_width for ratio in ratios.values())


def condense(samples: Samples, host: DeviceEntry, *, restarts: int, is_reference: bool) -> Measurement:
    """Return the figures and their evidence.

    Args:
        samples: Of the network, and of its reference if it had one.
        host: What is known of the device and its process.
        restarts: How often that was replaced before.
        is_reference: Whether the network is its own reference, so that the ratio is 1 and what was measured is the
            noise floor.
    """
    candidate, *others = [_Timed(samples, index) for index in range(len(samples.counters))]
    ratios = _ratios(samples, candidate, others[0]) if others else {}
    value = {name: 1.0 if is_reference else ratio.ratio for name, ratio in ratios.items()}
    paired = others[0] if others else candidate
    latency_ms = value.get("latency_ratio", 1.0) * paired.latency.median
    begin, throughput = samples.begin, samples.begin.throughput
    evidence = Evidence(
        **vars(host),
        **vars(begin.used),
        restarts=restarts,
        runs=candidate.total.n,
        warm_up_runs=throughput.warm_up_images + samples.counters[0].warm_up_runs,
        clock=begin.clock,
        counters=candidate.counters,
        executed_layers=candidate.executed_layers,
        agreement=begin.agreement[0],
        latency=candidate.latency,
        total_latency=candidate.total,
        throughput=throughput,
        load_average=begin.load_average,
        seconds=begin.seconds,
        stopped_by=samples.stopped_by,
    )
    if others:
        evidence = replace(
            evidence,
            reference=Reference(agreement=begin.agreement[1], latency=paired.latency, total_latency=paired.total),
            ratios=Ratios(
                **ratios,
                is_precise=all(ratio.half_width <= PRECISION for ratio in ratios.values()),
                rounds=len(samples.total_ms),
                runs_a_turn=samples.total_ms.shape[2],
                seed=SEED,
                to_itself=is_reference,
            ),
        )
    return Measurement(
        latency_ms=latency_ms,
        total_latency_ms=value.get("total_latency_ratio", 1.0) * paired.total.median,
        throughput_fps=throughput.images / throughput.seconds,
        latency_ratio=value.get("latency_ratio"),
        total_latency_ratio=value.get("total_latency_ratio"),
        evidence=evidence,
        layers=candidate.layers(latency_ms),
    )


class _Timed:
    """The times of one network."""

    def __init__(self, samples: Samples, index: int) -> None:
        counters = samples.counters[index]
        readings, counts = counters.readings, counters.counts
        first = int(np.flatnonzero(counts == counters.warm_up_runs)[0])
        self._names = counters.layers
        self._layers_ms = layer_means(readings, counts, first) / 1e3
        self._mean_ms = float(self._layers_ms.sum())
        if not self._mean_ms > 0:
            raise BenchmarkError(f"the summed time of the executed layers must be above 0 ms, but got {self._mean_ms}.")
        self.total = summary(samples.total_ms[:, index].ravel().tolist())
        self.wall_ms = samples.wall_ms[:, index].ravel()
        self.device_ms: NDArray[np.float64] | None = None
        self.executed_layers = int(np.count_nonzero(self._layers_ms))
        if are_running_means(readings, counts):
            # No run is shown alone. Interruptions make the means of both times longer, and their quotient hardly.
            self.counters = "mean of all runs"
            median_ms = self._mean_ms / float(self.wall_ms.mean()) * self.total.median
            self.latency = TimeSummary(n=self.total.n, mean=self._mean_ms, median=median_ms)
        else:
            self.counters = "last run"
            self.device_ms = readings[first + 1 :].sum(axis=1) / 1e3
            self.latency = summary(self.device_ms.tolist())

    def layers(self, latency_ms: float) -> list[Layer]:
        """Return the layers with their parts of `latency_ms`, by their mean times."""
        parts_ms = latency_ms * self._layers_ms / self._layers_ms.sum()
        return [
            Layer(name, kind, kernel, float(ms)) for (name, kind, kernel), ms in zip(self._names, parts_ms, strict=True)
        ]

    @property
    def device_share(self) -> Share:
        """Device time in the total time of the same runs, when the counters are means of all of them."""
        share = (self._mean_ms + LOST_MS * self.executed_layers) / float(self.wall_ms.mean())
        return Share(share, share_noise(self.wall_ms, share, self.executed_layers))


def _ratios(samples: Samples, candidate: _Timed, reference: _Timed) -> dict[str, Ratio]:
    """Return the ratios of both latencies.

    Where the plugin shows the device time of single runs, those at the end of each turn are compared. Where
    it shows the mean over all runs only, it tells what share of the total times of the turns is device time.
    """
    total = _total_ratio(samples.total_ms)
    if candidate.device_ms is not None and reference.device_ms is not None:
        device = paired_ratio(candidate.device_ms, reference.device_ms)
    else:
        fast_ms = float(np.median(samples.total_ms[:, 1].min(axis=1)))
        device = device_ratio(total, fast_ms, candidate.device_share, reference.device_share)
    return {"latency_ratio": device, "total_latency_ratio": total}


def _total_ratio(total_ms: NDArray[np.float64]) -> Ratio:
    """Compare the fastest runs of the turns."""
    candidate, reference = total_ms.min(axis=2).T
    return paired_ratio(candidate, reference)


def written(networks: Iterable[bytes], folder: str) -> list[Path]:
    """Write networks as files that the runner can read, and return where."""
    paths = []
    for index, onnx in enumerate(networks):
        path = Path(folder, f"model{index}.onnx")
        path.write_bytes(onnx)
        paths.append(path)
    return paths
