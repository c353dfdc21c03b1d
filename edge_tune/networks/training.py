"""The unpruned network of an experiment that brings no weights: trained once, and kept.

Its weights are kept by network, data, recipe and seed, and found again by a study with the same options.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError, ExportError, RetrainingError
from edge_tune.experiment import Cosine, Experiment, Retraining
from edge_tune.files import write_atomically
from edge_tune.networks import datasets, models, onnx_export, stored
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.retraining import STATISTICS_IMAGES, retrain
from edge_tune.networks.tracing import Shape
from edge_tune.networks.weights import not_finite, read_weights
from edge_tune.wording import listed

RECIPES = {"digits": Retraining(epochs=10, lr=0.05, decay=Cosine(), batch_size=64)}
"""Recipes that suit a data set; any other one gets USUAL_RECIPE."""

USUAL_RECIPE = Retraining(epochs=120, lr=0.1, decay=Cosine(), weight_decay=5e-4)


def training_recipe(experiment: Experiment) -> Retraining:
    """Return the experiment's own recipe for its unpruned network, or the data set's."""
    return experiment.training or RECIPES.get(str(experiment.data.name), USUAL_RECIPE)


def weights_file(experiment: Experiment, dataset: Dataset) -> Path:
    """Return where the weights of this network, as it is defined now, data and recipe are kept."""
    recipe = asdict(training_recipe(experiment))
    network = models.build(experiment.model, dataset.num_classes)
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    architecture = [experiment.model, shapes, models.source(experiment.model)]
    made_by = [recipe, STATISTICS_IMAGES, experiment.search.seed]
    key = json.dumps([architecture, dataset.digest, *made_by], sort_keys=True)
    return datasets.cache_folder() / "weights" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"


def trained_weights(experiment: Experiment, dataset: Dataset, say: Callable[[str], None]) -> dict[str, Tensor]:
    """Return the weights kept from an earlier training, or train now and keep them.

    Args:
        say: Receives a line an epoch.

    Raises:
        ExperimentError: There is no place to keep them.
        RetrainingError: The training diverged; nothing is kept.
    """
    file = weights_file(experiment, dataset)
    if not file.is_file():
        _check_writable(file.parent)
        say(f"No weights were given: training {experiment.model} on {dataset.name} once.")
        write_atomically(file, _train(experiment, dataset, say))
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


def _train(experiment: Experiment, dataset: Dataset, say: Callable[[str], None]) -> bytes:
    recipe, seed = training_recipe(experiment), experiment.search.seed
    torch.manual_seed(seed)
    network = models.build(experiment.model, dataset.num_classes)
    for epoch in retrain(network, dataset.train, recipe, augmentation=dataset.augmentation, seed=seed):
        say(
            f"  epoch {epoch.epoch}/{recipe.epochs}: training loss {epoch.train_loss:.3f}, "
            f"lr {epoch.lr:.4f}, {epoch.seconds:.1f} s"
        )
    if infinite := not_finite(network.state_dict()):
        raise RetrainingError(
            f"after epoch {recipe.epochs}: the trained weights must be finite numbers, but {listed(infinite)} hold NaN "
            f"or infinity; lower the learning rate, {recipe.lr:g}."
        )
    evaluation = evaluate(network, dataset.validation)
    say(f"  val_top1 {evaluation.top1:.2f} on {evaluation.images} images")
    return stored.to_bytes(network)
