"""Trained weights: from a file or a URL, into a network that they must fit."""

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import safetensors.torch
import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError
from edge_tune.loading import without_secrets
from edge_tune.networks.download import download
from edge_tune.wording import listed


def read_weights(source: str, say: Callable[[str], None] = lambda line: None) -> dict[str, Tensor]:
    """Return the weights in a file or behind a URL, on the CPU and without a leading "module.".

    Args:
        source: Path or URL of a `state_dict`, of a checkpoint that holds one as "state_dict" or "model", or of
            safetensors. What is downloaded is kept in torch.hub's folder, one file a URL.
        say: Receives a line now and then while a file is downloaded.

    Raises:
        ExperimentError: There is no such file, or it holds no plain tensors.
    """
    shown = without_secrets(source)
    try:
        path = _local_path(source, say)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # it may not be read, there is no ~user, no such URL
        raise ExperimentError(f"{shown}: weights must be a file or a URL, but got: {error}; check both.") from error
    if not is_file:
        raise ExperimentError(f"{shown}: weights must be a file or a URL, but got no such file; check the path.")
    try:
        return state_in(path.read_bytes(), shown if str(path) == source else f"{shown} ({path})")
    except OSError as error:
        raise ExperimentError(f"{shown}: weights must be a file that can be read, but got {error.strerror}.") from error


def state_in(content: bytes, source: str) -> dict[str, Tensor]:
    """Return the weights in the bytes of a file that torch.save or safetensors wrote; no code is run from it.

    Args:
        source: Where they came from, for the message.

    Raises:
        ExperimentError: They are no such file, or it holds no plain tensors.
    """
    found = _tensors(content, source)
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    entries = found.items() if isinstance(found, Mapping) else ()
    weights = {str(name).removeprefix("module."): value for name, value in entries if isinstance(value, Tensor)}
    if not weights:
        raise ExperimentError(
            f"{source}: must hold a state_dict, names with their tensors, but got none in a "
            f"{type(found).__name__}; save model.state_dict()."
        )
    return weights


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `model`; every name and shape must agree, and every value be a finite number.

    Args:
        source: Where the weights came from, for the message.

    Raises:
        ExperimentError: Some weights are missing, unexpected, of another shape or kind, or not finite.
    """
    own = model.state_dict()
    # Files written before torch 0.4.1 have no such counters, and batch norm does without.
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own]
    changed = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if not (missing or unexpected or changed):
        _check_values(own, weights, source)
        model.load_state_dict(weights)
        return
    if not (missing or unexpected) and (counts := _class_counts(own, weights, changed)):
        raise ExperimentError(
            f"{source}: weights must fit the network, but only the classifier ({', '.join(changed)}) differs: "
            f"the file has {counts[0]} classes, the data {counts[1]}; give weights trained on this data."
        )
    shapes = [f"{name} {list(weights[name].shape)} instead of {list(own[name].shape)}" for name in changed]
    findings = (("lacks", missing), ("has the unknown", unexpected), ("has the shapes", shapes))
    raise ExperimentError(
        f"{source}: weights must fit the network, but the file "
        f"{', '.join(f'{verb} {listed(names)}' for verb, names in findings if names)}; "
        f"give weights of this network or change the model."
    )


def is_download(source: str) -> bool:
    """Tell whether weights come from the network."""
    return urlsplit(source).scheme in ("http", "https")


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights that hold NaN or infinity."""
    return [name for name, value in weights.items() if not bool(value.isfinite().all())]


def _check_values(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> None:
    """Check that values are plain numbers of the kind that the network computes with, and finite."""
    strange = [name for name, value in weights.items() if _kind(value) != _kind(own[name])]
    if strange:
        kinds = ", ".join(sorted({str(weights[name].dtype).removeprefix("torch.") for name in strange}))
        raise ExperimentError(
            f"{source}: weights must be dense tensors of the kind that the network has, but got {kinds} for "
            f"{listed(strange)}; give weights that are not quantised or packed."
        )
    if infinite := not_finite({name: value.to(own[name].dtype) for name, value in weights.items()}):
        raise ExperimentError(
            f"{source}: weights must be finite numbers, but {listed(infinite)} hold NaN or infinity; give weights of a "
            f"training that did not diverge."
        )


def _kind(value: Tensor) -> tuple[bool, bool]:
    """Return whether a tensor holds floating-point numbers, and whether it holds them one by one."""
    return value.is_floating_point(), value.layout == torch.strided and value.device.type == "cpu"


def _local_path(source: str, say: Callable[[str], None]) -> Path:
    url = urlsplit(source)
    if url.scheme == "file":
        return Path(url2pathname(url.path))
    if not is_download(source):
        return Path(source).expanduser()
    folder = Path(torch.hub.get_dir()) / "checkpoints" / hashlib.sha256(source.encode()).hexdigest()[:16]
    path = folder / (Path(url.path).name or "weights")
    if not path.is_file():
        # torchvision's files carry the start of their sha256 in the name: resnet18-f37072fd.pth.
        checksum = re.search(r"-([0-9a-f]{8,64})\.", path.name)
        download(source, path, checksum[1] if checksum else "", say)
    return path


def _tensors(content: bytes, source: str) -> Any:
    """Return what a file holds: it begins as safetensors do, with the length of a JSON object, or torch reads it."""
    try:
        if content[8:9] == b"{":
            return safetensors.torch.load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise ExperimentError(
                f"{source}: must hold tensors only, but got whole pickled objects, which could run code; "
                f"save model.state_dict() instead of the model."
            ) from error
        raise _unreadable(content, source) from error
    except Exception as error:  # both libraries raise this and that for a damaged file
        raise _unreadable(content, source) from error


def _unreadable(content: bytes, source: str) -> ExperimentError:
    return ExperimentError(
        f"{source}: must be a file that torch.save(model.state_dict(), ...) or safetensors wrote, but its "
        f"{len(content)} bytes cannot be read as one; save or download it again."
    )


def _class_counts(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], changed: Sequence[str]
) -> tuple[int, int] | None:
    """Return the classes of the file and of the network if that is all they differ in."""
    last = list(own)[-2:]
    if not all(name in last and weights[name].dim() == own[name].dim() for name in changed):
        return None
    if any(weights[name].shape[1:] != own[name].shape[1:] for name in changed):
        return None
    counts = {(len(weights[name]), len(own[name])) for name in changed}
    return counts.pop() if len(counts) == 1 else None
