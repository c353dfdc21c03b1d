"""The points of a search space one by one: a grid's in a drawn order, never listed whole, and single random ones."""

import math
import random
from collections.abc import Iterator, Mapping

from edge_tune.parameters import Parameter, Point

LISTED = 100_000
"""The numbers of a grid of so many points are shuffled; those of a larger one are drawn until one is new."""


def count_points(parameters: Mapping[str, Parameter]) -> int | None:
    """Return how many points a space has; None if a parameter has values that cannot be counted."""
    sizes = [None if parameter.values is None else len(parameter.values) for parameter in parameters.values()]
    return None if None in sizes else math.prod(size for size in sizes if size)


def grid_point(parameters: Mapping[str, Parameter], number: int) -> Point:
    """Return one point of a grid, numbered from 0: the last parameter changes from each to the next."""
    point = {}
    for name, parameter in reversed(list(parameters.items())):
        assert parameter.values is not None
        number, place = divmod(number, len(parameter.values))
        point[name] = parameter.values[place]
    return {name: point[name] for name in parameters}


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


def random_point(parameters: Mapping[str, Parameter], generator: random.Random) -> Point:
    """Return a point at which each value of each parameter is as likely as any other."""
    return {
        name: parameter.default if parameter.is_fixed else parameter.draw(generator)
        for name, parameter in parameters.items()
    }
