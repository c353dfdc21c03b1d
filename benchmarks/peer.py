"""How long a trial without retraining takes, beside the thirty lines that one would write without EdgeTune.

pip install optuna==5.0.0
python -m benchmarks.peer --data CIFAR_FOLDER --weights FILE

The peer is `trial_of_the_peer`: Optuna, torch-pruning, PyTorch's accuracy over the validation split, OpenVINO's own
benchmark_app. EdgeTune runs experiments/resnet56_no_retraining.py with random points, one trial at a time; then the
peer runs the very same points. Both are timed without their start, in turns, and the ratio of each round is printed.
The peer measures latency once, for --seconds; EdgeTune in turns with the unpruned network, until it knows the ratio to
0.64 % or 10 s are over, with an interval, and checks that what it exports computes what it should.
"""

import argparse
import copy
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
import torch_pruning as tp
from torch import nn

import edge_tune as et
from edge_tune.errors import EdgeTuneError
from edge_tune.experiment import Experiment
from edge_tune.loading import load_experiment
from edge_tune.networks.images import Split
from edge_tune.records.entries import Session
from edge_tune.records.results import Record, Results
from edge_tune.search import session, study

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_no_retraining.py"
BATCH_SIZE = 500
BENCHMARK_APP = (
    str(Path(sys.executable).with_name("benchmark_app")),
    *("-d", "CPU", "-api", "sync", "-hint", "none", "-nthreads", "1", "-infer_precision", "f32"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both in turns and print a row a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="for which benchmark_app runs (default: %(default)s)")
    given = parser.parse_args(arguments)
    shipped = load_experiment(EXPERIMENT)
    experiment = replace(
        shipped,
        dataset=replace(shipped.data, name=given.data),
        weights=given.weights,
        stopping=(),
        baselines={},
    )
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}; {given.trials} trials a round, "
        f"benchmark_app for {given.seconds} s\n\n| round | EdgeTune, s a trial | peer, s a trial | ratio |\n"
        "|---|---|---|---|",
        flush=True,
    )
    ratios = []
    for number in range(given.rounds):
        search = et.Search("random", trials=given.trials, seed=number, max_concurrent_trials=1)
        try:
            ours, points = of_edge_tune(replace(experiment, search=search))
        except EdgeTuneError as error:
            print(error, file=sys.stderr)
            return 2
        its = of_the_peer(experiment, points, given.seconds)
        ratios.append(ours / its)
        print(f"| {number + 1} | {ours:.2f} | {its:.2f} | {ours / its:.2f} |", flush=True)
    print(f"\nMedian ratio: {statistics.median(ratios):.2f}, n = {len(ratios)} rounds")
    return 0


def of_edge_tune(experiment: Experiment) -> tuple[float, list[Mapping[str, float]]]:
    """Return the seconds of a trial, mean over all but the first, and the sparsities of each by group."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "study")
        session.run(experiment, results, Session(), EXPERIMENT.read_bytes(), lambda line: None)
        trials = sorted(results.trials(), key=_ended)
    points: list[Mapping[str, float]] = [
        {label: float(record.point[f"{label}.sparsity"]) for label in experiment.pruners}
        for record in sorted(trials, key=lambda record: record.trial)
    ]
    return (_ended(trials[-1]) - _ended(trials[0])) / (len(trials) - 1), points


def of_the_peer(experiment: Experiment, points: Sequence[Mapping[str, float]], seconds: int) -> float:
    """Return the seconds of a trial of the peer, mean over all but the first."""
    import optuna  # of this comparison alone

    prepared = study.prepare(study.load(experiment), lambda line: None)
    network, validation = prepared.network(), prepared.validation
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(directions=["minimize", "maximize"])
    for point in points:
        search.enqueue_trial(dict(point))
    ends: list[float] = []

    def objective(trial: "optuna.Trial") -> tuple[float, float]:
        sparsities = {label: trial.suggest_float(label, 0.0, 0.99) for label in experiment.pruners}
        found = trial_of_the_peer(network, experiment, sparsities, validation, seconds)
        ends.append(time.monotonic())
        return found

    search.optimize(objective, n_trials=len(points))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def trial_of_the_peer(
    network: nn.Module, experiment: Experiment, sparsities: Mapping[str, float], validation: Split, seconds: int
) -> tuple[float, float]:
    """Return latency, ms, and top1, percent, of one pruned network, by as little code as does it."""
    model, example = copy.deepcopy(network).eval(), torch.zeros(1, 3, 32, 32)
    ratios: dict[nn.Module, float] = {
        model.get_submodule(weight.removesuffix(".weight")): sparsities[label]
        for label, group in experiment.pruners.items()
        for weight in group.weights
    }
    others = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in ratios]
    tp.pruner.MagnitudePruner(
        model,
        example,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.0,
        pruning_ratio_dict=ratios,
        ignored_layers=others,
    ).step()
    with torch.no_grad():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in validation.batches(BATCH_SIZE))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(model, (example,), file, dynamo=False)
        said = subprocess.run(
            [*BENCHMARK_APP, "-m", str(file), "-t", str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    (median,) = re.findall(r"Median:\s+([\d.]+) ms", said)
    return float(median), 100 * right / len(validation)


def _ended(record: Record) -> float:
    return datetime.fromisoformat(record.ended_at).timestamp()


if __name__ == "__main__":
    sys.exit(main())
