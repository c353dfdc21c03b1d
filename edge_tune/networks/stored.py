"""A pruned network as files that make it again: its weights, and a description with the plan."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import nn

from edge_tune.errors import EdgeTuneError, ExperimentError
from edge_tune.experiment import MEAN, STD, Channels
from edge_tune.files import write_atomically
from edge_tune.networks import models
from edge_tune.networks.couplings import couplings
from edge_tune.networks.pruning import prune
from edge_tune.networks.weights import load_weights, state_in
from edge_tune.records import jsonfiles
from edge_tune.records.entries import Cut, Width
from edge_tune.records.jsonfiles import DamageError, converted, read_object

MOST_VALUES = 2**26
"""Of an input: an image of 4,728 x 4,728 pixels in three colours."""


@dataclass(frozen=True)
class Description:
    """What makes a network again besides its weights: plan.json.

    Attributes:
        input_shape: (C, H, W) of one image.
        mean, std: What it is normalised with, a number for each channel: (RGB in 0..1 - mean) / std. A description
            that lacks them is older than any other but MEAN and STD.
    """

    model: str
    num_classes: Annotated[int, Meta(ge=1, le=10**6)]
    input_shape: tuple[Width, Width, Width]
    plan: tuple[Cut, ...]
    mean: Channels = MEAN
    std: Channels = STD

    @classmethod
    def from_entry(cls, entry: object) -> "Description":
        """Return what parsed JSON says.

        Raises:
            DamageError: It is something else, or a network of a size that cannot be meant.
        """
        network = converted(entry, cls)
        network.check()
        return network

    def check(self) -> None:
        """Check that the network is of a size that can be meant.

        Raises:
            DamageError: It is not.
        """
        if math.prod(self.input_shape) > MOST_VALUES:
            raise DamageError(f"expected an input of at most {MOST_VALUES} values, got {list(self.input_shape)}")


def to_bytes(model: nn.Module) -> bytes:
    """Return the `state_dict` as the bytes of a file that `torch.load(weights_only=True)` reads."""
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()


def rebuild(network: Description, weights: bytes) -> nn.Module:
    """Return the pruned network that a description and `to_bytes` describe, in eval mode."""
    whole = models.build(network.model, network.num_classes)
    pruned = prune(whole, network.plan, couplings(whole, network.input_shape))
    load_weights(pruned, state_in(weights, "the stored weights"), "the stored weights")
    return pruned.eval()


def rebuild_stored(network: Description, weights: bytes, where: Path) -> nn.Module:
    """Return the network of files that something may have damaged since they were written.

    Args:
        where: The file of the weights.

    Raises:
        ExperimentError: The description and the weights make no network.
    """
    try:
        network.check()
        return rebuild(network, weights)
    except EdgeTuneError as error:
        raise ExperimentError(f"{where}: {error}") from error
    except Exception as error:  # torch and torch-pruning fail in their own ways on a plan that makes no sense
        raise ExperimentError(
            f"{where}: the weights and their description must make a network, but got {type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}; restore both, or export the trial again."
        ) from error


def write_network(
    folder: Path,
    *,
    network: Description,
    weights: bytes,
    onnx: bytes,
    ir: tuple[bytes, bytes] | None,
    metrics: Mapping[str, Any],
) -> None:
    """Write the folder that `load_network` reads, with the network for other runtimes and its figures beside it.

    Args:
        ir: OpenVINO IR: xml, bin; None if the device's runtime is not OpenVINO.
    """
    files = {"weights.pt": weights, "model.onnx": onnx, "plan.json": _json(network), "metrics.json": _json(metrics)}
    if ir:
        files |= {"model.xml": ir[0], "model.bin": ir[1]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)


def load_network(folder: Path | str, *, trust_model: bool = False) -> nn.Module:
    """Return the network of a folder that `write_network` wrote (`best/`): plan.json and weights.pt.

    It takes float32 images [N, C, H, W], (RGB in 0..1 - mean) / std; plan.json has `input_shape`, `mean` and `std`.

    Args:
        trust_model: Import the module of a network that is "package.module:function". Importing it runs its code,
            so say so only if you trust whoever wrote the folder.

    Raises:
        ExperimentError: A file is not there or damaged, or the network's module must be trusted and is not.
    """
    plan, file = Path(folder) / "plan.json", Path(folder) / "weights.pt"
    try:
        network = read_object(plan, Description.from_entry, "export the trial again")
    except FileNotFoundError as error:
        raise ExperimentError(
            f"{plan}: must describe the network, but there is no such file; check the path."
        ) from error
    if not trust_model:
        models.check_trusted(network.model, plan, "call load_network(folder, trust_model=True)")
    if (weights := jsonfiles.content(file)) is None:
        raise ExperimentError(f"{file}: must hold the network's weights, but there is no such file; check the path.")
    return rebuild_stored(network, weights, file)


def _json(content: object) -> bytes:
    return (jsonfiles.to_json(content, indent=2) + "\n").encode()
