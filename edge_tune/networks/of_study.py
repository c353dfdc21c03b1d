"""The networks that a study keeps, made again from its folder.

Nothing in the folder is run, whoever wrote it: neither an interpreter that it names, nor, unless it is trusted, the
module of a network.
"""

from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError
from torch import nn

from edge_tune.errors import ExperimentError
from edge_tune.networks import models, onnx_export, stored
from edge_tune.records.jsonfiles import content
from edge_tune.records.results import Record, Results


@dataclass(frozen=True)
class StoredNetwork:
    """A network of a study.

    Attributes:
        weights: As `stored.to_bytes` writes them.
        onnx: The whole network, of one image.
    """

    description: stored.Description
    weights: bytes
    onnx: bytes


def stored_network(results: Results, record: Record, *, trust_model: bool = False) -> StoredNetwork:
    """Return the network of a trial or baseline that finished.

    Args:
        trust_model: Import the module of a network that is "package.module:function".

    Raises:
        ExperimentError: Its weights were not kept, or the network's module must be trusted and is not.
        ExportError: ONNX cannot hold the network.
    """
    description, weights = _kept(results, record, None if trust_model else "add --trust-model")
    rebuilt = stored.rebuild_stored(description, weights, results.network_file(record))
    return StoredNetwork(description, weights, onnx_export.to_onnx(rebuilt, description.input_shape))


def trained_network(results: Results, record: Record, *, trust_model: bool = False) -> nn.Module:
    """Return the network of a trial or baseline that finished, to be used here.

    Args:
        trust_model: Import the module of a network that is "package.module:function".

    Raises:
        ExperimentError: Its weights were not kept, or the network's module must be trusted and is not.
    """
    description, weights = _kept(results, record, None if trust_model else "pass trust_model=True")
    return stored.rebuild_stored(description, weights, results.network_file(record))


def _kept(results: Results, record: Record, how_to_trust: str | None) -> tuple[stored.Description, bytes]:
    """Return what a network is, and its weights; None: its module is trusted."""
    weights = _weights(results, record)
    name, _ = model_and_device(results)
    if how_to_trust:
        models.check_trusted(name, results.folder / "run.json", how_to_trust)
    return _description(results, name, record), weights


def model_and_device(results: Results) -> tuple[str, str]:
    """Return the names of a study's network and device."""
    settings = results.run().settings
    if settings.model and settings.benchmark.device:
        return settings.model, settings.benchmark.device
    lacking = "benchmark.device" if settings.model else "model"
    raise ExperimentError(
        f"{results.folder / 'run.json'}: must name the study's model and its device, but lacks {lacking!r}; restore it."
    )


def unpruned_onnx(results: Results) -> bytes:
    """Return the unpruned network, which every study leaves.

    Raises:
        ExperimentError: It is not there.
    """
    file = results.folder / "unpruned.onnx"
    if (found := content(file)) is None:
        raise ExperimentError(f"{file}: must be there to tell the network's input and output, but is not.")
    return found


def _weights(results: Results, record: Record) -> bytes:
    if record.status != "finished":
        raise ExperimentError(
            f"{record.name}: only a trial that finished has weights, but this one {record.status}: {record.reason}"
        )
    if (weights := content(results.network_file(record))) is None:
        kept = ", ".join(sorted(file.stem for file in results.networks.glob("*.pt"))) or "none"
        raise ExperimentError(
            f"{record.name}: its weights must be among those kept in {results.networks} ({kept}), but are not; "
            f"a study keeps those of every trial with --keep-weights all."
        )
    return weights


def _description(results: Results, model: str, record: Record) -> stored.Description:
    """Return what the network is, its input and output read off the unpruned network."""
    file, onnx_file = results.folder / "unpruned.onnx", unpruned_onnx(results)
    try:
        graph = onnx.load_from_string(onnx_file).graph
        (_, channels, height, width), (_, num_classes) = _dims(graph.input[0]), _dims(graph.output[0])
    except (DecodeError, IndexError, ValueError) as error:
        raise ExperimentError(
            f"{file}: must be the unpruned network as ONNX, of one image [1, C, H, W] and one output [1, classes], but "
            f"got {type(error).__name__} ({len(onnx_file)} bytes); restore the file."
        ) from error
    data = results.run().settings.dataset
    return stored.Description(model, num_classes, (channels, height, width), record.plan, data.mean, data.std)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
