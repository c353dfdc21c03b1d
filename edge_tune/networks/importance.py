"""By which the slices of a weight are ranked: those with the least of it are removed first.

Another criterion is a function here, or one of an experiment's own as "package.module:name".
"""

from collections.abc import Callable

from torch import Tensor

from edge_tune.experiment import IMPORTANCES
from edge_tune.imports import import_callable

Importance = Callable[[Tensor], Tensor]
"""From the slices of a weight, [slices, ...], to how important each is, [slices]."""


def l1(slices: Tensor) -> Tensor:
    """Return the L1 norm of each slice.

    Source: Li et al., ICLR 2017, arXiv:1608.08710, section 3.1.
    """
    return slices.abs().sum(dim=tuple(range(1, slices.dim())))


def l2(slices: Tensor) -> Tensor:
    """Return the L2 norm of each slice."""
    return slices.square().sum(dim=tuple(range(1, slices.dim()))).sqrt()


KNOWN: dict[str, Importance] = dict(zip(IMPORTANCES, (l1, l2), strict=True))


def importance(name: str) -> Importance:
    """Return a criterion by its name.

    Raises:
        ExperimentError: It is none that is known, and cannot be imported.
    """
    return KNOWN.get(name) or import_callable(name, "importance", "name the function that ranks slices")
