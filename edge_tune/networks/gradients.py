"""Gradients of the unpruned network's loss, by which "taylor" ranks slices: taken once a study, before its trials."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_tune.errors import ExperimentError, first_line
from edge_tune.experiment import PrunerGroup
from edge_tune.networks.couplings import Couplings
from edge_tune.networks.images import Augmentation, Split
from edge_tune.networks.importance import needs_gradients
from edge_tune.networks.pruning import tied
from edge_tune.networks.structures import structure
from edge_tune.networks.tracing import able_to_learn

BATCHES, BATCH_SIZE = 16, 64
"""So many training images at most, 1024, give the gradients."""


def ranked_by_gradients(model: nn.Module, groups: Mapping[str, PrunerGroup], coupled: Couplings) -> list[str]:
    """Return the weights that a search may rank by their gradients, with those that are tied to them."""
    parts = [
        part
        for group in groups.values()
        if needs_gradients(group.importances)
        for name in group.structures
        for part in tied(model, structure(name), group.weights, coupled)
    ]
    return list(dict.fromkeys(parts))


def gradients(
    model: nn.Module, split: Split, names: Sequence[str], *, augmentation: Augmentation | None, seed: int
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy of some training images for each of these parameters.

    Batch norms and dropouts compute as in inference: what is ranked is the network that is to be pruned.

    Args:
        split: Images to train on; the first batches of a pass under `seed` are used, augmented as there.

    Raises:
        ExperimentError: The network cannot be differentiated, or a gradient is not finite.
    """
    network = able_to_learn(model)
    parameters = [network.get_parameter(name) for name in names]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    seen = 0
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for images, labels in islice(split.batches(BATCH_SIZE, augment=augmentation, seed=seed), BATCHES):
                loss = functional.cross_entropy(network(images), labels, reduction="sum")
                for total, its in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                    if its is not None:  # one that only training uses
                        total += its
                seen += len(labels)
    except ExperimentError:
        raise
    except Exception as error:  # code of the user's own need not have a derivative
        raise ExperimentError(
            f"importance 'taylor' must have the gradients of the network's loss, but taking them raised "
            f"{type(error).__name__}: {first_line(error)}; choose another importance, or mend the network."
        ) from error
    found = {name: total.detach() / seen for name, total in zip(names, sums, strict=True)}
    if infinite := [name for name, value in found.items() if not math.isfinite(float(value.abs().max()))]:
        raise ExperimentError(
            f"importance 'taylor' must have finite gradients, but those of {infinite[0]!r} are not; choose another "
            f"importance, or weights that do not diverge."
        )
    return found
