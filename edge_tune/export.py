"""A stored trial's network as a folder like best/, without its study: python -m edge_tune.export RESULTS TRIAL DIR.

Nothing is measured and no image is read: metrics.json holds what the study recorded. `load_network` reads the folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_tune import command
from edge_tune.arguments import given_path, given_text
from edge_tune.benchmark.backend import open_backend, require_device
from edge_tune.errors import ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.files import writing
from edge_tune.networks import stored
from edge_tune.networks.of_study import model_and_device, stored_network
from edge_tune.networks.stored import load_network as load_network
from edge_tune.records.entries import ONNX_RUNTIME
from edge_tune.records.results import Record, Results
from edge_tune.records.verdict import read_verdict, row_of, with_test_figures
from edge_tune.search.conclusion import figures


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.export") -> int:
    """Write the folder and return the exit code: 0 done, 2 bad input, 1 failed."""
    return command.run(lambda words: _main(words, program), arguments)


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    record = write_stored(
        Results(given.results),
        given.trial,
        given.folder,
        trust_model=given.trust_model,
        device_python=given.device_python,
    )
    files = sorted(file.name for file in given.folder.iterdir())
    command.say(f"{record.name}: {given.folder} holds {', '.join(files)}")
    return 0


def write_stored(
    results: Results, trial: str, folder: Path, *, trust_model: bool = False, device_python: str | None = None
) -> Record:
    """Write the network of a finished trial, named by number or name, to a new folder; return its record.

    Nothing in the results is run, whoever wrote them: neither an interpreter that they name, nor, unless it is
    trusted, the module of a network.

    Args:
        trust_model: Import the module of a network that is "package.module:function".
        device_python: Interpreter whose OpenVINO converts the network; None: this one, unless ONNX Runtime measured the
            study, which reads the ONNX file.

    Raises:
        ExperimentError: There is no such study, trial or weights, the folder cannot take them, or the network's
            module must be trusted and is not, or the OpenVINO that converts the network is not there.
        ExportError: ONNX cannot hold the network.
        BenchmarkError: OpenVINO cannot convert the network.
        OSError: The disk is full or broken.
    """
    results.require()
    record = find(results, trial)
    _check_free(folder)
    network = stored_network(results, record, trust_model=trust_model)
    (row,) = with_test_figures([row_of(record, record.name)], read_verdict(results))
    ir = _converted(network.onnx, results, device_python)
    with writing(folder, "must be a folder that can be written"):
        stored.write_network(
            folder,
            network=network.description,
            weights=network.weights,
            onnx=network.onnx,
            ir=ir,
            metrics=figures(row, record),
        )
    return record


def find(results: Results, trial: str) -> Record:
    """Return the record of a trial or baseline by its name or number.

    Raises:
        ExperimentError: There is none.
    """
    records = [*results.baselines(), *results.trials()]
    for record in records:
        if trial in (record.name, str(record.trial)):
            return record
    names = f"{records[0].name} to {records[-1].name}" if records else "none so far"
    raise ExperimentError(
        f"{results.folder}: a trial must be the number or name of one that has ended ({names}), but got {trial!r}."
    )


def _check_free(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: must be new or empty, but holds files; choose another folder.")


def _converted(model: bytes, results: Results, python: str | None) -> tuple[bytes, bytes] | None:
    """Return IR from an OpenVINO; None for a study by the formula, or, unless one is named, by ONNX Runtime."""
    _, device = model_and_device(results)
    measured_by = {session.device.measured_by[0] for session in results.run().sessions}
    if device == "fake" or (python is None and ONNX_RUNTIME in measured_by):
        return None
    settings = Benchmark(device="CPU", python=python)
    require_device(settings)
    backend = open_backend(settings, None)
    try:
        return backend.convert(model)
    finally:
        backend.close()


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Write the network of a stored trial as best/ is written: plan.json, weights.pt, model.onnx, "
        "OpenVINO IR unless ONNX Runtime measured the study, metrics.json. Nothing is measured again.",
    )
    parser.add_argument("results", type=given_path, metavar="RESULTS", help="folder of a study")
    parser.add_argument(
        "trial", type=given_text, metavar="TRIAL", help="number or name: 41, trial_0041, off_the_shelf, unpruned"
    )
    parser.add_argument("folder", type=given_path, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--trust-model",
        action="store_true",
        help="import the module of a network that is package.module:function; this runs its code, so say so only if "
        "you trust whoever wrote the results",
    )
    parser.add_argument(
        "--device-python",
        type=given_text,
        metavar="FILE",
        help="interpreter whose OpenVINO converts the network, such as .venv-ncs/bin/python (default: this one)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
