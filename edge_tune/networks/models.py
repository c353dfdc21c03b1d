"""Name -> network, without trained weights; weights.py reads those.

A network is a name in the experiment file and a `state_dict` on disk, never a pickled module.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_tune.errors import ExperimentError
from edge_tune.experiment import IN_OWN_UNITS
from edge_tune.imports import import_callable

CIFAR_RESNETS = {f"resnet{depth}_cifar": depth for depth in (20, 32, 44, 56, 110)}

ARGUMENTS = {name: {"aux_logits": False, "init_weights": True, "transform_input": True} for name in IN_OWN_UNITS}
"""What two of torchvision's networks are built with: one output also while they train, and, as torchvision builds them
for its own weights, which were trained on other units, the input brought from experiment.MEAN and STD to these."""


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
            "package.module:function", which is called with `num_classes` if it takes it. Of a DataParallel, the network
            inside: what spreads images over GPUs is none.

    Raises:
        ExperimentError: There is no such network, or the function does not return one.
    """
    if ":" in name:
        return _call(name, num_classes)
    if name in CIFAR_RESNETS:
        return CifarResNet(CIFAR_RESNETS[name], num_classes)
    known = names()
    if name in known:
        import torchvision  # only now: it takes a second, in each process

        own = ARGUMENTS.get(name, {})
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **own)
        return model
    matches = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    raise ExperimentError(
        f"model: must be one of {', '.join(CIFAR_RESNETS)}, a torchvision classifier or 'package.module:function', "
        f"but got {name!r}; close matches: {', '.join(matches) or 'none'}."
    )


def names() -> list[str]:
    """Return the networks that come by name: "resnet20_cifar" ... "resnet110_cifar" and torchvision's classifiers."""
    import torchvision  # only now: it takes a second, in each process

    return [*CIFAR_RESNETS, *torchvision.models.list_models(module=torchvision.models)]


def check_trusted(name: str, where: Path, how: str) -> None:
    """Refuse a network that a file names and that only code of its own can build: importing it runs that code.

    Args:
        where: The file.
        how: How the user says that whoever wrote the file is trusted.

    Raises:
        ExperimentError: The network is "package.module:function".
    """
    if ":" in name:
        raise ExperimentError(
            f"{where}: model {name!r} must be imported to build the network, and importing a module runs its code; "
            f"{how} if you trust whoever wrote this file and that module."
        )


def source(name: str) -> str:
    """Return the text of the module that defines "package.module:function"; for others, what they are built with."""
    if ":" not in name:
        return str(ARGUMENTS.get(name, ""))
    file = getattr(importlib.import_module(name.partition(":")[0]), "__file__", None)
    return Path(file).read_text(encoding="utf-8", errors="replace") if file else ""


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
    function = import_callable(name, "model", "name the function that returns the network")
    try:
        model = function(num_classes=num_classes) if _takes_num_classes(function) else function()
    except Exception as error:
        raise ExperimentError(
            f"model {name!r}: must return a network, but raised {type(error).__name__}: {_first_line(error)}; "
            f"mend the function."
        ) from error
    if not isinstance(model, nn.Module):
        raise ExperimentError(f"model {name!r}: must return a torch.nn.Module, but got {model!r}; return the network.")
    return model.module if isinstance(model, nn.DataParallel) else model


def _takes_num_classes(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters
    return "num_classes" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
