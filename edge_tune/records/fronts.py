"""Points by what no other one beats: both losses are to be small.

Source: Deb et al., NSGA-II, IEEE TEC 6 (2002), for the fronts; within one, by the hypervolume that a point alone adds.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

Losses = tuple[float, float]

REFERENCE = (1.1, 1.1)
"""Where both losses go from 0 to 1: a tenth beyond the worst, so that the ends of a front add something too."""


def front_numbers(points: Sequence[Losses]) -> list[int]:
    """Return for each point the number of its front: 0 if no other one beats it, 1 if only points of front 0 do, ...

    One point beats another that is as good in both losses and better in one.
    """
    numbers = [0] * len(points)
    last: list[tuple[float, float]] = []  # of each front, the second loss of its latest point, and the first
    for place in sorted(range(len(points)), key=points.__getitem__):
        first, second = points[place]
        # A front whose latest point has a larger second loss has no point that beats this one; an equal one neither.
        front = bisect_left(last, True, key=lambda its: its[0] > second or its == (second, first))
        last[front : front + 1] = [(second, first)]
        numbers[place] = front
    return numbers


def contributions(front: Sequence[Losses], reference: Losses) -> list[float]:
    """Return for each point of a front the area that it alone adds to what the front beats, up to `reference`.

    Points that are equal add nothing, each alone.
    """
    order = sorted(range(len(front)), key=front.__getitem__)
    added = [0.0] * len(front)
    for number, place in enumerate(order):
        first, second = front[place]
        right = front[order[number + 1]][0] if number + 1 < len(order) else reference[0]
        above = front[order[number - 1]][1] if number else reference[1]
        added[place] = max(0.0, right - first) * max(0.0, above - second)
    return added


def hypervolume(points: Sequence[Losses], reference: Losses) -> float:
    """Return the area that these points beat, up to `reference`."""
    area, above = 0.0, reference[1]
    for first, second in sorted(points):
        if first < reference[0] and second < above:
            area += (reference[0] - first) * (above - second)
            above = second
    return area


def places(points: Sequence[Losses]) -> list[float]:
    """Return one number for each point, the smaller the better: its front's, and a share of 1 by its place in that.

    Within a front come first those that add most area, both losses measured by their ranges.
    """
    if not points:
        return []
    low = [min(losses) for losses in zip(*points, strict=True)]
    high = [max(losses) for losses in zip(*points, strict=True)]
    scaled = [
        ((first - low[0]) / ((high[0] - low[0]) or 1.0), (second - low[1]) / ((high[1] - low[1]) or 1.0))
        for first, second in points
    ]
    members: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(front_numbers(points)):
        members[number].append(place)
    found = [0.0] * len(points)
    for number, front in members.items():
        area = dict(zip(front, contributions([scaled[place] for place in front], REFERENCE), strict=True))
        for nth, place in enumerate(sorted(front, key=lambda place: (-area[place], points[place]))):
            found[place] = number + nth / len(front)
    return found
