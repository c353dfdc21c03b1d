"""Pruned networks of every structure, against the unpruned one with the removed filters' consumers silenced by hand."""

import random
import re
from collections.abc import Callable, Sequence

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

import edge_tune as et
from edge_tune.errors import ExperimentError, PruningError
from edge_tune.networks import checking, finding, models, pruning
from edge_tune.networks.couplings import Side, couplings
from edge_tune.networks.layer_shapes import network_shape
from tests import structures
from tests.asked import asked

SHAPE = (3, 32, 32)
Network = Callable[[], nn.Module]
Draw = Callable[[torch.Tensor], torch.Tensor]


def group(*weights: str) -> dict[str, et.PrunerGroup]:
    return {"g": et.PrunerGroup("filters", weights, sparsity=et.Uniform(0.0, 0.9))}


def seeded(network: Network) -> nn.Module:
    """The network, with statistics of batch norm that are not the initial ones."""
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, *SHAPE))
    return model.eval()


def pruned(model: nn.Module, *weights: str, sparsity: float = 0.5) -> tuple[nn.Module, pruning.Plan]:
    coupled = checking.check_groups(model, group(*weights), SHAPE)
    plan = pruning.make_plan(model, group(*weights), asked({"g": sparsity}), coupled)
    return pruning.prune(model, plan, coupled), plan


def silenced(model: nn.Module, layer: str, columns: Sequence[int]) -> nn.Module:
    """The network after setting what a layer reads from these columns to zero."""
    model.get_submodule(layer).weight.data[:, list(columns)] = 0
    return model


def removed_from(plan: pruning.Plan, weight: str) -> list[int]:
    (cut,) = (cut for cut in plan if cut.part == weight)
    return sorted(set(range(cut.before)) - set(cut.slices))


@pytest.mark.parametrize(
    ("network", "weight", "reader", "columns"),
    [
        (structures.coordinates_first, "a.0.weight", "b.0", lambda f: [2 + f]),
        (lambda: structures.flattened(0, 1, 2, 3), "a.0.weight", "f", lambda f: range(16 * f, 16 * f + 16)),
        (lambda: structures.flattened(0, 2, 3, 1), "a.0.weight", "f", lambda f: range(f, 192, 12)),
        (
            lambda: structures.flattened(0, 2, 1, 3),
            "a.0.weight",
            "f",
            lambda f: [48 * y + 4 * f + x for y in range(4) for x in range(4)],
        ),
        (structures.flattened_beside_another, "b.0.weight", "f", lambda f: range(192 + 4 * f, 196 + 4 * f)),
        (structures.grouped, "g.0.weight", "b.0", lambda f: [f]),
        (structures.upsampled, "b.0.weight", "fc", lambda f: [f]),
        (structures.dense, "b.0.weight", "fc", lambda f: [24 + f]),
    ],
)
def test_a_pruned_network_computes_what_silencing_its_reader_gives(
    network: Network, weight: str, reader: str, columns: Callable[[int], Sequence[int]]
) -> None:
    smaller, plan = pruned(seeded(network), weight)
    gone = [column for filter_ in removed_from(plan, weight) for column in columns(filter_)]
    assert gone
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(smaller(images), silenced(seeded(network), reader, gone)(images), rtol=1e-4, atol=1e-5)


def test_a_shuffled_channel_is_followed_to_its_place_but_its_code_wants_an_even_number() -> None:
    model = seeded(structures.shuffle)
    coupled = couplings(model, SHAPE)
    made, read = coupled.atoms[Side("a.0", "out")].tolist(), coupled.atoms[Side("b.0", "in")].tolist()
    assert [read.index(atom) for atom in made] == [*range(0, 16, 2), *range(1, 16, 2)]
    with pytest.raises(ExperimentError, match=r"'a.0.weight' .*its code counts on how many channels arrive there"):
        pruned(model, "a.0.weight")


def test_groups_of_a_convolution_lose_as_many_each() -> None:
    model = seeded(structures.grouped)
    smaller, plan = pruned(model, "a.0.weight")
    assert [len([f for f in removed_from(plan, "a.0.weight") if f // 4 == group]) for group in range(4)] == [2] * 4
    silent = seeded(structures.grouped)
    for column in removed_from(plan, "a.0.weight"):
        silent.g[0].weight.data[column // 4 * 4 : column // 4 * 4 + 4, column % 4] = 0
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(smaller(images), silent(images), rtol=1e-4, atol=1e-5)
    assert (smaller.g[0].groups, smaller.g[0].weight.shape) == (4, (16, 2, 3, 3))


@pytest.mark.parametrize(
    ("network", "weights"),
    [
        (structures.attention_between_places, ("q.weight", "k.weight")),
        (structures.weights_along_channels, ("a.0.weight",)),
        (structures.constants_by_place_before_a_norm, ("a.0.weight",)),
    ],
)
def test_what_is_computed_over_channels_by_their_order_is_refused(network: Network, weights: tuple[str, ...]) -> None:
    with pytest.raises(ExperimentError, match="what the network computes over its channels, such as their mean, must"):
        pruned(seeded(network), *weights)


def test_where_no_share_can_be_copies_channels_must_be_free_to_change_places() -> None:
    with pytest.raises(ExperimentError, match="channels must be free to change places with each other, with all that"):
        pruned(seeded(structures.constants_by_place_and_another_number), "a.weight")


@pytest.mark.parametrize(
    "network",
    [
        lambda: structures.standardised(nn.GroupNorm(4, 16)),
        lambda: structures.standardised(nn.GroupNorm(1, 16)),
        structures.divided_by_their_number,
        lambda: structures.beside(lambda y: y.mean(1, keepdim=True) * (16 / y.shape[1])),
        lambda: structures.beside(lambda y: y.softmax(1)[:, :1]),
    ],
)
def test_what_depends_on_how_many_channels_there_are_is_refused(network: Network) -> None:
    model = seeded(network)
    weight = "a.0.weight" if isinstance(model.a, nn.Sequential) else "a.weight"
    sentence = "what the network computes over its channels, such as their mean, must not depend on how many there are"
    with pytest.raises(ExperimentError, match=rf"\['g'\], filters: '{weight}' \(filters, .* of 16 kept\): {sentence}"):
        pruned(model, weight)
    coupled = couplings(model, SHAPE)
    plan = pruning.make_plan(model, group(weight), asked({"g": 0.5}), coupled)
    with pytest.raises(PruningError, match=sentence):
        pruning.prune(model, plan, coupled)


@pytest.mark.parametrize(
    "network",
    [
        lambda: structures.beside(lambda y: y.mean(1, keepdim=True)),
        lambda: structures.beside(lambda y: y.amax(1, keepdim=True)),
        lambda: structures.beside(lambda y: y.std(1, keepdim=True, correction=0)),
        lambda: structures.beside(lambda y: y.sum(1, keepdim=True)),
        lambda: structures.beside(lambda y: y.norm(dim=1, keepdim=True)),
        lambda: structures.normalised(nn.GroupNorm(1, 24)),
        lambda: structures.normalised(nn.GroupNorm(3, 24)),
        lambda: structures.normalised(nn.GroupNorm(1, 31), others=15),
    ],
)
def test_what_is_computed_over_those_channels_that_are_left_is_pruned(network: Network) -> None:
    model = seeded(network)
    weight = "a.0.weight" if isinstance(model.a, nn.Sequential) else "a.weight"
    weights = (weight, "c.0.weight") if hasattr(model, "n") and getattr(model.n, "num_groups", 1) > 1 else (weight,)
    smaller, plan = pruned(model, *weights)
    assert plan[0].kept == 8
    assert smaller(torch.randn(2, *SHAPE)).isfinite().all()


@pytest.mark.parametrize(
    "network", [structures.attention_over_places, structures.group_norm, structures.layer_norm_and_scale]
)
def test_what_is_computed_over_channels_keeps_every_channel_in_its_place(network: Network) -> None:
    weight = "a.weight" if network is structures.group_norm else "a.0.weight"
    model = seeded(network)
    smaller, plan = pruned(model, weight)
    kept = list(plan[0].slices)
    torch.testing.assert_close(smaller.b[0].weight, model.b[0].weight[:, kept])
    assert torch.isfinite(smaller(torch.randn(2, *SHAPE))).all()
    if network is structures.layer_norm_and_scale:
        torch.testing.assert_close(smaller.scale, model.scale[kept])
        torch.testing.assert_close(smaller.n.weight, model.n.weight[kept])
        torch.testing.assert_close(smaller.p.weight, model.p.weight[:, kept])
        torch.testing.assert_close(smaller.q.weight, model.q.weight[kept])


@pytest.mark.parametrize("norm", [nn.Identity(), nn.GroupNorm(1, 16)])
@pytest.mark.parametrize("fresh", [0.0, 1.0])
def test_what_is_stored_by_place_is_refused_before_it_was_trained(norm: nn.Module, fresh: float) -> None:
    with pytest.raises(ExperimentError, match="code counts on their"):
        pruned(seeded(lambda: structures.centred(torch.full((16,), fresh), norm)), "a.0.weight")


def test_what_is_stored_for_every_channel_alike_does_not_keep_a_network_from_being_pruned() -> None:
    smaller, plan = pruned(seeded(lambda: structures.centred(torch.zeros(1))), "a.0.weight")
    torch.testing.assert_close(smaller.centre, torch.zeros(1))
    assert plan[0].kept == 8


@pytest.mark.parametrize("hidden", [-1e9, torch.finfo(torch.float32).min, float("-inf"), 0.0])
def test_a_class_that_is_never_chosen_hides_no_error_of_the_others(hidden: float) -> None:
    with pytest.raises(ExperimentError, match="the pruned network computes something else than the network without"):
        pruned(structures.Hiding(seeded(structures.rolled), hidden), "network.a.weight")
    smaller, _ = pruned(structures.Hiding(seeded(structures.flattened_beside_another), hidden), "network.a.0.weight")
    assert smaller.network.a[0].out_channels == 6


def test_rounding_is_no_difference_where_float64_shows_none() -> None:
    """What the images say is a millionth of what is added to it, and taken away again from the sums."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        return 1e6 * (net.b(1 + 1e-6 * y) - net.b(torch.ones_like(y)))

    model = seeded(lambda: structures.Between(forward, a=structures.conv(16, 96), b=nn.Conv2d(96, 16, 3)))
    coupled = couplings(model, SHAPE)
    plan = pruning.make_plan(model, group("a.0.weight"), asked({"g": 0.5}), coupled)
    assert pruning.prune(model, plan, coupled).b.in_channels == 48


def with_dropout(logits: torch.Tensor) -> torch.Tensor:
    return nn.functional.dropout(logits, 0.1)


def by_pythons_random(logits: torch.Tensor) -> torch.Tensor:
    return logits * random.uniform(0.9, 1.1)


@pytest.mark.parametrize("network", [structures.chain, structures.weights_along_channels, structures.group_norm])
@pytest.mark.parametrize("draw", [with_dropout, by_pythons_random])
def test_a_network_that_draws_while_it_infers_is_refused_before_anything_starts(network: Network, draw: Draw) -> None:
    model = structures.Drawing(seeded(network), draw)
    refused = r"^model: what the network computes must be compared, but it draws random numbers while it infers, so "
    with pytest.raises(ExperimentError, match=refused):
        checking.check_groups(model, group("network.b.0.weight"), SHAPE)
    with pytest.raises(ExperimentError, match=refused):
        finding.groups(model, SHAPE)


def test_what_draws_for_fewer_channels_is_not_pruned_unseen() -> None:
    model = seeded(
        lambda: structures.Between(
            lambda net, x: net.b(with_dropout(net.a(x))), a=structures.conv(16, 16), b=structures.conv(16, 16)
        )
    )
    coupled = couplings(model, SHAPE)
    plan = pruning.make_plan(model, group("a.0.weight"), asked({"g": 0.5}), coupled)
    with pytest.raises(PruningError, match=r"'a.0.weight' \(filters, 8 of 16 kept\): .* draws random numbers"):
        pruning.prune(model, plan, coupled)


def test_a_variance_that_is_a_parameter_hides_nothing() -> None:
    with pytest.raises(ExperimentError, match="the pruned network computes something else than the network without"):
        pruned(seeded(lambda: structures.rolled(structures.Frozen(16))), "a.weight")
    smaller, plan = pruned(
        seeded(lambda: structures.chain(a=nn.Sequential(nn.Conv2d(16, 16, 1), structures.Frozen(16)))), "a.0.weight"
    )
    assert smaller.a[1].variance.shape == (1, plan[0].kept, 1, 1)


def test_outputs_that_are_nan_prove_nothing() -> None:
    model = structures.Drawing(seeded(structures.rolled), lambda logits: torch.sqrt(-1 - logits.abs()))
    with pytest.raises(
        ExperimentError, match=r"\['g'\], filters: 'network.a.weight' .* but that puts out NaN on made-up"
    ):
        checking.check_groups(model, group("network.a.weight"), SHAPE)


def test_branches_that_are_added_side_by_side_lose_the_same_share_each() -> None:
    weights = ("a.0.weight", "b.0.weight", "c.0.weight")
    smaller, plan = pruned(seeded(structures.concatenation_is_added), *weights, sparsity=0.75)
    assert [cut.kept for cut in plan] == [2, 2, 4]
    assert plan[2].slices == (*plan[0].slices, *(8 + slice_ for slice_ in plan[1].slices))
    images = torch.randn(4, *SHAPE)
    silent = silenced(seeded(structures.concatenation_is_added), "fc", removed_from(plan, "c.0.weight"))
    torch.testing.assert_close(smaller(images), silent(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sparsity", "kept"), [(0.1, [8, 8, 16]), (0.2, [7, 7, 14])])
def test_branches_that_are_added_side_by_side_lose_nothing_where_the_narrower_ones_would_not(
    sparsity: float, kept: list[int]
) -> None:
    weights = ("a.0.weight", "b.0.weight", "c.0.weight")
    _, plan = pruned(seeded(structures.concatenation_is_added), *weights, sparsity=sparsity)
    assert [cut.kept for cut in plan] == kept


def test_slices_that_are_read_once_and_those_that_are_read_twice_do_not_change_places() -> None:
    """Of eight channels and their copies, the first 15 are read: the last channel but once."""
    channels = {"g": et.PrunerGroup("channels", ["b.0.weight"], sparsity=et.Uniform(0.0, 0.9))}
    model = seeded(structures.cut_to_a_number)
    coupled = checking.check_groups(model, channels, SHAPE)
    plan = pruning.make_plan(model, channels, asked({"g": 0.5}, "channels"), coupled)
    gone = removed_from(plan, "b.0.weight")
    assert gone
    images = torch.randn(4, *SHAPE)
    silent = silenced(seeded(structures.cut_to_a_number), "b.0", gone)
    torch.testing.assert_close(pruning.prune(model, plan, coupled)(images), silent(images), rtol=1e-4, atol=1e-5)


def test_a_branch_that_only_training_takes_loses_what_it_reads() -> None:
    smaller, _ = pruned(seeded(structures.BranchInTraining), "a.0.weight")
    assert smaller.aux[0].weight.shape == (8, 8, 3, 3)
    assert smaller.train()(torch.randn(2, *SHAPE)).shape == (2, 10)


@pytest.mark.parametrize("network", [structures.noise_in_training, structures.centre_in_training])
def test_code_that_counts_channels_only_while_it_trains_is_refused(network: Network) -> None:
    with pytest.raises(ExperimentError, match=r"fails in its own forward while it trains .*: its code counts on how"):
        pruned(seeded(network), "a.0.weight")


def test_code_that_draws_only_while_it_trains_is_pruned() -> None:
    smaller, _ = pruned(seeded(structures.dropout_in_training), "a.0.weight")
    assert smaller.train()(torch.randn(2, *SHAPE)).shape == (2, 10)


def test_a_convolution_called_twice_reads_what_it_makes() -> None:
    smaller, plan = pruned(seeded(structures.twice), "a.0.weight", "c.0.weight")
    assert plan[0].slices == plan[1].slices
    assert smaller.c[0].weight.shape == (8, 8, 3, 3)


@pytest.mark.parametrize(
    ("network", "weights", "problem"),
    [
        (
            structures.convolution_makes_the_output,
            ["head.weight"],
            r"filters of 'head.weight' make the network's output",
        ),
        (structures.halves, ["a.0.weight"], r"fails at 'm.0' .*: its code counts on how many channels arrive there"),
        (structures.halves, ["a.0.weight", "m.0.weight"], r"fails at 'm.0' .*: its code counts on how many channels"),
        (structures.cut_to_a_number, ["a.0.weight"], r"fails at 'b.0' .*: its code counts on how many channels"),
        (structures.cut_to_a_number, ["d.0.weight"], r"'d.0.weight' is a depthwise convolution's, which loses what"),
        (
            structures.norm_of_each_channel,
            ["a.weight"],
            r"all of the at most 16 .* stay, in parts of at most 1 of w",
        ),
        (
            structures.groups_of_one_filter,
            ["d.0.weight"],
            r"all of the at most 8 filters of a weight stay, in parts of",
        ),
        (structures.attention_over_places, ["m.weight"], r"even at 0.9 all of the at most 1 filters of a weight stay"),
        (
            lambda: structures.groups_beside_each_other(norm=True),
            ["a.0.weight"],
            r"the 2 groups of 'n' must keep as many channels each, but would keep \[5, 8\]",
        ),
        (
            lambda: structures.groups_beside_each_other(norm=False),
            ["b.0.weight"],
            r"the 2 groups of 'n' must keep as many channels each, but would keep \[8, 5\]",
        ),
        (structures.one_parameter_in_two, ["a.weight"], r"but a.weight, c.weight are one and the same"),
        (
            lambda: structures.chain(c=weight_norm(nn.Conv2d(16, 16, 3, padding=1))),
            ["a.0.weight"],
            r"must be a parameter of its own, but is computed from others",
        ),
        (
            lambda: structures.chain(c=weight_norm(nn.Conv2d(16, 16, 3, padding=1, groups=16))),
            ["a.0.weight"],
            r"must be a parameter of its own, but is computed from others",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything_starts(
    network: Network, weights: list[str], problem: str
) -> None:
    with pytest.raises(ExperimentError, match=problem):
        pruned(seeded(network), *weights)


@pytest.mark.parametrize(
    ("computed", "remove"),
    [
        (nn.utils.weight_norm, nn.utils.remove_weight_norm),
        (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
        (lambda layer: prune.random_unstructured(layer, "weight", 0.5), lambda layer: prune.remove(layer, "weight")),
        (parametrizations.weight_norm, lambda layer: parametrize.remove_parametrizations(layer, "weight")),
        (parametrizations.spectral_norm, lambda layer: parametrize.remove_parametrizations(layer, "weight")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_weight_that_is_computed_from_others_is_refused_until_what_computes_it_is_removed_as_it_says(
    computed: Callable[[nn.Module], nn.Module], remove: Callable[[nn.Module], nn.Module]
) -> None:
    model = structures.chain(c=computed(nn.Conv2d(16, 16, 3, padding=1))).eval()
    with torch.no_grad():
        model(torch.zeros(1, *SHAPE))  # computes the weight without its history, so that it can be copied
    with pytest.raises(
        ExperimentError, match=r"computed from others; remove what computes it \((.*)\), then"
    ) as raised:
        pruned(model, "a.0.weight")
    (said,) = re.findall(r"torch\.nn\.utils\.([a-z_.]+)", str(raised.value))
    assert said.rpartition(".")[2] in remove.__code__.co_names or said == remove.__name__
    remove(model.c)
    pruned(model, "a.0.weight")


def test_a_layer_that_is_never_called_is_refused() -> None:
    unused = nn.Sequential(structures.twice(), nn.Identity())
    unused[1].conv = nn.Conv2d(3, 4, 1)
    with pytest.raises(ExperimentError, match=r"'1.conv' is never called; remove '1.conv.weight'"):
        checking.check_groups(unused, group("1.conv.weight"), SHAPE)


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    net = structures.chain()
    net.last = net(torch.randn(1, *SHAPE))
    with pytest.raises(ExperimentError, match=r"can be copied, but copy.deepcopy raised RuntimeError: Only Tensors"):
        checking.check_groups(net, group("a.0.weight"), SHAPE)


@pytest.mark.parametrize("has_run", [False, True])
def test_a_network_whose_hook_holds_on_to_it_is_refused(has_run: bool) -> None:
    """A copy's hook would keep what the copy computes in the network, and the copy read what it had when copied."""
    net = structures.chain()
    net.between = lambda net, x: functional.relu(net.b(net.a(x))) + net.kept["a"].mean()
    net.kept = {}
    net.a.register_forward_hook(lambda module, given, output: net.kept.__setitem__("a", output))
    if has_run:
        with torch.no_grad():
            net.eval()(torch.zeros(1, *SHAPE))
    for check in (lambda: finding.groups(net, SHAPE), lambda: checking.check_groups(net, group("a.0.weight"), SHAPE)):
        with pytest.raises(ExperimentError, match=r"^model: the network must be one of which a copy computes the same"):
            check()


def test_groups_of_a_norm_are_not_moved_over_channels_of_others() -> None:
    """At 0.5 the norm could divide what is left, but into groups of other channels."""
    model = seeded(lambda: structures.groups_beside_each_other(norm=True))
    halved = asked({"g": 0.5})
    coupled = couplings(model, SHAPE)
    with pytest.raises(PruningError, match=r"'n' must keep as many channels each, but would keep \[4, 8\]"):
        pruning.prune(model, pruning.make_plan(model, group("a.0.weight"), halved, coupled), coupled)
    both, _ = pruned(model, "a.0.weight", "b.0.weight")
    assert (both.n.num_groups, both.n.num_channels) == (2, 8)


def test_two_groups_that_could_part_the_groups_of_a_layer_are_refused() -> None:
    """At equal sparsities both could be pruned; a search asks for others too."""
    groups = {"a": group("a.0.weight")["g"], "b": group("b.0.weight")["g"]}
    with pytest.raises(ExperimentError, match=r"in the same pruner group") as raised:
        checking.check_groups(structures.groups_beside_each_other(norm=False), groups, SHAPE)
    assert len(raised.value.problems) == 2


def test_pruning_leaves_what_a_network_remembers_as_it_was() -> None:
    model = seeded(structures.Remembering)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    smaller, plan = pruned(model, "a.weight")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(smaller.calls, model.calls)
    assert torch.equal(smaller.norm.running_mean, model.norm.running_mean[list(plan[0].slices)])


def test_statistics_that_a_network_gathers_stay_as_they_were() -> None:
    """A norm by hand trains by the network's own code; marks would make NaN of what is gathered while it infers."""
    model = seeded(structures.norm_by_hand_before_blocks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.r.train()
    groups = {**finding.groups(model, SHAPE), "b": et.BlockGroup(["r.0", "r.1"], keep=et.Integer(0, 2))}
    del groups["blocks_16"]
    coupled = checking.check_groups(model, groups, SHAPE)
    network_shape(model, {}, coupled)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.r.training
    assert not model.training
    smaller = pruning.prune(model, pruning.make_plan(model, groups, {"b.keep": 1}, coupled), coupled)
    assert all(torch.equal(value, before[name]) for name, value in smaller.named_buffers() if "r.0" not in name)


def test_a_network_whose_every_name_begins_with_module_is_pruned_by_its_own_names() -> None:
    model = structures.prefixed(10).eval()
    assert checking.check_groups(model, finding.groups(model, SHAPE), SHAPE)
    assert checking.check_groups(model, group("module.block1.conv1.weight"), SHAPE)


def test_an_rms_norm_follows() -> None:
    net = structures.layer_norm_and_scale()
    net.n = nn.RMSNorm(16)
    smaller, plan = pruned(net, "a.0.weight")
    torch.testing.assert_close(smaller.n.weight, net.n.weight[list(plan[0].slices)])


def test_every_problem_is_said_at_once() -> None:
    groups = {
        "one": et.PrunerGroup("filters", ["a.0.weight"], sparsity=et.Uniform(0.0, 0.9)),
        "two": et.PrunerGroup("filters", ["b.0.weight"], sparsity=et.Uniform(0.0, 0.9)),
        "three": et.PrunerGroup("channels", ["c.0.weight"], sparsity=et.Uniform(0.0, 0.9)),
    }
    with pytest.raises(ExperimentError) as raised:
        checking.check_groups(structures.concatenation_is_added(), groups, SHAPE)
    assert [problem.partition(",")[0] for problem in raised.value.problems] == [
        f"pruner_groups[{group!r}]: must remove something of its own" for group in ("two",)
    ]


@pytest.mark.parametrize(
    ("model", "parameters"), [("squeezenet1_1", 184_362), ("googlenet", 1_411_098), ("shufflenet_v2_x0_5", None)]
)
def test_couplings_of_networks_with_concatenations(model: str, parameters: int | None) -> None:
    """The counts are those that torch-pruning's own pruner leaves with everything halved."""
    network = models.build(model, 10)
    coupled = couplings(network, SHAPE)
    output = set(coupled.atoms[Side("the network's output", "end")].tolist())
    weights = [
        f"{name}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and output.isdisjoint(coupled.atoms[Side(name, "out")].tolist())
    ]
    if (
        parameters is None
    ):  # its blocks are halves and its channels are shuffled: which go together is found all the same
        assert all(len(coupled.atoms[Side(weight.removesuffix(".weight"), "out")]) for weight in weights)
        return
    plan = pruning.make_plan(network, group(*weights), asked({"g": 0.5}), coupled)
    assert pruning.size(pruning.prune(network.eval(), plan, coupled), SHAPE)[0] == parameters


def test_couplings_agree_with_torch_pruning_on_a_residual_network() -> None:
    network = models.build("resnet20_cifar", 10)
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=torch.zeros(1, *SHAPE))
    names = {layer: name for name, layer in network.named_modules()}
    coupled = couplings(network, SHAPE)
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        theirs = {
            (names[item.dep.target.module], bool(graph.is_out_channel_pruning_fn(item.dep.handler)))
            for item in graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
            if isinstance(item.dep.target.module, nn.Conv2d | nn.Linear)
        }
        mine = coupled.sides_of(coupled.atoms[Side(name, "out")].tolist())
        assert {(side.name, side.kind == "out") for side in mine if side.kind in ("in", "out")} == theirs


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_part_in_torchscript_is_refused_where_it_counts_channels() -> None:
    script = torch.jit.script(nn.Sequential(nn.Conv2d(16, 16, 1)))
    with pytest.raises(ExperimentError, match=r"'a.0.weight' .*: the network must take fewer of them, but fails"):
        pruned(structures.chain(c=script), "a.0.weight")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_network_in_torchscript_is_refused() -> None:
    script = torch.jit.script(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)))
    with pytest.raises(ExperimentError, match="model: must be a network of Python code, but got one of TorchScript"):
        pruned(script, "0.weight")
