"""Widths and blocks against widths alone: two studies of ResNet-56 on CIFAR-10, their fronts side by side.

python -m benchmarks.blocks --data IMAGES --weights FILE --results DIR

Both have the same images, recipe with distillation, seed and number of trials, and look for a front; one searches the
dissertation's four groups, the other these and how many blocks of each stage stay. The fronts are printed as the best
validation top1 at each latency, with the test top1 of that network, and the baselines, among them the unpruned network
retrained alike. A study that is there already is resumed.
"""

import argparse
import platform
from dataclasses import replace
from pathlib import Path

import edge_tune as et
from edge_tune.experiment import Experiment
from edge_tune.loading import load_experiment
from edge_tune.networks import datasets, stored
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.records.results import Record, Results
from edge_tune.run import main as run

ROOT = Path(__file__).parents[1]
LATENCIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
BLOCKS = {
    f"stage_{stage}": et.BlockGroup([f"layer{stage}.{n}" for n in range(first, 9)], keep=et.Integer(2, 9 - first))
    for stage, first in ((1, 0), (2, 1), (3, 1))
}
FASTEST = {"layer_1": 0.9519, "layer_2": 0.9352, "layer_3.1": 0.4657, "layer_3.2": 0.8789}
"""The fastest schedule that the dissertation found."""

OFF_THE_SHELF = {"layer_1": 0.7, "layer_2": 0.6, "layer_3.1": 0.2, "layer_3.2": 0.4}


def main() -> None:
    """Run both studies, or what is missing of them, and print the fronts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an image folder, as shared/data/cifar10-jpeg.zip holds one")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--results", type=Path, required=True, help="a folder for both studies")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-images", type=int, default=3000)
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    parser.add_argument("--lr", type=float, default=0.01)
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    options = {key: value for key, value in vars(given).items() if key != "results"}
    for name in ("widths", "blocks"):
        file, folder = given.results / f"{name}.py", given.results / name
        file.write_text(f"from benchmarks.blocks import experiment\n\nexperiment = experiment({name!r}, {options!r})\n")
        print(f"{name}: {options}", flush=True)
        if run([str(file), f"--results={folder}", *(["--resume"] if (folder / "run.json").exists() else [])]):
            raise SystemExit(f"the study of {name} did not end")
    test = datasets.load(experiment("widths", options).data, seed=0).test
    tables = {name: front(Results(given.results / name), test) for name in ("widths", "blocks")}
    print(
        f"\n{platform.processor() or platform.machine()}, {given.trials} trials each, {given.train_images} images, "
        f"{given.epochs} epochs at {given.lr:g}; test top1 of {len(test)} images\n"
    )
    print(
        "| latency_ratio at most | " + " | ".join(f"{name}: val / test top1 (trial, ratio)" for name in tables) + " |"
    )
    print("|---" * (len(tables) + 1) + "|")
    for row in zip(*tables.values(), strict=True):
        print(f"| {' | '.join((row[0][0], *(cell for _, cell in row)))} |")


def experiment(name: str, given: dict[str, object]) -> Experiment:
    """Return one of the two experiments."""
    shipped = load_experiment(ROOT / "experiments/resnet56_latency.py")
    whole = {label: len(group.blocks) for label, group in BLOCKS.items()} if name == "blocks" else {}
    known = {"off_the_shelf": OFF_THE_SHELF, "fastest": FASTEST}
    return replace(
        shipped,
        dataset=et.Data(
            str(given["data"]),
            train_images=int(str(given["train_images"])),
            validation_fraction=float(str(given["validation_fraction"])),
        ),
        weights=str(given["weights"]),
        pruner_groups={**shipped.groups, **(BLOCKS if name == "blocks" else {})},
        target="front of latency_ratio and top1",
        retraining=et.Retraining(
            epochs=int(str(given["epochs"])),
            lr=float(str(given["lr"])),
            decay=et.Cosine(),
            batch_size=64,
            distillation=et.Distillation(),
        ),
        stopping=[et.Hopeless(after_epochs=1)],
        search=et.Search("hyperopt", trials=int(str(given["trials"])), max_concurrent_trials=1),
        baselines={baseline: {**point, **whole} for baseline, point in known.items()},
        keep_weights="all",
    )


def front(results: Results, test: Split) -> list[tuple[str, str]]:
    """Return (latency_ratio at most, the best network that is so fast) for each of LATENCIES, then the baselines."""
    records = [one for one in (*results.baselines(), *results.trials()) if one.status == "finished"]
    rows = []
    for latency in LATENCIES:
        fast = [one for one in records if one.metrics["latency_ratio"] <= latency]
        best = max(fast, key=lambda one: one.metrics["top1"], default=None)
        rows.append((f"{latency:.2f}", shown(results, best, test) if best else "-"))
    return rows + [(one.name, shown(results, one, test)) for one in results.baselines()]


def shown(results: Results, record: Record, test: Split) -> str:
    """Return the figures of a network, the test split read for it."""
    run_, file = results.run().settings, results.network_file(record)
    network = stored.rebuild(stored.Description(run_.model, 10, (3, 32, 32), record.plan), file.read_bytes())
    top1 = evaluate(network, test).top1
    return f"{record.metrics['top1']:.2f} / {top1:.2f} ({record.name}, {record.metrics['latency_ratio']:.3f})"


if __name__ == "__main__":
    main()
