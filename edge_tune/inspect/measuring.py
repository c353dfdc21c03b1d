"""What each removal costs and saves: how the network classifies without it, and how long it takes on the device.

All of it is kept: how a network classifies by its weights and the images, what it takes by its ONNX and the device.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path

from torch import nn

from edge_tune.benchmark import layers
from edge_tune.benchmark.backend import open_backend
from edge_tune.benchmark.cores import measuring_cpus
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
    probe = _probe(network, dataset, len(wanted))
    unpruned = probe(UNPRUNED, lambda: network)
    guess = log(dataset.num_classes)
    if unpruned.loss >= guess:
        raise ExperimentError(
            f"weights: must be trained on these images, so that something can be lost, but on {unpruned.images} of "
            f"them the loss is {unpruned.loss:.3f}, no better than a guess's, {guess:.3f}; give others."
        )
    first: dict[tuple[str, float], Part] = {}
    for part, share in wanted:
        first.setdefault((part.alike, share), part)
    seconds = min(MOST_S, max(LEAST_S, DEVICE_S / (len(first) + 1)))
    short = replace(settings, max_s=seconds, runs=1)
    stopwatch = _Stopwatch(network, coupled, short, device)
    table = stopwatch.table(say)
    measured = {(part.alike, share): (part, share) for part, share in wanted if first[part.alike, share] is part}
    costs = dict(stopwatch.costs(list(measured.values()), say))
    own = stopwatch.cost(UNPRUNED, lambda: network)
    effects = _effects(network, wanted, coupled, probe, unpruned, say)
    removals = {
        part.name: [
            Removal(share, effects[part.name, share], costs[name, share], name)
            for share in part.shares
            for name in [first[part.alike, share].name]
        ]
        for part in parts
        if not part.problem
    }
    return Measured(parts, removals, unpruned, own, table, device, len(probe.train), seconds)


def cache_file(made_of: bytes, what: str) -> Path:
    """Return where findings are kept that depend on this and nothing else."""
    return datasets.cache_folder() / "inspection" / f"{hashlib.sha256(made_of).hexdigest()[:16]}-{what}.json"


class _Stopwatch:
    """Measures what is left of one network on the device, in turns with it, and remembers it."""

    def __init__(self, network: nn.Module, coupled: Couplings, settings: Benchmark, device: DeviceEntry) -> None:
        self.network, self.coupled, self.settings = network, coupled, settings
        self.onnx = onnx_export.to_onnx(network, coupled.input_shape)
        made_with = json.dumps([asdict(settings), device.device_name, device.openvino], default=str)
        made_of = self.onnx + made_with.encode()
        self.kept = Kept(cache_file(made_of, "costs"), Cost)
        self.tables = Kept(cache_file(made_of, "layers"), list[LayerEntry])
        self.backend = open_backend(settings, measuring_cpus(settings.threads))

    def table(self, say: Say) -> Sequence[LayerEntry]:
        """Return the layers of the unpruned network on the device; none of a formula."""
        if not self.backend.computes:
            return []
        with told(say, "the time of each layer"):
            settings = replace(self.settings, max_s=MOST_S, runs=200)
            return self.tables(UNPRUNED, lambda: layers.measure_in_turns([self.onnx], settings)[0])

    def costs(self, wanted: Sequence[tuple[Part, float]], say: Say) -> Iterator[tuple[tuple[str, float], Cost]]:
        """Yield what the network takes without each share of a part."""
        unknown = [key for key in [UNPRUNED, *(_key(*one) for one in wanted)] if key not in self.kept]
        if unknown:
            say(
                f"Measuring {len(unknown)} networks on {self.settings.device}, each in turns with the unpruned one for "
                f"at most {self.settings.max_s:.1f} s; parts of the same shapes once."
            )
        progress = _Progress(len(unknown), say)
        try:
            if UNPRUNED in unknown:
                self.cost(UNPRUNED, lambda: self.network)
                progress.step("the unpruned network, in turns with itself")
            for part, share in wanted:
                key = _key(part, share)
                cost = self.cost(key, lambda part=part, share=share: without(self.network, part, share, self.coupled))  # type: ignore[misc]
                if key in unknown:
                    progress.step(f"without {_shown(part, share)}: latency_ratio {cost.ratio.ratio:.3f}")
                yield (part.name, share), cost
        finally:
            self.backend.close()

    def cost(self, key: str, network: Callable[[], nn.Module | None]) -> Cost:
        """Return what a network takes; one that nothing could be removed from, what the unpruned one does."""
        return self.kept(key, lambda: self._cost(network()))

    def _cost(self, network: nn.Module | None) -> Cost:
        if network is None:
            return replace(self.cost(UNPRUNED, lambda: self.network), ratio=Ratio(1.0, 1.0, 1.0))
        onnx = self.onnx if network is self.network else onnx_export.to_onnx(network, self.coupled.input_shape)
        ratios = self.backend.measure(onnx, self.settings, self.onnx).evidence.ratios
        if ratios is None or ratios.latency_ratio is None:
            raise BenchmarkError(f"the measurement must hold latency_ratio, but {self.settings.device!r} gave none.")
        return Cost(*pruning.size(network, self.coupled.input_shape), ratios.latency_ratio)


def _probe(network: nn.Module, dataset: Dataset, removals: int) -> Probe:
    """Return what classifies with as many images as fit in the time; those of an earlier call, if there was one."""
    probes = [Probe(network, dataset, *amount) for amount in AMOUNTS]
    if known := next((probe for probe in probes if UNPRUNED in probe), None):
        return known
    least = probes[-1]
    least.effect(network)  # the first is slow
    began = time.monotonic()
    least.effect(network)
    seconds = (time.monotonic() - began) / (len(least.train) + len(least.validation))
    fitting = (probe for probe in probes if removals * seconds * (len(probe.train) + len(probe.validation)) <= PROBE_S)
    return next(fitting, least)


def _effects(
    network: nn.Module,
    wanted: Sequence[tuple[Part, float]],
    coupled: Couplings,
    probe: Probe,
    unpruned: Effect,
    say: Say,
) -> dict[tuple[str, float], Effect]:
    """Return what the network does without each share of each part."""
    unknown = sum(_key(*one) not in probe for one in wanted)
    if unknown:
        say(
            f"Classifying {len(probe.validation)} validation images without each of {unknown} parts and shares of "
            f"parts, batch norm estimated anew on {len(probe.train)} training images, nothing retrained."
        )
    progress = _Progress(unknown, say)
    found = {}
    for part, share in wanted:
        key = _key(part, share)
        is_new = key not in probe
        smaller = without(network, part, share, coupled) if is_new else None
        found[part.name, share] = probe.kept(
            key,
            lambda smaller=smaller: unpruned if smaller is None else probe.effect(smaller),  # type: ignore[misc]
        )
        if is_new:
            effect = found[part.name, share]
            progress.step(f"without {_shown(part, share)}: top1 {effect.top1:.1f}, loss {effect.loss:.3f}")
    return found


def _key(part: Part, share: float) -> str:
    """Return what a removal is remembered by."""
    if share == ALL:
        return f"block {part.name}"
    return f"{share:g} of the filters of {part.weights[0]} by {part.importance}"


def _shown(part: Part, share: float) -> str:
    return part.name if share == ALL else f"{100 * share:.0f} % of {part.name}"


class _Progress:
    """Says now and then how far it is, and how long it will take by what it took so far."""

    def __init__(self, total: int, say: Say) -> None:
        self.total, self.say = total, say
        self.done = 0
        self.began = self.said = time.monotonic()

    def step(self, what: str) -> None:
        """Count one, and say so if the last line is long ago."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= EVERY_S or self.done == self.total:
            left = (now - self.began) / self.done * (self.total - self.done)
            self.said = now
            self.say(f"  {self.done} of {self.total}, {_minutes(left)} left; {what}")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def ranked(measured: Measured) -> list[tuple[Part, Sequence[Removal]]]:
    """Return the parts that can be removed, those first without half of which, or without which, loss rises least."""
    found: Iterable[tuple[Part, Sequence[Removal]]] = (
        (part, measured.removals[part.name]) for part in measured.parts if not part.problem
    )
    return sorted(found, key=lambda one: one[1][len(one[1]) // 2].effect.loss)
