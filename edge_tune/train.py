"""Train the unpruned network of an experiment that brings no weights, once.

python -m edge_tune.train experiments/resnet56_latency.py --data digits
The weights are kept by network, data, recipe and seed, and found again by a study with the same options.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_tune import command, datasets, export, models
from edge_tune.arguments import given_path, given_text
from edge_tune.datasets import Dataset
from edge_tune.errors import ExperimentError, ExportError
from edge_tune.evaluation import evaluate
from edge_tune.experiment import Cosine, Experiment, Retraining
from edge_tune.loading import load_experiment
from edge_tune.results import write_atomically
from edge_tune.retraining import STATISTICS_IMAGES, retrain
from edge_tune.tracing import Shape
from edge_tune.weights import read_weights

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
        return export.to_onnx(network, input_shape)
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
    evaluation = evaluate(network, dataset.validation)
    say(f"  val_top1 {evaluation.top1:.2f} on {evaluation.images} images")
    return export.to_bytes(network)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print where the weights are, and return the exit code: 0 done, 2 bad input, 1 failed."""
    return command.run(_main, arguments)


def _main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge_tune.train", description=__doc__)
    parser.add_argument("experiment", type=given_path, help="the experiment file")
    parser.add_argument(
        "--data", type=given_text, metavar="NAME|PATH", help="images to train on, instead of the experiment's"
    )
    parser.add_argument("--train-images", type=int, metavar="N", help="train on N images only, as in edge_tune.run")
    parser.add_argument("--seed", type=int, metavar="N", help="of the validation split and the training")
    given = parser.parse_args(words)
    experiment = _with_options(load_experiment(given.experiment), given)
    dataset = datasets.load(experiment.data, seed=experiment.search.seed, say=command.say)
    network = models.build(experiment.model, dataset.num_classes)
    models.check_output(network, dataset.input_shape, dataset.num_classes)
    checked_onnx(network, dataset.input_shape)
    trained_weights(experiment, dataset, command.say)
    return 0


def _with_options(experiment: Experiment, given: argparse.Namespace) -> Experiment:
    """Return the experiment with those options of edge_tune.run that change the weights."""
    data = {"name": given.data, "train_images": given.train_images}
    data = {name: value for name, value in data.items() if value is not None}
    search = {} if given.seed is None else {"seed": given.seed}
    return replace(experiment, dataset=replace(experiment.data, **data), search=replace(experiment.search, **search))


if __name__ == "__main__":
    sys.exit(main())
