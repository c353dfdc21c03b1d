"""Blocks that can be left out of a network: what remains of a residual block is its shortcut.

A block is found by what it computes, not by its name: its output has its input's shape, and with all its parameters set
to zero it returns its input, however large that is. A block that ends in a ReLU does so for the input that it gets in
its network, which a ReLU has put out as well; one that ends in a ReLU6 only as long as nothing reaches 6.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from edge_tune.errors import PruningError, first_line
from edge_tune.networks import oracle
from edge_tune.networks.tracing import Shape, copied, drawing, each_call, in_mode
from edge_tune.wording import listed

IMAGES = 2

MAGNITUDES = (1e-2, 1e2, 1e4)
"""What a block's input is multiplied by: other images, and other weights before it, have others."""


def removable(model: nn.Module, input_shape: Shape) -> list[str]:
    """Return the names of the blocks that can be left out, in the order of the network; of nested ones the innermost.

    Args:
        input_shape: (C, H, W) of one image.
    """
    names = found(model, input_shape)
    if not names or _failure(without(model, names), input_shape) is None:
        return names
    return [name for name in names if _failure(without(model, [name]), input_shape) is None]


def found(model: nn.Module, input_shape: Shape) -> list[str]:
    """Return the names of all blocks, by what they compute, also those without which the network's code fails.

    Args:
        input_shape: (C, H, W) of one image.
    """
    # What comes in is never negative by its code, not by chance, if it is so with other weights too.
    seen = [_inputs(model, input_shape)]
    seen += [_inputs(oracle.made_up(model, input_shape, rising=rising), input_shape) for rising in (True, False)]
    names = [
        name
        for name in seen[0]
        if all(name in inputs and _returns_its_input(model.get_submodule(name), inputs[name]) for inputs in seen)
    ]
    innermost = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    own = [name for name in innermost if not _shared(model, name)]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(own, key=order.__getitem__)


def problems(model: nn.Module, blocks: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Yield what keeps these blocks from being left out.

    Args:
        known: What `found` returns of the network.
    """
    modules = dict(model.named_modules())
    for block in blocks:
        if block in known:
            continue
        close = get_close_matches(block, known, n=3) or known[:3]
        others = f"such as {listed(close)}" if close else "but this network has none"
        if block not in modules:
            yield f"a block must be one of the network's modules, {others}, but got {block!r}."
        elif inside := [name for name in known if name.startswith(f"{block}.")]:
            yield f"a block must be an innermost one, but {block!r} holds {listed(inside)}; name those."
        else:
            yield (
                f"a block must return its input when all its parameters are zero, as x + f(x) does, be called once, "
                f"and share nothing with the rest of the network, {others}; but {block!r}, a "
                f"{type(modules[block]).__name__}, does not; remove it."
            )


def without(model: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """Return a copy of `model` in which these blocks pass their input on.

    Raises:
        PruningError: The network has no such block.
    """
    smaller = copy.deepcopy(model)
    for block in blocks:
        parent, _, name = block.rpartition(".")
        try:
            holder = smaller.get_submodule(parent)
            holder.get_submodule(name)
        except AttributeError as error:
            raise PruningError(
                f"{block!r} must be a block of the network, but it has none of this name; use the plan with the "
                f"network it was made for."
            ) from error
        setattr(holder, name, nn.Identity())
    return smaller


def check(model: nn.Module, smaller: nn.Module, blocks: Sequence[str], input_shape: Shape) -> None:
    """Compare a network without these blocks with one in which all their parameters are zero, on made-up images.

    Raises:
        PruningError: They compute different things, or the network fails without them or draws random numbers.
    """
    if failure := _failure(smaller, input_shape):
        raise PruningError(
            f"blocks {listed(blocks)}: the network's code must run without them, but fails{failure}: it asks more of "
            f"them than what they put out; remove them from the group."
        )
    zeroed = copy.deepcopy(model)
    for block in blocks:
        _zero(zeroed.get_submodule(block))
    images = _images(input_shape)
    right, again, got = (_output(network, images, seed) for network, seed in ((zeroed, 0), (zeroed, 1), (smaller, 0)))
    if not torch.equal(right, again):
        raise PruningError(
            f"blocks {listed(blocks)}: what the network computes without them must be checked, but it draws random "
            f"numbers while it infers, so that it computes something else each time; remove the blocks from the group."
        )
    if right.shape != got.shape or not torch.equal(right, got):
        raise PruningError(
            f"blocks {listed(blocks)}: the network without them must compute what it computes with their parameters "
            f"set to zero, but it computes something else; remove them from the group."
        )


def _failure(smaller: nn.Module, input_shape: Shape) -> str | None:
    """Return how a network without some blocks fails, also as it trains, or None."""
    for training in (False, True):
        try:
            _output(smaller, _images(input_shape), 0, training)
        except Exception as error:  # code may ask anything of a block, and fail without it in any way
            return f"{' while it trains' if training else ''} ({type(error).__name__}: {first_line(error)})"
    return None


def _output(network: nn.Module, images: Tensor, seed: int, training: bool = False) -> Tensor:
    network = copied(network)  # whose forward may gather statistics
    with torch.no_grad(), in_mode(network, training=training), drawing(seed):
        output: Tensor = network(images)
    return output


def _images(input_shape: Shape) -> Tensor:
    return torch.randn(IMAGES, *input_shape, generator=torch.Generator().manual_seed(0))


def _inputs(model: nn.Module, input_shape: Shape) -> dict[str, Tensor]:
    """Return module -> its input, of those that have parameters and turn one tensor into one of its shape, once."""
    found: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def note(name: str, module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        if not name or next(module.parameters(), None) is None:
            return
        calls[name] = calls.get(name, 0) + 1
        if named or len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(output, Tensor):
            return
        if given[0].shape == output.shape:
            found[name] = given[0].clone()

    each_call(model, _images(input_shape), note)
    return {name: features for name, features in found.items() if calls[name] == 1}


def _returns_its_input(block: nn.Module, features: Tensor) -> bool:
    zeroed = copy.deepcopy(block)
    _zero(zeroed)
    with torch.no_grad(), in_mode(zeroed, training=False):
        try:
            tried = [features, *(its for by in MAGNITUDES if (its := features * by).isfinite().all())]
            return all(torch.equal(zeroed(its.clone()), its) for its in tried)
        except Exception:  # code that looks at its weights' values may fail on zeros, in any way: no such block
            return False


def _zero(block: nn.Module) -> None:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()


def _shared(model: nn.Module, block: str) -> bool:
    """Tell whether something inside a block is also somewhere else in the network."""
    inside = set(map(id, model.get_submodule(block).modules())) | set(map(id, model.get_submodule(block).parameters()))
    outside = {
        id(part)
        for parts in (model.named_modules(remove_duplicate=False), model.named_parameters(remove_duplicate=False))
        for name, part in parts
        if name != block and not name.startswith(f"{block}.")
    }
    return bool(inside & outside)
