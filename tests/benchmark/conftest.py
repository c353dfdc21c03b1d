"""Networks to measure: real ones, small enough that a measurement is a second."""

import pytest
import torch
from torch import nn

from edge_tune.networks.onnx_export import to_onnx

IMAGE = (3, 16, 16)


def cnn(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    ).eval()


@pytest.fixture(scope="session")
def network() -> nn.Module:
    return cnn(32)


@pytest.fixture(scope="session")
def onnx(network: nn.Module) -> bytes:
    return to_onnx(network, IMAGE)


@pytest.fixture(scope="session")
def wide_onnx() -> bytes:
    return to_onnx(cnn(4 * 32), IMAGE)
