"""Trained weights: from a file or a URL, into a network that they must fit."""

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import safetensors.torch
import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError
from edge_tune.experiment import own_name
from edge_tune.loading import without_secrets
from edge_tune.networks.download import download
from edge_tune.wording import counted, listed

AUXILIARY = {"GoogLeNet": ("aux1.", "aux2."), "Inception3": ("AuxLogits.",)}
"""torchvision's networks whose published files hold classifiers for training only: EdgeTune builds none of these."""

OLD_NAMES = {
    "DenseNet": ((r"(denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$", r"\1\2"),),
    "VisionTransformer": ((r"(\.mlp)\.linear_1\.(\w+)$", r"\1.0.\2"), (r"(\.mlp)\.linear_2\.(\w+)$", r"\1.3.\2")),
}
"""torchvision's networks whose published files are older than the names of their layers: what these were, and are."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that fit a network but for the number of its classes, so that it needs a new classifier.

    Attributes:
        body: All of them but the classifier's, by name.
        classifier: The names of the classifier's parameters.
    """

    body: Mapping[str, Tensor]
    classifier: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A short text that is equal for equal weights."""
        sha256 = hashlib.sha256()
        for name, value in sorted(self.body.items()):
            sha256.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            sha256.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha256.hexdigest()[:16]


def read_weights(source: str, say: Callable[[str], None] = lambda line: None) -> dict[str, Tensor]:
    """Return the weights in a file or behind a URL, on the CPU.

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
    weights = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not weights:
        raise ExperimentError(
            f"{source}: must hold a state_dict, names with their tensors, but got none in a "
            f"{type(found).__name__}; save model.state_dict()."
        )
    return weights


def load_pretrained(
    model: nn.Module, weights: Mapping[str, Tensor], num_classes: int, source: str, say: Callable[[str], None]
) -> Pretrained | None:
    """Copy weights that a user gives into `model`, also those that torchvision publishes for it, under older names.

    Where only the number of classes differs, the model keeps its own classifier, and what fits is returned.

    Args:
        source: Where the weights came from, for the message.
        say: Receives a line for whatever is not copied as it is named.

    Raises:
        ExperimentError: As `load_weights`.
    """
    weights = _as_built(model, weights, say)
    own = model.state_dict()
    names = _other_classifier(own, weights, num_classes)
    if not names:
        load_weights(model, weights, source)
        return None
    body = {name: value for name, value in weights.items() if name not in names}
    load_weights(model, {**body, **{name: own[name] for name in names}}, source)
    say(
        f"weights: {counted(len(weights[names[0]]), 'class', 'classes')}, the data has {num_classes}: a new classifier "
        f"({', '.join(names)}) is trained, first alone, then with the whole network."
    )
    return Pretrained(body, names)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy `weights` into `model`; every name and shape must agree, and every value be a finite number.

    A leading "module." is dropped where the network has no such name.

    Args:
        source: Where the weights came from, for the message.

    Raises:
        ExperimentError: Some weights are missing, unexpected, of another shape or kind, or not finite.
    """
    own = model.state_dict()
    weights = {own_name(name, own): value for name, value in weights.items()}
    # Files written before torch 0.4.1 have no such counters, and batch norm does without.
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own]
    changed = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if not (missing or unexpected or changed):
        _check_values(own, weights, source)
        own.update(weights)  # it also knows the versions of the layers that have the shapes just compared
        model.load_state_dict(own)
        return
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


def _as_built(model: nn.Module, weights: Mapping[str, Tensor], say: Callable[[str], None]) -> dict[str, Tensor]:
    """Return weights under today's names, and without classifiers that a network of torchvision is built without."""
    own = model.state_dict()
    weights = {own_name(name, own): value for name, value in weights.items()}
    kinds = {kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("torchvision.models.")}
    patterns = [pattern for kind in kinds for pattern in OLD_NAMES.get(kind, ())]
    prefixes = [prefix for kind in sorted(kinds) for prefix in AUXILIARY.get(kind, ())]
    renamed: dict[str, str] = {}
    for name in weights:
        for old, new in patterns:
            today = re.sub(old, new, name)
            if name not in own and today in own and today not in weights:
                renamed[name] = today
    left_out = [name for name in weights if name not in own and name.startswith(tuple(prefixes))]
    if renamed:
        old, today = next(iter(renamed.items()))
        say(f"weights: {counted(len(renamed), 'older name')} read as torchvision's of today, such as {old} as {today}.")
    if left_out:
        heads = ", ".join(prefix.removesuffix(".") for prefix in prefixes)
        say(
            f"weights: {counted(len(left_out), 'tensor')} of {heads} left out: classifiers that only training uses, "
            f"which the network is built without."
        )
    return {renamed.get(name, name): value for name, value in weights.items() if name not in left_out}


def _other_classifier(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], num_classes: int) -> tuple[str, ...]:
    """Return the names of the classifier's parameters if weights are of another number of classes; else none.

    A layer with so many outputs that alone differs, and in their number only, is read by no other: it classifies.
    """
    changed = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    layers = {name.rpartition(".")[0] for name in changed}
    whole = tuple(name for name in own if name.rpartition(".")[0] in layers)
    if len(layers) != 1 or not set(whole) <= weights.keys():
        return ()
    counts = {(*weights[name].shape[:1], *own[name].shape[:1]) for name in whole}
    alike = all(weights[name].shape[1:] == own[name].shape[1:] and own[name].dim() for name in whole)
    return whole if alike and len(counts) == 1 and counts.pop()[1:] == (num_classes,) else ()
