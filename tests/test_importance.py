"""By what slices are ranked: against values computed by hand, by finite differences, and torch-pruning's own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

import edge_tune as et
from edge_tune.errors import ExperimentError, PruningError
from edge_tune.networks import checking, datasets, gradients, pruning
from edge_tune.networks.couplings import Couplings, couplings
from edge_tune.networks.importance import Basis
from edge_tune.networks.stored import load_network
from edge_tune.records.results import Results
from edge_tune.run import main
from edge_tune.search import study
from tests.networks import Small, experiment
from tests.test_pruning import COUPLED, SHAPE, trained_small

ROOT = Path(__file__).parents[1]
STREAM = ("block1.conv2.weight", "block2.conv2.weight", "stem.weight")


def group(structure: str, importance: str | list[str], *weights: str) -> dict[str, et.PrunerGroup]:
    return {"g": et.PrunerGroup(structure, weights, sparsity=et.Uniform(0.0, 0.9), importance=importance)}


def kept(
    model: nn.Module,
    importance: str,
    *weights: str,
    structure: str = "filters",
    sparsity: float = 0.5,
    coupled: Couplings = COUPLED,
    basis: Basis | None = None,
) -> list[tuple[int, ...]]:
    """The slices that stay of each weight, by its name."""
    point = {"g.sparsity": sparsity, "g.structure": structure, "g.importance": importance}
    plan = pruning.make_plan(model, group(structure, importance, *weights), point, coupled, basis=basis or Basis())
    pruning.prune(model, plan, coupled)  # or it says that what is left computes something else
    return [cut.slices for cut in sorted(plan, key=lambda cut: cut.part)]


def most_of(scores: Tensor, count: int) -> tuple[int, ...]:
    return tuple(sorted(scores.argsort(descending=True)[:count].tolist()))


def made_up_gradients(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(value.shape, generator=generator) for name, value in model.named_parameters()}


# batch_norm


def test_batch_norm_keeps_the_filters_and_channels_whose_scale_is_far_from_zero() -> None:
    model = trained_small()
    gamma = torch.tensor([0.1, -2.0, 0.3, 1.5, -0.2, 0.0, -0.9, 0.8])
    model.get_parameter("block1.bn1.weight").data.copy_(gamma)
    assert kept(model, "batch_norm", "block1.conv1.weight") == [(1, 3, 6, 7)]
    assert kept(model, "batch_norm", "block1.conv2.weight", structure="channels") == [(1, 3, 6, 7)]


def test_batch_norm_sums_the_scales_of_all_that_are_tied() -> None:
    """The stem has no batch norm of its own; its filters are added to those behind the blocks' last ones."""
    model = trained_small()
    first, second = torch.randn(8), torch.randn(8)
    model.get_parameter("block1.bn2.weight").data.copy_(first)
    model.get_parameter("block2.bn2.weight").data.copy_(second)
    assert kept(model, "batch_norm", *STREAM) == [most_of(first.abs() + second.abs(), 4)] * 3


def test_batch_norm_ranks_as_torch_pruning_does() -> None:
    model = trained_small()
    for name, parameter in model.named_parameters():
        if "bn" in name:
            parameter.data.normal_()
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, *SHAPE))
    for weight, count in (("block1.conv1.weight", 1), ("stem.weight", 3)):
        layer = model.get_submodule(weight.removesuffix(".weight"))
        theirs = tp.importance.BNScaleImportance()(
            graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(8)))
        )
        for sparsity in (0.25, 0.5, 0.75):
            ours = kept(model, "batch_norm", weight, sparsity=sparsity)
            assert ours == [most_of(theirs, 8 - int(8 * sparsity))] * count


def plain(*between: nn.Module) -> nn.Module:
    """Three convolutions, these layers behind the second one, and a classifier."""
    convolutions = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), *between, nn.ReLU(), nn.Conv2d(16, 16, 3)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


@pytest.mark.parametrize("between", [[], [nn.BatchNorm2d(16, affine=False)], [nn.GroupNorm(1, 16)]])
def test_batch_norm_is_refused_before_anything_starts_where_there_is_none(between: list[nn.Module]) -> None:
    sentence = (
        r"^pruner_groups\['g'\], filters: importance 'batch_norm' must find a batch norm with a scale behind the "
        r"filters of '2.weight', but 16 of 16 pass through none; choose another importance for them\.$"
    )
    with pytest.raises(ExperimentError, match=sentence):
        checking.check_groups(plain(*between), group("filters", ["l1", "batch_norm"], "2.weight"), SHAPE)


def test_each_criterion_is_tried_on_each_structure_before_anything_starts() -> None:
    """The filters of this weight have a batch norm; its channels, which a convolution without one makes, have none."""
    model = plain(nn.BatchNorm2d(16))
    checking.check_groups(model, group("filters", ["l1", "batch_norm", "taylor", "random"], "2.weight"), SHAPE)
    with pytest.raises(ExperimentError, match=r"\['g'\], channels: importance 'batch_norm' .* channels of '2.weight'"):
        checking.check_groups(model, _both("l1", "batch_norm"), SHAPE)


def _both(*importances: str) -> dict[str, et.PrunerGroup]:
    return {
        "g": et.PrunerGroup(
            ["filters", "channels"], ["2.weight"], sparsity=et.Uniform(0.0, 0.9), importance=list(importances)
        )
    }


# taylor


def test_taylor_is_the_square_of_what_the_loss_changes_by() -> None:
    model = trained_small()
    basis = Basis(made_up_gradients(model))
    model.requires_grad_(False)
    weight, gradient = model.get_parameter("block1.conv1.weight"), basis.gradients["block1.conv1.weight"]
    by_hand = torch.tensor([float((weight[f] * gradient[f]).sum()) ** 2 for f in range(8)])
    assert kept(model, "taylor", "block1.conv1.weight", basis=basis) == [most_of(by_hand, 4)]
    weight, gradient = model.get_parameter("block1.conv2.weight"), basis.gradients["block1.conv2.weight"]
    by_hand = torch.tensor([float((weight[:, c] * gradient[:, c]).sum()) ** 2 for c in range(8)])
    assert kept(model, "taylor", "block1.conv2.weight", structure="channels", basis=basis) == [most_of(by_hand, 4)]


def test_taylor_of_tied_weights_is_their_sum_and_the_network_keeps_its_weights() -> None:
    model = trained_small().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    basis = Basis(made_up_gradients(model))
    sums = sum((model.get_parameter(name) * basis.gradients[name]).flatten(1).sum(dim=1).square() for name in STREAM)
    assert isinstance(sums, Tensor)
    assert kept(model, "taylor", "stem.weight", sparsity=0.75, basis=basis) == [most_of(sums, 2)] * 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_taylor_ranks_as_torch_pruning_does() -> None:
    model = trained_small()
    basis = Basis(made_up_gradients(model))
    for name, parameter in model.named_parameters():
        parameter.grad = basis.gradients[name].clone()
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, *SHAPE))
    pruned = graph.get_pruning_group(model.get_submodule("block1.conv1"), tp.prune_conv_out_channels, list(range(8)))
    theirs = tp.importance.GroupTaylorImportance(group_reduction="first", multivariable=True)(pruned)
    for sparsity in (0.25, 0.5, 0.75):
        ours = kept(model, "taylor", "block1.conv1.weight", sparsity=sparsity, basis=basis)
        assert ours == [most_of(theirs, 8 - int(8 * sparsity))]


def test_taylor_without_gradients_says_which_are_missing() -> None:
    with pytest.raises(
        PruningError, match=r"'taylor' must have the gradients of 'block1.conv1.weight', but none were t"
    ):
        kept(trained_small(), "taylor", "block1.conv1.weight")


def test_gradients_say_by_how_much_the_loss_changes_with_a_slice() -> None:
    """The slope of the loss over a factor of one filter, from two differences, is the sum of weight * gradient."""
    data = datasets.load(et.Data("digits", image_size=16, train_images=128), seed=0)
    torch.manual_seed(0)
    model = Small(10).eval().requires_grad_(False)
    random = torch.get_rng_state()
    name = "block1.conv2.weight"
    found = gradients.gradients(model, data.train, [name], augmentation=data.augmentation, seed=3)
    again = gradients.gradients(model, data.train, [name], augmentation=data.augmentation, seed=3)
    other = gradients.gradients(model, data.train, [name], augmentation=data.augmentation, seed=4)
    assert torch.equal(found[name], again[name])
    assert not torch.equal(found[name], other[name])
    assert torch.equal(torch.get_rng_state(), random)
    weight = model.get_parameter(name)
    assert not weight.requires_grad
    batches = list(data.train.batches(64, augment=data.augmentation, seed=3))
    model.double()

    def loss(factor: float, filter_: int) -> float:
        one = nn.Parameter(model.get_parameter(name).detach().clone(), requires_grad=False)
        one.data[filter_] *= factor
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        outputs = torch.func.functional_call(model, {name: one}, (images.double(),))
        return float(functional.cross_entropy(outputs, labels))

    for filter_ in range(8):
        slope = (loss(1 + 1e-5, filter_) - loss(1 - 1e-5, filter_)) / 2e-5
        assert float((weight * found[name])[filter_].sum()) == pytest.approx(slope, rel=1e-2, abs=1e-6)


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(context: object, images: Tensor) -> Tensor:
        return images.clone()


class Undifferentiated(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(NoDerivative.apply(self.stem(images)).repeat(1, 1, 1, 1)[:, :3])


def test_gradients_of_a_network_without_any_are_refused() -> None:
    data = datasets.load(et.Data("digits", image_size=16, train_images=128), seed=0)
    with pytest.raises(ExperimentError, match=r"'taylor' must have the gradients .*, but taking them raised NotImpl"):
        gradients.gradients(Undifferentiated(10), data.train, ["stem.weight"], augmentation=None, seed=0)


def test_only_weights_that_taylor_may_rank_and_those_tied_to_them_have_gradients() -> None:
    groups = {
        "inner": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Uniform(0, 0.5)),
        "stream": et.PrunerGroup("filters", ["stem.weight"], sparsity=et.Uniform(0, 0.5), importance=["l1", "taylor"]),
    }
    assert sorted(gradients.ranked_by_gradients(Small(10), groups, COUPLED)) == sorted(STREAM)
    assert gradients.ranked_by_gradients(Small(10), {"inner": groups["inner"]}, COUPLED) == []


# random


def test_random_follows_from_the_seed_and_the_weight_alone() -> None:
    first, others = Basis(seed=1), [Basis(seed=seed) for seed in range(2, 7)]
    weight = "block1.conv1.weight"
    (half,) = kept(trained_small(0), "random", weight, basis=first)
    assert kept(trained_small(1), "random", weight, basis=first) == [half]
    (quarter,) = kept(trained_small(0), "random", weight, basis=first, sparsity=0.75)
    assert set(quarter) < set(half)
    assert any(kept(trained_small(0), "random", weight, basis=other) != [half] for other in others)
    assert any(
        kept(trained_small(0), "random", weight, basis=basis)
        != kept(trained_small(0), "random", "block2.conv1.weight", basis=basis)
        for basis in (first, *others)
    )


# Whatever is there


@pytest.mark.parametrize("importance", ["batch_norm", "taylor", "random"])
def test_importance_of_a_network_that_has_lost_a_block_is_that_of_the_whole_one(importance: str) -> None:
    whole = trained_small()
    whole.get_parameter("block1.bn1.weight").data.normal_()
    basis = Basis(made_up_gradients(whole), seed=2)
    less = trained_small()
    less.load_state_dict(whole.state_dict())
    less.block2 = nn.Identity()
    weights = ("block1.conv1.weight",)
    assert kept(less, importance, *weights, coupled=couplings(less, SHAPE), basis=basis) == kept(
        whole, importance, *weights, basis=basis
    )


FILE = """
import edge_tune as et
from tests.networks import BLOCKS, experiment as make

IMPORTANCES = ["l1", "batch_norm", "taylor", "random"]
experiment = make(
    pruner_groups={
        "first": et.PrunerGroup("filters", BLOCKS["first"].weights, sparsity=et.Choice([0.5]), importance=IMPORTANCES),
    },
    baselines={},
    training=et.Retraining(epochs=15, lr=0.1, batch_size=32),
    retraining=et.Retraining(epochs=0, lr=0.1),
    search=et.Search("grid", trials=4, seed=3),
)
"""


@pytest.mark.slow
def test_each_importance_runs_from_an_experiment_file_to_a_network(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the processes of the trials slices are ranked as they are here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("study.py").write_text(FILE)
    assert main(["study.py", "--results=out"]) == 0
    records = Results(Path("out")).trials()
    assert {record.point["first.importance"] for record in records} == {"l1", "batch_norm", "taylor", "random"}
    assert {record.status for record in records} == {"finished"}
    weights = {"first": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Choice([0.5]))}
    one = experiment(
        pruner_groups={"first": replace(weights["first"], importance=["l1", "taylor"])},
        training=et.Retraining(epochs=15, lr=0.1, batch_size=32),
        search=et.Search("grid", trials=4, seed=3),
        baselines={},
    )
    said: list[str] = []
    here = study.prepare(study.load(one), said.append)
    assert "Taking the gradients of 1 weight, by which 'taylor' ranks." in said
    assert here.gradients.keys() == {"block1.conv1.weight"}
    expected: Mapping[str, tuple[int, ...]] = {
        str(record.point["first.importance"]): pruning.make_plan(
            here.network(), weights, record.point, here.coupled, basis=here.basis
        )[0].slices
        for record in records
    }
    assert {str(record.point["first.importance"]): record.plan[0].slices for record in records} == expected
    best = load_network(Path("out/best"), trust_model=True)  # its plan says which slices stay
    assert best(torch.zeros(1, 3, 16, 16)).shape == (1, 10)
