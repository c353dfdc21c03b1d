"""What a pruned network recovers to by which recipe: rates, with and without distillation, on the same networks.

python -m benchmarks.recipes --data CIFAR_FOLDER --weights FILE --at-once 6
python -m benchmarks.recipes --data CIFAR_FOLDER --weights FILE --train-images 2000 --test-images 1000 --epochs 2 \
    --lrs 0.1 0.03 --seeds 0

Prints a table in Markdown, a row as soon as it is known. Each network is retrained once for each seed by a rate that
falls as a cosine, and classifies the test split. Beside it, the distance to the unpruned network retrained alike: what
the pruning cost, apart from what the recipe did. Without --weights, the unpruned network is trained first. On a GPU
where PyTorch sees one, several networks --at-once.
"""

import argparse
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import edge_tune as et
from benchmarks.batch_norm import spread_out
from benchmarks.workers import computes_on, here, workers
from edge_tune.errors import EdgeTuneError, RetrainingError
from edge_tune.experiment import Experiment
from edge_tune.loading import load_experiment
from edge_tune.networks import pruning
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.retraining import retrain
from edge_tune.search import study
from edge_tune.search.study import Study
from edge_tune.wording import counted

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_latency.py"
ORDERS = {
    "stage_1": [f"layer1.{block}" for block in (2, 4, 5, 8, 3, 6, 7, 1, 0)],
    "stage_2": [f"layer2.{block}" for block in (1, 2, 4, 5, 6, 3, 7, 8)],  # the first of 2 and 3 changes the shape
    "stage_3": [f"layer3.{block}" for block in (2, 4, 6, 8, 1, 3, 5, 7)],
}
"""Which blocks go first: by the top1 that is left after one alone was removed and batch norm estimated anew."""

WHOLE: Mapping[str, float] = dict.fromkeys(("layer_1", "layer_2", "layer_3.1", "layer_3.2"), 0.0)
NETWORKS: Mapping[str, Mapping[str, float]] = {
    "unpruned": WHOLE,
    "off_the_shelf": {"layer_1": 0.7, "layer_2": 0.6, "layer_3.1": 0.2, "layer_3.2": 0.4},
    "fastest": {"layer_1": 0.9519, "layer_2": 0.9352, "layer_3.1": 0.4657, "layer_3.2": 0.8789},
    "4 of 9 blocks": {**WHOLE, "stage_1": 4, "stage_2": 3, "stage_3": 3},
}
"""Sparsities, and how many blocks of a stage stay; "fastest" is that of the dissertation."""

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
    parser.add_argument("--at-once", type=int, default=1, help="networks that are retrained side by side")
    given = parser.parse_args(arguments)
    try:
        loaded = study.load(experiment(given.data, given.weights, given.train_images))
        prepared = study.prepare(loaded, print)
        recipes = [recipe(given.epochs, lr, weight) for lr in given.lrs for weight in given.distillation]
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 2
    test = spread_out(loaded.dataset.test, given.test_images)
    compute, gpu = computes_on()
    print(
        f"{compute}, torch {torch.__version__}; {len(prepared.train):,} training and {len(test):,} test images, "
        f"{counted(given.epochs, 'epoch')}, n = {len(given.seeds)}:\n"
        f"`python -m benchmarks.recipes {shlex.join(sys.argv[1:] if arguments is None else arguments)}`\n\n"
        f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|",
        flush=True,
    )
    with workers(given.at_once, (prepared, test), gpu=gpu) as pool:
        before = {name: pool.submit(score, name) for name in given.networks}
        jobs = {
            (one, name): [pool.submit(retrained, name, one, seed) for seed in given.seeds]
            for one in recipes
            for name in given.networks
        }
        known: dict[tuple[et.Retraining, str], Trained] = {}
        for (one, name), seeds in jobs.items():
            known[one, name] = Trained(before[name].result(), _results(seeds))
            print(row(name, one, known[one, name], known.get((one, "unpruned"))), flush=True)
    return 0


def experiment(data: str, weights: str | None, train_images: int | None) -> Experiment:
    """Return the dissertation's, which may lose blocks as well."""
    shipped = load_experiment(EXPERIMENT)
    blocks = {
        label: et.BlockGroup(sorted(order), keep=et.Integer(0, len(order)), order=order)
        for label, order in ORDERS.items()
    }
    return replace(
        shipped,
        dataset=replace(shipped.data, name=data, train_images=train_images),
        weights=weights,
        pruner_groups={**shipped.groups, **blocks},
        baselines={},
    )


def _results(jobs: Sequence[Future[float | None]]) -> list[float | None]:
    return [job.result() for job in jobs]


def recipe(epochs: int, lr: float, weight: float) -> et.Retraining:
    """Return a recipe by which the unpruned network teaches with this weight, or does not where it is 0."""
    distillation = et.Distillation(weight=weight) if weight else None
    return et.Retraining(epochs=epochs, lr=lr, decay=et.Cosine(), distillation=distillation)


def pruned(prepared: Study, name: str) -> nn.Module:
    """Return a network as it is before it is retrained."""
    groups, network = prepared.experiment.groups, prepared.network()
    whole = {label: len(group.blocks) for label, group in prepared.experiment.block_groups.items()}
    point = prepared.experiment.point({**whole, **NETWORKS[name]})
    return pruning.prune(network, pruning.make_plan(network, groups, point, prepared.coupled), prepared.coupled)


def score(name: str) -> float:
    """Return the test top1 of a network before it is retrained."""
    compute, (prepared, test) = here()
    return evaluate(compute.network(pruned(prepared, name)), compute.images(test), compute=compute).top1


def retrained(name: str, recipe: et.Retraining, seed: int) -> float | None:
    """Return the test top1 of a network after it was retrained; None if that diverged."""
    compute, (prepared, test) = here()
    network = pruned(prepared, name)
    torch.manual_seed(seed)
    try:
        for _ in retrain(
            network,
            compute.images(prepared.train),
            recipe,
            augmentation=prepared.augmentation,
            seed=seed,
            teacher=prepared.network() if recipe.distillation else None,
            compute=compute,
        ):
            pass
    except RetrainingError:
        return None
    found = evaluate(network, compute.images(test), compute=compute).top1
    compute.tidy()
    return found


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
