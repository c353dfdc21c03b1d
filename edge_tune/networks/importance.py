"""By which the slices of a weight are ranked: those with the least of it are removed first.

Another criterion is a function here that takes `Candidates`, or one of an experiment's own as "package.module:name",
which takes the slices alone.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edge_tune.errors import PruningError
from edge_tune.experiment import IMPORTANCES
from edge_tune.imports import import_callable


@dataclass(frozen=True, eq=False)
class Basis:
    """What a study ranks by besides the weights, the same in each of its trials.

    Attributes:
        gradients: Parameter -> the gradient of the loss, of the parameter's shape; of those that "taylor" may rank.
        seed: Of what is drawn.
    """

    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Candidates:
    """The slices of a weight, of which some may go, and what else a criterion may judge them by.

    Attributes:
        part: The weight, as it is named in the network.
        noun: What the slices are, for a sentence: "filters".
        slices: Their weights, [slices, ...].
        gradients: The gradients of these weights, of the same shape; None where none were taken.
        scales: Returns |gamma| of each slice, summed over all batch norms that it passes through, [slices]; NaN where
            it passes through none. Looked for only if asked.
        seed: The study's.
    """

    part: str
    noun: str
    slices: Tensor
    gradients: Tensor | None
    scales: Callable[[], Tensor]
    seed: int


Importance = Callable[[Candidates], Tensor]
"""From the slices of a weight to how important each is, [slices]."""


def l1(slices: Tensor) -> Tensor:
    """Return the L1 norm of each slice.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1.
    """
    return slices.abs().sum(dim=tuple(range(1, slices.dim())))


def l2(slices: Tensor) -> Tensor:
    """Return the L2 norm of each slice."""
    return slices.square().sum(dim=tuple(range(1, slices.dim()))).sqrt()


def batch_norm(candidates: Candidates) -> Tensor:
    """Return by how much the batch norms behind each slice scale it, |gamma|.

    Raises:
        PruningError: A slice passes through no batch norm.

    Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
        arXiv:1708.06519, section 3; where several batch norms have a slice, as torch-pruning does it.
    """
    scales = candidates.scales()
    without = int(scales.isnan().sum())
    if without:
        raise PruningError(
            f"importance 'batch_norm' must find a batch norm with a scale behind the {candidates.noun} of "
            f"{candidates.part!r}, but {without} of {len(scales)} pass through none; choose another "
            f"importance for them."
        )
    return scales


def taylor(candidates: Candidates) -> Tensor:
    """Return the square of how much the loss would change without each slice, to the first order.

    That is (the sum of weight * gradient over the slice)^2, of the mean loss over some training images.

    Raises:
        PruningError: There are no gradients of this weight.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771, section
        3.1, for a gate on the slice.
    """
    if candidates.gradients is None:
        raise PruningError(
            f"importance 'taylor' must have the gradients of {candidates.part!r}, but none were taken; a study takes "
            f"them before its first trial."
        )
    changes = candidates.slices.double() * candidates.gradients.double()  # whose squares may be too small for f32
    return changes.flatten(1).sum(dim=1).square()


def random(candidates: Candidates) -> Tensor:
    """Return numbers between 0 and 1 that follow from the study's seed and the weight's name."""
    drawn = hashlib.sha256(f"{candidates.seed} {candidates.part}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(drawn[:8], "big") >> 1)
    return torch.rand(len(candidates.slices), generator=generator, dtype=torch.float64)


def _of_slices(function: Callable[[Tensor], Tensor]) -> Importance:
    """Return the criterion that looks at the slices alone; whatever it does with them, the network keeps its own."""
    return lambda candidates: function(candidates.slices.clone())


TAYLOR = "taylor"
KNOWN: dict[str, Importance] = dict(
    zip(IMPORTANCES, (_of_slices(l1), _of_slices(l2), batch_norm, taylor, random), strict=True)
)


def importance(name: str) -> Importance:
    """Return a criterion by its name.

    Raises:
        ExperimentError: It is none that is known, and cannot be imported.
    """
    return KNOWN.get(name) or _of_slices(import_callable(name, "importance", "name the function that ranks slices"))


def needs_gradients(importances: Sequence[str]) -> bool:
    """Tell whether any of these criteria ranks by gradients."""
    return TAYLOR in importances
