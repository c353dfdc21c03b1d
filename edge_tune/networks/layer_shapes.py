"""The layers of a network as numbers, for models of what a pruned network costs."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edge_tune.experiment import PrunerGroup
from edge_tune.networks.couplings import Couplings, Side
from edge_tune.networks.structures import structure
from edge_tune.networks.tracing import is_depthwise
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
        weight = layer.get_parameter("weight")
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


def _outputs(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Return how many numbers each convolution or linear layer puts out for one image."""
    found: dict[str, int] = {}

    def counting(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, output: found.update({name: output[0].numel()})

    layers = [(name, one) for name, one in model.named_modules() if isinstance(one, _ConvNd | nn.Linear)]
    hooks = [layer.register_forward_hook(counting(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return found
