import itertools
import random

import pytest

import edge_tune as et
from edge_tune.search import points

MIXED = {
    "a": et.Choice([0.1, 0.2, 0.3]),
    "b": et.Integer(4, 5),
    "kind": et.Choice(["filters", "channels"]),
    "fixed": et.Uniform(0.5, 0.5),
}


def test_count_points_is_the_product_of_what_each_parameter_offers() -> None:
    assert points.count_points(MIXED) == 3 * 2 * 2
    assert points.count_points({**MIXED, "c": et.Uniform(0, 0.5)}) is None
    assert points.count_points({**MIXED, "c": et.LogUniform(0.1, 0.5)}) is None


def test_grid_point_counts_through_the_product() -> None:
    expected = [
        {"a": a, "b": b, "kind": kind, "fixed": 0.5}
        for a, b in itertools.product([0.1, 0.2, 0.3], [4, 5])
        for kind in ("filters", "channels")
    ]
    assert [points.grid_point(MIXED, number) for number in range(12)] == expected


@pytest.mark.parametrize("seed", [0, 3])
def test_in_drawn_order_is_a_shuffled_list_where_that_fits(seed: int) -> None:
    shuffled = list(range(500))
    random.Random(seed).shuffle(shuffled)
    assert list(points.in_drawn_order(500, seed)) == shuffled


def test_in_drawn_order_yields_each_number_once_where_no_list_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "LISTED", 10)
    numbers = list(points.in_drawn_order(200, 1))
    assert sorted(numbers) == list(range(200))
    assert numbers != sorted(numbers)
    assert list(points.in_drawn_order(200, 1)) == numbers
    few = list(itertools.islice(points.in_drawn_order(10**30, 1), 100))
    assert len(set(few)) == 100
    assert sum(few) / 100 > 3e29


def test_random_point_lies_in_the_space() -> None:
    space = {**MIXED, "c": et.Uniform(0.2, 0.4), "rate": et.LogUniform(1e-4, 1.0)}
    drawn = [points.random_point(space, random.Random(n)) for n in range(200)]
    assert all(point[name] in parameter for point in drawn for name, parameter in space.items())
    assert {point["a"] for point in drawn} == {0.1, 0.2, 0.3}
    assert {point["kind"] for point in drawn} == {"filters", "channels"}
    assert len({point["c"] for point in drawn}) == 200
    assert 80 < sum(float(point["rate"]) < 1e-2 for point in drawn) < 120  # half of its logarithmic scale
