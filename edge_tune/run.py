"""The command line: run a study, print what happens, write its results.

python -m edge_tune.run experiments/resnet56_latency.py
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from edge_tune import command, studies
from edge_tune.arguments import given_path, given_size, given_text
from edge_tune.command import say
from edge_tune.errors import ExperimentError, StudyError
from edge_tune.experiment import Experiment, KeepWeights
from edge_tune.loading import load_experiment
from edge_tune.records.results import Results
from edge_tune.waiting import told
from edge_tune.wording import sides

STARTED = f"{'[0-9]' * 8}-{'[0-9]' * 6}"
"""When a study began, as the name of its folder ends: another study's name may begin with this one's."""
UNITS_S = {"s": 1, "m": 60, "h": 3600}


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.run") -> int:
    """Run the command and return its exit code: 0 done, 2 bad input, 1 failed, above 128 interrupted."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Search the pruning of a trained CNN, measuring each candidate on the device. "
        "What is not given here stands in the experiment file.",
    )
    parser.add_argument("experiment", type=given_path, help="experiment file, such as experiments/resnet56_latency.py")
    parser.add_argument(
        "--data",
        type=given_text,
        metavar="NAME|PATH",
        help="digits, cifar10, cifar100, a folder train/CLASS/*, test/CLASS/*, or package.module:function",
    )
    parser.add_argument(
        "--image-size",
        type=given_size,
        metavar="N|HxW|native",
        help="pixels that every image is resized to, a square or height and width; native: the size that all have",
    )
    parser.add_argument(
        "--train-images", type=int, metavar="N", help="train on N images only, the same share of each class"
    )
    parser.add_argument(
        "--weights",
        type=given_text,
        metavar="FILE|URL",
        help="trained weights (state_dict); without any, the network is trained first, and those of other classes are "
        "a start",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="networks to try, besides the baselines")
    parser.add_argument(
        "--epoch-budget",
        type=int,
        metavar="N",
        help="epochs of retraining that all trials may take together, over all sessions; what is left when there is no "
        "other to begin continues paused ones",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of retraining of each trial; 0 for none")
    parser.add_argument(
        "--device",
        type=given_text,
        metavar="NAME",
        help="device that measures: one of OpenVINO (CPU, GPU, ...); onnxruntime:CPU; or fake, a formula",
    )
    parser.add_argument(
        "--device-python",
        type=given_text,
        metavar="FILE",
        help="interpreter whose runtime has the device, such as .venv-ncs/bin/python (make legacy-runtime)",
    )
    parser.add_argument(
        "--device-host",
        type=given_text,
        action="append",
        metavar="USER@HOST",
        help="board that has the device, as ssh names it; it needs a Python with numpy and OpenVINO or ONNX Runtime, "
        "nothing else; once for each of several that are alike (docs/boards.md)",
    )
    parser.add_argument(
        "--device-resource",
        metavar="NAME",
        help="on a cluster: the Ray resource of the nodes that hold the device (ncs, as in cluster.yaml)",
    )
    parser.add_argument(
        "--results", type=given_path, metavar="DIR", help="results folder (default: results/STUDY-TIME)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the suggestions, the validation split and the retraining"
    )
    parser.add_argument(
        "--keep-weights",
        choices=get_args(KeepWeights),
        help="which trials' weights stay on the disk, besides the baselines': the best's, also the Pareto front's (the "
        "default), or those of all that finish; 4 bytes a parameter, 3.5 MB for an unpruned ResNet-56",
    )
    parser.add_argument(
        "--time-budget",
        type=_seconds,
        metavar="TIME",
        help="search for so long, such as 8h, 90m or 300s; then end with what there is, to be resumed or not",
    )
    parser.add_argument(
        "--trial-time-limit",
        type=_seconds,
        metavar="TIME",
        help="stop a trial that has worked for so long before its next epoch",
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="N",
        help="GPUs of each trial: 1, a fraction such as 0.25 for four trials on each, 0 for none (default: one where "
        "the cluster has any)",
    )
    parser.add_argument(
        "--max-failed-trials", type=int, metavar="N", help="end the study, with the reasons, when N trials failed"
    )
    parser.add_argument(
        "--simulate",
        type=_epoch_seconds,
        metavar="SECONDS",
        help="try out the study by formulas: nothing is trained, classified or measured, and an epoch takes so many "
        "seconds. What it names must be there and fit, but for the device and what would be downloaded",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check all that a run checks, time one step and one measurement, say what the study would take, and end",
    )
    parser.add_argument(
        "--warm-start",
        type=given_path,
        nargs="+",
        default=[],
        metavar="RESULTS",
        help="results folders of earlier studies of the same network, from which a new study learns what is comparable",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the study in --results, or the newest of this name"
    )
    parser.add_argument(
        "--promote",
        type=_positive,
        metavar="N",
        help="with --resume: continue the N trials that promise most of those that ASHA or the prediction has paused",
    )
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    experiment = _with_options(load_experiment(given.experiment), given)
    if given.promote and not given.resume:
        raise ExperimentError("--promote: continues trials of a study that was run before; give --resume as well.")
    results = Results(_results_folder(given))
    studies.check_folder(results, resume=given.resume, warm_start=given.warm_start)
    if given.check and (given.simulate is not None or given.resume or given.warm_start):
        raise ExperimentError(
            "--check: looks at a study before it begins, as it would really run by itself, but got --simulate, "
            "--resume or --warm-start; leave that out."
        )
    # Only now: torch and ray take seconds to import, and a mistake in the file should answer at once.
    with told(say, "PyTorch and Ray to be loaded"):
        from edge_tune.search import estimate, session
    if given.check:
        estimate.check(experiment, say)
        return 0

    try:
        studies.conduct(
            experiment,
            results,
            studies.circumstances(
                experiment, str(given.experiment), shlex.join(["python", "-m", "edge_tune.run", *words])
            ),
            studies.without_secrets_of(experiment, given.experiment.read_bytes()),
            say,
            simulated_epoch_s=given.simulate,
            promote=given.promote,
            warm_start=given.warm_start,
        )
    except StudyError as error:
        raise StudyError(f"{error}{_how_to_resume(given, results, ' when this is mended')}") from error
    except KeyboardInterrupt as interruption:
        sentence = "Interrupted before anything was measured; start again."
        if results.exists():
            sentence = f"Interrupted: {session.recorded(experiment, results)}.{_how_to_resume(given, results)}"
        interruption.args = (sentence,)
        raise
    return 0


def _how_to_resume(given: argparse.Namespace, results: Results, when: str = "") -> str:
    """Return the line that tells how to resume the study, if one was begun."""
    return f"\nTo resume{when}: {_command(given, results)}" if results.exists() else ""


def _with_options(experiment: Experiment, given: argparse.Namespace) -> Experiment:
    """Return the experiment with what the command line says instead of the file."""
    data = {"name": given.data, "image_size": given.image_size, "train_images": given.train_images}
    device = given.device if given.simulate is None else "fake"
    parts: dict[str, Any] = {
        "dataset": _replaced(experiment.data, **data),
        "retraining": _replaced(experiment.retraining, epochs=given.epochs),
        "benchmark": _replaced(
            experiment.benchmark,
            device=device,
            python=given.device_python,
            host=given.device_host,
            resource=given.device_resource,
        ),
        "search": _replaced(
            experiment.search,
            trials=given.trials,
            epochs=given.epoch_budget,
            seed=given.seed,
            gpus_per_trial=given.gpus_per_trial,
            time_budget_s=given.time_budget,
            trial_time_limit_s=given.trial_time_limit,
            max_failed_trials=given.max_failed_trials,
        ),
        "weights": given.weights or experiment.weights,
        "keep_weights": given.keep_weights or experiment.keep_weights,
    }
    try:
        return replace(experiment, **parts)
    except ExperimentError as error:
        raise ExperimentError(
            *(f"{given.experiment} with these options: {problem}" for problem in error.problems)
        ) from error


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 8h, 90m or 300s."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS_S or not number.replace(".", "", 1).isdigit() or not float(number):
        raise argparse.ArgumentTypeError(f"must be a time such as 8h, 90m or 300s, but got {text!r}")
    return float(number) * UNITS_S[unit]


def _positive(text: str) -> int:
    """Return a whole number of at least 1."""
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but got {text!r}")


def _epoch_seconds(text: str) -> float:
    """Return the seconds that an epoch of a simulated trial takes."""
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number of seconds of at least 0, such as 0.5, but got {text!r}")


def _replaced(part: Any, **values: Any) -> Any:
    return replace(part, **{name: value for name, value in values.items() if value is not None})


def _results_folder(given: argparse.Namespace) -> Path:
    """Return the folder asked for, the newest of this study to resume, or a new one."""
    if given.results:
        return Path(given.results)
    study = given.experiment.stem
    if given.resume:
        folders = sorted(path.parent for path in Path("results").glob(f"{study}-{STARTED}/run.json"))
        if not folders:
            raise ExperimentError(f"--resume: needs a study to resume, but results/{study}-*/ holds none; start one.")
        return folders[-1]
    return Path("results") / f"{study}-{datetime.now():%Y%m%d-%H%M%S}"


def _command(given: argparse.Namespace, results: Results) -> str:
    """Return the command that resumes the study."""
    times = {name: f"{value:.15g}s" for name in ("time_budget", "trial_time_limit") if (value := getattr(given, name))}
    size = {"image_size": sides(given.image_size)} if isinstance(given.image_size, tuple) else {}
    shown = {**vars(given), **times, **size}
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, values in shown.items()
        if _is_option(name, values)
        for value in (values if isinstance(values, list) else [values])
    ]
    words = [str(given.experiment), *options, f"--results={results.folder}", "--resume"]
    return shlex.join([command.tool("python"), "-m", "edge_tune.run", *words])


def _is_option(name: str, value: object) -> bool:
    return value is not None and name not in ("experiment", "results", "check", "resume", "promote", "warm_start")


if __name__ == "__main__":
    sys.exit(main())
