import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, MultiStepLR, StepLR

import edge_tune as et
import edge_tune.experiment
from edge_tune.errors import ExperimentError
from edge_tune.experiment import settled
from edge_tune.loading import as_json, as_text, identity, load_experiment, objective_from_json
from tests.networks import BLOCKS, experiment

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize(
    ("epoch", "lr"), [(0, 0.1), (9, 0.1), (10, 0.1), (11, 0.095), (69, 0.00484945)]
)  # 0.95**60 = 0.0460698 by hand, / 0.95 * 0.1
def test_exponential_decays_without_a_jump(epoch: int, lr: float) -> None:
    recipe = et.Retraining(epochs=70, lr=0.1, decay=et.Exponential(gamma=0.95, from_epoch=10))
    assert recipe.lr_at(epoch) == pytest.approx(lr, rel=1e-6)


def test_step_falls_every_so_many_epochs() -> None:
    recipe = et.Retraining(epochs=9, lr=0.8, decay=et.Step(gamma=0.5, every_epochs=3, from_epoch=1))
    assert [recipe.lr_at(epoch) for epoch in range(9)] == [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]


def test_multi_step_falls_at_its_milestones() -> None:
    recipe = et.Retraining(epochs=7, lr=0.8, decay=et.MultiStep(gamma=0.5, milestones=[2, 5, 5]))
    assert [recipe.lr_at(epoch) for epoch in range(7)] == [0.8, 0.8, 0.4, 0.4, 0.4, 0.1, 0.1]


@pytest.mark.parametrize(
    ("decay", "scheduler"),
    [
        (et.Exponential(gamma=0.9), lambda sgd: ExponentialLR(sgd, gamma=0.9)),
        (et.Step(gamma=0.1, every_epochs=4), lambda sgd: StepLR(sgd, step_size=4, gamma=0.1)),
        (et.MultiStep(gamma=0.3, milestones=[3, 7]), lambda sgd: MultiStepLR(sgd, milestones=[3, 7], gamma=0.3)),
    ],
)
def test_decays_from_epoch_0_are_those_of_torch(
    decay: et.Exponential | et.Step | et.MultiStep, scheduler: Callable[[SGD], LRScheduler]
) -> None:
    sgd = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = scheduler(sgd)
    recipe = et.Retraining(epochs=12, lr=0.1, decay=decay)
    for epoch in range(12):
        assert recipe.lr_at(epoch) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        sgd.step()
        schedule.step()


def test_cosine_starts_at_lr_and_halves_in_the_middle() -> None:
    recipe = et.Retraining(epochs=8, lr=0.4, decay=et.Cosine())
    assert recipe.lr_at(0) == pytest.approx(0.4)
    assert recipe.lr_at(4) == pytest.approx(0.2)
    assert recipe.lr_at(7) == pytest.approx(0.4 * math.sin(math.pi / 16) ** 2)


def test_lr_at_rises_by_equal_steps_while_it_warms_up_and_decays_all_the_same() -> None:
    recipe = et.Retraining(epochs=8, lr=0.4, decay=et.Step(gamma=0.5, every_epochs=1), warmup_epochs=2)
    # 2 epochs of 4 steps: eighths of the decayed rate, 0.4 in the first epoch and 0.2 in the second.
    found = [recipe.lr_at(epoch, step, 4) for epoch in range(3) for step in range(4)]
    expected = [0.05, 0.1, 0.15, 0.2, 0.125, 0.15, 0.175, 0.2, 0.1, 0.1, 0.1, 0.1]
    assert found == pytest.approx(expected)


def test_decays_keep_their_rate_within_an_epoch() -> None:
    decays = [
        et.Exponential(gamma=0.9),
        et.Step(gamma=0.1, every_epochs=2),
        et.MultiStep(gamma=0.3, milestones=[1, 2]),
        et.Cosine(),
    ]
    for decay in decays:
        recipe = et.Retraining(epochs=5, lr=0.1, decay=decay)
        for epoch in range(5):
            assert {recipe.lr_at(epoch, step, 7) for step in range(7)} == {recipe.lr_at(epoch)}


def test_one_cycle_rises_and_falls_from_step_to_step() -> None:
    recipe = et.Retraining(epochs=2, lr=1.0, decay=et.OneCycle(rise=0.25, start=0.2))
    # 8 steps: x = 0, 1/8, ... 7/8; up to x = 1/4 by 0.8 / 2 a step, then down by 1 / 6 a step.
    found = [recipe.lr_at(epoch, step, 4) for epoch in range(2) for step in range(4)]
    assert found == pytest.approx([0.2, 0.6, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decay": et.OneCycle(rise=1)}, r"retraining: rise must hold 0 < rise < 1, but got 1\."),
        ({"decay": et.OneCycle(start=0)}, r"retraining: start must hold 0 < start <= 1, but got 0\."),
        ({"decay": et.OneCycle(), "warmup_epochs": 1}, r"warmup_epochs must be 0 with OneCycle, .*, but got 1\."),
        ({"warmup_epochs": 3}, r"warmup_epochs must be at most epochs, 2, but got 3\."),
        ({"warmup_epochs": et.Choice([0, 5])}, r"warmup_epochs must be at most epochs, 2, but got Choice"),
        ({"warmup_epochs": 0.5}, r"warmup_epochs must be a whole number of at least 0, but got 0\.5"),
        ({"loss": "mse"}, r"loss must be 'cross_entropy' or 'package.module:function', but got 'mse'\."),
        ({"loss": len}, r"loss must be 'cross_entropy' or 'package.module:function', but got <built-in"),
        ({"loss": "mine:loss", "label_smoothing": 0.1}, r"label_smoothing must be left out with a loss of your own,"),
        ({"label_smoothing": 1}, r"label_smoothing must be .* hold 0 <= label_smoothing < 1, but got 1\."),
        ({"optimiser": "adam"}, r"optimiser must be one of \['sgd', 'adamw'\], but got 'adam'"),
        ({"optimiser": "adamw", "momentum": 0.9}, r"momentum must be left out with AdamW, .*, but got 0\.9\."),
        ({"optimiser": "adamw", "nesterov": True}, r"nesterov must be left out with AdamW, .*, but got True\."),
        ({"nesterov": True, "momentum": 0.0}, r"momentum must be above 0 where nesterov is True, but got 0\.0\."),
        ({"nesterov": "yes"}, r"nesterov must be True or False, but got 'yes'"),
        ({"distillation": 0.9}, r"distillation must be et\.Distillation\(\.\.\.\) or None, but got 0\.9\."),
        ({"distillation": et.Distillation(weight=1.5)}, r"hold 0 <= distillation_weight <= 1, but got 1\.5\."),
        ({"distillation": et.Distillation(temperature=0)}, r"hold 0 < distillation_temperature, but got 0\."),
        ({"average": 0.999}, r"average must be et\.Ema\(\.\.\.\) or None, but got 0\.999\."),
        ({"average": et.Ema(1.0)}, r"average_decay must be .* hold 0 <= average_decay < 1, but got 1\.0\."),
    ],
)
def test_recipe_tells_what_is_wrong_with_it(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem) as caught:
        experiment(retraining=et.Retraining(epochs=2, **{"lr": 0.1, **changes}))
    assert len(caught.value.problems) == 1


def test_training_of_the_unpruned_network_has_no_teacher() -> None:
    recipe = et.Retraining(epochs=2, lr=0.1, distillation=et.Distillation())
    with pytest.raises(ExperimentError, match=r"^training: must not distil, since it makes the unpruned network"):
        experiment(training=recipe)
    assert experiment(retraining=recipe).retraining == recipe


def test_unpruned_network_is_a_baseline_where_all_are_retrained_by_one_recipe() -> None:
    one = experiment(target="minimise latency_ms where top1 >= unpruned_retrained - 1")
    assert one.baseline_names == ("half", "unpruned_retrained")
    assert one.baseline_point("unpruned_retrained") == {}
    assert one.baseline_point("half") == one.point(one.baselines["half"])
    searched = et.Retraining(epochs=2, lr=et.LogUniform(0.01, 0.1))
    for recipe in (et.Retraining(epochs=0, lr=0.1), searched):
        assert experiment(retraining=recipe, baselines={}).baseline_names == ()
        with pytest.raises(ExperimentError, match=r"^target: compares with 'unpruned_retrained', which there is only"):
            experiment(retraining=recipe, baselines={}, target=one.target)


def test_numbers_of_the_parts_of_a_recipe_are_searched_under_both_names() -> None:
    recipe = et.Retraining(
        epochs=2,
        lr=0.1,
        warmup_epochs=et.Integer(0, 2),
        distillation=et.Distillation(weight=et.Uniform(0.5, 1.0)),
        average=et.Ema(et.Choice([0.9, 0.99])),
    )
    one = experiment(retraining=recipe, baselines={})
    names = ["warmup_epochs", "distillation_weight", "average_decay"]
    assert list(one.parameters)[-3:] == [f"retraining.{name}" for name in names]
    settled = recipe.at({"warmup_epochs": 1, "distillation_weight": 0.75, "average_decay": 0.99})
    assert settled == replace(recipe, warmup_epochs=1, distillation=et.Distillation(weight=0.75), average=et.Ema(0.99))
    assert identity(one)["retraining"]["distillation"]["weight"] == {"type": "Uniform", "low": 0.5, "high": 1.0}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": ""}, r"model: must be the name of a network"),
        ({"dataset": 3}, r"dataset: must be a name, a path or a Data, but got 3"),
        ({"dataset": et.Data("digits", image_size=2)}, r"dataset: image_size must be .* at least 8, but got 2"),
        ({"dataset": et.Data("digits", validation_fraction=1.0)}, r"0 < fraction < 1, but got 1.0"),
        ({"dataset": et.Data(5)}, r"^dataset: name must be a data set or the path of an image folder, but got 5\."),
        ({"dataset": et.Data("digits", image_size=(16, 4))}, r"each of image_size must be .* at least 8, but got 4"),
        (
            {"dataset": et.Data("digits", image_size=(16, 16, 3))},
            r"at least 8, two of them, \(height, width\), or 'native', but got \(16, 16, 3\)",
        ),
        ({"dataset": et.Data("digits", image_size="large")}, r"or 'native', but got 'large'"),  # type: ignore[arg-type]
        (
            {"dataset": et.Data("digits", mean=(123.7, 116.3, 103.5))},
            r"dataset: mean must hold 0 <= mean <= 1 for each channel, .* got \(123.7, 116.3, 103.5\); divide those",
        ),
        ({"dataset": et.Data("digits", mean=0.5)}, r"mean must be a list of three numbers, .*, but got 0.5"),  # type: ignore[arg-type]
        (
            {"dataset": et.Data("digits", std=[0.2, 0, 0.2])},
            r"std must hold 0 < std <= 1 for each .*, but got \(0.2, 0, 0.2\);",
        ),
        (
            {"dataset": et.Data("digits", mean=[0.5] * 3), "model": "inception_v3"},
            r"dataset: mean and std must be left out with inception_v3, .* but got \(0\.5, 0\.5, 0\.5\) and \(0\.229",
        ),
        (
            {"dataset": et.Data("digits", augmentation="flip")},
            r"augmentation must be a list of some of \['crop', 'resized_crop', 'flip'\], or None, but got 'flip'",
        ),
        ({"dataset": et.Data("digits", augmentation=["blur"])}, r"augmentation must be a list of .* \('blur',\)"),
        (
            {"dataset": et.Data("digits", augmentation=["crop", "resized_crop"])},
            r"augmentation must crop and mirror in one way each, but got \['crop', 'resized_crop'\]",
        ),
        (
            {"dataset": et.Data("digits", augmentation=["flip"], horizontal_flip=False)},
            r"horizontal_flip must be left out where augmentation is given, but got False; write 'flip'",
        ),
        (
            {"dataset": et.Data("digits", horizontal_flip="no")},
            r"horizontal_flip must be True, .* None, but got 'no'\.",
        ),
        ({"pruner_groups": {}}, r"pruner_groups: must hold at least one group"),
        ({"pruner_groups": {"a/b": BLOCKS["first"]}}, r"pruner_groups\['a/b'\]: a label must consist of"),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", [], sparsity=et.Uniform(0, 0.5))}},
            r"pruner_groups\['a'\]: weights must name at least one weight, but got none",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", "x.weight", sparsity=et.Uniform(0, 0.5))}},
            r"weights must be a list of names, but got the text 'x.weight'",
        ),
        ({"pruner_groups": {"a": BLOCKS["first"], "b": BLOCKS["first"]}}, r"in one group only, .* already in 'a'"),
        (
            {"pruner_groups": {"a": et.PrunerGroup("rows", ["w"], sparsity=et.Uniform(0, 0.5))}},  # type: ignore[arg-type]
            r"structure must be one of \['filters', 'channels'\], 'package.module:name' or .*, but got 'rows'",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", ["w"], sparsity=et.Uniform(0, 1))}},
            r"0 <= low <= high < 1, but got Uniform\(0, 1\)",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", ["w"], sparsity=et.Uniform(-0.1, 0.5))}},
            r"but got Uniform\(-0.1, 0.5\)",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", ["w"], sparsity=et.Choice([0.5, 1.0]))}},
            r"sparsity must hold 0 <= sparsity < 1, but got 1.0 in Choice",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", ["w"], sparsity=et.Uniform(0.5, 0.5))}},
            r"must leave something to search",
        ),
        ({"target": et.Minimise("speed")}, r"target: a metric must be one of \['top1', .*\], but got 'speed'"),
        ({"target": 5}, r"target: must be Minimise\(metric\), Maximise\(metric\) or an objective as text, but got 5"),
        (
            {"target": "latency_ms"},
            r"target: objective 'latency_ms': must begin with 'minimise', 'maximise', 'front' or a weight",
        ),
        ({"target": "minimise speed"}, r"target: a metric must be one of \['top1', .*, but got 'speed'"),
        ({"target": "minimise macs where speed > 2"}, r"target: a metric must be one of .*, but got 'speed'"),
        (
            {"target": "front of latency_ratio and top1 where score <= 0.5"},
            r"target: a metric must be one of .*, but got 'score'",
        ),
        (
            {"target": "0.5 * latency_ratio + 0.5 * top1 where score <= 0"},
            r"target: a metric must be one of .*, but got 'score'",
        ),
        (
            {"target": "minimise macs where top1 > fast"},
            r"target: a bound must be .* baselines, \['unpruned', 'half', 'unpruned_retrained'\], but got 'fast'",
        ),
        ({"retraining": et.Retraining(epochs=-1, lr=0.1)}, r"retraining: epochs must be .* at least 0, but got -1"),
        ({"retraining": et.Retraining(epochs=1, lr=0)}, r"retraining: lr must be a number and hold 0 < lr, but got 0"),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=et.Exponential(gamma=1.5))},
            r"0 < gamma <= 1, but got 1.5",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=et.Step(gamma=0.1, every_epochs=0))},
            r"retraining: every_epochs must be a whole number of at least 1, but got 0",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=et.Step(gamma="0.1", every_epochs=1))},  # type: ignore[arg-type]
            r"retraining: gamma must hold 0 < gamma <= 1, but got '0.1'",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=et.MultiStep(gamma=0.1, milestones=[]))},
            r"retraining: milestones must name at least one epoch, but got none",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=et.MultiStep(gamma=0.1, milestones=[30, 4.5]))},  # type: ignore[list-item]
            r"retraining: each of milestones must be a whole number of at least 0, but got 4.5",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=0.95)},  # type: ignore[arg-type]
            r"retraining: decay must be Exponential, Step, MultiStep, Cosine, OneCycle or None, but got 0.95",
        ),
        ({"stopping": [et.Asha(et.Maximise("accuracy"))]}, r"stopping, Asha: a metric must be one of"),
        ({"stopping": [et.Hopeless(), et.Hopeless(after_epochs=2)]}, r"at most one rule of a kind"),
        ({"benchmark": et.Benchmark(runs=0)}, r"benchmark: runs must be a whole number of at least 1, but got 0"),
        ({"benchmark": et.Benchmark(align=0)}, r"benchmark: align must be a whole number of at least 1, but got 0"),
        ({"benchmark": et.Benchmark(align=True)}, r"align must be a whole number of at least 1, but got True"),
        ({"benchmark": et.Benchmark(align="always")}, r"align must be one of \['auto'\], but got 'always'"),  # type: ignore[arg-type]
        ({"benchmark": et.Benchmark(device="fake", align="auto")}, r"'fake', a formula without steps, but got 'auto'"),
        ({"benchmark": et.Benchmark(max_s=0)}, r"benchmark: max_s must be a number above 0, but got 0"),
        ({"benchmark": et.Benchmark(python="")}, r"benchmark: python must be the path of an interpreter or None"),
        (
            {"benchmark": et.Benchmark(host=["pi@one", "pi@one"])},
            "benchmark: host must name each host once, but got 'pi@one' 2 times",
        ),
        ({"benchmark": et.Benchmark(host=[])}, "benchmark: host must name at least one host, or be None"),
        (
            {"benchmark": et.Benchmark(host=["pi@one", "pi board"])},
            r"benchmark: host must be one as ssh names it, .* got 'pi board'",
        ),
        (
            {"benchmark": et.Benchmark(retries=-1)},
            r"benchmark: retries must be a whole number of at least 0, but got -1",
        ),
        ({"keep_weights": "some"}, r"keep_weights must be one of \['best', 'front', 'all'\], but got 'some'"),
        ({"search": et.Search("bayes", trials=3)}, r"search: method must be one of .* but got 'bayes'"),  # type: ignore[arg-type]
        (
            {"search": et.Search("grid", trials=3)},
            r"a grid needs values that can be counted, .* but \['first.sparsity', 'second.sparsity'\] have a range",
        ),
        ({"search": et.Search("random", trials=0)}, r"trials must be a whole number of at least 1, but got 0"),
        ({"baselines": {"b": {"first": 0.5}}}, r"baselines\['b'\]: .* lacks the group 'second'"),
        ({"baselines": {"b": {"first": 0.5, "second": 0.5, "x": 0}}}, r"has no group or parameter 'x'"),
        ({"baselines": {"b": {"first": 0.995, "second": 0.5}}}, r"must lie within Uniform.*, but got 0.995"),
        (
            {"pruner_groups": None},
            r"pruner_groups: must be a dict of label -> PrunerGroup or BlockGroup, or 'auto', but got None",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", ["w"], sparsity=et.Uniform("0.1", 0.9))}},  # type: ignore[arg-type]
            r"0 <= low <= high < 1, but got Uniform\('0.1', 0.9\)",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", ["w"], sparsity=et.Choice(0.5))}},  # type: ignore[arg-type]
            r"sparsity must be a list of values, but got Choice\(0.5\)",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup(None, ["w"], sparsity=et.Uniform(0, 0.5))}},  # type: ignore[arg-type]
            r"structure must be one of .* but got None",
        ),
        (
            {"pruner_groups": {"a": et.PrunerGroup("filters", None, sparsity=et.Uniform(0, 0.5))}},  # type: ignore[arg-type]
            r"weights must be a list of names, but got None",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, decay=et.Exponential(gamma="x"))},  # type: ignore[arg-type]
            r"0 < gamma <= 1, but got 'x'",
        ),
        ({"training": 3}, r"training: must be a Retraining or None, but got 3"),
        ({"stopping": None}, r"stopping: must be a list of Asha, Hopeless and Predicted rules, but got None"),
        (
            {"search": et.Search("random", trials=3, seed=2**32)},
            r"search: seed must be at most 4294967295, but got 4294967296",
        ),
        ({"baselines": None}, r"baselines: must be a dict of name -> label -> sparsity, but got None"),
        ({"baselines": {1: {"first": 0.5, "second": 0.5}}}, r"baselines\[1\]: a name must consist of .* but got 1"),
        ({"baselines": {"b": 0.5}}, r"baselines\['b'\]: must be a dict of label -> sparsity, but got 0.5"),
        (
            {"baselines": {"unpruned_retrained": {"first": 0.5, "second": 0.5}}},
            r"'unpruned_retrained' is measured anyway; give this baseline another name",
        ),
        ({"baselines": {"trial_0002": {"first": 0.5, "second": 0.5}}}, r"\['trial_0002'\]: trials are named so"),
        ({"baselines": {"unpruned": {"first": 0.5, "second": 0.5}}}, r"'unpruned' is measured anyway"),
    ],
)
def test_experiment_refuses_what_cannot_run(changes: dict[str, object], problem: str) -> None:
    baselines = {} if "pruner_groups" in changes else {"half": {"first": 0.5, "second": 0.5}}
    with pytest.raises(ExperimentError, match=problem) as error:
        experiment(**{"baselines": baselines, **changes})
    assert len(error.value.problems) == 1


def test_experiment_raises_all_problems_together() -> None:
    with pytest.raises(ExperimentError, match="model: must be") as error:
        experiment(model="", target=et.Minimise("speed"), search=et.Search("random", trials=0))
    assert [problem.split(":")[0] for problem in error.value.problems] == ["model", "target", "search"]


def test_leading_module_is_dropped_where_the_network_has_no_such_name() -> None:
    group = et.PrunerGroup("filters", ["module.a.weight"], sparsity=et.Uniform(0, 0.5))
    blocks = et.BlockGroup(["module.r", "r"], keep=et.Integer(0, 2), order=["r", "module.r"])
    one = experiment(pruner_groups={"g": group, "b": blocks}, baselines={})
    for known, weights, order in (
        ({"module.a.weight", "module.r", "r"}, ("module.a.weight",), ("r", "module.r")),
        ({"a.weight", "r", "module.r"}, ("a.weight",), ("r", "module.r")),
    ):
        named = one.named_in(known)
        assert (named.pruners["g"].weights, named.block_groups["b"].order) == (weights, order)
    with pytest.raises(ExperimentError, match="'r' is already in 'b'"):
        one.named_in({"r"})


@pytest.mark.parametrize("name", ["resnet56_latency", "resnet56_top1", "resnet56_no_retraining"])
def test_shipped_experiment_loads_with_the_schedule_of_the_dissertation(name: str) -> None:
    shipped = load_experiment(EXPERIMENTS / f"{name}.py")
    assert [len(group.weights) for group in shipped.pruner_groups.values()] == [9, 6, 1, 6]
    assert shipped.baselines == {"off_the_shelf": {"layer_1": 0.7, "layer_2": 0.6, "layer_3.1": 0.2, "layer_3.2": 0.4}}
    assert shipped.target == (et.Maximise("top1") if name == "resnet56_top1" else et.Minimise("latency_ratio"))
    assert shipped.retraining.epochs == (0 if name == "resnet56_no_retraining" else 70)
    assert shipped.rule(et.Hopeless) == et.Hopeless(after_epochs=0 if name == "resnet56_no_retraining" else 1)


def test_shipped_experiment_looks_for_the_fastest_within_a_point_by_what_the_unpruned_network_teaches() -> None:
    shipped = load_experiment(EXPERIMENTS / "resnet56_fastest_within_1.py")
    assert shipped.objective.text == "minimise latency_ratio where top1 >= unpruned - 1"
    assert shipped.retraining.distillation == et.Distillation()
    assert 0.02 <= settled(shipped.retraining.lr) <= 0.05
    assert shipped.baseline_names == ("off_the_shelf", "unpruned_retrained")


def test_shipped_experiment_for_a_folder_takes_images_of_the_size_that_published_weights_were_trained_with() -> None:
    shipped = load_experiment(EXPERIMENTS / "mobilenet_v2_folder.py")
    assert (shipped.model, shipped.pruner_groups, shipped.data.image_size) == ("mobilenet_v2", "auto", 224)
    assert shipped.weights is None  # --weights names them
    assert shipped.training is not None
    assert shipped.training.distillation is None
    assert shipped.objective.text == "minimise latency_ratio where top1 >= unpruned - 2"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import edge_tune as et\nexperiment = (", r"study.py:2: SyntaxError: '\(' was never closed"),
        ("x = 1\ny = undefined\n", r"study.py:2: NameError: name 'undefined' is not defined"),
        ("x = 1\n", r"study.py: must define `experiment = et.Experiment\(...\)`, but got no such name"),
        ("experiment = 3\n", r"but got 3"),
    ],
)
def test_load_experiment_names_the_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "study.py"
    file.write_text(text)
    with pytest.raises(ExperimentError, match=problem):
        load_experiment(file)


def test_load_experiment_refuses_a_missing_file_and_a_name_ray_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"none.py: an experiment must be a Python file, but there is none"):
        load_experiment(tmp_path / "none.py")
    (tmp_path / "my study!.py").write_text("")
    with pytest.raises(ExperimentError, match=r"must consist of at most 100 letters, .* but got 'my study!'; rename"):
        load_experiment(tmp_path / "my study!.py")


def test_as_json_tells_goals_of_equal_metric_apart() -> None:
    smallest, largest = experiment(target=et.Minimise("top1")), experiment(target=et.Maximise("top1"))
    assert as_json(smallest) != as_json(largest)
    assert as_json(smallest) == as_json(replace(smallest))


def test_objective_from_json_takes_back_what_as_json_wrote() -> None:
    for target in (et.Minimise("latency_ratio"), et.Maximise("top1"), "minimise latency_ms where top1 >= half - 1"):
        one = experiment(target=target)
        assert objective_from_json(json.loads(json.dumps(as_json(one)["target"]))) == one.objective
    with pytest.raises(
        ExperimentError,
        match=r"must be a Minimise or Maximise of a metric, or an objective as text, but got \{'type': 'Search'\}",
    ):
        objective_from_json({"type": "Search"})


@pytest.mark.parametrize("dataset", [Path("my/images"), et.Data(Path("my/images")), "my/images"])
def test_data_names_a_folder_by_path_or_text(dataset: object) -> None:
    one = experiment(dataset=dataset)
    assert one.data == et.Data("my/images")
    assert json.loads(json.dumps(as_json(replace(one, dataset=one.data))))["dataset"]["name"] == "my/images"


def test_data_takes_a_path_for_a_folder_even_if_it_is_called_like_a_data_set() -> None:
    assert et.Data(Path("digits")).name == "./digits"
    assert et.Data("digits").name == "digits"


def test_paths_are_welcome_wherever_a_file_is_named() -> None:
    found = experiment(weights=Path("a/x.pt"), dataset=Path("images"), benchmark=et.Benchmark(python=Path("b/python")))
    assert (found.weights, found.data.name, found.benchmark.python) == ("a/x.pt", "images", "b/python")
    assert as_json(found)["weights"] == "a/x.pt"


@pytest.mark.parametrize(
    ("weights", "shown"),
    [
        ("https://me:key@host/a/x.pt?X-Amz-Signature=secret#part", "https://host/a/x.pt"),
        ("HTTP://host/x.pt", "HTTP://host/x.pt"),
        ("https://[x.pt?secret", "https://[x.pt"),
        ("folder/a?b@c.pt", "folder/a?b@c.pt"),
    ],
)
def test_as_json_keeps_the_secrets_of_a_url(weights: str, shown: str) -> None:
    assert as_json(experiment(weights=weights))["weights"] == shown


def test_load_experiment_reads_the_encoding_that_a_file_names(tmp_path: Path) -> None:
    text = '# coding: latin-1\nfrom tests.networks import experiment as make\nNAME = "gr\xf6\xdfe"\n'
    (tmp_path / "study.py").write_bytes(f"{text}assert len(NAME) == 5\nexperiment = make()\n".encode("latin-1"))
    assert load_experiment(tmp_path / "study.py") == experiment()
    assert 'NAME = "gr\xf6\xdfe"' in as_text((tmp_path / "study.py").read_bytes())


def test_recipe_contributes_parameters_to_the_search() -> None:
    recipe = et.Retraining(epochs=2, lr=et.LogUniform(0.01, 0.2), batch_size=et.Integer(8, 64))
    known = {"half": {"first": 0.5, "second": 0.5, "retraining.lr": 0.1, "retraining.batch_size": 32}}
    one = experiment(retraining=recipe, baselines=known)
    assert list(one.parameters)[-2:] == ["retraining.lr", "retraining.batch_size"]
    assert one.point(known["half"]).items() >= {"first.sparsity": 0.5, "retraining.lr": 0.1}.items()
    assert recipe.at({"lr": 0.1, "batch_size": 32}) == et.Retraining(epochs=2, lr=0.1, batch_size=32)
    with pytest.raises(
        ExperimentError, match=r"baselines\['half'\]: must give each number .*, but it lacks 'retraining.lr'"
    ):
        experiment(
            retraining=et.Retraining(epochs=2, lr=et.Uniform(0.01, 0.2)),
            baselines={"half": {"first": 0.5, "second": 0.5}},
        )
    with pytest.raises(ExperimentError, match=r"training: must be settled, .* but \['momentum'\] are ranges"):
        experiment(training=et.Retraining(epochs=2, lr=0.1, momentum=et.Uniform(0.0, 0.5)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"pruner_groups": {"a": BLOCKS["first"], "a.sparsity": BLOCKS["second"]}, "baselines": {}},
            r"pruner_groups\['a.sparsity'\]: a label must not be the name of a parameter",
        ),
        (
            {"pruner_groups": {"retraining.lr": BLOCKS["first"]}, "baselines": {}},
            r"\['retraining.lr'\]: a label must not be the name of a parameter or of the recipe",
        ),
        (
            {"baselines": {"half": {"first": 0.5, "first.sparsity": 0.25, "second": 0.5}}},
            r"baselines\['half'\]: must give each value once, but gives 'first' and 'first.sparsity'",
        ),
        (
            {"retraining": et.Retraining(epochs=0, lr=et.Uniform(0.1, 0.2)), "baselines": {}},
            r"retraining: epochs must be at least 1 where \['lr'\] of the recipe are searched, but got 0",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=et.Integer(1, 2)), "baselines": {}},
            r"retraining: lr must be a number, Uniform or a Choice, but got Integer\(low=1, high=2\)",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, batch_size=et.Integer("a", 3)), "baselines": {}},  # type: ignore[arg-type]
            r"batch_size must hold 2 <= low <= high with whole numbers, but got Integer\('a', 3\)",
        ),
        (
            {"retraining": et.Retraining(epochs=1, lr=0.1, batch_size=et.Choice(3)), "baselines": {}},  # type: ignore[arg-type]
            r"batch_size must be a list of values, but got Choice\(3\)",
        ),
        (
            {"baselines": {"half": {"first": 0.5, "second": 0.5, "retraining.lr": 0.1}}},
            r"it has no group or parameter 'retraining.lr'",
        ),
    ],
)
def test_parameters_and_baselines_that_could_be_mistaken_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        experiment(**changes)


def test_a_range_of_many_whole_numbers_costs_nothing() -> None:
    recipe = et.Retraining(epochs=1, lr=0.1, batch_size=et.Integer(2, 10**9))
    assert experiment(retraining=recipe, baselines={}).parameters["retraining.batch_size"].limits == (2, 10**9)


# What a resumed study must not change


MAY_CHANGE = {
    ("Experiment", "keep_weights"),
    ("Search", "trials"),
    ("Search", "epochs"),
    ("Search", "max_concurrent_trials"),
    ("Search", "cpus_per_trial"),
    ("Search", "gpus_per_trial"),
    ("Search", "time_budget_s"),
    ("Search", "trial_time_limit_s"),
    ("Search", "max_failed_trials"),
}


def settings(part: object, written: Any) -> Iterator[tuple[type, str, bool]]:
    """Yield each field of every settings class in an experiment, and whether it was written."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        for field in dataclasses.fields(part):
            yield type(part), field.name, field.name in written
            if field.name in written:
                yield from settings(getattr(part, field.name), written[field.name])
    elif isinstance(part, Mapping):
        for key in part:
            yield from settings(part[key], written[key])
    elif isinstance(part, tuple):
        for item, plain in zip(part, written, strict=True):
            yield from settings(item, plain)
    else:
        assert part == written


def test_every_setting_is_in_the_identity_or_marked() -> None:
    first, second = BLOCKS.values()
    decays = [
        et.Exponential(gamma=0.5),
        et.Step(gamma=0.5, every_epochs=2),
        et.MultiStep(gamma=0.5, milestones=[1]),
        et.Cosine(),
        et.OneCycle(),
    ]
    seen, left_out = set(), set()
    for decay in decays:
        one = experiment(
            dataset=et.Data("digits", mean=[0.5] * 3, std=[0.5] * 3, augmentation=[]),
            pruner_groups={
                "first": replace(first, sparsity=et.Choice([0.5, 0.7])),
                "second": second,
                "blocks": et.BlockGroup(["block2"], keep=et.Integer(0, 1), order=["block2"]),
            },
            baselines={},
            benchmark=et.Benchmark(host="pi@board"),
            retraining=et.Retraining(epochs=2, lr=0.1, decay=decay, loss="mine:loss"),
            training=et.Retraining(epochs=2, lr=0.1, loss="mine:loss"),
            stopping=[et.Asha(et.Maximise("top1")), et.Predicted(), et.Hopeless()],
        )
        for kind, name, is_written in settings(one, identity(one)):
            seen.add(kind)
            left_out |= set() if is_written else {(kind.__name__, name)}
    all_kinds = {
        kind
        for kind in vars(edge_tune.experiment).values()
        if isinstance(kind, type) and kind.__module__ == "edge_tune.experiment" and hasattr(kind, "problems")
    }
    assert all_kinds - seen == {et.Cosine}  # which has no settings
    assert left_out == MAY_CHANGE


def test_what_is_marked_may_change_and_what_is_not_may_not() -> None:
    search = et.Search("hyperopt", trials=9, max_concurrent_trials=1, time_budget_s=9.0, max_failed_trials=1)
    assert identity(experiment(search=search, keep_weights="all")) == identity(experiment())
    assert identity(experiment(search=replace(search, seed=1))) != identity(experiment())
    assert identity(experiment(dataset="digits")) == identity(experiment(dataset=et.Data("digits")))


@pytest.mark.parametrize(
    ("benchmark", "takes"),
    [(et.Benchmark(), True), (et.Benchmark(device="fake"), False), (et.Benchmark(host="pi@board"), False)],
)
def test_only_a_device_on_a_node_takes_cores_from_trials(benchmark: et.Benchmark, takes: bool) -> None:
    assert benchmark.takes_cores == takes


def test_a_study_that_was_recorded_before_some_settings_were_there_is_the_same_without_them() -> None:
    assert identity(experiment())["dataset"] == {
        "type": "Data",
        "name": "digits",
        "image_size": 16,
        "validation_fraction": 0.1,
        "train_images": 128,
        "horizontal_flip": None,
    }
    squared = replace(experiment(), dataset=et.Data("digits", image_size=[16, 16], train_images=128))
    assert identity(squared) == identity(experiment())
