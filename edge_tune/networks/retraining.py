"""Training after pruning. The same code trains a network that comes without weights."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_tune.errors import RetrainingError
from edge_tune.experiment import USUAL_MOMENTUM, Retraining, settled
from edge_tune.networks.averaging import Average
from edge_tune.networks.compute import CPU, Compute, enough_memory
from edge_tune.networks.images import Augmentation, Split

STATISTICS_IMAGES = 1024
"""At least so many training images, in whole batches, give the batch-norm statistics after each epoch."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Epoch:
    """One finished pass over the training split.

    Attributes:
        epoch: Counted from 1: passes finished.
        lr: Of the last step.
        train_loss: Mean of the recipe's loss over the pass, nats: cross-entropy, where nothing else is asked.
        images_per_s: Images of the split over the seconds, which the batch-norm statistics are part of.
    """

    epoch: int
    lr: float
    train_loss: float
    seconds: float
    images_per_s: float


@dataclass(frozen=True)
class State:
    """What an epoch goes on from besides the weights that the network has between two.

    Attributes:
        average: Of the weights, where the recipe asks for one.
    """

    optimiser: torch.optim.Optimizer
    average: Average | None

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        average = self.average.state_dict() if self.average else None
        return {"optimiser": self.optimiser.state_dict(), "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another state of the same recipe and an equal network was."""
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.load_state_dict(state["average"])


def make_state(model: nn.Module, recipe: Retraining) -> State:
    """Return the state before the first epoch of a recipe, for the parameters that `model` has now."""
    average = Average(model, settled(recipe.average.decay)) if recipe.average else None
    return State(make_optimiser(model.parameters(), recipe), average)


def make_optimiser(parameters: Iterable[Tensor], recipe: Retraining) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe."""
    lr, weight_decay = settled(recipe.lr), settled(recipe.weight_decay)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=USUAL_MOMENTUM if recipe.momentum is None else settled(recipe.momentum),
        weight_decay=weight_decay,
        nesterov=recipe.nesterov,
    )


def retrain(
    model: nn.Module,
    split: Split,
    recipe: Retraining,
    *,
    augmentation: Augmentation | None,
    seed: int,
    teacher: nn.Module | None = None,
    state: State | None = None,
    epochs_done: int = 0,
    compute: Compute = CPU,
) -> Iterator[Epoch]:
    """Train `model` in place and yield after each epoch; evaluate it in between as you like.

    An epoch depends on the weights, the state, the recipe, the teacher, the seed and its number only, so that a
    retraining that was interrupted between two goes on as if it had not been.

    At each yield `model` is what comes of the epochs so far: it holds the average of the weights where the recipe asks
    for one, and the batch-norm statistics are estimated anew at the weights there are now, on the first batches of the
    epoch, augmented as they were: the weights live on such images. The running averages that training leaves lag
    behind the weights; after few steps at a high rate a network that has recovered looks collapsed by them
    (docs/decisions.md has the figures).

    Args:
        teacher: The unpruned network, where the recipe distils; it is put into eval mode and not trained.
        state: As `make_state` makes it; None makes one. Give it to keep it.
        epochs_done: Epochs of the recipe that `model` and `state` have behind them.
        compute: Where `model` and `state` are, and the images come.

    Raises:
        ComputeError: A GPU has too little memory.
        RetrainingError: The loss of a pass is not a finite number, or the teacher's outputs are not the network's.

    Source of the statistics: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576,
    section 3; Li et al., EagleEye, ECCV 2020, arXiv:2007.02491, for pruned networks.
    """
    compute.network(model)
    state = state or make_state(model, recipe)
    loss_of = _Loss(recipe, teacher, compute)
    batch_size = int(settled(recipe.batch_size))
    for epoch in range(epochs_done, recipe.epochs):
        started = time.perf_counter()
        torch.manual_seed(seed + epoch)  # of layers that draw, such as dropout
        if state.average:
            state.average.swap()
        steps = split.steps(batch_size)
        rates = [recipe.lr_at(epoch, step, steps) for step in range(steps)]
        batches = split.batches(batch_size, augment=augmentation, seed=seed + epoch)
        with enough_memory("retraining"):
            loss = _one_pass(model, state, batches, rates, loss_of)
        if not math.isfinite(loss):
            raise RetrainingError(
                f"epoch {epoch + 1}: the training loss must be finite, but got {loss} at lr {max(rates):g}; "
                f"lower the learning rate."
            )
        if state.average:
            state.average.swap()
        again = split.batches(batch_size, augment=augmentation, seed=seed + epoch)
        some = islice(again, math.ceil(STATISTICS_IMAGES / batch_size))
        estimate_statistics(model, some, loss_of.use_bf16, compute)
        seconds = time.perf_counter() - started
        yield Epoch(epoch + 1, rates[-1], loss, seconds, len(split) / seconds)


def estimate_statistics(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    use_bf16: bool = False,
    compute: Compute = CPU,
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
    with torch.no_grad(), compute.autocast(use_bf16):
        for images, _ in batches:
            model(images.contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def distilled(loss: Tensor, logits: Tensor, taught: Tensor, *, weight: float, temperature: float) -> Tensor:
    """Return (1 - weight) * loss + weight * T ** 2 * KL(teacher || student) of the softmaxes of the logits / T.

    T ** 2 keeps the size of the gradient whatever the temperature.

    Args:
        loss: Against the labels, a number.
        logits, taught: The student's and the teacher's, [B, num_classes].

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2.
    """
    student, its = (functional.log_softmax(one.float() / temperature, dim=1) for one in (logits, taught))
    divergence = functional.kl_div(student, its, log_target=True, reduction="batchmean")
    return (1 - weight) * loss + weight * temperature**2 * divergence


class _Loss:
    """The loss of a recipe."""

    def __init__(self, recipe: Retraining, teacher: nn.Module | None, compute: Compute) -> None:
        self.recipe, self.compute = recipe, compute
        self.use_bf16 = compute.computes_in_bf16(recipe.precision)
        self.teacher: nn.Module | None = None
        if recipe.distillation:
            assert teacher is not None, "distillation needs a teacher"
            self.teacher = compute.network(teacher.eval())

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of `model` on images [B, 3, H, W], channels last, with labels [B]."""
        smoothing = settled(self.recipe.label_smoothing)
        with self.compute.autocast(self.use_bf16):
            logits = model(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
            if self.teacher is None or self.recipe.distillation is None:
                return loss
            with torch.no_grad():
                taught = self.teacher(images)
        if taught.shape != logits.shape:
            raise RetrainingError(
                f"distillation: the teacher must give one value a class, {list(logits.shape)} as the network does, but "
                f"gave {list(taught.shape)}; take a teacher of the same classes."
            )
        weight, temperature = settled(self.recipe.distillation.weight), settled(self.recipe.distillation.temperature)
        return distilled(loss, logits, taught, weight=weight, temperature=temperature)


def _one_pass(
    model: nn.Module,
    state: State,
    batches: Iterator[tuple[Tensor, Tensor]],
    rates: Sequence[float],
    loss_of: _Loss,
) -> float:
    """Train on each batch at its rate; return the mean loss."""
    model.train()
    optimiser = state.optimiser
    total, images_seen = torch.zeros((), dtype=torch.float64, device=loss_of.compute.device), 0
    for (images, labels), lr in zip(batches, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = lr
        loss = loss_of(model, images.contiguous(memory_format=torch.channels_last), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if state.average:
            state.average.add()
        total += loss.detach().double() * len(labels)  # a GPU is not waited for
        images_seen += len(labels)
    return total.item() / images_seen
