"""The channel granularity of a device: the number of channels in whose steps the time of a convolution rises.

python -m edge_tune.benchmark granularity --device CPU

One network holds a pair of 3x3 convolutions 64 -> C -> 64 for each width C, so that every inference runs them all in
turn. Each round orders the pairs anew, so that no width has a place of its own, and takes each pair's time from
the layers' counters, relative to the round's median. A width's time is the lower quartile over the rounds: another
process can only add to it, and on a busy host it does so in half of them.

The verdict is `find_granularity`'s, and holds no absolute time: it is the same on a device that is ten times as fast.
"""

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_tune import command
from edge_tune.arguments import given_text
from edge_tune.benchmark.backend import RunnerBackend, require_device
from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.benchmark.layers import layers_of
from edge_tune.benchmark.measurement import Measurement
from edge_tune.errors import BenchmarkError, ExperimentError
from edge_tune.experiment import Benchmark

CANDIDATES = (2, 4, 8, 16, 32)
WIDTHS = tuple(range(16, 66))
"""From half the largest candidate to just beyond twice it: each candidate has two steps to show."""

ENDS, SIDE = 64, 12
"""Channels on both sides of a pair; height and width of its images."""

ROUNDS, RUNS = 15, 10
"""Many short rounds, so that a pair is seldom disturbed in most of them."""

QUANTILE = 0.25
RESAMPLES, AGREEMENT = 1000, 0.95
STEP_SHARE = 0.25

Measure = Callable[[bytes], Measurement]
"""What measures an ONNX network."""

Times = Mapping[int, Sequence[float]]
"""Width -> its time in each round, in any unit."""


@dataclass(frozen=True)
class GranularityVerdict:
    """What the times say.

    Attributes:
        granularity: Channels in a step; None if noise forbids to say.
        agreement: Share of the resamples of the rounds that give the commonest answer.
        relative: Width -> its time as a share of the widest's.
    """

    granularity: int | None
    agreement: float
    relative: Mapping[int, float]


def find_granularity(times: Times, seed: int = 0) -> GranularityVerdict:
    """Return the step of the staircase that times rise in, 1 if they rise evenly.

    For each candidate g, least squares of the relative error fit a parabola in C and steps of ceil(C / g). The
    candidate that leaves the smallest error is the step if steps make at least a quarter of the rise over g
    widths. The granularity is 1 if no candidate's steps make that much. This is asked of 1000 resamples of the rounds
    with replacement. What 95 % of them agree on is the verdict; if they do not, the noise is too large for one.
    """
    widths = np.array(sorted(times))
    rounds = np.array([times[width] for width in widths], dtype=np.float64)
    rounds = rounds / np.median(rounds, axis=0)
    picks = np.random.default_rng(seed).integers(0, rounds.shape[1], size=(RESAMPLES, rounds.shape[1]))
    answers = _steps(widths, np.quantile(rounds[:, picks], QUANTILE, axis=2).T).tolist()
    commonest = max(set(answers), key=answers.count)
    agreement = answers.count(commonest) / RESAMPLES
    typical = np.quantile(rounds, QUANTILE, axis=1)
    return GranularityVerdict(
        granularity=commonest or None if agreement >= AGREEMENT else None,
        agreement=agreement,
        relative=dict(zip(widths.tolist(), (typical / typical[-1]).tolist(), strict=True)),
    )


def time_widths(measure: Measure, widths: Sequence[int] = WIDTHS, rounds: int = ROUNDS, seed: int = 0) -> Times:
    """Return the milliseconds of each width's pair in each round."""
    order = random.Random(seed)
    times: dict[int, list[float]] = {width: [] for width in widths}
    for _ in range(rounds):
        layers = layers_of(measure(pairs(order.sample(widths, len(widths)))))
        for width in widths:
            times[width].append(sum(layer.ms for layer in layers if f"/pair{width}/" in layer.name))
    missing = [width for width in widths if not min(times[width]) > 0]
    if missing:
        raise BenchmarkError(
            f"the counters must show time in every pair of layers, but show none for widths {missing}."
        )
    return times


def measure_granularity(settings: Benchmark, measure: Measure | None = None) -> GranularityVerdict:
    """Measure the device's channel granularity.

    Args:
        settings: The device; runs are this module's own.
        measure: Who measures; None: a process of its own on this host, which is ended afterwards.
    """
    if measure is not None:
        return find_granularity(time_widths(measure))
    own = replace(settings, runs=RUNS)
    backend = RunnerBackend(own, measuring_cpus(own.threads))
    try:
        return find_granularity(time_widths(lambda network: backend.measure(network, own)))
    finally:
        backend.close()


def pairs(widths: Sequence[int]) -> bytes:
    """Return the ONNX network that adds up the pairs of these widths, in this order, after a convolution of its own."""
    weights = np.random.default_rng(0)
    nodes, parameters = [], []

    def convolution(name: str, source: str, inputs: int, outputs: int) -> str:
        values = weights.standard_normal((outputs, inputs, 3, 3)) / np.sqrt(4.5 * inputs)
        parameters.append(numpy_helper.from_array(values.astype(np.float32), f"{name}/weight"))
        nodes.append(
            helper.make_node("Conv", [source, f"{name}/weight"], [f"{name}/Conv"], f"{name}/Conv", pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"{name}/Conv"], [f"{name}/Relu"], f"{name}/Relu"))
        return f"{name}/Relu"

    stem = total = convolution("/stem", "input", 3, ENDS)
    for width in widths:
        narrow = convolution(f"/pair{width}/a", stem, ENDS, width)
        wide = convolution(f"/pair{width}/b", narrow, width, ENDS)
        nodes.append(helper.make_node("Add", [total, wide], [f"/pair{width}/Add"], f"/pair{width}/Add"))
        total = f"/pair{width}/Add"
    nodes.append(helper.make_node("GlobalAveragePool", [total], ["output"], "/pool"))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, ENDS, 1, 1])
    graph = helper.make_graph(nodes, "pairs", [image], [output], parameters)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    network: bytes = model.SerializeToString()
    return network


def table(verdict: GranularityVerdict) -> str:
    """Return the times as text, in rows of eight widths, and the verdict."""
    widths = sorted(verdict.relative)
    rows = [widths[start : start + 8] for start in range(0, len(widths), 8)]
    lines = [" ".join(f"{width:4d}: {verdict.relative[width]:5.3f}" for width in row) for row in rows]
    return "\n".join([f"Time of a pair 64 -> C -> 64, relative to C = {widths[-1]}:", *lines, says(verdict)])


def says(verdict: GranularityVerdict) -> str:
    """Return the verdict as a sentence."""
    agree = f"{verdict.agreement:.0%} of {RESAMPLES} resamples agree"
    if verdict.granularity is None:
        return f"Channel granularity: no verdict, the times are too noisy (only {agree}); free the host and try again."
    if verdict.granularity == 1:
        return f"Channel granularity: 1, the time rises evenly with the width ({agree})."
    return f"Channel granularity: {verdict.granularity} channels ({agree})."


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.benchmark granularity") -> int:
    """Measure, print the table and the verdict; return 0, 1 if there is none, 2 for bad input."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description="Find the device's channel granularity.")
    defaults = Benchmark()
    parser.add_argument("--device", default=defaults.device, metavar="NAME", help="OpenVINO device, or onnxruntime:CPU")
    parser.add_argument("--precision", default=defaults.precision, help="arithmetic of the device: f32, bf16 or f16")
    parser.add_argument("--threads", type=int, default=defaults.threads, metavar="N", help="of the CPU")
    parser.add_argument("--device-python", type=given_text, metavar="FILE", help="interpreter that has the device")
    parser.add_argument(
        "--device-host", type=given_text, metavar="USER@HOST", help="board that has the device, as ssh names it"
    )
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    settings = Benchmark(
        device=given.device,
        precision=given.precision,
        threads=given.threads,
        python=given.device_python,
        host=given.device_host,
    )
    ExperimentError.raise_if(settings.problems())
    require_device(settings, computes=True)
    verdict = measure_granularity(settings)
    command.say(table(verdict))
    return int(verdict.granularity is None)


def _steps(widths: NDArray[np.int64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each row of `times`, [resamples, widths], the step that fits it best, 1 for none, 0 if undecided."""
    fits = [_fit(granularity, widths, times) for granularity in CANDIDATES]
    errors, shares = (np.stack(parts, axis=1) for parts in zip(*fits, strict=True))
    is_step = shares >= STEP_SHARE
    best = errors.argmin(axis=1)
    best_is_step = is_step[np.arange(len(best)), best]
    return np.select([best_is_step, ~is_step.any(axis=1)], [np.array(CANDIDATES)[best], 1], default=0)


def _fit(
    granularity: int, widths: NDArray[np.int64], times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each row of `times` the squared relative error of a staircase, and the steps' share of its rise."""
    span = widths[-1] - widths[0]
    position = (widths - widths.mean()) / span
    weight = 1 / np.median(times, axis=0)
    design = (
        np.stack([np.ones(len(widths)), position, position**2, np.ceil(widths / granularity)], axis=1) * weight[:, None]
    )
    fitted = (times * weight) @ np.linalg.pinv(design).T
    error = ((times * weight - fitted @ design.T) ** 2).sum(axis=1)
    even = (fitted[:, 1] + fitted[:, 2] * (position[-1] ** 2 - position[0] ** 2)) * granularity / span
    rise = fitted[:, 3] + even
    return error, np.divide(fitted[:, 3], rise, out=np.zeros(len(rise)), where=rise > 0)


if __name__ == "__main__":
    sys.exit(main())
