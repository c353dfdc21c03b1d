"""One measurement: a network on the device, in turns with its reference, and the evidence for each figure."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_tune.benchmark.child import Child
from edge_tune.benchmark.statistics import (
    Ratio,
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

RUNS_A_TURN = 5
"""The fastest of a turn counts. One or two are slow, since the other network's weights are in the cache, and on a busy
host more are interrupted: there, the interval of the turns' medians is twice as wide as that of their minima."""

ROUNDS_FOR_AN_INTERVAL = 10
"""The bootstrap of a median of fewer is too narrow; one round has an interval of no width at all."""

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
        latency_ms: Mean over the runs of the summed device time of the executed layers, one image.
        total_latency_ms: Mean end-to-end time of one synchronous inference, copies included.
        throughput_fps: Images a second with the device kept full.
        latency_ratio: latency_ms in proportion to that of the reference measured in turns with it,
            below 1 when faster; 1 for the reference itself, None when there was no reference.
        total_latency_ratio: The same of total_latency_ms.
        evidence: Device, settings as read back, samples' summaries, load: plain JSON types.
    """

    latency_ms: float
    total_latency_ms: float
    throughput_fps: float
    latency_ratio: float | None
    total_latency_ratio: float | None
    evidence: Mapping[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures under the names that records have for them."""
        return {
            "latency_ms": self.latency_ms,
            "total_latency_ms": self.total_latency_ms,
            "latency_ratio": self.latency_ratio,
            "total_latency_ratio": self.total_latency_ratio,
            "throughput_fps": self.throughput_fps,
        }


class Answer(Protocol):
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

    def measure(self, onnx: bytes, remember: str | None = None) -> Answer:
        """Measure a network in turns with the unpruned one; one with the same `remember` text is measured once."""


@dataclass(frozen=True)
class Samples:
    """What the runner said.

    Attributes:
        begin, counters: Its answers to the commands `begin` and `read`.
        total_ms: Of each inference, [rounds, networks, runs]; the candidate comes first.
        readings: For each network, its counters as in `are_running_means`.
        stopped_by: What ended the rounds.
    """

    begin: Mapping[str, Any]
    counters: Mapping[str, Any]
    total_ms: NDArray[np.float64]
    readings: Sequence[NDArray[np.int64]]
    stopped_by: StoppedBy


def take_samples(child: Child, networks: Sequence[Path], settings: Benchmark, folder: Path) -> Samples:
    """Have the runner measure a network, in turns with its reference if `networks` holds one too.

    Both run at least `settings.runs` times. With a reference, it goes on until every ratio is precise or
    `settings.max_s` are over.
    """
    begin = child.ask(
        "begin",
        networks=[str(path) for path in networks],
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        runs=settings.runs,
        seed=SEED,
    )
    samples = None
    total_ms: list[Any] = []
    started = time.monotonic()

    def taken(stopped_by: StoppedBy) -> Samples:
        counters = child.ask("read", folder=str(folder))
        readings = [np.load(network["readings_us"]) for network in counters["networks"]]
        return Samples(begin, counters, np.array(total_ms), readings, stopped_by)

    while samples is None:
        count = _rounds_to_take(settings.runs, len(total_ms), time.monotonic() - started)
        total_ms += child.ask("rounds", count=count, runs=RUNS_A_TURN)["total_latency_ms"]
        if len(total_ms) * RUNS_A_TURN < settings.runs:
            continue
        if len(networks) == 1:
            samples = taken("runs")
        elif _is_precise(np.array(total_ms)) and are_precise(so_far := taken("interval")):
            samples = so_far
        elif time.monotonic() - started >= settings.max_s:
            samples = taken("time")
    child.ask("end")
    return samples


def _rounds_to_take(runs: int, taken: int, seconds: float) -> int:
    """Return how many rounds the next batch takes: those that are due anyway, then those of BATCH_S."""
    due = math.ceil(runs / RUNS_A_TURN) - taken
    return due if due > 0 else max(1, int(BATCH_S * taken / seconds))


def _is_precise(total_ms: NDArray[np.float64]) -> bool:
    """Tell whether the ratio of total times is known well enough; the counters need not be asked before."""
    return len(total_ms) >= ROUNDS_FOR_AN_INTERVAL and _total_ratio(total_ms).is_precise


def are_precise(samples: Samples) -> bool:
    """Tell whether every ratio that will be recorded is known well enough."""
    return all(ratio.is_precise for ratio in _ratios(samples, *(_Timed(samples, index) for index in (0, 1))).values())


def condense(samples: Samples, host: Mapping[str, Any], *, is_reference: bool) -> Measurement:
    """Return the figures and their evidence.

    Args:
        samples: Of the network, and of its reference if it had one.
        host: What is known of the device and its process.
        is_reference: Whether the network is its own reference, so that the ratio is 1 and what was measured is the
            noise floor.
    """
    taken = [_Timed(samples, index) for index in range(len(samples.readings))]
    candidate = taken[0]
    throughput = samples.begin["throughput"]
    evidence = {
        **host,
        **samples.begin["used"],
        "runs": candidate.total["n"],
        "warm_up_runs": throughput["warm_up_images"] + samples.counters["warm_up_runs"],
        "counters": candidate.counters,
        "executed_layers": candidate.executed_layers,
        "layers": candidate.layers,
        "agreement": samples.begin["agreement"][0],
        "latency": candidate.latency,
        "total_latency": candidate.total,
        "throughput": throughput,
        "load_average": samples.begin["load_average"],
        "seconds": samples.begin["seconds"],
        "stopped_by": samples.stopped_by,
    }
    ratios: dict[str, Ratio] = {}
    if len(taken) > 1:
        ratios = _ratios(samples, *taken)
        evidence["reference"] = {
            "agreement": samples.begin["agreement"][1],
            "latency": taken[1].latency,
            "total_latency": taken[1].total,
        }
        evidence["ratios"] = {
            **{name: asdict(ratio) for name, ratio in ratios.items()},
            "rounds": len(samples.total_ms),
            "runs_a_turn": RUNS_A_TURN,
            "seed": SEED,
            "to_itself": is_reference,
        }
    return Measurement(
        latency_ms=candidate.latency["mean"],
        total_latency_ms=candidate.total["mean"],
        throughput_fps=throughput["images"] / throughput["seconds"],
        **{name: _ratio(ratios.get(name), is_reference) for name in ("latency_ratio", "total_latency_ratio")},
        evidence=evidence,
    )


class _Timed:
    """The times of one network."""

    def __init__(self, samples: Samples, index: int) -> None:
        network = samples.counters["networks"][index]
        counts = np.array(network["counts"])
        readings = samples.readings[index]
        first = int(np.flatnonzero(counts == samples.counters["warm_up_runs"])[0])
        self.layers_ms = layer_means(readings, counts, first) / 1e3
        self.layers = [
            {"name": name, "type": kind, "kernel": kernel, "ms": float(ms)}
            for (name, kind, kernel), ms in zip(
                samples.counters["networks"][index]["layers"], self.layers_ms, strict=True
            )
        ]
        latency_ms = float(self.layers_ms.sum())
        if not latency_ms > 0:
            raise BenchmarkError(f"the summed time of the executed layers must be above 0 ms, but got {latency_ms}.")
        self.total_ms = samples.total_ms[:, index].ravel()
        self.total = summary(self.total_ms.tolist())
        self.device_ms: NDArray[np.float64] | None = None
        self.executed_layers = int(np.count_nonzero(self.layers_ms))
        if are_running_means(readings, counts):
            self.counters = "mean of all runs"
            self.latency = {"n": self.total["n"], "mean": latency_ms}
        else:
            self.counters = "last run"
            self.device_ms = readings[first + 1 :].sum(axis=1) / 1e3
            self.latency = summary(self.device_ms.tolist())

    @property
    def device_share(self) -> Share:
        """Device time in the total time of the same runs, when the counters are means of all of them."""
        share = (self.latency["mean"] + LOST_MS * self.executed_layers) / self.total["mean"]
        return Share(share, share_noise(self.total_ms, share, self.executed_layers))


def _ratios(samples: Samples, candidate: _Timed, reference: _Timed) -> dict[str, Ratio]:
    """Return the ratios of both latencies.

    Where the plugin shows the device time of single runs, those at the end of each turn are compared. Where
    it shows the mean over all runs only, it tells what share of the total times of the turns is device time.
    """
    total = _total_ratio(samples.total_ms)
    if candidate.device_ms is not None and reference.device_ms is not None:
        device = paired_ratio(candidate.device_ms, reference.device_ms, SEED)
    else:
        fast_ms = float(np.median(samples.total_ms[:, 1].min(axis=1)))
        device = device_ratio(total, fast_ms, candidate.device_share, reference.device_share)
    return {"latency_ratio": device, "total_latency_ratio": total}


def _total_ratio(total_ms: NDArray[np.float64]) -> Ratio:
    """Compare the fastest runs of the turns."""
    candidate, reference = total_ms.min(axis=2).T
    return paired_ratio(candidate, reference, SEED)


def _ratio(ratio: Ratio | None, is_reference: bool) -> float | None:
    if ratio is None:
        return None
    return 1.0 if is_reference else ratio.ratio


def written(networks: Iterable[bytes], folder: str) -> list[Path]:
    """Write networks as files that the runner can read, and return where."""
    paths = []
    for index, onnx in enumerate(networks):
        path = Path(folder, f"model{index}.onnx")
        path.write_bytes(onnx)
        paths.append(path)
    return paths
