"""Every set of filters of a network is found, and removed as torch-pruning removes it."""

import pytest
import torch
import torch_pruning as tp
from torch import nn

from edge_tune.networks import checking, finding, pruning
from edge_tune.networks.couplings import couplings
from edge_tune.networks.models import build
from tests import structures
from tests.test_pruning import COUPLED, trained_small

SIZE = (3, 64, 64)
FAMILIES = {
    "alexnet": 14_279_594,
    "densenet121": 1_766_858,
    "efficientnet_b0": 1_066_856,
    "googlenet": 1_411_098,
    "mnasnet0_5": 266_542,
    "mobilenet_v2": 587_178,
    "mobilenet_v3_small": 403_354,
    "regnet_y_400mf": 986_302,
    "resnet18": 2_801_450,
    "resnext50_32x4d": 5_774_634,
    "vgg11": 32_215_242,
}
"""Parameters with everything halved but the output."""


def halved(model: nn.Module) -> nn.Module:
    coupled = couplings(model, SIZE)
    groups = {f"set_{n}": one.group() for n, one in enumerate(finding.coupled_sets(model, coupled)) if not one.problem}
    point = {
        f"{label}.{name}": value
        for label in groups
        for name, value in {"sparsity": 0.5, "structure": "filters", "importance": "l1"}.items()
    }
    return pruning.prune(model, pruning.make_plan(model, groups, point, coupled), coupled)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def by_torch_pruning(model: nn.Module) -> int:
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = tp.pruner.MagnitudePruner(
        model, torch.randn(1, *SIZE), tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5, ignored_layers=[last]
    )
    pruner.step()
    return count(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_of_a_network_can_be_halved_as_torch_pruning_halves_it(family: str) -> None:
    model = build(family, 10).eval()
    smaller = halved(model)  # whose outputs were compared with those of the network without these filters
    assert count(smaller) == FAMILIES[family] == by_torch_pruning(build(family, 10).eval())
    assert smaller(torch.randn(2, *SIZE)).shape == (2, 10)


def test_what_must_stay_is_found_with_its_reason() -> None:
    sets = finding.coupled_sets(trained_small(), COUPLED)
    assert [(one.parts, one.width) for one in sets] == [
        (("stem.weight", "block1.conv2.weight", "block2.conv2.weight"), 8),
        (("block1.conv1.weight",), 8),
        (("block2.conv1.weight",), 8),
        (("fc.weight",), 5),
    ]
    assert [bool(one.problem) for one in sets] == [False, False, False, True]
    assert "make the network's output" in (sets[-1].problem or "")


def test_a_set_that_cannot_be_removed_does_not_keep_the_others() -> None:
    model = structures.halves()
    sets = {one.parts[0]: one.problem for one in finding.coupled_sets(model, couplings(model, (3, 16, 16)))}
    assert "its code counts on how many channels arrive there" in (sets["a.0.weight"] or "")
    assert None in sets.values()


def test_a_run_is_told_what_else_loses_what_a_group_names() -> None:
    group = {"g": finding.CoupledSet(("stem.weight",), 8).group()}
    coupled = checking.check_groups(trained_small(), group, (3, 16, 16))
    assert list(checking.tied_to(trained_small(), group, coupled)) == [
        "pruner_groups['g']: 2 more weights lose the same filters, tied to those that it names: block1.conv2.weight, "
        "block2.conv2.weight."
    ]
