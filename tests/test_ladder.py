"""Plans for a ladder of latencies: the knapsack beside brute force, then plans of a real network, then a search."""

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import edge_tune as et
from edge_tune.networks import pruning
from edge_tune.networks.couplings import couplings
from edge_tune.networks.layer_shapes import network_shape
from edge_tune.parameters import Point
from edge_tune.records.results import Planned, Record
from edge_tune.records.shapes import NetworkShape
from edge_tune.search.coding import Coding, Columns, Floats
from edge_tune.search.ladder import Ladder, fill, rung
from edge_tune.search.simulation import PointsAsPlans
from tests.networks import deep, experiment
from tests.searching import searching, study

SHAPE = (3, 16, 16)
GROUPS = {
    "blocks": et.BlockGroup([f"stage1.{n}" for n in range(4)], keep=et.Integer(0, 4)),
    "widths": et.PrunerGroup(
        ["filters", "channels"],
        [f"stage1.{n}.conv2.weight" for n in range(4)],
        sparsity=et.Uniform(0.1, 0.9),
        importance=["l1", "random"],
    ),
    "second": et.PrunerGroup("filters", ["stage2.0.conv1.weight"], sparsity=et.Choice([0.0, 0.5, 0.75])),
}
RECIPE = et.Retraining(epochs=1, lr=et.LogUniform(1e-3, 0.1))


def problem(**changes: Any) -> et.Experiment:
    return experiment(model="tests.networks:deep", pruner_groups=GROUPS, baselines={}, retraining=RECIPE, **changes)


def shape() -> NetworkShape:
    model = deep(10)
    return network_shape(model, problem().pruners, couplings(model, SHAPE))


def importances(label: str, structure: str, importance: str) -> dict[str, Floats]:
    model = deep(10).eval()
    asked: Point = {"structure": structure, "importance": importance, "sparsity": 0.0}
    group = GROUPS[label]
    assert isinstance(group, et.PrunerGroup)
    return pruning.importances(pruning.Traced(model, couplings(model, SHAPE)), group, asked)


def test_knapsack_is_worth_what_trying_all_choices_finds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        times = [generator.integers(1, 40, generator.integers(2, 6)).astype(float) for _ in range(4)]
        worth = [generator.random(len(its)) for its in times]
        least = sum(its.min() for its in times)
        bound = float(least + generator.integers(0, 60))
        able = [
            sum(gains[one] for gains, one in zip(worth, picked, strict=True))
            for picked in itertools.product(*(range(len(its)) for its in times))
            if sum(its[one] for its, one in zip(times, picked, strict=True)) <= bound
        ]
        found = fill(times, worth, bound)
        assert sum(its[one] for its, one in zip(times, found, strict=True)) <= bound
        assert sum(gains[one] for gains, one in zip(worth, found, strict=True)) == pytest.approx(max(able), rel=0.02)


def test_knapsack_that_nothing_fits_into_takes_the_fastest_choices() -> None:
    assert fill([np.array([3.0, 1.0]), np.array([2.0, 5.0])], [np.ones(2), np.ones(2)], 2.0) == [1, 0]


def test_rungs_halve_the_ladder_again_and_again() -> None:
    assert [rung(number) for number in range(7)] == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]


def drawn(coding: Coding, seed: int = 0) -> Columns:
    return coding.from_units(np.random.default_rng(seed).random((1, len(coding.searched))))


@pytest.mark.parametrize("seed", range(4))
def test_plans_keep_to_their_time_and_leave_what_is_no_size_as_it_was_drawn(seed: int) -> None:
    one = problem()
    coding = Coding(one, one.parameters, shape())
    before = drawn(coding, seed)
    point = coding.point(before, 0)
    ladder = Ladder(coding, importances, lambda costs: costs.macs)
    macs, worth = [], []
    for place in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        columns = ladder.plan(before, place)
        its = coding.point(columns, 0)
        assert all(its[name] in parameter for name, parameter in one.parameters.items())
        assert {name: its[name] for name in its if name not in coding.sizes} == {
            name: point[name] for name in point if name not in coding.sizes
        }
        model = deep(10).eval()
        coupled = couplings(model, SHAPE)
        pruned = pruning.prune(model, pruning.make_plan(model, one.groups, its, coupled), coupled)
        macs.append(pruning.size(pruned, SHAPE)[1] / pruning.size(model, SHAPE)[1])
        worth.append(float(coding.worth(columns, {}, dict.fromkeys(coding.sizes, 1.0))[0]))
    low, high = macs[0], macs[-1]
    assert low < 0.45 < high
    for place, its_macs in zip((0.2, 0.4, 0.6, 0.8), macs[1:-1], strict=True):
        assert low + place * (high - low) - 0.15 < its_macs < low + place * (high - low) + 0.01
    assert worth[0] < worth[2] < worth[-1]


def test_blocks_go_where_layers_cost_the_same_however_narrow_they_are() -> None:
    one = problem()
    coding = Coding(one, one.parameters, shape())
    ladder = Ladder(coding, importances, lambda costs: costs.terms[:, :, 0].sum(axis=1) / 15)
    kept = [float(ladder.plan(drawn(coding), place)["blocks.keep"][0]) for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert kept == [0, 1, 2, 3, 4]


def test_slices_that_matter_little_go_before_others() -> None:
    groups = {
        label: et.PrunerGroup("filters", [f"stage1.{n}.conv1.weight"], sparsity=et.Uniform(0.0, 0.9))
        for n, label in enumerate(("even", "uneven"))
    }
    one = experiment(model="tests.networks:deep", pruner_groups=groups, baselines={})
    model = deep(10)
    coding = Coding(one, one.parameters, network_shape(model, one.pruners, couplings(model, SHAPE)))
    middle = coding.from_units(np.full((1, 2), 0.5))
    slices = coding._own_widths["stage1.0.conv1"][0].slices
    skew = np.where(np.arange(slices) < slices // 2, 1.0, 0.01)
    ladder = Ladder(
        coding,
        lambda label, *_: {"stage1.1.conv1": skew} if label == "uneven" else {"stage1.0.conv1": np.ones(slices)},
        lambda costs: costs.macs,
    )
    point = coding.point(ladder.plan(middle, 0.6), 0)
    assert point["uneven.sparsity"] > point["even.sparsity"]  # type: ignore[operator]


class Planner(PointsAsPlans):
    """Knows the layers, and how important their slices are."""

    def __call__(self, point: Point, *, is_baseline: bool) -> Planned:
        return Planned(json.dumps(dict(point), sort_keys=True), ())

    def shape(self) -> NetworkShape:  # type: ignore[override]
        return shape()

    def importances(self, label: str, structure: str, importance: str) -> dict[str, Floats]:
        return importances(label, structure, importance)


UNPRUNED = Record(
    trial=0,
    baseline="unpruned",
    status="finished",
    metrics={"latency_ratio": 1.0, "latency_ms": 4.0, "top1": 90.0, "parameters": 1e6},
)


@pytest.mark.parametrize(
    ("target", "most"),
    [("front of latency_ratio and top1", 1.0), ("maximise top1 where latency_ms <= 2", 0.5)],
)
def test_first_plans_lie_within_what_the_objective_allows_by_macs(target: str, most: float) -> None:
    one = replace(
        study(trials=20, method="latency_aware", baselines={}, target=target),
        model="tests.networks:deep",
        pruner_groups=GROUPS,
        retraining=RECIPE,
    )
    coding = Coding(one, one.parameters, shape())
    searcher = searching(one, [UNPRUNED], planner=Planner(one.parameters))
    points = []
    for number in range(3):
        config: Any = searcher.suggest(str(number))
        points.append(config["point"])
        searcher.end(Record(trial=config["trial"], status="failed", point=config["point"]))
    macs = coding.costs(coding.columns(points, [False] * 3)).macs
    assert macs.max() < most
    assert macs[1] <= macs[0] <= macs[2] > macs[1]
    assert len({point["retraining.lr"] for point in points}) == 3
