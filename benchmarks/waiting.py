"""How long an epoch takes by how PyTorch's threads wait for each other, on a host that others use too.

python -m benchmarks.waiting --neighbours 4

The same epoch, of random images, is trained in turns by one process for each way to wait: threads that spin (OpenMP's
own way), threads that sleep (OMP_WAIT_POLICY=passive), and a single thread, which waits for nobody. The order of each
round is drawn. Printed are the median seconds, and of the seconds in proportion to those of spinning in the same round
the median and the range. --neighbours starts so many processes that keep a core busy each.
"""

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

import edge_tune as et
from edge_tune.networks import models
from edge_tune.networks.images import Split
from edge_tune.networks.retraining import retrain

SPINNING = "spinning"
WAYS = {
    SPINNING: ({"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "300000"}, None),  # libgomp's own count
    "sleeping": ({"OMP_WAIT_POLICY": "passive"}, None),
    "one thread": ({}, 1),
}
"""Name -> (environment, threads; None for one each core)."""

BUSY = "while True: pass"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or be one of the processes that train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--images", type=int, default=256, help="of an epoch")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--train-with", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.train_with:
        train_when_told(given)
    else:
        print_table(given)
    return 0


def print_table(given: argparse.Namespace) -> None:
    """Have each way train an epoch a round, and print what it took."""
    threads = os.cpu_count() or 1
    with ExitStack() as stack:
        trainers = {way: stack.enter_context(trainer(*how)) for way, how in WAYS.items()}
        for process in trainers.values():
            seconds_of(process)  # not counted: it warms up
        for _ in range(given.neighbours):
            stack.enter_context(running([sys.executable, "-c", BUSY]))
        loads = [os.getloadavg()[0]]
        rounds = []
        for number in range(given.rounds):
            order = random.Random(number).sample(list(trainers), len(trainers))
            rounds.append({way: seconds_of(trainers[way]) for way in order})
            print("  ".join(f"{way} {rounds[-1][way]:.1f} s" for way in WAYS), flush=True)
            loads.append(os.getloadavg()[0])
    print(
        f"{platform.processor() or platform.machine()}, {threads} cores, load {min(loads):.0f} to {max(loads):.0f}, "
        f"{given.neighbours} neighbours of our own; {given.model}, {given.images} images of {given.image_size} pixels, "
        f"batches of {given.batch_size}; n = {given.rounds} rounds"
    )
    for way in WAYS:
        ratios = [taken[way] / taken[SPINNING] for taken in rounds]
        seconds = statistics.median(taken[way] for taken in rounds)
        print(f"{way:<12}{seconds:8.1f} s{statistics.median(ratios):8.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


@contextmanager
def trainer(environment: dict[str, str], threads: int | None) -> Iterator[subprocess.Popen[str]]:
    """Start this program once more, as a process that trains an epoch for each line that it is sent."""
    command = [sys.executable, "-m", "benchmarks.waiting", *sys.argv[1:]]
    command += ["--train-with", str(threads or len(os.sched_getaffinity(0)))]
    with running(command, environment) as process:
        yield process


@contextmanager
def running(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a process, which ends with the block."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def seconds_of(process: subprocess.Popen[str]) -> float:
    """Have a trainer train an epoch; return how long it took."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def train_when_told(given: argparse.Namespace) -> None:
    """Train an epoch for each line of stdin and print its seconds."""
    torch.set_num_threads(given.train_with)
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (given.images, 3, given.image_size, given.image_size), dtype=np.uint8)
    split = Split(pixels, draw.integers(0, 10, given.images))
    network = models.build(given.model, 10)
    recipe = et.Retraining(epochs=1, lr=1e-3, batch_size=given.batch_size)
    for _ in sys.stdin:
        began = time.perf_counter()
        list(retrain(network, split, recipe, augmentation=None, seed=0))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    sys.exit(main())
