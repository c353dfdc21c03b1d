"""Where the seconds of a trial without retraining go, and what the driver adds to them.

python -m benchmarks.trial_stages --data CIFAR_FOLDER --weights ../shared/models/resnet56_cifar10_jpeg.pt
Runs experiments/resnet56_no_retraining.py with random points, one trial at a time, every stage for real, and reads the
records; --results reads those of a study without retraining that was run before, one trial at a time. Without options:
the digits, which are fewer (143 validation images), trained on the spot.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import edge_tune as et
from edge_tune.errors import EdgeTuneError
from edge_tune.loading import load_experiment
from edge_tune.records.entries import Session
from edge_tune.records.results import Record, Results
from edge_tune.search import session

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "resnet56_no_retraining.py"
STAGES = ("plan", "prune", "evaluate", "export", "queue", "measure")
"""The device measures while a trial classifies; of "queue" and "measure", what is waited for after that counts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study in a folder that is thrown away and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args(arguments)
    if given.results:
        print_stages(Results(given.results))
        return 0
    experiment = load_experiment(EXPERIMENT)
    experiment = replace(
        experiment,
        dataset=replace(experiment.data, name=given.data),
        weights=given.weights,
        search=et.Search("random", trials=given.trials, max_concurrent_trials=1),
        stopping=(),
    )
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "study")
        try:
            session.run(experiment, results, Session(), EXPERIMENT.read_bytes(), lambda line: None)
        except EdgeTuneError as error:
            print(error, file=sys.stderr)
            return 2
        print_stages(results)
    return 0


def print_stages(results: Results) -> None:
    """Print the median seconds of each stage over the trials, and the driver's overhead."""
    trials = [record for record in results.trials() if record.status != "failed"]
    device = results.run().sessions[0].device
    print(f"{platform.processor() or platform.machine()}, {device.device_name}, n = {len(trials)} trials")
    medians = {stage: statistics.median(record.seconds[stage] for record in trials) for stage in STAGES}
    for stage, median in medians.items():
        print(f"{stage:>10} {median:7.2f} s  {100 * median / sum(medians.values()):5.1f} %")
    wall = _time(trials[-1]) - _time(trials[0])
    in_stages = sum(sum(record.seconds.values()) for record in trials[1:])
    print(f"{'a trial':>10} {wall / (len(trials) - 1):7.2f} s  of wall clock (mean), one after another")
    driver = (wall - in_stages) / (len(trials) - 1)
    print(f"{'driver':>10} {driver:7.2f} s  {100 * (1 - in_stages / wall):5.1f} % overhead")


def _time(record: Record) -> float:
    return datetime.fromisoformat(record.ended_at).timestamp()


if __name__ == "__main__":
    sys.exit(main())
