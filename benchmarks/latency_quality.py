"""How far a latency can be trusted: the ratio of a network to itself, the same ratio again and again, benchmark_app.

python -m benchmarks.latency_quality --weights ../shared/models/resnet56_cifar10_jpeg.pt
Measures ResNet-56 and its off-the-shelf plan (experiments/resnet56_latency.py) on the CPU with one thread, each time
in a fresh process, while another process trains on the other cores; then ResNet-56 by ours and by benchmark_app in
alternating blocks. Ends with PASS or FAIL for each aim: the ratio of a network to itself is 1 within 1 % in every
process, and the fastest inference is that of benchmark_app within 3 %. Exit code 1 if one fails.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_tune.benchmark.backend import RunnerBackend, check_device
from edge_tune.benchmark.cores import measuring_cpus, training_cpus
from edge_tune.benchmark.measurement import Measurement
from edge_tune.benchmark.statistics import paired_ratio
from edge_tune.errors import BenchmarkError, EdgeTuneError
from edge_tune.experiment import Benchmark
from edge_tune.loading import load_experiment
from edge_tune.networks import models, onnx_export, pruning
from edge_tune.networks.couplings import couplings
from edge_tune.networks.weights import load_weights, read_weights

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_latency.py"
IMAGE = (3, 32, 32)
TRAINER = """
import torch
from edge_tune import models
network = models.build("resnet56_cifar", 10)
images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
while True:
    torch.nn.functional.cross_entropy(network(images), labels).backward()
"""
RATIOS = ("total_latency_ratio", "latency_ratio")
ITSELF_WITHIN, AGREES_WITHIN = 0.01, 0.03
INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "avx512_fp16")
BENCHMARK_APP = "from openvino.tools.benchmark.main import main; main()"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="of resnet56_cifar; without any, random ones, which take as long")
    parser.add_argument("--processes", type=int, default=10, metavar="N", help="fresh processes for each ratio")
    parser.add_argument("--blocks", type=int, default=20, metavar="N", help="blocks ours, app, app, ours")
    parser.add_argument("--precision", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--runs", type=int, default=Benchmark().runs, help="as in Benchmark")
    parser.add_argument("--max-s", type=float, default=Benchmark().max_s, help="as in Benchmark")
    given = parser.parse_args(arguments)
    passed = []
    try:
        unpruned, off_the_shelf = networks(given.weights)
        settings = list(
            computable(Benchmark(precision=one, runs=given.runs, max_s=given.max_s) for one in given.precision)
        )
        print(f"instruction sets: {', '.join(instruction_sets()) or 'unknown'}")
        with trainer():
            for one in settings:
                passed.append(print_quality(one, unpruned, off_the_shelf, given.processes))
                passed.append(print_benchmark_app(one, unpruned, given.blocks))
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 2
    return int(not all(passed))


def computable(every: Iterable[Benchmark]) -> Iterator[Benchmark]:
    """Yield the settings that the device can be measured with, and say why not for the others."""
    for settings in every:
        try:
            check_device(settings)
        except BenchmarkError as error:
            print(f"{settings.precision} is skipped: {error}")
        else:
            yield settings


def instruction_sets() -> list[str]:
    """Return which of those that matter to a convolution the processor has."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.is_file() else []
    return [name for name in INSTRUCTION_SETS if name in flags]


def networks(weights: str | None) -> tuple[bytes, bytes]:
    """Return the unpruned network and the one of the off-the-shelf plan as ONNX."""
    experiment = load_experiment(EXPERIMENT)
    network = models.build(experiment.model, 10)
    if weights:
        load_weights(network, read_weights(weights), weights)
    point = experiment.point(experiment.baselines["off_the_shelf"])
    coupled = couplings(network, IMAGE)
    plan = pruning.make_plan(network, experiment.groups, point, coupled)
    return onnx_export.to_onnx(network, IMAGE), onnx_export.to_onnx(pruning.prune(network, plan, coupled), IMAGE)


def trainer() -> AbstractContextManager[None]:
    """Keep the cores that do not measure busy with training."""
    return beside(TRAINER, training_cpus(), 10)  # it imports torch before it trains


@contextmanager
def beside(code: str, cpus: Sequence[int] | None, ready_s: float, **environment: str) -> Iterator[None]:
    """Keep another Python process running on these cores, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **environment}, preexec_fn=lambda: on(cpus)
    )
    try:
        time.sleep(ready_s)
        check_running(process)
        yield
        check_running(process)
    finally:
        process.kill()
        process.wait()


def check_running(process: "subprocess.Popen[bytes]") -> None:
    """Raise unless the process runs, without which the figures are those of an idle host."""
    if process.poll() is not None:
        raise BenchmarkError(f"what runs beside must run all the time, but ended with exit code {process.returncode}.")


def on(cpus: Sequence[int] | None) -> None:
    """Keep this process on these cores."""
    if cpus:
        os.sched_setaffinity(0, cpus)


def print_quality(settings: Benchmark, unpruned: bytes, off_the_shelf: bytes, processes: int) -> bool:
    """Print what the same measurement gives in so many fresh processes; tell whether the aim was met."""
    itself: list[Measurement] = []
    pruned: list[Measurement] = []
    seconds = []
    for _ in range(processes):
        for network, measurements in ((unpruned, itself), (off_the_shelf, pruned)):
            measurement, took = measure(settings, network, unpruned)
            measurements.append(measurement)
            seconds.append(took)
    evidence = itself[0].evidence
    loads = [measurement.evidence.load_average or 0.0 for measurement in (*itself, *pruned)]
    print(
        f"\n{settings.precision}, {evidence.device_name}, {evidence.runtime_text}, {platform.node()}, "
        f"{os.cpu_count()} cores, load {min(loads):.1f} to {max(loads):.1f}, n = {processes} processes each"
    )
    for metric in RATIOS:
        found = [measurement.evidence.intervals[metric] for measurement in itself]
        covered = sum(one.low <= 1 <= one.high for one in found)
        within = sum(abs(one.ratio - 1) <= ITSELF_WITHIN for one in found)
        print(f"unpruned / itself, {metric}: {spread([one.ratio for one in found])}")
        print(f"    half-width {spread([one.half_width for one in found])}")
        print(f"    1 is in the interval: {covered} of {processes}; ratio within 1 % of 1: {within} of {processes}")
    for metric in RATIOS:
        found = [measurement.evidence.intervals[metric] for measurement in pruned]
        print(f"off the shelf / unpruned, {metric}: {spread([one.ratio for one in found])}")
        print(f"    half-width {spread([one.half_width for one in found])}")
    every = [*itself, *pruned]
    stopped = [measurement.evidence.stopped_by for measurement in every]
    print(f"stopped by interval: {stopped.count('interval')}, by time: {stopped.count('time')} of {len(stopped)}")
    print(f"inferences of each network: {spread([one.evidence.runs or 0 for one in every])}")
    print(f"seconds a measurement, without starting the process: {spread(seconds)}")
    off = [abs(one.evidence.intervals["total_latency_ratio"].ratio - 1) for one in itself]
    return verdict(max(off) <= ITSELF_WITHIN, f"unpruned / itself is 1 within {max(off):.2%}, aim {ITSELF_WITHIN:.0%}")


def measure(settings: Benchmark, onnx: bytes, reference: bytes | None) -> tuple[Measurement, float]:
    """Return a measurement by a fresh process, and the seconds it took once the process was there."""
    backend = RunnerBackend(settings, measuring_cpus())
    try:
        backend.describe()
        started = time.perf_counter()
        return backend.measure(onnx, settings, reference), time.perf_counter() - started
    finally:
        backend.close()


def print_benchmark_app(settings: Benchmark, onnx: bytes, blocks: int) -> bool:
    """Print our fastest inference against that of OpenVINO's own tool; tell whether the aim was met.

    In each block ours runs first and last and the other twice in between, so that a drift of the host meets both
    alike. What else runs there can only add to a time: of each block, the least of both is taken.
    """
    alone = replace(settings, runs=300)  # without turns, after which the first runs find a cold cache

    def ours() -> float:
        total = measure(alone, onnx, None)[0].evidence.total_latency
        assert total is not None
        assert total.min is not None
        return total.min

    def theirs() -> float:
        return float(benchmark_app(settings, onnx)["min latency"])

    taken = [[measured() for measured in (ours, theirs, theirs, ours)] for _ in range(blocks)]
    mine, other = np.array([[min(one[0], one[3]), min(one[1], one[2])] for one in taken]).T
    ratio = paired_ratio(mine, other)
    print(f"fastest inference of a block, ms: ours {spread(mine.tolist())}, benchmark_app {spread(other.tolist())}")
    return verdict(
        abs(ratio.ratio - 1) <= AGREES_WITHIN,
        f"ours / benchmark_app is {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], n = {blocks} blocks, aim 1 "
        f"within {AGREES_WITHIN:.0%}",
    )


def verdict(is_met: bool, aim: str) -> bool:
    """Print whether an aim was met, and return it."""
    print(f"{'PASS' if is_met else 'FAIL'}: {aim}")
    return is_met


def benchmark_app(settings: Benchmark, onnx: bytes) -> dict[str, Any]:
    """Return what benchmark_app measures on the same core: sync, one stream, one thread, the same precision."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.onnx")
        model.write_bytes(onnx)
        options = (
            f"-m {model} -d CPU -hint none -api sync -nstreams 1 -nthreads 1 -infer_precision {settings.precision} "
        )
        options += f"-ip f32 -t 1 -json_stats -report_type no_counters -report_folder {folder}"
        command = [sys.executable, "-c", BENCHMARK_APP, *options.split()]
        subprocess.run(command, check=True, capture_output=True, preexec_fn=lambda: on(measuring_cpus()))
        report: dict[str, Any] = json.loads(Path(folder, "benchmark_report.json").read_text())
        results: dict[str, Any] = report["execution_results"]
        return results


def spread(values: Sequence[float]) -> str:
    """Return median, least and greatest."""
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    sys.exit(main())
