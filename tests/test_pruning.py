import math
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch
from torch import nn

import edge_tune as et
from edge_tune.errors import ExperimentError, PruningError
from edge_tune.loading import load_experiment
from edge_tune.networks import checking, models, pruning
from edge_tune.networks.couplings import couplings
from edge_tune.parameters import Point
from edge_tune.records.entries import Cut
from edge_tune.records.jsonfiles import converted, plain
from tests.asked import asked
from tests.networks import Small
from tests.test_experiment import EXPERIMENTS

SHAPE = (3, 16, 16)
COUPLED = couplings(Small(5), SHAPE)
"""Of Small, whatever its weights are."""


def trained_small(seed: int = 0) -> nn.Module:
    """Small with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model = Small(5)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(16, *SHAPE))
    return model.eval()


def pruned_by(model: nn.Module, groups: Mapping[str, et.PrunerGroup], at: Point) -> nn.Module:
    """A Small without what its groups say."""
    return pruning.prune(model, pruning.make_plan(model, groups, at, COUPLED), COUPLED)


def group(structure: str, *weights: str) -> dict[str, et.PrunerGroup]:
    return {"g": et.PrunerGroup(structure, weights, sparsity=et.Uniform(0.0, 0.99))}


@pytest.mark.parametrize("slices", [1, 2, 3, 10, 16, 20, 32, 64, 100])
def test_kept_count_agrees_with_exact_arithmetic(slices: int) -> None:
    for percent in range(100):
        exact = slices - math.floor(Fraction(percent, 100) * slices)
        assert pruning.kept_count(percent / 100, slices) == max(1, exact)


@pytest.mark.parametrize(("slices", "sparsity", "kept"), [(16, 0.7, 5), (32, 0.6, 13), (64, 0.4, 39), (16, 0.95, 1)])
def test_kept_count_rounds_the_removed_slices_down_as_distiller_does(slices: int, sparsity: float, kept: int) -> None:
    assert pruning.kept_count(sparsity, slices) == kept


@pytest.mark.parametrize("granularity", [1, 2, 3, 4, 8, 16, 32, 100])
@pytest.mark.parametrize("slices", [1, 2, 3, 10, 16, 20, 32, 64, 100])
def test_kept_count_is_the_aligned_width_nearest_to_what_is_asked(slices: int, granularity: int) -> None:
    aligned = [width for width in range(1, slices + 1) if width % granularity == 0 or width == slices]
    for percent in range(100):
        asked = pruning.kept_count(percent / 100, slices)
        nearest = min(aligned, key=lambda width: (abs(width - asked), -width))
        assert pruning.kept_count(percent / 100, slices, granularity) == nearest


@pytest.mark.parametrize("granularity", [1, 5, 8, 16])
def test_kept_count_never_rises_with_sparsity_and_leaves_a_step(granularity: int) -> None:
    for slices in range(1, 130):
        kept = [pruning.kept_count(step / 997, slices, granularity) for step in range(997)]
        assert kept == sorted(kept, reverse=True)
        assert kept[0] == slices
        assert kept[-1] == min(granularity, slices)


def test_make_plan_records_what_was_asked_and_what_is_done() -> None:
    model = Small(5)
    for filter_, weight in enumerate(model.block1.conv1.weight.data):
        weight.fill_(filter_ % 5)
    plan = pruning.make_plan(model, group("filters", "block1.conv1.weight"), asked({"g": 0.8}), COUPLED, granularity=4)
    assert plan == (Cut("block1.conv1.weight", "filters", "out", "l1", sparsity=0.8, before=8, slices=(2, 3, 4, 7)),)
    assert pruning.prune(model, plan, COUPLED).block1.conv1.out_channels == 4


@pytest.mark.parametrize(
    ("sparsities", "weights"),
    [((0.0, 0.0, 0.0, 0.0), 851_504), ((0.6, 0.5, 0.1, 0.3), 634_640), ((0.7, 0.6, 0.2, 0.4), 570_704)],
)
def test_prune_gives_the_parameter_counts_that_distiller_published(sparsities: tuple[float, ...], weights: int) -> None:
    groups = load_experiment(EXPERIMENTS / "resnet56_latency.py").pruner_groups
    model = models.build("resnet56_cifar", 10)
    coupled = couplings(model, (3, 32, 32))
    plan = pruning.make_plan(model, groups, asked(dict(zip(groups, sparsities, strict=True))), coupled)
    pruned = pruning.prune(model, plan, coupled)
    assert sum(weight.numel() for weight in pruned.parameters() if weight.dim() > 1) == weights


def test_prune_of_filters_equals_silencing_the_lowest_l1_filters() -> None:
    model = trained_small()
    pruned = pruned_by(model, group("filters", "block1.conv1.weight"), asked({"g": 0.5}))
    silenced = trained_small()
    l1 = silenced.block1.conv1.weight.detach().abs().flatten(1).sum(1)
    for filter_ in sorted(range(8), key=l1.__getitem__)[:4]:
        silenced.block1.bn1.weight.data[filter_] = 0
        silenced.block1.bn1.bias.data[filter_] = 0
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(pruned(images), silenced(images))
    assert pruned.block1.conv1.weight.shape == (4, 8, 3, 3)
    assert pruned.block1.conv2.weight.shape == (8, 4, 3, 3)


def test_prune_of_channels_equals_zeroing_the_lowest_l1_channels() -> None:
    model = trained_small()
    pruned = pruned_by(model, group("channels", "block2.conv2.weight"), asked({"g": 0.25}, "channels"))
    zeroed = trained_small()
    l1 = zeroed.block2.conv2.weight.detach().abs().sum(dim=(0, 2, 3))
    zeroed.block2.conv2.weight.data[:, sorted(range(8), key=l1.__getitem__)[:2]] = 0
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(pruned(images), zeroed(images))
    assert pruned.block2.conv1.weight.shape == (6, 8, 3, 3)


def test_prune_of_a_residual_stream_removes_the_same_filters_from_all_tied_weights() -> None:
    tied = group("filters", "stem.weight", "block1.conv2.weight", "block2.conv2.weight")
    model = trained_small()
    pruned = pruned_by(model, tied, asked({"g": 0.5}))
    l1 = sum(
        w.detach().abs().flatten(1).sum(1)
        for w in (model.stem.weight, model.block1.conv2.weight, model.block2.conv2.weight)
    )
    kept = sorted(sorted(range(8), key=l1.__getitem__)[4:])
    torch.testing.assert_close(pruned.stem.weight, model.stem.weight[kept])
    torch.testing.assert_close(pruned.block1.conv2.weight, model.block1.conv2.weight[kept])
    torch.testing.assert_close(pruned.fc.weight, model.fc.weight[:, kept])
    assert pruned.fc.out_features == 5


def test_prune_leaves_the_model_it_was_given_alone() -> None:
    model = trained_small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned_by(model, group("filters", "block1.conv1.weight"), asked({"g": 0.9}))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_prune_works_on_a_model_whose_parameters_are_frozen() -> None:
    model = trained_small().requires_grad_(False)
    assert pruned_by(model, group("filters", "block1.conv1.weight"), asked({"g": 0.5})).block1.conv1.out_channels == 4


def test_prune_ranks_before_the_first_removal() -> None:
    both = group("filters", "block1.conv1.weight") | {
        "h": et.PrunerGroup("filters", ["block2.conv1.weight"], sparsity=et.Uniform(0, 0.99))
    }
    model = trained_small()
    together = pruned_by(model, both, asked({"g": 0.5, "h": 0.5}))
    alone = pruned_by(model, both, asked({"h": 0.5}))
    torch.testing.assert_close(together.block2.conv1.weight, alone.block2.conv1.weight)


def test_naming_one_weight_names_all_that_are_tied_to_it() -> None:
    tied = ("block1.conv2.weight", "block2.conv2.weight", "stem.weight")
    plans = [
        pruning.make_plan(trained_small(), group("filters", *weights), asked({"g": 0.5}), COUPLED)
        for weights in (tied, tied[:1], tied[:2])
    ]
    assert plans[0] == plans[1] == plans[2]
    assert [(cut.part, cut.kept) for cut in plans[1]] == [(part, 4) for part in tied]


def test_make_plan_refuses_tied_weights_of_different_sparsities() -> None:
    two = {
        "g": et.PrunerGroup("filters", ["stem.weight"], sparsity=et.Uniform(0, 0.99)),
        "h": et.PrunerGroup("filters", ["block1.conv2.weight", "block2.conv2.weight"], sparsity=et.Uniform(0, 0.99)),
    }
    with pytest.raises(PruningError, match=r"same filters, but got the sparsities 0.25 and 0.5; put both in one group"):
        pruned_by(trained_small(), two, asked({"g": 0.5, "h": 0.25}))


def test_make_plan_refuses_two_cuts_of_the_same_structure() -> None:
    two = group("filters", "block1.conv1.weight") | {
        "h": et.PrunerGroup("channels", ["block1.conv2.weight"], sparsity=et.Uniform(0, 0.5))
    }
    with pytest.raises(PruningError, match=r"must not remove what 'block1.conv1.weight' \(filters\) removes already"):
        pruned_by(trained_small(), two, asked({"g": 0.5, "h": 0.5}, {"g": "filters", "h": "channels"}))


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        (
            Cut("block1.conv1.weight", "filters", "out", "l1", 0.5, 16, (0, 1)),
            r"with 16 filters, .* but got 8; use the plan",
        ),
        (
            Cut("block1.conv1.weight", "filters", "out", "l1", 0.5, 8, (7, 8)),
            r"with 8 filters, .* but got 8; use the plan",
        ),
        (Cut("block1.conv3.weight", "filters", "out", "l1", 0.5, 8, (0, 1)), r"but got no such weight; use the plan"),
        (Cut("block1.conv1.weight", "filters", "out", "l1", 0.5, 8, ()), r"must keep at least one of its filters"),
    ],
)
def test_prune_refuses_a_plan_of_another_network(cut: Cut, problem: str) -> None:
    with pytest.raises(PruningError, match=problem):
        pruning.prune(trained_small(), (cut,), COUPLED)


def test_prune_refuses_a_plan_that_removes_tied_slices_from_one_weight_only() -> None:
    half = (0, 1, 2, 3)
    plan = (
        Cut("stem.weight", "filters", "out", "l1", 0.5, 8, half),
        Cut("block1.conv2.weight", "filters", "out", "l1", 0.5, 8, half[1:]),
    )
    with pytest.raises(PruningError, match=r"'stem.weight' must .* lose those that the weights tied to it lose"):
        pruning.prune(trained_small(), plan, COUPLED)


def test_prune_follows_the_plan_whatever_the_weights_are() -> None:
    plan = pruning.make_plan(trained_small(0), group("filters", "block1.conv1.weight"), asked({"g": 0.5}), COUPLED)
    other = trained_small(1)
    pruned = pruning.prune(other, plan, COUPLED)
    torch.testing.assert_close(pruned.block1.conv1.weight, other.block1.conv1.weight[list(plan[0].slices)])


def test_digest_is_equal_for_equal_networks_only() -> None:
    model = trained_small()
    plans = [
        pruning.make_plan(model, group("filters", "block1.conv1.weight"), asked({"g": sparsity}), COUPLED)
        for sparsity in (0.5, 0.51, 0.75, 0.0)
    ]
    assert pruning.digest(plans[3]) == pruning.digest(())
    assert pruning.digest(plans[0]) == pruning.digest(plans[1]) != pruning.digest(plans[2])
    assert converted(plain(plans[1]), tuple[Cut, ...]) == plans[1]


@pytest.mark.parametrize(
    ("structure", "weights", "problem"),
    [
        ("filters", ("block1.conv3.weight",), r"\['g'\]: a weight must be one of the network's, but got 'block1.conv3"),
        ("filters", ("fc.weight",), r"\['g'\], filters: the filters of 'fc.weight' make the network's output"),
        ("filters", ("block1.bn1.weight",), r"'block1.bn1.weight', of shape \[8\], is of a BatchNorm2d; remove it"),
        ("filters", ("block1.conv1.bias",), r"must be one of the network's, but got 'block1.conv1.bias'"),
        ("channels", ("stem.weight",), r"\['g'\], channels: the channels of 'stem.weight' are the image's channels"),
    ],
)
def test_check_groups_says_which_group_cannot_be_pruned(structure: str, weights: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        checking.check_groups(trained_small(), group(structure, *weights), SHAPE)


def test_check_groups_refuses_two_groups_that_remove_the_same_structure() -> None:
    groups = group("filters", "block1.conv1.weight") | {
        "h": et.PrunerGroup(["filters", "channels"], ["block1.conv2.weight"], sparsity=et.Uniform(0, 0.5))
    }
    with pytest.raises(ExperimentError, match=r"\['h'\]: must remove something of its own, but 'g' removes"):
        checking.check_groups(trained_small(), groups, SHAPE)
    groups["h"] = et.PrunerGroup("channels", ["block1.conv2.weight"], sparsity=et.Uniform(0, 0.5))
    with pytest.raises(ExperimentError, match=r"\['h'\]: must remove something of its own, but 'g' removes"):
        checking.check_groups(trained_small(), groups, SHAPE)


def test_size_counts_what_a_convolution_multiplies() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Flatten())
    assert pruning.size(model, SHAPE) == (4 * 3 * 9, 4 * 3 * 9 * 16 * 16)
