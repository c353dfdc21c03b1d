"""Does a pruned network compute what it should? It is compared with the unpruned one, which computes it another way.

Right is what the unpruned network computes when the inputs that came from removed slices are zero. Where a network
computes over its channels, such as by a norm or a mean, what is left has another mean; then each channel that is left
must still arrive where it arrived, and channels that are zero, or copies of others, must be removed unnoticed.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from edge_tune.errors import PruningError
from edge_tune.networks import copies, slicing
from edge_tune.networks.couplings import Atoms, Couplings
from edge_tune.networks.tracing import Shape, Trace, Way, drawing, hookable, in_mode, trace, with_memory_of_their_own

IMAGES = 2
TOLERANCE = 1e-4
"""Of what outputs vary by. Other sums of the same numbers differ by about 1e-6; a slice out of place by far more."""

ROUNDING = 16 * torch.finfo(torch.float32).eps
"""Of the largest output that varies, and of an output itself: a large number may be added to what is small."""

DRAWS = (
    "what the network computes must be compared, but it draws random numbers while it infers, so that it computes "
    "something else each time; let it draw only while it trains, as functional.dropout(x, p, self.training) does."
)

COUNTS = (
    "what the network computes over its channels, such as their mean, must not depend on how many there are, but it "
    "computes something else where some of them are missing; its code counts on their number or order, or computes a "
    "layer's weight anew from all that it holds; remove these weights."
)


def check(model: nn.Module, pruned: nn.Module, removed: Atoms, coupled: Couplings, what: str) -> None:
    """Compare `pruned` with `model` without what was removed, on made-up images, also while they train.

    Args:
        removed: The atoms that `pruned` lacks.
        what: Names what was removed, for the error.

    Raises:
        PruningError: The pruned network does not run, its output has another shape, or it computes something else.
    """
    images = _images(coupled.input_shape)
    model, pruned = copy.deepcopy(model), copy.deepcopy(pruned)  # a forward may count its calls, or gather statistics
    silenced = _silenced(model, removed, coupled)
    by_place = over_channels = coupled.is_computed_over(removed.tolist(), model)
    for training in (False, True):
        right, got = _outputs(model, images, training, silenced), _outputs_of_pruned(pruned, images, training, what)
        if [output.shape for output in right] != [output.shape for output in got]:
            raise PruningError(
                f"{what}: the network's output must keep its shape, but got {[list(o.shape) for o in got]} instead of "
                f"{[list(o.shape) for o in right]}; remove these weights."
            )
        if training and not coupled.found.branches:
            continue  # it trains; what it computes then was compared where the same layers infer
        if any(bool(output.isnan().any()) for output in right):
            raise PruningError(
                f"{what}: what is left must be compared with the network without them, but that puts out NaN on "
                f"made-up images{' while it trains' if training else ''}, which is equal to nothing; mend the weights "
                f"or the code, or remove these weights."
            )
        if all(map(_agree, right, got)) or _agree_unrounded(model, pruned, images, training, silenced):
            continue
        if over_channels and _computes_over(model, pruned, removed, coupled, training):
            continue
        if all(map(_agree, right, _outputs(model, images, training, silenced, seed=1))):
            raise (
                PruningError(f"{what}: {COUNTS}")
                if over_channels
                else _misplaced(what, "the pruned network computes something else than the network without them")
            )
        if not training:
            raise PruningError(f"{what}: {DRAWS}")
        by_place = True  # it draws random numbers, other ones for fewer channels
    if by_place and trace(pruned, coupled.input_shape, coupled.found.starts) != _without(removed, coupled):
        raise _misplaced(what, "of what is left, some arrive at other inputs than before")


def _computes_over(model: nn.Module, pruned: nn.Module, removed: Atoms, coupled: Couplings, training: bool) -> bool:
    """Tell whether `pruned` computes over its channels what `model` computes where those that it lacks do not count."""
    images = _images(coupled.input_shape)
    muted = copies.muted(model, removed, coupled)
    if _same(muted, pruned, images, training, _silenced(muted, removed, coupled)):
        return True
    copied, gone = copies.copied(model, removed, coupled)
    if not len(gone):
        return True
    left = copies.without(copied, gone, coupled)
    try:
        return _same(copied, left, images, training, _silenced(copied, gone, coupled))
    except Exception:  # where code counts on how many channels there are, fewer may fail in any way
        return False


def check_draws(model: nn.Module, input_shape: Shape) -> None:
    """Check that a network draws no random numbers while it infers.

    Raises:
        PruningError: It does.
    """
    images = _images(input_shape)
    one, other = (
        [output.nan_to_num() for output in _outputs(copy.deepcopy(model), images, False, {}, seed)] for seed in (0, 1)
    )
    if not all(map(_agree, one, other)):
        raise PruningError(DRAWS)


def agree(model: nn.Module, other: nn.Module, coupled: Couplings) -> bool:
    """Tell whether two networks of the same shapes compute the same, also while they train, as far as that is certain.

    What a network that draws random numbers while it trains computes then depends on them, so that nothing can be told.
    """
    images = _images(coupled.input_shape)
    model, other = copy.deepcopy(model), copy.deepcopy(other)
    for training in (False, True) if coupled.found.branches else (False,):
        right = _outputs(copy.deepcopy(model), images, training, {})  # what it gathers must be as the other's
        if _same(model, other, images, training, {}):
            continue
        if not training or all(map(_agree, right, _outputs(model, images, training, {}, seed=1))):
            return False
    return True


def made_up(model: nn.Module, input_shape: Shape, *, rising: bool) -> nn.Module:
    """Return a copy of `model` with random weights, in which every slice matters.

    A network that was not trained may multiply by zero what a wrong removal would show. So may what it keeps beside its
    parameters: what is stored with them, and the same everywhere as yet, such as a mean, is made up as well.

    Args:
        rising: The last slices of each layer have the largest norms, and stay; else the first. A network whose code
            takes channels by their place notices one or the other.
    """
    network = copy.deepcopy(model).eval()
    with_memory_of_their_own(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.is_floating_point() and not parameter.is_complex():
                continue
            if parameter.numel() == max(parameter.shape, default=1):  # a value for each channel may be a variance
                parameter.normal_(0.7, 0.3, generator=generator).abs_()
            else:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            if parameter.dim() < 2:
                continue
            for dim in (0, 1):
                slope = torch.linspace(0.5, 1.5, parameter.shape[dim])
                slope = slope if rising else slope.flip(0)
                parameter.mul_(slope.view(-1, *[1] * (parameter.dim() - 1 - dim)))
        parameters = dict(network.named_parameters())
        for name, buffer in network.state_dict().items():
            if name not in parameters and _is_fresh(buffer):
                buffer.add_(torch.rand(buffer.shape, generator=generator) * buffer.abs().clamp(min=1))
        for norm in (module for module in network.modules() if isinstance(module, _BatchNorm)):
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for the plain average: of the one batch below
        with drawing():
            network(torch.randn(8, *input_shape, generator=generator))
    return network.eval()


def _is_fresh(buffer: object) -> bool:
    """Tell whether what a network stores is one number in several places; constants such as kernels differ."""
    return (
        isinstance(buffer, Tensor)
        and buffer.is_floating_point()
        and buffer.numel() > 1
        and bool((buffer == buffer.flatten()[0]).all() and buffer.isfinite().all())
    )


def _silenced(model: nn.Module, removed: Atoms, coupled: Couplings) -> dict[str, Tensor]:
    """Return the weights with which `model` computes as if the inputs that come from removed slices were zero."""
    return {
        f"{side.name}.weight": slicing.without_inputs(model.get_submodule(side.name), torch.from_numpy(stays))
        for side, stays in coupled.stays(removed).items()
        if side.kind == "in"
    }


def _outputs(
    network: nn.Module, images: Tensor, training: bool, weights: Mapping[str, Tensor], seed: int = 0
) -> list[Tensor]:
    """Return every output of a network with some other weights."""
    with in_mode(network, training=training), torch.no_grad(), drawing(seed):
        output = functional_call(network, dict(weights), (images,))
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _outputs_of_pruned(network: nn.Module, images: Tensor, training: bool, what: str) -> list[Tensor]:
    """Return every output of a pruned network.

    Raises:
        PruningError: It fails.
    """
    try:
        return _outputs(network, images, training, {})
    except Exception as error:  # shapes that do not fit each other fail in as many ways as there are operations
        raise PruningError(
            f"{what}: the network must take fewer of them, but fails {_where(network, images, training)}"
            f"{' while it trains' if training else ''} ({type(error).__name__}): its code counts on how many channels "
            f"arrive there, or in which order, or mixes or replaces them on their way; remove these weights."
        ) from error


def _where(network: nn.Module, images: Tensor, training: bool) -> str:
    """Return in which part a network fails."""
    inside: list[str] = []
    hooks: list[Any] = []
    for name, module in network.named_modules():
        if not hookable(module):
            continue
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: inside.__delitem__(-1)))
    with suppress(Exception):
        _outputs(network, images, training, {})
    for hook in hooks:
        hook.remove()
    return f"at {inside[-1]!r}" if inside and inside[-1] else "in its own forward"


def _images(input_shape: Shape) -> Tensor:
    """Return images of noise, the last of more contrast and brighter, so that every output varies.

    Returns:
        Shape [IMAGES, C, H, W].
    """
    images = torch.randn(IMAGES, *input_shape, generator=torch.Generator().manual_seed(0))
    images[-1] = 2 * images[-1] + 1
    return images


def _same(model: nn.Module, other: nn.Module, images: Tensor, training: bool, weights: Mapping[str, Tensor]) -> bool:
    """Tell whether two networks compute the same.

    Args:
        weights: Other weights of the first one.
    """
    right, got = _outputs(model, images, training, weights), _outputs(other, images, training, {})
    return all(map(_agree, right, got)) or _agree_unrounded(model, other, images, training, weights)


def _agree_unrounded(
    model: nn.Module, other: nn.Module, images: Tensor, training: bool, weights: Mapping[str, Tensor]
) -> bool:
    """Tell what `_same` tells, in float64: where outputs hardly vary, rounding in float32 looks like a difference."""
    doubled = {name: weight.double() for name, weight in weights.items()}
    try:
        one = _outputs(copy.deepcopy(model).double(), images.double(), training, doubled)
        two = _outputs(copy.deepcopy(other).double(), images.double(), training, {})
    except Exception:  # tensors that a forward makes itself may be float32, and do not fit, whatever it says to them
        return False
    return all(map(_agree, one, two))


def _agree(right: Tensor, got: Tensor) -> bool:
    """Tell whether two outputs are the same, but for rounding; NaN is the same as nothing, infinity as itself.

    How far they may differ follows from how they vary between images. What is constant, such as the logit of a class
    that must not be chosen, tells nothing about the others.
    """
    right, got = right.double(), got.double()
    varies = (right - right[:1]).abs().nan_to_num(0, posinf=0).amax(0)
    largest = (right.abs() * (varies > TOLERANCE * right.abs())).nan_to_num(0).max()
    most = TOLERANCE * varies.max() + ROUNDING * torch.maximum(right.abs(), largest)
    return bool(((right == got) | ((right - got).abs() <= most) & right.isfinite()).all())


def _misplaced(what: str, seen: str) -> PruningError:
    return PruningError(
        f"{what}: channels must keep their place on the way to the layers that read them, but {seen}; the network's "
        f"code counts on their number or order; remove these weights."
    )


def _without(removed: Atoms, coupled: Couplings) -> Trace:
    """Return the trace that a network must have without the removed slices."""
    numbers = {side: _renumbered(atoms, removed) for side, atoms in coupled.atoms.items()}
    found = coupled.found
    ways = {
        (start, end): _way_without(way, numbers[coupled.start(start)], numbers[coupled.end(end)])
        for (start, end), way in found.ways.items()
    }
    return Trace(
        ways,
        starts={start: len(numbers[coupled.start(start)]) for start in found.starts},
        columns={end: len(numbers[coupled.end(end)]) for end in found.columns},
        branches=found.branches,
    )


def _renumbered(atoms: Atoms, removed: Atoms) -> dict[int, int]:
    """Return the old number -> the new one of the slices that stay."""
    return {old: new for new, old in enumerate((~np.isin(atoms, removed)).nonzero()[0].tolist())}


def _way_without(way: Way, slices: Mapping[int, int], columns: Mapping[int, int]) -> Way:
    pairs = {(slices[start], columns[end]) for start, end in way.pairs if start in slices and end in columns}
    mixed = {columns[end] for end in way.mixed if end in columns}
    if len(slices) == 1:  # all of one
        pairs, mixed = pairs | {(0, end) for end in mixed}, set()
    return Way(len(slices), frozenset(pairs), frozenset(mixed))
