"""What each removal costs and saves: how the network classifies without it, and how long it takes on the device.

All of it is kept: how a network classifies by its weights and the images, what it takes by its ONNX and the device.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path

import torch
from torch import nn

from edge_tune.benchmark import layers
from edge_tune.benchmark.backend import open_backend
from edge_tune.benchmark.cores import kept_to, measuring_cpus, training_cpus, usable_cpus
from edge_tune.benchmark.statistics import noise_floor
from edge_tune.errors import BenchmarkError, ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.inspect.parts import ALL, Part, without
from edge_tune.networks import datasets, onnx_export, pruning
from edge_tune.networks.couplings import Couplings
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.sensitivity import Probe
from edge_tune.records.entries import DeviceEntry, Effect, LayerEntry, Ratio
from edge_tune.records.kept import Kept
from edge_tune.waiting import told

AMOUNTS = ((1024, 1000), (512, 500), (256, 500), (256, 250))
"""Images for the batch-norm statistics, and images that are judged: the most with which all removals fit in PROBE_S."""

PROBE_S = 110.0
"""Seconds that classifying may take in all, on a network for which more than the least of AMOUNTS fits."""

DEVICE_S = 60.0
"""Seconds that the device may run networks in all, of which each measurement gets its part."""

LEAST_S, MOST_S = 0.6, 2.0
"""Seconds of one measurement at least and at most."""

AHEAD = 2
"""So many networks, of up to half a gigabyte, may wait for the device."""

UNPRUNED = "nothing"
EVERY_S = 5.0
"""Seconds between two lines that tell how far it is."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes:
        macs: Multiply-accumulates of one image.
        ratio: Of its latency to the unpruned network's.
    """

    parameters: int
    macs: int
    ratio: Ratio


@dataclass(frozen=True)
class Removal:
    """A share of a part, and what became of the network without it.

    Attributes:
        measured_on: The part that was measured; another than this one if both are alike.
    """

    share: float
    effect: Effect
    cost: Cost
    measured_on: str


@dataclass(frozen=True)
class Measured:
    """All that was found out about a network.

    Attributes:
        parts: Those that can be removed and those that must stay, in the order of the network.
        removals: Name of a part -> what each share of it does, ascending.
        unpruned: How the network classifies as it is, with batch norm estimated anew as in all removals.
        cost: What it takes; its ratio is to itself, whose distance from 1 is noise.
        table: Its layers on the device; none of a formula.
        statistics_images: How many gave the batch-norm statistics.
        seconds: That each network ran on the device, at most.
    """

    parts: Sequence[Part]
    removals: Mapping[str, Sequence[Removal]]
    unpruned: Effect
    cost: Cost
    table: Sequence[LayerEntry]
    device: DeviceEntry
    statistics_images: int
    seconds: float

    @property
    def floor(self) -> float:
        """How far from 1 a ratio may be by chance."""
        return noise_floor(self.cost.ratio)

    def lost(self, removal: Removal) -> float:
        """Return by how much the loss rose, nats."""
        return removal.effect.loss - self.unpruned.loss


def measure(
    network: nn.Module,
    parts: Sequence[Part],
    coupled: Couplings,
    dataset: Dataset,
    settings: Benchmark,
    device: DeviceEntry,
    say: Say,
) -> Measured:
    """Find out what each removal costs and saves, or take it from the cache.

    Args:
        network: The unpruned one, with its weights.
        device: What `settings` name.
        say: Receives lines on how far it is.

    Raises:
        BenchmarkError: The device fails while it measures.
        ExperimentError: The network guesses, or what was found cannot be kept.
    """
    wanted = [(part, share) for part in parts if not part.problem for share in part.shares]
    first: dict[tuple[str, float], Part] = {}
    for part, share in wanted:
        first.setdefault((part.alike, share), part)
    seconds = min(MOST_S, max(LEAST_S, DEVICE_S / (len(first) + 1)))
    stopwatch = _Stopwatch(network, coupled, replace(settings, max_s=seconds, runs=1), device)
    try:
        table = stopwatch.table(say)
        with _beside(settings):
            probe = _probe(network, stopwatch.onnx, dataset, len(wanted))
            unpruned = _unpruned(network, probe, dataset.num_classes)
        timed = [(part, share) for part, share in wanted if first[part.alike, share] is part]
        _remove_each(network, wanted, timed, coupled, probe, stopwatch, say)
    finally:
        stopwatch.close()
    removals = {
        part.name: [
            Removal(share, probe.kept.known[_key(part, share)], stopwatch.kept.known[_key(other, share)], other.name)
            for share in part.shares
            for other in [first[part.alike, share]]
        ]
        for part in parts
        if not part.problem
    }
    own = stopwatch.kept.known[UNPRUNED]
    return Measured(parts, removals, unpruned, own, table, device, len(probe.train), seconds)


def _unpruned(network: nn.Module, probe: Probe, num_classes: int) -> Effect:
    """Return how the network classifies as it is.

    Raises:
        ExperimentError: It guesses.
    """
    unpruned = probe(UNPRUNED, lambda: network)
    guess = log(num_classes)
    if unpruned.loss >= guess:
        raise ExperimentError(
            f"weights: must be trained on these images, so that something can be lost, but on {unpruned.images} of "
            f"them the loss is {unpruned.loss:.3f}, no better than a guess's, {guess:.3f}; give others."
        )
    return unpruned


@contextmanager
def _beside(settings: Benchmark) -> Iterator[None]:
    """Leave the cores that measure to the device: this thread, and PyTorch's, keep to the others in the block."""
    threads = torch.get_num_threads()
    cpus = training_cpus(settings.threads) if settings.takes_cores else usable_cpus()
    torch.set_num_threads(len(cpus))
    try:
        with kept_to(cpus):
            yield
    finally:
        torch.set_num_threads(threads)


def _remove_each(
    network: nn.Module,
    wanted: Sequence[tuple[Part, float]],
    timed: Sequence[tuple[Part, float]],
    coupled: Couplings,
    probe: Probe,
    stopwatch: "_Stopwatch",
    say: Say,
) -> None:
    """Classify without each share of each part, while the device measures those of which no other is alike.

    These come first; the others are then classified on all cores.

    Args:
        timed: Those of `wanted` that are measured.
    """
    unknown = {_key(*one) for one in wanted if _key(*one) not in probe}
    slow = {_key(*one) for one in timed if _key(*one) not in stopwatch.kept}
    shown = {_key(*one): _shown(*one) for one in wanted} | {UNPRUNED: UNPRUNED}
    measured = _Progress(len(slow) + (UNPRUNED not in stopwatch.kept), "measured", say)
    classified = _Progress(len(unknown), "classified", say)
    if measured.total:
        say(
            f"Measuring {measured.total} networks on {stopwatch.settings.device}, each in turns with the unpruned one "
            f"for at most {stopwatch.settings.max_s:.1f} s; parts of the same shapes once."
        )
    if unknown:
        say(
            f"Classifying {len(probe.validation)} validation images without each of {len(unknown)} parts and shares of "
            f"parts, batch norm estimated anew on {len(probe.train)} training images, nothing retrained."
        )

    def tell(ahead: int) -> None:
        for key, cost in stopwatch.take(ahead):
            measured.step(f"without {shown[key]}: latency_ratio {cost.ratio.ratio:.3f}")

    def remove(part: Part, share: float) -> None:
        key, smaller = _key(part, share), without(network, part, share, coupled)
        if key in slow:
            stopwatch.ask(key, smaller)
        if key in unknown:
            unpruned = probe.kept.known[UNPRUNED]
            effect = probe.kept(key, lambda: unpruned if smaller is None else probe.effect(smaller))
            classified.step(f"without {shown[key]}: top1 {effect.top1:.1f}, loss {effect.loss:.3f}")
        tell(AHEAD)

    with _beside(stopwatch.settings):
        if UNPRUNED not in stopwatch.kept:
            stopwatch.ask(UNPRUNED, network)
        for one in timed:
            if _key(*one) in slow:
                remove(*one)
        tell(0)
    for one in wanted:
        if _key(*one) in unknown - slow:
            remove(*one)
    tell(0)


def cache_file(made_of: bytes, what: str) -> Path:
    """Return where findings are kept that depend on this and nothing else."""
    return datasets.cache_folder() / "inspection" / f"{hashlib.sha256(made_of).hexdigest()[:16]}-{what}.json"


class _Stopwatch:
    """Measures what is left of one network on the device, in turns with it, and remembers it.

    The device computes in another process, which a thread waits for; all else is done in the caller's.
    """

    def __init__(self, network: nn.Module, coupled: Couplings, settings: Benchmark, device: DeviceEntry) -> None:
        self.network, self.coupled, self.settings = network, coupled, settings
        self.onnx = onnx_export.to_onnx(network, coupled.input_shape)
        made_with = json.dumps([asdict(settings), device.device_name, device.measured_by], default=str)
        made_of = self.onnx + made_with.encode()
        self.kept = Kept(cache_file(made_of, "costs"), Cost)
        self.tables = Kept(cache_file(made_of, "layers"), list[LayerEntry])
        self.backend = open_backend(settings, measuring_cpus(settings.threads))
        self.worker = ThreadPoolExecutor(max_workers=1)
        self.worker.submit(lambda: None)  # begins now, while it may run, as the device's process will, on all cores
        self.asked: dict[str, tuple[tuple[int, int], Future[Ratio] | None]] = {}

    def table(self, say: Say) -> Sequence[LayerEntry]:
        """Return the layers of the unpruned network on the device; none of a formula."""
        if not self.backend.computes:
            return []
        with told(say, "the time of each layer"):
            settings = replace(self.settings, max_s=MOST_S, runs=200)
            return self.tables(UNPRUNED, lambda: layers.measure_in_turns([self.onnx], settings)[0])

    def ask(self, key: str, network: nn.Module | None) -> None:
        """Have a network measured when those asked for before are; None: nothing was removed."""
        size = pruning.size(network or self.network, self.coupled.input_shape)
        if network is None:
            self.asked[key] = size, None
            return
        onnx = self.onnx if network is self.network else onnx_export.to_onnx(network, self.coupled.input_shape)
        self.asked[key] = size, self.worker.submit(self._ratio, onnx)

    def take(self, ahead: int) -> Iterator[tuple[str, Cost]]:
        """Yield what was measured since the last call, which is remembered from now on.

        Args:
            ahead: So many that were asked for are not waited for.

        Raises:
            BenchmarkError: The device failed.
        """
        for key, (size, ratio) in list(self.asked.items()):
            if ratio and len(self.asked) <= ahead and not ratio.done():
                return
            yield key, self.kept(key, lambda: Cost(*size, ratio.result() if ratio else Ratio(1.0, 1.0, 1.0)))  # noqa: B023
            del self.asked[key]

    def close(self) -> None:
        """End the device's process, when it has measured what it is at."""
        self.worker.shutdown(cancel_futures=True)
        self.backend.close()

    def _ratio(self, onnx: bytes) -> Ratio:
        ratios = self.backend.measure(onnx, self.settings, self.onnx).evidence.ratios
        if ratios is None or ratios.latency_ratio is None:
            raise BenchmarkError(f"the measurement must hold latency_ratio, but {self.settings.device!r} gave none.")
        return ratios.latency_ratio


def _probe(network: nn.Module, onnx: bytes, dataset: Dataset, removals: int) -> Probe:
    """Return what classifies with as many images as fit in the time; those of an earlier call, if there was one."""
    probes = [Probe(network, onnx, dataset, *amount) for amount in AMOUNTS]
    if known := next((probe for probe in probes if UNPRUNED in probe), None):
        return known
    least = probes[-1]
    least.effect(network)  # the first is slow
    began = time.monotonic()
    least.effect(network)
    seconds = (time.monotonic() - began) / (len(least.train) + len(least.validation))
    fitting = (probe for probe in probes if removals * seconds * (len(probe.train) + len(probe.validation)) <= PROBE_S)
    return next(fitting, least)


def _key(part: Part, share: float) -> str:
    """Return what a removal is remembered by."""
    if share == ALL:
        return f"block {part.name}"
    return f"{share:g} of the filters of {part.weights[0]} by {part.importance}"


def _shown(part: Part, share: float) -> str:
    return part.name if share == ALL else f"{100 * share:.0f} % of {part.name}"


class _Progress:
    """Says now and then how far it is, and how long it will take by what it took so far."""

    def __init__(self, total: int, done: str, say: Say) -> None:
        self.total, self.what, self.say = total, done, say
        self.done = 0
        self.began = self.said = time.monotonic()

    def step(self, what: str) -> None:
        """Count one, and say so if the last line is long ago."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= EVERY_S or self.done == self.total:
            left = (now - self.began) / self.done * (self.total - self.done)
            self.said = now
            self.say(f"  {self.done} of {self.total} {self.what}, {_minutes(left)} left; {what}")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def ranked(measured: Measured) -> list[tuple[Part, Sequence[Removal]]]:
    """Return the parts that can be removed, those first without half of which, or without which, loss rises least."""
    found: Iterable[tuple[Part, Sequence[Removal]]] = (
        (part, measured.removals[part.name]) for part in measured.parts if not part.problem
    )
    return sorted(found, key=lambda one: one[1][len(one[1]) // 2].effect.loss)
