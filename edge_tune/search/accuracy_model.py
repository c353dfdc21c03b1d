"""What accuracy to expect of a pruned network: how much is lost grows with what goes, and a Gaussian process says how.

The logarithm of what is lost is linear in the share that goes of each group, cubed where filters go, squared where
blocks do; before anything is known, a group that goes whole multiplies the loss by e. What that leaves is the process's
(../surrogate.py). On retrained networks six trials so tell more than thirty without it (docs/decisions.md).

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.7, of which the trends and the
process are fitted one after the other.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_tune.surrogate import Floats, Surrogate

PRIOR_DEVIATION = 0.6
"""Of the slope of each trend, around 1."""

NOISE, NOISE_COUNTS = 0.3, 4.0
"""What is left over is believed to deviate by so much, as firmly as so many trials would say it."""

FAR = 2.0
"""So many deviations above its mean, a figure is as likely by its normal distribution as by that of the loss."""

NEAR = 0.1
"""Losses below this share of the median one differ by little."""


@dataclass(frozen=True)
class AccuracyModel:
    """The loss to the best figure, by trends and a Gaussian process.

    Attributes:
        inputs: What the process looks at, [observations, inputs].
        trends: What the logarithm of the loss is linear in, [observations, trends].
        figures: [observations], larger is better.
        unpruned: The figure of the unpruned network, retrained alike if it was.
        believed: Places of further observations that nobody made, taken to be what is expected: inputs and trends.
    """

    inputs: Floats
    trends: Floats
    figures: Floats
    unpruned: float
    believed: tuple[Floats, Floats] | None = None

    def predict(self, inputs: Floats, trends: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the figure, without noise, at each of these points.

        The logarithm is taken for normal, so that nothing loses less than nothing. Whoever takes the figure for normal
        is given the deviation by which it is rightly said how good the best of fifty such networks is.
        """
        rows = _with_constant(trends)
        mean, deviation = self._process.predict(inputs)
        lost = np.exp(rows @ self._fitted[0] - mean)
        variance = deviation**2 + np.einsum("ij,jk,ik->i", rows, self._fitted[1], rows)
        return self._best - (lost - self._near), lost * (1 - np.exp(-FAR * np.sqrt(variance))) / FAR

    def with_believed(self, inputs: Floats, trends: Floats) -> "AccuracyModel":
        """Return the model as if at these points its own expectation had been observed."""
        return AccuracyModel(self.inputs, self.trends, self.figures, self.unpruned, (inputs, trends))

    @property
    def _best(self) -> float:
        return float(max(self.unpruned, self.figures.max()))

    @cached_property
    def _near(self) -> float:
        return max(NEAR * float(np.median(self._best - self.figures)), 1e-6)

    @cached_property
    def _logarithms(self) -> Floats:
        return np.asarray(np.log(self._best - self.figures + self._near))

    @cached_property
    def _fitted(self) -> tuple[Floats, Floats]:
        """The slopes, that of the constant first, and their covariance."""
        rows = _with_constant(self.trends)
        firmness = np.diag([0.0] + [(NOISE / PRIOR_DEVIATION) ** 2] * self.trends.shape[1])
        inverse = np.linalg.pinv(rows.T @ rows + firmness)
        slopes = inverse @ (rows.T @ self._logarithms + firmness.sum(axis=1))
        left = self._logarithms - rows @ slopes
        variance = ((left**2).sum() + NOISE_COUNTS * NOISE**2) / (len(left) + NOISE_COUNTS)
        if self.believed:  # their slopes are the same, and surer
            more = _with_constant(self.believed[1])
            inverse = np.linalg.pinv(rows.T @ rows + more.T @ more + firmness)
        return slopes, variance * inverse

    @cached_property
    def _process(self) -> Surrogate:
        process = Surrogate(self.inputs, _with_constant(self.trends) @ self._fitted[0] - self._logarithms)
        return process.with_believed(self.believed[0]) if self.believed else process


def _with_constant(trends: Floats) -> Floats:
    return np.column_stack([np.ones(len(trends)), trends])
