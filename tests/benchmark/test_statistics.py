import math
import statistics

import numpy as np
import pytest

from edge_tune.benchmark.statistics import (
    ENOUGH,
    PRECISION,
    Share,
    are_running_means,
    device_ratio,
    is_distinguishable,
    layer_means,
    noise_floor,
    paired_ratio,
    ratio_of_rounds,
    ratio_text,
    share_noise,
    summary,
)
from edge_tune.records.entries import Ratio, TimeSummary

WARM_UP, RUNS, LAYERS = 20, 100, 7


def run_times() -> np.ndarray:
    """Whole microseconds of each layer in each run; the first runs are slow, [WARM_UP + RUNS, LAYERS]."""
    times = np.random.default_rng(0).integers(5, 60, size=(WARM_UP + RUNS, LAYERS))
    times[:3] *= 10
    return times


def cpu_plugin(times: np.ndarray) -> np.ndarray:
    """What PerfCount::avg() shows after each run: sum // runs."""
    return np.cumsum(times, axis=0) // np.arange(1, len(times) + 1)[:, None]


COUNTS = np.arange(WARM_UP, WARM_UP + RUNS + 1)


def test_summary_gives_order_statistics_and_mean() -> None:
    assert summary([float(value) for value in range(11, 0, -1)]) == TimeSummary(
        n=11, min=1.0, p10=2.0, median=6.0, mean=6.0, p90=10.0
    )


def test_summary_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="at least one sample, but got none"):
        summary([])


def test_are_running_means_recognises_the_cpu_plugin() -> None:
    assert are_running_means(cpu_plugin(run_times())[WARM_UP - 1 :], COUNTS)


def test_are_running_means_recognises_counters_of_the_last_run() -> None:
    assert not are_running_means(run_times()[WARM_UP - 1 :], COUNTS)


def test_layer_means_leaves_the_warm_up_out_when_counters_are_running_means() -> None:
    times = run_times()
    truth = times[WARM_UP:].mean(axis=0)
    got = layer_means(cpu_plugin(times)[WARM_UP - 1 :], COUNTS)
    # sum // runs hides less than 1 us a run: at most 120 us at the end and 20 us at the start, over 100 runs
    assert np.all(np.abs(got - truth) < (WARM_UP + RUNS) / RUNS)
    assert np.all(cpu_plugin(times)[-1] - truth > 2)  # what would be reported if the slow first runs counted


def test_layer_means_averages_the_runs_when_counters_are_of_the_last_run() -> None:
    times = run_times()
    np.testing.assert_allclose(layer_means(times[WARM_UP - 1 :], COUNTS), times[WARM_UP:].mean(axis=0))


def test_layer_means_is_the_reading_when_nothing_fluctuates() -> None:
    readings = np.tile([12, 0, 345], (RUNS + 1, 1))
    np.testing.assert_allclose(layer_means(readings, COUNTS), [12, 0, 345])


@pytest.mark.parametrize("warm_up", [1, 5, WARM_UP])
def test_layer_means_starts_after_the_reading_it_is_told(warm_up: int) -> None:
    times, counts = run_times(), np.arange(1, WARM_UP + RUNS + 1)
    truth = times[warm_up:].mean(axis=0)
    np.testing.assert_allclose(layer_means(times, counts, warm_up - 1), truth)
    # sum // runs hides less than 1 us a run
    assert np.all(np.abs(layer_means(cpu_plugin(times), counts, warm_up - 1) - truth) < 1.5)


def rounds(seed: int, n: int = 60, noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """TimeSummary of two networks, 0.75 apart, on a host that is now and then half as fast for a while."""
    generator = np.random.default_rng(seed)
    host = np.where(np.cumsum(generator.random(n) < 0.1) % 2, 2.0, 1.0)
    return 0.75 * host * generator.lognormal(0, noise, n), host * generator.lognormal(0, noise, n)


def bursts(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """The same beside a neighbour in bursts, of 3 s in rounds of 25 ms: they last 0.2 to 5 s, and so do the pauses.

    In a burst most turns are interrupted, the more so the longer they take; and the ratio itself drifts, by an
    autoregressive series over about 10 rounds.
    """
    generator = np.random.default_rng(seed)
    drift = np.zeros(n)
    for index in range(1, n):
        drift[index] = 0.9 * drift[index - 1] + 0.005 * generator.normal()
    busy, begin, is_busy = np.zeros(n, dtype=bool), 0, generator.random() < 0.5
    while begin < n:
        end = begin + int(generator.uniform(0.2, 5) / 0.025)
        busy[begin:end] = is_busy
        begin, is_busy = end, not is_busy

    def times(ratio: float, interrupted: float) -> np.ndarray:
        extra = np.where(busy & (generator.random(n) < interrupted), generator.exponential(1.0, n), 0.0)
        return ratio * generator.lognormal(0, 0.02, n) + extra

    return np.exp(drift) * times(0.75, 0.6), times(1.0, 0.8)


def over_rounds(candidate: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """The interval as if rounds were independent: a bootstrap of the median over them."""
    ratios = candidate / reference
    drawn = np.random.default_rng(0).integers(0, len(ratios), size=(500, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return float(low), float(high)


def test_paired_ratio_is_exact_when_both_are_disturbed_alike() -> None:
    reference = np.random.default_rng(0).lognormal(0, 1, 40)
    got = paired_ratio(0.75 * reference, reference)
    assert (got.ratio, got.low, got.high) == pytest.approx((0.75, 0.75, 0.75))
    assert got.half_width == pytest.approx(0)


def test_paired_ratio_by_hand() -> None:
    """Six segments of two rounds; in each the faster of either network counts."""
    ratios = [0.7, 0.8, 0.6, 0.75, 0.72, 0.78]
    candidate = np.array([[9.0, ratio] for ratio in ratios]).ravel()
    reference = np.array([[1.0, 4.0] for _ in ratios]).ravel()
    logs = [math.log(ratio) for ratio in ratios]
    # 2.5706 is the 97.5 % point of Student's t with 5 degrees of freedom, from a printed table.
    reach = 2.5706 * math.sqrt(math.pi / 2) * statistics.stdev(logs) / math.sqrt(6)
    middle = statistics.median(logs)
    got = paired_ratio(candidate, reference)
    expected = (math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))
    assert (got.ratio, got.low, got.high) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n", [6, 60, 600])
def test_paired_ratio_covers_the_truth_as_often_as_it_says(n: int) -> None:
    found = [paired_ratio(*rounds(seed, n)) for seed in range(400)]
    # 95 % of 400 are 380, with a standard deviation of 4.4; the median of six is a little better than that of many.
    assert 367 <= sum(one.low <= 0.75 <= one.high for one in found) <= 397


def test_paired_ratio_covers_the_truth_beside_a_neighbour_in_bursts() -> None:
    """An interval over rounds covers it in three of four measurements."""
    series = [bursts(seed) for seed in range(300)]
    got = [paired_ratio(*one) for one in series]
    assert sum(one.low <= 0.75 <= one.high for one in got) >= 0.9 * 300
    assert sum(low <= 0.75 <= high for low, high in (over_rounds(*one) for one in series)) < 0.82 * 300


def test_paired_ratio_is_not_moved_by_who_is_interrupted_more_often() -> None:
    """A longer run is more often interrupted: here 85 % of the reference, 40 % of the candidate."""
    generator = np.random.default_rng(0)
    candidate, reference = np.full(600, 0.75), np.full(600, 1.0)
    candidate[generator.random(600) < 0.4] += 3.0
    reference[generator.random(600) < 0.85] += 3.0
    assert paired_ratio(candidate, reference).ratio == pytest.approx(0.75)
    assert np.median(candidate / reference) < 0.5


@pytest.mark.parametrize("n", [1, 2, 3])
def test_paired_ratio_of_few_rounds_says_that_little_is_known(n: int) -> None:
    few, many = (np.median([paired_ratio(*rounds(seed, k)).high for seed in range(50)]) for k in (n, 60))
    assert 1.05 * many < few < math.inf


@pytest.mark.parametrize("noise", [0.005, 0.01, 0.02])
def test_enough_leaves_room_for_looking_again_and_again(noise: float) -> None:
    """A measurement that ends as soon as it seems to be known well enough is right within PRECISION."""

    def ended(seed: int) -> Ratio:
        generator = np.random.default_rng(seed)
        candidate, reference = 0.75 * generator.lognormal(0, noise, 400), generator.lognormal(0, noise, 400)
        looks = (paired_ratio(candidate[:n], reference[:n]) for n in range(40, 401, 30))
        return next((one for one in looks if one.half_width <= ENOUGH), paired_ratio(candidate, reference))

    found = [ended(seed) for seed in range(150)]
    assert sum(abs(one.ratio / 0.75 - 1) <= PRECISION for one in found) >= 0.95 * 150
    assert sum(one.low <= 0.75 <= one.high for one in found) >= 0.86 * 150


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("bursts", [0.0, 0.25])
def test_ratio_of_rounds_holds_what_a_repetition_gives(n: int, bursts: float) -> None:
    """Each round is certain of itself, and one in four may be far off."""
    generator = np.random.default_rng(n)

    def repeated() -> Ratio:
        logs = generator.normal(0, 0.02, n) + (generator.random(n) < bursts) * generator.normal(0, 0.25, n)
        return ratio_of_rounds([Ratio(one, one * 0.999, one * 1.001) for one in 0.75 * np.exp(logs)])

    pairs = [(repeated(), repeated()) for _ in range(600)]
    # 95 % of 600 are 570, with a standard deviation of 5.3.
    assert sum(one.low <= again.ratio <= one.high for one, again in pairs) >= 554
    assert sum(one.low <= 0.75 <= one.high for one, _ in pairs) >= 570


def test_ratio_of_rounds_knows_no_more_than_one_round_does_where_they_agree() -> None:
    rounds = [Ratio(0.8, 0.5, 0.85), Ratio(0.8, 0.6, 0.9), Ratio(0.8, 0.4, 0.82)]
    assert ratio_of_rounds(rounds) == Ratio(0.8, pytest.approx(0.5), pytest.approx(0.85))
    assert ratio_of_rounds([*rounds[:2], Ratio(0.4, 0.39, 0.41)]).ratio == pytest.approx(0.8)


@pytest.mark.parametrize(("candidate", "reference"), [(2, 3), (0, 0)])
def test_paired_ratio_refuses_rounds_without_both(candidate: int, reference: int) -> None:
    with pytest.raises(ValueError, match=f"hold both networks, but got {candidate} and {reference} rounds"):
        paired_ratio(np.ones(candidate), np.ones(reference))


@pytest.mark.parametrize(
    ("itself", "floor"),
    [((1.0, 0.99, 1.02), 0.02), ((1.0, 0.96, 1.02), 0.04), ((1.03, 1.02, 1.04), 0.04), ((1.0, 1.0, 1.0), 0.0)],
)
def test_noise_floor_is_the_farthest_end_from_1(itself: tuple[float, float, float], floor: float) -> None:
    assert noise_floor(Ratio(*itself)) == pytest.approx(floor)


@pytest.mark.parametrize(
    ("ratio", "floor", "told_apart"),
    [
        ((0.90, 0.89, 0.91), 0.02, True),
        ((1.10, 1.09, 1.11), 0.02, True),
        ((0.99, 0.985, 0.995), 0.02, False),  # inside the noise floor
        ((0.95, 0.89, 1.01), 0.02, False),  # inside its own interval
        ((0.99, 0.985, 0.995), 0.0, True),
    ],
)
def test_is_distinguishable_needs_more_than_noise(
    ratio: tuple[float, float, float], floor: float, told_apart: bool
) -> None:
    assert is_distinguishable(Ratio(*ratio), floor) is told_apart
    assert ("not distinguishable" in ratio_text(Ratio(*ratio), floor)) is not told_apart


def test_share_noise_agrees_with_a_simulation() -> None:
    """Of 300 runs of 1.3 ms, in 0.04 ms of which no layer runs, a third is interrupted for 3 ms, wherever it is."""
    generator, share, shares = np.random.default_rng(0), 1.26 / 1.3, []
    for _ in range(2000):
        interrupted = generator.random(300) < 1 / 3
        total = 1.3 + 3.0 * interrupted
        layers = 1.26 + 3.0 * interrupted * (generator.random(300) < share)
        shares.append(layers.mean() / total.mean())
    assert share_noise(total, share, layers=0) == pytest.approx(np.std(shares) / np.mean(shares), rel=0.15)


def test_device_ratio_takes_away_what_is_between_the_layers() -> None:
    total = Ratio(1.03 / 2.03, 1.01 / 2.03, 1.05 / 2.03)  # 1 and 2 ms of layers, and 0.03 ms between them
    exact = device_ratio(total, 2.03, Share(1 / 1.03, 0), Share(2 / 2.03, 0))
    assert (exact.ratio, exact.low, exact.high) == pytest.approx((0.5, 0.98 / 2, 1.02 / 2))
    # The shares are off by 1 % each, but known to 1 % only: what is between, 0.02 and 0.05 ms, is taken for equal.
    rough = device_ratio(total, 2.03, Share(1.01 / 1.03, 0.01), Share(1.98 / 2.03, 0.01))
    both = (0.02 / 0.0101**2 + 0.05 / 0.0198**2) / (1 / 0.0101**2 + 1 / 0.0198**2)  # weighted by what is known
    pooled = (1.03 - both) / (2.03 - both)
    assert pooled < rough.ratio < pooled + 0.05 * (total.ratio - pooled)  # 1 % is nearly believed
    assert rough.low < 0.5 < rough.high
    assert rough.half_width > exact.half_width


def test_device_ratio_of_a_network_to_itself_does_not_depend_on_noisy_shares() -> None:
    total = Ratio(1.0, 0.99, 1.01)
    for noise in (0.01, 0.1, 1.0):
        got = device_ratio(total, 2.0, Share(0.97, noise), Share(0.96, noise))
        assert got.ratio == pytest.approx(1.0)
        # 0.02 ms of total time are a little more than 1 % of 1.93 ms of device time
        assert (got.low, got.high) == pytest.approx((1 - 0.02 / 1.93, 1 + 0.02 / 1.93), abs=2e-5)


@pytest.mark.parametrize("ratio", [0.4, 0.866, 1.0, 1.15, 2.5])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("shares", [(0.12, 0.25), (0.25, 0.12), (0.12, 0.12), (0.9, 0.6), (1.02, 0.98)])
def test_device_ratio_is_never_wilder_than_what_is_known(
    ratio: float, noise: float, shares: tuple[float, float]
) -> None:
    total = Ratio(ratio, 0.99 * ratio, 1.01 * ratio)
    got = device_ratio(total, 0.04, Share(shares[0], noise), Share(shares[1], noise))
    assert 0 <= got.low <= got.ratio <= got.high < math.inf
    if noise > 0.1:
        assert got.ratio == pytest.approx(ratio, rel=0.02)
        assert got.low <= ratio <= got.high


def test_device_ratio_turns_over_with_its_networks() -> None:
    shares = Share(0.8, 0.1), Share(0.85, 0.1)
    there = device_ratio(Ratio(0.8, 0.8, 0.8), 0.2, *shares)
    back = device_ratio(Ratio(1.25, 1.25, 1.25), 0.16, *shares[::-1])
    assert there.ratio * back.ratio == pytest.approx(1)


def test_device_ratio_moves_steadily_as_the_noise_of_the_shares_grows() -> None:
    """From shares that are believed to shares that are not, there is no jump, and the interval only grows."""
    total = Ratio(0.5, 0.499, 0.501)
    noises = np.geomspace(1e-4, 1, 400)
    found = [device_ratio(total, 2.0, Share(0.9, noise), Share(0.8, noise)) for noise in noises]
    ratios = np.array([one.ratio for one in found])
    assert ratios[0] == pytest.approx(0.9 / 1.6, rel=1e-3)
    assert ratios[-1] == pytest.approx(0.5, rel=1e-2)
    # Pooled, 0.15 to 0.25 ms are between: the ratio is below 0.46, which is the whole way of 0.1.
    assert np.abs(np.diff(ratios)).max() < 0.01


def test_device_ratio_believes_shares_that_are_known() -> None:
    """Of 1 ms, 0.1 are between the layers; of 2 ms, 0.4."""
    got = device_ratio(Ratio(0.5, 0.5, 0.5), 2.0, Share(0.9, 0.001), Share(0.8, 0.001))
    assert got.ratio == pytest.approx(0.9 / 1.6, rel=1e-3)
    deviation = got.ratio * 0.001 * 2**0.5
    assert got.high - got.ratio == pytest.approx(1.96 * deviation, rel=0.1)


def test_share_noise_knows_the_rounding_of_the_counters() -> None:
    fractions = np.random.default_rng(0).random((2000, 60)).sum(axis=1)  # microseconds lost of 60 layers
    for share in (0.97, 0.1):
        got = share_noise(np.full(9, 1.3), share, layers=60)
        assert got == pytest.approx(np.std(fractions) / (1300 * share), rel=0.05)
