"""The parts of a network that can be removed: sets of filters that belong together, and blocks.

What a part's time is: a set's, that of the layers whose outputs it makes, of those that only follow (a depthwise
convolution, a norm) and of those that read them, each in full, however few of its channels are the set's; a block's,
that of all that runs inside it. A layer that reads one set and makes another counts for both, so that the shares of the
parts overlap and add up to more than 1. What a removal saves is measured, not taken from these shares.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edge_tune.errors import PruningError
from edge_tune.networks import blocks, finding, pruning
from edge_tune.networks.couplings import Couplings, Side
from edge_tune.networks.finding import CoupledSet
from edge_tune.networks.structures import structure
from edge_tune.networks.tracing import Shape, each_call, is_depthwise, mixes
from edge_tune.parameters import Point
from edge_tune.records.entries import LayerEntry
from edge_tune.wording import counted, listed

SHARES = (0.25, 0.5, 0.75)
"""Of a set's filters: so many are removed to see what that costs and saves."""

ALL = 1.0
"""The share of a block that is removed."""


@dataclass(frozen=True)
class Part:
    """A set of filters, or a block.

    Attributes:
        weights: Of the layers that make a set's filters; none of a block.
        role: What a set's layers do, as `finding.roles` has it; "block".
        place: Height of what a set's layers put out; of a block's input. 0 where there is none.
        width: How many filters a set has; channels of a block's input.
        ties: What keeps a set together, in words; what a block is.
        layers: The modules whose time is the part's; of a block, the block.
        parameters: How many there are of the part's own: of the layers that make the filters, and what is there for
            them in those that follow and read them.
        macs: Multiply-accumulates of one image that are done with these parameters.
        alike: Equal for parts whose layers have the same shapes, so that removing as much leaves the same work.
        problem: Why it must stay, or None.
    """

    kind: Literal["set", "block"]
    name: str
    weights: tuple[str, ...]
    role: str
    place: int
    width: int
    ties: str
    layers: tuple[str, ...]
    parameters: int
    macs: int
    alike: str
    problem: str | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """How much of it is tried without."""
        return SHARES if self.kind == "set" else (ALL,)

    @property
    def importance(self) -> str:
        """By which the filters that go are chosen."""
        return CoupledSet(self.weights, self.width).group().importances[0]

    def time_share(self, table: Iterable[LayerEntry]) -> float:
        """Return the part's share of the device time, by the layers that took it."""
        return sum(row.share for row in table if self.has(row.name))

    def has(self, layer: str) -> bool:
        """Tell whether the time of a layer is the part's."""
        if self.kind == "block":
            return layer == self.name or layer.startswith(f"{self.name}.")
        return layer in self.layers


@dataclass(frozen=True)
class _Layer:
    """What a module did with one image.

    Attributes:
        shapes: Of its first input and its output.
        macs: Of all calls; of convolutions and linear layers only.
    """

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    macs: int


def find(model: nn.Module, coupled: Couplings) -> list[Part]:
    """Return all sets of a network in the order of their first layers, those that must stay included, then its blocks.

    Args:
        coupled: What must be removed together in `model`.
    """
    ran = _run(model, coupled.input_shape)
    sets = [
        replace(one, problem=one.problem or _why_not_alone(model, one, coupled))
        for one in finding.coupled_sets(model, coupled)
    ]
    found = [
        _set(model, one, role, place, coupled, ran)
        for one, (role, place) in zip(sets, finding.roles(model, coupled.input_shape, sets), strict=True)
    ]
    return found + [_block(model, name, ran) for name in blocks.removable(model, coupled.input_shape)]


def without(model: nn.Module, part: Part, share: float, coupled: Couplings) -> nn.Module | None:
    """Return the network without a share of a part, or None if there is nothing of it that could go.

    That what is left computes what it should was tried when the part was found, and is again in every trial.
    """
    if part.kind == "block":
        return blocks.without(model, [part.name])
    return _without(model, CoupledSet(part.weights, part.width), share, coupled)


def _without(model: nn.Module, one: CoupledSet, share: float, coupled: Couplings) -> nn.Module | None:
    group = one.group()
    point: Point = {f"set.{name}": parameter.default for name, parameter in group.parameters().items()}
    plan = pruning.make_plan(model, {"set": group}, {**point, "set.sparsity": share}, coupled)
    return pruning.remove(model, plan, coupled) if any(cut.kept < cut.before for cut in plan) else None


def _why_not_alone(model: nn.Module, one: CoupledSet, coupled: Couplings) -> str | None:
    """Return why a set cannot go without others that are beside it in a layer which counts its channels in groups."""
    atoms = np.concatenate([coupled.atoms[structure("filters").side(weight)] for weight in one.parts])
    if coupled.parts.keys().isdisjoint(coupled.sides_of(np.unique(atoms).tolist())):
        return None
    try:
        for share in SHARES:
            _without(model, one, share, coupled)
    except PruningError as error:
        return f"it is tried alone, but can only go together with others: {error}"
    return None


def _set(
    model: nn.Module, one: CoupledSet, role: str, place: int, coupled: Couplings, ran: Mapping[str, _Layer]
) -> Part:
    filters = structure("filters")
    atoms = np.unique(np.concatenate([coupled.atoms[filters.side(weight)] for weight in one.parts]))
    sides = sorted(side for side in coupled.sides_of(atoms.tolist()) if side.kind in ("in", "out", "passing"))
    shares = {side: float(np.isin(coupled.atoms[side], atoms).mean()) for side in sides}
    names = dict.fromkeys(side.name for side in sides)
    touched = {name: _touched(model.get_submodule(name), name, shares) for name in names}
    return Part(
        kind="set",
        name=one.parts[0].removesuffix(".weight"),
        weights=one.parts,
        role=role,
        place=place,
        width=one.width,
        ties=_ties(model, one, set(atoms.tolist()), coupled, ran),
        layers=tuple(names),
        parameters=sum(count for count, _ in touched.values()),
        macs=round(sum(ran[name].macs * share for name, (_, share) in touched.items() if name in ran)),
        alike=_digest([one.width, sorted((side.kind, shares[side], _shape(model, side.name, ran)) for side in sides)]),
        problem=one.problem and f"{one.problem.partition('; ')[0].rstrip('.')}.",
    )


def _touched(layer: nn.Module, name: str, shares: Mapping[Side, float]) -> tuple[int, float]:
    """Return how many parameters of a layer are there for a set, and which share of its weight that is."""
    outputs = max(shares.get(Side(name, "out"), 0.0), shares.get(Side(name, "passing"), 0.0))
    inputs = shares.get(Side(name, "in"), 0.0)
    share = 1 - (1 - outputs) * (1 - inputs)
    count = sum(
        parameter.numel() * (share if own == "weight" else outputs)
        for own, parameter in layer.named_parameters(recurse=False)
    )
    return round(count), share


def _block(model: nn.Module, name: str, ran: Mapping[str, _Layer]) -> Part:
    block = model.get_submodule(name)
    inside = [own for own, _ in block.named_modules(prefix=name)]
    _, channels, *places = ran[name].shapes[0]
    return Part(
        kind="block",
        name=name,
        weights=(),
        role="block",
        place=places[0] if places else 0,
        width=channels,
        ties=f"a residual block, {type(block).__name__}",
        layers=(name,),
        parameters=sum(parameter.numel() for parameter in block.parameters()),
        macs=sum(ran[own].macs for own in inside if own in ran),
        alike=_digest([_shape(model, own, ran) for own in inside]),
    )


def _ties(model: nn.Module, one: CoupledSet, atoms: set[int], coupled: Couplings, ran: Mapping[str, _Layer]) -> str:
    """Return what keeps the filters of a set together; "" where they are one layer's alone."""
    makers = [weight.removesuffix(".weight") for weight in one.parts]
    heights = {name: _height(ran[name].shapes[1]) for name in makers if name in ran}
    highest = max(heights.values(), default=0)
    gates = [name for name, height in heights.items() if height == 1 < highest]
    added = [name for name in makers if name not in gates]
    sides = sorted(coupled.sides_of(atoms))
    depthwise = [side.name for side in sides if side.kind == "passing" and is_depthwise(model.get_submodule(side.name))]
    mine = {side: Counter(coupled.atoms[side].tolist()) for side in sides if side.kind == "in"}
    joined = [side.name for side, counts in mine.items() if set(counts) - atoms]
    flat = [side.name for side, counts in mine.items() if any(counts[atom] > 1 for atom in atoms)]
    groups = [side.name for side in sides if coupled.parts.get(side, 1) > 1]
    own = [side.name for side in sides if side.kind == "element"]
    words = [
        f"{counted(len(added), 'layer')} that are added to each other" if len(added) > 1 else "",
        f"a product with {listed(gates)}" if gates else "",
        counted(len(depthwise), "depthwise convolution") if depthwise else "",
        f"a concatenation before {listed(joined)}" if joined else "",
        f"a flatten before {listed(flat)}" if flat else "",
        f"the groups of {listed(groups)}" if groups else "",
        f"the parameter {listed(own)}" if own else "",
    ]
    return ", ".join(word for word in words if word)


def _height(shape: Sequence[int]) -> int:
    return shape[2] if len(shape) == 4 else 0


def _shape(model: nn.Module, name: str, ran: Mapping[str, _Layer]) -> str:
    """Return all that the time of a layer may depend on, but its name and its values."""
    layer = model.get_submodule(name)
    weights = [list(parameter.shape) for parameter in layer.parameters(recurse=False)]
    settings = [layer.stride, layer.padding, layer.dilation, layer.groups] if isinstance(layer, _ConvNd) else []
    return repr([type(layer).__name__, weights, settings, ran[name].shapes if name in ran else None])


def _digest(found: object) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def _run(model: nn.Module, input_shape: Shape) -> dict[str, _Layer]:
    """Return what each module that turns one tensor into another does with one image."""
    found: dict[str, _Layer] = {}

    def note(name: str, layer: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
            before = found.get(name, _Layer((tuple(given[0].shape), tuple(output.shape)), 0))
            found[name] = _Layer(before.shapes, before.macs + _macs(layer, given[0], output))

    each_call(model, torch.zeros(1, *input_shape), note)
    return found


def _macs(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    """Return the multiply-accumulates of a convolution or a linear layer."""
    if not (mixes(layer) or is_depthwise(layer)):
        return 0
    assert isinstance(layer, _ConvNd | nn.Linear)
    weights = layer.weight.numel()
    if isinstance(layer, _ConvNd):
        places = given if isinstance(layer, _ConvTransposeNd) else output
        return weights * places[0, 0].numel()
    return weights * (output.numel() // output.shape[-1])
