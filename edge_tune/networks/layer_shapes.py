"""The layers of a network as numbers, for models of what a pruned network costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from edge_tune.experiment import PrunerGroup
from edge_tune.networks.couplings import Couplings, Side
from edge_tune.networks.structures import structure
from edge_tune.networks.tracing import Shape, each_call, is_depthwise
from edge_tune.records.shapes import LayerShape, NetworkShape, Width


def network_shape(
    model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings, granularity: int = 1
) -> NetworkShape:
    """Return the convolutions and linear layers of a network, and which group removes channels of each.

    Args:
        coupled: What must be removed together in `model`.
        granularity: Kept counts are multiples of it.
    """
    kinds = {name: structure(name).kind for group in groups.values() for name in group.structures}
    taken = {
        (label, kind): _atoms(group, kind, coupled)
        for label, group in groups.items()
        for kind in sorted({kinds[name] for name in group.structures})
    }

    def width(side: Side, slices: int) -> Width:
        atoms = coupled.atoms.get(side)
        cuts = [cut for cut, its in taken.items() if atoms is not None and not its.isdisjoint(atoms.tolist())]
        return Width(slices, tuple(cuts))

    outputs = _outputs(model, coupled.input_shape)
    layers = []
    for name, layer in model.named_modules():
        if name not in outputs:
            continue
        assert isinstance(layer, _ConvNd | nn.Linear)
        weight = layer.weight  # which may be computed from others, as by torch.nn.utils.parametrizations
        if is_depthwise(layer):
            out, into = width(Side(name, "passing"), weight.shape[0]), Width(1)
        else:
            transposed = isinstance(layer, _ConvNd) and layer.transposed
            rows, columns = (weight.shape[1], weight.shape[0]) if transposed else weight.shape[:2]
            out, into = width(Side(name, "out"), rows), width(Side(name, "in"), columns)
        macs = outputs[name] * weight.numel() // out.slices
        layers.append(LayerShape(name, out, into, macs, weight.numel()))
    return NetworkShape(tuple(layers), kinds, granularity)


def _atoms(group: PrunerGroup, kind: str, coupled: Couplings) -> set[int]:
    sides = [Side(weight.rpartition(".")[0], kind) for weight in group.weights]  # type: ignore[arg-type]
    found = [coupled.atoms[side] for side in sides if side in coupled.atoms]
    return set(np.concatenate(found).tolist()) if found else set()


def _outputs(model: nn.Module, input_shape: Shape) -> dict[str, int]:
    """Return how many numbers each convolution or linear layer puts out for one image."""
    found: dict[str, int] = {}

    def note(name: str, layer: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        if isinstance(layer, _ConvNd | nn.Linear):
            found[name] = output[0].numel()

    each_call(model, torch.zeros(1, *input_shape), note)
    return found
