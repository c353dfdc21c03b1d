"""What a profile costs ONNX Runtime, and which way of keeping the cores of this host full gives the most.

.venv/bin/python -m benchmarks.onnx_runtime

ResNet-20 and ResNet-56 for images of 32 pixels with random weights, f32. The ways take turns, in rounds; each figure is
the median over the rounds, with the least and the most.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as the runner's installed.py

import numpy as np
import onnxruntime
import torch

from benchmarks.aligned_plans import hardware
from edge_tune.networks import models
from edge_tune.networks.onnx_export import to_onnx

SHAPE = (3, 32, 32)
IMAGE = np.zeros((1, *SHAPE), dtype=np.float32)


def session(onnx: bytes, threads: int, spin: str = "0", profile: str | None = None) -> Any:
    """Return a session that has run 20 times."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    made = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    repeat(made, 20)
    return made


def repeat(made: Any, runs: int) -> None:
    """Run a session so often."""
    name = made.get_inputs()[0].name
    for _ in range(runs):
        made.run(None, {name: IMAGE})


def at_once(made: Any, runs: int, requests: int) -> None:
    """Run a session so often in all, so many requests at a time."""
    threads = [threading.Thread(target=repeat, args=(made, runs // requests)) for _ in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_turns(ways: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way in each round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return taken


def show(title: str, values: list[float], unit: str) -> None:
    """Print a median with the least and the most."""
    print(f"  {title:32} {np.median(values):8.3f} {unit} ({min(values):.3f} to {max(values):.3f})")


def show_profiles_cost(onnx: bytes, rounds: int, runs: int) -> None:
    """Print how long a run takes without a profile, and in proportion with one."""
    with tempfile.TemporaryDirectory() as folder:
        plain, profiled = session(onnx, 1), session(onnx, 1, profile=str(Path(folder) / "profile"))
        taken = in_turns({"plain": lambda: repeat(plain, runs), "profiled": lambda: repeat(profiled, runs)}, rounds)
        profiled.end_profiling()
    show("a run without a profile", [1e3 * s / runs for s in taken["plain"]], "ms")
    pairs = zip(taken["profiled"], taken["plain"], strict=True)
    show("with one, in proportion", [profile / none for profile, none in pairs], "")


def show_throughput(onnx: bytes, rounds: int, runs: int) -> None:
    """Print how many images a second each way of using the cores gives."""
    cores = len(os.sched_getaffinity(0))
    single, spinning, sleeping = session(onnx, 1), session(onnx, cores, "1"), session(onnx, cores)
    ways = {
        "1 request, 1 thread": lambda: at_once(single, runs, 1),
        f"{cores} requests, 1 thread each": lambda: at_once(single, runs, cores),
        f"1 request, {cores} threads that spin": lambda: at_once(spinning, runs, 1),
        f"1 request, {cores} that sleep": lambda: at_once(sleeping, runs, 1),
    }
    for way, seconds in in_turns(ways, rounds).items():
        show(way, [runs / s for s in seconds], "images a second")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=100, help="of a way in a round")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{hardware()}, ONNX Runtime {onnxruntime.__version__}, load {load:.1f}, {time.ctime()}; n = {given.rounds}")
    for name in ("resnet20_cifar", "resnet56_cifar"):
        torch.manual_seed(0)
        onnx = to_onnx(models.build(name, 10).eval(), SHAPE)
        print(f"{name}:")
        show_profiles_cost(onnx, given.rounds, given.runs)
        show_throughput(onnx, given.rounds, given.runs)


if __name__ == "__main__":
    main()
