"""A stored trial's network as a folder like best/, without its study: python -m edge_tune.export RESULTS TRIAL DIR.

Nothing is measured and no image is read: metrics.json holds what the study recorded.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edge_tune import export, pruning
from edge_tune.benchmark.backend import open_backend
from edge_tune.conclusion import figures
from edge_tune.errors import EdgeTuneError, ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.ranking import Row, ratios
from edge_tune.results import Record, Results


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder and return the exit code: 0 done, 2 bad input, 1 failed."""
    given = _parser().parse_args(arguments)
    try:
        record = write_stored(Results(given.results), given.trial, given.folder)
    except ExperimentError as error:
        print(error, file=sys.stderr)
        return 2
    except EdgeTuneError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{record.name}: {given.folder} holds {', '.join(sorted(file.name for file in given.folder.iterdir()))}")
    return 0


def write_stored(results: Results, trial: str, folder: Path) -> Record:
    """Write the network of a finished trial, named by number or name, to a new folder; return its record.

    Raises:
        ExperimentError: There is no such study, trial or weights, or the folder cannot take them.
        ExportError: ONNX cannot hold the network.
        BenchmarkError: The study's OpenVINO, which converts the network, is not there.
    """
    if not results.exists():
        raise ExperimentError(f"{results.folder}: must be the results folder of a study, but holds no run.json.")
    record = find(results, trial)
    weights = _weights(results, record)
    _check_free(folder)
    experiment = results.identity()
    network = _description(results, experiment["model"], record)
    model = export.to_onnx(export.rebuild(network, weights), tuple(network["input_shape"]))
    ir = _converted(model, experiment["benchmark"])
    metrics = figures(_row(results, record), record)
    try:
        export.write_network(folder, network=network, weights=weights, onnx=model, ir=ir, metrics=metrics)
    except OSError as error:
        raise ExperimentError(f"{folder}: must be a folder that can be written, but got: {error.strerror}.") from error
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


def _weights(results: Results, record: Record) -> bytes:
    if record.status != "finished":
        raise ExperimentError(
            f"{record.name}: only a trial that finished has weights, but this one {record.status}: {record.reason}"
        )
    try:
        return results.network_file(record).read_bytes()
    except OSError:
        kept = ", ".join(sorted(file.stem for file in results.networks.glob("*.pt"))) or "none"
        raise ExperimentError(
            f"{record.name}: its weights must be among those kept in {results.networks} ({kept}), but are not; "
            f"a study keeps those of every trial with --keep-weights all."
        ) from None


def _check_free(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: must be new or empty, but holds files; choose another folder.")


def _description(results: Results, model: str, record: Record) -> dict[str, Any]:
    """Return what the network is, its input and output read off the unpruned network that every study leaves."""
    file = results.folder / "unpruned.onnx"
    if not file.is_file():
        raise ExperimentError(f"{file}: must be there to tell the network's input and output, but is not.")
    graph = onnx.load(file).graph
    _, *input_shape = _dims(graph.input[0])
    _, num_classes = _dims(graph.output[0])
    channels, height, width = input_shape
    return export.describe(model, num_classes, (channels, height, width), pruning.plan_from_json(record.plan))


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _converted(model: bytes, benchmark: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    """Return IR from the OpenVINO that measured the study, whose device need not be here; None for the formula."""
    if benchmark["device"] == "fake":
        return None
    backend = open_backend(Benchmark(device="CPU", python=benchmark.get("python")), None)
    try:
        return backend.convert(model)
    finally:
        backend.close()


def _row(results: Results, record: Record) -> Row:
    """Return the trial's figures; those on the test split if the study's verdict has them."""
    tested = _in_verdict(results, record)
    return Row(
        name=record.name,
        trial=record.trial,
        metrics=record.metrics,
        test=tested.get("test", {}),
        device_test_top1=tested.get("device_test_top1"),
        ratios=ratios(record.measurements.get("retrained" if record.epoch else "pruned", {})),
    )


def _in_verdict(results: Results, record: Record) -> Mapping[str, Any]:
    """Return the last row of summary.json on a trial, which is on its weights as they are kept."""
    try:
        rows: list[Mapping[str, Any]] = results.read_json("summary.json")["rows"]
    except FileNotFoundError:
        return {}
    return next((row for row in reversed(rows) if row["trial"] == record.trial), {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_tune.export",
        description="Write the network of a stored trial as best/ is written: plan.json, weights.pt, model.onnx, "
        "OpenVINO IR, metrics.json. Nothing is measured again.",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of a study")
    parser.add_argument("trial", metavar="TRIAL", help="number or name: 41, trial_0041, off_the_shelf, unpruned")
    parser.add_argument("folder", type=Path, metavar="DIR", help="new or empty folder")
    return parser
