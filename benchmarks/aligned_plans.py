"""What plans aligned to the channel granularity gain on ResNet-56, against unaligned plans of about equal MACs.

python -m benchmarks.aligned_plans --granularity 16

Each point of the search space becomes three networks: as asked; aligned, each kept count rounded to the granularity;
and unaligned of equal MACs, the same sparsities scaled until it computes as much as the aligned one. With the unpruned
network they are compiled in one process, on one core, and run in turn, in rounds of random order. A ratio is the median
over the rounds of the ratio within the round, with a bootstrap 95 % interval over the rounds.
"""

import argparse
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from torch import nn

from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.experiment import Experiment
from edge_tune.loading import load_experiment
from edge_tune.networks import models, onnx_export, pruning, weights
from edge_tune.networks.couplings import Couplings, couplings
from edge_tune.networks.pruning import Plan
from edge_tune.networks.tracing import Shape

ROOT = Path(__file__).parents[1]
SHAPE: Shape = (3, 32, 32)
RUNS_A_TURN = 5
WARM_UP_RUNS = 20
RESAMPLES = 2000


def main() -> None:
    """Measure and print one line a point, then what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared/models/resnet56_cifar10_jpeg.pt")
    parser.add_argument("--granularity", type=int, default=16)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--points", type=int, default=8, help="random points, besides the file's baselines")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if (cpus := measuring_cpus()) and hasattr(os, "sched_setaffinity"):  # macOS has no such thing
        os.sched_setaffinity(0, cpus)
    model = models.build("resnet56_cifar", 10)
    weights.load_weights(model, weights.read_weights(str(given.weights)), str(given.weights))
    study = load_experiment(ROOT / "experiments/resnet56_latency.py")
    compile_ = compiler(given.precision)
    coupled = couplings(model, SHAPE)
    unpruned = compile_(model)
    print(f"{hardware()}, OpenVINO {ov.get_version()}, {given.precision}, 1 thread, {time.ctime()}")
    print(f"channel granularity {given.granularity}")
    print(f"{given.rounds} rounds of {RUNS_A_TURN} runs; [95 % interval of the ratio]")
    gains = []
    for name, sparsities in points(study, given.points, given.seed):
        plans = three_plans(model, coupled, study, sparsities, given.granularity)
        pruned = [pruning.prune(model, plan, coupled) for plan in plans]
        macs = [pruning.size(network, SHAPE)[1] / 1e6 for network in pruned]
        asked, aligned, equal, reference = in_turns(
            [*(compile_(network) for network in pruned), unpruned], given.rounds, given.seed
        )
        gains.append(np.median(aligned / equal))
        print(f"{name}: {' '.join(f'{label} {value:.3f}' for label, value in sparsities.items())}")
        print(f"  MACs (M)   asked {macs[0]:.2f}, aligned {macs[1]:.2f}, unaligned of equal MACs {macs[2]:.2f}")
        print(f"  to unpruned  asked {ratio(asked, reference)}, aligned {ratio(aligned, reference)}, ", end="")
        print(f"unaligned of equal MACs {ratio(equal, reference)}")
        print(f"  aligned / unaligned of equal MACs {ratio(aligned, equal)}; aligned / asked {ratio(aligned, asked)}")
    print(
        f"aligned / unaligned of equal MACs over {len(gains)} points: median {np.median(gains):.3f}, "
        f"from {min(gains):.3f} to {max(gains):.3f}"
    )


def points(study: Experiment, count: int, seed: int) -> list[tuple[str, Mapping[str, float]]]:
    """Return the known points and so many random ones, label -> sparsity, up to 0.9."""
    generator = random.Random(seed)
    known = [
        (name, {label: float(values[label]) for label in study.groups}) for name, values in study.baselines.items()
    ]
    drawn = [{label: generator.uniform(0.1, 0.9) for label in study.groups} for _ in range(count)]
    return [*known, *((f"random {number}", sparsities) for number, sparsities in enumerate(drawn, 1))]


def three_plans(
    model: nn.Module,
    coupled: Couplings,
    study: Experiment,
    sparsities: Mapping[str, float],
    granularity: int,
) -> tuple[Plan, Plan, Plan]:
    """Return the plan as asked, aligned, and unaligned with the MACs of the aligned one."""

    def plan(factor: float, granularity: int = 1) -> Plan:
        scaled = {label: min(0.999, factor * sparsity) for label, sparsity in sparsities.items()}
        return pruning.make_plan(model, study.groups, study.point(scaled), coupled, granularity)

    aligned = plan(1.0, granularity)
    factors = np.linspace(0, 1 / max(sparsities.values()), 400)
    equal = min(map(plan, factors), key=lambda of: abs(macs_removed(model, of) - macs_removed(model, aligned)))
    return plan(1.0), aligned, equal


def macs_removed(model: nn.Module, plan: Plan) -> int:
    """Return the multiply-accumulates that a plan takes from ResNet-56: of each conv1, and of the conv2 after it."""
    total = 0
    for cut in plan:
        block, _, _ = cut.part.partition(".conv1")
        first, second = (model.get_parameter(f"{block}.{conv}.weight") for conv in ("conv1", "conv2"))
        side = SHAPE[1] // 2 ** (int(block[len("layer")]) - 1)
        total += (cut.before - cut.kept) * 9 * side**2 * (first.shape[1] + second.shape[0])
    return total


def compiler(precision: str) -> Callable[[nn.Module], ov.InferRequest]:
    """Return what compiles a network for one thread of the CPU."""
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}

    def compile_(network: nn.Module) -> ov.InferRequest:
        compiled = core.compile_model(core.read_model(onnx_export.to_onnx(network, SHAPE)), "CPU", settings)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        assert used == precision, f"asked for {precision}, but OpenVINO uses {used}"
        return compiled.create_infer_request()

    return compile_


def in_turns(requests: Sequence[ov.InferRequest], rounds: int, seed: int) -> NDArray[np.float64]:
    """Return the median milliseconds of each network in each round, [networks, rounds]."""
    image = np.random.default_rng(seed).standard_normal((1, *SHAPE)).astype(np.float32)
    for request in requests:
        np.copyto(request.get_input_tensor(0).data, image)
        for _ in range(WARM_UP_RUNS):
            request.infer()
    order, taken = random.Random(seed), np.zeros((len(requests), rounds))
    for number in range(rounds):
        for index in order.sample(range(len(requests)), len(requests)):
            taken[index, number] = np.median([one_run(requests[index]) for _ in range(RUNS_A_TURN)])
    return taken


def one_run(request: ov.InferRequest) -> float:
    """Return the milliseconds of one synchronous inference."""
    started = time.perf_counter()
    request.infer()
    return (time.perf_counter() - started) * 1e3


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> str:
    """Return the median of the ratios within the rounds, with its interval."""
    within = numerator / denominator
    picks = np.random.default_rng(0).integers(0, len(within), size=(RESAMPLES, len(within)))
    low, high = np.percentile(np.median(within[picks], axis=1), [2.5, 97.5])
    return f"{np.median(within):.3f} [{low:.3f}, {high:.3f}]"


def hardware() -> str:
    """Return the processor's name and the number of cores, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    avx512 = any("avx512f" in line for line in lines if line.startswith("flags"))
    return f"{names[0] if names else platform.machine()}, {len(names)} cores{', AVX-512' if avx512 else ''}"


if __name__ == "__main__":
    main()
