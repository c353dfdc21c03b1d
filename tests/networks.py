"""Networks and images small enough for a test, with what the real ones have: residual additions."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

import edge_tune as et

BLOCKS = {
    "first": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Uniform(0.0, 0.99)),
    "second": et.PrunerGroup("filters", ["block2.conv1.weight"], sparsity=et.Uniform(0.0, 0.99)),
}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(features)))
        return self.relu(self.bn2(self.conv2(hidden)) + features)


class Small(nn.Module):
    """Stem and two residual blocks of 8 channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.block1 = Block(8)
        self.block2 = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.block2(self.block1(self.stem(images)))).flatten(1))


class Deep(nn.Module):
    """Stem with a ReLU, and two stages of residual blocks: four of 8 channels, then two of 12."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.stage1 = nn.Sequential(*(Block(8) for _ in range(4)))
        self.wider = nn.Sequential(nn.Conv2d(8, 12, 1, stride=2), nn.BatchNorm2d(12), nn.ReLU())
        self.stage2 = nn.Sequential(*(Block(12) for _ in range(2)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stage2(self.wider(self.stage1(self.stem(images))))
        return self.fc(self.pool(features).flatten(1))


class Pooled(Small):
    """Pools a map of 8x8 to 3x3, which does not divide it: PyTorch computes that, ONNX has no such operation."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.pool = nn.AdaptiveMaxPool2d(3)
        self.fc = nn.Linear(72, num_classes)


def small(num_classes: int) -> nn.Module:
    return Small(num_classes)


def deep(num_classes: int) -> nn.Module:
    return Deep(num_classes)


def experiment(**changes: object) -> et.Experiment:
    """An experiment on `small` and the digits that takes seconds."""
    parts: dict[str, object] = {
        "model": "tests.networks:small",
        "dataset": et.Data("digits", image_size=16, train_images=128),
        "pruner_groups": BLOCKS,
        "target": et.Minimise("latency_ms"),
        "training": et.Retraining(epochs=2, lr=0.1, batch_size=32),
        "retraining": et.Retraining(epochs=2, lr=0.05, batch_size=32, precision="f32"),
        "benchmark": et.Benchmark(device="fake"),
        "search": et.Search("hyperopt", trials=3, seed=0),
        "baselines": {"half": {"first": 0.5, "second": 0.5}},
    }
    return et.Experiment(**{**parts, **changes})  # type: ignore[arg-type]


def write_image_folder(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), images: int = 8, size: int = 16, width: int | None = None
) -> Path:
    """Write train/CLASS/*.png and test/CLASS/*.png of coloured noise."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for shade, label in enumerate(classes):
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in range(images):
                pixels = generator.integers(60 * shade, 60 * shade + 90, (size, width or size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root
