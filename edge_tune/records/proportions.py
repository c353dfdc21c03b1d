"""Shares of images, and their differences, with 95 % intervals in closed forms.

Sources: of one share, Wilson, JASA 22 (1927); of two shares over the same images, Bonett and Price, Adjusted Wald
Confidence Interval for a Difference of Binomial Proportions Based on Paired Data, Journal of Educational and Behavioral
Statistics 37 (2012); of two shares over images that are not compared one by one, Newcombe, Interval Estimation for the
Difference Between Independent Proportions, Statistics in Medicine 17 (1998), method 10.
"""

import math

NORMAL = 1.959964
"""Two standard deviations, nearly: 95 % lie within."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the interval of the probability of which so many successes tell; 0 < trials."""
    share, square = successes / trials, NORMAL**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = NORMAL / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(mine: int, other: int, images: int, factor: float = 1.0, both: int = 0) -> tuple[float, float]:
    """Return the interval of one network's share less `factor` times another's, over the same images.

    Bonett and Price's is that of a mean, of 1, -1 and 0 an image, with one image more that either alone is right about;
    with a factor, an image counts 1 - factor that both are right about, and -factor one that the other alone is.

    Args:
        mine: Images that the one alone is right about.
        other: Those that the other alone is right about.
        images: All, those that both are right or wrong about included.
        both: Those that both are right about, which make no difference without a factor.
    """
    all_ = images + 2
    up, down, same = (mine + 1) / all_, (other + 1) / all_, both / all_
    mean = up - factor * down + (1 - factor) * same
    half = NORMAL * math.sqrt((up + factor**2 * down + (1 - factor) ** 2 * same - mean**2) / all_)
    return max(-factor, mean - half), min(1.0, mean + half)


def difference(mine: tuple[int, int], other: tuple[int, int], factor: float = 1.0) -> tuple[float, float]:
    """Return the interval of one share less `factor` times another, as of images that have nothing to do with another.

    Args:
        mine, other: Of each network the images that it is right about, and all.
    """
    share, theirs = mine[0] / mine[1], other[0] / other[1]
    (low, high), (their_low, their_high) = wilson(*mine), wilson(*other)
    middle = share - factor * theirs
    below = math.hypot(share - low, factor * (their_high - theirs))
    above = math.hypot(high - share, factor * (theirs - their_low))
    return middle - below, middle + above
