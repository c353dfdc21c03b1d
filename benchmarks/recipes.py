"""What a pruned network recovers to by which recipe: rates, with and without distillation, on the same networks.

python -m benchmarks.recipes --data CIFAR_FOLDER --weights FILE
python -m benchmarks.recipes --data CIFAR_FOLDER --weights FILE --train-images 2000 --test-images 1000 --epochs 2 \
    --lrs 0.1 0.03 --seeds 0 --threads 1

Prints a table in Markdown, a row as soon as it is known. Each network is retrained once for each seed by a rate that
falls as a cosine, and classifies the test split. Beside it, the distance to the unpruned network retrained alike: what
the pruning cost, apart from what the recipe did. Without --weights, the unpruned network is trained first.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import edge_tune as et
from benchmarks.batch_norm import spread_out
from edge_tune.errors import EdgeTuneError, RetrainingError
from edge_tune.loading import load_experiment
from edge_tune.networks import pruning
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.networks.retraining import retrain
from edge_tune.search import study
from edge_tune.search.study import Study
from edge_tune.wording import counted

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_latency.py"
NETWORKS = {
    "unpruned": (0.0, 0.0, 0.0, 0.0),
    "off_the_shelf": (0.7, 0.6, 0.2, 0.4),
    "fastest": (0.9519, 0.9352, 0.4657, 0.8789),
}
"""Sparsities of layer_1, layer_2, layer_3.1 and layer_3.2; "fastest" is that of the dissertation."""

COLUMNS = (
    "network",
    "lr",
    "distillation",
    "test top1 pruned",
    "retrained",
    "of each seed",
    "to the unpruned network retrained alike",
)


@dataclass(frozen=True)
class Trained:
    """The test top1 of a network right after pruning and after retraining with each seed; None where it diverged."""

    pruned: float
    retrained: Sequence[float | None]

    @property
    def mean(self) -> float | None:
        """Over the seeds; None if one of them diverged."""
        known = [top1 for top1 in self.retrained if top1 is not None]
        return statistics.mean(known) if len(known) == len(self.retrained) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Retrain every network by every recipe with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as in edge_tune.run")
    parser.add_argument("--weights", help="of the unpruned network, which also teaches")
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--test-images", type=int, default=10_000, help="at most, evenly over the classes")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lrs", type=float, nargs="+", default=[0.1, 0.05, 0.02])
    parser.add_argument("--distillation", type=float, nargs="+", default=[0.0, 0.9], help="weights; 0: none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, help="of PyTorch; all cores, if not given")
    given = parser.parse_args(arguments)
    experiment = load_experiment(EXPERIMENT)
    data = replace(experiment.data, name=given.data, train_images=given.train_images)
    try:
        loaded = study.load(replace(experiment, dataset=data, weights=given.weights))
        torch.set_num_threads(given.threads or torch.get_num_threads())
        prepared = study.prepare(loaded, print)
        recipes = [recipe(given.epochs, lr, weight) for lr in given.lrs for weight in given.distillation]
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 2
    test = spread_out(loaded.dataset.test, given.test_images)
    print(
        f"{platform.processor() or platform.machine()}, {counted(os.cpu_count() or 1, 'core')}, "
        f"{counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}; {len(prepared.train):,} training "
        f"and {len(test):,} test images, {counted(given.epochs, 'epoch')}, n = {len(given.seeds)}:\n"
        f"`python -m benchmarks.recipes {shlex.join(sys.argv[1:] if arguments is None else arguments)}`\n\n"
        f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|",
        flush=True,
    )
    for one in recipes:
        unpruned = None
        for name in given.networks:
            found = trained(prepared, name, one, given.seeds, test)
            unpruned = found if name == "unpruned" else unpruned
            print(row(name, one, found, unpruned), flush=True)
    return 0


def recipe(epochs: int, lr: float, weight: float) -> et.Retraining:
    """Return a recipe by which the unpruned network teaches with this weight, or does not where it is 0."""
    distillation = et.Distillation(weight=weight) if weight else None
    return et.Retraining(epochs=epochs, lr=lr, decay=et.Cosine(), distillation=distillation)


def trained(prepared: Study, name: str, recipe: et.Retraining, seeds: Sequence[int], test: Split) -> Trained:
    """Return what a network scores before and after its retraining with each seed."""
    groups = prepared.experiment.groups
    point = prepared.experiment.point(dict(zip(groups, NETWORKS[name], strict=True)))

    def pruned() -> nn.Module:
        network = prepared.network()
        return pruning.prune(network, pruning.make_plan(network, groups, point, prepared.coupled), prepared.coupled)

    def top1(seed: int) -> float | None:
        network, teacher = pruned(), prepared.network()
        torch.manual_seed(seed)
        try:
            for _ in retrain(
                network, prepared.train, recipe, augmentation=prepared.augmentation, seed=seed, teacher=teacher
            ):
                pass
        except RetrainingError:
            return None
        return evaluate(network, test).top1

    return Trained(evaluate(pruned(), test).top1, [top1(seed) for seed in seeds])


def row(name: str, recipe: et.Retraining, found: Trained, unpruned: Trained | None) -> str:
    """Return a line of the table."""
    distillation = f"{recipe.distillation.weight:g}" if recipe.distillation else "none"
    cost = found.mean - unpruned.mean if found.mean is not None and unpruned and unpruned.mean is not None else None
    cells = (
        name,
        f"{recipe.lr:g}",
        distillation,
        f"{found.pruned:.2f}",
        "diverged" if found.mean is None else f"{found.mean:.2f}",
        ", ".join("diverged" if top1 is None else f"{top1:.2f}" for top1 in found.retrained),
        "-" if cost is None or found is unpruned else f"{cost:+.2f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
