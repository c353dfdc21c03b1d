"""Name -> network, with or without trained weights.

A network is a name in the experiment file and a `state_dict` on disk, never a pickled module.
"""

import difflib
import hashlib
import importlib
import inspect
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_tune.errors import ExperimentError

CIFAR_RESNETS = {f"resnet{depth}_cifar": depth for depth in (20, 32, 44, 56, 110)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return features [B, outputs, H / stride, W / stride] of `features` [B, inputs, H, W]."""
        shortcut = features if self.downsample is None else self.downsample(features)
        hidden = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(hidden)) + shortcut)


class CifarResNet(nn.Module):
    """ResNet for 32x32 images: a stem of 16 filters, then stages of 16, 32 and 64.

    Args:
        depth: Layers with weights along the main path, 6n + 2; n blocks a stage.

    Source: He et al., CVPR 2016, arXiv:1512.03385, section 4.2, with the projection shortcuts of
        option B. Convolutions start as in He et al., ICCV 2015, arXiv:1502.01852.
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = _conv(3, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, num_classes] of `images` [B, 3, H, W]."""
        features = functional.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        pooled = torch.flatten(functional.adaptive_avg_pool2d(features, 1), 1)
        logits: Tensor = self.fc(pooled)
        return logits


def build(name: str, num_classes: int) -> nn.Module:
    """Return an untrained network.

    Args:
        name: "resnet20_cifar" ... "resnet110_cifar", a torchvision classifier, or
            "package.module:function", which is called with `num_classes` if it takes it.

    Raises:
        ExperimentError: There is no such network, or the function does not return one.
    """
    if ":" in name:
        return _call(name, num_classes)
    if name in CIFAR_RESNETS:
        return CifarResNet(CIFAR_RESNETS[name], num_classes)
    import torchvision  # only now: it takes a second, in each process

    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name in classifiers:
        # Otherwise these two return a tuple of three outputs while they train.
        plain = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **plain)
        return model
    matches = difflib.get_close_matches(name, [*CIFAR_RESNETS, *classifiers], n=5, cutoff=0.4)
    raise ExperimentError(
        f"model: must be one of {', '.join(CIFAR_RESNETS)}, a torchvision classifier or 'package.module:function', "
        f"but got {name!r}; close matches: {', '.join(matches) or 'none'}."
    )


def source(name: str) -> str:
    """Return the text of the module that defines "package.module:function"; "" for networks that come by name."""
    if ":" not in name:
        return ""
    file = getattr(importlib.import_module(name.partition(":")[0]), "__file__", None)
    return Path(file).read_text(encoding="utf-8", errors="replace") if file else ""


def is_download(source: str) -> bool:
    """Tell whether weights come from the network."""
    return urlparse(source).scheme in ("http", "https")


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


def check_output(model: nn.Module, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run one image of `input_shape` (3, H, W) through `model`, which stays in the mode it was in.

    Raises:
        ExperimentError: The network fails on it, or returns anything but [1, num_classes].
    """
    was_training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(torch.zeros(1, *input_shape))
    except Exception as error:
        raise ExperimentError(
            f"model: must take images of shape {list(input_shape)}, but got {type(error).__name__}: "
            f"{_first_line(error)}; change image_size or the model."
        ) from error
    finally:
        model.train(was_training)
    shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != [1, num_classes]:
        raise ExperimentError(
            f"model: must return {[1, num_classes]}, one value a class, but got {shape}; "
            f"change the model's last layer or the data."
        )


def _conv(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (BasicBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def _call(name: str, num_classes: int) -> nn.Module:
    function = _import(name)
    try:
        model = function(num_classes=num_classes) if _takes_num_classes(function) else function()
    except Exception as error:
        raise ExperimentError(
            f"model {name!r}: must return a network, but raised {type(error).__name__}: {_first_line(error)}; "
            f"mend the function."
        ) from error
    if not isinstance(model, nn.Module):
        raise ExperimentError(f"model {name!r}: must return a torch.nn.Module, but got {model!r}; return the network.")
    return model


def _import(name: str) -> Callable[..., object]:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ExperimentError(
            f"model {name!r}: {module_name!r} must be importable, but got {type(error).__name__}: "
            f"{_first_line(error)}; check the name and PYTHONPATH."
        ) from error
    if not hasattr(module, function_name):
        raise ExperimentError(
            f"model {name!r}: {module_name} must define {function_name!r}, but got no such name; check the spelling."
        )
    function = getattr(module, function_name)
    if not callable(function):
        raise ExperimentError(
            f"model {name!r}: {function_name!r} must be a function, but got {function!r}; "
            f"name the function that returns the network."
        )
    return function  # type: ignore[no-any-return]


def _takes_num_classes(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters
    return "num_classes" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _local_path(source: str) -> Path:
    url = urlparse(source)
    if url.scheme == "file":
        return Path(url2pathname(url.path))
    if not is_download(source):
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
