"""Methods of search against each other on real studies: ResNet-56 on CIFAR-10, each with the same number of epochs.

python -m benchmarks.methods --data IMAGES --results DIR [--methods latency_aware hyperopt] [--seeds 0 1]

All studies look for the fastest network within one point of the unpruned one, or for what --target says, by the search
space and recipe of experiments/resnet56_fastest_within_1.py with fewer epochs and images, and may train for --budget
epochs in all. With few images the recipe itself costs points, and what pruning costs is told by a condition such as
"top1 >= unpruned_retrained - 1". The
unpruned network was trained on all training images but those of its seed's validation split: --only-unpruned ends then.
With --weights it is a network that has seen all training images, so that studies have but the test images of IMAGES:
seven of ten to retrain and to validate, the others to test.
"latency_aware" pauses what cannot win any more; "hyperopt" trains every network to its end, but for those that are
measured slower than one that keeps the condition. A study that is there already is not run again. The table has the
network that each study would choose, on the test split, and the hypervolume of its front.
"""

import argparse
import itertools
import platform
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import edge_tune as et
from benchmarks.recipes import ORDERS
from edge_tune.command import say
from edge_tune.experiment import Experiment
from edge_tune.loading import load_experiment
from edge_tune.networks import datasets, stored, training
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.objective import UNPRUNED, UNPRUNED_RETRAINED, Objective
from edge_tune.records import fronts
from edge_tune.records.results import Record, Results
from edge_tune.run import main as run
from edge_tune.train import on_this_host

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_fastest_within_1.py"
REFERENCE_POINTS = 10.0
"""The hypervolume counts networks that are faster than the unpruned one, down to so many points below its top1."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an image folder, as shared/data/cifar10-jpeg.zip holds one")
    parser.add_argument("--results", type=Path, required=True, help="a folder for the studies")
    parser.add_argument("--methods", nargs="+", default=["latency_aware", "hyperopt"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--budget", type=int, default=180, help="epochs of a study")
    parser.add_argument("--epochs", type=int, default=6, help="of a trial")
    parser.add_argument("--train-images", type=int, default=6000)
    parser.add_argument("--lr", type=float, help="the experiment's, if nothing else is said")
    parser.add_argument("--target", help="the objective in a line of text; the experiment's, if nothing else is said")
    parser.add_argument("--at-once", type=int, default=1, help="trials")
    parser.add_argument("--gpus-per-trial", type=float)
    parser.add_argument("--validation", type=float, default=0.1, help="the share that is held out of what trains")
    parser.add_argument("--weights", type=Path, help="of a network that has seen all training images")
    parser.add_argument("--only-unpruned", action="store_true", help="train the unpruned networks, and end")
    given = parser.parse_args(arguments)
    if given.weights and given.only_unpruned:
        parser.error("--only-unpruned trains what --weights gives: leave one out")
    given.results.mkdir(parents=True, exist_ok=True)
    if given.weights:
        given.data = unseen(Path(given.data), given.results / "images")
    shared = {"data", "budget", "epochs", "lr", "target", "train_images", "validation", "at_once", "gpus_per_trial"}
    options = {key: value for key, value in vars(given).items() if key in shared}
    weights = {seed: given.weights or unpruned(given.data, given.validation, seed) for seed in given.seeds}
    if given.only_unpruned:
        return
    studies = list(itertools.product(given.methods, given.seeds))
    for method, seed in studies:
        folder = given.results / f"{method}_{seed}"
        if (folder / "summary.json").exists():
            continue
        file = folder.with_suffix(".py")
        given_to = ", ".join(map(repr, (method, seed, str(weights[seed]), options)))
        file.write_text(f"from benchmarks.methods import experiment\n\nexperiment = experiment({given_to})\n")
        if run([str(file), f"--results={folder}", *(["--resume"] if (folder / "run.json").exists() else [])]):
            raise SystemExit(f"the study {folder.name} did not end")
    test = datasets.load(et.Data(given.data), seed=0).test
    method, seed = studies[0]
    studied = experiment(method, seed, str(weights[seed]), options)
    print(
        f"\n{platform.processor() or platform.machine()}; {given.budget} epochs a study, {given.epochs} a trial, "
        f"{given.train_images:,} images; test top1 of {len(test):,}\n{studied.objective.text}\n\n"
        "| method, seed | trials | trained to the end | epochs | latency_ratio | val top1 | test top1 (unpruned alike) "
        "| hypervolume |\n|---|---|---|---|---|---|---|---|"
    )
    for method, seed in studies:
        print(row(f"{method}, {seed}", Results(given.results / f"{method}_{seed}"), studied.objective, test))


def unseen(data: Path, to: Path) -> str:
    """Return an image folder of links to the test images alone."""
    for image in sorted(data.resolve().glob("test/*/*")):
        label = image.parent.name
        split = "train" if zlib.crc32(f"{label}/{image.name}".encode()) % 10 < 7 else "test"
        link = to / split / label / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.readlink() != image:
            raise SystemExit(f"{to}: holds links to other images, such as {link.readlink()}; choose another --results")
        if not link.is_symlink():
            link.symlink_to(image)
    return str(to)


def unpruned(data: str, validation: float, seed: int) -> Path:
    """Return the weights of the unpruned network, trained now if they are not kept from before."""
    one = replace(
        load_experiment(EXPERIMENT),
        dataset=et.Data(data, validation_fraction=validation),
        training=et.Retraining(epochs=24, lr=0.1, decay=et.Cosine(), weight_decay=5e-4),
        search=et.Search("random", trials=1, seed=seed),
    )
    dataset = datasets.load(one.data, seed=seed)
    training.trained_weights(one, dataset, say, train_by=on_this_host)
    return training.weights_file(one, dataset)


def experiment(method: str, seed: int, weights: str, given: dict[str, Any]) -> Experiment:
    """Return the experiment of one study."""
    shipped = load_experiment(EXPERIMENT)
    lr = given["lr"]
    return replace(
        shipped,
        dataset=et.Data(given["data"], validation_fraction=given["validation"], train_images=given["train_images"]),
        weights=weights,
        target=given["target"] or shipped.target,
        pruner_groups={
            label: replace(group, order=ORDERS[label]) if isinstance(group, et.BlockGroup) else group
            for label, group in shipped.groups.items()
        },
        retraining=replace(shipped.retraining, epochs=given["epochs"], lr=shipped.retraining.lr if lr is None else lr),
        stopping=[et.Hopeless(after_epochs=1), *([et.Predicted()] if method == "latency_aware" else [])],
        search=et.Search(
            method,
            epochs=given["budget"],
            seed=seed,
            max_concurrent_trials=given["at_once"],
            gpus_per_trial=given["gpus_per_trial"],
        ),
    )


def row(name: str, results: Results, objective: Objective, test: Split) -> str:
    """Return a line of the table."""
    baselines, trials = results.baselines(), results.trials()
    unpruned, alike = baselines[0], next(one for one in baselines if one.label.startswith("unpruned, "))
    finished = [one for one in trials if one.status == "finished"]
    known = {UNPRUNED: unpruned.metrics, UNPRUNED_RETRAINED: alike.metrics}
    able = [one for one in finished if not objective.shortfall(one.metrics, known)]
    best = min(able, key=lambda one: objective.loss(one.metrics, known), default=None)
    losses = [(one.metrics["latency_ratio"], -one.metrics["top1"]) for one in finished]
    area = fronts.hypervolume(losses, (1.0, REFERENCE_POINTS - unpruned.metrics["top1"])) / REFERENCE_POINTS
    epochs = sum(one.epochs_trained for one in trials)
    if best is None:
        return f"| {name} | {len(trials)} | {len(finished)} | {epochs} | none keeps the condition | | | {area:.3f} |"
    return (
        f"| {name} | {len(trials)} | {len(finished)} | {epochs} | {best.metrics['latency_ratio']:.3f} ({best.name}) | "
        f"{best.metrics['top1']:.2f} | {test_top1(results, best, test):.2f} ({test_top1(results, alike, test):.2f}) | "
        f"{area:.3f} |"
    )


def test_top1(results: Results, record: Record, test: Split) -> float:
    """Return what a network scores on the test split."""
    file = results.network_file(record)
    description = stored.Description(results.run().settings.model, 10, (3, 32, 32), record.plan)
    return evaluate(stored.rebuild(description, file.read_bytes()), test).top1


if __name__ == "__main__":
    main()
