import itertools
import random

import pytest

import edge_tune as et
from edge_tune.experiment import Point
from edge_tune.search import points
from tests.searching import CHOICES

MIXED = {
    "a": et.PrunerGroup("filters", ["a"], sparsity=et.Choice([0.1, 0.2, 0.3])),
    "b": et.PrunerGroup(["filters", "channels"], ["b"], sparsity=et.Choice([0.4, 0.5])),
}


def test_count_points_is_the_product_of_what_each_group_offers() -> None:
    assert points.count_points(MIXED) == 3 * 2 * 2
    assert points.count_points(CHOICES) == 3 * 3 * 2 * 2
    fixed = {**MIXED, "c": et.PrunerGroup("filters", ["c"], sparsity=et.Uniform(0.5, 0.5))}
    assert points.count_points(fixed) == 12
    assert points.count_points({**MIXED, "c": et.PrunerGroup("filters", ["c"], sparsity=et.Uniform(0, 0.5))}) is None


def test_grid_point_counts_through_the_product() -> None:
    sparsities, structures = itertools.product([0.1, 0.2, 0.3], [0.4, 0.5]), ["filters", "channels"]
    expected = [
        Point({"a": a, "b": b}, {"a": "filters", "b": structure}) for a, b in sparsities for structure in structures
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
    groups = {**MIXED, "c": et.PrunerGroup("channels", ["c"], sparsity=et.Uniform(0.2, 0.4))}
    drawn = [points.random_point(groups, random.Random(n)) for n in range(200)]
    assert {point.sparsities["a"] for point in drawn} == {0.1, 0.2, 0.3}
    assert {point.structures["b"] for point in drawn} == {"filters", "channels"}
    assert all(0.2 <= point.sparsities["c"] <= 0.4 and point.structures["c"] == "channels" for point in drawn)
    assert len({point.sparsities["c"] for point in drawn}) == 200
