"""Which parameters decide a metric, and how sure that is: by a Gaussian process fitted to the trials."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_tune.parameters import Axis
from edge_tune.report.statistics import MIN_TRIALS, Floats
from edge_tune.surrogate import Surrogate

POINTS = 128
"""Of each parameter, so many points are compared with the same where that parameter alone is another."""

FUNCTIONS = 200
"""So many functions that may be true are looked at."""


@dataclass(frozen=True)
class Share:
    """The share of a metric's variance that vanishes if a parameter is fixed, from 0 to 1, and its 95 % interval."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """What decides a metric.

    Attributes:
        shares: Name -> share. Parameters that act together have a part in what is due to both, so that the shares may
            sum to more than 1.
        explained: Share of the metric's variance that is predicted of trials that are left out; where it is near 0, the
            shares say nothing.
        n: Trials that were looked at.
    """

    shares: Mapping[str, Share]
    explained: float
    n: int


def importance(
    parameters: Mapping[str, Floats], axes: Mapping[str, Axis], metric: Floats, seed: int = 0
) -> Importance | None:
    """Return how much of a metric each parameter decides, over the values that were tried; None if nobody can tell.

    That is, there are too few trials, or nothing varies.

    Source: the total index of Homma and Saltelli, Reliability Engineering & System Safety 52 (1996), estimated as in
    Jansen, Computer Physics Communications 117 (1999); its interval over functions drawn from the process, as in
    Marrel et al., Reliability Engineering & System Safety 94 (2009).
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # what a damaged record may hold has no logarithm
        placed = {name: np.log(column) if axes[name].is_logarithmic else column for name, column in parameters.items()}
    known = np.isfinite(metric) & np.all([np.isfinite(column) for column in placed.values()], axis=0)
    varied = {name: column[known] for name, column in placed.items() if known.any() and np.ptp(column[known]) > 0}
    if known.sum() < MIN_TRIALS or np.ptp(metric[known]) == 0 or not varied:
        return None
    inputs = np.column_stack([(column - column.min()) / np.ptp(column) for column in varied.values()])
    surrogate = Surrogate(inputs, metric[known])
    generator = np.random.default_rng(seed)
    shares = {name: _share(surrogate, place, generator) for place, name in enumerate(varied)}
    still = {name: Share(0.0, 0.0, 0.0) for name in parameters if name not in varied}
    return Importance({**shares, **still}, surrogate.explained, int(known.sum()))


def _share(surrogate: Surrogate, place: int, generator: np.random.Generator) -> Share:
    points = generator.random((POINTS, surrogate.inputs.shape[1]))
    others = points.copy()
    others[:, place] = generator.random(POINTS)
    figures = surrogate.drawn(np.vstack([points, others]), FUNCTIONS, generator)
    before, after = figures[:, :POINTS], figures[:, POINTS:]
    found = np.minimum(1.0, ((before - after) ** 2).mean(axis=1) / 2 / figures.var(axis=1))
    low, middle, high = np.quantile(found, [0.025, 0.5, 0.975]).tolist()
    return Share(middle, low, high)
