import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edge_tune.networks import datasets, models
from edge_tune.networks.evaluation import evaluate, score
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
