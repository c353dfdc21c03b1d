"""Networks whose removed channels cannot be told by what is computed over all: their sum, or their mean.

Where a network computes over channels, what it computes without some of them is not what it computes when these are
silent: a mean has another divisor. But of channels that are copies of others, as many of each, mean, variance and
maximum are those of the others alone; and channels that are zero add nothing to a sum, or to a norm.
"""

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge_tune.networks import slicing
from edge_tune.networks.couplings import Atoms, Couplings, Side
from edge_tune.networks.tracing import is_depthwise, mixes

NORMS = nn.GroupNorm | nn.LayerNorm | nn.RMSNorm


def muted(model: nn.Module, removed: Atoms, coupled: Couplings) -> nn.Module:
    """Return a copy of `model` in which these slices are zero wherever they come from."""
    silent = copy.deepcopy(model)
    for side, stays in coupled.stays(removed).items():
        if side.kind == "element":
            silent.get_parameter(side.name).data.view(-1)[~torch.from_numpy(stays)] = 0
        elif side.kind in ("out", "passing") and _hands_on(layer := silent.get_submodule(side.name)):
            layer.register_forward_hook(_multiplying(torch.from_numpy(stays)))
    return silent


def copied(model: nn.Module, removed: Atoms, coupled: Couplings) -> tuple[nn.Module, Atoms]:
    """Return `model` with channels that are copies of others, and the atoms that are copies.

    They are of all that enters where the network computes over channels, some of which are in `removed`: one half, or
    another share, so that there are as many copies of each. None where there is no such share, or an end of the network
    enters too.
    """
    generator = torch.Generator().manual_seed(0)
    place: dict[int, int] = {}
    for together in _computed_together(model, removed, coupled):
        classes = alike(sorted(together), coupled)
        shared = math.gcd(*map(len, classes))
        if shared == 1 or any(side.kind == "end" for side in coupled.sides_of(together)):
            continue
        times = next(n for n in range(2, shared + 1) if shared % n == 0)
        for atoms in classes:
            order = torch.randperm(len(atoms), generator=generator).tolist()
            stay, others = sorted(order[: len(order) // times]), order[len(order) // times :]
            place |= {atoms[n]: atoms[stay[i % len(stay)]] for i, n in enumerate(others)}
    return in_order(model, place, coupled), np.array(sorted(place), dtype=np.int64)


def without(model: nn.Module, removed: Atoms, coupled: Couplings) -> nn.Module:
    """Return a copy of `model` without these atoms, of which nothing is checked."""
    smaller = copy.deepcopy(model)
    for side, stays in coupled.stays(removed).items():
        slicing.keep(smaller, side, torch.from_numpy(stays.nonzero()[0]))
    return smaller


def alike(part: Sequence[int], coupled: Couplings) -> list[list[int]]:
    """Return these atoms by how many slices they have in each part of each side: only those can change places."""
    counts: dict[int, list[tuple[Side, int, int]]] = {atom: [] for atom in part}
    for side in sorted(coupled.sides_of(part)):
        places = ((atom, coupled.part_of(side, slice_)) for slice_, atom in enumerate(coupled.atoms[side].tolist()))
        for (atom, of_layer), count in Counter(places).items():
            if atom in counts:
                counts[atom].append((side, of_layer, count))
    classes: dict[tuple[tuple[Side, int, int], ...], list[int]] = defaultdict(list)
    for atom, its in counts.items():
        classes[tuple(its)].append(atom)
    return list(classes.values())


def in_order(network: nn.Module, place: Mapping[int, int], coupled: Couplings) -> nn.Module:
    """Return a copy of a network in which others stand in the places of atoms, in every layer that has them.

    Args:
        place: Atom -> the one that takes its place.
    """
    permuted = copy.deepcopy(network)
    for side in coupled.sides_of(place):
        slices: dict[int, list[int]] = defaultdict(list)
        for slice_, atom in enumerate(coupled.atoms[side].tolist()):
            slices[atom].append(slice_)
        order = list(range(len(coupled.atoms[side])))
        for atom, its in slices.items():
            for slice_, other in zip(its, slices[place.get(atom, atom)], strict=True):
                order[slice_] = other
        slicing.keep(permuted, side, torch.tensor(order))
    return permuted


def _computed_together(model: nn.Module, removed: Atoms, coupled: Couplings) -> list[set[int]]:
    """Return the atoms over which the network computes, if any of them goes; those that meet anywhere together."""
    found: list[set[int]] = []
    for its in _computed_over(model, coupled):
        meeting = [other for other in found if not its.isdisjoint(other)]
        found = [other for other in found if its.isdisjoint(other)] + [its.union(*meeting)]
    return [its for its in found if not its.isdisjoint(removed.tolist())]


def _computed_over(model: nn.Module, coupled: Couplings) -> Iterator[set[int]]:
    layers = dict(model.named_modules())
    for side, atoms in coupled.atoms.items():
        if side.kind == "passing" and isinstance(layers[side.name], NORMS):
            yield set(atoms.tolist())
    ends: dict[str, set[int]] = defaultdict(set)
    for (start, end), way in coupled.found.ways.items():
        if way.mixed:
            ends[end] |= set(coupled.atoms[coupled.start(start)].tolist())
    yield from ends.values()


def _hands_on(layer: nn.Module) -> bool:
    """Tell whether what a layer puts out of a channel comes from nothing but its weights and that channel."""
    return mixes(layer) or is_depthwise(layer) or isinstance(layer, _BatchNorm)


def _multiplying(stays: Tensor) -> Callable[..., Tensor]:
    def multiply(layer: nn.Module, given: Any, output: Tensor) -> Tensor:
        dim = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        each = stays.repeat_interleave(output.shape[dim] // len(stays)).to(output.dtype)
        return output * each.view(-1, *[1] * (output.dim() - 1 - dim))

    return multiply
