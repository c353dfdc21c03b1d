"""What must be removed together: the slices of a network's layers, joined where they reach the same column.

A residual addition joins the filters of both its sides, a product those of its factors; a concatenation joins nothing.
A batch norm, a depthwise convolution and whatever else has a value for each channel follow.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn.modules.conv import _ConvNd

from edge_tune.networks.tracing import IMAGE, OUTPUT, Shape, Trace, mixes, trace

Kind = Literal["in", "out", "passing", "element", "end"]
STARTS: tuple[Kind, ...] = ("out", "element", "end")
ENDS: tuple[Kind, ...] = ("in", "passing", "end")
Atoms = npt.NDArray[np.int64]


class Side(NamedTuple):
    """Where there are slices.

    Attributes:
        name: Of a layer, or of a parameter that belongs to none; IMAGE or OUTPUT.
        kind: "out" and "in" of a layer that mixes its channels, "passing" through one that has something for each,
            "element" of a parameter; the "end" of the network, where its images come in or its output leaves.
    """

    name: str
    kind: Kind


def side_of(weight: str, kind: Kind) -> Side:
    """Return where the slices of a weight are."""
    return Side(weight.rpartition(".")[0], kind)


@dataclass(frozen=True)
class Couplings:
    """Which slices of a network go together.

    An *atom* is a set of slices, of all layers, that can only be removed together.

    Attributes:
        input_shape: (C, H, W) of one image.
        found: The ways that this was read off.
        atoms: Side -> the atom that each slice belongs to.
        parts: Side -> into how many parts a grouped layer divides its slices, which must stay equally long.
    """

    input_shape: Shape
    found: Trace
    atoms: Mapping[Side, Atoms]
    parts: Mapping[Side, int]

    def start(self, name: str) -> Side:
        """Return the side of a start of `found`."""
        return next(side for kind in STARTS if (side := Side(name, kind)) in self.atoms)

    def end(self, name: str) -> Side:
        """Return the side of an end of `found`."""
        return next(side for kind in ENDS if (side := Side(name, kind)) in self.atoms)

    def part_of(self, side: Side, slice_: int) -> int:
        """Return which of its layer's groups a slice belongs to."""
        return slice_ * self.parts.get(side, 1) // len(self.atoms[side])

    @cached_property
    def holders(self) -> Mapping[int, Sequence[Side]]:
        """Return atom -> the sides that have a slice of it."""
        holders: dict[int, list[Side]] = defaultdict(list)
        for side, atoms in self.atoms.items():
            for atom in np.unique(atoms).tolist():
                holders[atom].append(side)
        return holders

    def sides_of(self, atoms: Iterable[int]) -> set[Side]:
        """Return the sides that have a slice of any of these atoms."""
        return {side for atom in atoms for side in self.holders[atom]}

    def stays(self, removed: Atoms) -> dict[Side, npt.NDArray[np.bool_]]:
        """Return, of each side that loses anything with these atoms, which of its slices stay."""
        gone = np.zeros(max(self.holders) + 1, dtype=np.bool_)
        gone[removed] = True
        return {side: ~gone[self.atoms[side]] for side in self.sides_of(removed.tolist())}

    def is_computed_over(self, atoms: Iterable[int], model: nn.Module) -> bool:
        """Tell whether the network computes over channels, some of which are these, such as their mean or a norm.

        What is left then has another mean, so that no network with zeros in it computes the same.
        """
        starts = {side.name for side in self.sides_of(atoms)}
        if any(way.mixed for (start, _), way in self.found.ways.items() if start in starts):
            return True
        layers = dict(model.named_modules())
        return any(isinstance(layers.get(name), nn.GroupNorm | nn.LayerNorm | nn.RMSNorm) for name in starts)


def couplings(model: nn.Module, input_shape: Shape) -> Couplings:
    """Return what must be removed together in `model`, whose weights do not matter.

    Args:
        input_shape: (C, H, W) of one image.

    Raises:
        PruningError: The network cannot be traced.
    """
    found = trace(model, input_shape)
    layers = dict(model.named_modules())
    starts = {start: Side(start, _start_kind(start, layers)) for start in found.starts}
    ends = {end: Side(end, _end_kind(end, layers)) for end in found.columns}
    slices = {
        **{starts[name]: n for name, n in found.starts.items()},
        **{ends[name]: n for name, n in found.columns.items()},
    }
    first = dict(zip(slices, np.cumsum([0, *slices.values()]), strict=False))
    joined = np.array(
        [
            (first[starts[start]] + slice_, first[ends[end]] + column)
            for (start, end), way in found.ways.items()
            if way.slices > 1  # one slice may be added to all channels, or multiply all; it always stays
            for slice_, column in way.pairs
        ],
        dtype=np.int64,
    ).reshape(-1, 2)
    total = sum(slices.values())
    graph = coo_matrix((np.ones(len(joined)), joined.T), shape=(total, total))
    _, labels = connected_components(graph, directed=False)
    atoms = {side: labels[first[side] : first[side] + count].astype(np.int64) for side, count in slices.items()}
    return Couplings(input_shape, found, atoms, dict(_parts(model, atoms)))


def _start_kind(name: str, layers: Mapping[str, nn.Module]) -> Kind:
    return "end" if name == IMAGE else "out" if name in layers else "element"


def _end_kind(name: str, layers: Mapping[str, nn.Module]) -> Kind:
    return "end" if name == OUTPUT else "in" if mixes(layers[name]) else "passing"


def _parts(model: nn.Module, atoms: Mapping[Side, Atoms]) -> Iterator[tuple[Side, int]]:
    layers = dict(model.named_modules())
    for side in atoms:
        layer = layers.get(side.name)
        if isinstance(layer, _ConvNd) and mixes(layer) and layer.groups > 1:
            yield side, layer.groups
        if isinstance(layer, nn.GroupNorm) and layer.num_groups > 1:
            yield side, layer.num_groups
