"""The networks that a study kept, measured on another device or host: which would one have chosen there?

python -m edge_tune.benchmark RESULTS --device GPU
Each is measured in turns with the study's unpruned network, as in a search, and the unpruned network with itself. What
pruning gains is the device's to say: the same networks may stand in another order, and another front may be best.
Nothing is trained, and the study stays as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_tune.benchmark.backend import Backend, open_backend
from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.benchmark.statistics import noise_floor, ratio_text
from edge_tune.errors import BenchmarkError, ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.networks.of_study import stored_network, unpruned_onnx
from edge_tune.records.entries import DeviceEntry, Ratio
from edge_tune.records.fronts import front_numbers
from edge_tune.records.ranking import FRONT, last_measurement, with_metrics
from edge_tune.records.results import Record, Results
from edge_tune.wording import aligned, counted, verb

LEAST = 3
"""Of fewer networks, an order says nothing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network on two devices.

    Attributes:
        top1: On the validation split, percent, as the study recorded it.
        there, here: latency_ratio in the study and on this device.
        latency_ms: On this device.
        on_front_there, on_front_here: Whether no other of these networks is as accurate and faster, or as fast and more
            accurate.
    """

    name: str
    top1: float
    there: Ratio
    here: Ratio
    latency_ms: float
    on_front_there: bool = False
    on_front_here: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a study's networks do on another device.

    Attributes:
        there, here: The study's device, and the one that measured now.
        itself: The unpruned network's ratio to itself here, whose distance from 1 is noise.
        rank_correlation: Spearman's, of the ratios on the two devices; None for fewer than LEAST networks.
    """

    there: DeviceEntry
    here: DeviceEntry
    rows: Sequence[Row]
    itself: Ratio
    rank_correlation: float | None


def compare(
    results: Results, settings: Benchmark, device: DeviceEntry, *, trust_model: bool, say: Callable[[str], None]
) -> Comparison:
    """Measure all networks that a study kept.

    Args:
        device: What `settings` name.
        trust_model: Import the module of a network that is "package.module:function".
        say: Receives a line for each network.

    Raises:
        ExperimentError: There is no study, or it kept no pruned network with a measured ratio.
        BenchmarkError: The device fails.
        ExportError: ONNX cannot hold a network.
    """
    results.require()
    sessions = results.run().sessions
    if not sessions:
        raise ExperimentError(
            f"{results.folder / 'run.json'}: must name the study's device, but names none; restore it."
        )
    kept = [
        record
        for record in with_metrics((*results.baselines(), *results.trials()), *FRONT)
        if record.status == "finished" and any(cut.kept < cut.before for cut in record.plan) and _ratio(record)
        if results.network_file(record).is_file()
    ]
    if not kept:
        raise ExperimentError(
            f"{results.folder}: must keep the weights of a pruned network, but keeps none; --keep-weights front or all "
            f"has a study keep them."
        )
    unpruned = unpruned_onnx(results)
    networks = [stored_network(results, record, trust_model=trust_model).onnx for record in kept]
    backend = open_backend(settings, measuring_cpus(settings.threads))
    try:
        itself, _ = _measured(backend, unpruned, settings, unpruned)
        rows = []
        for number, (record, network) in enumerate(zip(kept, networks, strict=True), start=1):
            here, latency_ms = _measured(backend, network, settings, unpruned)
            say(f"  {record.name} ({number} of {len(kept)}): {ratio_text(here, noise_floor(itself))}")
            there = _ratio(record)
            assert there is not None
            rows.append(
                Row(name=record.name, top1=record.metrics["top1"], there=there, here=here, latency_ms=latency_ms)
            )
    finally:
        backend.close()
    return Comparison(
        there=sessions[-1].device,
        here=device,
        rows=with_fronts(rows),
        itself=itself,
        rank_correlation=rank_correlation(rows),
    )


def text(found: Comparison) -> list[str]:
    """Return what was found as lines for a person."""
    floor = noise_floor(found.itself)
    table = [
        (
            row.name,
            f"{row.top1:.2f}",
            f"{row.there.ratio:.3f} [{row.there.low:.3f}, {row.there.high:.3f}]" + " *" * row.on_front_there,
            ratio_text(row.here, floor) + " *" * row.on_front_here,
            f"{row.latency_ms:.4g}",
        )
        for row in sorted(found.rows, key=lambda row: row.here.ratio)
    ]
    titles = ("", "top1", f"latency_ratio, study: {found.there.text}", f"now: {found.here.text}", "latency_ms")
    lines = [
        aligned(titles, table),
        f"*: on the front of latency_ratio and top1 of these {counted(len(found.rows), 'network')}. Noise, as of the "
        f"unpruned network measured against itself: {100 * floor:.1f} %.",
    ]
    changed = [row.name for row in found.rows if row.on_front_there != row.on_front_here]
    fronts = f"{', '.join(changed)} {verb(len(changed), 'is', 'are')} on one of them only" if changed else "the same"
    if found.rank_correlation is not None:
        order = f"Rank correlation of the ratios (Spearman): {found.rank_correlation:.2f}."
    elif len(found.rows) < LEAST:
        order = f"Fewer than {LEAST} networks: nothing is said of their order."
    else:
        order = "On one of the two all ratios are equal: nothing is said of their order."
    return [*lines, f"{order} Fronts on the two: {fronts}."]


def _measured(backend: Backend, network: bytes, settings: Benchmark, unpruned: bytes) -> tuple[Ratio, float]:
    measurement = backend.measure(network, settings, unpruned)
    ratio = measurement.evidence.intervals.get("latency_ratio")
    if ratio is None:
        raise BenchmarkError(f"the measurement must hold latency_ratio, but {settings.device!r} gave none.")
    return ratio, measurement.latency_ms


def _ratio(record: Record) -> Ratio | None:
    return last_measurement(record).intervals.get("latency_ratio")


def with_fronts(rows: Sequence[Row]) -> list[Row]:
    """Return networks with which of them are on the front of each device."""
    there, here = (front_numbers([(getattr(row, side).ratio, -row.top1) for row in rows]) for side in ("there", "here"))
    return [
        Row(**{**vars(row), "on_front_there": not one, "on_front_here": not other})
        for row, one, other in zip(rows, there, here, strict=True)
    ]


def rank_correlation(rows: Sequence[Row]) -> float | None:
    """Return Spearman's rank correlation of the ratios on the two devices; None for few networks, or equal ones."""
    from scipy.stats import spearmanr  # half a second, which other commands do without

    there, here = [row.there.ratio for row in rows], [row.here.ratio for row in rows]
    if len(rows) < LEAST or len(set(there)) == 1 or len(set(here)) == 1:
        return None
    return float(spearmanr(there, here).statistic)
