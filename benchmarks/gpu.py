"""What a GPU does for trials: images a second of one trial and of several, classifying, memory over many trials.

python -m benchmarks.gpu
python -m benchmarks.gpu --data CIFAR_FOLDER
python -m benchmarks.gpu --quick
Retrains ResNet-56 for CIFAR in batches of 128, on made-up images of 32x32 unless a folder is given, and prints a table
in Markdown. It takes 3 to 5 minutes, --quick one; PyTorch, NumPy and Pillow are all that it needs. Several trials are
processes as in a study, so whether CUDA's Multi-Process Service runs makes a difference, and is said.
"""

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from queue import Empty
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import edge_tune as et
from edge_tune.errors import EdgeTuneError
from edge_tune.networks import datasets, models
from edge_tune.networks.captured import Graph
from edge_tune.networks.compute import Compute, gpus_here, take
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Augmentation, Split
from edge_tune.networks.retraining import Epoch, retrain
from edge_tune.wording import counted

BATCH_SIZE = 128
DEPTHS = (20, 32, 44, 56)
"""Networks of other shapes take turns where memory is watched, as pruned ones do."""

AIMS = {"one": 15_000, "several": 30_000, "classify_s": 0.5}
PATIENCE_S = 120
"""After so long, processes that wait for each other give up."""


@dataclass(frozen=True)
class Images:
    """What is trained on and classified."""

    train: Split
    validation: Split
    augmentation: Augmentation
    num_classes: int


@dataclass(frozen=True)
class Amount:
    """How much is done.

    Attributes:
        train, validation: Images.
        epochs: Timed, after one that is not.
        trials: Over which memory is watched.
        processes: How many trials there are at once.
    """

    train: int = 45_000
    validation: int = 15_000
    epochs: int = 1
    trials: int = 50
    processes: tuple[int, ...] = (4, 6)


QUICK = Amount(train=12_800, epochs=1, trials=10, processes=(4,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 where there is no GPU or no such images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder train/CLASS/*, test/CLASS/*; made-up images, if not given")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    given = parser.parse_args(arguments)
    here = gpus_here()
    if here.problem:
        print(f"benchmarks.gpu: a GPU is needed that PyTorch can use, but {here.problem}.", file=sys.stderr)
        return 2
    amount = QUICK if given.quick else Amount()
    try:
        images = images_of(given.data, amount)
        compute = take(os.cpu_count() or 1, 1)
        print(
            f"{compute.name}, {counted(os.cpu_count() or 1, 'core')}, {platform.processor() or platform.machine()}, "
            f"torch {torch.__version__}, CUDA {torch.version.cuda}, MPS {'on' if here.shared else 'off'}; ResNet-56, "
            f"batch {BATCH_SIZE}, {len(images.train):,} images, n = {counted(amount.epochs, 'epoch')} after a first one"
            f"\n\n| what | how | measured | aim |\n|---|---|---|---|",
            flush=True,
        )
        print_one_trial(compute, images, amount)
        print_classifying(compute, images)
        print_memory(compute, images, amount)
        for count in amount.processes:
            print_several(count, given.data, amount, mps=here.shared)
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def images_of(data: str | None, amount: Amount) -> Images:
    """Return so many images of a folder, each as often as needed, or made-up ones.

    Raises:
        ExperimentError: There is no such folder.
    """
    if data is None:
        generator = np.random.default_rng(0)
        train, validation = (
            Split(generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), generator.integers(0, 10, count))
            for count in (amount.train, amount.validation)
        )
        return Images(train, validation, Augmentation(4, horizontal_flip=True), 10)
    found = datasets.load(et.Data(data), seed=0)
    train, validation = (
        split.take(np.arange(count) % len(split))
        for split, count in ((found.train, amount.train), (found.validation, amount.validation))
    )
    return Images(train, validation, found.augmentation, found.num_classes)


def recipe(epochs: int, precision: Literal["f32", "bf16"] = "bf16", **more: Any) -> et.Retraining:
    """Return what is retrained by; a rate at which made-up images do no harm."""
    return et.Retraining(epochs=epochs, lr=0.01, batch_size=BATCH_SIZE, precision=precision, **more)


def network(images: Images, depth: int = 56) -> nn.Module:
    """Return a ResNet for CIFAR."""
    torch.manual_seed(0)
    return models.build(f"resnet{depth}_cifar", images.num_classes)


def epochs_of(
    compute: Compute,
    images: Images,
    asked: et.Retraining,
    depth: int = 56,
    graph: Callable[..., Graph | None] | None = None,
) -> list[Epoch]:
    """Retrain a network and return its epochs."""
    options: dict[str, Any] = {"graph": graph} if graph else {}
    return list(
        retrain(
            network(images, depth),
            compute.images(images.train),
            asked,
            augmentation=images.augmentation,
            seed=0,
            teacher=network(images) if asked.distillation else None,
            compute=compute,
            **options,
        )
    )


def speed(epochs: Sequence[Epoch]) -> float:
    """Return images a second but for the first epoch, in which a GPU warms up and a step is captured."""
    timed = epochs[1:]
    return sum(epoch.images_per_s * epoch.seconds for epoch in timed) / sum(epoch.seconds for epoch in timed)


def print_row(what: str, how: str, measured: str, aim: str = "") -> None:
    """Print a line of the table."""
    print(f"| {what} | {how} | {measured} | {aim} |", flush=True)


def print_one_trial(compute: Compute, images: Images, amount: Amount) -> None:
    """Print the speed of one trial: eager and captured, f32 and bf16, and with all that a recipe may hold."""
    rich: dict[str, Any] = {"distillation": et.Distillation(), "average": et.Ema(0.999), "label_smoothing": 0.05}
    for what, asked in (
        ("one trial, f32", recipe(amount.epochs + 1, "f32")),
        ("one trial, bf16", recipe(amount.epochs + 1)),
        ("one trial, bf16, AdamW", recipe(amount.epochs + 1, optimiser="adamw")),
        ("one trial, bf16, distilled, averaged, smoothed", recipe(amount.epochs + 1, **rich)),
    ):
        plain = what in ("one trial, f32", "one trial, bf16")
        if plain:
            eager = epochs_of(compute, images, asked, graph=lambda _: None)
            print_row(what, "eager, as asked", f"{speed(eager):,.0f} images/s")
        found = epochs_of(compute, images, asked)
        aim = f">= {AIMS['one']:,} images/s" if what == "one trial, bf16" else ""
        print_row(what, found[-1].steps_ran or "", f"{speed(found):,.0f} images/s", aim)
        compute.tidy()


def print_classifying(compute: Compute, images: Images) -> None:
    """Print the seconds that the validation images take."""
    model, there = compute.network(network(images)), compute.images(images.validation)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        evaluate(model, there, compute=compute)
        seconds.append(time.perf_counter() - began)
    what = f"classify {len(there):,} images, f32"
    print_row(
        what, f"again; the first time {seconds[0]:.2f} s", f"{min(seconds[1:]):.2f} s", f"<= {AIMS['classify_s']} s"
    )


def print_memory(compute: Compute, images: Images, amount: Amount) -> None:
    """Print what PyTorch holds of the GPU after each of many trials in this process."""
    few = Images(
        images.train.take(np.arange(min(2048, len(images.train)))),
        images.validation.take(np.arange(min(1000, len(images.validation)))),
        images.augmentation,
        images.num_classes,
    )
    held, captured = [], 0
    for trial in range(amount.trials):
        epochs = epochs_of(compute, few, recipe(1, average=et.Ema(0.999)), DEPTHS[trial % len(DEPTHS)])
        captured += epochs[-1].steps_ran == "captured"
        compute.tidy()
        held.append(torch.cuda.memory_reserved() / 2**20)
    settled = len(DEPTHS)
    print_row(
        f"memory after each of {amount.trials} trials in one process",
        f"{captured} captured",
        f"{held[settled]:.0f} MiB after {settled + 1}, {held[-1]:.0f} after {amount.trials}, most {max(held):.0f}",
        "no growth",
    )


def print_several(count: int, data: str | None, amount: Amount, *, mps: bool) -> None:
    """Print the speed of so many trials at once, each a process that has a share of the GPU."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    workers = [
        context.Process(target=_trial, args=(barrier, answers, data, amount, 1 / count), daemon=True)
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    how = f"{count} processes, MPS {'on' if mps else 'off'}"
    try:
        found = [answers.get(timeout=2 * PATIENCE_S) for _ in workers]
    except Empty:
        print_row("several trials, bf16", how, f"failed: no answer within {2 * PATIENCE_S} s")
        return
    finally:
        for worker in workers:
            worker.terminate()
    problems = [answer for answer in found if isinstance(answer, str)]
    if problems:
        print_row("several trials, bf16", how, problems[0])
        return
    images = sum(images for images, _, _, _ in found)
    seconds = max(end for _, _, end, _ in found) - min(start for _, start, _, _ in found)
    ran = sorted({ran for *_, ran in found})
    print_row(
        "several trials, bf16",
        f"{how}, {', '.join(ran)}",
        f"{images / seconds:,.0f} images/s in all",
        f">= {AIMS['several']:,} images/s" if count == max(amount.processes) else "",
    )


def _trial(barrier: Barrier, answers: Any, data: str | None, amount: Amount, share: float) -> None:
    """Retrain in a process of its own; from the second epoch on with all others at once."""
    try:
        compute = take(max(1, int((os.cpu_count() or 1) * share)), share)
        images = images_of(data, amount)
        epochs = retrain(
            network(images),
            compute.images(images.train),
            recipe(amount.epochs + 1),
            augmentation=images.augmentation,
            seed=0,
            compute=compute,
        )
        next(epochs)
        barrier.wait(PATIENCE_S)
        began = time.time()
        done = list(epochs)
        answers.put((len(images.train) * len(done), began, time.time(), done[-1].steps_ran))
    except Exception as error:  # the table tells of it
        barrier.abort()
        answers.put(f"failed: {type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
