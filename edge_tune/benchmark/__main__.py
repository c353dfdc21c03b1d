"""Measure any ONNX file, or all networks that a study kept, by hand, with the protocol of a search.

python -m edge_tune.benchmark MODEL.onnx --reference REFERENCE.onnx
python -m edge_tune.benchmark RESULTS --device GPU
python -m edge_tune.benchmark RESULTS --device-host pi@board
python -m edge_tune.benchmark granularity --device CPU
python -m edge_tune.benchmark layers A.onnx B.onnx
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from edge_tune import command
from edge_tune.arguments import given_path, given_text
from edge_tune.benchmark import elsewhere, granularity, layers
from edge_tune.benchmark.backend import open_backend, require_device
from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.benchmark.layers import read_network
from edge_tune.benchmark.measurement import Measurement
from edge_tune.benchmark.statistics import noise_floor, ratio_text
from edge_tune.command import say
from edge_tune.errors import ExperimentError
from edge_tune.experiment import Benchmark, Precision
from edge_tune.records.entries import Evidence, TimeSummary
from edge_tune.records.jsonfiles import to_json
from edge_tune.records.results import Results
from edge_tune.waiting import told

COMMANDS = {"granularity": granularity.main, "layers": layers.main}


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.benchmark") -> int:
    """Run the command and return its exit code: 0 done, 2 bad input, 1 the device failed while it measured."""
    return command.run(lambda words: _main(words, program), arguments)


def _main(words: Sequence[str], program: str) -> int:
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:], f"{program} {words[0]}")
    given = _parser(program).parse_args(words)
    if given.model.is_dir():
        return _compare(given)
    with told(lambda line: say(line, sys.stderr), f"{given.device} to measure"):
        answer = _measure(given)
    say(to_json(answer, indent=2) if given.json else "\n".join(_lines(answer)))
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    defaults = Benchmark()
    parser = argparse.ArgumentParser(
        prog=program,
        description="Measure a network, in turns with a reference if there is one, which is also measured against "
        "itself: what lies within that noise is not distinguishable.",
    )
    parser.add_argument(
        "model",
        type=given_path,
        metavar="MODEL.onnx|RESULTS",
        help="network of one input of static shape, batch 1; or the folder of a study, all networks of which that it "
        "kept are measured in turns with its unpruned one, and compared with what the study's device said",
    )
    parser.add_argument("--reference", type=given_path, metavar="REF.onnx", help="network to form the ratio to")
    parser.add_argument(
        "--device", default=defaults.device, metavar="NAME", help="OpenVINO device, or onnxruntime:CPU (default: CPU)"
    )
    parser.add_argument(
        "--precision", default=defaults.precision, choices=get_args(Precision), help="arithmetic of the device"
    )
    parser.add_argument("--threads", type=int, default=defaults.threads, metavar="N", help="of the CPU")
    parser.add_argument(
        "--runs", type=int, default=defaults.runs, metavar="N", help="inferences, at least, if there is time"
    )
    parser.add_argument(
        "--max-s", type=float, default=defaults.max_s, metavar="S", help="seconds that the networks may run in all"
    )
    parser.add_argument(
        "--device-python",
        type=given_text,
        metavar="FILE",
        help="interpreter whose OpenVINO or ONNX Runtime has the device (make legacy-runtime)",
    )
    parser.add_argument(
        "--device-host", type=given_text, metavar="USER@HOST", help="board that has the device, as ssh names it"
    )
    parser.add_argument(
        "--trust-model",
        action="store_true",
        help="of a study: import the module of a network that is package.module:function, which runs its code",
    )
    parser.add_argument("--json", action="store_true", help="print all the evidence as JSON")
    return parser


def _settings(given: argparse.Namespace) -> Benchmark:
    settings = Benchmark(
        device=given.device,
        precision=given.precision,
        threads=given.threads,
        runs=given.runs,
        max_s=given.max_s,
        python=given.device_python,
        host=given.device_host,
    )
    ExperimentError.raise_if(settings.problems())
    return settings


def _compare(given: argparse.Namespace) -> int:
    """Measure the networks of a study and print how they stand on both devices."""
    if given.reference:
        raise ExperimentError(
            f"{given.model}: a study's networks are measured in turns with its own unpruned one, but --reference is "
            f"{given.reference}; leave it out."
        )
    settings, results = _settings(given), Results(given.model)
    results.require()
    device = require_device(settings)
    found = elsewhere.compare(
        results, settings, device, trust_model=given.trust_model, say=lambda line: say(line, sys.stderr)
    )
    say(to_json(found, indent=2) if given.json else "\n".join(elsewhere.text(found)))
    return 0


def _measure(given: argparse.Namespace) -> dict[str, Measurement]:
    """Return the measurement of the model, and that of the reference to itself."""
    settings = _settings(given)
    model = read_network(given.model)
    reference = read_network(given.reference) if given.reference else None
    require_device(settings)
    backend = open_backend(settings, measuring_cpus(settings.threads))
    try:
        answer = {"model": backend.measure(model, settings, reference)}
        if reference is not None:
            answer["reference"] = backend.measure(reference, settings, reference)
        return answer
    finally:
        backend.close()


def _lines(answer: Mapping[str, Measurement]) -> Iterator[str]:
    """Yield the answer for a person."""
    model, evidence = answer["model"], answer["model"].evidence
    device = ", ".join(part for part in (evidence.text, evidence.runtime_text) if part)
    yield f"{device}, {evidence.precision}, threads: {evidence.threads}"
    yield f"latency_ms        {model.latency_ms:.4f}{_of(evidence, 'latency_ms')}"
    yield f"total_latency_ms  {model.total_latency_ms:.4f}{_of(evidence, 'total_latency_ms')}"
    if evidence.total_latency:
        yield f"runs              {_summary(evidence.total_latency)}"
    yield f"throughput_fps    {model.throughput_fps:.1f}"
    if "reference" not in answer:
        return
    itself = answer["reference"].evidence.intervals
    for metric, ratio in evidence.intervals.items():
        floor = noise_floor(itself[metric])
        yield f"{metric}: {ratio_text(ratio, floor)} (noise floor {100 * floor:.1f} %)"
    if evidence.ratios and evidence.stopped_by:
        known = "" if evidence.is_precise else ": imprecise, give the host less to do or raise --max-s"
        yield f"{evidence.ratios.rounds} rounds, ended by {evidence.stopped_by}{known}"


def _of(evidence: Evidence, metric: str) -> str:
    """Return the milliseconds of the reference in the same turns, if there was one."""
    return f" of {evidence.reference_ms[metric]:.4f}" if metric in evidence.reference_ms else ""


def _summary(total: TimeSummary) -> str:
    found = vars(total)
    figures = ", ".join(f"{name} {found[name]:.4f}" for name in ("min", "p10", "median", "p90"))
    return f"{figures} ms; n = {total.n}"


if __name__ == "__main__":
    sys.exit(main())
