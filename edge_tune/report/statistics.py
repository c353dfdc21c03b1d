"""Columns of numbers -> what the report says of them. Pure; NaN stands for what is not known."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from edge_tune.records.entries import Ratio

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

BIN_WIDTH = 0.02
MIN_TRIALS = 10
"""Below so many trials no correlation, no share and no importance is given: it would say nothing."""


@dataclass(frozen=True)
class Correlation:
    """Pearson's r, Spearman's rho, and the number of pairs; NaN where a column is constant or has fewer than 3."""

    pearson: float
    spearman: float
    n: int


def correlation(x: Floats, y: Floats) -> Correlation:
    """Return how two columns go together, over the rows where both are known."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, math.nan, len(x))
    return Correlation(_pearson(x, y), _pearson(rankdata(x), rankdata(y)), len(x))


def _pearson(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1])


@dataclass(frozen=True)
class Bins:
    """The bins that hold a trial: their centres, the mean in each, and the number of trials in each."""

    centres: Floats
    means: Floats
    counts: Ints


def bin_means(x: Floats, y: Floats, width: float = BIN_WIDTH) -> Bins:
    """Return the mean of y in each bin [k * width, (k + 1) * width) of x that holds something."""
    known = np.isfinite(x) & np.isfinite(y)
    # A value on an edge belongs to the bin above it, also where binary fractions fall short: 0.58 / 0.02 < 29.
    number = np.floor(x[known] / width + 1e-9).astype(np.int64)
    bins, inverse, counts = np.unique(number, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=y[known], minlength=len(bins))
    centres, means = (np.asarray(column, dtype=np.float64) for column in ((bins + 0.5) * width, sums / counts))
    return Bins(centres, means, counts)


def best_so_far(losses: Floats, eligible: Mask) -> Floats:
    """Return for each row the smallest loss of the eligible rows up to it; NaN before the first."""
    return np.fmin.accumulate(np.where(eligible, losses, np.nan)) if len(losses) else losses


def quotient(ratio: Ratio, other: Ratio) -> Ratio:
    """Return ratio / other, both to the same reference, with the interval of independent errors.

    The distances of the bounds add in squares on the logarithmic scale.
    """
    below = math.hypot(_log(ratio.ratio, ratio.low), _log(other.high, other.ratio))
    above = math.hypot(_log(ratio.high, ratio.ratio), _log(other.ratio, other.low))
    value = ratio.ratio / other.ratio
    return Ratio(value, value * math.exp(-below), value * math.exp(above))


def _log(above: float, below: float) -> float:
    return math.log(above / below)
