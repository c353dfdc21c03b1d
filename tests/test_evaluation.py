import gc
import math
import weakref
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import nn

from edge_tune.networks import datasets, evaluation, models, onnx_export, oracle
from edge_tune.networks.compiled import Compiled
from edge_tune.networks.evaluation import evaluate, score
from edge_tune.networks.images import Split
from tests.networks import experiment


def test_score_counts_by_hand() -> None:
    logits = torch.tensor(
        [
            [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],  # class 0, right
            [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],  # class 4 is among the first five
            [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],  # class 5 is not
            [0.0, 0.0, 9.0, 0.0, 0.0, 0.0],  # class 2, right
        ]
    )
    result = score(logits, torch.tensor([0, 4, 5, 2]))
    assert (result.top1, result.top5, result.correct, result.images) == (50.0, 75.0, 2, 4)
    assert list(result.predicted) == [3, 0, 1, 0, 0, 0]


def test_score_of_equal_logits_has_the_loss_of_guessing() -> None:
    assert score(torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)).loss == pytest.approx(math.log(3))
    assert score(torch.zeros(8, 3), torch.ones(8, dtype=torch.int64)).top5 == 100.0


def test_evaluate_agrees_with_the_network_itself_whatever_the_batch() -> None:
    torch.manual_seed(0)
    dataset = datasets.load(experiment().data, seed=0)
    network = models.build("resnet20_cifar", 10).train()
    images, labels = next(dataset.train.batches(128))
    with torch.no_grad():
        network(images)
        plain = score(network.eval()(images), labels)
    for batch_size in (7, 128):
        folded = evaluate(network, dataset.train, batch_size=batch_size)
        assert folded.predicted == plain.predicted
        assert folded.loss == pytest.approx(plain.loss, rel=1e-4)


def many_images(count: int = evaluation.WORTH_COMPILING + 7) -> Split:
    generator = np.random.default_rng(0)
    return Split(generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), generator.integers(0, 10, count))


@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v3_small", "tests.networks:deep"])
def test_many_images_are_classified_by_openvino_as_by_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = oracle.made_up(models.build(name, 10), (3, 32, 32), rising=True)
    split = many_images()
    classified = []

    class Counts(Compiled):
        def __call__(self, images: Iterable[torch.Tensor]) -> torch.Tensor:
            logits = super().__call__(images)
            classified.append(len(logits))
            return logits

    monkeypatch.setattr(evaluation, "Compiled", Counts)
    by_openvino = evaluate(network, split)
    assert classified == [evaluation.COMPARED_IMAGES, len(split)]
    with torch.no_grad():
        plain = score(torch.cat([network(images) for images, _ in split.batches(250)]), torch.from_numpy(split.labels))
    assert by_openvino.predicted == plain.predicted
    assert (by_openvino.correct, by_openvino.top5) == (plain.correct, plain.top5)
    assert by_openvino.loss == pytest.approx(plain.loss, rel=1e-4)
    assert evaluate(network, split) == by_openvino


class ByValue(nn.Module):
    """Answers by the brightness of a whole batch, which ONNX would hold one way of."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.fc(images.mean(dim=(2, 3)))
        return logits if images.mean() > 0 else -logits


def test_compiled_networks_are_given_back() -> None:
    compiled = Compiled(models.build("resnet20_cifar", 10).eval(), (3, 32, 32))
    compiled([torch.zeros(2, 3, 32, 32)])
    gone = weakref.ref(compiled)
    del compiled
    gc.collect()
    assert gone() is None


def test_network_that_looks_at_values_is_classified_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "Compiled", None)
    assert evaluate(ByValue(), many_images()).images == 1007


def test_network_that_openvino_cannot_hold_is_classified_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    network, split = models.build("resnet20_cifar", 10), many_images()
    right = evaluate(network, split)
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *_: b"nothing")
    by_pytorch = evaluate(network, split)
    assert by_pytorch.predicted == right.predicted
    assert by_pytorch.loss == pytest.approx(right.loss, rel=1e-4)


class Untraceable(nn.Module):
    """Asks its input for what a tracer's stand-in cannot tell."""

    def __init__(self, ask: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.ask = ask
        self.fc = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.ask(images)
        return self.fc(images.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda images: images.sum() > 0 or None,
        len,
        lambda images: int(images.shape[0]),
        lambda images: np.sqrt(images.shape[0]),
        lambda images: torch.zeros(images.shape[0]).numpy(),
    ],
    ids=["bool", "len", "int", "numpy", "a tensor of its own"],
)
def test_evaluate_takes_a_network_that_cannot_be_traced(ask: Callable[[torch.Tensor], object]) -> None:
    dataset = datasets.load(experiment().data, seed=0)
    assert evaluate(Untraceable(ask), dataset.validation).images == len(dataset.validation)


def test_evaluate_folds_nothing_where_a_pair_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(3, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden = self.bn(self.conv(images))
            return self.fc(self.bn(self.conv(hidden)).mean(dim=(2, 3)))

    torch.manual_seed(0)
    dataset = datasets.load(experiment().data, seed=0)
    network = Twice().train()
    images, labels = next(dataset.train.batches(128))
    with torch.no_grad():
        network.bn.weight.fill_(3.0)
        for _ in range(20):
            network(images)
        plain = score(network.eval()(images), labels)
    assert evaluate(network, dataset.train).loss == pytest.approx(plain.loss, rel=1e-4)
