"""What is made of the runner's samples, on samples whose truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from edge_tune.benchmark.answers import Begun, Counters
from edge_tune.benchmark.measurement import Measurement, Samples, are_known, condense
from edge_tune.benchmark.statistics import PRECISION
from edge_tune.errors import BenchmarkError
from edge_tune.records.entries import Agreement, DeviceEntry, ReadBack, Throughput

LAYERS, WARM_UP, ROUNDS, RUNS = 60, 20, 80, 5
BETWEEN_US = 20.0  # microseconds of a run in which no layer runs


@dataclass(frozen=True)
class Host:
    """A network of so many layers, each of so many microseconds, on a host that interrupts this share of the runs."""

    layers: int = LAYERS
    fastest_us: float = 5
    slowest_us: float = 45
    between_us: float = BETWEEN_US
    interrupted: float = 0.2
    rounds: int = ROUNDS

    @property
    def means_us(self) -> np.ndarray:
        return np.random.default_rng(9).uniform(self.fastest_us, self.slowest_us, self.layers)

    def layer_times(self, scale: float, seed: int) -> np.ndarray:
        """Microseconds of each layer in each run, [runs, layers]; now and then one is interrupted for 3 ms."""
        generator = np.random.default_rng(seed)
        runs = WARM_UP + self.rounds * RUNS
        times = scale * self.means_us * generator.lognormal(0, 0.05, (runs, self.layers))
        device_us = scale * self.means_us.sum()
        share = device_us / (device_us + self.between_us)
        interrupted = np.flatnonzero(generator.random(runs) < self.interrupted * share)
        times[interrupted, generator.integers(0, self.layers, len(interrupted))] += 3000
        return times

    def between(self, times: np.ndarray, seed: int) -> np.ndarray:
        """Microseconds of each run in which no layer runs; it is interrupted too, in proportion to its length."""
        share = self.between_us / (self.between_us + np.median(times.sum(axis=1)))
        return self.between_us + 3000 * (np.random.default_rng(seed).random(len(times)) < self.interrupted * share)


USUAL = Host()
TINY = Host(layers=4, fastest_us=2, slowest_us=8, between_us=25.0, interrupted=0.02, rounds=200)
"""Of 0.045 ms, about half between the layers; the interruptions more than double the mean of the runs."""


def shown(times: np.ndarray, counters: str) -> np.ndarray:
    """What the plugin shows after each run: of each run whole microseconds, or their mean, rounded down as well."""
    whole = times.astype(np.int64)
    return whole if counters == "last run" else np.cumsum(whole, axis=0) // np.arange(1, len(whole) + 1)[:, None]


def samples(scales: Sequence[float], counters: str = "mean of all runs", seed: int = 0, host: Host = USUAL) -> Samples:
    times = [host.layer_times(scale, 2 * seed + index) for index, scale in enumerate(scales)]
    counts = [*range(1, WARM_UP + 1), *range(WARM_UP + RUNS, WARM_UP + host.rounds * RUNS + 1, RUNS)]
    runs = [one.sum(axis=1) + host.between(one, 1000 + 2 * seed + index) for index, one in enumerate(times)]
    total_ms = [one[WARM_UP:].reshape(host.rounds, RUNS) / 1e3 for one in runs]
    layer_names = [(f"/conv{index}/Conv", "Convolution", "jit") for index in range(host.layers)]
    begin = Begun(
        used=ReadBack(precision="f32"),
        agreement=[Agreement(images=1, off_by=0.1 * index, tolerance=0.01) for index, _ in enumerate(scales)],
        clock="wall",
        throughput=Throughput(images=90, seconds=0.1, warm_up_images=30),
        run_ms=[1.0 for _ in scales],
        load_average=0.5,
        seconds={},
    )
    return Samples(
        begin=begin,
        counters=[
            Counters(layer_names, np.array(counts), shown(one, counters)[np.array(counts) - 1], WARM_UP)
            for one in times
        ],
        total_ms=np.stack(total_ms, axis=1),
        wall_ms=np.stack(total_ms, axis=1),
        stopped_by="interval",
    )


def measured(
    scales: Sequence[float],
    counters: str = "mean of all runs",
    *,
    seed: int = 0,
    itself: bool = False,
    host: Host = USUAL,
) -> Measurement:
    return condense(samples(scales, counters, seed, host), DeviceEntry(device="CPU"), restarts=0, is_reference=itself)


def true_ms(scale: float, *, between: float = 0.0) -> float:
    """Of a run that is not interrupted."""
    return float(scale * USUAL.means_us.sum() + between) / 1e3


@pytest.mark.parametrize("counters", ["mean of all runs", "last run"])
def test_condense_finds_both_ratios_and_knows_how_well(counters: str) -> None:
    got = measured([0.75, 1.0], counters)
    ratios = got.evidence.ratios
    assert got.evidence.counters == counters
    total = true_ms(0.75, between=BETWEEN_US) / true_ms(1, between=BETWEEN_US)
    for name, value, truth in (
        ("latency_ratio", got.latency_ratio, 0.75),
        ("total_latency_ratio", got.total_latency_ratio, total),
    ):
        ratio = got.evidence.intervals[name]
        assert ratio.ratio == value
        assert ratio.low <= truth <= ratio.high
        assert value == pytest.approx(truth, rel=0.02)  # the intervals' half-widths are below that
    assert ratios.rounds == ROUNDS


@pytest.mark.parametrize("scale", [0.4, 0.75, 1.0])
def test_condense_gives_intervals_of_device_time_that_cover_the_truth(scale: float) -> None:
    found = [measured([scale, 1.0], seed=seed).evidence.intervals["latency_ratio"] for seed in range(60)]
    covered = sum(one.low <= scale <= one.high for one in found)
    assert covered >= 52  # of 60, 57 are expected, with a standard deviation of 1.7
    # Without taking the time between the layers for equal, a fifth of interrupted runs makes it 3 %.
    assert np.median([(one.high - one.low) / 2 / one.ratio for one in found]) < 0.015


@pytest.mark.parametrize("scale", [0.4, 0.75, 1.0, 1.3])
def test_condense_stays_near_the_total_ratio_where_the_counters_cannot_tell(scale: float) -> None:
    """Where interruptions fell in runs of 0.04 ms, moves the mean device time by tenths from one seed to the next."""
    found = [measured([scale, 1.0], seed=seed, host=TINY).evidence.intervals for seed in range(60)]
    device, total = ([ratios[name] for ratios in found] for name in ("latency_ratio", "total_latency_ratio"))
    covered = sum(one.low <= scale <= one.high for one in device)
    assert covered >= 48  # of 60, 57 are expected if all noise were normal; interruptions are few and long
    off = [one.ratio / other.ratio for one, other in zip(device, total, strict=True)]
    assert max(abs(one - 1) for one in off) < 0.05
    assert np.std([one.ratio for one in device]) < 0.005
    # It is at least as far from 1 as the ratio of total times, on the same side.
    assert all((one.ratio - other.ratio) * (other.ratio - 1) >= 0 for one, other in zip(device, total, strict=True))


def test_are_known_asks_for_every_ratio() -> None:
    """The total ratio of the tiny network is known to a thousandth, that of its device time is not."""
    tiny = samples([0.75, 1.0], host=TINY)
    evidence = measured([0.75, 1.0], host=TINY).evidence
    assert evidence.intervals["total_latency_ratio"].half_width <= PRECISION
    assert not evidence.is_precise
    assert not are_known(tiny, PRECISION)
    assert are_known(samples([0.75, 1.0]), 0.03)


@pytest.mark.parametrize("counters", ["mean of all runs", "last run"])
def test_condense_gives_medians_of_the_runs_after_the_warm_up(counters: str) -> None:
    """A fifth of the runs was interrupted for 3 ms: no median shows it, a mean would by half."""
    got = measured([1.0], counters)
    times = USUAL.layer_times(1.0, seed=0)
    runs = (times.sum(axis=1) + USUAL.between(times, 1000))[WARM_UP:] / 1e3
    assert got.total_latency_ms == pytest.approx(np.median(runs))
    assert got.total_latency_ms < 0.8 * runs.mean()
    # Of the mean over all runs, only its share in the mean total time is used; rounded down twice, half a us a layer.
    assert got.latency_ms == pytest.approx(np.median(times[WARM_UP:].sum(axis=1)) / 1e3, rel=0.06)
    assert got.evidence.latency.n == (ROUNDS * RUNS if counters == "mean of all runs" else ROUNDS)
    assert got.throughput_fps == pytest.approx(900)


@pytest.mark.parametrize("counters", ["mean of all runs", "last run"])
@pytest.mark.parametrize("host", [USUAL, TINY], ids=["usual", "tiny"])
def test_condense_never_lets_milliseconds_and_ratios_contradict_each_other(counters: str, host: Host) -> None:
    got = measured([0.6, 1.0], counters, host=host)
    reference = got.evidence.reference_ms
    assert got.latency_ms / reference["latency_ms"] == pytest.approx(got.latency_ratio)
    assert got.total_latency_ms / reference["total_latency_ms"] == pytest.approx(got.total_latency_ratio)
    assert sum(layer.ms for layer in got.layers) == pytest.approx(got.latency_ms)


def test_condense_takes_the_counters_by_the_wall_and_the_runs_by_the_clock() -> None:
    """Each run waited as long as it ran, and the plugin's counters saw it."""
    waited = samples([1.0, 1.0])
    half = condense(replace(waited, total_ms=waited.wall_ms / 2), DeviceEntry(), restarts=0, is_reference=False)
    full = condense(waited, DeviceEntry(), restarts=0, is_reference=False)
    assert half.total_latency_ms == pytest.approx(full.total_latency_ms / 2)
    assert half.latency_ms == pytest.approx(full.latency_ms / 2, rel=0.02)


def test_condense_records_the_agreement_of_both_networks() -> None:
    evidence = measured([0.75, 1.0]).evidence
    assert (evidence.agreement.off_by, evidence.reference.agreement.off_by) == (0.0, 0.1)


def test_condense_gives_no_ratio_without_a_reference() -> None:
    got = measured([1.0])
    assert (got.latency_ratio, got.total_latency_ratio) == (None, None)
    assert got.evidence.ratios is None


def test_condense_gives_the_reference_the_ratio_1_and_keeps_what_was_measured() -> None:
    got = measured([1.0, 1.0], itself=True)
    assert (got.latency_ratio, got.total_latency_ratio) == (1.0, 1.0)
    assert got.evidence.intervals["total_latency_ratio"].ratio != 1


def test_condense_refuses_layers_without_time() -> None:
    one = samples([1.0])
    one.counters[0].readings[WARM_UP - 1 :] = 0
    with pytest.raises(BenchmarkError, match=r"summed time of the executed layers must be above 0 ms, but got 0\.0"):
        condense(one, DeviceEntry(), restarts=0, is_reference=False)
