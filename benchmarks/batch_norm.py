"""What a retrained network scores by each way to get its batch-norm statistics, on the same weights.

python -m benchmarks.batch_norm                       # ResNet-56 on the digits, 5 epochs; trains the unpruned one first
python -m benchmarks.batch_norm --data CIFAR_FOLDER --weights FILE --train-images 10000 --test-images 4000

Each network is retrained once for each seed, by lr falling as a cosine. Then its statistics are the running averages
that training leaves, or plain averages over so many training batches, as the files have them (clean) or augmented as
for training, drawn --draws times. "spread" is the mean over the seeds of the standard deviation between the draws.
"""

import argparse
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

import edge_tune as et
from edge_tune.errors import EdgeTuneError
from edge_tune.experiment import settled
from edge_tune.loading import load_experiment
from edge_tune.networks import pruning, retraining
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.search import study

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_latency.py"
PLANS = {
    "unpruned": (0.0, 0.0, 0.0, 0.0),
    "off_the_shelf": (0.7, 0.6, 0.2, 0.4),
    "r182": (0.9519, 0.9352, 0.4657, 0.8789),
}
"""Sparsities of layer_1, layer_2, layer_3.1 and layer_3.2; r182 is the fastest that the dissertation found."""

RUNNING = "running averages"
WAYS = tuple((images, batches) for images in ("clean", "augmented") for batches in (8, 16, 32))

CHOSEN = "least validation loss"
"""Of the running averages and the first draws of 8 batches, clean and augmented."""

VALIDATION_IMAGES = 1000
Scores = dict[str, list[tuple[float, float]]]
"""Way -> (percent of the test images, nats on the validation images) of each draw."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Retrain each network with each seed, and print its scores; at the end their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--test-images", type=int, default=4000, help="at most, evenly over the classes")
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--epochs", type=int, default=5, help="0: the network as it is after pruning")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of PyTorch; all cores, if not given")
    given = parser.parse_args(arguments)
    experiment = load_experiment(EXPERIMENT)
    data = replace(experiment.data, name=given.data, image_size=given.image_size, train_images=given.train_images)
    recipe = et.Retraining(epochs=given.epochs, lr=given.lr, decay=et.Cosine())
    experiment = replace(experiment, dataset=data, weights=given.weights, retraining=recipe)
    try:
        loaded = study.load(experiment)
        torch.set_num_threads(given.threads or torch.get_num_threads())
        prepared = study.prepare(loaded, print)
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 2
    test = spread_out(loaded.dataset.test, given.test_images)
    validation = spread_out(prepared.validation, VALIDATION_IMAGES)
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {given.data} of "
        f"{given.image_size} pixels: {len(prepared.train)} training, {len(validation)} validation, "
        f"{len(test)} test images; {given.epochs} epochs from lr {given.lr:g}, batches of {recipe.batch_size}, "
        f"{given.draws} draws"
    )
    for plan in given.plans:
        by_seed = []
        for seed in given.seeds:
            network = retrained(prepared, plan, seed)
            by_seed.append(scores(network, prepared, test, validation, given.draws))
            print_table(f"{plan}, seed {seed}", by_seed[-1:])
        if len(by_seed) > 1:
            print_table(f"{plan}, mean of {len(by_seed)} seeds", by_seed)
    return 0


def spread_out(split: Split, images: int) -> Split:
    """Return at most `images` of a split, evenly over its order, which goes by classes."""
    return split.take(np.linspace(0, len(split) - 1, min(images, len(split))).round().astype(np.int64))


def retrained(prepared: study.Study, plan: str, seed: int) -> nn.Module:
    """Return a network after its epochs, with the running averages that training left."""
    groups = prepared.experiment.groups
    point = prepared.experiment.point(dict(zip(groups, PLANS[plan], strict=True)))
    network = prepared.network()
    cuts = pruning.make_plan(network, groups, point, prepared.coupled)
    network = pruning.prune(network, cuts, prepared.coupled)
    recipe, augmentation = prepared.experiment.retraining, prepared.augmentation
    with mock.patch.object(retraining, "estimate_statistics"):
        for _ in retraining.retrain(network, prepared.train, recipe, augmentation=augmentation, seed=seed):
            pass
    return network


def scores(network: nn.Module, prepared: study.Study, test: Split, validation: Split, draws: int) -> Scores:
    """Return what the network scores by each way to its statistics."""

    def score() -> tuple[float, float]:
        return evaluate(network, test).top1, evaluate(network, validation).loss

    found = {RUNNING: [score()]}
    batch_size = int(settled(prepared.experiment.retraining.batch_size))
    for images, batches in WAYS:
        for draw in range(draws):
            augment = prepared.augmentation if images == "augmented" else None
            drawn = prepared.train.batches(batch_size, augment=augment, seed=1000 + draw)
            retraining.estimate_statistics(network, islice(drawn, batches))
            found.setdefault(f"{images}, {batches}", []).append(score())
    candidates = (found[way][0] for way in (RUNNING, "clean, 8", "augmented, 8"))
    return {**found, CHOSEN: [min(candidates, key=lambda candidate: candidate[1])]}


def print_table(title: str, by_seed: Sequence[Scores]) -> None:
    """Print the mean over seeds and draws of each way."""
    print(f"\n{title:<24}{'test top1':>10}{'spread':>8}{'validation loss':>17}")
    for way in by_seed[0]:
        top1 = statistics.mean(top1 for found in by_seed for top1, _ in found[way])
        loss = statistics.mean(loss for found in by_seed for _, loss in found[way])
        spread = statistics.mean(statistics.pstdev(top1 for top1, _ in found[way]) for found in by_seed)
        print(f"{way:<24}{top1:>10.2f}{spread:>8.2f}{loss:>17.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
