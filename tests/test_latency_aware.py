"""Latency from widths, accuracy from a Gaussian process, and the points that follow: parts first, then a study."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from torch.nn.utils import parametrizations

import edge_tune as et
from edge_tune import surrogate
from edge_tune.inspect import parts
from edge_tune.networks import checking, pruning
from edge_tune.networks.couplings import couplings
from edge_tune.networks.layer_shapes import network_shape
from edge_tune.parameters import Point
from edge_tune.records import fronts
from edge_tune.records.entries import SUGGESTED
from edge_tune.records.results import Results
from edge_tune.run import main
from edge_tune.search import latency_model
from edge_tune.search.coding import Coding, Costs, kept_counts
from edge_tune.search.latency_model import Observed, fit
from edge_tune.surrogate import Surrogate, area_improvement, improvement
from tests import structures
from tests.asked import sparsities
from tests.driving import drive, unpruned
from tests.networks import deep, experiment, small
from tests.searching import UNPRUNED, go_on, ran, searching, study

SHAPE = (3, 16, 16)


def test_kept_counts_are_those_of_pruning() -> None:
    sparsity = np.linspace(0, 0.99, 200)
    for slices in (1, 3, 8, 16, 33):
        for granularity in (1, 4, 8):
            expected = [pruning.kept_count(one, slices, granularity) for one in sparsity]
            assert kept_counts(sparsity, slices, granularity).tolist() == expected


def test_network_shape_counts_what_each_layer_computes_and_knows_who_takes_its_channels() -> None:
    one = experiment()
    shape = network_shape(small(10), one.pruners, couplings(small(10), SHAPE))
    layers = {layer.name: layer for layer in shape.layers}
    assert {name: layer.macs for name, layer in layers.items()} == {
        "stem": 8 * 8 * 8 * 3 * 9,
        **{f"block{block}.conv{conv}": 8 * 8 * 8 * 8 * 9 for block in (1, 2) for conv in (1, 2)},
        "fc": 80,
    }
    assert layers["block1.conv1"].outputs.cuts == layers["block1.conv2"].inputs.cuts == (("first", "out"),)
    assert layers["block2.conv1"].outputs.cuts == (("second", "out"),)
    assert layers["stem"].outputs.cuts == layers["block1.conv1"].inputs.cuts == layers["fc"].inputs.cuts == ()


GROUPS = {
    "blocks": et.BlockGroup([f"stage1.{n}" for n in range(4)], keep=et.Integer(0, 4)),
    "widths": et.PrunerGroup(
        ["filters", "channels"],
        [f"stage1.{n}.conv2.weight" for n in range(4)],
        sparsity=et.Uniform(0.0, 0.9),
    ),
    "second": et.PrunerGroup("filters", ["stage2.0.conv1.weight"], sparsity=et.Uniform(0.0, 0.9)),
}


@pytest.mark.parametrize(
    "computed", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.spectral_norm]
)
def test_network_shape_of_weights_that_are_computed_from_others_is_that_of_plain_ones(
    computed: Callable[[nn.Module], nn.Module],
) -> None:
    groups = {"g": et.PrunerGroup("filters", ["b.0.weight"], sparsity=et.Uniform(0.0, 0.5))}
    shapes = []
    for of in (computed, lambda layer: layer):
        model = structures.chain(c=of(nn.Conv2d(16, 16, 3, padding=1))).eval()
        coupled = checking.check_groups(model, groups, SHAPE)
        layers = network_shape(model, groups, coupled).layers
        sets = {part.name: part.macs for part in parts.find(model, coupled)}
        shapes.append((sorted(layers, key=lambda layer: layer.name), sets["b.0"]))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("granularity", "is_baseline"), [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize(("keep", "sparsity"), [(4, 0.0), (3, 0.3), (1, 0.6), (0, 0.9)])
def test_costs_are_those_of_the_network_that_pruning_makes(
    keep: int, sparsity: float, granularity: int, is_baseline: bool
) -> None:
    groups = {**GROUPS, "widths": replace(GROUPS["widths"], structure="channels")}
    one = experiment(model="tests.networks:deep", pruner_groups=groups, baselines={})
    model = deep(10).eval()
    coupled = couplings(model, SHAPE)
    whole = network_shape(model, one.pruners, coupled, granularity)
    point: Point = {
        **{name: parameter.default for name, parameter in one.parameters.items()},
        "blocks.keep": keep,
        "widths.sparsity": sparsity,
        "second.sparsity": 0.5,
    }
    step = 1 if is_baseline else granularity
    pruned = pruning.prune(model, pruning.make_plan(model, one.groups, point, coupled, step), coupled)
    left = network_shape(pruned, {}, couplings(pruned, SHAPE))
    coding = Coding(one, one.parameters, whole)
    costs = coding.costs(coding.columns([point], [is_baseline]))
    for metric in ("macs", "parameters"):
        total, stays = (sum(getattr(layer, metric) for layer in shape.layers) for shape in (whole, left))
        assert getattr(costs, metric)[0] == pytest.approx(stays / total)
    assert costs.terms[0, :, 0].sum() == len(left.layers)


def test_points_go_to_the_unit_cube_and_back() -> None:
    space = {
        "a.sparsity": et.Uniform(0.1, 0.9),
        "b.lr": et.LogUniform(1e-3, 1.0),
        "c.keep": et.Integer(2, 8),
        "d.structure": et.Choice(["filters", "channels"]),
        "e.momentum": et.Choice([0.9, 0.5]),
        "fixed": et.Choice(["one"]),
    }
    coding = Coding(experiment(), space, None)
    units = np.random.default_rng(0).random((50, 5))
    columns = coding.from_units(units)
    points = [coding.point(columns, row) for row in range(50)]
    assert all(point[name] in parameter for point in points for name, parameter in space.items())
    assert {type(point["c.keep"]) for point in points} == {int}
    assert {point["d.structure"] for point in points} == {"filters", "channels"}
    again = coding.columns(points, [False] * 50)
    assert all(np.allclose(again[name], columns[name]) for name in space)
    assert np.allclose(coding.units(again)[:, :2], units[:, :2])
    assert coding.inputs(columns).shape == (50, 6)  # a text is as many inputs as there are


def costs_of(widths: np.ndarray[Any, Any], most: int = 32) -> Costs:
    """Networks of two kinds of layers, of which each network has one width."""
    terms = np.stack(
        [
            np.stack([np.ones(len(widths)), *(np.ceil(k / step) * step / most for step in (1, 8, 16))], 1)
            for k in widths.T
        ],
        1,
    )
    shares = widths / most
    return Costs(terms, (shares**2).mean(axis=1), shares.mean(axis=1), shares)


def test_latency_of_layers_in_steps_is_found_again_and_said_with_its_error() -> None:
    generator = np.random.default_rng(0)
    widths = generator.integers(1, 33, (40, 2)).astype(float)

    def parts(k: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.stack([0.1 + 0.3 * np.ceil(k[:, 0] / 8) * 8 / 32, 0.3 * k[:, 1] / 32, np.full(len(k), 0.2)], 1)

    counters = parts(widths)
    model = fit(Observed(costs_of(widths[:20]), counters[:20].sum(axis=1), counters[:20], 1.0))
    assert model.terms == "2 kinds of layers"
    assert model.predict(costs_of(widths[20:])) == pytest.approx(counters[20:].sum(axis=1), rel=0.02)
    assert model.error < 0.02
    assert model.text.startswith("2 kinds of layers, from 20 networks; it misses one that is left out by ")


def test_latency_model_has_fewer_terms_while_there_are_few_plans() -> None:
    widths = np.array([[32.0, 16.0], [8.0, 8.0], [16.0, 24.0]])
    costs = costs_of(widths)
    model = fit(Observed(costs, 0.2 + 0.8 * costs.macs, np.ones((3, 3)), 1.0))
    assert model.terms == "MACs"
    assert model.predict(costs) == pytest.approx(0.2 + 0.8 * costs.macs)
    unknown = replace(costs, terms=np.zeros((3, 0, 4)))
    model = fit(Observed(unknown, 0.1 + 0.3 * costs.shares[:, 0] + 0.6 * costs.shares[:, 1], None, 1.0))
    assert model.terms == "the shares that stay"
    assert fit(Observed(unknown, costs.macs)).error >= 0
    one = latency_model.fit(Observed(costs_of(widths[:1]), np.array([0.75]), None, 1.0))
    assert one.error == latency_model.ASSUMED_ERROR


def test_improvements_are_those_of_drawing_many_figures() -> None:
    generator = np.random.default_rng(0)
    front, reference = [(0.3, -60.0), (0.5, -80.0), (0.9, -89.0)], (1.0, 0.0)
    before = fronts.hypervolume(front, reference)
    for known, mean, deviation in ((0.4, -75.0, 4.0), (0.2, -50.0, 10.0), (0.6, -85.0, 2.0), (0.95, -88.0, 1.0)):
        draws = generator.normal(mean, deviation, 20_000)
        single = improvement(-80.0, np.array([mean]), np.array([deviation]))
        assert single[0] == pytest.approx(np.maximum(0, -80.0 - draws).mean(), rel=0.05, abs=0.01)
        area = np.mean([fronts.hypervolume([*front, (known, draw)], reference) - before for draw in draws])
        found = area_improvement(front, reference, *(np.array([one]) for one in (known, mean, deviation)))
        assert found[0] == pytest.approx(area, rel=0.05, abs=0.01)


def test_surrogate_follows_what_was_seen_and_is_unsure_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = np.random.default_rng(0).random((60, 3))
    figures = 80 + 10 * np.sin(3 * inputs[:, 0]) - 5 * inputs[:, 1]
    process = Surrogate(inputs[:40], figures[:40])
    mean, deviation = process.predict(inputs[40:])
    assert np.abs(mean - figures[40:]).max() < 1.0
    assert process.predict(np.array([[3.0, 3.0, 0.5]]))[1][0] > 3 * deviation.max()
    assert process.predict(inputs[:40])[1].max() < deviation.max()
    here = np.array([[0.99, 0.99, 0.99]])
    assert process.with_believed(here).predict(here)[1] < process.predict(here)[1]
    monkeypatch.setattr(surrogate, "USED", 20)
    few = Surrogate(inputs[:40], figures[:40])
    assert len(few._process.X_train_) == 20
    assert figures[:40].max() in few._lifted[few._rows(20)]


def test_throughput_is_expected_to_rise_as_networks_shrink() -> None:
    one = study(trials=20, method="latency_aware", target="maximise throughput_fps where top1 >= 60", baselines={})
    searcher = searching(one, [replace(UNPRUNED, metrics={**UNPRUNED.metrics, "throughput_fps": 1000.0})])
    for number in range(8):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        record = ran(config["trial"], config["point"], one)
        fps = 1000 / record.metrics["latency_ratio"]
        searcher.end(replace(record, metrics={**record.metrics, "throughput_fps": fps}))
    models = searcher.suggester._models()  # type: ignore[attr-defined]
    expected = models.models["throughput_fps"].predict(models.costs)
    assert expected == pytest.approx([one.metrics["throughput_fps"] for one in models.known], rel=0.1)


@pytest.mark.parametrize(
    "target",
    [
        "minimise latency_ratio where top1 >= unpruned - 4",
        "maximise top1 where latency_ms <= 2.4 and parameters <= 600000",
        "front of latency_ratio and top1",
        "0.6 * latency_ratio + 0.4 * top1",
        et.Minimise("latency_ratio"),
        et.Maximise("top1"),
    ],
)
def test_latency_aware_finds_more_than_random_points_do_and_goes_on_as_if_never_interrupted(
    target: str | et.Minimise | et.Maximise,
) -> None:
    found = {}
    for method in ("latency_aware", "random"):
        one = study(trials=20, method=method, target=target, baselines={})
        searcher = searching(one, [UNPRUNED])
        records = go_on(searcher, one, 20)
        scores = [searcher.scorer.score(record) for record in records]
        found[method] = min(scores)
        if method == "latency_aware":
            resumed = searching(one, [UNPRUNED, *records[:11]])
            assert [record.point for record in go_on(resumed, one, 3)] == [record.point for record in records[11:14]]
    assert found["latency_aware"].rank == 0
    assert found["latency_aware"] <= found["random"]


def test_record_keeps_what_was_expected_of_it_when_it_was_suggested_also_after_an_interruption() -> None:
    one = study(trials=20, method="latency_aware", target="front of latency_ratio and top1", baselines={})
    whole = drive(one, most=12)
    said = [bool(record.predictions) for record in whole]
    assert said == sorted(said)  # from some trial on
    assert 0 < sum(said) < len(said)
    last = whole[-1]
    assert last.predictions.keys() == {SUGGESTED}
    assert last.predictions[SUGGESTED].keys() == {"latency_ratio", "top1"}
    assert last.predictions[SUGGESTED]["latency_ratio"] == pytest.approx(last.metrics["latency_ratio"], rel=0.2)
    expected = {last.trial: last.predictions[SUGGESTED]}
    resumed = searching(one, [unpruned(one), *whole[:-1]], {last.trial: last.point}, expected=expected)
    assert isinstance(resumed.suggest("again"), dict)
    assert resumed.expected == expected


def test_what_the_gate_did_not_train_teaches_latency_and_no_accuracy() -> None:
    one = study(trials=20, method="latency_aware", target="minimise latency_ratio where top1 >= 80", baselines={})
    searcher = searching(one, [UNPRUNED])
    for number in range(12):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        searcher.end(ran(config["trial"], config["point"], one, best=0.5))
    models = searcher.suggester._models()  # type: ignore[attr-defined]
    assert 0 < len(models.learned) < len(models.known) == 12
    assert models.accuracies["top1"].figures.min() > 40
    notes = searcher.take_notes()
    assert notes
    assert all(note.startswith("latency_aware: latency_ratio is predicted by the shares that stay, ") for note in notes)
    assert searcher.take_notes() == []


def test_trials_that_run_are_believed_to_come_as_expected_and_others_are_tried_beside_them() -> None:
    one = study(trials=40, method="latency_aware", target="front of latency_ratio and top1", baselines={})
    searcher = searching(one, [UNPRUNED])
    go_on(searcher, one, 12)
    at_once = [searcher.suggest(f"at once {number}") for number in range(4)]
    points = [tuple(sparsities(config["point"]).values()) for config in at_once if isinstance(config, dict)]
    distances = [np.abs(np.subtract(a, b)).max() for n, a in enumerate(points) for b in points[:n]]
    assert len(points) == 4
    assert min(distances) > 0.01


FILE = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make(
    target="minimise latency_ratio where top1 >= 20",
    retraining=et.Retraining(epochs=1, lr=0.05, batch_size=32, precision="f32"),
    search=et.Search("latency_aware", trials=9, seed=1),
    benchmark=et.Benchmark(device="CPU", runs=5, max_s=0.3),
    baselines={},
)
"""


@pytest.mark.slow
def test_study_is_searched_by_what_its_own_measurements_say_of_layers(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("study.py").write_text(FILE)
    assert main(["study.py", "--results=out"]) == 0
    assert len([record for record in Results(Path("out")).trials() if record.same_as is None]) == 9
    assert "latency_aware: latency_ratio is predicted by " in capsys.readouterr().out
