"""Samples and counters -> the numbers that are reported. Pure: no device, no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from edge_tune.records.entries import Ratio, TimeSummary

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.96
PRECISION = 0.01
"""Half-width of a ratio's interval, as a share of the ratio, that a measurement strives for."""

ENOUGH = 0.0064
"""Half-width at which a measurement ends. One that ends as soon as its interval has a width, favours those that are
narrow by chance: at this width, an interval of 99 % has a half-width of PRECISION."""

SEGMENTS = 6
"""Of half a second each in a measurement of 3 s: fewer say little of what differs, more are too much alike."""

WINDOW = 8
"""Rounds at least. With fewer, no turn of a long network may be free of interruptions; with more, an interval hardly
narrows with the number of rounds."""

MEDIAN_SPREAD = math.sqrt(math.pi / 2)
"""Standard deviation of a median in proportion to that of a mean, of many normally distributed numbers."""

UNKNOWN = 100.0
"""Factor by which a ratio may be off of which nothing tells how far off it is: there is a single round."""

SHARES_KNOWN = 0.05
"""Relative standard deviation of a device time at which half of what its share says is believed."""


def summary(samples_ms: Sequence[float]) -> TimeSummary:
    """Return a summary of the samples."""
    if not samples_ms:
        raise ValueError("samples_ms must hold at least one sample, but got none.")
    p10, median, p90 = np.percentile(samples_ms, [10, 50, 90])
    return TimeSummary(
        n=len(samples_ms),
        min=float(np.min(samples_ms)),
        p10=float(p10),
        median=float(median),
        mean=float(np.mean(samples_ms)),
        p90=float(p90),
    )


def are_running_means(readings: NDArray[np.int64], counts: NDArray[np.int64]) -> bool:
    """Return whether no reading contradicts that the counters are means over all runs so far.

    OpenVINO's CPU plugin adds up whole microseconds for each layer and shows sum // runs (PerfCount
    in its perf_count.h, 2021 to 2026); other plugins show the last run alone. A sum cannot fall: one
    that must have fallen between two readings, whatever was rounded off, proves the latter.

    Args:
        readings: Counters after the warm-up and at times thereafter, whole units, [readings, layers].
        counts: Runs of the network before each reading, warm-up included, [readings].
    """
    n = counts[:, None]
    return bool(np.all(n[1:] * (readings[1:] + 1) > n[:-1] * readings[:-1]))


def layer_means(readings: NDArray[np.int64], counts: NDArray[np.int64], first: int = 0) -> NDArray[np.float64]:
    """Return the mean time of each layer after reading number `first`, so without the warm-up, [layers].

    Args:
        readings: As in `are_running_means`, of which at least one comes after `first`.
        counts: As in `are_running_means`.
        first: The last reading of the warm-up, which tells of what kind the counters are all the same.
    """
    if not are_running_means(readings, counts):
        return np.asarray(readings[first + 1 :].mean(axis=0), dtype=np.float64)
    sums = counts[-1] * readings[-1] - counts[first] * readings[first]
    return np.asarray(np.maximum(sums, 0) / (counts[-1] - counts[first]), dtype=np.float64)


def paired_ratio(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> Ratio:
    """Return the median of candidate / reference over the segments of a measurement, with its interval.

    Rounds that follow each other are alike where a neighbour works in bursts, so that an interval over rounds would be
    far too narrow. Hence a measurement is cut into SEGMENTS stretches of time, and what differs from one to the next
    makes the interval, by Student's t. Of WINDOW rounds, the fastest of either network is compared, since whoever takes
    longer is interrupted more often; of a segment, the median window counts.

    Args:
        candidate: Its time in each round, [rounds].
        reference: The reference's in the same rounds, [rounds].

    Source: Schmeiser, Batch Size Effects in the Analysis of Simulation Output, Operations Research 30 (1982).
    """
    if not len(candidate) == len(reference) > 0:
        raise ValueError(f"each round must hold both networks, but got {len(candidate)} and {len(reference)} rounds.")
    count = min(SEGMENTS, len(candidate))
    segments = zip(np.array_split(candidate, count), np.array_split(reference, count), strict=True)
    logs = np.log([_segment(*both) for both in segments])
    ratio, reach = float(np.exp(np.median(logs))), math.exp(_reach(logs))
    return Ratio(ratio, ratio / reach, ratio * reach)


def ratio_of_rounds(rounds: Sequence[Ratio]) -> Ratio:
    """Return the median of a ratio that was measured several times, with its interval.

    What differs from one measurement to the next makes the interval, by Student's t over their logarithms: within a
    measurement, seconds that follow each other may all be disturbed alike. It is as wide as to hold, 95 times of 100,
    the median of as many further measurements, which vary as these do. To neither side does it reach less far than the
    median one of theirs: what counters do not show, no repetition shows, and minutes may be disturbed alike, too.
    """
    logs = np.log([one.ratio for one in rounds])
    ratio, reach = float(np.exp(np.median(logs))), math.exp(math.sqrt(2) * _reach(logs))
    low = ratio / max(reach, float(np.median([one.ratio / one.low for one in rounds])))
    high = ratio * max(reach, float(np.median([one.high / one.ratio for one in rounds])))
    return Ratio(ratio, low, high)


def _segment(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the median over the windows of a segment of fastest candidate / fastest reference."""
    count = max(1, len(candidate) // WINDOW)
    windows = zip(np.array_split(candidate, count), np.array_split(reference, count), strict=True)
    return float(np.median([mine.min() / other.min() for mine, other in windows]))


def _reach(logs: NDArray[np.float64]) -> float:
    """Return the half-width of the interval of a median."""
    if len(logs) == 1:
        return math.log(UNKNOWN)
    quantile = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2))
    return quantile * MEDIAN_SPREAD * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))


def share_noise(total_ms: NDArray[np.float64], share: float, layers: int) -> float:
    """Return the relative standard deviation of the share of device time, the layers' mean time over the mean total.

    There are two reasons why the share is uncertain. Interruptions make runs longer. One that falls between two layers
    is not seen by the layers' counters, and it falls there with the probability 1 - share. A single long interruption
    proves little about that probability, hence Laplace's rule of succession. The other reason: the counters give each
    layer's mean in whole microseconds, and its fraction is unknown.

    Args:
        total_ms: Of each run, [runs].
        share: Device time as a share of total time.
        layers: How many were executed.
    """
    interruptions = total_ms - total_ms.min()
    squares = float(np.square(interruptions).sum())
    number = float(interruptions.sum()) ** 2 / squares if squares else 0.0  # of equal ones that would vary as much
    seen = (min(share, 1.0) * number + 1) / (number + 2)
    unseen = math.sqrt(seen * (1 - seen) * squares) / len(total_ms)
    rounded = math.sqrt(layers / 12) / 1e3
    return math.hypot(unseen, rounded) / (share * float(total_ms.mean()))


@dataclass(frozen=True)
class Share:
    """Device time as a share of the total time of the same runs, and the relative standard deviation of that."""

    share: float
    noise: float


def device_ratio(total: Ratio, reference_ms: float, candidate: Share, reference: Share) -> Ratio:
    """Return the ratio of device times, from the ratio of total times and the shares of device time in them.

    A run consists of device time, in which layers are executed, and of the time between the layers. The time between
    the layers is nearly the same in both networks. It is therefore taken to be the same, unless the shares show a
    difference: a difference within the noise of the shares is ignored, and of a larger one the part beyond the noise
    counts. So the ratio of device times is at least as far from 1 as the ratio of total times. How much farther it is,
    the shares say, as well as they are known. On short runs or a busy host they are known badly: then the ratio stays
    near that of total times, which is steady, and the interval says how far away it may lie.

    Args:
        total: Ratio of total times.
        reference_ms: Total time of the reference, of a run that was not interrupted.
        candidate: Of the candidate's total time.
        reference: Of the reference's.

    Source of what is kept of a difference: Breiman, Better Subset Regression Using the Nonnegative Garrote,
        Technometrics 37 (1995); of the interval: Zou and Donner, Construction of confidence limits about effect
        measures, Statistics in Medicine 27 (2008).
    """
    mine, other = total.ratio * reference_ms, reference_ms
    between = mine * (1 - candidate.share), other * (1 - reference.share)
    deviations = mine * candidate.share * candidate.noise, other * reference.share * reference.noise
    noise, either = math.hypot(candidate.noise, reference.noise), math.hypot(*deviations)
    weight = (deviations[1] / either) ** 2 if either else 0.5
    shorter, share = min((mine, candidate.share), (other, reference.share))
    at_most = shorter * (1 - share / 2)  # at least half of what its counters show is there
    both = max(0.0, min(weight * between[0] + (1 - weight) * between[1], at_most))
    # A few long interruptions make the noise of a busy host. Where they fall is nothing like normally distributed.
    differs = _kept(between[0] - between[1], NORMAL_QUANTILE * either * max(1.0, noise / PRECISION))

    left = shorter - both  # the device time of the shorter, and its relative standard deviation
    unsure = deviations[0] * deviations[1] / either / left if either else 0.0
    known = 1 / (1 + (unsure / SHARES_KNOWN) ** 2)

    def ratio(of_both: float) -> float:
        mine_between, other_between = (of_both + differs * (one - both) for one in between)
        return (mine - mine_between) / (other - other_between)

    got = ratio(known * both)
    reach = math.exp(NORMAL_QUANTILE * unsure)
    ends = [ratio(max(0.0, shorter - left * reach)), ratio(shorter - left / reach), got]
    enlarged = other / (other - both)  # an error of total time is more of what is left
    by_difference = NORMAL_QUANTILE * noise * differs * got
    low = math.hypot(got - min(ends), (total.ratio - total.low) * enlarged, by_difference)
    high = math.hypot(max(ends) - got, (total.high - total.ratio) * enlarged, by_difference)
    return Ratio(got, max(got / UNKNOWN, got - low), got + high)


def _kept(value: float, noise: float) -> float:
    """Return how much of a value remains when noise of this size is taken for nothing: from 0 to 1, without a jump."""
    return max(0.0, 1 - (noise / value) ** 2) if value else 0.0


def noise_floor(itself: Ratio) -> float:
    """Return how far from 1 a ratio may be by chance, from that of the reference to itself (A/A)."""
    return max(1 - itself.low, itself.high - 1, 0.0)


def is_distinguishable(ratio: Ratio, floor: float) -> bool:
    """Tell whether the ratio differs from 1 by more than its own interval and the noise floor allow."""
    return abs(ratio.ratio - 1) > floor and not ratio.low <= 1 <= ratio.high


def ratio_text(ratio: Ratio, floor: float) -> str:
    """Return a ratio and its 95 % interval, and say if it cannot be told from 1."""
    text = f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    return text if is_distinguishable(ratio, floor) else f"{text} not distinguishable"
