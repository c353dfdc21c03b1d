"""The layers of an unpruned network as numbers: how wide they are, what they cost, and what pruner groups take away."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Width:
    """The channels on one side of a layer.

    Attributes:
        slices: How many there are.
        cuts: Pruner groups that remove some of them, each with the kind of structure by which it does: "out" or "in".
    """

    slices: int
    cuts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LayerShape:
    """A layer with a weight.

    Attributes:
        name: As the network has it, and the layers of records too.
        outputs, inputs: What it puts out and takes in; a layer that has something for each channel takes in one.
        macs: Multiply-accumulates of one image.
        parameters: Of its weight.
    """

    name: str
    outputs: Width
    inputs: Width
    macs: int
    parameters: int

    @property
    def kind(self) -> tuple[int, ...]:
        """What layers have in common that take the same time."""
        return self.outputs.slices, self.inputs.slices, self.macs, self.parameters


@dataclass(frozen=True)
class NetworkShape:
    """The layers of a network.

    Attributes:
        kinds: Name of a structure -> "out" or "in".
        granularity: Kept counts are multiples of it.
    """

    layers: tuple[LayerShape, ...]
    kinds: Mapping[str, str]
    granularity: int = 1
