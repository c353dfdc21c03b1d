"""What is removed from a network: a structure is one class. It alone knows the layers that it acts on.

Filters and channels are the structures that come with EdgeTune. One of your own is a subclass of either, or of
`Slices`, that an experiment names as "package.module:name"; every trial on every node imports it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edge_tune.errors import ExperimentError, first_line
from edge_tune.experiment import STRUCTURES
from edge_tune.imports import import_callable
from edge_tune.networks.couplings import Side, side_of
from edge_tune.networks.tracing import is_depthwise, mixes


class Slices(ABC):
    """Slices of a layer's weight, named after the weight; what is tied to them in other layers goes with them.

    Attributes:
        kind: Whether they are what the layer puts "out" or what it takes "in".
    """

    kind: ClassVar[Literal["out", "in"]]

    def problem(self, model: nn.Module, part: str) -> str | None:
        """Return what keeps this part of a network from being acted on, or None."""
        weights = dict(model.named_parameters())
        if part not in weights:
            layers = [f"{name}.weight" for name, layer in model.named_modules() if self.acts_on(layer)]
            close = get_close_matches(part, layers, n=3) or layers[:3]
            hint = f"near it are {', '.join(close)}" if close else "the network has no layer that can lose any"
            return f"a weight must be one of the network's, but got {part!r}; {hint}."
        layer = model.get_submodule(self.side(part).name)
        if is_depthwise(layer):
            return (
                f"a weight must have something to choose from, but {part!r} is a depthwise convolution's, which loses "
                f"what the layer before it loses; remove it."
            )
        if not self.acts_on(layer) or not part.endswith(".weight"):
            return (
                f"a weight must be a convolution's or a linear layer's, but {part!r}, of shape "
                f"{list(weights[part].shape)}, is of a {type(layer).__name__}; remove it."
            )
        return None

    def acts_on(self, layer: nn.Module) -> bool:
        """Tell whether slices of this layer can be named; others follow those that they are tied to."""
        return mixes(layer) and "weight" in dict(layer.named_parameters(recurse=False))

    def part_of(self, model: nn.Module, side: Side) -> str | None:
        """Return the part whose slices are on this side of a layer, or None if this structure does not act on it."""
        return f"{side.name}.weight" if self.is_on(model, side) else None

    def is_on(self, model: nn.Module, side: Side) -> bool:
        """Tell whether this structure acts on the slices of a side."""
        return side.kind == self.kind and self.acts_on(model.get_submodule(side.name))

    @final
    def side(self, part: str) -> Side:
        """Return where the slices of a part are: on one side of the layer whose weight it is."""
        return side_of(part, self.kind)

    @abstractmethod
    def slices(self, layer: nn.Module) -> Tensor:
        """Return the weight of a convolution or a linear layer as its slices, [slices, ...]."""

    def of(self, model: nn.Module, part: str) -> Tensor:
        """Return the slices of a part of a network, [slices, ...]; their importance is computed from these."""
        return self.slices(model.get_submodule(self.side(part).name))

    def removed(self, scores: Sequence[float], count: int) -> Sequence[int]:
        """Return which `count` slices go, by their places: those of the least importance.

        Args:
            scores: The importance of each slice, [slices], summed over the weights that are tied to each other.
        """
        return sorted(range(len(scores)), key=scores.__getitem__)[:count]


class Filters(Slices):
    """What a layer puts out: dim 0 of a weight [C_out, C_in / groups, K_h, K_w] or [out, in]."""

    kind = "out"

    def slices(self, layer: nn.Module) -> Tensor:
        """Return the filters of a layer, [C_out, C_in / groups, ...]."""
        weight = layer.get_parameter("weight").detach()
        return _across_groups(weight, layer.groups) if isinstance(layer, _ConvTransposeNd) else weight


class Channels(Slices):
    """What a layer takes in: dim 1 of a weight [C_out, C_in / groups, K_h, K_w] or [out, in]."""

    kind = "in"

    def slices(self, layer: nn.Module) -> Tensor:
        """Return what a layer has for each of its channels, [C_in, C_out / groups, ...]."""
        weight = layer.get_parameter("weight").detach()
        if isinstance(layer, _ConvTransposeNd):
            return weight
        return _across_groups(weight, layer.groups if isinstance(layer, _ConvNd) else 1)


def _across_groups(weight: Tensor, groups: int) -> Tensor:
    """Return a weight [groups * A, B, ...] by what each group counts in its second dimension, [groups * B, A, ...]."""
    return torch.cat([rows.transpose(0, 1) for rows in weight.chunk(groups)])


KNOWN: dict[str, Slices] = dict(zip(STRUCTURES, (Filters(), Channels()), strict=True))


@lru_cache
def structure(name: str) -> Slices:
    """Return a structure by its name.

    Raises:
        ExperimentError: It is none that is known, and cannot be imported.
    """
    if name in KNOWN:
        return KNOWN[name]
    found = import_callable(name, "structure", "name a subclass of edge_tune.networks.structures.Slices")
    if not (isinstance(found, type) and issubclass(found, Slices)):
        raise ExperimentError(
            f"structure {name!r}: must be a subclass of edge_tune.networks.structures.Slices, or of Filters or "
            f"Channels there, but got {found!r}; make it one."
        )
    try:
        made: Slices = found()
    except Exception as error:
        raise ExperimentError(
            f"structure {name!r}: must be made without arguments, but raised {type(error).__name__}: "
            f"{first_line(error)}; mend it."
        ) from error
    if getattr(made, "kind", None) not in ("out", "in"):
        raise ExperimentError(
            f"structure {name!r}: its kind must be 'out' or 'in', but got {getattr(made, 'kind', None)!r}; mend it."
        )
    return made
