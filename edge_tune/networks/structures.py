"""What is removed from a network: a structure is one class. It alone knows the layers that it acts on.

Filters and channels are the structures that come with EdgeTune. One of your own is a subclass of either, or of
`Slices`, that an experiment names as "package.module:name"; every trial on every node imports it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError
from edge_tune.imports import import_callable
from edge_tune.networks.couplings import Side
from edge_tune.networks.tracing import is_depthwise


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
            convolutions = [name for name, weight in weights.items() if weight.dim() == 4]
            close = get_close_matches(part, convolutions, n=3) or convolutions[:3]
            hint = f"near it are {', '.join(close)}" if close else "the network has no convolution"
            return f"a weight must be one of the network's, but got {part!r}; {hint}."
        layer = model.get_submodule(self.side(part).name)
        if not isinstance(layer, nn.Conv2d) or weights[part].dim() != 4:
            return (
                f"a weight must be a convolution's [C_out, C_in, K_h, K_w], but {part!r} has shape "
                f"{list(weights[part].shape)}; remove it."
            )
        if is_depthwise(layer):
            return (
                f"a weight must have something to choose from, but {part!r} is a depthwise convolution's, which loses "
                f"what the layer before it loses; remove it."
            )
        return None

    def part_of(self, model: nn.Module, side: Side) -> str | None:
        """Return the part whose slices are on this side of a layer, or None if this structure does not act on it."""
        part = f"{side.name}.weight"
        return part if side.kind == self.kind and not self.problem(model, part) else None

    def side(self, part: str) -> Side:
        """Return where the slices of a part are."""
        return Side(part.rpartition(".")[0], self.kind)

    @abstractmethod
    def slices(self, layer: nn.Conv2d) -> Tensor:
        """Return the weight of a layer [C_out, C_in / groups, K_h, K_w] as its slices, [slices, ...]."""

    def of(self, model: nn.Module, part: str) -> Tensor:
        """Return the slices of a part of a network, [slices, ...]; their importance is computed from these."""
        layer = model.get_submodule(self.side(part).name)
        assert isinstance(layer, nn.Conv2d)  # `problem` looked
        return self.slices(layer)

    def removed(self, scores: Sequence[float], count: int) -> Sequence[int]:
        """Return which `count` slices go, by their places: those of the least importance.

        Args:
            scores: The importance of each slice, [slices], summed over the weights that are tied to each other.
        """
        return sorted(range(len(scores)), key=scores.__getitem__)[:count]


class Filters(Slices):
    """Dim 0 of a weight: what a convolution puts out."""

    kind = "out"

    def slices(self, layer: nn.Conv2d) -> Tensor:
        """Return the filters of a layer, [C_out, C_in / groups, K_h, K_w]."""
        return layer.weight.detach()


class Channels(Slices):
    """Dim 1 of a weight: what a convolution takes in."""

    kind = "in"

    def slices(self, layer: nn.Conv2d) -> Tensor:
        """Return what a layer has for each of its channels, [C_in, C_out / groups, K_h, K_w]."""
        return torch.cat([rows.transpose(0, 1) for rows in layer.weight.detach().chunk(layer.groups)])


KNOWN: dict[str, Slices] = {"filters": Filters(), "channels": Channels()}


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
    return found()
