"""Records what benchmarks/replay.py replays: plans of ResNet-20 on CIFAR-10, trained to the end and measured.

python -m benchmarks.record train --data CIFAR_FOLDER --to FOLDER --at-once 8
python -m benchmarks.record measure --data CIFAR_FOLDER --to FOLDER > benchmarks/resnet20.jsonl

`train` trains the unpruned network, then random plans of widths and blocks, each for 12 epochs from its weights, on a
GPU where PyTorch sees one: FOLDER/curves.jsonl gets a line a plan, and what is missing of it is gone on with. `measure`
measures each on this host's CPU, in turns with the unpruned network, and prints the table. The two may run on different
machines.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import edge_tune as et
from benchmarks.workers import computes_on, here, workers
from edge_tune.benchmark import layers
from edge_tune.benchmark.backend import open_backend
from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.errors import EdgeTuneError, RetrainingError
from edge_tune.experiment import Experiment
from edge_tune.networks import onnx_export, pruning, training
from edge_tune.networks.compute import CPU
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.retraining import retrain
from edge_tune.parameters import Point
from edge_tune.search import study
from edge_tune.search.points import random_point
from edge_tune.search.trial import Planner

PLANS = 150
EPOCHS = 12
UNPRUNED_EPOCHS = 10
VALIDATION = 0.06
"""The share of the training images that is held out."""

MEASURED_S = 3.0
UNPRUNED = -1
"""The number of the unpruned network retrained alike."""


def experiment(data: str, train_images: int | None = None) -> Experiment:
    """Return the search space and the recipe."""
    anything = et.Uniform(0.0, 0.9)
    stages = ((1, (0, 1, 2)), (2, (1, 2)), (3, (1, 2)))  # the first blocks of stages 2 and 3 change the shape
    return et.Experiment(
        model="resnet20_cifar",
        dataset=et.Data(data, validation_fraction=VALIDATION, train_images=train_images),
        pruner_groups={
            **{
                f"layer_{n}": et.PrunerGroup(
                    "filters", [f"layer{n}.{block}.conv1.weight" for block in range(3)], sparsity=anything
                )
                for n in (1, 2, 3)
            },
            **{
                f"stage_{n}": et.BlockGroup(
                    [f"layer{n}.{block}" for block in blocks], keep=et.Integer(0, len(blocks)), order=None
                )
                for n, blocks in stages
            },
        },
        target="front of latency_ratio and top1",
        training=et.Retraining(epochs=UNPRUNED_EPOCHS, lr=0.1, decay=et.Cosine(), weight_decay=5e-4),
        retraining=et.Retraining(epochs=EPOCHS, lr=0.03, decay=et.Cosine()),
        search=et.Search("random", trials=PLANS, seed=0),
        benchmark=et.Benchmark(device="CPU"),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--to", type=Path, required=True, help="a folder for weights and curves")
    parser.add_argument("--train-images", type=int, default=2500)
    parser.add_argument("--plans", type=int, default=PLANS)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args(arguments)
    os.environ["EDGE_TUNE_CACHE"] = str(given.to)
    try:
        if given.what == "train":
            train(given.data, given.train_images, given.plans, given.at_once, given.to / "curves.jsonl")
        else:
            measure(given.data, given.train_images, given.to)
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def points(one: Experiment, count: int) -> Iterator[tuple[int, Point]]:
    """Yield numbers and points: the unpruned network's, then random ones."""
    whole = {label: len(group.blocks) for label, group in one.block_groups.items()}
    yield UNPRUNED, one.point({**dict.fromkeys(one.pruners, 0.0), **whole})
    generator = random.Random(one.search.seed)
    for number in range(count):
        yield number, random_point(one.parameters, generator)


def train(data: str, train_images: int, count: int, at_once: int, file: Path) -> None:
    """Train all plans, write what they were worth after each epoch."""
    compute, gpu = computes_on()
    whole = study.load(experiment(data), print)  # what the unpruned network learns from
    weights = training.weights_file(whole.experiment, whole.dataset)
    with workers(1, (whole.experiment, whole.dataset), gpu=gpu) as pool:
        if not weights.is_file():
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(pool.submit(unpruned).result())
    one = replace(experiment(data, train_images), weights=str(weights))
    prepared = study.prepare(study.load(one, print), print)
    orders = {label: list(group.order or ()) for label, group in prepared.experiment.block_groups.items()}
    images = {"train": len(prepared.train), "validation": len(prepared.validation)}
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    numbers = {line["number"] for line in known[1:]}
    with file.open("a") as lines, workers(at_once, prepared, gpu=gpu) as pool:
        if not known:
            print(json.dumps({"weights": weights.name, "orders": orders, **images}), file=lines)
        elif known[0] != {"weights": weights.name, "orders": orders, **images}:
            raise EdgeTuneError(f"{file}: holds plans of another network or other images: {known[0]}.")
        jobs = [
            pool.submit(curve, compute, *one) for one in points(prepared.experiment, count) if one[0] not in numbers
        ]
        for done, job in enumerate(as_completed(jobs), start=1):
            print(json.dumps(job.result()), file=lines, flush=True)
            if done % 20 == 0:
                print(f"{done} of {len(jobs)}", flush=True)


def measure(data: str, train_images: int, folder: Path) -> None:
    """Measure all plans, and print them with what they were worth."""
    known = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    head, lines = known[0], sorted(known[1:], key=lambda line: int(line["number"]))
    settings = et.Benchmark(device="CPU", max_s=MEASURED_S)
    one = replace(experiment(data, train_images), weights=str(folder / "weights" / head["weights"]))
    prepared = study.prepare(study.load(one.ordered(head["orders"])), lambda line: None)
    network, planner, reference = prepared.network(), Planner(prepared), prepared.reference()
    importances = {
        layer: [float(f"{value:.4g}") for value in its]
        for label in one.pruners
        for layer, its in planner.importances(label, "filters", "l1").items()
    }
    backend = open_backend(settings, measuring_cpus(settings.threads))
    try:
        on = {"device": CPU.name, "max_s": MEASURED_S, "epochs": EPOCHS}
        print(json.dumps({**head, **on, "importances": importances}), flush=True)
        for line in lines:
            plan = pruning.make_plan(network, prepared.experiment.groups, line["point"], prepared.coupled)
            assert [cut.kept for cut in plan] == line["kept"], "the plan must be the one that was trained"
            onnx = onnx_export.to_onnx(pruning.prune(network, plan, prepared.coupled), prepared.input_shape)
            found = backend.measure(onnx, settings, reference)
            ratios, its = found.evidence.ratios, found.evidence.reference
            assert ratios
            assert its
            assert its.latency
            ratio = ratios.latency_ratio
            assert ratio
            line["latency_ratio"] = [round(value, 4) for value in (ratio.ratio, ratio.low, ratio.high)]
            line["unpruned_ms"] = round(its.latency.median, 4)
            line["layers"] = {row.name: round(row.ms, 4) for row in layers.rows(found.layers, onnx)}
            print(json.dumps(line), flush=True)
    finally:
        backend.close()


def unpruned() -> bytes:
    """Return the weights of the unpruned network, trained by the experiment's own recipe."""
    compute, (one, dataset) = here()
    return training.train(one, dataset, print, None, compute)


def curve(on: str, number: int, point: Point) -> dict[str, Any]:
    """Return what a network scores on the validation split before and after each epoch."""
    compute, prepared = here()
    network = prepared.network()
    plan = pruning.make_plan(network, prepared.experiment.groups, point, prepared.coupled)
    network = pruning.prune(network, plan, prepared.coupled)
    parameters, macs = pruning.size(network, prepared.input_shape)
    network, validation = compute.network(network), compute.images(prepared.validation)
    found = [evaluate(network, validation, compute=compute)]
    torch.manual_seed(0)
    try:
        for _ in retrain(
            network,
            compute.images(prepared.train),
            prepared.experiment.retraining,
            augmentation=prepared.augmentation,
            seed=0,
            compute=compute,
        ):
            found.append(evaluate(network, validation, compute=compute))
    except RetrainingError:
        pass
    compute.tidy()
    return {
        "number": number,
        "compute": f"{on}, torch {torch.__version__}",
        "point": dict(point),
        "kept": [cut.kept for cut in plan],
        "parameters": parameters,
        "macs": macs,
        "top1": [round(one.top1, 3) for one in found],
        "loss": [round(one.loss, 4) for one in found],
    }


if __name__ == "__main__":
    sys.exit(main())
