"""Does a pruned network compute what it should? It is compared with the unpruned one, which computes it another way.

Right is what the unpruned network computes when the inputs that came from removed slices are zero. Where a network
computes over its channels, such as by a norm or a mean, what is left has another mean; then each channel that is left
must still arrive where it arrived.
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
from edge_tune.networks import slicing
from edge_tune.networks.couplings import Atoms, Couplings
from edge_tune.networks.tracing import Trace, Way, drawing, hookable, in_mode, trace

IMAGES = 2
TOLERANCE = 1e-4
"""Of the largest output. Other sums of the same numbers differ by about 1e-6; a slice out of place by far more."""


def check(model: nn.Module, pruned: nn.Module, removed: Atoms, coupled: Couplings, what: str) -> None:
    """Compare `pruned` with `model` without what was removed, on made-up images, also while they train.

    Args:
        removed: The atoms that `pruned` lacks.
        what: Names what was removed, for the error.

    Raises:
        PruningError: The pruned network does not run, its output has another shape, or it computes something else.
    """
    images = torch.randn(IMAGES, *coupled.input_shape, generator=torch.Generator().manual_seed(0))
    model, pruned = copy.deepcopy(model), copy.deepcopy(pruned)  # a forward may count its calls, or gather statistics
    silenced = _silenced(model, removed, coupled)
    by_place = coupled.is_computed_over(removed.tolist(), model)
    for training in (False, True):
        right, got = _outputs(model, images, training, silenced), _outputs_of_pruned(pruned, images, training, what)
        if [output.shape for output in right] != [output.shape for output in got]:
            raise PruningError(
                f"{what}: the network's output must keep its shape, but got {[list(o.shape) for o in got]} instead of "
                f"{[list(o.shape) for o in right]}; remove these weights."
            )
        if training and not coupled.found.branches:
            continue  # it trains; what it computes then was compared where the same layers infer
        if by_place or all(map(_agree, right, got)):
            continue
        if all(map(_agree, right, _outputs(model, images, training, silenced, seed=1))):
            raise _misplaced(what, "the pruned network computes something else than the network without them")
        by_place = True  # it draws random numbers, other ones for fewer channels
    if by_place and trace(pruned, coupled.input_shape, coupled.found.starts) != _without(removed, coupled):
        raise _misplaced(what, "of what is left, some arrive at other inputs than before")


def agree(model: nn.Module, other: nn.Module, coupled: Couplings) -> bool:
    """Tell whether two networks of the same shapes compute the same, also while they train, as far as that is certain.

    What a network that draws random numbers computes depends on them, so that nothing can be told.
    """
    images = torch.randn(IMAGES, *coupled.input_shape, generator=torch.Generator().manual_seed(0))
    model, other = copy.deepcopy(model), copy.deepcopy(other)
    for training in (False, True) if coupled.found.branches else (False,):
        right = _outputs(model, images, training, {})
        if all(map(_agree, right, _outputs(other, images, training, {}))):
            continue
        if all(map(_agree, right, _outputs(model, images, training, {}, seed=1))):
            return False
    return True


def made_up(model: nn.Module, input_shape: tuple[int, int, int], *, rising: bool) -> nn.Module:
    """Return a copy of `model` with random weights, in which every slice matters.

    A network that was not trained may multiply by zero what a wrong removal would show.

    Args:
        rising: The last slices of each layer have the largest norms, and stay; else the first. A network whose code
            takes channels by their place notices one or the other.
    """
    network = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() < 2:
                parameter.normal_(0.7, 0.3, generator=generator)
                continue
            parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            for dim in (0, 1):
                slope = torch.linspace(0.5, 1.5, parameter.shape[dim])
                slope = slope if rising else slope.flip(0)
                parameter.mul_(slope.view(-1, *[1] * (parameter.dim() - 1 - dim)))
        for norm in (module for module in network.modules() if isinstance(module, _BatchNorm)):
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for the plain average: of the one batch below
        with drawing():
            network(torch.randn(8, *input_shape, generator=generator))
    return network.eval()


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


def _agree(right: Tensor, got: Tensor) -> bool:
    """Tell whether two outputs are the same, but for rounding; what is no number in one is none in the other."""
    finite = right.isfinite()
    if not torch.equal(finite, got.isfinite()):
        return False
    right, got = right[finite], got[finite]
    return not len(right) or bool((right - got).abs().max() <= TOLERANCE * right.abs().max())


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
