"""Trained weights: from a file or a URL, into a network that they must fit."""

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError


def read_weights(source: str) -> dict[str, Tensor]:
    """Return the weights in a file or behind a URL, on the CPU and without a leading "module.".

    Args:
        source: Path or URL of a `state_dict`, or of a checkpoint that holds one as "state_dict" or
            "model". What is downloaded is kept in torch.hub's folder, one file a URL.

    Raises:
        ExperimentError: There is no such file, or it holds no plain tensors.
    """
    try:
        path = _local_path(source)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # it may not be read, there is no ~user, no such URL
        raise ExperimentError(f"{source}: weights must be a file or a URL, but got: {error}; check both.") from error
    if not is_file:
        raise ExperimentError(f"{source}: weights must be a file or a URL, but got no such file; check the path.")
    content = _load_tensors(path, source)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    entries = content.items() if isinstance(content, Mapping) else ()
    weights = {str(name).removeprefix("module."): value for name, value in entries if isinstance(value, Tensor)}
    if not weights:
        raise ExperimentError(
            f"{source}: must hold a state_dict, names with their tensors, but got none in a "
            f"{type(content).__name__}; save model.state_dict()."
        )
    return weights


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `model`; every name and shape must agree.

    Args:
        source: Where the weights came from, for the message.

    Raises:
        ExperimentError: Some weights are missing, unexpected, or of another shape.
    """
    own = model.state_dict()
    # Files written before torch 0.4.1 have no such counters, and batch norm does without.
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own]
    changed = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if not (missing or unexpected or changed):
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
        f"{', '.join(f'{verb} {_first(names)}' for verb, names in findings if names)}; "
        f"give weights of this network or change the model."
    )


def _local_path(source: str) -> Path:
    url = urlparse(source)
    if url.scheme == "file":
        return Path(url2pathname(url.path))
    if url.scheme not in ("http", "https"):
        return Path(source).expanduser()
    folder = Path(torch.hub.get_dir()) / "checkpoints" / hashlib.sha256(source.encode()).hexdigest()[:16]
    path = folder / (Path(url.path).name or "weights")
    if not path.is_file():
        # torchvision's files carry the start of their sha256 in the name: resnet18-f37072fd.pth.
        checksum = re.search(r"-([0-9a-f]{8,64})\.", path.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(source, str(path), checksum and checksum[1], progress=False)
        except (OSError, RuntimeError, HTTPException) as error:
            raise ExperimentError(
                f"{source}: weights must be downloaded once, but the download failed ({error}); "
                f"check the URL and the network, or give a file."
            ) from error
    return path


def _load_tensors(path: Path, source: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise ExperimentError(
                f"{source}: must hold tensors only, but got whole pickled objects, which could run code; "
                f"save model.state_dict() instead of the model."
            ) from error
        raise _not_a_torch_file(path, source) from error
    except Exception as error:
        raise _not_a_torch_file(path, source) from error


def _not_a_torch_file(path: Path, source: str) -> ExperimentError:
    return ExperimentError(
        f"{source}: must be a file that torch.save(model.state_dict(), ...) wrote, but {path} ({path.stat().st_size} "
        f"bytes) cannot be read as one; save or download it again."
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


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
