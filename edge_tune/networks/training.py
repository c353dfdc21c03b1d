"""The unpruned network of an experiment that brings no weights, or those of other classes: trained once, and kept.

Its weights are kept by network, data, recipe and seed, and found again by a study with the same options.
"""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_tune.errors import ExperimentError, ExportError, RetrainingError
from edge_tune.experiment import CROSS_ENTROPY, Cosine, Experiment, Retraining, settled
from edge_tune.files import write_atomically
from edge_tune.networks import datasets, models, onnx_export, stored
from edge_tune.networks.compute import CPU, SMALLER_BATCH, Compute, enough_memory, take
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Augmentation, Split
from edge_tune.networks.losses import own_loss
from edge_tune.networks.optimisers import make_optimiser
from edge_tune.networks.retraining import STATISTICS_IMAGES, retrain
from edge_tune.networks.tracing import Shape
from edge_tune.networks.weights import Pretrained, load_weights, not_finite, read_weights
from edge_tune.waiting import EVERY_S, news
from edge_tune.wording import counted, listed

RECIPES = {"digits": Retraining(epochs=10, lr=0.05, decay=Cosine(), batch_size=64)}
"""Recipes that suit a data set; any other one gets USUAL_RECIPE."""

USUAL_RECIPE = Retraining(epochs=120, lr=0.1, decay=Cosine(), weight_decay=5e-4)


FINE_TUNING = Retraining(epochs=10, lr=0.01, decay=Cosine(), batch_size=64)
"""For a network that has learned other classes: few epochs at a small rate."""

CLASSIFIER_STEPS = 200
"""So many steps at least, in whole passes, a new classifier is trained alone."""

Say = Callable[[str], None]
Train = Callable[[Experiment, Dataset, Say, Pretrained | None], bytes]
"""What `train` does."""


def training_recipe(experiment: Experiment, pretrained: Pretrained | None = None) -> Retraining:
    """Return the experiment's own recipe for its unpruned network, or what suits its data and what it has learned."""
    usual = FINE_TUNING if pretrained else RECIPES.get(str(experiment.data.name), USUAL_RECIPE)
    return experiment.training or usual


def planned_images(recipe: Retraining, images: int, *, new_classifier: bool) -> tuple[int, int]:
    """Return how many images a training computes, each as often as it comes: those of the whole, of a classifier alone.

    Args:
        images: Of the training split.
        new_classifier: Whether one is trained alone first.
    """
    alone = _passes(recipe, images) if new_classifier else 0
    return recipe.epochs * images, alone * images


def _passes(recipe: Retraining, images: int) -> int:
    """Return how often a classifier that is trained alone sees all images."""
    return math.ceil(CLASSIFIER_STEPS / math.ceil(images / int(settled(recipe.batch_size))))


def weights_file(experiment: Experiment, dataset: Dataset, pretrained: Pretrained | None = None) -> Path:
    """Return where the weights of this network, as it is defined now, data and recipe are kept."""
    recipe = asdict(training_recipe(experiment, pretrained))
    if recipe["loss"] == CROSS_ENTROPY:
        del recipe["loss"]  # weights are found again that were kept before there were other losses
    else:
        recipe["loss"] = [recipe["loss"], models.source(recipe["loss"])]
    network = models.build(experiment.model, dataset.num_classes)
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    architecture = [experiment.model, shapes, models.source(experiment.model)]
    made_by = [recipe, STATISTICS_IMAGES, experiment.search.seed]
    made_from = [pretrained.digest, pretrained.classifier, CLASSIFIER_STEPS] if pretrained else []
    key = json.dumps([architecture, dataset.digest, *made_by, *made_from], sort_keys=True)
    return datasets.cache_folder() / "weights" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"


def trained_weights(
    experiment: Experiment,
    dataset: Dataset,
    say: Say,
    pretrained: Pretrained | None = None,
    train_by: Train | None = None,
) -> dict[str, Tensor]:
    """Return the weights kept from an earlier training, or train now and keep them.

    A network that has learned other classes gets a new classifier, which is trained alone first, at the recipe's
    learning rate, while all else is frozen and the batch norms keep their statistics; then the whole network is trained
    by the recipe: the experiment's `training`, or FINE_TUNING if that is None.

    Args:
        say: Receives a line an epoch, and one now and then while an epoch takes long.
        pretrained: What the network has learned of other classes; None trains it from nothing.
        train_by: Trains somewhere else; None: this process does, on its CPUs.

    Raises:
        ExperimentError: There is no place to keep them.
        RetrainingError: The training diverged; nothing is kept.
    """
    file = weights_file(experiment, dataset, pretrained)
    if not file.is_file():
        _check_writable(file.parent)
        what = f"Training {experiment.model} with its new classifier" if pretrained else ""
        say(f"{what or f'No weights were given: training {experiment.model}'} on {dataset.name} once.")
        write_atomically(file, (train_by or train)(experiment, dataset, say, pretrained))
    say(f"Unpruned weights: {file}")
    return read_weights(str(file))


def _check_writable(folder: Path) -> None:
    """Check, before the training, that its weights can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExperimentError(
            f"{folder}: the trained weights must be kept there, but got {error.strerror}; name another folder by the "
            f"variable EDGE_TUNE_CACHE, or give weights."
        ) from error


def checked_onnx(network: nn.Module, input_shape: Shape) -> bytes:
    """Return an unpruned network as ONNX, which no device could measure it without, before hours are spent on it.

    Raises:
        ExperimentError: It cannot be exported.
    """
    try:
        return onnx_export.to_onnx(network, input_shape)
    except ExportError as error:
        raise ExperimentError(f"model: {error}") from error


def train_with(
    threads: int, gpus: float, experiment: Experiment, dataset: Dataset, pretrained: Pretrained | None, say: Say
) -> bytes:
    """Train as `train` does, in a process that has so many threads and so much of a GPU.

    Raises:
        ComputeError: PyTorch cannot use the GPU, or it has too little memory.
        RetrainingError: The training diverged.
    """
    compute = take(threads, gpus)
    say(f"  on {compute.name}")
    return train(experiment, dataset, say, pretrained, compute)


def train(
    experiment: Experiment, dataset: Dataset, say: Say, pretrained: Pretrained | None, compute: Compute = CPU
) -> bytes:
    """Return the trained network as the bytes of a file.

    Raises:
        ComputeError: A GPU has too little memory.
        RetrainingError: The training diverged.
    """
    recipe, seed = training_recipe(experiment, pretrained), experiment.search.seed
    torch.manual_seed(seed)
    network = models.build(experiment.model, dataset.num_classes)
    if pretrained:
        load_weights(network, {**network.state_dict(), **pretrained.body}, "the given weights")
    images = compute.images(dataset.train)
    compute.network(network)
    if pretrained:
        in_f32 = not compute.computes_in_bf16(recipe.precision)
        with enough_memory("training the new classifier", SMALLER_BATCH), compute.exactly(in_f32):
            _train_classifier(network, pretrained.classifier, images, dataset.augmentation, recipe, seed, say, compute)
    for epoch in retrain(
        network, images, recipe, augmentation=dataset.augmentation, seed=seed, compute=compute, say=say
    ):
        say(
            f"  epoch {epoch.epoch}/{recipe.epochs}: training loss {epoch.train_loss:.3f}, "
            f"lr {epoch.lr:.4f}, {epoch.seconds:.1f} s"
        )
    if infinite := not_finite(network.state_dict()):
        raise RetrainingError(
            f"after epoch {recipe.epochs}: the trained weights must be finite numbers, but {listed(infinite)} hold NaN "
            f"or infinity; lower the learning rate, {recipe.lr:g}."
        )
    evaluation = evaluate(network, compute.images(dataset.validation), compute=compute)
    say(f"  val_top1 {evaluation.top1:.2f} on {evaluation.images} images")
    return stored.to_bytes(network)


def _train_classifier(
    network: nn.Module,
    classifier: tuple[str, ...],
    images: Split,
    augmentation: Augmentation,
    recipe: Retraining,
    seed: int,
    say: Say,
    compute: Compute,
) -> None:
    """Train these parameters of a network alone, in place; its batch norms and dropouts compute as in inference.

    Raises:
        RetrainingError: The loss of a pass is not a finite number.
    """
    started = time.perf_counter()
    batch_size, loss_of = int(settled(recipe.batch_size)), own_loss(recipe) or functional.cross_entropy
    passes, number = _passes(recipe, len(images)), 0
    was_trained = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.eval().requires_grad_(False)
    own = [network.get_parameter(name).requires_grad_() for name in classifier]
    optimiser = make_optimiser(own, recipe)
    loss = math.nan
    with news(say, lambda: f"  the new classifier alone: pass {number + 1} of {passes}", EVERY_S):
        for number in range(passes):
            total, seen = 0.0, 0
            for batch, labels in images.batches(batch_size, augment=augmentation, seed=seed + number):
                with compute.autocast(compute.computes_in_bf16(recipe.precision)):
                    outputs = network(batch.contiguous(memory_format=torch.channels_last))
                of_batch = loss_of(outputs.float(), labels)
                optimiser.zero_grad(set_to_none=True)
                of_batch.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total, seen = total + of_batch.item() * len(labels), seen + len(labels)
            loss = total / seen
            if not math.isfinite(loss):
                raise RetrainingError(
                    f"the new classifier alone, pass {number + 1}: the training loss must be finite, but got {loss} at "
                    f"lr {recipe.lr:g}; lower the learning rate."
                )
    for parameter, trains in was_trained.items():
        parameter.requires_grad_(trains)
    say(
        f"  the new classifier alone, {counted(passes, 'pass', 'passes')}: training loss {loss:.3f}, "
        f"{time.perf_counter() - started:.1f} s"
    )
