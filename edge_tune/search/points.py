"""The points of a search space one by one: a grid's in a drawn order, never listed whole, and single random ones."""

import math
import random
from collections.abc import Iterator, Mapping

from edge_tune.experiment import Choice, Point, PrunerGroup, Uniform

LISTED = 100_000
"""The numbers of a grid of so many points are shuffled; those of a larger one are drawn until one is new."""


def count_points(groups: Mapping[str, PrunerGroup]) -> int | None:
    """Return how many points a space has; None if a sparsity has a range."""
    sizes = []
    for group in groups.values():
        if isinstance(group.sparsity, Choice):
            sizes.append(len(group.sparsity.values))
        elif group.sparsity.low < group.sparsity.high:
            return None
        sizes.append(len(group.structures))
    return math.prod(sizes)


def grid_point(groups: Mapping[str, PrunerGroup], number: int) -> Point:
    """Return one point of a grid, numbered from 0: the last group's structure changes from each to the next."""
    structures, sparsities = {}, {}
    for label, group in reversed(list(groups.items())):
        number, place = divmod(number, len(group.structures))
        structures[label] = group.structures[place]
    for label, group in reversed(list(groups.items())):
        assert isinstance(group.sparsity, Choice)
        number, place = divmod(number, len(group.sparsity.values))
        sparsities[label] = group.sparsity.values[place]
    return Point({label: sparsities[label] for label in groups}, {label: structures[label] for label in groups})


def in_drawn_order(size: int, seed: int) -> Iterator[int]:
    """Yield each number below `size` once, in an order that the seed decides."""
    generator = random.Random(seed)
    if size <= LISTED:
        numbers = list(range(size))
        generator.shuffle(numbers)
        yield from numbers
        return
    seen: set[int] = set()
    while len(seen) < size:
        number = generator.randrange(size)
        if number not in seen:
            seen.add(number)
            yield number


def random_point(groups: Mapping[str, PrunerGroup], generator: random.Random) -> Point:
    """Return a point at which each sparsity and each structure is as likely as any other."""
    sparsities = {
        label: generator.uniform(group.sparsity.low, group.sparsity.high)
        if isinstance(group.sparsity, Uniform)
        else generator.choice(group.sparsity.values)
        for label, group in groups.items()
    }
    return Point(sparsities, {label: generator.choice(group.structures) for label, group in groups.items()})
