"""Layers made smaller in place: the slices that stay, with all that belongs to them."""

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edge_tune.errors import PruningError
from edge_tune.networks.couplings import Side
from edge_tune.networks.tracing import is_depthwise

REMOVED_BY = {
    "_g": "torch.nn.utils.remove_weight_norm",
    "_mask": "torch.nn.utils.prune.remove",
    "_orig": "torch.nn.utils.remove_spectral_norm",
    "": "torch.nn.utils.parametrize.remove_parametrizations",
}
"""What a weight is computed from, by the end of its name -> what makes it a parameter again."""


def keep(model: nn.Module, side: Side, kept: Tensor) -> None:
    """Leave these slices on a side of a network, in this order; nothing that is tied to them is touched."""
    if side.kind == "out":
        keep_outputs(model.get_submodule(side.name), kept)
    elif side.kind == "in":
        keep_inputs(model.get_submodule(side.name), kept)
    elif side.kind == "passing":
        keep_channels(model.get_submodule(side.name), kept)
    else:
        keep_elements(model, side.name, kept)


def keep_outputs(layer: nn.Module, kept: Tensor) -> None:
    """Keep these outputs of a convolution or a linear layer.

    Args:
        kept: Indices in ascending order; of a grouped convolution, as many from each group.
    """
    if isinstance(layer, _ConvTransposeNd):
        _set(layer, "weight", _within_groups(_own(layer, "weight"), kept, layer.out_channels, layer.groups))
    else:
        _set(layer, "weight", _own(layer, "weight")[kept])
    if layer.bias is not None:
        _set(layer, "bias", _own(layer, "bias")[kept])
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(kept))


def keep_inputs(layer: nn.Module, kept: Tensor) -> None:
    """Keep these inputs of a convolution or a linear layer.

    Args:
        kept: As in `keep_outputs`.
    """
    weight = _own(layer, "weight")
    if isinstance(layer, nn.Linear):
        _set(layer, "weight", weight[:, kept])
        layer.in_features = len(kept)
        return
    assert isinstance(layer, _ConvNd)
    if isinstance(layer, _ConvTransposeNd):
        _set(layer, "weight", weight[kept])
    else:
        _set(layer, "weight", _within_groups(weight, kept, layer.in_channels, layer.groups))
    layer.in_channels = len(kept)


def keep_channels(layer: nn.Module, kept: Tensor) -> None:
    """Keep these of the channels that pass through a norm, a PReLU or a depthwise convolution."""
    channels = _channels(layer)
    if getattr(layer, "weight", None) is not None:
        _own(layer, "weight")
    own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
    for name, values in own.items():
        if values.dim() and len(values) % channels == 0:  # a depthwise convolution may have several filters a channel
            _set(layer, name, values.view(channels, -1, *values.shape[1:])[kept].flatten(0, 1))
    if isinstance(layer, _ConvNd):
        layer.out_channels = layer.out_channels // channels * len(kept)
        layer.in_channels = layer.groups = len(kept)
    for name in ("num_features", "num_channels", "num_parameters"):
        if hasattr(layer, name):
            setattr(layer, name, len(kept))
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = (len(kept),)


def keep_elements(model: nn.Module, parameter: str, kept: Tensor) -> None:
    """Keep these elements of a parameter that has one for each channel, such as [C, 1, 1]."""
    path, _, name = parameter.rpartition(".")
    values = model.get_parameter(parameter)
    _set(model.get_submodule(path), name, values.index_select(values.shape.index(values.numel()), kept))


def without_inputs(layer: nn.Module, kept: Tensor) -> Tensor:
    """Return the weight with which a convolution or a linear layer computes as if all inputs but these were zero.

    Args:
        kept: Which inputs count, bool [inputs].
    """
    weight = layer.get_parameter("weight").detach()
    counts = kept.to(weight.dtype)
    if isinstance(layer, nn.Linear):
        return weight * counts
    assert isinstance(layer, _ConvNd)
    if isinstance(layer, _ConvTransposeNd):
        return weight * counts.view(-1, *[1] * (weight.dim() - 1))
    rows = counts.view(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, dim=0)
    return weight * rows.view(*rows.shape, *[1] * (weight.dim() - 2))


def _within_groups(weight: Tensor, kept: Tensor, width: int, groups: int) -> Tensor:
    """Return the weight with the kept slices of its second dimension, which each group counts from 0.

    Args:
        width: How many slices all groups have.
    """
    rows = weight.chunk(groups)
    own = kept.view(groups, -1) - torch.arange(groups)[:, None] * (width // groups)
    return torch.cat([some[:, indices] for some, indices in zip(rows, own, strict=True)])


def _channels(layer: nn.Module) -> int:
    if is_depthwise(layer):
        assert isinstance(layer, _ConvNd)
        return layer.in_channels
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return int(layer.normalized_shape[0])
    return next(
        int(getattr(layer, name)) for name in ("num_features", "num_channels", "num_parameters") if hasattr(layer, name)
    )


def _set(layer: nn.Module, name: str, values: Tensor) -> None:
    """Replace a parameter or buffer; a parameter stays trainable or not, as it was."""
    values = values.detach().clone()
    if name not in dict(layer.named_buffers(recurse=False)):
        values = nn.Parameter(values, _own(layer, name).requires_grad)
    setattr(layer, name, values)


def _own(layer: nn.Module, name: str) -> nn.Parameter:
    """Return a parameter of a layer.

    Raises:
        PruningError: It is computed anew from others, such as by torch.nn.utils.parametrizations.
    """
    own = dict(layer.named_parameters(recurse=False))
    if name not in own:
        kept = {*own, *dict(layer.named_buffers(recurse=False))}
        remove = next((how for other, how in REMOVED_BY.items() if name + other in kept), REMOVED_BY[""])
        raise PruningError(
            f"a {type(layer).__name__}'s {name} must be a parameter of its own, but is computed from others; remove "
            f"what computes it ({remove}), then prune."
        )
    return own[name]
