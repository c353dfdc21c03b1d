"""SGD after pruning. The same code trains a network that comes without weights."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from torch.nn import functional

from edge_tune.errors import RetrainingError
from edge_tune.experiment import Retraining, settled
from edge_tune.networks.images import Augmentation, Split

STATISTICS_IMAGES = 1024
"""At least so many training images, in whole batches, give the batch-norm statistics after each epoch."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Epoch:
    """One finished pass over the training split.

    Attributes:
        epoch: Counted from 1: passes finished.
        train_loss: Mean cross-entropy over the pass, nats.
    """

    epoch: int
    lr: float
    train_loss: float
    seconds: float


def make_optimiser(model: nn.Module, recipe: Retraining) -> torch.optim.SGD:
    """Return the optimiser of a recipe for the parameters that `model` has now."""
    return torch.optim.SGD(
        model.parameters(),
        lr=settled(recipe.lr),
        momentum=settled(recipe.momentum),
        weight_decay=settled(recipe.weight_decay),
    )


def retrain(
    model: nn.Module,
    split: Split,
    recipe: Retraining,
    *,
    augmentation: Augmentation | None,
    seed: int,
    optimiser: torch.optim.Optimizer | None = None,
    epochs_done: int = 0,
) -> Iterator[Epoch]:
    """Train `model` in place and yield after each epoch; evaluate it in between as you like.

    An epoch depends on the weights, the optimiser's state, the recipe, the seed and its number only, so that a
    retraining that was interrupted between two goes on as if it had not been.

    Before each yield the batch-norm statistics are estimated anew at the weights there are now, on the first batches
    of the epoch, augmented as they were: the weights live on such images. The running averages that training leaves lag
    behind the weights; after few steps at a high rate a network that has recovered looks collapsed by them
    (docs/decisions.md has the figures).

    Args:
        optimiser: As `make_optimiser` makes it; None makes one. Give it to keep its state.
        epochs_done: Epochs of the recipe that `model` and `optimiser` have behind them.

    Raises:
        RetrainingError: The loss of a pass is not a finite number.

    Source of the statistics: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576,
    section 3; Li et al., EagleEye, ECCV 2020, arXiv:2007.02491, for pruned networks.
    """
    model.to(memory_format=torch.channels_last)
    optimiser = optimiser or make_optimiser(model, recipe)
    use_bf16 = computes_in_bf16(recipe)
    batch_size = int(settled(recipe.batch_size))
    for epoch in range(epochs_done, recipe.epochs):
        started = time.perf_counter()
        torch.manual_seed(seed + epoch)  # of layers that draw, such as dropout
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr_at(epoch)
        batches = split.batches(batch_size, augment=augmentation, seed=seed + epoch)
        loss = _one_pass(model, optimiser, batches, use_bf16)
        if not math.isfinite(loss):
            raise RetrainingError(
                f"epoch {epoch + 1}: the training loss must be finite, but got {loss} at lr {recipe.lr_at(epoch):g}; "
                f"lower the learning rate."
            )
        again = split.batches(batch_size, augment=augmentation, seed=seed + epoch)
        estimate_statistics(model, islice(again, math.ceil(STATISTICS_IMAGES / batch_size)), use_bf16)
        yield Epoch(epoch + 1, recipe.lr_at(epoch), loss, time.perf_counter() - started)


def estimate_statistics(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], use_bf16: bool = False
) -> None:
    """Set every batch-norm's mean and variance to their plain averages over `batches`, at the weights there are now."""
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a plain average over the batches
    model.train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
        for images, _ in batches:
            model(images.contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def computes_in_bf16(recipe: Retraining) -> bool:
    """Tell whether the forward pass runs in bfloat16; "auto" asks the CPU."""
    if recipe.precision == "auto":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return recipe.precision == "bf16"


def _one_pass(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    use_bf16: bool,
) -> float:
    model.train()
    total, images_seen = 0.0, 0
    for images, labels in batches:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
            loss = functional.cross_entropy(model(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item() * len(labels)
        images_seen += len(labels)
    return total / images_seen
