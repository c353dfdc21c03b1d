"""Train the unpruned network of an experiment that brings no weights, or weights of other classes, once.

python -m edge_tune.train experiments/resnet56_latency.py --data digits
It computes on this host's GPU where PyTorch can use one. The weights are kept by network, data, recipe and seed, and
found again by a study with the same options.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_tune import command
from edge_tune.arguments import given_path, given_size, given_text
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.experiment import Experiment
from edge_tune.loading import load_experiment, without_secrets
from edge_tune.networks import datasets, losses, models
from edge_tune.networks.compute import why_no_gpu
from edge_tune.networks.training import checked_onnx, train_with, trained_weights
from edge_tune.networks.weights import Pretrained, load_pretrained, read_weights


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.train") -> int:
    """Train, print where the weights are, and return the exit code: 0 done, 2 bad input, 1 failed."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("experiment", type=given_path, help="the experiment file")
    parser.add_argument(
        "--data", type=given_text, metavar="NAME|PATH", help="images to train on, instead of the experiment's"
    )
    parser.add_argument(
        "--image-size", type=given_size, metavar="N|HxW|native", help="size of the images, as in edge_tune.run"
    )
    parser.add_argument("--train-images", type=int, metavar="N", help="train on N images only, as in edge_tune.run")
    parser.add_argument("--seed", type=int, metavar="N", help="of the validation split and the training")
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    experiment = _with_options(load_experiment(given.experiment), given)
    dataset = datasets.load(experiment.data, seed=experiment.search.seed, say=command.say)
    network = models.build(experiment.model, dataset.num_classes)
    models.check_output(network, dataset.input_shape, dataset.num_classes)
    checked_onnx(network, dataset.input_shape)
    if experiment.training:
        losses.check(experiment.training, dataset.num_classes)
    pretrained = None
    if experiment.weights:
        weights, shown = read_weights(experiment.weights, command.say), without_secrets(experiment.weights)
        pretrained = load_pretrained(network, weights, dataset.num_classes, shown, command.say)
        if not pretrained:
            command.say(f"{shown}: these weights fit the network and its data: there is nothing to train.")
            return 0
    trained_weights(experiment, dataset, command.say, pretrained, on_this_host)
    return 0


def on_this_host(
    experiment: Experiment, dataset: datasets.Dataset, say: Callable[[str], None], pretrained: Pretrained | None
) -> bytes:
    """Train with all of this host: its GPU where PyTorch can use one. Returns the weights as the bytes of a file.

    Raises:
        ComputeError: The GPU has too little memory.
        RetrainingError: The training diverged.
    """
    return train_with(len(usable_cpus()), 0 if why_no_gpu() else 1, experiment, dataset, pretrained, say)


def _with_options(experiment: Experiment, given: argparse.Namespace) -> Experiment:
    """Return the experiment with those options of edge_tune.run that change the weights."""
    data = {"name": given.data, "image_size": given.image_size, "train_images": given.train_images}
    data = {name: value for name, value in data.items() if value is not None}
    search = {} if given.seed is None else {"seed": given.seed}
    return replace(experiment, dataset=replace(experiment.data, **data), search=replace(experiment.search, **search))


if __name__ == "__main__":
    sys.exit(main())
