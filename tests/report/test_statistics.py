"""Oracles: scipy, closed forms, brute force, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from edge_tune.records.entries import Ratio
from edge_tune.report import statistics

NAN = math.nan


def draw(n: int, seed: int = 0) -> tuple[statistics.Floats, statistics.Floats]:
    generator = np.random.default_rng(seed)
    x = np.round(generator.random(n), 1)  # with ties
    return x, x**3 + generator.normal(0, 0.1, n)


def test_correlation_agrees_with_scipy() -> None:
    x, y = draw(80)
    found = statistics.correlation(x, y)
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.n == 80


def test_correlation_by_hand() -> None:
    # Deviations (-2, 0, 2) and (-1, 0, 1) of a monotone, linear column; then one that only ranks alike.
    x = np.array([1.0, 3.0, 5.0])
    assert statistics.correlation(x, np.array([2.0, 3.0, 4.0])) == statistics.Correlation(1.0, 1.0, 3)
    bent = statistics.correlation(x, np.array([0.0, 0.0, -6.0]))
    assert bent.pearson == pytest.approx(-12 / math.sqrt(8 * 24))
    assert bent.spearman == pytest.approx(-math.sqrt(3) / 2)


def test_correlation_leaves_out_unknown_pairs() -> None:
    x, y = draw(30)
    holes_x, holes_y = x.copy(), y.copy()
    holes_x[3], holes_y[7] = NAN, NAN
    kept = [i for i in range(30) if i not in (3, 7)]
    assert statistics.correlation(holes_x, holes_y) == statistics.correlation(x[kept], y[kept])


@pytest.mark.parametrize("x", [[], [1.0, 2.0], [0.5, 0.5, 0.5], [1.0, NAN, 2.0, NAN]])
def test_correlation_is_unknown_when_there_is_nothing_to_correlate(x: list[float]) -> None:
    found = statistics.correlation(np.array(x), np.arange(len(x), dtype=float))
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)


def test_bin_means_agree_with_brute_force() -> None:
    generator = np.random.default_rng(1)
    hundredths = generator.integers(0, 100, 300)  # edges of bins among them
    y = generator.random(300)
    found = statistics.bin_means(hundredths / 100, y)
    members: dict[int, list[float]] = {}
    for number, value in zip(hundredths, y, strict=True):
        members.setdefault(int(number) // 2, []).append(float(value))
    assert found.centres == pytest.approx([0.02 * number + 0.01 for number in sorted(members)])
    assert found.means == pytest.approx([sum(members[n]) / len(members[n]) for n in sorted(members)])
    assert found.counts.tolist() == [len(members[n]) for n in sorted(members)]


def test_bin_means_skip_what_is_unknown() -> None:
    found = statistics.bin_means(np.array([0.01, NAN, 0.01]), np.array([2.0, 5.0, NAN]))
    assert (found.centres.tolist(), found.means.tolist(), found.counts.tolist()) == ([0.01], [2.0], [1])
    assert not len(statistics.bin_means(np.array([]), np.array([])).means)


def test_best_so_far_ignores_what_may_not_be_best() -> None:
    losses = np.array([1.0, 3.0, 2.0, NAN, 4.0, 1.5])
    eligible = np.array([False, True, True, True, True, True])
    found = statistics.best_so_far(losses, eligible)
    assert math.isnan(found[0])
    assert found[1:].tolist() == [3.0, 2.0, 2.0, 2.0, 1.5]
    assert not len(statistics.best_so_far(np.array([]), np.array([], dtype=bool)))


def test_quotient_agrees_with_simulation() -> None:
    generator = np.random.default_rng(3)
    a, b = (np.exp(generator.normal(math.log(m), s, 200_000)) for m, s in ((0.6, 0.01), (0.75, 0.02)))

    def ratio(samples: statistics.Floats) -> Ratio:
        low, middle, high = np.quantile(samples, [0.025, 0.5, 0.975])
        return Ratio(float(middle), float(low), float(high))

    found, expected = statistics.quotient(ratio(a), ratio(b)), ratio(a / b)
    for name in ("ratio", "low", "high"):  # the quantiles of 200,000 samples are known to a few in 10,000
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3)


def test_quotient_of_exact_ratios_is_exact() -> None:
    six, seven_and_a_half = Ratio(0.6, 0.6, 0.6), Ratio(0.75, 0.75, 0.75)
    exact = 0.6 / 0.75
    assert statistics.quotient(six, seven_and_a_half) == Ratio(exact, exact, exact)
