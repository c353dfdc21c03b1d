"""Training after pruning. The same code trains a network that comes without weights."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_tune.errors import RetrainingError
from edge_tune.experiment import Retraining, settled
from edge_tune.networks.averaging import Average
from edge_tune.networks.captured import CudaGraph, Graph, Repeated
from edge_tune.networks.compute import CPU, SMALLER_BATCH, Compute, enough_memory
from edge_tune.networks.images import Augmentation, Split
from edge_tune.networks.losses import own_loss
from edge_tune.networks.optimisers import load_state, make_optimiser, set_rate
from edge_tune.waiting import EVERY_S
from edge_tune.wording import duration

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
        steps_ran: How a GPU ran the steps, "captured", or "eager: " and why; None on a CPU.
    """

    epoch: int
    lr: float
    train_loss: float
    seconds: float
    images_per_s: float
    steps_ran: str | None = None


@dataclass(frozen=True)
class State:
    """What an epoch goes on from besides the weights that the network has between two.

    Attributes:
        average: Of the weights, where the recipe asks for one.
    """

    optimiser: torch.optim.Optimizer
    average: Average | None

    def begin_step(self, lr: float) -> None:
        """Make ready for a step at this rate."""
        set_rate(self.optimiser, lr)
        if self.average:
            self.average.count()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        average = self.average.state_dict() if self.average else None
        return {"optimiser": self.optimiser.state_dict(), "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another state of the same recipe and an equal network was."""
        load_state(self.optimiser, state["optimiser"])
        if self.average:
            self.average.load_state_dict(state["average"])


def make_state(model: nn.Module, recipe: Retraining) -> State:
    """Return the state before the first epoch of a recipe, for the parameters that `model` has now.

    Raises:
        ComputeError: A GPU has too little memory.
    """
    with enough_memory("retraining", SMALLER_BATCH):
        average = Average(model, settled(recipe.average.decay)) if recipe.average else None
        return State(make_optimiser(model.parameters(), recipe), average)


def _graph_of(compute: Compute) -> Graph | None:
    return CudaGraph() if compute.device == "cuda" else None


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
    graph: Callable[[Compute], Graph | None] = _graph_of,
    say: Callable[[str], None] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place and yield after each epoch; evaluate it in between as you like.

    An epoch depends on the weights, the state, the recipe, the teacher, the seed and its number only, so that a
    retraining that was interrupted between two goes on as if it had not been: to the bit on CPUs, on a GPU but for the
    order in which cuDNN adds.

    At each yield `model` is what comes of the epochs so far: it holds the average of the weights where the recipe asks
    for one, and the batch-norm statistics are estimated anew at the weights there are now, on the first batches of the
    epoch, augmented as they were: the weights live on such images. The running averages that training leaves lag
    behind the weights; after few steps at a high rate a network that has recovered looks collapsed by them
    (docs/decisions.md has the figures).

    On a GPU, the step is captured as a CUDA graph if that computes the same, and `Epoch.steps_ran` says so.

    Args:
        teacher: The unpruned network, where the recipe distils; it is put into eval mode and not trained.
        state: As `make_state` makes it; None makes one. Give it to keep it.
        epochs_done: Epochs of the recipe that `model` and `state` have behind them.
        compute: Where `model` and `state` are, and the images come.
        graph: Captures the step.
        say: Receives a line on how far an epoch is, each EVERY_S seconds of one.

    Raises:
        ComputeError: A GPU has too little memory.
        RetrainingError: The loss of a pass is not a finite number, or the teacher's outputs are not the network's.

    Source of the statistics: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576,
    section 3; Li et al., EagleEye, ECCV 2020, arXiv:2007.02491, for pruned networks.
    """
    compute.network(model)
    state = state or make_state(model, recipe)
    step = _Step(model, state, split, augmentation, _Loss(recipe, teacher, compute))
    repeated = Repeated(step, graph(compute))
    batch_size = int(settled(recipe.batch_size))
    for epoch in range(epochs_done, recipe.epochs):
        started = time.perf_counter()
        torch.manual_seed(seed + epoch)  # of layers that draw, such as dropout
        if state.average:
            state.average.swap()
        steps = split.steps(batch_size)
        rates = [recipe.lr_at(epoch, step, steps) for step in range(steps)]
        batches = split.parts(batch_size, augment=augmentation, seed=seed + epoch)
        with enough_memory("retraining", SMALLER_BATCH), compute.exactly(not step.loss_of.use_bf16):
            loss = _one_pass(step, repeated, _told(batches, split, f"epoch {epoch + 1}/{recipe.epochs}", say), rates)
        if not math.isfinite(loss):
            raise RetrainingError(
                f"epoch {epoch + 1}: the training loss must be finite, but got {loss} at lr {max(rates):g}; "
                f"lower the learning rate."
            )
        if state.average:
            state.average.swap()
        again = split.batches(batch_size, augment=augmentation, seed=seed + epoch)
        some = islice(again, math.ceil(STATISTICS_IMAGES / batch_size))
        estimate_statistics(model, some, step.loss_of.use_bf16, compute)
        compute.wait()
        seconds = time.perf_counter() - started
        yield Epoch(epoch + 1, rates[-1], loss, seconds, len(split) / seconds, repeated.ran)


def estimate_statistics(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    use_bf16: bool = False,
    compute: Compute = CPU,
) -> None:
    """Set every batch-norm's mean and variance to their plain averages over `batches`, at the weights there are now.

    Raises:
        ComputeError: A GPU has too little memory.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    model.train()
    with (
        enough_memory("estimating batch-norm statistics", SMALLER_BATCH),
        compute.exactly(not use_bf16),
        torch.no_grad(),
        compute.autocast(use_bf16),
    ):
        for number, (images, _) in enumerate(batches, 1):
            for norm in norms:
                norm.momentum = 1 / number  # makes a plain average; None would, too, but fetch the number from a GPU
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
        self.own = own_loss(recipe)
        self.teacher: nn.Module | None = None
        if recipe.distillation:
            assert teacher is not None, "distillation needs a teacher"
            self.teacher = compute.network(teacher.eval())

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of `model` on images [B, 3, H, W], channels last, with labels [B]."""
        smoothing = settled(self.recipe.label_smoothing)
        with self.compute.autocast(self.use_bf16):
            logits = model(images)
            if self.own is None:
                loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
            else:
                with self.compute.autocast(False):
                    loss = self.own(logits.float(), labels)
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


class _Step:
    """What a step does with a batch. All that it changes keeps its place in memory, so that it can be captured.

    Attributes:
        loss: Sum over the images since it was last set to zero, nats.
    """

    def __init__(
        self, model: nn.Module, state: State, split: Split, augmentation: Augmentation | None, loss_of: _Loss
    ) -> None:
        self.model, self.state, self.split, self.augmentation, self.loss_of = model, state, split, augmentation, loss_of
        self.loss = torch.zeros((), dtype=torch.float64, device=loss_of.compute.device)

    def __call__(self, *parts: Tensor) -> None:
        """Train on the batch of these parts; a GPU is not waited for."""
        images, labels = self.split.made(parts, self.augmentation)
        loss = self.loss_of(self.model, images.contiguous(memory_format=torch.channels_last), labels)
        self.state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.state.optimiser.step()
        if self.state.average:
            self.state.average.add()
        self.loss += loss.detach().double() * len(labels)

    def changes(self) -> dict[str, list[Tensor]]:
        """Return kind -> the tensors that a step changes."""
        optimiser = self.state.optimiser
        kept = [optimiser.state.get(weight, {}) for group in optimiser.param_groups for weight in group["params"]]
        return {
            "weights": list(self.model.parameters()),
            "buffers": list(self.model.buffers()),
            "optimiser": [value for one in kept for value in one.values() if isinstance(value, Tensor)],
            "average": self.state.average.kept if self.state.average else [],
            "loss": [self.loss],
        }


def _told(
    batches: Iterator[tuple[Tensor, ...]], split: Split, what: str, say: Callable[[str], None] | None
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches, and say now and then how far `what` is."""
    began = spoke = time.perf_counter()
    seen = 0
    for parts in batches:
        yield parts
        seen += len(parts[0])
        now = time.perf_counter()
        if say and now - spoke >= EVERY_S:
            spoke, rate = now, seen / (now - began)
            say(
                f"  {what}: {seen:,} of {len(split):,} images, {rate:,.0f} a second, "
                f"about {duration((len(split) - seen) / rate)} left"
            )


def _one_pass(step: _Step, repeated: Repeated, batches: Iterator[tuple[Tensor, ...]], rates: Sequence[float]) -> float:
    """Train on each batch, which comes in parts, at its rate; return the mean loss."""
    step.model.train()
    step.loss.zero_()
    repeated.begin()
    images_seen = 0
    for parts, lr in zip(batches, rates, strict=True):
        step.state.begin_step(lr)
        repeated(*parts)
        images_seen += len(parts[0])
    return step.loss.item() / images_seen
