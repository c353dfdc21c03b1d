"""What can be removed from a network: every set of filters that belong together, found without being named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from edge_tune.errors import PruningError
from edge_tune.experiment import PrunerGroup
from edge_tune.networks import checking
from edge_tune.networks.couplings import Couplings, Side
from edge_tune.networks.pruning import make_plan, tied
from edge_tune.networks.structures import structure
from edge_tune.parameters import Point, Uniform

RANGE = Uniform(0.0, 0.9)
"""Of a set that was found. A tenth of the filters stays at least."""


HALF: Point = {"set.sparsity": 0.5, "set.structure": "filters", "set.importance": "l1"}


@dataclass(frozen=True)
class CoupledSet:
    """Filters that can only be removed together.

    Attributes:
        parts: The weights of the layers that put them out, in the order of the network.
        width: How many filters there are, each counted once however many layers have it.
        problem: Why they must stay, or None.
    """

    parts: tuple[str, ...]
    width: int
    problem: str | None = None

    def group(self) -> PrunerGroup:
        """Return the pruner group of this set."""
        return PrunerGroup("filters", self.parts, sparsity=RANGE)


def coupled_sets(model: nn.Module, coupled: Couplings) -> list[CoupledSet]:
    """Return all sets of a network's filters, in the order of their first layers.

    All are removed at once from copies of the network, as a study's groups are before it starts, and what is left must
    compute what it should. If it does not, each is removed alone, and says why it must stay.
    """
    found = [_planned(model, parts, coupled) for parts in _sets(model, coupled)]
    free = [one for one in found if not one.problem]
    if free and _problem(model, free, coupled):
        found = [replace(one, problem=one.problem or _problem(model, [one], coupled)) for one in found]
    return found


def _sets(model: nn.Module, coupled: Couplings) -> Iterator[tuple[str, ...]]:
    filters = structure("filters")
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    sides = sorted((side for side in coupled.atoms if filters.is_on(model, side)), key=lambda side: order[side.name])
    seen: set[Side] = set()
    for side in sides:
        if side in seen:
            continue
        parts = tied(model, filters, [f"{side.name}.weight"], coupled)
        seen |= set(map(filters.side, parts))
        yield tuple(sorted(parts, key=lambda part: order[filters.side(part).name]))


def _planned(model: nn.Module, parts: tuple[str, ...], coupled: Couplings) -> CoupledSet:
    filters = structure("filters")
    width = len(np.unique(np.concatenate([coupled.atoms[filters.side(part)] for part in parts])))
    found = CoupledSet(parts, width)
    try:
        make_plan(model, {"set": found.group()}, HALF, coupled)
    except PruningError as error:
        return replace(found, problem=str(error))
    return found


def _problem(model: nn.Module, sets: Sequence[CoupledSet], coupled: Couplings) -> str | None:
    """Return why these sets cannot be removed, or None."""
    return checking.why_not_all(model, {str(number): one.group() for number, one in enumerate(sets)}, coupled)
