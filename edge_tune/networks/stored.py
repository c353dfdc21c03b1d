"""A pruned network as files that make it again: its weights, and a description with the plan."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from torch import nn

from edge_tune.errors import EdgeTuneError, ExperimentError
from edge_tune.files import write_atomically
from edge_tune.networks import models
from edge_tune.networks.couplings import couplings
from edge_tune.networks.pruning import Plan, plan_as_json, plan_from_json, prune
from edge_tune.networks.tracing import Shape
from edge_tune.networks.weights import load_weights, state_in
from edge_tune.records import jsonfiles
from edge_tune.records.entries import Width
from edge_tune.records.jsonfiles import DamageError, converted, read_object

MOST_VALUES = 2**26
"""Of an input: an image of 4,728 x 4,728 pixels in three colours."""


class Description(TypedDict):
    """What plan.json must hold of a network, besides the plan: what `describe` writes."""

    model: str
    num_classes: Annotated[int, Meta(ge=1, le=10**6)]
    input_shape: tuple[Width, Width, Width]


def to_bytes(model: nn.Module) -> bytes:
    """Return the `state_dict` as the bytes of a file that `torch.load(weights_only=True)` reads."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


def rebuild(network: dict[str, Any], weights: bytes) -> nn.Module:
    """Return the pruned network that `describe` and `to_bytes` describe, in eval mode."""
    whole = models.build(network["model"], network["num_classes"])
    plan = plan_from_json(network["plan"])
    pruned = prune(whole, plan, couplings(whole, tuple(network["input_shape"])))
    load_weights(pruned, state_in(weights, "the stored weights"), "the stored weights")
    return pruned.eval()


def rebuild_stored(network: Mapping[str, Any], weights: bytes, where: Path) -> nn.Module:
    """Return the network of files that something may have damaged since they were written.

    Args:
        where: The file of the weights.

    Raises:
        ExperimentError: The description and the weights make no network.
    """
    try:
        check_description(network)
        return rebuild(dict(network), weights)
    except EdgeTuneError as error:
        raise ExperimentError(f"{where}: {error}") from error
    except Exception as error:  # torch and torch-pruning fail in their own ways on a plan that makes no sense
        raise ExperimentError(
            f"{where}: the weights and their description must make a network, but got {type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}; restore both, or export the trial again."
        ) from error


def check_description(network: Mapping[str, Any]) -> None:
    """Check that what `describe` wrote names a network of a size that can be meant.

    Raises:
        DamageError: It does not.
    """
    converted(network, Description)
    if math.prod(network["input_shape"]) > MOST_VALUES:
        raise DamageError(f"expected an input of at most {MOST_VALUES} values, got {network['input_shape']}")


def describe(model: str, num_classes: int, input_shape: Shape, plan: Plan) -> dict[str, Any]:
    """Return what `rebuild` needs besides the weights, as plain JSON types."""
    return {
        "model": model,
        "num_classes": num_classes,
        "input_shape": list(input_shape),
        "plan": plan_as_json(plan),
    }


def write_network(
    folder: Path,
    *,
    network: Mapping[str, Any],
    weights: bytes,
    onnx: bytes,
    ir: tuple[bytes, bytes] | None,
    metrics: Mapping[str, Any],
) -> None:
    """Write the folder that `load_network` reads, with the network for other runtimes and its figures beside it.

    Args:
        network: As `describe` returns it.
        ir: OpenVINO IR: xml, bin; None if no device is there to convert.
    """
    files = {"weights.pt": weights, "model.onnx": onnx, "plan.json": _json(network), "metrics.json": _json(metrics)}
    if ir:
        files |= {"model.xml": ir[0], "model.bin": ir[1]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)


def load_network(folder: Path | str, *, trust_model: bool = False) -> nn.Module:
    """Return the network of a folder that `write_network` wrote (`best/`): plan.json and weights.pt.

    Args:
        trust_model: Import the module of a network that is "package.module:function". Importing it runs its code,
            so say so only if you trust whoever wrote the folder.

    Raises:
        ExperimentError: A file is not there or damaged, or the network's module must be trusted and is not.
    """
    plan, file = Path(folder) / "plan.json", Path(folder) / "weights.pt"
    try:
        network = read_object(plan, _described, "export the trial again")
    except FileNotFoundError as error:
        raise ExperimentError(
            f"{plan}: must describe the network, but there is no such file; check the path."
        ) from error
    if not trust_model:
        models.check_trusted(network["model"], plan, "call load_network(folder, trust_model=True)")
    if (weights := jsonfiles.content(file)) is None:
        raise ExperimentError(f"{file}: must hold the network's weights, but there is no such file; check the path.")
    return rebuild_stored(network, weights, file)


def _described(found: Any) -> dict[str, Any]:
    converted(found, Description)
    return dict(found)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
