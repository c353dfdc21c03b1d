"""Every set of filters of a network is found, and removed as torch-pruning removes it."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

import edge_tune as et
from benchmarks.networks import without_blocks
from edge_tune.errors import ExperimentError
from edge_tune.networks import checking, finding, pruning
from edge_tune.networks.couplings import Couplings, couplings
from edge_tune.networks.models import build
from edge_tune.records.results import Results
from edge_tune.run import main
from tests import structures
from tests.test_pruning import COUPLED, trained_small

SIZE = (3, 64, 64)
KINDS = ("importance", "sparsity", "structure")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "count", "left"), [("resnet18", 5, 1_214_250), ("mobilenet_v2", 10, 301_866), ("convnext_tiny", 18, 0)]
)
def test_blocks_and_half_of_the_rest_go_and_openvino_computes_the_same(family: str, count: int, left: int) -> None:
    found, parameters, difference = without_blocks(build(family, 10).eval(), 64).replace(": ", ", ").split(", ")
    assert int(found) == count
    assert left in (0, int(parameters.replace(",", "")))
    assert float(difference) < 1e-5


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


def test_a_transformer_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        ExperimentError, match=r"but 'features.1.0.attn' is a ShiftedWindowAttention: transformers cannot"
    ):
        finding.groups(build("swin_t", 10), SIZE)


class ChannelAttention(nn.Module):
    """The gate of CBAM."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        gate = self.wide(torch.relu(self.narrow(features.mean(dim=(2, 3), keepdim=True))))
        return features * torch.sigmoid(gate)


def test_a_gate_that_is_called_attention_is_no_transformer_and_nothing_of_the_network_changes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        ChannelAttention(16),
        nn.Conv2d(16, 8, 3),
        nn.Flatten(),
        nn.Linear(8 * 6 * 6, 5),
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = finding.groups(model, (3, 8, 8))
    assert {label: group.weights for label, group in groups.items()} == {
        "pooled_1": ("2.narrow.weight",),
        "inner_8": ("0.weight", "2.wide.weight"),
        "inner_6": ("3.weight",),
    }
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_groups_of_a_network_share_a_role_and_a_resolution() -> None:
    groups = finding.groups(build("resnet20_cifar", 10), (3, 32, 32))
    heights = (32, 16, 8)
    assert list(groups) == [f"{role}_{height}" for role in ("blocks", "inner", "stream") for height in heights]
    assert groups["blocks_16"] == et.BlockGroup(["layer2.1", "layer2.2"], keep=et.Integer(0, 2))
    assert groups["inner_16"].weights == tuple(f"layer2.{block}.conv1.weight" for block in range(3))
    assert groups["stream_32"].weights == ("conv1.weight", *(f"layer1.{block}.conv2.weight" for block in range(3)))
    deep = finding.groups(build("efficientnet_b0", 10), (3, 64, 64))
    assert len(deep) == finding.MOST
    parts = [part for group in deep.values() for part in (group.weights if "weights" in vars(group) else group.blocks)]
    assert len(set(parts)) == len(parts)
    assert sum("features" in part and not part.endswith(".weight") for part in parts) == 9


@pytest.mark.slow
def test_auto_runs_to_a_table_and_is_resumed_with_the_groups_that_were_found(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    text = (
        "import edge_tune as et\nfrom tests.networks import experiment as make\n"
        'experiment = make(pruner_groups="auto", baselines={"half": {"inner_8": 0.5, "GROUP": 0.25, "blocks_8": 1}})\n'
    )
    Path("study.py").write_text(text.replace("GROUP", "stream_16"))
    assert main(["study.py", "--results=wrong"]) == 2
    assert "baselines['half']: must give a sparsity for each pruner group, but it lacks the group 'stream_8'" in (
        capsys.readouterr().err
    )
    Path("study.py").write_text(text.replace("GROUP", "stream_8"))
    assert main(["study.py", "--results=out", "--trials=2"]) == 0
    assert "Found inner_8: 2 weights, block1.conv1.weight first" in capsys.readouterr().out
    identity = Results(Path("out")).identity()
    assert list(identity["pruner_groups"]) == ["blocks_8", "inner_8", "stream_8"]  # type: ignore[call-overload]
    assert main(["study.py", "--results=out", "--resume", "--trials=3"]) == 0
    records = Results(Path("out")).trials()
    assert len([record for record in records if record.same_as is None]) == 3
    assert {tuple(sorted(record.point)) for record in records} == {
        ("blocks_8.keep", *(f"{role}_8.{name}" for role in ("inner", "stream") for name in KINDS))
    }


def test_a_set_of_one_filter_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 60 * 60, 5))
    one, four, *_ = finding.coupled_sets(model, couplings(model, SIZE))
    assert (one.width, one.problem) == (1, "it is one filter, and one must stay.")
    assert (four.width, four.problem) == (4, None)


@pytest.mark.parametrize(
    ("network", "weight"), [(structures.norm_of_each_channel, "a"), (structures.groups_of_one_filter, "d.0")]
)
def test_a_set_whose_filters_are_in_groups_of_one_stays(network: Callable[[], nn.Module], weight: str) -> None:
    model = network().eval()
    sets = {one.parts[0]: one.problem for one in finding.coupled_sets(model, couplings(model, SIZE))}
    assert sets[f"{weight}.weight"] == "a layer counts them in groups that have one each, and one must stay in each."
    groups = finding.groups(model, SIZE)
    assert f"{weight}.weight" not in [w for group in groups.values() for w in group.weights]  # type: ignore[union-attr]
    checking.check_groups(model, groups, SIZE)


def test_a_grouped_convolution_may_be_left_with_one_channel_a_group() -> None:
    model = structures.grouped_before_a_norm().eval()
    groups = finding.groups(model, SIZE)
    coupled = checking.check_groups(model, groups, SIZE)
    assert [group.weights for group in groups.values()] == [("stem.0.weight", "a.0.weight", "g.weight", "b.0.weight")]
    point = {"inner_32.sparsity": 0.9, "inner_32.structure": "filters", "inner_32.importance": "l1"}
    smaller = pruning.prune(model, pruning.make_plan(model, groups, point, coupled), coupled)
    assert (smaller.g.in_channels, smaller.g.out_channels, smaller.g.groups) == (4, 4, 4)


def test_sets_that_can_go_alone_but_not_together_are_not_offered_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is known of which this is true, since a network without one of two sets is checked like any other."""

    def why_not(model: nn.Module, groups: Mapping[str, et.PrunerGroup], coupled: Couplings) -> str | None:
        return "not with others." if len(groups) > 2 else None

    monkeypatch.setattr(checking, "why_not_all", why_not)
    sets = finding.coupled_sets(trained_small(), COUPLED)
    assert [one.problem for one in sets][:3] == [None, None, "not with others."]


@pytest.mark.parametrize("draw", [random.random, lambda: np.random.rand(), lambda: float(torch.rand(()))])
def test_code_that_draws_by_whatever_library_while_it_trains_is_followed(draw: Callable[[], float]) -> None:
    model = structures.stochastic_depth(draw).eval()
    for seed in range(4):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        following = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        checking.check_groups(model, finding.groups(model, SIZE), SIZE)
        assert following == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    "network", [structures.branch_of_unit_length, structures.buffers_without_memory, structures.centred_as_it_goes]
)
def test_groups_of_a_network_that_keeps_constants_or_statistics_of_its_own(network: Callable[[], nn.Module]) -> None:
    model = network().eval()
    before = list(model.state_dict())
    groups = finding.groups(model, SIZE)
    assert any(name.endswith("a.0.weight") for group in groups.values() for name in group.weights)
    checking.check_groups(model, groups, SIZE)
    assert pruning.size(halved(model), SIZE)[0] < pruning.size(model, SIZE)[0]
    assert list(model.state_dict()) == before


def test_filters_that_a_number_ties_to_each_other_stay_for_that_reason() -> None:
    model = structures.numbers_in_one_vector().eval()
    coupled = couplings(model, SIZE)  # an integer has no NaN
    tied = [one for one in map(partial(finding._planned, model, coupled=coupled), finding._sets(model, coupled))]
    assert tied[0].parts == ("stem.0.weight", "a.0.weight")
    assert tied[0].problem == (
        "they are tied to each other, as by a number that is multiplied with all, and could only go together."
    )


def test_what_only_runs_while_the_network_trains_is_in_no_group() -> None:
    model = structures.head_in_training().eval()
    groups = finding.groups(model, SIZE)
    assert [group.weights for group in groups.values()] == [("stem.0.weight", "b.0.weight", "more.weight")]
    checking.check_groups(model, groups, SIZE)
