"""What can be removed from a network, without being named: every set of filters that belong together, every block."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError, PruningError
from edge_tune.experiment import BlockGroup, Group, PrunerGroup
from edge_tune.networks import blocks, checking, oracle
from edge_tune.networks.couplings import Couplings, Side, couplings
from edge_tune.networks.pruning import make_plan, tied
from edge_tune.networks.structures import structure
from edge_tune.networks.tracing import Shape, each_call
from edge_tune.parameters import Integer, Point, Uniform

INNER, STREAM = Uniform(0.0, 0.9), Uniform(0.0, 0.5)
"""The ranges of what one layer puts out, and of what several layers add to each other, which every block reads."""

MOST = 9
"""So many groups a search is given at most, three roles at three resolutions: each more needs more trials."""

LEAST_BLOCKS = 1 / 4
"""Of the blocks of a group so many stay at least. Of ResNet-56, 3 of 9 a stage end 2.9 points below the network."""

BLOCKS = "blocks"
"""The role of a block."""

HALF: Point = {"set.sparsity": 0.5, "set.structure": "filters", "set.importance": "l1"}


@dataclass(frozen=True)
class CoupledSet:
    """Filters that can only be removed together.

    Attributes:
        parts: The weights of the layers that put them out, in the order of the network.
        width: How many filters there are, each counted once however many layers have it.
        problem: Why they must stay, or None.
    """

    parts: tuple[str, ...]
    width: int
    problem: str | None = None

    def group(self) -> PrunerGroup:
        """Return the pruner group of this set."""
        return PrunerGroup("filters", self.parts, sparsity=INNER if len(self.parts) == 1 else STREAM)


def check_kind(model: nn.Module) -> None:
    """Check that a network is no transformer of PyTorch's or torchvision's kinds: heads share channels between them.

    Others are traced and tried like any network: gates that are called attention, as in CBAM, can be pruned.

    Raises:
        ExperimentError: It is one.
    """
    from torchvision.models.swin_transformer import ShiftedWindowAttention  # only now: trials do without torchvision

    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention | ShiftedWindowAttention):
            raise ExperimentError(
                f"model: to find what can be removed, it must be a network of convolutions and linear layers, but "
                f"{name!r} is a {type(module).__name__}: transformers cannot be pruned so; choose another network."
            )


def coupled_sets(model: nn.Module, coupled: Couplings) -> list[CoupledSet]:
    """Return all sets of a network's filters, in the order of their first layers.

    All are removed at once from copies of the network, as a study's groups are before it starts, and what is left must
    compute what it should. If it does not, each is removed alone, then with those before it, and says why it must stay.
    """
    found = [_planned(model, parts, coupled) for parts in _sets(model, coupled)]
    if not _problem(model, _free(found), coupled):
        return found
    found = [replace(one, problem=one.problem or _problem(model, [one], coupled)) for one in found]
    if not _problem(model, _free(found), coupled):
        return found
    together: list[CoupledSet] = []
    for one in found:
        problem = one.problem or _problem(model, [*_free(together), one], coupled)
        together.append(replace(one, problem=problem))
    return together


def _free(sets: Iterable[CoupledSet]) -> list[CoupledSet]:
    return [one for one in sets if not one.problem]


def _sets(model: nn.Module, coupled: Couplings) -> Iterator[tuple[str, ...]]:
    filters = structure("filters")
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    sides = sorted((side for side in coupled.atoms if filters.is_on(model, side)), key=lambda side: order[side.name])
    seen: set[Side] = set()
    for side in sides:
        if side in seen:
            continue
        parts = tied(model, filters, [f"{side.name}.weight"], coupled)
        seen |= set(map(filters.side, parts))
        yield tuple(sorted(parts, key=lambda part: order[filters.side(part).name]))


def _planned(model: nn.Module, parts: tuple[str, ...], coupled: Couplings) -> CoupledSet:
    filters = structure("filters")
    width = len(np.unique(np.concatenate([coupled.atoms[filters.side(part)] for part in parts])))
    found = CoupledSet(parts, width)
    if width == 1:
        one = all(len(coupled.atoms[filters.side(part)]) == 1 for part in parts)
        together = (
            "they are tied to each other, as by a number that is multiplied with all, and could only go together."
        )
        return replace(found, problem="it is one filter, and one must stay." if one else together)
    try:
        plan = make_plan(model, {"set": found.group()}, HALF, coupled)
    except PruningError as error:
        return replace(found, problem=str(error))
    if all(cut.kept == cut.before for cut in plan):
        return replace(found, problem="a layer counts them in groups that have one each, and one must stay in each.")
    return found


def _problem(model: nn.Module, sets: Sequence[CoupledSet], coupled: Couplings) -> str | None:
    """Return why these sets cannot be removed, or None."""
    if not sets:
        return None
    return checking.why_not_all(model, {str(number): one.group() for number, one in enumerate(sets)}, coupled)


def groups(model: nn.Module, input_shape: Shape) -> dict[str, Group]:
    """Return groups for a whole network, at most MOST: blocks of one resolution, sets of one role at one resolution.

    Raises:
        ExperimentError: The network attends, cannot be traced, or nothing of it can be removed.
    """
    check_kind(model)
    try:
        coupled = couplings(model, input_shape)
        oracle.check_draws(model, input_shape)
    except PruningError as error:
        raise ExperimentError(f"model: {error}") from error
    ran = _resolutions(model, input_shape)  # what only trains takes no time on a device
    free = [
        one
        for one in _free(coupled_sets(model, coupled))
        if any(part.removesuffix(".weight") in ran for part in one.parts)
    ]
    found = blocks.removable(model, input_shape)
    if not free and not found:
        raise ExperimentError(
            "pruner_groups: 'auto' must find filters or blocks that can be removed, but the network has none; name "
            "groups."
        )
    parts = [
        *((role, place, one.parts) for (role, place), one in zip(roles(model, input_shape, free), free, strict=True)),
        *((BLOCKS, place, (block,)) for block, place in _places(model, input_shape, found)),
    ]
    return {run.label: _group(run.role, [part for one in run.members for part in one]) for run in runs(parts, MOST)}


def _places(model: nn.Module, input_shape: Shape, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return modules with the heights of what they put out."""
    heights = _resolutions(model, input_shape)
    return [(name, heights[name]) for name in names]


def least_blocks(count: int) -> int:
    """Return how many of a group's blocks stay at least."""
    return math.floor(LEAST_BLOCKS * count)


def _group(role: str, parts: Sequence[str]) -> Group:
    if role == BLOCKS:
        return BlockGroup(parts, keep=Integer(least_blocks(len(parts)), len(parts)))
    return PrunerGroup("filters", parts, sparsity=STREAM if role == "stream" else INNER)


def roles(model: nn.Module, input_shape: Shape, sets: Sequence[CoupledSet]) -> list[tuple[str, int]]:
    """Return of each set what its layers do, and the greatest height of what they put out.

    It is 0 for linear layers, and for what only runs while the network trains.
    """
    places = _resolutions(model, input_shape)
    heights = [[places.get(part.removesuffix(".weight"), 0) for part in one.parts] for one in sets]
    return [(_role(found), max(found)) for found in heights]


Member = TypeVar("Member")


@dataclass(frozen=True)
class Run(Generic[Member]):
    """Members of one role at neighbouring resolutions.

    Attributes:
        places: The heights of what they put out, descending.
    """

    role: str
    places: tuple[int, ...]
    members: tuple[Member, ...]

    @property
    def label(self) -> str:
        """What to call it, such as "inner_32" or "stream_16_8"."""
        ends = dict.fromkeys((self.places[0], self.places[-1]))
        return "_".join([self.role, *(str(place) for place in ends if place)])

    def joined(self, other: "Run[Member]") -> "Run[Member]":
        """Return both as one."""
        return Run(self.role, self.places + other.places, self.members + other.members)


def runs(members: Iterable[tuple[str, int, Member]], most: int) -> list[Run[Member]]:
    """Return (role, height, member) as runs of one role and height; of more than `most`, small neighbours are joined.

    Args:
        most: At least as many as there are roles.
    """
    found: dict[tuple[str, int], list[Member]] = {}
    for role, place, member in members:
        found.setdefault((role, place), []).append(member)
    order = sorted(found.items(), key=lambda run: (run[0][0], -run[0][1]))
    merged = [Run(role, (place,), tuple(its)) for (role, place), its in order]
    while len(merged) > most:
        pairs = [n for n in range(len(merged) - 1) if merged[n].role == merged[n + 1].role]
        n = min(pairs, key=lambda n: len(merged[n].members) + len(merged[n + 1].members))
        merged[n : n + 2] = [merged[n].joined(merged[n + 1])]
    return merged


def _role(heights: Sequence[int]) -> str:
    """Return what the layers of a set do, by the heights of what they put out; "pooled": one value a channel."""
    if not max(heights):
        return "linear"
    if max(heights) == 1:
        return "pooled"
    return "inner" if sum(height > 1 for height in heights) == 1 else "stream"


def _resolutions(model: nn.Module, input_shape: Shape) -> dict[str, int]:
    """Return module -> the height of what it puts out; 0 for what has none."""
    found: dict[str, int] = {}

    def note(name: str, module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        found[name] = output.shape[2] if isinstance(output, Tensor) and output.dim() == 4 else 0

    each_call(model, torch.zeros(1, *input_shape), note)
    return found
