"""Networks that train, but that no device could ever measure: refused before anything is trained, in one sentence."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edge_tune.run import main

pytestmark = pytest.mark.hostile

FILE = """
import edge_tune as et
from tests.networks import experiment as make

groups = {{"g": et.PrunerGroup("filters", ["{weight}"], sparsity=et.Uniform(0.0, 0.9))}}
experiment = make(
    model="{model}", dataset=et.Data("digits", image_size={size}), pruner_groups=groups, baselines={{}},
    benchmark=et.Benchmark(),
)
"""


class Plain(nn.Module):
    """Two convolutions and a classifier; what becomes of the features is for the others to say."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 8, 3, stride=2)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(self.second(self.first(images).relu())))

    def features(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class Spectrum(Plain):
    def features(self, maps: Tensor) -> Tensor:
        return torch.fft.fft2(maps).abs().mean(dim=(2, 3))


class Singular(Plain):
    def features(self, maps: Tensor) -> Tensor:
        return torch.linalg.svdvals(maps).mean(dim=2)


class Watched(Plain):
    def features(self, maps: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise ValueError("not while\nyou watch")
        return super().features(maps)


class Fractions(Plain):
    def features(self, maps: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_max_pool2d(maps, 2).mean(dim=(2, 3))


HERE = "tests.hostile.test_unexportable"


@pytest.mark.parametrize(
    ("model", "weight", "size", "says"),
    [
        (f"{HERE}:Spectrum", "first.weight", 16, "Exporting the operator 'aten::fft_fft2'"),
        (f"{HERE}:Singular", "first.weight", 16, "Exporting the operator 'aten::linalg_svd"),
        (f"{HERE}:Watched", "first.weight", 16, "ValueError: not while; "),
        (f"{HERE}:Fractions", "first.weight", 16, "adaptive_max_pool2d, output size that are not factor of input size"),
        ("tests.networks:Pooled", "block1.conv1.weight", 16, "adaptive_max_pool2d, output size that are not factor"),
    ],
)
def test_network_that_onnx_cannot_hold(
    model: str,
    weight: str,
    size: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    Path("study.py").write_text(FILE.format(model=model, weight=weight, size=size))
    assert main(["study.py"]) == 2
    output = capfd.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("model: the network must be one that ONNX (opset 13) can hold, but torch.onnx says: ")
    assert says in line
    assert [line.partition(":")[0] for line in output.out.splitlines()] == ["Images"]
    assert {path.name for path in tmp_path.iterdir()} <= {"study.py", "__pycache__"}
