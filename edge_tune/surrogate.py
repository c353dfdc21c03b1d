"""What is expected of a figure: a Gaussian process over the parameters, and the improvements that follow from it.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5; for the improvements,
Jones et al., Efficient Global Optimization, 1998, and Emmerich et al., 2011, in two losses of which one is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]

TUNED = 100
"""The length scales are tuned on so many observations at most."""

USED = 300
"""No more observations than these are looked at: the best, and the latest of the others."""

ITERATIONS = 40
"""Of the tuning, at most."""

ROUNDING = 1e-6
"""Added to variances, those of the figures being 1, of which rounding may have made some less than nothing."""

FLOOR = 3.0
"""Figures that lie further below the median than so many deviations count as if they lay there: far below what anybody
wants, how far does not matter."""


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process: Matern 5/2 with a length scale for each input, and noise.

    Attributes:
        inputs: [observations, inputs].
        figures: [observations], larger is better.
        tuned: The kernel with its length scales; None: they are tuned to the observations.
    """

    inputs: Floats
    figures: Floats
    tuned: Any = None

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the figure, without noise, at each of these inputs."""
        mean, deviation = self._process.predict(inputs, return_std=True)
        noise = self._process.kernel_.k2.noise_level
        middle, scale = self._scale
        return middle + scale * mean, scale * np.sqrt(np.maximum(deviation**2 - noise, 1e-9))

    def drawn(self, inputs: Floats, count: int, generator: np.random.Generator) -> Floats:
        """Return `count` functions that may be true, each as its figures at these inputs: [count, points]."""
        mean, covariance = self._process.predict(inputs, return_cov=True)
        covariance += (ROUNDING - self._process.kernel_.k2.noise_level) * np.eye(len(inputs))
        found = generator.multivariate_normal(mean, covariance, count, check_valid="ignore", method="cholesky")
        middle, scale = self._scale
        return np.asarray(middle + scale * found)

    @cached_property
    def explained(self) -> float:
        """The share of the figures' variance that it predicts where each is left out; its kernel stays as it is.

        Source: Rasmussen and Williams, equation 5.12.
        """
        process = self._process
        known = process.y_train_
        inverse = cho_solve((process.L_, True), np.eye(len(known)))
        return float(1 - ((process.alpha_ / np.diag(inverse)) ** 2).mean() / known.var())

    def with_believed(self, inputs: Floats) -> "Surrogate":
        """Return the process as if its own mean had been observed at these inputs."""
        figures = np.concatenate([self.figures, self.predict(inputs)[0]])
        return Surrogate(np.vstack([self.inputs, inputs]), figures, self._kernel)

    @cached_property
    def _scale(self) -> tuple[float, float]:
        return float(self._lifted.mean()), float(self._lifted.std()) or 1.0

    @cached_property
    def _lifted(self) -> Floats:
        """The figures, those that are far too small lifted."""
        median = np.median(self.figures)
        spread = 1.4826 * np.median(np.abs(self.figures - median)) or self.figures.std()
        return np.asarray(np.maximum(self.figures, median - FLOOR * spread))

    def _rows(self, most: int) -> npt.NDArray[np.int64]:
        """Return which observations to look at."""
        if len(self.figures) <= most:
            return np.arange(len(self.figures))
        best = np.argsort(-self.figures, kind="stable")[: most // 2]
        others = np.setdiff1d(np.arange(len(self.figures)), best)
        return np.sort(np.concatenate([best, others[len(best) - most :]]))

    @cached_property
    def _kernel(self) -> Any:
        if self.tuned is not None:
            return self.tuned
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        scales = np.full(self.inputs.shape[1], 0.7)
        smooth = ConstantKernel(1.0, (0.05, 20.0)) * Matern(scales, (0.05, 20.0), nu=2.5)
        process = self._fitted(smooth + WhiteKernel(0.05, (1e-3, 1.0)), TUNED)

        def loss(theta: Floats) -> tuple[float, Floats]:
            likelihood, gradient = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
            return -likelihood, -gradient

        kernel = process.kernel_
        found = minimize(
            loss, kernel.theta, method="L-BFGS-B", jac=True, bounds=kernel.bounds, options={"maxiter": ITERATIONS}
        )
        return kernel.clone_with_theta(found.x)

    @cached_property
    def _process(self) -> Any:
        return self._fitted(self._kernel, USED)

    def _fitted(self, kernel: Any, most: int) -> Any:
        """Return scikit-learn's process with a kernel as it is, given so many observations at most."""
        # Only now: importing scikit-learn takes a second, which other methods of search need not spend.
        from sklearn.gaussian_process import GaussianProcessRegressor

        rows, (middle, scale) = self._rows(most), self._scale
        process = GaussianProcessRegressor(kernel, optimizer=None)
        return process.fit(self.inputs[rows], (self._lifted[rows] - middle) / scale)


def improvement(best: float | Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return how much less than `best` a normally distributed loss is expected to be, where it is less at all."""
    gain = best - mean
    z = gain / np.maximum(deviation, 1e-12)
    return np.asarray(gain * ndtr(z) + deviation * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))


def area_improvement(
    front: Sequence[tuple[float, float]], reference: tuple[float, float], known: Floats, mean: Floats, deviation: Floats
) -> Floats:
    """Return the area that a network is expected to add to what a front beats: its first loss known, the other normal.

    Args:
        front: Pairs of losses, none of which beats another.
        reference: Up to where areas count.
        known, mean, deviation: [networks].
    """
    ordered = sorted(front)
    begins = np.array([-np.inf, *(first for first, _ in ordered)])
    ends = np.array([*(first for first, _ in ordered), reference[0]])
    levels = np.array([reference[1], *(second for _, second in ordered)])
    widths = np.maximum(0.0, ends - np.maximum(begins, known[:, None]))
    return np.asarray((widths * improvement(levels, mean[:, None], deviation[:, None])).sum(axis=1))
