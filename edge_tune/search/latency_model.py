"""What a pruned network costs on the device, told from its widths: fitted to the measurements of a study.

With few plans, few terms; the most that the plans can carry are taken, by their error on plans left out:

layers   each kind of layers alone, to the runtime's counters: t(k) = a + b k + c ceil8(k) + d ceil16(k), where k is how
         many channels stay and the staircases are where a device's kernels work in steps; on both sides of a layer that
         loses channels, their products. Non-negative, so that a narrower layer is never slower. What a runtime does
         besides is one more kind, which follows the multiply-accumulates.
sums     a + b times the multiply-accumulates, or the parameters, of the whole network
shares   a + what stays of each group times its own factor, held near the others' where plans are few

The counters of each plan are scaled to sum to its latency_ratio, so that what the host did meanwhile cancels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from edge_tune.search.coding import Costs, Floats
from edge_tune.wording import counted

LEAST_PLANS = 4
"""So many plans with counters are needed to fit kinds of layers."""

LEFT_OUT = 24
"""The error is taken over so many plans at most, evenly among all."""

ASSUMED_ERROR = 0.1
"""Of a model that no plan can be left out of."""

HELD = 0.1
"""How strongly the factors of groups are held together: as much as this share of a plan."""


@dataclass(frozen=True)
class CostModel:
    """Predicts one figure of networks.

    Attributes:
        terms: What it goes by, in words.
        plans: How many measured networks it was fitted to.
        error: Median share by which it misses a plan that it was not fitted to.
        predict: Costs of networks -> the figure of each.
    """

    terms: str
    plans: int
    error: float
    predict: Callable[[Costs], Floats]

    @property
    def text(self) -> str:
        """What it goes by and how well, in words."""
        missed = f"it misses one that is left out by {100 * self.error:.1f} %, in the middle"
        return f"{self.terms}, from {counted(self.plans, 'network')}; {missed}"


@dataclass(frozen=True)
class Observed:
    """Measured networks.

    Attributes:
        values: [plans], the figure.
        counters: [plans, kinds of layers + 1]: parts of the figure, in the kinds' order, then all else; zeros for a
            network whose layers were not told. None where the figure has no such parts.
        unpruned: What the unpruned network has of it; None if that is not known.
    """

    costs: Costs
    values: Floats
    counters: Floats | None = None
    unpruned: float | None = None


def fit(observed: Observed) -> CostModel:
    """Return the model of the least error among those that these networks can carry."""
    return min(_models(observed), key=lambda model: model.error)


def _models(observed: Observed) -> Iterator[CostModel]:
    costs, values = observed.costs, observed.values
    if costs.terms.shape[1] and observed.counters is not None:
        told = observed.counters.sum(axis=1) > 0
        if told.sum() >= LEAST_PLANS:
            yield _by_layers(_rows(costs, told), values[told], observed.counters[told])
    if costs.terms.shape[1]:
        yield _linear("MACs", lambda its: np.column_stack([np.ones(len(its.macs)), its.macs]), observed)
        sizes = "numbers of parameters"
        yield _linear(sizes, lambda its: np.column_stack([np.ones(len(its.macs)), its.parameters]), observed)
    yield _linear("the shares that stay", _shares, observed)


def _shares(costs: Costs) -> Floats:
    count, groups = costs.shares.shape
    mean = costs.shares.mean(axis=1) if groups else np.zeros(count)
    return np.column_stack([np.ones(count), mean, costs.shares])


def _linear(terms: str, columns: Callable[[Costs], Floats], observed: Observed) -> CostModel:
    """Fit a non-negative sum of columns to the figure itself; all but the first two are held near 0."""
    table, values = columns(observed.costs), observed.values
    if observed.unpruned is not None:
        table, values = np.vstack([table, np.ones(table.shape[1])]), np.append(values, observed.unpruned)
    scale = float(np.abs(values).mean()) or 1.0
    ridge = np.diag([0.0, 0.0, *[HELD] * (table.shape[1] - 2)])
    grams = table[:, :, None] * table[:, None, :]
    sides = table * (values / scale)[:, None]

    def weights(without: int | None = None) -> Floats:
        gram, side = grams.sum(axis=0) + ridge, sides.sum(axis=0)
        return _solve(gram, side) if without is None else _solve(gram - grams[without], side - sides[without])

    errors = [
        abs(scale * table[place] @ weights(place) / values[place] - 1)
        for place in _left_out(len(observed.values))
        if len(values) > 2 and values[place]
    ]
    fitted = scale * weights()
    error = float(np.median(errors)) if errors else ASSUMED_ERROR
    return CostModel(terms, len(observed.values), error, lambda costs: np.asarray(columns(costs) @ fitted))


def _by_layers(costs: Costs, values: Floats, counters: Floats) -> CostModel:
    table = _by_kind(costs)
    grams = np.einsum("pki,pkj->pkij", table, table)
    sides = table * counters[:, :, None]

    def weights(without: int | None = None) -> Floats:
        gram, side = grams.sum(axis=0), sides.sum(axis=0)
        if without is not None:
            gram, side = gram - grams[without], side - sides[without]
        return np.stack([_solve(*one) for one in zip(gram, side, strict=True)])

    errors = [abs((table[place] * weights(place)).sum() / values[place] - 1) for place in _left_out(len(values))]
    fitted = weights()
    return CostModel(
        f"{len(fitted) - 1} kinds of layers",
        len(values),
        float(np.median(errors)),
        lambda its: np.asarray(np.einsum("pki,ki->p", _by_kind(its), fitted)),
    )


def _by_kind(costs: Costs) -> Floats:
    """Return the terms of each kind of layers, then of all else: a constant and the network's MACs."""
    rest = np.zeros((len(costs.macs), 1, costs.terms.shape[2]))
    rest[:, 0, 0], rest[:, 0, 1] = 1.0, costs.macs
    return np.concatenate([costs.terms, rest], axis=1)


def _solve(gram: Floats, side: Floats) -> Floats:
    """Return the non-negative weights w that make w' gram w - 2 side' w least."""
    size = len(gram)
    upper = np.linalg.cholesky(gram + 1e-9 * (np.trace(gram) / size + 1e-12) * np.eye(size)).T
    found, _ = nnls(upper, np.linalg.solve(upper.T, side))
    return np.asarray(found)


def _left_out(count: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, LEFT_OUT))}) if count else []


def _rows(costs: Costs, rows: Floats) -> Costs:
    return Costs(costs.terms[rows], costs.macs[rows], costs.parameters[rows], costs.shares[rows])
