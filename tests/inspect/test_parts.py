"""The parts of small networks, with numbers computed by hand."""

import pytest
import torch
from torch import Tensor, nn

from edge_tune.inspect import parts
from edge_tune.inspect.parts import Part
from edge_tune.networks.couplings import couplings
from edge_tune.records.entries import LayerEntry
from tests import structures
from tests.test_finding import ChannelAttention
from tests.test_pruning import COUPLED, trained_small

CONV = 8 * 8 * 9
STEM = 3 * 8 * 9
MAP = 8 * 8
"""Pixels behind the stem, which halves 16."""


@pytest.fixture(scope="module")
def small() -> dict[str, Part]:
    return {part.name: part for part in parts.find(trained_small(), COUPLED)}


def found(model: nn.Module, size: int = 8) -> dict[str, Part]:
    return {part.name: part for part in parts.find(model, couplings(model, (3, size, size)))}


def test_parts_are_sets_and_blocks_with_what_is_their_own(small: dict[str, Part]) -> None:
    own = {name: (part.kind, part.role, part.width, part.parameters, part.macs) for name, part in small.items()}
    # Behind the first addition comes no ReLU, so that the first block cannot be left out.
    norm = 2 * 8
    assert own == {
        "stem": ("set", "stream", 8, STEM + 8 + 2 * (2 * CONV + norm) + 8 * 5, (STEM + 4 * CONV) * MAP + 8 * 5),
        "block1.conv1": ("set", "inner", 8, 2 * CONV + norm, 2 * CONV * MAP),
        "block2.conv1": ("set", "inner", 8, 2 * CONV + norm, 2 * CONV * MAP),
        "fc": ("set", "linear", 5, 8 * 5 + 5, 8 * 5),
        "block2": ("block", "block", 8, 2 * (CONV + norm), 2 * CONV * MAP),
    }
    assert small["stem"].ties == "3 layers that are added to each other"
    assert small["fc"].problem == "the filters of 'fc.weight' make the network's output, which must stay whole."
    assert small["block1.conv1"].alike == small["block2.conv1"].alike != small["stem"].alike


def test_time_of_a_part_is_that_of_the_layers_that_make_follow_and_read_it(small: dict[str, Part]) -> None:
    shares = {"stem": 0.2, "block1.conv1": 0.3, "block1.conv2": 0.25, "block2.conv1": 0.1, "block2.conv2": 0.06}
    shares |= {"block2.Relu_1": 0.04, "fc": 0.05}
    table = [LayerEntry(name, "Convolution", "jit", share, share) for name, share in shares.items()]
    times = {name: part.time_share(table) for name, part in small.items()}
    assert times == pytest.approx(
        {"stem": 0.96, "block1.conv1": 0.55, "block2.conv1": 0.16, "fc": 0.05, "block2": 0.2}  # they overlap
    )


def test_without_removes_the_share_of_a_set_or_a_block(small: dict[str, Part]) -> None:
    half = parts.without(trained_small(), small["block1.conv1"], 0.5, COUPLED)
    assert half is not None
    assert half.get_parameter("block1.conv1.weight").shape == (4, 8, 3, 3)
    assert half.get_parameter("block1.conv2.weight").shape == (8, 4, 3, 3)
    shorter = parts.without(trained_small(), small["block2"], parts.ALL, COUPLED)
    assert shorter is not None
    assert isinstance(shorter.get_submodule("block2"), nn.Identity)
    assert parts.without(trained_small(), small["block1.conv1"], 0.1, COUPLED) is None  # 0.1 of 8 is none


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.last = nn.Conv2d(10, 5, 1)
        self.alpha = nn.Linear(5 * 8 * 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        both = torch.cat([self.left(images), self.depthwise(self.right(images))], dim=1)
        return self.alpha(self.last(both).flatten(1))


def test_what_ties_a_set_is_told() -> None:
    assert {name: part.ties for name, part in found(Joined()).items()} == {
        "left": "a concatenation before last",
        "right": "1 depthwise convolution, a concatenation before last",
        "last": "a flatten before alpha",
        "alpha": "",
    }
    gated = nn.Sequential(
        nn.Conv2d(3, 16, 3), ChannelAttention(16), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(128, 5)
    )
    assert {name: part.ties for name, part in found(gated).items()} == {
        "0": "a product with 1.wide",
        "1.narrow": "",
        "2": "a flatten before 4",
        "4": "",
    }


def test_a_layer_that_reads_two_sets_counts_with_what_is_there_for_each() -> None:
    own = found(Joined())
    assert own["left"].parameters == (3 * 4 + 4) + 4 * 5
    assert own["right"].parameters == (3 * 6 + 6) + (6 * 9 + 6) + 6 * 5
    assert own["right"].macs == (3 * 6 + 6 * 9 + 6 * 5) * 8 * 8


@pytest.mark.parametrize("norm", [False, True])
def test_a_set_beside_another_in_a_layer_of_groups_is_not_tried_alone(norm: bool) -> None:
    model = structures.groups_beside_each_other(norm=norm).eval()
    coupled = couplings(model, (3, 32, 32))
    sets = {part.name: part for part in parts.find(model, coupled)}
    for name, counts in (("a.0", [6, 8]), ("b.0", [8, 6])):
        assert sets[name].problem == (
            f"it is tried alone, but can only go together with others: the 2 groups of 'n' must keep as many channels "
            f"each, but would keep {counts}."
        )
    for part in sets.values():
        for share in () if part.problem else part.shares:
            assert parts.without(model, part, share, coupled) is not None
