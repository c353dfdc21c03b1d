"""Networks that the command is given by their names."""

import torch
from torch import Tensor, nn

from tests.networks import Block


class Residual(nn.Module):
    """A stem and three residual blocks of 32 channels; what arrives at the blocks is never negative."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(Block(32), Block(32), Block(32))
        self.fc = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(torch.relu(self.bn(self.stem(images)))).mean(dim=(2, 3)))


class Attends(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.mean(dim=1)
        return self.fc(self.attention(rows, rows, rows)[0].mean(dim=1))


def residual(num_classes: int) -> nn.Module:
    return Residual(num_classes)


def attends(num_classes: int) -> nn.Module:
    return Attends(num_classes)


def linear(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))
