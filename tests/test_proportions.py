import math

import numpy as np
import pytest

from edge_tune.records.proportions import NORMAL, difference, paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "interval"), [(0, 10, (0.0, 0.2775)), (3, 10, (0.1078, 0.6032)), (10, 10, (0.7225, 1.0))]
)
def test_wilson_is_what_the_tables_say(successes: int, trials: int, interval: tuple[float, float]) -> None:
    """As statsmodels' proportion_confint(method="wilson") gives it."""
    assert wilson(successes, trials) == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize(("mine", "other", "images"), [(1, 7, 21), (0, 0, 45), (45, 0, 45), (180, 250, 5000)])
def test_paired_difference_is_that_of_a_mean_with_two_images_more(mine: int, other: int, images: int) -> None:
    """Adjusted Wald: one image more that either alone is right for, then a mean of -1, 0 and 1 with its deviation."""
    scores = np.repeat([1.0, -1.0, 0.0], [mine + 1, other + 1, images - mine - other])
    mean, half = scores.mean(), NORMAL * scores.std() / math.sqrt(len(scores))
    expected = max(-1.0, mean - half), min(1.0, mean + half)
    assert paired_difference(mine, other, images) == pytest.approx(expected, abs=1e-12)


def test_paired_difference_from_a_share_is_that_of_a_mean_too() -> None:
    """Of 9 images both are right about 4, the one alone about 1 and the other alone about 2; half of the other's."""
    scores = np.repeat([0.5, 1.0, -0.5, 0.0], [4, 1 + 1, 2 + 1, 2])
    half = NORMAL * scores.std() / math.sqrt(11)
    expected = max(-0.5, scores.mean() - half), scores.mean() + half
    assert paired_difference(1, 2, 9, 0.5, both=4) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("factor", [1.0, 0.9])
def test_paired_difference_holds_the_truth_as_often_as_it_says(factor: float) -> None:
    """Exact: of 60 images, with the probabilities of a pruned network's and its original's answers, over all counts.

    Of the images that both are right or wrong about, the former are taken to be as many as are expected.
    """
    images, alone, other, right = 60, 0.05, 0.12, 0.9
    held = 0.0
    for mine in range(images + 1):
        for theirs in range(images + 1 - mine):
            both = images - mine - theirs
            ways = math.comb(images, mine) * math.comb(images - mine, theirs)
            chance = ways * alone**mine * other**theirs * (1 - alone - other) ** both
            same = round(both * right)
            low, high = paired_difference(mine, theirs, images, factor, same)
            truth = alone - factor * other + (1 - factor) * right * (1 - alone - other)
            held += chance * (low <= truth <= high)
    assert 0.94 <= held <= 0.975


def test_difference_is_newcombes_example() -> None:
    """56 of 70 against 48 of 80, by method 10 of Newcombe (1998): 0.0524 to 0.3339."""
    assert difference((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_difference_from_a_share_of_another_one_is_wider_by_as_much() -> None:
    """Of 0 times it, Wilson's own; of half of it, what the other one adds to the square is a quarter of that."""
    whole, none = difference((56, 70), (48, 80)), difference((56, 70), (48, 80), 0.0)
    assert none == pytest.approx(wilson(56, 70))
    half = difference((56, 70), (48, 80), 0.5)
    parts = [(56 / 70 - none[0]) ** 2, (56 / 70 - 48 / 80 - whole[0]) ** 2]
    assert (56 / 70 - 0.5 * 48 / 80 - half[0]) ** 2 == pytest.approx(0.75 * parts[0] + 0.25 * parts[1])
